"""Accuracy against cost."""

import pytest

from lsmha_keras.presets import list_presets, zoo_dir
from lsmha_keras.text_files import read_rows
from tools.evidence.front import COLUMNS, PRESET, front_table, measure_front, plot_zoo_front

pytestmark = pytest.mark.backend_free
CNN = "resnet20,published CNN,280000,41000000,0.688,200,crop and flip,somewhere\n"


@pytest.fixture
def results(tmp_path):
    (tmp_path / "front.csv").write_text(",".join(COLUMNS) + "\n" + CNN)
    return tmp_path


def test_presets_get_rows_and_others_keep_theirs(results):
    directory = zoo_dir() / "presets" / "cct_2_3x2_h16_c1_cifar100"
    measure_front([directory], results)
    path = measure_front([directory], results)  # a second time replaces the row
    rows = read_rows(path, COLUMNS)
    assert [row["model"] for row in rows] == ["resnet20", "cct_2_3x2_h16_c1_cifar100"]
    assert rows[1]["parameters"] == "214693" and rows[1]["multiply_adds"] == "29106176"
    assert rows[1]["augmentation"] == "crop and flip" and rows[1]["kind"] == PRESET
    lines = front_table(results).splitlines()
    assert "29.1 | 0.21 |  | 59.3 | 18" in lines[2] and "41.0 | 0.28 |  | 68.8 | 200" in lines[3]


def test_times_stand_beside_the_models_that_were_timed(results):
    times = "runtime,model,median_ms\nopenvino,resnet20,0.254\nonnxruntime,resnet20,0.5\n"
    (results / "cnn_latency.csv").write_text(times)
    assert "41.0 | 0.28 | 0.25 | 68.8" in front_table(results)


def test_figure(results):
    pytest.importorskip("matplotlib", reason='figures need pip install "lsmha-keras[plots]"')
    plot_zoo_front(results, results / "front.png")
    assert (results / "front.png").read_bytes().startswith(b"\x89PNG")


def test_figure_of_nothing(tmp_path):
    pytest.importorskip("matplotlib", reason='figures need pip install "lsmha-keras[plots]"')
    with pytest.raises(ValueError, match=r"front\.csv with rows"):
        plot_zoo_front(tmp_path, tmp_path / "front.png")


def test_epochs_of_the_preset_that_a_training_began_with_count(results):
    directory = zoo_dir() / "presets" / "cct_4_3x2_ib_h16_c2_cifar100_45_epochs"
    path = measure_front([directory], results)
    assert read_rows(path, COLUMNS)[-1]["epochs"] == "45"


def test_the_shipped_table_has_every_preset():
    rows = read_rows(zoo_dir() / "results" / "front.csv", COLUMNS)
    shipped = {p.name for p in list_presets("*_cifar100*", architectures=False)}
    assert {row["model"] for row in rows if row["kind"] == PRESET} == shipped
