"""An object in a bucket as a file: seeks and reads -> ranges of bytes.

The end of a Parquet file says where all else is, and is asked for several times: it is fetched once. What will be read
of the rest can be fetched ahead, side by side. Whoever asks the service is left to `bucket`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

_TAIL = 2**16
_GAP = 2**16
"""What lies between two ranges that are fetched as one."""


class Ranged(Protocol):
    """Who returns ranges of bytes, each given by its start and its end."""

    def range(self, name: str, start: int, end: int, size: int) -> bytes:
        """Return one range of an object of `size` bytes."""

    def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Sequence[bytes]:
        """Return several ranges, asked for side by side."""


class RemoteFile(io.RawIOBase):
    """An object as a file that is read; nobody is asked for what was fetched before.

    Parameters
    ----------
    bucket : Ranged
    name : str
    size : int
        Bytes of the object.
    """

    def __init__(self, bucket: Ranged, name: str, size: int) -> None:
        super().__init__()
        self._bucket, self._name, self._size = bucket, name, size
        self._at = 0
        self._held: dict[tuple[int, int], bytes] = {}

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from anywhere."""
        return True

    def tell(self) -> int:
        """Return where the next bytes are read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Say where the next bytes are read."""
        self._at = max({os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset, 0)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, all that are asked for unless the file ends."""
        start = min(self._at, self._size)
        end = self._size if size is None or size < 0 else min(start + size, self._size)
        self._at = end
        if start == end:
            return b""
        for (first, last), data in self._held.items():
            if first <= start and end <= last:
                return data[start - first : end - first]
        tail = max(self._size - _TAIL, 0)
        if start < tail:
            return self._bucket.range(self._name, start, end, self._size)
        held = self._held[tail, self._size] = self._bucket.range(self._name, tail, self._size, self._size)
        return held[start - tail : end - tail]

    def readall(self) -> bytes:
        """Return all bytes that come next."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes; return how many there were."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def fetch_ahead(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch ranges of bytes at once; those that nearly touch as one."""
        joined: list[tuple[int, int]] = []
        for start, end in sorted(ranges):
            if joined and start - joined[-1][1] <= _GAP:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        self._held |= zip(joined, self._bucket.ranges(self._name, joined), strict=True)
