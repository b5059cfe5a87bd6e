"""Scores and curves of P(match | score) -> how many random labels would certify a limit, by trying it many times.

For each curve rows are drawn at random, labelled by chance as the curve has it, and given to the real test of `choice`,
more and more of them. How often the limit is certified is the chance that so many labels have. The curves are made by
`logistic`; labels, queries and sentences are left to `deciding`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from embedstore.measures.choice import Constraints, Objective, choose
from embedstore.measures.curves import Curve, precision_recall
from embedstore.measures.logistic import MatchCurves, Thinned
from embedstore.measures.rates import Floats, Ints
from embedstore.vectors import Positions

Bools = NDArray[np.bool_]

_COARSE, _FINE = 2.5, 1.15
_FEWEST = 10
_UNLIKELY = 0.5
"""Labels are not tried at all where so few of the curves have a threshold that keeps the limit."""
_SURE = 0.95
"""More labels are not tried once the chance is so large."""


@dataclass(frozen=True)
class Outcome:
    """What a threshold is expected to be worth over the whole store: means over the worlds that have one."""

    threshold: float
    matches: float
    precision: float
    recall: float


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What was seen when labelling was tried."""

    sizes: Ints
    """Numbers of further random labels, ascending from 0."""
    chances: Floats
    """Of each, the share of tries in which the limit was certified."""
    needed: int | None
    """The smallest of the sizes that, like the next, has the chance that was asked for; None where none has."""
    possible: float
    """Share of the curves with which some threshold keeps the limit at all, however many labels there are."""
    best_precision: float
    """The highest precision over the store that a threshold is expected to have; with a limit of recall, that keeps it.

    Mean over the curves, of thresholds with at least `fewest` matches."""
    fewest: int
    kept: Outcome | None
    """With the guarantee, of `needed` labels (or the most that were tried); None where it was never certified."""
    bare: Outcome | None
    """Without it, on the same labels of the same worlds: the limit kept on the labelled rows only."""
    near: float | None
    """The chance when half of `needed` labels are the nearest to the threshold instead."""
    deciding: float
    """How many of `needed` random labels are expected above the threshold."""


@dataclass(frozen=True, eq=False)
class Store:
    """The rows that may still be labelled, and what is known."""

    scores: Floats
    """Of all rows, shape (n,)."""
    unlabelled: Positions
    seen_scores: Floats
    """Of the rows that are labelled and a random sample."""
    seen_labels: Bools

    @cached_property
    def thinned(self) -> Thinned:
        """All scores, by fewer values."""
        return Thinned.of(self.scores)


def rehearse(
    store: Store,
    curves: MatchCurves,
    goal: Objective,
    limits: Constraints,
    chance: float,
    most: int,
    rng: np.random.Generator,
    progress: Callable[[float], object] = lambda share: None,
) -> Rehearsal:
    """Try further random labels, from none to `most`, in one world for each curve.

    Parameters
    ----------
    store : Store
    curves : MatchCurves
    goal, limits : Objective, Constraints
        What is asked of the threshold; the limits are guaranteed.
    chance : float
        In (0, 1): how often it is to be certified.
    most : int
        No more labels are tried, nor more than there are unlabelled rows.
    rng : Generator
    progress : callable
        Is told which share of the work is done.
    """
    most = min(most, len(store.unlabelled))
    fewest = 1 if limits.min_precision is None else _fewest(limits)
    possible, best = _reachable(store.thinned, curves, limits, fewest)
    worlds = [_World(store, curves, number, most, rng) for number in range(len(curves))]
    tried: dict[int, float] = {}
    for sizes in (_coarse(most) if possible >= _UNLIKELY else [0], None):
        for size in _between(tried, chance) if sizes is None else sizes:
            tried[size] = float(np.mean([_certifies(world.curve(size), limits) for world in worlds]))
            progress(sum(tried) / (2 * max(most, 1)))
            if tried[size] >= max(chance, _SURE) and sizes:
                break
    progress(1.0)
    sizes, chances = sorted(tried), [tried[size] for size in sorted(tried)]
    needed = _needed(sizes, chances, chance)
    size = sizes[-1] if needed is None else needed
    kept, bare = _cost(worlds, size, goal, limits)
    near, deciding = None, 0.0
    if kept is not None and needed:
        nearest = _nearest(store.scores[store.unlabelled], kept.threshold, size // 2)
        near = float(np.mean([_certifies(world.mixed(size, nearest, rng), limits) for world in worlds]))
        deciding = float(np.mean([(world.drawn[:size] > kept.threshold).sum() for world in worlds]))
    return Rehearsal(np.array(sizes), np.array(chances), needed, possible, best, fewest, kept, bare, near, deciding)


class _World:
    """One truth: a curve, and the rows in the random order in which they would be labelled."""

    def __init__(self, store: Store, curves: MatchCurves, number: int, most: int, rng: np.random.Generator) -> None:
        self.store, self.curves, self.number = store, curves, number
        self.drawn = store.scores[store.unlabelled[rng.choice(len(store.unlabelled), most, replace=False)]]
        self.labels = rng.random(most) < curves.chance(self.drawn, number)

    def curve(self, size: int) -> Curve | None:
        """Return the curve of the random rows that would be labelled after `size` further ones."""
        return _curve(self.store, self.drawn[:size], self.labels[:size])

    def mixed(self, size: int, near: Bools, rng: np.random.Generator) -> Curve | None:
        """Return it where of `size` labels some are those `near` a threshold, of shape (n_unlabelled,).

        Of them count those that the random order comes to before its last row that is labelled, as in a review.
        """
        order = rng.choice(len(near), size, replace=False)
        last = np.flatnonzero(~near[order])[: size - int(near.sum())][-1]
        drawn = self.store.scores[self.store.unlabelled[order[: last + 1]]]
        return _curve(self.store, drawn, rng.random(len(drawn)) < self.curves.chance(drawn, self.number))

    def outcome(self, threshold: float) -> tuple[float, float, float, float]:
        """Return a threshold, and its matches, precision and recall over all rows of the store, as expected."""
        thin = self.store.thinned
        hits = self.curves.chance(thin.values, self.number) * thin.rows
        above = thin.values > threshold
        tp, matches = hits[above].sum(), thin.rows[above].sum()
        return threshold, float(matches), float(tp / max(matches, 1)), float(tp / max(hits.sum(), 1e-300))


def _nearest(scores: Floats, threshold: float, n: int) -> Bools:
    """Return which rows are the `n` nearest to a threshold."""
    near = np.zeros(len(scores), dtype=np.bool_)
    near[np.argsort(np.abs(scores - threshold), kind="stable")[:n]] = True
    return near


def _curve(store: Store, scores: Floats, labels: Bools) -> Curve | None:
    """Return the curve of what is known and what is drawn; None where there is nothing."""
    if not len(store.seen_scores) + len(scores):
        return None
    return precision_recall(np.concatenate([store.seen_scores, scores]), np.concatenate([store.seen_labels, labels]))


def _certifies(curve: Curve | None, limits: Constraints) -> bool:
    """Say whether some threshold that matches something keeps all limits."""
    if curve is None or not curve.n_pos:
        return False
    return bool(np.logical_and.reduce(list(limits.masks(curve).values()))[:-1].any())


def _cost(
    worlds: list[_World], size: int, goal: Objective, limits: Constraints
) -> tuple[Outcome | None, Outcome | None]:
    """Return what thresholds with and without the guarantee are worth, in the worlds in which it is given.

    What is guaranteed is so on the labelled rows, so that a threshold is there without the guarantee too.
    """
    loose = Constraints(limits.min_precision, limits.min_recall, limits.max_matches, None)
    pairs = []
    for world in worlds:
        curve = world.curve(size)
        if curve is not None and _certifies(curve, limits):
            pairs.append([world.outcome(choose(curve, goal, each).threshold) for each in (limits, loose)])
    if not pairs:
        return None, None
    means = np.mean(pairs, axis=0)
    return Outcome(*means[0].tolist()), Outcome(*means[1].tolist())


def _reachable(thin: Thinned, curves: MatchCurves, limits: Constraints, fewest: int) -> tuple[float, float]:
    """Return in which share of the curves the limits can be kept at all, and the best precision expected."""
    rows = thin.rows[::-1].cumsum()
    hits = (curves.chance(thin.values) * thin.rows)[:, ::-1].cumsum(axis=1)
    enough = rows >= min(fewest, rows[-1])
    precision = np.where(enough, hits / rows, 0.0)
    if limits.min_recall is not None:
        precision = np.where(hits >= limits.min_recall * hits[:, -1:], precision, 0.0)
    best = precision.max(axis=1)
    return float((best >= (limits.min_precision or 0.0)).mean()), float(best.mean())


def _fewest(limits: Constraints) -> int:
    """Return how many matches without an error it takes at least to certify a precision."""
    from embedstore.measures.guarantees import fewest_matches

    return fewest_matches(float(limits.min_precision or 0), float(limits.each_confidence or 0))


def _coarse(most: int) -> list[int]:
    """Return numbers of labels to try first: 0, then each two and a half times the one before."""
    steps = range(int(np.log(max(most, _FEWEST) / _FEWEST) / np.log(_COARSE)) + 1)
    return sorted({0, most, *(size for size in (_rounded(_FEWEST * _COARSE**step) for step in steps) if size < most)})


def _between(tried: dict[int, float], chance: float) -> list[int]:
    """Return the numbers to try between the last that has not the chance and the first after it that has."""
    enough = [size for size in sorted(tried) if tried[size] >= chance]
    short = [size for size in sorted(tried) if size < (enough[0] if enough else 0)]
    if not short:
        return []
    low, high = max(short[-1], 1), enough[0]
    steps = int(np.ceil(np.log(high / low) / np.log(_FINE)))
    return [
        size for size in (_rounded(low * (high / low) ** (step / steps)) for step in range(1, steps)) if size < high
    ]


def _rounded(size: float) -> int:
    """Round up to two digits."""
    digits = 10 ** max(0, int(np.log10(size)) - 1)
    return int(np.ceil(size / digits) * digits)


def _needed(sizes: list[int], chances: list[float], chance: float) -> int | None:
    """Return the first size that has the chance, and the next too, where there is one."""
    for place, size in enumerate(sizes):
        if min(chances[place : place + 2]) >= chance:
            return size
    return None
