"""Best trials that lie on a bound of the space."""

import pytest

from lsmha_keras.studies.dimension import at_bounds
from lsmha_keras.studies.search_result import SearchResult
from lsmha_keras.studies.search_space import SearchSpace
from lsmha_keras.studies.study import Study
from tests.studies.rows import row
from tests.studies.tiny import study_dict

pytestmark = pytest.mark.backend_free

LOG = {"min": 1e-4, "max": 1e-2, "sampling": "log"}


@pytest.mark.parametrize(
    "name, values, value, word",
    [
        ("num_heads", [2, 8, 32], 2, "smallest"),
        ("num_heads", [2, 8, 32], 8, None),
        ("num_heads", [2, 8, 32], 32, "largest"),
        ("num_heads", [1, 8, 32], 1, None),  # there are no fewer
        ("num_heads", [2, 8], 8, None),  # no inside
        ("num_heads", {"min": 2, "max": 8}, 8, "largest"),
        ("num_heads", {"min": 2, "max": 64}, 63, None),
        ("num_conv_blocks", [0, 1, 2], 0, None),
        ("num_conv_blocks", [0, 1, 2], 2, "largest"),
        ("augmentation_strength", {"min": 0.0, "max": 1.0}, 1.0, None),
        ("augmentation_strength", {"min": 0.0, "max": 0.5}, 0.49, "largest"),
        ("learning_rate", LOG, 9.9e-3, "largest"),
        ("learning_rate", LOG, 1.1e-4, "smallest"),
        # Of a linear range it would be within the lowest 5 %: 1e-4 + 0.05 * 9.9e-3 = 6e-4.
        ("learning_rate", LOG, 5e-4, None),
        ("weight_decay", {"min": 0.0, "max": 0.2, "step": 0.01}, 0.19, None),
        ("weight_decay", {"min": 0.0, "max": 0.2, "step": 0.01}, 0.2, "largest"),
        ("loss.label_smoothing", {"min": 0.0, "max": 0.2}, 0.0, None),
        ("optimizer.name", ["adamw", "lion", "sgd"], "sgd", None),
        ("ema.enabled", [False, True], True, None),
    ],
)
def test_what_counts_as_a_bound(name, values, value, word):
    found = at_bounds(SearchSpace.from_dict({name: values}), {name: value})
    assert len(found) == (word is not None)
    if word:
        assert found[0].startswith(f"{name}=") and f"the {word} that was tried" in found[0]


def test_heads_of_a_schedule():
    space = SearchSpace.from_dict({"num_heads": {"choices": [2, 8, 32], "schedule": "increasing"}})
    found = at_bounds(space, {"num_heads_first": 8, "num_heads_last": 32})
    assert found == [
        "num_heads_last=32 is the largest that was tried: let the space reach further."
    ]


@pytest.mark.parametrize("best, said", [(8, True), (4, False)])
def test_the_result_and_the_report_say_it(tmp_path, best, said):
    study = Study.from_dict(study_dict("pictures.npz", space={"num_heads": [2, 4, 8]}))
    figures = {"parameters": 1000, "hp.tuner/epochs": 2}
    rows = [
        row(str(heads), 2.0, accuracy, heads=heads, score=accuracy, **figures)
        for heads, accuracy in ((2, 0.4), (4, 0.5), (8, 0.6 if best == 8 else 0.3))
    ]
    result = SearchResult(study, tmp_path, rows)
    result.write()
    sentence = "num_heads=8 is the largest that was tried: let the space reach further."
    report = (tmp_path / "report.md").read_text()
    assert (f"  on a bound: {sentence}" in str(result).splitlines()) == said
    assert (f"## The best trial lies on a bound of the space\n\n* {sentence}\n" in report) == said
    assert ("bound" in report) == said
