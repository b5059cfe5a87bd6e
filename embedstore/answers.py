"""Scores and rows of one version that answer query vectors.

Turns vectors into scores of all rows, or the nearest rows, and rows into `Matches`. Each query's scores are kept, so
a further threshold costs no scan. Where a query's vector comes from is left to `queries`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore import scan
from embedstore.matches import Matches
from embedstore.rows import Rows
from embedstore.thresholds import above
from embedstore.vectors import Vectors, total_order

SCORES_BYTES = 256 * 2**20
"""How much memory the kept scores may take: 64 queries over a million rows."""


class Answers:
    """Answers from the rows of one snapshot.

    Parameters
    ----------
    rows : Rows
    executor : Executor
        Runs the scans.
    """

    def __init__(self, rows: Rows, executor: scan.Executor) -> None:
        self._rows = rows
        self._executor = executor
        self._lines: OrderedDict[bytes, Vectors] = OrderedDict()

    def scores(self, queries: Vectors) -> Vectors:
        """Return the scores of all rows, read-only float32 of shape (n_queries, n_rows)."""
        if len(queries) == 1:
            return self._line(queries)
        if queries.shape[0] * len(self._rows) * 4 > SCORES_BYTES:
            return self._scan(queries)
        keys = [query.tobytes() for query in queries]
        missing = [number for number, key in enumerate(keys) if key not in self._lines]
        if missing:
            for number, line in zip(missing, self._scan(queries[missing]), strict=True):
                self._keep(keys[number], line)
        found = np.stack([self._lines[key] for key in keys]) if keys else self._scan(queries)
        found.flags.writeable = False
        return found

    def _line(self, query: Vectors) -> Vectors:
        key = query.tobytes()
        line = self._lines.get(key)
        if line is None:
            line = self._scan(query)[0]
            self._keep(key, line)
        self._lines.move_to_end(key)
        return line[np.newaxis]

    def _scan(self, queries: Vectors) -> Vectors:
        found = scan.all_scores(self._rows.snapshot.parts, queries, self._executor)
        found.flags.writeable = False
        return found

    def _keep(self, key: bytes, line: Vectors) -> None:
        self._lines[key] = line
        while len(self._lines) > 1 and len(self._lines) * line.nbytes > SCORES_BYTES:
            self._lines.popitem(last=False)

    def nearest(
        self, queries: Vectors, labels: list[str], k: int, threshold: float | None, mask: scan.Mask | None
    ) -> list[Matches]:
        """Return the nearest `k` rows to each query, of those that `mask` keeps and that exceed `threshold`."""
        partial = scan.nearest(self._rows.snapshot.parts, queries, k, mask, self._executor)
        return [
            self._matches(label, positions, found, threshold, k)
            for label, positions, found in zip(labels, partial.positions, partial.scores, strict=True)
        ]

    def every(self, query: Vectors, label: str, threshold: float, mask: scan.Mask | None) -> Matches:
        """Return all rows that exceed `threshold`, of those that `mask` keeps."""
        found = self.scores(query)[0]
        matching = above(found, threshold)
        positions = np.flatnonzero(matching if mask is None else matching & mask)
        return self._matches(label, positions, found[positions], threshold, len(positions))

    def count(self, query: Vectors, threshold: float, mask: scan.Mask | None) -> int:
        """Return how many rows exceed `threshold`, of those that `mask` keeps."""
        matching = above(self.scores(query)[0], threshold)
        return int(np.count_nonzero(matching if mask is None else matching & mask))

    def _matches(
        self,
        label: str,
        positions: scan.Positions,
        found: np.ndarray[Any, Any],
        threshold: float | None,
        k: int,
    ) -> Matches:
        if threshold is not None:
            kept = above(found, threshold)
            positions, found = positions[kept], found[kept]
        table = self._rows.take(positions)
        order = total_order(found, table.column("id").to_numpy())[:k]
        table = table.take(pa.array(order)).add_column(1, "score", pa.array(found[order], pa.float32()))
        return Matches(table, label, threshold)
