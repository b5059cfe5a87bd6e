"""Figures of the sync with Atlas, against the stand-in server and through the unmodified client.

    python scripts/measure_atlas.py [--rows 12000] [--dim 768] [--kills 20]

Prints: how long a sync takes and what it sends; a second sync; syncs that are killed while faults of every kind meet
a tenth of all requests, what each run said and what the server then held; push, pull and the answers of both stores.
Kills at chosen requests, with vectors that change and a map, are `kill_syncs.py`'s.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.atlas import apply_sync, plan_sync, pull
from embedstore.errors import EmbedStoreError
from embedstore.searching.queries import Query
from embedstore.store import EmbedStore
from embedstore.testing import KINDS, OF_VECTORS, Fault, NomicServer

FAULTS = tuple(kind for kind in KINDS if kind not in OF_VECTORS)
SYNC = """
import sys
from embedstore.atlas import apply_sync, plan_sync
from embedstore.errors import EmbedStoreError
from embedstore.store import EmbedStore
try:
    plan = plan_sync(EmbedStore.open(sys.argv[1]), sys.argv[2], create=True, timeout=12.0, shard_rows=250)
    print(apply_sync(plan))
except EmbedStoreError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def unit_vectors(rows: int, dim: int, seed: int) -> np.ndarray:
    """Return random unit vectors, float32 of shape (rows, dim)."""
    made = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def make_store(path: Path, rows: int, dim: int) -> EmbedStore:
    """Make a store of random vectors with some metadata."""
    rng = np.random.default_rng(1)
    table = pa.table(
        {
            "id": [f"{row:032x}" for row in range(rows)],
            "label": [("cat", "dog", None, "")[row % 4] for row in range(rows)],
            "big": [row * 10**6 for row in range(rows)],
            "share": rng.random(rows),
            "vector": pa.FixedSizeListArray.from_arrays(unit_vectors(rows, dim, 0).reshape(-1), dim),
        }
    )
    store = EmbedStore.create(path, space="mine", dim=dim)
    store.add(table, embedding_column="vector", progress=False)
    return store


def whole(server: NomicServer, slug: str, store: EmbedStore) -> bool:
    """Tell whether a dataset has each row of a store exactly once, with its vector."""
    dataset = server.atlas.dataset(slug)
    ids = store.to_table(["id"]).column("id").to_pylist()
    if Counter(dataset.ids) != Counter(ids):
        return False
    return bool(np.array_equal(dataset.vectors, store.vectors(dataset.ids).astype(np.float16)))


def plain(server: NomicServer, store: EmbedStore) -> None:
    """Sync twice."""
    report = apply_sync(plan_sync(store, "stand-in/plain", create=True, index=True))
    print(report)
    print(f"  whole: {whole(server, 'plain', store)}; rows received: {server.atlas.received['plain']:,}")
    before, routes = server.atlas.received["plain"], server.counts.routes.total()
    print(apply_sync(plan_sync(store, "stand-in/plain")))
    requests = server.counts.routes.total() - routes
    print(f"  second sync: {server.atlas.received['plain'] - before} rows received, {requests} requests\n")


def killed(server: NomicServer, store: EmbedStore, kills: int) -> None:
    """Kill syncs at random moments while a tenth of all requests fails, until one comes through."""
    server.faults.random(0.1, seed=11, kinds=FAULTS, path="/v1/")
    server.latency = 0.002
    dice, outcomes, lies = random.Random(3), Counter[str](), 0
    command = [sys.executable, "-c", SYNC, str(store.path), "stand-in/killed"]
    runs = 0
    while outcomes["killed"] < kills or not outcomes["succeeded"]:
        runs += 1
        server.atlas.string_bodies = bool(runs % 2)
        if runs % 5 == 0 and "killed" in server.atlas.datasets():
            server.atlas.dataset("killed").locked_until = time.monotonic() + 2.0
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = server.counts.routes.total() + dice.randint(3, 45)
        while server.counts.routes.total() < until and process.poll() is None:
            time.sleep(0.001)
        time.sleep(dice.random() * 0.02)
        killing = outcomes["killed"] < kills and process.poll() is None
        if killing:
            process.kill()
        said, wrong = process.communicate()
        outcome = "killed" if killing else "failed" if process.returncode else "succeeded"
        outcomes[outcome] += 1
        rows = len(server.atlas.dataset("killed").ids) if "killed" in server.atlas.datasets() else 0
        lies += outcome == "succeeded" and not whole(server, "killed", store)
        print(f"  run {runs}: {outcome}, {rows:,} rows there; {(said or wrong).strip().splitlines()[:1]}")
    server.faults.clear()
    server.latency = 0.0
    print(
        f"{runs} runs: {dict(outcomes)}; whole: {whole(server, 'killed', store)}; successes that the server "
        f"contradicts: {lies}; rows received in all: {server.atlas.received['killed']:,}; "
        f"answers {dict(server.counts.statuses)}\n"
    )


def back(store: EmbedStore, path: Path, dim: int) -> None:
    """Pull, and compare the answers."""
    print(pull(path, "stand-in/plain"))
    copy = EmbedStore.open(path)
    queries = [Query.vector(vector) for vector in unit_vectors(50, dim, 9)]
    ids = store.to_table(["id"]).column("id").to_pylist()
    scores = dict(zip(ids, store.scores(queries).T, strict=True))
    same, ties = 0, []
    found = zip(store.search_many(queries, k=20), copy.search_many(queries, k=20), strict=True)
    for number, (here, there) in enumerate(found):
        a, b = (matches.table.column("id").to_pylist() for matches in (here, there))
        same += a == b
        ties += [
            (number, place, float(abs(scores[one][number] - scores[other][number])))
            for place, (one, other) in enumerate(zip(a, b, strict=True))
            if one != other
        ]
    print(f"top 20 equal in order for {same} of 50 queries; places that differ (query, place, score difference):")
    print(json.dumps(ties))


def hung(server: NomicServer, store: EmbedStore, path: Path) -> None:
    """Time each call against a server that hangs from some point on."""
    plan = plan_sync(store, "stand-in/other", create=True, timeout=6.0, index=True)
    whole_plan = plan_sync(store, "stand-in/plain", timeout=6.0, index=True)
    project = f"/v1/project/{server.atlas.dataset('plain').id}"
    calls: dict[str, tuple[str, Any]] = {
        "plan": ("/v1/", lambda: plan_sync(store, "stand-in/plain", timeout=6.0)),
        "look-up": ("/v1/project/data/get", lambda: plan_sync(store, "stand-in/plain", timeout=6.0)),
        "making a dataset": ("/v1/project/create", lambda: apply_sync(plan)),
        "upload": ("/v1/project/data/add", lambda: apply_sync(plan)),
        "looking at it": (project, lambda: apply_sync(whole_plan)),
        "pull": (f"{project}/index", lambda: pull(path, "stand-in/plain", timeout=6.0)),
    }
    for kind in ("hung", "drip"):
        for name, (path_of, call) in calls.items():
            server.faults.random(1.0, 1, [Fault(kind, 3600.0)], path=path_of)
            started = time.perf_counter()
            try:
                call()
                outcome = "no error"
            except EmbedStoreError as error:
                outcome = f"{type(error).__name__}: {str(error)[:90]}"
            print(f"  {kind}, {name}: {time.perf_counter() - started:.1f} s of 6.0 s; {outcome}")
            server.faults.clear()


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("rows", 12_000), ("dim", 768), ("kills", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    told: Any = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, NomicServer() as server:
        os.environ.update(server.environment(Path(folder) / "home"))
        store = make_store(Path(folder) / "s.store", told.rows, told.dim)
        plain(server, store)
        killed(server, store, told.kills)
        hung(server, store, Path(folder) / "never.store")
        back(store, Path(folder) / "copy.store", told.dim)


if __name__ == "__main__":
    main()
