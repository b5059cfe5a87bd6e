"""Tables and arrays that already hold vectors -> batches of an (n, dim) array and the metadata beside it.

A stream: one batch is in memory at a time, and float32 vectors of a table are not copied. Parsing files is left to
`table_files`, scaling and the check for NaN to `vectors`, ids and what a store can hold to `ingest.ready_vectors`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from embedstore.errors import SourceError, SourceNotFoundError, VectorError, option
from embedstore.files import open_regular
from embedstore.sources.hub import is_dataset, tabular_of
from embedstore.sources.picture_files import expand
from embedstore.sources.record import named_in_memory
from embedstore.sources.table_files import ENDINGS, Tabular, is_arrow_like, of_arrow_like, open_table_file


@dataclass(frozen=True)
class VectorBatch:
    """Some rows of vectors, as they were given.

    `vectors` is of shape (n, dim), perhaps a read-only view of the table's memory; `metadata` are the other columns
    that are kept, n rows even when there are none; `uris` tell where each row came from: ``/data/part.parquet#17``,
    and for what is in memory ``table:3f2a41c09b7d8e55#17``. `keys` name the same rows tomorrow: by their places in a
    file, by their numbers in memory.
    """

    vectors: NDArray[np.float32]
    metadata: pa.Table
    uris: list[str]
    keys: list[str]


def vector_batches(
    source: Any, embedding_column: str | None = None, rows: int = 40_000, left_out: dict[str, str] | None = None
) -> Iterator[VectorBatch]:
    """Read vectors that somebody else made, at most `rows` at a time; columns not kept go into `left_out`, with why.

    The source is a Parquet, Arrow, JSON lines or CSV file, a glob, or a folder that holds some; a table, data frame or
    data set in memory; an array of shape (n, dim), or a ``.npy`` file of one; or a list or an iterator of these. The
    column holds lists, large lists or fixed-size lists of float16, float32 or float64; arrays need none.

    Raises VectorError where a vector is missing or of another length than the first one, with its row, counted from 0;
    SourceError where there is no such column, no row, or a file cannot be read.
    """
    first, dim = 0, None
    for batch in _batches(source, embedding_column, rows, {} if left_out is None else left_out, Counter()):
        count, width = batch.vectors.shape
        if dim is not None and width != dim:
            raise VectorError(f"row {first} has a vector of {width} numbers, the rows before it {dim}")
        dim = width
        first += count
        yield batch
    if dim is None:
        raise SourceError("there are no vectors: the source has no rows")


def _batches(
    source: Any, column: str | None, rows: int, left_out: dict[str, str], seen: Counter[str]
) -> Iterator[VectorBatch]:
    """Yield batches of one source after the other, perhaps of different widths."""
    if isinstance(source, np.ndarray):
        yield from _of_array(source, rows, "array", seen)
    elif is_dataset(source):
        yield from _of_tabular(tabular_of(source), column, rows, left_out, seen)
    elif is_arrow_like(source):
        yield from _of_tabular(of_arrow_like(source), column, rows, left_out, seen)
    elif isinstance(source, (str, os.PathLike)):
        for path in _files(os.fspath(source)):
            if path.lower().endswith(".npy"):
                yield from _of_array(_map_array(path), rows, path, None)
            else:
                yield from _of_tabular(open_table_file(path), column, rows, left_out, seen)
    elif isinstance(source, (list, tuple, Iterator)):
        for part in source:
            yield from _batches(part, column, rows, left_out, seen)
    else:
        raise SourceError(f"vectors can be read from files, tables and arrays, not from {type(source).__name__}")


def _files(path: str) -> list[str]:
    """Return the files that a path, a folder or a glob means."""
    files: list[str] = []
    for place in expand(path):
        if os.path.isdir(place):
            names = sorted(os.listdir(place))
            files += [os.path.join(place, name) for name in names if name.lower().endswith((*ENDINGS, ".npy"))]
        else:
            files.append(os.path.abspath(place))
    if not files:
        raise SourceNotFoundError(f"{path} holds no tables; expected files of {', '.join(ENDINGS)} or .npy")
    return files


def _map_array(path: str) -> NDArray[Any]:
    """Map a ``.npy`` file."""
    try:
        with open_regular(path):  # else a pipe would be waited for
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise SourceError(f"{path} cannot be read as an array of numbers: {error}") from error
    return array


def _of_array(array: NDArray[Any], rows: int, name: str, seen: Counter[str] | None) -> Iterator[VectorBatch]:
    """Cut an array into batches; with `seen` it is in memory."""
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise VectorError(f"expected numbers of shape (n, dim), found shape {array.shape} of {array.dtype} in {name}")
    for start in range(0, len(array), rows):
        part = np.asarray(array[start : start + rows], dtype=np.float32)
        uris, keys = _names(part, start, name, seen)
        yield VectorBatch(part, pa.table({"id": pa.nulls(len(part))}).select([]), uris, keys)


def _of_tabular(
    tabular: Tabular, column: str | None, rows: int, left_out: dict[str, str], seen: Counter[str]
) -> Iterator[VectorBatch]:
    """Cut a table into batches."""
    if column is None or column not in tabular.schema.names:
        wanted = f"{option('embedding_column')} is needed" if column is None else f"there is no column {column!r}"
        kinds = ", ".join(f"{field.name} ({field.type})" for field in tabular.schema)
        raise SourceError(f"{wanted} to find the vectors in {tabular.name}; found {kinds}")
    first = 0
    for vectors, metadata in tabular.pieces(rows, column, left_out):
        for chunk in filter(len, vectors.chunks):
            matrix = _matrix(chunk, first)
            uris, keys = _names(matrix, first, tabular.name, None if tabular.stable_rows else seen)
            yield VectorBatch(matrix, metadata.slice(0, len(chunk)), uris, keys)
            metadata = metadata.slice(len(chunk))
            first += len(chunk)


def _names(
    vectors: NDArray[np.float32], first: int, name: str, seen: Counter[str] | None
) -> tuple[list[str], list[str]]:
    """Return the uris of rows, and the keys: their places, or with `seen`, which counts them, their numbers."""
    if seen is None:
        places = [f"{name}#{row}" for row in range(first, first + len(vectors))]
        return places, places
    digests = [xxhash.xxh3_128_hexdigest(vector.tobytes()) for vector in vectors]
    pairs = [named_in_memory("table:", digest, first + row, seen) for row, digest in enumerate(digests)]
    return [uri for _, uri in pairs], [key for key, _ in pairs]


def _matrix(column: pa.Array, first: int) -> NDArray[np.float32]:
    """View a column of lists as an array of shape (n, dim)."""
    if isinstance(column, pa.ExtensionArray):  # tensors of Ray and of pyarrow are fixed-size lists below
        column = column.storage
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise VectorError(f"the vectors are of type {kind}; expected lists of float16, float32 or float64")
    if not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise VectorError(f"the vectors are lists of {kind.value_type}; expected float16, float32 or float64")
    if column.null_count:
        row = first + int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))
        raise VectorError(f"row {row} has no vector (null)")
    if pa.types.is_fixed_size_list(kind):
        dim = kind.list_size
    else:
        lengths = np.diff(column.offsets.to_numpy())
        dim = int(lengths[0])
        if (lengths != dim).any():
            row = int(np.argmax(lengths != dim))
            raise VectorError(f"row {first + row} has a vector of {lengths[row]} numbers, row {first} has {dim}")
    values = column.flatten()
    if dim < 1:
        raise VectorError(f"row {first} has a vector of no numbers")
    if values.null_count:
        place = int(np.argmin(values.is_valid().to_numpy(zero_copy_only=False)))
        raise VectorError(f"row {first + place // dim} has a vector with a null in it")
    numbers = values.to_numpy(zero_copy_only=False)
    return np.asarray(numbers, dtype=np.float32).reshape(len(column), dim)
