"""Folders, globs and files become records, with the metadata that lies beside the pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_pictures import names, png, put

from embedstore import images
from embedstore.errors import SourceError
from embedstore.sources import open_source


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
    assert source.skipped == {"hidden": 2, ".txt": 1}
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


def splits(root: Path, **options: Any) -> dict[str, Any]:
    return {os.path.relpath(record.uri, root): record.metadata.get("split") for record in open_source(root, **options)}


def test_folders_of_splits_at_the_top_are_a_column(tmp_path: Path) -> None:
    """At any depth below them, also where a row of metadata says more; one of them can be chosen."""
    for name in ("train/cat/a.png", "val/b.png", "test/deep/er/c.png", "test/train/d.png", "other/train/e.png"):
        put(tmp_path / name)
    write_metadata(tmp_path / "val", "csv", [{"file_name": "b.png", "note": "x"}])
    found = {
        "other/train/e.png": None,
        "test/deep/er/c.png": "test",
        "test/train/d.png": "test",
        "train/cat/a.png": "train",
        "val/b.png": "validation",
    }
    assert splits(tmp_path) == found
    assert splits(tmp_path, split="test") == {name: split for name, split in found.items() if split == "test"}
    with pytest.raises(SourceError, match=r"no split 'dev' in .*found test, train, validation"):
        open_source(tmp_path, split="dev")
    write_metadata(tmp_path / "val", "csv", [{"file_name": "b.png", "split": "own"}])
    assert splits(tmp_path)["val/b.png"] == "own"


def test_a_folder_that_is_called_test_is_no_split(tmp_path: Path) -> None:
    """Alone it may be anything; with another one, or called train, it is."""
    put(tmp_path / "test" / "a.png")
    put(tmp_path / "b.png")
    assert set(splits(tmp_path).values()) == {None}
    put(tmp_path / "validation" / "c.png")
    assert splits(tmp_path) == {"b.png": None, "test/a.png": "test", "validation/c.png": "validation"}


def test_what_is_passed_over_is_counted_by_kind(tmp_path: Path) -> None:
    """Hidden pictures, pictures without an ending, HEIC, and the rest by their endings; metadata in use are not."""
    put(tmp_path / "a.png")
    for name in (".b.png", "c", "d/.e.jpg", "f.heic", "g.xml", "h.XML", "README"):
        put(tmp_path / name)
    (tmp_path / "README").write_text("BMW is no picture, nor is this")
    (tmp_path / "d" / "notes").write_text("words")
    put(tmp_path / "d" / "odd.\n[31m")
    (tmp_path / "d" / "pipe").symlink_to(tmp_path / "nowhere")
    write_metadata(tmp_path, "csv", [{"file_name": "a.png", "n": 1}])
    source = open_source(tmp_path)
    expected = {"hidden": 2, "without an ending": 2, ".xml": 2, "other": 3}
    assert source.skipped == expected | ({} if ".heic" in images.SUFFIXES else {".heic": 1})


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


def test_metadata_whose_file_names_are_no_texts_are_reported(tmp_path: Path) -> None:
    """A column file_name of lists is as good as none, and one of numbers names no file; the pictures are listed."""
    put(tmp_path / "a/1.png")
    put(tmp_path / "b/2.png")
    write_metadata(tmp_path / "a", "jsonl", [{"file_name": ["1.png"], "n": 1}])
    write_metadata(tmp_path / "b", "parquet", [{"file_name": 2, "n": 1}])
    source = open_source(tmp_path)
    assert names(source, tmp_path) == ["a/1.png", "b/2.png"]
    assert "'file_name'; found n" in source.failures[0].reason
    assert "row 0 names no file" in source.failures[1].reason
