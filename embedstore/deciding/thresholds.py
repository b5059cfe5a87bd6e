"""Queries and labels -> thresholds: every one at once (`sweep`), or the one that is chosen and measured (`calibrate`).

The rows are scored once; the figures are made by `curves`, `distribution` and `calibration`, labels are read by
`labels`. Deciding by what was chosen is left to `evaluation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.deciding.classifier import Classifier, Mode
from embedstore.deciding.labels import Labelled, labels_for
from embedstore.deciding.target import Target
from embedstore.errors import LabelError, MissingDependencyError, QueryError
from embedstore.measures.calibration import Calibration, calibrate_scores
from embedstore.measures.curves import Curve, as_thresholds, curves, precision_recall
from embedstore.measures.distribution import ScoreDistribution
from embedstore.measures.rates import REPORTED, Metrics
from embedstore.searching.queries import Concept
from embedstore.searching.reader import Reader
from embedstore.storage.rows import Rows
from embedstore.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from embedstore.deciding.plots import Display

_SHOWN = 10
NONSENSE = ("flurble", "qwxz", "the of and", "zzz", "lorem ipsum dolor", "blorptastic", "a b c", "vnrk")
"""Texts that mean nothing: what they score is the noise that a real match must exceed."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """Every threshold of one query, which is told in words."""

    query: str
    distribution: ScoreDistribution
    """Of all rows: matches and percentile at any threshold, gap."""
    curve: Curve | None
    """Of the labelled rows: precision, recall and F1 at every distinct score; None without labels."""
    labelled: Labelled | None
    scores: NDArray[np.float32]
    """Shape (n_rows,), in the order of the store's rows."""

    def columns(self, thresholds: ArrayLike | None = None, n: int = 20) -> dict[str, NDArray[Any]]:
        """Return what each threshold gives, as arrays of shape (n_thresholds,).

        They are ``threshold``, ``matches``, ``percentile``; with labels also ``precision``, ``recall``, ``f1``, ``tp``,
        ``fp``, ``fn``, ``tn``. By default `n` thresholds are spread over the top half of the rows.
        """
        chosen = self._spread(n) if thresholds is None else np.atleast_1d(as_thresholds(thresholds))
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

    def __repr__(self) -> str:
        head, rows, best = self._cells()
        widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
        lines = ["  ".join(map(str.rjust, cells, widths)) for cells in (head, *rows)]
        if best is not None:
            lines[best + 1] += "  best F1"
        return "\n".join([f"Sweep of {self.query}: {self._about()}", *self._measured(), *lines])

    def _repr_html_(self) -> str:
        """Show the curve and some thresholds in a notebook."""
        from embedstore import markup  # only a notebook needs these
        from embedstore.deciding.plots import ScoreHistogramDisplay, ThresholdDisplay

        curve: Display
        if self.curve is None:
            curve = ScoreHistogramDisplay.from_scores(self.scores, name=f"Scores of {len(self.scores):,} rows")
        else:
            curve = ThresholdDisplay.from_curve(self.curve, self._best().threshold)
        try:
            drawn = curve.svg(5.6, 3.4)
        except MissingDependencyError as error:
            drawn = markup.warning(str(error))
        about = "; ".join([self._about(), *self._measured()])
        return markup.heading(f"Sweep of {self.query}", about) + drawn + markup.table(*self._cells(), texts=0)

    def _about(self) -> str:
        """Return what there is to say in a line."""
        scores = self.distribution.scores
        said = f"{len(scores):,} rows"
        if len(scores):
            said += f" with scores from {scores[0]:.4f} to {scores[-1]:.4f}"
        return said + (", no labels" if self.curve is None else "")

    def _measured(self) -> list[str]:
        """Return what the labels say, in a line; none without labels."""
        if self.curve is None:
            return []
        best = self._best()
        return [
            f"{self.curve.n:,} labelled, {self.curve.n_pos:,} of them yes: average precision "
            f"{self.curve.average_precision:.4f}, best F1 {best.f1:.4f} at score > {best.threshold:.4f}"
        ]

    def _best(self) -> Metrics:
        """Return the figures at the threshold of the best F1, the lowest of several."""
        assert self.curve is not None
        return self.curve.at_cut(int(np.argmax(self.curve.f1)))

    def _cells(self) -> tuple[list[str], list[list[str]], int | None]:
        """Return some thresholds as a head and lines of text, and the line of the best F1 where there are labels."""
        chosen, best = self.columns(n=_SHOWN)["threshold"], None
        if self.curve is not None:
            chosen = np.union1d(chosen, self._best().threshold)
            best = int(chosen.searchsorted(self._best().threshold))
        columns = self.columns(chosen)
        forms = {
            "threshold": ".4f",
            "matches": ",",
            "percentile": ".2f",
            "precision": ".4f",
            "recall": ".4f",
            "f1": ".4f",
        }
        head = [name for name in forms if name in columns]
        rows = zip(*(columns[name].tolist() for name in head), strict=True)
        texts = [[format(value, forms[name]) for name, value in zip(head, row, strict=True)] for row in rows]
        return head, texts, best

    def _spread(self, n: int) -> NDArray[np.float64]:
        """Return up to `n` thresholds at shares of the rows that halve and halve again towards the top."""
        shares = 1 - np.geomspace(0.5, 1 / max(len(self.distribution), 2), n)
        return np.unique(self.distribution.quantile(shares))


def sweep(reader: Reader, query: Any, labels: Any = None, **words: Any) -> Sweep:
    """Score every row for a query, once: every threshold can be asked of the result.

    A query, and its `template`, `weights` and `opposing`, may be all that `Concept.of` reads; labels all that
    `labels.labels_for` reads.
    """
    concept = Concept.of(query, **words)
    scores = reader.concept_scores(concept)
    labelled = None if labels is None else labels_for(reader.rows, labels)
    curve = None if labelled is None else precision_recall(scores[labelled.positions], labelled.values)
    return Sweep(concept.label, ScoreDistribution.of(scores), curve, labelled, scores)


def rank(reader: Reader, queries: Sequence[Any], labels: Any, **words: Any) -> list[dict[str, Any]]:
    """Rank queries by how well they sort labelled rows; queries, labels and `words` are read as in `sweep`.

    Returns ``query``, ``average_precision``, ``roc_auc``, ``best_f1`` (measured on the rows it is chosen on) of each;
    the best average precision first, ties in the order of the queries.
    """
    concepts = [Concept.of(query, **words) for query in queries]
    if not concepts:
        raise QueryError("give at least one query to rank")
    labelled = labels_for(reader.rows, labels)
    scores = np.stack([reader.concept_scores(concept)[labelled.positions] for concept in concepts])
    ranked = [
        {
            "query": concept.label,
            "average_precision": curve.average_precision,
            "roc_auc": curve.roc_auc,
            "best_f1": float(curve.f1.max()),
        }
        for concept, curve in zip(concepts, curves(scores, labelled.values), strict=True)
    ]
    return sorted(ranked, key=lambda row: -float(row["average_precision"]))


def noise_floor(reader: Reader, query: Any, share: float = 0.01) -> float:
    """Return the threshold that nonsense queries exceed on at most `share` of the rows each."""
    distribution = ScoreDistribution.of(reader.concept_scores(Concept.of(query)))
    # As vectors, for which nobody is warned that they hold no known word.
    return distribution.noise_floor(reader.scores(reader.query_vectors(NONSENSE)), share)


def calibrate(
    reader: Reader, query: Any, labels: Any, *, name: str | None = None, label: str | None = None, **options: Any
) -> Classifier:
    """Choose a threshold by labelled rows, and measure it on rows that it was not chosen on.

    Parameters
    ----------
    reader : Reader
    query, labels
        As in `sweep`.
    name, label : str, optional
        Of the classifier, and of its class; by default made from the query.
    **options
        `template`, `weights`, `opposing`: see `Concept.of`. The rest, such as ``objective="f2"`` or
        ``min_precision=0.95``: see `choice.Wishes` and `calibration.calibrate_scores`.

    Returns
    -------
    Classifier
        Not saved; see `EmbedStore.save_classifier`.

    Raises
    ------
    LabelError
        The labels do not fit, or none is positive.
    UnreachableError
        No threshold keeps the constraints; the message says how near one comes.
    """
    concept, wishes = _concept(query, options)
    named = _name_of(concept)
    calibrated = [_calibrated(reader, concept, labels, label or named, wishes)]
    return Classifier.of(name or named, reader.space, calibrated, "single", reader.store_id, reader.version)


def calibrate_classes(
    reader: Reader, queries: dict[str, Any], labels: str, *, name: str, mode: Mode = "argmax", **options: Any
) -> Classifier:
    """Calibrate one query and threshold for each class of a label column.

    `queries` says for each class, by its value in the column `labels`, what to look for. With mode ``"argmax"`` a row
    is of one class or none, with ``"multi-label"`` of any number. `options` and errors are those of `calibrate`.
    """
    if not queries:
        raise LabelError("give at least one class to calibrate, such as {'dog': 'a photo of a dog'}")
    calibrated = []
    for value, query in queries.items():
        concept, wishes = _concept(query, options)
        calibrated.append(_calibrated(reader, concept, f"{labels}={value}", value, wishes))
    return Classifier.of(name, reader.space, calibrated, mode, reader.store_id, reader.version)


def _concept(query: Any, options: dict[str, Any]) -> tuple[Concept, dict[str, Any]]:
    """Read a concept by those options that are its own, and return the others."""
    words = {key: value for key, value in options.items() if key in ("template", "weights", "opposing")}
    return Concept.of(query, **words), {key: value for key, value in options.items() if key not in words}


def _calibrated(
    reader: Reader, concept: Concept, labels: Any, label: str, wishes: dict[str, Any]
) -> tuple[Target, Calibration]:
    """Make the class of a concept, with the threshold that labels choose."""
    labelled = labels_for(reader.rows, labels)
    if len(labelled) < 2:
        few = counted(len(labelled), "labelled row is", "labelled rows are")
        raise LabelError(f"{labelled.source}: {few} too few to choose a threshold by")
    vector, opponents = reader.concept_vectors([concept])[0]
    asked = Target(label, 0.0, vector, opponents, **concept.words)
    scores = asked.score(reader.scores(list(asked.vectors)))[labelled.positions]
    groups = _groups(reader.rows, labelled)
    calibration = calibrate_scores(scores, labelled.values, groups, **wishes)
    return asked.measured(scores, calibration.metrics, calibration.intervals), calibration


def _groups(rows: Rows, labelled: Labelled) -> list[str]:
    """Name the picture of each labelled row, so that copies of one never stand on both sides of a split."""
    hashes = rows.take(labelled.positions, ["content_hash"]).column("content_hash").to_pylist()
    return [value or f"row {row}" for value, row in zip(hashes, labelled.positions.tolist(), strict=True)]


def _name_of(concept: Concept) -> str:
    """Make a name of the letters and digits of a concept."""
    text = "".join(c if c.isalnum() or c in " _-" else "" for c in concept.label)
    return " ".join(text.split())[:60].strip() or "classifier"
