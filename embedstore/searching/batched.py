"""Many queries at once: a matrix product says which rows are worth scoring.

A matrix product is several times faster than one dot product after another, and its last bits depend on shapes and
threads. So it only proposes: a row is left out when its product, with every rounding error that either computation
may make, lies below a score that is reached by enough rows already. What is proposed is scored by `vectors.scores`'
own dot product. The rows that are kept are `scan`'s business.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.vectors import Vectors, rounding, top_k

FROM_QUERIES = 12
"""From so many queries on, this is faster than a dot product for each."""

BLOCK_ROWS = 2_048
"""Rows of one matrix product: with the products they stay in the cache until the candidates are scored."""


class Products:
    """Proposes candidates for one set of queries among rows no longer than `longest`.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, dim), float32
    longest : float
        No row is longer.
    k : int
        How many rows each query wants.
    """

    def __init__(self, queries: Vectors, longest: float, k: int) -> None:
        self._queries = queries
        self._columns = np.ascontiguousarray(queries.T)
        lengths = np.sqrt(np.vecdot(queries, queries).astype(np.float64) * (1 + rounding(queries.shape[1])))
        # Both the product and the score may be off by the bound, in opposite directions.
        self._slack = 2 * rounding(queries.shape[1]) * (1 + 1e-6) * longest * lengths
        self._k = k
        self._buffer = np.empty((BLOCK_ROWS, len(queries)), np.float32)

    def candidates(
        self, rows: Vectors, floors: NDArray[np.float32]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        """Return (query, row, score) of every row that may be among the nearest `k`, in the order of queries.

        Parameters
        ----------
        rows : ndarray of shape (at most BLOCK_ROWS, dim), float32
        floors : ndarray of shape (n_queries,), float32
            A score that `k` rows reach already; -inf where there are none yet.
        """
        products = np.matmul(rows, self._columns, out=self._buffer[: len(rows)])
        limits = self._limits(products, floors)
        row, query = np.divmod(np.flatnonzero((products >= limits).ravel()), len(self._queries))
        order = np.argsort(query, kind="stable")
        row, query = row[order], query[order]
        return query, row, np.vecdot(rows[row], self._queries[query])

    def _limits(self, products: NDArray[Any], floors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return for each query the smallest product with which a row may matter."""
        limits = floors.astype(np.float64)
        for number in np.flatnonzero(np.isneginf(floors)):
            line = products[:, number]
            if len(line) >= self._k:
                # k rows score at least this much, whichever way the errors went.
                limits[number] = float(line[top_k(line, self._k)].min()) - self._slack[number]
        lowered: NDArray[np.float32] = (limits - self._slack).astype(np.float32)
        return np.nextafter(lowered, np.float32(-np.inf), out=lowered)


class OneBlasThread:
    """While any thread is inside, matrix products run on the thread that asks for them.

    The scan has a thread for each core already; BLAS threads beside them wait for each other and are slower, many
    times so when the machine is busy.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limits: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                from threadpoolctl import threadpool_limits  # looks at every loaded library

                self._limits = threadpool_limits(1, "blas")
            self._inside += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limits.restore_original_limits()


one_blas_thread = OneBlasThread()
