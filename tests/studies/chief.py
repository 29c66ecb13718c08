"""An oracle, and the address of a chief, for tests of searches on several machines."""

import socket


def make_oracle(directory, max_trials=3, **arguments):
    """Returns a random search over ten values of "heads" for the highest "score"."""
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.Choice("heads", list(range(10)))
    objective = keras_tuner.Objective("score", "max")
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective, max_trials=max_trials, hyperparameters=hp, seed=1, **arguments
    )
    oracle._set_project_dir(str(directory), "search")
    oracle.verbose = 0
    return oracle


def finish(oracle, trial, score):
    """Ends a trial as a worker does."""
    oracle.update_trial(trial.trial_id, {"score": score})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def free_port():
    """Returns a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def use_free_port(monkeypatch):
    """Makes this process a chief at a free port, which is returned."""
    port = free_port()
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", port)
    return port
