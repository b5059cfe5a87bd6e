"""True and predicted classes in, counts and a report for each class out. A prediction of None is an abstention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.errors import LabelError
from embedstore.measures.rates import Ints, MetricsTable


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of true class against predicted class.

    Attributes
    ----------
    names : tuple of str
        The classes, sorted: those that occur among labels or predictions.
    counts : ndarray of shape (n_classes, n_classes), int64
        Row: true class. Column: predicted class.
    abstained : ndarray of shape (n_classes,), int64
        Rows of each true class for which nothing was predicted.
    """

    names: tuple[str, ...]
    counts: Ints
    abstained: Ints

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.counts.sum() + self.abstained.sum())

    @property
    def accuracy(self) -> float:
        """Share of all rows that are right; an abstention is not."""
        return float(np.trace(self.counts) / self.n) if self.n else 0.0

    @property
    def coverage(self) -> float:
        """Share of the rows for which something was predicted."""
        return float(self.counts.sum() / self.n) if self.n else 0.0

    @property
    def by_class(self) -> MetricsTable:
        """Each class against the rest, in the order of `names`; `threshold` is NaN."""
        tp = np.diagonal(self.counts).copy()
        fp = self.counts.sum(axis=0) - tp
        fn = self.counts.sum(axis=1) + self.abstained - tp
        return MetricsTable(np.full(len(tp), np.nan), tp, fp, fn, self.n - tp - fp - fn)

    def report(self) -> list[dict[str, Any]]:
        """Return for each class its name, precision, recall, f1 and support, and their plain means at the end."""
        table = self.by_class
        columns = {"precision": table.precision, "recall": table.recall, "f1": table.f1}
        support = table.tp + table.fn
        rows: list[dict[str, Any]] = [
            {
                "class": name,
                **{key: float(value[row]) for key, value in columns.items()},
                "support": int(support[row]),
            }
            for row, name in enumerate(self.names)
        ]
        means = {key: float(value.mean()) if len(value) else 0.0 for key, value in columns.items()}
        return [*rows, {"class": "mean", **means, "support": self.n}]


def confusion(labels: Sequence[Any], predictions: Sequence[Any]) -> Confusion:
    """Count true classes against predicted ones.

    Parameters
    ----------
    labels : sequence of str
        The true class of each row.
    predictions : sequence of str or None
        The predicted class; None abstains.

    Raises
    ------
    LabelError
        Different lengths, no rows, or a row without a label.
    """
    truth, guesses = list(labels), list(predictions)
    if len(truth) != len(guesses) or not truth:
        raise LabelError(f"expected one prediction for each label, found {len(guesses)} for {len(truth)}")
    if None in truth:
        raise LabelError(f"row {truth.index(None)} has no label; leave it out of the confusion counts")
    names = tuple(sorted({str(name) for name in [*truth, *guesses] if name is not None}))
    places = {name: place for place, name in enumerate(names)}
    counts = np.zeros((len(names), len(names) + 1), dtype=np.int64)
    rows = [places[str(name)] for name in truth]
    columns = [len(names) if name is None else places[str(name)] for name in guesses]
    np.add.at(counts, (rows, columns), 1)
    return Confusion(names, counts[:, :-1], counts[:, -1])
