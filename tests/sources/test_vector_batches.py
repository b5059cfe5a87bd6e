"""Anything that holds vectors becomes arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedstore.errors import SourceError, SourceNotFoundError, VectorError
from embedstore.sources import vector_batches

VECTORS = np.random.default_rng(3).standard_normal((1000, 8)).astype(np.float32)


def list_column(kind: str, number: pa.DataType) -> pa.Array:
    flat = pa.array(VECTORS.astype(number.to_pandas_dtype()).ravel(), number)
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, 8)
    offsets = np.arange(0, 8001, 8)
    if kind == "large":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
@pytest.mark.parametrize("number", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("rows", [7, 300, 40_000])
def test_vectors_of_all_types(tmp_path: Path, kind: str, number: pa.DataType, rows: int) -> None:
    """Lists of every kind and width give the same numbers as their cast, row by row, with their metadata."""
    table = pa.table({"n": range(1000), "v": list_column(kind, number), "tags": [["x"]] * 1000})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=130)
    expected = VECTORS.astype(number.to_pandas_dtype()).astype(np.float32)
    for source in (tmp_path / "v.parquet", table, table.slice(0, 1000), tmp_path):
        batches = list(vector_batches(source, "v", rows))
        assert max(len(batch.vectors) for batch in batches) <= rows
        assert all(batch.vectors.dtype == np.float32 for batch in batches)
        np.testing.assert_array_equal(np.concatenate([batch.vectors for batch in batches]), expected)
        merged = pa.concat_tables([batch.metadata for batch in batches])
        assert merged.column_names == ["n", "tags"]
        assert merged["n"].to_pylist() == list(range(1000))
    assert batches[0].uris[3] == f"{tmp_path}/v.parquet#3"


def test_vectors_of_a_slice() -> None:
    """A slice of a table gives the rows of the slice."""
    table = pa.table({"v": list_column("list", pa.float32()), "n": range(1000)}).slice(100, 50)
    (batch,) = vector_batches(table, "v")
    np.testing.assert_array_equal(batch.vectors, VECTORS[100:150])
    assert batch.metadata["n"].to_pylist() == list(range(100, 150))


def test_vectors_are_not_copied() -> None:
    """float32 vectors of a table in memory are a view of its own buffer."""
    column = list_column("list", pa.float32())
    (batch,) = vector_batches(pa.table({"v": column}), "v")
    assert batch.vectors.ctypes.data == column.values.buffers()[1].address


def test_vectors_of_data_sets_frames_and_arrays(tmp_path: Path) -> None:
    """A Dataset, a pandas frame, an array and a .npy file give the same vectors, each row with its place."""
    import datasets
    import pandas

    np.save(tmp_path / "v.npy", VECTORS)
    sources = [
        datasets.Dataset.from_dict({"v": VECTORS}),
        pandas.DataFrame({"v": list(VECTORS)}),
        VECTORS,
        VECTORS.astype(np.float64),
        tmp_path / "v.npy",
    ]
    for source in sources:
        batches = list(vector_batches(source, "v", 300))
        np.testing.assert_array_equal(np.concatenate([batch.vectors for batch in batches]), VECTORS)
        rows = [uri.rpartition("#")[2] for batch in batches for uri in batch.uris]
        assert rows == [str(row) for row in range(1000)]
        assert all(len(batch.metadata) == len(batch.vectors) for batch in batches)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1.0, 2.0], [3.0, 4.0], [5.0]], "row 2 has a vector of 1 numbers, row 0 has 2"),
        ([[1.0, 2.0], None, [3.0, 4.0]], "row 1 has no vector"),
        ([[1.0, 2.0], [3.0, None], [3.0, 4.0]], "row 1 has a vector with a null"),
        (pa.array([[], []], pa.list_(pa.float32())), "row 0 has a vector of no numbers"),
        ([["a"], ["b"]], "lists of string"),
        ([1.0, 2.0], "type double"),
    ],
)
def test_bad_vectors_name_the_row(column: Any, message: str) -> None:
    """Ragged, missing, empty and non-numeric vectors are refused with the first such row."""
    with pytest.raises(VectorError, match=message):
        list(vector_batches(pa.table({"v": column}), "v"))


def test_bad_vectors_in_a_later_piece() -> None:
    """Rows are counted from the start of the table, over pieces."""
    rows = [[1.0, 2.0]] * 10 + [[1.0]]
    with pytest.raises(VectorError, match="row 10 has a vector of 1 numbers, row 8 has 2"):
        list(vector_batches(pa.table({"v": rows}), "v", rows=4))
    with pytest.raises(VectorError, match="row 4 has a vector of 1 numbers, the rows before it 2"):
        list(vector_batches(pa.table({"v": [[1.0, 2.0]] * 4 + [[1.0]] * 4}), "v", rows=4))


def test_sources_without_vectors(tmp_path: Path) -> None:
    """No such column, no such file, no rows: one clear error each."""
    table = pa.table({"v": [[1.0]], "n": [1]})
    with pytest.raises(SourceError, match=r"no column 'w'.*v \(list"):
        list(vector_batches(table, "w"))
    with pytest.raises(SourceError, match="embedding_column is needed"):
        list(vector_batches(table))
    with pytest.raises(SourceError, match="no rows"):
        list(vector_batches(table.slice(0, 0), "v"))
    with pytest.raises(SourceNotFoundError):
        list(vector_batches(tmp_path / "no.parquet", "v"))
    with pytest.raises(SourceNotFoundError, match="holds no tables"):
        list(vector_batches(tmp_path, "v"))
    with pytest.raises(VectorError, match="shape"):
        list(vector_batches(np.zeros(3)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match=r"objects\.npy"):
        list(vector_batches(tmp_path / "objects.npy"))
