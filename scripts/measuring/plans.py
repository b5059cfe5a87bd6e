"""Plans of labelling: after as many random labels as a plan asks for, how often is the limit certified indeed?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embedstore.measures.choice import Constraints, Objective
from embedstore.measures.curves import precision_recall
from embedstore.measures.logistic import match_curves
from embedstore.measures.rehearsal import Store, rehearse
from measuring.cell import Cell, at_least
from measuring.worlds import Binormal

ROWS, CHANCE, MOST = 20_000, 0.8, 2_000
WORLDS = 60
"""Tried for each plan; the command tries more."""
PLANS = (
    (Binormal(0.1, 2.0), 100, "recall >= 0.8", Objective("precision"), Constraints(min_recall=0.8)),
    (Binormal(0.3, 3.0), 100, "precision >= 0.9", Objective("recall"), Constraints(min_precision=0.9)),
    (
        Binormal(0.3, 3.0),
        100,
        "precision >= 0.8, recall >= 0.6",
        Objective("f1"),
        Constraints(min_precision=0.8, min_recall=0.6),
    ),
)
_RUNS_OF_A_DRAW = 10


def cells(draws: int, seed: int) -> Iterator[Cell]:
    """Yield a cell for each limit: of a tenth of the draws, as a plan is itself a simulation."""
    runs = max(1, draws // _RUNS_OF_A_DRAW)
    for number, (world, known, what, goal, limits) in enumerate(PLANS):
        rng = np.random.default_rng([seed, number])
        planned = certified = 0
        asked = []
        for _ in range(runs):
            scores, truth = world.draw(ROWS, rng)
            exact = scores.astype(np.float64)
            order = rng.permutation(ROWS)
            seen = order[:known]
            curves = match_curves(exact, exact[seen], truth[seen], WORLDS, rng)
            store = Store(exact, np.sort(order[known:]), exact[seen], truth[seen])
            needed = rehearse(store, curves, goal, limits, CHANCE, MOST, rng).needed
            if needed is None:
                continue
            planned += 1
            asked.append(needed)
            labelled = order[: known + needed]
            curve = precision_recall(exact[labelled], truth[labelled])
            certified += bool(np.logical_and.reduce(list(limits.masks(curve).values())).any())
        where = f"{world.prevalence:.0%} positive, {known} known, about {np.median(asked or [0]):.0f} asked"
        yield at_least(f"plan keeps its promise: {what}", where, certified, max(planned, 1), CHANCE)
