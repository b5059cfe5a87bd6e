"""A million rows that arrive 64 at a time: how many parts they leave, how quickly the store opens, and what it costs.

    scripts/in_venv python scripts/bench_ledger.py [--rows 1000000] [--dim 768] [--runs 1]

Rows go through the ledger and its folds as in `embedstore add`; only pictures and models are left out. `--runs N`
spreads them over N adds, as a folder that grows a little every day would; `--runs 15625` makes each batch of 64 an
add of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from embedstore.storage import arrow_columns, parts
from embedstore.storage.folder import own_columns
from embedstore.store import EmbedStore

BATCH = 64

OPEN = """
import json, sys, time
from embedstore.store import EmbedStore
started = time.perf_counter()
store = EmbedStore.open(sys.argv[1])
opened = time.perf_counter()
first = store.search(__import__("numpy").eye(store.space.dim, dtype="float32")[0], k=1)
print(json.dumps([len(store), opened - started, time.perf_counter() - opened]))
"""


def batch(first: int, dim: int) -> pa.Table:
    """Return rows as `add` writes them, with unit vectors."""
    numbers = range(first, first + BATCH)
    rng = np.random.default_rng(first)
    found = rng.standard_normal((BATCH, dim), dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    columns = {
        "id": [f"{number:032x}" for number in numbers],
        "uri": [f"/photos/2024/{number // 1000:04}/IMG_{number:07}.jpg" for number in numbers],
        "content_hash": [f"{number * 7919:064x}" for number in numbers],
        "width": [4000] * BATCH,
        "height": [3000] * BATCH,
        "added_at": [None] * BATCH,
    }
    return pa.table(columns, schema=own_columns()).append_column(
        arrow_columns.embedding_field(), arrow_columns.list_array(found)
    )


def main() -> None:
    """Fill a store, then open it in fresh processes."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--dim", type=int, default=768)
    options.add_argument("--runs", type=int, default=1)
    options.add_argument("--folder", type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        measure(Path(folder) / "million.store", given.rows // BATCH, given.dim, given.runs)


def measure(path: Path, batches: int, dim: int, runs: int) -> None:
    """Print the table."""
    store = EmbedStore.create(path, space="bench", dim=dim)
    started, writing, folds = time.perf_counter(), 0.0, 0
    waiting, most = 0, 0
    for number in range(batches):
        table = batch(number * BATCH, dim)
        before = time.perf_counter()
        store.folder.ledger.pay("bench", table)
        writing += time.perf_counter() - before
        waiting += len(table)
        last = (number + 1) * runs // batches > number * runs // batches
        if last or waiting >= parts.rows_per_part(dim):
            with store.folder.writing():
                store.folder.fold()
            store.refresh()
            waiting, folds = 0, folds + 1
            most = max(most, len(store.snapshot.parts))
    total = time.perf_counter() - started
    opening = sorted(json.loads(subprocess.check_output([sys.executable, "-c", OPEN, str(path)])) for _ in range(5))
    rows, seconds, first = opening[2]
    left = sum(store.folder.ledger.waiting().values())
    print(f"{rows:,} rows of {dim} in {batches:,} batches of {BATCH}, {runs:,} adds, {folds:,} folds")
    print(f"parts at the end          {len(store.snapshot.parts)} (at most {most} on the way)")
    print(f"open, fresh process       {seconds * 1000:.1f} ms (median of 5), first search {first * 1000:.0f} ms")
    print(f"ledger, synced batches    {writing / batches * 1000:.2f} ms each")
    print(f"all of it                 {total:.0f} s; rows left in the ledger: {left}")


if __name__ == "__main__":
    main()
