"""What the workers of two Ray nodes write and count: as in this process, also when a worker or a node is killed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import run
from many_parts import AGAINST, PARTS, QUERY, ROWS, digest, unit
from ray_nodes import Nodes

from embedstore.cluster import ray_executor
from embedstore.errors import PathError
from embedstore.store import EmbedStore

if importlib.util.find_spec("ray") is None and os.environ.get("EMBEDSTORE_NEEDS_RAY") != "1":
    pytest.skip('Ray is not installed: pip install "embedstore[ray]"', allow_module_level=True)

pytestmark = pytest.mark.usefixtures("many_bundles")
THIRD = "EMBEDSTORE_TEST_NODE=third"


def sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder, by name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def on(store: Path, nodes: Nodes) -> EmbedStore:
    return EmbedStore.open(store, executor=f"ray:{nodes.address}")


def test_index_files_are_the_same_to_the_byte(path: Path, nodes: Nodes, tmp_path: Path) -> None:
    """Made by the workers and in this process: files and notes by SHA-256, and the report; only what lacks is made."""
    stores = [shutil.copytree(path, tmp_path / name) for name in ("here", "there")]
    near = EmbedStore.open(stores[0]).index()
    (stores[1] / "index").mkdir(exist_ok=True)
    (stores[1] / "index" / "part-0.int8.1.abc").write_bytes(b"half")
    far = run("index", stores[1], "--executor", "ray", "--address", nodes.address)
    assert far.exit_code == 0, far.output
    assert far.stdout.startswith(f"int8: {PARTS} built, 0 in order, 1 file deleted; {near.bytes / 1e6:,.1f} MB in")
    assert sums(stores[1] / "index") == sums(stores[0] / "index")
    assert len(sums(stores[1] / "index")) >= 2 * PARTS
    spoilt = next((stores[1] / "index").glob("*.faiss"))
    spoilt.write_bytes(spoilt.read_bytes()[:-9])
    again = on(stores[1], nodes).index()
    assert {**again.to_dict(), "seconds": 0} == {**near.to_dict(), "built": 1, "kept": PARTS - 1, "seconds": 0}
    assert sums(stores[1] / "index") == sums(stores[0] / "index")


def test_of_a_counted_sweep_only_counts_and_labelled_scores_travel(
    here: EmbedStore, there: EmbedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number for each threshold from each bundle, and each labelled row's score once; the counts are those of all."""
    executor = there.reader.executor
    assert isinstance(executor, ray_executor.RayExecutor)
    travelled: list[np.ndarray] = []
    answer = executor._answer

    def watched(reference: Any) -> list[Any]:
        found = answer(reference)
        travelled.extend(found)
        return found

    monkeypatch.setattr(executor, "_answer", watched)
    thresholds = np.linspace(-1, 1, 41)
    swept = there.sweep(QUERY, thresholds=thresholds)
    assert 10 <= len(travelled) <= PARTS / 4
    assert {(found.dtype, found.shape) for found in travelled} == {(np.dtype(np.int64), (41,))}
    (scores,) = here.scores(QUERY)
    assert swept.columns()["matches"].tolist() == [int((scores > limit).sum()) for limit in thresholds]
    travelled.clear()
    labels = dict.fromkeys(here.to_table(["id"]).column("id").to_pylist()[5::40], True) | {"row-7": False}
    there.sweep(QUERY, labels, thresholds=thresholds)
    assert sum(len(found) for found in travelled if found.dtype == np.float32) == len(labels)
    assert len(labels) < ROWS / 30


def test_the_workers_write_the_files_that_this_process_writes(
    here: EmbedStore, there: EmbedStore, path: Path, nodes: Nodes, tmp_path: Path
) -> None:
    """By SHA-256 of each file, and of the sorted rows; the command prints the same."""
    near = here.write_matches(tmp_path / "near", AGAINST, 0.1, "width_of < 60")
    far = there.write_matches(tmp_path / "far", AGAINST, 0.1, "width_of < 60")
    assert {**far.to_dict(), "folder": ""} == {**near.to_dict(), "folder": ""}
    assert near.files > PARTS / 2
    parquet = [{name: sha for name, sha in sums(tmp_path / to).items() if name[0] != "_"} for to in ("near", "far")]
    assert parquet[0] == parquet[1]
    rows = pq.read_table(tmp_path / "far").sort_by([("score", "descending"), ("id", "ascending")])
    expected = here.classify(AGAINST, 0.1, "width_of < 60").table
    assert digest(rows.to_pylist()) == digest(expected.to_pylist())
    words = ("classify", path, "--id", "row-7", "--threshold", "0.2", "--output-folder", tmp_path / "told")
    told = run(*words, "--executor", "ray", "--address", nodes.address)
    assert (told.exit_code, told.stdout) == (0, run(*words).stdout), told.output


def test_a_folder_that_a_node_does_not_see_is_named(
    there: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path leads elsewhere in a worker: folder and node are said, and nothing is left."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PathError, match=r"every node of a cluster must see the folder") as caught:
        there.write_matches("/proc/self/cwd/m", QUERY, 0.2)
    assert "Ray node" in caught.value.__notes__[0]
    assert list(tmp_path.iterdir()) == []


class Killer:
    """Kills within a bundle, from a thread of its own, while something is asked again and again."""

    def __init__(self, kill: Callable[[], bool]) -> None:
        self._kill = kill
        self.killed, self._finished = threading.Event(), threading.Event()

    def ask(self, asked: Callable[[], str]) -> set[str]:
        """Return the answers, the last of which was under way when something was killed."""
        killer = threading.Thread(target=self._run)
        killer.start()
        answers = set()
        try:
            for _ in range(300):
                answers.add(asked())
                if self.killed.is_set():
                    break
        finally:
            self._finished.set()
            killer.join()
        assert self.killed.is_set()
        return answers

    def _run(self) -> None:
        while not self.killed.is_set() and not self._finished.is_set():
            if self._kill():
                self.killed.set()


def written(store: EmbedStore, folder: Path) -> str:
    """Write matches, and return the SHA-256 of all that is in the folder."""
    store.write_matches(folder / "m", AGAINST, -0.3)
    found = digest(sorted((name, sha) for name, sha in sums(folder / "m").items()))
    assert [entry.name for entry in folder.iterdir()] == ["m"]
    return found


@pytest.fixture
def third(nodes: Nodes) -> Iterator[Any]:
    """A node that joins the two, to be killed."""
    node = nodes.start(f"--address={nodes.address}", **dict([THIRD.split("=")]))
    yield node
    if node.poll() is None:
        nodes.stop(node)


def test_a_worker_killed_while_it_writes_loses_and_doubles_nothing(
    here: EmbedStore, there: EmbedStore, nodes: Nodes, tmp_path: Path
) -> None:
    """The folder is that of this process, to the byte, with nothing in it that was begun and not ended."""
    answers = Killer(nodes.kill_a_busy_worker).ask(lambda: written(there, tmp_path))
    shutil.rmtree(tmp_path / "m")
    assert answers == {written(here, tmp_path)}


@pytest.mark.parametrize("what", ["classify", "search"])
def test_a_whole_node_killed_loses_and_doubles_nothing(
    what: str, here: EmbedStore, there: EmbedStore, nodes: Nodes, third: Any, tmp_path: Path
) -> None:
    """SIGKILL to raylet and workers within a bundle: the two nodes that are left end the work, to the bit."""

    def asked(store: EmbedStore) -> str:
        if what == "search":
            return digest(store.search_many([unit(seed) for seed in range(11)], k=50))
        return digest(store.classify(QUERY, -0.5)) + written(store, tmp_path)

    answers = Killer(lambda: nodes.lose_within_a_bundle(third, THIRD)).ask(lambda: asked(there))
    shutil.rmtree(tmp_path / "m", ignore_errors=True)
    assert answers == {asked(here)}
