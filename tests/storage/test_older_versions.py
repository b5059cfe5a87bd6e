"""Older versions: what they hold is found again until a vacuum, can be restored, and is counted before it goes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import save_picture
from test_table import batch, flip, table_in

from embedstore.errors import DamagedStoreError, InputError
from embedstore.ingest.reports import AddReport
from embedstore.searching import index
from embedstore.storage import changes
from embedstore.storage.log_files import History
from embedstore.storage.older_versions import OlderPictures
from embedstore.storage.rows import Rows
from embedstore.store import EmbedStore


def without_model(store: EmbedStore, source: Any, **options: Any) -> AddReport:
    """Add where embedding anything is a failure of the test."""

    def nothing() -> Any:
        raise AssertionError("the model was asked for")

    from embedstore.ingest import adding

    report = adding.add(store.folder, nothing, source, progress=False, **options)
    store.refresh()
    return report


def rows_of(store: EmbedStore) -> dict[str, tuple[Any, ...]]:
    """Every row's picture, size and vector, by its id."""
    rows = store.to_table(["id", "uri", "content_hash", "width", "height", "embedding"]).to_pylist()
    return {row["id"]: (*list(row.values())[1:-1], tuple(row["embedding"])) for row in rows}


def test_what_was_removed_is_added_again_without_a_model(store: EmbedStore, pictures: Path) -> None:
    """Vectors, sizes and ids are those of before; the plan says so first; after a vacuum the model is needed again."""
    before = rows_of(store)
    assert store.remove(where="label = 'cat'") == 4
    assert store.plan_add(pictures).found_again == 4
    report = without_model(store, pictures, label_from_folder=True)
    assert (report.found_again, report.embedded, report.copied, report.requests) == (4, 0, 0, 0)
    assert "4 found again in older versions" in str(report)
    assert rows_of(store) == before
    assert store.verify(deep=True).ok
    store.remove(where="label = 'cat'")
    store.vacuum(0)
    assert store.plan_add(pictures).embedded == 4
    with pytest.raises(AssertionError, match="the model was asked for"):
        without_model(store, pictures)


def test_a_picture_that_comes_back_to_its_place_is_found_again(store: EmbedStore, pictures: Path) -> None:
    """A file that is replaced, and then is what it was, is paid for twice and not three times."""
    file = pictures / "dog" / "01.png"
    first = file.read_bytes()
    save_picture(file, 99)
    assert store.add(pictures).embedded == 1
    file.write_bytes(first)
    report = without_model(store, pictures)
    assert (report.replaced, report.found_again, report.embedded) == (1, 1, 0)


def test_what_is_damaged_is_not_found_again(
    store: EmbedStore, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped bit in a part that only an older version needs: its pictures are embedded again, to the bit."""
    before = rows_of(store)
    old = store.snapshot.parts[0]
    store.remove(where="label = 'cat'")
    flip(old, (old.blocks or ())[0].offset + 5)
    report = store.add(pictures)
    assert (report.embedded, report.found_again) == (4, 0)
    assert f"part {old.name} of an older version is damaged" in caplog.text
    assert rows_of(store) == before


def test_what_was_checked_outlives_a_vacuum(store: EmbedStore) -> None:
    """An add that has been told that a picture is here gets its vector, whoever deletes the file meanwhile."""
    gone = store.to_table(["content_hash", "id", "width", "height"], where="label = 'cat'").to_pylist()[0]
    vector = store.vectors([gone["id"]])[0]
    store.remove([gone["id"]])
    older = OlderPictures(store.folder.images, store.rows)
    assert gone["content_hash"] in older
    assert "no such hash" not in older
    store.vacuum(0)
    found = older.vector(gone["content_hash"])
    assert found is not None
    assert np.array_equal(found, vector)
    assert older.size(gone["content_hash"]) == (gone["width"], gone["height"])
    assert OlderPictures(store.folder.images, store.rows).vector(gone["content_hash"]) is None


def test_only_parts_of_the_log_whose_rows_have_left_are_looked_at(tmp_path: Path) -> None:
    """Not those that were merged or are no version's; those that lost a row, also when a checkpoint sums that up."""
    table = table_in(tmp_path)
    for number in range(9):
        snapshot = changes.upsert(table, *batch(number * 3, 3), replaces=False)
    rows, vectors = batch(900, 3)
    table.new_part(iter([(rows, vectors)]), rows.schema)
    assert len(list(table.path.glob("*.parquet"))) > len(snapshot.parts) + 5
    assert table.former(snapshot) == []
    leaving = np.zeros(snapshot.rows, bool)
    leaving[0] = True
    snapshot, before = changes.remove(table, snapshot, leaving), snapshot
    assert [part.name for part in table.former(snapshot)] == [before.parts[0].name]
    table._checkpoint(snapshot.version)
    assert [part.name for part in table.former(snapshot)] == [before.parts[0].name]
    history = History.of([{"add": {"path": "p", "size": 1}}, {"remove": {"path": "p", "dataChange": True}}])
    history.take({"remove": {"path": "p", "dataChange": False}}, summed_up=True)
    assert history.rewritten == set()


def test_restore_gives_the_rows_of_a_version_again(store: EmbedStore, pictures: Path) -> None:
    """Rows, vectors and answers are those of before, also from the layout note; no version is lost; it takes itself
    back; an add finds nothing to do."""
    first, before, answer = store.version, rows_of(store), store.search("cat", k=12)
    store.remove(where="label = 'cat'")
    removed, rest = store.version, rows_of(store)
    made = store.restore(first)
    assert made == store.version == removed + 1
    for opened in (store, EmbedStore.open(store.path)):
        assert rows_of(opened) == before
        assert opened.search("cat", k=12).table == answer.table
    assert store.versions()[0]["operation"] == f"restore of version {first}"
    assert rows_of(EmbedStore.open(store.path, version=removed)) == rest
    assert without_model(store, pictures).unchanged == 12
    assert store.verify(deep=True).ok
    assert store.restore(first) == made  # nothing to do
    assert rows_of(store) == before
    store.restore(removed)
    assert rows_of(store) == rest
    assert store.remove(where="label = 'dog'") == 8
    assert store.restore(first) == store.version
    assert rows_of(store) == before
    store.vacuum(0)
    assert rows_of(EmbedStore.open(store.path)) == before
    assert store.verify(deep=True).ok


def test_the_index_of_what_was_restored_is_made_again(store: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files went when its parts did: they come back on the disk, and answers are the same with and without."""
    monkeypatch.setattr(index, "PATIENCE", 0)
    first, answer = store.version, store.search("cat", k=5)
    assert store.index().built == 1
    store.remove(where="label = 'cat'")
    assert (len(store.index().deleted), store.search("cat", k=12).table.num_rows) == (2, 8)
    store.restore(first)
    assert store.search("cat", k=5).table == answer.table
    assert (store.index().built, len(list(store.folder.index.glob("*.faiss")))) == (1, 1)
    opened = EmbedStore.open(store.path)
    assert opened.search("cat", k=5).table == answer.table
    assert opened.reader.index_files._open
    assert store.verify(deep=True).ok


def test_a_checkpoint_sums_up_what_was_restored(store: EmbedStore) -> None:
    """Parts that left and came back are there, for us and for other engines, from a checkpoint alone too."""
    from deltalake import DeltaTable

    first, before = store.version, rows_of(store)
    store.remove(where="label = 'cat'")
    made = store.restore(first)
    table = store.folder.images
    table._checkpoint(made)
    assert table.check() == []
    assert table.readable_history().live == {part.name for part in store.snapshot.parts}
    for number, path in table._files.commits().items():
        if number < made:
            path.unlink()
            table._files.forget([path.name])
    table._note.path.unlink()
    assert rows_of(EmbedStore.open(store.path)) == before
    assert DeltaTable(str(table.path)).to_pyarrow_table().num_rows == 12
    assert table.readable_history().live == {part.name for part in store.snapshot.parts}


def test_columns_that_came_later_stay_empty_after_restore(tmp_path: Path) -> None:
    """The table is as wide as it has become; rows that never had the column have nothing in it."""
    store = EmbedStore.create(tmp_path / "s.store", space="own", dim=2)
    one = pa.array([[1.0, 0.0]], pa.list_(pa.float32()))
    store.add(pa.table({"id": ["a"], "v": one}), embedding_column="v", progress=False)
    first = store.version
    store.add(pa.table({"id": ["b"], "v": one, "n": [1]}), embedding_column="v", progress=False)
    store.restore(first)
    assert store.to_table(["id", "n"]).to_pylist() == [{"id": "a", "n": None}]


def test_what_cannot_be_restored_is_refused(store: EmbedStore) -> None:
    """No such version, files that vacuum has removed, a damaged part, a store opened at a version: nothing changes."""
    first, old = store.version, store.snapshot.parts[0]
    with pytest.raises(InputError, match="no version 99; versions go from 0 to"):
        store.restore(99)
    store.remove(where="label = 'cat'")
    newest = store.version
    with pytest.raises(InputError, match="opened to read version"):
        EmbedStore.open(store.path, version=first).restore(first)
    flip(old, (old.blocks or ())[0].offset + 5)
    with pytest.raises(DamagedStoreError, match=f"{old.name}, row group 0: the vectors are damaged"):
        store.restore(first)
    store.vacuum(0)
    with pytest.raises(InputError, match=r"needs .*files that vacuum has removed; choose a later version"):
        store.restore(first)
    assert (EmbedStore.open(store.path).version, store.verify(deep=True).ok) == (newest, True)


def test_restore_beside_an_add_loses_no_version(tmp_path: Path) -> None:
    """Whatever another thread adds meanwhile, each restored version has the rows of the one that it names."""
    store = EmbedStore.create(tmp_path / "s.store", space="own", dim=4)

    def add(number: int) -> None:
        rows, vectors = batch(number * 3, 3)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        table = pa.table({"id": rows.column("id"), "v": list(vectors)})
        EmbedStore.open(store.path).add(table, embedding_column="v", progress=False)

    add(0)
    first = store.folder.snapshot().version
    adder = threading.Thread(target=lambda: [add(number) for number in range(1, 6)])
    adder.start()
    while adder.is_alive():
        store.restore(first)
    adder.join()
    table = store.folder.images
    made = [entry["version"] for entry in table.versions() if entry["operation"].startswith("restore")]
    expected = Rows(table.snapshot(first)).to_table(["id", "embedding"])
    assert made
    for version in made:
        assert Rows(table.snapshot(version)).to_table(["id", "embedding"]) == expected
    assert store.verify(deep=True).ok
    assert len(table.versions()) == table.newest_version() + 1


def test_a_dry_run_counts_what_a_vacuum_would_cost(store: EmbedStore, pictures: Path) -> None:
    """Images that no newer version has, once each, and the bytes that the vacuum then gives back."""
    assert (store.vacuum(0, dry_run=True).images, store.info()["vacuum"]["images"]) == (0, 0)
    store.remove(where="label = 'cat'")
    store.remove(store.to_table(["id"]).column("id").to_pylist()[:2])
    store.add(pictures / "dog")  # both are found again
    cost = store.vacuum(0, dry_run=True)
    sizes = {path.name: path.stat().st_size for path in (store.path / "images").glob("*.parquet")}
    assert cost.images == 4
    assert cost.bytes == sum(sizes[name] for name in cost.files) > 0
    assert store.info()["vacuum"] == {"files": len(cost.files), "bytes": cost.bytes, "images": 4}
    assert store.vacuum(24, dry_run=True).files == []
    done = store.vacuum(0)
    assert (done.files, done.bytes, done.images, done.dry_run) == (cost.files, cost.bytes, None, False)
    left = {path.name for path in (store.path / "images").glob("*.parquet")}
    assert left == sizes.keys() - set(cost.files)
    assert store.plan_add(pictures).embedded == 4
    assert store.info()["vacuum"] == {"files": 0, "bytes": 0, "images": 0}


def test_rows_without_a_content_hash_are_counted_by_id(tmp_path: Path) -> None:
    """Vectors of one's own have no picture; those of the same id count once."""
    store = EmbedStore.create(tmp_path / "s.store", space="own", dim=2)
    vectors = pa.array([[1.0, 0.0]] * 5, pa.list_(pa.float32()))
    store.add(pa.table({"id": list("abcde"), "v": vectors}), embedding_column="v", progress=False)
    store.remove(["a"])
    store.remove(["b", "c"])
    assert store.vacuum(0, dry_run=True).images == 3
