"""Which rows show the same picture: against all pairs by brute force, and what that does to guarantees."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from embedstore.deciding import same_pictures
from embedstore.deciding.same_pictures import COPY_COSINE, PictureSet, copies, linked, pictures_of, tells_pictures_apart
from embedstore.measures.calibration import calibrate_scores
from embedstore.space import Space
from embedstore.store import EmbedStore
from embedstore.vectors import normalise

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from measuring.classes import broken


def with_copies(n: int, dim: int, seed: int) -> np.ndarray:
    """Unit vectors, a third of them near-copies of others, in directions of unequal weight."""
    rng = np.random.default_rng(seed)
    vectors = normalise((rng.normal(size=(n, dim)) * np.arange(1, dim + 1) ** -0.3).astype(np.float32))
    copied = rng.integers(n, size=n // 3)
    where = rng.permutation(n)[: n // 3]
    noise = rng.normal(size=(n // 3, dim)) * rng.uniform(0.01, 0.3, (n // 3, 1)) / np.sqrt(dim)
    vectors[where] = normalise((vectors[copied] + noise).astype(np.float32))
    return vectors


def same_partition(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two numberings name the same groups."""
    pairs = {(a, b) for a, b in zip(found.tolist(), expected.tolist(), strict=True)}
    return len(pairs) == len(set(found.tolist())) == len(set(expected.tolist()))


@pytest.mark.parametrize(("n", "dim"), [(1, 64), (50, 16), (700, 200), (2500, 256), (4500, 48)])
def test_linked_rows_are_the_components_of_all_pairs(n: int, dim: int) -> None:
    """Blocks and fewer dimensions find what all the dot products of the plain definition find."""
    vectors = with_copies(n, dim, n)
    near = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    on_edge = np.abs(near - COPY_COSINE) < 2e-6
    assert not on_edge.any()
    _, expected = connected_components(sparse.csr_matrix(near >= COPY_COSINE), directed=False)
    found = linked(vectors)
    assert same_partition(found, expected)
    assert n < 100 or 0.6 * n < len(set(found.tolist())) < n


def test_rows_that_are_all_one_picture_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 equal rows, 4.5 million pairs, are joined in between, and are one picture."""
    monkeypatch.setattr(same_pictures, "_EDGES", 10_000)
    vectors = np.repeat(with_copies(1, 64, 1), 3000, axis=0)
    assert set(linked(vectors).tolist()) == {0}
    mixed = np.concatenate([vectors[:1500], with_copies(300, 64, 2)])
    expected = connected_components(sparse.csr_matrix(mixed @ mixed.T >= COPY_COSINE), directed=False)[1]
    assert same_partition(linked(mixed), expected)


def test_copies_are_of_one_content_or_near(tmp_path: Path) -> None:
    """Rows with one content hash, and rows with near vectors; in a space of few dimensions, only the former."""
    vectors = with_copies(40, 64, 5)
    vectors[1] = normalise(vectors[:1] + 0.001)[0]
    for dim in (64, 8):
        store = EmbedStore.create(tmp_path / f"{dim}.store", space=Space.given("own", dim))
        rows = [
            {
                "id": f"{row:02}",
                "content_hash": f"{(7 if row == 9 else row):064x}",
                "embedding": vector.tolist(),
            }
            for row, vector in enumerate(normalise(vectors[:, :dim].copy()))
        ]
        store.add(pa.Table.from_pylist(rows), embedding_column="embedding")
        order = store.to_table(["id"]).column("id").to_pylist()
        found = dict(zip(order, copies(store.reader, np.arange(40)).tolist(), strict=True))
        assert found["07"] == found["09"]
        assert (found["00"] == found["01"]) == (dim == 64)
        labels = {name: int(name) % 2 == 0 for name in order}
        made = store.calibrate(vectors[3, :dim], labels, name="even", resamples=0)
        said = [text for text in made.warnings if "count as copies" in text]
        near = 39 - len(set(found.values()))
        assert said == (
            [f"{near} of 39 labelled pictures count as copies of others: their cosine is 0.98 or more"] * (dim == 64)
        )
        assert pictures_of(store.reader, np.array([order.index("07")])) == [f"{7:064x}"]


def test_objects_does_not_tell_pictures_apart(photo_store: EmbedStore) -> None:
    """Its vectors of different photographs coincide, so that only equal content counts as one picture there."""
    assert not tells_pictures_apart(photo_store.space)
    every = np.arange(len(photo_store))
    vectors = photo_store.reader.rows.vectors(every)
    assert len(set(linked(vectors).tolist())) <= len(every) - 20
    hashes = photo_store.to_table(["content_hash"]).column(0).to_pylist()
    assert len(set(copies(photo_store.reader, every).tolist())) == len(set(hashes)) > 0.9 * len(every)


def test_guarantees_hold_with_copies_saved_anew() -> None:
    """Of 200 guaranteed precisions at most 5 % are broken where copies are found by cosine, and more where not."""
    by_cosine, by_hash = (
        [broken(np.random.default_rng([1, draw]), by_cosine) for draw in range(200)] for by_cosine in (True, False)
    )
    assert sum(map(bool, by_cosine)) <= 10
    assert by_cosine.count(None) < 40
    assert sum(map(bool, by_hash)) > 16


def test_a_fold_never_parts_near_copies() -> None:
    """Scores that mean nothing have chance figures with near-copies grouped, and better ones where they are not."""
    rng = np.random.default_rng(2)
    base = normalise(rng.normal(size=(30, 64)).astype(np.float32))
    vectors = normalise(np.repeat(base, 10, axis=0) + (0.02 * rng.normal(size=(300, 64)) / 8).astype(np.float32))
    assert same_partition(linked(vectors), np.repeat(np.arange(30), 10))
    truth = np.repeat(rng.permutation(np.arange(30) % 2).astype(bool), 10)
    calibration = calibrate_scores(vectors[:, 0].copy(), truth, linked(vectors), resamples=0)
    assert calibration.n_groups == 30


@given(st.sets(st.text(max_size=8), min_size=1, max_size=40), st.lists(st.text(max_size=8), min_size=1, max_size=40))
def test_a_picture_set_counts_exactly(chosen: set[str], asked: list[str]) -> None:
    """The rows that show one of its pictures, also after a journey through JSON."""
    made = PictureSet.of([*chosen, *chosen])
    again = PictureSet.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again.to_dict() == made.to_dict()
    assert (made.n, again.shared(asked)) == (len(chosen), (sum(name in chosen for name in asked), True))


def test_a_large_picture_set_estimates() -> None:
    """Of 50,000 pictures 10,000 fingerprints are kept: 60 kB, and a share that is right within 3 % of the rows."""
    made = PictureSet.of([f"picture {number}" for number in range(50_000)])
    assert len(made.to_dict()["pictures"]) == 80_000
    shared, exact = made.shared([f"picture {number}" for number in range(40_000, 60_000)])
    assert not exact
    assert shared == pytest.approx(10_000, abs=600)
    assert made.shared([f"other {number}" for number in range(1000)]) == (0, False)
