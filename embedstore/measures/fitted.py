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
from embedstore.measures.rates import Floats, Ints
from embedstore.measures.samples import Sample, as_scores
from embedstore.wording import counted

PRIOR_DEVIATION = 2.5
"""Of the slope, per standard deviation of the scores: so weak that 40 labels overrule it, strong enough that labels
which a threshold separates wholly still give a finite slope."""
_LEVEL = 0.001
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

    def expected_curve(self, sample: Sample) -> Curve:
        """Return the counts to be expected over all rows at every cut, by a model fitted to the labelled ones.

        Labelled rows, which are among the rows, count by their label, all others by their chance to match.
        """
        (line,) = fit_lines(self.standard(sample.scores), sample.labels)
        hits = self.rows * chances(line, self.standard(self.scores))
        places = np.searchsorted(self.scores, sample.scores, side="right") - 1
        known = sample.labels - chances(line, self.standard(sample.scores))
        np.add.at(hits, np.maximum(places, 0), known)
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
    """Return P(match | score) of lines, shape (..., 2), at scores in standard deviations, shape (m,): (..., m)."""
    steep = lines[..., :1] + lines[..., 1:] * standard
    return 1 / (1 + np.exp(-np.clip(steep, -_STEEPEST, _STEEPEST)))


def fit_lines(standard: Floats, labels: NDArray[np.bool_], counts: Ints | None = None) -> Floats:
    """Return intercept and slope of the logistic regression of labels on scores, shape (n_fits, 2).

    The slope has a normal prior of mean 0 and deviation `PRIOR_DEVIATION`; the most probable line is found by Newton's
    steps. `counts`, shape (n_fits, n), says how often each row is taken in each fit; by default once, in one fit.
    """
    taken = np.ones((1, len(labels))) if counts is None else counts.astype(np.float64)
    lines = np.zeros((len(taken), 2))
    prior = 1 / PRIOR_DEVIATION**2
    for _ in range(_STEPS):
        chance = chances(lines, standard)
        excess = taken * (labels - chance)
        # The prior on the intercept only keeps the matrix regular where all labels are equal.
        gradient = np.stack([excess.sum(1) - 1e-3 * lines[:, 0], excess @ standard - prior * lines[:, 1]], axis=1)
        weight = taken * chance * (1 - chance)
        across = weight @ standard
        matrix = np.stack([weight.sum(1) + 1e-3, across, across, weight @ standard**2 + prior], axis=1).reshape(
            -1, 2, 2
        )
        step = np.linalg.solve(matrix, gradient[..., np.newaxis])[..., 0]
        step *= np.minimum(1.0, _LARGEST_STEP / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        lines += step
        if np.abs(step).max() < 1e-8:
            break
    return lines
