"""Everything that goes wrong between a store and Atlas: no run reports a success that the server contradicts."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from atlas_stores import NAME, require_whole, vector_store

from embedstore.atlas import apply_sync, plan_sync, pull
from embedstore.atlas.answers import AtlasTransport, Pauses
from embedstore.errors import AtlasError
from embedstore.store import EmbedStore
from embedstore.testing import KINDS, OF_VECTORS, Fault, Kind, NomicServer

ADD = "/v1/project/data/add/arrow"
OF_ATLAS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind not in OF_VECTORS)


@pytest.fixture
def store(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "s.store", 90)


def sync(store: EmbedStore, timeout: float = 8.0, shard_rows: int = 30, **options: Any) -> Any:
    plan = plan_sync(store, NAME, create=True, timeout=timeout, shard_rows=shard_rows, **options)
    return apply_sync(plan)


@pytest.mark.parametrize("kind", OF_ATLAS)
def test_an_upload_that_fails(server: NomicServer, store: EmbedStore, kind: Kind) -> None:
    """After each kind of fault of an upload the dataset is whole, and no row was stored twice."""
    server.faults.script([None, kind], path=ADD)
    assert sync(store).sent == 90
    require_whole(server.atlas.dataset("photos"), store)
    assert server.faults.left == 0


@pytest.mark.parametrize("kind", OF_ATLAS)
def test_any_request_that_fails(server: NomicServer, store: EmbedStore, kind: Kind) -> None:
    """Whichever request meets a fault, the first one or a later one, the sync goes through."""
    for place in (0, 4, 9):
        name = f"stand-in/photos-{place}"
        server.faults.script([None] * place + [kind], path="/v1/")
        plan = plan_sync(store, name, create=True, timeout=4.0, shard_rows=60)
        assert apply_sync(plan).sent == 90
        require_whole(server.atlas.dataset(f"photos-{place}"), store)


@pytest.mark.parametrize("strings", [False, True])
def test_conflict(server: NomicServer, store: EmbedStore, strings: bool) -> None:
    """Rows that get there between plan and upload cost a conflict; only the others are sent again."""
    plan = plan_sync(store, NAME, create=True, timeout=8.0, shard_rows=30)
    sync(EmbedStore.open(store.path), where="number < 37")
    plan.dataset_id, plan.total = server.atlas.dataset("photos").id, 0
    server.atlas.string_bodies = strings
    before = server.atlas.received["photos"]
    report = apply_sync(plan)
    assert (report.sent, report.refused) == (90, 2)
    require_whole(server.atlas.dataset("photos"), store)
    # What was found there on the way is not taken for what was sent.
    assert plan_sync(store, NAME).unknown == 0  # another sync of this store has sent it
    other = EmbedStore.open(shutil.copytree(store.path, store.path.parent / "copy.store"))
    other.folder.ledger.path.unlink()
    assert plan_sync(other, NAME).unknown == 90
    # 30 and 30 refused, 23 of the second shard again, 30 of the third
    assert server.atlas.received["photos"] - before == 30 + 30 + 23 + 30


@pytest.mark.parametrize("strings", [False, True])
def test_conflict_that_nothing_explains(
    server: NomicServer, store: EmbedStore, monkeypatch: pytest.MonkeyPatch, strings: bool
) -> None:
    """A conflict with rows that Atlas does not show ends with an error that names a row; the others get through."""
    whole = server.atlas.rows_of
    ids = store.to_table(["id"]).column("id").to_pylist()
    plan = plan_sync(store, NAME, create=True, timeout=8.0, shard_rows=90)
    sync(EmbedStore.open(store.path), where="number == 41")
    plan.dataset_id = server.atlas.dataset("photos").id
    monkeypatch.setattr(
        server.atlas, "rows_of", lambda dataset, asked: whole(dataset, [i for i in asked if i != ids[41]])
    )
    server.atlas.string_bodies = strings
    with pytest.raises(AtlasError, match=f"{ids[41]}.*conflict"):
        apply_sync(plan)
    assert len(server.atlas.dataset("photos").ids) > 40


@pytest.mark.parametrize("strings", [False, True])
def test_two_machines_at_once(server: NomicServer, store: EmbedStore, strings: bool) -> None:
    """Two copies of a store that sync at the same moment both succeed, and no row is there twice."""
    copy = Path(shutil.copytree(store.path, store.path.parent / "copy.store"))
    server.atlas.string_bodies = strings
    both = threading.Barrier(2)
    whole = server.atlas.create

    def together(fields: dict[str, Any]) -> Any:
        server.atlas.lock.release()  # the route holds it, and both are to get here
        both.wait(timeout=20)
        server.atlas.lock.acquire()
        return whole(fields)

    server.atlas.create = together  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        reports = list(
            pool.map(lambda path: sync(EmbedStore.open(path), timeout=20.0, shard_rows=9), [store.path, copy])
        )
    require_whole(server.atlas.dataset("photos"), store)
    assert [report.sent for report in reports] == [90, 90]
    assert sum(report.refused for report in reports) > 0


@pytest.mark.parametrize("strings", [False, True])
def test_limit(server: NomicServer, store: EmbedStore, strings: bool) -> None:
    """Rows beyond the organisation's limit end with an error that says so, and how many rows are there."""
    server.atlas.row_limit = 60
    server.atlas.string_bodies = strings
    with pytest.raises(AtlasError, match="limit") as caught:
        sync(store)
    assert caught.value.__notes__ == ["60 of 90 rows were sent and seen in Atlas before this"]
    assert len(server.atlas.dataset("photos").ids) == 60
    server.atlas.row_limit = 1_000
    assert sync(store).sent == 30
    require_whole(server.atlas.dataset("photos"), store)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("strings", [False, True])
def test_lock(server: NomicServer, store: EmbedStore, strings: bool) -> None:
    """A lock is waited for; one that stays ends within the timeout, with an error."""
    sync(store, where="number < 30")
    dataset = server.atlas.dataset("photos")
    server.atlas.string_bodies = strings
    dataset.locked_until = time.monotonic() + 0.4
    assert sync(store).sent == 60
    dataset.locked_until = float("inf")
    more = vector_store(store.path.parent / "more.store", 20, seed=1)
    told: list[str] = []
    plan = plan_sync(more, NAME, timeout=1.0, progress=told.append)
    assert any("locked" in note for note in plan.notes)
    with pytest.raises(AtlasError, match="locked"):
        apply_sync(plan, progress=told.append)
    assert [text for text in told if "waiting" in text] == [
        "waiting for at most 1 s: stand-in/photos is locked while Atlas makes a map"
    ]
    assert len(dataset.ids) == 90


@pytest.mark.timeout(60)
def test_lock_that_only_uploads_meet(server: NomicServer, store: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that the dataset does not show, but uploads meet, does not hold the sync for ever."""
    from embedstore.testing.wire import Refused

    def locked(*_: Any, **__: Any) -> None:
        raise Refused(400, "Project transaction lock is held")

    monkeypatch.setattr(server.atlas, "add_rows", locked)
    with pytest.raises(AtlasError, match="lock is held"):
        sync(store, timeout=2.0)


def test_rows_that_are_accepted_and_lost(
    server: NomicServer, store: EmbedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that Atlas accepts and does not show are sent again; if it never shows them the sync fails."""
    whole = server.atlas.add_rows
    calls = iter(range(1000))

    def forgetful(dataset: Any, table: Any, **options: Any) -> None:
        number = next(calls)
        if number % 2:
            whole(dataset, table if number % 4 == 1 else table.slice(0, 7), **options)

    monkeypatch.setattr(server.atlas, "add_rows", forgetful)
    assert sync(store, timeout=2.0).sent == 90
    require_whole(server.atlas.dataset("photos"), store)
    monkeypatch.setattr(server.atlas, "add_rows", lambda *_, **__: None)
    with pytest.raises(AtlasError, match="accepted them and does not show them"):
        sync(vector_store(store.path.parent / "t.store", 40, seed=2), timeout=1.0)


def test_rows_that_are_shown_late(server: NomicServer, store: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that shows new rows only after a moment is asked again, and gets no row twice."""
    whole, born = server.atlas.rows_of, time.monotonic()
    monkeypatch.setattr(
        server.atlas,
        "rows_of",
        lambda dataset, ids: whole(dataset, ids) if time.monotonic() - born > 0.5 else [],
    )
    assert sync(store, timeout=30.0).uploads == 3
    require_whole(server.atlas.dataset("photos"), store)


def test_rows_deleted_during_a_sync(server: NomicServer, store: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """When confirmed rows vanish before the end the sync fails, as the count says."""
    whole = server.atlas.add_rows

    def thief(dataset: Any, table: Any, **options: Any) -> None:
        whole(dataset, table, **options)
        if len(dataset.ids) > 60:
            server.atlas.delete_rows(dataset, dataset.ids[:5])

    monkeypatch.setattr(server.atlas, "add_rows", thief)
    with pytest.raises(AtlasError, match="not confirmed"):
        sync(store, timeout=2.0)


def test_rows_swapped_during_a_sync(server: NomicServer, store: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """When confirmed rows give way to others before the end the sync fails, though the count is right."""
    whole = server.atlas.add_rows

    def swap(dataset: Any, table: Any, **options: Any) -> None:
        whole(dataset, table, **options)
        if len(dataset.ids) == 90:
            place = table.column_names.index("id")
            others = pa.array([f"other-{row}" for row in range(5)])
            server.atlas.delete_rows(dataset, dataset.ids[:5])
            whole(dataset, table.slice(0, 5).set_column(place, table.schema.field("id"), others))

    monkeypatch.setattr(server.atlas, "add_rows", swap)
    with pytest.raises(AtlasError, match="5 of 90 rows looked up at the end"):
        sync(store)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", [ADD, "/v1/project/data/get", "/v1/user"])
def test_asked_to_wait_for_an_hour(server: NomicServer, store: EmbedStore, path: str) -> None:
    """When Atlas asks to wait for longer than the timeout the sync ends with what Atlas said."""
    server.faults.script([None, Fault("429", retry_after=3600.0)], path=path)
    with pytest.raises(AtlasError, match="429"):
        sync(store)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("call", "kind"),
    [
        *(("plan", kind) for kind in ("hung", "drip", "slow-upload")),
        *(("apply", kind) for kind in ("hung", "drip")),
        ("index", "hung"),
        ("pull", "hung"),
    ],
)
def test_a_hung_server(server: NomicServer, store: EmbedStore, call: str, kind: Kind) -> None:
    """Against a server that hangs, or drips, for an hour each call ends with an error."""
    sync(store, where="number < 60", index=True)
    plan = plan_sync(store, NAME, timeout=2.0, index=True)
    path = "/v1/project/index/" if call == "index" else "/v1/"
    if call == "pull":
        path = "/v1/project/" + server.atlas.dataset("photos").id + "/index/"
    server.faults.random(1.0, seed=1, kinds=[Fault(kind, seconds=3600.0)], path=path)
    calls = {
        "plan": lambda: plan_sync(store, NAME, timeout=2.0),
        "apply": lambda: apply_sync(plan),
        "index": lambda: apply_sync(plan),
        "pull": lambda: pull(store.path.parent / "copy.store", NAME, timeout=2.0),
    }
    with pytest.raises(AtlasError):
        calls[call]()


@pytest.mark.parametrize("seed", range(6))
def test_a_share_of_all_requests_fails(server: NomicServer, store: EmbedStore, seed: int) -> None:
    """With 10 % faults of all kinds syncs come to a whole dataset, and none lies on the way."""
    server.faults.random(0.1, seed=seed, kinds=OF_ATLAS, path="/v1/")
    server.atlas.string_bodies = bool(seed % 2)
    for _ in range(10):
        try:
            sync(store, timeout=6.0, shard_rows=10)
        except AtlasError:
            continue
        require_whole(server.atlas.dataset("photos"), store)
        return
    pytest.fail("ten syncs did not come through")


def test_killed(server: NomicServer, tmp_path: Path) -> None:
    """A sync that is killed in the midst of requests, again and again, ends whole, with no row twice."""
    store = vector_store(tmp_path / "k.store", 400)
    told = json.dumps({"store": str(store.path), "name": NAME, "shard_rows": 40})
    dice = random.Random(4)
    server.latency = 0.003
    for _ in range(3):
        begun = server.counts.routes.total()
        process = subprocess.Popen([sys.executable, Path(__file__).parents[1] / "atlas_stores.py", told])
        until = begun + dice.randint(4, 30)
        while server.counts.routes.total() < until and process.poll() is None:
            time.sleep(0.001)
        time.sleep(dice.random() * 0.01)
        process.kill()
        process.wait()
    report = sync(store, shard_rows=40)
    require_whole(server.atlas.dataset("photos"), store)
    assert report.present + report.sent == 400
    assert report.present > 0
    assert store.folder.ledger.confirmed_datasets() == ["stand-in/photos"]


def test_pauses_grow_and_end(server: NomicServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses double up to the longest, last as long as the server asks, and end when there is no time for another."""
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("embedstore.atlas.answers.random.uniform", lambda low, high: high)
    monkeypatch.setattr("embedstore.atlas.answers.time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    transport = AtlasTransport(None, 120.0)
    pauses = Pauses(transport, within=20.0)
    while pauses.wait():
        pass
    assert slept == [1.0, 2.0, 4.0, 6.0, 6.0]
    assert (pauses.attempts, pauses.waited) == (6, 19.0)
    slept.clear()
    pauses = Pauses(transport)  # 19 s of the step are over, and an attempt may take 55 s
    assert pauses.wait(30.0)
    assert not pauses.wait(17.0)
    assert pauses.wait(15.0)
    assert slept == [30.0, 15.0]


def test_killed_before_its_rows_were_shown(server: NomicServer, store: EmbedStore) -> None:
    """Rows that a sync sent before it was killed, and that are shown late, are waited for: one upload is refused."""
    plan = plan_sync(store, NAME, create=True, timeout=20.0)
    sync(EmbedStore.open(store.path), shard_rows=90)
    dataset = server.atlas.dataset("photos")
    dataset.shown_from = [time.monotonic() + 1.0] * 90
    plan.dataset_id, plan.total = dataset.id, 0
    report = apply_sync(plan)
    assert (report.sent, report.uploads, report.refused) == (90, 1, 1)
    assert plan_sync(store, NAME).unknown == 0
