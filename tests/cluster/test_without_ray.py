"""What needs no cluster: bundles, the words that name an executor, and what is set before Ray is imported."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.cluster import connection, ray_executor, scan_worker
from embedstore.errors import ClusterError, InputError
from embedstore.searching import scan
from embedstore.storage.parts import Part
from embedstore.store import EmbedStore

ASK = """
import json, os, sys
sys.modules["ray"] = None  # as where it is not installed
from embedstore.store import EmbedStore
try:
    EmbedStore.open(sys.argv[1], executor=sys.argv[2])
except Exception as error:
    said = [type(error).__name__, str(error)]
print(json.dumps([said, {name: value for name, value in os.environ.items() if name.startswith("RAY_")}]))
"""


def opened_without_ray(store: EmbedStore, executor: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", ASK, str(store.path), executor]
    done = subprocess.run(command, env=clean | environment, capture_output=True, check=True)
    said, settings = json.loads(done.stdout)
    return said, settings


def test_where_ray_is_not_installed_the_extra_is_named(store: EmbedStore) -> None:
    """One line says what to install."""
    said, _ = opened_without_ray(store, "ray")
    assert said[0] == "MissingDependencyError"
    assert 'pip install "embedstore[ray]"' in said[1]


def test_telemetry_is_off_and_authentication_is_said_before_ray_is_imported(store: EmbedStore, tmp_path: Path) -> None:
    """A cluster of its own has a token of its own; another's is used with the user's token; a user's setting stays."""
    own = [opened_without_ray(store, "ray", RAY_USAGE_STATS_ENABLED="1")[1] for _ in range(2)]
    assert {settings["RAY_USAGE_STATS_ENABLED"] for settings in own} == {"0"}
    assert {settings["RAY_AUTH_MODE"] for settings in own} == {"token"}
    assert {settings["RAY_worker_niceness"] for settings in own} == {"0"}
    assert "RAY_worker_niceness" not in opened_without_ray(store, "ray:auto")[1]
    assert len({settings["RAY_AUTH_TOKEN"] for settings in own}) == 2
    assert opened_without_ray(store, "ray:auto")[1]["RAY_AUTH_MODE"] == "disabled"
    assert opened_without_ray(store, "ray", RAY_ADDRESS="10.0.0.5:6379")[1]["RAY_AUTH_MODE"] == "disabled"
    assert opened_without_ray(store, "ray:auto", RAY_AUTH_TOKEN="1234")[1]["RAY_AUTH_MODE"] == "token"
    assert opened_without_ray(store, "ray", RAY_AUTH_MODE="disabled")[1]["RAY_AUTH_MODE"] == "disabled"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("5678")
    assert opened_without_ray(store, "ray:auto", HOME=str(tmp_path))[1]["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("word", ["dask", "", "rays", "threads:4"])
def test_an_unknown_executor_is_refused(word: str, store: EmbedStore) -> None:
    """The words that would do are said."""
    with pytest.raises(InputError, match="expected 'ray', or 'ray:ADDRESS'"):
        EmbedStore.open(store.path, executor=word)


def task_of(rows: int, dim: int = 256) -> scan.Task:
    part = Part(Path("part.parquet"), rows, dim, None)
    return scan.Task(part, 0, rows, 0, None, np.ones((1, dim), np.float32), 0, np.empty(0, np.float32))


@given(st.lists(st.integers(1, 40_000), max_size=60), st.integers(1, 12))
def test_bundles_keep_the_order_and_shrink_towards_the_end(sizes: list[int], workers: int) -> None:
    """Nothing is left out; none is larger than its share, but by its one task; the next task would not fit."""
    tasks = [task_of(size) for size in sizes]
    cut = list(ray_executor.bundles(tasks, workers))
    assert [task for bundle in cut for task in bundle] == tasks
    left = sum(task.size for task in tasks)
    for bundle, after in itertools.zip_longest(cut, cut[1:]):
        total = sum(task.size for task in bundle)
        wanted = max(left / (workers * ray_executor.SHARES), ray_executor.LEAST_BYTES)
        assert total <= min(wanted, ray_executor.MOST_BYTES) or len(bundle) == 1
        assert after is None or total + after[0].size > min(wanted, ray_executor.MOST_BYTES)
        left -= total


def test_a_relative_path_travels_as_an_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker runs in another folder."""
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(task_of(5).part)).path == tmp_path / "part.parquet"


def test_traits_are_the_same_in_another_process() -> None:
    """What nodes are compared by depends on the software and the processor alone."""
    code = "import json; from embedstore.cluster.scan_worker import traits; print(json.dumps(traits()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout) == scan_worker.traits()


def test_an_address_at_which_nothing_listens_is_refused_at_once() -> None:
    """Ray itself would go on trying; what is no HOST:PORT is Ray's to read, and what listens may be a cluster."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        connection._require_answer(f"127.0.0.1:{port}")
    for gone in (f"127.0.0.1:{port}", "127.0.0.1:99999"):
        with pytest.raises(ClusterError, match=f"no Ray cluster answers at '{gone}'"):
            connection._require_answer(gone)
    for other in ("auto", "local", "ray://127.0.0.1:1"):
        connection._require_answer(other)


def test_the_key_of_the_service_is_kept_from_a_cluster_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """While its processes are started it stands in no environment that they inherit; afterwards it is back."""
    monkeypatch.setenv("NOMIC_API_KEY", "nk-secret")
    ask = [sys.executable, "-c", "import os; print(os.environ.get('NOMIC_API_KEY'))"]
    with connection._keeping_the_key("local"):
        assert subprocess.run(ask, capture_output=True, check=True).stdout.strip() == b"None"
    assert os.environ["NOMIC_API_KEY"] == "nk-secret"
