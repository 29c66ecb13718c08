"""The folder that `lsmha explain` writes, and its page in a real browser."""

import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image

from lsmha_keras import cli
from lsmha_keras.heads.explanation import Explanation
from lsmha_keras.heads.report import render_page, write_explanations
from tests.heads.models import classifier

NAMES = ["rose </script>", "sea", "tank"]


def make_explanations(methods=("relevance", "occlusion", "maps")):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (16, 16, 3), dtype="uint8")
    found = {
        method: Explanation(
            method, image, rng.normal(size=4), (2, 2), 1, np.array([0.1, 0.7, 0.2]), NAMES
        )
        for method in methods
    }
    maps = {2: rng.uniform(size=(3, 4)), 3: rng.uniform(size=(3, 4))}
    found["maps"] = dataclasses.replace(found["maps"], head_maps=maps)
    return found


@pytest.mark.backend_free
def test_the_folder_holds_pictures_numbers_and_a_page(tmp_path):
    pytest.importorskip("matplotlib")
    found = make_explanations()
    page = write_explanations(found, tmp_path / "out", "Why sea?")
    names = {f"{name}.{e}" for name in (*found, "heads") for e in ("png", "svg")}
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == names | {"index.html", "relevance.csv"}
    assert page == tmp_path / "out" / "index.html"
    with open(tmp_path / "out" / "relevance.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["column"]) for row in rows] == [
        ("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")
    ]  # fmt: skip
    for method, explanation in found.items():
        values = [float(row[method]) for row in rows]
        np.testing.assert_allclose(values, explanation.tokens, rtol=1e-5)


@pytest.mark.backend_free
def test_names_of_classes_stay_text():
    page = render_page(make_explanations(), "</script><b>title</b>")
    assert page.count("</script>") == 2 and "<b>title" not in page


@pytest.fixture
def page(browser, tmp_path):
    """The loaded page; afterwards nothing must have failed or been asked of a network."""
    file = tmp_path / "index.html"
    text = render_page(make_explanations(), "Why <b>sea</b>?", "photo.jpg")
    file.write_text(text, encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("#methods button")
    yield page
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
    page.close()


def pressed(page):
    return page.get_attribute("[aria-pressed=true]", "title")


@pytest.mark.backend_free
def test_the_page_goes_by_keyboard(page):
    assert page.title() == page.inner_text("h1") == "Why <b>sea</b>?"
    assert pressed(page) == "gradient-weighted relevance"
    page.keyboard.press("ArrowRight")
    assert pressed(page) == "occlusion"
    page.keyboard.press("ArrowLeft")
    page.focus("#overlay")
    page.keyboard.press("ArrowRight")  # to the first token
    page.keyboard.press("ArrowDown")
    value = make_explanations()["relevance"].tokens[2]
    shown = page.inner_text("#value")
    assert shown.startswith("gradient-weighted relevance · row 1, column 0: ")
    assert float(shown.split(": ")[1]) == pytest.approx(value, rel=6e-3)
    before = page.get_attribute("html", "data-theme")
    page.keyboard.press("t")
    assert {before, page.get_attribute("html", "data-theme")} == {"light", "dark"}


@pytest.mark.backend_free
def test_the_page_shows_classes_and_heads_on_a_phone(page):
    assert page.locator("#classes li").all_inner_texts() == [
        "sea\n70.0 %", "tank\n20.0 %", "rose </script>\n10.0 %"
    ]  # fmt: skip
    assert page.locator("#classes .explained").count() == 1
    page.click("#heads .block:nth-child(2) button:nth-of-type(3)")
    assert page.inner_text("#value") == "block 3, head 2"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.backend_free
def test_the_overlay_is_coloured_where_relevance_is(page):
    read = "[...overlay.getContext('2d').getImageData(0, 0, overlay.width, overlay.height).data]"
    size, values = page.evaluate(f"[overlay.width, {read}]")
    picture = np.reshape(values, (size, size, 4))[..., :3]
    tokens = make_explanations()["relevance"].tokens
    assert tokens.min() < 0
    # Token 0 is in the upper left corner, 3 in the lower right one.
    red, grey = (picture[-(t // 2), -(t % 2)] for t in (tokens.argmax(), tokens.argmin()))
    assert red[0] > red[1] + 50 and max(grey) - min(grey) <= 2


# The command


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    path = tmp_path_factory.mktemp("preset")
    classifier().save_to_preset(path)
    return path


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype="uint8")
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_command_explains_a_label(preset, photo, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["explain", str(preset), str(photo), "--output", str(tmp_path / "out")]
    assert cli.main([*arguments, "--label", "name 2", "--methods", "rollout", "maps"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(tmp_path / "out" / "index.html")
    assert sum(line.startswith("name ") for line in lines) == 5
    assert "Why name 2?" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "heads.svg").exists()
    assert cli.main([*arguments, "--label", "1", "--methods", "rollout"]) == 0  # written over
    assert "Why name 1?" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_what_cannot_be_explained_leaves_nothing(preset, photo, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "notes.jpg").write_text("no image")
    output = tmp_path / "out"
    for image, more, message in [
        ("missing.jpg", [], "no such image. Received: missing.jpg"),
        (tmp_path / "notes.jpg", [], "notes.jpg is not a sound image file"),
        (photo, ["--label", "nam 2"], "nearest: name 2"),
        (photo, ["--label", "9"], "Received: label=9"),
    ]:
        assert cli.main(["explain", str(preset), str(image), "--output", str(output), *more]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not output.exists()


def test_a_folder_with_other_files_is_left_alone(preset, photo, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["explain", str(preset), str(photo), "--methods", "rollout"]
    assert cli.main([*arguments, "--output", str(tmp_path)]) == 2
    assert "holds files that were not written there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
