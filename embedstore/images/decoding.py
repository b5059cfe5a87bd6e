"""A picture in any form -> one upright RGB picture without transparency, and the hash by which it is known again.

The only module that opens pictures with Pillow, and the one home of what a picture is. Where bytes come from is left
to `sources`, the size that a model wants to its embedder, scaling of values and flattening to `conversion`, drawing to
`sheets`. The same rules hold for a file and for a picture in memory.

A file of more than `MAX_PIXELS` pixels is refused before any of them is decoded, and so is one that takes more memory
than all pictures under way share (`headers`, `turns`). Pillow's own limit is a process-wide setting that warns and
refuses for every user of Pillow; it is neither changed nor relied upon.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import io
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, features

from embedstore.errors import ImageError, spelt
from embedstore.files import open_regular
from embedstore.images import conversion, headers, turns

PictureSource: TypeAlias = bytes | Image.Image | NDArray[Any] | os.PathLike[str]
"""What can be read as a picture: a file's bytes or path, a Pillow image, an array."""

MAX_PIXELS = 300_000_000
"""Largest number of pixels that is decoded unless told otherwise."""

_IN_ONE_GO = 32 << 20  # a larger file on the disk is never in memory whole
_LARGEST_ON_DISK = 1 << 30

_HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *((".heic", ".heif") if _HAS_HEIF else ()),
    *((".avif",) if features.check("avif") else ()),
)
"""File endings that are taken for pictures in a folder: lower case, with the dot."""

# Pillow also opens formats that run other programs (EPS) or have no signature (TGA); pictures need none of them.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "JPEG2000", "MPO", "PPM", "ICO", "QOI")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = [_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)]
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True)
class Picture:
    """A decoded picture: mode RGB, upright, without transparency; its size in pixels; its hash, see `content_hash`."""

    image: Image.Image
    content_hash: str
    width: int
    height: int


def is_image(value: Any) -> bool:
    """Return whether a value is a picture in memory: bytes, a Pillow image, or an array of a picture's shape.

    Bytes are not looked into. A path or a text is none: it may name anything.
    """
    if isinstance(value, np.ndarray):
        return conversion.fault(value) is None
    return isinstance(value, bytes | bytearray | memoryview | Image.Image)


def as_source(value: Any) -> PictureSource:
    """Return a picture as a caller may hold it in a form that `read` takes; nothing is opened.

    A text is a path. A dictionary holds ``bytes`` or a ``path``, as of `datasets` without decoding. Raises ImageError
    for a value of any other type.
    """
    held = value
    if type(value) is dict:
        held = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(held, bytearray | memoryview):
        return bytes(held)
    if isinstance(held, str | os.PathLike):
        return Path(held)
    if isinstance(held, bytes | Image.Image | np.ndarray):
        return held
    raise _no_picture(value)


def read(source: PictureSource, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a picture of at most `max_pixels` and hash it.

    Arrays are (height, width) or (height, width, channels) with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA)
    channels. Of a Pillow image with several frames the current one is taken. Waits for its turn where others are being
    decoded, see `turns`. A file too large for that is decoded at a half, a quarter or an eighth of its size; `width`
    and `height` are those of the file all the same. Raises ImageError for what is no picture, a damaged one, or one
    that is too large even so, and OSError where a path cannot be read.
    """
    if isinstance(source, bytes | os.PathLike):
        with _opened(source) as file:
            digest = _digest(file)
            rgb, (width, height) = _decoded(_open_file(file, max_pixels), file)
        return Picture(rgb, digest, width, height)
    rgb, (width, height) = _decoded(_in_memory(source, max_pixels), None)
    return Picture(rgb, _pixel_hash(rgb), width, height)


def content_hash(source: PictureSource) -> str:
    """Return the hash by which a picture is recognised, 64 hex digits: equal bytes, or equal pixels, have equal hashes.

    For bytes and paths it is the SHA-256 of the whole file, as `sha256sum` prints it. For a picture in memory it is
    the SHA-256 of a prefix that says so, mode, size and pixels of the upright RGB picture that the model sees; so an
    array and a Pillow image of the same pixels are the same picture, and a file is not its pixels.
    """
    if isinstance(source, bytes | os.PathLike):
        with _opened(source) as file:
            return _digest(file)
    return _pixel_hash(_decoded(_in_memory(source, MAX_PIXELS), None)[0])


def file_content(path: str | os.PathLike[str]) -> bytes | Path:
    """Return the bytes of a file that is read best in one go, the path of a larger one, which is read in pieces.

    Raises OSError where it cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _IN_ONE_GO:
            return Path(path)
        turns.hold_file(size)
        data = file.read(_IN_ONE_GO + 1)
        turns.refuse_large(len(data))
        return data


def ending_of(content: bytes) -> str:
    """Return the ending that the name of such a file should have, such as ``.jpg``; nothing where it is no picture."""
    try:
        form = _open_file(io.BytesIO(content), MAX_PIXELS).format or ""
    except ImageError:
        return ""
    return {"": "", "JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}.get(form, f".{form.lower()}")


def shrunk(source: PictureSource, size: int) -> Image.Image:
    """Decode a picture so that no side is longer than `size` pixels; small pictures are not enlarged.

    A large JPEG is decoded at a fraction of its size at once, so this is several times faster than `read`, and not
    equal to it to the bit: for people to look at, not for models. Raises what `read` raises.
    """
    if isinstance(source, bytes | os.PathLike):
        with _opened(source) as file:
            rgb, _ = _decoded(_open_file(file, MAX_PIXELS), file, 2 * size)
    else:
        rgb, _ = _decoded(_in_memory(source, MAX_PIXELS), None)
    rgb.thumbnail((size, size), Image.Resampling.LANCZOS)
    return rgb


@contextlib.contextmanager
def _opened(source: bytes | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file on the disk or in memory. Raises ImageError where one on the disk is changed meanwhile."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    with open_regular(source) as file:
        before = os.fstat(file.fileno())
        if before.st_size > _LARGEST_ON_DISK:
            raise ImageError(f"the file has {before.st_size:,} bytes, more than the limit of {_LARGEST_ON_DISK:,}")
        yield file
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ImageError("the file was changed while it was read; try again")


def _in_memory(content: Image.Image | NDArray[Any], max_pixels: int) -> Image.Image:
    """Return a picture in memory as a Pillow image of an allowed size."""
    if isinstance(content, Image.Image):
        _check_size(content.size, max_pixels)
        return content
    if not isinstance(content, np.ndarray):
        raise _no_picture(content)
    if (reason := conversion.fault(content)) is not None:
        raise ImageError(reason)
    _check_size((content.shape[1], content.shape[0]), max_pixels)
    return conversion.image_of_array(content)


@functools.cache
def _register_formats() -> None:
    """Register all of Pillow's formats, and HEIF where the package for it is installed."""
    if _HAS_HEIF:
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()


def _open_file(file: BinaryIO, max_pixels: int) -> Image.Image:
    """Find the format of a file and read its header.

    Does what `PIL.Image.open` does, without its bomb check, whose limit and warnings belong to the whole process.
    """
    file.seek(0)
    start = file.read(256)
    if not start:
        raise ImageError("the file is empty (0 bytes): there is no picture in it")
    _register_formats()
    reasons = []
    for name in _FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or (accept and not _accepts(accept, start[:16])):
            continue
        headers.check(file, name)
        try:
            image: Image.Image = factory(file, "")
        except Exception as error:  # noqa: BLE001  (plugins raise anything on damaged files; told below)
            reasons.append(f"it looks like {name}, but its header cannot be read ({error or type(error).__name__})")
            continue
        _check_size(image.size, max_pixels)
        return image
    raise ImageError("; ".join(reasons) or _what_it_is(start, file.seek(0, os.SEEK_END)))


def _accepts(accept: Callable[[bytes], bool | str], prefix: bytes) -> bool:
    """Ask a format whether a file that starts so is one of its own; some trip over very short files."""
    try:
        return accept(prefix) is True
    except (struct.error, IndexError):
        return False


def _what_it_is(data: bytes, size: int) -> str:
    """Describe a file by its first bytes, which no format accepted, with a way forward where there is one."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in _HEIF_BRANDS:
        return "this is a HEIC/HEIF picture, which Pillow reads only after `pip install pillow-heif`"
    if brand in (b"avif", b"avis"):
        return "this is an AVIF picture, and this Pillow was built without AVIF: install a newer Pillow"
    if data.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the picture itself: run `git lfs pull`"
    start = data.lstrip()[:200].lower()
    what = f"{size:,} bytes that start with {data[:12]!r}, which is no picture format that is read here"
    if b"<svg" in start or start.startswith((b"%pdf", b"%!ps")):
        return f"found {what}: SVG, PDF and PostScript are drawings; convert it to PNG first"
    return f"found {what} (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and the like are)"


def _no_picture(value: Any) -> ImageError:
    """Return the error for a value of a type that holds no picture."""
    return ImageError(f"expected bytes, a path, a Pillow image or an array, not {type(value).__name__}")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse a picture without pixels or with too many."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"the picture is {width} x {height}: it has no pixels")
    if width * height > max_pixels:
        raise ImageError(
            f"the picture is {width:,} x {height:,} = {width * height:,} pixels, "
            f"more than the limit of {max_pixels:,}; shrink it"
            + spelt(", or raise max_pixels if you trust the file", "")
        )


def _decoded(image: Image.Image, file: BinaryIO | None, side: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Decode all pixels, flatten them to RGB and turn the picture upright; return it and its size before shrinking.

    A picture in memory keeps its pixels; a file's own image may become the result. JPEGs may be decoded smaller, but no
    side shorter than `side`.
    """
    try:
        if file is not None and image.format == "PNG":  # which Pillow would decode for the question
            turned = headers.may_turn(file)
        else:
            turned = _orientation(image) in _UPRIGHT
        width, height = image.size
        plan = headers.decoding(image, file, turned, turns.PIXELS.total)
        with turns.hold_pixels(plan.memory):
            if file is not None and (plan.draft > 1 or side is not None):
                least = (max(1, width // plan.draft), max(1, height // plan.draft))
                image.draft("RGB", least if side is None else (min(side, least[0]), min(side, least[1])))
            image.load()
            method = _UPRIGHT.get(_orientation(image))
            if file is not None and plan.factor == 1 and image.mode == "RGB" and not image.has_transparency_data:
                rgb, image.info = image, {}
            else:
                rgb = conversion.flat_rgb(image, plan.factor)
            if method is not None:
                rgb = rgb.transpose(method)
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise anything on damaged files
        raise ImageError(f"the picture is cut short or damaged: {error or type(error).__name__}") from error
    return rgb, (height, width) if method in _SIDEWAYS else (width, height)


def _orientation(image: Image.Image) -> int:
    """Return EXIF orientation 1 to 8; a damaged EXIF block counts as upright, as it does in every viewer."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1
    return value if isinstance(value, int) else 1


def _digest(file: BinaryIO) -> str:
    """Hash a whole file, piece by piece."""
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _pixel_hash(rgb: Image.Image) -> str:
    """Hash an upright RGB picture; the prefix keeps it apart from any file of the same bytes."""
    digest = hashlib.sha256(f"embedstore picture in memory\n{rgb.mode} {rgb.width}x{rgb.height}\n".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()
