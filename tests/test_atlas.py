"""Sync with the stand-in's Atlas through the unmodified client: what arrives, what is planned, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from atlas_stores import require_whole, unit_vectors, vector_store
from click.testing import CliRunner
from conftest import save_picture
from PIL import Image

from embedstore.atlas import apply_sync, plan_sync
from embedstore.atlas.census import EVERY_ID
from embedstore.atlas.client import connect, open_dataset
from embedstore.atlas.ledger import Ledger
from embedstore.cli import main
from embedstore.errors import AtlasError, CredentialsError, InputError, OfflineError, StoreLockedError
from embedstore.measures.classifier import Classifier
from embedstore.measures.targets import Target
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

NAME = "stand-in/photos"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NomicServer]:
    with NomicServer() as running:
        for name, value in running.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "small.store", 60)


def sync(store: EmbedStore, name: str = NAME, **options: object) -> object:
    options = {"create": True, "timeout": 8.0, **options}
    return apply_sync(plan_sync(store, name, **options))  # type: ignore[arg-type]


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
    assert there["label"] == [text or "null" for text in here["label"]]
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


def test_loss_is_what_float16_takes(server: NomicServer, small: EmbedStore) -> None:
    """The loss that is told is the largest difference of a component, and of any score at most."""
    plan = plan_sync(small, NAME, create=True)
    vectors = small.vectors(small.to_table(["id"]).column("id").to_pylist()).astype(np.float64)
    off = vectors - vectors.astype(np.float16)
    assert plan.loss.component == np.abs(off).max()
    queries = unit_vectors(500, 16, seed=9)
    assert np.abs(queries @ off.T).max() <= plan.loss.score
    assert plan.loss.score == pytest.approx(np.linalg.norm(off, axis=1).max())


def test_a_plan_sends_nothing(server: NomicServer, small: EmbedStore) -> None:
    """Planning makes no dataset, sends no row and writes nothing into the store."""
    plan = plan_sync(small, NAME, create=True)
    assert (plan.missing, plan.present, plan.dataset_id) == (60, 0, None)
    assert server.atlas.datasets() == []
    assert not (small.path / "atlas").exists()
    assert "60 missing" in str(plan)
    assert json.dumps(plan.to_dict())


def test_a_dataset_is_private_unless_asked(server: NomicServer, small: EmbedStore) -> None:
    """A new dataset is private; with public=True it is public."""
    sync(small)
    plan = plan_sync(small, "stand-in/open", create=True, public=True)
    assert any("uri" in note for note in plan.notes)
    apply_sync(plan)
    assert server.atlas.dataset("photos").is_public is False
    assert server.atlas.dataset("open").is_public is True


def test_a_mistyped_name_makes_nothing(server: NomicServer, small: EmbedStore) -> None:
    """Without create no dataset is made, and the error says how to make it."""
    plan = plan_sync(small, NAME)
    with pytest.raises(AtlasError, match="--create"):
        apply_sync(plan)
    assert server.atlas.datasets() == []


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
    (small.path / "atlas" / "stand-in__photos.jsonl").unlink()
    plan = plan_sync(small, NAME)
    assert (plan.present, plan.missing, plan.how) == (20, 40, "each id was looked up")
    apply_sync(plan)
    assert server.atlas.received["photos"] == 60
    require_whole(server.atlas.dataset("photos"), small)


def test_ids_that_atlas_answers_with_404(
    server: NomicServer, small: EmbedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should Atlas answer 404 for a request with unknown ids, the known ones are still found."""
    from embedstore.testing.refusals import Refused

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
    monkeypatch.setattr("embedstore.atlas.census.EVERY_ID", 50)
    monkeypatch.setattr("embedstore.atlas.census.SAMPLE", 10)
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


def test_other_columns_or_dimensions_are_refused(
    server: NomicServer, small: EmbedStore, tmp_path: Path
) -> None:
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


def test_a_wrong_key_and_a_wrong_name(
    server: NomicServer, small: EmbedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is refused and a name of another form end with errors that show no key."""
    with pytest.raises(InputError, match="organisation/dataset"):
        plan_sync(small, "photos")
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


def test_no_rows_make_no_dataset(server: NomicServer, small: EmbedStore) -> None:
    """A filter that keeps no row makes no dataset."""
    with pytest.raises(AtlasError, match="no rows to send"):
        sync(small, where="number > 1000")
    assert server.atlas.datasets() == []


def test_one_sync_at_a_time(server: NomicServer, small: EmbedStore) -> None:
    """While one process syncs a store with a dataset another one is refused."""
    plan = plan_sync(small, NAME, create=True)
    with Ledger(small.path, "stand-in/photos").held(), pytest.raises(StoreLockedError):
        apply_sync(plan)


def test_a_ledger_cut_short(small: EmbedStore) -> None:
    """A line that a kill has cut short is passed over, and what is written after it is read."""
    ledger = Ledger(small.path, NAME)
    with ledger.held():
        ledger.confirm("d1", ["a", "b"])
        with ledger.path.open("ab") as file:
            file.write(b'{"dataset": "d1", "ids": ["c"')
        ledger.confirm("d1", ["d"])
        ledger.confirm("d2", ["e"])
    assert list(ledger.confirmed("d1")) == ["a", "b", "d"]
    assert ledger.others("d1") == 1


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


def test_a_map(server: NomicServer, small: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map without topics is made once for the same rows, again after more were sent, and is waited for."""
    server.atlas.build_seconds = 0.3
    ordered: list[dict[str, str]] = []
    whole = server.atlas.create_index
    monkeypatch.setattr(
        server.atlas, "create_index", lambda dataset, body: ordered.append(body) or whole(dataset, body)
    )
    report = sync(small, where="number < 30", index=True)
    assert report.map.startswith("made: https://atlas.nomic.ai/data/stand-in/photos")
    dataset = server.atlas.dataset("photos")
    assert not dataset.locked
    assert "already" in sync(small, where="number < 30", index=True).map
    assert "made" in sync(small, index=True).map
    assert [len(index.ids) for index in dataset.indices] == [30, 60]
    assert len(ordered) == 2
    assert not any(json.loads(body["topic_model_hyperparameters"])["build_topic_model"] for body in ordered)


def test_a_map_of_too_few_rows(server: NomicServer, tmp_path: Path) -> None:
    """Atlas makes no map of fewer than 20 rows, and this is said; the rows are there."""
    with pytest.raises(AtlasError, match="at least 20 rows"):
        sync(vector_store(tmp_path / "s.store", 10), index=True)
    assert len(server.atlas.dataset("photos").ids) == 10


@pytest.mark.parametrize("kind", ["503", "hung", "reset", "html-502"])
def test_a_map_is_ordered_once(server: NomicServer, small: EmbedStore, kind: str) -> None:
    """When the order of a map fails it is looked whether the map is made, before it is ordered again."""
    server.faults.script([kind], path="/v1/project/index/create")  # type: ignore[list-item]
    assert "made" in sync(small, index=True, timeout=6.0).map
    assert len(server.atlas.dataset("photos").indices) == 1


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


def test_the_client_is_as_it_was(server: NomicServer, small: EmbedStore) -> None:
    """After a sync the official client's own functions and globals are what they were."""
    import requests
    from nomic import dataset, utils

    sync(small)
    transport = connect(server.key, plan_sync(small, NAME).work.transport.limits)
    official = open_dataset(transport, NAME).official
    assert dataset.requests is requests
    assert utils.requests is requests
    assert dataset.AtlasDataset._add_data.__globals__ is vars(dataset)
    assert type(official)._add_data.__code__ is dataset.AtlasDataset._add_data.__code__
    assert official.header["Authorization"] != f"Bearer {server.key}"


def test_command_line(server: NomicServer, small: EmbedStore, tmp_path: Path) -> None:
    """The command plans, syncs, and refuses with exit status 1; its JSON is the report."""
    runner = CliRunner()
    path = str(small.path)
    dry = runner.invoke(main, ["sync", "atlas", path, NAME, "--create", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "60 missing" in dry.output
    assert server.atlas.datasets() == []
    missing = runner.invoke(main, ["sync", "atlas", path, NAME])
    assert missing.exit_code == 1
    assert "--create" in missing.output
    done = runner.invoke(main, ["sync", "atlas", path, NAME, "--create", "--index", "--json", "-q"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sent"] == 60
    copy = str(tmp_path / "copy.store")
    pulled = runner.invoke(main, ["add", copy, f"atlas://{NAME}"])
    assert pulled.exit_code == 0, pulled.output
    assert len(EmbedStore.open(copy)) == 60
    assert runner.invoke(main, ["add", copy, f"atlas://{NAME}", "--dry-run"]).exit_code == 2
