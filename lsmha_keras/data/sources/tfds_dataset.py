"""Labelled images and texts from TensorFlow Datasets (TFDS)."""

import importlib.util
import socket
import urllib.parse
import urllib.request

import numpy as np

from lsmha_keras.data.datasets import ArrayDataset, ImageDataset, parse_image_size
from lsmha_keras.data.sequences import SequenceDataset
from lsmha_keras.errors import ImageSizeError, InputError, PackageError, nearest
from lsmha_keras.images import resize_image

# What features of texts are called.
_TEXTS = ("text", "sentence")


class RandomAccessDataset(ImageDataset):
    """Images that TFDS reads from `array_record` files on demand.

    Args:
        source: TFDS data source with the features "image" and "label".
        labels: `(images,)` integers.
        class_names: list of str.
        stored_shape: see `ImageDataset`.
        image_size: see `ImageDataset`.
        name: str, used in error messages.
    """

    def __init__(self, source, labels, class_names, stored_shape, image_size, name):
        super().__init__(labels, class_names, stored_shape, image_size, name)
        self._source = source

    def _read(self, rows):
        # TFDS's reader accepts no NumPy integers.
        return [example["image"] for example in self._source.__getitems__(rows.tolist())]


def is_configuration(name):
    """Returns whether `name` is a TFDS dataset with a configuration, such as "emnist/letters"."""
    dataset = name.partition("/")[0]
    if not dataset.isidentifier() or importlib.util.find_spec("tensorflow_datasets") is None:
        return False
    import tensorflow_datasets as tfds

    return dataset in tfds.list_builders(with_community_datasets=False)


def open_tfds(name, base, data_dir=None, image_size=None, built_in=(), hint=""):
    """Opens a dataset of TFDS with labelled images or texts, and prepares it if necessary.

    Texts are read into memory. A dataset of images that is downloaded now is stored for random
    access and read from disk on demand, with or without TensorFlow. One prepared earlier in another
    format is read into memory as uint8.

    Args:
        name: any name TFDS knows, such as "mnist", "emnist/letters" or
            "oxford_flowers102:2.1.1".
        base: name of the part, such as "train".
        data_dir: folder of prepared datasets; None means TFDS's default.
        image_size: see `ImageDataset`.
        built_in: names to suggest when this one is unknown.
        hint: str, for the error message: which files in `data_dir` would do as well.

    Returns:
        An `ImageDataset`, for texts a `SequenceDataset`.

    Raises:
        ImportError: if tensorflow-datasets is not installed.
        ValueError: if the dataset is unknown, cannot be prepared, lacks the part, or does not hold
            images or texts with one label each.
    """
    tfds = _import_tfds(name, built_in, hint)
    builder = _find_builder(tfds, name, data_dir, built_in)
    text = _check_features(tfds, builder, name)
    _prepare(builder, name, data_dir, hint)
    splits = list(builder.info.splits)
    if base not in splits:
        raise InputError(
            f"{name!r} has the splits {', '.join(splits)}{nearest(base, splits)}. "
            f"Received: split={base!r}"
        )
    features = builder.info.features
    if text:
        texts, labels = _read_texts(builder, base, text)
        return SequenceDataset(texts, labels, features["label"].names, name)
    class_names, shape = features["label"].names, tuple(features["image"].shape)
    if "array_record" in str(builder.info.file_format.value):
        # All labels are needed now, but no image: decoding is what takes time.
        undecoded = builder.as_data_source(base, decoders={"image": tfds.decode.SkipDecoding()})
        labels = np.array([example["label"] for example in undecoded])
        source = builder.as_data_source(base)
        return RandomAccessDataset(source, labels, class_names, shape, image_size, name)
    size = parse_image_size(image_size) or shape[:2]
    if None in size:
        # `ArrayDataset` would say so too, after gigabytes have been read.
        raise ImageSizeError(
            f"The images of {name!r} have different sizes, so `image_size` must say which size to "
            "resize them to. Received: image_size=None"
        )
    images, labels = _read_all(builder, base, (*size, shape[2]))
    return ArrayDataset(images, labels, class_names, name=name)


def _import_tfds(name, built_in, hint):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise PackageError(
            f"{name!r} is not a built-in dataset ({', '.join(built_in)}) found on this "
            f"machine{nearest(name, built_in)}. {_where(hint)} Others come from TensorFlow "
            "Datasets, which is not installed. Install it with: "
            "pip install tensorflow-datasets importlib_resources"
        ) from error
    return tfds


def _find_builder(tfds, name, data_dir, built_in):
    try:
        return tfds.builder(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        # ValueError: TFDS cannot parse the name, as with "cifar-100".
        known = [*built_in, *tfds.list_builders(with_community_datasets=False)]
        raise InputError(
            f"Unknown dataset{nearest(name, known)}. Expected {', '.join(built_in)}, a folder, an "
            f".npz file, or a name of TensorFlow Datasets. Received: name={name!r}"
        ) from error


def _check_features(tfds, builder, name):
    """Refuses data without labelled images or texts; returns the feature of the texts or `None`."""
    features = dict(builder.info.features.items())
    labelled = isinstance(features.get("label"), tfds.features.ClassLabel)
    image = features.get("image")
    if labelled and isinstance(image, tfds.features.Image) and image.dtype == np.uint8:
        return None
    for text in _TEXTS:
        if labelled and isinstance(features.get(text), tfds.features.Text):
            return text
    raise InputError(
        f"{name!r} must have a uint8 feature 'image' or a text {' or '.join(map(repr, _TEXTS))}, "
        f"and a class label 'label'. Received: the features {', '.join(features)}"
    )


def _prepare(builder, name, data_dir, hint):
    if builder.data_path.exists():
        return
    try:
        _resolve_host(builder)
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # sockets, requests and TFDS's checks raise many classes
        reason = (str(error).splitlines() or [""])[0]
        place = f"{str(data_dir)!r}" if data_dir else "TensorFlow Datasets' folder"
        raise InputError(
            f"{name!r} is not in {place} and cannot be downloaded and prepared now. {_where(hint)} "
            f"Received: {type(error).__name__}: {reason}"
        ) from error


def _where(hint):
    return (
        "Pass the directory that holds it with --data-dir (`data_dir` in Python) or LSMHA_DATA_DIR"
        f"{hint}."
    )


def _resolve_host(builder):
    """Fails at once if there is no network; TFDS would retry for minutes."""
    urls = list(builder.url_infos or ())
    host = urllib.parse.urlparse(urls[0]).hostname if urls else None
    if host and not urllib.request.getproxies():
        socket.getaddrinfo(host, None)


def _read_all(builder, base, shape):
    count = builder.info.splits[base].num_examples
    images, labels = np.empty((count, *shape), dtype="uint8"), np.empty(count, dtype="int32")
    for row, example in enumerate(builder.as_dataset(split=base).as_numpy_iterator()):
        images[row] = resize_image(example["image"], shape[:2])
        labels[row] = example["label"]
    return images, labels


def _read_texts(builder, base, feature):
    """Reads all texts, a list of str, and their labels, in the order of the files."""
    if "array_record" in str(builder.info.file_format.value):
        examples = builder.as_data_source(base)
    else:
        examples = builder.as_dataset(split=base).as_numpy_iterator()
    pairs = [(example[feature].decode("utf-8"), int(example["label"])) for example in examples]
    return [text for text, _ in pairs], [label for _, label in pairs]
