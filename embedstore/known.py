"""Have we got this already? The one home of that rule, and of what an incoming record means for the store.

Turns a record and its content hash into a decision: nothing to do, take a vector that is here, or embed. Pictures
are the same when their content hashes are, whatever they are called; records are the same when their uri is, or
the id that the source gave them.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from embedstore.folder import SCHEMA
from embedstore.rows import Rows
from embedstore.sources import Record
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
        self._claimed: set[int] = set()
        self._given_ids: set[str] = set()

    @functools.cached_property
    def _position_of_uri(self) -> dict[str, int]:
        return {uri: number for number, uri in enumerate(self._values("uri"))}

    @functools.cached_property
    def _position_of_id(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._values("id"))}

    @functools.cached_property
    def _positions_of_hash(self) -> dict[str, list[int]]:
        positions: dict[str, list[int]] = {}
        for number, value in enumerate(self._values("content_hash")):
            if value:
                positions.setdefault(value, []).append(number)
        return positions

    def holds(self, content_hash: str) -> bool:
        """Tell whether this picture has a vector in the store or in a lender."""
        return content_hash in self._positions_of_hash or any(
            lender.rows.holds_hash(content_hash) for lender in self._lenders
        )

    def lent(self, content_hash: str) -> bool:
        """Tell whether only a lender has this picture's vector."""
        return content_hash not in self._positions_of_hash and self.holds(content_hash)

    def vector(self, content_hash: str) -> Vectors | None:
        """Return the vector of a picture, shape (dim,), or None."""
        positions = self._positions_of_hash.get(content_hash)
        if positions is not None:
            own: Vectors = self._rows.vectors(np.array(positions[:1]))[0]
            return own
        found = (lender.rows.vector_of_hash(content_hash) for lender in self._lenders)
        return next((vector for vector in found if vector is not None), None)

    def size(self, content_hash: str) -> tuple[int | None, int | None]:
        """Return (width, height) of a known picture, in pixels, upright."""
        positions = self._positions_of_hash.get(content_hash)
        if positions is None:
            return None, None
        return self._values("width")[positions[0]], self._values("height")[positions[0]]

    def decide(self, record: Record, content_hash: str) -> Decision:
        """Say what a record of a picture means for the store."""
        position = self._find(record)
        given = dict(record.metadata)
        if position is not None:
            self._claimed.add(position)
            identity = self._values("id")[position]
            before = self._metadata(position)
            if self._values("content_hash")[position] != content_hash:
                return Decision("replaced", identity, before | given)
            changed = self._differs(before, given) or self._values("uri")[position] != record.uri
            return Decision("updated" if changed else "unchanged", identity, before | given)
        old = self._abandoned(content_hash)
        if old is not None:
            self._claimed.add(old)
            return Decision("moved", self._values("id")[old], self._metadata(old) | given)
        action: Action = "copied" if self.holds(content_hash) else "embedded"
        return Decision(action, self._fresh_id(record), given)

    def _find(self, record: Record) -> int | None:
        if record.id is not None:
            return self._position_of_id.get(record.id)
        return self._position_of_uri.get(record.uri)

    def _abandoned(self, content_hash: str) -> int | None:
        """Find a record of this picture whose file is gone: it was moved or renamed."""
        for position in self._positions_of_hash.get(content_hash, ()):
            uri = self._values("uri")[position]
            if position not in self._claimed and os.path.isabs(uri) and not os.path.lexists(uri):
                return position
        return None

    def _fresh_id(self, record: Record) -> str:
        if record.id is not None:
            return record.id
        key = record.key
        while (identity := record_id(key)) in self._position_of_id or identity in self._given_ids:
            key += "\n"  # its place was taken over by a record that has moved away since
        self._given_ids.add(identity)
        return identity

    def _metadata(self, position: int) -> dict[str, Any]:
        names = [name for name in self._rows.columns if name not in SCHEMA.names]
        return {name: self._values(name)[position] for name in names}

    @staticmethod
    def _differs(before: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
        return any(before.get(name) != value for name, value in given.items())

    def _values(self, column: str) -> list[Any]:
        if column not in self._lists:
            self._lists[column] = self._rows.metadata([column]).column(column).to_pylist()
        return self._lists[column]

    @functools.cached_property
    def _lists(self) -> dict[str, list[Any]]:
        return {}


def record_id(key: str) -> str:
    """Return the id of a record, 32 hex digits of the SHA-256 of what makes it the same record tomorrow."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def is_usable_id(value: Any) -> bool:
    """Tell whether a source's own value can be a record's id: 1 to 36 characters."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_ID_LENGTH
