"""Reads from files by how many heads each label is covered."""

import re

import numpy as np

from lsmha_keras.shp.shp_result import SHPResult


def load_coverage(path, block=None, threshold=0.3):
    """Reads the coverage of labels from a file of single-head performance.

    Args:
        path: `shp.npz` of a report that `lsmha shp` wrote, or a file of `SHPResult.save`.
        block: int, index of the block, or `None` for the last one in the file.
        threshold: float; see `SHPResult`. Defaults to `0.3`.

    Returns:
        `(labels,)` ints, the number of heads that have each label on a cluster.

    Raises:
        ValueError: if the file is another one, or lacks the block.

    Example:

    ```python
    coverage = load_coverage("runs/shp/shp.npz", block=1)
    ```
    """
    with np.load(path) as file:
        found = {
            int(match[1]): name
            for name in file
            if (match := re.fullmatch(r"trained/block_(\d+)", name))
        }
        if found:
            chosen = _choose(found, block, path)
            return SHPResult(
                chosen, file[found[chosen]], file["label_counts"], threshold=threshold
            ).coverage
    result = SHPResult.load(path)
    _choose([result.block], block, path)
    return result.at(threshold).coverage


def _choose(blocks, block, path):
    if block is not None and block not in blocks:
        raise ValueError(
            f"The file holds the blocks {sorted(blocks)}. Received: block={block}, {path}"
        )
    return max(blocks) if block is None else block
