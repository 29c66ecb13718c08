import os
import subprocess
import sys

import pytest

from lsmha_keras.benchmark.memory import StepProcess

pytestmark = pytest.mark.backend_free


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


def test_a_script_that_starts_one_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import functools\n"
        "from lsmha_keras.benchmark.memory import StepProcess\n"
        "print('script', flush=True)\n"
        "make = functools.partial(functools.partial, print, flush=True)\n"
        "with StepProcess(make, 'step') as step:\n"
        "    step()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["script", "step"]
