"""What the page of a report holds, packed: responses, clusters at every threshold, images."""

import base64
import io
import zlib

import numpy as np

from lsmha_keras.images import resize_image
from lsmha_keras.shp.statistics import block_statistics

# In hundredths: the places of the page's slider.
THRESHOLDS = tuple(range(5, 96))
# Codes of responses: hundredths, rounded up, plus _ZERO; 0 stands for a label without images.
_ZERO = 155
# Images are shown small; many of them must fit into a file.
_MAX_SIDE = 64
_SHEET_COLUMNS = 32
_SHEET_QUALITY = 75


def pack(array):
    """Packs an array of integers as text: its bytes, little-endian, deflated, in base64.

    Args:
        array: array of an integer dtype.

    Returns:
        str.

    Example:
        >>> import base64, zlib
        >>> list(zlib.decompress(base64.b64decode(pack(np.array([1, 2], "uint16")))))
        [1, 0, 2, 0]
    """
    array = np.asarray(array)
    content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def encode_responses(matrices):
    """Encodes normalised matrices with one byte per entry, in steps of 0.01, rounded up.

    For a threshold of whole hundredths, the same codes lie above it as responses.

    Args:
        matrices: float array.

    Returns:
        uint8 array of the same shape; responses below -1.54 are encoded as -1.54.

    Example:
        >>> encode_responses(np.array([1.0, 0.3, 0.301, 0.0, -9.0, np.nan])).tolist()
        [255, 185, 186, 155, 1, 0]
    """
    # In float32, 0.3 is 30.000001 hundredths; rounding to 1e-4 of them undoes that.
    hundredths = np.ceil(np.round(100 * np.asarray(matrices, "float64"), 4))
    codes = np.clip(hundredths, 1 - _ZERO, 100) + _ZERO
    return np.nan_to_num(codes, nan=0.0).astype("uint8")


def cluster_marks(clusters, num_labels):
    """Marks each label with the first label of its cluster.

    Args:
        clusters: list of lists of labels.
        num_labels: int.

    Returns:
        `(labels,)` uint16 array: one more than the first label of the cluster; 0 in no cluster.

    Example:
        >>> cluster_marks([[0, 2], [3]], 5).tolist()
        [1, 0, 1, 4, 0]
    """
    marks = np.zeros(num_labels, "uint16")
    for cluster in clusters:
        marks[cluster] = 1 + min(cluster)
    return marks


def block_data(result):
    """Collects what the page shows of a block.

    Args:
        result: `SHPResult`.

    Returns:
        A dict of JSON values: `codes`, packed uint8 `(heads, labels, labels)`; `marks`, packed
        uint16 `(heads, labels, thresholds)`; `noise`, packed uint32 `(2, thresholds, heads)`, all
        noise and that in the columns of clusters; `figures`, for each threshold clusters per head,
        labels per cluster, noise per head, noise in the columns of clusters, and SNR, `None` if
        infinite.
    """
    found = [block_statistics(result.matrices, hundredths / 100) for hundredths in THRESHOLDS]
    num_labels = len(result.label_counts)
    marks = [[cluster_marks(clusters, num_labels) for clusters in f.clusters] for f in found]
    noise = [[f.noise for f in found], [f.cluster_noise for f in found]]
    return {
        "heads": len(result.matrices),
        "missing": result.missing_labels,
        "dead": np.flatnonzero(result.dead).tolist(),
        "accuracy": result.readout_accuracy,
        "codes": pack(encode_responses(result.matrices)),
        # Last come the thresholds: a label keeps its mark over many, which packs well.
        "marks": pack(np.moveaxis(np.array(marks, "uint16"), 0, -1)),
        "noise": pack(np.array(noise, "uint32")),
        "figures": [_figures(f) for f in found],
    }


def exemplar_data(exemplars):
    """Collects the images that excite heads most.

    Args:
        exemplars: `Exemplars`, or `None`.

    Returns:
        A dict of JSON values, or `None`: `sheet`, all images in rows as the address of a JPEG;
        `side`, `(height, width)` of one; in place of both, `texts`, a list of the words of each;
        `labels` of the images; `rows`, for each block of `[head, label of the output unit, image,
        response]`; `maps`, for each block packed uint8 `(rows, tokens)`, 255 where the head looks
        most, or `None`.
    """
    if exemplars is None:
        return None
    rows, maps = {}, {}
    for block in np.unique(exemplars.block).tolist():
        own = exemplars.block == block
        columns = (exemplars.head, exemplars.unit, exemplars.image)
        rows[block] = [
            [*map(int, row), round(float(response), 3)]
            for *row, response in zip(
                *(column[own] for column in columns), exemplars.response[own], strict=True
            )
        ]
        maps[block] = None if exemplars.maps is None else pack(_shades(exemplars.maps[own]))
    return {
        **_shown(exemplars.images),
        "grid": list(exemplars.grid_shape),
        "labels": exemplars.labels.tolist(),
        "rows": rows,
        "maps": maps,
    }


def _shown(images):
    if images.ndim == 1:
        return {"texts": [text.split(" ") for text in images.tolist()]}
    sheet, side = _sheet(images)
    return {"sheet": sheet, "columns": _SHEET_COLUMNS, "side": side}


def _figures(found):
    values = (
        found.num_clusters.mean(),
        found.mean_cluster_size,
        found.noise.mean(),
        found.cluster_noise.mean(),
        found.snr,
    )
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def _shades(maps):
    return np.rint(255 * maps / np.maximum(maps.max(axis=-1, keepdims=True), 1e-12)).astype("uint8")


def _sheet(images):
    """Lays images out in rows; returns the sheet's address and `[height, width]` of one image."""
    from PIL import Image

    height, width = images.shape[1:3]
    shrink = max(1, max(height, width) / _MAX_SIDE)
    side = [round(height / shrink), round(width / shrink)]
    small = np.stack([np.rint(resize_image(image, side)) for image in images]).astype("uint8")
    small = np.repeat(small[..., :1], 3, axis=-1) if small.shape[-1] != 3 else small
    rows = -(-len(small) // _SHEET_COLUMNS)
    missing = rows * _SHEET_COLUMNS - len(small)
    small = np.concatenate([small, np.zeros((missing, *small.shape[1:]), "uint8")])
    grid = small.reshape(rows, _SHEET_COLUMNS, *side, 3).swapaxes(1, 2)
    file = io.BytesIO()
    picture = Image.fromarray(grid.reshape(rows * side[0], _SHEET_COLUMNS * side[1], 3))
    picture.save(file, "JPEG", quality=_SHEET_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii"), side
