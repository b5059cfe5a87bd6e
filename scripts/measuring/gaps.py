"""Gaps near the top of scores without labels: how often chance makes one, and whether it finds three positives."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from embedstore.measures.distribution import ScoreDistribution
from measuring.cell import Cell, at_least, at_most

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
SOURCES: dict[str, Draw] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "exponential tail": lambda rng, n: rng.exponential(size=n),
    "Gumbel tail": lambda rng, n: rng.gumbel(size=n),
    "skewed (log-normal, 0.3)": lambda rng, n: np.exp(0.3 * rng.standard_normal(n)),
    "3 % of it akin, 2 deviations higher": lambda rng, n: rng.standard_normal(n) + 2 * (rng.random(n) < 0.03),
}
HEAVY: dict[str, Draw] = {"heavy tail (Student, 8)": lambda rng, n: rng.standard_t(8, size=n)}
USEFUL = 0.8
"""An F1 from which a suggestion counts as useful: of three positives all are found with at most one false match, or
two without any."""


def as_scores(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return float32 scores as a query has them."""
    return (0.05 + 0.01 * values).astype(np.float32)


def cells(draws: int, seed: int) -> Iterator[Cell]:
    """Yield how often nothing makes a gap, then how often three positives far above make one that is of use."""
    for n in (242, 1_000, 10_000):
        for name, draw in {**SOURCES, **HEAVY}.items():
            rng = np.random.default_rng([seed, n, len(name)])
            found = sum(ScoreDistribution.of(as_scores(draw(rng, n))).gap() is not None for _ in range(draws))
            yield at_most(
                "gap where there is no positive", f"{name}, {n:,} rows", found, draws, 0.12 if name in HEAVY else 0.06
            )
    for n, separation in ((242, 8.0), (1_000, 7.0), (10_000, 7.0)):
        rng = np.random.default_rng([seed, n])
        useful = 0
        for _ in range(draws):
            values = rng.standard_normal(n)
            values[:3] += separation
            gap = ScoreDistribution.of(as_scores(values)).gap()
            if gap is not None:
                hits = int((as_scores(values)[:3] > gap.threshold).sum())
                useful += 2 * hits / (gap.matches + 3) >= USEFUL
        where = f"{n:,} rows, {separation:g} deviations above the others"
        yield at_least("gap below 3 positives, F1 >= 0.8", where, useful, draws, 0.9)
