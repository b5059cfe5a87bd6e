"""What a sync would do, against the stand-in of Atlas through the unmodified client: there, missing, different."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from atlas_stores import NAME, require_whole, sync, unit_vectors, vector_store

from embedstore.atlas import apply_sync, plan_sync
from embedstore.atlas.compare import EVERY_ID
from embedstore.errors import AtlasError, CredentialsError, InputError, OfflineError
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "small.store", 60)


def test_a_plan_sends_nothing(server: NomicServer, small: EmbedStore) -> None:
    """Planning makes no dataset, sends no row and writes nothing into the store."""
    plan = plan_sync(small, NAME, create=True)
    assert (plan.missing, plan.present, plan.dataset_id) == (60, 0, None)
    assert server.atlas.datasets() == []
    assert small.folder.ledger.confirmed_datasets() == []
    assert "60 missing" in str(plan)
    assert json.dumps(plan.to_dict())


def test_loss_is_what_float16_takes(server: NomicServer, small: EmbedStore) -> None:
    """The loss that is told is the largest difference of a component, and of any score at most."""
    plan = plan_sync(small, NAME, create=True)
    vectors = small.vectors(small.to_table(["id"]).column("id").to_pylist()).astype(np.float64)
    off = vectors - vectors.astype(np.float16)
    assert plan.loss.component == np.abs(off).max()
    queries = unit_vectors(500, 16, seed=9)
    assert np.abs(queries @ off.T).max() <= plan.loss.score
    assert plan.loss.score == pytest.approx(np.linalg.norm(off, axis=1).max())


def test_a_mistyped_name_makes_nothing(server: NomicServer, small: EmbedStore) -> None:
    """A name that is nearly that of a known dataset, and any with create=False, makes none; the error says how to."""
    with pytest.raises(AtlasError, match="create=True"):
        apply_sync(plan_sync(small, NAME, create=False))
    assert server.atlas.datasets() == []
    sync(small, create=None)
    with pytest.raises(AtlasError, match=r"synced with 'photos': did you mean that\? create=True"):
        sync(small, "stand-in/photoes", create=None)
    assert server.atlas.datasets() == ["photos"]
    sync(small, "stand-in/photoes", create=True)
    sync(small, "birds", create=None)
    assert server.atlas.datasets() == ["photos", "photoes", "birds"]


@pytest.mark.parametrize("kind", ["500", "503", "html-502", "text-500", "html-200"])
def test_a_failed_look_is_no_missing_dataset(server: NomicServer, small: EmbedStore, kind: str) -> None:
    """A dataset whose look-up fails is looked up again, not made a second time as the client would."""
    sync(small)
    server.faults.script([kind, kind], path="/v1/project/stand-in/")  # type: ignore[list-item]
    assert sync(small).present == 60
    assert server.counts.routes["POST /v1/project/create"] == 1


def test_new_rows_only(server: NomicServer, small: EmbedStore, tmp_path: Path) -> None:
    """After rows were added only they are sent, from a fresh machine without the ledger, too."""
    sync(small, where="number < 20")
    small.folder.ledger.path.unlink()
    plan = plan_sync(small, NAME)
    assert (plan.present, plan.missing, plan.how) == (20, 40, "each id was looked up")
    apply_sync(plan)
    assert server.atlas.received["photos"] == 60
    require_whole(server.atlas.dataset("photos"), small)


def test_ids_that_atlas_answers_with_404(
    server: NomicServer, small: EmbedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should Atlas answer 404 for a request with unknown ids, the known ones are still found."""
    from embedstore.testing.wire import Refused

    sync(small, where="number < 9")
    whole = server.atlas.rows_of

    def strict(dataset, ids):  # type: ignore[no-untyped-def]
        unknown = [i for i in ids if i not in dataset.ids]
        if unknown:
            raise Refused(404, f"Datums not found: {unknown}")
        return whole(dataset, ids)

    monkeypatch.setattr(server.atlas, "rows_of", strict)
    assert plan_sync(small, NAME).present == 9


def test_a_deleted_dataset_is_noticed(server: NomicServer, small: EmbedStore) -> None:
    """A ledger about a dataset that was deleted and made again counts for nothing."""
    sync(small)
    server.atlas.remove(server.atlas.dataset("photos").id)
    assert sync(small).sent == 60
    server.atlas.remove(server.atlas.dataset("photos").id)
    server.atlas.create({"project_name": "photos", "unique_id_field": "id", "is_public": False})
    plan = plan_sync(small, NAME)
    assert plan.missing == 60
    assert any("deleted" in note for note in plan.notes)
    apply_sync(plan)
    require_whole(server.atlas.dataset("photos"), small)


def test_rows_deleted_in_atlas_are_sent_again(server: NomicServer, small: EmbedStore) -> None:
    """The server is the truth: rows that the ledger has and Atlas has not are missing."""
    sync(small)
    dataset = server.atlas.dataset("photos")
    server.atlas.delete_rows(dataset, dataset.ids[5:9])
    assert sync(small).sent == 4
    require_whole(dataset, small)


def test_a_ledger_believed_only_with_proof(
    server: NomicServer, small: EmbedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a large store the ledger is believed when count and sample agree, and not when either does not."""
    monkeypatch.setattr("embedstore.atlas.compare.EVERY_ID", 50)
    monkeypatch.setattr("embedstore.atlas.compare.SAMPLE", 10)
    sync(small)
    plan = plan_sync(small, NAME)
    assert plan.missing == 0
    assert "ledger" in plan.how
    assert "looked up" in plan_sync(small, NAME, recheck=True).how
    dataset = server.atlas.dataset("photos")
    server.atlas.delete_rows(dataset, [dataset.ids[7]])
    assert plan_sync(small, NAME).missing == 1
    row = dataset.rows.slice(0, 1).to_pylist()[0]
    server.atlas.add_rows(dataset, pa.Table.from_pylist([{**row, "id": "other"}], schema=dataset.rows.schema))
    server.atlas.delete_rows(dataset, [dataset.ids[0]])
    server.atlas.add_rows(dataset, pa.Table.from_pylist([{**row, "id": "third"}], schema=dataset.rows.schema))
    assert len(dataset.ids) == 60  # the count agrees, the sample does not
    assert plan_sync(small, NAME).missing == 2
    assert EVERY_ID == 50_000


def test_what_atlas_has_besides(server: NomicServer, small: EmbedStore, tmp_path: Path) -> None:
    """Rows that the store lost, and rows of others that a map shows, are listed; none is deleted."""
    sync(small)
    ids = small.to_table(["id"]).column("id").to_pylist()
    small.remove(ids[:3])
    assert plan_sync(small, NAME).gone == sorted(ids[:3])
    sync(vector_store(tmp_path / "other.store", 5, seed=1))
    plan = plan_sync(small, NAME)
    assert (plan.gone, plan.unnamed) == (sorted(ids[:3]), 5)
    dataset = server.atlas.dataset("photos")
    server.atlas.create_index(dataset, {"index_name": "m"})
    plan = plan_sync(small, NAME)
    assert (len(plan.gone), plan.unnamed) == (8, 0)
    assert "rows that Atlas has and the store has not" in str(sync(small))
    assert len(dataset.ids) == 65


def test_rows_that_differ(server: NomicServer, small: EmbedStore) -> None:
    """A row whose metadata differ is named with both values; the others are not."""
    sync(small)
    dataset = server.atlas.dataset("photos")
    labels = dataset.rows.column("label").to_pylist()
    labels[4] = "horse"
    place = dataset.rows.column_names.index("label")
    dataset.rows = dataset.rows.set_column(place, "label", pa.array(labels))
    plan = plan_sync(small, NAME)
    assert plan.differing == {dataset.ids[4]: {"label": ("cat", "horse")}}
    assert "'horse'" in str(plan)


def test_other_columns_or_dimensions_are_refused(server: NomicServer, small: EmbedStore, tmp_path: Path) -> None:
    """Rows go into a dataset only if its vectors and columns agree with theirs."""
    sync(small)
    wide = vector_store(tmp_path / "wide.store", 30, dim=24, seed=2)
    with pytest.raises(AtlasError, match="vectors of 16 numbers, this store of 24"):
        sync(wide)
    more = vector_store(tmp_path / "more.store", 30, seed=3, extra=["x"] * 30)
    assert "takes no new columns" in plan_sync(more, NAME).unsent["extra"]
    assert sync(more).sent == 30
    large = vector_store(tmp_path / "large.store", 3, seed=4, number=[1, 2, 2**40])
    with pytest.raises(AtlasError, match="'number': it is int32 in the dataset"):
        sync(large)
    dataset = server.atlas.dataset("photos")
    assert len(dataset.ids) == 90


def test_a_dataset_without_the_column_of_ids(server: NomicServer, small: EmbedStore) -> None:
    """Into a dataset that numbers its rows itself nothing is sent, as no row could be recognised."""
    server.atlas.create({"project_name": "photos", "unique_id_field": None, "is_public": False})
    with pytest.raises(AtlasError, match="numbers its rows itself"):
        sync(small)


def test_numbers_follow_all_rows(server: NomicServer, tmp_path: Path) -> None:
    """The type of a new dataset's column follows from all rows, so that those of a later sync fit in."""
    store = vector_store(tmp_path / "s.store", 10, size=[*range(9), 2**40])
    sync(store, where="size < 9")
    assert sync(store).sent == 1
    assert server.atlas.dataset("photos").rows.column("size").to_pylist() == [*map(str, range(9)), str(2**40)]


def test_no_rows_make_no_dataset(server: NomicServer, small: EmbedStore) -> None:
    """A filter that keeps no row makes no dataset."""
    with pytest.raises(AtlasError, match="no rows to send"):
        sync(small, where="number > 1000")
    assert server.atlas.datasets() == []


def test_a_wrong_key_and_a_wrong_name(server: NomicServer, small: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is refused and a name of another form end with errors that show no key."""
    for name in ("a/b/c", "", "?!"):
        with pytest.raises(InputError, match="organisation/dataset"):
            plan_sync(small, name)
    with pytest.raises(AtlasError, match="403"):
        plan_sync(small, "others/photos")
    monkeypatch.setenv("NOMIC_API_KEY", "nk-secret-and-wrong")
    with pytest.raises(CredentialsError) as caught:
        plan_sync(small, NAME)
    assert "nk-secret" not in str(caught.value)


def test_without_a_key_or_the_network(small: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the three places of one are named; with the network switched off nothing is tried."""
    with pytest.raises(CredentialsError, match="NOMIC_API_KEY"):
        plan_sync(small, NAME)
    monkeypatch.delenv("ATLAS_API_PATH", raising=False)
    monkeypatch.setenv("NOMIC_API_KEY", "nk-some")
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    with pytest.raises(OfflineError):
        plan_sync(small, NAME)
