"""What is written down of what Atlas was seen to hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from atlas_stores import NAME, vector_store

from embedstore.atlas.ledger import Ledger
from embedstore.store import EmbedStore


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "small.store", 60)


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
