"""Have we got this already? The one home of that rule, and of what an incoming record means for the store.

Turns a record and its content hash into a decision: nothing to do, take a vector that is here, or embed. Pictures
are the same when their content hashes are, whatever they are called; records are the same when their uri is.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from embedstore.files import holder_of
from embedstore.ingest.reports import Counts, Origin
from embedstore.sources import Failure, Record
from embedstore.storage.folder import SCHEMA
from embedstore.storage.metadata import Columns, equal
from embedstore.storage.older_versions import OlderPictures
from embedstore.storage.rows import Rows
from embedstore.vectors import Vectors

Action = Literal["unchanged", "updated", "moved", "copied", "replaced", "embedded"]
"""What becomes of a record. ``unchanged``: nothing. ``updated``: same picture, other metadata. ``moved``: same picture,
and where it was there is nothing any more. ``copied``: a further record of a known picture. ``replaced``: another
picture at a known place. ``embedded``: a new record of a new picture."""


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
        self._perhaps_gone: dict[str, Iterator[int]] = {}

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

    def decide(self, record: Record, content_hash: str, metadata: Mapping[str, Any]) -> Decision:
        """Say what a record of a picture means for the store; `metadata` as `metadata.Columns.fit` returns it."""
        given = dict(metadata)
        position = self._of_uri.first(record.uri)
        if position is not None:
            self._claimed.add(position)
            identity = self._value("id", position)
            before = self._metadata(position)
            if self._value("content_hash", position) != content_hash:
                return Decision("replaced", identity, before | given)
            same = all(equal(before.get(name), value) for name, value in given.items())
            return Decision("unchanged" if same else "updated", identity, before | given)
        old = self._abandoned(content_hash)
        if old is not None:
            self._claimed.add(old)
            return Decision("moved", self._value("id", old), self._metadata(old) | given)
        action: Action = "copied" if self.holds(content_hash) else "embedded"
        return Decision(action, self._fresh_id(record), given)

    def _abandoned(self, content_hash: str) -> int | None:
        """Find a record of this picture whose file is gone: it was moved or renamed.

        Each record is looked at once: a file that is there now is not moved while its source is being read.
        """
        if content_hash not in self._of_hash:
            return None
        for position in self._perhaps_gone.setdefault(content_hash, self._of_hash.positions(content_hash)):
            if position not in self._claimed and _is_gone(self._value("uri", position)):
                return position
        return None

    def _fresh_id(self, record: Record) -> str:
        key = record.key
        while (identity := record_id(key)) in self._of_id:
            key += "\n"  # its place was taken over by a record that has moved away since
        return identity

    def _metadata(self, position: int) -> dict[str, Any]:
        names = [name for name in self._rows.columns if name not in SCHEMA.names]
        return {name: self._value(name, position) for name in names}

    def _value(self, column: str, position: int) -> Any:
        return self._column(column)[position].as_py()


class Intake:
    """Goes through the records of a source: decides on each place once, and counts what meets no decision."""

    def __init__(self, counts: Counts, columns: Columns) -> None:
        self._counts, self._columns = counts, columns
        self._seen: set[str] = set()

    def decide(self, record: Record, content_hash: str | Failure, known: KnownRecords) -> Decision | None:
        """Return what a record means, or None for one that failed or was here before under this uri.

        Raises InputError for metadata that no column can hold, as `Columns.fit`.
        """
        self._counts.found += 1
        if isinstance(content_hash, Failure):
            self._counts.failures.append(content_hash)
            return None
        if record.uri in self._seen:
            self._counts.unchanged += 1
            return None
        self._seen.add(record.uri)
        return known.decide(record, content_hash, self._columns.fit(record.metadata, record.uri))


def _is_gone(uri: str) -> bool:
    """Tell whether a record's file is not there any more; what lies in an archive, a table or the net is not asked."""
    return os.path.isabs(uri) and not os.path.lexists(uri) and holder_of(uri) is None


def record_id(key: str) -> str:
    """Return the id of a record, 32 hex digits of the SHA-256 of what makes it the same record tomorrow."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]
