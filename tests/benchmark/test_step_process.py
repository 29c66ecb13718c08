import os

import pytest

from lsmha_keras.benchmark.step_process import StepProcess


def make_writer(path):
    def step():
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")

    return step


def make_broken():
    raise ValueError("no such peer")


def test_step_runs_in_one_other_process(tmp_path):
    path = tmp_path / "processes"
    with StepProcess(make_writer, path) as step:
        step(), step()
        first, second = path.read_text().split()
    assert first == second != str(os.getpid())


def test_process_that_ends_is_an_error():
    with StepProcess(make_broken) as step, pytest.raises(RuntimeError, match="ended"):
        step()
