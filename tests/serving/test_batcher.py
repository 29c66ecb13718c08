"""What waits makes the next batch; each request gets its own rows."""

import asyncio
import threading

import numpy as np
import pytest

from lsmha_keras.serving.batcher import Batcher
from tests.checks import PATIENCE

pytestmark = pytest.mark.backend_free


class Recorder:
    """A model whose output is its input; the first batch waits until it is let go."""

    def __init__(self, fails_at=()):
        self.batches, self.fails_at, self.go_on = [], fails_at, threading.Event()

    def __call__(self, images):
        assert self.go_on.wait(PATIENCE)
        self.batches.append(images[:, 0].tolist())
        if len(self.batches) in self.fails_at:
            raise RuntimeError("broken")
        return images


def request(*numbers):
    return np.array(numbers)[:, None]


async def ask(recorder, requests, max_batch=4, give_up=()):
    """Sends requests while the first one runs; returns their answers, or what they raised."""
    sizes = []
    batcher = Batcher(recorder, max_batch, on_batch=lambda count, seconds: sizes.append(count))
    tasks = [asyncio.create_task(batcher(images)) for images in requests]
    await asyncio.sleep(0.05)
    for index in give_up:
        tasks[index].cancel()
    await asyncio.sleep(0)
    recorder.go_on.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    batcher.close()
    return [each.ravel().tolist() if hasattr(each, "ravel") else each for each in found], sizes


def test_what_arrives_while_the_model_runs_makes_the_next_batch():
    recorder = Recorder()
    requests = [request(0), request(1), request(2, 3), request(4), request(5, 6), request(7)]

    async def in_turn():
        batcher = Batcher(recorder, 4)
        first = asyncio.create_task(batcher(requests[0]))
        await asyncio.sleep(0.05)  # it runs alone
        others = [asyncio.create_task(batcher(images)) for images in requests[1:]]
        await asyncio.sleep(0)
        recorder.go_on.set()
        return [(await task).ravel().tolist() for task in (first, *others)]

    assert asyncio.run(in_turn()) == [[0], [1], [2, 3], [4], [5, 6], [7]]
    assert recorder.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_a_request_larger_than_a_batch_makes_its_own():
    recorder = Recorder()
    requests = [request(0, 1, 2, 3, 4, 5), request(6), request(7)]
    found, sizes = asyncio.run(ask(recorder, requests))
    assert found == [[0, 1, 2, 3, 4, 5], [6], [7]]
    assert recorder.batches == [[0, 1, 2, 3, 4, 5], [6, 7]] and sizes == [6, 2]


def test_requests_that_were_given_up_are_not_run():
    recorder = Recorder()
    requests = [request(0, 1, 2, 3), request(4), request(5), request(6)]
    found, _ = asyncio.run(ask(recorder, requests, give_up=[0, 2]))
    assert isinstance(found[0], asyncio.CancelledError)  # while it ran
    assert isinstance(found[2], asyncio.CancelledError)  # while it waited
    assert (found[1], found[3]) == ([4], [6])
    assert recorder.batches == [[0, 1, 2, 3], [4, 6]]


def test_an_error_reaches_its_batch_alone():
    recorder = Recorder(fails_at=[1])
    found, sizes = asyncio.run(ask(recorder, [request(0, 1, 2), request(3), request(4)]))
    assert [str(each) for each in found] == ["broken", "broken", "[4]"]
    assert sizes == [1]


def test_warming_up_runs_each_power_of_two():
    recorder = Recorder()
    recorder.go_on.set()
    batcher = Batcher(recorder, 32)
    batcher.warm_up(np.zeros(1))
    assert [len(batch) for batch in recorder.batches] == [1, 2, 4, 8, 16, 32]
    batcher.close()
