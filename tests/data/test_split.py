"""Split expressions."""

import pytest

from lsmha_keras.data.open_dataset import parse_split

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("train", 10, range(10)),
        ("train[:90%]", 10, range(9)),
        ("train[90%:]", 10, range(9, 10)),
        ("train[:3]", 10, range(3)),
        ("train[-3:]", 10, range(7, 10)),
        ("train[-25%:]", 8, range(6, 8)),
        ("train[20%:-10%]", 10, range(2, 9)),
        ("train[ 2 : 4 ]", 10, range(2, 4)),
        ("train[:]", 10, range(10)),
        ("train[:99]", 10, range(10)),
        ("train[:33%]", 7, range(2)),  # 2.31 is rounded to the nearest
        ("train[:36%]", 7, range(3)),
    ],
)
def test_slices(text, count, expected):
    [term] = parse_split(text)
    assert term.base == "train"
    assert list(range(count))[term.slice(count)] == list(expected)


@pytest.mark.parametrize("percent", [1, 10, 33, 50, 90])
@pytest.mark.parametrize("count", [7, 100, 1437])
def test_agrees_with_tfds(percent, count):
    tfds = pytest.importorskip("tensorflow_datasets")
    info = tfds.core.SplitInfo(
        name="train", shard_lengths=[count], num_bytes=0, filename_template=None
    )
    for text in (f"train[:{percent}%]", f"train[{percent}%:]"):
        instruction = tfds.core.ReadInstruction.from_spec(text).to_absolute({"train": info})
        [absolute] = instruction
        [term] = parse_split(text)
        part = term.slice(count)
        assert (part.start, part.stop) == (
            absolute.from_ or 0,
            count if absolute.to is None else absolute.to,
        )


def test_sum_of_splits():
    assert [term.base for term in parse_split("train[:10] + test")] == ["train", "test"]


@pytest.mark.parametrize("text", ["", "train[", "train[:x]", "train[1:2:3]", "train[5]", None, 3])
def test_bad_expressions(text):
    with pytest.raises(ValueError, match="must look like 'train'.*Received: split="):
        parse_split(text)
