"""A store written by the first release opens for ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from embedstore.store import EmbedStore

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def golden(tmp_path: Path) -> EmbedStore:
    """A copy of the first, because opening a store may write its layout note."""
    return EmbedStore.open(shutil.copytree(GOLDEN / "store-v1", tmp_path / "golden.store"))


@pytest.mark.parametrize("layout", [1, 2])
def test_each_format_is_read_to_the_bit(tmp_path: Path, layout: int) -> None:
    """Rows, vectors, space, ids and metadata are what they were, of parts without checksums and with."""
    golden = EmbedStore.open(shutil.copytree(GOLDEN / f"store-v{layout}", tmp_path / "golden.store"))
    numbers = [0, 1, 2, 3, 4, 5, 6, 8, 9]
    angles = np.array(numbers) * 0.3
    expected = np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], axis=1).astype(np.float32)
    table = golden.to_table(["id", "uri", "label", "embedding"])
    assert table.column("id").to_pylist() == [f"row-{n}" for n in numbers]
    assert table.column("uri").to_pylist() == [f"row-{n}.jpg" for n in numbers]
    assert table.column("label").to_pylist() == [("cat", "dog")[n % 2] for n in numbers]
    assert np.array_equal(np.array(table.column("embedding").to_pylist(), np.float32), expected)
    assert golden.space.to_dict() == {
        "model": "golden",
        "backend": "given",
        "precision": "float32",
        "preprocessing": "unknown",
        "dim": 4,
        "normalised": True,
    }
    assert all(part.mapped for part in golden.snapshot.parts)
    assert [part.checked for part in golden.snapshot.parts] == [[False], [True, True]][layout - 1]
    assert [problem for part in golden.snapshot.parts for problem in part.check()] == []
    assert golden.verify(deep=True).ok


def test_classifiers_of_the_first_format_are_read(golden: EmbedStore) -> None:
    """A classifier saved then decides as it did."""
    cosines = {f"row-{n}": np.float32(np.cos(n * 0.3)) for n in (0, 1, 2, 3, 4, 5, 6, 8, 9)}
    nearest = sorted(cosines, key=lambda name: -cosines[name])
    classifier = golden.classifier("north")
    assert golden.classify(classifier).id == [name for name in nearest if cosines[name] > classifier.threshold]
    assert golden.classifiers() == ["north"]


def test_the_first_format_is_written_further(golden: EmbedStore) -> None:
    """Old versions are opened, rows removed, parts merged."""
    assert len(EmbedStore.open(golden.path, version=2)) == 10
    assert golden.remove(where="label == 'dog'") == 4
    golden.compact()
    assert "queries" in golden.vacuum().files
    assert not (golden.path / "queries").exists()
    assert golden.search(np.array([1.0, 0, 0, 0]), k=2).id == ["row-0", "row-2"]
    assert golden.verify(deep=True).ok
