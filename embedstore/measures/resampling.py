"""Labelled scores and a threshold chosen by them -> where the truth lies: of its figures, and of the best threshold.

Resampled are pictures (groups of equal content), not rows, so copies count once as evidence, and weighted rows by their
weights. What is said of that, and how, is left to `calibration`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedstore.measures.chance import Interval
from embedstore.measures.choice import Choice, best_cut
from embedstore.measures.curves import Curve, above, midways
from embedstore.measures.fitted import Population, chances, fit_line, fit_lines
from embedstore.measures.rates import Floats, Ints, MetricsTable
from embedstore.measures.samples import Sample

TRUSTED = 2 / 3
"""What a row counts as evidence of a threshold that was chosen by it. Choosing favours the threshold that chance
flatters, so counts there scatter more than elsewhere: with 1 the intervals of 95 % cover in 87 to 95 %, with this in 94
to 99 % (``scripts/measuring/intervals.py``)."""
_DRAWS = 4000
_CUTS = 150
_TOP = 20
_BINS = 150
_THINNED = 1000


class Spread(NamedTuple):
    """Counts at one threshold, in pictures, one row for each draw."""

    expected: MetricsTable
    """What they are over all rows that there could be: how far the labels leave that open."""
    another: MetricsTable
    """What they are on one other sample as large, chance included."""


def spread_of_figures(
    measured_on: Sample, threshold: float, optimism: Floats, trust: float, rng: np.random.Generator
) -> Spread:
    """Return what the figures of a threshold may truly be, and what they may be on another sample as `measured_on`.

    The counts are those of `measured_on` with what held-out rows show more of each, tp, fp, fn and tn, at thresholds
    that were chosen on others: the `optimism` of counting where was chosen. (The held-out counts themselves will not
    do: they are of the thresholds of the folds, which lie elsewhere.) The shares of the four are drawn from their
    posterior (Dirichlet, with Jeffreys' 1/2 added to each, so that a count of zero is not taken for impossible), each
    row counting `trust`; further counts from those shares. Of rows that weigh differently, a count of weight W from
    weights w is worth W² / sum w² rows (Kish 1965), and the 1/2 is of the rows' mean worth.
    """
    here = np.bincount(_cells(measured_on, threshold), measured_on.weights, 4)
    counts = np.maximum(here + optimism, 0.0)
    each, worth = _weight_of_rows(measured_on, threshold)
    total = counts.sum()
    drawn = each * rng.standard_gamma(trust * counts / each, (_DRAWS, 4))
    drawn += worth * rng.standard_gamma(0.5, (_DRAWS, 4))
    expected = drawn * (total / drawn.sum(axis=1, keepdims=True))
    rows = expected / each
    sizes = np.maximum(1, rows.sum(axis=1).round()).astype(np.int64)
    another = each * rng.multinomial(sizes, rows / rows.sum(axis=1, keepdims=True))
    thresholds = np.full(_DRAWS, threshold)
    return Spread(MetricsTable(thresholds, *(expected / worth).T), MetricsTable(thresholds, *(another / worth).T))


def effective_positives(sample: Sample) -> float:
    """Return how many independent positive pictures the positive rows are worth."""
    return sample[sample.labels].effective_size if sample.labels.any() else 0.0


def _cells(sample: Sample, threshold: float) -> Ints:
    """Return for each row which count it adds to: 0 tp, 1 fp, 2 fn, 3 tn."""
    cells: Ints = np.where(above(sample.scores, threshold), 0, 2) + ~sample.labels
    return cells


def _weight_of_rows(sample: Sample, threshold: float) -> tuple[Floats, float]:
    """Return the weight of an independent picture in each of the four counts, and in all."""
    cells, weights = _cells(sample, threshold), sample.weights
    if sample.n_groups < len(cells):
        pairs, places = np.unique(4 * sample.groups + cells, return_inverse=True)
        cells, weights = pairs % 4, np.bincount(places, weights).astype(np.float64)
    worth = float(np.square(weights).sum() / weights.sum())
    sums, squares = np.bincount(cells, weights, 4), np.bincount(cells, weights**2, 4)
    return np.where(sums > 0, squares / np.where(sums > 0, sums, 1.0), worth), worth


def best_threshold_interval(
    sample: Sample,
    population: Population | None,
    curve: Curve,
    choice: Choice,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Interval:
    """Return where the best threshold of all rows that there could be lies; chosen was by `sample` on `curve`.

    In a world where each labelled row matches with the chance that a fitted line gives to its score, samples are drawn,
    and a threshold is chosen on each as it was here: on counts, or, with `population`, on the expected ones of a line
    fitted again. By how much does the best of a sample seem better there than the world's best? What on `curve` is not
    worse than its best by more than that, in all but a share of ``1 - confidence`` of the samples, may be the best. The
    line only tells how large chance is, not where the best lies; so worlds in which no line holds are covered too.

    Where limits must be kept, no such gain can be told, and the distance of a sample's best to the world's is taken.
    """
    rows = sample.first_of_each if sample.n_groups < len(sample.scores) else sample
    rows = rows[np.argsort(rows.scores, kind="stable")]
    limits = choice.constraints
    sure = confidence
    if population is not None:
        sure = (1 + confidence) / 2  # half of the error is kept for a form of the curve that is guessed wrongly
        # Not the curve that was chosen on: what chance gave to the labelled rows there says nothing of others.
        curve = population.expected_curve(rows, known=False)
        world, drawn, thresholds = _fitted_again(rows, population, resamples, rng)
    else:
        world, drawn, thresholds = _drawn_again(rows, choice, resamples, rng)
        if limits.max_matches is not None:
            scaled = max(1, round(limits.max_matches * len(rows.scores) / len(sample.scores)))
            limits = dataclasses.replace(limits, max_matches=scaled)
    choice = dataclasses.replace(choice, constraints=limits)
    (best,), _ = _best(world, choice)
    places, values = _best(drawn, choice)
    if limits.masks(world):
        distance = np.quantile(thresholds[places] - thresholds[best], [(1 + confidence) / 2, (1 - confidence) / 2])
        low, high = (choice.threshold - distance).tolist()
        return min(low, choice.threshold), max(high, choice.threshold)
    gains = values[np.arange(len(places)), places] - values[:, best]
    seen = np.asarray(choice.objective.value(curve), dtype=np.float64)
    near = np.flatnonzero(seen >= seen.max() - np.quantile(gains, sure) - 1e-12)
    first, last = int(near[0]), int(near[-1])
    edges = curve.thresholds
    low = float(curve.scores[first - 1]) if first else float(edges[0])
    high = float(curve.scores[last]) if last < len(curve.scores) else float(edges[-1])
    return min(low, choice.threshold), max(high, choice.threshold)


def _best(table: MetricsTable, choice: Choice) -> tuple[Ints, Floats]:
    """Return the best cut of each sample, and all values; where no cut keeps the limits the strictest stands in."""
    values = np.atleast_2d(np.asarray(choice.objective.value(table), dtype=np.float64))
    feasible = np.ones(values.shape, dtype=np.bool_)
    for mask in choice.constraints.masks(table).values():
        feasible &= mask
    feasible[~feasible.any(axis=1), -2] = True
    return best_cut(values, np.atleast_2d(table.f1), feasible)[0].astype(np.int64), values


def _drawn_again(
    rows: Sample, choice: Choice, resamples: int, rng: np.random.Generator
) -> tuple[MetricsTable, MetricsTable, Floats]:
    """Return the counts of the world of ascending rows, those of samples of it, and the thresholds of the cuts.

    Cuts are spaced by the positives that lie between, and closer around the best of the world.
    """
    own = Population.of(rows.scores)
    standard = own.standard(rows.scores)
    line = fit_line(*_binned(standard, rows.labels))
    chance = chances(line, standard)
    (best,), _ = _best(
        _at_cuts(chance, 1 - chance), dataclasses.replace(choice, constraints=type(choice.constraints)())
    )
    starts = _starts(chance, int(best))
    hits, misses = (np.add.reduceat(side, starts) for side in (chance, 1 - chance))
    shape = (resamples, len(starts))
    drawn_hits, drawn_misses = rng.poisson(hits, shape), rng.poisson(misses, shape)
    some = drawn_hits.any(axis=1)  # without a positive nothing would have been chosen
    if not some.any():
        drawn_hits[:, -1], some = 1, ~some
    ends = midways(rows.scores)[np.append(starts, len(chance))]
    return _at_cuts(hits, misses), _at_cuts(drawn_hits[some], drawn_misses[some]), ends


def _fitted_again(
    rows: Sample, population: Population, resamples: int, rng: np.random.Generator
) -> tuple[MetricsTable, MetricsTable, Floats]:
    """Return the same of a population, on which is chosen by a line fitted to rows that keep their scores."""
    standard, hits, trials = _binned(population.standard(rows.scores), rows.labels)
    line = fit_line(standard, hits, trials)
    again = rng.binomial(trials.astype(np.int64), chances(line, standard), (resamples, len(standard)))
    lines = fit_lines(standard, again.astype(np.float64), trials, len(line))
    thin = population.thinned(_THINNED)
    at = thin.standard(thin.scores)
    world, drawn = (thin.rows * chances(one, at) for one in (line, lines))
    return _at_cuts(world, thin.rows - world), _at_cuts(drawn, thin.rows - drawn), midways(thin.scores)


def _at_cuts(hits: NDArray[np.generic], misses: NDArray[np.generic]) -> MetricsTable:
    """Turn positives and negatives between cuts, shape (..., m), into the four counts at the cuts, (..., m + 1)."""
    tp, fp = (
        np.concatenate([np.cumsum(side[..., ::-1], axis=-1)[..., ::-1], np.zeros((*side.shape[:-1], 1))], axis=-1)
        for side in (hits, misses)
    )
    return MetricsTable(np.arange(tp.shape[-1], dtype=np.float64), tp, fp, tp[..., :1] - tp, fp[..., :1] - fp)


def _starts(chance: Floats, best: int) -> Ints:
    """Return the first rows, ascending, that match at each of some cuts."""
    below = np.cumsum(chance)
    total = float(below[-1])
    middle = float(below[best - 1]) if best else 0.0
    reach = 3 * total ** (2 / 3)  # the best of a sample strays by the cube root of its size
    near = np.linspace(max(0.0, middle - reach), min(total, middle + reach), _CUTS)
    wanted = np.concatenate([np.linspace(0, total, _CUTS), near])
    places = np.minimum(np.searchsorted(below, wanted), len(chance) - 1)
    top = np.arange(max(0, len(chance) - _TOP), len(chance))
    return np.unique(np.concatenate([[0], places, top])).astype(np.int64)


def _binned(standard: Floats, labels: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Return mean score, positives and rows of bins of ascending rows, which are narrow towards the top."""
    n = len(standard)
    if n <= 2 * _BINS:
        return standard, labels.astype(np.float64), np.ones(n)
    top = n - np.geomspace(1, n, _BINS).round().astype(np.int64)
    starts = np.unique(np.concatenate([np.linspace(0, n - 1, _BINS).astype(np.int64), top]))
    rows = np.diff(np.append(starts, n)).astype(np.float64)
    return np.add.reduceat(standard, starts) / rows, np.add.reduceat(labels.astype(np.float64), starts), rows
