"""Batches the images of concurrent requests."""

import asyncio
import collections
import concurrent.futures
import time

import numpy as np


class Batcher:
    """Runs a function on waiting images in a thread, one batch at a time.

    Images never wait for a batch to fill up: those that arrive while the function runs form the
    next batch. A single request is answered at once, and batches grow with the load.

    Args:
        run: function from `(batch, height, width, channels)` images to `(batch, classes)` outputs.
        max_batch: int, largest number of images in a batch. A request with more is a batch of its
            own.
        on_batch: function that is called after each batch with its number of images and seconds.

    Call arguments:
        images: `(count, height, width, channels)` array; all calls must use one dtype.

    Returns:
        `(count, classes)` array. An error in `run` is raised in every call of its batch.

    Example:

    ```python
    batcher = Batcher(predictor.probabilities, max_batch=32)
    rows = await batcher(images)
    ```
    """

    def __init__(self, run, max_batch, on_batch=lambda count, seconds: None):
        self._run, self._max_batch, self._on_batch = run, max_batch, on_batch
        # In a thread, so that decoding and answering continue. One only: a second would compete for
        # the cores that the runtime uses already.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "lsmha-batches")
        self._waiting = collections.deque()
        self._worker = None

    async def __call__(self, images):
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((images, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    def warm_up(self, image):
        """Runs batches of 1, 2, 4, ... copies of an image, in the thread that will serve.

        Backends compile, and runtimes allocate memory, for the first batch of each size.
        """
        sizes = [1 << power for power in range(self._max_batch.bit_length())]
        for size in sizes:
            self._thread.submit(self._run, np.stack([image] * size)).result()

    def close(self):
        """Ends the thread after its current batch."""
        self._thread.shutdown(wait=True)

    async def _work(self):
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            images = np.concatenate([images for images, _ in batch])
            start = time.perf_counter()
            try:
                outputs = await loop.run_in_executor(self._thread, self._run, images)
            except Exception as error:
                # Raise it in every waiting request, and go on: the next batch may succeed.
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._on_batch(len(images), time.perf_counter() - start)
            first = 0
            for images, future in batch:
                if not future.done():  # the request may have been cancelled meanwhile
                    future.set_result(outputs[first : first + len(images)])
                first += len(images)

    def _next_batch(self):
        """Takes requests in the order of arrival, without cancelled ones."""
        batch, count = [], 0
        while self._waiting:
            images, future = self._waiting[0]
            if future.done():
                self._waiting.popleft()
                continue
            if batch and count + len(images) > self._max_batch:
                break
            batch.append(self._waiting.popleft())
            count += len(images)
        return batch
