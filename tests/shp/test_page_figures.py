"""What the report's page saves and says of each figure, in a real browser."""

import csv

import numpy as np
import pytest

from lsmha_keras.presets import zoo_dir
from lsmha_keras.text_files import read_rows
from tests.shp.pages import TITLE, make_page, make_variants, opened, table
from tests.shp.results import LABELS, MISSING, NAMES

pytestmark = pytest.mark.backend_free

FIGURES = ("heads", "own", "other", "images", "map", "coverage", "along")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(make_page(), encoding="utf-8")
    return path


@pytest.fixture
def page(browser, page_file):
    with opened(browser, page_file) as page:
        yield page


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_is_saved_as_picture_drawing_and_numbers(page, name, tmp_path):
    place = f".tools[data-figure={name}]"
    page.click("#blocks button[value='1']")
    for ending in ("png", "svg", "csv"):
        with page.expect_download() as download:
            page.click(f"{place} .saves button >> text={ending.upper()}")
        assert download.value.suggested_filename.endswith(f".{ending}")
        download.value.save_as(tmp_path / f"figure.{ending}")
    image = pytest.importorskip("PIL.Image")
    pixels = np.asarray(image.open(tmp_path / "figure.png").convert("L"))
    assert min(pixels.shape) > 150 and pixels.std() > 5
    drawing = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert "threshold 0.30" in drawing and "A &lt;b&gt;title" in drawing and "var(" not in drawing
    shown = _numbers(page, place)
    with open(tmp_path / "figure.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    if name in ("own", "other"):
        assert header[:3] == ["label of the input", "output unit", "response"]
        assert len(rows) == LABELS**2 and len(shown) == LABELS
    else:
        assert rows == shown


def test_numbers_of_a_matrix_are_those_of_python(page):
    result = make_variants()["trained"][2]
    for name, own, cluster, noise in _numbers(page, ".tools[data-figure=own]"):
        label = NAMES.index(name)
        if label == MISSING:
            assert own == noise == ""
            continue
        assert 0 <= float(own) - max(result.matrices[0, label, label], -1.54) < 0.0101
        members = next((c for c in result.clusters[0] if label in c), [])
        assert cluster == " + ".join(NAMES[i] for i in members)
        above = set(np.flatnonzero(result.boolean[0, label]).tolist()) - set(members)
        listed = [entry.split()[0] for entry in noise.split(", ") if entry]
        assert {NAMES.index(entry) for entry in listed} == above


def test_how_to_cite(page):
    text = page.inner_text("#cite")
    assert "arXiv:2506.23832" in text and TITLE in text and "lsmha-keras" in text


def test_the_shipped_page_shows_its_tables(browser):
    folder = zoo_dir() / "results" / "shp_cct_4_3x2_ib_h16_c2_cifar100_65_epochs"
    page_file = folder / "index.html"
    assert page_file.stat().st_size < 2.1e6
    rows = read_rows(folder / "blocks.csv", ["noise_per_head"])
    rows = [row for row in rows if row["block"] == "3"]  # the page begins with the last one
    for width in (390, 1280):
        with opened(browser, page_file, viewport={"width": width, "height": 844}) as page:
            for cells, row in zip(table(page, "#statistics"), rows, strict=True):
                assert cells[0] == row["variant"]
                assert float(cells[3]) == pytest.approx(float(row["noise_per_head"]), abs=0.0501)
            assert page.locator("#images canvas").count() > 0
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def _numbers(page, place):
    """Opens the numbers of a figure; returns the cells."""
    page.click(f"{place} summary")
    page.wait_for_selector(f"{place} details td")  # made after it has opened
    return table(page, f"{place} details table")
