"""Vectors in, exact scores out: shapes, unit length, the one dot product, and a top-k with a total order.

Nothing here knows of files. Every score that leaves the library is made by `scores`: one float32 dot product for
each (query, row) pair, computed row by row, so its bits do not depend on the block, thread or path that asked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import VectorError

Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]
"""Which rows take part, shape (n_rows,)."""
Positions = NDArray[np.int64]
"""Rows by number, counted over all parts of a store."""

Array = TypeVar("Array", bound=NDArray[Any])

UNIT_TOLERANCE = 1e-3
"""A vector whose length is further from one is not of unit length."""
EXACT_TOLERANCE = 1e-6
"""A vector whose length is nearer to one is left as it is."""
_BLOCK = 256
"""So many rows stay in the cache while several things are done with them."""


def as_vectors(values: ArrayLike, dim: int | None = None, what: str = "vectors") -> Vectors:
    """Return `values` as a C-contiguous float32 array of shape (n, dim); one vector becomes (1, dim).

    Raises VectorError, which names `what`, for other shapes, what is no number, NaN and infinity.
    """
    try:
        array = np.ascontiguousarray(values, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise VectorError(f"{what}: expected numbers of shape (n, dim), found {type(values).__name__}") from error
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2 or (dim is not None and array.shape[1] != dim):
        expected = f"(n, {dim})" if dim is not None else "(n, dim)"
        raise VectorError(f"{what}: expected shape {expected}, found {np.shape(values)}")
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.vecdot(array, array)  # reads the rows once and writes little, as isfinite would not
    if not np.isfinite(squares).all():
        suspect = np.flatnonzero(~np.isfinite(squares))  # the square of large finite numbers overflows too
        bad = suspect[~np.isfinite(array[suspect]).all(axis=1)]
        if len(bad):
            raise VectorError(f"{what}: row {bad[0]} holds NaN or infinity; leave it out or compute it again")
    return array


def norms(vectors: Vectors) -> NDArray[np.float64]:
    """Return the Euclidean length of each row, float64 of shape (n,)."""
    squares = np.empty(len(vectors), np.float64)
    for start in range(0, len(vectors), _BLOCK):  # widened in pieces that stay in the cache
        wide = vectors[start : start + _BLOCK].astype(np.float64)
        np.vecdot(wide, wide, out=squares[start : start + _BLOCK])
    return np.sqrt(squares)


def rounding(dim: int) -> float:
    """Return how far a float32 dot product of `dim` terms may lie from the true one, for vectors of length one.

    The bound gamma_n = n u / (1 - n u), u = 2**-24, of Higham, *Accuracy and Stability of Numerical Algorithms*,
    section 3.1: it holds for any order of summation, with or without fused multiply-add. For other lengths it is
    multiplied by both.
    """
    share = dim * 2.0**-24
    return share / (1 - share) if share < 1 else np.inf


def normalise(vectors: Vectors, what: str = "vectors") -> Vectors:
    """Return rows scaled to unit length, float32 of shape (n, dim). Raises VectorError where a row has length zero.

    Rows that are of unit length to float32 rounding are returned bit for bit: to normalise twice is to normalise once.
    """
    lengths = norms(vectors)
    if not lengths.all():
        row = int(np.argmin(lengths))
        raise VectorError(f"{what}: row {row} has length zero, which has no direction; leave it out")
    off = np.abs(lengths - 1) > EXACT_TOLERANCE
    if not off.any():
        return vectors
    scaled = vectors.copy()
    scaled[off] = (vectors[off] / lengths[off, np.newaxis]).astype(np.float32)
    return scaled


def scores(queries: Vectors, rows: Vectors, out: Vectors | None = None) -> Vectors:
    """Return the score of each query with each row, float32 of shape (n_queries, n_rows), written to `out` if given.

    It is the dot product, for unit vectors the cosine: in [-1, 1] but for rounding; larger is nearer. Each value is
    ``np.vecdot(row, query)``: the same to the bit whichever other rows and queries are asked for with it. (A matrix
    product gives bits that depend on the shapes and on the number of threads.)
    """
    if out is None:
        out = np.empty((len(queries), len(rows)), dtype=np.float32)
    # A strip of rows small enough for the cache is read from memory once for all queries.
    strip = len(rows) if len(queries) == 1 else _BLOCK
    for start in range(0, len(rows), max(strip, 1)):
        block = rows[start : start + strip]
        for number, query in enumerate(queries):
            np.vecdot(block, query, out=out[number, start : start + strip])
    return out


def top_k(row_scores: NDArray[np.floating[Any]], k: int) -> NDArray[np.intp]:
    """Return the positions of the `k` largest scores and of all that tie with the last of them, unordered.

    The ties are kept because only the caller knows the ids that decide between them. NaN, the score of a damaged
    vector, comes after all numbers.
    """
    if k <= 0:
        return np.empty(0, dtype=np.intp)
    if k >= len(row_scores):
        return np.arange(len(row_scores))
    largest = np.partition(row_scores, len(row_scores) - k)[len(row_scores) - k :]
    if np.isnan(largest).any():
        return top_k(np.where(np.isnan(row_scores), -np.inf, row_scores), k)
    return np.flatnonzero(row_scores >= largest[0])


def total_order(row_scores: NDArray[np.floating[Any]], ids: ArrayLike) -> NDArray[np.intp]:
    """Return the order of results: score descending, then id ascending. No two rows are equal in it."""
    return np.lexsort((np.asarray(ids), -np.asarray(row_scores)))


class ArrayCache(Generic[Array]):
    """Arrays by key, at most `limit` bytes of them; those used longest ago go first, the newest always stays.

    Threads may share one. What a key says is the caller's business.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._bytes = 0
        self._kept: OrderedDict[Hashable, Array] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Array | None:
        """Return an array, which then is the one used last, or None."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: Hashable, array: Array) -> Array:
        """Keep an array, read-only from now on, and return it; others make room for it."""
        array.flags.writeable = False
        with self._lock:
            old = self._kept.pop(key, None)
            self._bytes += array.nbytes - (0 if old is None else old.nbytes)
            self._kept[key] = array
            while self._bytes > self.limit and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return array

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0
