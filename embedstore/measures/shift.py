"""Scores here and a summary of the scores there in, how the two differ out: is a threshold still at home?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from embedstore.measures.distribution import ScoreDistribution

PRACTICAL = 0.1


@dataclass(frozen=True)
class Shift:
    """How the scores of some rows differ from those of the rows that a threshold was calibrated on.

    Attributes
    ----------
    distance : float
        Kolmogorov and Smirnov's: the largest difference of the two cumulative shares, 0 (equal) to 1, taken
        at the percentiles of the calibration (so at most 0.01 too small).
    critical : float
        Larger than this happens by chance in fewer than 5 % of cases.
    median_shift : float
        Median here minus median there.
    expected_share, seen_share : float
        Share of rows that matched there, and that match here.
    n_there, n_here : int
        Numbers of rows.
    """

    distance: float
    critical: float
    median_shift: float
    expected_share: float
    seen_share: float
    n_there: int
    n_here: int

    @property
    def differs(self) -> bool:
        """Whether the difference is beyond chance and larger than 0.1."""
        return self.distance > max(self.critical, PRACTICAL)

    def __str__(self) -> str:
        seen = f"{self.seen_share:.1%} of the {self.n_here} rows match, {self.expected_share:.1%} did there"
        if not self.differs:
            return f"The scores are distributed as on the {self.n_there} rows of the calibration: {seen}."
        side = "lower" if self.median_shift < 0 else "higher"
        return (
            f"The scores differ from those of the {self.n_there} rows of the calibration (distance "
            f"{self.distance:.2f} of 1, median {abs(self.median_shift):.4f} {side}): {seen}. "
            "The threshold may not fit here; label some of these rows and calibrate again."
        )


def distribution_shift(
    scores: ArrayLike, summary: Mapping[str, Any], threshold: float, expected_share: float
) -> Shift:
    """Compare scores with the summary that `ScoreDistribution.summary` made of others.

    The critical distance is that of the two-sample test of Smirnov (1939) at 5 %, for large samples.
    """
    here = ScoreDistribution.of(scores)
    there = np.array(summary["percentiles"], dtype=np.float64)
    n, m = len(here), int(summary["n"])
    shares = np.linspace(0, 1, len(there))
    ordered = here.scores.astype(np.float64)
    # The share there at a percentile p lies at p, for ties anywhere up to the last equal percentile.
    at_most = np.searchsorted(ordered, there, side="right") / n
    below = np.searchsorted(ordered, there, side="left") / n
    first = shares[np.searchsorted(there, there, side="left")]
    last = shares[np.searchsorted(there, there, side="right") - 1]
    distance = float(np.max([last - at_most, below - first, np.zeros(len(there))]))
    return Shift(
        distance=distance,
        critical=float(1.358 * np.sqrt((n + m) / (n * m))),
        median_shift=float(here.quantile(0.5) - there[len(there) // 2]),
        expected_share=expected_share,
        seen_share=here.matches(threshold) / n,
        n_there=m,
        n_here=n,
    )
