"""The one seam between a query and the rows: map over parts, then merge.

`scan_part` looks at one part; `merge` is associative and commutative, so parts may be scanned by threads here or by
processes elsewhere, in any order, and the answer is the same to the bit. What a position means is left to `store`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedstore import vectors
from embedstore.machine import cores
from embedstore.searching.batched import BLOCK_ROWS, FROM_QUERIES, Products, one_blas_thread
from embedstore.storage.parts import Part
from embedstore.vectors import Mask, Positions, Vectors

_T = TypeVar("_T")
_R = TypeVar("_R")

STRIP_ROWS = 8192
"""Rows that are scored between two looks at the best so far."""

TASK_ROWS = 65_536
"""Rows of one task: enough that its start costs nothing, few enough that all cores end together."""

_GATHERED = 1024
_GATHER_BELOW = 0.35
"""Where a mask keeps a smaller share of a strip, its rows are picked out; else all are scored."""


class Executor(Protocol):
    """Runs a function over tasks; the order of results is the order of tasks."""

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterable[Any]:
        """Apply `function` to each task."""
        ...


class Threads:
    """The local executor: a pool of threads, one for each core, made when first used."""

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(cores(), thread_name_prefix="embedstore-scan")

    def map(self, function: Callable[[_T], _R], tasks: Iterable[_T]) -> Iterator[_R]:
        """Apply `function` to each task on the pool."""
        return self._pool.map(function, tasks)


@dataclass(frozen=True)
class Task:
    """Some rows of one part, asked for their nearest to each query.

    Attributes
    ----------
    part : Part
    first, last : int
        Rows `first` to `last` of the part.
    position : int
        Position of row `first` among all rows of the store.
    queries : ndarray of shape (n_queries, dim), float32
    k : int
    mask : ndarray of bool of shape (last - first,), or None
        Which rows take part.
    floors : ndarray of shape (n_queries,), float32
        Scores that `k` rows of the store are known to reach, -inf at first. Tasks in one process share it, so that
        one spares the others work; a copy of it elsewhere does no harm.
    """

    part: Part
    first: int
    last: int
    position: int
    queries: Vectors
    k: int
    mask: Mask | None
    floors: NDArray[np.float32]


@dataclass(frozen=True)
class PartialScan:
    """The best rows seen so far for each query, with all ties of the last place, in no order.

    Attributes
    ----------
    k : int
    positions : list of ndarray of int64
    scores : list of ndarray of float32
    """

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
    else:
        for start, rows in task.part.pieces(task.first, task.last, STRIP_ROWS):
            _scan_strip(task, start, rows, best)
    return best.result()


def _scan_strip(task: Task, start: int, rows: Vectors, best: _Best) -> None:
    """Score a strip of rows."""
    position = task.position + start - task.first
    if task.mask is None:
        found = vectors.scores(task.queries, rows)
        for number, line in enumerate(found):
            best.offer_line(number, line, None, position)
        return
    mask = task.mask[start - task.first : start - task.first + len(rows)]
    kept = np.flatnonzero(mask)
    if not len(kept):
        return
    if len(kept) < _GATHER_BELOW * len(rows):
        found = _scores_of(task.queries, rows, kept)
    else:
        found = vectors.scores(task.queries, rows)[:, kept]
    for number, line in enumerate(found):
        best.offer_line(number, line, kept, position)


def _scores_of(queries: Vectors, rows: Vectors, kept: NDArray[np.intp]) -> Vectors:
    """Score the rows numbered `kept`, copied out a few at a time, so that the copies stay in the cache."""
    found = np.empty((len(queries), len(kept)), np.float32)
    for start in range(0, len(kept), _GATHERED):
        chosen = kept[start : start + _GATHERED]
        vectors.scores(queries, rows[chosen], found[:, start : start + len(chosen)])
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

    def offer_line(
        self, number: int, line: NDArray[np.float32], kept: NDArray[np.intp] | None, position: int
    ) -> None:
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
    parts: Sequence[Part], queries: Vectors, k: int, mask: Mask | None, executor: Executor
) -> PartialScan:
    """Return the nearest `k` rows, with ties, for each query.

    Parameters
    ----------
    parts : sequence of Part
    queries : ndarray of shape (n_queries, dim), float32
    k : int
    mask : ndarray of bool of shape (n_rows,), or None
    executor : Executor

    Returns
    -------
    PartialScan
        Positions count the rows of `parts` in order.
    """
    empty = PartialScan(
        k, [np.empty(0, np.int64) for _ in queries], [np.empty(0, np.float32) for _ in queries]
    )
    floors = np.full(len(queries), -np.inf, np.float32)
    tasks = (
        Task(part, first, last, position, queries, k, _cut(mask, position, last - first), floors)
        for part, first, last, position in strips(parts, TASK_ROWS)
        if mask is None or mask[position : position + last - first].any()
    )
    with one_blas_thread if len(queries) >= FROM_QUERIES else contextlib.nullcontext():
        return functools.reduce(merge, executor.map(scan_part, tasks), empty)


def _cut(mask: Mask | None, start: int, length: int) -> Mask | None:
    return None if mask is None else mask[start : start + length]


def all_scores(parts: Sequence[Part], queries: Vectors, executor: Executor) -> Vectors:
    """Return the scores of all rows, float32 of shape (n_queries, n_rows), rows in the order of `parts`."""
    out = np.empty((len(queries), sum(part.rows for part in parts)), dtype=np.float32)
    nothing = np.empty(0, np.float32)
    tasks = [
        Task(part, first, last, position, queries, 0, None, nothing)
        for part, first, last, position in strips(parts, TASK_ROWS)
    ]
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


def strips(parts: Sequence[Part], limit: int) -> Iterator[tuple[Part, int, int, int]]:
    """Cut parts into pieces of work: part, first row, end row, position of the first row in the store."""
    position = 0
    for part in parts:
        for first in range(0, part.rows, limit):
            last = min(first + limit, part.rows)
            yield part, first, last, position + first
        position += part.rows
