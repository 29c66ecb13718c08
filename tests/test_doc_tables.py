"""The tables and numbers in README.md and docs/ are those of the committed csv files."""

import csv
import dataclasses
import pathlib
import re
import statistics

import pytest

ROOT = pathlib.Path(__file__).parent.parent

pytestmark = [
    pytest.mark.backend_free,
    pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs a checkout's docs and results"),
]


AREAS = ("deletion", "insertion")


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_what_single_head_performance_costs():
    text = page("docs/shp.md")
    for row in _rows("shp_benchmark.csv"):
        what, other = row["what"], row["compared_with"]
        if row["peak_mib"]:
            assert f"| {what}, {int(row['images']):,} images | | {row['peak_mib']} MiB |" in text
        elif other:
            least, most = (f"{float(row[key]):.2f}" for key in ("ratio_min", "ratio_max"))
            assert f"| {what} | {other} | {float(row['ratio']):.2f} ({least} to {most}) |" in text


def test_presets():
    from lsmha_keras.presets import list_presets

    text = page("docs/presets.md")
    evaluated = {row["preset"] for row in _rows("evaluations.csv")}
    names = [preset.name for preset in list_presets(architectures=False)]
    assert re.findall(r"^\| `(\w+)` \|", text, re.M) == names  # the best one first
    for preset in list_presets(architectures=False):
        assert f"| `{preset.name}` | {preset.parameters:,} | {preset.accuracy:.2f} % |" in text
        assert preset.name in evaluated
    for row in _rows("evaluations.csv"):
        figures = [f"{100 * float(row[key]):.2f} %" for key in ("accuracy", "top5_accuracy")]
        assert re.search(rf"\| `{row['preset']}` \|.* \| {' [|] '.join(figures)} \|", text), row


def test_what_a_user_waits_for():
    text = page("docs/export.md")
    rows = _rows("predictor_latency.csv")
    for way in {row["way"] for row in rows}:
        found = {row["what"]: row for row in rows if row["way"] == way}
        cells = [
            f"{float(row['median_ms']):.2f} ({float(row['fastest_ms']):.2f} to "
            f"{float(row['slowest_ms']):.2f})"
            if (row := found.get(what))
            else ""
            for what in ("one image", "64 images", "cold start")
        ]
        assert f"| {way} | {' | '.join(cells)} |" in text


def test_what_int8_costs():
    from lsmha_keras.presets import ALIASES

    rows = _rows("accuracy_latency.csv")
    small = [row for row in rows if row["preset"] == ALIASES["lsmha-small"]]
    accuracy = {row["way"]: float(row["accuracy"]) for row in small}
    losses = [accuracy[way.removesuffix(", int8")] - accuracy[way] for way in accuracy]
    assert f"loses at most\n{max(losses):.1f} points" in page("docs/export.md")
    (note,) = {row["note"] for row in rows if row["note"]}
    before, after = map(float, re.findall(r"([\d.]+) %", note))
    assert f"`lsmha-base` loses {before - after:.1f}, so the export refuses it" in page(
        "docs/export.md"
    )


def test_the_service_under_load():
    for row in _rows("serving.csv"):
        cells = [row["runtime"], row["sent"], row["images"], row["seconds"]]
        cells += [
            f"{float(row['images_per_s']):,.0f}",
            f"{100 * float(row['share_of_bare']):.0f} %",
        ]
        cells += [f"{float(row['p99_ms']):.0f} ms", row["lost"], row["wrong"]]
        cells.append(f"{row['mib_warm']} and {row['mib_after']}")
        assert f"| {' | '.join(cells)} |" in page("docs/serve.md")


def test_readme_opens_with_the_best_preset():
    from lsmha_keras.presets import ALIASES, list_presets

    best = list_presets(architectures=False)[0]
    assert ALIASES["lsmha-base"] == best.name
    opening = " ".join(page("README.md").splitlines()[:13])
    (row,) = (
        row
        for row in _rows("evaluations.csv")
        if (row["preset"], row["backend"]) == (best.name, "tensorflow")
    )
    assert f"`lsmha-base`, reaches {best.accuracy:.2f} % top-1" in opening
    assert f"{100 * float(row['top5_accuracy']):.2f} % top-5" in opening
    assert f"with {best.parameters:,} parameters, and takes {best.latency_ms:.1f} ms" in opening
    wrong = 100 - best.accuracy
    assert f"`lsmha-base` is wrong on {wrong:.0f} % of" in page("README.md")


def test_readme_says_what_was_measured():
    """Every row of the table "What has been measured"."""
    from lsmha_keras.presets import list_presets

    cells = dict(
        (what, (result, spread))
        for what, result, spread in re.findall(
            r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| \[", page("README.md"), re.M
        )
    )
    runs = {}
    for row in _rows("layouts.csv"):
        key = (row["layout"], row["start"], row["epochs"])
        runs.setdefault(key, []).append(100 * float(row["accuracy"]))
    for what, layout, epochs in (
        ("16 heads, first block a convolution, 18 epochs", "cct_2_3x2_h16_c1", "18"),
        ("the same heads without the convolution, 18 epochs", "cct_2_3x2_h16", "18"),
        ("2 heads, as in the reference model, 18 epochs", "cct_2_3x2", "18"),
    ):
        found = runs.pop((layout, "random", epochs))
        # The csv has four digits: the mean of two runs may end in a 5, which is rounded to even.
        assert abs(float(cells[what][0].split()[0]) - statistics.mean(found)) < 0.0051, what
        spread = "one run"
        if len(found) == 2:
            spread = f"two seeds, standard deviation {statistics.stdev(found):.2f} points"
        assert cells[what][1] == spread
    presets = {preset.alias: preset for preset in list_presets(architectures=False)}
    for what in (
        "`lsmha-base`: inverted bottlenecks, then five blocks of 16 heads",
        "`lsmha-small`: inverted bottlenecks, then two blocks of 16 heads, 65 epochs",
    ):
        accuracy = presets[what.split("`")[1]].accuracy
        assert cells[what] == (f"{accuracy:.2f} %", "one run")
    for what, way, keras_way, unit, scale, digits in (
        ("one image", "`Predictor` with onnxruntime", "predict", "ms", 1, 2),
        ("cold start", "", "Predictor, keras", "s", 1e-3, 2),
    ):
        found = {row["way"]: row for row in _rows("predictor_latency.csv") if row["what"] == what}
        ours, other = found["Predictor, onnxruntime"], found[keras_way]
        assert {row["preset"] for row in found.values()} == {presets["lsmha-small"].name}
        median, fastest, slowest = (
            f"{scale * float(ours[key]):.{digits}f}"
            for key in ("median_ms", "fastest_ms", "slowest_ms")
        )
        title = f"{what}, {way}" if way else "`lsmha predict` of a photo from a cold start"
        result, spread = cells[title]
        assert result.startswith(f"{median} {unit}")
        assert f"{scale * float(other['median_ms']):.{digits}f} {unit}" in result
        assert spread == f"{fastest} to {slowest} {unit} over {ours['runs']} runs"
    accuracy, gain = _committee()
    what = "committee of the presets with 2 heads, 16 heads and the hybrid"
    assert cells[what][0] == f"{accuracy:.2f} %"
    assert cells[what][1] == f"one committee; {gain:.2f} points above its best member"
    ratio, spread = _ratio("jax", "inference", "64").rstrip(")").split(" (")
    what = "attention with 64 heads, inference on JAX"
    assert cells[what][0].startswith(f"{ratio} times as fast as `keras.layers.MultiHeadAttention`")
    assert cells[what][1] == f"{spread} over 10 runs"
    heads = {
        row["variant"]: f"{float(row['heads_per_label']):.2f}"
        for row in _rows("shp_cct_2_3x2_h16_cifar100/blocks.csv")
        if row["block"] == "1"
    }
    what = "heads that recognise a label, 16 heads, second block"
    assert cells[what][0] == (
        f"{heads['trained']} a label; {heads['Gaussian null']} with random matrices"
    )
    lost = _points_lost_without_half_of_the_heads("lsmha-base")
    gained, random = -lost["mask_gradient"], lost["random"]
    assert cells["heads of `lsmha-base` that can go without fine-tuning"][0] == (
        "40 of 80, those of the lowest mask gradient: "
        f"{gained:.2f} points gained, {random:.2f} lost without 40 random ones"
    )


def _points_lost_without_half_of_the_heads(alias):
    from lsmha_keras.presets import ALIASES

    found = {}
    for row in _rows("heads/curves.csv"):
        if (row["preset"], row["fraction"]) == (ALIASES[alias], "0.5"):
            found.setdefault(row["score"], []).append(-100 * float(row["difference"]))
    return {score: statistics.mean(values) for score, values in found.items()}


def test_kinds_of_attention():
    ratios = {
        (row["backend"], row["attention"]): f"{float(row['ratio_to_multi_head']):.2f}"
        for row in _rows("attention_kinds.csv")
        if (row["heads"], row["phase"], row["batch"]) == ("64", "inference", "1")
    }
    told = re.findall(r"`(\w+)` (\d+\.\d+) and (\d+\.\d+)", page("docs/attention.md"))
    assert len(told) >= 8
    for kind, *found in told:
        assert found == [ratios["torch", kind], ratios["jax", kind]], kind


def test_attention_and_whole_models():
    text = page("docs/speed.md")
    for backend in ("jax", "torch", "tensorflow"):
        cells = [_ratio(backend, p, h) for p in ("inference", "training") for h in ("16", "64")]
        cells += [_memory(backend, phase) for phase in ("inference", "training")]
        assert f"| {backend} | {' | '.join(cells)} |" in text
    cases = [(name, "1") for name in ("jax", "torch", "tensorflow")]
    for backend, batch in [*cases, ("torch", "64"), ("tensorflow", "64")]:
        cells = _whole_models(backend, batch)
        assert f"| {backend} | {batch} | {' | '.join(cells)} |" in text


def test_questions_of_trec():
    rows = [
        row
        for row in _rows("sequences.csv")
        if (row["model"], row["dataset"], row["heads"]) == ("text_cct_2_2x1_h16_trec", "trec", "16")
    ]
    first, *others = (100 * float(row["accuracy"]) for row in rows)
    assert len(others) == 2 and rows[0]["seed"] == "0"
    mean = statistics.mean([first, *others])
    assert (
        f"| {first:.2f} % of {rows[0]['num_texts']} test questions | one run; {mean:.1f} % over "
        "three seeds |"
    ) in page("README.md")


def test_a_training_step_beside_vit_pytorch():
    case = {"model": "cct_2_3x2", "phase": "training", "batch": "128", "heads": "16"}
    rows = [row for row in _rows("cct.csv") if case.items() <= row.items()]
    cells = []
    for backend in ("tensorflow", "torch", "jax"):
        times = {r["library"]: float(r["median_ms"]) for r in rows if r["backend"] == backend}
        ours, peer = times["ours"], times["vit_pytorch.cct"]
        cells.append(f"{ours:.0f} ms ({peer / ours:.2f})")
    assert f"| {' | '.join(cells)} |" in page("docs/speed.md")


def test_one_image_beside_vit_pytorch():
    rows = _rows("peer_latency.csv")
    ways = ("predict", "predict_on_batch", "Predictor, onnxruntime", "Predictor, openvino")
    for backend in {row["backend"] for row in rows}:
        times = {r["way"]: float(r["median_ms"]) for r in rows if r["backend"] == backend}
        peer = times["vit_pytorch.cct"]
        cells = [f"{times[way]:.1f} ms ({peer / times[way]:.2f})" for way in ways]
        assert f"| {backend} | {' | '.join(cells)} | {peer:.1f} ms |" in page("docs/speed.md")


def test_the_slowest_case_of_attention():
    times = {}
    for row in filter(lambda row: row["median_ms"], _rows("attention.csv")):
        case = tuple(row[key] for key in ("backend", "phase", "heads", "tokens", "batch"))
        times.setdefault(case, {})[row["layer"]] = float(row["median_ms"])
    ratios = {
        case: found["keras.layers.MultiHeadAttention"] / found["ours"]
        for case, found in times.items()
        if {"ours", "keras.layers.MultiHeadAttention"} <= set(found)
    }
    worst = min(ratios, key=ratios.get)
    assert worst[:4] == ("jax", "training", "4", "64")
    for name in ("README.md", "docs/speed.md"):
        assert f"runs at {ratios[worst]:.2f} times" in page(name)


def test_explanations():
    for row in _rows("explanations.csv"):
        assert row["num_images"] == "500"
        cells = (f"{float(row[k]):.4f} ± {float(row[f'{k}_error']):.4f}" for k in AREAS)
        assert f"| {row['method']} | {' | '.join(cells)} |" in page("docs/explain.md")


# How many the test splits have.
_TEST_SEQUENCES = {
    "trec": "500",
    "trec_fine": "500",
    "sst2": "872",
    "digits_series": "360",
    "pulses": "500",
}


def test_what_text_models_reach():
    rows, text = _rows("sequences.csv"), page("docs/sequences.md")
    for row in rows:
        figures = (f"{100 * float(row[key]):.2f}" for key in ("accuracy", "macro_accuracy"))
        cells = [*(row[key] for key in ("dataset", "model", "heads", "seed")), *figures]
        assert f"| {' | '.join(cells)} | {int(row['parameters']):,} |" in text
        assert row["num_texts"] == _TEST_SEQUENCES[row["dataset"]]
    means = {}
    for row in rows:
        if (row["model"], row["dataset"]) == ("text_cct_2_2x1_h16_trec", "trec"):
            means.setdefault(row["heads"], []).append(100 * float(row["accuracy"]))
    few, *more = (f"{statistics.mean(means[heads]):.1f}" for heads in ("4", "16", "32", "64"))
    assert f"are {few} % with 4 heads, {more[0]} with 16, {more[1]} with 32 and {more[2]}" in text
    fine = {}
    for row in rows:
        if row["model"] == "text_cct_2_2x1_h16_trec_fine":
            fine.setdefault(row["heads"], []).append(100 * float(row["accuracy"]))
    few, *more = (f"{statistics.mean(fine[heads]):.1f}" for heads in ("4", "16", "32"))
    assert f"classes: {few} % with 4 heads, {more[0]} with 16 and {more[1]} with 32," in text
    listed = re.findall(rf"^\| (?:{'|'.join(_TEST_SEQUENCES)}) \| ", text, re.M)
    assert len(listed) == len(rows)


def test_what_each_convolution_saves():
    rows = [r for r in _rows("hybrid_latency.csv") if r["way"] == "Predictor, openvino"]
    assert len(rows) == 5
    for row in rows:
        median, low, high = (float(row[f"{k}_ms"]) for k in ("median", "fastest", "slowest"))
        times = float(rows[0]["median_ms"]) / median
        line = f"| `{row['preset']}` | {median:.2f} ({low:.2f} to {high:.2f}) | {times:.2f} |"
        assert line in page("docs/hybrids.md")


def test_committees():
    accuracy, gain = _committee()
    text = page("docs/committees.md")
    assert f"{accuracy:.2f} % on CIFAR-100 together, {gain:.2f} points more" in text


def test_hybrids():
    text = page("docs/hybrids.md")
    for row in _rows("layouts.csv"):  # the hybrid, its parent and what was made from it
        if row["name"].startswith("cct_2_3x2_h16_"):
            assert f"{100 * float(row['accuracy']):.2f}" in text


def test_single_head_performance():
    text = page("docs/shp.md")
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


def test_every_key_of_a_recipe_is_named():
    from lsmha_keras.training import recipe as recipe_sections

    rows = dict(re.findall(r"^\| `\[(\w+)\]` \| (.*) \|$", page("docs/recipes.md"), re.M))
    for section in vars(recipe_sections).values():
        if hasattr(section, "SECTION"):
            for field in dataclasses.fields(section):
                assert f"`{field.name}`" in rows[section.SECTION], (section.SECTION, field.name)


def test_augmentation_speed():
    text = page("docs/data.md")
    speeds = {row["pipeline"]: row for row in _rows("data_benchmark.csv")}
    for shown, pipeline in {
        "`keras.layers.RandAugment`, 2 operations": "keras.layers.RandAugment",
        "`RandAugmentPerImage`, 2 operations": "RandAugment",
        "crop + flip + MixUp/CutMix": "crop + flip + MixUp/CutMix",
    }.items():
        row = speeds[pipeline]
        median, slowest, fastest = (
            f"{int(row[key]):,}" for key in ("images_per_second", "slowest_run", "fastest_run")
        )
        ratio = f"{float(row['ratio_to_keras_rand_augment']):.1f}".removesuffix(".0")
        assert f"| {shown} | {median} ({slowest} to {fastest}) | {ratio} |" in text


def _rows(name):
    with (ROOT / "zoo" / "results" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def _ratio(backend, phase, heads):
    """The figures of a case of the attention benchmark, as docs/speed.md shows them."""
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
    """The figures of a row of the benchmark of whole models, as docs/speed.md shows them."""
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
    """The peak memory of our layer and of Keras's, the lower of with and without XLA."""
    case = {"backend": backend, "phase": phase, "heads": "128", "batch": "16", "tokens": "256"}
    peaks = {}
    for row in _rows("attention_memory.csv"):
        if case.items() <= row.items() and row["peak_mib"]:
            peaks.setdefault(row["layer"], []).append(float(row["peak_mib"]))
    ours, peer = (min(peaks[name]) for name in ("ours", "keras.layers.MultiHeadAttention"))
    return f"{ours:,.0f} to {peer:,.0f}"


def _committee():
    """Accuracy of the soft committee of three presets, and its gain, in percent and points."""
    members = "cct_2_3x2_cifar100+cct_2_3x2_h16_cifar100+cct_2_3x2_h16_c1_cifar100"
    case = {"members": members, "mode": "soft"}
    (soft,) = (row for row in _rows("committees.csv") if case.items() <= row.items())
    accuracy, best = (100 * float(soft[key]) for key in ("accuracy", "best_member_accuracy"))
    return accuracy, accuracy - best
