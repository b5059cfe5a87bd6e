"""Rows that differ in Atlas: named at each sync, and replaced when that is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from atlas_stores import NAME, require_whole, sync, unit_vectors, vector_store
from conftest import save_picture

import embedstore
from embedstore.atlas import plan_sync
from embedstore.deciding.classifier import Classifier
from embedstore.deciding.target import Target
from embedstore.errors import AtlasError, InputError
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer
from embedstore.testing.wire import Refused


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "small.store", 60)


def change_vectors(store: EmbedStore, rows: int, seed: int = 9) -> list[str]:
    """Give the first rows other vectors; return their ids."""
    table = store.to_table(["id", "uri", "label", "number"]).slice(0, rows)
    vectors = unit_vectors(rows, store.space.dim, seed)
    column = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), store.space.dim)
    report = store.add(table.append_column("vector", column), embedding_column="vector", progress=False)
    assert report.replaced == rows
    return [str(name) for name in table.column("id").to_pylist()]


def test_another_vector_is_named_and_replaced(server: NomicServer, small: EmbedStore) -> None:
    """Rows with another vector than was sent are named, with or without recheck; with replace they alone are sent."""
    sync(small, index=True)
    ids = change_vectors(small, 7)
    for recheck in (False, True):
        plan = plan_sync(small, NAME, recheck=recheck)
        assert sorted(plan.outdated) == sorted(ids)
        assert (plan.missing, plan.unknown, plan.differing, plan.replaced) == (0, 0, {}, [])
        assert "7 rows whose vector is another now than the one that was sent" in str(plan)
        assert "replace=True" in str(plan)
    report = sync(small)
    assert (report.sent, len(report.plan.outdated)) == (0, 7)
    assert "7 rows whose vector is another now" in str(report)
    received = server.atlas.received["photos"]
    report = sync(small, replace=True, index=True)
    assert (report.sent, report.replaced, report.total) == (7, 7, 60)
    assert server.atlas.received["photos"] - received == 7
    dataset = server.atlas.dataset("photos")
    require_whole(dataset, small)
    # A map of as many rows was there; it shows the old vectors, so another is made.
    assert len(dataset.indices) == 2
    plan = plan_sync(small, NAME)
    assert (plan.outdated, plan.differing, plan.missing) == ([], {}, 0)
    assert "already" in str(sync(small, index=True).map)


def test_values_that_differ_are_replaced(server: NomicServer, small: EmbedStore) -> None:
    """A row with another value there is deleted and sent anew, and no other."""
    sync(small)
    dataset = server.atlas.dataset("photos")
    labels = dataset.rows.column("label").to_pylist()
    labels[4] = "horse"
    dataset.rows = dataset.rows.set_column(dataset.columns.index("label"), "label", pa.array(labels))
    assert "replace=True" in str(plan_sync(small, NAME))
    assert sync(small, replace=True).sent == 1
    assert plan_sync(small, NAME).differing == {}
    require_whole(dataset, small)


def test_rows_of_another_machine(server: NomicServer, small: EmbedStore, tmp_path: Path) -> None:
    """Where no ledger tells which vectors were sent that is said, and nothing is replaced on suspicion."""
    sync(small)
    small.folder.ledger.path.unlink()
    change_vectors(small, 3)
    plan = plan_sync(small, NAME, replace=True)
    assert (plan.outdated, plan.unknown, plan.shards) == ([], 60, 0)
    assert "60 rows there were not sent from here" in str(plan)


def test_new_columns_are_named_and_sent_when_asked(server: NomicServer, small: EmbedStore) -> None:
    """Columns that a dataset was made without are named; with replace it is made again with them, as it was else."""
    embedstore.sync(small, NAME, description="Cats by the sea", public=True, index=True, timeout=8.0)
    first = server.atlas.dataset("photos").id
    target = Target("cat", 0.1, unit_vectors(1, 16, seed=7)[0])
    Classifier("cats", small.space, (target,)).save(small.path / "classifiers")
    plan = plan_sync(small, NAME, classifier="cats")
    assert {"cats_score", "cats_match"} <= set(plan.unsent)
    assert "replace=True deletes the dataset and makes it again" in str(plan)
    with pytest.raises(InputError, match="leave where out"):
        sync(small, classifier="cats", replace=True, where="number < 30")
    assert server.atlas.dataset("photos").id == first
    plan = plan_sync(small, NAME, classifier="cats", replace=True)
    assert plan.anew == ["cats_score", "cats_match"]
    assert "to be deleted and made again, with its maps" in str(plan)
    report = sync(small, classifier="cats", replace=True)
    dataset = server.atlas.dataset("photos")
    assert dataset.id != first
    assert (report.sent, report.created, dataset.is_public) == (60, True, True)
    assert dataset.description.startswith("Cats by the sea\n")
    assert {"cats_score", "cats_match"} <= set(dataset.columns)
    require_whole(dataset, small)
    assert sync(small, classifier="cats", replace=True).sent == 0
    assert sync(small, replace=True).sent == 0  # nothing differs, though these rows have no such columns
    more = vector_store(small.path.parent / "more.store", 60, extra=["x"] * 60)
    assert any(
        "loses what these rows have not: cats_score" in note for note in plan_sync(more, NAME, replace=True).notes
    )


def test_rows_of_others_keep_a_dataset(server: NomicServer, small: EmbedStore, tmp_path: Path) -> None:
    """A dataset that holds rows which this store has not is not deleted for new columns."""
    sync(small)
    sync(vector_store(tmp_path / "other.store", 5, seed=1))
    more = vector_store(tmp_path / "more.store", 60, extra=["x"] * 60)
    with pytest.raises(AtlasError, match="rows that this store has not would be lost"):
        sync(more, replace=True)
    assert len(server.atlas.dataset("photos").ids) == 65


def test_atlas_does_not_delete(server: NomicServer, small: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Atlas refuses to delete rows, or goes on to show them, the sync fails with the rows as they were."""
    sync(small)
    change_vectors(small, 3)
    whole = server.atlas.delete_rows

    def refuse(*_: object) -> None:
        raise Refused(404, "Not Found")

    monkeypatch.setattr(server.atlas, "delete_rows", refuse)
    with pytest.raises(AtlasError, match=r"did not delete 3 rows.*They are as they were"):
        sync(small, replace=True)
    monkeypatch.setattr(server.atlas, "delete_rows", lambda *_: None)
    with pytest.raises(AtlasError, match="still shows"):
        sync(small, replace=True, timeout=2.0)
    assert len(server.atlas.dataset("photos").ids) == 60
    monkeypatch.setattr(server.atlas, "delete_rows", whole)
    assert sync(small, replace=True).replaced == 3


def test_pictures_that_changed(server: NomicServer, tmp_path: Path) -> None:
    """With images a row whose picture is another now is named and replaced, whatever the vectors are."""
    for number in range(21):
        save_picture(tmp_path / "pictures" / f"{number:02}.png", number)
    store = EmbedStore.create(tmp_path / "p.store", model="objects")
    store.add(tmp_path / "pictures")
    sync(store, images=True)
    save_picture(tmp_path / "pictures" / "03.png", 50)
    store.add(tmp_path / "pictures")
    plan = plan_sync(store, NAME, images=True)
    assert len(plan.outdated) == 1
    assert "whose picture is another now" in str(plan)
    assert sync(store, images=True, replace=True).replaced == 1
    assert len(server.atlas.dataset("photos").blobs) == 22
    assert plan_sync(store, NAME, images=True).outdated == []


def test_spaces_are_not_mixed(server: NomicServer, small: EmbedStore, tmp_path: Path) -> None:
    """Vectors of another model do not go into a dataset, though they are of the same length."""
    sync(small)
    other = EmbedStore.create(tmp_path / "other.store", space="yours", dim=16)
    column = pa.FixedSizeListArray.from_arrays(unit_vectors(5, 16, 3).reshape(-1), 16)
    rows = {"id": list("abcde"), "label": ["a"] * 5, "number": [1] * 5, "vector": column}
    other.add(pa.table(rows), embedding_column="vector", progress=False)
    with pytest.raises(AtlasError, match=r"of the space mine .* of yours .*never mixed"):
        sync(other)


def test_a_row_shown_late(server: NomicServer, small: EmbedStore) -> None:
    """Rows that Atlas shows a moment after it took them are waited for: none is sent twice, none is named missing."""
    server.atlas.shown_after = 0.6
    report = sync(small, timeout=20.0, index=True)
    assert (report.sent, report.uploads) == (60, 1)
    change_vectors(small, 5)
    report = sync(small, timeout=20.0, replace=True)
    assert (report.replaced, report.uploads) == (5, 1)
    require_whole(server.atlas.dataset("photos"), small)
    np.testing.assert_equal(server.atlas.received["photos"], 65)
