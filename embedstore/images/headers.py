"""The header of a picture's file -> what decoding it will take in memory, and at which size it fits.

Nothing is decoded here. A picture that would not fit beside the rest of the process is decoded at a half, a quarter or
an eighth of its size: a JPEG by its decoder, others while they are converted. What fits is always taken whole, so that
its vector is that of the whole picture. Waiting for the memory is left to `turns`, decoding to `decoding`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from embedstore.errors import ImageError
from embedstore.images.conversion import BLOCK

_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
"""What Pillow takes for a pixel; 4 in all other modes, RGB too."""

_DECODER = {"GIF": 4, "WEBP": 13, "AVIF": 16, "HEIF": 16, "JPEG2000": 24, "BMP": 6, "DIB": 6, "PPM": 8, "QOI": 8}
"""What a format's decoder takes for a pixel beside that, as measured; JPEG, PNG and TIFF are looked at more closely."""

_READ_WHOLE = ("WEBP", "AVIF", "HEIF", "TIFF", "JPEG2000")
"""Formats whose decoders make copies of the whole file."""

_SCALES = (1, 2, 4, 8)
_TABLES = 4 << 20  # of decoders
_BLOCK_BYTES = 40  # for each pixel of the block that is being converted
_TEXT_BYTES = 64 << 20  # Pillow unpacks so much compressed text of a PNG at most
_ICON_PIXELS = 1 << 20
_MOST_BLOCKS = 10_000  # a few dozen are usual


@dataclass(frozen=True)
class Decoding:
    """How a picture is decoded: a JPEG at 1/draft of its size, converted at 1/factor of that; bytes that it takes."""

    draft: int
    factor: int
    memory: int


def check(file: BinaryIO, form: str) -> None:
    """Raise ImageError for a file that would be costly before Pillow has told its size."""
    file.seek(0)
    if form == "ICO":
        _check_icon(file)
    elif form == "JPEG":
        _jpeg_frame(file)
    elif form == "PNG":
        _png_chunks(file)
    elif form == "GIF":
        _check_animation(file)
    file.seek(0)


def may_turn(file: BinaryIO) -> bool:
    """Return whether a PNG has anything that may hold an orientation; Pillow decodes it for that question."""
    return bool(_png_chunks(file) & {b"eXIf", b"tEXt", b"zTXt", b"iTXt"})


def decoding(image: Image.Image, file: BinaryIO | None, turned: bool, most: int) -> Decoding:
    """Say how to decode a picture in at most this many bytes.

    `image` has been opened and not loaded; `file` is None for a picture in memory. `turned` is whether it will be
    rotated or mirrored. Raises ImageError where a file does not fit at any size; a picture in memory is decoded all
    the same, as its pixels are there already.
    """
    pixels = image.width * image.height
    form = image.format or ""
    beside = _TABLES + _BLOCK_BYTES * min(pixels, BLOCK * BLOCK)
    beside += _decoder(image, file) if file is not None else 0
    stored = pixels * _BYTES_PER_PIXEL.get(image.mode, 4)
    plain = image.mode == "RGB" and not image.has_transparency_data and file is not None
    for scale in _SCALES:
        if form in ("JPEG", "MPO"):
            taken = stored // scale**2
            made = 4 * pixels // scale**2 * ((not plain) + turned)
        else:
            taken = stored
            made = 4 * pixels // scale**2 * ((not plain or scale > 1) + turned)
        if (memory := beside + taken + made) <= most:
            return Decoding(scale, 1, memory) if form in ("JPEG", "MPO") else Decoding(1, scale, memory)
    if file is None:
        return Decoding(1, 1, most)
    raise ImageError(
        f"the picture is {image.width:,} x {image.height:,} pixels ({form} {image.mode}): decoding it takes "
        f"{memory / 1e9:.1f} GB, and all pictures under way share {most / 1e9:.1f} GB; shrink it, or save it as a "
        "plain JPEG, which can be decoded at a fraction of its size"
    )


def _decoder(image: Image.Image, file: BinaryIO) -> int:
    """Return the bytes that the decoder takes beside the picture that it makes."""
    form, pixels = image.format or "", image.width * image.height
    taken = _DECODER.get(form, 0) * pixels
    if form in _READ_WHOLE:
        taken += 2 * file.seek(0, os.SEEK_END)
    if form == "TIFF":
        taken += _tiff_strip(image)
    elif form in ("JPEG", "MPO") and _is_kept_whole(file):
        taken += 2 * len(image.getbands()) * pixels
    elif form == "PNG":
        taken += _TEXT_BYTES * bool(_png_chunks(file) & {b"zTXt", b"iTXt"})
        taken += 8 * pixels * (getattr(image, "n_frames", 1) > 1)
    return taken


def _tiff_strip(image: Image.Image) -> int:
    """Return the bytes of the strip or tile that a TIFF is decoded by; a tile may be larger than the picture."""
    tags = getattr(image, "tag_v2", {})
    try:
        samples, bits = int(tags.get(277, 1)), max(map(int, tags.get(258, (8,))))
        width, height = int(tags.get(322, 0)), int(tags.get(323, 0))
        if not (width and height):
            width, height = image.width, min(image.height, int(tags.get(278, image.height)))
    except (TypeError, ValueError) as error:
        raise ImageError(f"the header of the TIFF file has no sizes that can be used ({error})") from error
    return width * height * max(4, samples * bits // 8)


def _is_kept_whole(file: BinaryIO) -> bool:
    """Return whether a JPEG comes in several scans, so that its decoder keeps all of it: 2 bytes a pixel and band."""
    progressive, bands, bands_of_first_scan = _jpeg_frame(file)
    return progressive or bands_of_first_scan < bands


def _jpeg_frame(file: BinaryIO) -> tuple[bool, int, int]:
    """Return whether a JPEG is progressive, its bands, and those of its first scan."""
    file.seek(2)
    progressive, bands = False, 0
    for _ in range(_MOST_BLOCKS):
        marker = file.read(2)
        if len(marker) < 2 or marker[0] != 0xFF:
            return True, bands, 0  # damaged, for Pillow to tell
        if marker[1] in (0x00, 0xFF):
            file.seek(marker[1] and -1, os.SEEK_CUR)
            continue
        body = file.read(max(0, int.from_bytes(file.read(2)) - 2))
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC) and len(body) > 5:
            progressive, bands = marker[1] & 3 == 2, body[5]
        if marker[1] == 0xDA:
            return progressive, bands, body[0] if body else 0
    raise _too_many_blocks("JPEG")


def _png_chunks(file: BinaryIO) -> set[bytes]:
    """Return the kinds of chunks that a PNG has."""
    most = _MOST_BLOCKS + file.seek(0, os.SEEK_END) // 512
    kinds: set[bytes] = set()
    file.seek(8)
    for _ in range(most):
        head = file.read(8)
        if len(head) < 8:
            return kinds
        kinds.add(head[4:])
        file.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)
    raise _too_many_blocks("PNG")


def _check_animation(file: BinaryIO) -> None:
    """Refuse a GIF with a long header, as Pillow gathers its remarks in a time that grows with the square of it."""
    head = file.read(13)
    if len(head) == 13 and head[10] & 0x80:
        file.seek(3 << ((head[10] & 7) + 1), os.SEEK_CUR)
    left = _MOST_BLOCKS
    while file.read(1) == b"!":
        file.seek(1, os.SEEK_CUR)
        while (length := file.read(1)) not in (b"", b"\0") and left:
            file.seek(length[0], os.SEEK_CUR)
            left -= 1
        left -= 1
        if left <= 0:
            raise _too_many_blocks("GIF")


def _too_many_blocks(form: str) -> ImageError:
    return ImageError(f"the header of the {form} file is cut into more than {_MOST_BLOCKS:,} blocks; save it anew")


def _check_icon(file: BinaryIO) -> None:
    """Refuse an icon with a picture inside that is not of an icon's size, as Pillow decodes it to open the file."""
    number = int.from_bytes(file.read(6)[4:], "little")
    entries = [entry for _ in range(number) if len(entry := file.read(16)) == 16]
    for entry in entries:
        file.seek(int.from_bytes(entry[12:], "little"))
        head = file.read(24)
        if len(head) < 24:
            continue
        sizes = head[16:24] if head.startswith(b"\x89PNG") else head[4:12]
        width, height = struct.unpack(">II" if head.startswith(b"\x89PNG") else "<ii", sizes)
        if abs(width * height) > _ICON_PIXELS:
            raise ImageError(f"the icon holds a picture of {width:,} x {height:,} pixels, which is no icon's size")
