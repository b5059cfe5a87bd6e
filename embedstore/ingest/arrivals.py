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
from embedstore.ingest.known import Decision, Known
from embedstore.ingest.reports import Counts
from embedstore.sources import Record
from embedstore.storage import journal, parts
from embedstore.storage.folder import SCHEMA
from embedstore.storage.metadata import Columns
from embedstore.store import EmbedStore
from embedstore.vectors import Vectors

_FREE_ROWS = 1_000
_FOLD_SECONDS = 600.0


@dataclass(slots=True)
class Arrival:
    """A row on its way into the store."""

    decision: Decision
    record: Record
    content_hash: str
    width: int | None
    height: int | None


class Arrivals:
    """What one `add` has written, and what the store holds already; for one thread, but for `known`.

    Parameters
    ----------
    store : EmbedStore
    lenders : sequence of EmbedStore
        Stores whose vectors may be copied.

    Attributes
    ----------
    known : Known
        The store as it was at the last fold.
    columns : Columns
        The metadata columns, those of rows under way included.
    """

    def __init__(self, store: EmbedStore, lenders: Sequence[EmbedStore]) -> None:
        self._store = store
        self._lenders = lenders
        self._journal: journal.Journal | None = None
        self._fresh: dict[str, Vectors] = {}
        self._free: list[tuple[Arrival, Vectors]] = []
        self._folded_at = time.monotonic()
        self.columns = Columns(store.snapshot.schema)
        self._read_store()

    def vector(self, content_hash: str) -> Vectors | None:
        """Return the vector of a picture, shape (dim,), if it is in the store or was written by this add."""
        fresh = self._fresh.get(content_hash)
        return self.known.vector(content_hash) if fresh is None else fresh

    def begin(self) -> None:
        """Have a journal ready, before something is paid for that is to be written to it."""
        if self._journal is None:
            self._journal = journal.Journal(self._store.path / "journal")

    def write(self, rows: Sequence[Arrival], found: Sequence[Vectors]) -> None:
        """Append rows to the journal; when this returns they are on the disk."""
        if not rows:
            return
        self.begin()
        assert self._journal is not None
        column = parts.list_array(np.stack(found))
        self._journal.append(self._table(rows).append_column(parts.embedding_field(), column))

    def remember(self, content_hash: str, vector: Vectors) -> None:
        """Keep a vector that was written, for further records of the same picture."""
        self._fresh[content_hash] = vector

    def write_later(self, row: Arrival, vector: Vectors) -> None:
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
        full = self._journal.rows >= parts.rows_per_part(self._store.space.dim)
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
        with self._store.writing():
            self._store.fold(self._journal)
        self._journal = None
        self._fresh = {}
        self._read_store()

    def _read_store(self) -> None:
        """Learn what the store holds now."""
        self.known = Known(self._store.rows, self._lenders)
        self.columns.stored(self._store.snapshot.schema)
        self._folded_at = time.monotonic()

    def _write_free(self) -> None:
        """Put down rows whose vectors cost nothing."""
        self.write([row for row, _ in self._free], [vector for _, vector in self._free])
        self._free = []

    def _table(self, rows: Sequence[Arrival]) -> pa.Table:
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
        for field in metadata.schema:
            table = table.append_column(field, metadata.column(field.name))
        return table


def recover(store: EmbedStore) -> int:
    """Take in what an `add` that was killed has left in its journal.

    Returns
    -------
    int
        Number of rows that the store has gained.

    Raises
    ------
    StoreLockedError, InputError
        The store cannot be written to, which is better known before anything is paid for.
    """
    with store.writing():
        before = len(store)
        for orphan in journal.orphans(store.path / "journal"):
            store.fold(orphan)
        return len(store) - before


def tally(counts: Counts, decision: Decision, *, needed: bool, lent: bool) -> None:
    """Count a decision; `needed` tells whether it costs an embedding, `lent` whether another store has it."""
    if decision.action in ("unchanged", "updated", "moved", "replaced"):
        setattr(counts, decision.action, getattr(counts, decision.action) + 1)
    if needed:
        counts.embedded += 1
    elif lent:
        counts.reused += 1
    elif decision.action in ("copied", "embedded"):
        counts.copied += 1
