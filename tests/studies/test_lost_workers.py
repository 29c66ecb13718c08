import threading

import pytest

from tests.studies.chief import finish, make_oracle, use_free_port

keras_tuner = pytest.importorskip("keras_tuner")

from lsmha_keras.studies.lost_workers import (  # noqa: E402
    give_up_worker,
    send_chief_home,
    synchronized,
    tolerate_losses,
)
from lsmha_keras.studies.watchdog import Watchdog  # noqa: E402

pytestmark = pytest.mark.backend_free


@pytest.fixture
def oracle(tmp_path):
    return make_oracle(tmp_path)


def as_sent(trial, status):
    """Returns what a worker sends of a trial: a copy, as over the network."""
    return keras_tuner.engine.trial.Trial(trial.hyperparameters.copy(), trial.trial_id, status)


def elsewhere(function):
    """Calls a function in another thread; returns whether it came back, and with what."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(5)
    return results


def test_a_lost_trial_goes_to_the_next_worker_and_does_not_count(oracle):
    assert oracle.max_retries_per_trial == 0
    lost = oracle.create_trial("worker0")
    assert give_up_worker(oracle, "worker0") == lost.trial_id
    assert not oracle.tuner_ids and not oracle.ongoing_trials
    again = oracle.create_trial("worker1")
    assert again.trial_id == lost.trial_id
    assert again.hyperparameters.values == lost.hyperparameters.values
    finish(oracle, again, 0.5)
    assert oracle.end_order == [lost.trial_id]
    assert oracle.trials[lost.trial_id].status == "COMPLETED"


def test_a_worker_without_a_trial(oracle):
    oracle.tuner_ids.add("worker0")
    assert give_up_worker(oracle, "worker0") is None
    assert not oracle.tuner_ids


@pytest.mark.parametrize("begun_again", [False, True])
def test_a_worker_that_comes_back_does_no_harm(oracle, begun_again):
    tolerate_losses(oracle)
    trial = oracle.create_trial("worker0")
    give_up_worker(oracle, "worker0")
    other = oracle.create_trial("worker1") if begun_again else None
    finish(oracle, trial, 0.5)  # it was only suspended
    if begun_again:
        assert other.trial_id == trial.trial_id
        finish(oracle, other, 0.5)
    assert oracle.end_order == [trial.trial_id]
    assert not oracle.ongoing_trials
    # Nobody is given the finished trial.
    assert oracle.create_trial("worker2").trial_id != trial.trial_id


@pytest.mark.parametrize("status", ["INVALID", "FAILED"])
def test_a_late_failure_does_not_spoil_the_other_run(oracle, status):
    tolerate_losses(oracle)
    trial = oracle.create_trial("worker0")
    give_up_worker(oracle, "worker0")
    oracle.create_trial("worker1")
    oracle.end_trial(as_sent(trial, status))
    assert set(oracle.ongoing_trials) == {"worker1"}
    oracle.update_trial(trial.trial_id, {"score": 0.5})
    oracle.end_trial(as_sent(trial, "COMPLETED"))
    assert oracle.trials[trial.trial_id].status == "COMPLETED"
    assert oracle.end_order == [trial.trial_id]


def test_a_failure_of_the_other_run_counts_at_its_second_try(oracle):
    tolerate_losses(oracle)
    trial = oracle.create_trial("worker0")
    give_up_worker(oracle, "worker0")
    for _ in range(2):
        assert oracle.create_trial("worker1").trial_id == trial.trial_id
        oracle.end_trial(as_sent(trial, "FAILED"))
    assert oracle.trials[trial.trial_id].status == "FAILED"
    assert oracle.end_order == [trial.trial_id] and not oracle.ongoing_trials


def test_a_worker_waits_while_a_trial_may_be_handed_back(tmp_path):
    oracle = make_oracle(tmp_path, max_trials=1)
    tolerate_losses(oracle)
    trial = oracle.create_trial("worker0")
    assert oracle.create_trial("worker1").status == "IDLE"
    give_up_worker(oracle, "worker0")
    assert oracle.create_trial("worker1").trial_id == trial.trial_id


def test_an_error_leaves_the_oracle_free(oracle):
    tolerate_losses(oracle)
    trial = oracle.create_trial("worker0")
    with pytest.raises(ValueError, match="Objective value missing"):
        oracle.update_trial(trial.trial_id, {"other": 1.0})
    with pytest.raises(ZeroDivisionError):
        synchronized(lambda oracle: 1 / 0)(oracle)
    assert [other.trial_id for other in elsewhere(lambda: oracle.create_trial("w"))] == ["1"]


@pytest.mark.parametrize("trials", [1, 2])
def test_the_chief_ends_without_workers_when_nothing_is_left(tmp_path, monkeypatch, trials):
    from keras_tuner.src.distribute.oracle_chief import start_server

    use_free_port(monkeypatch)
    oracle, said = make_oracle(tmp_path, max_trials=trials), []
    with Watchdog(oracle, tmp_path, timeout=0.3, poll=0.05, say=said.append):
        chief = threading.Thread(target=start_server, args=(oracle,), name="chief", daemon=True)
        chief.start()
        # Its last sign: killed before it asks for another trial.
        finish(oracle, oracle.create_trial("worker0"), 0.5)
        chief.join(3 if trials == 2 else 15)
        assert chief.is_alive() == (trials == 2)
        if trials == 2:
            assert "waits for one at" in said[-1]
            # The question whether one is left has cost nothing.
            assert not oracle.ongoing_trials and not oracle.tuner_ids
            finish(oracle, oracle.create_trial("worker1"), 0.7)
            chief.join(15)
    assert not chief.is_alive()
    assert oracle.end_order == ["0", "1"][:trials]


def test_without_a_server_nobody_is_sent_home(oracle, monkeypatch):
    use_free_port(monkeypatch)
    assert send_chief_home(oracle) is False  # nothing has begun
    finish(oracle, oracle.create_trial("worker0"), 0.5)
    assert send_chief_home(oracle, timeout=1.0) is False
