"""Where a record is -> its picture again, for showing it: the way back from a ``uri``.

Only what lies on this machine is read: a file, a row of a table (``photos.parquet#12``), a member of an archive
(``photos.zip!cat.jpg``). URLs and pictures that only were in memory are not to be had.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from embedstore.errors import ImageError, SourceError
from embedstore.images import PictureSource
from embedstore.sources.archive import ENDINGS as ARCHIVES
from embedstore.sources.archive import ArchiveSource
from embedstore.sources.record import Record, Source
from embedstore.sources.table import TableSource
from embedstore.sources.tabular import open_table_file


def pictures_at(uris: Iterable[str]) -> dict[str, PictureSource]:
    """Return the pictures at `uris`, by uri; those that are not to be had are left out.

    A table or archive is read through once, up to the last picture that is wanted of it.
    """
    found: dict[str, PictureSource] = {}
    inside: dict[str, set[str]] = {}
    for uri in uris:
        if os.path.isfile(uri):
            if os.access(uri, os.R_OK):
                found[uri] = Path(uri)
        elif (container := _container(uri)) is not None:
            inside.setdefault(container, set()).add(uri)
    for container, wanted in inside.items():
        found |= _pick(container, wanted)
    return found


def _container(uri: str) -> str | None:
    """Return the table or archive on the disk that a uri points into."""
    for mark in ("#", "!"):
        start = uri.rfind(mark)
        while start > 0:
            if os.path.isfile(uri[:start]):
                return uri[:start]
            start = uri.rfind(mark, 0, start)
    return None


def _pick(container: str, wanted: set[str]) -> dict[str, PictureSource]:
    found: dict[str, PictureSource] = {}
    try:
        source: Source
        if container.lower().endswith(ARCHIVES):
            source = ArchiveSource(container)
        else:
            source = TableSource(open_table_file(container))
        for record in source:
            if record.uri in wanted:
                wanted = wanted - {record.uri}
                found |= _loaded(record)
                if not wanted:
                    break
    except (SourceError, OSError):
        return found  # the table or archive is there no more, or is another one now
    return found


def _loaded(record: Record) -> dict[str, PictureSource]:
    try:
        return {record.uri: record.load()}
    except (ImageError, OSError):
        return {}
