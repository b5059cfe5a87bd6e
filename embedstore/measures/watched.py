"""Counts on a few random rows -> how many of all rows, with intervals that hold however often one looks.

An interval of `guarantees` holds for one number of labels that was fixed beforehand. Who labels, looks, and labels on
until the figure pleases, needs these: with probability `confidence` they are right after *every* label at once, so that
one may stop for whatever reason. All functions take counts. Which labels are a random sample is told by `deciding`.

Each interval holds the values that the evidence does not refute. The evidence against "P of N rows are positive" is how
much likelier the labels are when P is unknown (spread by a beta(1/2, 1/2) prior) than when it is P: a martingale that
starts at 1, so that it ever exceeds 1 / (1 - confidence) with probability 1 - confidence at most (Ville 1939; Robbins
1970; with replacement Howard, Ramdas, McAuliffe and Sekhon 2021; without replacement, where N rows are finite,
Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement", 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError
from embedstore.measures.chance import Interval
from embedstore.measures.rates import Floats, Ints

_PRIOR = 0.5
_CELLS = 256
"""Steps in which the positives above a threshold are gone through: more are slower, fewer wider by a little."""


class Strata(NamedTuple):
    """Random labels on both sides of a threshold, and how many rows of the store lie there, labelled or not."""

    tp: int
    fp: int
    fn: int
    tn: int
    matches: int
    """Rows above the threshold."""
    others: int
    """Rows not above it."""


def share_interval(hits: ArrayLike, trials: ArrayLike, confidence: float) -> tuple[Floats, Floats]:
    """Return bounds of the share of positives among rows without end, of which `trials` came, `hits` of them positive.

    For rows that are drawn with replacement, or from a source: the share among *further* rows. Of the rows of a store
    see `count_interval`, which is narrower. Arrays of any one shape; (0, 1) where nothing is labelled.
    """
    hit, miss = _counts(hits, trials)
    limit = _limit(confidence)
    mode = np.divide(hit, hit + miss, out=np.full(hit.shape, 0.5), where=hit + miss > 0)

    def refuted(share: Floats) -> NDArray[np.bool_]:
        return np.asarray(_evidence_of_share(share, hit, miss) >= limit)

    return _bisected(refuted, np.zeros_like(mode), mode), _bisected(refuted, np.ones_like(mode), mode)


def count_interval(hits: ArrayLike, trials: ArrayLike, population: ArrayLike, confidence: float) -> tuple[Ints, Ints]:
    """Return bounds of the number of positives among `population` rows, of which `trials` were drawn at random.

    Without replacement, `hits` of the drawn rows are positive: when all are drawn, both bounds are `hits`. Arrays of
    any one shape. Raises InputError where the counts contradict each other.
    """
    hit, miss = _counts(hits, trials)
    rows = np.asarray(population, dtype=np.int64)
    if (hit + miss > rows).any():
        raise InputError("more rows are labelled than there are; count each row of the store once")
    return _unrefuted(hit, miss, np.broadcast_to(rows, hit.shape), np.full(hit.shape, _limit(confidence)))


def count_evidence(positives: ArrayLike, hits: ArrayLike, trials: ArrayLike, population: ArrayLike) -> Floats:
    """Return the logarithm of the evidence against `positives` of `population` rows; infinite where that cannot be.

    `count_interval` holds the numbers for which this is below -log(1 - confidence).
    """
    hit, miss = _counts(hits, trials)
    return _evidence(np.asarray(positives, dtype=np.int64), hit, miss, np.asarray(population, dtype=np.int64))


def rate_intervals(counts: Strata, confidence: float) -> dict[str, Interval]:
    """Return the intervals of ``precision``, ``recall`` and ``f1`` of a threshold over all rows of a store.

    The random rows above the threshold are a random sample of those there, and those below of those below. So
    precision has the interval of one share. Recall and F1 depend on both sides: they range over all pairs (positives
    above, positives below) that the product of both sides' evidence does not refute, which is a martingale again, in
    whatever order the labels came. No union bound is spent; recall and F1 hold together, precision on its own. The
    threshold must not have been chosen by these labels.
    """
    above = np.asarray(counts.tp), np.asarray(counts.fp), np.asarray(counts.matches)
    lowest, highest = count_interval(counts.tp, counts.tp + counts.fp, counts.matches, confidence)
    rows = counts.matches
    precision = (float(lowest) / rows, float(highest) / rows) if rows else (0.0, 0.0)
    recall, f1 = _of_both_sides(counts, above, _limit(confidence))
    return {"precision": precision, "recall": recall, "f1": f1}


def _of_both_sides(counts: Strata, above: tuple[Ints, Ints, Ints], limit: float) -> tuple[Interval, Interval]:
    """Return the bounds of recall and of F1 over the pairs that are not refuted.

    Both rise with the positives above and fall with those below. So at the low end each number of positives above is
    paired with the most below that the rest of the evidence leaves, at the high end with the fewest. The numbers are
    taken in steps; of a step the value furthest out is paired with the least refuted, so that no bound is too narrow.
    """
    below = np.asarray(counts.fn), np.asarray(counts.tn), np.asarray(counts.others)
    middle_above, middle_below = _mode(*above), _mode(*below)
    least = float(_evidence(middle_below, *below))
    low, high = (int(end) for end in _unrefuted(*above, np.asarray(limit - least)))
    ends = []
    for end, most in ((low, True), (high, False)):
        way = np.unique(np.linspace(end, int(middle_above), _CELLS).round().astype(np.int64))[:: 1 if most else -1]
        inner = np.append(way[1:] - np.sign(int(middle_above) - end), way[-1])
        left = np.maximum(limit - _evidence(inner, *above), np.nextafter(least, np.inf))
        hit, miss, others = (np.broadcast_to(side, left.shape) for side in below)
        found = _unrefuted(hit, miss, others, left)[1 if most else 0]
        ends.append((way.astype(np.float64), found.astype(np.float64)))
    (few, many_missed), (many, few_missed) = ends
    nothing = many + few_missed == 0
    recalls = [_share(few, few + many_missed).min(), np.where(nothing, 1.0, _share(many, many + few_missed)).max()]
    f1s = [_share(2 * few, counts.matches + few + many_missed).min()]
    f1s.append(_share(2 * many, counts.matches + many + few_missed).max())
    return (float(recalls[0]), float(recalls[1])), (float(f1s[0]), float(f1s[1]))


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _limit(confidence: float) -> float:
    """Return how large the logarithm of the evidence may become."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, found {confidence!r}")
    return -math.log1p(-confidence)


def _counts(hits: ArrayLike, trials: ArrayLike) -> tuple[Ints, Ints]:
    """Return hits and misses, or say that they are none."""
    hit, trial = np.broadcast_arrays(np.asarray(hits, dtype=np.int64), np.asarray(trials, dtype=np.int64))
    if (hit < 0).any() or (hit > trial).any():
        raise InputError("hits must be at least 0 and at most the number of trials")
    return hit, trial - hit


def _evidence_of_share(share: Floats, hit: Ints, miss: Ints) -> Floats:
    """Return the logarithm of the evidence against a share."""
    from scipy.special import betaln, xlog1py, xlogy  # scipy costs a fifth of a second to import

    mixed = betaln(hit + _PRIOR, miss + _PRIOR) - betaln(_PRIOR, _PRIOR)
    return np.asarray(mixed - xlogy(hit, share) - xlog1py(miss, -share), dtype=np.float64)


def _evidence(positives: Ints, hit: Ints, miss: Ints, population: Ints) -> Floats:
    """Return the logarithm of the evidence against a number of positives; infinite where it cannot be."""
    from scipy.special import betaln, gammaln  # as above

    negatives = population - positives
    possible = (positives >= hit) & (negatives >= miss)
    mixed = betaln(hit + _PRIOR, miss + _PRIOR) - betaln(_PRIOR, _PRIOR)
    left_positives, left_negatives = np.maximum(positives - hit, 0), np.maximum(negatives - miss, 0)
    drawn = gammaln(np.maximum(positives, 0) + 1.0) - gammaln(left_positives + 1.0)
    drawn = drawn + gammaln(np.maximum(negatives, 0) + 1.0) - gammaln(left_negatives + 1.0)
    drawn = drawn + gammaln(population - hit - miss + 1.0) - gammaln(population + 1.0)
    return np.where(possible, mixed - drawn, np.inf)


def _mode(hit: Ints, miss: Ints, population: Ints) -> Ints:
    """Return a number of positives that the labels refute least."""
    trials = hit + miss
    guess = np.where(trials > 0, (population + 1) * hit // np.maximum(trials, 1), population // 2)
    return np.clip(guess, hit, population - miss)


def _unrefuted(hit: Ints, miss: Ints, population: Ints, limit: Floats) -> tuple[Ints, Ints]:
    """Return the smallest and the largest number of positives with evidence below `limit`, which the mode's must be."""
    middle = _mode(hit, miss, population)

    def furthest(end: Ints) -> Ints:
        """Halve the way from the middle to an end until the last number that is not refuted is found."""
        inside, outside = middle.astype(np.int64), end + np.sign(end - middle)
        while (np.abs(outside - inside) > 1).any():
            half = (inside + outside) // 2
            kept = _evidence(half, hit, miss, population) < limit
            inside, outside = np.where(kept, half, inside), np.where(kept, outside, half)
        return inside

    return furthest(hit), furthest(population - miss)


def _bisected(refuted: Callable[[Floats], NDArray[np.bool_]], end: Floats, middle: Floats) -> Floats:
    """Return where a share on the way from the middle to an end begins to be refuted, from outside."""
    inside, outside = middle, np.where(refuted(end), end, middle)
    for _ in range(60):
        half = (inside + outside) / 2
        kept = ~refuted(half)
        inside, outside = np.where(kept, half, inside), np.where(kept, outside, half)
    return np.where(refuted(end), outside, end)
