"""The examples for a browser, a container and a small device give what `Predictor` gives."""

import functools
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import tomllib

import numpy as np
import pytest
from PIL import Image

import lsmha_keras as lsmha
from lsmha_keras import presets
from lsmha_keras.images import resize_to_fit
from tests.models.test_one_photo import photo

ROOT = pathlib.Path(lsmha.__file__).parent.parent
EXAMPLES = ROOT / "examples"
SUNFLOWER = EXAMPLES / "sunflower.png"

pytestmark = [
    pytest.mark.backend_free,
    pytest.mark.skipif(not EXAMPLES.exists(), reason="looks at a checkout, which this is not"),
]


@pytest.fixture(scope="module")
def predictor():
    pytest.importorskip("onnxruntime", reason="computes")
    return lsmha.Predictor("lsmha-small", runtime="onnxruntime", num_threads=1)


# In a browser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the example's files, and its address."""
    folder = tmp_path_factory.mktemp("site") / "browser"
    kept = shutil.ignore_patterns("node_modules", "model")
    shutil.copytree(EXAMPLES / "browser", folder, ignore=kept)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("size", [(32, 32), (16, 20)])
def test_the_browser_resizes_as_pillow_does(browser, site, size):
    """Larger and smaller images, with and without a part to crop.

    To the bit, but for images that are taller than wide: Pillow 13 resizes some of them along the
    other axis first, and so rounds otherwise.
    """
    height, width = size
    rng = np.random.default_rng(0)
    page = browser.new_page()
    page.goto(site[1] + "resize.js")
    shapes = ((32, 32), (97, 61), (45, 200), (20, 11), (16, 80), (1, 1), (250, 250), (64, 80))
    for shape in shapes:
        pixels = rng.integers(0, 256, (*shape, 3), dtype="uint8")
        found = page.evaluate(
            """async ([pixels, imageWidth, imageHeight, width, height]) => {
              const { resizeToFit } = await import("./resize.js");
              const image = { pixels, width: imageWidth, height: imageHeight };
              return [...resizeToFit(image, width, height)];
            }""",
            [pixels.ravel().tolist(), shape[1], shape[0], width, height],
        )
        expected = np.asarray(resize_to_fit(Image.fromarray(pixels), size))
        difference = np.abs(np.reshape(found, (*size, 3)) - expected.astype(int)).max()
        assert difference <= (1 if shape[0] > shape[1] else 0), shape
    page.close()


@pytest.fixture(scope="module")
def ready_site(site, predictor):
    """The example with onnxruntime-web from npm and a model beside it."""
    folder, address = site
    if shutil.which("npm") is None:
        pytest.skip("onnxruntime-web comes from npm: apt-get install npm")
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if re.search("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH", done.stderr):
        pytest.skip("npm's registry cannot be reached")
    assert done.returncode == 0, done.stderr
    (folder / "model").mkdir()
    shutil.copy(presets.resolve_preset("lsmha-small") / presets.ONNX, folder / "model")
    description = predictor._runtime.description.to_json()  # as `lsmha export` writes it
    (folder / "model" / "model.json").write_text(description)
    return address


@pytest.mark.slow
def test_the_page_names_what_predictor_names(browser, ready_site, predictor, tmp_path):
    page = browser.new_page()
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(ready_site)
    page.wait_for_selector("#file:enabled", timeout=120_000)
    pixels = photo(60, 90)
    turned, clear = tmp_path / "turned.png", tmp_path / "clear.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored tall, shown wide
    Image.fromarray(photo(90, 60)).save(turned, exif=exif)
    alpha = np.where(pixels[..., :1] > 128, 255, 0).astype("uint8")
    Image.fromarray(np.concatenate([pixels, alpha], axis=-1)).save(clear)
    for path in (SUNFLOWER, turned, clear):
        page.set_input_files("#file", path)
        page.wait_for_selector("#classes li")
        rows = page.locator("#classes li").all_inner_texts()
        expected = predictor(path)
        assert [row.split(" % ")[1] for row in rows] == [label for label, _ in expected]
        shares = [float(row.split(" % ")[0]) / 100 for row in rows]
        # The page shows a digit after the point.
        assert shares == pytest.approx([share for _, share in expected], abs=0.00051)
    page.set_input_files("#file", EXAMPLES / "browser" / "resize.js")
    page.wait_for_selector("#message:not(:empty)")
    assert "cannot be read as an image" in page.inner_text("#message")
    assert problems == []
    elsewhere = [url for url in requests if not url.startswith((ready_site, "data:", "blob:"))]
    assert elsewhere == []
    page.close()


# In a container


def test_the_container_installs_what_serving_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements):
        return {re.match(r"[\w-]+", each)[0] for each in requirements if each[:1] != "#"}

    listed = names((EXAMPLES / "docker" / "requirements.txt").read_text().splitlines())
    extra = names(project["optional-dependencies"]["serve"])
    # All of the extra, and of the package's own what `Predictor` imports.
    assert listed == extra | {"numpy", "pillow", "onnxruntime"}
    assert listed - extra <= names(project["dependencies"])


def test_the_container_copies_existing_files_and_does_not_run_as_root():
    lines = (EXAMPLES / "docker" / "Dockerfile").read_text().splitlines()
    allowed = (EXAMPLES / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [
        name
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    ]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert {f"!{name}" for name in copied} == {line for line in allowed if line[:1] == "!"}
    assert lines.index("USER lsmha") > max(k for k, x in enumerate(lines) if x.startswith("RUN"))
    options = [word for line in lines if line.startswith("ENTRYPOINT") for word in line.split('"')]
    assert {"lsmha", "serve", "--host", "0.0.0.0", "--port", "8000"} <= set(options)


# On a small device


@pytest.mark.slow
def test_litert_names_what_predictor_names(predictor, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="runs the file: pip install ai-edge-litert")
    pytest.importorskip("tensorflow", reason="writes the file")
    exported = lsmha.export("lsmha-small", "litert", tmp_path / "exported")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 4), dtype="uint8")
    clear = tmp_path / "clear.png"
    Image.fromarray(pixels).save(clear)
    photos = [SUNFLOWER, clear]
    done = subprocess.run(
        [sys.executable, EXAMPLES / "run_litert.py", exported, *photos],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = [
        line
        for path in photos
        for line in (str(path), *(f"  {share:7.2%}  {name}" for name, share in predictor(path)))
    ]
    assert done.stdout.splitlines() == expected
