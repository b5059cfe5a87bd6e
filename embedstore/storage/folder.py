"""The store's folder: its rows at one version, and every change to them.

`StoreFolder` knows what lies where, holds the lock while something is rewritten, and moves on to the new version
afterwards. It asks nothing of a model: questions are `store`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.errors import InputError, StoreLockedError
from embedstore.storage import changes, journal
from embedstore.storage.manifest import Manifest
from embedstore.storage.rows import Rows
from embedstore.storage.table import DeltaFolder, Snapshot
from embedstore.vectors import Mask, Vectors

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("content_hash", pa.string()),
        pa.field("width", pa.int64()),
        pa.field("height", pa.int64()),
        pa.field("added_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""The columns that every store has, besides ``embedding``."""

LOCK_TIMEOUT = 60.0
"""Seconds to wait for another process that writes."""


class StoreFolder:
    """The folder of a store, at one version of its rows.

    Attributes
    ----------
    path : Path
    space : Space
        The embedding space of all its vectors.
    id : str
        32 hex digits, drawn at creation.
    rows : Rows
        The rows of the version that is read.
    """

    def __init__(self, path: Path, about: Manifest, version: int | None) -> None:
        self.path = path
        self.space = about.space
        self.id = about.store_id
        self.created_at = about.created_at
        self._pinned = version is not None
        self._images = self.table("images")
        self.rows = Rows(self._images.snapshot(version))

    @staticmethod
    def lay_out(path: Path, about: Manifest) -> None:
        """Make the folder of an empty store."""
        path.mkdir(parents=True, exist_ok=True)
        for name in ("index", "classifiers"):
            (path / name).mkdir()
        DeltaFolder(path / "images", about.space.dim, path / "index" / "images.json").create(SCHEMA)
        about.write(path)

    def table(self, name: str) -> DeltaFolder:
        """Return one of the folder's tables: ``images`` or ``queries``."""
        return DeltaFolder(self.path / name, self.space.dim, self.path / "index" / f"{name}.json")

    @property
    def version(self) -> int:
        """The version of the rows that this object reads."""
        return self.snapshot.version

    @property
    def columns(self) -> list[str]:
        """Names of the columns of a row, without the embedding."""
        return self.rows.columns

    @property
    def snapshot(self) -> Snapshot:
        """The version that this object reads, with its parts."""
        return self.rows.snapshot

    def __len__(self) -> int:
        return len(self.rows)

    def refresh(self) -> None:
        """Move on to the newest version, for rows that another process has added."""
        if not self._pinned and self._images.newest_version() != self.version:
            self._read(self._images.snapshot())

    def _read(self, snapshot: Snapshot) -> None:
        """Read this version from now on."""
        if snapshot.version != self.version:
            self.rows = Rows(snapshot)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock, on the newest version.

        Raises
        ------
        StoreLockedError
            Another process holds it for longer than `LOCK_TIMEOUT`.
        InputError
            This object was opened at an older version.
        """
        from filelock import FileLock, Timeout

        if self._pinned:
            raise InputError(
                f"this store was opened to read version {self.version}; open it without a version"
            )
        try:
            with FileLock(self.path / ".lock", timeout=LOCK_TIMEOUT):
                self.refresh()
                yield
        except Timeout as error:
            raise StoreLockedError(
                f"another process is writing to {self.path}; wait for it, or end it and try again"
            ) from error

    def fold(self, waiting: journal.Journal) -> None:
        """Take the rows of a journal into the table; the caller holds `writing`."""
        self._read(changes.fold(self._images, waiting))

    def upsert(self, rows: pa.Table, vectors: Vectors, *, replaces: bool) -> None:
        """Add rows with their vectors in one commit; the caller holds `writing`. See `changes.upsert`."""
        self._read(changes.upsert(self._images, rows, vectors, replaces=replaces))

    def remove(self, ids: Sequence[str] | None = None, *, where: Any = None) -> int:
        """Remove records by id or by a filter; older versions keep them until `vacuum`.

        Returns
        -------
        int
            Number of rows removed.

        Raises
        ------
        InputError
            Neither or both are given, or an id is not in the store.
        """
        if (ids is None) == (where is None):
            raise InputError("say which records to remove, either by ids or by where='...'")
        with self.writing():
            leaving = self.mask(where) if ids is None else None
            if leaving is None:
                leaving = np.zeros(len(self), dtype=bool)
                leaving[self.rows.positions(list(ids or ()))] = True
            self._read(changes.remove(self._images, self.snapshot, leaving))
        return int(leaving.sum())

    def compact(self) -> int:
        """Merge small parts into large ones, and lay out anew what another program has written.

        Returns
        -------
        int
            Number of parts that are left.
        """
        with self.writing():
            self._read(changes.compact(self._images, self.snapshot))
        return len(self.snapshot.parts)

    def versions(self) -> list[dict[str, Any]]:
        """Return the versions, newest first, as dictionaries of version, timestamp and operation."""
        return self._images.versions()

    def vacuum(self, keep_hours: int = 168, *, dry_run: bool = False) -> list[str]:
        """Delete files that only versions older than `keep_hours` hours need; return their names."""
        with self.writing():
            return self._images.vacuum(keep_hours, dry_run)

    def to_table(self, columns: Sequence[str] | None = None, where: Any = None) -> pa.Table:
        """Return rows as an Arrow table.

        Parameters
        ----------
        columns : sequence of str, optional
            Default: all but the embedding, which is returned when named.
        where : str or pyarrow.compute.Expression, optional
            Which rows; see `filters.parse_where`.

        Returns
        -------
        pyarrow.Table
            Rows in the order of `scores`.
        """
        table = self.rows.with_embeddings(self.columns if columns is None else list(columns))
        mask = self.mask(where)
        return table if mask is None else table.filter(pa.array(mask))

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """Return the vectors of records by id, float32 of shape (len(ids), dim).

        Raises
        ------
        InputError
            An id is not in the store.
        """
        return self.rows.vectors(self.rows.positions(ids))

    def mask(self, where: Any) -> Mask | None:
        """Return which rows `where` keeps, bool of shape (n_rows,), or None for all.

        Raises
        ------
        FilterError
            It does not parse, or names no column.
        """
        if where is None:
            return None
        from embedstore.filters import parse_where  # not needed to search everything

        parsed = parse_where(where, self.columns)
        return None if parsed is None else parsed.mask(self.rows.metadata(list(parsed.columns)))
