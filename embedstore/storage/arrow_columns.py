"""Between Arrow's columns and NumPy's arrays, without copies and without the imports that Arrow makes on the way.

What the columns mean, and where they are stored, is left to `parts` and `rows`. `pa` is pyarrow, imported when
something of it is first used: that takes as long as a few searches of 100,000 rows, and scores need nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.errors import DamagedStoreError
from embedstore.vectors import Vectors

if TYPE_CHECKING:
    import pyarrow as pa
else:

    class _LatePyarrow:
        """Stands for the module; type checkers, and whoever asks for a name in it, meet pyarrow itself."""

        def __getattr__(self, name: str) -> Any:
            import pyarrow

            found = getattr(pyarrow, name)
            setattr(self, name, found)  # from now on without this detour
            return found

    pa = _LatePyarrow()

__all__ = ["EMBEDDING", "embedding_field", "float32_array", "int64_array", "list_array", "pa", "pick", "vectors_of"]

EMBEDDING = "embedding"
"""The column of vectors."""
_FEW_ROWS = 500


def embedding_field() -> pa.Field:
    """Return the Arrow field of the vector column: ``list<element: float32 not null> not null``."""
    return pa.field(EMBEDDING, pa.list_(pa.field("element", pa.float32(), nullable=False)), nullable=False)


def list_array(vectors: Vectors) -> pa.ListArray:
    """Return vectors as an Arrow column of the type of `embedding_field`, without a copy of the values."""
    rows, dim = vectors.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(dim))
    values = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.ListArray.from_arrays(offsets, values, type=embedding_field().type)


def pick(table: pa.Table, rows: np.ndarray[Any, Any]) -> pa.Table:
    """Return the rows of a table at these numbers, in the order given."""
    if len(rows) > _FEW_ROWS or not len(rows):
        return table.take(int64_array(rows)) if len(rows) else table.slice(0, 0)
    # `take` would import pyarrow.compute, which takes longer than a search.
    return pa.concat_tables([table.slice(int(row), 1) for row in rows]).combine_chunks()


def int64_array(values: np.ndarray[Any, Any]) -> pa.Array:
    """Return whole numbers as an Arrow array. (`pyarrow.array` would import pandas to look at its argument.)"""
    data = np.ascontiguousarray(values, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(data), [None, pa.py_buffer(data)])


def float32_array(values: np.ndarray[Any, Any]) -> pa.Array:
    """Return numbers as an Arrow array of float32; see `int64_array`."""
    data = np.ascontiguousarray(values, dtype=np.float32)
    return pa.Array.from_buffers(pa.float32(), len(data), [None, pa.py_buffer(data)])


def vectors_of(column: pa.ChunkedArray, dim: int, what: str) -> Vectors:
    """Return a list column of numbers as float32 of shape (n, dim).

    Raises
    ------
    DamagedStoreError
        A row is null or has another number of components.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = array.flatten()
    if array.null_count or values.null_count or len(values) != len(array) * dim:
        raise DamagedStoreError(
            f"{what}: the column {EMBEDDING!r} should hold {dim} numbers in every row, and does not"
        )
    try:
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(len(array), dim)
    except ValueError as error:  # damaged lengths
        raise DamagedStoreError(f"{what}: the column {EMBEDDING!r} cannot be read: {error}") from error
