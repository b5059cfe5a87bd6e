"""Rows on their way into a store: into the journal at once, into a part when enough have gathered.

Knows what the store holds, the rows under way included. Which rows there are to be is decided by `pipeline`; the
journal's form is `journal`'s, the commit `changes`'.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from embedstore.errors import StoreLockedError
from embedstore.ingest.deduplication import Decision, KnownRecords
from embedstore.sources import Record
from embedstore.storage import journal, parts
from embedstore.storage.folder import SCHEMA, StoreFolder
from embedstore.storage.metadata import Columns
from embedstore.storage.rows import Rows
from embedstore.storage.table import Snapshot
from embedstore.vectors import Vectors

_FREE_ROWS = 1_000
"""Rows without a cost that are written to the journal together."""
_FOLD_SECONDS = 600.0
"""After so long rows become visible to readers, however few they are."""


@dataclass(slots=True)
class NewRow:
    """A row on its way into the store."""

    decision: Decision
    record: Record
    content_hash: str
    width: int | None
    height: int | None


class RowWriter:
    """What one `add` has written, and what the store holds already; for one thread, but for `known`.

    `known` is the store as it was at the last fold, `rows` are those of the newest version that was read, `columns` the
    metadata columns, those of rows under way included.
    """

    def __init__(self, folder: StoreFolder, reused: Sequence[Rows]) -> None:
        self._folder, self._reused = folder, reused
        self._journal: journal.Journal | None = None
        self._fresh: dict[str, Vectors] = {}
        self._free: list[tuple[NewRow, Vectors]] = []
        self._folded_at = time.monotonic()
        snapshot = folder.images.snapshot()
        self.columns = Columns(snapshot.schema)
        self._read(snapshot)

    def vector(self, content_hash: str) -> Vectors | None:
        """Return the vector of a picture, shape (dim,), if it is in the store or was written by this add."""
        fresh = self._fresh.get(content_hash)
        return self.known.vector(content_hash) if fresh is None else fresh

    def begin(self) -> journal.Journal:
        """Have a journal ready, before something is paid for that is to be written to it."""
        if self._journal is None:
            self._journal = journal.Journal(self._folder.journal)
        return self._journal

    def write(self, rows: Sequence[NewRow], vectors: Sequence[Vectors]) -> None:
        """Append rows to the journal; when this returns they are on the disk."""
        if rows:
            column = parts.list_array(np.stack(vectors))
            self.begin().append(self._table(rows).append_column(parts.embedding_field(), column))

    def remember(self, content_hash: str, vector: Vectors) -> None:
        """Keep a vector that was written, for further records of the same picture."""
        self._fresh[content_hash] = vector

    def write_later(self, row: NewRow, vector: Vectors) -> None:
        """Take a row whose vector cost nothing: many of them go to the journal at once."""
        if row.width is None:
            row.width, row.height = self.known.size(row.content_hash)
        self._free.append((row, vector))
        if len(self._free) >= _FREE_ROWS:
            self._write_free()
            self.fold_when_due()

    def fold_when_due(self) -> None:
        """Fold the journal if it has grown to a part, or has waited long enough."""
        if self._journal is None:
            return
        full = self._journal.rows >= parts.rows_per_part(self._folder.space.dim)
        if full or time.monotonic() - self._folded_at > _FOLD_SECONDS:
            try:
                self._fold()
            except StoreLockedError:
                self._folded_at = time.monotonic()  # another process rewrites the store: the journal can wait

    def close(self) -> None:
        """Fold what is left; if that fails, leave the journal for the next writer."""
        try:
            self._fold()
        except BaseException as error:
            if self._journal is not None:
                error.add_note(f"{self._journal.rows:,} rows wait in the journal; the next add takes them in")
                self._journal.close()
            raise

    def _fold(self) -> None:
        """Turn the journal into rows of the store."""
        self._write_free()
        if self._journal is None:
            return
        with self._folder.writing():
            snapshot = self._folder.fold(self._journal)
        self._journal = None
        self._fresh = {}
        self._read(snapshot)

    def _read(self, snapshot: Snapshot) -> None:
        """Learn what the store holds now."""
        self.rows = Rows(snapshot)
        self.known = KnownRecords(self.rows, self._reused)
        self.columns.stored(snapshot.schema)
        self._folded_at = time.monotonic()

    def _write_free(self) -> None:
        """Put down rows whose vectors cost nothing."""
        self.write([row for row, _ in self._free], [vector for _, vector in self._free])
        self._free = []

    def _table(self, rows: Sequence[NewRow]) -> pa.Table:
        """Return rows as a table without vectors."""
        base = {
            "id": [row.decision.id for row in rows],
            "uri": [row.record.uri for row in rows],
            "content_hash": [row.content_hash for row in rows],
            "width": [row.width for row in rows],
            "height": [row.height for row in rows],
            "added_at": [datetime.now(UTC)] * len(rows),
        }
        table = pa.table(base, schema=SCHEMA)
        metadata = self.columns.table([row.decision.metadata for row in rows])
        schema = pa.schema([*SCHEMA, *metadata.schema])
        return pa.Table.from_arrays([*table.columns, *metadata.columns], schema=schema)


def recover(folder: StoreFolder) -> int:
    """Take in what an `add` that was killed has left in its journal; return how many rows the store has gained.

    Raises StoreLockedError or InputError where the store cannot be written to: better known before anything is paid.
    """
    with folder.writing() as newest:
        before = newest.rows
        for orphan in journal.orphans(folder.journal):
            newest = folder.fold(orphan)
        return newest.rows - before
