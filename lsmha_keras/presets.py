"""Presets: from a name to a directory of configs and weights.

A preset is a directory in KerasHub's format with a `checksums.sha256`. Its name reads: reference
architecture, then what differs, then the data it was trained on, `cct_7_3x1_h25x10_c2_cifar100`.
Without the data it is an architecture without weights and needs no directory.
"""

import dataclasses
import fnmatch
import os
import pathlib
import re

from lsmha_keras.attention.registry import attention_names

# Re-exported: scripts call `lsmha_keras.presets.write_checksums`, as error messages advise.
from lsmha_keras.checksums import CARD as CARD
from lsmha_keras.checksums import CHECKSUMS as CHECKSUMS
from lsmha_keras.checksums import verify_checksums as verify_checksums
from lsmha_keras.checksums import verify_file as verify_file
from lsmha_keras.checksums import write_checksums as write_checksums
from lsmha_keras.errors import InputError, PackageError, nearest
from lsmha_keras.text_files import read_json

# What the name of a preset on a hub begins with.
HUBS = ("hf://", "kaggle://")
# What a committee's directory has instead of a model's `config.json`.
COMMITTEE = "committee.json"
# The model as a graph, for runtimes other than Keras; made from the other files.
ONNX = "model.onnx"
# Short names of the presets to begin with; every place that takes a name takes these too.
ALIASES = {
    "lsmha-base": "cct_7_3x2_ib_h16_c2_cifar100_56_epochs",
    "lsmha-small": "cct_4_3x2_ib_h16_c2_cifar100_65_epochs",
}

# Depth -> width, heads and perceptron width of the reference (Hassani et al., 2021).
_REFERENCE = {
    2: {"hidden_dim": 128, "num_heads": 2, "mlp_dim": 128},
    4: {"hidden_dim": 128, "num_heads": 2, "mlp_dim": 128},
    6: {"hidden_dim": 256, "num_heads": 4, "mlp_dim": 512},
    7: {"hidden_dim": 256, "num_heads": 4, "mlp_dim": 512},
    14: {"hidden_dim": 384, "num_heads": 6, "mlp_dim": 1152},
}
_LISTED = ["cct_2_3x2", "cct_4_3x2", "cct_6_3x1", "cct_6_3x2", "cct_7_3x1", "cct_7_3x2"]
_LISTED += ["cct_7_7x2", "cct_14_7x2"]
_LISTED += ["text_cct_2_4x1", "text_cct_4_4x1", "text_cct_6_4x1", "series_cct_2_3x1"]
_LISTED += [f"cct_2_3x2_h{heads}" for heads in ("16", "32", "25x5")]
_LISTED += [f"cct_7_3x1_h{heads}" for heads in ("16", "32", "64", "25x10")]
_NAME = re.compile(
    r"(?P<kind>text_|series_)?cct_(?P<layers>\d+)_(?P<kernel>\d+)x(?P<convs>\d+)(?P<design>_sep|_ib)?(?P<sine>_sine)?"
    r"(?:_h(?P<heads>\d+)(?:x(?P<head_dim>\d+))?)?(?:_(?P<attention>[a-z]{2,}(?:_[a-z]{2,})*))?"
    r"(?:_c(?P<conv_blocks>\d+))?"
)
_TOKENIZERS = {"_sep": "separable", "_ib": "inverted_bottleneck"}


@dataclasses.dataclass(frozen=True)
class PresetInfo:
    """Name and figures of a preset.

    Attributes:
        name: str, what `from_preset` takes.
        parameters: int or `None`, parameters of the classifier; `None` for an architecture.
        dataset: str or `None`, the data it was trained on; `None` for an architecture.
        accuracy: float or `None`, top-1 accuracy on the test split, in percent.
        latency_ms: float or `None`, median latency of one image, in milliseconds.
        path: `pathlib.Path` or `None`, its directory.
        alias: str or `None`, a short name that `from_preset` takes too.
    """

    name: str
    parameters: int | None = None
    dataset: str | None = None
    accuracy: float | None = None
    latency_ms: float | None = None
    path: pathlib.Path | None = None
    alias: str | None = None

    def __str__(self):
        if self.path is None:
            return f"{self.name} (architecture)"
        facts = [f"alias {self.alias}"] if self.alias else []
        facts += [f"{self.parameters:,} parameters"] if self.parameters else []
        facts += [f"{self.accuracy:.2f} % on {self.dataset}"] if self.accuracy else []
        facts += [f"{self.latency_ms:.2f} ms"] if self.latency_ms else []
        return f"{self.name} ({', '.join(facts)})"


def list_presets(pattern: str = "*", architectures: bool = True) -> list[PresetInfo]:
    """Lists the presets that come with the package.

    Args:
        pattern: str, shell pattern that a name or an alias must match, such as `"*h16*"`.
            Defaults to `"*"`, all of them.
        architectures: bool, whether to list architectures without weights too. Many more names
            are accepted: `cct_7_3x1_h48x6_c2` has 48 heads of width 6 and 2 convolutional blocks.
            Defaults to `True`.

    Returns:
        A list of `PresetInfo`: trained presets first, the most accurate of a dataset first.

    Raises:
        ValueError: if `pattern` is not a string.

    Example:

    ```python
    for preset in lsmha_keras.list_presets("*h16*"):
        print(preset)
    ```
    """
    if not isinstance(pattern, str):
        raise InputError(
            "`pattern` must be a string such as '*h16*'; leave architectures out with "
            f"`architectures=False`. Received: pattern={pattern!r}"
        )
    found = [_describe(path) for path in _shipped_presets()]
    found.sort(key=lambda info: (info.dataset or "", -(info.accuracy or 0.0), info.name))
    found += [PresetInfo(name) for name in _LISTED if architectures]
    return [
        info
        for info in found
        if any(fnmatch.fnmatchcase(name, pattern) for name in (info.name, info.alias or info.name))
    ]


def preset_name(preset):
    """Returns the full name behind an alias, and any other name or path as it is.

    Args:
        preset: str or path.

    Returns:
        str.

    Example:
        >>> preset_name("cct_2_3x2_h16")
        'cct_2_3x2_h16'
    """
    name = os.fspath(preset)
    return ALIASES.get(name, name)


def zoo_dir():
    """Returns the `zoo` directory: inside an installed package, or beside it in a checkout."""
    package = pathlib.Path(__file__).parent
    for candidate in (package / "_shipped" / "zoo", package.parent / "zoo"):
        if candidate.is_dir():
            return candidate
    return package.parent / "zoo"


def tuning_dir():
    """Returns the `tuning` directory: inside an installed package, or beside it in a checkout."""
    package = pathlib.Path(__file__).parent
    shipped = package / "_shipped" / "tuning"
    return shipped if shipped.is_dir() else package.parent / "tuning"


def read_config(preset):
    """Reads the arguments of a preset's or an architecture's backbone, without loading a model.

    Args:
        preset: str or path, as for `resolve_preset`; no committee.

    Returns:
        A dict with arguments of `CCTBackbone`, not all of them for an architecture's name.

    Raises:
        ValueError: if there is no such preset.

    Example:
        >>> read_config("cct_7_3x1_h32")["num_heads"]
        32
    """
    source = resolve_preset(preset)
    if isinstance(source, dict):
        return source
    return read_json(source / "config.json")["config"]


def input_kind(preset):
    """Returns what a preset or an architecture takes, without loading a model.

    Args:
        preset: str or path, as for `resolve_preset`.

    Returns:
        str, "images", "texts" or "series".

    Raises:
        ValueError: if there is no such preset.

    Example:
        >>> input_kind("text_cct_2_4x1_h16")
        'texts'
    """
    source = resolve_preset(preset)
    if is_committee(source):
        return "images"
    if isinstance(source, dict):  # of sequences, it does not know their ids or features
        kinds = {"text_": "texts", "series_": "series", None: "images"}
        return kinds[_NAME.fullmatch(os.fspath(preset))["kind"]]
    config = read_config(source)
    if "sequence_length" not in config:
        return "images"
    return "texts" if config.get("vocabulary_size") else "series"


def resolve_preset(preset):
    """Finds a preset.

    Args:
        preset: str or path: a directory, a shipped name or its alias, an architecture's name,
            `hf://...` or `kaggle://...`. A directory that holds a preset goes before a name. With
            `HF_HUB_OFFLINE` set, only what was downloaded before is used.

    Returns:
        A `pathlib.Path`, the preset's directory, or for an architecture a dict with the arguments
        of `CCTBackbone`.

    Raises:
        ValueError: if there is no such preset; names the nearest.
    """
    name = os.fspath(preset)
    if name.startswith(HUBS):
        return _download(name)
    if _is_preset(pathlib.Path(name)):
        # Before the names: `save_to_preset("cct_2_3x2_h16")` is what `from_preset` of that loads.
        return pathlib.Path(name)
    for path in _shipped_presets():
        if path.name == preset_name(name):
            return path
    if config := parse_architecture(name):
        return config
    if pathlib.Path(name).is_dir():
        raise InputError(
            f"The directory has no `config.json` and no `{COMMITTEE}`. Received: preset={name!r}"
        )
    known = [*ALIASES, *(path.name for path in _shipped_presets()), *_LISTED]
    near = nearest(name, known, count=3, cutoff=0.3) or f": {', '.join(known)}"
    raise InputError(
        "A preset is a directory, 'hf://...', 'kaggle://...' or one of the names that "
        f"`lsmha_keras.list_presets()` gives{near}. Received: preset={name!r}"
    )


def is_committee(source):
    """Returns whether what `resolve_preset` found is the directory of a `SoftCommittee`."""
    return not isinstance(source, dict) and (pathlib.Path(source) / COMMITTEE).is_file()


def read_committee(directory):
    """Reads which members a committee's directory holds.

    Args:
        directory: path of the preset.

    Returns:
        A dict: `mode`, and `members`, a list of the paths of their presets.

    Raises:
        ValueError: if the file is not one that `SoftCommittee.save_to_preset` wrote.
    """
    path = pathlib.Path(directory) / COMMITTEE
    try:
        found = read_json(path)
        mode, names = found["mode"], found["members"]
        # Members lie beside the file; a name that leads elsewhere is not followed.
        if strange := [name for name in names if not re.fullmatch(r"member_\d+", name)]:
            raise InputError(f"{strange[0]!r} is not the name of a member")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            "A committee's file must be JSON with `mode` and `members`, which are called "
            f"`member_0` and so on. Received: {path} ({type(error).__name__}: {error})"
        ) from error
    return {"mode": mode, "members": [path.parent / name for name in names]}


def parse_architecture(name):
    """Reads an architecture's name such as `cct_7_3x1_h25x10_c3`.

    The parts: optional `text_` or `series_` for sequences in place of images, `7` blocks, `3x1`
    kernel size and number of tokenizer stages, optional `_sep` or `_ib` stages of separable
    convolutions or inverted bottlenecks, optional `_sine` position
    embedding, optional `_h25x10` 25 heads of width 10 (`_h16`: 16 heads that share the width),
    optional `_moh` a kind of attention (`list_attention`), optional `_c3` the first 3 blocks
    convolutional.

    Args:
        name: str.

    Returns:
        A dict with arguments of `CCTBackbone`, or of `CCTSequenceBackbone` without the size of the
        vocabulary or the number of features, or `None` if the name is not an architecture's.
    """
    match = _NAME.fullmatch(name)
    if match is None or int(match["layers"]) not in _REFERENCE:
        return None
    if match["attention"] and match["attention"] not in attention_names():
        return None
    side = 224 if int(match["kernel"]) == 7 else 32
    shape = {"sequence_length": 64} if match["kind"] else {"image_shape": (side, side, 3)}
    config = {
        **shape,
        "num_layers": int(match["layers"]),
        **_REFERENCE[int(match["layers"])],
        "tokenizer_kernel_size": int(match["kernel"]),
        "tokenizer_layers": int(match["convs"]),
    }
    if match["design"] and match["kind"]:
        return None  # tokenizers of sequences have one design
    if match["design"]:
        config["tokenizer_design"] = _TOKENIZERS[match["design"]]
    if match["sine"]:
        config["position_embedding"] = "sine"
    if match["heads"]:
        config["num_heads"] = int(match["heads"])
    if match["head_dim"]:
        config["head_dim"] = int(match["head_dim"])
    if match["attention"]:
        config["attention"] = match["attention"]
    if match["conv_blocks"]:
        config["num_conv_blocks"] = int(match["conv_blocks"])
    return config


def _shipped_presets():
    return sorted(path for path in (zoo_dir() / "presets").glob("*") if _is_preset(path))


def _is_preset(path):
    return (path / "config.json").is_file() or (path / COMMITTEE).is_file()


def _describe(path):
    results = {}
    if (path / "results.json").is_file():
        results = read_json(path / "results.json")
    accuracy = results.get("accuracy")
    return PresetInfo(
        name=path.name,
        parameters=results.get("parameters"),
        dataset=results.get("dataset"),
        # Rounded, as 100 * 0.5699 is 56.989999999999995: to one image of a million.
        accuracy=None if accuracy is None else round(100 * accuracy, 4),
        latency_ms=results.get("latency_ms"),
        path=path,
        alias=next((alias for alias, name in ALIASES.items() if name == path.name), None),
    )


def _download(handle):
    """Fetches a preset from a hub, or from the hub's cache when offline."""
    scheme, name = handle.split("://", 1)
    try:
        if scheme == "hf":
            import huggingface_hub

            return pathlib.Path(huggingface_hub.snapshot_download(name))
        import kagglehub

        return pathlib.Path(kagglehub.model_download(name))
    except ImportError as error:
        package = {"hf": "huggingface_hub", "kaggle": "kagglehub"}[scheme]
        raise PackageError(f"{handle!r} needs `pip install {package}`.") from error
    except (OSError, ValueError) as error:  # What both hubs raise for bad names and no network.
        raise InputError(
            f"The preset could not be fetched: {error}. Received: {handle!r}"
        ) from error
