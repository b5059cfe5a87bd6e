"""Stores at s3://: two machines on one bucket, which here are two pairs of folders on one."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from command_line import run
from s3_server import S3Server

from embedstore import upkeep
from embedstore.errors import (
    DamagedStoreError,
    InputError,
    StoreExistsError,
    StoreNotFoundError,
    VersionGoneError,
)
from embedstore.ingest.row_writer import recover
from embedstore.page.session import Session
from embedstore.storage import changes, log_files, mirror, table
from embedstore.storage.arrow_columns import embedding_field, list_array
from embedstore.storage.bucket import Bucket
from embedstore.storage.folder import StoreFolder, own_columns
from embedstore.storage.log_files import Log, commit_name
from embedstore.storage.mirror import MirroredLog
from embedstore.storage.parts import Part
from embedstore.storage.table import conform
from embedstore.store import EmbedStore

DIM = 32
CHANGING = {"create", "put", "delete", "start", "piece", "complete"}


class Machine:
    """A machine: a home and a cache of its own. Stores are made and opened where it is entered."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch

    @contextmanager
    def here(self) -> Iterator[None]:
        with self._patch.context() as patch:
            for name, value in self.environment().items():
                patch.setenv(name, value)
            yield

    def environment(self) -> dict[str, str]:
        return {
            "EMBEDSTORE_DATA_DIR": str(self.folder / "data"),
            "EMBEDSTORE_CACHE_DIR": str(self.folder / "cache"),
            "EMBEDSTORE_STATE_DIR": str(self.folder / "state"),
        }

    def create(self, url: str, **options: Any) -> EmbedStore:
        with self.here():
            return EmbedStore.create(url, **({"space": "mine", "dim": DIM} | options))

    def open(self, url: str, **options: Any) -> EmbedStore:
        with self.here():
            return EmbedStore.open(url, **options)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Machine]:
    return Machine(tmp_path / "one", monkeypatch), Machine(tmp_path / "two", monkeypatch)


@pytest.fixture
def url(s3: S3Server) -> str:
    return f"{s3.bucket()}/some place/cats.store"


def vectors(names: list[str]) -> np.ndarray:
    """Return the vectors of rows by name, of unit length: the same ones wherever a name is added."""
    seeds = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) for name in names]
    found = np.stack([np.random.default_rng(seed).standard_normal(DIM, dtype=np.float32) for seed in seeds])
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def put_in(store: EmbedStore, names: list[str], folder: Path) -> None:
    """Add rows of these names from a file of vectors."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{hashlib.sha256(repr(names).encode()).hexdigest()}.parquet"
    columns = {"id": names, "uri": [f"mem/{name}" for name in names], "v": vectors(names).tolist()}
    pq.write_table(pa.table({**columns, "n": [len(name) for name in names]}), file)
    store.add(file, embedding_column="v", progress=False)


def names_of(store: EmbedStore) -> list[str]:
    """Return the ids in order; each must be there once, with its own vector."""
    store.refresh()
    ids = store.to_table(["id"]).column("id").to_pylist()
    assert len(set(ids)) == len(ids)
    assert not ids or np.array_equal(store.vectors(ids), vectors(ids))
    return sorted(ids)


def digest(store: EmbedStore, query: np.ndarray) -> str:
    """Return the SHA-256 of answers: scores in the order of the ids, the nearest, and those over a threshold."""
    ids = np.array(store.to_table(["id"]).column("id").to_pylist())
    scores = np.ascontiguousarray(store.scores(query)[:, np.argsort(ids)])
    nearest, matches = store.search(query[0], k=9), store.classify(query[0], 0.1)
    said = [list(map(str, found.id)) + [float(score).hex() for score in found.score] for found in (nearest, matches)]
    return hashlib.sha256(scores.tobytes() + json.dumps(said).encode()).hexdigest()


def numbered(first: int, last: int) -> list[str]:
    return [f"row-{number:04}" for number in range(first, last)]


def test_a_store_in_a_bucket_is_a_store(
    url: str, s3: S3Server, machines: tuple[Machine, Machine], tmp_path: Path, pictures: Path
) -> None:
    """Made, filled, asked, changed on one machine and read on another, with the bits of a local store."""
    one, two = machines
    mine, local = one.create(url, space=None, dim=None, model="objects"), EmbedStore.create(tmp_path / "s", "objects")
    for store in (mine, local):
        report = store.add(pictures, label_from_folder=True, progress=False)
        assert (report.embedded, report.images) == (12, 12)
    s3.reset()
    theirs = two.open(url)
    query = local.query_vectors(["a red ball", "a dog"])
    assert digest(theirs, query) == digest(mine, query) == digest(local, query)
    assert theirs.to_table().drop_columns(["added_at"]) == local.to_table().drop_columns(["added_at"])
    assert not CHANGING & s3.counts().keys(), "opening and asking write nothing"
    assert (theirs.location, theirs.path.parent) == (url, two.folder / "data" / "stores")
    assert theirs.path.name.startswith(theirs.id)
    assert repr(theirs).startswith(f"EmbedStore({url!r}, 12 images, ")

    mine.save_classifier(mine.calibrate("a dog", "label=dog"))
    assert theirs.classifiers() == ["a dog"]
    assert theirs.classify(theirs.classifier("a dog")).id == mine.classify(mine.classifier("a dog")).id

    before = theirs.version
    assert theirs.remove(where="label = 'cat'") == 4
    mine.refresh()
    assert len(mine) == 8
    assert theirs.add(pictures / "cat", label_from_folder=True, progress=False).embedded == 0, "older versions have it"
    assert theirs.compact() == 1
    assert mine.restore(before) == theirs.version + 1
    theirs.refresh()
    assert digest(theirs, query) == digest(local, query)
    operations = [entry["operation"] for entry in two.open(url).versions()]
    assert operations == [
        f"restore of version {before}",
        "compact",
        "add",
        "remove",
        "add",
        "add column",
        "create table",
    ]
    old = two.open(url, version=before + 1)
    assert len(old) == 8
    with pytest.raises(InputError, match="opened to read version"):
        old.compact()

    report = theirs.verify(deep=True)
    assert report.ok, report
    assert report.rows == 12
    info = theirs.info()
    assert info["path"] == url
    here = info["on_this_machine"]
    assert (here["home"], here["cache"]) == (str(theirs.path), str(theirs.folder.cache))
    assert 0 < here["cached_bytes"] <= here["cache_bytes"]


def test_a_copy_is_a_store_on_the_disk_and_at_another_place(
    url: str, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """Copied down, mended, copied up: the same rows each time, and the copy goes its own way beside the first."""
    one, _ = machines
    mine = one.create(url)
    put_in(mine, numbered(0, 9), tmp_path / "rows")
    local, there = tmp_path / "copy.store", Bucket(f"{url}-2")
    for listed in Bucket(url).list():
        (local / listed.name).parent.mkdir(parents=True, exist_ok=True)
        (local / listed.name).write_bytes(Bucket(url).read(listed.name))
    shutil.rmtree(local / "images" / "_delta_log")
    upkeep.repair(local)
    copy = EmbedStore.open(local)
    put_in(copy, numbered(9, 12), tmp_path / "rows")
    assert names_of(copy) == numbered(0, 12)
    for file in filter(Path.is_file, local.rglob("*")):
        there.write(file.relative_to(local).as_posix(), file.read_bytes())
    other = one.open(there.url)
    assert names_of(other) == numbered(0, 12)
    put_in(other, numbered(12, 13), tmp_path / "rows")
    put_in(mine, numbered(20, 21), tmp_path / "rows")
    assert names_of(other) == numbered(0, 13)
    assert one.open(url.replace("s3:", "s3a:")).path == mine.path != other.path, "each has a ledger of its own"
    assert names_of(one.open(url)) == numbered(0, 9) + numbered(20, 21)


def test_of_two_makers_one_makes_the_store(url: str, machines: tuple[Machine, Machine]) -> None:
    """The other is told; what a maker left that was killed is no store, and is no hindrance."""
    one, two = machines
    with pytest.raises(StoreNotFoundError, match="is no store: there is no store"):
        one.open(url)
    half = Bucket(url)
    made = one.create(f"{url}-other").folder.images._files.folder / log_files.commit_name(0)
    half.create(f"images/_delta_log/{made.name}", made.read_bytes())
    assert not StoreFolder.is_at(url)
    found: list[Any] = []
    gate = threading.Barrier(2)

    def make(machine: Machine) -> None:
        folders = machine.environment()
        gate.wait()
        try:
            space = EmbedStore.open(f"{url}-other", cache_dir=folders["EMBEDSTORE_CACHE_DIR"]).space
            found.append(StoreFolder.create(url, space, cache_dir=folders["EMBEDSTORE_CACHE_DIR"]))
        except StoreExistsError as error:
            found.append(str(error))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, machines))
    made_by = [store for store in found if isinstance(store, StoreFolder)]
    assert len(made_by) == 1
    refused = next(text for text in found if isinstance(text, str))
    assert f"EmbedStore.open({url!r}) opens it" in refused
    assert two.open(url).id == made_by[0].id
    with pytest.raises(StoreExistsError, match="has other objects in it, such as 'cats"):
        one.create(url.rpartition("/")[0])


def test_a_store_that_got_nothing_goes_again(url: str, machines: tuple[Machine, Machine]) -> None:
    """But not where another machine has put rows into it."""
    one, two = machines
    store = one.create(url)
    put_in(two.open(url), numbered(0, 3), one.folder)
    assert not store.folder.discard_if_unused()
    assert len(two.open(url)) == 3
    other = one.create(f"{url}-2")
    below = one.create(f"{url}-2/below.store")
    Bucket(f"{url}-2").write("notes.txt", b"of somebody else")
    others = [*(f"below.store/{listed.name}" for listed in Bucket(below.location).list()), "notes.txt"]
    assert other.folder.discard_if_unused()
    assert [listed.name for listed in Bucket(f"{url}-2").list()] == others
    Bucket(f"{url}-2").delete(others)
    assert not other.path.exists()
    one.create(f"{url}-2")


def test_an_older_home_loses_no_row_that_is_paid_for(
    url: str, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """Put back from a backup, while the bucket has gone on: what is paid for from then on becomes rows."""
    folder = machines[0].create(url).folder
    paid = [f"row-{number}" for number in range(4)]

    def add(name: str) -> None:
        recover(folder)
        columns = {"id": [name], "uri": [f"mem/{name}"], "content_hash": [f"hash of {name}"]}
        row = conform(pa.table(columns), own_columns())
        folder.ledger.pay("run", row.append_column(embedding_field(), list_array(vectors([name]))))
        with folder.writing():
            folder.fold()

    for name in paid[:3]:
        add(name)
        if name == paid[0]:
            shutil.copytree(folder.path, tmp_path / "backup")
    shutil.rmtree(folder.path)
    shutil.copytree(tmp_path / "backup", folder.path)
    add(paid[3])
    assert names_of(machines[1].open(url)) == paid


def test_a_change_that_took_long_finds_its_parts_and_its_place(
    url: str, machines: tuple[Machine, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vacuum of another machine has taken its part, or the log it would stand in: it is computed again."""
    mine = machines[0].create(url)
    for number in range(3):
        put_in(mine, numbered(number, number + 1), tmp_path)
    images, bucket = mine.folder.images, Bucket(url) / "images"
    publish, older = MirroredLog.publish, mine.snapshot
    monkeypatch.setattr(table, "_LONG_SECONDS", 0)
    monkeypatch.setattr(mirror, "_LONG_SECONDS", 0)
    new_part = table.DeltaFolder.new_part
    taken: list[str] = []

    def vacuumed(*words: Any) -> Part:
        part = new_part(*words)
        if not taken:
            taken.append(part.name)
            bucket.delete(taken)
        return part

    with monkeypatch.context() as patch:
        patch.setattr(table.DeltaFolder, "new_part", vacuumed)
        mine.compact()
    assert names_of(mine) == numbered(0, 3)
    bucket.delete([older.parts[0].name])
    with pytest.raises(InputError, match="needs 1 file that vacuum has removed"):
        changes.restore(images, mine.snapshot, older)

    def slept(log: MirroredLog, staged: Log, after: int) -> list[int]:
        monkeypatch.setattr(MirroredLog, "publish", publish)
        put_in(machines[1].open(url), numbered(3, 6), tmp_path)
        now = mine.folder.images.newest_version()
        images._checkpoint(now)
        bucket.delete(f"_delta_log/{commit_name(number)}" for number in range(now))
        return publish(log, staged, after)

    monkeypatch.setattr(MirroredLog, "publish", slept)
    put_in(mine, numbered(6, 9), tmp_path)
    assert names_of(mine) == names_of(machines[1].open(url)) == numbered(0, 9)


def test_two_machines_that_change_it_at_once_come_one_after_the_other(
    url: str, s3: S3Server, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """Each change of one waits at its commit while the other makes one: no row is lost, doubled, or back."""
    one, two = machines
    mine = one.create(url)
    put_in(mine, numbered(0, 20), tmp_path)
    theirs = two.open(url)
    changes: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
        (lambda: put_in(mine, numbered(15, 30), tmp_path), lambda: put_in(theirs, numbered(25, 40), tmp_path)),
        (lambda: mine.compact(), lambda: theirs.remove(["row-0002"])),
        (lambda: put_in(mine, numbered(40, 42), tmp_path), lambda: put_in(theirs, numbered(41, 43), tmp_path)),
        (lambda: mine.remove(["row-0000", "row-0001"]), lambda: theirs.compact()),
        (lambda: mine.remove(where="id < 'row-0005'"), lambda: put_in(theirs, ["row-00001"], tmp_path)),
    ]
    for ours, rival in changes:
        s3.reset()
        s3.fail("hold-before", "create", r"_delta_log/\d{20}\.json", times=1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ours)
            s3.wait_held()
            rival()
            s3.release()
            waiting.result()
        assert names_of(mine) == names_of(theirs)
    assert names_of(mine) == numbered(5, 43)
    report = two.open(url).verify(deep=True)
    assert report.ok, report
    assert report.unnamed_parts == [], "what was written for a lost try is gone"


def test_a_lost_answer_is_recognised(url: str, s3: S3Server, machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    """The commit that was made is not made again, and not taken for another's."""
    mine = machines[0].create(url)
    put_in(mine, numbered(0, 2), tmp_path)
    before = mine.version
    s3.reset()
    s3.fail("lost", "create", r"_delta_log/\d{20}\.json")
    put_in(mine, numbered(2, 4), tmp_path)
    assert (mine.version, names_of(mine)) == (before + 1, numbered(0, 4))
    s3.reset()
    s3.fail("status", "create", r"_delta_log/\d{20}\.json", status="503 Slow Down", times=2)
    put_in(mine, numbered(4, 6), tmp_path)
    assert (mine.version, names_of(mine)) == (before + 2, numbered(0, 6))


def test_what_is_new_in_the_log_is_read_once(
    url: str, s3: S3Server, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """Also while it is so young that its time does not tell whether it was replaced."""
    put_in(machines[0].create(url), numbered(0, 2), tmp_path)
    theirs = machines[1].open(url)
    s3.reset()
    for _ in range(3):
        theirs.refresh()
    assert s3.counts() == {"list": 3}


def test_another_programs_rows_are_read(url: str, machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    """deltalake itself appends, deletes and compacts in the bucket; what we do then stands beside it."""
    import deltalake

    mine = machines[0].create(url)
    put_in(mine, numbered(0, 6), tmp_path)
    table = deltalake.DeltaTable(f"{url}/images")
    names = numbered(6, 9)
    columns = {"id": names, "uri": [f"mem/{name}" for name in names], "embedding": vectors(names).tolist()}
    kinds = pa.schema({"id": pa.string(), "uri": pa.string(), "embedding": pa.list_(pa.float32())})
    deltalake.write_deltalake(table, pa.table(columns, schema=kinds), mode="append", schema_mode="merge")
    assert names_of(mine) == names_of(machines[1].open(url)) == numbered(0, 9)
    table.update_incremental()
    table.delete("id = 'row-0004'")
    table.create_checkpoint()
    mine.compact()
    put_in(mine, numbered(9, 11), tmp_path)
    left = [name for name in numbered(0, 11) if name != "row-0004"]
    assert names_of(mine) == names_of(machines[1].open(url)) == left
    assert machines[1].open(url).verify(deep=True).ok


def test_a_commit_stands_without_its_checkpoint(
    url: str,
    s3: S3Server,
    machines: tuple[Machine, Machine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A checkpoint that the bucket refuses is a warning; the rows are there for everyone."""
    monkeypatch.setattr(table, "_CHECKPOINT_EVERY", 2)
    mine = machines[0].create(url)
    s3.reset()
    s3.fail("status", "put", "checkpoint", status="403 Forbidden", times=100)
    put_in(mine, numbered(0, 3), tmp_path)
    assert "no checkpoint of version 2 could be made" in caplog.text
    assert names_of(machines[1].open(url)) == numbered(0, 3)


def test_the_cache_is_bounded_and_the_answers_are_the_same(
    url: str, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """Five parts, room for two: every answer has the SHA-256 of a local store's, and never more lies here."""
    one, two = machines
    mine, local = one.create(url), EmbedStore.create(tmp_path / "local", space="mine", dim=DIM)
    for number in range(5):
        for store in (mine, local):
            put_in(store, numbered(number * 3000, number * 3000 + 3000), tmp_path)
    sizes = [part.size for part in mine.snapshot.parts]
    assert len(sizes) == 5
    bound = max(sizes) * 2
    small = two.open(url, cache_size=bound)
    query = vectors(["a query", "another"])
    seen: list[int] = []
    for _ in range(2):
        assert digest(small, query) == digest(local, query)
        seen.append(small.folder.images.cached_bytes())
    small.remove(["row-0001"]), local.remove(["row-0001"])
    small.compact(), local.compact()
    small.refresh(), local.refresh()
    assert digest(small, query) == digest(local, query)
    assert 0 < max(seen) <= bound
    assert len(list(small.folder.images.path.glob("*.parquet"))) <= 2


def test_the_mirror_is_made_again_and_the_bucket_is_the_truth(
    url: str, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """What was deleted or damaged here comes down again; a bucket that denies what was read there is an error."""
    one, two = machines
    mine = one.create(url)
    for number in range(4):
        put_in(mine, numbered(number, number + 1), tmp_path)
    theirs = two.open(url)
    log = theirs.folder.images._files.folder
    for spoil in (
        lambda: shutil.rmtree(theirs.folder.cache),
        lambda: (log / log_files.commit_name(1)).unlink(),
        lambda: (log / log_files.commit_name(2)).write_bytes(b"{"),
        lambda: shutil.rmtree(theirs.folder.index),
    ):
        spoil()
        assert names_of(two.open(url)) == numbered(0, 4)
    place, newest = Bucket(url) / "images/_delta_log", log_files.commit_name(mine.version)
    last = place.read(newest)
    place.delete([newest])
    with pytest.raises(
        DamagedStoreError, match=r"has an older newest version than this machine has read there.*delete"
    ):
        two.open(url)
    place.write(newest, last.replace(b"add", b"ADD"))
    with pytest.raises(DamagedStoreError, match=f"has another version {mine.version} than this machine"):
        two.open(url)
    place.delete([newest])
    shutil.rmtree(log)
    assert names_of(two.open(url)) == numbered(0, 3)


def test_a_new_machine_reads_from_the_last_checkpoint_on(
    url: str, s3: S3Server, machines: tuple[Machine, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening costs requests for what is new, and not for each change that was ever made; older versions are there."""
    monkeypatch.setattr(table, "_CHECKPOINT_EVERY", 6)
    one, two = machines
    mine = one.create(url)
    for number in range(7):
        put_in(mine, numbered(number, number + 1), tmp_path)
    assert mine.version == 8
    s3.reset()
    theirs = two.open(url)
    logs = [request.name for request in s3.requests("get") if "/_delta_log/" in request.name]
    assert {name.rpartition("/")[2].partition(".")[0].lstrip("0") for name in logs} == {
        "_last_checkpoint",
        "6",
        "7",
        "8",
    }
    assert names_of(theirs) == numbered(0, 7)
    log = theirs.folder.images._files
    assert len(log.commits()) == 3
    assert log.timestamps().keys() == log.commits().keys() == set(range(9)), "a vacuum asks what each version needs"
    assert len(theirs.versions()) == 9
    shutil.rmtree(theirs.folder.images._files.folder)
    assert names_of(two.open(url, version=3)) == numbered(0, 2)
    place = Bucket(url) / "images/_delta_log"
    place.write("_last_checkpoint", b"{")
    shutil.rmtree(theirs.folder.images._files.folder)
    assert names_of(two.open(url)) == numbered(0, 7)


def test_verify_reads_the_bucket(url: str, machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    """A missing part, a wrong byte, a damaged commit, a lost store.json are named, whatever lies here."""
    mine = machines[0].create(url)
    for number in range(3):
        put_in(mine, numbered(number * 9, number * 9 + 9), tmp_path)
    first, second, third = mine.snapshot.parts
    images = Bucket(url) / "images"
    good = images.read(second.name)
    images.write(second.name, good[:300] + bytes([good[300] ^ 1]) + good[301:])
    with machines[0].here():
        assert any(second.name in problem for problem in upkeep.verify(url, deep=True).problems)
        images.write(second.name, good)
        assert upkeep.verify(url, deep=True).ok
        images.delete([first.name])
        problems = upkeep.verify(url).problems
        assert any(first.name in problem and url in problem for problem in problems), problems
        images.write(f"_delta_log/{log_files.commit_name(2)}", b'{"add": {}}')
        problems = upkeep.verify(url).problems
        assert any("has another version 2" in problem for problem in problems), problems
        Bucket(url).delete(["store.json"])
        assert upkeep.verify(url).problems == [f"{url}/store.json is gone; restore it from a copy"]
        with pytest.raises(InputError, match="copy it down, run `embedstore repair COPY`"):
            upkeep.repair(url)
    assert third.size


def test_vacuum_deletes_in_the_bucket_what_nobody_may_need(
    url: str, machines: tuple[Machine, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not within an hour; a machine that was far behind then reads on, and one that reads an old version is told."""
    one, two = machines
    mine = one.create(url)
    for number in range(3):
        put_in(mine, numbered(number, number + 1), tmp_path)
    theirs = two.open(url)
    names_of(theirs)
    old = theirs.snapshot.parts[0].name
    mine.compact()
    put_in(mine, numbered(3, 4), tmp_path)
    with pytest.raises(InputError, match="keep the files of an hour at least"):
        mine.vacuum(0)
    assert mine.vacuum(1).files == []
    assert mine.info()["vacuum"]["files"] == 3
    now = table.time.time()
    monkeypatch.setattr(table.time, "time", lambda: now + 2 * 3600)
    assert mine.vacuum(1).files == []  # the clock of this machine is wrong: the bucket's counts
    monkeypatch.setattr(Bucket, "now", lambda _: now + 2 * 3600)
    assert len(mine.vacuum(1, dry_run=True).files) == 3
    assert len(mine.vacuum(1).files) == 3
    listed = [listed.name for listed in (Bucket(url) / "images").list()]
    assert old not in listed
    assert [name for name in listed if name.endswith(".json")] == [f"_delta_log/{log_files.commit_name(mine.version)}"]
    shutil.rmtree(theirs.folder.images.path)
    theirs.folder.images.path.mkdir()
    with pytest.raises(VersionGoneError, match="refresh"):
        theirs.scores(vectors(["x"]))
    assert names_of(theirs) == numbered(0, 4)
    assert two.open(url).verify(deep=True).ok


def test_a_url_that_holds_a_password_is_refused(url: str, machines: tuple[Machine, Machine]) -> None:
    """And the password stands in no message."""
    with pytest.raises(InputError) as told:
        machines[0].open(url.replace("s3://", "s3://me:sesame@"))
    assert "sesame" not in str(told.value)
    refused = run("info", url.replace("s3://", "s3://me:sesame@"))
    assert refused.exit_code == 1
    assert "sesame" not in refused.output


def test_columns_are_the_schema_of_every_store(url: str, machines: tuple[Machine, Machine]) -> None:
    """A store in a bucket begins as one on a disk does."""
    assert machines[0].create(url).columns == own_columns().names


def test_the_command_line_takes_a_url(
    url: str, machines: tuple[Machine, Machine], tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that names a store, with the bound and the place of its cache; and the page of `serve`."""
    for name, value in machines[0].environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def done(*words: object) -> str:
        result = run(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    cache = ("--cache-dir", tmp_path / "elsewhere", "--cache-size", "1MB")
    done("add", url, pictures, "--model", "objects", "--label-from-folder", *cache, "--quiet")
    assert (tmp_path / "elsewhere" / "stores").is_dir()
    assert json.loads(done("info", url, *cache, "--json"))["on_this_machine"]["cache_bytes"] == 1_000_000
    assert "of at most 1.0" in done("info", url, *cache)
    assert len(done("search", url, "a dog", "-n", 5).splitlines()) == 5
    assert done("calibrate", url, "a dog", "--label", "label=dog", "--name", "dogs")
    assert "dogs" in done("classifiers", url)
    assert done("classify", url, "--classifier", "dogs", "--json")
    assert done("sweep", url, "a dog", "--label", "label=dog")
    assert "12" in done("count", url, "a dog", "--threshold=-1")
    assert done("index", url, "--quiet") is not None
    before = EmbedStore.open(url).version
    assert "4 would be removed" in done("remove", url, "--where", "label = 'cat'", "--dry-run")
    assert f"embedstore restore {quote(url)} {before}" in done("remove", url, "--where", "label = 'cat'")
    assert done("restore", url, before)
    assert done("compact", url).strip() == "1 part"
    assert done("versions", url)
    assert "the store is sound" in done("verify", url, "--deep")
    assert done("vacuum", url, "--keep-hours", 1)
    refused = run("vacuum", url, "--keep-hours", 0)
    assert "--keep-hours 1" in refused.output
    assert "no number of bytes (--cache-size" in run("info", url, "--cache-size", "much").output
    (tmp_path / "a file").write_text("")
    refused = run("info", url, "--cache-dir", tmp_path / "a file")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")
    assert "a file" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert f"{url} is no store" not in done("add", url, pictures, "--quiet")
    assert f"{url}2 is no store" in run("info", f"{url}2").output
    assert f"embedstore add {quote(url + '2')} FOLDER" in run("info", f"{url}2").output
    assert f"{url} is a store, and pictures are expected" in run("add", "other.store", url, "--model", "objects").output
    done("add", "copy.store", pictures, "--model", "objects", "--reuse", url, "--quiet")
    told, _ = Session(EmbedStore.open(url)).answer("info")
    assert told["name"] == "cats.store"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("s3")]
