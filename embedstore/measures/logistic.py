"""Scores and a few labels -> what is known of P(match | score): draws of logistic curves, all as likely as another.

Who labels by score alone (the nearest to a threshold, say) does not bend such a curve, so all labels may be used. What
is not known stays open: few labels give curves that differ, none gives the prior. The curve is a model, good for plans;
what is *measured* is measured without one, by `calibration` and `watched`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from embedstore.measures.rates import Floats
from embedstore.measures.samples import as_labels, as_scores

PREVALENCES = (0.0005, 0.9)
"""Before any label: the share of matches lies here, all log-odds alike."""
SLOPE = (2.5, 1.5)
"""And the log-odds rise by this for a standard deviation of the scores: a normal distribution, mean and spread."""
_STEEPEST, _FLATTEST = 14.0, 0.02
_GRID, _ZOOMS = 32, 4
_TABLE = 24
_BINS = 400


@dataclass(frozen=True, eq=False)
class Thinned:
    """Many scores as few values that stand for a number of rows each, ascending; finest at the top."""

    values: Floats
    rows: Floats

    @classmethod
    def of(cls, scores: ArrayLike) -> Thinned:
        """Thin scores to at most some 800 values; up to 400 are kept as they are."""
        ordered = np.sort(as_scores(scores).astype(np.float64))
        n = len(ordered)
        if n <= _BINS:
            return cls(ordered, np.ones(n))
        tail = n - np.geomspace(1, n, _BINS).astype(np.int64)
        edges = np.unique([*np.linspace(0, n, _BINS).astype(np.int64), *tail])
        rows = np.diff(edges)
        return cls(np.add.reduceat(ordered, edges[:-1]) / rows, rows.astype(np.float64))


@dataclass(frozen=True, eq=False)
class MatchCurves:
    """Logistic curves P(match | score), each drawn from what labels leave open; shape (n_draws,) each."""

    intercept: Floats
    slope: Floats
    centre: float
    scale: float

    def __len__(self) -> int:
        return len(self.slope)

    def chance(self, scores: ArrayLike, draw: int | None = None) -> Floats:
        """Return P(match) at scores of shape (n,): (n_draws, n), or (n,) of one draw."""
        from scipy.special import expit  # scipy costs a fifth of a second to import

        z = (np.asarray(scores, dtype=np.float64) - self.centre) / self.scale
        if draw is not None:
            return np.asarray(expit(self.intercept[draw] + self.slope[draw] * z))
        return np.asarray(expit(self.intercept[:, np.newaxis] + self.slope[:, np.newaxis] * z))


def match_curves(
    scores: ArrayLike, labelled: ArrayLike, labels: ArrayLike, draws: int, rng: np.random.Generator
) -> MatchCurves:
    """Draw logistic curves from their posterior, given the scores of all rows and the labels of some.

    A curve is told by the share of matches among all rows and by its slope; both have the prior that is stated above.
    The posterior is laid out on a grid that is narrowed to where it matters, and drawn from: with many labels the
    curves are that of logistic regression without a penalty.

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
    thin = Thinned.of(scores)
    centre = float(np.average(thin.values, weights=thin.rows))
    scale = float(np.sqrt(np.average((thin.values - centre) ** 2, weights=thin.rows))) or 1.0
    intercept_of = _intercepts((thin.values - centre) / scale, thin.rows)
    seen = _binned(labelled, labels, centre, scale)
    box = np.array([_log_odds(PREVALENCES), [_FLATTEST, _STEEPEST]])
    for zoom in range(_ZOOMS + 1):
        axes = [_centres(*side) for side in box]
        odds, slope = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
        weights = _posterior(intercept_of(odds, slope), slope, *seen)
        width = (box[:, 1] - box[:, 0]) / _GRID
        if zoom < _ZOOMS:
            likely = np.stack([odds, slope])[:, weights > 1e-5 * weights.max()]
            box = np.stack([likely.min(axis=1) - width / 2, likely.max(axis=1) + width / 2], axis=1)
    drawn = rng.choice(len(weights), size=draws, p=weights / weights.sum())
    odds = odds[drawn] + width[0] * (rng.random(draws) - 0.5)
    slope = slope[drawn] + width[1] * (rng.random(draws) - 0.5)
    return MatchCurves(intercept_of(odds, slope), slope, centre, scale)


def _log_odds(share: tuple[float, float]) -> Floats:
    return np.log(np.divide(share, np.subtract(1, share)))


def _centres(low: float, high: float) -> Floats:
    """Return the middles of the cells of a range."""
    return low + (np.arange(_GRID) + 0.5) * (high - low) / _GRID


def _binned(labelled: ArrayLike, labels: ArrayLike, centre: float, scale: float) -> tuple[Floats, Floats, Floats]:
    """Return standardised scores with the numbers of hits and misses at each; many labels share bins."""
    if not len(np.asarray(labelled)):
        return np.empty(0), np.empty(0), np.empty(0)
    values = as_scores(labelled).astype(np.float64)
    truth = as_labels(labels, len(values))
    order = np.argsort(values, kind="stable")
    values, truth = values[order], truth[order]
    starts = np.unique(np.linspace(0, len(values), min(len(values), _BINS) + 1).astype(np.int64)[:-1])
    rows = np.diff([*starts, len(values)])
    hits = np.add.reduceat(truth.astype(np.float64), starts)
    return (np.add.reduceat(values, starts) / rows - centre) / scale, hits, rows - hits


def _posterior(intercept: Floats, slope: Floats, z: Floats, hits: Floats, misses: Floats) -> Floats:
    """Return prior times likelihood of each curve, the largest being 1."""
    from scipy.special import log_expit  # as above

    found = -0.5 * ((slope - SLOPE[0]) / SLOPE[1]) ** 2
    if len(z):
        line = intercept[:, np.newaxis] + slope[:, np.newaxis] * z
        found = found + log_expit(line) @ hits + log_expit(-line) @ misses
    return np.asarray(np.exp(found - found.max()))


def _intercepts(z: Floats, rows: Floats) -> Callable[[Floats, Floats], Floats]:
    """Return what gives the intercept with which a slope has a mean chance over all rows, told by its log-odds.

    The intercepts are found by halving on a table, between which they are smooth.
    """
    from scipy.interpolate import RectBivariateSpline  # as above
    from scipy.special import expit  # as above

    share = rows / rows.sum()
    least, most = _log_odds(PREVALENCES)
    odds, slope = np.linspace(least, most, _TABLE), np.linspace(_FLATTEST, _STEEPEST, _TABLE)
    wanted, steep = (axis.ravel() for axis in np.meshgrid(expit(odds), slope, indexing="ij"))
    reach = np.abs(z).max() * steep + 20
    low, high = -reach, reach
    for _ in range(40):
        middle = (low + high) / 2
        less = expit(middle[:, np.newaxis] + steep[:, np.newaxis] * z) @ share < wanted
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    table = RectBivariateSpline(odds, slope, ((low + high) / 2).reshape(_TABLE, _TABLE))
    return lambda some_odds, some_slope: np.asarray(table.ev(some_odds, some_slope))
