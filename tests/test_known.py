"""What a record means for a store, and how texts are found among a million without a dictionary."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.ingest.known import Decision, Known, is_usable_id, record_id
from embedstore.sources import Record
from embedstore.storage.lookup import Lookup
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


def test_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts whose hashes collide are compared as texts."""
    import embedstore.storage.lookup

    monkeypatch.setattr(embedstore.storage.lookup, "hash", lambda text: 7, raising=False)
    lookup = Lookup(pa.chunked_array([pa.array(["a", "b", "a", "c"])]))
    assert list(lookup.positions("a")) == [0, 2]
    assert lookup.first("c") == 3
    assert "d" not in lookup


def test_a_lookup_is_small() -> None:
    """For 200,000 texts it keeps at most 20 bytes each beside the column."""
    column = pa.chunked_array([pa.array([f"/photos/{number:08}.jpg" for number in range(200_000)])])
    tracemalloc.start()
    lookup = Lookup(column)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20 * 200_000
    assert lookup.first("/photos/00123456.jpg") == 123_456


@pytest.fixture
def known(store: EmbedStore) -> Known:
    return Known(store.rows)


def row_of(store: EmbedStore, number: int) -> dict[str, object]:
    return store.to_table().to_pylist()[number]


def record(uri: str, **metadata: object) -> Record:
    return Record(f"file:{uri}", uri, bytes, metadata)


def test_each_fate(store: EmbedStore, known: Known) -> None:
    """Unchanged, updated, replaced, copied and embedded, each with its id and the row's metadata after it."""
    row = row_of(store, 0)
    uri, content, identity = str(row["uri"]), str(row["content_hash"]), str(row["id"])
    label = {"label": row["label"]}
    assert known.decide(record(uri), content, {}) == Decision("unchanged", identity, label)
    assert known.decide(record(uri), content, label) == Decision("unchanged", identity, label)
    assert known.decide(record(uri), content, {"label": "bird"}) == Decision(
        "updated", identity, {"label": "bird"}
    )
    assert known.decide(record(uri), content, {"new": 1}) == Decision(
        "updated", identity, {**label, "new": 1}
    )
    assert known.decide(record(uri), "0" * 64, {"new": 1}) == Decision(
        "replaced", identity, {**label, "new": 1}
    )
    fresh = record_id("file:/elsewhere.png")
    assert known.decide(record("/elsewhere.png"), content, {}) == Decision("copied", fresh, {})
    assert known.decide(record("/elsewhere.png"), "1" * 64, {}) == Decision("embedded", fresh, {})
    assert known.holds(content)
    assert not known.holds("1" * 64)
    assert np.array_equal(known.vector(content), store.vectors([identity])[0])
    assert known.vector("1" * 64) is None
    assert (known.size(content), known.size("1" * 64)) == ((40, 30), (None, None))


def test_a_row_is_taken_over_once(store: EmbedStore, known: Known) -> None:
    """Of two new places with the content of one file that is gone, the first takes its row, the second is a copy."""
    row = row_of(store, 0)
    os.unlink(str(row["uri"]))
    content = str(row["content_hash"])
    assert known.decide(record("/one.png"), content, {}) == Decision(
        "moved", str(row["id"]), {"label": row["label"]}
    )
    assert known.decide(record("/two.png"), content, {}).action == "copied"


def test_many_copies_are_not_looked_at_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 300 rows of one content, 300 further copies ask the disk about each row at most once."""
    from conftest import save_picture

    first = save_picture(tmp_path / "p" / "000.png", 1)
    for number in range(1, 300):
        (tmp_path / "p" / f"{number:03}.png").write_bytes(first.read_bytes())
    made = EmbedStore.create(tmp_path / "s.store", model="objects")
    made.add(tmp_path / "p")
    known = Known(made.rows)
    content = str(row_of(made, 0)["content_hash"])
    asked = []
    exists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: asked.append(path) or exists(path))
    decisions = [known.decide(record(f"/copies/{number}.png"), content, {}) for number in range(300)]
    assert {decision.action for decision in decisions} == {"copied"}
    assert len(asked) == 300


@pytest.mark.parametrize(
    ("value", "usable"),
    [("a", True), ("x" * 36, True), ("", False), ("x" * 37, False), (7, False), (None, False)],
)
def test_usable_ids(value: object, usable: bool) -> None:
    """Texts of 1 to 36 characters are ids, as Atlas takes them."""
    assert is_usable_id(value) is usable
