"""Labels picked by score -> P(match | score), and with it the figures to be expected over all rows of a store.

Rows that were picked by their score alone, such as those near a threshold, tell no share of anything; but among rows of
one score they match as often as others do (picking is ignorable given the score). So all labels together may say how
the chance of a match rises with the score. The sum of those chances is a curve on which a threshold can be chosen; what
the threshold is worth is measured by `calibration`, by weights and not by this model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import spelt
from embedstore.measures.curves import Curve
from embedstore.measures.rates import Floats
from embedstore.measures.samples import Sample, as_scores
from embedstore.wording import counted

PRIOR_DEVIATION = 2.5
"""Of the slope, per standard deviation of the scores: so weak that 40 labels overrule it, strong enough that labels
which a threshold separates wholly still give a finite slope."""
_LEVEL = 0.001
_BENT = 3.84
_STEPS = 50
_LARGEST_STEP = 3.0
_STEEPEST = 35.0


@dataclass(frozen=True, eq=False)
class Population:
    """The scores of all rows among which matches are looked for: distinct, ascending, and how many rows have each."""

    scores: NDArray[np.floating[Any]]
    rows: Floats
    centre: float
    scale: float
    """Mean and standard deviation of the scores, in which those of labelled rows are told to the model."""

    @classmethod
    def of(cls, scores: ArrayLike) -> Population:
        """Count equal scores; raises InputError as `samples.as_scores` does."""
        values = as_scores(scores)
        distinct, rows = np.unique(values, return_counts=True)
        return cls(distinct, rows.astype(np.float64), float(values.mean(dtype=np.float64)), float(values.std()) or 1.0)

    def thinned(self, steps: int = 4000) -> Population:
        """Return at most about `steps` scores, each for all down to the next; dense where few rows lie above.

        Places are counted from the top in geometric steps, so that a number of matches is right to a few thousandths.
        """
        if len(self.scores) <= steps:
            return self
        ranks = np.unique(np.geomspace(1, len(self.scores), steps).round().astype(np.int64))
        starts = (len(self.scores) - ranks)[::-1]
        return Population(self.scores[starts], np.add.reduceat(self.rows, starts), self.centre, self.scale)

    def standard(self, scores: NDArray[np.floating[Any]]) -> Floats:
        """Return scores as standard deviations from the mean."""
        return (scores.astype(np.float64) - self.centre) / self.scale

    def expected_curve(self, sample: Sample, known: bool = True) -> Curve:
        """Return the counts to be expected over all rows at every cut, by a model fitted to the labelled ones.

        Labelled rows, which are among the rows, count by their label where that is `known`, and all others by their
        chance to match.
        """
        line = fit_line(self.standard(sample.scores), sample.labels)
        hits = self.rows * chances(line, self.standard(self.scores))
        if known:
            places = np.searchsorted(self.scores, sample.scores, side="right") - 1
            more = sample.labels - chances(line, self.standard(sample.scores))
            np.add.at(hits, np.maximum(places, 0), more)
            hits = np.clip(hits, 0.0, self.rows)
        tp, fp = (np.append(np.cumsum(side[::-1])[::-1], 0.0) for side in (hits, self.rows - hits))
        return Curve(self.scores, tp, fp, float(tp[0]), float(fp[0]))


def doubt_of_sample(sample: Sample, population: Population) -> str | None:
    """Say that labelled rows which are not weighted are no random sample of all; None where they may be.

    Compared are the scores, by the distance of Kolmogorov and Smirnov (1939), copies counted once, at a level of 0.1 %.
    """
    if sample.is_weighted:
        return None
    labelled = np.sort(sample.first_of_each.scores)
    n, m = len(labelled), float(population.rows.sum())
    share = np.cumsum(population.rows) / m
    here = np.searchsorted(labelled, population.scores, side="right") / n
    distance = float(np.abs(here - share).max())
    critical = math.sqrt(-math.log(_LEVEL / 2) / 2 * (1 / n + 1 / m))
    if distance <= critical:
        return None
    return (
        f"the labelled rows are no random sample of the {counted(int(m), 'row')} (their scores lie otherwise: "
        f"distance {distance:.2f} of 1, by chance up to {critical:.2f}); figures and guarantees hold for rows picked "
        f"like these. "
        f"Label rows drawn at random, or give {spelt('sample_weight', 'labels that say how they were picked')}"
    )


def chances(lines: Floats, standard: Floats) -> Floats:
    """Return P(match | score) of lines, shape (..., 2 or 3), at scores in standard deviations, shape (m,): (..., m)."""
    steep = np.polynomial.polynomial.polyval(standard, np.moveaxis(lines, -1, 0)).astype(np.float64, copy=False)
    chance: Floats = 1 / (1 + np.exp(-np.clip(steep, -_STEEPEST, _STEEPEST)))
    return chance


def fit_line(standard: Floats, hits: NDArray[Any], rows: Floats | None = None) -> Floats:
    """Return the line of `fit_lines`, or the bent one where that fits better than by chance: shape (2,) or (3,).

    Bent it is where twice the gain in log-likelihood exceeds 3.84, as it does in 5 % of cases if the line holds.
    """
    trials = np.ones(len(standard)) if rows is None else rows
    straight, bent = (fit_lines(standard, hits, rows, terms)[0] for terms in (2, 3))

    def likelihood(line: Floats) -> float:
        chance = np.clip(chances(line, standard), 1e-300, 1 - 1e-16)
        return float(np.sum(hits * np.log(chance) + (trials - hits) * np.log1p(-chance)))

    chosen: Floats = bent if 2 * (likelihood(bent) - likelihood(straight)) > _BENT else straight
    return chosen


def fit_lines(standard: Floats, hits: NDArray[Any], rows: Floats | None = None, terms: int = 2) -> Floats:
    """Return the coefficients of the logistic regression of labels on scores and their powers, (n_fits, terms).

    At each score of `standard`, shape (m,), `hits` of `rows` match, shape (m,) or (n_fits, m); by default of one row.
    All but the intercept have a normal prior of mean 0 and deviation `PRIOR_DEVIATION`; the most probable line is found
    by Newton's steps.
    """
    positives = np.atleast_2d(hits).astype(np.float64)
    trials = np.ones(len(standard)) if rows is None else rows
    powers = standard ** np.arange(terms)[:, np.newaxis]
    products = (powers[:, np.newaxis] * powers).reshape(terms * terms, -1).T
    # That on the intercept only keeps the matrix regular where all labels are equal.
    prior = np.array([1e-3] + [1 / PRIOR_DEVIATION**2] * (terms - 1))
    lines = np.zeros((len(positives), terms))
    for _ in range(_STEPS):
        chance = chances(lines, standard)
        gradient = (positives - trials * chance) @ powers.T - prior * lines
        curved = (trials * chance * (1 - chance)) @ products
        matrix = curved.reshape(-1, terms, terms) + np.diag(prior)
        step = np.linalg.solve(matrix, gradient[..., np.newaxis])[..., 0]
        step *= np.minimum(1.0, _LARGEST_STEP / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        lines += step
        if np.abs(step).max() < 1e-8:
            break
    return lines
