"""Vectors: shapes and refusals, unit length, scores whose bits depend on nothing, and their error bound."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embedstore import vectors
from embedstore.errors import VectorError
from embedstore.vectors import ArrayCache


def unit(count: int, dim: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_one_vector_becomes_a_row_of_float32() -> None:
    """Lists, other dtypes and strides come out as C-contiguous float32 of two dimensions."""
    assert vectors.as_vectors([1, 2, 3]).shape == (1, 3)
    turned = vectors.as_vectors(np.arange(6.0).reshape(2, 3).T)
    assert turned.dtype == np.float32
    assert turned.flags.c_contiguous
    assert turned.tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("value", ["text", [[1, 2], [3]], np.zeros((2, 2, 2)), [[1.0, 2.0]]])
def test_what_is_no_matrix_of_the_dimension_is_refused(value: object) -> None:
    """Text, ragged lists, three dimensions and another width raise VectorError."""
    with pytest.raises(VectorError):
        vectors.as_vectors(value, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(bad: float) -> None:
    """The first row with NaN or infinity is named; numbers whose squares overflow are not confused with it."""
    rows = np.full((5, 4), 1e30, np.float32)
    assert vectors.as_vectors(rows) is rows
    rows[3, 2] = bad
    with pytest.raises(VectorError, match="row 3"):
        vectors.as_vectors(rows)


@given(hnp.arrays(np.float32, (7, 5), elements=st.floats(-1e3, 1e3, width=32)))
def test_norms_are_those_of_float64(rows: np.ndarray) -> None:
    """`norms` is the root of the sum of squares in double precision."""
    assert np.allclose(vectors.norms(rows), np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1)), rtol=1e-14)


def test_norms_of_more_rows_than_a_block() -> None:
    """Blocks leave no row out."""
    rows = unit(1000, 3) * np.arange(1, 1001, dtype=np.float32)[:, None]
    assert np.allclose(vectors.norms(rows), np.arange(1, 1001), rtol=1e-6)


def test_normalising_twice_is_normalising_once() -> None:
    """The second time every bit stays; a vector of length zero is refused."""
    once = vectors.normalise(np.random.default_rng(1).standard_normal((50, 9), dtype=np.float32) * 7)
    assert np.allclose(np.linalg.norm(once, axis=1), 1, atol=1e-6)
    assert vectors.normalise(once) is once
    with pytest.raises(VectorError, match="row 1"):
        vectors.normalise(np.array([[1, 0], [0, 0]], np.float32))


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(1, 9), st.sampled_from([1, 3, 64, 768]), st.integers(0, 2**32 - 1))
def test_a_score_has_the_same_bits_in_any_company(rows: int, queries: int, dim: int, seed: int) -> None:
    """Each score is that of its row and query alone, whichever other rows and queries are asked for."""
    x, q = unit(rows, dim, seed), unit(queries, dim, seed + 1)
    found = vectors.scores(q, x)
    random = np.random.default_rng(seed)
    for row, query in zip(random.integers(0, rows, 20), random.integers(0, queries, 20), strict=True):
        assert found[query, row] == np.vecdot(x[row], q[query])
    some = np.sort(random.choice(rows, rows // 2 + 1, replace=False))
    assert np.array_equal(vectors.scores(q[::-1], x[some]), found[::-1][:, some])


@pytest.mark.parametrize("dim", [1, 7, 64, 768, 4096])
def test_scores_and_products_lie_within_the_bound_of_float64(dim: int) -> None:
    """Neither dot products nor matrix products of float32 are further from the true ones than `rounding` says."""
    x, q = unit(400, dim), unit(40, dim, 1)
    # Numbers of one sign are the worst case for a sum.
    for rows, queries in ((x, q), (np.abs(x), np.abs(q))):
        true = queries.astype(np.float64) @ rows.astype(np.float64).T
        lengths = vectors.norms(queries)[:, None] * vectors.norms(rows)[None]
        bound = vectors.rounding(dim) * lengths
        assert (np.abs(vectors.scores(queries, rows) - true) <= bound).all()
        assert (np.abs(queries @ rows.T - true) <= bound).all()


def test_rounding_is_infinite_where_the_formula_ends() -> None:
    """From 2**24 terms on nothing is promised."""
    assert vectors.rounding(2**24) == np.inf
    assert 0 < vectors.rounding(768) < 5e-5


@given(st.lists(st.integers(-5, 5), max_size=40), st.integers(0, 45))
def test_top_k_keeps_all_ties_of_the_last_place(values: list[int], k: int) -> None:
    """The positions are those of all scores that at most k - 1 others exceed."""
    line = np.array(values, np.float32)
    expected = {n for n, value in enumerate(line) if (line > value).sum() < k}
    assert set(vectors.top_k(line, k).tolist()) == expected


@given(st.lists(st.tuples(st.integers(-3, 3), st.text(max_size=3)), max_size=30, unique_by=lambda row: row[1]))
def test_total_order_is_by_score_and_then_by_id(rows: list[tuple[int, str]]) -> None:
    """Score descending, then id ascending, as Python orders text."""
    rows = [(score, identity.replace("\0", "")) for score, identity in rows]
    scores, ids = np.array([row[0] for row in rows], np.float32), [row[1] for row in rows]
    found = [rows[n] for n in vectors.total_order(scores, ids)]
    assert found == sorted(rows, key=lambda row: (-row[0], row[1]))


def test_one_thread_gives_the_same_bits() -> None:
    """A process with OMP_NUM_THREADS=1 computes the same scores to the bit."""
    code = (
        "import sys, numpy as np; from embedstore.vectors import scores;"
        "r = np.random.default_rng(5); x = r.standard_normal((3000, 768), dtype=np.float32);"
        "sys.stdout.buffer.write(scores(x[:7], x).tobytes())"
    )
    found = []
    for threads in ({}, {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **threads}, capture_output=True, check=True
        )
        found.append(done.stdout)
    assert len(found[0]) == 7 * 3000 * 4
    assert found[0] == found[1]


def test_kept_arrays_are_bounded_by_bytes_and_the_oldest_go_first() -> None:
    """The array used longest ago leaves; one put again counts once; the newest stays even when it is too large."""
    kept = ArrayCache(limit=1000)
    for name in ("a", "b"):
        kept.put(name, np.zeros(100, np.float32))
    assert kept.get("a") is not None
    kept.put("c", np.zeros(100, np.float32))
    assert (kept.get("b"), len(kept)) == (None, 2)
    kept.put("c", np.zeros(150, np.float32))
    assert (kept.get("a") is None, len(kept)) == (False, 2)
    kept.put("d", np.zeros(1000, np.float32))
    assert (kept.get("a"), len(kept)) == (None, 1)
    array = kept.get("d")
    assert array is not None
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    kept.clear()
    assert (kept.get("d"), len(kept)) == (None, 0)
