"""The report's page on texts, in a real browser: words in colour in place of images."""

import dataclasses

import numpy as np
import pytest

from lsmha_keras.shp.report.page import render_page
from tests.shp.pages import TITLE, make_exemplars, make_variants, opened
from tests.shp.results import NAMES

pytestmark = pytest.mark.backend_free

WORDS = 3


@pytest.fixture
def exemplars():
    made = make_exemplars()
    texts = np.array([f"<b>what</b> is number{i}" for i in range(len(made.images))])
    maps = np.random.default_rng(0).dirichlet(np.ones(WORDS), len(made.head)).astype("float32")
    return dataclasses.replace(made, images=texts, grid_shape=(WORDS, 1), maps=maps)


@pytest.fixture
def page(browser, tmp_path, exemplars):
    variants = make_variants()
    text = render_page(variants, TITLE, exemplars=exemplars, samples="texts")
    (tmp_path / "index.html").write_text(text, encoding="utf-8")
    with opened(browser, tmp_path / "index.html") as page:
        yield page


def test_texts_that_excite_a_head_and_where_it_looks(page, exemplars):
    page.click("#blocks button[value='2']")
    page.click("#heads button >> nth=1")
    rows = np.flatnonzero((exemplars.block == 2) & (exemplars.head == 1))
    shown = page.locator("#images .text").all()
    assert [text.inner_text().split() for text in shown] == [
        exemplars.images[exemplars.image[row]].split() for row in rows
    ]
    style = "element => getComputedStyle(element).backgroundColor"
    for row, text in zip(rows, shown, strict=True):
        colors = [mark.evaluate(style) for mark in text.locator("mark").all()]
        alphas = [float(c.rstrip(")").split(",")[3]) if c.count(",") == 3 else 1 for c in colors]
        assert int(np.argmax(alphas)) == int(exemplars.maps[row].argmax())
    caption = page.locator("#images figcaption").first.inner_text()
    assert caption.startswith(NAMES[exemplars.labels[exemplars.image[rows[0]]]])
    assert not page.locator("#images canvas").count()


def test_the_page_speaks_of_texts(page):
    assert "texts of" in page.inner_text("#about")
    assert "in colour" in page.inner_text("#looks")
    tools = page.locator(".tools[data-figure=images] button").all_inner_texts()
    assert not any("PNG" in tool for tool in tools)
