"""Scores and rows of one version that answer query vectors.

Turns vectors into scores of all rows, or the nearest rows, and rows into `Matches`. Each query's scores are kept, so
a further threshold costs no scan. Where a query's vector comes from is left to `queries`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore import vectors
from embedstore.errors import InputError
from embedstore.measures.thresholds import above
from embedstore.searching import scan, shortlist
from embedstore.searching.batched import FROM_QUERIES
from embedstore.searching.index import PartIndex, Shelf
from embedstore.searching.lines import Line, Lines
from embedstore.searching.matches import Matches
from embedstore.storage.parts import float32_array
from embedstore.storage.rows import Rows
from embedstore.vectors import Mask, Positions, Vectors

SCORES_BYTES = 64 * 2**20
"""How much memory the kept scores may take: 16 queries over a million rows, half of that when counted often."""


class Answers:
    """Answers from the rows of one snapshot.

    Parameters
    ----------
    rows : Rows
    executor : Executor
        Runs the scans.
    shelf : Shelf, optional
        The index files, used when that is faster; answers are the same.
    """

    def __init__(self, rows: Rows, executor: scan.Executor, shelf: Shelf | None = None) -> None:
        self._rows = rows
        self._executor = executor
        self._shelf = shelf
        self._lines = Lines(SCORES_BYTES)

    def scores(self, queries: Vectors) -> Vectors:
        """Return the scores of all rows, read-only float32 of shape (n_queries, n_rows)."""
        if len(queries) == 1:
            return self._line(queries).scores[np.newaxis]
        if queries.shape[0] * len(self._rows) * 4 > self._lines.limit:
            return self._scan(queries)
        keys = [query.tobytes() for query in queries]
        lines = [self._lines.get(key) for key in keys]
        missing = [number for number, line in enumerate(lines) if line is None]
        if missing:
            for number, found in zip(missing, self._scan(queries[missing]), strict=True):
                # A copy: a line that leaves must not be held by its neighbours.
                lines[number] = self._lines.put(keys[number], found.copy())
        stacked = (
            np.stack([line.scores for line in lines if line is not None]) if lines else self._scan(queries)
        )
        stacked.flags.writeable = False
        return stacked

    def _line(self, query: Vectors) -> Line:
        key = query.tobytes()
        line = self._lines.get(key)
        return self._lines.put(key, self._scan(query)[0]) if line is None else line

    def _scan(self, queries: Vectors) -> Vectors:
        found = scan.all_scores(self._rows.snapshot.parts, queries, self._executor)
        found.flags.writeable = False
        return found

    def nearest(
        self,
        queries: Vectors,
        labels: list[str],
        k: int,
        threshold: float | None,
        mask: Mask | None,
        approximate: bool = False,
    ) -> list[Matches]:
        """Return the nearest `k` rows to each query, of those that `mask` keeps and that exceed `threshold`.

        With `approximate` rows may be missing, as many as the index's recall says.
        """
        partial = self._candidates(queries, k, mask) if approximate else self._exact(queries, k, mask)
        found = []
        for label, positions, scores in zip(labels, partial.positions, partial.scores, strict=True):
            if threshold is not None:
                kept = above(scores, threshold)
                positions, scores = positions[kept], scores[kept]
            order = _ranked(self._rows, positions, scores)[:k]
            unread = _Unread(self._rows, positions[order], scores[order], ordered=True)
            found.append(Matches(unread, label, threshold))
        return found

    def _exact(self, queries: Vectors, k: int, mask: Mask | None) -> scan.PartialScan:
        """Answer from kept scores, else by the indexes, else by a scan: the bits are the same."""
        parts = self._rows.snapshot.parts
        if len(queries) == 1:
            line = self._lines.get(queries.tobytes())
            if line is not None:
                return _nearest_of(line.scores, k, mask)
        if len(queries) < FROM_QUERIES and k <= shortlist.WIDEST // 4:
            indexes = self._indexes()
            found = [
                shortlist.nearest(parts, indexes, queries[n : n + 1], k, mask, self._executor)
                if indexes
                else None
                for n in range(len(queries))
            ]
            if all(partial is not None for partial in found):
                return _side_by_side(k, [partial for partial in found if partial is not None])
        return scan.nearest(parts, queries, k, mask, self._executor)

    def _indexes(self) -> dict[str, PartIndex]:
        """Return the exact indexes by their parts' names, once it pays to open them."""
        parts = self._rows.snapshot.parts
        # What FAISS has mapped cannot travel to the processes of another executor.
        if self._shelf is None or not isinstance(self._executor, scan.Threads):
            return {}
        if not self._shelf.pays(parts, "fp16"):
            return {}
        return self._shelf.get_all(parts, "fp16", self._executor)

    def _candidates(self, queries: Vectors, k: int, mask: Mask | None) -> scan.PartialScan:
        """Answer from an index that may miss rows."""
        parts, executor = self._rows.snapshot.parts, scan.Threads()
        for kind in ("ivf", "rabitq"):
            indexes = self._shelf.get_all(parts, kind, executor) if self._shelf is not None else {}
            if indexes:
                break
        else:
            raise InputError(
                "there is no approximate index; make one with `embedstore index STORE --kind ivf`"
            )
        return _side_by_side(
            k,
            [
                shortlist.candidates(parts, indexes, queries[n : n + 1], k, mask, executor)
                for n in range(len(queries))
            ],
        )

    def every(self, query: Vectors, label: str, threshold: float, mask: Mask | None) -> Matches:
        """Return all rows that exceed `threshold`, of those that `mask` keeps."""
        return self.exceeding(self._line(query).scores, label, threshold, mask)

    def exceeding(
        self, scores: NDArray[np.float32], label: str, threshold: float, mask: Mask | None
    ) -> Matches:
        """Return all rows whose score in `scores`, of shape (n_rows,), exceeds `threshold`."""
        matching = above(scores, threshold)
        positions = np.flatnonzero(matching if mask is None else matching & mask)
        found = scores[positions]
        return Matches(_Unread(self._rows, positions, found, ordered=False), label, threshold)

    def count(self, query: Vectors, threshold: float, mask: Mask | None) -> int:
        """Return how many rows exceed `threshold`, of those that `mask` keeps."""
        line = self._line(query)
        if mask is None:
            before = line.nbytes
            number = line.count_above(threshold)
            if line.nbytes != before:
                self._lines.trim()
            return number
        return int(np.count_nonzero(above(line.scores, threshold) & mask))


class _Unread:
    """Matches before their rows are read; put in order when first looked at, unless they are."""

    def __init__(
        self, rows: Rows, positions: Positions, scores: NDArray[np.float32], *, ordered: bool
    ) -> None:
        self._rows = rows
        self._positions = positions
        self._scores = scores
        self._ordered = ordered

    def __len__(self) -> int:
        return len(self._positions)

    def read(self, columns: Sequence[str] | None) -> pa.Table:
        if not self._ordered:
            order = _ranked(self._rows, self._positions, self._scores)
            self._positions, self._scores = self._positions[order], self._scores[order]
            self._ordered = True
        score = float32_array(self._scores)
        if columns is not None and list(columns) == ["score"]:
            return pa.table([score], names=["score"])
        table = self._rows.take(self._positions, columns)
        return table.add_column(1, "score", score) if columns is None else table


def _ranked(rows: Rows, positions: Positions, scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the total order of rows: score descending, then id ascending. Ids are read where scores tie only."""
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    same = descending[1:] == descending[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False)) if len(scores) else order
    if len(tied):
        ids = rows.ids(positions[order[tied]])
        order[tied] = order[tied][vectors.total_order(descending[tied], ids)]
    return order


def _side_by_side(k: int, found: list[scan.PartialScan]) -> scan.PartialScan:
    """Return the answers to single queries as one."""
    return scan.PartialScan(
        k,
        [positions for partial in found for positions in partial.positions],
        [scores for partial in found for scores in partial.scores],
    )


def _nearest_of(line: NDArray[Any], k: int, mask: Mask | None) -> scan.PartialScan:
    """Return the nearest `k` rows, with ties, by scores that are known."""
    kept = None if mask is None else np.flatnonzero(mask)
    within = line if kept is None else line[kept]
    best = vectors.top_k(within, k)
    positions = best if kept is None else kept[best]
    return scan.PartialScan(k, [positions.astype(np.int64)], [within[best]])
