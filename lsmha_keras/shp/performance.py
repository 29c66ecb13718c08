"""Single-head performance: the mean field of each head for the images of each label."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.data.labelled import ImageBatches, class_labels
from lsmha_keras.errors import InputError
from lsmha_keras.progress import Progress
from lsmha_keras.shp.head_outputs import HeadOutputs, compile_setting
from lsmha_keras.shp.readouts import BlockReadouts, HeadReadout
from lsmha_keras.shp.shp_result import POOLINGS, SHPResult, check_pooling
from lsmha_keras.types import Dataset, PathLike, Verbose


class HeadFields(keras.Model):
    """Runs the trunk and sums, for each label, the pooled outputs of every head.

    The field of head h, `W_h p_h(x)`, is linear in its pooled output `p_h(x)`. The sums of `p_h`
    over the images of each label, `(labels, heads * head_dim)`, therefore determine the mean
    fields, and memory does not grow with the number of images. The step is compiled once, however
    often `measure` is called; each call uses the current weights of trunk and readouts.

    Args:
        model: a `CCTImageClassifier`, `CCTBackbone` or another model; see `HeadOutputs`.
        blocks: list of indices of blocks.
        poolings: tuple of `"recomputed"`, `"frozen"` or both.

    Raises:
        ValueError: if a block or a kind of pooling is unknown.

    Example:

    ```python
    fields = HeadFields(classifier, readouts.blocks, poolings=("recomputed", "frozen"))
    results = fields.measure(readouts, (images, labels))
    results["frozen"][1].snr
    ```
    """

    def __init__(self, model, blocks, poolings=("recomputed",)):
        super().__init__(name="head_fields", dtype="float32")
        for pooling in poolings:
            check_pooling(pooling)
        self.trunk = HeadOutputs(model, blocks)
        self.poolings = tuple(poolings)
        self.readouts = {}

    @property
    def non_trainable_variables(self):
        """With the trunk's variables: on jax, a compiled step takes all variables as arguments."""
        return super().non_trainable_variables + self.trunk.variables

    def call(self, inputs):
        images, one_hot = inputs["images"], inputs["one_hot"]
        heads, mask = self.trunk(images), self.trunk.token_mask(images)
        sums = {}
        for name, readout in self.readouts.items():
            kinds = (*self.poolings, "frozen")
            pooled = {p: readout.pool(heads[int(name)], p, mask) for p in kinds}
            for pooling in self.poolings:
                sums[f"{name}/{pooling}"] = ops.matmul(ops.transpose(one_hot), pooled[pooling])
            answers = ops.argmax(readout.linear(pooled["frozen"]), axis=-1)
            sums[f"{name}/hits"] = ops.sum(one_hot * ops.one_hot(answers, one_hot.shape[-1]))
        return sums

    def measure(
        self,
        readouts,
        dataset,
        threshold=0.3,
        batch_size=256,
        verbose="auto",
        relabel=None,
        **batch_options,
    ):
        """Measures the mean fields of all heads in one pass over the data.

        Args:
            readouts: `BlockReadouts`.
            dataset: labelled images of any kind; see `ImageBatches`.
            threshold: float, of the results.
            batch_size: int.
            verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.
            relabel: function from the integer labels of a batch to those to use, or `None`.
            **batch_options: `split`, `data_dir`, `max_images` and `seed` of `ImageBatches`.

        Returns:
            A dict from pooling to a dict from block to `SHPResult`.

        Raises:
            ValueError: if the data or the readouts do not fit, or head outputs are not finite.
        """
        batches = ImageBatches(dataset, batch_size, self.trunk.model, **batch_options)
        _check_names(batches.class_names, readouts.num_labels)
        counts = np.zeros(readouts.num_labels, "int64")
        totals = {}
        progress = Progress(len(batches), verbose)
        for images, labels in batches.epoch():
            labels = class_labels(labels, readouts.num_labels, counts.sum())
            labels = relabel(labels) if relabel else labels
            inputs = self._inputs(images, labels, readouts.num_labels, batch_size)
            if not counts.any():
                self._assign(readouts, inputs["images"].shape[1:])
            for name, value in self.predict_on_batch(inputs).items():
                totals[name] = totals.get(name, 0.0) + value.astype("float64")
            counts += np.bincount(labels, minlength=len(counts))
            progress.add()
        progress.finish()
        _check_finite(totals)
        names = readouts.label_names or batches.class_names
        return self._results(readouts, totals, counts, threshold, names)

    def _inputs(self, images, labels, num_labels, batch_size):
        """Prepares images and one-hot labels; images that fill up a batch get rows of zeros."""
        images = self.trunk.prepare(images)
        missing = max(0, batch_size - len(images))
        images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        one_hot = np.zeros((len(images), num_labels), "float32")
        one_hot[np.arange(len(labels)), labels] = 1
        return {"images": images, "one_hot": one_hot}

    def _assign(self, readouts, image_shape):
        """Sets the readouts' weights; the first call makes their layers."""
        if not self.readouts:
            for block, shape in self.trunk.shapes(image_shape).items():
                readout = HeadReadout(readouts.num_labels, name=f"block_{block}")
                readout.build(shape)
                self.readouts[str(block)] = readout
            self.built = True
            self.compile(jit_compile=compile_setting())
        for name, readout in self.readouts.items():
            given = readouts.weights.get(int(name), ())
            needed = [tuple(weight.shape) for weight in readout.weights]
            if [array.shape for array in given] != needed:
                raise InputError(
                    f"The readouts must fit the heads of block {name}, with weights of shapes "
                    f"{needed}. Received: shapes {[array.shape for array in given]}, readouts for "
                    f"the blocks {readouts.blocks}"
                )
            readout.set_weights(given)

    def _results(self, readouts, totals, counts, threshold, label_names):
        results = {pooling: {} for pooling in self.poolings}
        for pooling, (name, readout) in itertools.product(self.poolings, self.readouts.items()):
            kernel = readouts.weights[int(name)][2]
            results[pooling][int(name)] = SHPResult(
                block=int(name),
                class_means=_mean_fields(
                    totals[f"{name}/{pooling}"], counts, kernel, readout.num_heads
                ),
                label_counts=counts,
                pooling=pooling,
                threshold=threshold,
                label_names=label_names,
                readout_accuracy=float(totals[f"{name}/hits"] / counts.sum()),
            )
        return results


def _mean_fields(sums, counts, kernel, num_heads):
    """Returns `(heads, labels, labels)`; rows of labels without images are NaN."""
    with np.errstate(invalid="ignore"):
        means = sums / counts[:, None]
    means = means.reshape(len(counts), num_heads, -1)
    kernel = kernel.reshape(num_heads, -1, kernel.shape[-1])
    return np.einsum("ihd,hdj->hij", means, kernel)


def _check_names(class_names, num_labels):
    if class_names is not None and len(class_names) != num_labels:
        raise InputError(
            f"The readouts have {num_labels} labels, so the dataset must have as many. "
            f"Received: a dataset with {len(class_names)} labels"
        )


def _check_finite(totals):
    broken = {name for name, sums in totals.items() if not np.isfinite(sums).all()}
    if blocks := sorted({int(name.partition("/")[0]) for name in broken}):
        raise InputError(
            f"Head outputs must be finite. Received: NaN or infinity from blocks {blocks}"
        )


def single_head_performance(
    model: Any,
    readouts: BlockReadouts,
    dataset: Dataset,
    pooling: str = "recomputed",
    threshold: float = 0.3,
    batch_size: int = 256,
    max_images: int | None = None,
    split: str = "test",
    data_dir: PathLike | None = None,
    verbose: Verbose = "auto",
) -> dict[Any, Any]:
    """Measures how each head alone responds to each label, for all heads and blocks in one pass.

    To measure head h, all other heads are set to zero at the readout's input. The readout's output,
    a value for each output unit, is the head's field; its means over the images of each label form
    the head's matrix. Use images that the readouts were not fitted on. Memory does not depend on
    the number of images.

    Args:
        model: a `CCTImageClassifier`, `CCTBackbone`, or any model with the method that
            `lsmha_keras.shp.head_outputs.HeadOutputs` describes.
        readouts: `BlockReadouts`, as `fit_readout` returns them; their blocks are measured.
        dataset: labelled images of any kind, as for `fit_readout`.
        pooling: `"recomputed"`: the weights of the pooling over tokens are computed from head h
            alone; `"frozen"`: they are computed from all heads, so that the fields of all heads sum
            to the readout's logits; `"both"`: both in one pass. Defaults to `"recomputed"`.
        threshold: float; entries of the normalised matrices strictly above it become ones. Defaults
            to `0.3`.
        batch_size: int. Defaults to `256`.
        max_images: int, or `None` for all; see `ImageBatches`.
        split: str, the split of a dataset given by name. Defaults to `"test"`.
        data_dir: folder that holds a dataset given by name.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.

    Returns:
        A dict from block to `SHPResult`; with `pooling="both"` a dict from mode to such a dict.

    Raises:
        ValueError: if an argument or the data are invalid, the readouts have another number of
            labels, or a block's head outputs are not finite.

    Example:

    ```python
    results = lsmha_keras.single_head_performance(model, readouts, "cifar100")
    for result in results.values():
        print(result.summary())
    ```

    References:
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832)
    """
    poolings = POOLINGS if pooling == "both" else (pooling,)
    results = HeadFields(model, readouts.blocks, poolings).measure(
        readouts,
        dataset,
        threshold,
        batch_size,
        verbose,
        max_images=max_images,
        split=split,
        data_dir=data_dir,
    )
    return results if pooling == "both" else results[pooling]
