"""Scores without labels in, counts and shares at any threshold out: what can be known before anybody labels.

The suggestions here are guesses to start from; a measured threshold comes from `calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError
from embedstore.measures.labels import as_scores
from embedstore.measures.rates import Floats, Ints
from embedstore.measures.thresholds import as_thresholds, floors, midway


@dataclass(frozen=True)
class Gap:
    """A gap between neighbouring scores near the top.

    Attributes
    ----------
    threshold : float
        The middle of the gap.
    matches : int
        Rows above it.
    width : float
        Difference of the two scores.
    prominence : float
        How many times wider than gaps at that rank are on average; see `ScoreDistribution.gap`.
    """

    threshold: float
    matches: int
    width: float
    prominence: float


@dataclass(frozen=True)
class NoiseFloor:
    """The score that queries which mean nothing reach here.

    Attributes
    ----------
    threshold : float
        No nonsense query matches more than `share` of the rows above it.
    share : float
    queries : int
        Number of nonsense queries.
    """

    threshold: float
    share: float
    queries: int


@dataclass(frozen=True, eq=False)
class ScoreDistribution:
    """The scores of one query over all rows.

    Attributes
    ----------
    scores : ndarray of shape (n,), floating
        Ascending, with repeats.
    """

    scores: NDArray[np.floating[Any]]

    @classmethod
    def of(cls, scores: ArrayLike) -> ScoreDistribution:
        """Sort scores; raises InputError as `labels.as_scores` does."""
        return cls(np.sort(as_scores(scores)))

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def matches(self, threshold: float) -> int: ...
    @overload
    def matches(self, threshold: NDArray[Any] | list[float]) -> Ints: ...
    def matches(self, threshold: float | ArrayLike) -> int | Ints:
        """Return how many rows have score > threshold, for one threshold or for each of many."""
        wanted = as_thresholds(threshold)
        flat = floors(np.atleast_1d(wanted), self.scores.dtype)
        counts: Ints = len(self.scores) - np.searchsorted(self.scores, flat, side="right")
        return counts if wanted.ndim else int(counts[0])

    @overload
    def percentile(self, threshold: float) -> float: ...
    @overload
    def percentile(self, threshold: NDArray[Any] | list[float]) -> Floats: ...
    def percentile(self, threshold: float | ArrayLike) -> float | Floats:
        """Return the percentage of rows, 0 to 100, that do not match: that score at most `threshold`."""
        counts = self.matches(threshold)  # type: ignore[arg-type]  # either overload will do
        return 100 * (1 - counts / len(self.scores))

    def threshold_for(self, matches: int) -> float:
        """Return the lowest threshold that at most `matches` rows exceed, midway between two scores.

        Raises
        ------
        InputError
            `matches` is negative.
        """
        if matches < 0:
            raise InputError(f"the number of matches cannot be negative, found {matches}")
        distinct, first = np.unique(self.scores, return_index=True)
        cuts = np.append(first, len(self.scores))  # rows below each cut
        cut = int(np.searchsorted(cuts, len(self.scores) - matches))
        return midway(distinct, cut)

    def quantile(self, shares: ArrayLike) -> Floats:
        """Return scores at shares of the rows, 0 the smallest and 1 the largest; linear between rows."""
        return np.quantile(self.scores.astype(np.float64), np.asarray(shares, dtype=np.float64))

    def histogram(self, bins: int = 50, span: tuple[float, float] | None = None) -> tuple[Ints, Floats]:
        """Return counts of shape (bins,) and edges of shape (bins + 1,), as `numpy.histogram` does."""
        counts, edges = np.histogram(self.scores.astype(np.float64), bins=bins, range=span)
        return counts.astype(np.int64), edges

    def gap(self, top: float = 0.5, fewest: int = 1) -> Gap | None:
        """Suggest a threshold in the most prominent gap near the top; None when all scores are equal.

        Towards the top scores lie farther apart anyhow: with a tail that falls exponentially the gap below
        the k-th largest score is 1/k of the mean gap wide on average (Rényi 1953). So each gap is weighed by
        its rank k, and the largest of these is taken. `prominence` is that over their mean; below about 8
        among a thousand rows it is no more than chance.

        Parameters
        ----------
        top : float
            Share of the rows, from the top, among which to look.
        fewest : int
            The gap must have at least so many matches above it.
        """
        descending = self.scores[::-1].astype(np.float64)
        depth = min(len(descending) - 1, max(fewest, int(np.ceil(top * len(descending)))))
        ranks = np.arange(1, depth + 1)
        weighed = ranks * (descending[:depth] - descending[1 : depth + 1])
        if depth < fewest or not weighed[fewest - 1 :].any():
            return None
        place = fewest - 1 + int(np.argmax(weighed[fewest - 1 :]))
        pair = self.scores[::-1][place : place + 2][::-1]
        width = float(descending[place] - descending[place + 1])
        return Gap(midway(pair, 1), place + 1, width, float(weighed[place] / weighed.mean()))

    def noise_floor(self, nonsense: ArrayLike, share: float = 0.01) -> NoiseFloor:
        """Return the threshold that queries which mean nothing exceed on at most `share` of the rows each.

        Parameters
        ----------
        nonsense : array-like of shape (n_queries, n_rows)
            Scores of nonsense queries, such as random words, over the same rows.
        share : float
            In [0, 1).

        Raises
        ------
        InputError
            Another shape, values that are not finite, or `share` out of range.
        """
        if not 0 <= share < 1:
            raise InputError(f"share must be at least 0 and less than 1, found {share!r}")
        matrix = np.atleast_2d(np.asarray(nonsense))
        if matrix.ndim != 2 or matrix.shape[1] != len(self.scores) or len(matrix) == 0:
            raise InputError(
                f"scores of nonsense queries: expected shape (n_queries, {len(self.scores)}), "
                f"found {matrix.shape}"
            )
        allowed = int(share * len(self.scores))
        each = [ScoreDistribution.of(row).threshold_for(allowed) for row in matrix]
        return NoiseFloor(max(each), share, len(matrix))

    def summary(self) -> dict[str, Any]:
        """Return the number of rows and the 101 percentiles of the scores, as plain JSON values."""
        return {"n": len(self.scores), "percentiles": self.quantile(np.linspace(0, 1, 101)).tolist()}
