"""The page of the service, in a real browser."""

import base64
import pathlib
import re
import threading
import time

import pytest

import lsmha_keras as lsmha

pytest.importorskip("fastapi", reason='a service needs `pip install "lsmha-keras[serve]"`')
pytest.importorskip("onnxruntime", reason="computes")
uvicorn = pytest.importorskip("uvicorn", reason="serves the page")

from lsmha_keras.serving.app import create_app  # noqa: E402
from lsmha_keras.serving.server import address, open_socket  # noqa: E402
from lsmha_keras.serving.uploads import Limits  # noqa: E402
from tests.checks import PATIENCE  # noqa: E402

pytestmark = pytest.mark.backend_free

SUNFLOWER = pathlib.Path(lsmha.__file__).parent.parent / "examples" / "sunflower.png"


class Service:
    """A service in a thread of this process."""

    def __init__(self, predictor):
        app = create_app(predictor, Limits(request_mib=1, seconds=PATIENCE))
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        self.server, self.socket = uvicorn.Server(config), open_socket("127.0.0.1", 0)
        self.url = address(self.socket) + "/"
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))
        self.thread.start()

    def stop(self):
        while not self.server.started:
            time.sleep(0.02)
        self.server.should_exit = True
        self.thread.join(PATIENCE)


@pytest.fixture(scope="module")
def predictor():
    if not SUNFLOWER.exists():
        pytest.skip("needs a checkout")
    return lsmha.Predictor("lsmha-small", runtime="onnxruntime", num_threads=1)


@pytest.fixture(scope="module")
def service(browser, predictor):
    service = Service(predictor)
    yield service
    service.stop()


@pytest.fixture
def page(browser, service):
    """The loaded page; afterwards nothing must have failed or been asked of another server."""
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(service.url)
    page.wait_for_selector("#about:not(:empty)")
    yield page
    # Browsers note an answer that refuses; the page shows it.
    assert [text for text in messages if "the server responded with a status of" not in text] == []
    elsewhere = [url for url in requests if not url.startswith((service.url, "data:", "blob:"))]
    assert elsewhere == []
    page.close()


def shown(page):
    """Waits for the classes; returns their names, percentages and the widths of their bars."""
    page.wait_for_selector("#classes li")
    rows = [text.split("\n") for text in page.locator("#classes li").all_inner_texts()]
    widths = page.eval_on_selector_all(
        "#classes li",
        "rows => rows.map((row) => row.firstChild.getBoundingClientRect().width / row.clientWidth)",
    )
    return [name for name, _ in rows], [float(share.split()[0]) for _, share in rows], widths


def drop(page, name, kind, data):
    page.evaluate(
        """([name, kind, data]) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name, { type: kind }));
          const at = { dataTransfer: transfer, bubbles: true, cancelable: true };
          const target = document.querySelector("#target");
          target.dispatchEvent(new DragEvent("dragover", at));
          target.dispatchEvent(new DragEvent("drop", at));
        }""",
        [name, kind, base64.b64encode(data).decode()],
    )


@pytest.mark.parametrize("way", ["choose", "drop"])
def test_a_photo_gets_five_bars(page, predictor, way):
    if way == "choose":
        page.set_input_files("#file", SUNFLOWER)
    else:
        drop(page, "sunflower.png", "image/png", SUNFLOWER.read_bytes())
    names, percentages, widths = shown(page)
    expected = predictor(SUNFLOWER)
    assert names == [label for label, _ in expected] and names[0] == "sunflower"
    assert percentages == pytest.approx([100 * share for _, share in expected], abs=0.0501)
    # The smallest bars are two pixels wide, so that they can be seen.
    assert widths == pytest.approx([share for _, share in expected], abs=0.006)
    assert page.is_visible("#photo") and page.inner_text("#message") == ""
    assert not page.locator("#target.over").count()


def test_what_is_no_image_is_told_in_words_and_a_photo_still_goes(page):
    drop(page, "notes.txt", "text/plain", b"no image")
    page.wait_for_selector("#message.wrong")
    assert page.inner_text("#message").startswith("notes.txt is not an image in JPEG, PNG, ")
    assert not page.locator("#classes li").count() and not page.is_visible("#photo")
    page.set_input_files("#file", SUNFLOWER)
    assert shown(page)[0][0] == "sunflower"
    assert not page.locator("#message.wrong").count() and page.inner_text("#message") == ""


def test_a_file_that_is_too_large_is_not_sent(page):
    drop(page, "large.png", "image/png", bytes(2**20 + 2**19))
    assert page.inner_text("#message") == "The file has 1.5 MiB; 1 MiB are taken at most."


def test_names_are_text(page):
    drop(page, "<img src=x onerror=alert(1)>.txt", "text/plain", b"no image")
    page.wait_for_selector("#message.wrong")
    assert page.inner_text("#message").startswith("<img src=x")


def test_the_keyboard_reaches_the_choice_of_a_file(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    opened = []
    page.on("filechooser", lambda chooser: opened.append(chooser))
    deadline = time.monotonic() + PATIENCE
    while not opened and time.monotonic() < deadline:
        # Again, if the browser did not know yet that it is to tell of choosers.
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)  # ms
    opened[0].set_files(SUNFLOWER)
    assert shown(page)[0][0] == "sunflower"


def test_on_a_telephone_nothing_sticks_out(page):
    page.set_viewport_size({"width": 360, "height": 700})
    page.set_input_files("#file", SUNFLOWER)
    shown(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_service_that_has_gone_is_told(browser, predictor):
    service = Service(predictor)
    page = browser.new_page()
    page.goto(service.url)
    page.wait_for_selector("#about:not(:empty)")
    service.stop()
    page.set_input_files("#file", SUNFLOWER)
    page.wait_for_selector("#message.wrong")
    assert re.match(r"The service does not answer \(.+\)", page.inner_text("#message"))
    page.close()
