"""Thresholds that are named beforehand -> how many rows exceed each, counted where the rows are scored.

What a sweep of any kind tells is `Swept`. `thresholds.Sweep` holds the score of every row, and so can be asked for any
threshold afterwards; a `CountedSweep` holds none: its memory, and what travels to it from a cluster, does not grow with
the rows. The figures of labelled rows rest on the exact score of each in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.deciding.labels import Labelled, labels_for
from embedstore.errors import InputError, spelt
from embedstore.measures.curves import Curve, as_thresholds, precision_recall
from embedstore.measures.distribution import ScoreCounts, ScoreDistribution
from embedstore.measures.rates import REPORTED, Floats, Metrics
from embedstore.searching.queries import Concept
from embedstore.searching.reader import Reader
from embedstore.wording import counted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Swept:
    """What thresholds of one query give; the query is told in words."""

    query: str
    distribution: ScoreDistribution | ScoreCounts
    """Of all rows that were swept: matches and percentile."""
    curve: Curve | None
    """Of the labelled rows: precision, recall and F1 at every distinct score; None without labels."""
    labelled: Labelled | None

    @property
    def best(self) -> Metrics | None:
        """The figures at the threshold of the best F1, of equal ones the highest; None without labels."""
        return None if self.curve is None else self.curve.at_cut(self.curve.best_cut)

    def columns(self, thresholds: ArrayLike | None = None, n: int = 20) -> dict[str, NDArray[Any]]:
        """Return what each threshold gives, as arrays of shape (n_thresholds,).

        They are ``threshold``, ``matches``, ``percentile``; with labels also ``precision``, ``recall``, ``f1``, ``tp``,
        ``fp``, ``fn``, ``tn``. By default about `n` thresholds are taken where the choice is: with labels from recall
        1 to precision 1, the best F1 among them (see `Curve.telling`); without, at shares of the rows that halve and
        halve again towards the top, with the floor of the noise, and the gap where one stands out. Of a sweep that
        counted at thresholds named beforehand it is all of these.
        """
        chosen = self._telling(n) if thresholds is None else np.atleast_1d(as_thresholds(thresholds))
        columns: dict[str, NDArray[Any]] = {
            "threshold": chosen,
            "matches": self.distribution.matches(chosen),
            "percentile": self.distribution.percentile(chosen),
        }
        if self.curve is not None:
            measured = self.curve.at(chosen)
            columns.update({name: getattr(measured, name) for name in REPORTED})
        return columns

    def table(self, thresholds: ArrayLike | None = None, n: int = 20) -> list[dict[str, float]]:
        """Return `columns` as a dictionary for each threshold, of plain numbers."""
        columns = self.columns(thresholds, n)
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def to_pandas(self, thresholds: ArrayLike | None = None, n: int = 20) -> pd.DataFrame:
        """Return `columns` as a pandas DataFrame, a row for each threshold."""
        import pandas as pd

        return pd.DataFrame(self.columns(thresholds, n))

    def mark(self, threshold: float) -> str:
        """Say in words what is special of a threshold: that of the best F1; or ""."""
        best = self.curve is not None and self.curve.cut(threshold) == self.curve.best_cut
        return "best F1" if best else ""

    def _telling(self, n: int) -> Floats:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class CountedSweep(Swept):
    """The thresholds of one query at which its matches were counted; of the scores between them nothing is known."""

    distribution: ScoreCounts

    @property
    def about(self) -> str:
        """Which figure is of what, in words."""
        said = f"matches and percentile are of all {len(self.distribution):,} rows"
        if self.labelled is not None:
            said += f"; precision, recall and F1 of the {len(self.labelled):,} labelled ones"
        return said

    def __repr__(self) -> str:
        thresholds = counted(len(self.distribution.thresholds), "threshold")
        return f"CountedSweep of {self.query!r} at {thresholds}: {self.about}"

    def _telling(self, n: int) -> Floats:
        return self.distribution.thresholds


def counted_sweep(
    reader: Reader, query: Any, thresholds: ArrayLike, labels: Any = None, *, where: Any = None, **words: Any
) -> CountedSweep:
    """Count the rows that exceed each of some thresholds, exactly, and keep no score but those of labelled rows.

    Parameters
    ----------
    reader : Reader
    query
        All that `Concept.of` reads; its `template`, `weights` and `opposing` are taken too.
    thresholds : array-like of float, or int
        Where to count; a whole number n for about so many where the labels leave a choice, see `Curve.telling`.
    labels : optional
        All that `labels.labels_for` reads.
    where : str, Expression or mask, optional
        Only the rows that this keeps are counted.

    Raises
    ------
    InputError
        There are no thresholds, a number of them is asked for without labels, or there are no rows.
    """
    concept = Concept.of(query, **words)
    labelled = None if labels is None else labels_for(reader.rows, labels).within(reader.rows, where).to_measure()
    how_many = int(thresholds) if isinstance(thresholds, int | np.integer) else None
    if how_many is not None and (how_many < 1 or isinstance(thresholds, bool)):
        raise InputError(f"expected thresholds, or how many, found {thresholds!r}; name them: {_example()}")
    if how_many is not None and labelled is None:
        raise InputError(
            f"without labels nothing says where {counted(how_many, 'threshold')} should lie; name them: {_example()}"
        )
    mask = reader.mask(where)
    rows = len(reader) if mask is None else int(np.count_nonzero(mask))
    if not rows:
        raise InputError("there are no rows to count; add images first, or loosen the filter")
    asked = reader.concept_vectors([concept])[0]
    curve = None
    if labelled is not None:
        scores = reader.scores_at(*asked, labelled.positions)
        curve = precision_recall(scores, labelled.values, labelled.weights)
    if how_many is not None and curve is not None:
        chosen = curve.thresholds[curve.telling(how_many)]
    else:
        chosen = np.unique(as_thresholds(thresholds))
    if not len(chosen):
        raise InputError(f"name at least one threshold to count at: {_example()}")
    distribution = ScoreCounts(chosen, reader.counts(*asked, chosen, mask), rows)
    return CountedSweep(concept.label, distribution, curve, labelled)


def _example() -> str:
    return spelt("thresholds=[0.1, 0.2]", "--thresholds 0.1:0.9:0.1")
