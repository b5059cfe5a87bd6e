"""Sync with the stand-in's Atlas through the unmodified client: what arrives, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from atlas_stores import NAME, require_whole, sync, unit_vectors, vector_store
from conftest import save_picture
from PIL import Image

from embedstore.atlas import apply_sync, plan_sync
from embedstore.atlas.confirmations import Confirmations
from embedstore.deciding.classifier import Classifier
from embedstore.deciding.target import Target
from embedstore.errors import AtlasError, StoreLockedError
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "small.store", 60)


def test_twelve_thousand_rows(server: NomicServer, tmp_path: Path) -> None:
    """12,000 rows arrive once each, vectors rounded, metadata as stated; a second sync sends none."""
    rng = np.random.default_rng(5)
    numbers, flags = rng.random(12_000), rng.random(12_000) < 0.5
    store = vector_store(tmp_path / "s.store", 12_000, dim=64, share=numbers, flag=flags)
    report = sync(store)
    assert (report.sent, report.present, report.uploads, report.refused) == (12_000, 0, 3, 0)
    dataset = server.atlas.dataset("photos")
    require_whole(dataset, store)
    there = dataset.rows.select(["label", "number", "share", "flag"]).to_pydict()
    here = store.to_table(["label", "number", "share", "flag"]).to_pydict()
    assert there["label"] == ["null" if text is None else text or '""' for text in here["label"]]
    assert there["number"] == here["number"]
    assert there["share"] == [float(np.float32(value)) for value in here["share"]]
    assert there["flag"] == ["true" if value else "false" for value in here["flag"]]
    assert report.plan.changes.keys() >= {"label", "share", "flag"}
    assert "column flag: true and false as text" in str(report)
    assert "float16" in str(report)
    assert "number" not in report.plan.changes
    received = server.atlas.received["photos"]
    assert received == 12_000
    again = sync(EmbedStore.open(store.path))
    assert (again.sent, again.present, again.uploads) == (0, 12_000, 0)
    assert server.atlas.received["photos"] == received


def test_a_dataset_is_private_unless_asked(server: NomicServer, small: EmbedStore) -> None:
    """A new dataset is private; with public=True it is public."""
    sync(small)
    plan = plan_sync(small, "stand-in/open", create=True, public=True)
    assert any("uri" in note for note in plan.notes)
    apply_sync(plan)
    assert server.atlas.dataset("photos").is_public is False
    assert server.atlas.dataset("open").is_public is True


def test_one_sync_at_a_time(server: NomicServer, small: EmbedStore) -> None:
    """While one process syncs a store with a dataset another one is refused."""
    plan = plan_sync(small, NAME, create=True)
    with Confirmations(small.folder, "stand-in/photos").held(), pytest.raises(StoreLockedError):
        apply_sync(plan)


def test_pictures(server: NomicServer, tmp_path: Path) -> None:
    """With images each row arrives with its own picture, upright, in its proportions, at most 512 pixels."""
    folder = tmp_path / "pictures"
    for number in range(50):
        save_picture(folder / f"{number:02}.png", number, (900, 300) if number % 2 else (64, 48))
    store = EmbedStore.create(tmp_path / "p.store", model="objects")
    store.add(folder)
    (folder / "07.png").unlink()
    save_picture(folder / "08.png", 100)
    report = sync(store, images=True, index=True)
    assert report.sent == 48
    assert sorted(Path(reason.split(" is ")[0]).name for reason in report.skipped.values()) == [
        "07.png",
        "08.png",
    ]
    dataset = server.atlas.dataset("photos")
    uris = dict(zip(*store.to_table(["id", "uri"]).to_pydict().values(), strict=True))
    for row in dataset.rows.to_pylist():
        with Image.open(uris[row["id"]]) as source:
            expected = (512, 171) if source.size == (900, 300) else source.size
            sent_bytes = dataset.blobs[row["_blob_hash"]]
            (tmp_path / "sent.jpg").write_bytes(sent_bytes)
            with Image.open(tmp_path / "sent.jpg") as sent:
                assert sent.size == expected
                small, same = (np.asarray(im.convert("RGB").resize((8, 8)), float) for im in (sent, source))
                assert np.abs(small - same).mean() < 8
    assert "made" in report.map
    assert len(dataset.indices) == 1
    assert "_embeddings" not in dataset.columns
    assert sync(store, images=True).sent == 0


@pytest.mark.parametrize("kind", ["500", "html-200", "html-502", "429", "reset", "hung"])
def test_failed_batches_of_pictures(server: NomicServer, tmp_path: Path, kind: str) -> None:
    """A batch of pictures that fails is sent again; no row is ever stored without its picture."""
    folder = tmp_path / "pictures"
    for number in range(45):
        save_picture(folder / f"{number:02}.png", number)
    store = EmbedStore.create(tmp_path / "p.store", model="objects")
    store.add(folder)
    server.faults.script([kind, None, kind], path="/v1/project/data/add/blobs")  # type: ignore[list-item]
    assert sync(store, images=True).sent == 45
    dataset = server.atlas.dataset("photos")
    assert set(dataset.rows.column("_blob_hash").to_pylist()) <= set(dataset.blobs)
    assert server.atlas.received["photos"] == 45


def test_a_picture_that_atlas_does_not_take(
    server: NomicServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When Atlas gives no hash for one picture, no row of the shard is stored, and the sync fails."""
    folder = tmp_path / "pictures"
    for number in range(5):
        save_picture(folder / f"{number:02}.png", number)
    store = EmbedStore.create(tmp_path / "p.store", model="objects")
    store.add(folder)
    whole = server.atlas.add_blob
    count = iter(range(100))
    monkeypatch.setattr(
        server.atlas, "add_blob", lambda dataset, blob: None if next(count) == 3 else whole(dataset, blob)
    )
    with pytest.raises(AtlasError, match="lose or change data"):
        sync(store, images=True)
    assert server.atlas.dataset("photos").ids == []


def test_a_classifier(server: NomicServer, small: EmbedStore) -> None:
    """A classifier's score and match go along as columns, as the formula gives them."""
    vector = unit_vectors(1, 16, seed=7)[0]
    target = Target("cat", 0.1, vector)
    Classifier("cats", small.space, (target,)).save(small.path / "classifiers")
    report = sync(small, classifier="cats")
    assert report.sent == 60
    rows = server.atlas.dataset("photos").rows
    ids = rows.column("id").to_pylist()
    scores = (small.vectors(ids) * vector).sum(axis=1)
    np.testing.assert_allclose(rows.column("cats_score").to_numpy(), scores, atol=1e-6)
    assert rows.column("cats_match").to_pylist() == ["true" if s > 0.1 else "false" for s in scores]
    assert sync(small).sent == 0
    with pytest.raises(AtlasError, match=r"cats_score.*--classifier"):
        sync(vector_store(small.path.parent / "other.store", 5, seed=8))


def test_ids_of_any_length(server: NomicServer, tmp_path: Path) -> None:
    """Ids longer than Atlas takes go as a hash, the whole id beside it; later syncs know them and take short ones."""
    ids = [f"/photos/2024/summer/at the sea/{row:04}.jpg" if row < 20 else f"n{row}" for row in range(30)]
    store = vector_store(tmp_path / "s.store", 30, id=ids)
    assert sync(store, where="number < 25").sent == 25
    dataset = server.atlas.dataset("photos")
    assert max(map(len, dataset.ids)) <= 36
    assert dataset.rows.column("stored_id").to_pylist() == ids[:25]
    report = sync(store, where="number >= 25")
    assert (report.sent, report.present) == (5, 0)
    assert dataset.rows.column("stored_id").to_pylist() == ids
    assert sync(store).present == 30
