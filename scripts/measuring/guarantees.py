"""Guaranteed limits: how often the true precision or recall is below what was guaranteed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from embedstore.errors import UnreachableError
from embedstore.measures.choice import choose_threshold
from embedstore.measures.curves import precision_recall
from measuring.cell import Cell, at_most
from measuring.worlds import Binormal

_LIMITS = ({"objective": "recall", "min_precision": 0.9}, {"objective": "precision", "min_recall": 0.8})


def cells(draws: int, seed: int) -> Iterator[Cell]:
    """Yield a cell for each limit, number of labels and prevalence; a choice that is refused is no violation."""
    sizes, prevalences = (40, 300, 2_000, 20_000), (0.001, 0.01, 0.1, 0.5)
    for wishes, n, prevalence in product(_LIMITS, sizes, prevalences):
        rng = np.random.default_rng([seed, n, int(prevalence * 1e6)])
        world = Binormal(prevalence, separation=3.0 if "min_precision" in wishes else 2.0)
        wrong = chosen = 0
        for _ in range(draws if n < 10_000 else max(1, draws // 2)):
            try:
                threshold = choose_threshold(precision_recall(*world.draw(n, rng)), **wishes).threshold
            except UnreachableError:
                continue
            chosen += 1
            wrong += bool(
                world.precision(threshold) < wishes.get("min_precision", 0)
                or world.recall(threshold) < wishes.get("min_recall", 0)
            )
        named = ", ".join(f"{name.removeprefix('min_')} >= {value}" for name, value in wishes.items() if name[0] == "m")
        where = f"n {n:,}, {prevalence:.1%} positive, {chosen} chosen"
        yield at_most(f"guarantee {named}", where, wrong, draws if n < 10_000 else max(1, draws // 2), 0.05)
