"""Pictures in memory -> records named by what they show."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from embedstore.errors import ImageError
from embedstore.images import content_hash
from embedstore.sources.record import Record, Source


class MemorySource(Source):
    """Pillow images, arrays and the bytes of files.

    The key is ``memory:<content hash>``; a picture that comes again has ``#2`` and so on behind it, so two
    equal pictures are two records.

    Parameters
    ----------
    items : sequence
        What `images.read` takes, but for paths.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        super().__init__()
        self._items = list(items)

    def describe(self) -> str:
        """Return the number of pictures."""
        return f"{len(self._items):,} pictures in memory"

    def count(self) -> int:
        """Return the number of pictures."""
        return len(self._items)

    def __iter__(self) -> Iterator[Record]:
        seen: Counter[str] = Counter()
        for number, item in enumerate(self._items):
            try:
                digest = content_hash(bytes(item) if isinstance(item, (bytearray, memoryview)) else item)
            except ImageError as error:
                self._fail(f"memory: item {number}", str(error))
                continue
            seen[digest] += 1
            key = f"memory:{digest}" + (f"#{seen[digest]}" if seen[digest] > 1 else "")
            yield Record(key, key, functools.partial(_give, item))


def _give(item: Any) -> Any:
    """Return a picture that is there already."""
    return bytes(item) if isinstance(item, (bytearray, memoryview)) else item


def is_picture(item: Any) -> bool:
    """Return whether an item is a picture in memory: bytes, a numeric array of 2 or 3 axes, or a Pillow image."""
    if isinstance(item, np.ndarray):
        return item.ndim != 4
    return isinstance(item, (bytes, bytearray, memoryview)) or _is_pillow(item)


def _is_pillow(item: Any) -> bool:
    """Return whether this is a Pillow image, or one of a class derived from it, without importing Pillow."""
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(item).__mro__)
