"""Labelled scores -> the spread of threshold and figures over other samples: a vectorised bootstrap.

Resampled are pictures (groups of equal content), not rows, so copies count once as evidence. What the spread means
for a reported figure is left to `calibration`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedstore.measures.choice import Constraints, Objective, best_cut
from embedstore.measures.curves import Curve, precision_recall
from embedstore.measures.rates import Floats, Ints, Metrics, MetricsTable
from embedstore.measures.samples import Sample

MAX_CUTS = 1024
CHUNK = 250


class Spread(NamedTuple):
    """Thresholds and counts of pictures, one row for each resample."""

    expected: MetricsTable
    """What the counts are on average, over all samples of this size: how far the labels leave that open."""
    another: MetricsTable
    """What they are on one other sample of this size, chance included."""


def bootstrap(
    chosen_on: Sample,
    measured_on: Sample,
    reported: Metrics,
    objective: Objective,
    limits: Constraints,
    resamples: int,
    rng: np.random.Generator,
    fixed: bool = False,
) -> Spread:
    """Return thresholds, and counts that are to be expected and on another sample as `measured_on`, over resamples.

    Each resample draws the pictures of `chosen_on` with replacement and chooses a threshold on them. The counts
    of `measured_on` at that threshold, less half the optimism that the report shows, then say what another sample
    would count: shares are drawn from their posterior (Dirichlet, with Jeffreys' 1/2 added to each count, so that
    a count of zero is not taken for impossible), and counts from those shares. So the spread holds the chance in
    the choice, the chance that brought these labels, and the chance that will bring others.

    With a guaranteed constraint the choice is not repeated (it rests on tests, which copies within a resample
    would fool): the reported threshold is taken throughout.

    Up to 1,024 cuts, equally spaced in rank, are candidates: all there are up to 1,023 distinct scores.
    """
    if fixed or limits.guaranteed:
        chosen = np.full(resamples, reported.threshold)
    else:
        edges = _spread(precision_recall(chosen_on.scores, chosen_on.labels).thresholds)
        binned = _Binned(chosen_on, edges)
        sizes = [min(CHUNK, resamples - done) for done in range(0, resamples, CHUNK)]
        chosen = np.concatenate([_choose(binned, edges, objective, limits, size, rng) for size in sizes])
    counted = measured_on.weights if measured_on.is_weighted else None
    counts = _expected(precision_recall(measured_on.scores, measured_on.labels, counted), reported, chosen)
    pictures = measured_on.effective_size
    shares = rng.standard_gamma(counts * (pictures / counts.sum(axis=1, keepdims=True)) + 0.5)
    shares /= shares.sum(axis=1, keepdims=True)
    another = rng.multinomial(max(1, round(pictures)), shares)
    return Spread(MetricsTable(chosen, *(shares * pictures).T), MetricsTable(chosen, *another.T))


def _expected(curve: Curve, reported: Metrics, chosen: Floats) -> Floats:
    """Return tp, fp, fn, tn at some thresholds, shape (len(chosen), 4), less half the optimism of counting there.

    Counting the rows that the threshold was chosen on flatters; what was held out falls short, as it was chosen
    for by fewer rows. Halfway lies nearer than either.
    """
    here, there = curve.at(reported.threshold), curve.at(chosen)
    n_pos, n_neg = curve.n_pos, curve.n_neg
    measured = reported.tp + reported.fn + reported.fp + reported.tn
    scale = curve.n / measured if measured else 1.0
    tp = np.clip(there.tp + (reported.tp * scale - here.tp) / 2, 0, n_pos)
    fp = np.clip(there.fp + (reported.fp * scale - here.fp) / 2, 0, n_neg)
    return np.stack([tp, fp, n_pos - tp, n_neg - fp], axis=1).astype(np.float64)


def _choose(
    binned: _Binned,
    edges: Floats,
    objective: Objective,
    limits: Constraints,
    size: int,
    rng: np.random.Generator,
) -> Floats:
    """Return the thresholds chosen on `size` resamples."""
    drawn = _table(edges, binned.draw(size, rng))
    values = np.asarray(objective.value(drawn))
    return edges[best_cut(values, drawn.f1, _feasible(drawn, limits))[0]]


def _feasible(drawn: MetricsTable, limits: Constraints) -> NDArray[np.bool_]:
    """Say which cuts keep the limits in each resample; where none does, the strictest cut with a match stands in."""
    kept = limits.masks(drawn)
    feasible: NDArray[np.bool_] = np.logical_and.reduce([np.ones(drawn.tp.shape, dtype=np.bool_), *kept.values()])
    feasible[~feasible.any(axis=1), -2] = True
    return feasible


def _table(edges: Floats, counts: Ints) -> MetricsTable:
    """Turn counts by bin and label, shape (size, cuts + 1, 2), into counts at each cut, shape (size, cuts)."""
    # Bin b holds the rows that exceed exactly the first b edges: they match at cuts 0 to b - 1.
    matched = np.cumsum(counts[:, :0:-1], axis=1)[:, ::-1]
    total = counts.sum(axis=1, keepdims=True)
    fp, tp = matched[..., 0], matched[..., 1]
    return MetricsTable(edges, tp, fp, total[..., 1] - tp, total[..., 0] - fp)


def _spread(thresholds: Floats) -> Floats:
    """Return at most `MAX_CUTS` of the thresholds, the first and the last among them."""
    if len(thresholds) <= MAX_CUTS:
        return thresholds
    return thresholds[np.linspace(0, len(thresholds) - 1, MAX_CUTS).round().astype(np.intp)]


class _Binned:
    """A sample as counts by bin (between edges) and label: all that a figure at an edge depends on."""

    def __init__(self, sample: Sample, edges: Floats) -> None:
        self.sample = sample
        self.bins = len(edges) + 1
        # Scores are widened: an edge between two float32 scores is not a float32 number.
        bins = np.searchsorted(edges, sample.scores.astype(np.float64), side="left")
        self.cells = 2 * bins + sample.labels
        self.has_copies = sample.n_groups < len(sample.scores)

    def draw(self, size: int, rng: np.random.Generator) -> Ints:
        """Return counts of `size` resamples, shape (size, bins, 2)."""
        if self.has_copies:
            counts = np.stack([self._draw_groups(rng) for _ in range(size)])
        else:
            n = len(self.cells)
            shares = np.bincount(self.cells, minlength=2 * self.bins) / n
            counts = rng.multinomial(n, shares, size=size)
        return counts.reshape(size, self.bins, 2)

    def _draw_groups(self, rng: np.random.Generator) -> Ints:
        """Draw pictures with all their rows; a picture's rows may lie in several cells."""
        n = self.sample.n_groups
        weights = np.bincount(rng.integers(n, size=n), minlength=n)[self.sample.groups]
        return np.bincount(self.cells, weights=weights, minlength=2 * self.bins).astype(np.int64)
