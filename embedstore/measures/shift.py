"""Scores here, and what is kept of those that a threshold was calibrated on, there -> whether they differ.

Two tests share the error: the shape of the scores by the distance of Kolmogorov and Smirnov, which sees most in the
middle, and the share of the rows that match, which sees the tail where thresholds lie. Why they differ, and what to do
about it, is left to `explanations`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from embedstore.measures.distribution import ScoreDistribution
from embedstore.measures.rates import Floats
from embedstore.measures.score_summary import ScoreSummary
from embedstore.wording import counted

ERROR = 0.05
"""Chance that one of both tests tells a difference where there is none."""
OF_SHARE = 0.7
"""The part of the error that the test of the matched share has, which sees what precision depends on."""
SAME_SHAPE = 0.02
"""Distances up to this are taken for none, however sure: it matters only with more than 10,000 rows on both sides."""
SAME_SHARE = 0.05
"""Matched shares that differ by less than this part of the larger are taken for equal, however sure."""


@dataclass(frozen=True)
class Shift:
    """How the scores of some rows, here, differ from those of the rows that a threshold was calibrated on, there."""

    distance: float
    """Kolmogorov and Smirnov's: the largest difference of the two cumulative shares, 0 (equal) to 1."""
    critical: float
    """A larger distance happens by chance in fewer than three tenths of `error` of the cases."""
    median_shift: float
    """Median here minus median there; of an even number of rows the lower one."""
    expected_share: float
    """Share of the rows that matched there."""
    seen_share: float
    """Share of the rows that match here."""
    share_p: float
    """Chance of shares that differ as much or more where nothing has changed (Fisher's test, mid-p)."""
    unseen: tuple[float, float]
    """Shares between these would not have been told from `expected_share`, with so many rows."""
    n_there: int
    n_here: int
    error: float = ERROR

    @property
    def shape_differs(self) -> bool:
        """Whether the distance is beyond chance, and more than 0.02."""
        return self.distance > max(self.critical, SAME_SHAPE)

    @property
    def share_differs(self) -> bool:
        """Whether the matched share differs beyond chance, and by more than a twentieth."""
        return self.share_p < OF_SHARE * self.error and _is_apart(self.expected_share, self.seen_share)

    @property
    def differs(self) -> bool:
        """Whether either test tells a difference."""
        return self.shape_differs or self.share_differs

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**dataclasses.asdict(self), "unseen": list(self.unseen), "differs": self.differs}

    def __str__(self) -> str:
        rows = f"{counted(self.n_there, 'row')} of the calibration"
        expected = f"{percent(self.expected_share)} did there"
        seen = f"{percent(self.seen_share)} of the {counted(self.n_here, 'row')} match, {expected}"
        if not self.differs:
            low, high = self.unseen
            told = [f"less than {percent(low)}"] if low > 0 else []
            told += [f"more than {percent(high)}"] if high < 1 else []
            also = f" ({' or '.join(told)} would be told)" if told else ""
            return f"The scores are distributed as on the {rows}, as far as so many can tell: {seen}{also}."
        if self.share_differs:
            seen += f" (by chance in {self.share_p:.1g} of cases)" if self.share_p > 1e-6 else " (not by chance)"
        if self.shape_differs:
            side = "lower" if self.median_shift < 0 else "higher"
            seen += f"; the distance is {self.distance:.2f} of 1, the median {abs(self.median_shift):.4f} {side}"
        return f"The scores differ from those of the {rows}: {seen}."


def shift_of(scores: ArrayLike, there: ScoreSummary, threshold: float, error: float = ERROR) -> Shift:
    """Compare scores, shape (n,), with the summary of those that `threshold` was calibrated on.

    Of `error` seven tenths go to the test of the share. Where the calibration's rows have weights, they count as many
    as they are worth. Raises InputError for scores that are none.
    """
    here = ScoreDistribution.of(scores)
    n, matches = len(here), here.matches(threshold)
    size = max(1, round(there.size))
    hits = round(there.matched_share * size)
    return Shift(
        distance=distance(here.scores.astype(np.float64), there.knots, there.mass, exact=there.whole),
        critical=critical_distance(n, there.size, (1 - OF_SHARE) * error),
        median_shift=float(here.scores[(n - 1) // 2]) - there.quantile(0.5),
        expected_share=there.matched_share,
        seen_share=matches / n,
        share_p=same_share_p(hits, size, matches, n),
        unseen=_unseen(there.matched_share, size, n, OF_SHARE * error),
        n_there=there.n,
        n_here=n,
        error=error,
    )


def distance(scores: Floats, knots: Floats, mass: Floats, exact: bool = False) -> float:
    """Return the largest difference of two cumulative shares: of ascending scores, and of `mass` at ascending `knots`.

    It is taken at the knots; with `exact`, where all the mass of a knot lies on it, also just below them, which makes
    it Kolmogorov and Smirnov's.
    """
    total = np.cumsum(mass)
    at_most = np.searchsorted(scores, knots, side="right") / len(scores)
    below = np.searchsorted(scores, knots, side="left") / len(scores)
    before = np.concatenate([[0.0], total[:-1]])
    lower = before - below if exact else before[:1] - below[:1]
    return float(max(np.abs(total - at_most).max(), np.abs(lower).max()))


def critical_distance(n: float, m: float, error: float) -> float:
    """Return the distance that samples of n and of m rows of one source exceed with chance `error`.

    Smirnov's (1939) for large samples, with the correction of Stephens (1970) for small ones.
    """
    from scipy.special import kolmogi  # scipy costs a fifth of a second to import

    root = float(np.sqrt(n * m / (n + m)))
    return float(kolmogi(error)) / (root + 0.12 + 0.11 / root)


def same_share_p(hits: int, n: int, other_hits: int, m: int) -> float:
    """Return the two-sided mid-p value of Fisher's exact test: that two shares, of n and of m, are of one source.

    Twice the smaller tail of the hypergeometric distribution, with half of what was seen itself (Lancaster 1961).
    """
    chances, first = _hypergeometric(hits + other_hits, n, m)
    place = hits - first
    half = chances[place] / 2
    return float(min(1.0, 2 * min(chances[:place].sum() + half, chances[place + 1 :].sum() + half)))


def _hypergeometric(hits: int, n: int, m: int) -> tuple[Floats, int]:
    """Return the chances of how many of all `hits` lie among the first n of n + m, and the number of the first."""
    from scipy.special import gammaln  # as above

    low, high = max(0, hits - m), min(n, hits)
    k = np.arange(low, high + 1, dtype=np.float64)
    logs = -(gammaln(k + 1) + gammaln(n - k + 1) + gammaln(hits - k + 1) + gammaln(m - hits + k + 1))
    chances: Any = np.exp(logs - logs.max())
    return chances / chances.sum(), low


def _is_apart(share: float, other: float) -> bool:
    """Say whether two shares differ by more than a twentieth of the larger."""
    return abs(share - other) > SAME_SHARE * max(share, other)


def _unseen(share: float, n: int, m: int, error: float) -> tuple[float, float]:
    """Return the lowest and the highest share of m rows that are not told from a share of n."""
    hits, near = round(share * n), min(m, round(share * m))

    def told(matches: int) -> bool:
        return _is_apart(share, matches / m) and same_share_p(hits, n, matches, m) < error

    def last(inside: int, outside: int) -> int:
        while abs(outside - inside) > 1:
            middle = (inside + outside) // 2
            inside, outside = (inside, middle) if told(middle) else (middle, outside)
        return inside

    return last(near, -1) / m, last(near, m + 1) / m


def percent(share: float) -> str:
    """Return a share in percent, with a decimal, or with two digits that say something where it is small."""
    digits = f"{100 * share:.2g}" if 5e-7 < share < 0.01 else f"{100 * share:.1f}"
    return f"{digits}%"
