"""Kills a sync with Atlas at many moments, each a request before or after Atlas has done what it asks for.

    python scripts/kill_syncs.py [--rows 12000] [--dim 64] [--changed 40] [--kills 20] [--shard-rows 2500]

A session: rows go up into a new dataset; some get another vector; these are replaced, and a map is made that takes a
while. For each of so many moments, spread evenly over all requests of a session, a session is killed there and the same
command runs again, to its end. After each session it is counted what the server was asked to do: rows that it took,
datasets and maps made, deletions. Last the dataset of the last session comes down, and each column is compared.
Prints JSON; exit status 1 if anything was done twice, is not as it should be, or comes back unnamed as another.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.atlas import pull
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer
from embedstore.testing.wire import Reply, Request

WRITES = ("POST /v1/project/create", "POST /v1/project/index/create", "POST /v1/project/data/delete")
READS = ("GET /v1/user", "GET /v1/project", "POST /v1/project/data/get", "GET /v1/organization")
UPLOAD = "POST /v1/project/data/add/arrow"
MAP_SECONDS = 0.15
FORKS = """
import json, os, sys
import pandas, pyarrow.compute, nomic.dataset, filelock
from embedstore.atlas import sync
from embedstore.errors import EmbedStoreError
for line in sys.stdin:
    told = json.loads(line)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            report = sync(told["store"], told["name"], **told["options"])
            with open(told["said"], "w") as file:
                json.dump(report.to_dict(), file)
            code = 0
        except EmbedStoreError as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(code)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def unit_vectors(rows: int, dim: int, seed: int) -> pa.Array:
    """Return random unit vectors as a column."""
    made = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return pa.FixedSizeListArray.from_arrays(made.reshape(-1), dim)


def make_store(path: Path, rows: int, dim: int) -> EmbedStore:
    """Make a store with columns of every type, those too that Atlas has not."""
    numbers = range(rows)
    table = {
        "id": [f"{row:032x}" for row in numbers],
        "label": [("cat", "dog", None, "", "null")[row % 5] for row in numbers],
        "flag": [(True, False, None)[row % 3] for row in numbers],
        "big": [row * 2**40 for row in numbers],
        "day": [date(2020, 1, 1) + timedelta(days=row % 1000) for row in numbers],
        "_private": [f"p{row % 7}" for row in numbers],
        "x": [row / 8 for row in numbers],
        "share": np.random.default_rng(1).random(rows),
        "vector": unit_vectors(rows, dim, 0),
    }
    store = EmbedStore.create(path, space="mine", dim=dim)
    store.add(pa.table(table), embedding_column="vector", progress=False)
    return store


class Syncs:
    """Runs syncs in forks of a process that has imported all, and kills them when the server is asked the n-th time."""

    def __init__(self, server: NomicServer, folder: Path, options: dict[str, Any]) -> None:
        self.server, self.folder, self.options = server, folder, options
        self.done: Counter[str] = Counter()  # requests that the server has served
        self._whole, self._lock = server._answer, threading.Lock()
        self._asked, self._moment, self._after, self._pid = 0, 0, False, 0
        self._known = threading.Event()
        server._answer = self._answer  # type: ignore[method-assign]
        self._forks = subprocess.Popen(
            [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _answer(self, request: Request) -> Reply:
        """Serve a request; kill who asked, before or after that, when the moment has come."""
        self._known.wait()
        with self._lock:
            self._asked += 1
            now = self._asked == self._moment
        if now and not self._after:
            os.kill(self._pid, signal.SIGKILL)
            return Reply(b"", 503)
        reply = self._whole(request)
        with self._lock:
            self.done[_route(request)] += 1
        if now:
            os.kill(self._pid, signal.SIGKILL)
        return reply

    def run(self, store: Path, name: str, moment: int = 0, *, after: bool = False, **options: Any) -> dict[str, Any]:
        """Sync, killed at a request (0: at none); return what it reported, and how many requests it made."""
        self._asked, self._moment, self._after = 0, moment, after
        said = self.folder / "said.json"
        said.unlink(missing_ok=True)
        told = {"store": str(store), "name": name, "said": str(said), "options": {**self.options, **options}}
        stdin, stdout = self._forks.stdin, self._forks.stdout
        assert stdin is not None
        assert stdout is not None
        self._known.clear()
        stdin.write(json.dumps(told) + "\n")
        stdin.flush()
        self._pid = int(stdout.readline())
        self._known.set()
        status = int(stdout.readline())
        self._moment = 0
        killed = os.WIFSIGNALED(status)
        if not killed and os.waitstatus_to_exitcode(status):
            raise RuntimeError(f"a sync failed: {told}")
        report = {} if killed else json.loads(said.read_text())
        return {"killed": killed, "requests": self._asked, **report}

    def close(self) -> None:
        """End the process that forks."""
        self._forks.communicate()


def _route(request: Request) -> str:
    """Return a request's route without the ids in it."""
    known = next((route for route in (*WRITES, UPLOAD, *READS) if request.route.startswith(route)), request.route)
    exact = request.route in (*WRITES, UPLOAD)
    return known if exact or known in READS else request.route


def change(store: EmbedStore, rows: int) -> None:
    """Give some rows other vectors."""
    names = [name for name in store.columns if name not in ("added_at", "content_hash", "width", "height")]
    table = store.to_table(names).slice(len(store) // 3, rows)
    column = unit_vectors(rows, store.space.dim, 7)
    store.add(table.append_column("vector", column), embedding_column="vector", progress=False)


def session(syncs: Syncs, base: Path, told: Any, number: int, kill: tuple[int, int], after: bool) -> dict[str, Any]:
    """Run one session, killed at request `kill[1]` of phase `kill[0]` (0: none); return what was done and is there."""
    place, slug = syncs.folder / f"{number}.store", f"session-{number}"
    shutil.copytree(base, place)
    syncs.done.clear()
    found: dict[str, Any] = {
        "kill": f"phase {kill[0]}, request {kill[1]}, {'after' if after else 'before'} it was done"
    }
    runs: list[dict[str, Any]] = []
    for phase, options in ((1, {}), (2, {"replace": True, "index": True})):
        if phase == 2:
            change(EmbedStore.open(place), told.changed)
        runs.append(syncs.run(place, slug, kill[1] if kill[0] == phase else 0, after=after, **options))
        if runs[-1]["killed"]:
            runs.append(syncs.run(place, slug, **options))
    dataset, store = syncs.server.atlas.dataset(slug), EmbedStore.open(place)
    ids = store.to_table(["id"])["id"].to_pylist()
    one = dataset.indices[-1] if dataset.indices else None
    found |= {
        "requests": [run["requests"] for run in runs],
        "whole": Counter(dataset.ids) == Counter(ids)
        and bool(np.array_equal(dataset.vectors, store.vectors(dataset.ids).astype(np.float16))),
        "rows_taken": syncs.server.atlas.received[slug],
        "maps": len(dataset.indices),
        "map_is_of_now": one is not None and bool(np.array_equal(one.vectors, dataset.vectors)),
        **{route: syncs.done[route] for route in WRITES},
        "embedding_requests": syncs.server.requests,
    }
    expected = {
        **{"whole": True, "rows_taken": told.rows + told.changed, "maps": 1, "map_is_of_now": True},
        **dict.fromkeys(WRITES, 1),
        "embedding_requests": 0,
    }
    found["wrong"] = [name for name, value in expected.items() if found[name] != value]
    other = [route for route in syncs.done if route not in (*WRITES, UPLOAD, *READS)]
    shards = -(-told.rows // told.shard_rows) + 1
    found["unexplained"] = len(other) + max(0, syncs.done[UPLOAD] - shards)
    return found


def columns_back(here: EmbedStore, path: Path, name: str) -> dict[str, str]:
    """Pull a dataset and say of each column whether it is as it was, named as another, or lost without a word."""
    report = pull(path, name)
    names = [name for name in here.columns if name != "added_at"]
    there = EmbedStore.open(path)
    a, b = (store.to_table([name for name in names if name in store.columns]).sort_by("id") for store in (here, there))
    outcome = {}
    for name in names:
        same = name in b.column_names and a[name].type == b[name].type and a[name].to_pylist() == b[name].to_pylist()
        outcome[name] = "restored" if same else f"named: {report.notes[name]}" if name in report.notes else "LOST"
    return outcome


def main() -> None:
    """Run the sessions, print what they came to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, value in (("rows", 12_000), ("dim", 64), ("changed", 40), ("kills", 20), ("shard-rows", 2_500)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--timeout", type=float, default=30.0)
    told: Any = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, NomicServer() as server:
        os.environ.update(server.environment(Path(folder) / "home"))
        server.atlas.build_seconds, server.atlas.row_limit = MAP_SECONDS, 10**9
        base = make_store(Path(folder) / "base.store", told.rows, told.dim).path
        syncs = Syncs(server, Path(folder), {"shard_rows": told.shard_rows, "timeout": told.timeout})
        plain = session(syncs, base, told, 0, (0, 0), False)
        first, second = plain["requests"]
        moments = np.linspace(1, first + second, told.kills).round().astype(int).tolist()
        sessions = [plain]
        for number, moment in enumerate(moments, 1):
            killed = False
            while not killed:  # how often is asked for a map depends on the time that it takes
                kill = (1, moment) if moment <= first else (2, moment - first)
                sessions.append(session(syncs, base, told, len(sessions), kill, bool(number % 2)))
                killed, moment = len(sessions[-1]["requests"]) == 3, moment - 1
        syncs.close()
        last = len(sessions) - 1
        here = EmbedStore.open(Path(folder) / f"{last}.store")
        back = columns_back(here, Path(folder) / "back.store", f"stand-in/session-{last}")
    wrong = [one for one in sessions if one["wrong"] or one["unexplained"]]
    print(
        json.dumps(
            {
                "rows": told.rows,
                "kills": sum(len(one["requests"]) == 3 for one in sessions),
                "sessions_whole": sum(not one["wrong"] for one in sessions),
                "unexplained_requests": sum(one["unexplained"] for one in sessions),
                "maps": sorted({one["maps"] for one in sessions}),
                "wrong": wrong,
                "columns": back,
                "sessions": sessions,
            },
            indent=1,
        )
    )
    sys.exit(bool(wrong or "LOST" in back.values()))


if __name__ == "__main__":
    main()
