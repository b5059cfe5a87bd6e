"""Labels from reviews: rows near a threshold and at random, in one round or two, in a store of known truth.

What was said of such labels when each row counted alike stands beside what is said of them now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.deciding.rounds import NO, YES, History, Label, pick, random_order
from embedstore.errors import LabelError, UnreachableError
from embedstore.measures.calibration import Calibration, calibrate_scores
from measuring.cell import Cell, at_most, covers, is_above
from measuring.worlds import Binormal

_STORE = 3_000
_IDS = np.array([f"{number:08x}" for number in range(_STORE)], dtype=object)
_SHEETS = {"20+20": ((20, 20),), "60+60": ((60, 60),), "20+20 twice": ((20, 20), (20, 20))}
_LARGE = {"60+60 twice": ((60, 60), (60, 60))}
"""Sheets of so many near and random rows, by round; the large ones let most guarantees be given."""


@dataclass(frozen=True)
class _Store:
    """Scores and truth of all rows of a store."""

    scores: NDArray[np.float32]
    truth: NDArray[np.bool_]

    def rates(self, threshold: float) -> tuple[float, float]:
        """Return the true recall and F1 at a threshold."""
        matched = self.scores.astype(np.float64) > threshold
        hits = float((matched & self.truth).sum())
        return hits / self.truth.sum(), 2 * hits / (matched.sum() + self.truth.sum())


@dataclass(frozen=True)
class _Labels:
    """Labelled rows of a store, and what they stand for."""

    store: _Store
    rows: NDArray[np.int64]
    weights: NDArray[np.float64] | None = None
    random: NDArray[np.bool_] | None = None

    def calibrated(self, weighted: bool = True, **options: Any) -> Calibration | None:
        """Calibrate by these labels, each row alike where not `weighted`; None where that is refused."""
        told: dict[str, Any] = {}
        if weighted:
            told = {"sample_weight": self.weights, "random": self.random, "population": self.store.scores}
        try:
            return calibrate_scores(self.store.scores[self.rows], self.store.truth[self.rows], **told, **options)
        except (UnreachableError, LabelError):
            return None


def _reviewed(store: _Store, sheets: tuple[tuple[int, int], ...], name: str, start: float) -> _Labels:
    """Label some rounds of a store: the first near `start`, the next near what the labels before have chosen."""
    known, history, threshold = np.zeros(_STORE, np.bool_), History(name, ()), start
    for number, (n_near, n_random) in enumerate(sheets, 1):
        order = random_order(name, number, _IDS)
        positions, picked, chance = pick(store.scores, threshold, order, n_near, n_random, known)
        lines = zip(positions.tolist(), picked.tolist(), chance.tolist(), strict=True)
        answers = (
            Label(_IDS[row], YES if store.truth[row] else NO, how, share, number, "", f"2026-01-0{number}")
            for row, how, share in lines
        )
        history = History(name, (*history.lines, *answers))
        known[positions] = True
        if number < len(sheets):
            made = _of(store, history).calibrated(resamples=0, validation="none")
            threshold = start if made is None else made.threshold
    return _of(store, history)


def _of(store: _Store, history: History) -> _Labels:
    """Return the rows of a history with their weights."""
    weighed = history.weighed()
    rows = np.array([int(identity, 16) for identity in history.rows], dtype=np.int64)
    return _Labels(store, rows, weighed.weights, weighed.random)


def cells(draws: int, seed: int) -> Iterator[Cell]:
    """Yield what guarantees, intervals and figures of reviewed labels are worth, and what 40 such labels reach."""
    for (sheet, sizes), prevalence in product((_SHEETS | _LARGE).items(), (0.1, 0.3)):
        yield from _guarantees(sheet, sizes, prevalence, draws, seed)
    for sheet, sizes in _SHEETS.items():
        yield from _figures(sheet, sizes, draws, seed)
    yield from _fewer_labels(draws, seed)


def _stores(draws: int, seed: list[int], prevalence: float) -> Iterator[tuple[_Store, float, str]]:
    """Yield stores, each with a threshold that is off the best one, as before any labels, and a name."""
    world, rng = Binormal(prevalence), np.random.default_rng(seed)
    best = world.best()
    for number in range(draws):
        store = _Store(*world.draw(_STORE, rng))
        yield store, best + 0.5 * world.scale * float(rng.standard_normal()), f"draw {seed} {number}"


def _guarantees(
    sheet: str, sizes: tuple[tuple[int, int], ...], prevalence: float, draws: int, seed: int
) -> Iterator[Cell]:
    """Yield how often `recall >= .8` at 95 % was false, each row counted alike and as it was picked."""
    wished = {"objective": "precision", "min_recall": 0.8, "resamples": 0, "validation": "none"}
    wrong, chosen = {True: 0, False: 0}, {True: 0, False: 0}
    for store, start, name in _stores(draws, [seed, 1, int(prevalence * 100)], prevalence):
        labels = _reviewed(store, sizes, name, start)
        for weighted in (False, True):
            made = labels.calibrated(weighted, **wished)
            if made is not None:
                chosen[weighted] += 1
                wrong[weighted] += store.rates(made.threshold)[0] < 0.8
    where = f"{sheet}, {prevalence:.0%} positive"
    before = f"{where}, {chosen[False]} chosen"
    yield Cell("reviewed, recall >= 0.8, each row alike", before, wrong[False] / draws, "as it was", True, draws)
    yield at_most("reviewed, recall >= 0.8", f"{where}, {chosen[True]} chosen", wrong[True], draws, 0.05)


def _figures(sheet: str, sizes: tuple[tuple[int, int], ...], draws: int, seed: int) -> Iterator[Cell]:
    """Yield how far figures at a given threshold are off in the mean, and how often F1's interval holds the truth."""
    threshold = Binormal(0.2).best()
    found, f1, alike = np.empty(draws), np.empty(draws), np.empty(draws)
    inside = tried = 0
    for number, (store, start, name) in enumerate(_stores(draws, [seed, 2], 0.2)):
        labels = _reviewed(store, sizes, name, start)
        truth, matched = store.truth[labels.rows], store.scores[labels.rows].astype(np.float64) > threshold
        recall, true_f1 = store.rates(threshold)
        assert labels.weights is not None
        found[number] = labels.weights[truth & matched].sum() / store.truth.sum() - recall
        f1[number] = _f1(truth, matched, labels.weights) - true_f1
        alike[number] = _f1(truth, matched, np.ones(len(truth))) - true_f1
        # The dear part: a quarter of the draws.
        made = None if number % 4 else labels.calibrated(resamples=200, repeats=1)
        if made is not None and "f1" in made.intervals:
            low, high = made.intervals["f1"]
            tried += 1
            inside += low <= store.rates(made.threshold)[1] <= high
    yield Cell("reviewed, bias of F1, each row alike", sheet, float(alike.mean()), "as it was", True, draws)
    yield _near_zero("reviewed, bias of F1", sheet, f1, 0.05)  # a ratio of few rows is biased even at random
    yield _near_zero("reviewed, bias of the matches found", sheet, found, 0.0)
    yield covers("reviewed, interval of F1", f"{sheet}, {tried} tried", inside, tried)


def _f1(truth: NDArray[np.bool_], matched: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """Return F1 of weighted rows."""
    return float(2 * weights[truth & matched].sum() / (weights[truth].sum() + weights[matched].sum()))


def _near_zero(what: str, where: str, errors: NDArray[np.float64], most: float) -> Cell:
    """Return the cell of a mean error that is at most so large, three of its standard errors allowed for."""
    mean, error = float(errors.mean()), float(errors.std() / np.sqrt(len(errors)))
    wanted = f"within {most:g}" if most else "0 but for chance"
    return Cell(what, where, mean, wanted, abs(mean) <= most + 3 * error, len(errors))


def _fewer_labels(draws: int, seed: int) -> Iterator[Cell]:
    """Yield the true F1 of thresholds by 40 reviewed labels less that by 80 random ones."""
    rng = np.random.default_rng([seed, 4])
    for prevalence in (0.05, 0.1, 0.2):
        gains = []
        for store, start, name in _stores(draws, [seed, 3], prevalence):
            drawn = _Labels(store, rng.choice(_STORE, 80, replace=False))
            reviewed = _reviewed(store, _SHEETS["20+20"], name, start)
            pair = [each.calibrated(resamples=0, validation="none") for each in (reviewed, drawn)]
            f1 = [store.rates(start if made is None else made.threshold)[1] for made in pair]
            gains.append(f1[0] - f1[1])
        where = f"40 reviewed for 80 random, {prevalence:.0%} positive"
        yield is_above("F1 gained", where, np.array(gains), 0.0)
