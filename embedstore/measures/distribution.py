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

_TOP, _SHALLOWEST = 0.05, 32
"""A gap is looked for in this share of the scores, from the top, and among so many at least."""
_FEWEST = 20


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

    def gap(self, error: float = 0.05) -> Gap | None:
        """Suggest a threshold in the gap near the top that is wider than chance makes one; None where none is.

        Parameters
        ----------
        error : float
            In (0, 1): about the chance of a gap where the scores fall as those of one source do.

        Notes
        -----
        Towards the top scores lie farther apart anyhow: with a tail that falls exponentially the gap below the k-th
        largest score, k times, is exponentially distributed, of one mean and independently of the others (Rényi 1953).
        With other tails the mean changes slowly with k: as a power of k in the tail (Beirlant, Dierckx, Goegebeur and
        Matthys 1999), which is fitted to ranks from 8 downwards, to the logarithms, so that single gaps hardly count.
        A gap stands out that is more than ``log(k * h / error)`` times as wide as that mean, h the sum of 1/k over
        the ranks that are looked at: so the chances ``error / (k * h)`` of all ranks sum up to `error`. The more rows,
        the wider it must be. Looked at are 5 % of the distinct scores, at least 32; of several gaps that stand out,
        the one is taken that exceeds its limit by most. A tail that is much heavier than an exponential one may have a
        gap by chance twice as often. Of fewer than 20 distinct scores no gap is told.
        """
        descending = np.unique(self.scores)[::-1].astype(np.float64)
        if len(descending) < _FEWEST:
            return None
        ranks = np.arange(1, len(descending))
        weighed = ranks * (descending[:-1] - descending[1:])
        depth = min(len(descending) // 2, max(_SHALLOWEST, int(_TOP * len(descending))))
        times = weighed[:depth] / _trend(weighed, max(2 * depth, 2 * _SHALLOWEST))[:depth]
        limits = np.log(ranks[:depth] * (1 / ranks[:depth]).sum() / error)
        place = int(np.argmax(times - limits))
        if times[place] <= limits[place]:
            return None
        upper = self.scores.dtype.type(descending[place])
        below = int(np.searchsorted(self.scores, upper))
        width = float(descending[place] - descending[place + 1])
        threshold = midway(self.scores[below - 1 : below + 1], 1)
        return Gap(threshold, len(self) - below, width, float(times[place]), float(limits[place]))

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


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """How many of `rows` rows exceed each of some ascending, distinct `thresholds`; what lies between is not known."""

    thresholds: Floats
    above: Ints
    rows: int

    def __len__(self) -> int:
        return self.rows

    def matches(self, threshold: ArrayLike) -> Ints:
        """Return how many rows have score > threshold; InputError where that was not counted at one of them."""
        wanted = as_thresholds(threshold)
        places = np.searchsorted(self.thresholds, wanted).clip(max=len(self.thresholds) - 1)
        uncounted = wanted[self.thresholds[places] != wanted]
        if uncounted.size:
            raise InputError(
                f"how many rows exceed {uncounted.flat[0]} was not counted: it is none of the "
                f"{len(self.thresholds):,} thresholds of this sweep; name it among them"
            )
        counts: Ints = self.above[places]
        return counts

    def percentile(self, threshold: ArrayLike) -> Floats:
        """Return the percentage of rows, 0 to 100, that score at most `threshold`; see `matches`."""
        return 100 * (1 - self.matches(threshold) / self.rows)


@dataclass(frozen=True)
class Gap:
    """A gap between neighbouring scores near the top that is wider than chance makes one.

    Its middle, the rows above it, the difference of the two scores; it is `prominence` times as wide as a gap at its
    rank is on average, more than the `limit` up to which that is chance: see `ScoreDistribution.gap`.
    """

    threshold: float
    matches: int
    width: float
    prominence: float
    limit: float


def _trend(every: Floats, depth: int) -> Floats:
    """Return the mean of the weighed gaps that a power of the rank fits, at the ranks down to `depth`.

    It is fitted from rank 8 downwards. On the way up a mean that grows is believed, with half a standard error more;
    one that shrinks is believed by half where the fit is to a small share of the rows, and less to a larger.
    """
    weighed = every[:depth]
    first = min(8, len(weighed) // 4)
    ranks = np.log(np.arange(1, len(weighed) + 1))
    used = ranks[first:]
    # The logarithm of an exponential variable of mean 1 is -0.577 on average, with a variance of pi ** 2 / 6.
    logs = np.log(np.maximum(weighed[first:], np.finfo(np.float64).tiny)) + np.euler_gamma
    middle, spread = used.mean(), np.square(used - used.mean()).sum()
    slope = float((logs * (used - middle)).sum() / spread)
    believed = max(0.0, 0.5 - len(weighed) / len(every))
    upwards = min(slope, believed * slope) - np.pi / np.sqrt(6 * spread) / 2
    way = ranks - middle
    trend: Floats = np.exp(logs.mean() + np.where(way < 0, upwards, max(slope, 0.0)) * way)
    return trend
