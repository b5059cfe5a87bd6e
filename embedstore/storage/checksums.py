"""Checksums of a part: every byte of its file is covered by an xxh3 that stands in its footer.

`Summing` is the file that a part is written through: it takes the sums as the bytes go by, of each row group's block of
vectors and of all else in the row group, and seals the footer with a sum of itself. `damages` reads a file again and
names what does not fit. A part so proves itself, without the log. What a part is, and when it is checked, is left to
`parts` and `changes`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import xxhash

LAYOUT_KEY = b"embedstore.layout"
SEAL_KEY = b"embedstore.footer"
UNSEALED = "xxh3:" + "0" * 16
"""What the footer holds in place of its own sum while that is taken."""
_MARK = SEAL_KEY + b"\x18" + bytes([len(UNSEALED)])  # Thrift: a text of so many bytes follows
_MAGIC = b"PAR1"
_TAIL = 8
_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Sums:
    """One row group: its vectors, `size` bytes from byte `offset`, and the byte where it ends, with both checksums."""

    offset: int
    size: int
    end: int
    vectors: str
    rest: str


class Summing:
    """A file open for writing that takes the checksums of what passes.

    Parameters
    ----------
    file : binary file
        Empty, open for writing.
    """

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self._block = (0, 0)
        self._vectors, self._rest = xxhash.xxh3_64(), xxhash.xxh3_64()
        self._footer: bytearray | None = None

    def write(self, data: Any) -> int:
        """Write bytes; those of the footer wait for its seal."""
        view = memoryview(data).cast("B")
        if self._footer is not None:
            self._footer += view
            return len(view)
        start, end = (min(max(place - self._at, 0), len(view)) for place in self._block)
        self._vectors.update(view[start:end])
        for piece in (view[:start], view[end:]):
            self._rest.update(piece)
        self._file.write(view)
        self._at += len(view)
        return len(view)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._at + len(self._footer or b"")

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is whole."""

    def close(self) -> None:
        """Do nothing: whoever opened the file closes it."""

    def begin(self, offset: int, size: int) -> None:
        """Say where the vectors of the next row group will stand."""
        self._block = (offset, offset + size)

    def end(self) -> Sums:
        """Return the sums of what was written since the last row group ended."""
        start, end = self._block
        sums = Sums(start, end - start, self._at, self._vectors.hexdigest(), self._rest.hexdigest())
        self._vectors, self._rest = xxhash.xxh3_64(), xxhash.xxh3_64()
        return sums

    def begin_footer(self) -> None:
        """Say that all that comes is the footer, with `UNSEALED` under `SEAL_KEY` as the last of its metadata."""
        self._footer = bytearray()

    def seal(self) -> None:
        """Write the footer with its sum."""
        footer, self._footer = self._footer or bytearray(), None
        place = _seal_place(footer)
        footer[place : place + len(UNSEALED)] = _sum_of(footer, place).encode()
        self.write(footer)


def layout(dim: int, groups: list[Sums]) -> bytes:
    """Return what stands in the footer of the layout of a part, as JSON."""
    blocks = [[group.offset, group.size // (4 * dim)] for group in groups]
    sums = [[group.end, group.vectors, group.rest] for group in groups]
    return json.dumps({"version": 2, "dim": dim, "blocks": blocks, "sums": sums}).encode()


def layout_version(said: bytes | None) -> int:
    """Return the version of the layout that a footer speaks of; 0 where it says nothing that can be read."""
    try:
        content = json.loads(said or b"{}")
        known = isinstance(content["dim"], int) and all(len(block) == 2 for block in content["blocks"])
        known &= content["version"] == 1 or (content["version"] == 2 and len(content["sums"]) == len(content["blocks"]))
    except (ValueError, KeyError, TypeError):
        return 0
    return int(content["version"]) if known else 0


def seal_fits(file: BinaryIO) -> bool | None:
    """Tell whether the footer of a file fits the sum that it carries; None where it carries none. Raises OSError."""
    return _fits(_footer(file))


def damages(file: BinaryIO, said: bytes) -> Iterator[tuple[int | None, str]]:
    """Read a whole part whose seal fits, and yield what else does not fit its checksum.

    That is the number of a row group, or None for what belongs to none, and what is damaged, in words.

    Parameters
    ----------
    file : binary file
    said : bytes
        The layout in its footer.
    """
    content = json.loads(said)
    footer = _footer(file)
    at = 0
    groups = zip(content["blocks"], content["sums"], strict=True)
    for number, ((offset, rows), (end, vectors, rest)) in enumerate(groups):
        block, others = xxhash.xxh3_64(), xxhash.xxh3_64()
        block_end = offset + rows * content["dim"] * 4
        for digest, start, stop in ((others, at, offset), (block, offset, block_end), (others, block_end, end)):
            _add(digest, file, start, stop)
        if block.hexdigest() != vectors:
            yield number, "the vectors are damaged (checksum)"
        if others.hexdigest() != rest:
            yield number, "the other columns are damaged (checksum)"
        at = end
    size = file.seek(0, os.SEEK_END)
    if at == 0:
        file.seek(0)
        if file.read(len(_MAGIC)) != _MAGIC:
            yield None, "its first bytes are damaged"
        at = len(_MAGIC)
    if at + len(footer) != size:
        yield None, f"the file is {size} bytes long, where its row groups and its footer are {at + len(footer)}"


def _add(digest: Any, file: BinaryIO, start: int, stop: int) -> None:
    file.seek(start)
    while start < stop:
        piece = file.read(min(_CHUNK, stop - start))
        if not piece:
            return
        digest.update(piece)
        start += len(piece)


def _footer(file: BinaryIO) -> bytes:
    """Return the footer, with its length and the magic at the end; what stands there instead when it is damaged."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _TAIL, 0))
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(size - _TAIL - length, 0))
    return file.read()


def _fits(footer: bytes) -> bool | None:
    place = _seal_place(footer)
    return footer[place : place + len(UNSEALED)] == _sum_of(footer, place).encode() if place >= 0 else None


def _seal_place(footer: bytes | bytearray) -> int:
    """Return where the sum stands in a footer; -1 for a footer without."""
    # The metadata come behind all that a column's content could put there.
    place = footer.rfind(_MARK)
    return place if place < 0 else place + len(_MARK)


def _sum_of(footer: bytes | bytearray, place: int) -> str:
    digest = xxhash.xxh3_64(footer[:place])
    digest.update(UNSEALED.encode())
    digest.update(footer[place + len(UNSEALED) :])
    return f"xxh3:{digest.hexdigest()}"
