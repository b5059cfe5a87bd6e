"""Pixels of any mode or dtype -> RGB bytes without transparency; the one home of how values are scaled.

Transparency is flattened on white. 16-bit values are divided by 257, the ratio of the two ranges, never clipped.
32-bit integers and floats have no agreed range, so it is read off the values: within 0..1 (floats only) times 255,
within 0..255 as they are, within 0..65535 divided by 257, else stretched linearly from the smallest to the largest
finite value. A large picture is converted block by block, so that it is in memory twice at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BLOCK = 512
"""Side of a block in pixels, a multiple of every factor."""


def flat_rgb(image: Image.Image, factor: int = 1) -> Image.Image:
    """Convert a loaded picture of any mode to RGB, at 1/factor of its size; always a new one, without metadata."""
    value_range = _range_of(image) if _is_of_numbers(image) else None
    width, height = image.size
    if factor == 1 and width * height <= BLOCK * BLOCK:
        return _flat_block(image, value_range)
    made = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for left, top, block in _blocks(image):
        flat = _flat_block(block, value_range)
        made.paste(flat if factor == 1 else flat.reduce(factor), (left // factor, top // factor))
    return made


def _blocks(image: Image.Image) -> Iterator[tuple[int, int, Image.Image]]:
    """Cut a picture into blocks of one size in memory: (left, top, block)."""
    width, height = image.size
    across = min(-(-width // BLOCK), max(1, BLOCK * BLOCK // min(height, BLOCK) // BLOCK)) * BLOCK
    down = max(1, BLOCK * BLOCK // min(width, across) // BLOCK) * BLOCK
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield left, top, image.crop((left, top, min(left + across, width), min(top + down, height)))


def _flat_block(image: Image.Image, value_range: tuple[float, float] | None) -> Image.Image:
    """Convert a picture, or a block of one whose values lie in this range."""
    if value_range is not None:
        values = np.asarray(image)
        scaled = values if values.dtype == np.uint8 else _scaled(values, *value_range)
        return Image.fromarray(scaled).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def _is_of_numbers(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def _range_of(image: Image.Image) -> tuple[float, float]:
    """Return the smallest and the largest finite value of a picture of numbers; (0, 0) where there are none."""
    ranges = [_finite_range(np.asarray(block)) for _, _, block in _blocks(image)]
    known = [pair for pair in ranges if pair is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else (0.0, 0.0)


def fault(array: NDArray[Any]) -> str | None:
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


def image_of_array(array: NDArray[Any]) -> Image.Image:
    """Wrap an array of a checked shape; colour and alpha are scaled apart, as alpha has its own range."""
    if array.ndim == 3 and array.shape[2] in (2, 4):
        colour, alpha = to_bytes(array[:, :, :-1]), to_bytes(array[:, :, -1:])
        array = np.concatenate([colour, alpha], axis=2)
    pixels = np.ascontiguousarray(to_bytes(array))
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale numbers of any dtype to 0..255 by the rule at the top of the file, rounding to the nearest."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    return _scaled(values, *(_finite_range(values) or (0.0, 0.0)))


def _finite_range(values: NDArray[Any]) -> tuple[float, float] | None:
    """Return the smallest and the largest finite value, None where there are none."""
    if values.dtype.kind != "f":
        return (float(values.min()), float(values.max())) if values.size else None
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else None


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale numbers that lie between `low` and `high`, where they are finite."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    numbers = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    if low < 0 or high > 65535:
        numbers = (numbers - low) * 255 / ((high - low) or 1)
    elif high > 255:
        numbers /= 257
    elif high <= 1 and values.dtype.kind == "f":
        numbers *= 255
    return np.rint(numbers).astype(np.uint8)
