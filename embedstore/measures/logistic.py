"""Scores and a few labels -> what is known of P(match | score): draws of bent logistic curves, all equally likely.

Who labels by score alone (the nearest to a threshold, say) does not bend such a curve, so all labels may be used. What
is not known stays open: few labels give curves that differ, none gives the prior. The curve is a model, good for plans;
what is *measured* is measured without one, by `calibration` and `watched`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from embedstore.measures.rates import Floats
from embedstore.measures.samples import as_labels, as_scores

PREVALENCES = (0.0005, 0.9)
"""Before any label: the share of matches lies here, all log-odds alike."""
SLOPE = (2.5, 1.5)
"""And the log-odds rise by this for a standard deviation of the scores: a normal distribution, mean and spread."""
BEND = 0.8
"""And at the highest score they rise exp(b) times as fast as at the mean: b is normal around 0, with this spread."""
_STEEPEST, _FLATTEST, _MOST_BENT = 14.0, 0.02, 3.2
_GRID, _ZOOMS = 16, 6
_UNLIKELY = 11.5
_POINTS = 10
_BINS, _FEW_BINS = 300, 120


@dataclass(frozen=True, eq=False)
class Thinned:
    """Many scores as few values that stand for a number of rows each, ascending; finest at the top."""

    values: Floats
    rows: Floats

    @classmethod
    def of(cls, scores: ArrayLike, bins: int = _BINS) -> Thinned:
        """Thin scores to at most about twice as many values as there are `bins`; so many are kept as they are."""
        ordered = np.sort(as_scores(scores).astype(np.float64))
        n = len(ordered)
        if n <= bins:
            return cls(ordered, np.ones(n))
        tail = n - np.geomspace(1, n, bins).astype(np.int64)
        edges = np.unique([*np.linspace(0, n, bins).astype(np.int64), *tail])
        rows = np.diff(edges)
        return cls(np.add.reduceat(ordered, edges[:-1]) / rows, rows.astype(np.float64))


@dataclass(frozen=True, eq=False)
class MatchCurves:
    """Curves P(match | score), each drawn from what labels leave open; shape (n_draws,) each.

    With z = (score - centre) / scale the log-odds are ``intercept + slope * z``, and above the mean, where z > 0,
    ``+ curvature * z**2``, never so much that they fall.
    """

    intercept: Floats
    slope: Floats
    curvature: Floats
    centre: float
    scale: float

    def __len__(self) -> int:
        return len(self.slope)

    def chance(self, scores: ArrayLike, draw: int | None = None) -> Floats:
        """Return P(match) at scores of shape (n,): (n_draws, n), or (n,) of one draw."""
        from scipy.special import expit  # scipy costs a fifth of a second to import

        z = (np.asarray(scores, dtype=np.float64) - self.centre) / self.scale
        which = slice(None) if draw is None else slice(draw, draw + 1)
        found = np.asarray(expit(_log_odds(self.intercept[which], self.slope[which], self.curvature[which], z)))
        return found if draw is None else found[0]


def match_curves(
    scores: ArrayLike, labelled: ArrayLike, labels: ArrayLike, draws: int, rng: np.random.Generator
) -> MatchCurves:
    """Draw curves from their posterior, given the scores of all rows and the labels of some.

    A curve is told by the share of matches among all rows, its slope and its bend, whose prior is stated above. The
    posterior is laid out on a grid that is narrowed to where it matters, with more and more weight on the labels, and
    drawn from: with many labels the curves are that of logistic regression, without a penalty, on z and max(z, 0)**2.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Of all rows.
    labelled, labels : array-like of shape (n_labels,), floating and bool
        May be empty.
    draws : int
    rng : Generator

    Raises
    ------
    InputError, LabelError
        As `samples.as_scores` and `as_labels`.
    """
    thin = Thinned.of(scores, _FEW_BINS)
    centre = float(np.average(thin.values, weights=thin.rows))
    scale = float(np.sqrt(np.average((thin.values - centre) ** 2, weights=thin.rows))) or 1.0
    z = (thin.values - centre) / scale
    known = _binned(labelled, labels, centre, scale)
    # The level is told where matches are seen, so that it does not depend on the slope much.
    place = float(np.average(known[0], weights=known[1])) if known[1].sum() else float(np.quantile(z, 0.95))
    grid = _Grid(z, thin.rows / thin.rows.sum(), known, place, max(float(z[-1]), 0.5))
    box = np.array([[-45.0, 30.0], [_FLATTEST, _STEEPEST], [-_MOST_BENT, _MOST_BENT]])
    weight = min(1.0, 10.0 / max(float(known[1].sum() + known[2].sum()), 1.0))
    for trust in np.geomspace(weight, 1.0, _ZOOMS):
        width = (box[:, 1] - box[:, 0]) / _GRID
        middles = [low + (np.arange(_GRID) + 0.5) * step for low, step in zip(box[:, 0], width, strict=True)]
        cells = np.stack([axis.ravel() for axis in np.meshgrid(*middles, indexing="ij")])
        posterior = grid.log_posterior(cells, trust)
        likely = cells[:, posterior > posterior.max() - _UNLIKELY]
        box = np.stack([likely.min(axis=1) - width / 2, likely.max(axis=1) + width / 2], axis=1)
    # Points within the cells, weighed anew: the last grid is coarse beside a narrow ridge.
    drawn = rng.choice(cells.shape[1], size=_POINTS * draws, p=_shares(posterior))
    points = cells[:, drawn] + width[:, np.newaxis] * (rng.random((3, len(drawn))) - 0.5)
    weights = _shares(grid.log_posterior(points, 1.0) - posterior[drawn])
    level, slope, bend = points[:, rng.choice(len(drawn), size=draws, p=weights)]
    return MatchCurves(*grid.coefficients(level, slope, bend), centre, scale)


def _shares(logarithms: Floats) -> Floats:
    """Return weights that sum to 1."""
    weights = np.exp(logarithms - logarithms.max())
    return np.asarray(weights / weights.sum())


def _log_odds(intercept: Floats, slope: Floats, curvature: Floats, z: Floats) -> Floats:
    """Return the log-odds of each curve at each z: shape (n_curves, n)."""
    return np.asarray(
        intercept[:, np.newaxis] + slope[:, np.newaxis] * z + curvature[:, np.newaxis] * np.square(np.maximum(z, 0))
    )


@dataclass(frozen=True, eq=False)
class _Grid:
    """All rows, the labels, and where curves are told: ``level`` is the log-odds at z = `place`."""

    z: Floats
    share: Floats
    labels: tuple[Floats, Floats, Floats]
    place: float
    top: float

    def coefficients(self, level: Floats, slope: Floats, bend: Floats) -> tuple[Floats, Floats, Floats]:
        """Return intercept, slope and curvature."""
        curvature = slope * np.expm1(bend) / (2 * self.top)
        return level - slope * self.place - curvature * max(self.place, 0) ** 2, slope, curvature

    def log_posterior(self, cells: Floats, trust: float) -> Floats:
        """Return the logarithm of the prior times the likelihood to the power of `trust`, but for a constant."""
        from scipy.special import expit, log_expit, logit  # as above

        level, slope, bend = cells
        curve = self.coefficients(level, slope, bend)
        chance = expit(_log_odds(*curve, self.z))
        mean = np.clip(chance @ self.share, 1e-12, 1 - 1e-12)
        # Uniform in the log-odds of the mean is this in the level.
        rise = ((chance * (1 - chance)) @ self.share) / (mean * (1 - mean))
        low, high = logit(PREVALENCES)
        inside = (logit(mean) > low) & (logit(mean) < high)
        found = np.log(np.maximum(rise, 1e-300)) - 0.5 * ((slope - SLOPE[0]) / SLOPE[1]) ** 2 - 0.5 * (bend / BEND) ** 2
        z, hits, misses = self.labels
        if len(z):
            line = _log_odds(*curve, z)
            found = found + trust * (log_expit(line) @ hits + log_expit(-line) @ misses)
        return np.where(inside, found, -np.inf)


def _binned(labelled: ArrayLike, labels: ArrayLike, centre: float, scale: float) -> tuple[Floats, Floats, Floats]:
    """Return standardised scores with the numbers of hits and misses at each; many labels share bins."""
    if not len(np.asarray(labelled)):
        return np.empty(0), np.empty(0), np.empty(0)
    values = as_scores(labelled).astype(np.float64)
    truth = as_labels(labels, len(values))
    order = np.argsort(values, kind="stable")
    values, truth = values[order], truth[order]
    starts = np.unique(np.linspace(0, len(values), min(len(values), _FEW_BINS) + 1).astype(np.int64)[:-1])
    rows = np.diff([*starts, len(values)])
    hits = np.add.reduceat(truth.astype(np.float64), starts)
    return (np.add.reduceat(values, starts) / rows - centre) / scale, hits, rows - hits
