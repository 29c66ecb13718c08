"""Reads the images of a request, within limits, and says in words what is wrong with them."""

import dataclasses
import io
import pathlib

import numpy as np
from fastapi import Request

from lsmha_keras.errors import InputError
from lsmha_keras.image_file import DECODER_ERRORS

_ARRAY = "application/x-npy"
_FORM = "multipart/form-data"
# What clients send with a file if nobody tells them what it is; curl and urllib say "form".
_ANY_FILE = ("", "application/octet-stream", "application/x-www-form-urlencoded")
# Pillow knows more, and runs another program, Ghostscript, for one of them.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM")
_NPY_HEADER = 4096  # bytes; NumPy writes 128


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a service takes on.

    Attributes:
        request_mib: int, MiB of a request's body.
        images: int, images of a request.
        megapixels: int, millions of pixels of a photo, which decides about the memory that
            decoding takes.
        requests: int, requests that are read, wait or run at a time; further ones are refused.
        seconds: float, from a request's arrival to its answer.
        batch: int, images that run at a time, however many requests they come from.
    """

    request_mib: int = 16
    images: int = 256
    megapixels: int = 64
    requests: int = 64
    seconds: float = 30.0
    batch: int = 32


class Refusal(Exception):
    """Says why a request is not answered.

    Args:
        status: int, of HTTP.
        error: str, a word for programs.
        message: str, a sentence for people.
    """

    def __init__(self, status, error, message):
        super().__init__(message)
        self.status, self.error, self.message = status, error, message


@dataclasses.dataclass
class Upload:
    """What a request brought.

    Attributes:
        names: list of str or `None`, the files' names.
        files: list of bytes, image files; empty if it brought an array.
        array: `(images, height, width, channels)` array, or `None`.
    """

    names: list
    files: list
    array: np.ndarray | None = None


async def receive_upload(request, limits):
    """Reads the body of a request, which may be an image file, a form with several, or an array.

    Args:
        request: `fastapi.Request`.
        limits: `Limits`.

    Returns:
        An `Upload`.

    Raises:
        Refusal: if it is too large, empty, or nothing that holds images.
    """
    request = _limited(request, limits.request_mib)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _FORM:
        upload = await _read_form(request, limits)
    elif kind == _ARRAY:
        array = _read_array(await request.body())
        upload = Upload([None] * len(array), [], array)
    elif kind.startswith("image/") or kind in _ANY_FILE:
        upload = Upload([None], [await request.body()])
    else:
        raise Refusal(
            415,
            "unsupported_content",
            f"Send an image file, a form ({_FORM}) with image files, or an array ({_ARRAY}). "
            f"Received: Content-Type: {kind}",
        )
    if len(upload.names) > limits.images:
        raise Refusal(
            413,
            "too_many_images",
            f"A request holds {limits.images} images at most. Received: {len(upload.names)}",
        )
    return upload


def decode_upload(upload, predictor, limits):
    """Brings the images of an upload to what a model takes.

    Args:
        upload: `Upload`.
        predictor: `lsmha_keras.Predictor`.
        limits: `Limits`.

    Returns:
        `(images, *image_shape)` uint8 array.

    Raises:
        Refusal: if a file is empty, no image, damaged or too large, or the array does not fit.
    """
    if upload.array is None:
        channels = predictor.image_shape[2]
        if channels not in (1, 3):
            raise Refusal(
                415,
                "unsupported_content",
                f"The model takes {channels} channels, which image files do not have: send an "
                f"array ({_ARRAY}).",
            )
        pairs = zip(upload.names, upload.files, strict=True)
        return np.stack([_decode(data, name, predictor, limits) for name, data in pairs])
    try:
        return np.stack([predictor.read(image) for image in upload.array])
    except ValueError as error:
        raise Refusal(400, "bad_array", str(error)) from error


def _limited(request, mib):
    """Returns the same request, whose body raises as soon as it is larger than allowed."""
    limit = left = mib * 2**20
    too_large = Refusal(413, "too_large", f"A request takes {mib} MiB at most.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large

    async def receive():
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise too_large
        return message

    return Request(request.scope, receive)


async def _read_form(request, limits):
    async with request.form(max_files=limits.images, max_fields=100) as form:
        uploads = [value for _, value in form.multi_items() if not isinstance(value, str)]
        if not uploads:
            raise Refusal(400, "no_image", "The form has no file. Send one in the field `file`.")
        return Upload(
            [pathlib.PurePath(upload.filename or "").name or None for upload in uploads],
            [await upload.read() for upload in uploads],
        )


def _read_array(body):
    """Reads the format of `np.save` without trusting it: a view of the body, nothing unpickled."""
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise InputError(f"version {version} of the format")
        shape, in_columns, dtype = readers[version](file, max_header_size=_NPY_HEADER)
        if dtype != np.uint8 or in_columns or len(shape) != 4 or min(shape) < 1:
            raise InputError(
                f"dtype {dtype}, shape {shape}{', in the order of Fortran' if in_columns else ''}"
            )
        return np.frombuffer(body, dtype, offset=file.tell()).reshape(shape)
    except ValueError as error:  # NumPy's own among them
        raise Refusal(
            400,
            "bad_array",
            "An array is what np.save writes of uint8 images (images, height, width, channels). "
            f"Received: {error}",
        ) from error


def _decode(data, name, predictor, limits):
    from PIL import Image, UnidentifiedImageError

    file = io.BytesIO(data)
    file.name = name or "The file"
    if not data:
        raise Refusal(400, "no_image", f"{file.name} is empty.")
    try:
        _check_size(file, limits)
        return predictor.read(file)
    except UnidentifiedImageError as error:
        raise Refusal(
            415,
            "not_an_image",
            f"{file.name} is not an image in {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}.",
        ) from error
    except Image.DecompressionBombError as error:
        raise Refusal(413, "too_large", f"{file.name} is too large. {error}") from error
    except DECODER_ERRORS as error:
        raise Refusal(400, "damaged_image", str(error)) from error


def _check_size(file, limits):
    """Looks at the header alone; what it announces decides about the memory for decoding."""
    from PIL import Image

    Image.init()
    here = [name for name in _FORMATS if name in Image.OPEN]  # older Pillows lack AVIF
    with Image.open(file, formats=here) as image:
        pixels = image.width * image.height
    if pixels > limits.megapixels * 1_000_000:
        raise Refusal(
            413,
            "too_large",
            f"{file.name} has {pixels / 1e6:.0f} million pixels, and {limits.megapixels} are taken "
            "at most. Send it smaller.",
        )
