"""Scores and labels -> a threshold with honest figures: held-out validation, intervals, warnings.

The choice itself is made by `choice`, the resampling by `resampling`. What is calibrated for a query over a store's
rows is the business of `deciding`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import LabelError, UnreachableError
from embedstore.measures.chance import Interval, Ordering, doubts_of_decision
from embedstore.measures.choice import Choice, Constraints, Objective, Wishes, choose
from embedstore.measures.curves import above, precision_recall
from embedstore.measures.rates import REPORTED, Metrics, MetricsTable
from embedstore.measures.resampling import bootstrap
from embedstore.measures.samples import Sample, Validation, as_sample, holdouts
from embedstore.wording import counted

FIGURES = ("precision", "recall", "f1")
"""What is reported with an interval, beside the threshold."""
FEW_POSITIVES = 20
WIDE_INTERVAL = 0.2


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it is worth: on how many labelled rows, positives and different pictures it rests."""

    choice: Choice
    """The threshold, with the figures on the rows it was chosen on."""
    metrics: Metrics
    """The figures to report, counts of rows: from rows that the threshold which decided them was not chosen on, unless
    `validation` says otherwise."""
    intervals: Mapping[str, Interval]
    """For ``threshold``, ``precision``, ``recall``, ``f1`` and the objective, as in `figures`: where the figure of
    *another* labelled sample as large as the one measured on would lie, with probability `confidence`. Empty without
    bootstrap."""
    confidence: float
    """Of the intervals, and of the constraints when they are guaranteed."""
    validation: str
    """How `metrics` was measured, in words."""
    n: int
    n_pos: int
    n_groups: int
    ordering: Ordering
    """How well the scores order all the labelled pictures, and how well scores that mean nothing would."""
    warnings: tuple[str, ...]
    """Why the figures may say less than they seem to."""

    @property
    def threshold(self) -> float:
        """The threshold to use: a match is ``score > threshold``."""
        return self.choice.threshold

    @property
    def figures(self) -> dict[str, float]:
        """What is reported: threshold, rates and counts; also the objective's value by its name, such as ``f3``."""
        own = _own_figure(self.choice.objective)
        values = {own: float(self.choice.objective.value(self.metrics))} if own else {}
        return {**self.metrics.to_dict(), **values}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **self.figures,
            "roc_auc": None if np.isnan(self.ordering.roc_auc) else self.ordering.roc_auc,
            "roc_auc_by_chance": list(self.ordering.chance),
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
        lines = [f"chosen for {self.choice.objective} with {self.choice.constraints}"]
        lines += [f"  {line}" for line in figure_lines(self.figures, self.intervals)]
        lines.append(f"measured {self.validation}; {counted(self.n, 'row')}, {self.n_pos} positive")
        if self.intervals:
            lines.append(what_intervals_say(self.confidence))
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def figure_rows(
    figures: Mapping[str, float], intervals: Mapping[str, Interval]
) -> list[tuple[str, float, Interval | None]]:
    """Return name, value and interval of the threshold, of precision, recall and F1, and of the objective, if known."""
    own = (name for name in figures if name not in ("threshold", *REPORTED))
    return [(name, figures[name], intervals.get(name)) for name in ("threshold", *FIGURES, *own) if name in figures]


def _own_figure(goal: Objective) -> str | None:
    """Return the name of an objective's value where it is a rate that is not reported anyhow, such as ``f3``."""
    name = str(goal)
    return None if goal.name == "cost" or name in FIGURES else name


def figure_lines(figures: Mapping[str, float], intervals: Mapping[str, Interval]) -> list[str]:
    """Return `figure_rows` as lines to be printed, such as ``recall    0.9355  [0.6817, 1.0000]``."""
    return [
        f"{name:<10}{value:.4f}" + (f"  [{pair[0]:.4f}, {pair[1]:.4f}]" if pair else "")
        for name, value, pair in figure_rows(figures, intervals)
    ]


def what_intervals_say(confidence: float) -> str:
    """Return the line that explains the brackets of `figure_lines`."""
    return f"[ ]: another sample as large lies there with {confidence:.0%} probability"


def calibrate_scores(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    validation: Validation = "kfold",
    folds: int = 5,
    test_fraction: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
    **wishes: Any,
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
        Equal values mark copies of one picture, such as the content hash. None: all differ. A guaranteed choice
        counts one row of each picture.
    validation, folds, test_fraction
        As above.
    resamples : int
        Bootstrap resamples; 0 for no intervals.
    seed : int
        Equal seeds give equal results.
    **wishes
        `objective`, `beta`, `cost`, `min_precision`, `min_recall`, `max_matches`, `guarantee`, `confidence`: see
        `choice.Wishes`.

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
    wished = Wishes(**wishes)
    if not sample.labels.any():
        raise LabelError(
            f"none of the {len(sample.labels)} labels is positive: there is nothing to find; check the label"
        )
    rng = np.random.default_rng(seed)
    parts, how = holdouts(sample, validation, folds, test_fraction, rng)
    chosen_on = measured_on = sample
    if validation == "split" and parts:
        chosen_on, measured_on = sample[~parts[0]], sample[parts[0]]
    goal, limits = wished.goal, wished.limits
    choice = _choose(chosen_on, goal, limits)
    metrics, warnings = _pooled(sample, parts, choice, validation)
    intervals: dict[str, Interval] = {}
    spread = bootstrap(chosen_on, measured_on, metrics, goal, limits, resamples, rng) if resamples else None
    if spread is not None:
        intervals = _intervals(spread.another, metrics, goal, wished.confidence)
        if limits.guaranteed:
            del intervals["threshold"]  # the choice was not repeated
    ordering = Ordering.of(sample, wished.confidence)
    useless = [
        *([ordering.doubt] if ordering.doubt else []),
        *doubts_of_decision(goal, metrics, spread and spread.expected, wished.confidence),
    ]
    return Calibration(
        choice,
        metrics,
        intervals,
        wished.confidence,
        how,
        n=len(sample.labels),
        n_pos=int(sample.labels.sum()),
        n_groups=sample.n_groups,
        ordering=ordering,
        warnings=(*useless, *warnings, *choice.notes, *_doubts(sample, intervals)),
    )


def _choose(sample: Sample, goal: Objective, limits: Constraints) -> Choice:
    """Choose on a sample; a guaranteed choice counts each picture once."""
    rows = sample.first_of_each if limits.guaranteed else sample
    return choose(precision_recall(rows.scores, rows.labels), goal, limits)


def _pooled(
    sample: Sample, parts: list[NDArray[np.bool_]], choice: Choice, validation: str
) -> tuple[Metrics, list[str]]:
    """Decide each part by a threshold chosen on the others as `choice` was; return the pooled counts and warnings."""
    decided = np.zeros(len(sample.labels), dtype=np.bool_)
    matched = np.zeros(len(sample.labels), dtype=np.bool_)
    for held in parts:
        try:
            threshold = _choose(sample[~held], choice.objective, choice.constraints).threshold
        except UnreachableError:
            continue
        matched[held] = above(sample.scores[held], threshold)
        decided |= held
    if not decided.any():
        asked = "" if validation == "none" else " (there are too few rows of one class to hold any out)"
        flatter = f"the figures are measured on the rows that the threshold was chosen on{asked}; they flatter"
        return precision_recall(sample.scores, sample.labels).at(choice.threshold), [flatter]
    counts = [
        int((decided & (matched == guess) & (sample.labels == truth)).sum())
        for guess, truth in ((True, True), (True, False), (False, True), (False, False))
    ]
    skipped = len(parts) - sum(bool(decided[held].all()) for held in parts)
    warning = (
        f"in {skipped} of {len(parts)} folds the constraint could not be kept with the fewer rows there; "
        "the figures come from the other folds"
    )
    return Metrics(choice.threshold, *counts), [warning] if skipped else []


def _intervals(spread: MetricsTable, metrics: Metrics, goal: Objective, confidence: float) -> dict[str, Interval]:
    """Return percentile intervals of the resamples; those of rates are stretched to a reported figure they miss."""
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(spread.threshold, tails).tolist()
    intervals = {"threshold": (low, high)}
    rates: dict[str, tuple[float, Any]] = {name: (getattr(metrics, name), getattr(spread, name)) for name in FIGURES}
    if own := _own_figure(goal):
        rates[own] = float(goal.value(metrics)), goal.value(spread)
    for name, (reported, resampled) in rates.items():
        low, high = np.quantile(resampled, tails).tolist()
        intervals[name] = (min(reported, low), max(reported, high))
    return intervals


def _doubts(sample: Sample, intervals: Mapping[str, Interval]) -> list[str]:
    """Return why the figures may say little."""
    doubts = []
    positives = len(np.unique(sample.groups[sample.labels]))
    if positives < FEW_POSITIVES:
        doubts.append(f"only {positives} different positives; {FEW_POSITIVES} or more give steadier figures")
    low, high = intervals.get("f1", (0.0, 0.0))
    if high - low > WIDE_INTERVAL:
        doubts.append(f"the interval of F1 is wide, {low:.2f} to {high:.2f}; more labels make it narrower")
    return doubts
