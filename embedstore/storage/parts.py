"""A part: one Parquet file whose vectors are read where they lie.

`write` lays a table out so that the values of each row group's ``embedding`` column stand as one plain block in
the file; `open_part` finds the blocks and `Part.vectors` maps them without decoding. A file of another writer has
no such blocks: it is decoded instead, with the same numbers. `Part.check` compares every byte with its checksum, which
reading for a search does not. Where the file is, here or in a bucket, is left to `part_file`; which parts belong to a
table is `table`'s business.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.errors import DamagedStoreError
from embedstore.storage import checksums
from embedstore.storage.arrow_columns import EMBEDDING, embedding_field, list_array, pa, pick, vectors_of
from embedstore.storage.part_file import PartFile, as_parquet, fetch_columns, parquet_reader
from embedstore.vectors import Mask, Vectors, rounding

if TYPE_CHECKING:
    from embedstore.storage.part_cache import PartCache

ROWS_PER_GROUP = 4_096
"""Rows of a row group. Each row of an answer costs the decoding of its row group; larger ones scan no faster."""
ROWS_PER_PART = 40_000
"""Rows that are gathered before they are written as a part."""
_OWN_NAME = re.compile(r"part-\d{20}-[0-9a-f]{12}\.parquet")
_ALIGNMENT = 64
_DELTA = {"uri": "DELTA_BYTE_ARRAY", "added_at": "DELTA_BINARY_PACKED"}  # each value is like the one before
_UNBOUNDED = 2**31 - 1
_MAX_BLOCK_BYTES = 2**30
_MANY_GROUPS = 8
_WITHOUT_FILE: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""An older Python keeps the file of each map open; see `files.allow_open`."""


@dataclass(frozen=True, slots=True)
class Block:
    """One row group: `rows` vectors whose values start at byte `offset` of the file."""

    offset: int
    rows: int


class Part:
    """One Parquet file of a table, mapped when its vectors are first asked for.

    A part in a bucket is mapped anew each time: a mapping that is kept would keep the disk space of a file that the
    cache has evicted.

    Parameters
    ----------
    path : Path
        Where it lies; of a part in a bucket, where it would lie on this machine.
    rows : int
        Number of rows.
    dim : int
        Number of components of a vector.
    blocks : sequence of Block, or None
        Where the vectors lie; None for a file in a foreign layout, which is decoded.
    size : int, optional
        Bytes of the file, for a part in a bucket.
    cache : PartCache, optional
        For a part in a bucket: what fetches it.
    """

    def __init__(
        self,
        path: Path,
        rows: int,
        dim: int,
        blocks: Sequence[Block] | None,
        size: int | None = None,
        cache: PartCache | None = None,
    ) -> None:
        self.path = path
        self.rows = rows
        self.dim = dim
        self.blocks = None if blocks is None else tuple(blocks)
        self._file = PartFile(path, size, cache)
        self._groups: list[Vectors] | None = None

    def __repr__(self) -> str:
        return f"Part({self.path.name!r}, rows={self.rows}, {'mapped' if self.mapped else 'foreign'})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process, which may be in another folder, as a path: the vectors stay in the file."""
        return (Part, (self.path.absolute(), self.rows, self.dim, self.blocks, self._file.known_size, self.cache))

    @property
    def name(self) -> str:
        """File name, which is also its name in the table's log."""
        return self.path.name

    @property
    def cache(self) -> PartCache | None:
        """What fetches a part in a bucket."""
        return self._file.cache

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    def exists(self) -> bool:
        """Tell whether the file is there: on this machine, or in the bucket."""
        return self._file.exists()

    @property
    def mapped(self) -> bool:
        """Whether the vectors are read where they lie, rather than decoded."""
        return self.blocks is not None

    @functools.cached_property
    def checked(self) -> bool:
        """Whether the file has checksums: parts of the first layout and of other writers have none."""
        with self._file.pieces() as file:
            return bool(checksums.seal_fits(file))

    def check(self, afresh: bool = True) -> list[str]:
        """Read every byte of the file and return what does not fit its checksum, in words; [] for a sound part.

        Of a part without checksums only the footer is looked at. A part in a bucket is fetched for it, also where it is
        on this machine unless `afresh` is False: then that file is checked, and fetched again where it is damaged.
        """
        if self.cache is not None and (afresh or self._problems()):
            self._file.drop()
        return self._problems()

    def _problems(self) -> list[str]:
        try:
            fresh, found = self._damages()
        except DamagedStoreError as error:
            return [str(error)]
        if not found and self.blocks is not None and fresh.blocks != self.blocks:
            found.append((None, "it is laid out otherwise than was noted; delete index/images.json"))
        return [
            f"part {self.name}: {what}" if number is None else f"part {self.name}, row group {number}: {what}"
            for number, what in found
        ]

    def damaged_rows(self) -> Mask | None:
        """Return which rows stand in row groups that are damaged, bool of shape (rows,); None for a sound part.

        Raises DamagedStoreError where the footer is damaged: then no row can be read.
        """
        fresh, found = self._damages()
        if not found:
            return None
        damaged = {number for number, _ in found}
        marks = [np.full(block.rows, number in damaged) for number, block in enumerate(fresh.blocks or ())]
        return np.concatenate([np.empty(0, bool), *marks])

    def _damages(self) -> tuple[Part, list[tuple[int | None, str]]]:
        """Read every byte; return the part as its file is now, and what does not fit its checksum."""
        with self._file.whole() as file:
            fresh = open_part(self.path, self.dim, self._file.known_size, self.cache)
            said = (as_parquet(file).metadata.metadata or {}).get(checksums.LAYOUT_KEY)
            return fresh, list(checksums.damages(file, said)) if fresh.checked and said else []

    def groups(self) -> list[Vectors]:
        """Return the vectors, one read-only float32 array of shape (rows, dim) for each row group, in row order.

        Raises
        ------
        DamagedStoreError
            The file is not there or shorter than its layout says.
        VersionGoneError
            The file is not there because newer versions have no use for it.
        """
        if self._groups is not None:
            return self._groups
        found = self._map() if self.blocks is not None else self._decode()
        if self.cache is None or self.blocks is None:
            self._groups = found
        return found

    def vectors(self) -> Vectors:
        """Return all vectors, shape (rows, dim): a view for a part of one row group, else a copy."""
        groups = self.groups()
        return groups[0] if len(groups) == 1 else np.concatenate(groups or [np.empty((0, self.dim), np.float32)])

    def take(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> Vectors:
        """Return a copy of the vectors at the row numbers `rows`, in the order given, shape (len(rows), dim)."""
        wanted = np.asarray(rows, dtype=np.intp)
        out = np.empty((len(wanted), self.dim), dtype=np.float32)
        groups = self.groups()
        sizes = np.array([len(group) for group in groups], dtype=np.intp)
        ends = np.cumsum(sizes)
        numbers = np.searchsorted(ends, wanted, side="right")
        local = wanted - (ends - sizes)[numbers]
        for place, (number, row) in enumerate(zip(numbers.tolist(), local.tolist(), strict=True)):
            out[place] = groups[number][row]
        return out

    def columns(self) -> pa.Schema:
        """Return the columns in the file."""
        with self._file.pieces() as raw:
            return as_parquet(raw).schema_arrow

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Decode columns (default: all) to an Arrow table of `rows` rows; columns not in the file are left out."""
        with self._file.pieces() as raw:
            file = as_parquet(raw)
            present = set(file.schema_arrow.names)
            wanted = None if columns is None else [name for name in columns if name in present]
            fetch_columns(raw, file.metadata, wanted)
            return file.read(columns=wanted)

    def read_rows(self, rows: Sequence[int] | np.ndarray[Any, Any], columns: Sequence[str]) -> pa.Table:
        """Decode `columns` of the row numbers `rows`, in the order given, touching only their row groups."""
        wanted = np.asarray(rows, dtype=np.int64)
        with self._file.pieces() as raw:
            file = parquet_reader(raw)
            names = [file.metadata.schema.column(number).path for number in range(file.metadata.num_columns)]
            # What is nested has a leaf for each of its fields.
            leaves = [n for n, name in enumerate(names) if any(f"{name}.".startswith(f"{own}.") for own in columns)]
            sizes = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
            starts = np.concatenate([[0], np.cumsum(sizes)])
            group_of = np.searchsorted(starts, wanted, side="right") - 1
            groups, rank = np.unique(group_of, return_inverse=True)
            fetch_columns(raw, file.metadata, columns, groups.tolist())
            # Whoever reads several parts has a thread for each; Arrow's own would get in their way.
            table = file.read_row_groups(groups.tolist(), column_indices=leaves, use_threads=len(groups) > _MANY_GROUPS)
            read_starts = np.concatenate([[0], np.cumsum([sizes[group] for group in groups])])
            return pick(table, read_starts[rank] + wanted - starts[group_of])

    def pieces(self, first: int, last: int, limit: int) -> Iterator[tuple[int, Vectors]]:
        """Yield rows `first` to `last` as views of at most `limit` rows, each with its first row number."""
        start = 0
        for group in self.groups():
            for begin in range(max(first - start, 0), min(last - start, len(group)), limit):
                yield start + begin, group[begin : min(begin + limit, last - start)]
            start += len(group)

    @functools.cached_property
    def longest(self) -> float:
        """Length of the longest vector, rounded up; infinity when one holds NaN or infinity."""
        largest = 0.0
        for _, rows in self.pieces(0, self.rows, ROWS_PER_GROUP):
            with np.errstate(over="ignore", invalid="ignore"):
                longest = float(np.vecdot(rows, rows).max())
            largest = np.inf if np.isnan(longest) else max(largest, longest)
        return float(np.sqrt(largest * (1 + rounding(self.dim)))) * (1 + 1e-6)

    def _map(self) -> list[Vectors]:
        if not self.blocks:
            return []
        with self._file.whole() as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **_WITHOUT_FILE)
        views = []
        for block in self.blocks:
            end = block.offset + block.rows * self.dim * 4
            if end > len(mapped):
                raise DamagedStoreError(
                    f"part {self.name} is {len(mapped)} bytes long; its vectors should reach byte {end}. "
                    "The file was cut short: restore it from a copy, or remove the store and add the images again."
                )
            flat = np.frombuffer(mapped, dtype="<f4", count=block.rows * self.dim, offset=block.offset)
            views.append(flat.reshape(block.rows, self.dim))
        return views

    def _decode(self) -> list[Vectors]:
        with self._file.whole() as file:
            parquet = as_parquet(file)
            count = parquet.metadata.num_row_groups
            columns = [parquet.read_row_group(number, columns=[EMBEDDING]).column(0) for number in range(count)]
        return [vectors_of(column, self.dim, self.name) for column in columns]


def rows_per_group(dim: int) -> int:
    """Return how many rows one row group holds."""
    return max(1, min(ROWS_PER_GROUP, _MAX_BLOCK_BYTES // (4 * dim)))


def rows_per_part(dim: int) -> int:
    """Return how many rows to gather before they are written as a part."""
    return max(1, min(ROWS_PER_PART, _MAX_BLOCK_BYTES // (4 * dim)))


def write(path: Path, batches: Iterator[tuple[pa.Table, Vectors]], metadata_schema: pa.Schema, dim: int) -> Part:
    """Write a part in the mapped layout, flushed to the disk.

    Parameters
    ----------
    path : Path
        A name that is not taken.
    batches : iterator of (table, vectors)
        The other columns, in `metadata_schema`, with their vectors, float32 of shape (rows, dim). Each becomes
        one row group; give at most `rows_per_group` rows.
    metadata_schema : pyarrow.Schema
        The columns without the embedding.
    dim : int

    Returns
    -------
    Part
    """
    schema = pa.schema([embedding_field(), *metadata_schema])
    groups: list[checksums.Sums] = []
    try:
        with path.open("xb") as file:
            summing = checksums.Summing(file)
            sink = pa.PythonFile(summing, mode="w")
            with _writer(sink, schema) as writer:
                for table, vectors in batches:
                    if len(vectors):
                        offset = _pad(sink, *vectors.shape)
                        summing.begin(offset, vectors.nbytes)
                        _write_group(writer, schema, table, vectors)
                        groups.append(summing.end())
                writer.add_key_value_metadata({checksums.LAYOUT_KEY: checksums.layout(dim, groups)})
                writer.add_key_value_metadata({checksums.SEAL_KEY: checksums.UNSEALED.encode()})
                summing.begin_footer()
            summing.seal()
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    blocks = [Block(group.offset, group.size // (4 * dim)) for group in groups]
    return Part(path, sum(block.rows for block in blocks), dim, blocks)


def open_part(path: Path, dim: int, size: int | None = None, cache: PartCache | None = None) -> Part:
    """Read a file's footer and return it as a `Part`, mapped when the layout allows; see there for the parameters.

    Raises
    ------
    DamagedStoreError
        The file is not there, is no Parquet file, or its footer does not fit its checksum.
    """
    ours = _OWN_NAME.fullmatch(path.name) is not None
    version, metadata = 0, None
    if cache is not None and size is None:
        with PartFile(path, None, cache).reading():
            size = cache.bucket.size(cache.name_of(path))
    with PartFile(path, size, cache).pieces() as file:
        sealed = checksums.seal_fits(file)
        if not (ours and sealed is False):
            metadata = as_parquet(file).metadata
            # Another engine may have carried our footer's words along into a file of its own name.
            said = None if sealed is False else (metadata.metadata or {}).get(checksums.LAYOUT_KEY)
            version = checksums.layout_version(said)
    if metadata is None or (ours and not (sealed or version == 1)):
        raise DamagedStoreError(
            f"part {path.name}: the footer is damaged (checksum), or the file was cut short; restore the file from a "
            "copy, or run `embedstore repair STORE`"
        )
    part = Part(path, metadata.num_rows, dim, _blocks(metadata, dim) if version in (1, 2) else None, size, cache)
    part.checked = bool(sealed)
    return part


def _blocks(metadata: Any, dim: int) -> list[Block] | None:
    """Find the blocks of vectors; None when another writer made the file."""
    layout = json.loads(metadata.metadata[checksums.LAYOUT_KEY])
    blocks = [Block(block[0], block[1]) for block in layout["blocks"]]
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    if layout["dim"] != dim or [block.rows for block in blocks] != rows:
        return None
    for number, block in enumerate(blocks):
        chunk = metadata.row_group(number).column(0)
        # An engine that rewrote the file might have carried the footer along: believe the chunk, not the note.
        end = chunk.data_page_offset + chunk.total_compressed_size
        plain = chunk.compression == "UNCOMPRESSED" and not chunk.has_dictionary_page
        if not plain or end - block.rows * dim * 4 != block.offset:
            return None
    return blocks


def _writer(sink: Any, schema: pa.Schema) -> Any:
    import pyarrow.parquet as pq  # slow to import, and not needed to search

    leaf = f"{EMBEDDING}.list.element"
    others = [field.name for field in schema if field.name != EMBEDDING]
    distinct = ("id", "content_hash", *_DELTA)
    dictionary = [field.name for field in schema if field.name not in (EMBEDDING, *distinct)]
    delta = {name: encoding for name, encoding in _DELTA.items() if name in others}
    return pq.ParquetWriter(
        sink,
        schema,
        use_dictionary=dictionary or False,
        compression={leaf: "NONE", **dict.fromkeys(others, "ZSTD")},
        column_encoding={leaf: "PLAIN", **delta},
        write_statistics=others or False,
        data_page_size=_UNBOUNDED,
        max_rows_per_page=_UNBOUNDED,
        # Polars and Delta name the list's element differently in a stored Arrow schema.
        store_schema=False,
    )


def _pad(sink: pa.NativeFile, rows: int, dim: int) -> int:
    """Write zeros until the vectors of a row group that is written next will be aligned; return where they will be."""
    offset = sink.tell() + _lead(rows, dim)
    padding = -offset % _ALIGNMENT
    sink.write(b"\0" * padding)
    return int(offset + padding)


def _write_group(writer: Any, schema: pa.Schema, table: pa.Table, vectors: Vectors) -> None:
    columns = [list_array(vectors), *(table.column(name) for name in schema.names[1:])]
    writer.write_table(pa.table(columns, schema=schema), row_group_size=len(vectors))


@functools.lru_cache(maxsize=64)
def _lead(rows: int, dim: int) -> int:
    """Return how many bytes of page header and levels stand before the values of a row group's first column.

    They depend on the two numbers only, so a trial with zeros finds out, and any version of the writer is served.
    """
    import pyarrow.parquet as pq

    trial = pa.BufferOutputStream()
    schema = pa.schema([embedding_field()])
    writer = _writer(trial, schema)
    writer.write_table(pa.table([list_array(np.zeros((rows, dim), np.float32))], schema=schema), row_group_size=rows)
    writer.close()
    chunk = pq.read_metadata(pa.BufferReader(trial.getvalue())).row_group(0).column(0)
    magic = 4
    return int(chunk.data_page_offset + chunk.total_compressed_size - rows * dim * 4 - magic)
