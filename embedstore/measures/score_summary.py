"""Labelled scores -> what a classifier keeps of them: a few hundred knots, with the positives and negatives at each.

That is enough to tell later, on other rows, whether the scores there differ (`shift`) and why (`explanations`), without
the rows that the threshold was chosen on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
    """Number of rows."""
    labelled: bool = True
    """Whether `positive` and `negative` are known; not in a classifier that was saved before they were kept."""
    whole: bool = False
    """Whether each knot stands for equal scores only."""

    @classmethod
    def of(
        cls, scores: ArrayLike, labels: ArrayLike, threshold: float, weights: ArrayLike | None = None
    ) -> ScoreSummary:
        """Sum up the scores of labelled rows, each of shape (n,).

        Rows whose weight is NaN, which nobody knows how they were picked, are left out; where all are, all count alike.
        Raises InputError and LabelError as `samples.as_scores` and `samples.as_labels` do.
        """
        values: NDArray[Any] = as_scores(scores)
        truth = as_labels(labels, len(values))
        weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
        known = np.isfinite(weight) & (weight > 0)
        if not known.any():
            weight, known = np.ones(len(values)), np.ones(len(values), dtype=np.bool_)
        matched = above(values[known], threshold)
        values, truth, weight = values[known].astype(np.float64), truth[known], weight[known]
        knots = _knots(values, truth, matched)
        places = np.searchsorted(knots, values)
        sides = (np.bincount(places[side], weights=weight[side], minlength=len(knots)) for side in (truth, ~truth))
        positive, negative = (rows.astype(np.float64) for rows in sides)
        sizes = _worth(weight), _worth(weight[truth]), _worth(weight[~truth])
        share = float(weight[matched].sum() / weight.sum())
        whole = len(knots) == len(np.unique(values))
        return cls(knots, positive, negative, sizes, share, len(values), whole=whole)

    @property
    def mass(self) -> Floats:
        """Share of the rows that each knot stands for, shape (k,)."""
        both: Floats = self.positive + self.negative
        return both / float(both.sum())

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
        if not len(knots) == len(positive) == len(negative) > 0 or not (positive.sum() + negative.sum()) > 0:
            raise ValueError(f"{len(knots)} knots with {len(positive)} and {len(negative)} numbers of rows")
        all_rows, positives, negatives = map(float, fields["sizes"])
        sizes = all_rows, positives, negatives
        return cls(knots, positive, negative, sizes, matched_share, n, whole=bool(fields["whole"]))

    def at_prevalence(self, prevalence: float, threshold: float) -> ScoreSummary:
        """Return the summary of rows of another prevalence, in [0, 1], whose positives and negatives score as these.

        It is worth as many rows as these are, reweighted. `matched_share` becomes that above `threshold`.
        """
        _, n_pos, n_neg = self.sizes
        positive = prevalence * self.positive / self.positive.sum()
        negative = (1 - prevalence) * self.negative / self.negative.sum()
        size = 1 / (prevalence**2 / n_pos + (1 - prevalence) ** 2 / n_neg)
        moved = dataclasses.replace(
            self, positive=positive * size, negative=negative * size, sizes=(size, n_pos, n_neg)
        )
        return dataclasses.replace(moved, matched_share=moved.share_above(threshold))

    def share_above(self, threshold: float) -> float:
        """Return the share of the rows with a score > threshold; those of a knot are taken to lie evenly below it."""
        at_most = np.cumsum(self.mass)
        place = int(np.searchsorted(self.knots, threshold, side="right"))
        if self.whole or place in (0, len(self.knots)):
            return 1.0 if place == 0 else float(max(0.0, 1 - at_most[place - 1]))
        return float(1 - np.interp(threshold, self.knots, at_most))


def _knots(values: Floats, truth: NDArray[np.bool_], matched: NDArray[np.bool_]) -> Floats:
    """Choose the scores that are kept, ascending."""
    distinct = np.unique(values)
    if len(distinct) <= _WHOLE:
        return distinct
    edges = [distinct[[0, -1]], values[~matched].max(initial=-np.inf, keepdims=True)]
    for side in (truth, ~truth):
        ordered = np.sort(values[side])
        if len(ordered):
            even = np.linspace(0, len(ordered) - 1, _STEPS)
            top = len(ordered) - np.geomspace(1, len(ordered), _TAIL)
            edges.append(ordered[np.unique(np.concatenate([even, top]).astype(np.int64))])
    return np.unique(np.concatenate(edges)[np.isfinite(np.concatenate(edges))])


def _worth(weights: Floats) -> float:
    """Return how many rows of equal weight rows are worth; 0 for none."""
    return float(weights.sum() ** 2 / np.square(weights).sum()) if len(weights) else 0.0


def _short(value: float) -> float:
    """Write whole numbers without a fraction."""
    return int(value) if value.is_integer() else value
