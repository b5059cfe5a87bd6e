"""Worlds of which the truth is known: scores of matches and others are normal, so every rate is a normal tail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import ndtr


@dataclass(frozen=True)
class Binormal:
    """Scores of others: normal(0, 1) * scale + centre; of matches: `separation` standard deviations higher."""

    prevalence: float
    separation: float = 2.0
    spread: float = 1.0
    """Standard deviation of the matches' scores, in those of the others."""
    centre: float = 0.05
    scale: float = 0.01

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return scores and truth of `n` rows, at least one of them a match and one not."""
        truth = rng.random(n) < self.prevalence
        if not truth.any():
            truth[rng.integers(n)] = True
        if truth.all():
            truth[rng.integers(n)] = False
        z = rng.standard_normal(n) * np.where(truth, self.spread, 1.0) + self.separation * truth
        return (self.centre + self.scale * z).astype(np.float32), truth

    def recall(self, threshold: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of all matches that score above."""
        return np.asarray(ndtr((self.separation - self._z(threshold)) / self.spread))

    def false_rate(self, threshold: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of all others that score above."""
        return np.asarray(ndtr(-self._z(threshold)))

    def precision(self, threshold: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of matches among all that score above."""
        hits = self.prevalence * self.recall(threshold)
        return hits / np.maximum(hits + (1 - self.prevalence) * self.false_rate(threshold), 1e-300)

    def f1(self, threshold: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the harmonic mean of the two."""
        precision, recall = self.precision(threshold), self.recall(threshold)
        return 2 * precision * recall / np.maximum(precision + recall, 1e-300)

    def best(self) -> float:
        """Return the threshold of the best F1 over all rows that there could be."""
        ends = (self.centre - 4 * self.scale, self.centre + (self.separation + 4) * self.scale)
        grid = np.linspace(*ends, 400)
        near = float(grid[np.argmax(self.f1(grid))])
        step = grid[1] - grid[0]
        found = minimize_scalar(lambda t: -float(self.f1(t)), bounds=(near - step, near + step), method="bounded")
        return float(found.x)

    def _z(self, threshold: float | NDArray[np.float64]) -> NDArray[np.float64]:
        return (np.asarray(threshold, dtype=np.float64) - self.centre) / self.scale


def binormal(
    n: int, prevalence: float, rng: np.random.Generator, separation: float = 2.0
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return scores and truth of `n` rows of such a world."""
    return Binormal(prevalence, separation).draw(n, rng)
