"""What a model card says of the kind of inputs: images, texts or series."""

_IMAGES = {
    "inputs": "images of {shape}",
    "one": "image",
    "many": "images",
    "task": "image-classification",
    "loader": "CCTImageClassifier",
    "use": """\
# Images of any size, (batch, height, width, {last}), with values from 0 to 255.
logits = classifier.predict(images)""",
    "elsewhere": """\
`keras_hub.models.ImageClassifier.from_preset` loads it too, once `lsmha_keras` is imported. It
runs on TensorFlow, JAX and PyTorch.""",
    "limits": """\
For research, teaching and comparison, and as a start for fine-tuning on small images. It knows
{num_classes} classes and gives one of them to every image, whatever the image shows. Larger images
are reduced to {height}x{width} pixels. It was not tested on other data, on corrupted images or for
bias. Do not use it to identify people or to decide about them.""",
}
_TEXTS = {
    "inputs": "texts of up to {height} words",
    "one": "text",
    "many": "texts",
    "task": "text-classification",
    "loader": "CCTTextClassifier",
    "use": """\
# A list of texts, or one.
logits = classifier.predict(texts)""",
    "elsewhere": """\
It runs on TensorFlow, JAX and PyTorch; its tokenizer is plain Python and needs none of them.""",
    "limits": """\
For research, teaching and comparison. It was trained from scratch, without pretraining on other
text: of the {vocabulary_size:,} ids it knows, each stands for a word of the training texts, and all
other words are one and the same to it. It gives one of {num_classes} classes to every text,
whatever the text says. Longer texts are cut. It was not tested on other data or for bias. Do not
use it to decide about people.""",
}
_SERIES = {
    "inputs": "series of {height} time steps of {last} features",
    "one": "series",
    "many": "series",
    "task": "time-series-classification",
    "loader": "CCTSequenceClassifier",
    "use": """\
# Series of shape (batch, {height}, {last}).
logits = classifier.predict(series)""",
    "elsewhere": "It runs on TensorFlow, JAX and PyTorch.",
    "limits": """\
For research, teaching and comparison. It gives one of {num_classes} classes to every series,
whatever it shows, and was not tested on other data.""",
}


def card_of_inputs(model):
    """Returns the sentences of a model card that depend on the kind of inputs.

    Args:
        model: `CCTImageClassifier` or one of its subclasses.

    Returns:
        A dict of str: `inputs`, `one`, `many`, `task`, `loader`, `use`, `elsewhere` and `limits`.

    Example:

    ```python
    card_of_inputs(result.model)["inputs"]  # "images of 32x32x3"
    ```
    """
    shape = model.image_shape
    values = {
        "shape": "x".join(map(str, shape)),
        "height": shape[0],
        "width": shape[1] if len(shape) > 1 else None,
        "last": shape[-1],
        "num_classes": model.num_classes,
        "vocabulary_size": getattr(model.backbone, "vocabulary_size", None) or 0,
    }
    kind = {3: _IMAGES, 2: _SERIES, 1: _TEXTS}[len(shape)]
    return {key: text.format(**values) for key, text in kind.items()}
