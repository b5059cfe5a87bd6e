"""Rows on their way into a store: into the ledger at once, into a part when enough have gathered.

Knows what the store holds, the rows under way included, and who pays for which picture. Which rows there are to be is
decided by `pipeline`; the ledger's form is `ledger`'s, the commit `changes`'.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from embedstore.errors import StoreLockedError
from embedstore.ingest.deduplication import Decision, KnownRecords
from embedstore.sources import Record
from embedstore.storage import arrow_columns, parts
from embedstore.storage.arrow_columns import EMBEDDING
from embedstore.storage.folder import StoreFolder, own_columns
from embedstore.storage.metadata import Columns
from embedstore.storage.older_versions import OlderPictures
from embedstore.storage.rows import Rows
from embedstore.storage.table import Snapshot
from embedstore.vectors import Vectors
from embedstore.wording import counted

_log = logging.getLogger("embedstore")

_FREE_ROWS = 1_000
"""Rows without a cost that are written to the ledger together."""
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
    """What one `add`, the run of this name, has written, and what the store holds; for one thread, but for `known`.

    `known` is the store as it was at the last fold, `rows` are those of the newest version that was read, `columns` the
    metadata columns, those of rows under way included.
    """

    def __init__(self, folder: StoreFolder, reused: Sequence[Rows], run: str) -> None:
        self._folder, self._reused, self._run = folder, reused, run
        self._ledger = folder.ledger
        self._waiting = 0
        self._full: OSError | None = None
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

    def claim(self, content_hashes: Sequence[str]) -> set[str]:
        """Claim pictures before they are paid for; return those that nobody else has claimed or paid for.

        Raises OSError where the disk is full: nothing may be paid for then.
        """
        if self._full is not None:
            raise self._full
        mine = self._ledger.claim(self._run, content_hashes, self._folder.running.is_alive)
        # Claims go when their rows are in the table. What another process has put there since it was last read looks
        # as if nobody had it, so the table is asked after the claim.
        if mine and self._folder.images.newest_version() != self.rows.snapshot.version:
            self._read(self._folder.images.snapshot())
            stored = {content_hash for content_hash in mine if self.known.origin(content_hash) == "store"}
            self.release(sorted(stored))
            mine -= stored
        return mine

    def release(self, content_hashes: Sequence[str]) -> None:
        """Give back claims on pictures that could not be embedded."""
        if content_hashes:
            self._ledger.release(self._run, content_hashes)

    def elsewhere(self, content_hashes: Sequence[str]) -> dict[str, Vectors | bool]:
        """Return what became of pictures that another process has claimed, by content hash.

        A vector of shape (dim,) that is paid for, True where that process is still at it, False where it has given up.
        """
        owners = self._ledger.owners(content_hashes)
        if any(content_hash not in owners for content_hash in content_hashes):
            self._read(self._folder.images.snapshot())
        paid = self._paid({number for _, number in owners.values() if number is not None})
        found: dict[str, Vectors | bool] = {}
        for content_hash in content_hashes:
            vector = paid.get(content_hash)
            vector = self.vector(content_hash) if vector is None else vector
            owner, number = owners.get(content_hash, ("", None))
            goes_on = number is None and self._folder.running.is_alive(owner)
            found[content_hash] = goes_on if vector is None else vector
        return found

    def _paid(self, numbers: Iterable[int]) -> dict[str, Vectors]:
        """Return the vectors that stand in batches of the ledger, by content hash."""
        found: dict[str, Vectors] = {}
        for batch in self._ledger.paid(list(numbers)) if numbers else ():
            if batch.table is not None:
                vectors = arrow_columns.vectors_of(batch.table.column(EMBEDDING), self._folder.space.dim, "the ledger")
                found.update(zip(batch.table.column("content_hash").to_pylist(), vectors, strict=True))
        return found

    def write(self, rows: Sequence[NewRow], vectors: Sequence[Vectors]) -> None:
        """Write rows to the ledger; when this returns they are on the disk."""
        if rows:
            column = arrow_columns.list_array(np.stack(vectors))
            table = self._table(rows).append_column(arrow_columns.embedding_field(), column)
            try:
                self._ledger.pay(self._run, table)
            except OSError as error:
                if error.errno != errno.ENOSPC or not self._folder.running.give_up_reserve(self._run):
                    raise
                self._full = error
                _log.warning("the disk is full: what is under way is written into the room that was kept for it")
                self._ledger.pay(self._run, table)
            self._waiting += len(rows)

    def remember(self, content_hash: str, vector: Vectors) -> None:
        """Keep a vector that was written, for further records of the same picture."""
        self._fresh[content_hash] = vector

    def write_later(self, row: NewRow, vector: Vectors) -> None:
        """Take a row whose vector cost nothing: many of them go to the ledger at once."""
        if row.width is None:
            row.width, row.height = self.known.size(row.content_hash)
        self._free.append((row, vector))
        if len(self._free) >= _FREE_ROWS:
            self._write_free()
            self.fold_when_due()

    def fold_when_due(self) -> None:
        """Make a part of the rows that wait if there are enough, or they have waited long enough."""
        if not self._waiting:
            return
        full = self._waiting >= parts.rows_per_part(self._folder.space.dim)
        if full or time.monotonic() - self._folded_at > _FOLD_SECONDS:
            try:
                self._fold()
            except StoreLockedError:
                self._folded_at = time.monotonic()  # another process rewrites the store: the rows can wait

    def close(self) -> None:
        """Make a part of what is left; if that fails, leave it to the next writer. Give the claims back."""
        try:
            self._fold()
        except BaseException as error:
            if self._waiting:
                error.add_note(
                    f"{counted(self._waiting, 'row waits', 'rows wait')} in the ledger; the next add takes them in"
                )
            raise
        finally:
            self._ledger.release(self._run)

    def _fold(self) -> None:
        """Turn what waits in the ledger into rows of the store."""
        self._write_free()
        if not self._waiting:
            return
        with self._folder.writing():
            snapshot = self._folder.fold()
        self._waiting = 0
        self._fresh = {}
        self._read(snapshot)

    def _read(self, snapshot: Snapshot) -> None:
        """Learn what the store holds now."""
        self.rows = Rows(snapshot)
        self.known = KnownRecords(self.rows, self._reused, OlderPictures(self._folder.images, self.rows))
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
        table = pa.table(base, schema=own_columns())
        metadata = self.columns.table([row.decision.metadata for row in rows])
        schema = pa.schema([*own_columns(), *metadata.schema])
        return pa.Table.from_arrays([*table.columns, *metadata.columns], schema=schema)


def recover(folder: StoreFolder) -> int:
    """Take in what an `add` that was killed has left in the ledger; return how many rows the store has gained.

    Raises StoreLockedError, InputError or OSError where the store cannot be written to: better known before anything is
    paid.
    """
    with folder.writing() as newest:
        before = newest.rows
        if folder.has_orphans():
            newest = folder.fold()
        folder.catch_up(newest)
        return newest.rows - before
