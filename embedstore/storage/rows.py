"""One version's rows, read as needed: metadata columns, positions of ids, single rows and their vectors.

A position counts the rows of a snapshot in the order of its parts. What is read is kept, because a version never
changes; which rows answer a query is left to `store`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from embedstore.errors import InputError
from embedstore.machine import cores
from embedstore.storage.parts import EMBEDDING, Part, embedding_field, pick
from embedstore.storage.table import Snapshot, conform
from embedstore.vectors import Positions, Vectors

_READ_ALL = 10_000
"""From so many rows on, reading whole columns is faster than picking rows out of each part."""


class Rows:
    """The rows of one snapshot.

    Attributes
    ----------
    snapshot : Snapshot
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._columns: dict[str, pa.ChunkedArray] = {}

    def __len__(self) -> int:
        return self.snapshot.rows

    @property
    def columns(self) -> list[str]:
        """Names of the columns, without the embedding."""
        return list(self.snapshot.schema.names)

    def require(self, names: Sequence[str]) -> None:
        """Refuse names that are no column.

        Raises
        ------
        InputError
        """
        unknown = [name for name in names if name not in self.columns]
        if unknown:
            raise InputError(f"there is no column {unknown[0]!r}; the columns are {', '.join(self.columns)}")

    def metadata(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of all rows."""
        missing = [name for name in columns if name not in self._columns]
        if missing:
            self.require(missing)
            table = self.snapshot.read(missing)
            self._columns.update({name: table.column(name) for name in missing})
        return pa.table({name: self._columns[name] for name in columns})

    def with_embeddings(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of all rows, the embedding among them where it is named."""
        own = [name for name in columns if name != EMBEDDING]
        table = self.metadata(own)
        if EMBEDDING not in columns:
            return table
        chunks = [chunk for part in self.snapshot.parts for chunk in part.read([EMBEDDING]).column(0).chunks]
        field = embedding_field()
        column = pa.chunked_array([chunk.cast(field.type) for chunk in chunks], type=field.type)
        by_name = {name: table.column(name) for name in own} | {EMBEDDING: column}
        fields = {name: table.schema.field(name) for name in own} | {EMBEDDING: field}
        return pa.table(
            [by_name[name] for name in columns], schema=pa.schema([fields[name] for name in columns])
        )

    @functools.cached_property
    def _position_of(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.metadata(["id"]).column("id").to_pylist())}

    @functools.cached_property
    def _position_of_hash(self) -> dict[str, int]:
        hashes = self.metadata(["content_hash"]).column("content_hash").to_pylist()
        return {value: number for number, value in enumerate(hashes) if value}

    def positions(self, ids: Sequence[str]) -> Positions:
        """Return the positions of records, int64 of shape (len(ids),).

        Raises
        ------
        InputError
            An id is not in the store.
        """
        missing = [name for name in ids if name not in self._position_of]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(ids)} ids are not in this store; the first is {missing[0]!r}"
            )
        return np.array([self._position_of[name] for name in ids], dtype=np.int64)

    def vector_of_id(self, identity: str) -> Vectors | None:
        """Return the vector of a record, shape (dim,), or None when there is no such record."""
        position = self._position_of.get(identity)
        return None if position is None else self.vectors(np.array([position]))[0]

    def vector_of_hash(self, content_hash: str) -> Vectors | None:
        """Return the vector of a picture by its content, shape (dim,), or None when it is not there."""
        position = self._position_of_hash.get(content_hash)
        return None if position is None else self.vectors(np.array([position]))[0]

    def vectors(self, positions: Positions) -> Vectors:
        """Return a copy of the vectors at `positions`, in that order, float32 of shape (n, dim)."""
        if not self.snapshot.parts:
            return np.empty((0, self.snapshot.dim), np.float32)
        out = np.empty((len(positions), self.snapshot.dim), np.float32)
        for part, here, local in self._by_part(positions):
            out[here] = part.take(local)
        return out

    def take(self, positions: Positions, columns: Sequence[str] | None = None) -> pa.Table:
        """Return columns, by default all but the embedding, of the rows at `positions`, in that order."""
        return self._select(positions, self.columns if columns is None else columns)

    def ids(self, positions: Positions) -> list[str]:
        """Return the ids of the rows at `positions`, in that order."""
        return list(self._select(positions, ["id"]).column("id").to_pylist())

    def _select(self, positions: Positions, columns: Sequence[str]) -> pa.Table:
        if len(positions) > _READ_ALL or all(name in self._columns for name in columns):
            return pick(self.metadata(columns), positions)
        schema = pa.schema([self.snapshot.schema.field(name) for name in columns])
        split = self._by_part(positions)
        if not split:
            return schema.empty_table()

        def read(piece: tuple[Part, Positions, Positions]) -> pa.Table:
            part, _, local = piece
            return conform(part.read_rows(local, columns), schema)

        with ThreadPoolExecutor(min(cores(), len(split))) as pool:
            tables = list(pool.map(read, split))
        return pick(pa.concat_tables(tables), np.argsort(np.concatenate([here for _, here, _ in split])))

    def _by_part(self, positions: Positions) -> list[tuple[Part, Positions, Positions]]:
        """Split positions by part: the part, the places in `positions`, the row numbers in the part."""
        split = []
        start = 0
        for part in self.snapshot.parts:
            here = np.flatnonzero((positions >= start) & (positions < start + part.rows))
            if len(here):
                split.append((part, here, positions[here] - start))
            start += part.rows
        return split
