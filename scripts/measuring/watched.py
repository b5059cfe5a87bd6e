"""Intervals that are looked at after every label: in how many runs one is ever wrong, of stores of known truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from embedstore.measures.watched import Strata, count_evidence, rate_intervals, share_interval
from measuring.cell import Cell, at_most
from measuring.worlds import Binormal

ROWS, LABELS = 10_000, 1_000
PREVALENCES = (0.001, 0.01, 0.05, 0.1, 0.3, 0.5)
_LIMIT = -np.log(0.05)

Bools = NDArray[np.bool_]


def cells(draws: int, seed: int) -> Iterator[Cell]:
    """Yield cells of runs of 1,000 labels: counts, precision, recall, F1; and what bounds for one look would do."""
    one_look = 0
    for prevalence in PREVALENCES:
        rng = np.random.default_rng([seed, int(prevalence * 1e6)])
        where = f"{prevalence:.1%} positive, {LABELS:,} looks"
        further = rng.random((draws, LABELS)) < prevalence
        yield at_most("watched: share of further rows", where, _wrong_shares(further, prevalence), draws, 0.05)
        wrong = np.zeros(4, dtype=np.int64)
        world = Binormal(prevalence)
        threshold = world.best()
        for _ in range(draws):
            scores, truth = world.draw(ROWS, rng)
            above = scores > threshold
            order = rng.permutation(ROWS)[:LABELS]
            hits, trials = np.cumsum(truth[order]), np.arange(1, LABELS + 1)
            wrong[0] += (count_evidence(truth.sum(), hits, trials, ROWS) >= _LIMIT).any()
            wrong[1:] += _wrong_rates(truth, above, order)
            one_look += prevalence == 0.1 and _wrong_by_one_look(hits, trials, truth.mean())
        for name, number in zip(("how many of 10,000", "precision", "recall", "F1"), wrong.tolist(), strict=True):
            yield at_most(f"watched: {name}", where, number, draws, 0.05)
    share = one_look / draws
    where = f"10.0% positive, {LABELS:,} looks"
    yield Cell("bounds for one look (Clopper-Pearson), watched", where, share, "> 10.0%: no use", share > 0.1, draws)


def _wrong_shares(positive: Bools, share: float) -> int:
    """Count the runs in which the interval ever leaves out the share."""
    hits, trials = np.cumsum(positive, axis=1), np.arange(1, positive.shape[1] + 1)
    low, high = share_interval(hits, trials, 0.95)
    return int(((share < low) | (share > high)).any(axis=1).sum())


def _wrong_rates(truth: Bools, above: Bools, order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say whether the intervals of precision, recall and F1 are ever wrong in one run.

    They hold what a region holds, so they need to be looked at only where the truth is outside that.
    """
    tp, matches = np.cumsum(truth[order] & above[order]), np.cumsum(above[order])
    fn, others = np.cumsum(truth[order] & ~above[order]), np.cumsum(~above[order])
    all_tp, all_fn, rows_above = int((truth & above).sum()), int((truth & ~above).sum()), int(above.sum())
    against = count_evidence(all_tp, tp, matches, rows_above)
    both = against + count_evidence(all_fn, fn, others, len(truth) - rows_above)
    wrong = np.array([(against >= _LIMIT).any(), False, False])
    recall, f1 = all_tp / (all_tp + all_fn), 2 * all_tp / (rows_above + all_tp + all_fn)
    for look in np.flatnonzero(both >= _LIMIT):
        seen = Strata(
            *(int(n) for n in (tp[look], matches[look] - tp[look], fn[look], others[look] - fn[look])),
            matches=rows_above,
            others=len(truth) - rows_above,
        )
        found = rate_intervals(seen, 0.95)
        for number, (name, value) in enumerate((("recall", recall), ("f1", f1)), 1):
            wrong[number] |= not found[name][0] <= value <= found[name][1]
    return wrong


def _wrong_by_one_look(hits: NDArray[np.int64], trials: NDArray[np.int64], share: float) -> bool:
    """Say whether the two-sided 95 % interval of Clopper and Pearson ever leaves out the share."""
    above = np.where(hits > 0, betainc(np.maximum(hits, 1), trials - hits + 1, share), 1.0)
    below = np.where(hits < trials, betainc(hits + 1, np.maximum(trials - hits, 1), share), 0.0)
    return bool(((above < 0.025) | (1 - below < 0.025)).any())
