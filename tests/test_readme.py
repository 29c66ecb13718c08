"""Every code block of README.md and docs/*.md runs, in an empty folder, on the current backend.

The blocks of a page run in order and share their variables. Python blocks run unless
`<!-- backend: NAME -->` before them names another backend, or `<!-- ..., needs: PACKAGE -->` one
that is missing. A shell block runs if `<!-- run -->` stands before it (`<!-- run: torch -->`: if
torch is installed). A block after `<!-- file: NAME -->` is written to that file. Blocks without a
language are commands that install things or take long. To be quick, epochs become 1 (2 in a
shell), studies stop after two trials, and training images of the digits become the first 192.
"""

import contextlib
import importlib.util
import os
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from lsmha_keras import cli

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# tests/test_deployment_examples.py runs the one for LiteRT.
EXAMPLES = sorted(set((ROOT / "examples").glob("*.py")) - {ROOT / "examples" / "run_litert.py"})
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>.+?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SHORTER = [
    (re.compile(r"\bepochs( ?= ?)\d+"), r"epochs\g<1>1"),
    (re.compile(r"--epochs \d+"), "--epochs 2"),
    (re.compile(r"\bwarmup_epochs = \d+"), "warmup_epochs = 0"),
    (re.compile(r"\bmax_trials( ?= ?)\d+"), r"max_trials\g<1>2"),
    (re.compile(r"\bexecutions_per_trial = \d+"), "executions_per_trial = 1"),
    (re.compile(r'"digits", split="train"'), '"digits", split="train[:192]"'),
    (re.compile(r'"digits", "train"'), '"digits", "train[:192]"'),
    (re.compile(r'"train\[:80%\]"'), '"train[:192]"'),
    (re.compile(r'"train\[80%:\]"'), '"train[192:256]"'),
    (re.compile(r"data\.train_split=train\b"), "data.train_split=train[:192]"),
    (re.compile(r'"train\[:400\]"'), '"train[:128]"'),
    (re.compile(r"range\(400\)"), "range(128)"),
    (
        re.compile(r'^name = "digits"$', re.MULTILINE),
        'name = "digits"\ntrain_split = "train[:192]"',
    ),
]


def read_blocks(text):
    """Lists the blocks as (mark, language, code)."""
    return [(match["mark"], match["language"], match["code"]) for match in _BLOCK.finditer(text)]


def runs(mark):
    """Whether a block is for this backend, and the packages it needs are installed."""
    import keras

    mark = mark or ""
    backend = re.search(r"backend: (\w+)", mark)
    needed = re.search(r"(?:needs|run): (.+)", mark)
    packages = needed[1].split() if needed else []
    here = not backend or backend[1] == keras.backend.backend()
    return here and all(importlib.util.find_spec(package) for package in packages)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_blocks_are_found(page):
    text = page.read_text(encoding="utf-8")
    blocks = read_blocks(text)
    assert len(blocks) == text.count("\n```") // 2
    # A shell block that is not marked would never be run.
    assert not [block for block in blocks if block[1] == "sh" and not block[0]]
    assert {block[1] for block in blocks} <= {"", "python", "sh", "toml"}


def pages_to_run():
    for page in PAGES:
        # tests/studies/test_search.py searches on every backend.
        marks = [pytest.mark.backend_free] if page.stem == "search" else []
        yield pytest.param(page, marks=marks, id=page.stem)


@pytest.mark.slow
@pytest.mark.parametrize("page", list(pages_to_run()))
def test_page_runs(page, scratch):
    import keras

    keras.utils.set_random_seed(0)
    text = page.read_text(encoding="utf-8")
    # README fits a head to few images, which takes more than one epoch to show.
    for pattern, replacement in _SHORTER[page.stem == "README" :]:
        text = pattern.sub(replacement, text)
    variables = {"__name__": "__main__"}
    for mark, language, code in read_blocks(text):
        if mark and mark.startswith("file: "):
            (scratch / mark.removeprefix("file: ")).write_text(code, encoding="utf-8")
        elif language in ("python", "sh") and runs(mark):
            if language == "sh":
                run_shell(code, scratch)
            else:
                exec(compile(code, page.name, "exec"), variables)
    CHECKS.get(page.stem, lambda variables: None)(variables)


def check_readme(variables):
    """The drawn sunflower is recognised; the head fitted to the digits beats chance, 10 %."""
    names, scores = variables["classifier"].class_names, variables["scores"]
    assert names[scores.argmax()] == "sunflower" and scores.max() > 0.9
    assert variables["lsmha"].evaluate("presets/digits", "digits")["accuracy"] > 0.2


def check_committees(variables):
    names, scores = variables["committee"].class_names, variables["scores"]
    assert names[scores[0].argmax()] == "sunflower"


def check_export(variables):
    """The differences of logits that the page states, up to float32 rounding."""
    images, logits = variables["images"], variables["logits"]
    assert np.abs(variables["loaded"].predict(images) - logits).max() < 1e-5
    assert np.abs(variables["classify"].logits(images) - logits).max() < 1e-3
    assert 0.005 < variables["difference"] < 0.1
    if "served" in variables:
        assert np.abs(variables["served"] - logits).max() < 1e-4


def check_presets(variables):
    assert type(variables["same"]) is variables["lsmha"].CCTImageClassifier


def check_search(variables):
    """The file is a study, of which a trial is a recipe."""
    from lsmha_keras.studies.study import load_study

    assert load_study("study.toml").tuner.name == "BayesianOptimization"


CHECKS = {
    "README": check_readme,
    "committees": check_committees,
    "export": check_export,
    "presets": check_presets,
    "search": check_search,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(page):
    """Links are relative, unless pyproject.toml names a repository to make README's absolute."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = [link for link in re.findall(r"\]\(([^)#]+)", text)]
    settings = ROOT / "pyproject.toml"
    if not settings.exists():
        pytest.skip("needs a checkout")
    urls = tomllib.loads(settings.read_text(encoding="utf-8"))["project"]["urls"]
    base = urls.get("Repository", "").rstrip("/")
    for link in links:
        if base and link.startswith(base):
            assert (ROOT / link.removeprefix(base + "/blob/main/")).exists(), link
        elif not link.startswith("https://"):
            assert not base or page.name != "README.md", (
                f"{link} is relative: PyPI cannot follow it"
            )
            assert (page.parent / link).exists(), link


def test_readme_is_short():
    lines = PAGES[0].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert lines[3].startswith("make demo") and lines[4].startswith("make test")


@pytest.mark.slow
@pytest.mark.backend_free
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(script, scratch, capsys):
    output = scratch / f"output-{script.stem}"
    arguments = {
        "draw_sunflower": [f"{output}.png"],
        "fine_tune": ["--output", str(output), "--epochs", "1", "--data", "photos"],
        "fit_digits": ["--output", str(output), "--epochs", "1"],
        "write_digit_image": [f"{output}.png"],
        "shp_of_any_keras_model": ["--epochs", "1"],
    }[script.stem]
    run_script(script, arguments)
    written = output.is_dir() or output.with_suffix(".png").is_file()
    assert written or "SNR" in capsys.readouterr().out


def test_the_picture_is_the_one_the_script_draws(scratch):
    from PIL import Image

    run_script(ROOT / "examples" / "draw_sunflower.py", ["drawn.png"])
    drawn, shipped = (
        np.asarray(Image.open(path), "int16")
        for path in ("drawn.png", ROOT / "examples" / "sunflower.png")
    )
    assert np.abs(drawn - shipped).max() <= 8  # versions of Pillow round edges differently


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """An empty folder with what the pages assume: photos, a checkpoint, the drawn picture."""
    folder = tmp_path_factory.mktemp("readme")
    write_photos(folder)
    (folder / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "sunflower.png", folder / "examples")
    (folder / "bin").mkdir()
    for name, arguments in (("lsmha", " -m lsmha_keras.cli"), ("python", "")):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        command.chmod(0o755)
    with contextlib.suppress(ImportError):
        write_checkpoint(folder / "cct_2_3x2.pth")
    return folder


@pytest.fixture
def scratch(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return workplace


def write_photos(folder):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, colour in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.clip(colour + rng.normal(0, 20, size=(48, 64, 3)), 0, 255)
            image = Image.fromarray(pixels.astype("uint8"))
            image.save(folder / "photos" / name / f"{number}.png")


def write_checkpoint(path):
    """A checkpoint with random weights, named and shaped as in the reference's CCT-2/3x2."""
    import torch

    shapes = {
        "tokenizer.conv_layers.0.0.weight": (64, 3, 3, 3),
        "tokenizer.conv_layers.1.0.weight": (128, 64, 3, 3),
        "classifier.positional_emb": (1, 64, 128),
        **_linear("classifier.attention_pool", 1, 128),
        **_norm("classifier.norm", 128),
        **_linear("classifier.fc", 10, 128),
    }
    for i in range(2):
        block = f"classifier.blocks.{i}."
        shapes |= _norm(block + "pre_norm", 128)
        shapes[block + "self_attn.qkv.weight"] = (384, 128)
        shapes |= _linear(block + "self_attn.proj", 128, 128)
        shapes |= _linear(block + "linear1", 128, 128)
        shapes |= _norm(block + "norm1", 128)
        shapes |= _linear(block + "linear2", 128, 128)
    generator = torch.Generator().manual_seed(0)
    tensors = {key: torch.randn(shape, generator=generator) / 9 for key, shape in shapes.items()}
    torch.save(tensors, path)


def _linear(name, units, inputs):
    return {name + ".weight": (units, inputs), name + ".bias": (units,)}


def _norm(name, size):
    return {name + ".weight": (size,), name + ".bias": (size,)}


def run_shell(code, folder):
    """Runs a block in this process, where the frameworks are imported, or in bash if necessary."""
    lines = code.replace("\\\n", " ").splitlines()
    commands = [words for line in lines if (words := shlex.split(line, comments=True))]
    if all(runs_here(words) for words in commands):
        for program, *arguments in commands:
            if program == "lsmha":
                assert cli.main(arguments) == 0, arguments
            else:
                run_script(folder / arguments[0], arguments[1:])
        return
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr[-3000:]


def runs_here(words):
    """Whether a command is ours alone: no pipes, no options of Python, no other backend."""
    ours = words[0] == "lsmha" or (words[0] == "python" and words[1].endswith(".py"))
    return ours and not {"--backend", "|", ">", ">>", "<", "&&", "||", ";"}.intersection(words)


def run_script(path, arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")


def environment(folder):
    """An environment in which `lsmha` and Python find the package under test."""
    import lsmha_keras

    package = pathlib.Path(lsmha_keras.__file__).parent.parent
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(package),
    }
