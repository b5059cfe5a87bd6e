"""Two machines on one bucket, each in processes of its own that may be killed: no lost row, none twice."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from launcher import Launcher
from PIL import Image
from s3_server import S3Server

from embedstore.store import EmbedStore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="killing many processes quickly takes fork")

PART, COMMIT = r"part-.*\.parquet", r"_delta_log/\d{20}\.json"


class Machine(Launcher):
    """A machine with a home and a cache of its own, on which `embedstore` runs in processes that can be killed."""

    def __init__(self, folder: Path, service: S3Server) -> None:
        self.environment = {
            "EMBEDSTORE_DATA_DIR": str(folder / "data"),
            "EMBEDSTORE_CACHE_DIR": str(folder / "cache"),
            "EMBEDSTORE_STATE_DIR": str(folder / "state"),
        }
        super().__init__({**service.environment(), **self.environment})


@pytest.fixture(scope="module")
def machines(s3_service: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Machine]]:
    first, second = (Machine(tmp_path_factory.mktemp(name), s3_service) for name in ("one", "two"))
    yield first, second
    first.close()
    second.close()


@pytest.fixture
def url(s3: S3Server) -> str:
    return f"{s3.bucket()}/cats.store"


def pictures(folder: Path, seed: int, number: int = 6) -> Path:
    folder.mkdir(parents=True)
    for each in range(number):
        pixels = np.random.default_rng(seed * 1000 + each).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{each:02}.png")
    return folder


def files_of(*folders: Path) -> list[str]:
    return sorted(str(file) for folder in folders for file in folder.glob("*.png"))


def rows_of(store: EmbedStore) -> list[str]:
    """Return the uris of the rows, each of which must be there once, under one id."""
    store.refresh()
    columns = store.to_table(["id", "uri"]).to_pydict()
    assert len(set(columns["id"])) == len(columns["id"]) == len(set(columns["uri"]))
    return sorted(columns["uri"])


def require_whole(store: EmbedStore, url: str) -> None:
    """Every version that has a commit can be read, every byte fits its checksum."""
    report = store.verify(deep=True)
    assert report.ok, report
    for entry in store.versions():
        older = EmbedStore.open(url, version=entry["version"])
        assert len(older.scores("a cat")[0]) == len(older)


def test_two_machines_fill_and_change_a_store_while_a_third_reads(
    url: str, s3: S3Server, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """Both make it at once, add folders that overlap, remove and compact; every answer is one of a whole version."""
    one, two = machines
    mine, theirs, both = (pictures(tmp_path / name, seed) for seed, name in enumerate(("mine", "theirs", "both")))
    told: list[str] = []
    ended, begun = threading.Event(), threading.Event()

    def read() -> None:
        try:
            begun.wait(120)
            store, versions = EmbedStore.open(url), set[int]()
            while not ended.is_set() or len(versions) < 2:
                store.refresh()
                reader = store.reader
                found = reader.search_many(["a cat", "a dog"], k=100)
                if any(sorted(one.id) != sorted(reader.rows.to_table(["id"])["id"].to_pylist()) for one in found):
                    told.append(f"version {reader.version}: {found}")
                versions.add(reader.version)
        except Exception as error:
            told.append(repr(error))
            raise

    reading = threading.Thread(target=read)
    reading.start()
    try:
        one.start("add", url, mine, both, "--model", "objects", "--quiet")
        two.start("add", url, theirs, both, "--model", "objects", "--quiet")
        assert (one.end(), two.end()) == (0, 0)
        begun.set()
        store = EmbedStore.open(url)
        assert rows_of(store) == files_of(mine, theirs, both)
        one.start("remove", url, "--where", f"uri like '{both}%'", "--quiet")
        two.start("compact", url, "--quiet")
        assert (one.end(), two.end()) == (0, 0)
        more = pictures(tmp_path / "more", 9)
        one.start("add", url, more, "--quiet")
        two.start("remove", url, "--where", f"uri like '{mine}%'", "--quiet")
        assert (one.end(), two.end()) == (0, 0)
    finally:
        begun.set()
        ended.set()
        reading.join(60)
    assert told == []
    assert rows_of(store) == files_of(theirs, more)
    require_whole(store, url)


@pytest.mark.parametrize("release_first", [True, False], ids=["late put arrives", "late put comes too late"])
def test_killed_at_every_step_of_an_add(
    release_first: bool,
    url: str,
    s3: S3Server,
    machines: tuple[Machine, Machine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGKILL around the upload of a part and around the conditional put, whose answer is lost: run again, every row is
    there once and nothing is embedded a second time. What a dead process had sent may arrive before that, or after."""
    one = machines[0]
    added = [pictures(tmp_path / "0", 100)]
    one.start("add", url, added[0], "--model", "objects", "--quiet")
    assert one.end() == 0
    for name, value in one.environment.items():
        monkeypatch.setenv(name, value)
    for step, (fault, kind, name) in enumerate(
        [
            ("hold-before", "put", PART),
            ("hold", "put", PART),
            ("hold-before", "create", COMMIT),
            ("hold", "create", COMMIT),
        ]
    ):
        added.append(pictures(tmp_path / f"{step + 1}", 200 + step, number=3))
        s3.reset()
        s3.fail(fault, kind, name, times=1)
        process = one.start("add", url, added[-1], "--quiet")
        s3.wait_held()
        os.kill(process, signal.SIGKILL)
        assert one.end() == signal.SIGKILL
        if release_first:
            s3.release()
        again = json.loads(run("add", url, added[-1], "--json", "--quiet").output)
        s3.release()
        assert (again["embedded"], again.get("failed", 0)) == (0, 0), (fault, kind)
        store = EmbedStore.open(url)
        assert rows_of(store) == files_of(*added), (fault, kind)
        assert store.info()["waiting_in_ledger"] == 0
    require_whole(store, url)


def test_killed_while_it_removes_or_compacts(
    url: str, s3: S3Server, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """Either the change is made, or nothing is; the other machine sees the same, and the next try finishes it."""
    one, two = machines
    folders = [pictures(tmp_path / str(number), 300 + number, number=2) for number in range(3)]
    for folder in folders:
        one.start("add", url, folder, "--model", "objects", "--quiet")
        assert one.end() == 0
    store = EmbedStore.open(url)
    gone: list[Path] = []
    for fault, made in (("hold-before", False), ("hold", True)):
        for words in (("compact", url), ("remove", url, "--where", f"uri like '{folders[len(gone)]}%'")):
            before = EmbedStore.open(url).version
            s3.reset()
            s3.fail(fault, "create", COMMIT, times=1)
            process = one.start(*words, "--quiet")
            s3.wait_held()
            os.kill(process, signal.SIGKILL)
            assert one.end() == signal.SIGKILL
            assert (EmbedStore.open(url).version > before) is made
            two.start(*words, "--quiet")
            assert two.end() == 0
            s3.release()
            if words[0] == "remove":
                gone.append(folders[len(gone)])
            assert rows_of(store) == files_of(*(folder for folder in folders if folder not in gone))
        added = pictures(tmp_path / f"more {fault}", 400 + len(gone), number=2)
        folders.append(added)
        two.start("add", url, added, "--quiet")  # so that there is something to compact again
        assert two.end() == 0
    require_whole(store, url)
