"""A page with everything it can have, and what tests read off it."""

import contextlib

import numpy as np

from lsmha_keras.shp.exemplars import Exemplars
from lsmha_keras.shp.report.page import render_page
from tests.shp.results import BLOCKS, DEAD, HEADS, LABELS, make_report_inputs, make_results

TITLE = "A <b>title</b>"
OTHER_MODEL = "another model"
ACCURACY = 0.625
GRID = (2, 3)


def make_variants():
    """The subject and its controls, each `{block: SHPResult}`."""
    results, controls, _ = make_report_inputs()
    return {"trained": results, **controls}


def make_exemplars():
    """Two images for each head of both blocks: one of its own label, one of another."""
    rng = np.random.default_rng(3)
    alive = [(b, h) for b in BLOCKS for h in range(HEADS) if not (b == 2 and h == DEAD)]
    rows = np.array([(b, h, image) for b, h in alive for image in (h, h + 1)])
    results = make_results(4, seed=0)
    unit = [results[b].clusters[h][0][0] if results[b].clusters[h] else 0 for b, h, _ in rows]
    # The first image is of the label that head 0 of block 1 knows, the others are not.
    labels = (results[1].clusters[0][0][0] + np.arange(HEADS + 1)) % LABELS
    return Exemplars(
        rng.integers(0, 256, (HEADS + 1, 8, 8, 3), dtype="uint8"),
        labels,
        rows[:, 0],
        rows[:, 1],
        np.array(unit),
        rows[:, 2],
        np.linspace(3, 1, len(rows)).astype("float32"),
        np.ones(len(rows), bool),
        GRID,
        rng.dirichlet(np.ones(6), len(rows)).astype("float32"),
    )


def make_page():
    """The text of a page with controls, another model, images, scores and other seeds."""
    _, _, scores = make_report_inputs()
    correlations = {b: {"accuracy_drop": 0.25, "mask_gradient": float("nan")} for b in BLOCKS}
    beside = {OTHER_MODEL: {5: make_results(3, seed=5)[1]}}
    seeds = [make_results(4, seed=8, accuracy=0.52), make_results(4, seed=9, accuracy=0.54)]
    variants = make_variants()
    exemplars = make_exemplars()
    return render_page(variants, TITLE, scores, correlations, ACCURACY, exemplars, seeds, beside)


@contextlib.contextmanager
def opened(browser, file, address="", **options):
    """Opens a page; at the end nothing must have failed or been asked of a network."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri() + address)
    page.wait_for_selector("body[data-ready]")
    yield page
    assert messages == []
    asked = [url for url in requests if not url.startswith(("data:", "blob:"))]
    assert asked == [file.as_uri()]
    context.close()


def table(page, selector):
    """The cells of a table's body as text."""
    rows = page.locator(f"{selector} tbody tr").all()
    return [row.locator("td").all_inner_texts() for row in rows]


def point(page, canvas, place, tap=False):
    """Points at a cell of a matrix, or taps it."""
    page.locator(canvas).scroll_into_view_if_needed()
    box = page.locator(canvas).bounding_box()
    y, x = ((i + 0.5) / LABELS * box["width"] for i in place)
    action = page.tap if tap else page.hover
    action(canvas, position={"x": x, "y": y})
