"""What an oracle of KerasTuner needs to lose workers, and to see them come back."""

import collections
import functools

import grpc
import keras_tuner

from lsmha_keras.studies.chief_address import chief_address

_PROBE = "watchdog"


def synchronized(function):
    """Is `keras_tuner.synchronized`, but lets go of the oracle's lock after an exception, too.

    KerasTuner's keeps it for ever, and the chief with it.

    Args:
        function: function of an oracle and more arguments.

    Returns:
        A function.

    Example:

    ```python
    trials = synchronized(lambda oracle: dict(oracle.ongoing_trials))(tuner.oracle)
    ```
    """

    @keras_tuner.synchronized
    def outcome(oracle, *args, **kwargs):
        try:
            return function(oracle, *args, **kwargs), None
        except Exception as error:
            return None, error

    @functools.wraps(function)
    def call(oracle, *args, **kwargs):
        value, error = outcome(oracle, *args, **kwargs)
        if error is not None:
            raise error
        return value

    return call


@synchronized
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


@synchronized
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
    trial_id = _hand_back(oracle, worker)
    if trial_id is not None:
        _runs_given_up(oracle)[trial_id] += 1
    return trial_id


def tolerate_losses(oracle):
    """Makes an oracle ready for workers that are lost, and for those that come back.

    A worker that finds nothing new to do waits as long as others are at work, in case their trials
    are handed back: KerasTuner would send it home.

    A worker that comes back, having only been suspended, ends a trial that another may have by now.
    A request to end a trial does not tell whose it is, so the first that completed the trial counts
    and what comes later is passed over: KerasTuner would write it down twice. A failure is passed
    over once for every run that was given up, as it may be of that run. If it was the other's, that
    worker still has the trial and KerasTuner lets it try again.

    Args:
        oracle: `keras_tuner.Oracle`.

    Example:

    ```python
    tolerate_losses(tuner.oracle)
    ```
    """
    create_trial, end_trial = oracle.create_trial, oracle.end_trial
    update_trial = oracle.update_trial

    def create_or_wait(oracle, tuner_id):
        trial = create_trial(tuner_id)
        if trial.status == "STOPPED" and oracle.ongoing_trials:
            trial.status = "IDLE"
            oracle.tuner_ids.add(tuner_id)
        return trial

    def update(oracle, *args, **kwargs):
        return update_trial(*args, **kwargs)

    def end_once(oracle, trial):
        trial_id, given_up = trial.trial_id, _runs_given_up(oracle)
        if trial_id in oracle.end_order:
            return
        if trial.status != "COMPLETED" and given_up[trial_id] > 0:
            given_up[trial_id] -= 1
            return
        if trial_id in oracle._retry_queue:
            oracle._retry_queue.remove(trial_id)  # nobody else has begun it
        end_trial(trial)

    oracle.create_trial = functools.partial(synchronized(create_or_wait), oracle)
    oracle.update_trial = functools.partial(synchronized(update), oracle)
    oracle.end_trial = functools.partial(synchronized(end_once), oracle)


def send_chief_home(oracle, timeout=10.0):
    """Asks a chief that no worker is with for a trial, as a worker would.

    KerasTuner's chief ends when it has told a worker that nothing is left. Where the last one was
    killed after its last trial, nobody is there to be told. A trial that is left is handed back.

    Args:
        oracle: `keras_tuner.Oracle` of this process, the chief's.
        timeout: float, seconds.

    Returns:
        bool, whether nothing is left and the chief ends.

    Example:

    ```python
    send_chief_home(tuner.oracle)
    ```
    """
    from keras_tuner.src import protos

    if not oracle.trials or oracle._retry_queue:
        return False
    messages = protos.get_service()
    try:
        # Through its server: asking the oracle itself would not tell the server.
        options = [("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(chief_address(), options=options) as channel:
            stub = protos.get_service_grpc().OracleStub(channel)
            request = messages.CreateTrialRequest(tuner_id=_PROBE)
            answer = stub.CreateTrial(request, timeout=timeout)
    except grpc.RpcError:
        return False
    synchronized(_hand_back)(oracle, _PROBE)
    status = keras_tuner.engine.trial.Trial.from_proto(answer.trial).status
    return status == "STOPPED"


def _hand_back(oracle, worker):
    """The only place that changes the oracle's private state; the caller holds its lock."""
    oracle.tuner_ids.discard(worker)
    trial = oracle.ongoing_trials.pop(worker, None)
    if trial is None:
        return None
    # `end_trial` would count it against the trial's retries, of which there may be none.
    oracle._retry_queue.append(trial.trial_id)
    try:
        oracle.save()
    except Exception as error:  # TensorFlow, which may do the writing, has errors of its own
        # The next trial that begins or ends saves it, too.
        print(f"The oracle's state could not be saved: {error}")
    return trial.trial_id


def _runs_given_up(oracle):
    """Returns how many runs of each trial were given up and have not been heard of since."""
    if not hasattr(oracle, "runs_given_up"):
        oracle.runs_given_up = collections.Counter()
    return oracle.runs_given_up
