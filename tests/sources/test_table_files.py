"""Tables become records, in files of every format and in memory."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_pictures import PICTURE_STRUCT, picture_table, png, put

from embedstore.errors import ImageError, SourceError
from embedstore.sources import open_source

EXPECTED = [
    {"label": label, "size": row, "day": datetime.date(2024, 1, 1), "kind": "a", "box": "[1.0, 2.0]"}
    for row, label in enumerate([None, "dog", "cat", "dog", "cat"])
]


def test_parquet_of_a_data_set(tmp_path: Path) -> None:
    """Bytes come as stored, labels as names, scalars as they are; lists are JSON."""
    path = tmp_path / "test.parquet"
    pq.write_table(picture_table(), path, row_group_size=2)
    source = open_source(path)
    records = list(source)
    assert [record.load() for record in records] == [png(row) for row in range(5)]
    assert [record.metadata for record in records] == EXPECTED
    assert [record.key for record in records] == [f"file:{path}#{row}" for row in range(5)]
    assert source.count() == 5
    assert "'img'" in source.describe()
    assert "box" in source.describe()


def test_many_rows_keep_their_numbers(tmp_path: Path) -> None:
    """Over several pieces every row keeps its own number, picture and metadata."""
    path = tmp_path / "many.parquet"
    pq.write_table(picture_table(200), path, row_group_size=30)
    for row, record in enumerate(open_source(path)):
        assert record.key.endswith(f"#{row}")
        assert (record.metadata["size"], record.load()) == (row, png(row))
    assert row == 199


@pytest.mark.parametrize("form", ["file", "stream"])
def test_arrow_files(tmp_path: Path, form: str) -> None:
    """Arrow files in both formats give the same records as Parquet."""
    path, table = tmp_path / "data.arrow", picture_table()
    write = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with write(path, table.schema) as writer:
        writer.write_table(table)
    records = list(open_source(path))
    assert [record.metadata for record in records] == EXPECTED
    assert [record.load() for record in records] == [png(row) for row in range(5)]


def test_plain_binary_column_and_null_pictures(tmp_path: Path) -> None:
    """A binary column is found without any hint; a row without a picture is reported by its number."""
    path = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"data": pa.array([png(0), None, png(2)]), "n": [0, 1, 2]}), path)
    source = open_source(path)
    assert [(record.metadata["n"], record.load()) for record in source] == [(0, png(0)), (2, png(2))]
    (failure,) = source.failures
    assert failure.uri == f"{path}#1"
    list(source)
    assert len(source.failures) == 1


def test_tables_of_paths(tmp_path: Path) -> None:
    """JSON lines and CSV with a column of paths, relative to the table, load those files."""
    put(tmp_path / "sub/a.png", 9)
    (tmp_path / "list.jsonl").write_text(json.dumps({"image": "sub/a.png", "stars": 4}))
    (tmp_path / "list.csv").write_text("path,stars\nsub/a.png,4\n")
    for name in ("list.jsonl", "list.csv"):
        (record,) = open_source(tmp_path / name)
        assert record.load() == png(9)
        assert record.metadata == {"stars": 4}


def test_every_row_has_a_uri_of_its_own(tmp_path: Path) -> None:
    """Where rows name files, the uri is the file; a second row of the same file is told by table and row."""
    path = put(tmp_path / "a.png", 1)
    (tmp_path / "list.csv").write_text("path,stars\na.png,4\na.png,5\n")
    uris = [record.uri for record in open_source(tmp_path / "list.csv")]
    assert uris == [str(path), f"{tmp_path}/list.csv#1"]
    table = pa.table({"image": [{"bytes": png(1), "path": "x.png"}, {"bytes": png(2), "path": "x.png"}]})
    pq.write_table(table, tmp_path / "same.parquet")
    for source in (table, tmp_path / "same.parquet"):
        assert len({record.uri for record in open_source(source)}) == 2


def test_pictures_that_lie_beside_a_table(tmp_path: Path) -> None:
    """Structs with a path and no bytes load the file at that path."""
    put(tmp_path / "sub/a.png", 6)
    table = pa.table({"image": pa.array([{"bytes": None, "path": "sub/a.png"}], PICTURE_STRUCT)})
    pq.write_table(table, tmp_path / "t.parquet")
    (record,) = open_source(tmp_path / "t.parquet")
    assert record.uri == f"{tmp_path}/sub/a.png"
    assert record.load() == png(6)


def test_image_column_must_be_clear(tmp_path: Path) -> None:
    """Two columns of bytes need a choice; a choice that is not there, or no column at all, is an error."""
    path = tmp_path / "two.parquet"
    pq.write_table(pa.table({"x": [png(1)], "y": [png(2)], "n": [1]}), path)
    with pytest.raises(SourceError, match="x, y"):
        open_source(path)
    (record,) = open_source(path, image_column="y")
    assert record.load() == png(2)
    with pytest.raises(SourceError, match=r"no column 'z'.*found x"):
        open_source(path, image_column="z")
    (record,) = open_source(path, image_column="n")
    with pytest.raises(ImageError, match="int64"):
        record.load()
    pq.write_table(pa.table({"n": [1]}), path)
    with pytest.raises(SourceError, match="no column holds pictures"):
        open_source(path)


def test_columns_of_one_name(tmp_path: Path) -> None:
    """Two columns of metadata with the same name are one clear error, before any row is read."""
    (tmp_path / "list.csv").write_text("path,stars,stars\na.png,4,5\n")
    with pytest.raises(SourceError, match="same name: stars, stars"):
        open_source(tmp_path / "list.csv")


def test_file_that_is_no_table(tmp_path: Path) -> None:
    """A file that is not what its ending says is one clear error."""
    for name in ("a.parquet", "a.arrow", "a.jsonl"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(SourceError, match=name):
            open_source(tmp_path / name)


def test_tables_in_memory_are_known_by_content() -> None:
    """Pyarrow, pandas and Polars give the same keys, also when shuffled; repeats are numbered, uris tell the row."""
    import polars

    table = pa.table({"image": [png(1), png(2), png(1)], "n": [10, 20, 30]})
    forms = [table, table.to_pandas(), polars.from_arrow(table)]
    found = [[(record.key, record.metadata["n"]) for record in open_source(form)] for form in forms]
    assert found[0] == found[1] == found[2]
    digest = hashlib.sha256(png(1)).hexdigest()
    assert [key for key, _ in found[0]] == [
        f"table:{digest}",
        f"table:{hashlib.sha256(png(2)).hexdigest()}",
        f"table:{digest}#2",
    ]
    assert [record.uri.partition("#")[2] for record in open_source(table)] == ["0", "1", "2"]
    assert [record.uri for record in open_source(table)][::2] == [f"table:{digest[:16]}#0", f"table:{digest[:16]}#2"]
    shuffled = [record.key for record in open_source(table.take([1, 2, 0]))]
    assert sorted(shuffled) == sorted(key for key, _ in found[0])
