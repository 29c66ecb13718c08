"""Every code block of README.md runs, in order, in an empty folder, on the current backend.

Python blocks of one section share their variables. A shell block runs if `<!-- run -->` stands
before it (`<!-- run: torch -->`: if torch is installed), a block after `<!-- file: NAME -->` is
written to that file. Blocks without a language are commands that install things. Numbers of epochs
are set to 1 (2 in a shell), studies stop after two trials; all else runs as it is printed.
"""

import contextlib
import csv
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
_BLOCK = re.compile(
    r"^## (?P<section>[^\n]+)$"
    r"|(?:^<!-- (?P<mark>.+?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


_SHORTER = [
    (re.compile(r"\bepochs( ?= ?)\d+"), r"epochs\g<1>1"),
    (re.compile(r"--epochs \d+"), "--epochs 2"),
    (re.compile(r"\bwarmup_epochs = \d+"), "warmup_epochs = 0"),
    (re.compile(r"\blsmha tune .*$", re.MULTILINE), r"\g<0> --max-trials 2"),
]


def read_blocks(text):
    """Lists the blocks as (section, mark, language, code)."""
    blocks, section = [], ""
    for match in _BLOCK.finditer(text):
        if match["section"]:
            section = match["section"]
        else:
            blocks.append((section, match["mark"], match["language"], match["code"]))
    return blocks


def blocks_of_section(section):
    text = README.read_text()
    for pattern, replacement in _SHORTER:
        text = pattern.sub(replacement, text)
    return [block[1:] for block in read_blocks(text) if block[0] == section]


def sections():
    """Names of the sections with something to run; those that start processes are slow."""
    languages = {}
    for section, _, language, _ in read_blocks(README.read_text()):
        languages.setdefault(section, set()).add(language)
    return [
        pytest.param(section, marks=[pytest.mark.slow] if "sh" in found else [])
        for section, found in languages.items()
        if found & {"python", "sh"}
    ]


def test_blocks_are_found():
    text = README.read_text()
    assert len(read_blocks(text)) == text.count("\n```") // 2
    # A shell block that is not marked would never be run.
    unmarked = [block for block in read_blocks(text) if block[2] == "sh" and not block[1]]
    assert not unmarked
    languages = {block[2] for block in read_blocks(text)}
    assert languages == {"", "python", "sh", "toml"}


@pytest.mark.parametrize("section", sections())
def test_readme_section_runs(section, scratch):
    import keras

    keras.utils.set_random_seed(0)
    variables = {"__name__": "__main__"}
    for mark, language, code in blocks_of_section(section):
        if mark and mark.startswith("file: "):
            (scratch / mark.removeprefix("file: ")).write_text(code)
        elif language == "python":
            exec(compile(code, f"README.md, {section}", "exec"), variables)
        elif language == "sh":
            if needed := re.fullmatch(r"run: (\w+)", mark):
                pytest.importorskip(needed[1])
            run_shell(code, scratch)
    CHECKS.get(section, lambda variables: None)(variables)


def check_digits(variables):
    """Two epochs taught something: by chance, 10 % would be right, give or take 1.6 %."""
    assert variables["lsmha"].evaluate(variables["classifier"], "digits")["accuracy"] > 0.2


def check_study(variables):
    """The file is a study, of which a trial is a recipe."""
    from lsmha_keras.studies.study import load_study

    assert load_study("study.toml").tuner.executions_per_trial == 2


CHECKS = {"Train in your own script": check_digits, "Search head counts": check_study}


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(script, scratch):
    output = scratch / f"output-{script.stem}"
    arguments = {
        "fine_tune": ["--output", str(output), "--epochs", "1", "--data", "photos"],
        "fit_digits": ["--output", str(output), "--epochs", "1"],
        "write_digit_image": [f"{output}.png"],
        "shp_of_any_keras_model": ["--epochs", "1"],
    }[script.stem]
    completed = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=scratch,
        env=environment(scratch),
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
    written = output.is_dir() or output.with_suffix(".png").is_file()
    assert written or "SNR" in completed.stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """An empty folder with what the README takes for granted: photos and a checkpoint."""
    folder = tmp_path_factory.mktemp("readme")
    write_photos(folder)
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
    image.save(folder / "photo.png")


def write_checkpoint(path):
    """A checkpoint with the names and shapes of the reference's CCT-2/3x2, weights random."""
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
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr[-3000:]


def environment(folder):
    """The surroundings in which `lsmha` and Python find the package that is being tested."""
    import lsmha_keras

    package = pathlib.Path(lsmha_keras.__file__).parent.parent
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(package),
    }


def _rows(name):
    with (ROOT / "zoo" / "results" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def _ratio(backend, phase, heads):
    """What the README says of a case of the attention benchmark."""
    case = {"backend": backend, "phase": phase, "heads": heads, "batch": "16", "tokens": "256"}
    times = {
        row["layer"]: [float(row[f"{key}_ms"]) for key in ("median", "fastest", "slowest")]
        for row in _rows("attention.csv")
        if case.items() <= row.items()
    }
    if not times:
        return "not measured"
    ours, peer = times["ours"], times["keras.layers.MultiHeadAttention"]
    return f"{peer[0] / ours[0]:.1f} ({peer[1] / ours[2]:.1f} to {peer[2] / ours[1]:.1f})"


def _whole_models(backend, batch):
    """What the README says of a row of the benchmark of whole models."""
    case = {"backend": backend, "batch": batch, "phase": "inference"}
    times = {
        (row["library"], row["heads"]): float(row["median_ms"])
        for row in _rows("cct.csv")
        if case.items() <= row.items()
    }
    ours = {heads: times.get(("ours", heads)) for heads in ("4", "16", "64")}
    cells = [
        f"{ms:,.1f} ms ({times['vit_pytorch.cct', heads] / ms:.2f})" if ms else "not measured"
        for heads, ms in ours.items()
    ]
    return [*cells, f"{ours['64'] / ours['4']:.2f}"]


def _memory(backend, phase):
    """What the README says of the peak memory of our layer and, by XLA or not, Keras's best."""
    case = {"backend": backend, "phase": phase, "heads": "128", "batch": "16", "tokens": "256"}
    peaks = {}
    for row in _rows("attention_memory.csv"):
        if case.items() <= row.items() and row["peak_mib"]:
            peaks.setdefault(row["layer"], []).append(float(row["peak_mib"]))
    ours, peer = (min(peaks[name]) for name in ("ours", "keras.layers.MultiHeadAttention"))
    return f"{ours:,.0f} to {peer:,.0f}"


@pytest.mark.skipif(
    not (ROOT / "zoo/results/shp_benchmark.csv").exists(), reason="needs shp_benchmark.csv"
)
def test_what_single_head_performance_costs():
    text = README.read_text()
    for row in _rows("shp_benchmark.csv"):
        what, other = row["what"], row["compared_with"]
        if row["peak_mib"]:
            assert f"| {what}, {int(row['images']):,} images | | {row['peak_mib']} MiB |" in text
        elif other:
            least, most = (f"{float(row[key]):.2f}" for key in ("ratio_min", "ratio_max"))
            assert f"| {what} | {other} | {float(row['ratio']):.2f} ({least} to {most}) |" in text


@pytest.mark.skipif(not (ROOT / "zoo").is_dir(), reason="needs the checkout's zoo/results")
def test_tables_hold_what_was_measured():
    from lsmha_keras.presets import list_presets

    text = README.read_text()
    evaluated = {row["preset"] for row in _rows("evaluations.csv")}
    for preset in list_presets(architectures=False):
        assert f"| `{preset.name}` | {preset.parameters:,} | {preset.accuracy:.2f} % |" in text
        assert preset.name in evaluated
    for row in _rows("evaluations.csv"):
        figures = [f"{100 * float(row[key]):.2f} %" for key in ("accuracy", "top5_accuracy")]
        assert re.search(rf"\| `{row['preset']}` \|.* \| {' [|] '.join(figures)} \|", text), row
    for backend in ("jax", "torch", "tensorflow"):
        cells = [_ratio(backend, p, h) for p in ("inference", "training") for h in ("16", "64")]
        cells += [_memory(backend, phase) for phase in ("inference", "training")]
        assert f"| {backend} | {' | '.join(cells)} |" in text
    cases = [(name, "1") for name in ("jax", "torch", "tensorflow")]
    for backend, batch in [*cases, ("torch", "64"), ("tensorflow", "64")]:
        cells = _whole_models(backend, batch)
        assert f"| {backend} | {batch} | {' | '.join(cells)} |" in text
    members = "cct_2_3x2_cifar100+cct_2_3x2_h16_cifar100+cct_2_3x2_h16_c1_cifar100"
    case = {"members": members, "mode": "soft"}
    (soft,) = (row for row in _rows("committees.csv") if case.items() <= row.items())
    accuracy, best = (100 * float(soft[key]) for key in ("accuracy", "best_member_accuracy"))
    assert f"{accuracy:.2f} % on CIFAR-100 together, {accuracy - best:.2f} points more" in text
    for row in _rows("layouts.csv"):  # the hybrid, its parent and what was made from it
        if row["name"].startswith("cct_2_3x2_h16_"):
            assert f"{100 * float(row['accuracy']):.2f}" in text
    for row in _rows("shp_cct_2_3x2_h16_cifar100/blocks.csv"):
        accuracy = row["readout_accuracy"] and f"{100 * float(row['readout_accuracy']):.2f} %"
        digits = {"clusters_per_head": 1, "labels_per_cluster": 2, "noise_per_head": 0}
        digits |= {"heads_per_label": 2, "snr": 1}
        cells = [f"{float(row[key]):.{places}f}" for key, places in digits.items()]
        assert f"| {row['block']} | {row['variant']} | {' | '.join([accuracy, *cells])} |" in text
    scores = ("accuracy_drop", "mask_gradient", "attention_entropy", "attention_distance")
    rows = _rows("shp_cct_2_3x2_h16_cifar100/rank_correlations.csv")
    correlations = [float(row[score]) for row in rows for score in scores]
    between = f"{min(correlations):.2f} and {max(correlations):.2f}"
    assert f"rank correlations with the labels covered lie between {between}" in text
    speeds = {row["pipeline"]: row for row in _rows("data_benchmark.csv")}
    for shown, pipeline in {
        "`keras.layers.RandAugment`, 2 operations": "keras.layers.RandAugment",
        "`RandAugment`, 2 operations": "RandAugment",
        "crop + flip + MixUp/CutMix": "crop + flip + MixUp/CutMix",
    }.items():
        row = speeds[pipeline]
        median, slowest, fastest = (
            f"{int(row[key]):,}" for key in ("images_per_second", "slowest_run", "fastest_run")
        )
        ratio = f"{float(row['ratio_to_keras_rand_augment']):.1f}".removesuffix(".0")
        assert f"| {shown} | {median} ({slowest} to {fastest}) | {ratio} |" in text
