"""A store of more than 200 parts, read by two Ray nodes in processes of their own: the answers of this process."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from many_parts import AGAINST, DIM, PARTS, QUERY, ROWS, digest, unit
from ray_nodes import Nodes, marked, wait_for

import embedstore
from embedstore.cluster import ray_executor, scan_worker
from embedstore.errors import ClusterError, StoreNotFoundError, VectorError, VersionGoneError
from embedstore.searching import scan
from embedstore.searching.queries import Query
from embedstore.store import EmbedStore
from embedstore.vectors import as_vectors

if importlib.util.find_spec("ray") is None and os.environ.get("EMBEDSTORE_NEEDS_RAY") != "1":
    pytest.skip('Ray is not installed: pip install "embedstore[ray]"', allow_module_level=True)

pytestmark = pytest.mark.usefixtures("many_bundles")
_MARK = "EMBEDSTORE_TEST_OWN_CLUSTER"


def swept(store: EmbedStore) -> list[Any]:
    found = store.sweep(QUERY, "kind=yes", where="width_of < 80")
    return [found.scores, found.distribution.scores, *found.columns().values()]


def counted(store: EmbedStore, thresholds: Any) -> list[Any]:
    found = store.sweep(AGAINST, "kind=yes", thresholds=thresholds, where="width_of < 80")
    assert found.curve is not None
    return [found.curve.scores, *found.columns().values()]


def by_classifier(store: EmbedStore) -> Any:
    return store.classify(EmbedStore.open(store.path).calibrate(AGAINST, "kind=yes"))


ASKED: dict[str, Callable[[EmbedStore], Any]] = {
    "search": lambda store: store.search(QUERY, k=25),
    "search, a condition": lambda store: store.search(QUERY, k=25, where="width_of < 7 and kind = 'no'"),
    "search, opponents": lambda store: store.search(AGAINST, k=9),
    "search for many": lambda store: store.search_many([unit(seed) for seed in range(40)], k=6),
    "classify": lambda store: store.classify(QUERY, 0.2),
    "classify, all": lambda store: store.classify(QUERY, -2.0),
    "classify, a condition": lambda store: store.classify(QUERY, 0.1, where="width_of < 50"),
    "classify, opponents": lambda store: store.classify(AGAINST, 0.1),
    "classify by a classifier": by_classifier,
    "count": lambda store: store.count(QUERY, 0.2),
    "count, a condition": lambda store: store.count(QUERY, 0.2, where="width_of < 50"),
    "count, opponents": lambda store: store.count(AGAINST, 0.0),
    "count, none": lambda store: store.count(QUERY, 2.0),
    "scores": lambda store: store.scores([unit(seed) for seed in range(3)]),
    "sweep": swept,
    "sweep, counted": lambda store: counted(store, np.linspace(-1, 1, 2_001)),
    "sweep, counted where labels differ": lambda store: counted(store, 12),
    "calibrate": lambda store: store.calibrate(AGAINST, "kind=yes", objective="f2"),
}


@pytest.mark.parametrize("what", ASKED)
def test_two_nodes_answer_to_the_bit_as_this_process(what: str, here: EmbedStore, there: EmbedStore) -> None:
    """Every verb that reads, by SHA-256."""
    assert digest(ASKED[what](there)) == digest(ASKED[what](here))


def test_both_nodes_work_and_only_matches_travel(
    there: EmbedStore, here: EmbedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundles are answered by both nodes; of a count and a classification only numbers and matching rows come back."""
    executor = there.reader.executor
    assert isinstance(executor, ray_executor.RayExecutor)
    answers: list[tuple[str, str, Any]] = []
    ask = executor._ray.get
    monkeypatch.setattr(executor, "_ray", _Watched(executor._ray, lambda ref: answers.append(ask(ref)) or answers[-1]))
    matching = here.count(QUERY, 0.3)
    assert 0 < matching < ROWS // 20
    nodes: set[str] = set()
    for _ in range(200):  # which node takes a bundle is Ray's choice
        answers.clear()
        assert there.count(QUERY, 0.3) == matching
        assert all(isinstance(found, int) for _, _, results in answers for found in results)
        assert 15 <= len(answers) <= PARTS / 4
        nodes |= {node for _, node, _ in answers}
        if len(nodes) == 2:
            break
    assert len(nodes) == 2
    answers.clear()
    assert len(there.classify(QUERY, 0.3)) == matching
    assert sum(len(scores) for _, _, results in answers for _, scores in results) == matching


class _Watched:
    """Ray, with each answer that is got noted."""

    def __init__(self, ray: Any, get: Callable[[Any], Any]) -> None:
        self._ray = ray
        self.get = get

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ray, name)


def test_a_worker_killed_within_a_classification_loses_and_doubles_nothing(
    here: EmbedStore, there: EmbedStore, nodes: Nodes
) -> None:
    """SIGKILL within a bundle: Ray does it again, and the matches are those of this process."""
    killed, finished = threading.Event(), threading.Event()

    def kill() -> None:
        while not killed.is_set() and not finished.is_set():
            if nodes.kill_a_busy_worker():
                killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    answers = []
    try:
        for _ in range(200):
            answers.append(digest(there.classify(AGAINST, -0.5)))
            if killed.is_set():
                break
    finally:
        finished.set()
        killer.join()
    assert killed.is_set()
    assert set(answers) == {digest(here.classify(AGAINST, -0.5))}


def test_the_command_line_prints_the_same(path: Path, nodes: Nodes) -> None:
    """Five commands with --executor ray --address, byte for byte."""
    vector = ("--id", "row-7")
    for words in (
        ("search", path, *vector, "-n", "12"),
        ("classify", path, *vector, "--threshold", "0.2"),
        ("count", path, *vector, "--threshold", "0.2"),
        ("sweep", path, *vector, "--label", "kind=yes"),
        ("sweep", path, *vector, "--thresholds", "-1:1:0.1"),
        ("calibrate", path, *vector, "--label", "kind=yes", "--no-save"),
    ):
        far = run(*words, "--executor", "ray", "--address", nodes.address)
        near = run(*words)
        assert (far.exit_code, far.stdout) == (0, near.stdout), far.output


def test_one_cluster_at_a_time(path: Path, nodes: Nodes) -> None:
    """Ray knows one for each process: another is refused, with both named."""
    with pytest.raises(ClusterError, match=r"connected to the Ray cluster at .* already, and 127\.0\.0\.1:1 is asked"):
        EmbedStore.open(path, executor="ray:127.0.0.1:1")


def test_a_cluster_of_its_own_is_started_and_ended(path: Path, tmp_path: Path, here: EmbedStore) -> None:
    """Without an address one is started on this machine, which nobody else can use, and it ends with the command."""
    words = ("count", path, "--id", "row-7", "--threshold", "0.2", "--executor", "ray")
    hidden = {"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": "", _MARK: "1", "HOME": str(tmp_path)}
    environment = {name: value for name, value in {**os.environ, **hidden}.items() if value}
    done = subprocess.run(
        [sys.executable, "-m", "embedstore", *map(str, words)], env=environment, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == f"{here.count(Query.id('row-7'), 0.2)}\n"
    wait_for(lambda: not marked(f"{_MARK}=1"), "the processes of the command's own cluster to end")
    assert not (tmp_path / ".ray").exists()


def test_an_address_needs_the_executor_that_it_is_for(path: Path) -> None:
    """Wrong usage, said so."""
    told = run("count", path, "--id", "row-7", "--threshold", "0", "--address", "auto")
    assert told.exit_code == 2
    assert "--address names a Ray cluster; give --executor ray with it" in told.output


def test_a_store_that_the_nodes_do_not_see_is_named(path: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that leads elsewhere in another process: the node and the file are named."""
    monkeypatch.chdir(path.parent)
    store = EmbedStore.open("/proc/self/cwd/s.store", executor="ray")
    with pytest.raises(StoreNotFoundError, match=r"Ray node \w+\) sees no file /proc/self/cwd/.*at the same path"):
        store.count(QUERY, 0.2)


def test_a_version_that_is_gone_is_the_librarys_own_error(path: Path, nodes: Nodes, tmp_path: Path) -> None:
    """Compact and vacuum under a reader on a cluster: the error of a reader in this process."""
    shutil.copytree(path, tmp_path / "s.store")
    store = EmbedStore.open(tmp_path / "s.store", executor="ray")
    other = EmbedStore.open(tmp_path / "s.store")
    other.compact()
    other.vacuum(keep_hours=0)
    with pytest.raises(VersionGoneError, match="refresh"):
        store.count(QUERY, 0.2)
    store.refresh()
    assert store.count(QUERY, 0.2) == other.count(QUERY, 0.2)


def test_an_error_of_a_worker_arrives_as_what_it_is(here: EmbedStore, there: EmbedStore) -> None:
    """The class and the words are the library's, and the node is noted."""
    task = scan.Task(here.snapshot.parts[0], 0, 1, 0, None, np.ones((1, DIM), np.float32), 0, np.empty(0, np.float32))
    with pytest.raises(VectorError, match="expected numbers of shape") as caught:
        list(there.reader.executor.map(as_vectors, [task]))
    assert re.fullmatch(r"on .* \(Ray node \w+\)", caught.value.__notes__[0])


def said_to_refuse(ask: Callable[[], Any], *patterns: str) -> None:
    """Ask until nodes that have just joined are asked too, and each has been refused in the words of a pattern."""
    said: list[str] = []

    def asked() -> bool:
        try:
            ask()
        except ClusterError as error:
            said.append(str(error))
        return all(any(re.search(pattern, words) for words in said) for pattern in patterns)

    wait_for(asked, "the nodes that joined to be asked")
    assert all(any(re.search(pattern, words) for pattern in patterns) for words in said)


def test_a_node_that_differs_is_named(there: EmbedStore, nodes: Nodes, tmp_path: Path) -> None:
    """One joins with another embedstore, one with a processor that sums in another order: both are refused at once."""
    home = Path(embedstore.__file__).parent
    other = tmp_path / "other" / "embedstore"
    other.mkdir(parents=True)
    for entry in home.iterdir():
        if entry.name != "__init__.py":
            (other / entry.name).symlink_to(entry)
    text = (home / "__init__.py").read_text(encoding="utf-8")
    (other / "__init__.py").write_text(text.replace(f'"{embedstore.__version__}"', '"0.0.7"'), encoding="utf-8")
    older = {"PYTHONPATH": f"{other.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    version = rf"embedstore {embedstore.__version__} here, 0\.0\.7 on .*Ray node .*Install the same on every"
    started, patterns = [older], [version]
    kernel = {"OPENBLAS_CORETYPE": "Prescott"}
    code = "from embedstore.cluster.scan_worker import traits; print(sorted(traits().items()))"
    told = subprocess.run([sys.executable, "-c", code], env=os.environ | kernel, capture_output=True, check=True).stdout
    if told.decode().strip() != str(sorted(scan_worker.traits().items())):  # else there is one order for all processors
        started.append(kernel)
        patterns.append(r"last bits of a score \w+ here, \w+ on .*Their processors sum in another order")
    with ThreadPoolExecutor(2) as pool:
        joined = list(pool.map(lambda more: nodes.start(f"--address={nodes.address}", **more), started))
    try:
        said_to_refuse(lambda: there.count(QUERY, 0.2), *patterns)
    finally:
        for node in joined:
            nodes.stop(node)
