"""A store is made whole or not at all: killed, on a full disk, or by two at once, the same command goes on."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedstore import files
from embedstore.errors import InputError, StoreExistsError, StoreNotFoundError
from embedstore.space import Space
from embedstore.storage.folder import StoreFolder
from embedstore.store import EmbedStore

SPACE = Space.given("own", 3)


def make(path: Path) -> StoreFolder:
    made = StoreFolder.create(path, SPACE)
    assert made.id == StoreFolder.open(path).id
    assert made.snapshot().rows == 0
    return made


def left_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("name", ["a.store", "deep/er/a.store", "[a]*?.store", "größe", "n" * 250, ".hidden"])
def test_a_new_store_is_all_that_is_there(tmp_path: Path, name: str) -> None:
    """Parents are made, any name will do, and nothing lies beside."""
    made = make(tmp_path / name)
    assert left_in(made.path.parent) == [made.path.name]
    assert {"classifiers", "images", "index", "ledger.sqlite", "store.json"} <= set(left_in(made.path))
    assert not [name for name in left_in(made.path) if name.startswith(".")]


def test_an_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    """Also where a link leads to it, or to nothing yet: the link stays."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "ahead").symlink_to(tmp_path / "nothing")
    for name in ("link", "ahead"):
        make(tmp_path / name)
        assert (tmp_path / name).is_symlink()
    assert left_in(tmp_path) == ["ahead", "empty", "link", "nothing"]


@pytest.fixture(params=["beside", "inside"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path for a store; inside: an empty folder that nothing can be renamed over, such as a volume."""
    path = tmp_path / "a.store"
    if request.param == "inside":
        path.mkdir()
        monkeypatch.setattr("os.path.ismount", lambda other: Path(other) == path)
    return path


@pytest.mark.parametrize("step", ["sync_folder", "fsync", "mkdir", "rename"])
def test_a_creation_that_fails_anywhere_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """At each call of each step in turn: the disk is full, the error goes out, and the same call then works."""
    owner, name = {
        "sync_folder": (files, "sync_folder"),
        "fsync": (os, "fsync"),
        "mkdir": (Path, "mkdir"),
        "rename": (Path, "rename"),
    }[step]
    real: Callable[..., object] = getattr(owner, name)
    before = left_in(place.parent)
    told: set[int | None] = set()
    for failing in range(100):
        calls = itertools.count()

        def some(*args: object, n: int = failing, calls: itertools.count[int] = calls, **options: object) -> object:
            if next(calls) == n:
                raise OSError(28, "No space left on device")
            return real(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, some)
            try:
                StoreFolder.create(place, SPACE)
                break
            except OSError as error:
                told.add(error.errno)
        if StoreFolder.is_at(place):  # it was in place already when the last sync failed
            assert StoreFolder.open(place).snapshot().rows == 0
            assert StoreFolder.open(place).discard_if_unused()
        assert left_in(place.parent) == before
    assert told == {28}
    assert StoreFolder.open(place).snapshot().rows == 0


KILLED = """
import itertools, os, signal, sys
from pathlib import Path
from embedstore.space import Space
from embedstore.storage.folder import StoreFolder
path, inside, last = Path(sys.argv[1]), sys.argv[2] == "inside", int(sys.argv[3])
if inside:
    os.path.ismount = lambda other: Path(other) == path
calls = itertools.count()
def stop(event, args):
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and next(calls) == last:
        os.kill(os.getpid(), signal.SIGKILL)
StoreFolder.require_free(path)  # imports are done
import deltalake, filelock, sqlite3
sys.addaudithook(stop)
StoreFolder.create(path, Space.given("own", 3))
"""


def test_a_killed_creation_does_not_stop_the_next(place: Path) -> None:
    """Killed at every fourth call that opens, makes, renames or deletes: the next makes the store, and clears up."""
    inside = "inside" if place.exists() else "beside"
    for last in range(0, 700, 4):
        words = [sys.executable, "-c", KILLED, str(place), inside, str(last)]
        code = subprocess.run(words, timeout=60, check=False).returncode
        assert code in (0, -signal.SIGKILL)
        if code == 0:
            break
        if StoreFolder.is_at(place):
            assert StoreFolder.open(place).snapshot().rows == 0
        else:
            make(place)
            assert left_in(place.parent) == [place.name]
            assert not [name for name in left_in(place) if name.startswith(".")]
        assert StoreFolder.open(place).discard_if_unused()
    assert last > 20


def test_what_is_something_else_is_refused_and_stays(tmp_path: Path) -> None:
    """A file, a folder with a file, a store; and a folder of the user's with what looks like a part of a store."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "full" / "images").mkdir(parents=True)
    make(tmp_path / "a.store")
    for name in ("file", "full", "a.store"):
        with pytest.raises(StoreExistsError):
            StoreFolder.create(tmp_path / name, SPACE)
    assert left_in(tmp_path) == ["a.store", "file", "full"]
    (tmp_path / "full" / ".making-12345678").mkdir()
    (tmp_path / "full" / "letters").mkdir()
    with pytest.raises(StoreExistsError):
        StoreFolder.create(tmp_path / "full", SPACE)
    assert left_in(tmp_path / "full") == [".making-12345678", "images", "letters"]


def test_of_many_at_once_one_makes_the_store(tmp_path: Path) -> None:
    """Eight processes that make a store on one path: one does, the others are told that it is a store already."""
    program = f"""
import sys
from pathlib import Path
from embedstore.errors import StoreExistsError
from embedstore.space import Space
from embedstore.storage.folder import StoreFolder
sys.stdin.readline()
try:
    print(StoreFolder.create(Path({str(tmp_path / "a.store")!r}), Space.given("own", 3)).id)
except StoreExistsError as error:
    print("exists" if "is a store already" in str(error) else error)
"""
    words = [sys.executable, "-c", program]
    started = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].strip() for process in started]
    assert said.count("exists") == 7
    assert [one for one in said if one != "exists"] == [StoreFolder.open(tmp_path / "a.store").id]
    assert left_in(tmp_path) == ["a.store"]


def test_an_unused_store_is_discarded_and_a_used_one_is_not(tmp_path: Path) -> None:
    """Somebody who works on it keeps it."""
    made = make(tmp_path / "a.store")
    with made.running.begun():
        assert not StoreFolder.open(made.path).discard_if_unused()
    assert made.discard_if_unused()
    assert left_in(tmp_path) == []
    with pytest.raises(StoreNotFoundError):
        StoreFolder.open(made.path)


@pytest.mark.parametrize(
    "name", ["s3:x", "file:x", "C:", "~", "a%", "100%zz", "a b", "q?x=1#y", "größe", "[x]*", " a ", "..a", "http:", "é"]
)
def test_a_store_works_at_a_path_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also a relative one: added to, searched, compacted, vacuumed and opened again; nothing lies beside."""
    monkeypatch.chdir(tmp_path)
    x = np.eye(3, dtype=np.float32)
    store = EmbedStore.create(name, space="own", dim=3)
    for number in range(3):
        column = pa.FixedSizeListArray.from_arrays(pa.array(x[number]), 3)
        store.add(pa.table({"id": [str(number)], "v": column}), embedding_column="v", progress=False)
    assert store.remove(["2"]) == 1
    assert store.compact() == 1
    assert len(store.vacuum(0).files) == 3
    again = EmbedStore.open(name)
    assert again.search(x[1], k=1).id == ["1"]
    assert again.verify(deep=True).ok
    assert len(EmbedStore.open(tmp_path / name)) == 2
    assert left_in(tmp_path) == [name]


@pytest.mark.parametrize(
    "name", ["a%20b", "%41", "a%2fb", "back\\slash", "new\nline", "tab\t", "\x01", "\x7f", "\udcff"]
)
def test_a_path_that_would_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    """Creation says why and makes nothing, also below such a folder; a store moved there is not read wrongly."""
    with pytest.raises(InputError, match="rename the folder"):
        EmbedStore.create(tmp_path / name / "a.store", space="own", dim=3)
    with pytest.raises(InputError, match="rename the folder"):
        EmbedStore.create(tmp_path / name, space="own", dim=3)
    assert left_in(tmp_path) == []
    make(tmp_path / "a.store")
    (tmp_path / "a.store").rename(tmp_path / name)
    with pytest.raises(InputError, match="rename the folder"):
        StoreFolder.open(tmp_path / name).images.versions()
