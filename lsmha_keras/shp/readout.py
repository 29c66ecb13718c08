"""Fits readouts on the head outputs of a trained model."""

from lsmha_keras.shp.image_batches import ImageBatches
from lsmha_keras.shp.readout_trainer import ReadoutTrainer


def fit_readout(
    model,
    dataset,
    blocks=None,
    validation_data=None,
    num_labels=None,
    epochs=10,
    optimizer="adamw",
    learning_rate=None,
    batch_size=None,
    initial=None,
    max_images=None,
    split="train",
    data_dir=None,
    seed=0,
    verbose="auto",
    augment=None,
):
    """Fits a readout for each block of a model, which itself stays as it is.

    A readout is a sequence pooling over the concatenated head outputs of a block, before the output
    projection, and a linear layer without bias. All are trained in one pass over the data per
    epoch.

    Args:
        model: a `CCTImageClassifier`, `CCTBackbone`, or any model with the method that
            `lsmha_keras.shp.head_outputs.HeadOutputs` describes.
        dataset: a dataset's name, as `lsmha_keras.open_dataset` takes it, an `ImageDataset`, a pair
            of arrays `(images, labels)`, a `keras.utils.PyDataset` or a `tf.data.Dataset`. Raw
            images; labels are integers or one-hot. Arrays and named datasets are shuffled.
        blocks: list of indices of blocks, counted as in the backbone, or `None` for all that have
            heads.
        validation_data: like `dataset`; the accuracies are measured on it. `None` gives those of
            the last epoch's training.
        num_labels: int, or `None` for the dataset's number of classes, the width of its one-hot
            labels, or else the model's `num_classes`.
        epochs: int. Defaults to `10`.
        optimizer: `"adamw"`, with a cosine schedule, or `"sgd"`: Nesterov momentum 0.975, weight
            decay 1e-3, learning rate times 0.975 each epoch. Defaults to `"adamw"`.
        learning_rate: float, or `None` for 3e-3 with AdamW, 0.01 with SGD.
        batch_size: int, or `None` for 128 with AdamW, 100 with SGD.
        initial: `BlockReadouts` of the same blocks to begin with, or `None`.
        max_images: int, or `None` for all; see `ImageBatches`.
        split: part of a dataset given by name. Defaults to `"train"`.
        data_dir: folder that holds a dataset given by name.
        seed: int, of initial weights and shuffling.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.
        augment: bool, whether images are flipped left to right with even odds and shifted by up to
            4 pixels, or `None`: with SGD, of whose schedule it is a part, but not with AdamW.

    Returns:
        A `BlockReadouts`: `.weights`, `.accuracy` by block, `.save(path)`.

    Raises:
        ValueError: if an argument, a block or the data are not valid, the number of labels is not
            known, or a block's head outputs are not finite.

    Example:

    ```python
    model = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16_cifar100")
    readouts = lsmha_keras.fit_readout(model, "cifar100", epochs=5)
    readouts.accuracy  # {0: ..., 1: ...}
    ```

    References:
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832)
    """
    if num_labels is None:
        num_labels = _find_num_labels(model, dataset, split, data_dir)
    trainer = ReadoutTrainer(model, num_labels, blocks, optimizer, learning_rate, seed, augment)
    return trainer.train(
        dataset,
        epochs,
        validation_data,
        batch_size,
        initial,
        verbose,
        max_images=max_images,
        split=split,
        data_dir=data_dir,
    )


def _find_num_labels(model, dataset, split, data_dir):
    batches = ImageBatches(dataset, 1, model, split, data_dir)
    if batches.class_names is not None:
        return len(batches.class_names)
    _, labels = next(batches.epoch())
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.shape[1]
    if num_labels := getattr(model, "num_classes", None):
        return num_labels
    raise ValueError(
        "The number of labels is not known: give `num_labels`. Received: num_labels=None, integer "
        "labels without class names, and a model without `num_classes`"
    )
