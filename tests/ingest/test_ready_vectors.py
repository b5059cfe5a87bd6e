"""Vectors that somebody else made: checked, given ids, added once, replaced when they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import InputError, VectorError
from embedstore.ingest import ready_vectors
from embedstore.searching.queries import Query
from embedstore.store import EmbedStore

DIM = 6


@pytest.fixture
def empty(tmp_path: Path) -> EmbedStore:
    return EmbedStore.create(tmp_path / "v.store", space="mine", dim=DIM)


def unit(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, dim))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def table(vectors: np.ndarray, **columns: Any) -> pa.Table:
    return pa.table({**columns, "vector": pa.array(list(vectors), pa.list_(pa.float32()))})


def add(store: EmbedStore, source: Any, **options: Any) -> Any:
    return store.add(source, embedding_column="vector", **options)


def test_vectors_come_in_with_their_columns(empty: EmbedStore, tmp_path: Path) -> None:
    """Every other column becomes metadata, lists as JSON; ids are those given, and vectors are kept to the bit."""
    vectors = unit(5)
    names = [f"row-{number}" for number in range(5)]
    written = table(vectors, id=names, label=["a", "b", "a", None, "b"], price=[1, 2, 3, 4, 5], tags=[["x"]] * 5)
    pq.write_table(written, tmp_path / "v.parquet")
    report = add(empty, tmp_path / "v.parquet")
    assert (report.found, report.added, report.embedded, report.copied) == (5, 5, 0, 0)
    rows = empty.to_table().to_pylist()
    assert [row["id"] for row in rows] == names
    assert [row["label"] for row in rows] == ["a", "b", "a", None, "b"]
    assert [row["price"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["tags"] == '["x"]'
    np.testing.assert_allclose(empty.vectors(names), vectors, atol=1e-7)
    assert "5 added with their vectors" in str(report)


def test_added_again_they_are_unchanged(empty: EmbedStore) -> None:
    """The same table again changes nothing, not even the version; in another order only the places change."""
    source = table(unit(9), id=[str(number) for number in range(9)], label=[None, *"abcdefgh"], x=[float("nan")] * 9)
    add(empty, source)
    version = empty.version
    assert add(empty, source).unchanged == 9
    assert empty.version == version
    report = add(empty, source.take([8, 3, 0, 1, 2, 7, 6, 5, 4]))
    assert (report.updated, report.unchanged, report.replaced) == (8, 1, 0)


def test_a_changed_vector_or_value_replaces_its_row(empty: EmbedStore) -> None:
    """Another vector replaces a row, another value or a new column's value updates it; the others stay."""
    vectors = unit(4)
    ids = list("abcd")
    add(empty, table(vectors, id=ids, label=["x"] * 4))
    changed = vectors.copy()
    changed[1] = unit(1, seed=9)[0]
    report = add(empty, table(changed, id=ids, label=["x", "x", "y", "x"]))
    assert (report.replaced, report.updated, report.unchanged, report.added, len(empty)) == (1, 1, 2, 1, 4)
    np.testing.assert_allclose(empty.vectors(ids), changed, atol=1e-7)
    report = add(empty, table(changed, id=ids, label=["x", "x", "y", "x"], note=[None, None, None, "new"]))
    assert (report.replaced, report.updated, report.unchanged) == (0, 1, 3)
    rows = {row["id"]: row for row in empty.to_table().to_pylist()}
    assert [(rows[name]["label"], rows[name]["note"]) for name in ids] == [
        ("x", None),
        ("x", None),
        ("y", None),
        ("x", "new"),
    ]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v[:, :4], "4"),
        (lambda v: np.where(np.arange(10)[:, None] == 7, np.nan, v), "row"),
        (lambda v: np.where(np.arange(10)[:, None] == 7, np.inf, v), "row"),
        (lambda v: v * np.where(np.arange(10) == 7, 3, 1)[:, None], "row 7 has length 3"),
        (lambda v: np.where(np.arange(10)[:, None] == 7, 0, v), "row 7"),
    ],
)
def test_bad_vectors_are_refused_and_nothing_is_stored(empty: EmbedStore, spoil: Any, message: str) -> None:
    """A wrong dimension, NaN, infinity, a wrong length or zero is an error that names the row; no row is stored."""
    with pytest.raises(VectorError, match=message):
        add(empty, table(spoil(unit(10)).astype(np.float32)))
    assert len(empty) == 0


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
@settings(max_examples=20, deadline=None)
def test_normalise_keeps_the_direction(seed: int, scale: float) -> None:
    """With `normalise` vectors of any length are stored at unit length, in the same direction."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made = EmbedStore.create(Path(folder) / "n.store", space="mine", dim=DIM)
        vectors = unit(3, seed)
        add(made, table(vectors * np.float32(scale), id=list("abc")), normalise=True)
        np.testing.assert_allclose(made.vectors(list("abc")), vectors, atol=1e-5)


def test_without_ids_they_come_from_the_place(empty: EmbedStore, tmp_path: Path) -> None:
    """Rows without ids are known again by file and row number, and an array by its rows."""
    np.save(tmp_path / "v.npy", unit(6))
    assert empty.add(tmp_path / "v.npy", embedding_column="any").added == 6
    assert empty.add(tmp_path / "v.npy", embedding_column="any").unchanged == 6
    np.save(tmp_path / "v.npy", np.concatenate([unit(6), unit(2, seed=5)]))
    report = empty.add(tmp_path / "v.npy", embedding_column="any")
    assert (report.unchanged, report.added) == (6, 2)
    assert all(len(identity) == 32 for identity in empty.to_table(["id"]).column("id").to_pylist())


def test_whole_numbers_are_ids(empty: EmbedStore) -> None:
    """A column of whole numbers named id gives ids as their digits."""
    add(empty, table(unit(3), id=[10, 20, 30]))
    assert empty.to_table(["id"]).column("id").to_pylist() == ["10", "20", "30"]


def test_ids_are_of_any_length(empty: EmbedStore) -> None:
    """Paths are what people have: ids of hundreds of characters are found, removed and read back as they are."""
    ids = [f"/photos/{'holiday ' * 40}/{name}.jpg" for name in "abc"]
    add(empty, table(unit(3), id=ids))
    assert empty.to_table(["id"]).column("id").to_pylist() == ids
    assert empty.search(Query.id(ids[1]), k=1).id == [ids[1]]
    assert empty.remove([ids[0]]) == 1
    assert EmbedStore.open(empty.path).to_table(["id"]).column("id").to_pylist() == ids[1:]


@pytest.mark.parametrize("ids", [["a", "a", "b"], ["a", "", "b"], ["a", None, "b"], [1.5, 2.0, 3.0]])
def test_ids_that_are_none_are_refused(empty: EmbedStore, ids: list[Any]) -> None:
    """An id twice, empty, missing, too long for Atlas or not a text is an error that says what to do."""
    with pytest.raises(InputError, match="ids are made from the file's path"):
        add(empty, table(unit(3), id=ids))
    assert len(empty) == 0


def test_a_type_conflict_names_the_column(empty: EmbedStore) -> None:
    """A column of texts does not go into one of numbers; whole numbers go into one of floats."""
    add(empty, table(unit(2), id=["a", "b"], price=[1.5, 2.5]))
    add(empty, table(unit(2, 1), id=["c", "d"], price=[1, 2]))
    with pytest.raises(InputError, match="'price' holds double"):
        add(empty, table(unit(2, 2), id=["e", "f"], price=["cheap", "dear"]))
    assert sorted(empty.to_table(["price"]).column("price").to_pylist()) == [1, 1.5, 2, 2.5]


def test_a_column_is_the_same_in_any_case(empty: EmbedStore, tmp_path: Path) -> None:
    """As Delta has it: in the files of one source, and in what comes later; values of all go into one column."""
    pq.write_table(table(unit(2), id=["a", "b"], camera=["x", "y"]), tmp_path / "1.parquet")
    pq.write_table(table(unit(2, 1), id=["c", "d"], Camera=["z", None]), tmp_path / "2.parquet")
    add(empty, [tmp_path / "1.parquet", tmp_path / "2.parquet"])
    add(empty, table(unit(1, 2), id=["e"], CAMERA=["v"]))
    found = {row["id"]: row["camera"] for row in empty.to_table(["id", "camera"]).to_pylist()}
    assert found == {"a": "x", "b": "y", "c": "z", "d": None, "e": "v"}
    assert empty.columns[-1] == "camera"


def test_columns_of_the_stores_own_keep_their_meaning(empty: EmbedStore) -> None:
    """uri, content_hash, width and height are taken as such; a column ``score`` becomes ``source_score``."""
    source = table(unit(1), uri=["/a.jpg"], content_hash=["f" * 64], width=[40], height=[30], score=[0.5])
    add(empty, source)
    row = empty.to_table().to_pylist()[0]
    assert (row["uri"], row["content_hash"], row["width"], row["height"]) == ("/a.jpg", "f" * 64, 40, 30)
    assert row["source_score"] == 0.5


def test_small_batches_gather_into_one_part(empty: EmbedStore, tmp_path: Path) -> None:
    """A file of 50 row groups becomes one part, with every row once."""
    pq.write_table(table(unit(500), id=[str(n) for n in range(500)]), tmp_path / "v.parquet", row_group_size=10)
    assert add(empty, tmp_path / "v.parquet").added == 500
    assert len(empty.snapshot.parts) == 1
    assert len(set(empty.to_table(["id"]).column("id").to_pylist())) == 500


def test_float16_and_float64_vectors_are_taken(empty: EmbedStore) -> None:
    """Vectors of other float types are stored as float32, and of half precision within its rounding."""
    for number, kind in enumerate((pa.float16(), pa.float64())):
        vectors = unit(2, seed=number)
        values = [row.astype(kind.to_pandas_dtype()) for row in vectors]
        names = [f"{number}a", f"{number}b"]
        add(empty, pa.table({"id": names, "vector": pa.array(values, pa.list_(kind))}))
        np.testing.assert_allclose(empty.vectors(names), vectors, atol=1e-3)


def test_a_uri_that_two_rows_have_is_refused(empty: EmbedStore) -> None:
    """Before anything is written, and by name; rows that have none, or an empty one, are left alone."""
    with pytest.raises(InputError, match=r"1 uris stand in several rows, such as '/a\.jpg'.*column 'uri'"):
        add(empty, table(unit(3), id=list("abc"), uri=["/a.jpg", "/b.jpg", "/a.jpg"]))
    with pytest.raises(InputError, match="uris stand in several rows"):
        add(empty, table(unit(2), uri=["/a.jpg", "/a.jpg"]))
    assert (len(empty), empty.version) == (0, 0)
    add(empty, table(unit(3), id=list("abc"), uri=["", "", "/a.jpg"]))
    add(empty, table(unit(2), id=list("de"), uri=["", "/d.jpg"]))
    assert sorted(empty.to_table(["id"]).column("id").to_pylist()) == list("abcde")


def test_a_uri_that_comes_again_in_a_later_batch_is_refused_too(
    empty: EmbedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second row does not take the place of the first of the same source; another source's may."""
    monkeypatch.setattr(ready_vectors, "rows_per_part", lambda dim: 2)
    with pytest.raises(InputError, match=r"'/a\.jpg'"):
        add(empty, table(unit(4), id=list("abcd"), uri=["/a.jpg", "/b.jpg", "/c.jpg", "/a.jpg"]))
    assert empty.to_table(["id", "uri"]).to_pylist() == [{"id": "a", "uri": "/a.jpg"}, {"id": "b", "uri": "/b.jpg"}]
    report = add(empty, table(unit(1, seed=3), id=["d"], uri=["/a.jpg"]))
    assert (report.replaced, report.added) == (1, 1)
    assert empty.to_table(["id", "uri"]).to_pylist() == [{"id": "b", "uri": "/b.jpg"}, {"id": "d", "uri": "/a.jpg"}]


def test_places_in_a_table_are_no_names(empty: EmbedStore) -> None:
    """Rows of two tables in memory, or of a file that was written again, have the same places: both stay."""
    add(empty, table(unit(2), id=["a", "b"]))
    report = add(empty, table(unit(2, seed=1), id=["c", "d"]))
    assert (report.added, report.replaced, len(empty)) == (2, 0, 4)


def test_sources_that_name_their_rows_and_others_come_in_together(empty: EmbedStore) -> None:
    """A list of both: names replace, places do not."""
    add(empty, [table(unit(2), id=["a", "b"]), table(unit(1, seed=1), id=["c"], uri=["/c.jpg"])])
    add(empty, [table(unit(1, seed=2), id=["d"], uri=["/c.jpg"]), table(unit(2, seed=3), id=["e", "f"])])
    assert sorted(empty.to_table(["id"]).column("id").to_pylist()) == list("abdef")


def test_uris_may_change_places(empty: EmbedStore) -> None:
    """Two rows that swap their uris are both there afterwards."""
    add(empty, table(unit(2), id=["a", "b"], uri=["/a.jpg", "/b.jpg"]))
    report = add(empty, table(unit(2), id=["a", "b"], uri=["/b.jpg", "/a.jpg"]))
    assert report.updated == 2
    rows = {row["id"]: row["uri"] for row in empty.to_table(["id", "uri"]).to_pylist()}
    assert rows == {"a": "/b.jpg", "b": "/a.jpg"}


def test_vectors_in_memory_are_known_by_their_numbers(empty: EmbedStore) -> None:
    """A second array takes no place of the first; the same rows in another order change nothing but their places."""
    one, two = unit(3), unit(3, seed=7)
    for vectors in (one, two):
        assert empty.add(vectors, embedding_column="v").added == 3
    again = empty.add(two[::-1].copy(), embedding_column="v")
    assert (again.updated, again.unchanged, again.accounted, again.found, len(empty)) == (2, 1, 3, 3, 6)
    assert empty.add(pa.table({"v": [one[0].tolist()] * 2}), embedding_column="v").accounted == 2
    assert len(empty) == 7
