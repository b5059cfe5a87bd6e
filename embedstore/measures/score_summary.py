"""Labelled scores -> what a classifier keeps of them: a few hundred knots, with the positives and negatives at each.

That is enough to tell later, on other rows, whether the scores there differ (`shift`) and why (`explanations`), without
the rows that the threshold was chosen on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.measures.curves import above
from embedstore.measures.rates import Floats
from embedstore.measures.samples import as_labels, as_scores

_WHOLE = 300
"""So many distinct scores are all kept."""
_STEPS = 101
_TAIL = 64


@dataclass(frozen=True, eq=False)
class ScoreSummary:
    """Scores of labelled rows, in short."""

    knots: Floats
    """Shape (k,), ascending: each stands for the scores above the knot before it and not above it. The smallest
    score, the largest, and the largest that does not match are among them; they lie closest near the top."""
    positive: Floats
    """Shape (k,): how many positives each stands for; by weight where the labelled rows have weights."""
    negative: Floats
    """Shape (k,): how many negatives. Where the labels were not kept, half of them are here, half are positive."""
    sizes: tuple[float, float, float]
    """How many rows of equal weight all rows are worth, the positives and the negatives (Kish 1965): their numbers
    where all weigh the same."""
    matched_share: float
    """Share of the rows that matched."""
    n: int
    """Number of rows: of the labelled ones, or of those that they were picked from, where the scores of these are
    known."""
    rows: Floats | None = None
    """Shape (k,): how many of the rows that the labelled ones were picked from each knot stands for; None where those
    are not known, and the labelled ones must do."""
    labelled: bool = True
    """Whether `positive` and `negative` are known; not in a classifier that was saved before they were kept."""
    whole: bool = False
    """Whether each knot stands for equal scores only."""

    @classmethod
    def of(
        cls,
        scores: ArrayLike,
        labels: ArrayLike,
        threshold: float,
        weights: ArrayLike | None = None,
        population: ArrayLike | None = None,
    ) -> ScoreSummary:
        """Sum up the scores of labelled rows, each of shape (n,).

        Parameters
        ----------
        scores, labels : array-like of shape (n,)
        threshold : float
        weights : array-like of shape (n,), optional
            For how many rows each stands; those of weight NaN, which nobody knows how they were picked, are left out,
            but where all are, all count alike.
        population : array-like of shape (n_rows,), optional
            The scores of all the rows that the labelled ones were picked from, if they were not picked at random: then
            shape and matched share are of these.

        Raises
        ------
        InputError, LabelError
            As `samples.as_scores` and `samples.as_labels`.
        """
        seen: NDArray[Any] = as_scores(scores)
        truth = as_labels(labels, len(seen))
        weight = np.ones(len(seen)) if weights is None else np.asarray(weights, dtype=np.float64)
        known = np.isfinite(weight) & (weight > 0)
        if not known.any():
            weight, known = np.ones(len(seen)), np.ones(len(seen), dtype=np.bool_)
        seen, truth, weight = seen[known], truth[known], weight[known]
        every: NDArray[Any] = seen if population is None else as_scores(population)
        heavy = weight if population is None else np.ones(len(every))
        matched = above(every, threshold)
        values, all_values = seen.astype(np.float64), every.astype(np.float64)
        ends = all_values[~matched].max(initial=-np.inf, keepdims=True)
        knots = _knots((all_values, values[truth], values[~truth]), ends)

        def counted(side: Floats, sums: Floats) -> Floats:
            places = np.minimum(np.searchsorted(knots, side), len(knots) - 1)
            return np.bincount(places, weights=sums, minlength=len(knots)).astype(np.float64)

        return cls(
            knots,
            counted(values[truth], weight[truth]),
            counted(values[~truth], weight[~truth]),
            (_worth(heavy), _worth(weight[truth]), _worth(weight[~truth])),
            float(heavy[matched].sum() / heavy.sum()),
            len(every),
            None if population is None else counted(all_values, heavy),
            whole=len(knots) == len(np.unique(np.concatenate([values, all_values]))),
        )

    @property
    def mass(self) -> Floats:
        """Share of the rows that each knot stands for, shape (k,)."""
        rows: Floats = self.positive + self.negative if self.rows is None else self.rows
        return rows / float(rows.sum())

    @property
    def size(self) -> float:
        """How many rows of equal weight the rows are worth."""
        return self.sizes[0]

    @property
    def prevalence(self) -> float:
        """Share of the positives."""
        return float(self.positive.sum() / (self.positive.sum() + self.negative.sum()))

    def quantile(self, share: float) -> float:
        """Return the smallest knot that at least `share` of the rows, in [0, 1], do not exceed."""
        return float(self.knots[min(int(np.searchsorted(np.cumsum(self.mass), share - 1e-12)), len(self.knots) - 1)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        if not self.labelled:
            return {"n": self.n, "percentiles": self.knots.tolist()}
        return {
            "n": self.n,
            "sizes": list(self.sizes),
            "whole": self.whole,
            "knots": self.knots.tolist(),
            "positive": [_short(value) for value in self.positive.tolist()],
            "negative": [_short(value) for value in self.negative.tolist()],
            **({} if self.rows is None else {"rows": [_short(value) for value in self.rows.tolist()]}),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], matched_share: float) -> ScoreSummary:
        """Read what `to_dict` wrote, or the 101 percentiles that earlier versions kept.

        Raises KeyError, TypeError or ValueError where it is neither.
        """
        n = int(fields["n"])
        if "knots" not in fields:
            knots = np.array(fields["percentiles"], dtype=np.float64)
            half = np.full(len(knots), n / 2 / max(len(knots) - 1, 1))
            half[0] = 0.0
            return cls(knots, half, half, (n, n / 2, n / 2), matched_share, n, labelled=False)
        knots, positive, negative = (np.array(fields[name], np.float64) for name in ("knots", "positive", "negative"))
        rows = np.array(fields["rows"], dtype=np.float64) if "rows" in fields else None
        if rows is not None and len(rows) != len(knots):
            raise ValueError(f"{len(knots)} knots with {len(rows)} numbers of rows")
        if not len(knots) == len(positive) == len(negative) > 0 or not (positive.sum() + negative.sum()) > 0:
            raise ValueError(f"{len(knots)} knots with {len(positive)} and {len(negative)} numbers of rows")
        all_rows, positives, negatives = map(float, fields["sizes"])
        sizes = all_rows, positives, negatives
        return cls(knots, positive, negative, sizes, matched_share, n, rows, whole=bool(fields["whole"]))

    def at_prevalence(self, prevalence: float, threshold: float) -> ScoreSummary:
        """Return the summary of rows of another prevalence, in [0, 1], whose positives and negatives score as these.

        It is worth as many rows as these are, reweighted. `matched_share` becomes that above `threshold`.
        """
        _, n_pos, n_neg = self.sizes
        positive = prevalence * self.positive / self.positive.sum()
        negative = (1 - prevalence) * self.negative / self.negative.sum()
        size = 1 / (prevalence**2 / n_pos + (1 - prevalence) ** 2 / n_neg)
        moved = dataclasses.replace(
            self, positive=positive * size, negative=negative * size, rows=None, sizes=(size, n_pos, n_neg)
        )
        return dataclasses.replace(moved, matched_share=moved.share_above(threshold))

    def share_above(self, threshold: float) -> float:
        """Return the share of the rows with a score > threshold; those of a knot are taken to lie evenly below it."""
        at_most = np.cumsum(self.mass)
        place = int(np.searchsorted(self.knots, threshold, side="right"))
        if self.whole or place in (0, len(self.knots)):
            return 1.0 if place == 0 else float(max(0.0, 1 - at_most[place - 1]))
        return float(1 - np.interp(threshold, self.knots, at_most))


def _knots(sides: Sequence[Floats], ends: Floats) -> Floats:
    """Choose the scores that are kept, ascending, of all rows, of the positives and of the negatives."""
    distinct = np.unique(np.concatenate(sides))
    if len(distinct) <= _WHOLE:
        return distinct
    edges = [distinct[[0, -1]], ends[np.isfinite(ends)]]
    for side in sides:
        ordered = np.sort(side)
        if len(ordered):
            even = np.linspace(0, len(ordered) - 1, _STEPS)
            top = len(ordered) - np.geomspace(1, len(ordered), _TAIL)
            edges.append(ordered[np.unique(np.concatenate([even, top]).astype(np.int64))])
    return np.unique(np.concatenate(edges))


def _worth(weights: Floats) -> float:
    """Return how many rows of equal weight rows are worth; 0 for none."""
    return float(weights.sum() ** 2 / np.square(weights).sum()) if len(weights) else 0.0


def _short(value: float) -> float:
    """Write whole numbers without a fraction."""
    return int(value) if value.is_integer() else value
