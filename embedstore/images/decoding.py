"""A picture in any form -> one upright RGB picture without transparency, and the hash by which it is known again.

The only module that opens pictures with Pillow, and the one home of what a picture is. Where bytes come from is left
to `sources`, the size that a model wants to its embedder, drawing to `sheets`.

The same rules hold for a file and for a picture in memory. Transparency is flattened on white. 16-bit values are
divided by 257, the ratio of the two ranges, never clipped. 32-bit integers and floats have no agreed range, so it is
read off the values: within 0..1 (floats only) times 255, within 0..255 as they are, within 0..65535 divided by 257,
else stretched linearly from the smallest to the largest finite value.

A file of more than `MAX_PIXELS` pixels is refused before any of them is decoded. Pillow's own limit is a process-wide
setting that warns and refuses for every user of Pillow; it is neither changed nor relied upon.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, features

from embedstore.errors import ImageError

PictureSource: TypeAlias = bytes | Image.Image | NDArray[Any] | os.PathLike[str]
"""What can be read as a picture: a file's bytes or path, a Pillow image, an array."""

MAX_PIXELS = 300_000_000
"""Largest number of pixels that is decoded unless told otherwise; 300 million take 0.9 GB as RGB."""

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
        return _fault(value) is None
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
    channels. Of a Pillow image with several frames the current one is taken. Raises ImageError for what is no picture,
    a damaged one, or one that is too large, and OSError where a path cannot be read.
    """
    content = _content(source)
    rgb = _upright_rgb(_to_image(content, max_pixels))
    digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else _pixel_hash(rgb)
    return Picture(rgb, digest, rgb.width, rgb.height)


def content_hash(source: PictureSource) -> str:
    """Return the hash by which a picture is recognised, 64 hex digits: equal bytes, or equal pixels, have equal hashes.

    For bytes and paths it is the SHA-256 of the whole file, as `sha256sum` prints it. For a picture in memory it is
    the SHA-256 of a prefix that says so, mode, size and pixels of the upright RGB picture that the model sees; so an
    array and a Pillow image of the same pixels are the same picture, and a file is not its pixels.
    """
    content = _content(source)
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return _pixel_hash(_upright_rgb(_to_image(content, MAX_PIXELS)))


def shrunk(source: PictureSource, size: int) -> Image.Image:
    """Decode a picture so that no side is longer than `size` pixels; small pictures are not enlarged.

    A large JPEG is decoded at a fraction of its size at once, so this is several times faster than `read`, and not
    equal to it to the bit: for people to look at, not for models. Raises what `read` raises.
    """
    content = _content(source)
    image = _to_image(content, MAX_PIXELS)
    if isinstance(content, bytes):  # a caller's own Pillow image is not to be changed
        image.draft("RGB", (2 * size, 2 * size))
    rgb = _upright_rgb(image)
    rgb.thumbnail((size, size), Image.Resampling.LANCZOS)
    return rgb


def _content(source: PictureSource) -> bytes | Image.Image | NDArray[Any]:
    """Read a path's whole file; anything else is its own content."""
    return Path(source).read_bytes() if isinstance(source, os.PathLike) else source


def _to_image(content: bytes | Image.Image | NDArray[Any], max_pixels: int) -> Image.Image:
    """Return what `_content` gave as a Pillow image of an allowed size; no pixel of a file is decoded yet."""
    if isinstance(content, bytes):
        return _open_file(content, max_pixels)
    if isinstance(content, Image.Image):
        _check_size(content.size, max_pixels)
        return content
    if not isinstance(content, np.ndarray):
        raise _no_picture(content)
    if (fault := _fault(content)) is not None:
        raise ImageError(fault)
    _check_size((content.shape[1], content.shape[0]), max_pixels)
    return _image_of_array(content)


@functools.cache
def _register_formats() -> None:
    """Register all of Pillow's formats, and HEIF where the package for it is installed."""
    if _HAS_HEIF:
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()


def _open_file(data: bytes, max_pixels: int) -> Image.Image:
    """Find the format of a file and read its header.

    Does what `PIL.Image.open` does, without its bomb check, whose limit and warnings belong to the whole process.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes): there is no picture in it")
    _register_formats()
    prefix, reasons = data[:16], []
    for name in _FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or (accept and not _accepts(accept, prefix)):
            continue
        try:
            image: Image.Image = factory(io.BytesIO(data), "")
        except Exception as error:  # noqa: BLE001  (plugins raise anything on damaged files; told below)
            reasons.append(f"it looks like {name}, but its header cannot be read ({error or type(error).__name__})")
            continue
        _check_size(image.size, max_pixels)
        return image
    raise ImageError("; ".join(reasons) or _what_it_is(data))


def _accepts(accept: Callable[[bytes], bool | str], prefix: bytes) -> bool:
    """Ask a format whether a file that starts so is one of its own; some trip over very short files."""
    try:
        return accept(prefix) is True
    except (struct.error, IndexError):
        return False


def _what_it_is(data: bytes) -> str:
    """Describe bytes that no format accepted, with a way forward where there is one."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in _HEIF_BRANDS:
        return "this is a HEIC/HEIF picture, which Pillow reads only after `pip install pillow-heif`"
    if brand in (b"avif", b"avis"):
        return "this is an AVIF picture, and this Pillow was built without AVIF: install a newer Pillow"
    if data.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the picture itself: run `git lfs pull`"
    start = data.lstrip()[:200].lower()
    what = f"{len(data):,} bytes that start with {data[:12]!r}, which is no picture format that is read here"
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
            f"more than the limit of {max_pixels:,}; shrink it, or raise max_pixels if you trust the file"
        )


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Decode all pixels, turn the picture upright, flatten it and convert it to RGB; `image` keeps its pixels."""
    try:
        image.load()
        method = _UPRIGHT.get(_orientation(image))
        rgb = _flat_rgb(image)
    except Exception as error:  # Pillow's plugins raise anything on damaged files
        raise ImageError(f"the picture is cut short or damaged: {error or type(error).__name__}") from error
    return rgb.transpose(method) if method is not None else rgb


def _orientation(image: Image.Image) -> int:
    """Return EXIF orientation 1 to 8; a damaged EXIF block counts as upright, as it does in every viewer."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1
    return value if isinstance(value, int) else 1


def _flat_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, on white where it is transparent. Always a new picture, without metadata."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_to_bytes(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def _fault(array: NDArray[Any]) -> str | None:
    """Return why an array cannot be a picture; None for numbers of shape (height, width[, 1 to 4])."""
    if array.dtype.kind not in "buif":
        return f"an array of dtype {array.dtype} holds no pixels; expected integers or floats"
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2, 3, 4)):
        return None
    hint = ""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        hint = "; the channels come last: array.transpose(1, 2, 0)"
    elif array.ndim == 4:
        hint = "; pass a list of pictures instead of one array: list(array)"
    return f"an array of shape {array.shape} is no picture; expected (height, width) or (height, width, 1 to 4){hint}"


def _image_of_array(array: NDArray[Any]) -> Image.Image:
    """Wrap an array of a checked shape; colour and alpha are scaled apart, as alpha has its own range."""
    if array.ndim == 3 and array.shape[2] in (2, 4):
        colour, alpha = _to_bytes(array[:, :, :-1]), _to_bytes(array[:, :, -1:])
        array = np.concatenate([colour, alpha], axis=2)
    pixels = np.ascontiguousarray(_to_bytes(array))
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale numbers of any dtype to 0..255 by the rule at the top of the file, rounding to the nearest."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    numbers = np.nan_to_num(numbers, nan=low, posinf=high, neginf=low)
    if low < 0 or high > 65535:
        numbers = (numbers - low) * 255 / ((high - low) or 1)
    elif high > 255:
        numbers /= 257
    elif high <= 1 and values.dtype.kind == "f":
        numbers *= 255
    return np.rint(numbers).astype(np.uint8)


def _pixel_hash(rgb: Image.Image) -> str:
    """Hash an upright RGB picture; the prefix keeps it apart from any file of the same bytes."""
    digest = hashlib.sha256(f"embedstore picture in memory\n{rgb.mode} {rgb.width}x{rgb.height}\n".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()
