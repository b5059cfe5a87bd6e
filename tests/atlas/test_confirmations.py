"""What is written down of what Atlas was seen to hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from atlas_stores import NAME, vector_store

from embedstore.atlas.confirmations import Confirmations
from embedstore.errors import StoreLockedError
from embedstore.store import EmbedStore


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "small.store", 60)


def test_only_entries_of_this_dataset_count(small: EmbedStore) -> None:
    """Ids and maps come back in order, by the dataset's UUID; those of a deleted one of the name are counted only."""
    kept = Confirmations(small.folder, NAME)
    with kept.held(), pytest.raises(StoreLockedError), Confirmations(small.folder, NAME).held():
        pass
    kept.seen("d1", ["b", "a"])
    kept.seen("d1", ["d"])
    kept.seen("d2", ["e"])
    order = kept.ordering("d1", 3, "state", ["i0"], '"label"')
    kept.about_order("d1", order, accepted=True, index="i1")
    again = Confirmations(small.folder, NAME)
    assert list(again.known("d1").seen) == ["b", "a", "d"]
    assert (again.orders("d1"), again.orders("d2"), again.others("d1")) == ([order], [], 1)
    assert (order.index, order.accepted, order.built) == ("i1", True, False)
    assert Confirmations(small.folder, "other/name").known("d1").seen == {}


def test_what_may_be_there(small: EmbedStore) -> None:
    """A row has the hash of its last sending that arrived; after sendings that were cut short only what is sure."""
    kept = Confirmations(small.folder, NAME)
    first = kept.sending("d", ["a", "b", "c"], ["1", "2", "3"])
    known = kept.known("d")
    assert (known.seen, [known.hash_of(name) for name in "abcx"]) == ({}, ["1", "2", "3", ""])
    kept.arrived("d", first)
    assert kept.known("d").seen == {"a": "1", "b": "2", "c": "3"}
    before = kept.known("d").state
    kept.gone("d", ["a", "b"])
    kept.sending("d", ["a", "b"], ["4", "5"])
    kept.sending("d", ["a", "b"], ["6", "5"])
    kept.seen("d", ["a", "b"])
    known = kept.known("d")
    assert (known.seen, known.removed) == ({"c": "3", "a": "", "b": "5"}, 2)
    assert known.state != before
    kept.sending("d", ["e"], ["7"])
    last = kept.sending("d", ["e", "f", "g"], ["8", "9", "10"])
    kept.arrived("d", last, not_by_it=["e", "f"])
    seen = kept.known("d").seen
    assert [seen[name] for name in "efg"] == ["7", "", "10"]
