"""The four counts -> every rate: the one home of each formula; and true against predicted classes -> a confusion.

`Rates` is inherited by whatever has ``tp``, ``fp``, ``fn``, ``tn``, be they whole numbers (one threshold) or
arrays (many). Zero by zero is 0, as with scikit-learn's ``zero_division=0``. Counting by threshold is left to `curves`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from embedstore.cells import aligned
from embedstore.errors import LabelError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = NDArray[np.int64] | NDArray[np.float64]
"""Whole numbers, or estimates of such by weighted rows."""
Number = TypeVar("Number", float, Floats)

REPORTED = ("precision", "recall", "f1", "tp", "fp", "fn", "tn")
"""What tables and files say of a threshold, in this order."""
_COUNTS = ("tp", "fp", "fn", "tn")


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
    """True and false positives, false and true negatives at one threshold, and every rate that follows from them.

    The counts are whole numbers; of weighted rows they are estimates (float) of the numbers in all that was sampled.
    """

    threshold: float
    tp: float
    fp: float
    fn: float
    tn: float

    def to_dict(self) -> dict[str, float]:
        """Return the threshold and what is `REPORTED` of it, as plain numbers."""
        return {name: getattr(self, name) for name in ("threshold", *REPORTED)}

    def _named_counts(self) -> list[tuple[str, float]]:
        return [(name, getattr(self, name)) for name in ("tp", "fp", "fn", "tn")]

    def __str__(self) -> str:
        return (
            f"threshold {self.threshold:.4f}: precision {self.precision:.4f}, recall {self.recall:.4f}, "
            f"F1 {self.f1:.4f} ({', '.join(f'{name} {in_words(value)}' for name, value in self._named_counts())})"
        )


@dataclass(frozen=True, eq=False)
class MetricsTable(Rates[Floats]):
    """`Metrics` for many thresholds: the same names, each an array, in the order of the thresholds."""

    threshold: Floats
    tp: Counts
    fp: Counts
    fn: Counts
    tn: Counts

    def __len__(self) -> int:
        return len(self.threshold)

    def __getitem__(self, row: int) -> Metrics:
        counts = (column[row].item() for column in (self.tp, self.fp, self.fn, self.tn))
        return Metrics(float(self.threshold[row]), *counts)


def in_words(count: float) -> str:
    """Write a count: a whole number as it is, an estimate rounded and with "about"."""
    return f"{count:,}" if isinstance(count, int) else f"about {count:,.0f}"


def name_in_words(name: str) -> str:
    """Write the name of a figure as people do: F1 and F0.5 with a capital, others as they are."""
    return f"F{name[1:]}" if name[:1] == "f" and name[1:2].isdigit() else name


def figures_in_words(figures: Mapping[str, float]) -> list[str]:
    """Write figures for a line of a table: counts as `in_words` does, thresholds and rates with four decimals."""
    return [
        in_words(value) if name in _COUNTS or isinstance(value, int) else f"{value:.4f}"
        for name, value in figures.items()
    ]


def ratio(part: Any, whole: Any) -> Any:
    """Return part / whole, and 0 where the whole is 0; numbers give a float, arrays an array."""
    if isinstance(whole, np.ndarray) or isinstance(part, np.ndarray):
        shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
        return np.divide(part, whole, out=np.zeros(shape), where=np.not_equal(whole, 0))
    return float(part / whole) if whole else 0.0


@dataclass(frozen=True)
class ClassCounts(Rates[float]):
    """The four counts of one class among several that are decided between, and every rate that follows from them."""

    tp: float
    fp: float
    fn: float
    tn: float

    def to_dict(self) -> dict[str, float]:
        """Return what is `REPORTED`, as plain numbers."""
        return {name: getattr(self, name) for name in REPORTED}


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of true class against predicted class; none is an answer, and right for a row of no known class.

    Of weighted rows the counts are estimates (float64) of those in all that was sampled.
    """

    names: tuple[str, ...]
    """The classes, sorted: those that occur among labels or predictions."""
    counts: Counts
    """Shape (n_names, n_names), true class by predicted class."""
    abstained: Counts
    """Shape (n_names,): rows of each true class for which nothing was predicted."""
    classes: tuple[str, ...]
    """Those that could be predicted, in the order of the classifier; a row of another is right when nothing is."""

    @property
    def n(self) -> float:
        """Number of rows."""
        total: float = (self.counts.sum() + self.abstained.sum()).item()
        return total

    @property
    def rightly_undecided(self) -> float:
        """Rows of no class that could be predicted, and for which none was."""
        undecided: float = self.abstained[self._unknown].sum().item()
        return undecided

    @property
    def accuracy(self) -> float:
        """Share of all rows that are right: of the class that was predicted, or of none that is known and undecided."""
        return float((np.trace(self.counts) + self.rightly_undecided) / self.n) if self.n else 0.0

    @property
    def coverage(self) -> float:
        """Share of the rows for which something was predicted."""
        return float(self.counts.sum() / self.n) if self.n else 0.0

    @property
    def _unknown(self) -> NDArray[np.bool_]:
        return np.array([name not in self.classes for name in self.names], dtype=np.bool_)

    @property
    def by_class(self) -> dict[str, ClassCounts]:
        """Precision, recall and the counts of each of `classes`, as a decision of this class or not."""
        table = self.table()
        hits, predicted, true = np.diagonal(table), table.sum(axis=0), table.sum(axis=1)
        cells = (hits, predicted - hits, true - hits, table.sum() - predicted - true + hits)
        rows = zip(*(column[:-1].tolist() for column in cells), strict=True)
        return {name: ClassCounts(*row) for name, row in zip(self.classes, rows, strict=True)}

    def lines(self) -> list[str]:
        """Return the figures of each class as lines in columns, under a head."""
        head = map(name_in_words, REPORTED)
        rows = [[label, *figures_in_words(one.to_dict())] for label, one in self.by_class.items()]
        return aligned([["class", *head], *rows])

    def table(self) -> Counts:
        """Return the counts of `classes` and, last, of none, truth by prediction: shape (n_classes + 1,) twice."""
        places = [self.classes.index(name) if name in self.classes else len(self.classes) for name in self.names]
        kind: Any = self.counts.dtype
        table: Counts = np.zeros((len(self.classes) + 1, len(self.classes) + 1), dtype=kind)
        np.add.at(table, np.ix_(places, places), self.counts)
        np.add.at(table, (places, len(self.classes)), self.abstained)
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, the accuracy and what is `REPORTED` of each class as plain JSON values."""
        counts, abstained = self.counts.tolist(), self.abstained.tolist()
        named = {"names": list(self.names), "counts": counts, "abstained": abstained, "classes": list(self.classes)}
        figures = {"accuracy": self.accuracy, "coverage": self.coverage}
        return {**named, **figures, "by_class": {name: one.to_dict() for name, one in self.by_class.items()}}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Confusion:
        """Read what `to_dict` wrote; KeyError, TypeError or ValueError for anything else."""
        names, classes = (tuple(map(str, fields[key])) for key in ("names", "classes"))
        counts, abstained = (np.array(fields[key]) for key in ("counts", "abstained"))
        n = len(names)
        if counts.shape != (n, n) or abstained.shape != (n,) or counts.dtype.kind not in "if":
            raise ValueError(f"counts of {n} classes have shape {(n, n)}, found {counts.shape}")
        return cls(names, counts, abstained, classes)

    def __str__(self) -> str:
        heads = [*self.classes, "none"]
        rows = [
            [head, *(f"{cell:.0f}" for cell in line)] for head, line in zip(heads, self.table().tolist(), strict=True)
        ]
        table = aligned([["truth, predicted:", *heads], *rows])
        undecided = (
            f"; {self.rightly_undecided:,.0f} are of none of the classes, rightly" if self.rightly_undecided else ""
        )
        about = "" if self.counts.dtype.kind == "i" else "about "
        decided = f"decided {self.coverage:.1%} of {about}{self.n:,.0f} rows{undecided}"
        return "\n".join([*table, f"accuracy {self.accuracy:.4f}, {decided}"])


def confusion(
    labels: Sequence[Any],
    predictions: Sequence[Any],
    classes: Sequence[str] | None = None,
    sample_weight: NDArray[np.float64] | None = None,
) -> Confusion:
    """Count the true class of each row against the predicted one; a prediction of None abstains.

    `classes` are those that could be predicted, by default all that occur: a row of another class is right when
    nothing is predicted for it. With a `sample_weight` for each row the counts are sums of these. Raises LabelError
    for different lengths, no rows, and a row without a label.
    """
    truth, guesses = list(labels), list(predictions)
    if len(truth) != len(guesses) or not truth:
        raise LabelError(f"expected one prediction for each label, found {len(guesses)} for {len(truth)}")
    if None in truth:
        raise LabelError(f"row {truth.index(None)} has no label; leave it out of the confusion counts")
    names = tuple(sorted({str(name) for name in [*truth, *guesses] if name is not None}))
    places = {name: place for place, name in enumerate(names)}
    kind: Any = np.int64 if sample_weight is None else np.float64
    counts: Counts = np.zeros((len(names), len(names) + 1), dtype=kind)
    rows = [places[str(name)] for name in truth]
    columns = [len(names) if name is None else places[str(name)] for name in guesses]
    np.add.at(counts, (rows, columns), 1 if sample_weight is None else sample_weight)
    return Confusion(names, counts[:, :-1], counts[:, -1], names if classes is None else tuple(classes))
