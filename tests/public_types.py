"""What a type checker says of a user's program: read by mypy (`make lint`), not run by pytest."""

import pathlib
from typing import assert_type

import lsmha_keras as lsmha

model = lsmha.CCTImageClassifier.from_preset("cct_2_3x2", num_classes=10)
assert_type(model, lsmha.CCTImageClassifier)
assert_type(model.fuse(), lsmha.CCTImageClassifier)
assert_type(lsmha.CCTBackbone(num_heads=[4, 8], num_layers=2), lsmha.CCTBackbone)
assert_type(lsmha.find_clusters([[True]]), list[list[int]])
assert_type(lsmha.fit_readout(model, "digits", blocks=[1]), lsmha.BlockReadouts)
assert_type(lsmha.BlockReadouts.load(pathlib.Path("readouts.npz")), lsmha.BlockReadouts)
assert_type(lsmha.export(model, "onnx", "exported"), pathlib.Path)
assert_type(lsmha.head_scores(model, "digits", ["shp"]), lsmha.HeadScoreTable)
assert_type(lsmha.HeadScoreTable.load("scores.csv").methods, list[str])
assert_type(lsmha.list_presets("*h16*")[0].name, str)

# Mistakes that are found; mypy complains of an `ignore` that is not needed.
lsmha.CCTBackbone(num_heads="four")  # type: ignore[arg-type]
lsmha.export(model, "onxx", "exported")  # type: ignore[arg-type]
lsmha.fit_readout(model, "digits", block=1)  # type: ignore[call-arg]
lsmha.SingleHeadPerformance("digits", "digits")  # type: ignore[attr-defined]
