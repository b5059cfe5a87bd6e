"""A store of more than 200 parts, for this process and for two Ray nodes; the SHA-256 of an answer. Has fixtures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from embedstore.cluster import ray_executor
from embedstore.searching.queries import Concept, Query
from embedstore.store import EmbedStore

if TYPE_CHECKING:
    from ray_nodes import Nodes

ROWS, DIM, PARTS = 13_440, 96, 210


def made(path: Path) -> EmbedStore:
    """Make a store of 210 parts of 64 rows; a tenth of its rows are yes, and lie nearer to the query."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((ROWS, DIM))
    yes = random.random(ROWS) < 0.1
    rows[:, 0] += 4 * yes
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    columns = {
        "id": [f"row-{number}" for number in range(ROWS)],
        "kind": np.where(yes, "yes", "no"),
        "width_of": random.integers(0, 100, ROWS),
        "vector": pa.array(list(rows.astype(np.float32)), pa.list_(pa.float32())),
    }
    store = EmbedStore.create(path, space="mine", dim=DIM)
    store.add(pa.table(columns), embedding_column="vector", progress=False)
    split(store)
    store.refresh()
    assert len(store.snapshot.parts) == PARTS
    return store


def split(store: EmbedStore) -> None:
    """Lay the rows of a store's one part out in many, in one commit."""
    (part,) = store.snapshot.parts
    schema, table, vectors = store.snapshot.schema, store.folder.images, part.vectors()
    rows = part.read(schema.names).select(schema.names)
    made, step = [], ROWS // PARTS
    for first in range(0, ROWS, step):
        groups = [slice(first, first + 40), slice(first + 40, first + step)]
        batches = ((rows.slice(g.start, g.stop - g.start), vectors[g]) for g in groups)
        made.append(table.new_part(batches, schema))
    table.commit(made, [part], base=store.snapshot, operation="split", data_change=False)


def unit(seed: int) -> Query:
    vector = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    vector[0] += 3 * (seed == 0)
    return Query.vector(vector / np.linalg.norm(vector))


QUERY = unit(0)
AGAINST = Concept.of(QUERY, opposing=[unit(1), unit(2)])


def digest(found: Any) -> str:
    """Return the SHA-256 of an answer: of every bit of its numbers, and of its words."""
    if isinstance(found, list):
        return hashlib.sha256("".join(map(digest, found)).encode()).hexdigest()
    if isinstance(found, np.ndarray):
        return hashlib.sha256(f"{found.dtype}{found.shape}".encode() + found.tobytes()).hexdigest()
    if hasattr(found, "table") and not callable(found.table):
        table = found.table.combine_chunks()
        assert table.num_rows > 0
        return digest([digest(table["score"].to_numpy()), digest(table.to_pylist().__repr__())])
    if hasattr(found, "to_dict"):
        return digest(json.dumps({**found.to_dict(), "created_at": None}, sort_keys=True))
    return hashlib.sha256(str(found).encode()).hexdigest()


@pytest.fixture(scope="module")
def many_bundles() -> Iterator[None]:
    """So that this small store makes many."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ray_executor, "LEAST_BYTES", 1)
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store is, which tests only read."""
    return made(tmp_path_factory.mktemp("shared") / "s.store").path


@pytest.fixture
def here(path: Path) -> EmbedStore:
    """The store, read by this process."""
    return EmbedStore.open(path)


@pytest.fixture
def there(path: Path, nodes: Nodes, many_bundles: None) -> EmbedStore:
    """The store, read by the nodes, in many bundles."""
    return EmbedStore.open(path, executor=f"ray:{nodes.address}")
