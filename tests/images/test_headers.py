"""What a picture takes is known before it is decoded, and what would not fit is decoded smaller or refused."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_pictures import encode, quadrants

from embedstore import images
from embedstore.errors import ImageError
from embedstore.images import headers, turns

BESIDE = headers._TABLES + headers._BLOCK_BYTES * 512 * 512

MEASURE = """
import os, sys
import numpy as np
from pathlib import Path
from PIL import Image
from embedstore import images
from embedstore.images import headers

def child(work):
    made = os.fork()
    if made == 0:
        work()
        os._exit(0)
    _, status, usage = os.wait4(made, 0)
    assert status == 0
    return usage.ru_maxrss * 1024

def said(path):
    plan = headers.decoding

    def tell(*given):
        found = plan(*given)
        print(path.name, taken, found.memory, flush=True)
        return found

    headers.decoding = tell
    images.read(path.read_bytes())

images.read(np.zeros((4, 4), np.uint16))
Image.init()
for path in sorted(Path(sys.argv[1]).iterdir()):
    taken = child(lambda: images.read(path.read_bytes())) - child(lambda: None)
    child(lambda: said(path))
"""


def all_kinds() -> dict[str, tuple[Image.Image, str, dict[str, object]]]:
    rgba = noise((1600, 1200), "RGBA")
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    few = grey.point(lambda value: value // 16).convert("P")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * np.uint16(257))
    exif = Image.Exif()
    exif[0x0112] = 6
    quick = {"compress_level": 1}
    kinds: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "png": (rgb, "PNG", quick),
        "png-rgba": (rgba, "PNG", quick),
        "png-grey": (grey, "PNG", quick),
        "png-16": (deep, "PNG", quick),
        "png-turned": (rgb, "PNG", {"exif": exif, **quick}),
        "png-palette": (few, "PNG", {"transparency": 3, **quick}),
        "jpeg": (rgb, "JPEG", {}),
        "jpeg-turned": (rgb, "JPEG", {"exif": exif}),
        "jpeg-cmyk": (rgb.convert("CMYK"), "JPEG", {}),
        "jpeg-progressive": (rgb, "JPEG", {"progressive": True, "subsampling": 0}),
        "webp": (rgb, "WEBP", {"method": 0}),
        "webp-lossless": (rgba, "WEBP", {"lossless": True, "method": 0}),
        "gif": (few, "GIF", {}),
        "bmp": (rgb, "BMP", {}),
        "tiff": (rgb, "TIFF", {}),
        "tiff-lzw": (rgba, "TIFF", {"compression": "tiff_lzw"}),
        "tiff-float": (grey.convert("F"), "TIFF", {}),
        "jpeg2000": (rgba, "JPEG2000", {}),
        "ppm": (rgb, "PPM", {}),
    }
    Image.init()
    if "AVIF" in Image.SAVE:
        kinds["avif"] = (rgba, "AVIF", {"speed": 10, "subsampling": "4:4:4"})
    return kinds


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured the way of Linux")
def test_no_format_takes_more_memory_than_was_said(tmp_path: Path) -> None:
    """For each format and mode the peak of a process that decodes it is at most what its header said."""
    for name, (image, kind, options) in all_kinds().items():
        (tmp_path / name).write_bytes(encode(image, kind, **options))
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, env=exact, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {name: (int(taken), int(said)) for name, taken, said in map(str.split, done.stdout.splitlines())}
    print(done.stdout)  # noqa: T201
    assert len(found) >= 19
    assert {name: sizes for name, sizes in found.items() if sizes[0] > sizes[1]} == {}
    assert found["png"][0] > 1600 * 1200 * 3  # it was measured
    # Said far too high, it would refuse what fits.
    assert {name: sizes for name, sizes in found.items() if sizes[1] - BESIDE > 3 * sizes[0]} == {}


def budget(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    monkeypatch.setattr(turns, "PIXELS", turns.Budget(total))


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    small = np.random.default_rng(1).integers(0, 256, (8, 8, len(mode)), dtype=np.uint8).squeeze()
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("PNG", "RGBA"), ("PNG", "L")])
def test_what_does_not_fit_whole_is_decoded_smaller(monkeypatch: pytest.MonkeyPatch, kind: str, mode: str) -> None:
    """The picture is a fraction of the whole one and shows the same; its size and hash are those of the file."""
    data = encode(noise((1600, 1200), mode), kind)
    whole = images.read(data)
    stored = 1600 * 1200 * {"RGB": 4, "RGBA": 4, "L": 1}[mode]
    room = {"JPEG": stored // 2, "PNG": stored + 1600 * 1200 * 2}[kind]
    budget(monkeypatch, BESIDE + room)
    small = images.read(data)
    assert (small.width, small.height, small.content_hash) == (1600, 1200, whole.content_hash)
    assert small.image.width < whole.image.width == 1600
    factor = 1600 // small.image.width
    assert factor in (2, 4, 8)
    difference = np.subtract(small.image, whole.image.reduce(factor), dtype=float)
    assert np.abs(difference).mean() < 1.5


def test_what_fits_at_no_size_is_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG is decoded whole before it can be shrunk: the error says how large it is, what there is, and the way on."""
    data = encode(noise((1600, 1200)))
    budget(monkeypatch, BESIDE + 1600 * 1200 * 4)
    assert images.read(data).image.size == (1600, 1200)
    budget(monkeypatch, BESIDE + 1600 * 1200 * 4 - 1)
    with pytest.raises(ImageError, match=r"1,600 x 1,200 pixels \(PNG RGB\).*shrink it"):
        images.read(data)


def test_orientation_is_kept_where_a_picture_is_decoded_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sideways JPEG that does not fit whole is upright, and so is the size that is stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(noise((1600, 800)), "JPEG", exif=exif)
    budget(monkeypatch, BESIDE + 1600 * 800)
    picture = images.read(data)
    assert (picture.width, picture.height) == (800, 1600)
    assert picture.image.size == (200, 400)


def test_large_pictures_are_converted_block_by_block_to_the_same_pixels() -> None:
    """RGBA, grey, 16-bit and float pictures of several blocks are what they are without blocks."""
    rgba = noise((1200, 1000), "RGBA")
    found = np.asarray(images.read(encode(rgba)).image).astype(float)
    colour, alpha = np.asarray(rgba)[:, :, :3].astype(float), np.asarray(rgba)[:, :, 3:] / 255
    assert np.abs(found - (colour * alpha + 255 * (1 - alpha))).max() <= 0.5 + 1e-9
    values = np.arange(1200 * 1000, dtype=np.int64).reshape(1000, 1200) % 65536
    picture = images.read(encode(Image.fromarray(values.astype(np.uint16))))
    np.testing.assert_array_equal(np.asarray(picture.image)[:, :, 0], np.rint(values / 257))
    numbers = (values - 5000).astype(np.float32)
    found = np.asarray(images.read(encode(Image.fromarray(numbers), "TIFF")).image)[:, :, 2].astype(float)
    assert np.abs(found - (numbers + 5000) * 255 / 65535).max() <= 0.5 + 1e-3


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_start(width: int, height: int, colour: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))


def icon(inner: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


BOMBS = {
    "jpeg-padding": (b"\xff\xd8" + b"\xff" * 3_000_000, "more than 10,000 blocks"),
    "jpeg-remarks": (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 1_000_000, "more than 10,000 blocks"),
    "png-chunks": (png_start(9, 9, 2) + chunk(b"teSt", b"") * 500_000, "more than 10,000 blocks"),
    "gif-remarks": (
        b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + b"!\xfe" + (b"\xff" + b"x" * 255) * 40_000 + b"\0",
        "more than 10,000 blocks",
    ),
    "icon-png": (icon(png_start(12_000, 12_000, 6)), "no icon's size"),
    "icon-bmp": (icon(struct.pack("<IiiHHIIiiII", 40, 9_000, 18_000, 1, 32, 0, 0, 0, 0, 0, 0)), "no icon's size"),
}


@pytest.mark.parametrize(("data", "message"), BOMBS.values(), ids=BOMBS)
def test_headers_that_would_take_minutes_or_gigabytes(data: bytes, message: str) -> None:
    """They are refused within seconds, with what is wrong."""
    started = time.monotonic()
    with pytest.raises(ImageError, match=message):
        images.read(data)
    assert time.monotonic() - started < 5


def test_an_icon_of_an_icons_size_is_read() -> None:
    """Icons with a PNG inside are pictures as before."""
    assert images.read(icon(encode(Image.new("RGBA", (16, 16), "red")))).image.getpixel((3, 3)) == (255, 0, 0)


def test_compressed_text_of_a_png_counts() -> None:
    """A PNG whose remarks unpack to a thousand times their size is given the room for them."""
    plain = encode(quadrants())
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(900_000)))
    loaded = plain[:33] + text * 3 + plain[33:]
    costs = []
    for data in (plain, loaded):
        file = io.BytesIO(data)
        costs.append(headers.decoding(Image.open(file), file, False, turns.PIXELS.total).memory)
    assert costs[1] - costs[0] == 64 << 20
    assert images.read(loaded).image.size == (40, 20)


def test_a_tile_larger_than_its_picture_counts() -> None:
    """A TIFF of 16 x 16 pixels in a tile of 30,000 x 30,000 is refused, as a tile is decoded whole."""
    sides = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 200, 325: 100}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sides.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(sides)) + tags + bytes(4)
    with pytest.raises(ImageError, match=r"16 x 16 pixels \(TIFF L\): decoding it takes 3\.6 GB"):
        images.read(data.ljust(200, b"\0") + zlib.compress(bytes(30_000)))


def test_a_large_file_on_the_disk_is_read_in_pieces(tmp_path: Path) -> None:
    """A file beyond what is read in one go is left on the disk, has the same hash and picture, and may pass 100 MB."""
    path = tmp_path / "large.jpg"
    data = encode(quadrants(), "JPEG")
    path.write_bytes(data + bytes(120 << 20))
    assert images.file_content(path) == path
    picture = images.read(path)
    assert picture.content_hash == images.content_hash(path)
    assert picture.image.tobytes() == images.read(data).image.tobytes()


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hash would not be that of the picture that was decoded."""
    path = tmp_path / "a.png"
    path.write_bytes(encode(quadrants()))
    check = headers.check

    def grow(file: io.BufferedReader, form: str) -> None:
        with path.open("ab") as more:
            more.write(b"more")
        check(file, form)

    monkeypatch.setattr(headers, "check", grow)
    with pytest.raises(ImageError, match="changed while it was read"):
        images.read(path)
