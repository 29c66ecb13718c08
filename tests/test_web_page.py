"""The template that the pages share."""

import json
import re

import pytest

from lsmha_keras.web_page import render_web_page

pytestmark = pytest.mark.backend_free


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "body.html").write_text("<main>__DATA__</main>", encoding="utf-8")
    (tmp_path / "page.css").write_text("main { color: red; }", encoding="utf-8")
    (tmp_path / "first.js").write_text("const first = data.title;", encoding="utf-8")
    (tmp_path / "second.js").write_text("const second = first;", encoding="utf-8")
    return tmp_path


def test_a_page_needs_nothing_else(folder):
    page = render_web_page(folder, {"title": "t", "about": ""}, ["first.js", "second.js"])
    assert page.index("const data") < page.index("const first") < page.index("const second")
    assert "main { color: red; }" in page
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import", page)
    assert "default-src 'none'" in page


def test_what_is_put_in_is_not_searched_for_marks(folder):
    title = "</script>__STYLE__ ü"
    page = render_web_page(folder, {"title": title, "about": "__SCRIPT__"}, ["first.js"])
    assert "<main>__DATA__</main>" in page and page.count("main { color: red; }") == 1
    (text,) = re.findall(r'id="data">(.*)</script>\n<script>', page)
    assert json.loads(text) == {"title": title, "about": "__SCRIPT__"}
    assert page.count("</script>") == 2


def test_nan_is_no_json(folder):
    with pytest.raises(ValueError, match="JSON compliant"):
        render_web_page(folder, {"title": "t", "about": "", "x": float("nan")}, ["first.js"])
