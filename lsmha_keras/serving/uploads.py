"""Reads the images of a request, within limits, and explains what is wrong with them."""

import dataclasses
import io
import pathlib

import numpy as np
from fastapi import Request

from lsmha_keras.errors import InputError
from lsmha_keras.image_file import DECODER_ERRORS

_ARRAY = "application/x-npy"
_FORM = "multipart/form-data"
# Content types that clients send with a file of unknown type; curl and urllib say "form".
_ANY_FILE = ("", "application/octet-stream", "application/x-www-form-urlencoded")
# Pillow reads more, but one of them (EPS) by running Ghostscript on the upload.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM")
_NPY_HEADER = 4096  # bytes; NumPy writes 128


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a service.

    Attributes:
        request_mib: int, size of a request's body in MiB.
        images: int, number of images in a request.
        megapixels: int, size of a photo in millions of pixels; it bounds the memory for decoding.
        requests: int, number of requests being read, waiting or running; more are refused.
        seconds: float, time from the arrival of a request to its answer.
        batch: int, number of images that the model runs at a time.
    """

    request_mib: int = 16
    images: int = 256
    megapixels: int = 64
    requests: int = 64
    seconds: float = 30.0
    batch: int = 32


class Refusal(Exception):
    """The reason why a request is refused.

    Args:
        status: int, HTTP status.
        error: str, a word for programs.
        message: str, a sentence for people.
    """

    def __init__(self, status, error, message):
        super().__init__(message)
        self.status, self.error, self.message = status, error, message


@dataclasses.dataclass
class Upload:
    """The images of a request.

    Attributes:
        names: list of str or `None`, names of the files.
        files: list of bytes, image files; empty if the request holds an array.
        array: `(images, height, width, channels)` array, or `None`.
    """

    names: list
    files: list
    array: np.ndarray | None = None


async def receive_upload(request, limits):
    """Reads the body of a request: an image file, a form with image files, or an array.

    Args:
        request: `fastapi.Request`.
        limits: `Limits`.

    Returns:
        An `Upload`.

    Raises:
        Refusal: if it is too large, empty, or of an unsupported type.
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
    """Decodes the images of an upload and resizes them to the model's size.

    Args:
        upload: `Upload`.
        predictor: `lsmha_keras.Predictor`.
        limits: `Limits`.

    Returns:
        `(images, *image_shape)` uint8 array.

    Raises:
        Refusal: if a file is empty, not an image, damaged or too large, or the array does not fit.
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
    """Wraps a request so that reading its body raises as soon as it is too large."""
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
    """Reads an untrusted file of `np.save`: without pickle, and without a copy of the body."""
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
                f"dtype {dtype}, shape {shape}{', in Fortran order' if in_columns else ''}"
            )
        return np.frombuffer(body, dtype, offset=file.tell()).reshape(shape)
    except ValueError as error:  # ours above, or NumPy's
        raise Refusal(
            400,
            "bad_array",
            "An array must be what np.save writes for uint8 images (images, height, width, "
            f"channels). Received: {error}",
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
    """Checks the size in the header, which determines how much memory decoding takes."""
    from PIL import Image

    Image.init()
    here = [name for name in _FORMATS if name in Image.OPEN]  # older Pillows lack AVIF
    with Image.open(file, formats=here) as image:
        pixels = image.width * image.height
    if pixels > limits.megapixels * 1_000_000:
        raise Refusal(
            413,
            "too_large",
            f"{file.name} has {pixels / 1e6:.0f} million pixels; the limit is {limits.megapixels} "
            "million. Send a smaller one.",
        )
