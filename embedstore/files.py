"""Files whole or not at all: the one way in which a file is replaced; and the file that a uri points at.

What is written, and in which order, is left to whoever writes.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def replace(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Write a file beside and rename it into place, so that readers see the old one or the new, never a part.

    Text is written as UTF-8. What is `durable` must outlast a power cut: the file is synced before it is renamed, and
    its folder after. What can be made again needs neither.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}")
    try:
        with beside.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as lasting as the files, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def holder_of(uri: str) -> str | None:
    """Return the file on this machine that a uri names or points into; None when there is none.

    ``photos.parquet#12`` is a row of a table, ``photos.zip!cat.jpg`` a member of an archive. Either sign may stand in
    a name too: the longest path that is a file counts.
    """
    ends = [place for place, letter in enumerate(uri) if letter in "!#"] + [len(uri)]
    return next((uri[:end] for end in reversed(ends) if os.path.isfile(uri[:end])), None)
