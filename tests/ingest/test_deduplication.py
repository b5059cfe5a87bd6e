"""What a record means for a store, and how texts are found among a million without a dictionary."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from embedstore.ingest.deduplication import Decision, KnownRecords, record_id
from embedstore.sources import Record
from embedstore.store import EmbedStore


@pytest.fixture
def known(store: EmbedStore) -> KnownRecords:
    return KnownRecords(store.rows)


def row_of(store: EmbedStore, number: int) -> dict[str, object]:
    return store.to_table().to_pylist()[number]


def record(uri: str, **metadata: object) -> Record:
    return Record(f"file:{uri}", uri, bytes, metadata)


def test_each_fate(store: EmbedStore, known: KnownRecords) -> None:
    """Unchanged, updated, replaced, copied and embedded, each with its id and the row's metadata after it."""
    row = row_of(store, 0)
    uri, content, identity = str(row["uri"]), str(row["content_hash"]), str(row["id"])
    label = {"label": row["label"]}
    assert known.decide(record(uri), content, {}) == Decision("unchanged", identity, label)
    assert known.decide(record(uri), content, label) == Decision("unchanged", identity, label)
    assert known.decide(record(uri), content, {"label": "bird"}) == Decision("updated", identity, {"label": "bird"})
    assert known.decide(record(uri), content, {"new": 1}) == Decision("updated", identity, {**label, "new": 1})
    assert known.decide(record(uri), "0" * 64, {"new": 1}) == Decision("replaced", identity, {**label, "new": 1})
    fresh = record_id("file:/elsewhere.png")
    assert known.decide(record("/elsewhere.png"), content, {}) == Decision("copied", fresh, {})
    assert known.decide(record("/elsewhere.png"), "1" * 64, {}) == Decision("embedded", fresh, {})
    assert known.holds(content)
    assert not known.holds("1" * 64)
    assert np.array_equal(known.vector(content), store.vectors([identity])[0])
    assert known.vector("1" * 64) is None
    assert (known.size(content), known.size("1" * 64)) == ((40, 30), (None, None))


def test_a_row_is_taken_over_once(store: EmbedStore, known: KnownRecords) -> None:
    """Of two new places with the content of one file that is gone, the first takes its row, the second is a copy."""
    row = row_of(store, 0)
    os.unlink(str(row["uri"]))
    content = str(row["content_hash"])
    assert known.decide(record("/one.png"), content, {}) == Decision("moved", str(row["id"]), {"label": row["label"]})
    assert known.decide(record("/two.png"), content, {}).action == "copied"


def test_many_copies_are_not_looked_at_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 300 rows of one content, 300 further copies ask the disk about each row at most once."""
    from conftest import save_picture

    first = save_picture(tmp_path / "p" / "000.png", 1)
    for number in range(1, 300):
        (tmp_path / "p" / f"{number:03}.png").write_bytes(first.read_bytes())
    made = EmbedStore.create(tmp_path / "s.store", model="objects")
    made.add(tmp_path / "p")
    known = KnownRecords(made.rows)
    content = str(row_of(made, 0)["content_hash"])
    asked = []
    exists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: asked.append(path) or exists(path))
    decisions = [known.decide(record(f"/copies/{number}.png"), content, {}) for number in range(300)]
    assert {decision.action for decision in decisions} == {"copied"}
    assert len(asked) == 300
