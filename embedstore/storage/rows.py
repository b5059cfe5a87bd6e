"""One version's rows, read as needed: metadata columns, which rows a condition keeps, single rows and their vectors.

A position counts the rows of a snapshot in the order of its parts. What is read is kept, because a version never
changes. What a condition may say is left to `where`, which rows answer a query to `searching`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.errors import InputError, did_you_mean
from embedstore.settings import cores
from embedstore.storage.arrow_columns import EMBEDDING, embedding_field, int64_array, pa, pick
from embedstore.storage.parts import Part
from embedstore.storage.table import Snapshot, conform
from embedstore.storage.thumbnails import FOLDER, Thumbnails
from embedstore.vectors import ArrayCache, Mask, Positions, Vectors

MASKS_BYTES = 16 * 2**20
"""How much memory the kept masks may take: those of 16 conditions over a million rows."""
_AT_ONCE = 65_536

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
        self._lookups: dict[str, Lookup] = {}
        self._masks: ArrayCache[Mask] = ArrayCache(MASKS_BYTES)

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
            guess = did_you_mean(unknown[0], self.columns)
            guess = f".{guess}" if guess else ""
            raise InputError(f"there is no column {unknown[0]!r}; the columns are {', '.join(self.columns)}{guess}")

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
        return pa.table([by_name[name] for name in columns], schema=pa.schema([fields[name] for name in columns]))

    def to_table(self, columns: Sequence[str] | None = None, where: Any = None) -> pa.Table:
        """Return the rows that `where` keeps; by default all columns but the embedding, which is read when named."""
        table = self.with_embeddings(self.columns if columns is None else list(columns))
        mask = self.mask(where)
        return table if mask is None else table.filter(pa.array(mask))

    def mask(self, where: Any) -> Mask | None:
        """Return which rows `where` keeps, bool of shape (n_rows,), or None for all.

        The last masks of SQL conditions are kept, read-only, so asking by one again costs nothing. FilterError where
        it is no condition, or names no column; see `where.parse_where`.
        """
        if where is None:
            return None
        from embedstore.storage.where import parse_where  # not needed to search everything

        kept = self._masks.get(where) if isinstance(where, str) else None
        if kept is not None:
            return kept
        parsed = parse_where(where, self.snapshot.schema)
        if parsed is None:
            return None
        mask = parsed.mask(self.metadata(list(parsed.columns)))
        return self._masks.put(where, mask) if isinstance(where, str) and parsed.lasting else mask

    def lookup(self, column: str) -> Lookup:
        """Return what finds the rows with a text in a column: ``id``, ``uri`` or ``content_hash``."""
        if column not in self._lookups:
            self._lookups[column] = Lookup(self.metadata([column]).column(0))
        return self._lookups[column]

    def positions(self, ids: Sequence[str]) -> Positions:
        """Return the positions of records, int64 of shape (len(ids),).

        Raises
        ------
        InputError
            An id is not in the store.
        """
        found = self.lookup("id").first_of_each(ids)
        missing = np.flatnonzero(found < 0)
        if len(missing):
            raise InputError(
                f"{len(missing)} of {len(ids)} ids are not in this store; the first is {ids[missing[0]]!r}"
            )
        return found

    def vector_where(self, column: str, text: str) -> Vectors | None:
        """Return the vector of the first record with this ``id`` or ``content_hash``, shape (dim,), or None."""
        position = self.lookup(column).first(text)
        return None if position is None else self.vectors(np.array([position]))[0]

    def thumbnails_at(self, uris: Sequence[str]) -> dict[str, bytes]:
        """Return the small copies, JPEG, of those pictures at `uris` that the store keeps one of; see `thumbnails`."""
        if not self.snapshot.parts:
            return {}
        kept = Thumbnails(self.snapshot.parts[0].path.parent.parent / FOLDER)
        if not kept.any():
            return {}
        places = self.lookup("uri").first_of_each(uris)
        hashes = self.take(places[places >= 0], ["content_hash"]).column(0).to_pylist()
        there = [uri for uri, place in zip(uris, places.tolist(), strict=True) if place >= 0]
        found = {uri: kept.get(digest or "") for uri, digest in zip(there, hashes, strict=True)}
        return {uri: data for uri, data in found.items() if data is not None}

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
        columns = self.columns if columns is None else columns
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

    def batches(self, positions: Positions, size: int = _AT_ONCE) -> Iterator[pa.Table]:
        """Yield the rows at `positions`, in that order, all columns but the embedding, at most `size` rows at a time.

        They are read once and then lie in a file that is mapped, so that memory holds one batch, however many there
        are.
        """
        split = self._by_part(positions)
        if not split:
            return
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            file = Path(folder) / "rows.arrow"
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, self.snapshot.schema) as writer:
                for part, _, local in split:
                    writer.write_table(conform(part.read_rows(local, self.columns), self.snapshot.schema))
            place = np.empty(len(positions), np.int64)
            place[np.concatenate([here for _, here, _ in split])] = np.arange(len(positions))
            with pa.memory_map(str(file)) as source:
                pieces = pa.ipc.open_file(source).read_all().to_batches()
                for start in range(0, len(place), size):
                    yield _picked_of(pieces, place[start : start + size])

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


def _picked_of(pieces: Sequence[pa.RecordBatch], rows: Positions) -> pa.Table:
    """Return the rows of these numbers, in that order, counted through pieces which are never joined."""
    ends = np.cumsum([len(piece) for piece in pieces])
    numbers = np.searchsorted(ends, rows, side="right")
    found, places = [], []
    for number in np.unique(numbers).tolist():
        here = np.flatnonzero(numbers == number)
        local = rows[here] - (ends[number] - len(pieces[number]))
        found.append(pa.Table.from_batches([pieces[number]]).take(int64_array(local)))
        places.append(here)
    return pick(pa.concat_tables(found), np.argsort(np.concatenate(places)))


class Lookup:
    """Finds texts in a column, in 16 bytes a row beside the column itself: a dictionary takes ten times that.

    Parameters
    ----------
    column : pyarrow.ChunkedArray of string
        Nulls and empty texts are not found.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column
        hashes = np.fromiter(_hashes(column), np.int64, len(column))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def __contains__(self, text: str) -> bool:
        return self.first(text) is not None

    def first(self, text: str) -> int | None:
        """Return the first position of a text, or None."""
        return next(self.positions(text), None)

    def first_of_each(self, texts: Sequence[str]) -> Positions:
        """Return the first position of each of many texts, int64 of shape (len(texts),); -1 where it is not there."""
        wanted = np.fromiter(map(hash, texts), np.int64, len(texts))
        places = np.searchsorted(self._hashes, wanted)
        near = places < len(self._hashes)
        near[near] = self._hashes[places[near]] == wanted[near]
        found = np.full(len(texts), -1, np.int64)
        found[near] = self._order[places[near]]
        likely = np.flatnonzero(near)
        stored = pick(pa.table({"text": self._column}), found[likely]).column("text").to_pylist()
        for place, text in zip(likely.tolist(), stored, strict=True):
            if text != texts[place]:  # another text of the same hash comes first
                first = self.first(texts[place])
                found[place] = -1 if first is None else first
        return found

    def positions(self, text: str) -> Iterator[int]:
        """Yield the positions of a text, ascending."""
        if not text:
            return
        wanted = hash(text)
        place = int(self._hashes.searchsorted(wanted))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            position = int(self._order[place])
            if self._column[position].as_py() == text:  # two texts may have the same hash
                yield position
            place += 1


def _hashes(column: pa.ChunkedArray) -> Iterator[int]:
    """Yield the hash of each text, with few of them as Python objects at a time."""
    for start in range(0, len(column), _AT_ONCE):
        for text in column.slice(start, _AT_ONCE).to_pylist():
            yield hash(text)
