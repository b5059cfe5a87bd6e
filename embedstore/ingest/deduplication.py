"""Have we got this already? The one home of that rule, and of what an incoming record means for the store.

Turns a record and its content hash into a decision: nothing to do, take a vector that is here, or embed. Pictures
are the same when their content hashes are, whatever they are called; records are the same when their uri is, or the id
that the user gave them. Pictures in memory have no place that lasts: one that is in the store already from memory is
the same record wherever it stands now.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from embedstore.files import IN_MEMORY, holder_of, is_in_memory
from embedstore.ingest.reports import Counts, Origin
from embedstore.sources import Failure, Record
from embedstore.storage.folder import own_columns
from embedstore.storage.metadata import Columns, equal
from embedstore.storage.older_versions import OlderPictures
from embedstore.storage.rows import Rows
from embedstore.vectors import Vectors

_NAMED = 16
"""Hex digits of its hash by which a picture in memory is named, see `sources.record.named_in_memory`."""

Action = Literal["unchanged", "updated", "moved", "copied", "replaced", "embedded"]
"""What becomes of a record. ``unchanged``: nothing. ``updated``: same picture, other metadata or another id. ``moved``:
same picture, and where it was there is nothing any more; or the user's id says that it is the same. ``copied``: a
further record of a known picture. ``replaced``: another picture at a known place, or of a known id. ``embedded``: a new
record of a new picture."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a record, its id, and the row's metadata after the change."""

    action: Action
    id: str
    metadata: dict[str, Any]


class KnownRecords:
    """What a store holds already, and whose vectors may be taken besides. Threads may share one.

    These are the rows of other stores of its space, `reused`, and then what only older versions of the store hold,
    `older`, which is asked last: to find out costs reading.
    """

    def __init__(self, rows: Rows, reused: Sequence[Rows] = (), older: OlderPictures | None = None) -> None:
        self._rows, self._holders, self._older = rows, [rows, *reused], older
        self._of_uri, self._of_id, self._of_hash = map(rows.lookup, ("uri", "id", "content_hash"))
        self._of_hashes = [holder.lookup("content_hash") for holder in self._holders]
        self._column = functools.cache(lambda name: rows.metadata([name]).column(0))
        self._claimed: set[int] = set()
        self._perhaps_gone: dict[tuple[str | None, str], Iterator[int]] = {}

    def holds(self, content_hash: str) -> bool:
        """Tell whether this picture has a vector in the store, in one to reuse or in an older version."""
        return self.origin(content_hash) is not None

    def origin(self, content_hash: str) -> Origin | None:
        """Return where the vector of a picture is to be had, or None."""
        if content_hash in self._of_hash:
            return "store"
        if any(content_hash in lookup for lookup in self._of_hashes):
            return "reused"
        return "older" if self._older is not None and content_hash in self._older else None

    def vector(self, content_hash: str) -> Vectors | None:
        """Return the vector of a picture, shape (dim,), or None."""
        vectors = (rows.vector_where("content_hash", content_hash) for rows in self._holders)
        found = next((vector for vector in vectors if vector is not None), None)
        return self._older.vector(content_hash) if found is None and self._older is not None else found

    def size(self, content_hash: str) -> tuple[int | None, int | None]:
        """Return (width, height) of a known picture, in pixels, upright; None where that is not known."""
        for rows, lookup in zip(self._holders, self._of_hashes, strict=True):
            if (position := lookup.first(content_hash)) is not None:
                width, height = (column[position].as_py() for column in rows.metadata(["width", "height"]).columns)
                return width, height
        return (None, None) if self._older is None else self._older.size(content_hash)

    def decide(
        self, record: Record, content_hash: str, metadata: Mapping[str, Any], taken: Container[str] = ()
    ) -> Decision:
        """Say what a record of a picture means for the store; `metadata` as `metadata.Columns.fit` returns it.

        `taken` are the ids of rows that earlier records of the same source have.
        """
        given = dict(metadata)
        position = self._place(record, taken)
        if position is not None:
            self._claimed.add(position)
            identity = record.id or self._value("id", position)
            before = self._metadata(position)
            if self._value("content_hash", position) != content_hash:
                return Decision("replaced", identity, before | given)
            if self._value("uri", position) != record.uri:
                return Decision("moved", identity, before | given)
            same = identity == self._value("id", position)
            same &= all(equal(before.get(name), value) for name, value in given.items())
            return Decision("unchanged" if same else "updated", identity, before | given)
        old = None if record.id is not None else self._abandoned(record, content_hash, taken)
        if old is not None:
            self._claimed.add(old)
            return Decision("moved", self._value("id", old), self._metadata(old) | given)
        action: Action = "copied" if self.holds(content_hash) else "embedded"
        return Decision(action, record.id or self._fresh_id(record, taken), given)

    def _place(self, record: Record, taken: Container[str]) -> int | None:
        """Find the row of a record: by the user's id, else by its uri.

        A picture in memory may stand where another stood when its table was added before: its row is taken already.
        """
        position = None if record.id is None else self._of_id.first(record.id)
        if position is None:
            position = self._of_uri.first(record.uri)
            if position is not None and is_in_memory(record.uri) and self._value("id", position) in taken:
                return None
        return position

    def _abandoned(self, record: Record, content_hash: str, taken: Container[str]) -> int | None:
        """Find a row of this picture that the record takes over: its file was moved, or its place in memory is another.

        Each row is looked at once: a file that is there now is not moved while its source is being read.
        """
        if content_hash not in self._of_hash:
            return None
        name = next((record.uri[: len(scheme) + _NAMED] for scheme in IN_MEMORY if record.uri.startswith(scheme)), None)
        for position in self._perhaps_gone.setdefault((name, content_hash), self._of_hash.positions(content_hash)):
            if position in self._claimed:
                continue
            uri = self._value("uri", position) or ""
            if name is None and _is_gone(uri):
                return position
            if name is not None and uri.startswith(name) and self._value("id", position) not in taken:
                return position
        return None

    def _fresh_id(self, record: Record, taken: Container[str]) -> str:
        key = record.key
        while (identity := record_id(key)) in self._of_id or identity in taken:
            key += "\n"  # its place was taken over by a record that has moved away since
        return identity

    def _metadata(self, position: int) -> dict[str, Any]:
        names = [name for name in self._rows.columns if name not in own_columns().names]
        return {name: self._value(name, position) for name in names}

    def _value(self, column: str, position: int) -> Any:
        return self._column(column)[position].as_py()


class Intake:
    """Goes through the records of a source: decides on each place once, and counts what meets no decision.

    `seen` are the uris of the records that were decided on.
    """

    def __init__(self, counts: Counts, columns: Columns) -> None:
        self._counts, self._columns = counts, columns
        self.seen: set[str] = set()
        self._taken: set[str] = set()

    def decide(self, record: Record, content_hash: str | Failure, known: KnownRecords) -> Decision | None:
        """Return what a record means, or None for one that failed or was here before under this uri.

        Raises InputError for metadata that no column can hold, as `Columns.fit`.
        """
        self._counts.found += 1
        if isinstance(content_hash, Failure):
            self._counts.failures.append(content_hash)
            return None
        if record.uri in self.seen:
            self._counts.unchanged += 1
            return None
        if record.id is not None and record.id in self._taken:
            why = f"its id {record.id!r} stands earlier in the same source; ids are unique"
            self._counts.failures.append(Failure(record.uri, why))
            return None
        self.seen.add(record.uri)
        decision = known.decide(record, content_hash, self._columns.fit(record.metadata, record.uri), self._taken)
        if record.id is not None or is_in_memory(record.uri):
            self._taken.add(decision.id)
        return decision


def _is_gone(uri: str) -> bool:
    """Tell whether a record's file is not there any more; what lies in an archive, a table or the net is not asked."""
    return os.path.isabs(uri) and not os.path.lexists(uri) and holder_of(uri) is None


def record_id(key: str) -> str:
    """Return the id of a record, 32 hex digits of the SHA-256 of what makes it the same record tomorrow."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]
