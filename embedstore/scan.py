"""The one seam between a query and the rows: map over parts, then merge.

`scan_part` looks at one part; `merge` is associative and commutative, so parts may be scanned by threads here or by
processes elsewhere, in any order, and the answer is the same to the bit. What a position means is left to `store`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedstore import vectors
from embedstore.parts import Part
from embedstore.vectors import Vectors

Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]
_T = TypeVar("_T")
_R = TypeVar("_R")

STRIP_ROWS = 8192


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


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@dataclass(frozen=True)
class Task:
    """Some rows of one part, asked for their nearest to each query.

    Attributes
    ----------
    part : Part
    group, start, stop : int
        Rows `start` to `stop` of the part's row group number `group`.
    position : int
        Position of row `start` among all rows of the store.
    queries : ndarray of shape (n_queries, dim), float32
    k : int
    mask : ndarray of bool of shape (stop - start,), or None
        Which rows take part.
    """

    part: Part
    group: int
    start: int
    stop: int
    position: int
    queries: Vectors
    k: int
    mask: Mask | None


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
    """Find the nearest `k` rows of a task, with ties, for each of its queries."""
    rows = task.part.groups()[task.group][task.start : task.stop]
    kept = np.arange(len(rows))
    if task.mask is not None:
        kept = np.flatnonzero(task.mask)
        rows = rows[kept]
    found = vectors.scores(task.queries, rows)
    best = [vectors.top_k(line, task.k) for line in found]
    return PartialScan(
        task.k,
        [task.position + kept[chosen].astype(np.int64) for chosen in best],
        [line[chosen] for line, chosen in zip(found, best, strict=True)],
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
    tasks = (
        Task(
            part,
            group,
            start,
            stop,
            position,
            queries,
            k,
            mask[position : position + stop - start] if mask is not None else None,
        )
        for part, group, start, stop, position in strips(parts)
    )
    return functools.reduce(merge, executor.map(scan_part, tasks), empty)


def all_scores(parts: Sequence[Part], queries: Vectors, executor: Executor) -> Vectors:
    """Return the scores of all rows, float32 of shape (n_queries, n_rows), rows in the order of `parts`."""
    out = np.empty((len(queries), sum(part.rows for part in parts)), dtype=np.float32)

    def fill(strip: tuple[Part, int, int, int, int]) -> None:
        part, group, start, stop, position = strip
        vectors.scores(queries, part.groups()[group][start:stop], out[:, position : position + stop - start])

    for _ in executor.map(fill, strips(parts)):
        continue
    return out


def strips(parts: Sequence[Part]) -> Iterator[tuple[Part, int, int, int, int]]:
    """Cut parts into pieces of work: part, row group, first row, end row, position of the first row."""
    position = 0
    for part in parts:
        for number, group in enumerate(part.groups()):
            for start in range(0, len(group), STRIP_ROWS):
                stop = min(start + STRIP_ROWS, len(group))
                yield part, number, start, stop, position
                position += stop - start
