"""The four counts in, every rate out: the one home of each formula.

`Rates` is inherited by whatever has ``tp``, ``fp``, ``fn``, ``tn``, be they whole numbers (one threshold) or
arrays (many). Zero by zero is 0, as with scikit-learn's ``zero_division=0``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Number = TypeVar("Number", float, Floats)


class Rates(Generic[Number]):
    """Rates of the counts ``tp``, ``fp``, ``fn``, ``tn``; each is a float or an array, as the counts are."""

    def _counts(self) -> tuple[Any, Any, Any, Any]:
        """Return tp, fp, fn, tn."""
        mine: Any = self
        return mine.tp, mine.fp, mine.fn, mine.tn

    @property
    def precision(self) -> Number:
        """Share of the matches that are right: tp / (tp + fp)."""
        tp, fp, _, _ = self._counts()
        return cast(Number, ratio(tp, tp + fp))

    @property
    def recall(self) -> Number:
        """Share of the positives that match: tp / (tp + fn)."""
        tp, _, fn, _ = self._counts()
        return cast(Number, ratio(tp, tp + fn))

    @property
    def specificity(self) -> Number:
        """Share of the negatives that do not match: tn / (tn + fp)."""
        _, fp, _, tn = self._counts()
        return cast(Number, ratio(tn, tn + fp))

    @property
    def accuracy(self) -> Number:
        """Share of the rows that are decided rightly."""
        tp, fp, fn, tn = self._counts()
        return cast(Number, ratio(tp + tn, tp + fp + fn + tn))

    @property
    def f1(self) -> Number:
        """Harmonic mean of precision and recall: 2 tp / (2 tp + fp + fn)."""
        tp, fp, fn, _ = self._counts()
        return cast(Number, ratio(2 * tp, 2 * tp + fp + fn))

    def fbeta(self, beta: float) -> Number:
        """F-beta, which holds recall `beta` times as important as precision (van Rijsbergen 1979)."""
        tp, fp, fn, _ = self._counts()
        hits = (1 + beta**2) * tp
        return cast(Number, ratio(hits, hits + beta**2 * fn + fp))

    @property
    def balanced_accuracy(self) -> Number:
        """Mean of recall and specificity; with one class only, the one of the two that is defined."""
        tp, fp, fn, tn = self._counts()
        present = ratio((tp + fn) > 0, 1) + ratio((tn + fp) > 0, 1)
        return cast(Number, ratio(self.recall + self.specificity, present))

    @property
    def mcc(self) -> Number:
        """Matthews correlation coefficient in [-1, 1]; 0 where a margin is empty."""
        tp, fp, fn, tn = self._counts()
        # Two products of two margins each: four together would overflow a 64-bit integer.
        predicted = 1.0 * (tp + fp) * (tn + fn)
        actual = 1.0 * (tp + fn) * (tn + fp)
        return cast(Number, ratio(1.0 * tp * tn - 1.0 * fp * fn, np.sqrt(predicted) * np.sqrt(actual)))


@dataclass(frozen=True)
class Metrics(Rates[float]):
    """The counts at one threshold, and every rate that follows from them.

    Attributes
    ----------
    threshold : float
        A match is ``score > threshold``.
    tp, fp, fn, tn : int
        True and false positives, false and true negatives.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    tn: int

    def to_dict(self) -> dict[str, float]:
        """Return threshold, precision, recall, f1 and the four counts as plain numbers."""
        return {
            "threshold": self.threshold,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "tp": self.tp,
            "fp": self.fp,
            "fn": self.fn,
            "tn": self.tn,
        }

    def __str__(self) -> str:
        return (
            f"threshold {self.threshold:.4f}: precision {self.precision:.4f}, recall {self.recall:.4f}, "
            f"F1 {self.f1:.4f} (tp {self.tp}, fp {self.fp}, fn {self.fn}, tn {self.tn})"
        )


@dataclass(frozen=True, eq=False)
class MetricsTable(Rates[Floats]):
    """`Metrics` for many thresholds: the same names, each an array, in the order the thresholds were given.

    Attributes
    ----------
    threshold : ndarray of float64
    tp, fp, fn, tn : ndarray of int64
    """

    threshold: Floats
    tp: Ints
    fp: Ints
    fn: Ints
    tn: Ints

    def __len__(self) -> int:
        return len(self.threshold)

    def __getitem__(self, row: int) -> Metrics:
        counts = (int(column[row]) for column in (self.tp, self.fp, self.fn, self.tn))
        return Metrics(float(self.threshold[row]), *counts)

    def __iter__(self) -> Iterator[Metrics]:
        return (self[row] for row in range(len(self)))


def ratio(part: Any, whole: Any) -> Any:
    """Return part / whole, and 0 where the whole is 0; numbers give a float, arrays an array."""
    if isinstance(whole, np.ndarray) or isinstance(part, np.ndarray):
        shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
        return np.divide(part, whole, out=np.zeros(shape), where=np.not_equal(whole, 0))
    return float(part / whole) if whole else 0.0
