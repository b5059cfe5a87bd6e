"""The one seam between a query and the rows: map over parts, then merge.

`scan_part` looks at one part; `merge` is associative and commutative, so parts may be scanned by threads here or by
processes elsewhere, in any order, and the answer is the same to the bit. Of many queries at once a matrix product says
which rows are worth scoring: several times faster than one dot product after another, but its last bits depend on
shapes and threads. So it only proposes: a row is left out when its product, with every rounding error that either
computation may make, lies below a score that enough rows reach already. What a position means is left to `reader`.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedstore import vectors
from embedstore.measures.curves import above
from embedstore.measures.distribution import ScoreDistribution
from embedstore.searching.queries import opposed
from embedstore.settings import cores
from embedstore.storage.parts import Part
from embedstore.vectors import Mask, Positions, Vectors, rounding, top_k

_T = TypeVar("_T")
_R = TypeVar("_R")

FROM_QUERIES = 12
"""From so many queries on, `Products` is faster than a dot product for each."""
BLOCK_ROWS = 2_048
"""Rows of one matrix product: with the products they stay in the cache until the candidates are scored."""
STRIP_ROWS = 8_192
"""Rows that are scored between two looks at the best so far."""
TASK_ROWS = 65_536
"""Rows of one task at most: enough that its start costs nothing, few enough that all cores end together."""
_TASKS_PER_CORE = 3

_GATHERED = 1_024
_GATHER_BELOW = 0.35
"""Where a mask keeps a smaller share of a strip, its rows are picked out, some at a time; else all are scored."""


class Products:
    """Proposes candidates among rows no longer than `longest`, for queries that want their nearest `k`."""

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

        At most BLOCK_ROWS rows. `floors` are scores that `k` rows reach already, by query; -inf where none do yet.
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


class Executor(Protocol):
    """Runs a function over tasks; the order of results is the order of tasks."""

    local: bool
    """Whether tasks run in this process, and so may use what it has mapped."""

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterable[Any]:
        """Apply `function` to each task."""
        ...

    def fold(
        self, function: Callable[[Any], Any], combine: Callable[[Any, Any], Any], tasks: Iterable[Any], empty: Any
    ) -> Any:
        """Apply `function` to each task and `combine` the results, in any grouping: it is associative."""
        return functools.reduce(combine, self.map(function, tasks), empty)


class Threads(Executor):
    """The local executor: a pool of threads, one for each core, made when first used."""

    local = True

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(cores(), thread_name_prefix="embedstore-scan")

    def map(self, function: Callable[[_T], _R], tasks: Iterable[_T]) -> Iterator[_R]:
        """Apply `function` to each task on the pool."""
        return self._pool.map(function, tasks)


@dataclass(frozen=True)
class Task:
    """Some rows of one part, asked for their nearest `k` to each query."""

    part: Part
    first: int
    last: int
    position: int
    """Position of row `first` of the part among all rows of the store."""
    mask: Mask | None
    """Which of the rows `first` to `last` take part."""
    queries: Vectors
    k: int
    floors: NDArray[np.float32]
    """Scores that `k` rows of the store are known to reach, by query, -inf at first. Tasks in one process share it, so
    that one spares the others work; a copy of it elsewhere does no harm."""

    @property
    def size(self) -> int:
        """Bytes of its vectors."""
        return (self.last - self.first) * self.part.dim * 4


@dataclass(frozen=True)
class PartialScan:
    """The best rows seen so far for each query, with all ties of the last place, in no order."""

    k: int
    positions: list[Positions]
    scores: list[NDArray[np.float32]]


def scan_part(task: Task) -> PartialScan:
    """Find the nearest `k` rows of a task, with ties, for each of its queries.

    Rows below the task's floors are left out: `k` rows elsewhere are nearer.
    """
    best = _Best(task)
    if len(task.queries) >= FROM_QUERIES and np.isfinite(task.part.longest):
        _scan_products(task, best)
    elif task.mask is not None:
        kept = np.flatnonzero(task.mask)
        for number, line in enumerate(_scores_of(task, kept)):
            best.offer_line(number, line, kept, task.position)
    else:
        for start, rows in task.part.pieces(task.first, task.last, STRIP_ROWS):
            for number, line in enumerate(vectors.scores(task.queries, rows)):
                best.offer_line(number, line, None, task.position + start - task.first)
    return best.result()


def _scores_of(task: Task, kept: NDArray[np.intp]) -> Vectors:
    """Score the rows numbered `kept` of a task, ascending: float32 of shape (n_queries, len(kept)).

    They are copied out a few at a time, so that the copies stay in the cache.
    """
    found = np.empty((len(task.queries), len(kept)), np.float32)
    copies = np.empty((min(_GATHERED, len(kept)), task.part.dim), np.float32)
    done = 0
    for start, rows in task.part.pieces(task.first, task.last, STRIP_ROWS):
        begin = start - task.first
        end = int(np.searchsorted(kept, begin + len(rows)))
        here = kept[done:end] - begin
        if len(here) >= _GATHER_BELOW * len(rows):
            found[:, done:end] = vectors.scores(task.queries, rows)[:, here]
        else:
            for first in range(0, len(here), _GATHERED):
                some = here[first : first + _GATHERED]
                # With a mode other than "raise" NumPy writes straight to `out`.
                chosen = np.take(rows, some, axis=0, out=copies[: len(some)], mode="clip")
                vectors.scores(task.queries, chosen, found[:, done + first : done + first + len(some)])
        done = end
    return found


def _scan_products(task: Task, best: _Best) -> None:
    """Score what the matrix product of a block proposes."""
    products = Products(task.queries, task.part.longest, task.k)
    for start, rows in task.part.pieces(task.first, task.last, BLOCK_ROWS):
        position = np.arange(len(rows)) + (task.position + start - task.first)
        if task.mask is not None:
            kept = np.flatnonzero(task.mask[start - task.first : start - task.first + len(rows)])
            rows, position = rows[kept], position[kept]
        if len(rows):
            query, row, found = products.candidates(rows, task.floors)
            bounds = np.searchsorted(query, np.arange(len(task.queries) + 1))
            for number in np.unique(query):
                here = slice(bounds[number], bounds[number + 1])
                best.offer(int(number), position[row[here]], found[here])


class _Best:
    """The best rows of a task so far, for each query; raises the task's floors as they get better."""

    def __init__(self, task: Task) -> None:
        self._k = task.k
        self._floors = task.floors
        self._positions: list[list[Positions]] = [[] for _ in task.queries]
        self._scores: list[list[NDArray[np.float32]]] = [[] for _ in task.queries]

    def offer_line(self, number: int, line: NDArray[np.float32], kept: NDArray[np.intp] | None, position: int) -> None:
        """Take what is good enough of the scores of neighbouring rows, or of those numbered `kept` of them."""
        floor = self._floors[number]
        chosen = vectors.top_k(line, self._k) if np.isneginf(floor) else np.flatnonzero(line >= floor)
        if len(chosen):
            self.offer(number, position + (chosen if kept is None else kept[chosen]), line[chosen])

    def offer(self, number: int, positions: NDArray[np.intp], found: NDArray[np.float32]) -> None:
        """Take rows with their scores, and keep the best of all that were offered."""
        joined = np.concatenate([*self._scores[number], found])
        places = np.concatenate([*self._positions[number], positions.astype(np.int64)])
        best = vectors.top_k(joined, self._k)
        self._scores[number], self._positions[number] = [joined[best]], [places[best]]
        if len(best) >= self._k:
            # Another thread may write between the two looks: a floor too low costs time, not truth.
            self._floors[number] = max(self._floors[number], joined[best].min())

    def result(self) -> PartialScan:
        """Return what is left."""
        return PartialScan(
            self._k,
            [places[0] if places else np.empty(0, np.int64) for places in self._positions],
            [found[0] if found else np.empty(0, np.float32) for found in self._scores],
        )


def merge(left: PartialScan, right: PartialScan) -> PartialScan:
    """Combine two partial scans; associative and commutative up to the order inside."""
    positions, kept_scores = [], []
    for number in range(len(left.positions)):
        joined = np.concatenate([left.scores[number], right.scores[number]])
        best = vectors.top_k(joined, left.k)
        positions.append(np.concatenate([left.positions[number], right.positions[number]])[best])
        kept_scores.append(joined[best])
    return PartialScan(left.k, positions, kept_scores)


def nearest(
    parts: Sequence[Part], queries: Vectors, k: int, mask: Mask | None, executor: Executor, without: Container[str] = ()
) -> PartialScan:
    """Return the nearest `k` rows, with ties, for each query, but for the parts whose names are in `without`.

    Positions, as those of `mask`, count the rows of all parts in order.
    """
    empty = PartialScan(k, [np.empty(0, np.int64) for _ in queries], [np.empty(0, np.float32) for _ in queries])
    floors = np.full(len(queries), -np.inf, np.float32)
    pieces = strips(parts, task_rows(parts), mask)
    tasks = (Task(*piece, queries, k, floors) for piece in pieces if piece[0].name not in without)
    with one_blas_thread if len(queries) >= FROM_QUERIES else contextlib.nullcontext():
        found: PartialScan = executor.fold(scan_part, merge, tasks, empty)
        return found


def all_scores(parts: Sequence[Part], queries: Vectors, executor: Executor) -> Vectors:
    """Return the scores of all rows, float32 of shape (n_queries, n_rows), rows in the order of `parts`."""
    out = np.empty((len(queries), sum(part.rows for part in parts)), dtype=np.float32)
    tasks = list(_asked(parts, queries, None))
    for task, found in zip(tasks, executor.map(score_part, tasks), strict=True):
        out[:, task.position : task.position + task.last - task.first] = found
    return out


def score_part(task: Task) -> Vectors:
    """Score every row of a task, float32 of shape (n_queries, last - first)."""
    found = np.empty((len(task.queries), task.last - task.first), np.float32)
    for start, rows in task.part.pieces(task.first, task.last, STRIP_ROWS):
        begin = start - task.first
        vectors.scores(task.queries, rows, found[:, begin : begin + len(rows)])
    return found


def exceeding(
    parts: Sequence[Part], queries: Vectors, limit: float, mask: Mask | None, executor: Executor
) -> tuple[Positions, NDArray[np.float32]]:
    """Return the positions, ascending, and scores of the rows that exceed `limit`; only those leave a task.

    The score is that of the first query, minus that of the best of the others where there are any.
    """
    found = list(executor.map(functools.partial(exceeding_in, limit=limit), _asked(parts, queries, mask)))
    positions = [np.empty(0, np.int64), *(places for places, _ in found)]
    return np.concatenate(positions), np.concatenate([np.empty(0, np.float32), *(scores for _, scores in found)])


def count(parts: Sequence[Part], queries: Vectors, limit: float, mask: Mask | None, executor: Executor) -> int:
    """Return how many rows `exceeding` would."""
    tasks = _asked(parts, queries, mask)
    return int(executor.fold(functools.partial(count_in, limit=limit), operator.add, tasks, 0))


def counts(
    parts: Sequence[Part], queries: Vectors, limits: NDArray[np.float64], mask: Mask | None, executor: Executor
) -> NDArray[np.int64]:
    """Return how many rows exceed each of `limits`: a histogram, exact at its edges. Only counts leave a task."""
    tasks = _asked(parts, queries, mask)
    empty = np.zeros(len(limits), np.int64)
    found: NDArray[np.int64] = executor.fold(functools.partial(counts_in, limits=limits), operator.add, tasks, empty)
    return found


def picked_scores(parts: Sequence[Part], queries: Vectors, mask: Mask, executor: Executor) -> NDArray[np.float32]:
    """Return the scores of the rows that a mask picks, in the order of rows, as `exceeding` has them."""
    found = executor.map(opposed_scores, _asked(parts, queries, mask))
    return np.concatenate([np.empty(0, np.float32), *found])


def exceeding_in(task: Task, limit: float) -> tuple[Positions, NDArray[np.float32]]:
    """Return the rows of a task that exceed `limit`: see `exceeding`."""
    line = opposed_scores(task)
    chosen = np.flatnonzero(above(line, limit))
    kept = chosen if task.mask is None else np.flatnonzero(task.mask)[chosen]
    return task.position + kept.astype(np.int64), line[chosen]


def counts_in(task: Task, limits: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many rows of a task exceed each of `limits`."""
    return ScoreDistribution.of(opposed_scores(task)).matches(limits)


def opposed_scores(task: Task) -> NDArray[np.float32]:
    """Return the score of each row of a task that takes part: see `exceeding`."""
    lines = query_scores(task)
    return opposed(lines[0], lines[1:]) if len(lines) > 1 else lines[0]


def query_scores(task: Task) -> Vectors:
    """Score the rows of a task that take part: float32 of shape (n_queries, n_rows)."""
    return score_part(task) if task.mask is None else _scores_of(task, np.flatnonzero(task.mask))


def count_in(task: Task, limit: float) -> int:
    """Return how many rows of a task exceed `limit`."""
    return len(exceeding_in(task, limit)[0])


def _asked(parts: Sequence[Part], queries: Vectors, mask: Mask | None) -> Iterator[Task]:
    """Yield the tasks of queries that ask for no nearest."""
    return (Task(*piece, queries, 0, np.empty(0, np.float32)) for piece in strips(parts, task_rows(parts), mask))


def task_rows(parts: Sequence[Part]) -> int:
    """Return how many rows make one task: fewer where there are few, or a core would wait for the last large part."""
    share = sum(part.rows for part in parts) // (_TASKS_PER_CORE * cores())
    return min(TASK_ROWS, max(STRIP_ROWS, share - share % STRIP_ROWS))


def strips(
    parts: Sequence[Part], limit: int, mask: Mask | None = None
) -> Iterator[tuple[Part, int, int, int, Mask | None]]:
    """Cut parts into pieces of work, a part into equal ones; those of which the mask keeps nothing are left out.

    Each, of at most `limit` rows, is a part, its first and end row, the position of the first row in the store, and
    the mask of its rows.
    """
    position = 0
    for part in parts:
        size = -(-part.rows // max(1, -(-part.rows // limit)))
        for first in range(0, part.rows, max(1, size)):
            last = min(first + size, part.rows)
            kept = None if mask is None else mask[position + first : position + last]
            if kept is None or kept.any():
                yield part, first, last, position + first, kept
        position += part.rows
