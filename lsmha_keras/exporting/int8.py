"""Quantisation to int8: calibrated on images, and refused where the accuracy falls too far."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from lsmha_keras.data.open_dataset import open_dataset_for_model
from lsmha_keras.errors import InputError
from lsmha_keras.images import resize_batch

# Number of images of the train split to measure ranges of activations on, and of the test split to
# measure the accuracy on.
CALIBRATED, CHECKED = 512, 2000
# Percentage points that the accuracy may fall.
MAX_LOSS = 0.5
_BATCH = 32
_FOLDED = "onnx.quant.pre_process"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Images to calibrate a model on, and labelled ones to measure the loss of accuracy.

    Attributes:
        name: str, of the dataset.
        images: `(at most 512, height, width, channels)` uint8, of the train split.
        checked: `(at most 2000, height, width, channels)` uint8, of the test split.
        labels: ints, of `checked`.
        hits: bools, which of `checked` the float32 model classifies correctly.
    """

    name: str
    images: np.ndarray
    checked: np.ndarray
    labels: np.ndarray
    hits: np.ndarray

    @classmethod
    def of(cls, classifier, dataset, data_dir=None):
        """Draws the images, always the same ones, and classifies the labelled ones.

        Args:
            classifier: `CCTImageClassifier`.
            dataset: name or path, as for `lsmha_keras.open_dataset`, with the splits train and
                test.
            data_dir: folder that holds it, or `None`.

        Raises:
            ValueError: if the dataset or a split is unknown, or its classes or channels differ from
                the model's.
        """
        images, _ = _drawn(classifier, dataset, "train", data_dir, CALIBRATED)
        checked, labels = _drawn(classifier, dataset, "test", data_dir, CHECKED)
        predicted = classifier.predict(checked, verbose=0).argmax(axis=1)
        return cls(str(dataset), images, checked, labels, predicted == labels)

    def accuracy(self, run):
        """Returns the accuracy of a runtime on the labelled images, in 0 .. 1.

        Args:
            run: function from images to outputs `(batch, classes)`.
        """
        chunks = [self.checked[i : i + _BATCH] for i in range(0, len(self.checked), _BATCH)]
        predicted = np.concatenate([np.asarray(run(chunk)).argmax(axis=1) for chunk in chunks])
        return float((predicted == self.labels).mean())

    def report(self, run):
        """Returns the `Description.calibration` of a runtime, a dict.

        Args:
            run: function from images to outputs `(batch, classes)`.

        Raises:
            ValueError: if its accuracy is more than `MAX_LOSS` points below that in float32.
        """
        before, after = 100 * float(self.hits.mean()), 100 * self.accuracy(run)
        # Both are multiples of one image, up to rounding.
        if before - after > MAX_LOSS + 1e-9:
            raise InputError(
                f"The accuracy may fall by {MAX_LOSS} points on {len(self.labels):,} images, so "
                f"the file is not kept; export it in float32. Received: {before:.2f} % in float32, "
                f"{after:.2f} % in int8"
            )
        counts = {"images": len(self.images), "checked": len(self.labels)}
        return {"dataset": self.name, **counts, "float32": before, "int8": after}


def _drawn(classifier, dataset, split, data_dir, count):
    source = open_dataset_for_model(
        dataset, split, data_dir, None, lambda: classifier.image_shape[:2]
    )
    if len(source.class_names) != classifier.num_classes:
        raise InputError(
            f"The model has {classifier.num_classes} classes, so the dataset must have as many. "
            f"Received: {dataset} with {len(source.class_names)} classes"
        )
    count = min(count, len(source))
    indices = np.random.default_rng(0).choice(len(source), count, replace=False)
    images = resize_batch(source.load(np.sort(indices)), classifier.image_shape[:2])
    if images.shape[1:] != tuple(classifier.image_shape):
        raise InputError(
            f"The model takes images with {classifier.image_shape[2]} channels. "
            f"Received: {dataset}, images of shape {images.shape[1:]}"
        )
    return images, np.asarray(source.labels)[np.sort(indices)]


def quantised(model, images):
    """Quantises the convolutions and dense layers of an ONNX graph.

    Args:
        model: `onnx.ModelProto` with float32 weights; it is not changed.
        images: array for its first input, to measure the ranges of activations.

    Returns:
        An `onnx.ModelProto`. Weights have 7 bits and one scale per filter: with 8 bits, processors
        without VNNI would saturate the sums.
    """
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            name = model.graph.input[0].name
            starts = range(0, len(images), _BATCH)
            self.batches = iter([{name: images[i : i + _BATCH]} for i in starts])

        def get_next(self):
            return next(self.batches, None)

    constants = {constant.name for constant in model.graph.initializer}
    # The products of attention, and the resize: they need precision, and int8 would save little.
    left_out = [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] not in constants
    ]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # Without this entry, onnxruntime warns that the graph should be preprocessed first.
    copy.metadata_props.add(key=_FOLDED, value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "int8.onnx"
        quantization.quantize_static(
            copy,
            file,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul"],
            nodes_to_exclude=left_out,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        made = onnx.load(file)
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    return made
