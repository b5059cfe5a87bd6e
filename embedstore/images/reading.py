"""A picture in any form -> one upright RGB picture and its hash.

The only module that opens pictures with Pillow. Where bytes come from is the business of `sources`; resizing
to a model's input is the business of each embedder; `sheets` draws.

A file of more than `MAX_PIXELS` pixels is refused before any of them is decoded. Pillow's own limit is a
process-wide setting that warns and refuses for every user of Pillow; it is neither changed nor relied upon.
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
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from embedstore.errors import ImageError
from embedstore.images.pixels import check_array, flat_rgb, image_of_array

PictureSource: TypeAlias = bytes | Image.Image | NDArray[Any] | os.PathLike[str]
"""What can be read as a picture: a file's bytes or path, a Pillow image, an array."""

MAX_PIXELS = 300_000_000
"""Largest number of pixels that is decoded unless told otherwise; 300 million take 0.9 GB as RGB."""

_HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
_HAS_AVIF = bool(features.check("avif"))

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *((".heic", ".heif") if _HAS_HEIF else ()),
    *((".avif",) if _HAS_AVIF else ()),
)
"""File endings that are taken for pictures in a folder: lower case, with the dot."""

# Pillow also opens formats that run other programs (EPS) or have no signature (TGA); pictures need none of
# them.
_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "AVIF",
    "HEIF",
    "JPEG2000",
    "MPO",
    "PPM",
    "ICO",
    "QOI",
)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes
    ----------
    image : PIL.Image.Image
        Mode RGB, upright, without transparency.
    content_hash : str
        64 hex digits, see `content_hash`.
    width, height : int
        Pixels of the upright picture.
    """

    image: Image.Image
    content_hash: str
    width: int
    height: int


def read(source: PictureSource, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a picture and hash it.

    Parameters
    ----------
    source : bytes, path, PIL.Image.Image or ndarray
        A whole file, or pixels. Arrays are (height, width) or (height, width, channels) with 1 (grey), 2
        (grey, alpha), 3 (RGB) or 4 (RGBA) channels. Of a Pillow image with several frames the current one is
        taken.
    max_pixels : int
        Refuse larger pictures.

    Raises
    ------
    ImageError
        Not a picture, a damaged one, or one that is too large.
    OSError
        The path cannot be read.
    """
    if isinstance(source, os.PathLike):
        source = _file_bytes(source)
    if isinstance(source, bytes):
        image, digest = decode(source, max_pixels), hashlib.sha256(source).hexdigest()
    else:
        image = _from_memory(source, max_pixels)
        digest = _pixel_hash(image)
    return Picture(image, digest, image.width, image.height)


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Turn the bytes of a picture file into an upright RGB picture without transparency.

    Raises
    ------
    ImageError
        The bytes are no picture, are damaged or cut short, or hold more than `max_pixels` pixels.
    """
    return _upright_rgb(_open(data, max_pixels))


def content_hash(source: PictureSource) -> str:
    """Return the hash by which a picture is recognised: equal bytes, or equal pixels, have equal hashes.

    Returns
    -------
    str
        64 hex digits. For bytes and paths the SHA-256 of the whole file, as `sha256sum` prints it. For a
        picture in memory the SHA-256 of a prefix that says so, mode, size and pixels of the upright RGB
        picture that the model sees; so an array and a Pillow image of the same pixels are the same picture,
        and a file is not its pixels.
    """
    if isinstance(source, os.PathLike):
        source = _file_bytes(source)
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    return _pixel_hash(_from_memory(source, MAX_PIXELS))


@functools.cache
def _plugins() -> None:
    """Register all of Pillow's formats, and HEIF where the package for it is installed."""
    if _HAS_HEIF:
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()


def shrunk(source: PictureSource, size: int) -> Image.Image:
    """Decode a picture so that no side is longer than `size` pixels; small pictures are not enlarged.

    A large JPEG is decoded at a fraction of its size at once, so this is several times faster than `read`,
    and not equal to it to the bit: for people to look at, not for models.

    Raises
    ------
    ImageError, OSError
        As `read`.
    """
    if isinstance(source, os.PathLike):
        source = _file_bytes(source)
    if isinstance(source, bytes):
        opened = _open(source, MAX_PIXELS)
        opened.draft("RGB", (2 * size, 2 * size))
        image = _upright_rgb(opened)
    else:
        image = _from_memory(source, MAX_PIXELS)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return image


def _file_bytes(path: os.PathLike[str]) -> bytes:
    """Read a whole file."""
    with open(path, "rb") as file:
        return file.read()


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Find the format and read the header; no pixel is decoded yet.

    Does what `PIL.Image.open` does, without its bomb check, whose limit and warnings belong to the whole
    process.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes): there is no picture in it")
    _plugins()
    prefix, reasons = data[:16], []
    for name in _FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or (accept and not _accepts(accept, prefix)):
            continue
        try:
            image: Image.Image = factory(io.BytesIO(data), "")
        except Exception as error:  # noqa: BLE001  (plugins raise anything on damaged files; told below)
            reasons.append(
                f"it looks like {name}, but its header cannot be read ({error or type(error).__name__})"
            )
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
    found = f"{len(data):,} bytes that start with {data[:12]!r}, which is no picture format that is read here"
    if b"<svg" in start or start.startswith((b"%pdf", b"%!ps")):
        return f"found {found}: SVG, PDF and PostScript are drawings; convert it to PNG first"
    return f"found {found} (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and the like are)"


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
    """Decode all pixels, turn the picture upright, flatten it and convert it to RGB."""
    try:
        image.load()
        method = _UPRIGHT.get(_orientation(image))
        rgb = flat_rgb(image)
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise anything on damaged files
        raise ImageError(f"the picture is cut short or damaged: {error or type(error).__name__}") from error
    return rgb.transpose(method) if method is not None else rgb


def _orientation(image: Image.Image) -> int:
    """Return EXIF orientation 1 to 8; a damaged EXIF block counts as upright, as it does in every viewer."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1
    return value if isinstance(value, int) else 1


def _from_memory(source: Image.Image | NDArray[Any], max_pixels: int) -> Image.Image:
    """Turn a picture in memory into an upright RGB one; the caller's object keeps its pixels."""
    if isinstance(source, Image.Image):
        _check_size(source.size, max_pixels)
        return _upright_rgb(source)
    if not isinstance(source, np.ndarray):
        raise ImageError(f"expected bytes, a path, a Pillow image or an array, not {type(source).__name__}")
    check_array(source)
    _check_size((source.shape[1], source.shape[0]), max_pixels)
    return _upright_rgb(image_of_array(source))


def _pixel_hash(rgb: Image.Image) -> str:
    """Hash an upright RGB picture; the prefix keeps it apart from any file of the same bytes."""
    digest = hashlib.sha256(f"embedstore picture in memory\n{rgb.mode} {rgb.width}x{rgb.height}\n".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()
