"""Takes workers that were killed out of a search."""

import functools
import os
import threading
import time

import keras_tuner

from lsmha_keras.studies.heartbeat import heartbeat_path

_REMIND = 300.0


class Watchdog:
    """Gives the trials of workers that were killed to others, in the chief's process.

    KerasTuner's chief waits for every worker that it has heard of
    ([keras-tuner#915](https://github.com/keras-team/keras-tuner/issues/915)), so one that was
    killed keeps its trial and the chief for ever. This looks at the workers' heartbeats. One that
    has not changed for `timeout` seconds by this process's clock has lost its trial, which goes to
    the next worker that asks and goes on from its last checkpoint; that does not count as a failure
    of the trial. A worker that comes back, having only been suspended, ends a trial that another
    has by now: the first of the two results counts.

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
        self._reminded = time.monotonic()
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
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(self.poll):
            self.look()

    def look(self):
        """Looks once at all workers and gives up those whose time is over."""
        workers = workers_of(self.oracle)
        for worker in sorted(workers):
            if self._silent_for(worker) > self.timeout:
                trial_id = give_up_worker(self.oracle, worker)
                self._seen.pop(worker, None)
                lost = f"; trial {trial_id} goes to another" if trial_id else ""
                self.say(f"Worker {worker} gave no sign of life for {self.timeout:g} s{lost}.")
        self._remind(workers)

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

    def _remind(self, workers):
        now = time.monotonic()
        if workers:
            self._reminded = now
        elif now - self._reminded > _REMIND:
            self._reminded = now
            address = ":".join(
                os.environ.get(f"KERASTUNER_ORACLE_{part}", "?") for part in ("IP", "PORT")
            )
            self.say(f"No worker is at work; the chief waits for one at {address}.")


@keras_tuner.synchronized
def workers_of(oracle):
    """Returns the names of the workers that an oracle has heard of and not sent home, as a set.

    Args:
        oracle: `keras_tuner.Oracle`.

    Example:

    ```python
    workers_of(tuner.oracle)
    ```
    """
    return set(oracle.tuner_ids) | set(oracle.ongoing_trials)


@keras_tuner.synchronized
def give_up_worker(oracle, worker):
    """Takes a worker out of a search, and hands its trial back without counting a failure.

    Args:
        oracle: `keras_tuner.Oracle`.
        worker: str, KerasTuner's name of it.

    Returns:
        str, the trial that another worker gets, or None.

    Example:

    ```python
    give_up_worker(tuner.oracle, "worker0")
    ```
    """
    oracle.tuner_ids.discard(worker)
    trial = oracle.ongoing_trials.pop(worker, None)
    if trial is None:
        return None
    # `end_trial` would count it against the trial's retries, of which there may be none.
    oracle._retry_queue.append(trial.trial_id)
    oracle.save()
    return trial.trial_id


def tolerate_losses(oracle):
    """Makes an oracle ready for workers that are lost, and for those that come back.

    A worker that finds nothing new to do waits as long as others are at work, in case their trials
    are handed back: KerasTuner would send it home. A trial that ends a second time, on a worker
    that was given up, is passed over: KerasTuner would write it down twice.

    Args:
        oracle: `keras_tuner.Oracle`.

    Example:

    ```python
    tolerate_losses(tuner.oracle)
    ```
    """
    create_trial, end_trial = oracle.create_trial, oracle.end_trial

    @keras_tuner.synchronized
    def create_or_wait(oracle, tuner_id):
        trial = create_trial(tuner_id)
        if trial.status == "STOPPED" and oracle.ongoing_trials:
            trial.status = "IDLE"
            oracle.tuner_ids.add(tuner_id)
        return trial

    @keras_tuner.synchronized
    def end_once(oracle, trial):
        if trial.trial_id in oracle.end_order:
            return
        if trial.trial_id in oracle._retry_queue:
            oracle._retry_queue.remove(trial.trial_id)  # nobody else has begun it
        end_trial(trial)

    oracle.create_trial = functools.partial(create_or_wait, oracle)
    oracle.end_trial = functools.partial(end_once, oracle)
