"""The report's page, in a real browser: what it shows is what Python computes."""

import dataclasses
import re

import numpy as np
import pytest

from lsmha_keras.shp.report.page import encode_responses, render_page
from lsmha_keras.shp.report.plots import cluster_order
from lsmha_keras.shp.report.tables import block_rows
from tests.shp.results import BLOCKS, DEAD, HEADS, LABELS, MISSING, NAMES, make_report_inputs

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize("hundredths", range(5, 96))
def test_encoding_keeps_every_threshold_of_the_slider(hundredths):
    rng = np.random.default_rng(hundredths)
    exact = np.arange(-200, 101, dtype="float32") / 100
    responses = np.concatenate([exact, np.nextafter(exact, 2), rng.uniform(-2, 1, 1000)])
    responses = responses.astype("float32")
    above = encode_responses(responses) > 155 + hundredths
    # nextafter of float32(0.3) is 0.3 within the rounding of 1e-6 that encoding allows itself.
    near = np.abs(responses - hundredths / 100) < 1e-6
    np.testing.assert_array_equal(above[~near], (responses > hundredths / 100)[~near])
    assert not above[responses == np.float32(hundredths / 100)].any()


def test_hostile_names_stay_text():
    results, _, _ = make_report_inputs()
    plain = render_page({"trained": results}, "title").count("</script>")
    names = [f"</script>{name}" for name in NAMES]
    named = {b: dataclasses.replace(result, label_names=names) for b, result in results.items()}
    assert render_page({"trained": named}, "</script>").count("</script>") == plain


@pytest.fixture(scope="module")
def report():
    results, controls, scores = make_report_inputs()
    return {"trained": results, **controls}, scores


@pytest.fixture(scope="module")
def page_file(report, tmp_path_factory):
    variants, scores = report
    correlations = {b: {"accuracy_drop": 0.25, "mask_gradient": float("nan")} for b in BLOCKS}
    path = tmp_path_factory.mktemp("page") / "index.html"
    text = render_page(variants, "A <b>title</b>", scores, correlations)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def page(browser, page_file):
    """The loaded page; afterwards nothing must have failed or been asked of a network."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    yield page
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    page.close()


def test_title_is_text(page):
    assert page.title() == page.inner_text("h1") == "A <b>title</b>"


@pytest.mark.parametrize("threshold", [0.12, 0.3, 0.55])
def test_statistics_are_those_of_python(page, report, threshold):
    variants = {
        name: {block: result.at(threshold) for block, result in results.items()}
        for name, results in report[0].items()
    }
    page.fill("#threshold", str(threshold))
    for block in BLOCKS:
        page.click(f"#blocks button[value='{block}']")
        rows = [row for row in block_rows(variants) if row["block"] == block]
        shown = _table(page, "#statistics")
        for cells, row in zip(shown, rows, strict=True):
            assert cells[0] == row["variant"]
            assert [float(x) for x in re.findall(r"[\d.]+", " ".join(cells[1:]))] == _figures(row)


@pytest.mark.parametrize("threshold", [0.2, 0.45])
def test_heads_are_those_of_python(page, report, threshold):
    page.fill("#threshold", str(threshold))
    result = report[0]["trained"][2].at(threshold)
    for head in range(HEADS):
        page.click(f"#heads button >> nth={head}")
        found = result.statistics
        shown = [int(number) for number in re.findall(r"\d+", page.inner_text("#own-figures"))]
        labels = sum(map(len, found.clusters[head]))
        counts = [found.num_clusters[head], labels, found.noise[head], found.cluster_noise[head]]
        assert shown == counts
        chips = page.locator("#clusters .chip").all_inner_texts()
        clusters = [" + ".join(NAMES[i] for i in cluster) for cluster in found.clusters[head]]
        assert sorted(chips) == sorted(clusters)
        assert ("dead" in page.inner_text("#own-title")) == (head == DEAD)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (10, 3), (LABELS - 1, LABELS - 1)])
def test_pointing_at_a_cell_names_labels_and_value(page, report, ordered, place):
    if not ordered:
        page.click("#ordered")
    for canvas, name in (("#own", "trained"), ("#other", "Gaussian null")):
        result = report[0][name][2]
        clusters = result.clusters[0] if ordered else []
        row, column = (cluster_order(clusters, LABELS)[i] for i in place)
        value = result.matrices[0, row, column]
        _point(page, canvas, place)
        shown = page.inner_text("#tooltip")
        assert shown.startswith(f"{NAMES[row]} images, output {NAMES[column]}: ")
        if row == MISSING:
            assert shown.endswith("no images")
            continue
        assert 0 <= float(re.search(r": (-?[\d.]+)", shown)[1]) - max(value, -1.54) < 0.0101
        assert ("," in shown.split(":")[1]) == (value > 0.3)
        assert ("on a cluster" in shown) == any({row, column} <= set(c) for c in clusters or [])


def test_everything_that_can_be_chosen_changes_the_matrix(page):
    drawings = {_drawing(page)}
    for action in (
        lambda: page.click("#blocks button[value='1']"),
        lambda: page.click("#heads button >> nth=1"),
        lambda: page.click("#ordered"),
        lambda: page.click("#boolean"),
        lambda: page.fill("#threshold", "0.7"),
        lambda: page.click("#theme"),
    ):
        action()
        assert _drawing(page) not in drawings
        drawings.add(_drawing(page))
    other = _drawing(page, "#other")
    page.select_option("#control", label="untrained trunk")
    assert _drawing(page, "#other") != other


def test_keys(page):
    assert _state(page) == ("2", "trained, head 0", "0.30", "Gaussian null, head 0")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "+", "+", "-", "c"):
        page.keyboard.press(key)
    assert _state(page) == ("1", "trained, head 1", "0.31", "untrained trunk, head 1")
    page.focus("#own")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    first, second = re.findall(r"thing_\d+", page.inner_text("#tooltip"))
    assert first != second
    assert _state(page)[:2] == ("1", "trained, head 1")


def test_pointing_at_a_label_marks_the_heads_that_cover_it(page, report):
    clusters = report[0]["trained"][2].clusters
    label = int(np.argmax(report[0]["trained"][2].coverage))
    page.hover(f"#coverage [data-label='{label}'] .slot")
    marked = page.eval_on_selector_all(
        "#heads button", "buttons => buttons.map(b => b.classList.contains('covers'))"
    )
    assert marked == [any(label in cluster for cluster in head) for head in clusters]
    assert page.inner_text("#tooltip") == f"{NAMES[label]}: covered by {sum(marked)} heads"


def test_classical_scores(page):
    page.click("#heads button >> nth=4")
    assert _table(page, "#scores") == [
        ["accuracy drop", "0.3", "0.25"],
        ["mask gradient", "0", "–"],
    ]


def test_narrow_screen(page):
    """Nothing sticks out on a telephone, and the text of the charts keeps its size."""
    page.set_viewport_size({"width": 390, "height": 844})
    for chart in ("#coverage", "#along"):  # drawn anew some time after the change of size
        page.wait_for_function(
            "id => document.querySelector(id).getScreenCTM().a > 0.99", arg=chart
        )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_without_controls(browser, report, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(render_page({"trained": report[0]["trained"]}, "alone"), encoding="utf-8")
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.keyboard.press("c")
    assert not page.is_visible("#other") and not page.is_visible("#control")
    assert len(_table(page, "#statistics")) == 1
    assert errors == []
    page.close()


def _table(page, selector):
    rows = page.locator(f"{selector} tbody tr").all()
    return [row.locator("td").all_inner_texts() for row in rows]


def _figures(row):
    """The figures as shown: half a unit of the last digit may be rounded either way."""
    accuracy = row["readout_accuracy"]
    return [
        pytest.approx(row["clusters_per_head"], abs=0.00501),
        pytest.approx(row["labels_per_cluster"], abs=0.00501),
        pytest.approx(row["noise_per_head"], abs=0.0501),
        pytest.approx(row["cluster_noise_per_head"], abs=0.0501),
        pytest.approx(row["heads_per_label"], abs=0.00501),
        row["heads_per_label_min"],
        row["heads_per_label_max"],
        pytest.approx(row["snr"], rel=0.00501),
        *([] if accuracy is None else [pytest.approx(100 * accuracy, abs=0.00501)]),
    ]


def _point(page, canvas, place):
    page.locator(canvas).scroll_into_view_if_needed()
    box = page.locator(canvas).bounding_box()
    y, x = ((i + 0.5) / LABELS * box["width"] for i in place)
    page.hover(canvas, position={"x": x, "y": y})


def _drawing(page, canvas="#own"):
    return page.eval_on_selector(canvas, "canvas => canvas.toDataURL()")


def _state(page):
    block = page.inner_text("#blocks button[aria-pressed='true']")
    titles = page.inner_text("#own-title"), page.inner_text("#other-title")
    return block, titles[0], page.inner_text("#level"), titles[1]
