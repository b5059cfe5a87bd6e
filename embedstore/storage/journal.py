"""The journal: rows that have been paid for and are not yet in a part.

Each batch of new rows is appended to a file and flushed to the disk before further requests are made; when a part's
worth has gathered, and at the end, it is folded into one part and deleted. So a million rows that arrive 64 at a
time become 25 parts, with one flush for each batch and one commit for each part; parts that are smaller, from many
short runs, are merged by the table. A journal whose process died is folded by the next writer: `orphans` finds it.

Readers do not look into journals: a row is there when its commit is. `EmbedStore.info` says how many wait.

A frame is its length, a CRC-32 and an Arrow stream. Reading stops at the first frame that is not whole, which can
only be the last: a write that fails is taken back.
"""

from __future__ import annotations

import os
import struct
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from embedstore.files import sync_folder

_MAGIC = b"embedstore journal 1\n"
_HEADER = struct.Struct("<QI")
_PATIENCE = 10.0
_LOCK_AGE = 3600.0


class Journal:
    """A file of record batches, held by one living process.

    Parameters
    ----------
    folder : Path
        The store's ``journal/``.
    name : str, optional
        An existing journal to take over; by default a new one is begun.

    Raises
    ------
    filelock.Timeout
        The process that holds it is alive.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        from filelock import FileLock  # not needed to search

        folder.mkdir(exist_ok=True)
        self.name = name or uuid.uuid4().hex
        self.path = folder / f"{self.name}.journal"
        self._lock = FileLock(folder / f"{self.name}.lock")
        self._lock.acquire(timeout=0 if name else _PATIENCE)
        self._file: IO[bytes] | None = None
        self.rows = 0
        if name is None:
            self._opened()

    def append(self, table: pa.Table) -> None:
        """Write rows; when this returns they are on the disk."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        frame = sink.getvalue()
        file = self._opened()
        before = file.tell()
        try:
            _write_all(file, _HEADER.pack(frame.size, zlib.crc32(frame)))
            _write_all(file, frame)
            os.fsync(file.fileno())
        except BaseException:
            # A torn frame would hide those after it, should the caller go on.
            file.truncate(before)
            file.seek(before)
            raise
        self.rows += len(table)

    def read(self) -> list[pa.Table]:
        """Return the batches that were written whole, in order."""
        return list(_frames(self.path))

    def discard(self) -> None:
        """Delete the journal: its rows are in the table."""
        self._close_file()
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the journal; its rows stay for the next writer."""
        self._close_file()
        self._lock.release()
        if not self.path.exists():
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def _opened(self) -> IO[bytes]:
        """Return the file, opened when the first rows come; unbuffered, so that nothing is written later."""
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)
            if self._file.tell() == 0:
                _write_all(self._file, _MAGIC)
                sync_folder(self.path.parent)
        return self._file

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def orphans(folder: Path) -> Iterator[Journal]:
    """Yield the journals whose process is gone, each now held by this one."""
    from filelock import Timeout  # as above

    for path in sorted(folder.glob("*.journal")):
        try:
            journal = Journal(folder, path.stem)
        except Timeout:
            continue
        if journal.path.exists():
            yield journal
        else:  # its owner finished between the listing and the lock
            journal.close()
    _clear_locks(folder)


def waiting(folder: Path) -> int:
    """Return the number of rows in all journals, those of running processes included."""
    return sum(len(table) for path in folder.glob("*.journal") for table in _frames(path))


def content_hashes(folder: Path) -> set[str]:
    """Return the content hashes of all rows in journals."""
    tables = (table for path in folder.glob("*.journal") for table in _frames(path))
    return {value for table in tables for value in table.column("content_hash").to_pylist() if value}


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


def _clear_locks(folder: Path) -> None:
    """Delete the lock files of processes that were killed between deleting their journal and its lock."""
    from filelock import Timeout  # as above

    for path in folder.glob("*.lock"):
        try:
            # A young one may belong to a process that is about to take it.
            if time.time() - path.stat().st_mtime > _LOCK_AGE:
                Journal(folder, path.stem).close()
        except (Timeout, FileNotFoundError):
            continue


def _write_all(file: IO[bytes], data: Any) -> None:
    """Write all bytes; one call may write fewer."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest) :]
