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
    kept.confirm("d1", ["b", "a"])
    kept.confirm("d1", ["d"])
    kept.confirm("d2", ["e"])
    kept.built("d1", "i1", 3)
    again = Confirmations(small.folder, NAME)
    assert list(again.confirmed("d1")) == ["b", "a", "d"]
    assert (again.mapped("d1"), again.mapped("d2"), again.others("d1")) == ({"i1": 3}, {}, 1)
    assert Confirmations(small.folder, "other/name").confirmed("d1") == {}
