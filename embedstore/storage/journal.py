"""Journals of stores that an earlier version has filled: read once, so that no paid row is lost.

A journal is a file of frames: a length, a CRC-32 and an Arrow stream each. Its rows go into the ledger. What cannot be
read stays under another name.
"""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

from embedstore.storage.arrow_columns import pa
from embedstore.storage.ledger import Ledger
from embedstore.storage.table import DeltaFolder

_MAGIC = b"embedstore journal 1\n"
_HEADER = struct.Struct("<QI")
_log = logging.getLogger("embedstore")


def take_over(folder: Path, images: DeltaFolder, ledger: Ledger) -> None:
    """Move the rows of all journals into the ledger; the caller holds the store's lock.

    A journal that is in the table already, as its commit says, is deleted. Each batch that is whole is taken, also
    behind a damaged one; a file with anything else in it is kept as ``NAME.journal.damaged``.
    """
    for path in sorted(folder.glob("*.journal")):
        if images.applied(path.stem) < 0:
            batches, whole = _read(path.read_bytes())
            for batch in batches:
                ledger.pay(path.stem, batch)
            if not whole:
                aside = path.rename(path.with_suffix(".journal.damaged"))
                _log.warning("%s cannot be read to its end: %d batches were taken; see %s", path, len(batches), aside)
                continue
        path.unlink()
    for path in folder.glob("*.lock"):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _read(content: bytes) -> tuple[list[pa.Table], bool]:
    """Return the batches that are whole, and whether there is nothing else."""
    if not content.startswith(_MAGIC):
        return [], False
    batches, start, whole = [], len(_MAGIC), True
    while start + _HEADER.size <= len(content):
        length, checksum = _HEADER.unpack_from(content, start)
        frame = content[start + _HEADER.size : start + _HEADER.size + length]
        start += _HEADER.size + length
        if len(frame) == length and zlib.crc32(frame) == checksum:
            with pa.ipc.open_stream(frame) as reader:
                batches.append(reader.read_all())
        else:
            whole = False
    return batches, whole and start == len(content)
