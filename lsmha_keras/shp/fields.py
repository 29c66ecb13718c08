"""Single-head performance of the blocks of a trained model."""

from lsmha_keras.shp.head_fields import HeadFields
from lsmha_keras.shp.shp_result import POOLINGS


def single_head_performance(
    model,
    readouts,
    dataset,
    pooling="recomputed",
    threshold=0.3,
    batch_size=256,
    max_images=None,
    split="test",
    data_dir=None,
    verbose="auto",
):
    """Measures how each head alone responds to each label, for all heads and blocks in one pass.

    For head h all other heads are zero at the readout's input; what remains is the head's field, a
    value for each output unit. Its mean over the images of each label is the head's matrix. Use
    images that the readouts were not fitted on. Memory does not depend on the number of images.

    Args:
        model: a `CCTImageClassifier`, `CCTBackbone`, or any model with the method that
            `lsmha_keras.shp.head_outputs.HeadOutputs` describes.
        readouts: `BlockReadouts`, as `fit_readout` returns them; their blocks are measured.
        dataset: labelled images of any kind, as for `fit_readout`.
        pooling: `"recomputed"`: the weights of the pooling over tokens follow from head h alone;
            `"frozen"`: they stay those of all heads, and the fields of all heads sum to the
            readout's logits; `"both"`, in the same pass. Defaults to `"recomputed"`.
        threshold: float; entries of the normalised matrices strictly above it are ones. Defaults to
            `0.3`.
        batch_size: int. Defaults to `256`.
        max_images: int, or `None` for all; see `ImageBatches`.
        split: part of a dataset given by name. Defaults to `"test"`.
        data_dir: folder that holds a dataset given by name.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.

    Returns:
        A dict from block to `SHPResult`; with `pooling="both"` a dict from mode to such a dict.

    Raises:
        ValueError: if an argument or the data are not valid, the number of labels is not the
            readouts', or a block's head outputs are not finite.

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
