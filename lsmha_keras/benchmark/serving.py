"""Load test of `lsmha serve`: many clients and bad requests, beside the runtime without HTTP."""

import collections
import contextlib
import http.client
import io
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
import zlib

import numpy as np

from lsmha_keras.errors import RunError
from lsmha_keras.predictor import Predictor

CASE: tuple[str, ...] = ("preset", "runtime", "sent", "images", "clients", "seconds", "bad_percent")
FIGURES: tuple[str, ...] = (
    "images_per_s",
    "bare_images_per_s",
    "share_of_bare",
    "mean_batch",
    "p50_ms",
    "p99_ms",
)
FIGURES += ("slowest_ms", "requests", "bad_requests", "lost", "wrong", "mib_before", "mib_warm")
FIGURES += ("mib_after", "note")
PACKAGES = ("fastapi", "uvicorn", "onnxruntime", "openvino")
SENT = ("array", "photo")
# Seconds of warm-up under load, and of the runtime alone before and after the measurement.
_WARM_UP = 5
_BARE = 5
_PHOTO = (480, 640, 3)
# For rounding: the batch in which an image runs changes the order of sums.
_TOLERANCE = 1e-3

Request = collections.namedtuple("Request", "body kind status scores")


def measure(preset, runtime, sent, images, clients, seconds, bad_percent):
    """Starts a service and loads it with clients that send requests without a pause.

    Args:
        preset: name or directory of a preset.
        runtime: str, as for `Predictor`.
        sent: str, "array" for images of the model's size in one array, "photo" for JPEG files of
            640 x 480 pixels.
        images: int, images per request.
        clients: int, concurrent connections.
        seconds: int, duration of the load.
        bad_percent: int, percentage of requests that must be refused: texts, damaged and empty
            files, photos that are too large, clients that hang up.

    Returns:
        A list of one dict with the keys `FIGURES`. `bare_images_per_s` is the throughput of
        `Predictor` alone for the same input, in batches of the service's mean size. `lost` counts
        requests without an answer, `wrong` those with a wrong one. `mib_*` is the memory of the
        service's process before the first request, after a warm-up, and at the end.

    Raises:
        RuntimeError: if the service does not start, or does not stop cleanly.

    Example:

    ```python
    (row,) = measure("lsmha-small", "onnxruntime", "array", 16, 16, 60, 5)
    ```
    """
    predictor = Predictor(preset, runtime=runtime)
    good, inputs = _good_request(predictor, sent, images)
    with _service(preset, runtime) as url:
        before = _figures(url)
        _load(url, good, clients, _WARM_UP, bad_percent)
        warm = _figures(url)
        batch = _mean_batch(before, warm)
        bare = [_bare(predictor, inputs, batch)]
        load = _load(url, good, clients, seconds, bad_percent)
        after = _figures(url)
    bare.append(_bare(predictor, inputs, batch))
    speed, alone = load.answered * images / load.seconds, sum(bare) / 2
    milliseconds = 1000 * np.array(load.latencies or [np.nan])
    row = {
        "images_per_s": round(speed, 1),
        "bare_images_per_s": round(alone, 1),
        "share_of_bare": round(speed / alone, 3),
        "mean_batch": round(_mean_batch(warm, after), 1),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 2),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 2),
        "slowest_ms": round(float(milliseconds.max()), 2),
        "requests": load.answered + load.bad + load.lost + load.wrong,
        "bad_requests": load.bad,
        "lost": load.lost,
        "wrong": load.wrong,
        "note": load.first_problem,
    }
    for name, figures in (("before", before), ("warm", warm), ("after", after)):
        memory = figures.get("process_resident_memory_bytes")  # on Linux only
        row[f"mib_{name}"] = round(memory / 2**20, 1) if memory else ""
    return [{name: row[name] for name in FIGURES}]


class _Load:
    """The observations of all clients, shared by their threads."""

    def __init__(self):
        self.answered = self.bad = self.lost = self.wrong = 0
        self.latencies, self.first_problem = [], ""
        self.seconds = 0.0
        self._lock = threading.Lock()

    def add(self, name, problem="", latency=None):
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)
            self.first_problem = self.first_problem or problem
            if latency is not None:
                self.latencies.append(latency)


def _load(url, good, clients, seconds, bad_percent):
    load, bad = _Load(), _bad_requests()
    start = time.perf_counter()
    end = start + seconds

    def ask(seed):
        draw = random.Random(seed)
        address = urllib.parse.urlsplit(url).netloc
        with contextlib.closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            while time.perf_counter() < end:
                is_bad = draw.random() * 100 < bad_percent
                _ask(connection, draw.choice(bad) if is_bad else good, load)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - start
    return load


def _ask(connection, request, load):
    start = time.perf_counter()
    try:
        if request.status is None:
            _hang_up(connection, request)
            load.add("bad")
            return
        connection.request("POST", "/classify", request.body, {"Content-Type": request.kind})
        response = connection.getresponse()
        status, answer = response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        load.add("lost", f"no answer: {error!r}")
        connection.close()  # opened anew by the next request
        return
    elapsed = time.perf_counter() - start
    if status != request.status:
        load.add("wrong", f"{status} in place of {request.status}: {answer.get('message')}")
    elif status != 200:
        load.add("bad")
    else:
        scores = [image["classes"][0]["score"] for image in answer["images"]]
        if len(scores) == len(request.scores) and np.allclose(
            scores, request.scores, atol=_TOLERANCE, rtol=0
        ):
            load.add("answered", latency=elapsed)
        else:
            load.add("wrong", "the answer differs from that of `Predictor`")


def _hang_up(connection, request):
    """Closes the connection in the middle of a body."""
    connection.putrequest("POST", "/classify")
    connection.putheader("Content-Type", request.kind)
    connection.putheader("Content-Length", str(2 * len(request.body)))
    connection.endheaders(request.body)
    connection.close()


def _good_request(predictor, sent, images):
    """Returns a request and the same images as an argument of `Predictor`."""
    from PIL import Image

    rng = np.random.default_rng(0)
    if sent == "array":
        inputs = rng.integers(0, 256, (images, *predictor.image_shape), dtype="uint8")
        file = io.BytesIO()
        np.save(file, inputs)
        body, kind = file.getvalue(), "application/x-npy"
    else:
        small = rng.integers(0, 256, (images, 12, 16, 3), dtype="uint8")  # coloured blobs
        inputs = []
        for pixels in small:
            inputs.append(io.BytesIO())
            Image.fromarray(pixels).resize(_PHOTO[1::-1]).save(inputs[-1], "JPEG")
        body, kind = _form([file.getvalue() for file in inputs])
    scores = predictor.probabilities(inputs).max(axis=1)
    return Request(body, kind, 200, scores), inputs


def _form(files):
    boundary = "-" * 20 + "lsmha"
    head = 'Content-Disposition: form-data; name="file"; filename="photo.jpg"\r\n'
    head = f"--{boundary}\r\n{head}Content-Type: image/jpeg\r\n\r\n".encode()
    parts = [head + file + b"\r\n" for file in files]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def _bad_requests():
    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    signature = b"\x89PNG\r\n\x1a\n"
    cut = signature + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0))
    huge = signature + chunk(b"IHDR", struct.pack(">IIBBBBB", 12000, 12000, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(500))) + chunk(b"IEND", b"")
    return [
        Request(b"no image at all " * 500, "image/jpeg", 415, None),
        Request(cut + data, "image/png", 400, None),  # fewer rows than announced
        Request(huge + data, "image/png", 413, None),
        Request(b"", "image/png", 400, None),
        Request(b"{}", "application/json", 415, None),
        Request(b"\x93NUMPY\x01\x00 no header", "application/x-npy", 400, None),
        Request(bytes(5000), "image/png", None, None),
    ]


def _bare(predictor, inputs, batch):
    """Returns the images per second of the runtime alone."""
    if hasattr(inputs, "shape"):
        inputs = inputs[np.arange(batch) % len(inputs)]
    else:
        inputs = [inputs[k % len(inputs)] for k in range(batch)]
    predictor.probabilities(inputs)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _BARE:
        predictor.probabilities(inputs)
        count += batch
    return count / elapsed


def _mean_batch(before, after):
    images, count = (
        after[f"lsmha_batch_images_{name}"] - before[f"lsmha_batch_images_{name}"]
        for name in ("sum", "count")
    )
    return max(1, round(images / count)) if count else 1


@contextlib.contextmanager
def _service(preset, runtime):
    """Runs `lsmha serve` on a free port; yields its address."""
    root = pathlib.Path(__file__).parents[2]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    options = ["serve", str(preset), "--port", "0", "--runtime", runtime]
    process = subprocess.Popen(
        [sys.executable, "-m", "lsmha_keras.cli", *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        if not (found := re.search(r"http://\S+", line)):
            raise RunError(f"`lsmha serve` did not start: {line or 'see above'}")
        yield found[0]
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=60)
    if process.returncode or rest != "stopped\n":
        raise RunError(f"`lsmha serve` ended with status {process.returncode}: {rest}")


def _figures(url):
    """Reads a service's metrics, those without labels, as {name: float}."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line[0] != "#" and "{" not in line]
    return {name: float(value) for name, value in pairs}
