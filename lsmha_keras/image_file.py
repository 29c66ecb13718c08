"""Reads image files: the one way for folders of images and for the command line."""

import contextlib
import os
import pathlib
import struct
import zlib

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.files import is_hidden
from lsmha_keras.images import resize_to_fit

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# What Pillow raises for damaged files, beside its error about too many pixels; AVIF's decoder
# raises RuntimeError.
DECODER_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError)
# What EXIF's orientations need to stand upright, in Pillow's names.
_EXIF_ORIENTATION = 0x0112
_TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
_TURNS |= {6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
_TIFF_BITS, _TIFF_FORMAT = 258, 339
_UNSIGNED = 1
# Channels of PNG's colour types, and its passes: first row, first column, steps of rows, columns.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_PASSES: tuple[tuple[int, ...], ...] = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4))
_PNG_PASSES += ((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def find_images(folder):
    """Lists the image files below a folder, in the order of their names.

    Hidden files and folders, and those that systems and tools leave behind, are passed over.

    Args:
        folder: path.

    Returns:
        list of `pathlib.Path`, empty if there is no such folder.

    Example:

    ```python
    for path in find_images("photos"):
        print(read_image(path).shape)
    ```
    """
    folder = pathlib.Path(folder)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS
        and not any(is_hidden(part) for part in path.relative_to(folder).parts)
    )


def read_image(source, size=None):
    """Reads an image file as RGB, upright as its EXIF orientation says, on white.

    What is transparent shows white. Of samples of 16 or 32 bits the highest 8 are taken, as
    TensorFlow's and so Keras's readers of folders do; floating-point samples must lie in 0 .. 1. Of
    several frames or pages the first is read. Images of more than 179 million pixels are refused.

    Args:
        source: path, or a binary file that can be read again from its start, such as `io.BytesIO`;
            messages call it by its `name`, if it has one.
        size: `(height, width)` of the model, or None; a centred part with these proportions is
            resized to it.

    Returns:
        `(height, width, 3)` uint8.

    Raises:
        ValueError: if the file is missing, cut off, not as large as its header says, not an image,
            or has samples that cannot be told; names the file.

    Example:

    ```python
    image = read_image("photo.png", size=(32, 32))
    ```
    """
    from PIL import Image, UnidentifiedImageError

    is_open = hasattr(source, "read")
    name = getattr(source, "name", "The file") if is_open else str(source)
    try:
        with contextlib.nullcontext(source) if is_open else open(name, "rb") as file:
            with Image.open(file) as image:
                if image.format == "PNG":
                    _check_png(file)
                return np.asarray(to_rgb(image, size))
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not a sound image file. Received: no format that Pillow knows"
        ) from error
    except (*DECODER_ERRORS, Image.DecompressionBombError) as error:
        cause = getattr(error, "strerror", None) or error
        raise InputError(f"{name} is not a sound image file. Received: {cause}") from error


def read_any(image, size=None):
    """Reads what may stand for an image file, as `read_image` does.

    Args:
        image: path, open binary file or `PIL.Image.Image`.
        size: as for `read_image`.

    Returns:
        `(height, width, 3)` uint8.

    Raises:
        ValueError: as `read_image`, or if it is none of these.

    Example:

    ```python
    read_any(PIL.Image.new("RGB", (640, 427)), size=(32, 32)).shape  # (32, 32, 3)
    ```
    """
    if isinstance(image, (str, os.PathLike)) or hasattr(image, "read"):
        return read_image(image, size)
    if hasattr(image, "getexif"):
        return np.asarray(to_rgb(image, size))
    raise InputError(
        "An image is a path, an open binary file, a `PIL.Image.Image` or an array. "
        f"Received: {type(image).__name__}"
    )


def to_rgb(image, size=None):
    """Brings a Pillow image to what `read_image` reads from its file.

    Args:
        image: `PIL.Image.Image`.
        size: `(height, width)` of the model, or None.

    Returns:
        A `PIL.Image.Image` of the mode RGB.

    Raises:
        ValueError: if its samples have no known scale.

    Example:

    ```python
    upright = to_rgb(PIL.Image.open("photo.jpg"), size=(32, 32))
    ```
    """
    from PIL import Image

    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    image = _to_resizable(_to_eight_bits(image))
    # Turned and laid on white before the resize, and JPEGs decoded in full, so that the file gives
    # the same as the array of its pixels. Most photos need neither, and are not copied.
    if orientation in _TURNS:
        image = image.transpose(Image.Transpose[_TURNS[orientation]])
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    if size is not None:
        image = resize_to_fit(image, size)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_resizable(image):
    """Brings an image to one of the modes L, RGB and RGBA, which are resized without surprises."""
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBa"):
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")


def _to_eight_bits(image):
    """Scales greyscale samples of 16 and 32 bits, which Pillow would clip at 255."""
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image
    samples = np.asarray(image)
    if image.mode == "F":
        low, high = samples.min(), samples.max()
        if not (0 <= low and high <= 1):  # so is a NaN refused
            raise InputError(
                f"floating-point samples from {low:g} to {high:g}, and only 0 .. 1 has a scale; "
                "save the image with 8 or 16 bits"
            )
        scaled = np.rint(samples * 255)
    else:
        bits = 16 if image.format != "TIFF" else image.tag_v2.get(_TIFF_BITS, (1,))[0]
        if image.format == "TIFF" and image.tag_v2.get(_TIFF_FORMAT, (1,))[0] != _UNSIGNED:
            raise InputError("signed samples; save the image with 8 or 16 bits, unsigned")
        # Pillow keeps unsigned samples of 32 bits in signed ones.
        samples = samples.astype("int64") & (2**bits - 1)
        scaled = samples >> (bits - 8)
    grey = Image.fromarray(scaled.astype("uint8"))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(samples == clear, 0, 255).astype("uint8")))
    return grey


def _check_png(file):
    """Refuses a PNG whose compressed rows are not as many as its header says.

    Pillow leaves missing rows black, and passes over surplus ones.
    """
    expected, found = None, 0
    inflate = zlib.decompressobj()
    position = file.tell()  # where Pillow stands
    file.seek(8)
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise InputError("a file that is cut off")
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        if kind not in (b"IHDR", b"IDAT"):
            file.seek(length + 4, 1)
            continue
        data = file.read(length)
        file.seek(4, 1)  # Pillow checks the checksums
        if kind == b"IHDR":
            expected = _png_bytes(*struct.unpack(">IIBBBBB", data))
        else:
            found += _inflated(inflate, data)
    file.seek(position)
    if found != expected:
        raise InputError(
            f"{found:,} bytes of pixels, and {expected:,} belong to the size in the header"
        )


def _inflated(inflate, data):
    """Returns how many bytes compressed data becomes, which are never all in memory."""
    count = 0
    try:
        while data and not inflate.eof:
            count += len(inflate.decompress(data, 2**20))
            data = inflate.unconsumed_tail
    except zlib.error as error:
        raise InputError(f"damaged pixels ({error})") from error
    return count


def _png_bytes(width, height, bits, color, compression, filtering, interlace):
    """Returns the bytes of all rows of a PNG: one for the filter, then the samples."""
    passes = _PNG_PASSES if interlace else ((0, 0, 1, 1),)
    total = 0
    for first_row, first_column, row_step, column_step in passes:
        rows = -(-(height - first_row) // row_step)
        columns = -(-(width - first_column) // column_step)
        if rows > 0 and columns > 0:
            total += rows * (1 + -(-columns * bits * _PNG_CHANNELS[color] // 8))
    return total
