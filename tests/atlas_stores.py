"""Stores of random vectors for the tests of Atlas, a sync as a process of its own, and a look at the server."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.atlas import SyncReport, apply_sync, plan_sync
from embedstore.errors import EmbedStoreError
from embedstore.store import EmbedStore
from embedstore.testing.atlas_state import Dataset

NAME = "stand-in/photos"


def unit_vectors(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def vector_store(path: Path, rows: int, dim: int = 16, seed: int = 0, **columns: Any) -> EmbedStore:
    """Make a store of `rows` random unit vectors with ids of 32 characters, and some metadata."""
    given = {
        "id": [f"{seed:04x}{row:028x}" for row in range(rows)],
        "label": [("cat", "dog", None, "")[row % 4] for row in range(rows)],
        "number": list(range(rows)),
        **columns,
    }
    vectors = unit_vectors(rows, dim, seed)
    given["vector"] = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), dim)
    store = EmbedStore.create(path, space="mine", dim=dim)
    store.add(pa.table(given), embedding_column="vector", progress=False)
    return store


def sync(store: EmbedStore, name: str = NAME, **options: Any) -> SyncReport:
    """Plan and apply, making the dataset where there is none."""
    return apply_sync(plan_sync(store, name, **{"create": True, "timeout": 8.0, **options}))


def require_whole(dataset: Dataset, store: EmbedStore) -> None:
    """Fail unless the dataset has each row of the store exactly once, with its vector as float16."""
    ids = store.to_table(["id"]).column("id").to_pylist()
    assert Counter(dataset.ids) == Counter(ids)
    np.testing.assert_array_equal(dataset.vectors, store.vectors(dataset.ids).astype(np.float16))


def main() -> None:
    """Sync as told by a JSON argument; print the report, or what it failed with."""
    told = json.loads(sys.argv[1])
    try:
        plan = plan_sync(
            EmbedStore.open(told["store"]),
            told["name"],
            create=True,
            timeout=60.0,
            shard_rows=told["shard_rows"],
        )
        report = apply_sync(plan)
    except EmbedStoreError as error:
        sys.stdout.write(json.dumps({"error": str(error)}))
        sys.exit(1)
    sys.stdout.write(json.dumps({"sent": report.sent, "present": report.present, "total": report.total}))


if __name__ == "__main__":
    main()
