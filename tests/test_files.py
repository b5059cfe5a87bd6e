"""A file is replaced whole or not at all, and a uri leads to the file that holds what it names."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash

from embedstore import files
from embedstore.errors import PathError
from embedstore.files import holder_of, read_regular, replace


@pytest.mark.parametrize(
    ("content", "stored"),
    [(b"new\n", b"new\n"), ("größer\n", "größer\n".encode()), ("", b"")],
)
@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_by_bytes_or_text(
    tmp_path: Path, content: bytes | str, stored: bytes, durable: bool
) -> None:
    """The file holds the bytes, or the text as UTF-8, whether it was there before or not; nothing lies beside it."""
    for path in (tmp_path / "old.json", tmp_path / "fresh.json"):
        (tmp_path / "old.json").write_text("old")
        replace(path, content, durable=durable)
        assert path.read_bytes() == stored
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh.json", "old.json"]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_replacement_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """When the disk is full while it is synced or renamed, the old content stays and nothing is left beside it."""
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match="No space"):
        replace(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A durable replacement syncs the file, renames it, then syncs its folder; one that need not last syncs nothing."""
    steps: list[str] = []
    sync, rename, sync_folder = os.fsync, Path.replace, files.sync_folder

    def note(name: str, act: object) -> object:
        return lambda *args: (steps.append(name), act(*args))[1]

    monkeypatch.setattr(os, "fsync", note("sync", sync))
    monkeypatch.setattr(Path, "replace", note("rename", rename))
    monkeypatch.setattr(files, "sync_folder", note("folder", sync_folder))
    replace(tmp_path / "a", b"x")
    assert steps == ["sync", "rename", "folder", "sync"]
    steps.clear()
    replace(tmp_path / "b", b"x", durable=False)
    assert steps == ["rename"]


def test_the_holder_of_a_uri_is_the_longest_path_that_is_a_file(tmp_path: Path) -> None:
    """A file is its own holder; rows and members lead to their table or archive, whatever signs stand in names."""
    holders = ["a.png", "t.parquet", "z.zip", "a#b.parquet", "c!d.zip", "hey!/a#1.png", "x!y#z.tar"]
    for name in holders:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    inside = {
        "t.parquet#12": "t.parquet",
        "z.zip!in/cat!1#2.jpg": "z.zip",
        "a#b.parquet#0": "a#b.parquet",
        "c!d.zip!cat.jpg": "c!d.zip",
        "x!y#z.tar!cat.jpg": "x!y#z.tar",
    }
    for uri, holder in {**inside, **{name: name for name in holders}}.items():
        assert holder_of(f"{tmp_path}/{uri}") == f"{tmp_path}/{holder}"


def test_what_no_file_holds_has_no_holder(tmp_path: Path) -> None:
    """Folders, files that are gone, also below folders with signs in their names, URLs and memory have none."""
    (tmp_path / "hey!").mkdir()
    (tmp_path / "d#1").mkdir()
    gone = [f"{tmp_path}/{name}" for name in ("hey!/a.png", "d#1", "d#1/b.png", "gone.zip!a.png", "gone.png")]
    for uri in (*gone, "https://example.org/a#b.png", "memory:00#2", "", "#", "!", "a\0b"):
        assert holder_of(uri) is None


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1, 3_000_000])
def test_the_checksum_of_a_file_is_xxh3_of_its_bytes(tmp_path: Path, size: int) -> None:
    """Whatever its length: as of all the bytes at once."""
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(number * number % 251 for number in range(size)))
    assert files.checksum(path) == xxhash.xxh3_128_hexdigest(path.read_bytes())


def test_sealed_fields_are_intact_in_any_order_and_spacing() -> None:
    """Not so with another value, one field more or less, or without the checksum; sealing again changes nothing."""
    fields = {"name": "Größe", "threshold": 1e-05, "sizes": [1, 2.5, None], "in": {"b": 1, "a": 2}}
    sealed = files.sealed(fields)
    assert files.sealed(sealed) == sealed
    again = json.loads(json.dumps(dict(reversed(sealed.items())), indent=3))
    assert files.is_intact(again)
    for other in ({"threshold": 2e-05}, {"more": 1}, {"in": {"b": 2, "a": 1}}, {"sizes": [2.5, 1, None]}):
        assert not files.is_intact({**again, **other})
    assert not files.is_intact({name: value for name, value in sealed.items() if name != "sizes"})
    assert not files.is_intact(fields)
    assert (files.is_sealed(sealed), files.is_sealed(fields)) == (True, False)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A pipe, a device and a folder are named as what they are, and the error travels between processes."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "link") == b"content"
    for path, kind in ((tmp_path / "pipe", "a pipe"), ("/dev/zero", "a device"), (tmp_path, "a folder")):
        with pytest.raises(PathError) as caught:
            read_regular(path)
        again = pickle.loads(pickle.dumps(caught.value))
        for error in (caught.value, again):
            assert str(error) == f"{path}: it is {kind}, not a regular file"
            assert (error.errno, error.filename) == (errno.EINVAL, str(path))
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "gone")


_MANY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from embedstore import EmbedStore, Query
import numpy as np
store = EmbedStore.open(sys.argv[1])
print(len(store.snapshot.parts), len(store.search(Query.vector(np.eye(96, dtype=np.float32)[0]), k=100)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="files are not counted so there")
def test_a_store_of_more_parts_than_files_may_be_open_is_searched(tmp_path: Path) -> None:
    """64 files, 210 parts."""
    from many_parts import PARTS, made

    made(tmp_path / "s.store")
    said = subprocess.run(
        [sys.executable, "-c", _MANY, str(tmp_path / "s.store")], capture_output=True, text=True, check=False
    )
    assert said.stdout.split() == [str(PARTS), "100"], said.stderr
