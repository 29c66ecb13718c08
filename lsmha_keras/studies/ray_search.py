"""Runs the trials of a search as Ray tasks."""

import math
import os
import pathlib
import signal
import socket
import threading
import time

from lsmha_keras._imports import needed_package
from lsmha_keras.arguments import positive_int
from lsmha_keras.errors import InputError, RunError, UnreachableError
from lsmha_keras.studies.ray_task import train_job

# How often Ray retries a trial whose worker or machine is lost.
_RETRIES = 3
# Environment for a Ray started here. By default it reports usage statistics, and runs its workers
# with niceness 15, at which any other process would disturb their latencies.
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
# Seconds between two requests to an oracle that has nothing to propose while nothing runs.
_PAUSE = 0.1


class RaySearch:
    """Asks the oracle for trials, trains them on a cluster, and reports the results to the oracle.

    Only this process talks to the oracle and writes the study's table. If it is killed, a new one
    continues: the oracle proposes the unfinished trials again, and they resume from their
    checkpoints.

    Args:
        tuner: `StudyTuner`.
        cluster: `RayCluster`, already entered.
        data_dir: directory of the data, or None.

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
        self._proposed = {}  # worker -> its trial, which may wait for an equal one
        self._running = {}  # task -> (worker, job of the trial)

    def run(self):
        """Runs the search to its end.

        Raises:
            OSError: if a disk is full, or a machine cannot see the data or the output directory.
                The search can be continued.
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
            # Only one of several equal trials is trained; the others wait and copy its results.
            if worker in started or any(job.values == values for job in started.values()):
                continue
            job = started[worker] = self.tuner.prepare(trial)
            self.tuner.save()  # so that a killed search does not start from scratch
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
            self.tuner.log(f"Trial {job.trial} lost its worker in every attempt: {error}")
        else:
            rows = result["rows"]
            text = "\n".join([f"Trial {job.trial} on {result['machine']}:", *result["lines"]])
            self.tuner.log(text)
        score = self.tuner.conclude(rows)
        if score is None:
            trial.status, trial.message = "FAILED", rows[-1]["error"]
        else:
            metrics = {self.tuner.study.tuner.objective: score}
            self.tuner.oracle.update_trial(trial.trial_id, metrics)
            trial.status = "COMPLETED"
        self.tuner.on_trial_end(trial)


def import_ray():
    """Imports Ray, an optional dependency.

    Returns:
        The module `ray`.

    Raises:
        ImportError: if it is not installed; names the package to install.
    """
    need = "A search with several workers (`--workers`, `--ray`) needs Ray"
    return needed_package("ray", "cluster", need)


class RayCluster:
    """Context manager that trains the jobs of trials as Ray tasks.

    Without `address`, Ray is started on this machine and stopped at the end. If the program has
    already started Ray, that instance is used and left running.

    Args:
        workers: int, most trials at a time. None means 1 on this machine, and as many as fit on a
            cluster.
        address: str, address of a Ray cluster such as "10.0.0.1:6379" or "auto", or None.
        cores: int, cores per trial. None means all cores of this machine divided by `workers`, and
            1 on a cluster.
        gpus: float, GPUs per trial. None means all GPUs of this machine divided by `workers`, and
            1 on a cluster that has any.
        verbose: bool, whether to show the workers' output.

    Raises:
        ImportError: if Ray is not installed.
        ValueError: if a number is not positive.
        ConnectionError: on entering, if nothing answers at `address`.

    Example:

    ```python
    with RayCluster(workers=2) as cluster:
        task = cluster.submit(job, callbacks=(), data_dir=None, verbose=0)
    ```
    """

    def __init__(self, workers=None, address=None, cores=None, gpus=None, verbose=False):
        for name, value in (("workers", workers), ("trial_cores", cores)):
            if value is not None:
                positive_int(name, value)
        if gpus is not None and not (gpus >= 0 and (gpus < 1 or float(gpus).is_integer())):
            raise InputError(
                "`trial_gpus` must be a whole number or a fraction of one GPU. "
                f"Received: trial_gpus={gpus!r}"
            )
        self._ray = import_ray()
        self.workers = workers
        self.address = address
        self.cores = cores
        self.gpus = gpus
        self._verbose = verbose
        self._started = False

    def __enter__(self):
        joined = self.address is not None or self._ray.is_initialized()
        if not joined:
            self.workers = self.workers or 1
            self.cores = self.cores or max(1, _cores_here() // self.workers)
        if not self._ray.is_initialized():
            self._connect()
            self._started = True
        try:
            self._divide(joined)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        if self._started:
            self._ray.shutdown()

    def submit(self, job, callbacks, data_dir, verbose):
        """Starts a job, which Ray retries if its worker is lost.

        Args:
            job: `TrialJob`.
            callbacks: further Keras callbacks, which must be picklable.
            data_dir: directory of the data, or None.
            verbose: as in `lsmha_keras.train`.

        Returns:
            Ray's reference of the task.

        Raises:
            ValueError: if the callbacks cannot be pickled.
        """
        import keras

        try:
            payload = self._ray.cloudpickle.dumps((job, list(callbacks)))
        except Exception as error:
            raise InputError(
                "The callbacks are sent to other processes and must be picklable. "
                f"Received: callbacks={callbacks!r} ({error})"
            ) from error
        data_dir = data_dir or os.environ.get("LSMHA_DATA_DIR")
        settings = {
            "backend": keras.backend.backend(),
            "folder": os.getcwd(),
            "data_dir": data_dir and str(pathlib.Path(data_dir).expanduser().resolve()),
            "verbose": verbose,
            "cores": self.cores,
            "gpus": self.gpus,
        }
        task = self._ray.remote(
            num_cpus=self.cores, num_gpus=self.gpus, max_retries=_RETRIES, retry_exceptions=False
        )(train_job)
        return task.options(name=f"trial {job.trial}").remote(payload, settings)

    def wait(self, tasks):
        """Waits for tasks and returns the first that has ended.

        Args:
            tasks: list of references from `submit`.
        """
        (done,), _ = self._ray.wait(tasks, num_returns=1)
        return done

    def result(self, task):
        """Returns the result of `train_job`.

        Args:
            task: reference from `submit`.

        Raises:
            LostWorkerError: if the worker was lost in every attempt.
            Exception: the exception that the task raised.
        """
        errors = self._ray.exceptions
        try:
            return self._ray.get(task)
        except errors.RayTaskError as error:
            raise error.cause from error
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
        ) as error:
            text = " ".join(str(error).split())[:300]
            raise LostWorkerError(f"{type(error).__name__}: {text}") from error

    def _connect(self):
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        if self.address is None:
            place = {"address": "local", "include_dashboard": False}
            place["num_cpus"] = self.workers * self.cores
        else:
            _check_address(self.address)
            place = {"address": self.address}
        main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        try:
            self._ray.init(**place, log_to_driver=self._verbose, logging_level="ERROR")
        except ConnectionError as error:
            # The port answers. Since Ray 2.60, a cluster asks for a token by default.
            raise UnreachableError(
                f"Ray cannot join the cluster at {self.address} ({error}). If the cluster has a "
                "token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN on every machine. "
                f"Received: {self.address}"
            ) from error
        finally:
            if main:  # Ray installs its own handler, which would bypass ours
                signal.signal(signal.SIGTERM, before)

    def _divide(self, joined):
        """Finds the resources per trial, and how many trials fit."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cores, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
        if joined:
            self.cores = self.cores or 1
            if self.gpus is None:
                self.gpus = 1 if gpus else 0
        elif self.gpus is None:
            # Fractions of a GPU must add up to one.
            share = gpus // self.workers
            self.gpus = share or (1 / math.ceil(self.workers / gpus) if gpus else 0)
        room = sum(
            min(
                node.get("CPU", 0) // self.cores,
                node.get("GPU", 0) // self.gpus if self.gpus else math.inf,
            )
            for node in nodes
        )
        if room < 1:
            raise InputError(
                f"No machine has {self.cores} cores and {self.gpus:g} GPUs for a trial; together "
                f"they have {cores:g} and {gpus:g}. Received: trial_cores={self.cores}, "
                f"trial_gpus={self.gpus:g}"
            )
        self.workers = self.workers or int(room)


class LostWorkerError(RunError):
    """The worker of a trial was lost in every attempt."""


def _cores_here():
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_address(address):
    """Refuses an address where nothing answers; Ray 2.60 would retry for ever."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InputError(
            "The address of a cluster is HOST:PORT, as `ray start --head` prints it, or auto. "
            f"Received: {address}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise UnreachableError(
            f"No Ray cluster answers at {address} ({error.strerror or error}). Start one with "
            f"`ray start --head`, and open the port. Received: {address}"
        ) from error
