"""Index candidates -> the exact nearest rows, proven, by the same scores and the same order as a scan.

A row can be among the nearest `k` only if the index's score of it comes within the index's slack of a score that `k`
rows reach: the best candidates are scored from the parts themselves to know one. Candidates are asked for until no such
row can be missing, and all that may be among the nearest are scored. Where that takes too many, the answer is None and
the caller asks another index, or scans.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from embedstore import vectors
from embedstore.searching import scan
from embedstore.searching.index import RECALL_AT, Asked, PartIndex, Question
from embedstore.searching.scan import TASK_ROWS, Executor, PartialScan
from embedstore.storage.parts import Part
from embedstore.storage.rows import Rows
from embedstore.vectors import Mask, Vectors, normalise

_QUERIES = 50
SPARE = 16
"""Candidates of each piece beyond `k` that are asked for at first."""
WIDEST = 4_096
"""Candidates of one piece beyond which a scan is faster."""


@dataclass(frozen=True)
class _Piece:
    """Rows of a part, and the nearest of them by its index."""

    part: Part
    first: int
    last: int
    position: int
    mask: Mask | None
    index: PartIndex
    question: Question
    asked: int = 0
    rows: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    scores: NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))

    def ask(self, number: int) -> _Piece:
        """Return this piece with its `number` nearest rows by the index."""
        rows, scores = self.index.nearest(self.question, number, self.first, self.last, self.mask)
        return replace(self, asked=number, rows=rows, scores=scores)

    @property
    def slack(self) -> float:
        """How far the index's score of a row may be from the row's own."""
        return self.question.slack

    def is_complete(self, limit: float) -> bool:
        """Tell whether no row that the index has not named can reach `limit`."""
        return len(self.rows) < self.asked or float(self.scores[-1]) + self.slack < limit


@dataclass(frozen=True)
class Shortlist:
    """Searches the rows that `mask` keeps by the indexes of their parts, by name; parts without one are scanned.

    A query has the shape (1, dim). Positions count the rows of all parts in order.
    """

    parts: Sequence[Part]
    indexes: Mapping[str, PartIndex]
    mask: Mask | None
    executor: Executor

    def nearest(self, query: Vectors, k: int) -> PartialScan | None:
        """Return the nearest `k` rows with ties, as `scan.nearest` to the bit, or None if too many come close.

        The indexes are of a kind with a known error.
        """
        pieces = self._pieces(query, TASK_ROWS)
        wanted, limit = k + SPARE, -np.inf
        short = list(range(len(pieces)))
        while short:
            if wanted > WIDEST + SPARE:
                return None
            ask = functools.partial(_Piece.ask, number=wanted)
            for number, piece in zip(short, self.executor.map(ask, [pieces[n] for n in short]), strict=True):
                pieces[number] = piece
            limit = max(limit, _reached(pieces, query, k))
            short = [n for n, piece in enumerate(pieces) if not piece.is_complete(limit)]
            wanted *= 4
        return self._with_scanned(_scored(pieces, query, k, limit), query)

    def candidates(self, query: Vectors, k: int) -> PartialScan:
        """Return the nearest of ten times `k` rows that each index proposes: exact scores, but rows may be missing."""
        ask = functools.partial(_Piece.ask, number=10 * k)
        whole = max((part.rows for part in self.parts), default=1)
        asked = list(self.executor.map(ask, self._pieces(query, whole)))
        return self._with_scanned(_scored(asked, query, k, -np.inf), query)

    def _pieces(self, query: Vectors, limit: int) -> list[_Piece]:
        """Cut the parts that have an index into pieces of at most `limit` rows."""
        asked = {kind: Asked.of(query, kind) for kind in {index.note.kind for index in self.indexes.values()}}
        return [
            _Piece(*piece, index, index.question(asked[index.note.kind]))
            for piece in scan.strips(self.parts, limit, self.mask)
            if (index := self.indexes.get(piece[0].name)) is not None
        ]

    def _with_scanned(self, found: PartialScan, query: Vectors) -> PartialScan:
        """Join in the nearest rows of the parts that have no index."""
        return scan.merge(found, scan.nearest(self.parts, query, found.k, self.mask, self.executor, self.indexes))


def _reached(pieces: Sequence[_Piece], query: Vectors, k: int) -> float:
    """Return a score that `k` rows reach: the k-th best of those that look best; -inf when there are fewer."""
    proposed = np.concatenate([np.empty(0), *(piece.scores for piece in pieces)])
    if len(proposed) < k:
        return -np.inf
    likely = float(proposed[vectors.top_k(proposed, min(k + SPARE, len(proposed)))].min())
    taken = [piece.part.take(piece.rows[piece.scores >= likely]) for piece in pieces if (piece.scores >= likely).any()]
    scores = vectors.scores(query, np.concatenate(taken))[0]
    reached = scores[vectors.top_k(scores, k)]
    return -np.inf if np.isnan(reached).any() else float(reached.min())


def _scored(pieces: Sequence[_Piece], query: Vectors, k: int, limit: float) -> PartialScan:
    """Score what may reach `limit` from the parts."""
    positions, found = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for piece in pieces:
        rows = piece.rows[piece.scores + piece.slack >= limit]
        if len(rows):
            found.append(vectors.scores(query, piece.part.take(rows))[0])
            positions.append(rows.astype(np.int64) + (piece.position - piece.first))
    scores, places = np.concatenate(found), np.concatenate(positions)
    best = vectors.top_k(scores, k)
    return PartialScan(k, [places[best]], [scores[best]])


def recall(rows: Rows, indexes: Mapping[str, PartIndex], executor: Executor) -> dict[str, float]:
    """Measure the share of the true nearest `RECALL_AT` rows that indexes find, for rows and for texts as queries."""
    if not len(rows):
        return {}
    chosen = np.linspace(0, len(rows) - 1, min(_QUERIES, len(rows))).astype(np.int64)
    near = rows.vectors(chosen)
    # A text lies far from all pictures, but not in any direction: towards their middle, and a little to one of them.
    towards = near.mean(axis=0) + 0.1 * near
    noise = np.random.default_rng(0).standard_normal(near.shape) / np.sqrt(near.shape[1])
    texts = normalise((0.1 * towards + noise).astype(np.float32))
    shortlist = Shortlist(rows.snapshot.parts, indexes, None, executor)

    def share_found(queries: Vectors) -> float:
        exact = scan.nearest(shortlist.parts, queries, RECALL_AT, None, executor).positions
        found = [shortlist.candidates(query, RECALL_AT).positions[0] for query in queries[:, np.newaxis]]
        return sum(len(np.intersect1d(*pair)) for pair in zip(exact, found, strict=True)) / sum(map(len, exact))

    return {"rows of the store": share_found(near), "random texts": share_found(texts)}
