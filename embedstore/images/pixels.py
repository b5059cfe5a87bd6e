"""Pixels of any mode, dtype and range -> 8-bit RGB without transparency.

Rules, the same for a file and for a picture in memory:

* Transparency is flattened on white.
* 16-bit values are divided by 257, the ratio of the two ranges, never clipped. 32-bit integers and floats
  have no agreed range, so it is read off the values: within 0..1 (floats only) times 255, within 0..255 as
  they are, within 0..65535 divided by 257, else stretched linearly from the smallest to the largest finite
  value.

Files, sizes and orientation are `reading`'s business.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.errors import ImageError


def check_array(array: NDArray[Any]) -> None:
    """Refuse an array that cannot be a picture.

    Raises
    ------
    ImageError
        Not numbers, or not of shape (height, width) or (height, width, 1 to 4).
    """
    if array.dtype.kind not in "buif":
        raise ImageError(f"an array of dtype {array.dtype} holds no pixels; expected integers or floats")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; the channels come last: array.transpose(1, 2, 0)"
        elif array.ndim == 4:
            hint = "; pass a list of pictures instead of one array: list(array)"
        raise ImageError(
            f"an array of shape {array.shape} is no picture; "
            f"expected (height, width) or (height, width, 1 to 4){hint}"
        )


def flat_rgb(image: Image.Image) -> Image.Image:
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


def image_of_array(array: NDArray[Any]) -> Image.Image:
    """Wrap an array of a checked shape; colour and alpha are scaled apart, as alpha has its own range."""
    if array.ndim == 3 and array.shape[2] in (2, 4):
        colour, alpha = _to_bytes(array[:, :, :-1]), _to_bytes(array[:, :, -1:])
        array = np.concatenate([colour, alpha], axis=2)
    pixels = np.ascontiguousarray(_to_bytes(array))
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)
