"""The journal: rows that have been paid for and are not yet in a part.

Each batch of new rows is appended to a file and flushed to the disk before the next request is made; from time to
time, and at the end, `ingest` folds the journal into one part. A journal whose process died is folded by the next
writer: `orphans` finds it. Reading stops at the first frame that is not whole, so a kill costs at most the batch
that was being written.
"""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

_MAGIC = b"embedstore journal 1\n"
_HEADER = struct.Struct("<QI")


class Journal:
    """A file of record batches, held by one living process.

    Parameters
    ----------
    folder : Path
        The store's ``journal/``.
    name : str, optional
        An existing journal to take over; by default a new one is begun.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        from filelock import FileLock  # who only searches has no journal

        folder.mkdir(exist_ok=True)
        self.name = name or uuid.uuid4().hex
        self.path = folder / f"{self.name}.journal"
        self._lock = FileLock(folder / f"{self.name}.lock")
        self._lock.acquire(timeout=0)
        self.rows = 0

    def append(self, table: pa.Table) -> None:
        """Write rows; when this returns they are on the disk."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        frame = sink.getvalue().to_pybytes()
        with self.path.open("ab") as file:
            if file.tell() == 0:
                file.write(_MAGIC)
            file.write(_HEADER.pack(len(frame), zlib.crc32(frame)) + frame)
            file.flush()
            os.fsync(file.fileno())
        self.rows += len(table)

    def read(self) -> list[pa.Table]:
        """Return the batches that were written whole, in order."""
        return list(_frames(self.path))

    def discard(self) -> None:
        """Delete the journal: its rows are in the table."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the journal; its rows stay for the next writer."""
        self._lock.release()
        if not self.path.exists():
            Path(self._lock.lock_file).unlink(missing_ok=True)


def orphans(folder: Path) -> Iterator[Journal]:
    """Yield the journals whose process is gone, each now held by this one."""
    from filelock import Timeout

    for path in sorted(folder.glob("*.journal")):
        try:
            journal = Journal(folder, path.stem)
        except Timeout:
            continue
        if journal.path.exists():
            yield journal
        else:  # its owner finished between the listing and the lock
            journal.close()


def waiting(folder: Path) -> int:
    """Return the number of rows in all journals, those of running processes included."""
    return sum(len(table) for path in folder.glob("*.journal") for table in _frames(path))


def _frames(path: Path) -> Iterator[pa.Table]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            length, checksum = _HEADER.unpack(header)
            frame = file.read(length)
            if len(frame) < length or zlib.crc32(frame) != checksum:
                return
            with pa.ipc.open_stream(frame) as reader:
                yield reader.read_all()
