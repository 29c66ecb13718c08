"""Image files with every kind of sample, and files that are damaged or mislabelled."""

import io
import struct
import subprocess
import sys
import zlib

import keras
import numpy as np
import pytest
from PIL import Image

from lsmha_keras import image_file
from lsmha_keras.image_file import find_images, read_image
from lsmha_keras.images import resize_image

pytestmark = pytest.mark.backend_free

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5), dtype="uint8")
COLOR = RNG.integers(0, 256, (6, 5, 3), dtype="uint8")
ALPHA = np.arange(30, dtype="uint8").reshape(6, 5) * 8


def on_white(color, alpha):
    """Alpha compositing of a colour over white, from its definition."""
    share = alpha[..., None] / 255
    return color * share + 255 * (1 - share)


def grey_to_rgb(grey):
    return np.stack([grey] * 3, axis=-1)


def save(path, image, **options):
    image.save(path, **options)
    return path


def check(path, expected, atol=0):
    found = read_image(path)
    assert found.dtype == np.uint8 and found.shape == (6, 5, 3)
    np.testing.assert_allclose(found.astype(int), expected, atol=atol)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_samples_of_eight_bits_and_fewer(tmp_path, ending):
    path = tmp_path / f"image.{ending}"
    check(save(path, Image.fromarray(GREY)), grey_to_rgb(GREY))
    check(save(path, Image.fromarray(COLOR)), COLOR)
    bits = GREY > 128
    check(save(path, Image.fromarray(bits)), grey_to_rgb(bits * 255))
    palette = Image.fromarray(GREY % 3, mode="P")
    colors = RNG.integers(0, 256, (3, 3))
    palette.putpalette(colors.astype("uint8").tobytes())
    check(save(path, palette), colors[GREY % 3])


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_samples_of_sixteen_bits(tmp_path, ending, byte_order):
    deep = RNG.integers(0, 2**16, (6, 5)).astype(f"{byte_order}u2")
    path = save(tmp_path / f"image.{ending}", Image.fromarray(deep))
    check(path, grey_to_rgb(deep >> 8))


def test_sixteen_bits_with_a_transparent_value(tmp_path):
    deep = RNG.integers(0, 2**16, (6, 5)).astype("uint16")
    deep[2, 3] = 4711
    path = save(tmp_path / "image.png", Image.fromarray(deep), transparency=4711)
    expected = grey_to_rgb(deep >> 8)
    expected[2, 3] = 255
    check(path, expected)


def write_tiff(path, samples, sample_format):
    """Writes a greyscale TIFF by hand, as Pillow reads more kinds than it writes."""
    height, width = samples.shape
    bits = 8 * samples.dtype.itemsize
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, 1),
        (273, 8 + 2 + 9 * 12 + 4),
        (277, 1),
        (279, samples.nbytes),
        (339, sample_format),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    header = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags))
    path.write_bytes(header + entries + struct.pack("<I", 0) + samples.tobytes())
    return path


def test_samples_of_thirty_two_bits(tmp_path):
    deep = RNG.integers(0, 2**32, (6, 5)).astype("uint32")
    path = write_tiff(tmp_path / "image.tif", deep, sample_format=1)
    check(path, grey_to_rgb(deep >> 24))
    for dtype in ("int16", "int32"):
        signed = write_tiff(tmp_path / "signed.tif", deep.astype(dtype), sample_format=2)
        with pytest.raises(ValueError, match="signed.tif .* Received: signed samples"):
            read_image(signed)


def test_floating_point_samples(tmp_path):
    share = RNG.random((6, 5)).astype("float32")
    path = save(tmp_path / "image.tif", Image.fromarray(share))
    check(path, grey_to_rgb(np.rint(share * 255)))
    for value in (-0.5, 255.0, np.nan):
        share[1, 1] = value
        save(path, Image.fromarray(share))
        with pytest.raises(ValueError, match="image.tif .* floating-point samples from"):
            read_image(path)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_what_is_transparent_shows_white(tmp_path, ending):
    path = tmp_path / f"image.{ending}"
    color = Image.fromarray(np.dstack([COLOR, ALPHA]))
    check(save(path, color), on_white(COLOR, ALPHA), atol=1)
    grey = Image.fromarray(np.dstack([GREY, ALPHA]), mode="LA")
    check(save(path, grey), on_white(grey_to_rgb(GREY), ALPHA), atol=1)


def test_a_transparent_colour_shows_white(tmp_path):
    path = tmp_path / "image.png"
    expected = COLOR.copy()
    expected[2, 3] = 255
    clear = tuple(map(int, COLOR[2, 3]))
    check(save(path, Image.fromarray(COLOR), transparency=clear), expected)
    palette = Image.fromarray(GREY % 3, mode="P")
    colors = np.array([[9, 8, 7], [60, 50, 40], [100, 110, 120]])
    palette.putpalette(colors.astype("uint8").tobytes())
    colors[1] = 255
    for name in ("image.png", "image.gif"):
        check(save(tmp_path / name, palette, transparency=1), colors[GREY % 3])


def test_white_below_what_is_transparent_is_resized_like_the_rest(tmp_path):
    color = RNG.integers(0, 256, (40, 60, 3), dtype="uint8")
    alpha = RNG.integers(0, 256, (40, 60), dtype="uint8")
    path = save(tmp_path / "image.png", Image.fromarray(np.dstack([color, alpha])))
    whole = on_white(color, alpha).round().astype("uint8")
    expected = Image.fromarray(whole).resize((12, 8), Image.Resampling.BILINEAR)
    # Pillow and NumPy round the colours on white each in its way.
    np.testing.assert_allclose(read_image(path, (8, 12)).astype(int), expected, atol=1)
    resized = Image.fromarray(read_image(path)).resize((12, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(read_image(path, (8, 12)), resized)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_the_same_before_and_after_the_resize(tmp_path, orientation):
    color = RNG.integers(0, 256, (40, 60, 3), dtype="uint8")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "image.png", Image.fromarray(color), exif=exif)
    turned = {
        1: color,
        2: color[:, ::-1],
        3: color[::-1, ::-1],
        4: color[::-1],
        5: color.swapaxes(0, 1),
        6: np.rot90(color, -1),
        7: np.rot90(color, 2).swapaxes(0, 1),
        8: np.rot90(color),
    }[orientation]
    np.testing.assert_array_equal(read_image(path), turned)
    expected = resize_image(np.ascontiguousarray(turned), (8, 12))
    np.testing.assert_array_equal(read_image(path, (8, 12)), expected)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path, header_height, rows, cut=None):
    raw = b"".join(b"\0" + RNG.bytes(64 * 3) for _ in range(rows))
    pixels = zlib.compress(raw)
    header = struct.pack(">IIBBBBB", 64, header_height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", pixels[:cut]), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))
    return path


@pytest.mark.parametrize("size", [None, (8, 8)])
def test_a_png_of_another_size_than_its_header_says(tmp_path, size):
    path = tmp_path / "image.png"
    assert read_image(write_png(path, 48, 48)).shape == (48, 64, 3)
    for rows in (24, 47, 49):
        message = f"image.png .* {rows * 193:,} bytes of pixels, and 9,264 belong to"
        with pytest.raises(ValueError, match=message):
            read_image(write_png(path, 48, rows), size)
    with pytest.raises(ValueError, match="image.png is not a sound image file"):
        read_image(write_png(path, 48, 48, cut=3000), size)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (8, 8), (17, 9)])
def test_every_sound_png_passes_the_check(tmp_path, mode, shape):
    image = Image.new(mode, shape)
    assert read_image(save(tmp_path / "a.png", image)).shape == (*shape[::-1], 3)
    if mode in ("P", "L"):
        for bits in (1, 2, 4):
            small = Image.new("P", shape)
            path = save(tmp_path / "b.png", small, bits=bits)
            assert read_image(path).shape == (*shape[::-1], 3)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (5, 3), (9, 17), (16, 16)])
def test_interlaced_png(tmp_path, shape):
    """Written by hand, as Pillow writes none: seven passes over an image of 8 by 8 pixels."""
    color = RNG.integers(0, 256, (*shape, 3), dtype="uint8")
    grid = [
        "16462646",
        "77777777",
        "56565656",
        "77777777",
        "36463646",
        "77777777",
        "56565656",
        "77777777",
    ]
    number = np.array([[int(grid[y % 8][x % 8]) for x in range(shape[1])] for y in range(shape[0])])
    raw = b""
    for each in range(1, 8):
        for y in range(shape[0]):
            if (number[y] == each).any():
                raw += b"\0" + color[y][number[y] == each].tobytes()
    path = tmp_path / "image.png"
    for data in (raw, raw[:-1]):
        header = struct.pack(">IIBBBBB", shape[1], shape[0], 8, 2, 0, 0, 1)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks))
        if data == raw:
            np.testing.assert_array_equal(read_image(path), color)
        else:
            with pytest.raises(ValueError, match="bytes of pixels"):
                read_image(path)


@pytest.mark.parametrize("ending", ["bmp", "gif", "jpg", "png", "ppm", "tif", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_a_file_that_is_cut_off_is_named(tmp_path, ending, share):
    path = tmp_path / f"image.{ending}"
    save(path, Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype="uint8")))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"image.{ending} is not a sound image file. Received: "):
        read_image(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp", "tif", "bmp", "ppm"])
def test_an_open_file_is_read_as_its_path(tmp_path, ending):
    path = save(tmp_path / f"image.{ending}", Image.fromarray(COLOR))
    expected = read_image(path, size=(4, 4))
    np.testing.assert_array_equal(read_image(io.BytesIO(path.read_bytes()), (4, 4)), expected)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(read_image(file, (4, 4)), expected)
        assert not file.closed


def test_an_open_file_that_is_damaged_is_named():
    nameless, named = io.BytesIO(b"no image"), io.BytesIO(b"no image")
    named.name = "upload.png"
    with pytest.raises(ValueError, match="^The file is not a sound image file"):
        read_image(nameless)
    with pytest.raises(ValueError, match="^upload.png is not a sound image file"):
        read_image(named)


def test_a_damaged_avif_is_named(tmp_path):
    path = tmp_path / "image.avif"
    Image.fromarray(COLOR).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"iloc", b"xloc"))  # its decoder raises RuntimeError
    with pytest.raises(ValueError, match="image.avif is not a sound image file"):
        read_image(path)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="that reader is TensorFlow's")
def test_like_keras_reader_of_folders(tmp_path):
    """Keras's own reader supports neither transparency nor TIFF; other files it reads alike."""
    folder = tmp_path / "class"
    folder.mkdir()
    deep = RNG.integers(0, 2**16, (6, 5)).astype("uint16")
    images = {"a": Image.fromarray(deep), "b": Image.fromarray(GREY), "c": Image.fromarray(COLOR)}
    images |= {"d": Image.fromarray(GREY > 128)}
    for name, image in images.items():
        save(folder / f"{name}.png", image)
    batches = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(6, 5), batch_size=4, shuffle=False
    )
    expected = next(iter(batches))[0].numpy()
    for name, image in zip(images, expected, strict=True):
        np.testing.assert_array_equal(read_image(folder / f"{name}.png"), image, err_msg=name)


HUGE = """
import importlib.util, resource, sys
import numpy as np
from PIL import Image
# From its file, so that nothing else is imported, which takes memory.
spec = importlib.util.spec_from_file_location("image_file", sys.argv[3])
image_file = importlib.util.module_from_spec(spec)
spec.loader.exec_module(image_file)
Image.init()
np.asarray(Image.new("RGB", (4, 4)).resize((2, 2)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Image.open(sys.argv[1]) as image:
    image.load() if sys.argv[2] == "pillow" else image_file.read_image(sys.argv[1], (32, 32))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_a_large_image_is_in_memory_once(tmp_path):
    """Reading and shrinking an image takes little more memory than Pillow's own copy of it."""
    path = save(tmp_path / "large.png", Image.new("RGB", (5000, 5000), "red"))

    def peak(way):
        command = [sys.executable, "-c", HUGE, str(path), way, image_file.__file__]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert peak("ours") < peak("pillow") + 10_000  # a second copy takes 98,000


def test_hidden_files_are_no_images(tmp_path):
    for name in ("b/1.png", "a.JPG", "._a.jpg", ".hidden/2.png", "__MACOSX/b/._1.png", "b/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert find_images(tmp_path) == [tmp_path / "a.JPG", tmp_path / "b" / "1.png"]
    # A folder that is hidden itself was asked for by name.
    assert find_images(tmp_path / ".hidden") == [tmp_path / ".hidden" / "2.png"]
