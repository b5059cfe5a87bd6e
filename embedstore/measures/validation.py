"""Labelled rows -> the threshold that they choose, and what it is worth on rows that it was not chosen on.

A `Chooser` chooses in one way on all rows and on those of a fold. The counts of the parts held out are pooled, over
several partitions, and it is said in words what was done. Intervals and the rest of a `calibration` are left to it.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import InputError, LabelError, UnreachableError, spelt
from embedstore.measures.choice import Choice, Constraints, Objective, choose
from embedstore.measures.curves import Curve, above, precision_recall
from embedstore.measures.fitted import Population
from embedstore.measures.rates import Floats, Metrics
from embedstore.measures.samples import Sample, holdouts
from embedstore.wording import counted

_VISITS = 500_000
"""Labelled rows times partitions; for a slow choice a fifth of it."""
Mask = NDArray[np.bool_]


class Chooser:
    """How a threshold is chosen on some of the labelled rows: on all of them, on those of a fold, the same way."""

    def __init__(self, sample: Sample, goal: Objective, limits: Constraints, population: Population | None) -> None:
        self.sample, self.goal, self.limits = sample, goal, limits
        self.weighted = sample.is_weighted
        self.population = population if self.weighted else None
        if not self.can_choose(np.ones(len(sample.labels), dtype=np.bool_)):
            raise LabelError(
                "no positive row has a weight above zero, and only such rows choose a threshold where the population "
                "is not told; weigh some, or pass the scores of all rows as population"
            )
        self._thinned = self.population and self.population.thinned()
        self._first = np.zeros(len(sample.labels), dtype=np.bool_)
        self._first[np.unique(sample.groups, return_index=True)[1]] = True
        if limits.guaranteed and not sample.random.any():
            raise LabelError(
                f"a guarantee rests on rows drawn at random, and none of the "
                f"{counted(len(self._first), 'labelled row')} "
                f"was; label some that are, or "
                + spelt(
                    "ask for none (guarantee=False)",
                    "ask for none (--no-guarantee)",
                    "take back that limits hold on further pictures",
                )
            )

    def can_choose(self, rows: Mask) -> bool:
        """Say whether there is a positive to choose by: by weights alone only those with one count."""
        by_weights = self.weighted and self.population is None
        return not by_weights or bool((self.sample.labels & (self.sample.weights > 0) & rows).any())

    @property
    def evidence(self) -> Mask | None:
        """The rows that a guarantee rests on, one of each picture; None without a guarantee."""
        return self._first & self.sample.random if self.limits.guaranteed else None

    @property
    def is_repeatable(self) -> bool:
        """Whether the choice can be made on other samples to see how it varies: not one that rests on tests (which
        copies would fool), nor one by weights alone, of samples whose picking would have to be repeated too."""
        return not self.limits.guaranteed and (self.population is not None or not self.weighted)

    def choose(self, rows: Mask) -> Choice:
        """Choose on some rows, a mask; a limit on the number of matches is scaled to them.

        Raises UnreachableError where no threshold keeps the limits, which for a guarantee is so without evidence too.
        """
        everything = bool(rows.all())
        curve, limits = self.curve(rows), self.limits
        if limits.max_matches is not None and not everything:
            whole = curve.n if self.population else float(np.nansum(self.sample.weights))
            scaled = max(1, round(limits.max_matches * curve.n / whole))
            limits = dataclasses.replace(limits, max_matches=scaled)
        seen = None
        if self.evidence is not None and not (self.sample.random.all() and not self.weighted):
            proof = self.evidence & rows
            if not proof.any():
                raise UnreachableError("none of the rows was drawn at random, so nothing can be guaranteed", {})
            seen = precision_recall(self.sample.scores[proof], self.sample.labels[proof])
        return dataclasses.replace(choose(curve, self.goal, limits, seen), constraints=self.limits)

    def curve(self, rows: Mask) -> Curve:
        """Return the curve to choose on."""
        sample = self.sample
        if self.population is not None and self._thinned is not None:
            return (self.population if rows.all() else self._thinned).expected_curve(sample[rows])
        if self.weighted:
            rows = rows & np.isfinite(sample.weights)
            return precision_recall(sample.scores[rows], sample.labels[rows], sample.weights[rows])
        if self.limits.guaranteed:
            rows = rows & self._first
        return precision_recall(sample.scores[rows], sample.labels[rows])


class Measured(NamedTuple):
    """Figures, how they were measured in words, and what to say of that; no figures where nothing can be measured."""

    metrics: Metrics | None
    how: str
    warnings: list[str]
    optimism: Floats
    """By how much tp, fp, fn and tn are more on rows that a threshold was not chosen on than on those it was chosen on,
    at the same thresholds; 0 where none were held out or the threshold was chosen on others anyhow."""


def partitions_of(
    chooser: Chooser, validation: str, folds: int, repeats: int, test_fraction: float, rng: np.random.Generator
) -> list[list[Mask]]:
    """Return the parts to be held out in turn, for each repeat; none where nothing can be held out."""
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, found {repeats!r}")
    slow = chooser.weighted or chooser.limits.guaranteed
    most = (_VISITS // 5 if slow else _VISITS) // len(chooser.sample.labels)
    times = min(repeats, max(1, most)) if validation == "kfold" else 1
    found = [holdouts(chooser.sample, validation, folds, test_fraction, rng)[0] for _ in range(times)]
    weighs = chooser.sample.weights > 0
    found = [parts for parts in found if any((held & weighs).any() for held in parts)]
    return [parts for parts in found if all(chooser.can_choose(~held) for held in parts)]


def held_out_figures(chooser: Chooser, partitions: list[list[Mask]], choice: Choice, validation: str) -> Measured:
    """Decide each part by a threshold chosen on the others, and count; the counts are means over the partitions."""
    sample = chooser.sample
    known = np.isfinite(sample.weights)
    weights = np.where(known, sample.weights, 0.0)
    if not known.any():
        lost = "not at all: it is not known how any of the labelled rows was picked"
        none = "there are no figures, as it is not known how any labelled row was picked"
        return Measured(None, lost, [none], np.zeros(4))
    sums, optimism, done, asked = np.zeros(4), np.zeros(4), 0, sum(map(len, partitions))
    for held in (part for parts in partitions for part in parts):
        try:
            threshold = chooser.choose(~held).threshold
        except UnreachableError:
            continue
        done += 1
        cells = np.where(above(sample.scores, threshold), 0, 2) + ~sample.labels
        counts = np.bincount(cells[held], weights[held], 4)
        others = np.bincount(cells[~held], weights[~held], 4)
        sums += counts
        optimism += counts - others * (counts.sum() / max(others.sum(), 1e-300))
    weighing = ", weighted by how the rows were picked" if chooser.weighted else ""
    if not known.all():
        weighing += f" (of {int((~known).sum())} that is not known, and they are left out)"
    if chooser.evidence is not None and chooser.weighted:
        weighing += f"; the guarantee rests on the {int(chooser.evidence.sum())} rows drawn at random alone"
    if not sums.any():
        why = ""
        if done:
            why = " (no row that could be held out has a weight)"
        elif partitions:
            why = " (without any of the parts to be held out the constraint could not be kept)"
        elif validation != "none":
            why = " (there are too few rows of one class to hold any out)"
        counted_on = sample.measurable if chooser.weighted else sample
        curve = precision_recall(counted_on.scores, counted_on.labels, counted_on.weights if chooser.weighted else None)
        flatter = f"the figures are measured on the rows that the threshold was chosen on{why}; they flatter"
        return Measured(
            curve.at(choice.threshold), f"on the rows that it was chosen on{why}{weighing}", [flatter], optimism
        )
    whole = weights.sum() if validation == "kfold" else sums.sum()
    tp, fp, fn, tn = (sums * (whole / sums.sum())).tolist()
    if not chooser.weighted and len(partitions) == 1 and done == asked:
        tp, fp, fn, tn = map(int, sums)
    how = _how(partitions, validation, done)
    warning = (
        f"in {asked - done} of {asked} folds the constraint could not be kept with the fewer rows there; "
        "the figures come from the other folds"
    )
    optimism *= 0.0 if validation == "split" else whole / sums.sum()
    metrics = Metrics(choice.threshold, tp, fp, fn, tn)
    return Measured(metrics, how + weighing, [warning] if done < asked else [], optimism)


def _how(partitions: list[list[Mask]], validation: str, done: int) -> str:
    """Say in words on which rows was measured, where `done` parts could be decided."""
    if validation == "split":
        return f"split: on {counted(int(partitions[0][0].sum()), 'row')} held out at random"
    how = f"by {len(partitions[0])}-fold cross-validation"
    how += f", {len(partitions)} times" if len(partitions) > 1 else ""
    asked = sum(map(len, partitions))
    return how + (f", in {done} of {asked} folds" if done < asked else "")
