"""A tar, plain or compressed -> its bytes as `tarfile` wants to read them, front to back and within bounds.

A few kilobytes may unpack to terabytes, and a header may claim any length: reading ends with an error where it
unpacks to far more than any pictures do, and where a header asks for a megabyte. What is in a tar is left to `archive`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from typing import Any, BinaryIO

from embedstore.files import open_regular

_FREE = 256 << 20
_RATIO = 100
"""Times its size that an archive may unpack to, once it is past _FREE bytes; pictures hardly shrink at all."""
_PIECE = 1 << 20


class TarBytes(io.RawIOBase):
    """The unpacked bytes of a file, from which a tar is read forward; `is_ended` once a block of zeros was read last.

    Raises OSError where it is no regular file, `tarfile.ReadError` beyond the bounds.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = open_regular(path)
        self._size = os.fstat(self._file.fileno()).st_size
        start = self._file.read(6)
        self._file.seek(0)
        self._unpacked: BinaryIO | Any = self._file
        for magic, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
            if start.startswith(magic):
                self._unpacked = opener(self._file, "rb")
        self._place = 0
        self._last = self._again = b""

    @property
    def is_ended(self) -> bool:
        """Whether the last block read was the mark at the end of a tar, or nothing at all was left."""
        return not self._last.strip(b"\0") and len(self._last) in (0, tarfile.BLOCKSIZE)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True; backward by the last byte only, where the file is compressed."""
        return True

    def tell(self) -> int:
        """Return the place in the unpacked bytes."""
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes, or what is left of them."""
        if not 0 <= size <= _PIECE:
            raise tarfile.ReadError(f"a header asks for {size:,} bytes")
        again, self._again = self._again[:size], self._again[size:]
        data: bytes = again + self._unpacked.read(size - len(again))
        self._place += len(data)
        self._last = data
        if self._unpacked is not self._file and self._place > _FREE and self._place > _RATIO * self._size:
            raise tarfile.ReadError(
                f"it unpacks to more than {_RATIO} times its size of {self._size:,} bytes, as no pictures do; "
                "unpack it yourself if you trust it"
            )
        return data

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place counted from the start."""
        if self._unpacked is self._file:
            self._place = self._unpacked.seek(place, whence)
            return self._place
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("only places counted from the start")
        if place == self._place - 1 and self._last:  # tarfile looks at the last byte of a member again
            self._again = self._last[-1:]
            self._place -= 1
        elif place < self._place:
            raise io.UnsupportedOperation("a compressed tar is read forward")
        while self._place < place and self.read(min(_PIECE, place - self._place)):
            pass
        return self._place

    def close(self) -> None:
        """Close the file."""
        self._unpacked.close()
        self._file.close()
        super().close()
