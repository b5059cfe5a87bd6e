"""From a picture's pixels, or a text's words, to a unit vector in one space: the stand-in's "models".

A vector's first components say how much of each named colour there is, the others are noise seeded by the
content. So every distinct picture and text has a vector of its own, the same on every machine and in every run,
while "a red car" is nearer to red pictures than to blue ones. Nothing here was learned from data.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

DIM = 768
"""Components of a vector, as of the real models."""

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (30, 60, 210),
    "yellow": (240, 220, 40),
    "orange": (245, 140, 20),
    "purple": (130, 40, 150),
    "pink": (250, 150, 190),
    "brown": (120, 75, 35),
    "cyan": (60, 210, 220),
}
"""The colours that texts and pictures share, by name, as RGB from 0 to 255."""

_NOISE = 0.2
_MAX_PIXELS = 4096
_SYNONYMS = {"gray": "grey", "violet": "purple", "turquoise": "cyan", "dark": "black", "bright": "white"}
_AXIS = {name: axis for axis, name in enumerate(COLOURS)}
_PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)


def decode_pixels(image: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP file as the stand-in sees it: RGB, uint8 of shape (height, width, 3).

    ValueError where the bytes are no picture of these formats, or a broken one.
    """
    from PIL import Image  # a user of the stand-in for texts only needs no Pillow

    try:
        with Image.open(io.BytesIO(image), formats=["JPEG", "PNG", "WEBP"]) as opened:
            return np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"not a JPEG, PNG or WebP picture: {error}") from error


def content_of(pixels: NDArray[np.uint8]) -> str:
    """Return the name under which the stand-in counts a picture: a SHA-256 of its size and pixels, in hex."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def image_vector(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embed a picture, uint8 of shape (height, width, 3); return a unit vector, float32 of shape (768,)."""
    flat = pixels.reshape(-1, 3)
    flat = flat[:: max(1, len(flat) // _MAX_PIXELS)].astype(np.float32)
    distances = ((flat[:, None, :] - _PALETTE[None]) ** 2).sum(axis=2)
    shares = np.bincount(distances.argmin(axis=1), minlength=len(COLOURS))
    return _blend(shares.astype(np.float64), content_of(pixels))


def text_vector(text: str) -> NDArray[np.float32]:
    """Embed a text; words that name a colour decide, all the others only make it distinct. Returns as `image_vector`.

    Examples
    --------
    >>> red = image_vector(np.full((8, 8, 3), (220, 30, 30), np.uint8))
    >>> bool(text_vector("a red car") @ red > text_vector("a blue car") @ red)
    True
    """
    shares = np.zeros(len(COLOURS))
    for word in re.findall(r"[a-z]+", text.lower()):
        name = _SYNONYMS.get(word, word)
        if name in _AXIS:
            shares[_AXIS[name]] += 1
    return _blend(shares, hashlib.sha256(text.encode()).hexdigest())


def _blend(shares: NDArray[np.float64], content: str) -> NDArray[np.float32]:
    """Join colour shares and noise of a fixed length into a unit vector."""
    vector = np.random.default_rng(int(content[:16], 16)).standard_normal(DIM)
    vector[: len(shares)] = 0
    vector *= _NOISE / np.linalg.norm(vector)
    if shares.any():
        vector[: len(shares)] = shares / np.linalg.norm(shares)
    return (vector / np.linalg.norm(vector)).astype(np.float32)
