"""Anything that holds pictures becomes records; anything that holds vectors becomes arrays."""

from __future__ import annotations

import datetime
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embedstore import images
from embedstore.errors import ImageError, OfflineError, SourceError, SourceNotFoundError, VectorError
from embedstore.sources import Source, open_source, vector_batches


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (3, 2), value).save(buffer, "PNG")
    return buffer.getvalue()


def put(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(value))
    return path


def names(source: Source, root: Path) -> list[str]:
    return [os.path.relpath(record.uri, root) for record in source]


# Folders and files


def test_folder_is_listed_recursively_and_sorted(tmp_path: Path) -> None:
    """Pictures of all endings are found at every depth, in one order; other and hidden files are passed over."""
    wanted = ["a.PNG", "b/c/d.jpeg", "b/e.webp", "f.tif"]
    for number, name in enumerate(wanted):
        put(tmp_path / name, number)
    for name in ("notes.txt", ".hidden.png", ".cache/x.png", "._a.png"):
        put(tmp_path / name)
    source = open_source(tmp_path)
    assert names(source, tmp_path) == wanted
    assert source.count() == 4
    assert source.failures == []
    assert "4 picture files" in source.describe()
    assert "left out: 1" in source.describe()
    for number, record in enumerate(source):
        assert record.key == f"file:{record.uri}"
        assert os.path.isabs(record.uri)
        assert record.load() == png(number)


def test_relative_path_has_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has one key, whichever way its folder is named."""
    put(tmp_path / "photos/a.png")
    monkeypatch.chdir(tmp_path)
    ways = ["photos", "./photos/", str(tmp_path / "photos"), Path("photos/../photos"), "photos/*.png"]
    assert {record.key for way in ways for record in open_source(way)} == {f"file:{tmp_path}/photos/a.png"}


def test_glob_file_and_list(tmp_path: Path) -> None:
    """A pattern, a single file and a list of both work, and a file that is named twice comes once."""
    for name in ("a1.png", "a2.png", "b/a3.png", "odd.ending"):
        put(tmp_path / name)
    assert names(open_source(f"{tmp_path}/a*.png"), tmp_path) == ["a1.png", "a2.png"]
    assert names(open_source(f"{tmp_path}/**/*.png"), tmp_path) == ["a1.png", "a2.png", "b/a3.png"]
    assert names(open_source(tmp_path / "odd.ending"), tmp_path) == ["odd.ending"]
    mixed = [tmp_path / "b", tmp_path / "a2.png", str(tmp_path)]
    assert names(open_source(mixed), tmp_path) == ["b/a3.png", "a2.png", "a1.png"]


def test_path_with_brackets_is_a_path_first(tmp_path: Path) -> None:
    """A folder whose name looks like a pattern is opened as the folder that it is."""
    put(tmp_path / "cats [2024]/a.png")
    assert names(open_source(tmp_path / "cats [2024]"), tmp_path) == ["cats [2024]/a.png"]


@pytest.mark.parametrize("stem", ["with space", "new\nline", "日本語 ü", "'quoted\"", "x" * 240])
def test_odd_names(tmp_path: Path, stem: str) -> None:
    """Spaces, line breaks, other scripts and long names are names like any other."""
    path = put(tmp_path / f"{stem}.png", 5)
    (record,) = open_source(tmp_path)
    assert record.uri == str(path)
    assert record.load() == png(5)


def test_path_of_400_characters(tmp_path: Path) -> None:
    """A path of more than 400 characters is read."""
    path = put(tmp_path.joinpath(*["y" * 100] * 4, "a.png"))
    (record,) = open_source(tmp_path)
    assert len(record.uri) > 400
    assert record.uri == str(path)


def test_name_that_is_no_utf8_is_a_failure(tmp_path: Path) -> None:
    """A name that is not valid UTF-8 is reported in printable form, and the rest is listed."""
    put(tmp_path / "good.png")
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png"))).write_bytes(png(0))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    source = open_source(tmp_path)
    assert names(source, tmp_path) == ["good.png"]
    (failure,) = source.failures
    assert failure.uri.endswith("bad\\xff.png")
    assert "UTF-8" in failure.reason


def test_loops_of_links_end(tmp_path: Path) -> None:
    """Folders that link to each other are listed once; a picture link is followed; a dead one is reported."""
    put(tmp_path / "a/one.png")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "dead.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a/one.png")
    source = open_source(tmp_path)
    assert names(source, tmp_path) == ["a/one.png", "link.png"]
    assert sorted(Path(failure.uri).name for failure in source.failures) == ["dead.png", "self.png"]


def test_pipe_with_a_picture_name_is_not_waited_for(tmp_path: Path) -> None:
    """A named pipe is reported instead of being read for ever."""
    os.mkfifo(tmp_path / "pipe.png")
    put(tmp_path / "a.png")
    source = open_source(tmp_path)
    assert names(source, tmp_path) == ["a.png"]
    assert "not a regular file" in source.failures[0].reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder_is_a_failure(tmp_path: Path) -> None:
    """A folder that may not be listed is reported, and the rest is listed."""
    put(tmp_path / "a.png")
    put(tmp_path / "closed/b.png")
    (tmp_path / "closed").chmod(0)
    try:
        source = open_source(tmp_path)
        assert names(source, tmp_path) == ["a.png"]
        assert "cannot be listed" in source.failures[0].reason
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_file_that_goes_away_raises_when_loaded(tmp_path: Path) -> None:
    """A file that is deleted after listing raises OSError from its own load, and only there."""
    put(tmp_path / "a.png")
    (record,) = open_source(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError):
        record.load()


def test_label_from_folder(tmp_path: Path) -> None:
    """The folder that a file lies in becomes its label."""
    for name in ("cat/1.png", "dog/2.png", "dog/puppy/3.png"):
        put(tmp_path / name)
    labels = [record.metadata["label"] for record in open_source(tmp_path, label_from_folder=True)]
    assert labels == ["cat", "dog", "puppy"]
    assert all(record.metadata == {} for record in open_source(tmp_path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root, "is empty"),
        (lambda root: root / "missing", "there is no .*missing"),
        (lambda root: f"{root}/*.jpg", "no file matches"),
        (lambda root: [], "list is empty"),
        (lambda root: "", "found ''"),
        (lambda root: 7, "type int"),
        (lambda root: {"a": 1}, "type dict"),
    ],
)
def test_nothing_there(tmp_path: Path, make: Any, message: str) -> None:
    """An empty folder, a missing path, an empty list and things of no known kind are one clear error each."""
    with pytest.raises(SourceError, match=message):
        open_source(make(tmp_path))


def test_missing_path_is_a_file_not_found_error(tmp_path: Path) -> None:
    """``except FileNotFoundError`` catches a path that does not exist."""
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "no")


def test_folder_of_other_files_says_what_it_found(tmp_path: Path) -> None:
    """A folder without pictures names what is in it, and how to read tables."""
    (tmp_path / "a.parquet").write_bytes(b"")
    (tmp_path / "b.pdf").write_bytes(b"")
    with pytest.raises(SourceError, match=r"1 \.parquet, 1 \.pdf.*\*\.parquet"):
        open_source(tmp_path)


# Metadata beside the pictures


def write_metadata(folder: Path, kind: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if kind == "csv":
        import pyarrow.csv as pcsv

        pcsv.write_csv(table, folder / "metadata.csv")
    elif kind == "jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    else:
        pq.write_table(table, folder / "metadata.parquet")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_beside_pictures(tmp_path: Path, kind: str) -> None:
    """Each file gets the scalars of its row; files without a row get none; rows without a file are reported."""
    for name in ("1.png", "sub/2.png", "3.png", "002"):
        put(tmp_path / name)
    rows = [
        {"file_name": "1.png", "caption": 'a "small"\nball, white', "score": 0.5, "year": 2001},
        {"file_name": "sub/2.png", "caption": "ü", "score": -1.25, "year": 2002},
        {"file_name": "002", "caption": "", "score": 1e9, "year": 3},
        {"file_name": "gone.png", "caption": "x", "score": 0.0, "year": 0},
        {"file_name": "../outside.png", "caption": "x", "score": 0.0, "year": 0},
        {"file_name": "1.png", "caption": "again", "score": 0.0, "year": 0},
    ]
    put(tmp_path.parent / "outside.png")
    write_metadata(tmp_path, kind, rows)
    source = open_source(tmp_path)
    found = {os.path.relpath(record.uri, tmp_path): dict(record.metadata) for record in source}
    expected = {row["file_name"]: {k: v for k, v in row.items() if k != "file_name"} for row in rows[:3]}
    assert found == {**expected, "3.png": {}}
    reasons = {Path(failure.uri).name: failure.reason for failure in source.failures}
    assert reasons.keys() == {"gone.png", "outside.png", "1.png"}
    assert "no such file" in reasons["gone.png"]
    assert "outside the folder" in reasons["outside.png"]
    assert "second time" in reasons["1.png"]


def test_metadata_in_subfolders_and_labels(tmp_path: Path) -> None:
    """A subfolder's own metadata file is nearer; a label that it gives is kept over the folder's name."""
    put(tmp_path / "train/a.png")
    put(tmp_path / "train/b.png")
    write_metadata(tmp_path / "train", "csv", [{"file_name": "a.png", "label": "own"}])
    source = open_source(tmp_path, label_from_folder=True)
    assert [record.metadata["label"] for record in source] == ["own", "train"]
    assert [record.metadata for record in open_source(f"{tmp_path}/train/*.png")] == [{"label": "own"}, {}]


def test_metadata_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    """A metadata file without file_name, or that does not parse, is a failure; the pictures are listed."""
    put(tmp_path / "a/1.png")
    put(tmp_path / "b/2.png")
    write_metadata(tmp_path / "a", "csv", [{"name": "1.png"}])
    (tmp_path / "b/metadata.parquet").write_text("not parquet")
    source = open_source(tmp_path)
    assert names(source, tmp_path) == ["a/1.png", "b/2.png"]
    assert len(source.failures) == 2
    assert "'file_name'; found name" in source.failures[0].reason


# Tables and data sets


PICTURE_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture_table(rows: int = 5) -> pa.Table:
    """A table as Hugging Face writes it: pictures, a class label, scalars of many types, and a list."""
    features = {
        "img": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
    }
    table = pa.table(
        {
            "img": pa.array([{"bytes": png(row), "path": f"{row}.png"} for row in range(rows)]),
            "label": pa.array([row % 2 if row else -1 for row in range(rows)], pa.int64()),
            "size": pa.array(range(rows), pa.int32()),
            "day": pa.array([datetime.date(2024, 1, 1)] * rows),
            "kind": pa.array(["a"] * rows).dictionary_encode(),
            "box": pa.array([[1.0, 2.0]] * rows),
        }
    )
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


EXPECTED = [
    {"label": label, "size": row, "day": datetime.date(2024, 1, 1), "kind": "a"}
    for row, label in enumerate([None, "dog", "cat", "dog", "cat"])
]


def test_parquet_of_a_data_set(tmp_path: Path) -> None:
    """Bytes come as stored, labels as names, scalars as they are; lists are left out and mentioned."""
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


def test_file_that_is_no_table(tmp_path: Path) -> None:
    """A file that is not what its ending says is one clear error."""
    for name in ("a.parquet", "a.arrow", "a.jsonl"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(SourceError, match=name):
            open_source(tmp_path / name)


def test_tables_in_memory_are_known_by_content() -> None:
    """A pyarrow table, a pandas and a Polars frame give the same keys, also when shuffled; repeats are numbered."""
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
    shuffled = [record.key for record in open_source(table.take([1, 2, 0]))]
    assert sorted(shuffled) == sorted(key for key, _ in found[0])


def hf_dataset(rows: int = 4) -> Any:
    import datasets

    features = datasets.Features(
        {
            "photo": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "tags": datasets.List(datasets.Value("string")),
            "n": datasets.Value("int16"),
        }
    )
    columns = {
        "photo": [{"bytes": png(row), "path": None} for row in range(rows)],
        "label": [row % 2 for row in range(rows)],
        "tags": [["x"]] * rows,
        "n": list(range(rows)),
    }
    return datasets.Dataset.from_dict(columns, features=features)


def test_hugging_face_dataset_object() -> None:
    """A Dataset gives its stored bytes, also where a format is set, and as a stream without a known length."""
    dataset = hf_dataset()
    expected = [({"label": "cat" if row % 2 == 0 else "dog", "n": row}, png(row)) for row in range(4)]
    stream = dataset.to_iterable_dataset()
    for form in (dataset, dataset.with_format("numpy"), stream):
        source = open_source(form)
        assert [(record.metadata, record.load()) for record in source] == expected
        assert source.count() == (None if form is stream else 4)
    chosen = open_source(dataset.select([2, 0]))
    assert [record.metadata["n"] for record in chosen] == [2, 0]
    assert {record.key for record in chosen} < {record.key for record in open_source(dataset)}


def test_hugging_face_splits_and_disk(tmp_path: Path) -> None:
    """All splits come with a column ``split``, or one of them; a saved data set gives lasting keys."""
    import datasets

    both = datasets.DatasetDict({"train": hf_dataset(3), "test": hf_dataset(2)})
    assert [record.metadata["split"] for record in open_source(both)] == ["train"] * 3 + ["test"] * 2
    assert open_source(both).count() == 5
    assert len(list(open_source(both, split="test"))) == 2
    with pytest.raises(SourceError, match="no split 'dev'; found train, test"):
        open_source(both, split="dev")
    both.save_to_disk(tmp_path / "saved")
    records = list(open_source(tmp_path / "saved"))
    assert [record.key for record in records[3:]] == [f"file:{tmp_path}/saved:test#{row}" for row in range(2)]
    assert [record.load() for record in records[3:]] == [png(0), png(1)]
    hf_dataset(1).save_to_disk(tmp_path / "single")
    assert [record.key for record in open_source(tmp_path / "single")] == [f"file:{tmp_path}/single#0"]


def test_hub_name_offline() -> None:
    """With the network switched off, a data set that is not in the cache is an error that names the switch."""
    code = (
        "from embedstore.sources import open_source\n"
        "for name in ('hf://nobody/nothing-here', 'nobody/nothing-here:test'):\n"
        "    try: open_source(name)\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    environment = os.environ | {"EMBEDSTORE_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    lines = [line for line in run.stdout.splitlines() if "Error" in line]
    assert len(lines) >= 2
    assert all("OfflineError" in line and "EMBEDSTORE_OFFLINE" in line for line in lines[:2])


def test_mistyped_folder_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing path below a folder that exists is a missing path, not the name of a data set."""
    put(tmp_path / "photos/cats/a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceNotFoundError, match="photos/catz"):
        open_source("photos/catz")


# Archives


def test_archives(tmp_path: Path) -> None:
    """Zip, tar and compressed tar give the same pictures in their own order, with folders as labels."""
    members = {"cat/2.png": png(2), "dog/1.png": png(1), "readme.txt": b"x", "dog/._1.png": b"x"}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")):
        with tarfile.open(tmp_path / name, mode) as archive:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    for name in ("a.zip", "a.tar", "a.tar.gz", "a.tar.xz"):
        source = open_source(tmp_path / name, label_from_folder=True)
        records = list(source)
        assert [record.key for record in records] == [
            f"tar:{tmp_path}/{name}!cat/2.png",
            f"tar:{tmp_path}/{name}!dog/1.png",
        ]
        assert [record.load() for record in records] == [png(2), png(1)]
        assert [record.metadata["label"] for record in records] == ["cat", "dog"]
        assert source.count() in (2, None)


def test_damaged_archives(tmp_path: Path) -> None:
    """A file that is no archive, and an archive without pictures, are errors; a damaged member is one failure."""
    for name in ("a.zip", "a.tar", "a.tar.gz"):
        (tmp_path / name).write_bytes(b"no archive at all" * 100)
        with pytest.raises(SourceError, match="no readable archive"):
            open_source(tmp_path / name)
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png(1))
    data = path.read_bytes()
    path.write_bytes(data.replace(png(1)[20:30], b"0123456789"))
    (record,) = open_source(path)
    with pytest.raises(ImageError, match="cannot be unpacked"):
        record.load()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(SourceError, match="holds no pictures"):
        open_source(path)


# The web


class Server(http.server.BaseHTTPRequestHandler):
    """Serves a picture; /busy fails twice; /short breaks off; /secret wants a name and a password."""

    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.path == "/busy.png" and self.requests.count(self.path) < 3:
            self.send_error(503)
        elif self.path == "/missing.png":
            self.send_error(404)
        elif self.path == "/secret.png" and self.headers["Authorization"] != "Basic bWU6cGFzcw==":
            self.send_error(401)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(png(7)) + (5 if self.path == "/short.png" else 0)))
            self.end_headers()
            self.wfile.write(png(7))

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on this machine, with the network switch off: downloads are asked for by URL, wherever it leads."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "0")
    Server.requests = []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_urls_are_downloaded_when_loaded(tmp_path: Path, server: str) -> None:
    """A list of URLs and paths in a text file is listed without a request; loading downloads; repeats come once."""
    put(tmp_path / "local.png", 3)
    lines = ["# remark", f"http://{server}/a.png", "", "local.png", f"http://{server}/a.png"]
    (tmp_path / "urls.txt").write_text("\n".join(lines))
    records = list(open_source(tmp_path / "urls.txt"))
    assert Server.requests == []
    assert [record.uri for record in records] == [f"{tmp_path}/local.png", f"http://{server}/a.png"]
    assert [record.load() for record in records] == [png(3), png(7)]
    assert Server.requests == ["/a.png"]


def test_busy_server_is_asked_again(server: str) -> None:
    """A server that is busy is asked three times; one that says no is asked once."""
    (record,) = open_source(f"http://{server}/busy.png")
    assert record.load() == png(7)
    assert len(Server.requests) == 3
    (record,) = open_source([f"http://{server}/missing.png"])
    with pytest.raises(OSError, match="404"):
        record.load()
    assert len(Server.requests) == 4


def test_short_download_is_no_picture(server: str) -> None:
    """A download that breaks off is an OSError, not half a picture."""
    (record,) = open_source(f"http://{server}/short.png")
    with pytest.raises(OSError, match=r"stopped|IncompleteRead"):
        record.load()


def test_passwords_of_urls_are_used_and_not_kept(server: str) -> None:
    """Name and password in a URL are sent, and appear in no key, uri or error."""
    (record,) = open_source(f"http://me:pass@{server}/secret.png")
    assert record.load() == png(7)
    assert "pass" not in record.key + record.uri
    (record,) = open_source(f"http://me:wrong@{server}/secret.png")
    with pytest.raises(OSError, match="401") as caught:
        record.load()
    assert "wrong" not in str(caught.value)


def test_urls_offline(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the network switched off no request is made, and the error says so."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    (record,) = open_source(f"http://{server}/a.png")
    with pytest.raises(OfflineError, match=r"downloading from 127\.0\.0\.1"):
        record.load()
    assert Server.requests == []


# In memory


def test_pictures_in_memory() -> None:
    """Images, arrays and bytes are named by what they show; equal pictures are two records."""
    image = Image.new("RGB", (4, 3), "red")
    items = [image, np.asarray(image), png(1), bytearray(png(1))]
    records = list(open_source(items))
    first, second = images.content_hash(image), hashlib.sha256(png(1)).hexdigest()
    assert [record.key for record in records] == [
        f"memory:{first}",
        f"memory:{first}#2",
        f"memory:{second}",
        f"memory:{second}#2",
    ]
    for record, digest in zip(records, [first, first, second, second], strict=True):
        assert images.read(record.load()).content_hash == digest


def test_single_picture_batch_of_arrays_and_mixed_list(tmp_path: Path) -> None:
    """One image, an array of many pictures, and a list of files and images are all sources."""
    assert len(list(open_source(Image.new("L", (2, 2))))) == 1
    batch = np.zeros((5, 4, 4, 3), np.uint8)
    assert len(list(open_source(batch))) == 5
    records = list(open_source([Image.new("L", (2, 2)), put(tmp_path / "a.png")]))
    assert [record.key.partition(":")[0] for record in records] == ["file", "memory"]


def test_bad_array_in_a_list_is_a_failure() -> None:
    """An array that is no picture is one failure that names its place; the others are listed."""
    source = open_source([np.zeros((2, 2)), np.zeros(7), png(1)])
    assert len(list(source)) == 2
    assert [failure.uri for failure in source.failures] == ["memory: item 1"]


def test_sources_can_be_iterated_again(tmp_path: Path) -> None:
    """A second pass gives the same keys as the first."""
    put(tmp_path / "a.png")
    table = pa.table({"image": [png(1), png(1)]})
    for source in (open_source([tmp_path, png(1), png(1), table]), open_source(hf_dataset())):
        assert [record.key for record in source] == [record.key for record in source]


def test_split_and_embedding_column_where_they_mean_nothing(tmp_path: Path) -> None:
    """A split of a folder is refused, and a column of vectors is sent to vector_batches."""
    put(tmp_path / "a.png")
    with pytest.raises(SourceError, match="split"):
        open_source(tmp_path, split="train")
    with pytest.raises(SourceError, match="vector_batches"):
        open_source(tmp_path, embedding_column="vector")


# Vectors


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
        assert merged.column_names == ["n"]
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
    """A Dataset, a pandas frame, an array and a .npy file give the same vectors; ids become a column."""
    import datasets
    import pandas

    np.save(tmp_path / "v.npy", VECTORS)
    ids = [f"row {row}" for row in range(1000)]
    sources = [
        datasets.Dataset.from_dict({"v": VECTORS}),
        pandas.DataFrame({"v": list(VECTORS)}),
        VECTORS,
        VECTORS.astype(np.float64),
        tmp_path / "v.npy",
    ]
    for source in sources:
        batches = list(vector_batches(source, "v", 300, ids=ids))
        np.testing.assert_array_equal(np.concatenate([batch.vectors for batch in batches]), VECTORS)
        assert [name for batch in batches for name in batch.metadata["id"].to_pylist()] == ids
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
    """No such column, no such file, no rows, a wrong number of ids: one clear error each."""
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
    for ids in ([], ["a", "b"]):
        with pytest.raises(SourceError, match="ids were given"):
            list(vector_batches(table, "v", ids=ids))
    with pytest.raises(VectorError, match="shape"):
        list(vector_batches(np.zeros(3)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match=r"objects\.npy"):
        list(vector_batches(tmp_path / "objects.npy"))
