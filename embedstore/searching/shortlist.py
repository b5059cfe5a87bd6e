"""Index candidates -> the exact nearest rows, proven, by the same scores and the same order as a scan.

A row can be among the nearest `k` only if the index's score of it comes within the index's slack of a score that `k`
rows are sure to reach. Candidates are asked for until no such row can be missing, and scored from the part itself.
Where that takes too many, the answer is None and the caller scans.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from embedstore import vectors
from embedstore.searching import scan
from embedstore.searching.index import PartIndex
from embedstore.searching.scan import TASK_ROWS, Executor, PartialScan
from embedstore.storage.parts import Part
from embedstore.vectors import Mask, Vectors

SPARE = 16
"""Candidates beyond `k` that are asked for at first; with the slack of fp16 a few are needed."""

WIDEST = 4_096
"""Candidates of one piece beyond which a scan is faster."""


@dataclass(frozen=True)
class _Piece:
    """Rows of a part, and what its index proposes among them."""

    part: Part
    index: PartIndex
    first: int
    last: int
    position: int
    mask: Mask | None
    asked: int = 0
    rows: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))


def nearest(
    parts: Sequence[Part],
    indexes: Mapping[str, PartIndex],
    query: Vectors,
    k: int,
    mask: Mask | None,
    executor: Executor,
) -> PartialScan | None:
    """Return the nearest `k` rows with ties, the same as `scan.nearest` to the bit, or None if too many come close.

    Parameters
    ----------
    parts : sequence of Part
    indexes : mapping of a part's name to its PartIndex
        Of a kind with a known error. Parts without one are scanned.
    query : ndarray of shape (1, dim), float32
    k : int
    mask : ndarray of bool of shape (n_rows,), or None
    executor : Executor
    """
    length = float(vectors.norms(query)[0]) * (1 + 1e-9)
    pieces = _pieces(parts, indexes, mask)
    wanted, limit = k + SPARE, -np.inf
    short = list(range(len(pieces)))
    while short:
        if wanted > WIDEST + SPARE:
            return None
        asked = executor.map(functools.partial(_ask, query=query, number=wanted), [pieces[n] for n in short])
        for number, piece in zip(short, asked, strict=True):
            pieces[number] = piece
        limit = _sure(pieces, k, length)
        short = [n for n, piece in enumerate(pieces) if not _complete(piece, limit, length)]
        wanted *= 4
    found = _scored(pieces, query, k, limit, length)
    return scan.merge(found, _scanned(parts, indexes, query, k, mask, executor))


def candidates(
    parts: Sequence[Part],
    indexes: Mapping[str, PartIndex],
    query: Vectors,
    k: int,
    mask: Mask | None,
    executor: Executor,
) -> PartialScan:
    """Return the nearest of ten times `k` rows that each index proposes: exact scores, but rows may be missing."""
    asked = executor.map(
        functools.partial(_ask, query=query, number=10 * k), _pieces(parts, indexes, mask, whole=True)
    )
    found = _scored(list(asked), query, k, -np.inf, None)
    return scan.merge(found, _scanned(parts, indexes, query, k, mask, executor))


def _ask(piece: _Piece, query: Vectors, number: int) -> _Piece:
    """Return a piece with its `number` nearest rows by the index."""
    rows, scores = piece.index.nearest(query, number, piece.first, piece.last, piece.mask)
    return replace(piece, asked=number, rows=rows, scores=scores)


def _scanned(
    parts: Sequence[Part],
    indexes: Mapping[str, PartIndex],
    query: Vectors,
    k: int,
    mask: Mask | None,
    executor: Executor,
) -> PartialScan:
    """Scan the parts that have no index; positions count the rows of all parts."""
    starts = np.cumsum([0, *(part.rows for part in parts)])
    others = [number for number, part in enumerate(parts) if part.name not in indexes]
    rest = [parts[number] for number in others]
    kept = None
    if mask is not None:
        kept = np.concatenate([mask[:0], *(mask[starts[n] : starts[n + 1]] for n in others)])
    found = scan.nearest(rest, query, k, kept, executor)
    ends = np.cumsum([part.rows for part in rest])
    shifts = starts[others] - (ends - [part.rows for part in rest]) if others else ends
    positions = [places + shifts[np.searchsorted(ends, places, side="right")] for places in found.positions]
    return scan.PartialScan(k, positions if others else found.positions, found.scores)


def _pieces(
    parts: Sequence[Part], indexes: Mapping[str, PartIndex], mask: Mask | None, whole: bool = False
) -> list[_Piece]:
    """Cut the parts that have an index into pieces of work."""
    limit = max((part.rows for part in parts), default=1) if whole else TASK_ROWS
    pieces = []
    for part, first, last, position in scan.strips(parts, limit):
        kept = None if mask is None else mask[position : position + last - first]
        if part.name in indexes and (kept is None or kept.any()):
            pieces.append(_Piece(part, indexes[part.name], first, last, position, kept))
    return pieces


def _sure(pieces: Sequence[_Piece], k: int, length: float) -> float:
    """Return a score that `k` rows reach for certain; -inf when there are fewer."""
    lowest = np.concatenate(
        [np.empty(0), *(piece.scores.astype(np.float64) - piece.index.slack(length) for piece in pieces)]
    )
    if len(lowest) < k:
        return -np.inf
    return float(lowest[vectors.top_k(lowest, k)].min())


def _complete(piece: _Piece, limit: float, length: float) -> bool:
    """Tell whether no row that the index has not named can reach `limit`."""
    named_all = len(piece.rows) < piece.asked
    return named_all or float(piece.scores[-1]) + piece.index.slack(length) < limit


def _scored(
    pieces: Sequence[_Piece], query: Vectors, k: int, limit: float, length: float | None
) -> PartialScan:
    """Score what may reach `limit` from the parts."""
    positions, found = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for piece in pieces:
        slack = 0.0 if length is None else piece.index.slack(length)
        rows = piece.rows[piece.scores.astype(np.float64) + slack >= limit]
        if len(rows):
            found.append(vectors.scores(query, piece.part.take(rows))[0])
            positions.append(rows.astype(np.int64) + (piece.position - piece.first))
    scores, places = np.concatenate(found), np.concatenate(positions)
    best = vectors.top_k(scores, k)
    return PartialScan(k, [places[best]], [scores[best]])
