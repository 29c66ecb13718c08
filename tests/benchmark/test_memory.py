"""Peak memory, measured in fresh processes, against allocations of known size."""

import multiprocessing
import sys

import numpy as np
import pytest

from lsmha_keras.benchmark.memory import lack_of_memory, peak_mib

pytestmark = [
    pytest.mark.backend_free,
    pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc"),
]


def allocate(mib):
    np.ones(mib * 2**17)  # float64


def allocate_two_one_after_the_other():
    allocate(200)
    allocate(150)


def peak_in_new_process(function):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_mib, [function])


def allocate_200():
    allocate(200)


def test_peak_sees_what_was_freed_again():
    assert peak_in_new_process(allocate_200) == pytest.approx(200, abs=10)


def test_peak_is_not_the_sum():
    assert peak_in_new_process(allocate_two_one_after_the_other) == pytest.approx(200, abs=10)


def test_peak_of_nothing():
    assert peak_in_new_process(int) < 10


def test_lack_of_memory():
    assert lack_of_memory(0.001) == ""
    assert lack_of_memory(1e6).startswith("not run: it needs about 1000000.0 GiB, ")
