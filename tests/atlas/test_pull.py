"""A dataset of Atlas comes down into a store: the same rows, and the same answers but for the rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from atlas_stores import NAME, unit_vectors, vector_store

from embedstore.atlas import apply_sync, plan_sync, pull
from embedstore.embedders.registry import name_for_space, space_of
from embedstore.errors import AtlasError, InputError, SpaceMismatchError
from embedstore.searching.queries import Query
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

ROUNDING = 2**-11
"""Largest relative change of a number by float16, and so of a unit vector's length."""


def push(store: EmbedStore, **options: object) -> None:
    plan = plan_sync(store, NAME, create=True, index=True, timeout=10.0, **options)  # type: ignore[arg-type]
    apply_sync(plan)


def test_the_same_rows(server: NomicServer, tmp_path: Path) -> None:
    """Each id comes back with its own vector, rounded to float16, and with its metadata."""
    store = vector_store(tmp_path / "s.store", 2_500, dim=24)
    push(store)
    report = pull(tmp_path / "copy.store", f"atlas://{NAME}", timeout=10.0)
    assert (report.rows, report.unmapped, report.added.found) == (2_500, 0, 2_500)
    copy = EmbedStore.open(tmp_path / "copy.store")
    table = copy.to_table(["id", "uri", "label", "number"])
    ids = table.column("id").to_pylist()
    assert sorted(ids) == sorted(store.to_table(["id"]).column("id").to_pylist())
    rounded = store.vectors(ids).astype(np.float16).astype(np.float64)
    expected = rounded / np.linalg.norm(rounded, axis=1, keepdims=True)
    np.testing.assert_allclose(copy.vectors(ids), expected, atol=1e-6)
    before = {row["id"]: row for row in store.to_table(["id", "uri", "label", "number"]).to_pylist()}
    for row in table.to_pylist():
        assert row == before[row["id"]]
    assert copy.space == store.space.rounded()
    assert copy.space.precision == "float16"
    assert not (tmp_path / "home" / ".nomic" / "cache").exists()


def test_the_same_answers(server: NomicServer, tmp_path: Path) -> None:
    """Of 50 queries the 20 nearest rows are the same in both stores but for ties within the rounding."""
    store = vector_store(tmp_path / "s.store", 3_000, dim=64)
    push(store)
    pull(tmp_path / "copy.store", NAME, timeout=10.0)
    copy = EmbedStore.open(tmp_path / "copy.store")
    queries = [Query.vector(vector) for vector in unit_vectors(50, 64, seed=3)]
    scores = dict(zip(store.to_table(["id"]).column("id").to_pylist(), store.scores(queries).T, strict=True))
    for number, (here, there) in enumerate(
        zip(store.search_many(queries, k=20), copy.search_many(queries, k=20), strict=True)
    ):
        for a, b in zip(here.table.column("id").to_pylist(), there.table.column("id").to_pylist(), strict=True):
            assert a == b or abs(scores[a][number] - scores[b][number]) <= 4 * ROUNDING


def test_texts_find_pictures_in_the_copy(server: NomicServer, photo_store: EmbedStore, tmp_path: Path) -> None:
    """A pulled store answers texts by the model that its pictures were embedded with, and embeds nothing again."""
    push(photo_store)
    pull(tmp_path / "copy.store", NAME, timeout=10.0)
    copy = EmbedStore.open(tmp_path / "copy.store")
    assert copy.space.precision == "int8 as float16"
    assert name_for_space(copy.space) == "objects"
    here, there = photo_store.search("bird", k=5), copy.search("bird", k=5)
    assert here.table.column("id").to_pylist() == there.table.column("id").to_pylist()
    assert here.table.column("uri").to_pylist() == there.table.column("uri").to_pylist()
    shared = {"category", "content_hash", "width"} & set(photo_store.columns)
    for name in shared:
        assert here.table.column(name).to_pylist() == there.table.column(name).to_pylist()


def test_a_second_pull(server: NomicServer, tmp_path: Path) -> None:
    """A second pull changes nothing; after more rows and a new map it brings those, from no old cache."""
    store = vector_store(tmp_path / "s.store", 60)
    push(store, where="number < 40")
    copy = tmp_path / "copy.store"
    pull(copy, NAME, timeout=10.0)
    assert pull(copy, NAME, timeout=10.0).added.unchanged == 40
    apply_sync(plan_sync(store, NAME, timeout=10.0))
    report = pull(copy, NAME, timeout=10.0)
    assert report.unmapped == 20
    assert "on no map" in str(report)
    push(store)
    assert pull(copy, NAME, timeout=10.0).added.unchanged == 40
    assert len(EmbedStore.open(copy)) == 60


def test_a_pulled_store_syncs_back(server: NomicServer, tmp_path: Path) -> None:
    """What came down need not go up: its ids are the same."""
    push(vector_store(tmp_path / "s.store", 30))
    pull(tmp_path / "copy.store", NAME, timeout=10.0)
    plan = plan_sync(EmbedStore.open(tmp_path / "copy.store"), NAME, timeout=10.0)
    assert (plan.missing, plan.present, plan.differing) == (0, 30, {})


def test_a_dataset_of_somebody_else(server: NomicServer, tmp_path: Path) -> None:
    """Vectors of which nothing is known need a name for what made them; another store is refused."""
    made = {"project_name": "photos", "unique_id_field": "key", "is_public": True}
    dataset = server.atlas.create(made)
    vectors = unit_vectors(30, 8) * 3
    rows = {
        "key": [f"k{row}" for row in range(30)],
        "_embeddings": pa.FixedSizeListArray.from_arrays(vectors.astype(np.float16).reshape(-1), 8),
    }
    server.atlas.add_rows(dataset, pa.table(rows))
    with pytest.raises(AtlasError, match="has no map"):
        pull(tmp_path / "a.store", NAME, timeout=10.0)
    server.atlas.create_index(dataset, {"index_name": "m"})
    with pytest.raises(InputError, match="space="):
        pull(tmp_path / "a.store", NAME, timeout=10.0)
    with pytest.raises(InputError, match="768 dimensions"):
        pull(tmp_path / "a.store", NAME, space=space_of("nomic"), timeout=10.0)
    assert not (tmp_path / "a.store").exists()
    pull(tmp_path / "a.store", NAME, space="theirs", timeout=10.0)
    store = EmbedStore.open(tmp_path / "a.store")
    expected = vectors.astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(
        store.vectors([f"k{row}" for row in range(30)]),
        expected / np.linalg.norm(expected, axis=1, keepdims=True),
        atol=1e-6,
    )
    plan = plan_sync(store, NAME, timeout=10.0)
    assert (plan.present, plan.missing, plan.problems) == (30, 0, [])
    exact = vector_store(tmp_path / "exact.store", 3, dim=8)
    with pytest.raises(SpaceMismatchError, match="float16"):
        pull(exact, NAME, space="mine", timeout=10.0)


def test_rows_that_atlas_numbered(server: NomicServer, tmp_path: Path) -> None:
    """Rows of a dataset without a column of ids come down under the ids that Atlas gave them, which their uris say."""
    dataset = server.atlas.create({"project_name": "photos", "unique_id_field": None, "is_public": False})
    vectors = unit_vectors(25, 8)
    column = pa.FixedSizeListArray.from_arrays(vectors.astype(np.float16).reshape(-1), 8)
    server.atlas.add_rows(dataset, pa.table({"label": ["a"] * 25, "_embeddings": column}))
    server.atlas.create_index(dataset, {"index_name": "m"})
    pull(tmp_path / "a.store", NAME, space="theirs", timeout=10.0)
    store = EmbedStore.open(tmp_path / "a.store")
    np.testing.assert_allclose(store.vectors(dataset.ids), vectors, atol=2 * ROUNDING)
    rows = store.to_table(["id", "uri"]).to_pylist()
    assert all(row["uri"] == f"atlas://{NAME}#{row['id']}" for row in rows)


@pytest.mark.parametrize("kind", ["500", "html-200", "html-502", "reset", "dropped", "429"])
def test_tiles_that_fail(server: NomicServer, tmp_path: Path, kind: str) -> None:
    """An error page in the place of a tile is no tile: it is fetched again."""
    store = vector_store(tmp_path / "s.store", 1_500)
    push(store)
    quadtree = f"/v1/project/{server.atlas.dataset('photos').id}/index/"
    server.faults.script([kind, None, kind, kind], path=quadtree)  # type: ignore[list-item]
    assert pull(tmp_path / "copy.store", NAME, timeout=10.0).rows == 1_500
    assert server.faults.left == 0
