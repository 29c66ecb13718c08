"""The driver of a search whose trials are tasks of Ray."""

import time

from lsmha_keras.studies.ray_cluster import LostWorkerError

# Seconds between two questions to an oracle that has nothing to propose while nothing runs.
_PAUSE = 0.1


class RaySearch:
    """Asks the oracle for trials, has them trained on a cluster, and tells the oracle the results.

    Only this process talks to the oracle and writes the study's table. Killed, a new one goes on:
    the trials that ran are proposed again, and continue from their checkpoints.

    Args:
        tuner: `StudyTuner`.
        cluster: `RayCluster` that has been entered.
        data_dir: folder that holds the data, or None.

    Example:

    ```python
    with RayCluster(workers=2) as cluster:
        RaySearch(tuner, cluster).run()
    ```
    """

    def __init__(self, tuner, cluster, data_dir=None):
        self.tuner = tuner
        self.cluster = cluster
        self.data_dir = data_dir
        self._proposed = {}  # worker -> trial that it has, or waits for an equal one to end
        self._running = {}  # task -> (worker, trial's job)

    def run(self):
        """Runs the search to its end.

        Raises:
            OSError: if a disk is full, or a machine does not see data or directory. The search can
                be continued.
        """
        self.tuner.oracle.verbose = 0
        while True:
            status = self._ask()
            self._start()
            if self._running:
                self._finish(self.cluster.wait(list(self._running)))
            elif status == "STOPPED":
                return
            else:
                time.sleep(_PAUSE)

    def _ask(self):
        """Gives every free worker a trial; returns the oracle's last status."""
        status = None
        for number in range(self.cluster.workers):
            worker = f"worker{number}"
            if worker not in self._proposed:
                trial = self.tuner.oracle.create_trial(worker)
                status = trial.status
                if status != "RUNNING":
                    break
                self._proposed[worker] = trial
        return status

    def _start(self):
        started = {worker: job for worker, job in self._running.values()}
        for worker, trial in self._proposed.items():
            values = trial.hyperparameters.values
            # Of equal trials one is trained; the others wait, and take its results.
            if worker in started or any(job.values == values for job in started.values()):
                continue
            job = started[worker] = self.tuner.prepare(trial)
            self.tuner.save()  # without its file a search that is killed would begin anew
            task = self.cluster.submit(
                job, self.tuner.callbacks, self.data_dir, self.tuner.fit_verbose
            )
            self._running[task] = worker, job

    def _finish(self, task):
        worker, job = self._running.pop(task)
        trial = self._proposed.pop(worker)
        try:
            result = self.cluster.result(task)
        except LostWorkerError as error:
            rows = job.give_up(str(error))
            self.tuner.say(f"Trial {job.trial} lost its worker at every try: {error}")
        else:
            rows = result["rows"]
            text = "\n".join([f"Trial {job.trial} on {result['machine']}:", *result["lines"]])
            self.tuner.say(text)
        score = self.tuner.conclude(rows)
        if score is None:
            trial.status, trial.message = "FAILED", rows[-1]["error"]
        else:
            metrics = {self.tuner.study.tuner.objective: score}
            self.tuner.oracle.update_trial(trial.trial_id, metrics)
            trial.status = "COMPLETED"
        self.tuner.on_trial_end(trial)
