"""Scores of several queries on the same labelled rows -> which sorts them best, and how sure that is.

The best of many average precisions is best by luck too, and few positives make all of them look better than they are:
of 20 equal queries on 150 rows with 15 positives the winner was reported .21 too high. So the winner's is measured
again where it was not chosen, and queries that the rows cannot tell from it are named. The average precision itself is
that of `curves`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError
from embedstore.measures.chance import Interval
from embedstore.measures.curves import curves
from embedstore.measures.rates import Floats, Ints
from embedstore.measures.samples import Sample, as_sample

PARTS, REPEATS = 3, 30
_FEWEST_POSITIVES = 4
_MOST_RESAMPLES, _FEWEST_RESAMPLES = 1000, 100
_COMPARED = 50_000_000
_AT_ONCE = 2_000_000
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Ranking:
    """Queries by how well they sort labelled rows; arrays of shape (n_queries,), in the order of the scores."""

    average_precision: Floats
    """As in `curves.Curve`, which flatters with few positives."""
    intervals: tuple[Interval, ...]
    """Where the average precision over all rows that the labelled ones were drawn from lies, each query taken alone:
    the logit interval of Boyd, Eng and Page (2013), about the average precision that few positives do not flatter."""
    behind: Floats
    """How much lower than the best query's."""
    as_good: NDArray[np.bool_]
    """Whether it cannot be told from the best: the difference is within what chance makes of *any* two queries."""
    corrected: float | None
    """Of the best query, without the luck of being chosen: chosen on two thirds of the pictures and measured on the
    rest, in all three ways of `REPEATS` partitions, so that few positives do not flatter (`of_others`). None with fewer
    than 4 different positives or others. What two thirds of the labels choose is worse where some queries are truly
    better, so it falls short there: by .03 to .06 with 15 positives, by less with more."""
    best: int
    """The number of the query with the highest average precision, the first of equal ones."""
    confidence: float


def rank_scores(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Ranking:
    """Rank queries by their scores on the same rows.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n)
    labels, groups, sample_weight : array-like of shape (n,)
        As in `calibration.calibrate_scores`; resampled are pictures, rows of NaN weight are left out.
    confidence : float
        Of the intervals, and that no two equal queries are told apart.
    seed : int
        Equal seeds give equal results.

    Raises
    ------
    InputError, LabelError
        As `curves.precision_recall`; no query.
    """
    lines = np.asarray(scores)
    if lines.ndim != 2 or not len(lines):
        raise InputError(f"expected scores of shape (n_queries, n_rows), found {lines.shape}")
    weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    kept = np.ones(lines.shape[1], np.bool_) if weights is None else np.isfinite(weights)
    lines = lines[:, kept]
    sample = as_sample(
        lines[0],
        np.asarray(labels)[kept],
        None if groups is None else np.asarray(groups)[kept],
        None if weights is None else weights[kept],
    )
    truth, stands_for = sample.labels, None if weights is None else sample.weights
    reached = np.array([curve.average_precision for curve in curves(lines, truth, stands_for)])
    best = int(np.argmax(reached))
    rng = np.random.default_rng(seed)
    ordered = [_Ordered.of(line, truth) for line in lines]
    first = np.unique(sample.groups, return_index=True)[1]
    of_each: Floats = np.bincount(sample.groups, weights=sample.weights).astype(np.float64)
    pictures = [_Ordered.of(line, truth[first]) for line in lines[:, first]]  # a copy is not another row
    unflattered = np.concatenate([one.of_others(of_each[np.newaxis]) for one in pictures])
    corrected = _where_not_chosen(pictures, truth[first], of_each, rng)
    positives = _independent(sample)
    pairs = zip(reached.tolist(), unflattered.tolist(), strict=True)
    intervals = tuple(_interval(value, centre, positives, confidence) for value, centre in pairs)
    as_good = _as_good(ordered, sample, reached, best, confidence, rng)
    return Ranking(reached, intervals, reached[best] - reached, as_good, corrected, best, confidence)


@dataclass(frozen=True, eq=False)
class _Ordered:
    """The rows of one query by falling score."""

    order: Ints
    hits: NDArray[np.bool_]
    """Which rows, in that order, are positive."""
    ends: Ints
    """For each positive: the place of the last row of its score."""

    @classmethod
    def of(cls, scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> _Ordered:
        order = np.argsort(-scores, kind="stable")
        falling = -scores[order]
        hits = labels[order]
        ends = np.searchsorted(falling, falling[hits], side="right") - 1
        return cls(order, hits, ends)

    def average_precision(self, weights: Floats) -> Floats:
        """Return it for each line of weights of the rows, shape (n_lines, n); 0 without positives."""
        own, positives, matched = self._counted(weights)
        return _mean(positives / np.maximum(matched, _TINY), own)

    def of_others(self, weights: Floats) -> Floats:
        """Return it where each positive's precision is that of the *other* rows which score as high.

        Whichever score they exceed, these are positive with the probability that is to be estimated, so that the mean
        is not flattered by few positives, as the average precision is by each counting itself. A positive that all
        others score below has none of these: it and the row below it stand in.
        """
        own, positives, matched = self._counted(weights)
        rest = matched - own
        known = rest > 1e-9 * matched
        shares = np.where(known, (positives - own) / np.maximum(rest, _TINY), 0.0)
        counting = weights[:, self.order] > 0
        counting[np.arange(len(weights)), np.argmax(counting, axis=1)] = False
        below = self.hits[np.argmax(counting, axis=1)][:, np.newaxis]
        return _mean(np.where(known, shares, (1.0 + below) / 2), own)

    def _counted(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Return for each positive its weight, and those of all positives and all rows that score as high."""
        here = weights[:, self.order]
        matched = np.cumsum(here, axis=1)[:, self.ends]
        positives = np.cumsum(np.where(self.hits, here, 0.0), axis=1)[:, self.ends]
        return here[:, self.hits], positives, matched


def _mean(values: Floats, weights: Floats) -> Floats:
    """Return the weighted mean of each line, 0 where nothing weighs."""
    mean: Floats = (weights * values).sum(axis=1) / np.maximum(weights.sum(axis=1), _TINY)
    return mean


def _drawn(sample: Sample, times: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield weights of the rows, shape (n_lines, n), in which pictures are drawn with replacement, `times` in all."""
    at_once = max(1, _AT_ONCE // len(sample.labels))
    pictures = sample.n_groups
    for done in range(0, times, at_once):
        lines = min(at_once, times - done)
        counts = np.stack(
            [np.bincount(rng.integers(pictures, size=pictures), minlength=pictures) for _ in range(lines)]
        )
        yield counts[:, sample.groups] * sample.weights


def _where_not_chosen(
    ordered: list[_Ordered], labels: NDArray[np.bool_], weights: Floats, rng: np.random.Generator
) -> float | None:
    """Return the winners' average precision on the parts of the pictures that each was not chosen on."""
    if labels.sum() < _FEWEST_POSITIVES or (~labels).sum() < _FEWEST_POSITIVES:
        return None
    gained = weighed = 0.0
    for _ in range(REPEATS):
        # Not stratified: with as many positives in each part the others of one would be too rarely positive.
        part = rng.permutation(len(labels)) % PARTS
        held = (part == np.arange(PARTS)[:, np.newaxis]) * weights
        winners = np.argmax([one.average_precision(weights - held) for one in ordered], axis=0)
        for number, here in zip(winners.tolist(), held, strict=True):
            share = float(here[labels].sum())
            gained += share * ordered[number].of_others(here[np.newaxis]).item()
            weighed += share
    return gained / weighed


def _independent(sample: Sample) -> float:
    """Return how many independent positives the sample is worth (Kish 1965)."""
    of_each = np.bincount(sample.groups[sample.labels], weights=sample.weights[sample.labels])
    return float(of_each.sum() ** 2 / np.square(of_each).sum()) if of_each.any() else 0.0


def _interval(value: float, unflattered: float, positives: float, confidence: float) -> Interval:
    """Return the logit interval of an average precision."""
    if positives < 1:
        return 0.0, 1.0
    least = 1 / (2 * positives + 1)
    spread, centre = np.clip(value, least, 1 - least), np.clip(unflattered, least, 1 - least)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) / np.sqrt(positives * spread * (1 - spread))
    low, high = 1 / (1 + np.exp(-(np.log(centre / (1 - centre)) + np.array([-reach, reach]))))
    return min(float(low), value), max(float(high), value)


def _as_good(
    ordered: list[_Ordered],
    sample: Sample,
    reached: Floats,
    best: int,
    confidence: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Say which queries chance may have put behind the best, by a paired bootstrap of pictures.

    Differences of all pairs are compared in their own standard deviations (Tukey's method, resampled), since the best
    was not named beforehand.
    """
    times = int(np.clip(_COMPARED // (len(ordered) * len(sample.labels)), _FEWEST_RESAMPLES, _MOST_RESAMPLES))
    parts = [
        np.stack([one.average_precision(weights) for one in ordered], axis=1) for weights in _drawn(sample, times, rng)
    ]
    spread = np.concatenate(parts)
    spread -= spread.mean(axis=0)
    covariance = spread.T @ spread / max(len(spread) - 1, 1)
    own = np.diagonal(covariance)
    deviation = np.sqrt(np.maximum(own[:, np.newaxis] + own - 2 * covariance, 0))
    deviation[deviation < 1e-12] = np.inf
    largest = np.array([np.abs((one[:, np.newaxis] - one) / deviation).max() for one in spread])
    limit = float(np.quantile(largest, confidence))
    gaps = reached[best] - reached
    as_good: NDArray[np.bool_] = (gaps <= limit * np.where(np.isinf(deviation[best]), 0, deviation[best])) | (gaps == 0)
    return as_good
