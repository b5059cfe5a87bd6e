"""Pictures that no file holds: known again wherever they stand, called as the user calls them, and seen on sheets."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import save_picture
from PIL import Image

from embedstore import images
from embedstore.ingest import row_writer
from embedstore.sources import pictures_at
from embedstore.store import EmbedStore


def picture(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def table(*seeds: int, **columns: list[Any]) -> pa.Table:
    return pa.table({"image": [picture(seed) for seed in seeds], **columns})


@pytest.fixture
def empty(tmp_path: Path) -> EmbedStore:
    return EmbedStore.create(tmp_path / "s.store", model="objects")


def rows(store: EmbedStore, *names: str) -> list[tuple[Any, ...]]:
    return sorted(zip(*store.to_table(list(names)).to_pydict().values(), strict=True))


def named(store: EmbedStore) -> dict[str, str]:
    return dict(rows(store, "id", "uri"))


def test_rows_of_a_table_in_memory_are_known_again(empty: EmbedStore) -> None:
    """The same table changes nothing; rows that stand elsewhere, repeats among them, keep their ids and metadata."""
    first = empty.add(table(1, 2, 1, 3, n=[10, 20, 30, 40]))
    assert (first.embedded, first.copied, first.found, first.accounted) == (3, 1, 4, 4)
    before, version = named(empty), empty.version
    assert [uri.partition("#")[2] for _, uri in rows(empty, "n", "uri")] == ["0", "1", "2", "3"]
    assert empty.add(table(1, 2, 1, 3, n=[10, 20, 30, 40])).unchanged == 4
    assert empty.version == version
    again = empty.add(table(9, 1, 2, 1, 3, n=[0, 10, 20, 30, 40]))
    assert (again.embedded, again.unchanged + again.moved + again.updated, again.accounted) == (1, 4, 5)
    assert before.keys() < named(empty).keys()
    assert [(n, uri.partition("#")[2]) for n, uri in rows(empty, "n", "uri")] == [
        (0, "0"),
        (10, "1"),
        (20, "2"),
        (30, "3"),
        (40, "4"),
    ]


def test_repeats_that_change_places_stay_apart(empty: EmbedStore) -> None:
    """However many rows show one picture and wherever they go: one row in the store for each, also across folds."""
    rng = np.random.default_rng(0)
    places = [0, 1, 2]
    empty.add(table(*[1 if row in places else 100 + row for row in range(8)]))
    for _ in range(12):
        places = sorted(rng.choice(8, 3, replace=False).tolist())
        report = empty.add(table(*[1 if row in places else 100 + row for row in range(8)]))
        assert report.accounted == report.found == 8
        content = images.content_hash(picture(1))
        found = [uri for digest, uri in rows(empty, "content_hash", "uri") if digest == content]
        assert sorted(int(uri.rpartition("#")[2]) for uri in found) == places
    assert len({identity for (identity,) in rows(empty, "id")}) == len(empty)


def test_repeats_stay_apart_when_rows_become_parts_on_the_way(
    empty: EmbedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fold in the middle of an add makes the store forget nothing that the add has decided."""
    monkeypatch.setattr(row_writer, "_FOLD_SECONDS", -1.0)
    monkeypatch.setattr(row_writer, "_FREE_ROWS", 1)
    for seeds in ((1, 1, 2, 1), (3, 1, 1, 1), (1, 4, 1, 1, 1)):
        report = empty.add([table(*seeds), table(*seeds)], batch_size=1, workers=1)
        assert report.accounted == report.found == 2 * len(seeds)
        assert all(uri.count("#") == 1 for uri in named(empty).values())
    assert len(set(named(empty).values())) == len(empty)


def test_the_users_ids_are_the_ids(empty: EmbedStore) -> None:
    """A row is known by its id: another picture replaces it, other metadata update it, another place is a move."""
    empty.add(table(1, 2, 2, id=["a", "b", "c"], label=["x", "y", "z"]))
    assert rows(empty, "id", "label", "uri") == [
        ("a", "x", "table:a#0"),
        ("b", "y", "table:b#1"),
        ("c", "z", "table:c#2"),
    ]
    assert empty.add(table(1, 2, 2, id=["a", "b", "c"], label=["x", "y", "z"])).unchanged == 3
    report = empty.add(table(5, 2, 2, id=["a", "b", "c"], label=["x", "new", "z"]))
    assert (report.replaced, report.embedded, report.updated, report.unchanged) == (1, 1, 1, 1)
    assert report.accounted == 3
    assert empty.add(table(2, 7, id=["c", "d"], label=["z", "w"])).moved == 1
    assert rows(empty, "id", "uri") == [
        ("a", "table:a#0"),
        ("b", "table:b#1"),
        ("c", "table:c#0"),
        ("d", "table:d#1"),
    ]


def test_ids_stand_once_in_a_source(empty: EmbedStore) -> None:
    """Of two tables in one list that share an id the second row is a failure, and the report adds up."""
    report = empty.add([table(1, 2, id=["a", "b"]), table(3, 4, id=["b", "c"])])
    assert (report.found, report.embedded, report.accounted, len(empty)) == (4, 3, 4, 3)
    assert [(failure.uri, failure.reason) for failure in report.failures] == [
        ("table:b#0", "its id 'b' stands earlier in the same source; ids are unique")
    ]


def test_an_id_for_a_file_that_is_here(empty: EmbedStore, tmp_path: Path) -> None:
    """A record that gives a known file an id changes the row's id; nothing is embedded."""
    path = save_picture(tmp_path / "p" / "a.png", 1)
    empty.add(path)
    report = empty.add([{"image": path, "id": "cat-7", "label": "cat"}])
    assert (report.updated, report.embedded) == (1, 0)
    assert rows(empty, "id", "uri", "label") == [("cat-7", str(path), "cat")]
    assert empty.add([{"image": path, "id": "cat-7"}, {"image": path, "id": "cat-8"}]).copied == 1
    assert rows(empty, "id", "uri") == [("cat-7", str(path)), ("cat-8", "memory:cat-8#1")]


def test_pictures_in_memory_are_seen_later(empty: EmbedStore, tmp_path: Path) -> None:
    """Sheets and the notebook show small copies of them; of files there are none."""
    path = save_picture(tmp_path / "p" / "a.png", 1, (400, 300))
    large = Image.open(path)
    empty.add([path, large, {"image": np.asarray(large)[:200], "id": "half"}, table(3)])
    uris = [uri for _, uri in rows(empty, "id", "uri") if uri != str(path)]
    shown = pictures_at([*uris, str(path)], empty.rows.thumbnails_at)
    assert len(shown) == 4
    sizes = sorted(images.read(shown[uri]).image.size for uri in uris)
    assert sizes == [(16, 12), (200, 100), (200, 150)]
    assert shown[str(path)] == path
    assert len(list((empty.path / "thumbnails").rglob("*.jpg"))) == 3
    html = empty.search("a photo", k=4)._repr_html_()
    assert html.count("<img") == 4
    assert pictures_at(uris) == {}


def test_no_thumbnails_where_none_are_wanted(empty: EmbedStore) -> None:
    """`thumbnails=False` keeps none; a later add of the same pictures makes up for it, and embeds nothing."""
    empty.add(table(1, 2), thumbnails=False)
    assert not (empty.path / "thumbnails").exists()
    assert empty.search("a photo", k=2)._repr_html_().count("<img") == 0
    assert empty.add(table(1, 2)).unchanged == 2
    assert empty.search("a photo", k=2)._repr_html_().count("<img") == 2


def test_vacuum_drops_thumbnails_that_no_version_needs(empty: EmbedStore) -> None:
    """As long as an older version has the row its thumbnail stays, and it is named among what goes."""
    empty.add(table(1, 2, id=["a", "b"]))
    gone = images.content_hash(picture(1))
    empty.remove(["a"])
    assert empty.vacuum().files == []
    assert len(list((empty.path / "thumbnails").rglob("*.jpg"))) == 2
    planned = empty.vacuum(0, dry_run=True).files
    assert f"thumbnails/{gone[:2]}/{gone}.jpg" in planned
    assert empty.vacuum(0).files == planned
    [kept] = (empty.path / "thumbnails").rglob("*.jpg")
    assert kept.stem == images.content_hash(picture(2))


def test_a_damaged_thumbnail_is_no_picture(empty: EmbedStore) -> None:
    """It is drawn as a grey square; the store is sound."""
    empty.add(table(1))
    [file] = (empty.path / "thumbnails").rglob("*.jpg")
    file.write_bytes(b"\xff\xd8 broken")
    assert "<img" not in empty.search("a photo", k=1)._repr_html_()
    assert empty.verify(deep=True).ok
