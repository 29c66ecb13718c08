"""The report's page, in a real browser: what it shows is what Python computes."""

import dataclasses
import re

import numpy as np
import pytest

from lsmha_keras.shp.report.page import render_page
from lsmha_keras.shp.report.page_data import THRESHOLDS, cluster_marks, encode_responses
from lsmha_keras.shp.report.plots import cluster_order
from lsmha_keras.shp.report.tables import block_rows
from tests.shp.pages import (
    ACCURACY,
    OTHER_MODEL,
    TITLE,
    make_exemplars,
    make_page,
    make_variants,
    opened,
    point,
    table,
)
from tests.shp.results import BLOCKS, DEAD, HEADS, LABELS, MISSING, NAMES, make_report_inputs

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize("hundredths", THRESHOLDS)
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


def test_clusters_of_every_threshold_are_marked():
    result = make_variants()["trained"][2]
    for hundredths in THRESHOLDS:
        for clusters in result.at(hundredths / 100).clusters:
            marks = cluster_marks(clusters, LABELS)
            found = [np.flatnonzero(marks == mark).tolist() for mark in np.unique(marks[marks > 0])]
            assert found == clusters


def test_hostile_names_stay_text():
    results, _, _ = make_report_inputs()
    plain = render_page({"trained": results}, "title").count("</script>")
    names = [f"</script>{name}" for name in NAMES]
    named = {b: dataclasses.replace(result, label_names=names) for b, result in results.items()}
    assert render_page({"trained": named}, "</script>").count("</script>") == plain


@pytest.fixture(scope="module")
def variants():
    return make_variants()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(make_page(), encoding="utf-8")
    return path


@pytest.fixture
def page(browser, page_file):
    with opened(browser, page_file) as page:
        yield page


def test_title_is_text(page):
    assert page.title() == page.inner_text("h1") == TITLE


@pytest.mark.parametrize("threshold", [0.12, 0.3, 0.55])
def test_statistics_are_those_of_python(page, variants, threshold):
    there = {
        name: {block: result.at(threshold) for block, result in results.items()}
        for name, results in variants.items()
    }
    page.fill("#threshold", str(threshold))
    for block in BLOCKS:
        page.click(f"#blocks button[value='{block}']")
        rows = [row for row in block_rows(there) if row["block"] == block]
        for cells, row in zip(table(page, "#statistics"), rows, strict=True):
            assert cells[0] == row["variant"]
            shown = " ".join(cell.split("±")[0] for cell in cells[1:])
            assert [float(x) for x in re.findall(r"[\d.]+", shown)] == _figures(row)


def test_accuracy_of_the_model_and_spread_over_seeds(page):
    accuracies = np.std([0.5, 0.52, 0.54], ddof=1)
    trained, control, *_ = table(page, "#statistics")
    assert trained[-1] == f"50.00 % ± {100 * accuracies:.2f}" and "±" not in control[-1]
    assert "±" in trained[-2]
    note = page.inner_text("#statistics-note")
    assert f"{100 * ACCURACY:.2f} %" in note and "3 readouts" in note
    assert page.locator("#along .itself").count() == 1
    page.keyboard.press("+")  # the spread of the SNR is known at the report's threshold only
    assert "±" not in table(page, "#statistics")[0][-2]


@pytest.mark.parametrize("threshold", [0.2, 0.45])
def test_heads_are_those_of_python(page, variants, threshold):
    page.fill("#threshold", str(threshold))
    found = variants["trained"][2].at(threshold).statistics
    for head in range(HEADS):
        page.click(f"#heads button >> nth={head}")
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
def test_pointing_at_a_cell_names_labels_and_value(page, variants, ordered, place):
    if not ordered:
        page.click("#ordered")
    for canvas, name in (("#own", "trained"), ("#other", "Gaussian null")):
        result = variants[name][2]
        clusters = result.clusters[0] if ordered else []
        row, column = (cluster_order(clusters, LABELS)[i] for i in place)
        point(page, canvas, place)
        _check_cell(page.inner_text("#tooltip"), result, row, column)


def _check_cell(shown, result, row, column):
    value = result.matrices[0, row, column]
    assert shown.startswith(f"{NAMES[row]} images, output {NAMES[column]}: ")
    if row == MISSING:
        assert shown.endswith("no images")
        return
    assert 0 <= float(re.search(r": (-?[\d.]+)", shown)[1]) - max(value, -1.54) < 0.0101
    assert ("," in shown.split(":")[1]) == (value > 0.3)
    on = any({row, column} <= set(cluster) for cluster in result.clusters[0])
    assert ("on a cluster" in shown) == on


def test_a_chosen_cell_stays_and_is_seen_close_up(page, variants):
    result = variants["trained"][2]
    order = cluster_order(result.clusters[0], LABELS)
    point(page, "#own", (1, 2))
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(0, 0)
    assert not page.is_visible("#tooltip")
    _check_cell(page.inner_text("#own-cell"), result, order[1], order[2])
    rows = page.locator("#own-close-up tbody th").all_inner_texts()
    assert rows == [NAMES[i] for i in order[:7]]
    for row, cells in zip(order, table(page, "#own-close-up table"), strict=False):
        for column, text in zip(order, cells, strict=False):
            expected = result.matrices[0, row, column]
            assert text == "–" if row == MISSING else 0 <= float(text) - expected < 0.0101
    page.click("#own-close-up tbody tr:nth-child(4) td:nth-of-type(5)")
    _check_cell(page.inner_text("#own-cell"), result, order[3], order[4])
    page.focus("#own")
    page.keyboard.press("Escape")
    assert not page.locator("#own-close-up table").count()


def test_everything_that_can_be_chosen_changes_the_matrix(page):
    drawings = {_drawing(page)}
    for action in (
        lambda: page.click("#blocks button[value='1']"),
        lambda: page.click("#heads button >> nth=1"),
        lambda: page.click("#next"),
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


def test_the_order_of_the_labels_is_said(page):
    assert "the head's clusters first" in page.inner_text("#order")
    page.click("#ordered")
    assert page.inner_text("#order") == "Order of the labels: as in the data."
    assert page.locator(".x-axis").all_inner_texts() == ["output unit"] * 2


def test_keys(page):
    first = ("2", "trained, block 2, head 0", "0.30", "Gaussian null, block 2, head 0")
    assert _state(page) == first
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "+", "+", "-", "c"):
        page.keyboard.press(key)
    second = ("1", "trained, block 1, head 1", "0.31", "untrained trunk, block 1, head 1")
    assert _state(page) == second
    page.focus("#own")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    row, column = re.findall(r"thing_\d+", page.inner_text("#own-cell"))
    assert row != column
    assert _state(page) == second
    page.keyboard.press("/")
    page.keyboard.type("thing_1b")  # letters and signs are text there
    assert _state(page) == second


def test_blocks_heads_and_models_beside_each_other(page, variants):
    page.select_option("#control", label="trained")
    page.select_option("#other-block", label="block 1")
    page.select_option("#other-head", label="head 4")
    assert _state(page)[1::2] == ("trained, block 2, head 0", "trained, block 1, head 4")
    shown = re.findall(r"\d+", page.inner_text("#other-figures"))
    assert int(shown[2]) == variants["trained"][1].statistics.noise[4]
    page.select_option("#control", label=OTHER_MODEL)  # it has a block 5 only
    assert _state(page)[3] == f"{OTHER_MODEL}, block 5, head 4"
    assert "block 5" in page.inner_text("#coverage-note")


def test_a_label_that_is_looked_for(page, variants):
    results = variants["trained"]
    label = int(np.argmax(results[2].coverage))
    page.fill("#find", NAMES[label].upper())
    for block, result in results.items():
        knowing = [h for h, clusters in enumerate(result.clusters) if label in sum(clusters, [])]
        buttons = page.locator(f"#found [aria-label^='Block {block}, head']")
        assert buttons.all_inner_texts() == [str(head) for head in knowing]
    marked = page.eval_on_selector_all(
        "#heads button", "buttons => buttons.map(b => b.classList.contains('covers'))"
    )
    assert [h for h, is_marked in enumerate(marked) if is_marked] == knowing
    page.click(f"#found [aria-label='Block 2, head {knowing[-1]}']")
    assert _state(page)[1] == f"trained, block 2, head {knowing[-1]}"
    pressed = page.locator("#clusters [aria-pressed=true]").all_inner_texts()
    assert len(pressed) == 1 and NAMES[label] in pressed[0].split(" + ")
    page.click("#found [aria-label='Look for no label']")
    assert not page.is_visible("#found") and page.input_value("#find") == ""
    page.fill("#find", "thing")  # the beginning of many
    assert not page.is_visible("#found")


def test_the_map_shows_each_cluster_and_chooses(page, variants):
    result = variants["trained"][2]
    sizes = sorted(
        min(len(cluster), 4) for head in result.clusters for cluster in head for _ in cluster
    )
    drawn = page.eval_on_selector_all(
        "#map rect[class^=size]", "cells => cells.map(c => Number(c.className.baseVal.slice(5)))"
    )
    assert sorted(drawn) == sizes
    page.click("#map rect[class^=size] >> nth=-1", force=True)
    head = int(_state(page)[1].split()[-1])
    label = NAMES.index(page.input_value("#find"))
    assert label in sum(result.clusters[head], [])


def test_a_bar_of_coverage_looks_for_its_label(page, variants):
    result = variants["trained"][2]
    label = int(np.argmax(result.coverage))
    slot = f"#coverage [data-label='{label}'] .slot"
    page.hover(slot)
    count = result.coverage[label]
    assert page.inner_text("#tooltip") == f"{NAMES[label]}: covered by {count} heads"
    page.click(slot)
    assert page.input_value("#find") == NAMES[label]


def test_images_of_the_head_and_of_its_clusters(page, variants):
    found = make_exemplars()
    page.click("#blocks button[value='1']")
    own = (found.block == 1) & (found.head == 0)
    unit = NAMES[found.unit[own][0]]
    captions = page.locator("#images figcaption").all_inner_texts()
    responses = [f"{value:.2f}" for value in found.response[own]]
    assert captions == [
        f"{unit}\n{responses[0]}",
        f"{NAMES[found.labels[1]]} → {unit}\n{responses[1]}",
    ]
    assert page.locator("#images canvas").count() == 4  # each with what the head looks at
    clusters = variants["trained"][1].clusters[0]
    for chip in page.locator("#clusters .chip").all():
        chip.click()
        is_first = found.unit[own][0] in clusters[0] and unit in chip.inner_text().split(" + ")
        assert page.locator("#images figure").count() == (2 if is_first else 0)
    page.click("#blocks button[value='2']")
    page.click(f"#heads button >> nth={DEAD}")
    assert page.inner_text("#images-note").startswith("None of the images was kept")


def test_heads_without_maps_show_their_images(browser, variants, tmp_path):
    path = tmp_path / "index.html"
    exemplars = dataclasses.replace(make_exemplars(), maps=None)
    path.write_text(render_page(variants, TITLE, exemplars=exemplars), encoding="utf-8")
    with opened(browser, path) as page:
        assert page.locator("#images canvas").count() == 2
        assert "looks" not in page.inner_text("#exemplars h2")


def test_the_address_keeps_what_is_shown(browser, page, page_file):
    page.click("#blocks button[value='1']")
    page.click("#heads button >> nth=2")
    page.fill("#threshold", "0.41")
    page.fill("#find", NAMES[3])
    page.select_option("#control", label="untrained trunk")
    page.select_option("#other-head", label="head 1")
    page.click("#boolean")
    page.click("#ordered")
    address = page.evaluate("location.hash")
    with opened(browser, page_file, address) as again:
        assert _state(again) == _state(page)
        assert again.input_value("#find") == NAMES[3]
        assert _drawing(again) == _drawing(page)
        assert again.evaluate("location.hash") == address
        again.evaluate("location.hash = 'block=2&head=99&threshold=x&beside=nobody&label=none'")
        again.wait_for_function("document.querySelector('#block-name').textContent === '2'")
        assert _state(again)[:3] == ("2", f"trained, block 2, head {HEADS - 1}", "0.41")


def test_classical_scores(page):
    page.click("#heads button >> nth=4")
    assert table(page, "#scores") == [["accuracy drop", "0.3", "0.25"], ["mask gradient", "0", "–"]]


def test_on_a_telephone_a_tap_reads_a_cell_and_nothing_is_cut_off(browser, page_file, variants):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(browser, page_file, **phone) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for chart in ("#coverage", "#along"):  # their text keeps its size
            assert page.evaluate("id => document.querySelector(id).getScreenCTM().a", chart) > 0.99
        order = cluster_order(variants["trained"][2].clusters[0], LABELS)
        point(page, "#own", (2, 3), tap=True)
        shown = page.inner_text("#own-cell")
        _check_cell(shown, variants["trained"][2], order[2], order[3])
        assert page.locator("#own-close-up td.chosen").count() == 1
        page.tap("#own-close-up tbody tr >> nth=0")
        assert page.inner_text("#own-cell") != shown
        # Every column of the table is there, with its name, within the screen.
        cells = page.locator("#statistics tbody tr:first-child td").all()
        assert len(cells) == 8
        for cell in cells:
            box = cell.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390
            before = cell.evaluate("cell => getComputedStyle(cell, '::before').content")
            assert before == "none" or before.strip('"') == cell.get_attribute("data-column")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.locator("#map").scroll_into_view_if_needed()
        page.tap("#map rect[class^=size] >> nth=0", force=True)
        assert page.is_visible("#found")


def test_alone_the_model_is_beside_itself(browser, variants, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(render_page({"trained": variants["trained"]}, "alone"), encoding="utf-8")
    with opened(browser, path) as page:
        page.keyboard.press("c")
        assert _state(page)[1::2] == ("trained, block 2, head 0", "trained, block 1, head 0")
        assert len(table(page, "#statistics")) == 1
        assert not page.is_visible("#images") and not page.is_visible("#scores")


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


def _drawing(page, canvas="#own"):
    return page.eval_on_selector(canvas, "canvas => canvas.toDataURL()")


def _state(page):
    block = page.inner_text("#blocks button[aria-pressed='true']")
    titles = page.inner_text("#own-title"), page.inner_text("#other-title")
    return block, titles[0], page.inner_text("#level"), titles[1]
