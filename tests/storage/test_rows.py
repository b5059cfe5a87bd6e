"""Rows of a version: texts of a column are found by position."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.storage import rows
from embedstore.storage.rows import Lookup, Rows
from embedstore.storage.where import Where
from embedstore.store import EmbedStore


@given(st.lists(st.one_of(st.none(), st.text(max_size=3))), st.text(max_size=3))
def test_a_lookup_is_a_list_search(values: list[str | None], wanted: str) -> None:
    """Positions are those at which a text stands, ascending; nulls and the empty text are found nowhere."""
    half = len(values) // 2
    column = pa.chunked_array([pa.array(values[:half], pa.string()), pa.array(values[half:], pa.string())])
    lookup = Lookup(column)
    for text in {wanted, *(value for value in values if value is not None)}:
        places = [place for place, value in enumerate(values) if value == text and text]
        assert list(lookup.positions(text)) == places
        assert lookup.first(text) == (places[0] if places else None)
        assert (text in lookup) == bool(places)
    texts = [value for value in [wanted, *values] if value]
    firsts = [next((place for place, value in enumerate(values) if value == text), -1) for text in texts]
    assert lookup.first_of_each(texts).tolist() == firsts


def test_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts whose hashes collide are compared as texts."""
    import embedstore.storage.rows

    monkeypatch.setattr(embedstore.storage.rows, "hash", lambda text: 7, raising=False)
    lookup = Lookup(pa.chunked_array([pa.array(["a", "b", "a", "c"])]))
    assert list(lookup.positions("a")) == [0, 2]
    assert lookup.first("c") == 3
    assert "d" not in lookup
    assert lookup.first_of_each(["c", "d", "b", "a"]).tolist() == [3, -1, 1, 0]


def test_a_lookup_is_small() -> None:
    """For 200,000 texts it keeps at most 20 bytes each beside the column."""
    column = pa.chunked_array([pa.array([f"/photos/{number:08}.jpg" for number in range(200_000)])])
    tracemalloc.start()
    lookup = Lookup(column)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20 * 200_000
    assert lookup.first("/photos/00123456.jpg") == 123_456


def test_masks_of_conditions_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked by the same SQL again, the rows are not looked at again; masks are read-only, within a bound of bytes, and
    those of conditions that ask for the time are made anew. Another version has its own."""
    store = EmbedStore.create(tmp_path / "s.store", space="own", dim=4)
    table = pa.table({"id": list("abcd"), "n": [1, 2, 3, 4], "v": list(np.eye(4, dtype=np.float32))})
    store.add(table, embedding_column="v", progress=False)
    looked = []
    mask_of = Where.mask
    monkeypatch.setattr(Where, "mask", lambda self, rows: (looked.append(self), mask_of(self, rows))[1])
    for _ in range(3):
        assert store.mask("n > 2").tolist() == [False, False, True, True]
        assert store.search(np.ones(4), k=9, where="n > 2").id == ["c", "d"]
    assert len(looked) == 1
    with pytest.raises(ValueError, match="read-only"):
        store.mask("n > 2")[0] = True
    for _ in range(2):
        assert store.mask("added_at <= now() and n > 3").tolist() == [False, False, False, True]
    assert len(looked) == 3
    monkeypatch.setattr(rows, "MASKS_BYTES", 8)
    small = Rows(store.snapshot)
    for number in (1, 2, 3, 1):
        small.mask(f"n > {number}")
    assert len(looked) == 7
    store.remove(["d"])
    assert store.mask("n > 2").tolist() == [False, False, True]


def test_batches_are_the_rows_in_order_and_keep_nothing(tmp_path: Path) -> None:
    """Of several parts, one without a column: any rows in any order, all columns, in pieces; nothing is kept."""
    store = EmbedStore.create(tmp_path / "s.store", space="own", dim=4)
    for number, more in enumerate(({}, {"kind": ["a", None, "c"]})):
        ids = [f"{number}-{row}" for row in range(3)]
        vectors = list(np.eye(4, dtype=np.float32)[:3])
        store.add(pa.table({"id": ids, **more, "v": vectors}), embedding_column="v", progress=False)
    made = Rows(store.snapshot)
    for places in ([4, 0, 5, 2, 1], [3], [], [5, 4, 3, 2, 1, 0]):
        wanted = np.array(places, np.int64)
        found = list(made.batches(wanted, 2))
        assert [len(one) for one in found] == [min(2, len(places) - start) for start in range(0, len(places), 2)]
        if found:
            assert pa.concat_tables(found).equals(Rows(store.snapshot).take(wanted))
    assert made._columns == {}
