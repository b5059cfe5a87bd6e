"""Have we got this already? The one home of that rule, and of what an incoming record means for the store.

Turns a record and its content hash into a decision: nothing to do, take a vector that is here, or embed. Pictures
are the same when their content hashes are, whatever they are called; records are the same when their uri is, or
the id that the source gave them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from embedstore.sources import Record
from embedstore.storage.folder import SCHEMA
from embedstore.storage.lookup import Lookup
from embedstore.storage.metadata import equal
from embedstore.storage.rows import Rows
from embedstore.store import EmbedStore
from embedstore.vectors import Vectors

Action = Literal["unchanged", "updated", "moved", "copied", "replaced", "embedded"]

_MAX_ID_LENGTH = 36
"""Longest id that Atlas takes."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a record.

    Attributes
    ----------
    action : str
        ``unchanged``: nothing. ``updated``: same picture, other metadata. ``moved``: same picture, and where it was
        there is nothing any more. ``copied``: a further record of a known picture. ``replaced``: another picture at
        a known place. ``embedded``: a new record of a new picture.
    id : str
        The record's id.
    metadata : dict
        The row's metadata after the change.
    """

    action: Action
    id: str
    metadata: dict[str, Any]


class Known:
    """What a store, and others that may lend vectors, hold already.

    May be asked by several threads at once.

    Parameters
    ----------
    rows : Rows
        Of the store that is added to.
    lenders : sequence of EmbedStore
        Stores of the same space whose vectors may be copied.
    """

    def __init__(self, rows: Rows, lenders: Sequence[EmbedStore] = ()) -> None:
        self._rows = rows
        self._lenders = lenders
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._of_uri = Lookup(self._column("uri"))
        self._of_id = Lookup(self._column("id"))
        self._of_hash = Lookup(self._column("content_hash"))
        self._of_lent = [Lookup(lender.rows.metadata(["content_hash"]).column(0)) for lender in lenders]
        self._claimed: set[int] = set()
        self._perhaps_gone: dict[str, Iterator[int]] = {}

    def holds(self, content_hash: str) -> bool:
        """Tell whether this picture has a vector in the store or in a lender."""
        return content_hash in self._of_hash or any(content_hash in lent for lent in self._of_lent)

    def lent(self, content_hash: str) -> bool:
        """Tell whether only a lender has this picture's vector."""
        return content_hash not in self._of_hash and self.holds(content_hash)

    def vector(self, content_hash: str) -> Vectors | None:
        """Return the vector of a picture, shape (dim,), or None."""
        for rows, position in self._places(content_hash):
            found: Vectors = rows.vectors(np.array([position]))[0]
            return found
        return None

    def size(self, content_hash: str) -> tuple[int | None, int | None]:
        """Return (width, height) of a known picture, in pixels, upright; None where that is not known."""
        for rows, position in self._places(content_hash):
            width, height = (
                rows.metadata([name]).column(0)[position].as_py() for name in ("width", "height")
            )
            return width, height
        return None, None

    def decide(self, record: Record, content_hash: str, metadata: Mapping[str, Any]) -> Decision:
        """Say what a record of a picture means for the store.

        Parameters
        ----------
        record : Record
        content_hash : str
        metadata : mapping
            Of the record, as `metadata.Columns.fit` returns it.
        """
        given = dict(metadata)
        position = self._of_uri.first(record.uri) if record.id is None else self._of_id.first(record.id)
        if position is not None:
            self._claimed.add(position)
            identity = self._value("id", position)
            before = self._metadata(position)
            if self._value("content_hash", position) != content_hash:
                return Decision("replaced", identity, before | given)
            changed = self._value("uri", position) != record.uri or not all(
                equal(before.get(name), value) for name, value in given.items()
            )
            return Decision("updated" if changed else "unchanged", identity, before | given)
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
        if content_hash not in self._perhaps_gone:
            if content_hash not in self._of_hash:
                return None
            self._perhaps_gone[content_hash] = self._of_hash.positions(content_hash)
        for position in self._perhaps_gone[content_hash]:
            if position not in self._claimed and _is_gone(self._value("uri", position)):
                return position
        return None

    def _fresh_id(self, record: Record) -> str:
        if record.id is not None:
            return record.id
        key = record.key
        while (identity := record_id(key)) in self._of_id:
            key += "\n"  # its place was taken over by a record that has moved away since
        return identity

    def _places(self, content_hash: str) -> Iterator[tuple[Rows, int]]:
        """Yield where a picture's vector is: the rows of a store, and the position."""
        holders = [self._rows, *(lender.rows for lender in self._lenders)]
        for rows, lookup in zip(holders, [self._of_hash, *self._of_lent], strict=True):
            position = lookup.first(content_hash)
            if position is not None:
                yield rows, position

    def _metadata(self, position: int) -> dict[str, Any]:
        names = [name for name in self._rows.columns if name not in SCHEMA.names]
        return {name: self._value(name, position) for name in names}

    def _value(self, column: str, position: int) -> Any:
        return self._column(column)[position].as_py()

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self._columns:
            self._columns[name] = self._rows.metadata([name]).column(0)
        return self._columns[name]


def _is_gone(uri: str) -> bool:
    """Tell whether a record's file is not there any more; what lies in an archive, a table or the net is not asked."""
    if not os.path.isabs(uri) or os.path.lexists(uri):
        return False
    ends = (place for place, letter in enumerate(uri) if letter in "!#")
    return not any(os.path.isfile(uri[:end]) for end in ends)


def record_id(key: str) -> str:
    """Return the id of a record, 32 hex digits of the SHA-256 of what makes it the same record tomorrow."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def is_usable_id(value: Any) -> bool:
    """Tell whether a source's own value can be a record's id: 1 to 36 characters."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_ID_LENGTH
