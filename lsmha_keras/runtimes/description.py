"""The description of a model that goes with an exported file, and the preset it was made from."""

import dataclasses
import json
import pathlib

from lsmha_keras.checksums import sha256
from lsmha_keras.errors import InputError

# Key of its entry in the metadata of an ONNX file.
KEY = "lsmha_keras"
_VERSION = 1

_CONFIGS = ("config.json", "task.json", "preprocessor.json", "image_converter.json")
_WEIGHTS = ("*.weights.h5", "*.weights.json")


@dataclasses.dataclass(frozen=True)
class Description:
    """What a program must know to use an exported graph, and where the graph came from.

    Attributes:
        name: str, of the preset or model.
        image_shape: `(height, width, channels)` of the uint8 images that the graph takes;
            `(time, features)` of series, float32; `(time,)` of texts, int32 ids.
        num_classes: int.
        class_names: list of str, or `None`.
        activation: str, "linear" if the graph returns logits, else "softmax" or "sigmoid".
        scale: list of floats; the graph first computes `image * scale + offset`.
        offset: list of floats.
        weights: str, "float16" or "float32", the type in which they are stored; "int8" if
            convolutions and dense layers compute in integers.
        made_from: `{file name: SHA-256}` of the preset's files that the graph was made from; empty
            for a model that was passed as an object.
        resize: str, how to resize photos of other sizes, or how the graph does it.
        any_size: bool, whether the graph takes images of any size and resizes them itself.
        calibration: dict, for an int8 graph: "dataset", the numbers of "images" it was calibrated
            on and "checked" for its accuracy, and the accuracy in percent in "float32" and in
            "int8".
        vocabulary: list of str, the words of a model of texts: word `i` has the id `i + 2`, 0 is
            padding and 1 any other word; `None` for images, series, and models that take ids.
        vocabulary_size: int or `None`, number of ids of a model of texts.
        lowercase: bool, whether capitals in texts count as small letters.
        mask_value: float or `None`, the value of the padding at the end of series.
        any_length: bool, whether padding at the end of a whole batch may be left out.
    """

    name: str
    image_shape: tuple
    num_classes: int
    class_names: list | None = None
    activation: str = "linear"
    scale: list = dataclasses.field(default_factory=list)
    offset: list = dataclasses.field(default_factory=list)
    weights: str = "float32"
    made_from: dict = dataclasses.field(default_factory=dict)
    resize: str = (
        "the largest centred part with the proportions of image_shape, resized with an antialiased "
        "bilinear filter (Pillow's BILINEAR), columns first, then rows, each to 8 bits"
    )
    any_size: bool = False
    calibration: dict = dataclasses.field(default_factory=dict)
    vocabulary: list | None = None
    vocabulary_size: int | None = None
    lowercase: bool = True
    mask_value: float | None = None
    any_length: bool = False

    def to_json(self, **layout):
        """Returns the description as JSON; `layout` is passed to `json.dumps`."""
        return json.dumps({"version": _VERSION, **dataclasses.asdict(self)}, **layout)

    @classmethod
    def from_json(cls, text, source):
        """Reads what `to_json` wrote.

        Args:
            text: str or `None`.
            source: path of the file that held it, for the error message.

        Raises:
            ValueError: if it is not a description, or one of another version.
        """
        try:
            values = json.loads(text)
            if values.pop("version") != _VERSION:
                raise InputError("another version")
            values["image_shape"] = tuple(values["image_shape"])
            return cls(**values)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InputError(
                "The file does not say what it takes and what its classes are, as one that "
                f"`lsmha export` of this version writes. Received: {source}"
            ) from error


def made_from(directory):
    """Returns the checksums of the files that determine what a preset computes.

    A file made from a preset, such as its `model.onnx`, stores them, so that it is never used with
    other weights or class names.

    Args:
        directory: path of the preset.

    Returns:
        A dict from a file's name to its SHA-256.

    Example:

    ```python
    made_from("runs/mine/preset")["model.weights.h5"]
    ```
    """
    files = {path for kind in (*_WEIGHTS, *_CONFIGS) for path in pathlib.Path(directory).glob(kind)}
    return {path.name: sha256(path) for path in sorted(files)}


def describe_inputs(classifier):
    """Returns the arguments of `Description` that say what a classifier takes.

    Args:
        classifier: a `CCTImageClassifier`, one of its subclasses, or a committee.

    Returns:
        A dict.

    Example:

    ```python
    Description("mine", num_classes=7, **describe_inputs(classifier))
    ```
    """
    found = {"image_shape": tuple(classifier.image_shape)}
    if len(found["image_shape"]) == 3:
        return found
    found["resize"] = ""
    if len(found["image_shape"]) == 2:
        return {**found, "mask_value": classifier.backbone.mask_value}
    found["vocabulary_size"] = classifier.backbone.vocabulary_size
    preprocessor = classifier.preprocessor
    if preprocessor is not None:
        found["vocabulary"] = list(preprocessor.vocabulary)
        found["lowercase"] = preprocessor.lowercase
    return found
