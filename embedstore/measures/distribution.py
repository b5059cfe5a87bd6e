"""Scores without labels -> counts and shares at any threshold, and where to look first: the noise floor, a gap.

What can be known before anybody labels. The suggestions here are guesses to start from; a measured threshold comes
from `calibration`, and whether one is still at home among other scores is said by `shift`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError
from embedstore.measures.curves import as_thresholds, floors, midway
from embedstore.measures.rates import Floats, Ints
from embedstore.measures.samples import as_scores


@dataclass(frozen=True, eq=False)
class ScoreDistribution:
    """The scores of one query over all rows: ascending, with repeats."""

    scores: NDArray[np.floating[Any]]

    @classmethod
    def of(cls, scores: ArrayLike) -> ScoreDistribution:
        """Sort scores; raises InputError as `samples.as_scores` does."""
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

        Raises InputError where `matches` is negative.
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

    def noise_floor(self, nonsense: ArrayLike, share: float = 0.01) -> float:
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
                f"scores of nonsense queries: expected shape (n_queries, {len(self.scores)}), found {matrix.shape}"
            )
        allowed = int(share * len(self.scores))
        return max(ScoreDistribution.of(row).threshold_for(allowed) for row in matrix)


@dataclass(frozen=True)
class Gap:
    """A gap between neighbouring scores near the top: its middle, the rows above it, the difference of the two scores.

    It is `prominence` times wider than gaps at that rank are on average; see `ScoreDistribution.gap`.
    """

    threshold: float
    matches: int
    width: float
    prominence: float
