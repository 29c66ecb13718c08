"""The service in this process: what it answers, what it refuses, and what it takes on."""

import asyncio
import contextlib
import io
import json
import re
import threading

import numpy as np
import pytest
from PIL import Image

import lsmha_keras as lsmha
from lsmha_keras.benchmark.serving import _bad_requests
from tests.checks import PATIENCE
from tests.models.test_one_photo import photo

pytest.importorskip("fastapi", reason='a service needs `pip install "lsmha-keras[serve]"`')
pytest.importorskip("onnxruntime", reason="computes")
httpx = pytest.importorskip("httpx2", reason="asks the service")

from lsmha_keras.serving.app import create_app  # noqa: E402
from lsmha_keras.serving.uploads import Limits  # noqa: E402

pytestmark = pytest.mark.backend_free


def encode(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


PHOTOS = [photo(*size) for size in ((32, 32), (90, 64), (20, 26))]
FILES = [encode(pixels) for pixels in PHOTOS]
ARRAY = {"Content-Type": "application/x-npy"}


@pytest.fixture(scope="module")
def predictor():
    return lsmha.Predictor("lsmha-small", runtime="onnxruntime", num_threads=1)


@pytest.fixture(scope="module")
def app(predictor):
    return create_app(predictor, Limits(request_mib=1, images=8, megapixels=1, seconds=PATIENCE))


@contextlib.asynccontextmanager
async def client_of(app):
    # What an application raises goes to the server's log, and here nowhere.
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


def ask(app, method="POST", path="/classify", **request):
    async def once():
        async with client_of(app) as client:
            return await client.request(method, path, **request)

    return asyncio.run(once())


def check_classes(found, predictor, images):
    expected = [predictor.best(row) for row in predictor.probabilities(images)]
    assert [[c["label"] for c in e["classes"]] for e in found["images"]] == [
        [c["label"] for c in classes] for classes in expected
    ]
    for entry, classes in zip(found["images"], expected, strict=True):
        assert [c["name"] for c in entry["classes"]] == [c["name"] for c in classes]
        scores = [c["score"] for c in classes]
        np.testing.assert_allclose([c["score"] for c in entry["classes"]], scores, atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["image/png", "", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_a_file_as_the_body(app, predictor, kind):
    response = ask(app, content=FILES[1], headers={"Content-Type": kind} if kind else {})
    assert response.status_code == 200
    found = response.json()
    assert found["model"] == predictor.name and found["images"][0]["image"] is None
    check_classes(found, predictor, PHOTOS[1:2])


def test_the_files_of_a_form(app, predictor):
    names = ["a.png", "b/../c d.png", "ü.png"]
    files = [("file", (name, data)) for name, data in zip(names, FILES, strict=True)]
    response = ask(app, files=files, data={"note": "no file"})
    assert [entry["image"] for entry in response.json()["images"]] == ["a.png", "c d.png", "ü.png"]
    check_classes(response.json(), predictor, PHOTOS)


@pytest.mark.parametrize("size", [(32, 32), (40, 50)])
def test_an_array(app, predictor, size):
    images = np.random.default_rng(0).integers(0, 256, (5, *size, 3), dtype="uint8")
    check_classes(ask(app, content=npy(images), headers=ARRAY).json(), predictor, images)


def test_how_many_classes_are_named(app):
    for top, expected in ((1, 1), (7, 7), (1000, 100)):
        (entry,) = ask(app, path=f"/classify?top={top}", content=FILES[0]).json()["images"]
        assert len(entry["classes"]) == expected


CUT = encode(photo(200, 300), "JPEG")[:3000]
PALETTE = encode(photo(2000, 600))  # 1.2 million pixels
BAD = {
    "no body": (b"", {}, 400, "no_image", "empty"),
    "a text": (b"hello " * 99, {}, 415, "not_an_image", "The file is not an image in JPEG, PNG,"),
    "EPS, which runs a program": (encode(PHOTOS[0], "EPS"), {}, 415, "not_an_image", "PPM."),
    "a JPEG that is cut off": (CUT, {}, 400, "damaged_image", "not a sound image file"),
    "too many pixels": (PALETTE, {}, 413, "too_large", "1 million pixels; the limit is 1 million"),
    "JSON": (b"{}", {"Content-Type": "application/json"}, 415, "unsupported_content", "Send an"),
    "an empty form": (b"", {"Content-Type": "multipart/form-data"}, 400, "bad_request", "boundary"),
    "no array": (b"\x93NUMPY", ARRAY, 400, "bad_array", "np.save"),
    "an array cut off": (npy(PHOTOS[0][None])[:-1], ARRAY, 400, "bad_array", "np.save"),
    "floats": (npy(np.zeros((1, 32, 32, 3))), ARRAY, 400, "bad_array", "float64"),
    "one image": (npy(PHOTOS[0]), ARRAY, 400, "bad_array", "shape (32, 32, 3)"),
    "a number": (npy(np.uint8(1)), ARRAY, 400, "bad_array", "shape ()"),
    "no images": (npy(np.zeros((0, 32, 32, 3), "uint8")), ARRAY, 400, "bad_array", "shape (0,"),
    "four channels": (npy(np.zeros((1, 32, 32, 4), "uint8")), ARRAY, 400, "bad_array", "3 channel"),
    "objects": (npy(np.array([{}, 1])), ARRAY, 400, "bad_array", "object"),
    "nine images": (npy(np.stack(PHOTOS[:1] * 9)), ARRAY, 413, "too_many_images", "Received: 9"),
    "a long body": (bytes(2**20 + 1), {}, 413, "too_large", "1 MiB at most"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(app, case):
    content, headers, status, error, words = BAD[case]
    response = ask(app, content=content, headers=headers)
    assert response.status_code == status
    answer = response.json()
    assert set(answer) == {"error", "message"} and answer["error"] == error
    assert words in answer["message"]


def test_a_form_names_the_file_that_is_wrong(app):
    files = [("file", ("a.png", FILES[0])), ("file", ("notes.txt", b"some words"))]
    response = ask(app, files=files)
    assert response.status_code == 415 and response.json()["message"].startswith("notes.txt is ")
    response = ask(app, files=[("file", ("a.png", FILES[0]))] * 9)
    assert response.status_code == 400 and "Too many files" in response.json()["message"]
    response = ask(app, files=[("note", (None, "words"))])
    assert (response.status_code, response.json()["error"]) == (400, "no_image")


@pytest.mark.parametrize("top", ["0", "1001", "five"])
def test_a_wrong_number_of_classes(app, top):
    response = ask(app, path=f"/classify?top={top}", content=FILES[0])
    assert response.status_code == 400
    assert response.json()["error"] == "bad_query" and response.json()["message"].startswith("top:")


def test_other_addresses(app):
    response = ask(app, "GET", "/nothing")
    assert response.status_code == 404 and "/classify" in response.json()["message"]
    response = ask(app, "GET", "/classify")
    assert response.status_code == 405 and response.headers["Allow"] == "POST"
    assert set(response.json()) == {"error", "message"}
    assert ask(app, "GET", "/web/../app.py").status_code == 404


def test_a_body_of_unknown_length_is_read_to_the_limit_only(app):
    sent = []

    async def endless():
        while True:
            sent.append(len(sent))
            yield bytes(2**16)

    response = ask(app, content=endless())
    assert response.status_code == 413
    assert len(sent) <= 2 + 2**20 / 2**16


def test_the_requests_of_the_load_test_get_the_answers_it_expects(predictor):
    app = create_app(predictor, Limits(seconds=PATIENCE))
    for request in _bad_requests():
        if request.status is not None:  # else it hangs up
            response = ask(app, content=request.body, headers={"Content-Type": request.kind})
            assert response.status_code == request.status, response.json()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM"])
def test_damaged_files_never_break_the_service(app, kind):
    whole = encode(photo(24, 30), kind)
    rng = np.random.default_rng(0)

    async def many():
        async with client_of(app) as client:
            return [await client.post("/classify", content=data) for data in damaged()]

    def damaged():
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 200), 3):
                data[place] = rng.integers(256)
            yield bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.3 else data)

    responses = asyncio.run(many())
    wrong = [r.text for r in responses if r.status_code not in (200, 400, 413, 415)]
    assert not wrong
    assert {r.status_code for r in responses} & {400, 415}


class Held:
    """Takes the place of a predictor's `probabilities`: runs when it is let go."""

    def __init__(self, predictor, monkeypatch, error=None):
        self.real, self.error, self.go_on = predictor.probabilities, error, threading.Event()
        self.go_on.set()
        monkeypatch.setattr(predictor, "probabilities", self)

    def __call__(self, images):
        assert self.go_on.wait(PATIENCE)
        if self.error:
            raise self.error
        return self.real(images)


def test_concurrent_requests_share_batches_and_get_their_own_answers(predictor, monkeypatch):
    held = Held(predictor, monkeypatch)
    app = create_app(predictor, Limits(batch=8, seconds=PATIENCE))
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype="uint8")

    async def together():
        async with client_of(app) as client:
            held.go_on.clear()
            tasks = [
                asyncio.create_task(
                    client.post("/classify", content=npy(image[None]), headers=ARRAY)
                )
                for image in images
            ]
            await until(client, "lsmha_requests_in_progress", 20)
            held.go_on.set()
            answers = [task.json() for task in await asyncio.gather(*tasks)]
            return answers, figures(await client.get("/metrics"))

    answers, found = asyncio.run(together())
    for answer, image in zip(answers, images, strict=True):
        check_classes(answer, predictor, image[None])
    assert found["lsmha_batch_images_sum"] == 20
    assert 3 <= found["lsmha_batch_images_count"] <= 5  # not 20; the first ran before the others
    assert found['lsmha_requests_total{status="200"}'] == 20
    assert found["lsmha_request_seconds_count"] == 20


async def until(client, name, value):
    """Waits until a figure of the service has a value; then all that can go on has gone on."""
    async with asyncio.timeout(PATIENCE):
        while figures(await client.get("/metrics")).get(name) != value:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.05)


def figures(response):
    lines = response.text.splitlines()
    return {k: float(v) for k, v in (x.rsplit(" ", 1) for x in lines if x[0] != "#")}


def test_more_requests_than_are_taken_are_told_to_wait(predictor, monkeypatch):
    held = Held(predictor, monkeypatch)
    app = create_app(predictor, Limits(requests=3, seconds=PATIENCE))

    async def crowd():
        async with client_of(app) as client:
            held.go_on.clear()
            tasks = [
                asyncio.create_task(client.post("/classify", content=FILES[0])) for _ in range(5)
            ]
            await until(client, 'lsmha_requests_total{status="503"}', 2)
            waiting = figures(await client.get("/metrics"))["lsmha_requests_in_progress"]
            assert (await client.get("/health")).status_code == 200
            held.go_on.set()
            answers = await asyncio.gather(*tasks)
            return waiting, answers, await client.post("/classify", content=FILES[0])

    waiting, answers, later = asyncio.run(crowd())
    assert waiting == 3
    assert sorted(r.status_code for r in answers) == [200, 200, 200, 503, 503]
    busy = answers[-1]
    assert busy.json()["error"] == "busy" and busy.headers["Retry-After"] == "1"
    assert later.status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(predictor, monkeypatch):
    held = Held(predictor, monkeypatch)
    app = create_app(predictor, Limits(seconds=1))

    async def wait():
        async with client_of(app) as client, asyncio.timeout(PATIENCE):
            answers = []
            held.go_on.clear()
            # A machine under load may be late again.
            while not answers or answers[-1].status_code == 504:
                image = npy(PHOTOS[0][None])
                answers.append(await client.post("/classify", content=image, headers=ARRAY))
                held.go_on.set()
            return answers[0], answers[-1]

    late, next_one = asyncio.run(wait())
    assert (late.status_code, late.json()["error"]) == (504, "timeout")
    assert next_one.status_code == 200


def test_a_request_that_does_not_arrive_is_given_up(predictor):
    app = create_app(predictor, Limits(seconds=0.2))

    async def slow():
        yield FILES[0][:10]
        await asyncio.sleep(30)

    response = ask(app, content=slow())
    assert (response.status_code, response.json()["error"]) == (408, "slow_request")


def test_a_failure_of_the_model_is_told_and_does_not_last(predictor, monkeypatch):
    held = Held(predictor, monkeypatch)
    app = create_app(predictor, Limits(seconds=PATIENCE))
    held.error = RuntimeError("secret")
    response = ask(app, content=FILES[0])
    assert (response.status_code, response.json()["error"]) == (500, "internal")
    assert "secret" not in response.text
    held.error = None
    assert ask(app, content=FILES[0]).status_code == 200


def test_what_it_says_of_itself(app, predictor):
    model = ask(app, "GET", "/model").json()
    assert model["name"] == predictor.name and model["class_names"] == predictor.class_names
    assert model["image_shape"] == [32, 32, 3] and model["max_bytes"] == 2**20
    assert ask(app, "GET", "/health").json() == {"status": "ok", "model": predictor.name}
    schema = ask(app, "GET", "/openapi.json").json()
    assert "application/x-npy" in schema["paths"]["/classify"]["post"]["requestBody"]["content"]
    metrics = ask(app, "GET", "/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain")
    info = re.search(r"^lsmha_model_info{(.*)}", metrics.text, re.M)[1]
    assert f'name="{predictor.name}"' in info and 'runtime="onnxruntime"' in info


def test_the_page_asks_nobody_else(app):
    page = ask(app, "GET", "/")
    assert page.headers["Content-Type"].startswith("text/html")
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {part for part in parts if part != "data:,"} == {"web/page.css", "web/page.js"}
    for part in ("web/page.css", "web/page.js"):
        text = ask(app, "GET", f"/{part}").text
        assert text and "//" not in text.replace("// ", "")
    # Pages that load scripts from elsewhere are left out.
    assert ask(app, "GET", "/docs").status_code == ask(app, "GET", "/redoc").status_code == 404


class FourChannels:
    """A model whose classes are its channels, without names."""

    name, kind, runtime = "four", "images", "none"
    image_shape, num_classes, class_names = (16, 20, 4), 4, None
    best, read = lsmha.Predictor.best, staticmethod(lambda image: image)

    def probabilities(self, images):
        return images.mean(axis=(1, 2)) / 255


def test_models_without_names_and_of_other_channels():
    app = create_app(FourChannels())
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 20, 4), dtype="uint8")
    found = ask(app, content=npy(images), headers=ARRAY).json()["images"]
    expected = images.mean(axis=(1, 2)).argmax(axis=1)
    assert [entry["classes"][0]["label"] for entry in found] == expected.tolist()
    assert found[0]["classes"][0]["name"] is None and len(found[0]["classes"]) == 4
    response = ask(app, content=FILES[0])
    assert response.status_code == 415 and "4 channels" in response.json()["message"]


def test_answers_are_those_of_the_command(app, tmp_path, capsys):
    from lsmha_keras import cli

    (tmp_path / "photo.png").write_bytes(FILES[1])
    arguments = ["predict", "lsmha-small", str(tmp_path / "photo.png"), "--json"]
    assert cli.main([*arguments, "--runtime", "onnxruntime"]) == 0
    (printed,) = json.loads(capsys.readouterr().out)
    (found,) = ask(app, files={"file": ("photo.png", FILES[1])}).json()["images"]
    assert set(found) == set(printed)
    assert [list(entry) for entry in found["classes"]] == [list(e) for e in printed["classes"]]
    assert [e["name"] for e in found["classes"]] == [e["name"] for e in printed["classes"]]
