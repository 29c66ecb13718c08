"""What an exported file says about its model."""

import dataclasses
import json

from lsmha_keras.errors import InputError

# Of the entry in the metadata of an ONNX file.
KEY = "lsmha_keras"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Description:
    """What is needed beside a graph to use it, and where it came from.

    Attributes:
        name: str, of the preset or model.
        image_shape: `(height, width, channels)` of the images that the graph takes, uint8 from 0
            to 255.
        num_classes: int.
        class_names: list of str, or `None`.
        activation: str, "linear" where the graph gives logits, else "softmax" or "sigmoid".
        scale, offset: lists of floats: the graph computes `image * scale + offset` first.
        weights: str, "float16" or "float32": how they are stored; "int8" if activations of
            convolutions and dense layers are integers, too.
        made_from: `{file name: SHA-256}` of the files of the preset that the graph was made from;
            empty for a model that was given as an object.
        resize: str, how photos of other sizes are to be brought to that size, or are in the graph.
        any_size: bool, whether the graph takes images of any size and does so itself.
        calibration: dict, of an int8 graph: "dataset", the numbers of "images" it was calibrated on
            and "checked" for its accuracy, and the accuracies there in percent, of "float32" and
            "int8".
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

    def to_json(self, **layout):
        """Returns it as JSON; `layout` goes to `json.dumps`."""
        return json.dumps({"version": _VERSION, **dataclasses.asdict(self)}, **layout)

    @classmethod
    def from_json(cls, text, source):
        """Reads what `to_json` wrote.

        Args:
            text: str or `None`.
            source: path of the file it comes from, for the message.

        Raises:
            ValueError: if it is no description, or one of a later version.
        """
        try:
            values = json.loads(text)
            if values.pop("version") != _VERSION:
                raise InputError("another version")
            values["image_shape"] = tuple(values["image_shape"])
            return cls(**values)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InputError(
                "The file does not say what images it takes and what its classes are, as one that "
                f"`lsmha export` of this version writes. Received: {source}"
            ) from error
