"""Scores that shift: how often it is told, how often told of none, and whether the advice fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from embedstore.measures.choice import choose_threshold
from embedstore.measures.curves import precision_recall
from embedstore.measures.explanations import advise
from embedstore.measures.score_summary import ScoreSummary
from embedstore.measures.shift import shift_of
from measuring.cell import Cell, at_least, at_most, is_above
from measuring.worlds import Binormal

THERE = Binormal(0.05, separation=2.5)
"""Of 1,000 labelled rows, by which the threshold of the best F1 is chosen: its precision is .68."""
LABELLED, ROWS = 1_000, 10_000
PREVALENCES = {
    "5 -> 0.2 % positive": replace(THERE, prevalence=0.002),
    "5 -> 1 % positive": replace(THERE, prevalence=0.01),
    "5 -> 20 % positive": replace(THERE, prevalence=0.2),
}
SCORES = {
    "positives 1.5 deviations lower": replace(THERE, separation=1.0),
    "all scores 0.25 deviations higher": replace(THERE, centre=THERE.centre + 0.25 * THERE.scale),
    "negatives spread 1.3 times": replace(THERE, separation=2.5 / 1.3, spread=1 / 1.3, scale=1.3 * THERE.scale),
}


def calibrated(rng: np.random.Generator, world: Binormal = THERE) -> tuple[ScoreSummary, float]:
    """Return what a classifier keeps of labelled rows, and its threshold."""
    scores, truth = world.draw(LABELLED, rng)
    threshold = choose_threshold(precision_recall(scores, truth)).threshold
    return ScoreSummary.of(scores, truth, threshold), threshold


def cells(draws: int, seed: int) -> Iterator[Cell]:
    """Yield alarms for each shift and for none, then what is advised, and how it does."""
    for rows in (2_000, ROWS):
        for world in (THERE, Binormal(0.5, 2.0), Binormal(0.02, 3.0)):
            rng = np.random.default_rng([seed, rows, round(1_000 * world.prevalence)])
            alarms = 0
            for _ in range(draws):
                kept, threshold = calibrated(rng, world)
                alarms += shift_of(world.draw(rows, rng)[0], kept, threshold).differs
            yield at_most(
                "false alarm of a shift", f"{world.prevalence:.0%} positive, {rows:,} rows", alarms, draws, 0.06
            )
    for name, world in {**PREVALENCES, **SCORES}.items():
        rng = np.random.default_rng([seed, len(name)])
        alarms = 0
        for _ in range(draws):
            kept, threshold = calibrated(rng)
            alarms += shift_of(world.draw(ROWS, rng)[0], kept, threshold).differs
        yield at_least("alarm of a shift", f"{name}, {ROWS:,} rows", alarms, draws, 0.95)
    yield from _advice(max(1, draws // 4), seed)


def _advice(draws: int, seed: int) -> Iterator[Cell]:
    """Yield which explanation is given, and the F1 of the threshold that is advised, beside the old one's."""
    for name, world in {**PREVALENCES, **SCORES}.items():
        rng = np.random.default_rng([seed, 1, len(name)])
        wrong, covered, old, new = 0, 0, [], []
        forbidden = "scores" if name in PREVALENCES else "prevalence"
        for _ in range(draws):
            kept, threshold = calibrated(rng)
            scores, truth = world.draw(ROWS, rng)
            advice = advise(scores, kept, threshold)
            wrong += advice.verdict == forbidden
            if advice.threshold is not None and advice.interval is not None:
                covered += advice.interval[0] <= world.prevalence <= advice.interval[1]
                old.append(_f1(scores, truth, threshold))
                new.append(_f1(scores, truth, advice.threshold))
        yield at_most(f"advice: {forbidden} changed, which is not so", name, wrong, draws, 0.05)
        if name in PREVALENCES:
            gain = np.subtract(new, old)
            where = f"{name}: {np.mean(old):.3f} -> {np.mean(new):.3f}"
            yield is_above("gain of F1 by the estimated prevalence", where, gain, 0.04)
            yield at_least("interval of the estimated prevalence", name, covered, len(new), 0.9)


def _f1(scores: NDArray[np.float32], truth: NDArray[np.bool_], threshold: float) -> float:
    return precision_recall(scores, truth).at(threshold).f1
