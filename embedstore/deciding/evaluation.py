"""A reader and a classifier -> decisions on its rows, and how right they are.

A pure function of both: no model and no network is needed, and what matched under another threshold and does not now
is simply no match. Choosing thresholds is left to `thresholds`, the pictures that a person should look at to `review`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.cells import aligned
from embedstore.deciding.classifier import Classifier
from embedstore.deciding.label_log import own_or
from embedstore.deciding.labels import classes_for, labels_for
from embedstore.errors import ClassifierError, InputError
from embedstore.measures.choice import Wishes
from embedstore.measures.competition import swallowing
from embedstore.measures.curves import precision_recall
from embedstore.measures.explanations import Advice
from embedstore.measures.rates import REPORTED, Confusion, Metrics, confusion, figures_in_words, name_in_words
from embedstore.measures.shift import ERROR, Shift
from embedstore.searching.matches import Matches
from embedstore.searching.reader import Reader
from embedstore.vectors import Positions, total_order


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a classifier, by its name, does on `n` labelled rows."""

    classifier: str
    metrics: dict[str, Metrics]
    """By class: of its own threshold, which does not decide where several classes compete."""
    confusion: Confusion | None
    """For classifiers of several classes that decide for one: of that decision."""
    advice: dict[str, Advice]
    """By class, where it is known: whether the scores here differ from those of the calibration, and why."""
    n: int
    labelled: str
    """Where the labels came from, in words."""
    held_out: str
    """Whether all was chosen on other pictures, in words: see `Classifier.held_out`."""
    warnings: tuple[str, ...] = ()
    """Of classes that match nearly everything, and the like."""

    @property
    def shift(self) -> dict[str, Shift]:
        """By class, where it is known: how the scores here differ from those of the calibration."""
        return {label: advice.shift for label, advice in self.advice.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values; ``confusion`` is there for classifiers that decide for one class."""
        metrics = {label: figures.to_dict() for label, figures in self.metrics.items()}
        figures = {
            "classifier": self.classifier,
            "n": self.n,
            "labelled": self.labelled,
            "held_out": self.held_out,
            "metrics": metrics,
            "shift": {label: advice.to_dict() for label, advice in self.advice.items()},
            "warnings": list(self.warnings),
        }
        return figures if self.confusion is None else {**figures, "confusion": self.confusion.to_dict()}

    def __str__(self) -> str:
        lines = [f"{self.classifier} on {self.n:,} labelled rows ({self.labelled}); {self.held_out}"]
        head = ["class", *map(name_in_words, ("threshold", *REPORTED))]
        rows = [[label, *figures_in_words(figures.to_dict())] for label, figures in self.metrics.items()]
        lines += aligned([head, *rows])
        if self.confusion is not None:
            lines += ["", "decided for one class, or none:", *self.confusion.lines(), "", str(self.confusion)]
        alone = len(self.metrics) == 1
        for label, advice in self.advice.items():
            again = " Calibrate again by these labels." if advice.verdict != "none" else ""
            lines.append(("" if alone else f"{label}: ") + advice.findings + again)
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def apply(reader: Reader, classifier: Classifier) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Decide on every row: scores and matches, each of shape (n_classes, n_rows)."""
    scores = classifier.scores_in(reader)
    return scores, classifier.match(scores)


def matches(reader: Reader, classifier: Classifier, threshold: float | None = None, where: Any = None) -> Matches:
    """Return every row that a classifier of one class matches, highest score first; `threshold` replaces its own."""
    own = classifier.threshold
    classifier.require_space(reader.space)
    asked = reader.query_vectors(list(classifier.targets[0].vectors))
    return reader.matching(asked[0], asked[1:], own if threshold is None else threshold, classifier.name, where)


def predict(reader: Reader, classifier: Classifier, where: Any = None) -> pa.Table:
    """Return a row (``id``, ``predicted``, ``score``, ``uri``) for each match of each class, highest score first.

    With mode ``"argmax"`` no id stands there twice. Where classes compete there is also ``probability`` (float32), and
    the most probable come first, as scores of different classes cannot be compared.
    """
    class_scores, matched = apply(reader, classifier)
    mask = reader.mask(where)
    if mask is not None:
        matched = matched & mask
    return predicted(classifier, class_scores, matched, reader.rows.take)


def predicted(
    classifier: Classifier,
    class_scores: NDArray[np.float32],
    matched: NDArray[np.bool_],
    take: Callable[[Positions, Sequence[str]], pa.Table],
) -> pa.Table:
    """Return a row for each match of each class, see `predict`; `take` returns columns of rows by their places."""
    classes, positions = np.nonzero(matched)
    scores = class_scores[classes, positions]
    rows = take(positions, ["id", "uri"])
    labels = np.array(classifier.labels, dtype=object)[classes]
    columns = {
        "id": rows.column("id"),
        "predicted": pa.array(labels.tolist(), pa.string()),
        "score": pa.array(scores, pa.float32()),
    }
    if classifier.competition is not None:
        scores = classifier.probabilities(class_scores)[classes, positions].astype(np.float32)
        columns["probability"] = pa.array(scores, pa.float32())
    order = total_order(scores, rows.column("id").to_numpy())
    return pa.table({**columns, "uri": rows.column("uri")}).take(pa.array(order))


def advices(reader: Reader, classifier: Classifier, where: Any = None) -> dict[str, Advice]:
    """Say for each class whether the scores here differ from those of the calibration, and why, where those are known.

    The chance of telling a difference where there is none is 5 % for all classes together.
    """
    mask = reader.mask(where)
    scores = classifier.scores_in(reader)
    wishes = wishes_of(classifier)
    found = {
        target.label: target.advice(line if mask is None else line[mask], wishes, ERROR / len(scores))
        for target, line in zip(classifier.targets, scores, strict=True)
    }
    return {label: advice for label, advice in found.items() if advice is not None}


def wishes_of(classifier: Classifier) -> Wishes:
    """Return what a classifier's thresholds were chosen for, without a guarantee; F1 where that is not known."""
    if not classifier.objective:
        return Wishes(guarantee=False)
    try:
        return Wishes.of_words(classifier.objective, classifier.constraints)
    except InputError:  # words of somebody who made the classifier himself
        return Wishes(guarantee=False)


def evaluate(reader: Reader, classifier: Classifier, labels: Any = None, where: Any = None) -> Evaluation:
    """Measure a classifier on labelled rows, those that `where` keeps.

    For one class labels are all that `labels.labels_for` reads, by default what the store keeps of the class; for
    several, the column of class names. There a row of none of the classes is right when nothing is predicted for it.
    Where it is known how rows were picked, the figures are estimates for the store: see `Labelled.to_measure`.
    """
    scores = classifier.scores_in(reader)
    alone = len(classifier.targets) == 1
    if alone:
        labels = own_or(reader, labels, classifier.target.label)
    labelled = labels_for(reader.rows, labels) if alone else classes_for(reader.rows, labels)
    labelled = labelled.within(reader.rows, where).to_measure()
    positions, truths, weights = labelled.positions, labelled.values, labelled.weights
    metrics, warnings = {}, []
    for target, line in zip(classifier.targets, scores, strict=True):
        curve = precision_recall(line[positions], truths if alone else truths == target.label, weights)
        metrics[target.label] = curve.at(target.threshold)
        warnings.append(swallowing(target.label, metrics[target.label]))
    counts = None
    if classifier.mode == "argmax" and not alone:
        predicted = classifier.predict(scores[:, positions])
        counts = confusion(truths.tolist(), predicted, classifier.labels, weights)
        warnings += [swallowing(label, one, "is decided for") for label, one in counts.by_class.items()]
    held_out = classifier.held_out(reader, labelled)
    advice = advices(reader, classifier, where)
    said = tuple(filter(None, warnings))
    return Evaluation(classifier.name, metrics, counts, advice, len(labelled), labelled.described, held_out, said)


def with_columns(reader: Reader, classifier: Classifier | None) -> pa.Table:
    """Return all columns of all rows but the vectors, with a classifier's own after them.

    Those are ``NAME_score`` (float32) and ``NAME_match`` (bool); with several classes ``NAME_CLASS_score`` and
    ``NAME_CLASS_match`` of each, and where they compete ``NAME_predicted`` (the class decided for, or null) and
    ``NAME_probability`` (float32, of the likeliest class, decided for or not). Raises ClassifierError where the
    classifier is of another space, or a column has its name already.
    """
    table = reader.rows.metadata(reader.rows.columns)
    if classifier is None:
        return table
    scores, matches = apply(reader, classifier)
    columns: dict[str, Any] = {}
    for number, label in enumerate(classifier.labels):
        name = classifier.name if len(classifier.labels) == 1 else f"{classifier.name}_{label}"
        columns[f"{name}_score"] = pa.array(scores[number], pa.float32())
        columns[f"{name}_match"] = pa.array(matches[number])
    if classifier.competition is not None:
        likeliest = classifier.probabilities(scores).max(axis=0, initial=0)
        columns[f"{classifier.name}_predicted"] = pa.array(classifier.predict(scores), pa.string())
        columns[f"{classifier.name}_probability"] = pa.array(likeliest, pa.float32())
    for column, values in columns.items():
        if column in table.column_names:
            raise ClassifierError(f"the store has a column {column!r} already; rename the classifier")
        table = table.append_column(column, values)
    return table
