"""The tables of evidence: figures worked by hand, and the text they stand in."""

import pytest

from lsmha_keras.presets import zoo_dir
from tests.evidence.runs import write_layouts
from tools.evidence.tables import (
    TABLES,
    clusters_table,
    committees_table,
    designs_table,
    evidence_text,
    hybrids_table,
    latency_table,
    layouts_table,
    snr_table,
)

pytestmark = pytest.mark.backend_free

EMPTY = "".join(f"Text of {name}.\n<!-- table: {name} -->\n<!-- end -->\n" for name in TABLES)

BLOCKS = """\
variant,block,images,readout_accuracy,clusters_per_head,labels_per_cluster,noise_per_head,\
cluster_noise_per_head,heads_per_label,heads_per_label_min,heads_per_label_max,snr,field_snr
trained,0,1200,0.4217,16.1875,1.59846,347.688,230.375,4.14,0,10,7.05347,3.2787
trained,1,1200,0.5,16,1.5,200,100.5,4,1,9,10,4
Gaussian null,0,100,,12.25,1.11735,1199.06,165.125,2.19,0,7,1.12859,2.02056
"""
LABELS = """\
variant,block,heads
trained,0,0
trained,0,4
trained,0,0
trained,1,2
Gaussian null,0,10
"""


def cells(table):
    """The cells below the heading, row by row."""
    return [
        [cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()[2:]
    ]


@pytest.fixture
def shp(tmp_path):
    folder = tmp_path / "shp_tiny"
    folder.mkdir()
    (folder / "blocks.csv").write_text(BLOCKS)
    (folder / "labels.csv").write_text(LABELS)
    return tmp_path


def test_clusters_stand_beside_their_controls(shp):
    first, null, second = cells(clusters_table(shp))
    assert first == (
        ["tiny", "0", "trained", "16.2", "1.60", "348", "230", "4.14 (0 to 10)", "2 of 3"]
    )
    assert null[:3] == ["tiny", "0", "Gaussian null"] and null[-1] == "0 of 1"
    assert second[:3] == ["tiny", "1", "trained"]


def test_snr_leaves_out_what_has_no_readout(shp):
    assert cells(snr_table(shp)) == [
        ["tiny", "trained", "0", "1,200", "42.17", "7.05", "3.28"],
        ["tiny", "trained", "1", "1,200", "50.00", "10.00", "4.00"],
    ]


def test_layouts_have_mean_and_deviation(tmp_path):
    # 50, 52, 57: mean 53; squares of the deviations 9 + 1 + 16 = 26; 26 / 2 = 13.
    runs = [("a", 0, 0.50), ("b", 0, 0.55), ("a", 0, 0.52), ("a", 0, 0.57), ("a_c1", 1, 0.60)]
    other_schedule = {"epochs": 99}
    write_layouts(tmp_path / "layouts.csv", [*runs, ("a", 0, 0.6, other_schedule)])
    rows = cells(layouts_table(tmp_path))
    assert [row[0] for row in rows] == ["a", "b", "a"]
    assert rows[0][-5:] == ["3", "53.00", "3.61", "50.00", "57.00"]  # sqrt(13) = 3.606
    assert rows[1][-5:] == ["1", "55.00", "", "55.00", "55.00"]
    assert rows[2][5] == "99"


def test_hybrids_follow_their_parents(tmp_path):
    named = {"name": "trained"}
    layouts = [("a_h4", 0, 0.50), ("a_h4", 0, 0.54, named), ("b", 0, 0.5, {"epochs": 1})]
    write_layouts(tmp_path / "layouts.csv", layouts)
    tuned = {"start": "trained", "epochs": 2}
    hybrids = [("a_h4_c1", 1, 0.49, tuned), ("a_h4_c2", 2, 0.515), ("a_h4_c1", 1, 0.53)]
    hybrids += [("b_c1", 1, 0.6), ("b_c1", 1, 0.7, {"start": "elsewhere"})]
    write_layouts(tmp_path / "hybrids.csv", hybrids)
    rows = cells(hybrids_table(tmp_path))
    assert [(row[0], row[1], row[-3], row[-1]) for row in rows] == [
        ("a_h4", "0", "52.00", ""),
        ("a_h4_c1", "1", "53.00", "+1.00"),
        ("a_h4_c2", "2", "51.50", "-0.50"),
        ("a_h4_c1", "1", "49.00", "-3.00"),  # made from a run of the parent
        ("b_c1", "1", "60.00", "parent not measured"),  # by this schedule
        ("b_c1", "1", "70.00", "parent not measured"),
    ]
    assert rows[0][-2] == "2.83"  # sqrt(8)


def test_committees_gain_over_their_best_member(tmp_path):
    (tmp_path / "committees.csv").write_text(
        "members,mode,accuracy,best_member_accuracy,mean_disagreement,dataset,split,num_images\n"
        "a b c,soft,0.6125,0.595,0.3333,cifar100,test,10000\na|b,vote,0.59,0.595,,d,test,5\n"
    )
    soft, vote = cells(committees_table(tmp_path))
    assert soft == (
        ["a b c", "soft", "cifar100 (test)", "10,000", "61.25", "59.50", "+1.75", "33.3"]
    )
    assert vote[0] == "a/b" and vote[-2:] == ["-0.50", ""]


def test_latency_rows_are_formatted(tmp_path):
    (tmp_path / "latency.csv").write_text(
        "model,backend,batch,p50_ms,p90_ms,p99_ms,images_per_s,ratio_to_first,machine,note\n"
        "a,jax,64,12.345,13,14.999,5184.3,1.0,m,\nb,jax,64,,,,,,m,too slow\n"
    )
    assert cells(latency_table(tmp_path)) == [
        ["a", "jax", "64", "12.35", "13.00", "15.00", "5,184", "1.00", "m"],
        ["b", "jax", "64", "", "", "", "", "", "m"],
    ]


def test_designs_have_accuracy_and_time(tmp_path):
    (tmp_path / "conv_designs.csv").write_text(
        "design,seed,accuracy,parameters\nfull,0,0.25,1000\nfull,1,0.27,1000\nthin,0,0.2,10\n"
    )
    (tmp_path / "conv_block_latency.csv").write_text(
        "backend,grid,width,batch,design,ratio_to_transformer\n"
        "jax,8,128,1,full,0.5\njax,8,128,1,thin,0.25\njax,8,128,64,full,0.6\njax,8,128,64,thin,0.1\n"
    )
    assert cells(designs_table(tmp_path)) == [
        ["full", "26.00", "2", "1,000", "0.50", "0.60"],
        ["thin", "20.00", "1", "10", "0.25", "0.10"],
    ]


def test_tables_without_files_say_so(tmp_path):
    filled = evidence_text(EMPTY, tmp_path)
    assert filled.count("-->\n\nnot measured yet\n\n<!-- end -->") == len(TABLES)
    assert evidence_text(filled, tmp_path) == filled


def test_only_tables_change(shp):
    filled = evidence_text(EMPTY, shp)
    assert "| tiny | 0 | trained | 16.2 |" in filled
    for name in TABLES:
        assert f"Text of {name}.\n<!-- table: {name} -->\n" in filled
    # What stood there before is replaced, whatever it was.
    assert evidence_text(filled.replace("16.2", "17.0"), shp) == filled


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<!-- table: T2 -->", "<!-- table: T7 -->"),
        ("<!-- table: T2 -->", "<!-- table: T1 -->"),
        ("<!-- table: T2 -->\n<!-- end -->\n", ""),
        ("<!-- table: T2 -->\n<!-- end -->\n", "<!-- table: T2 -->\n"),
    ],
)
def test_a_table_without_its_place_is_refused(old, new, tmp_path):
    with pytest.raises(ValueError, match="must have the tables T1, T2, T3"):
        evidence_text(EMPTY.replace(old, new), tmp_path)


def test_a_missing_column_is_named(shp):
    (shp / "latency.csv").write_text("model,backend\n")
    with pytest.raises(ValueError, match=r"latency\.csv must have the columns batch, p50_ms"):
        latency_table(shp)


def test_the_evidence_is_what_the_csv_files_give():
    text = (zoo_dir() / "EVIDENCE.md").read_text(encoding="utf-8")
    assert text == evidence_text(text, zoo_dir() / "results"), "run `lsmha zoo evidence`"
