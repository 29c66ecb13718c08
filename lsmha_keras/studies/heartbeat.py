"""A worker's sign of life."""

import contextlib
import pathlib
import threading
import uuid

from lsmha_keras.files import write_atomically

FOLDER = "workers"


class Heartbeat:
    """Writes a file that changes as long as this process lives, for `Watchdog`.

    A context manager. The file is removed at its end, and stays when the process is killed.

    Args:
        directory: path of the study, which the chief sees, too.
        tuner_id: str, KerasTuner's name of this worker.
        interval: float, seconds between two changes.

    Example:

    ```python
    with Heartbeat("runs/heads", "worker0"):
        tuner.search()
    ```
    """

    def __init__(self, directory, tuner_id, interval=5.0):
        self.path = heartbeat_path(directory, tuner_id)
        self.interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._beat, name=f"heartbeat-{tuner_id}", daemon=True
        )

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
        # A drive that is away must not hide how the search ended.
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _beat(self):
        # Not the time: clocks of two machines differ, and a file that changes needs none.
        life, count = uuid.uuid4().hex, 0
        while not self._stop.is_set():
            count += 1
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.path, f"{life} {count}\n")
            except OSError:
                pass  # a network drive that is away for a moment; the next beat tells
            self._stop.wait(self.interval)


def heartbeat_path(directory, tuner_id):
    """Returns the path of a worker's heartbeat.

    Args:
        directory: path of the study.
        tuner_id: str.

    Returns:
        A `pathlib.Path`.

    Example:
        >>> heartbeat_path("runs/heads", "worker0").name
        'worker0.alive'
    """
    return pathlib.Path(directory) / FOLDER / f"{tuner_id}.alive"
