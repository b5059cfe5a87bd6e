"""Scores and labels -> a threshold with honest figures: held-out validation, intervals, warnings.

The choice itself is made by `choice`, the resampling by `resampling`. What is calibrated for a query over a store's
rows is the business of `deciding`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from embedstore.errors import LabelError
from embedstore.measures.chance import Interval, Ordering, doubts_of_decision
from embedstore.measures.choice import Choice, Objective, Wishes
from embedstore.measures.fitted import Population, doubt_of_sample
from embedstore.measures.rates import REPORTED, Metrics, MetricsTable, name_in_words
from embedstore.measures.resampling import (
    TRUSTED,
    best_threshold_interval,
    effective_positives,
    spread_of_figures,
)
from embedstore.measures.samples import Sample, Validation, as_sample
from embedstore.measures.validation import Chooser, held_out_figures, partitions_of
from embedstore.wording import counted

FIGURES = ("precision", "recall", "f1")
"""What is reported with an interval, beside the threshold."""
FEW_POSITIVES = 20
FEWEST_POSITIVES = 3
"""With fewer nothing can be told of other rows: an interval holds all that there can be."""
FEWEST_FOR_BEST = 5
"""With fewer nothing can be told of where the best threshold lies: it gets no interval."""
WIDE_INTERVAL = 0.2


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it is worth: on how many labelled rows, positives and different pictures it rests."""

    choice: Choice
    """The threshold, with the figures on the rows it was chosen on."""
    metrics: Metrics | None
    """The figures to report: from rows that the threshold which decided them was not chosen on, unless `validation`
    says otherwise. Counts are means over the repeats of a cross-validation; of weighted rows they are estimates for
    all that these stand for. None where it is not known how any row was picked."""
    intervals: Mapping[str, Interval]
    """Confidence intervals, by the names of `figures`. For ``precision``, ``recall``, ``f1`` and the objective: where
    the figure of *this threshold over all rows that there could be* lies. For ``threshold``: where the best one for
    those lies; not given for a guaranteed choice, nor from fewer than five positives. Empty without resamples."""
    prediction_intervals: Mapping[str, Interval]
    """For the same figures: where that of this threshold on *another labelled sample as large* as the one measured on
    lies, picked in the same way. Wider than a confidence interval, by that sample's chance."""
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
        if self.metrics is None:
            return {"threshold": self.threshold}
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
            "prediction_intervals": {name: list(pair) for name, pair in self.prediction_intervals.items()},
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
            lines += what_intervals_say(self.confidence, self.prediction_intervals)
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
        f"{name_in_words(name):<10}{value:.4f}" + (f"  [{pair[0]:.4f}, {pair[1]:.4f}]" if pair else "")
        for name, value, pair in figure_rows(figures, intervals)
    ]


def what_intervals_say(confidence: float, prediction: Mapping[str, Interval]) -> list[str]:
    """Return the lines that explain the brackets of `figure_lines`, and say where another sample's figures lie."""
    sure = f"{confidence:.0%}"
    others = ", ".join(f"{name_in_words(name)} {low:.4f} to {high:.4f}" for name, (low, high) in prediction.items())
    return [
        f"[ ]: {sure} confidence: the figures of this threshold over all such rows; the best threshold for those",
        *([f"on another sample as large, {sure}: {others}"] if others else []),
    ]


def calibrate_scores(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    random: ArrayLike | None = None,
    population: ArrayLike | None = None,
    validation: Validation = "kfold",
    folds: int = 5,
    repeats: int = 10,
    test_fraction: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
    **wishes: Any,
) -> Calibration:
    """Choose a threshold and measure it on rows that it was not chosen on.

    * ``"kfold"``: the threshold is chosen on all rows. For the figures, each fold is decided by a threshold
      chosen on the other folds, and the decisions are pooled: what the *procedure* is worth, slightly
      underestimated, as each fold's threshold rests on fewer rows. Rows are put into folds `repeats` times, and the
      counts are means over these.
    * ``"split"``: the threshold is chosen on ``1 - test_fraction`` of the pictures and measured on the rest.
    * ``"none"``: chosen and measured on the same rows; the figures flatter, and a warning says so.

    Folds are stratified by label, and copies of one picture always lie on one side.

    Rows that were not picked alike, such as those of a review, have weights. Then the threshold is chosen by all of
    them: with `population` by the figures to be expected over it (see `fitted`), else by weights. The figures are
    those of the rows whose weight is known, by weights (Horvitz and Thompson 1952); what is guaranteed rests on the
    `random` rows alone.

    Parameters
    ----------
    scores : array-like of shape (n,)
    labels : array-like of shape (n,), bool
    groups : array-like of shape (n,), optional
        Equal values mark copies of one picture, such as the content hash. None: all differ. A guaranteed choice
        counts one row of each picture.
    sample_weight : array-like of shape (n,), optional
        For how many rows each stands: 1 by its probability of being picked. NaN where that is not known: such a row
        may help to choose the threshold and measures nothing. None: all alike.
    random : array-like of shape (n,), bool, optional
        Rows that alone are a simple random sample. None: all whose weight is known.
    population : array-like of shape (m,), optional
        The scores of all rows among which matches are looked for, the labelled ones included. Where the labels are
        not weighted, a warning says whether they can be a random sample of these.
    validation, folds, repeats, test_fraction
        As above. Of more than 50,000 rows (10,000 with a guarantee or weights) fewer repeats are made: there the folds
        of one partition are much like those of another.
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
        Labels that do not fit, or not one positive; a guarantee is asked for and no row is `random`.
    UnreachableError
        No threshold keeps the constraints.
    """
    sample = as_sample(scores, labels, groups, sample_weight, random)
    wished = Wishes(**wishes)
    if not sample.labels.any():
        raise LabelError(
            f"none of the {len(sample.labels)} labels is positive: there is nothing to find; check the label"
        )
    rng = np.random.default_rng(seed)
    everyone = None if population is None else Population.of(population)
    chooser = Chooser(sample, wished.goal, wished.limits, everyone)
    partitions = partitions_of(chooser, validation, folds, repeats, test_fraction, rng)
    whole = np.ones(len(sample.labels), dtype=np.bool_)
    held = partitions[0][0] if validation == "split" and partitions else None
    choice = chooser.choose(whole if held is None else ~held)
    measured = held_out_figures(chooser, partitions, choice, validation)
    metrics, goal = measured.metrics, wished.goal
    intervals: dict[str, Interval] = {}
    others: dict[str, Interval] = {}
    plain = None
    if resamples and metrics is not None:
        chosen_on, measured_on = (
            (sample, sample.measurable) if held is None else (sample[~held], sample[held].measurable)
        )
        trust = TRUSTED if held is None else 1.0
        spread = spread_of_figures(measured_on, choice.threshold, measured.optimism, trust, rng)
        # To doubt a query, each row counts in full; half the optimism is that of a choice by more rows than a fold's.
        plain = spread_of_figures(measured_on, choice.threshold, measured.optimism / 2, 1.0, rng).expected
        few = effective_positives(measured_on) < (FEWEST_FOR_BEST if chooser.weighted else FEWEST_POSITIVES)
        intervals = _intervals(spread.expected, metrics, goal, wished.confidence, few)
        others = _intervals(spread.another, metrics, goal, wished.confidence, few)
        if chooser.is_repeatable and effective_positives(chosen_on) >= FEWEST_FOR_BEST:
            best = best_threshold_interval(
                chosen_on,
                chooser.population,
                chooser.curve(~held if held is not None else whole),
                choice,
                resamples,
                wished.confidence,
                rng,
            )
            intervals = {"threshold": best, **intervals}
    drawn = sample[sample.random] if sample.is_weighted and sample.random.any() else sample
    ordering = Ordering.of(drawn, wished.confidence)
    useless = [
        *([ordering.doubt] if ordering.doubt and metrics else []),
        *(doubts_of_decision(goal, metrics, plain, wished.confidence) if metrics else []),
        *([doubt] if everyone and (doubt := doubt_of_sample(sample, everyone)) else []),
    ]
    return Calibration(
        choice,
        metrics,
        intervals,
        others,
        wished.confidence,
        measured.how,
        n=len(sample.labels),
        n_pos=int(sample.labels.sum()),
        n_groups=sample.n_groups,
        ordering=ordering,
        warnings=(*useless, *measured.warnings, *choice.notes, *_doubts(sample, intervals)),
    )


def _intervals(
    spread: MetricsTable, metrics: Metrics, goal: Objective, confidence: float, few: bool
) -> dict[str, Interval]:
    """Return percentile intervals, stretched to a reported figure they miss; where there are too few positives, all."""
    names = {name: (getattr(metrics, name), getattr(spread, name)) for name in FIGURES}
    if own := _own_figure(goal):
        names[own] = float(goal.value(metrics)), goal.value(spread)
    intervals: dict[str, Interval] = {}
    for name, (reported, drawn) in names.items():
        if few:
            intervals[name] = (-1.0 if name == "mcc" else 0.0, 1.0)
            continue
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
        intervals[name] = (min(reported, low), max(reported, high))
    return intervals


def _doubts(sample: Sample, intervals: Mapping[str, Interval]) -> list[str]:
    """Return why the figures may say little."""
    doubts = []
    positives = len(np.unique(sample.groups[sample.labels]))
    if positives < FEW_POSITIVES:
        different = counted(positives, "different positive")
        doubts.append(f"only {different}; {FEW_POSITIVES} or more give steadier figures")
    low, high = intervals.get("f1", (0.0, 0.0))
    if high - low > WIDE_INTERVAL:
        doubts.append(f"the interval of F1 is wide, {low:.2f} to {high:.2f}; more labels make it narrower")
    return doubts
