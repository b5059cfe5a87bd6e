"""Stores of two-dimensional vectors whose scores for one query are drawn from a source that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from embedstore.searching.queries import Query
from embedstore.store import EmbedStore

QUERY = Query.vector([1.0, 0.0])


def scored_store(
    path: Path, seed: int, n: int = 2_000, prevalence: float = 0.05, separation: float = 2.5, moved: float = 0.0
) -> EmbedStore:
    """Make a store with a column `kind`, "yes" or "no", whose scores for `QUERY` are normal in each."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < prevalence
    scores = np.clip(0.1 * (rng.standard_normal(n) + separation * truth + moved), -1, 1)
    vectors = np.stack([scores, np.sqrt(1 - scores**2)], axis=1).astype(np.float32)
    columns = {
        "id": [f"{seed}-{row}" for row in range(n)],
        "kind": np.where(truth, "yes", "no"),
        "vector": pa.array(list(vectors), pa.list_(pa.float32())),
    }
    store = EmbedStore.create(path, space="mine", dim=2)
    store.add(pa.table(columns), embedding_column="vector")
    return store
