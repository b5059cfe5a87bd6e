"""What a new process imports before it answers: a first search takes about as long as its imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedstore import EmbedStore
from embedstore.storage import folder, parts

CODE = """
import sys
import numpy as np
from embedstore import EmbedStore

def loaded():
    return {"pyarrow", "pyarrow.parquet", "pyarrow.fs", "ssl", "faiss", "duckdb"} & set(sys.modules)

store = EmbedStore.open(sys.argv[1])
query = np.eye(8, dtype=np.float32)[0]
matches = store.search(query, k=3)
assert len(store) == 20 and len(matches) == 3 and len(store.scores(query)[0]) == 20
assert matches.score[0] >= matches.score[1] and store.count(query, 0.0) > 0
assert loaded() == set(), loaded()
assert len(matches.uri) == 3 and matches[0]["label"] in (0, 1, 2)
assert loaded() == {"pyarrow"}, loaded()
"""


def test_scores_need_no_pyarrow_and_rows_no_file_systems(tmp_path: Path) -> None:
    """A store is opened, searched and counted without pyarrow; to read rows without `pyarrow.parquet` and SSL."""
    vectors = np.random.default_rng(0).standard_normal((20, 8), dtype=np.float32)
    store = EmbedStore.create(tmp_path / "s", space="mine", dim=8)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8)
    table = pa.table({"vector": lists, "label": [n % 3 for n in range(20)]})
    store.add(table, embedding_column="vector", normalise=True, progress=False)
    subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "s")], check=True)


@pytest.mark.parametrize("private", [True, False])
def test_rows_are_read_as_parquet_file_reads_them(
    tmp_path: Path, private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nested columns and names with a point in them too; also where pyarrow has moved its reader."""
    table = pa.table(
        {
            "id": [f"{n}" for n in range(9)],
            "id2": list(range(9)),
            "list": [[n, None] for n in range(9)],
            "struct": [{"a": n, "b": {"c": "x" * n}} for n in range(9)],
            "camera.model": [None, "X100", "X200"] * 3,
        }
    )
    part = parts.write(tmp_path / "a.parquet", iter([(table, np.zeros((9, 4), np.float32))]), table.schema, 4)
    if not private:
        monkeypatch.setitem(sys.modules, "pyarrow._parquet", None)
    wanted = [8, 0, 0, 3]
    for columns in (["id"], ["list", "id"], ["struct"], ["camera.model", "id2"], ["id", "gone"]):
        found = part.read_rows(wanted, columns)
        expected = pq.read_table(part.path, columns=[name for name in columns if name != "gone"]).take(wanted)
        assert found.select(expected.column_names).to_pylist() == expected.to_pylist()
        assert set(found.column_names) == set(expected.column_names)


def test_the_columns_of_a_snapshot_are_those_of_the_log(tmp_path: Path) -> None:
    """Read late from the layout note they are what the log says, a store's own first."""
    store = EmbedStore.create(tmp_path / "s", space="mine", dim=8)
    store.add(pa.table({"vector": [[1.0] + [0.0] * 7], "label": ["x"]}), embedding_column="vector", progress=False)
    noted = EmbedStore.open(tmp_path / "s").snapshot
    assert isinstance(noted.columns, bytes)
    for note in (tmp_path / "s" / "index").glob("images.json"):
        note.unlink()
    logged = EmbedStore.open(tmp_path / "s").snapshot
    assert not isinstance(logged.columns, bytes)
    assert noted.schema == logged.schema
    assert folder.own_columns().names == noted.schema.names[: len(folder.own_columns())]
