"""Labelled scores and a decision on them -> whether both say more than chance, or than matching every row.

A query that has nothing to do with the labels still gets a threshold and an F1: that of matching every row is 0.667
where half of the rows are positive. What is found here becomes warnings of a `calibration`.
"""

from __future__ import annotations

import dataclasses
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np

from embedstore.measures.choice import Objective
from embedstore.measures.curves import precision_recall
from embedstore.measures.rates import Metrics, MetricsTable, name_in_words
from embedstore.measures.samples import Sample

Interval = tuple[float, float]
_OFTEN = 0.8
Counts = TypeVar("Counts", Metrics, MetricsTable)


@dataclasses.dataclass(frozen=True)
class Ordering:
    """How well scores order labelled pictures, and how well scores that mean nothing would."""

    roc_auc: float
    """Chance that a positive scores above a negative, each picture counted once; NaN with one class only."""
    chance: Interval
    """Where that of scores which have nothing to do with the labels lies, with probability `confidence`."""
    confidence: float

    @classmethod
    def of(cls, sample: Sample, confidence: float) -> Ordering:
        """Measure the order of a sample.

        Scores that mean nothing come in any order with the same chance. So the mean of their ROC AUC is 1/2 and its
        variance is known exactly, ties included (Mann and Whitney 1947); its distribution is taken for normal.
        """
        curve = precision_recall(sample.first_of_each.scores, sample.first_of_each.labels)
        if curve.one_class:
            return cls(float("nan"), (0.0, 1.0), confidence)
        ties = (curve.matches[:-1] - curve.matches[1:]).astype(np.float64)
        spread = curve.n + 1 - float((ties**3 - ties).sum()) / (curve.n * (curve.n - 1))
        deviation = float(np.sqrt(max(spread, 0.0) / (12 * curve.n_pos * curve.n_neg)))
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * deviation
        return cls(curve.roc_auc, (max(0.0, 0.5 - reach), min(1.0, 0.5 + reach)), confidence)

    @property
    def is_reversed(self) -> bool:
        """Whether the positives lie below the negatives, beyond chance."""
        return self.roc_auc < self.chance[0]

    @property
    def doubt(self) -> str | None:
        """Why the scores are of no use, with the numbers; None where they are, or where there is one class only."""
        low, high = self.chance
        by_chance = f"scores that mean nothing have {low:.2f} to {high:.2f} here ({self.confidence:.0%})"
        if self.is_reversed:
            return (
                f"worse than at random: ROC AUC {self.roc_auc:.4f}, {by_chance}; the opposite of the query would have "
                f"{1 - self.roc_auc:.4f}"
            )
        if self.roc_auc <= high:
            return f"no better than at random, as far as these labels tell: ROC AUC {self.roc_auc:.4f}, {by_chance}"
        return None


def doubts_of_decision(goal: Objective, decided: Metrics, spread: MetricsTable | None, confidence: float) -> list[str]:
    """Return a sentence, with the numbers, where a decision does no better than matching every row, or none.

    It does better when its value exceeds that of matching every row, or for a cost none, in all but a share of
    ``1 - confidence`` of the resamples in `spread` (the expected ones of `resampling.bootstrap`), each compared on its
    own counts; and on the counts `decided` where there are no resamples. Where it does better in four of
    five, but not in so many, "perhaps" is said. The value is the objective's; for ``"precision"`` and
    ``"recall"``, which are kept in bounds by a limit, it is precision.
    """
    if not (decided.tp + decided.fn and decided.fp + decided.tn):
        return []
    judged = Objective("precision") if goal.name in ("precision", "recall") else goal
    doubts = []
    for matching in ("every", "no") if goal.name == "cost" else ("every",):
        own, other = (float(judged.value(counts)) for counts in (decided, _blanket(decided, matching)))
        gain, often, between = own - other, 0.0, ""
        if spread is not None:
            gains = np.asarray(judged.value(spread)) - np.asarray(judged.value(_blanket(spread, matching)))
            gain, high = np.quantile(gains, [1 - confidence, confidence]).tolist()
            often = float((gains > 0).mean())
            between = f"; the gain lies at {gain:+.4f} to {high:+.4f}"
        if gain <= 0:
            name = "cost of a row" if goal.name == "cost" else name_in_words(str(judged))
            sign = -1 if goal.name == "cost" else 1
            perhaps = "perhaps " if often >= _OFTEN else ""
            doubts.append(
                f"{perhaps}no better than matching {matching} row: {name} {sign * own:.4f}, that of {matching} row "
                f"{sign * other:.4f}{between}"
            )
    return doubts


def _blanket(counts: Counts, matching: str) -> Counts:
    """Return the counts of matching every row, or no row, on the same rows."""
    positives, negatives = counts.tp + counts.fn, counts.fp + counts.tn
    no_rows: Any = 0 * positives
    if matching == "every":
        return dataclasses.replace(counts, tp=positives, fp=negatives, fn=no_rows, tn=no_rows)
    return dataclasses.replace(counts, tp=no_rows, fp=no_rows, fn=positives, tn=negatives)
