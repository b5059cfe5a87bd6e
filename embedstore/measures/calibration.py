"""Scores and labels in, a threshold with honest figures out: held-out validation, intervals, warnings.

The choice itself is made by `choice`, the resampling by `resampling`; a saved result is a `classifier`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError, LabelError, UnreachableError
from embedstore.measures.choice import Choice, choose_threshold
from embedstore.measures.curves import precision_recall
from embedstore.measures.objectives import Constraints, Objective
from embedstore.measures.rates import Metrics
from embedstore.measures.resampling import bootstrap
from embedstore.measures.samples import Sample, Validation, as_sample, holdouts
from embedstore.measures.thresholds import above

Interval = tuple[float, float]

FEW_POSITIVES = 20
WIDE_INTERVAL = 0.2


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it is worth.

    Attributes
    ----------
    choice : Choice
        The threshold, with the figures on the rows it was chosen on.
    metrics : Metrics
        The figures to report: from rows that the threshold which decided them was not chosen on (unless
        `validation` is ``"none"``). Counts are of rows.
    intervals : dict of str to (float, float)
        For ``threshold``, ``precision``, ``recall`` and ``f1``: where the figure of *another* labelled sample
        as large as the one measured on would lie, with probability `confidence`. Empty without bootstrap.
    confidence : float
        Of the intervals, and of the constraints when they are guaranteed.
    validation : str
        A sentence: how `metrics` was measured.
    n, n_pos, n_groups : int
        Labelled rows, positives among them, and different pictures.
    warnings : tuple of str
        Why the figures may say less than they seem to.
    """

    choice: Choice
    metrics: Metrics
    intervals: Mapping[str, Interval]
    confidence: float
    validation: str
    n: int
    n_pos: int
    n_groups: int
    warnings: tuple[str, ...] = ()

    @property
    def threshold(self) -> float:
        """The threshold to use: a match is ``score > threshold``."""
        return self.choice.threshold

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **self.metrics.to_dict(),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "confidence": self.confidence,
            "objective": str(self.choice.objective),
            "constraints": str(self.choice.constraints),
            "validation": self.validation,
            "n": self.n,
            "n_pos": self.n_pos,
            "n_groups": self.n_groups,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        shown = {"threshold": self.threshold, **_figures(self.metrics)}
        lines = [f"chosen for {self.choice.objective} with {self.choice.constraints}"]
        for name, value in shown.items():
            low, high = self.intervals.get(name, (float("nan"), float("nan")))
            spread = f"  [{low:.4f}, {high:.4f}]" if name in self.intervals else ""
            lines.append(f"  {name:<10}{value:.4f}{spread}")
        lines.append(f"measured {self.validation}; {self.n} rows, {self.n_pos} positive")
        if self.intervals:
            lines.append(f"[ ]: another sample as large lies there with {self.confidence:.0%} probability")
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def calibrate_scores(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    objective: str = "f1",
    beta: float | None = None,
    cost: Mapping[str, float] | None = None,
    min_precision: float | None = None,
    min_recall: float | None = None,
    max_matches: int | None = None,
    guarantee: bool = True,
    confidence: float = 0.95,
    validation: Validation = "kfold",
    folds: int = 5,
    test_fraction: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> Calibration:
    """Choose a threshold and measure it on rows that it was not chosen on.

    * ``"kfold"``: the threshold is chosen on all rows. For the figures, each fold is decided by a threshold
      chosen on the other folds, and the decisions are pooled: what the *procedure* is worth, slightly
      underestimated, as each fold's threshold rests on fewer rows.
    * ``"split"``: the threshold is chosen on ``1 - test_fraction`` of the pictures and measured on the rest.
    * ``"none"``: chosen and measured on the same rows; the figures flatter, and a warning says so.

    Folds are stratified by label, and copies of one picture always lie on one side.

    Parameters
    ----------
    scores : array-like of shape (n,)
    labels : array-like of shape (n,), bool
    groups : array-like of shape (n,), optional
        Equal values mark copies of one picture, such as the content hash. None: all differ.
    objective, beta, cost, min_precision, min_recall, max_matches
        See `choice.choose_threshold`.
    guarantee : bool
        Whether `min_precision` and `min_recall` must hold on further rows, with probability `confidence`;
        else on the labelled rows only. A guaranteed choice counts one row of each picture.
    confidence : float
    folds, test_fraction
        For ``"kfold"`` and ``"split"``.
    resamples : int
        Bootstrap resamples; 0 for no intervals.
    seed : int
        Equal seeds give equal results.

    Raises
    ------
    InputError
        An argument that means nothing.
    LabelError
        Labels that do not fit, or not one positive.
    UnreachableError
        No threshold keeps the constraints.
    """
    sample = as_sample(scores, labels, groups)
    goal = Objective.parse(objective, beta, cost)
    limits = Constraints(min_precision, min_recall, max_matches, confidence if guarantee else None)
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, found {confidence!r}")
    if not sample.labels.any():
        raise LabelError(
            f"none of the {len(sample.labels)} labels is positive: there is nothing to find; check the label"
        )
    rng = np.random.default_rng(seed)
    parts, how = holdouts(sample, validation, folds, test_fraction, rng)
    warnings = [] if len(parts) else [_no_validation(validation)]
    chosen_on, measured_on = sample, sample
    if how.startswith("split"):
        chosen_on, measured_on = sample[~parts[0]], sample[parts[0]]
    choice = _choose(chosen_on, goal, limits)
    if how.startswith("split"):
        metrics = precision_recall(measured_on.scores, measured_on.labels).at(choice.threshold)
    else:
        metrics, skipped = _pooled(sample, parts, choice, goal, limits)
        warnings += skipped
    intervals: dict[str, Interval] = {}
    if resamples:
        intervals = _intervals(chosen_on, measured_on, choice, metrics, confidence, resamples, rng)
    warnings += [*choice.notes, *_doubts(sample, intervals)]
    return Calibration(
        choice,
        metrics,
        intervals,
        confidence,
        how,
        len(sample.labels),
        int(sample.labels.sum()),
        sample.n_groups,
        tuple(warnings),
    )


def _choose(sample: Sample, goal: Objective, limits: Constraints) -> Choice:
    """Choose on a sample; a guaranteed choice counts each picture once."""
    rows = sample.first_of_each if limits.guaranteed else sample
    return choose_threshold(
        precision_recall(rows.scores, rows.labels),
        goal,
        min_precision=limits.min_precision,
        min_recall=limits.min_recall,
        max_matches=limits.max_matches,
        confidence=limits.confidence,
    )


def _pooled(
    sample: Sample, parts: list[NDArray[np.bool_]], choice: Choice, goal: Objective, limits: Constraints
) -> tuple[Metrics, list[str]]:
    """Decide each part by a threshold chosen on the others; return the pooled counts and warnings."""
    decided = np.zeros(len(sample.labels), dtype=np.bool_)
    matched = np.zeros(len(sample.labels), dtype=np.bool_)
    for held in parts:
        try:
            threshold = _choose(sample[~held], goal, limits).threshold
        except UnreachableError:
            continue
        matched[held] = above(sample.scores[held], threshold)
        decided |= held
    if not decided.any():
        metrics = precision_recall(sample.scores, sample.labels).at(choice.threshold)
        return metrics, [_no_validation("kfold")] if parts else []
    counts = [
        int((decided & (matched == guess) & (sample.labels == truth)).sum())
        for guess, truth in ((True, True), (True, False), (False, True), (False, False))
    ]
    skipped = len(parts) - sum(bool(decided[held].all()) for held in parts)
    warnings = []
    if skipped:
        warnings.append(
            f"in {skipped} of {len(parts)} folds the constraint could not be kept with the fewer rows there; "
            "the figures come from the other folds"
        )
    return Metrics(choice.threshold, *counts), warnings


def _intervals(
    chosen_on: Sample,
    measured_on: Sample,
    choice: Choice,
    metrics: Metrics,
    confidence: float,
    resamples: int,
    rng: np.random.Generator,
) -> dict[str, Interval]:
    """Return percentile intervals of the resamples, stretched to the reported figure where they miss it."""
    table = bootstrap(chosen_on, measured_on, metrics, choice.objective, choice.constraints, resamples, rng)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    intervals = {}
    if not choice.constraints.guaranteed:
        low, high = np.quantile(table.threshold, tails)
        intervals["threshold"] = (float(low), float(high))
    for name, reported in _figures(metrics).items():
        values = getattr(table, name)
        low, high = np.quantile(values, tails)
        intervals[name] = (min(reported, float(low)), max(reported, float(high)))
    return intervals


def _figures(metrics: Metrics) -> dict[str, float]:
    """Return the three figures that have an interval."""
    return {"precision": metrics.precision, "recall": metrics.recall, "f1": metrics.f1}


def _doubts(sample: Sample, intervals: Mapping[str, Interval]) -> list[str]:
    """Return why the figures may say little."""
    found = []
    positives = len(np.unique(sample.groups[sample.labels]))
    if positives < FEW_POSITIVES:
        found.append(f"only {positives} different positives; {FEW_POSITIVES} or more give steadier figures")
    low, high = intervals.get("f1", (0.0, 0.0))
    if high - low > WIDE_INTERVAL:
        found.append(f"the interval of F1 is wide, {low:.2f} to {high:.2f}; more labels make it narrower")
    return found


def _no_validation(validation: str) -> str:
    """Say that figures flatter, and why."""
    asked = "" if validation == "none" else " (there are too few rows of one class to hold any out)"
    return f"the figures are measured on the rows that the threshold was chosen on{asked}; they flatter"
