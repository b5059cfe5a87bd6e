"""Intervals and figures of a calibration: does the truth lie inside as often as claimed? And reviewed labels?

Given labels are a random sample; reviewed ones were picked near a threshold and at random, in rounds, from a store of
which every row's truth is known. Where labels tell nothing an interval holds all that there can be (that of the best
threshold is missing), and is counted as it stands: the table says of how many draws that is so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import UnreachableError
from embedstore.measures.calibration import Calibration, calibrate_scores
from embedstore.measures.choice import choose_threshold
from embedstore.measures.curves import precision_recall
from embedstore.measures.rates import Metrics
from embedstore.measures.samples import as_sample, holdouts
from measuring.cell import Cell, at_most, covers, is_above
from measuring.worlds import Binormal

FIGURES = ("precision", "recall", "f1")
Store = tuple[NDArray[np.float32], NDArray[np.bool_]]
_SIZES = {40: 1, 300: 1, 2_000: 2, 20_000: 8, 100_000: 20}
"""Labelled rows, and by what the number of draws is divided."""
_REVIEWED = ((40, 0.05, 1.0), (40, 0.2, 1.5), (400, 0.05, 1.0), (400, 0.2, 1.5))
_STORE = 10_000
_QUICK = {"repeats": 2, "resamples": 200}


def cells(draws: int, seed: int) -> Iterator[Cell]:
    """Yield the cells of all statements."""
    for (n, divisor), prevalence in product(_SIZES.items(), (0.001, 0.01, 0.1, 0.5)):
        yield from given(Binormal(prevalence), n, max(20, draws // divisor), seed)
    for labels, prevalence, spread in _REVIEWED:
        yield from reviewed(Binormal(prevalence, spread=spread), labels, max(20, draws // 3), seed)
    for separation, spread, prevalence in product((1.5, 3.0), (1.0, 1.5), (0.05, 0.3)):
        yield choosing(Binormal(prevalence, separation, spread), max(20, draws * 3 // 5), seed)
    yield from validations(draws, seed)


def given(world: Binormal, n: int, draws: int, seed: int) -> Iterator[Cell]:
    """Yield how often each interval of a calibration on `n` random rows covers what it is said to cover."""
    rng = np.random.default_rng([seed, n, int(world.prevalence * 1e6)])
    inside: Counter[str] = Counter()
    best = world.best()
    for draw in range(draws):
        found = calibrate_scores(*world.draw(n, rng), seed=draw, **_QUICK)
        threshold = found.threshold
        truth = {name: float(getattr(world, name)(threshold)) for name in FIGURES}
        _count(inside, found, truth, precision_recall(*world.draw(n, rng)).at(threshold), best)
    where = f"given, n {n:,}, {world.prevalence:.1%} positive"
    yield from _coverage(inside, where, draws)


def reviewed(world: Binormal, labels: int, draws: int, seed: int) -> Iterator[Cell]:
    """Yield the same for as many labels of a review in two rounds, half of them near the threshold; and the bias."""
    rng = np.random.default_rng([seed, labels, int(world.prevalence * 1e6), int(world.spread * 10)])
    inside: Counter[str] = Counter()
    errors, plain = [], []
    best = world.best()
    for draw in range(draws):
        store = world.draw(_STORE, rng)
        every = precision_recall(*store)
        sheet = _review(store, labels, rng)
        found = _calibrated(store, sheet, seed=draw, **_QUICK)
        truth = every.at(found.threshold)
        seen = {name: float(getattr(truth, name)) for name in FIGURES}
        rows, weights, _ = _review(store, labels, rng)
        other = precision_recall(store[0][rows], store[1][rows], weights).at(found.threshold)
        _count(inside, found, seen, other, best)
        errors.append(found.figures["f1"] - truth.f1)
        plain.append(precision_recall(store[0][sheet[0]], store[1][sheet[0]]).at(found.threshold).f1 - truth.f1)
    where = f"reviewed, n {labels}, {world.prevalence:.1%} positive, spread {world.spread}"
    yield from _coverage(inside, where, draws)
    bias, naive = float(np.mean(errors)), float(np.mean(plain))
    if labels >= 400:  # with so few random rows that half of the draws tell nothing F1 has no mean to speak of
        yield Cell("bias of F1 by weights", f"{where}; without {naive:+.3f}", bias, "+-0.03", abs(bias) <= 0.03, draws)


def choosing(world: Binormal, draws: int, seed: int) -> Cell:
    """Return how much the true F1 of a threshold by 40 reviewed labels exceeds that by 80 random ones, on average."""
    rng = np.random.default_rng([seed, int(world.prevalence * 1e6), int(world.separation * 10)])
    gains = []
    for _ in range(draws):
        scores, truth = world.draw(_STORE, rng)
        rows = rng.permutation(_STORE)[:80]
        every = precision_recall(scores, truth)
        by_random = 0.0
        if truth[rows].any():
            by_random = every.at(calibrate_scores(scores[rows], truth[rows], resamples=0, repeats=1).threshold).f1
        found = _calibrated((scores, truth), _review((scores, truth), 40, rng), resamples=0, validation="none")
        gains.append(every.at(found.threshold).f1 - by_random)
    where = f"{world.prevalence:.0%} positive, separation {world.separation}, spread {world.spread}"
    return is_above("F1 by 40 reviewed labels less that by 80 random ones", where, np.array(gains), 0.0)


def validations(draws: int, seed: int) -> Iterator[Cell]:
    """Yield how often the sentence on the measurement names other rows than those that a plain loop can decide."""
    rng = np.random.default_rng(seed)
    wishes: dict[str, Any] = {"objective": "recall", "min_precision": 0.9}
    wrong = tried = 0
    for _ in range(draws):
        scores, labels = Binormal(0.4, 3.0).draw(int(rng.integers(60, 400)), rng)
        try:
            found = calibrate_scores(scores, labels, repeats=2, resamples=0, seed=1, **wishes)
        except UnreachableError:
            continue
        partition, sample = np.random.default_rng(1), as_sample(scores, labels, None)
        parts = [part for _ in range(2) for part in holdouts(sample, "kfold", 5, 0.5, partition)[0]]
        done = sum(_can_choose(scores[~held], labels[~held], wishes) for held in parts)
        told = "on the rows that it was chosen on (" if not done else "by 5-fold cross-validation, 2 times"
        told += f", in {done} of {len(parts)} folds" if 0 < done < len(parts) else ""
        tried += 1
        wrong += not (found.validation.startswith(told) and (not done or found.validation == told))
    yield at_most("validation says what was not done", "precision >= 0.9 from 60 to 400 labels", wrong, tried, 0.0)


def _can_choose(scores: NDArray[np.float32], labels: NDArray[np.bool_], wishes: dict[str, Any]) -> bool:
    try:
        choose_threshold(precision_recall(scores, labels), **wishes)
    except UnreachableError:
        return False
    return True


def _review(
    store: Store, labels: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return rows that two rounds pick, half near the threshold and half at random; their weights; the random ones.

    The first round is near a score that 3 % of the rows exceed, the second near the threshold that the first gives.
    """
    scores, truth = store
    order = rng.permutation(len(scores))
    place = np.argsort(order)
    each = labels // 4
    rows, weights = np.empty(0, np.int64), np.empty(0)
    threshold, last = float(np.quantile(scores, 0.97)), 0
    for number in range(2):
        open_rows = np.setdiff1d(np.arange(len(scores)), rows)
        near = open_rows[np.argsort(np.abs(scores[open_rows] - threshold), kind="stable")[:each]]
        others = np.setdiff1d(open_rows, near)
        drawn = others[np.argsort(place[others])[:each]]
        # Each round alone gives totals: what was labelled before counts 1, its own picks 1 by their probability.
        before = np.ones(len(rows)) / 2
        weights = np.concatenate([weights + before, np.full(each, 0.5), np.full(each, len(others) / each / 2)])
        rows, last = np.concatenate([rows, near, drawn]), max(last, int(place[drawn].max()))
        if number == 0 and truth[rows].any():
            sheet = rows, weights, place[rows] <= last
            threshold = _calibrated(store, sheet, resamples=0, validation="none").threshold
    return rows, weights, place[rows] <= last


def _calibrated(store: Store, sheet: Any, **options: Any) -> Calibration:
    """Calibrate on the rows of a review; where none of them is positive the best guess is one more that is."""
    (scores, truth), (rows, weights, random) = store, sheet
    if not truth[rows].any():
        found = np.flatnonzero(truth)[:1]
        rows, weights, random = np.append(rows, found), np.append(weights, np.nan), np.append(random, False)
    return calibrate_scores(
        scores[rows], truth[rows], sample_weight=weights, random=random, population=scores, **options
    )


def _count(inside: Counter[str], found: Calibration, truth: dict[str, float], other: Metrics, best: float) -> None:
    """Add which intervals of a calibration hold the truth, and which all that there can be."""
    low, high = found.intervals.get("threshold", (-np.inf, np.inf))
    inside["best"] += low <= best <= high
    inside["no best"] += "threshold" not in found.intervals
    for name in FIGURES:
        (low, high), (least, most) = found.intervals[name], found.prediction_intervals[name]
        inside[name] += low <= truth[name] <= high
        inside[f"another {name}"] += least <= getattr(other, name) <= most
    inside["all"] += found.intervals["f1"] == (0.0, 1.0)


def _coverage(inside: Counter[str], where: str, draws: int) -> Iterator[Cell]:
    """Yield a cell for each kind of interval; of the three figures the one that is covered least."""
    not_told = f"{where}, {inside['no best'] / draws:.0%} not told"
    yield covers("best threshold of all rows", not_told, inside["best"], draws)
    not_told = f"{where}, {inside['all'] / draws:.0%} not told"
    for sample in ("", "another "):
        name = min(FIGURES, key=lambda name: inside[sample + name])
        whose = "another sample" if sample else "all rows"
        yield covers(f"figures of this threshold, {whose} ({name})", not_told, inside[sample + name], draws)
