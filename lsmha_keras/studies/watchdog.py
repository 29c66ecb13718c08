"""Takes workers that were killed out of a search."""

import threading
import time

from lsmha_keras.studies.chief_address import chief_address
from lsmha_keras.studies.heartbeat import heartbeat_path
from lsmha_keras.studies.lost_workers import (
    give_up_worker,
    send_chief_home,
    tolerate_losses,
    workers_of,
)

_REMIND = 300.0


class Watchdog:
    """Gives the trials of workers that were killed to others, in the chief's process.

    KerasTuner's chief waits for every worker that it has heard of
    ([keras-tuner#915](https://github.com/keras-team/keras-tuner/issues/915)), so one that was
    killed keeps its trial and the chief for ever. This looks at the workers' heartbeats. One that
    has not changed for `timeout` seconds by this process's clock has lost its trial, which goes to
    the next worker that asks and continues from its last checkpoint; that does not count as a
    failure of the trial. A worker that comes back, having only been suspended, ends a trial that
    another has by now: the first of the two results counts (`tolerate_losses`).

    Once no worker has been there for `timeout` seconds, the chief ends if nothing is left to do,
    and is said to wait, and where, if something is.

    Args:
        oracle: `keras_tuner.Oracle` of the chief.
        directory: path of the study.
        timeout: float, seconds.
        poll: float, seconds between two looks.
        say: function that is told, as a text, which worker was given up.

    Example:

    ```python
    with Watchdog(tuner.oracle, "runs/heads"):
        tuner.search()
    ```
    """

    def __init__(self, oracle, directory, timeout=60.0, poll=1.0, say=print):
        self.oracle = oracle
        self.directory = directory
        self.timeout = timeout
        self.poll = poll
        self.say = say
        self._seen = {}  # worker -> (its heartbeat, when it changed last)
        self._errors = set()
        self._lonely_at = time.monotonic() + timeout  # when to see to a chief without workers
        self._stop = threading.Event()
        # KerasTuner's locks know threads by their names.
        name = f"watchdog-{id(self)}"
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def __enter__(self):
        tolerate_losses(self.oracle)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        # A search that ended by an exception may have left the oracle locked.
        self._thread.join(timeout=10.0)

    def _watch(self):
        while not self._stop.wait(self.poll):
            try:
                self.look()
            except Exception as error:
                # Whatever it is, a chief without its watchdog could wait for ever.
                text = f"{type(error).__name__}: {error}"
                if text not in self._errors:
                    self._errors.add(text)
                    self.say(f"The watchdog could not look at the workers: {text}")

    def look(self):
        """Looks once at all workers and gives up those whose time is over."""
        lost_some, workers = False, workers_of(self.oracle)
        # A worker that leaves and returns under its name is a new one.
        self._seen = {name: seen for name, seen in self._seen.items() if name in workers}
        for worker in sorted(workers):
            if self._silent_for(worker) > self.timeout:
                trial_id = give_up_worker(self.oracle, worker)
                self._seen.pop(worker, None)
                lost_some = True
                lost = f"; trial {trial_id} goes to another" if trial_id else ""
                self.say(f"Worker {worker} gave no sign of life for {self.timeout:g} s{lost}.")
        if workers_of(self.oracle):
            self._lonely_at = time.monotonic() + self.timeout
        elif lost_some or time.monotonic() > self._lonely_at:
            self._lonely_at = time.monotonic() + _REMIND
            if not send_chief_home(self.oracle):
                self.say(f"No worker is at work; the chief waits for one at {chief_address()}.")

    def _silent_for(self, worker):
        now = time.monotonic()
        try:
            beat = heartbeat_path(self.directory, worker).read_text()
        except OSError:
            beat = None
        last, since = self._seen.get(worker, (None, now))
        if worker not in self._seen or beat != last:
            since = now
        self._seen[worker] = (beat, since)
        return now - since
