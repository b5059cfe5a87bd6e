"""The scan: exact, with ties, whatever the parts, masks, strips and threads."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore import vectors
from embedstore.searching import scan
from embedstore.storage import parts

DIM = 24


class OneByOne(scan.Executor):
    """An executor that runs tasks backwards, each as another process would get it."""

    local = False

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        results = [function(pickle.loads(pickle.dumps(task))) for task in list(tasks)[::-1]]
        return iter(results[::-1])


def unit(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def part_of(path: Path, x: np.ndarray, group: int) -> parts.Part:
    table = pa.table({"id": [str(n) for n in range(len(x))]})
    batches = ((table.slice(n, group), x[n : n + group]) for n in range(0, len(x), group))
    return parts.write(path, batches, table.schema, x.shape[1])


def foreign_part(path: Path, x: np.ndarray) -> parts.Part:
    """A file of another writer: compressed, with a dictionary."""
    pq.write_table(pa.table({"id": ["x"] * len(x), "embedding": x.tolist()}), path)
    return parts.open_part(path, x.shape[1])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[parts.Part], np.ndarray]:
    """Four parts, one of them foreign and one of a single row, with many equal vectors."""
    folder = tmp_path_factory.mktemp("parts")
    x = unit(5000)
    x[::7] = x[0]  # ties
    cuts = [x[:3000], x[3000:3001], x[3001:4200], x[4200:]]
    found = [
        part_of(folder / "a.parquet", cuts[0], 700),
        part_of(folder / "b.parquet", cuts[1], 700),
        foreign_part(folder / "c.parquet", cuts[2]),
        part_of(folder / "d.parquet", cuts[3], 64),
    ]
    assert [part.mapped for part in found] == [True, True, False, True]
    return found, x


def brute_force(x: np.ndarray, query: np.ndarray, k: int, mask: np.ndarray | None) -> dict[int, np.float32]:
    """Positions and scores of the nearest k rows and of all that tie with the last."""
    scores = np.vecdot(x, query)
    kept = np.arange(len(x)) if mask is None else np.flatnonzero(mask)
    ordered = sorted(scores[kept], reverse=True)
    floor = ordered[min(k, len(ordered)) - 1] if ordered else np.inf
    return {int(n): scores[n] for n in kept if scores[n] >= floor}


def same(found: scan.PartialScan, expected: Sequence[dict[int, np.float32]]) -> bool:
    return [dict(zip(p.tolist(), s, strict=True)) for p, s in zip(found.positions, found.scores, strict=True)] == list(
        expected
    )


@pytest.mark.parametrize("count", [1, 3, scan.FROM_QUERIES, 40])
@pytest.mark.parametrize("k", [1, 20, 900, 6000])
@pytest.mark.parametrize("share", [None, 0.0, 0.02, 0.6, 1.0])
def test_nearest_is_brute_force(
    stored: tuple[list[parts.Part], np.ndarray], count: int, k: int, share: float | None
) -> None:
    """Positions, scores to the bit, and ties are those of all dot products, for few and many queries and any mask."""
    found, x = stored
    queries = np.concatenate([x[:1], unit(count, seed=3)])[:count]
    mask = None if share is None else np.random.default_rng(4).random(len(x)) < share
    expected = [brute_force(x, query, k, mask) for query in queries]
    for executor in (scan.Threads(), OneByOne()):
        assert same(scan.nearest(found, queries, k, mask, executor), expected)


@pytest.mark.parametrize("gathered", [1, 7, 1024])
@pytest.mark.parametrize("count", [1, 3])
def test_a_mask_that_is_dense_in_places_changes_no_bit(
    stored: tuple[list[parts.Part], np.ndarray], count: int, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row groups of which all, few or no rows are kept, copied out in pieces of any size, score as brute force does."""
    found, x = stored
    monkeypatch.setattr(scan, "_GATHERED", gathered)
    random = np.random.default_rng(12)
    mask = random.random(len(x)) < np.repeat(random.choice([0.0, 0.05, 0.5, 1.0], 50), 100)
    mask[700:1400], mask[1400:2100] = False, True
    queries = unit(count, seed=5)
    expected = [brute_force(x, query, 30, mask) for query in queries]
    assert same(scan.nearest(found, queries, 30, mask, OneByOne()), expected)


def test_pieces_of_any_size_give_the_same(
    stored: tuple[list[parts.Part], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer does not depend on the length of strips, blocks and tasks."""
    found, x = stored
    few, many = unit(2, seed=5), unit(scan.FROM_QUERIES, seed=6)
    expected = [[brute_force(x, query, 11, None) for query in queries] for queries in (few, many)]
    for strip, task in ((1, 7), (13, 100), (5000, 5000)):
        monkeypatch.setattr(scan, "STRIP_ROWS", strip)
        monkeypatch.setattr(scan, "TASK_ROWS", task)
        monkeypatch.setattr(scan, "BLOCK_ROWS", min(strip + 5, scan.BLOCK_ROWS))
        for queries, wanted in zip((few, many), expected, strict=True):
            assert same(scan.nearest(found, queries, 11, None, scan.Threads()), wanted)


def test_pieces_of_work_are_even_and_miss_no_row(stored: tuple[list[parts.Part], np.ndarray]) -> None:
    """Every row is in one piece, no part ends in a small rest, and a piece without a row of the mask is left out."""
    found, x = stored
    for limit in (1, 7, 333, 999_999):
        pieces = list(scan.strips(found, limit))
        rows = np.concatenate([np.arange(position, position + last - first) for _, first, last, position, _ in pieces])
        assert np.array_equal(rows, np.arange(len(x)))
        for part in found:
            sizes = [last - first for owner, first, last, _, _ in pieces if owner is part]
            assert max(sizes) <= limit
            assert len(sizes) == -(-part.rows // limit)
            assert min(sizes) > max(sizes) - len(sizes)
    mask = np.arange(len(x)) == 5
    assert [position for _, _, _, position, _ in scan.strips(found, 1, mask)] == [5]


def test_all_scores_are_the_plain_dot_products(stored: tuple[list[parts.Part], np.ndarray]) -> None:
    """Rows in the order of the parts, one line for each query."""
    found, x = stored
    queries = unit(5, seed=9)
    for executor in (scan.Threads(), OneByOne()):
        scores = scan.all_scores(found, queries, executor)
        assert np.array_equal(scores, np.stack([np.vecdot(x, query) for query in queries]))


def test_nothing_is_found_in_nothing() -> None:
    """No parts: empty answers of the right shape."""
    queries = unit(2)
    found = scan.nearest([], queries, 5, None, scan.Threads())
    assert [len(p) for p in found.positions] == [0, 0]
    assert scan.all_scores([], queries, scan.Threads()).shape == (2, 0)


def test_vectors_of_any_length_are_ranked_exactly(tmp_path: Path) -> None:
    """The bound of matrix products uses the true lengths."""
    x = unit(600) * np.geomspace(1e-3, 1e3, 600, dtype=np.float32)[:, None]
    queries = unit(scan.FROM_QUERIES, seed=2)
    part = part_of(tmp_path / "long.parquet", x, 100)
    assert same(
        scan.nearest([part], queries, 9, None, scan.Threads()),
        [brute_force(x, query, 9, None) for query in queries],
    )


def test_the_longest_vector_is_never_underestimated(tmp_path: Path) -> None:
    """`Part.longest` is at least the true length and close to it."""
    x = unit(300) * np.random.default_rng(0).uniform(0.5, 2, (300, 1)).astype(np.float32)
    true = vectors.norms(x).max()
    found = part_of(tmp_path / "a.parquet", x, 77).longest
    assert true <= found <= true * 1.0001


@pytest.mark.parametrize("count", [2, scan.FROM_QUERIES])
def test_a_damaged_vector_hides_no_other(tmp_path: Path, count: int) -> None:
    """With NaN in a row no bound holds; the other rows are found as if it were not there."""
    x = unit(300)
    x[5, 3] = np.nan
    part = part_of(tmp_path / "broken.parquet", x, 100)
    assert part.longest == np.inf
    queries = unit(count, seed=2)
    whole = np.arange(300) != 5
    found = scan.nearest([part], queries, 9, None, scan.Threads())
    assert same(found, [brute_force(x, query, 9, whole) for query in queries])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=60), st.integers(1, 8), st.randoms())
def test_merge_may_run_in_any_order(values: list[int], k: int, random: Any) -> None:
    """Merging is associative and commutative: every order and grouping gives the rows of one top-k."""
    line = np.array(values, np.float32)
    cuts = sorted({0, len(line), *random.choices(range(len(line) + 1), k=3)})
    pieces = []
    for start, end in itertools.pairwise(cuts):
        best = vectors.top_k(line[start:end], k)
        pieces.append(scan.PartialScan(k, [best.astype(np.int64) + start], [line[start:end][best]]))
    while len(pieces) > 1:
        random.shuffle(pieces)
        pieces.append(scan.merge(pieces.pop(), pieces.pop()))
    expected = {int(n): line[n] for n in vectors.top_k(line, k)}
    assert same(pieces[0], [expected])


def test_blas_gets_its_threads_back() -> None:
    """Searches of many queries that overlap leave the number of BLAS threads as it was."""
    from threadpoolctl import threadpool_info

    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    guard = scan.OneBlasThread()
    with guard:
        with guard:
            assert set(threads()) <= {1}
        assert set(threads()) <= {1}
    assert threads() == before
