"""`add` on two Ray nodes in processes of their own: the rows of this process, through every death."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run
from conftest import save_picture
from PIL import Image
from ray_nodes import Nodes, wait_for

from embedstore.cluster import actor_pool, ingest_worker
from embedstore.errors import ClusterError, InputError
from embedstore.space import Space
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

if importlib.util.find_spec("ray") is None and os.environ.get("EMBEDSTORE_NEEDS_RAY") != "1":
    pytest.skip('Ray is not installed: pip install "embedstore[ray]"', allow_module_level=True)

_WORKER = "ray::IngestActor.call"
_NODE = "EMBEDSTORE_TEST_NODE"


def many(folder: Path, count: int, size: tuple[int, int] = (40, 30)) -> Path:
    for number in range(count):
        save_picture(folder / ("even", "odd")[number % 2] / f"{number:04}.png", number, size)
    return folder


def rows(store: EmbedStore) -> list[dict[str, Any]]:
    """Return all that a store holds, in one order, without the time."""
    table = store.to_table([*store.columns, "embedding"]).drop_columns(["added_at"]).sort_by("id")
    return list(table.to_pylist())


def shown(report: Any) -> dict[str, Any]:
    """Return a report without what time and the size of batches decide."""
    return {**report.to_dict(), "seconds": 0, "requests": 0}


def test_rows_vectors_report_and_failures_are_those_of_this_process(nodes: Nodes, tmp_path: Path) -> None:
    """Files, twins, a damaged one, a table, an archive and pictures in memory, to the bit; thumbnails too."""
    folder = many(tmp_path / "p", 30)
    (folder / "twin.png").write_bytes((folder / "odd" / "0001.png").read_bytes())
    (folder / "bad.jpg").write_bytes(b"nothing")
    files = sorted(folder.rglob("0*.png"))
    pq.write_table(
        pa.table(
            {"image": [save_picture(tmp_path / "t.png", 100 + n).read_bytes() for n in range(9)], "kind": range(9)}
        ),
        tmp_path / "table.parquet",
    )
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        for number in range(5):
            archive.write(save_picture(tmp_path / "z.png", 200 + number), f"z{number}.png")
    turned = Image.open(files[0]).transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[274] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    memory = [
        {"image": Image.open(tmp_path / "turned.jpg"), "id": "turned"},
        {"image": np.random.default_rng(0).random((9, 7)).astype(np.float32)},
        {"image": Image.open(files[1]).convert("P"), "label": "palette"},
        {"image": files[2].read_bytes()},
        {"image": b"nothing"},
    ]
    sources: tuple[Any, ...] = ([folder, tmp_path / "table.parquet", tmp_path / "more.zip"], memory, folder)
    near = EmbedStore.create(tmp_path / "near.store", "objects")
    far = EmbedStore.create(tmp_path / "far.store", "objects", executor=f"ray:{nodes.address}")
    for source in sources:
        reports = [store.add(source, label_from_folder=source is not memory) for store in (near, far)]
        assert shown(reports[1]) == shown(reports[0])
        assert (far.path / "failures.csv").exists() == (near.path / "failures.csv").exists()
    assert (far.path / "failures.csv").read_bytes() == (near.path / "failures.csv").read_bytes()
    assert len(rows(near)) == 31 + 9 + 5 + 4
    assert rows(far) == rows(near)
    small = [
        {path.name: path.read_bytes() for path in (store.path / "thumbnails").rglob("*.jpg")} for store in (near, far)
    ]
    assert len(small[0]) == 4
    assert small[1] == small[0]


def test_the_command_line_adds_the_same(nodes: Nodes, tmp_path: Path) -> None:
    """Byte for byte but for the time; where it has nothing to do the option is refused."""
    folder = many(tmp_path / "p", 6)
    told = []
    for name, more in (("near", ()), ("far", ("--executor", "ray", "--address", nodes.address))):
        done = run("add", tmp_path / f"{name}.store", folder, "--model", "objects", "--label-from-folder", *more)
        assert done.exit_code == 0, done.output
        told.append(re.sub(r"\(.* s, .* images/s\)", "", done.stdout))
    assert told[1] == told[0]
    assert rows(EmbedStore.open(tmp_path / "far.store")) == rows(EmbedStore.open(tmp_path / "near.store"))
    for words in (("--dry-run",), ("--embedding-column", "v"), ("--via-atlas", "x")):
        assert (
            "--executor ray reads and embeds"
            in run("add", tmp_path / "s.store", folder, "--executor", "ray", *words).output
        )


class Gated:
    """An embedder of somebody's own, which says where it works, and goes on once that is allowed."""

    space = Space.given("gated", 48)
    batch_size, workers = 2, 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pass_through(self, gate: str) -> None:
        (self.folder / f"{gate}-{os.environ.get(_NODE, 'other')}-{os.getpid()}").touch()
        while not (self.folder / f"{gate} is open").exists():
            time.sleep(0.02)

    def workers_at(self, gate: str, node: str = "") -> list[int]:
        return [int(path.name.rpartition("-")[2]) for path in self.folder.glob(f"{gate}-{node}*-*")]

    def prepare(self, image: Image.Image) -> Any:
        self.pass_through("prepare")
        return np.asarray(image.resize((4, 4)))

    def embed_prepared(self, prepared: Sequence[Any]) -> Any:
        self.pass_through("embed")
        return np.stack([item.reshape(-1).astype(np.float32) + 1 for item in prepared])

    def embed_texts(self, texts: Sequence[str]) -> Any:
        raise NotImplementedError


@pytest.fixture
def by_value() -> Iterator[None]:
    """Let the embedders of this module travel: no node has it."""
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_a_node_and_a_worker_killed_lose_and_double_nothing(
    nodes: Nodes,
    by_value: None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SIGKILL of a whole node, raylet and all, and of a worker, while each embeds: the rows of this process."""
    folder = many(tmp_path / "p", 24)
    gates = tmp_path / "gates"
    gates.mkdir()
    embedder = Gated(gates)
    for gate in ("prepare", "embed"):
        (gates / f"{gate} is open").touch()
    near = EmbedStore.create(tmp_path / "near.store", embedder=embedder)
    near.add(folder)
    for file in gates.iterdir():
        file.unlink()
    victim = nodes.start(f"--address={nodes.address}", **{_NODE: "victim"})
    far = EmbedStore.create(tmp_path / "far.store", embedder=embedder, executor=f"ray:{nodes.address}")

    def kill() -> None:
        wait_for(lambda: len(embedder.workers_at("prepare")) == 3, "three workers to prepare")
        (gates / "prepare is open").touch()
        both = (lambda: embedder.workers_at("embed", "victim"), lambda: embedder.workers_at("embed", "other"))
        wait_for(lambda: all(at() for at in both), "workers of both kinds of nodes to embed")
        nodes.lose(victim, f"{_NODE}=victim")
        os.kill(both[1]()[0], signal.SIGKILL)
        (gates / "embed is open").touch()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        report = far.add(folder)
        killing.result()
    assert len(re.findall(r"a worker on .* died, and its work is done again", caplog.text)) == 2
    assert (report.embedded, report.failures, report.left) == (24, [], 0)
    assert len({row["uri"] for row in rows(far)}) == len(rows(far)) == 24
    assert rows(far) == rows(near)
    assert capsys.readouterr().out == ""  # Ray would print of each death among our results


def test_a_worker_that_hangs_counts_as_dead(
    nodes: Nodes, by_value: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Halted while it prepares, not ended: what it had is done by the other, and nothing is lost."""
    monkeypatch.setattr(actor_pool, "HUNG_SECONDS", 2.0)
    embedder = Gated(tmp_path)
    store = EmbedStore.create(tmp_path / "s.store", embedder=embedder, executor=f"ray:{nodes.address}")
    halted: list[int] = []

    def halt() -> None:
        try:
            wait_for(lambda: len(embedder.workers_at("prepare")) == 2, "both workers to prepare")
            halted.append(embedder.workers_at("prepare")[0])
            os.kill(halted[0], signal.SIGSTOP)
        finally:
            for gate in ("prepare", "embed"):
                (tmp_path / f"{gate} is open").touch()

    try:
        with ThreadPoolExecutor(1) as pool:
            halting = pool.submit(halt)
            report = store.add(many(tmp_path / "p", 8))
            halting.result()
    finally:
        for process in halted:
            os.kill(process, signal.SIGKILL)
    assert "it has not answered for 2 s" in caplog.text
    assert (report.embedded, report.failures, len(rows(store))) == (8, [], 8)


def test_each_picture_is_paid_for_once_within_the_limit_through_interrupts_and_deaths(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a service: a budget, Ctrl-C, a worker killed; nothing twice, no request over the limit, no key on nodes."""
    folder = many(tmp_path / "p", 60)
    with NomicServer(rate_limit=(24, 2.0)) as server:
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("EMBEDSTORE_RATE_LIMIT", "24/3")
        monkeypatch.setenv("NOMIC_API_KEY", server.key)
        words = ("--executor", "ray", "--address", nodes.address, "--max-requests", "3", "--batch-size", "2")
        assert run("add", tmp_path / "s.store", folder, "--model", "nomic", *words).exit_code == 3
        assert (server.requests, server.images) == (3, 6)
        store = EmbedStore.open(tmp_path / "s.store", executor=f"ray:{nodes.address}")

        def when(enough: int, do: Callable[[], object]) -> threading.Thread:
            def wait() -> None:
                wait_for(lambda: server.images >= enough, f"{enough} pictures to be paid for")
                do()

            thread = threading.Thread(target=wait)
            thread.start()
            return thread

        one = when(10, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            store.add(folder, batch_size=2, workers=6)
        one.join()
        store.refresh()
        before = server.images
        assert 10 <= before == len(store.rows) < 60
        two = when(
            before + 1, lambda: wait_for(lambda: nodes.kill_a_busy_worker("ray::IngestActor"), "a worker to kill")
        )
        assert nodes.holds(server.key.encode()) == []
        report = store.add(folder, batch_size=2, workers=6)
        two.join()
        assert (report.embedded, report.unchanged) == (60 - before, before)
        assert len(store.rows) == 60
        assert set(server.image_counts.values()) == {1}
        assert server.counts.spoilt.total() == 0
        assert server.requests == before // 2 + (60 - before) // 2
        assert server.counts.statuses[429] == 0
        assert nodes.holds(server.key.encode()) == []


class Explosive:
    """An embedder of somebody's own: it embeds with `objects`, and ends the process for a picture of one colour."""

    space = Space.given("explosive", 256)
    batch_size, workers = 32, 1

    def __init__(self) -> None:
        self.unpicklable: Any = None

    def prepare(self, image: Image.Image) -> Any:
        if len(image.getcolors() or "many") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.asarray(image.resize((16, 16)))

    def embed_prepared(self, prepared: Sequence[Any]) -> Any:
        return np.stack([item.reshape(-1)[:256].astype(np.float32) + 1 for item in prepared])

    def embed_texts(self, texts: Sequence[str]) -> Any:
        raise NotImplementedError


def test_a_picture_that_ends_each_worker_fails_alone(nodes: Nodes, by_value: None, tmp_path: Path) -> None:
    """Its bundle is halved until it stands alone; the others are stored. The user's own embedder has travelled."""
    folder = many(tmp_path / "p", 11)
    Image.new("RGB", (8, 8), "red").save(folder / "bomb.png")
    embedder = Explosive()
    store = EmbedStore.create(tmp_path / "s.store", embedder=embedder, executor=f"ray:{nodes.address}")
    report = store.add(folder)
    assert (report.embedded, len(report.failures)) == (11, 1)
    assert report.failures[0].uri == str(folder / "bomb.png")
    assert re.match(r"the worker that reads it dies, again and again", report.failures[0].reason)
    embedder.unpicklable = threading.Lock()
    with pytest.raises(InputError, match=r"cannot be given this Explosive \(TypeError.*as a plug-in"):
        store.add(save_picture(folder / "new.png", 99))


def test_pictures_that_a_node_does_not_see_are_one_error(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that leads elsewhere in another process: node and file are named, and no list of failures is written."""
    many(tmp_path / "p", 20)
    monkeypatch.chdir(tmp_path)
    store = EmbedStore.create(tmp_path / "s.store", "objects", executor=f"ray:{nodes.address}")
    with pytest.raises(ClusterError, match=r"Ray node \w+\) cannot read /proc/self/cwd/p/.*at the same path"):
        store.add("/proc/self/cwd/p")
    assert not (store.path / "failures.csv").exists()


def test_what_differs_between_driver_and_worker_is_named() -> None:
    """Versions of what a picture's vector depends on."""
    other = {**ingest_worker.traits(), "pillow": "1.2.3"}
    kind, found = ingest_worker.answer(pickle.dumps(("hello", other, {})), ())
    assert kind == ingest_worker.UNLIKE
    assert found == ingest_worker.traits()
    said = str(actor_pool._unlike(other, "node-7"))
    assert re.search(r"pillow [\d.]+ here, 1\.2\.3 on node-7; .*Install the same on every node", said)
