"""A search on several machines, by KerasTuner's chief and workers."""

import contextlib
import os

from lsmha_keras.studies.chief_address import check_chief, check_environment, check_port
from lsmha_keras.studies.heartbeat import Heartbeat
from lsmha_keras.studies.watchdog import Watchdog


def role_in_search():
    """Returns what this process is, by KerasTuner's environment variables.

    Returns:
        "alone", "chief" or "worker".

    Raises:
        ValueError: if only some of the variables are set, or the port is not a number.

    Example:
        >>> role_in_search()
        'alone'
    """
    if not check_environment():
        return "alone"
    # As KerasTuner decides it.
    return "chief" if "chief" in os.environ["KERASTUNER_TUNER_ID"] else "worker"


@contextlib.contextmanager
def member_of_search(tuner, role, say):
    """Lets chief and workers know of each other while a search runs.

    Args:
        tuner: `StudyTuner`.
        role: str, what `role_in_search` returned.
        say: function that is told, as a text, when a worker is given up.

    Raises:
        ConnectionError: on a worker, if the chief cannot be reached.
        OSError: on the chief, if it cannot listen at its address.

    Example:

    ```python
    with member_of_search(tuner, role_in_search(), print):
        tuner.search()
    ```
    """
    if role == "chief":
        check_port()
        with Watchdog(tuner.oracle, tuner.project_dir, say=say):
            yield
    elif role == "worker":
        check_chief()
        with Heartbeat(tuner.project_dir, tuner.tuner_id):
            yield
    else:
        yield
