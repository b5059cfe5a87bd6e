"""The layout note is believed only when every byte of it, and the newest commit, are what they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedstore.store import EmbedStore


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    golden = Path(__file__).parents[1] / "golden" / "store-v2"
    return EmbedStore.open(shutil.copytree(golden, tmp_path / "s.store"))


def test_any_flip_of_the_note_is_thrown_away(small: EmbedStore) -> None:
    """200 flips change no answer, and the note is whole again after each."""
    note = small.path / "index" / "images.json"
    good = note.read_bytes()
    expected = small.search(np.array([1.0, 0, 0, 0]), k=9)
    rng = np.random.default_rng(4)
    for place in rng.integers(0, len(good), 200):
        bad = bytearray(good)
        bad[place] ^= 1 << int(rng.integers(8))
        note.write_bytes(bad)
        found = EmbedStore.open(small.path).search(np.array([1.0, 0, 0, 0]), k=9)
        assert (found.id, found.score.tolist()) == (expected.id, expected.score.tolist())
        assert note.read_bytes() == good


def test_the_note_is_json_and_names_the_commit(small: EmbedStore) -> None:
    """Whoever looks at it can read it."""
    note = json.loads((small.path / "index" / "images.json").read_text())
    assert note["note"]["commit"] == small.folder.images._files.checksum(small.version)
    assert [part["rows"] for part in note["note"]["parts"]] == [part.rows for part in small.snapshot.parts]


def test_opening_reads_the_note_and_one_commit_only(small: EmbedStore) -> None:
    """With a sound note, neither the older commits nor the footers of the parts are looked at."""
    log = small.path / "images" / "_delta_log"
    for number in range(small.version):
        (log / f"{number:020}.json").unlink()
    for part in small.snapshot.parts:
        data = bytearray(part.path.read_bytes())
        data[-20] ^= 1
        part.path.write_bytes(data)
    assert len(EmbedStore.open(small.path)) == 9
