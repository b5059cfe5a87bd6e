"""Pictures of every kind become one upright RGB picture, or one clear error."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile
from small_pictures import encode, quadrants

from embedstore import images
from embedstore.errors import ImageError


def gradient() -> np.ndarray:
    return np.arange(48, dtype=np.uint8).reshape(6, 8) * np.uint8(5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    """A picture stored in any of the eight orientations is read as the same upright picture."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose values that store it so
    stored = quadrants() if orientation == 1 else quadrants().transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    picture = images.read(encode(stored, kind, exif=exif, **options))
    assert (picture.width, picture.height) == picture.image.size == (40, 20)
    found = [picture.image.getpixel(place) for place in ((5, 4), (34, 4), (5, 15), (34, 15))]
    wanted = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert np.abs(np.subtract(found, wanted)).max() <= 3


def test_orientation_of_a_picture_in_memory() -> None:
    """A Pillow image opened from a file is turned upright too; the caller's own object is left as it was."""
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = Image.open(io.BytesIO(encode(quadrants(), exif=exif)))
    assert images.read(opened).image.size == (20, 40)
    assert opened.size == (40, 20)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_no_reason_to_refuse() -> None:
    """A JPEG whose EXIF block is nonsense is read as it stands."""
    data = encode(quadrants(), "JPEG", exif=b"Exif\0\0MM\0*nonsense")
    assert images.read(data).image.size == (40, 20)


@given(st.integers(0, 255), st.integers(0, 255))
def test_alpha_is_flattened_on_white(value: int, alpha: int) -> None:
    """RGBA and LA show value * a + 255 * (1 - a), a = alpha / 255, to the nearest integer."""
    expected = value * alpha / 255 + 255 * (1 - alpha / 255)
    for image in (
        Image.new("RGBA", (2, 2), (value,) * 3 + (alpha,)),
        Image.new("LA", (2, 2), (value, alpha)),
    ):
        for source in (image, encode(image)):
            found = images.read(source).image.getpixel((1, 1))
            assert max(abs(channel - expected) for channel in found) <= 0.5 + 1e-9


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_transparent_palette_becomes_white(kind: str) -> None:
    """The transparent colour of a palette is white, whatever colour the palette has there."""
    image = Image.new("P", (4, 1), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((3, 0), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = images.read(encode(image, kind, transparency=0)).image
    assert [read.getpixel((x, 0)) for x in (0, 3)] == [(255, 255, 255), (0, 0, 255)]


def test_palette_with_alpha_and_rgb_with_a_transparent_colour() -> None:
    """PA and premultiplied pictures, and RGB with one transparent colour, are flattened on white as well."""
    palette = Image.new("PA", (1, 1), (0, 0))
    assert images.read(palette).image.getpixel((0, 0)) == (255, 255, 255)
    assert images.read(Image.new("RGBa", (1, 1), (0, 0, 0, 0))).image.getpixel((0, 0)) == (255, 255, 255)
    keyed = encode(Image.new("RGB", (1, 1), (9, 8, 7)), transparency=(9, 8, 7))
    assert images.read(keyed).image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "array", "big-endian"])
def test_16_bit_is_scaled_not_clipped(kind: str) -> None:
    """A 16-bit value v is shown as v / 257 to the nearest integer, over the whole range."""
    values = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    if kind == "array":
        source: object = values
    elif kind == "big-endian":
        source = Image.frombytes("I;16B", (64, 64), values.astype(">u2").tobytes())
    else:
        source = encode(Image.fromarray(values), kind)
    found = np.asarray(images.read(source).image)
    for channel in range(3):
        np.testing.assert_array_equal(found[:, :, channel], np.rint(values / 257.0))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, np.nan, np.inf], [0, 0, 0]),
        ([0.0, np.nan, 1.0], [0, 0, 255]),
        ([-np.inf, 0.0, 1.0], [0, 0, 255]),
        ([7e9, 7e9, 7e9], [0, 0, 0]),
    ],
)
def test_float_pictures(values: list[float], expected: list[int]) -> None:
    """Floats are scaled by the stated rule: 0..1, 0..255, 0..65535, else stretched; NaN is the darkest."""
    array = np.array([values], dtype=np.float32)
    for source in (array, Image.fromarray(array), encode(Image.fromarray(array), "TIFF")):
        found = np.asarray(images.read(source).image)[0, :, 0]
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_32_bit_integers() -> None:
    """Integers up to 255 stay, up to 65535 are divided by 257, others are stretched."""
    for values, expected in (
        ([0, 1, 255], [0, 1, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([-100, 0, 100], [0, 128, 255]),
    ):
        array = np.array([values], dtype=np.int32)
        for source in (array, Image.fromarray(array)):
            np.testing.assert_array_equal(np.asarray(images.read(source).image)[0, :, 1], expected)


def test_colour_modes_show_the_same_colours() -> None:
    """CMYK, YCbCr, LAB, HSV, P, 1 and L pictures show the colour that they hold, within rounding."""
    orange = Image.new("RGB", (8, 8), (250, 120, 30))
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    others = [orange.convert(mode) for mode in ("CMYK", "YCbCr", "HSV")]
    others += [orange.quantize(2), ImageCms.applyTransform(orange, to_lab)]
    for image in others:
        sources = [image] if image.mode == "HSV" else [image, encode(image, "TIFF")]
        for source in sources:
            found = images.read(source).image.getpixel((4, 4))
            assert np.abs(np.subtract(found, (250, 120, 30))).max() <= 4, image.mode
    cmyk_jpeg = encode(orange.convert("CMYK"), "JPEG", quality=95)
    assert np.abs(np.subtract(images.read(cmyk_jpeg).image.getpixel((4, 4)), (250, 120, 30))).max() <= 6
    assert images.read(Image.new("1", (2, 2), 1)).image.getpixel((0, 0)) == (255, 255, 255)
    assert images.read(Image.new("L", (2, 2), 77)).image.getpixel((0, 0)) == (77, 77, 77)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    """Of several frames the first is read."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert images.read(data).image.getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 1), (6, 8, 3)])
def test_arrays(shape: tuple[int, ...]) -> None:
    """Grey and colour arrays of bytes keep every value, also when not contiguous."""
    array = np.broadcast_to(gradient().reshape(6, 8, *[1] * (len(shape) - 2)), shape)
    found = np.asarray(images.read(array[:, ::-1]).image)
    expected = np.repeat(gradient()[:, ::-1, None], 3, axis=2)
    np.testing.assert_array_equal(found, expected)


def test_arrays_with_alpha_and_of_booleans() -> None:
    """Float RGBA is scaled and flattened as the byte RGBA is, and True is white."""
    rgba = np.zeros((1, 2, 4))
    rgba[0, 0] = (1, 0, 0, 1)
    found = images.read(rgba).image
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]
    assert images.read(np.array([[True, False]])).image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 8, 8)), "channels come last"),
        (np.zeros((2, 8, 8, 3)), "list of pictures"),
        (np.zeros(7), r"shape \(7,\)"),
        (np.zeros((2, 2, 7)), r"shape \(2, 2, 7\)"),
        (np.zeros((0, 8)), "no pixels"),
        (np.array([["a"]]), "dtype"),
        ("cat.jpg", "not str"),
    ],
)
def test_what_is_no_picture_in_memory(source: object, message: str) -> None:
    """What cannot be a picture is refused with what was found and what to do."""
    with pytest.raises(ImageError, match=message):
        images.read(source)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"these are words, not a picture", "start with b'these are wo'"),
        (b"P", "1 bytes that"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "drawings"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "drawings"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow-heif"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n", "looks like PNG"),
    ],
)
def test_what_is_no_picture_file(data: bytes, message: str) -> None:
    """A file that is no picture is refused with what it starts with, and a way forward where there is one."""
    with pytest.raises(ImageError, match=message):
        images.read(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_truncated_files(kind: str, part: float) -> None:
    """A picture file that is cut short is refused, not read as half a picture."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 90, 3), dtype=np.uint8))
    data = encode(noise, kind)
    with pytest.raises(ImageError):
        images.read(data[: int(len(data) * part)])


@given(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP"]), st.data())
def test_damaged_files_raise_nothing_but_image_error(kind: str, data: st.DataObject) -> None:
    """Whatever bytes of a file are changed, it is read as RGB or refused with ImageError."""
    content = bytearray(encode(quadrants(), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged EXIF
        with contextlib.suppress(ImageError):
            assert images.read(bytes(content), max_pixels=10_000_000).image.mode == "RGB"


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds hardly any."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_decompression_bomb_is_refused_before_decoding() -> None:
    """30,000 x 30,000 pixels are refused by the header alone, with the numbers."""
    with pytest.raises(ImageError, match=r"30,000 x 30,000 = 900,000,000 pixels.*limit of 300,000,000"):
        images.read(png_header(30_000, 30_000))
    with pytest.raises(ImageError, match="limit of 799"):
        images.read(quadrants(), max_pixels=799)
    with pytest.raises(ImageError, match="limit of 799"):
        images.read(np.zeros((20, 40)), max_pixels=799)
    assert images.read(quadrants(), max_pixels=800).width == 40


def test_pillows_global_limits_are_neither_used_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture beyond Pillow's own limit is read without a warning, and that limit stays as it was."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encode(quadrants())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.read(data).image.size == (40, 20)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_hash_of_a_file_is_that_of_all_its_bytes(tmp_path: Path) -> None:
    """The hash of bytes and of a path is the plain SHA-256 of the file."""
    data = encode(quadrants())
    path = tmp_path / "a.png"
    path.write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert images.content_hash(data) == images.content_hash(path) == expected
    assert images.read(data).content_hash == images.read(path).content_hash == expected


def test_hash_of_a_picture_in_memory_is_that_of_what_is_seen() -> None:
    """Equal pixels hash alike as array and as image, unlike any other size, pixels or file of those bytes."""
    image = quadrants()
    hashes = {images.content_hash(image), images.content_hash(np.asarray(image))}
    assert hashes == {images.read(image).content_hash}
    pixels = image.tobytes()
    others = {
        images.content_hash(Image.frombytes("RGB", (20, 40), pixels)),
        images.content_hash(image.transpose(Image.Transpose.ROTATE_180)),
        hashlib.sha256(pixels).hexdigest(),
        images.content_hash(encode(image)),
    }
    assert len(others) == 4
    assert not others & hashes


def test_palette_belongs_to_the_hash() -> None:
    """Two paletted pictures with equal indices and other colours are two pictures."""
    first, second = Image.new("P", (2, 2), 0), Image.new("P", (2, 2), 0)
    first.putpalette([255, 0, 0])
    second.putpalette([0, 0, 255])
    assert images.content_hash(first) != images.content_hash(second)


def test_threads_agree() -> None:
    """Many threads decode the same files to the same pixels."""
    rng = np.random.default_rng(2)
    files = [
        encode(Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)), kind)
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
    ]
    alone = [images.read(data).image.tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: images.read(data).image.tobytes(), files * 10))
    assert together == alone * 10


def test_suffixes() -> None:
    """The usual endings are known, and every ending is lower case with a dot."""
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"} <= set(images.SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in images.SUFFIXES)


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (b"", True),
        (bytearray(b"x"), True),
        (memoryview(b"x"), True),
        (quadrants(), True),
        (Image.open(io.BytesIO(encode(quadrants()))), True),
        (gradient(), True),
        (np.zeros((6, 8, 4)), True),
        (np.zeros((3, 6, 8)), False),
        (np.zeros(7), False),
        (np.zeros((2, 6, 8, 3)), False),
        (np.array([["a"]]), False),
        ("cat.jpg", False),
        (Path("cat.jpg"), False),
        ([gradient()], False),
        (None, False),
    ],
)
def test_what_is_a_picture(value: object, is_one: bool) -> None:
    """Bytes of any kind, Pillow images and arrays of a picture's shape are pictures; paths and lists are none."""
    assert images.is_image(value) is is_one


def test_every_form_of_a_picture_is_read(tmp_path: Path) -> None:
    """Texts, paths, all kinds of bytes and dictionaries of either lead to the same file; pixels stay as they are."""
    data, path = encode(quadrants()), tmp_path / "a.png"
    path.write_bytes(data)
    forms = [data, bytearray(data), memoryview(data), str(path), path]
    forms += [{"bytes": data, "path": "gone"}, {"bytes": bytearray(data)}, {"bytes": None, "path": str(path)}]
    expected = hashlib.sha256(data).hexdigest()
    assert {images.content_hash(images.as_source(form)) for form in forms} == {expected}
    for pixels in (quadrants(), gradient()):
        assert images.as_source(pixels) is pixels


@pytest.mark.parametrize("value", [7, None, [b"x"], {}, {"bytes": None, "path": None}, {"bytes": 7}])
def test_what_is_no_picture_in_any_form(value: object) -> None:
    """Anything else is refused with its type."""
    with pytest.raises(ImageError, match=f"not {type(value).__name__}"):
        images.as_source(value)
