"""A store, a query and labels -> a measured decision, saved and applied again.

The numbers are made by `curves`, `calibration` and `classifier`; this module fetches scores and labels for them and
keeps the classifiers of a store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.deciding.concepts import Concept
from embedstore.deciding.labelling import Labelled, classes_for, labels_for
from embedstore.deciding.sweeping import concept_scores
from embedstore.errors import ClassifierError, LabelError
from embedstore.measures.calibration import Calibration, calibrate_scores
from embedstore.measures.classifier import Classifier, Mode
from embedstore.measures.confusion import Confusion, confusion
from embedstore.measures.curves import precision_recall
from embedstore.measures.json_files import check_name
from embedstore.measures.rates import Metrics
from embedstore.measures.shift import Shift
from embedstore.measures.targets import Target
from embedstore.searching.matches import Matches
from embedstore.store import EmbedStore
from embedstore.vectors import total_order


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a classifier does on labelled rows that it was not calibrated on.

    Attributes
    ----------
    classifier : str
    metrics : dict of str to Metrics
        By class.
    confusion : Confusion or None
        For classifiers of several classes that decide for one.
    shift : dict of str to Shift or None
        By class: how the scores here differ from those of the calibration.
    n : int
        Labelled rows.
    """

    classifier: str
    metrics: dict[str, Metrics]
    confusion: Confusion | None
    shift: dict[str, Shift | None]
    n: int


def calibrate(
    store: EmbedStore,
    query: Any,
    labels: Any,
    *,
    name: str | None = None,
    label: str | None = None,
    **options: Any,
) -> Classifier:
    """Choose a threshold by labelled rows, and measure it on rows that it was not chosen on.

    Parameters
    ----------
    store : EmbedStore
    query : query, list of queries, or Concept
    labels
        See `labelling.labels_for`.
    name : str, optional
        Of the classifier; by default made from the query.
    label : str, optional
        Of its class; by default the name.
    **options
        `template`, `weights`, `opposing`: see `Concept.of`. The rest, such as ``objective="f2"`` or
        ``min_precision=0.95``: see `calibration.calibrate_scores`.

    Returns
    -------
    Classifier
        Not saved; see `save`.

    Raises
    ------
    LabelError
        The labels do not fit, or none is positive.
    UnreachableError
        No threshold keeps the constraints; the message says how near one comes.
    """
    concept, target, calibration = _calibrated(store, query, labels, label, options)
    return Classifier.from_calibration(
        name or _name_of(concept), store.space, calibration, target, store.id, store.version
    )


def calibrate_classes(
    store: EmbedStore,
    queries: dict[str, Any],
    labels: str,
    *,
    name: str,
    mode: Mode = "argmax",
    **options: Any,
) -> Classifier:
    """Calibrate one query and threshold for each class of a label column.

    Parameters
    ----------
    store : EmbedStore
    queries : dict of str to query
        The class's value in the column -> what to look for.
    labels : str
        The column.
    name : str
    mode : {"argmax", "multi-label"}
        One class for each row, or none; or any number of them.
    **options
        As in `calibrate`.
    """
    made = [
        _calibrated(store, query, f"{labels}={value}", value, dict(options))
        for value, query in queries.items()
    ]
    first = made[0][2]
    return Classifier(
        name,
        store.space,
        tuple(target for _, target, _ in made),
        mode,
        objective=str(first.choice.objective),
        constraints=str(first.choice.constraints),
        validation=first.validation,
        confidence=first.confidence,
        n=first.n,
        n_pos=sum(calibration.n_pos for _, _, calibration in made),
        store_id=store.id,
        store_version=store.version,
        warnings=tuple(f"{t.label}: {text}" for _, t, c in made for text in c.warnings),
    )


def apply(store: EmbedStore, classifier: Classifier) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Decide on every row: scores and matches, each of shape (n_classes, n_rows).

    A pure function of the rows and the classifier: what matched under another threshold and does not now is False.
    No model and no network is needed.
    """
    classifier.require_space(store.space)
    found = classifier.scores(store.scores(list(classifier.vectors)))
    return found, classifier.match(found)


def matches(
    store: EmbedStore, classifier: Classifier, threshold: float | None = None, where: Any = None
) -> Matches:
    """Return every row that a classifier of one class matches, highest score first.

    Parameters
    ----------
    store : EmbedStore
    classifier : Classifier
    threshold : float, optional
        Instead of the classifier's own.
    where : str or Expression, optional
    """
    if len(classifier.targets) > 1:
        raise ClassifierError(
            f"{classifier.name!r} has {len(classifier.targets)} classes; see `decide.apply`"
        )
    found, _ = apply(store, classifier)
    limit = classifier.threshold if threshold is None else threshold
    return store.exceeding(found[0], limit, classifier.name, where)


def predict(store: EmbedStore, classifier: Classifier, where: Any = None) -> pa.Table:
    """Return a row for each match of each class of a classifier, highest score first.

    Returns
    -------
    pyarrow.Table
        Columns ``id``, ``predicted``, ``score``, ``uri``. With mode ``"argmax"`` no id stands there twice.
    """
    found, matched = apply(store, classifier)
    mask = store.mask(where)
    if mask is not None:
        matched = matched & mask
    classes, positions = np.nonzero(matched)
    scores = found[classes, positions]
    rows = store.rows.metadata(["id", "uri"]).take(pa.array(positions))
    order = total_order(scores, rows.column("id").to_numpy())
    labels = np.array(classifier.labels, dtype=object)[classes]
    table = pa.table(
        {
            "id": rows.column("id"),
            "predicted": pa.array(labels.tolist(), pa.string()),
            "score": pa.array(scores, pa.float32()),
            "uri": rows.column("uri"),
        }
    )
    return table.take(pa.array(order))


def evaluate(store: EmbedStore, classifier: Classifier, labels: Any) -> Evaluation:
    """Measure a classifier on labelled rows.

    Parameters
    ----------
    store : EmbedStore
    classifier : Classifier
    labels
        For one class see `labelling.labels_for`; for several the column of class names.
    """
    found, _ = apply(store, classifier)
    shift = {target.label: target.shift(line) for target, line in zip(classifier.targets, found, strict=True)}
    if len(classifier.targets) == 1:
        one = labels_for(store.rows, labels)
        curve = precision_recall(found[0][one.positions], one.values)
        target = classifier.targets[0]
        return Evaluation(classifier.name, {target.label: curve.at(target.threshold)}, None, shift, len(one))
    several = classes_for(store.rows, labels)
    metrics = {
        target.label: precision_recall(line[several.positions], several.values == target.label).at(
            target.threshold
        )
        for target, line in zip(classifier.targets, found, strict=True)
    }
    counts = None
    if classifier.mode == "argmax":
        counts = confusion(several.values.tolist(), classifier.predict(found[:, several.positions]))
    return Evaluation(classifier.name, metrics, counts, shift, len(several))


def save(store: EmbedStore, classifier: Classifier) -> None:
    """Keep a classifier in the store, as ``classifiers/NAME.json``."""
    folder = store.path / "classifiers"
    folder.mkdir(exist_ok=True)
    classifier.save(folder)


def load(store: EmbedStore, name: str) -> Classifier:
    """Return a classifier that the store keeps.

    Raises
    ------
    ClassifierError
        There is none of that name; the message names those that there are.
    """
    file = store.path / "classifiers" / f"{check_name(name)}.json"
    if not file.exists():
        there = ", ".join(names(store)) or "none yet: see `embedstore calibrate`"
        raise ClassifierError(f"this store keeps no classifier {name!r}; it keeps {there}")
    return Classifier.load(file)


def names(store: EmbedStore) -> list[str]:
    """Return the names of the classifiers that the store keeps, sorted."""
    return sorted(file.stem for file in (store.path / "classifiers").glob("*.json"))


def _calibrated(
    store: EmbedStore, query: Any, labels: Any, label: str | None, options: dict[str, Any]
) -> tuple[Concept, Target, Calibration]:
    words = {key: options.pop(key) for key in ("template", "weights", "opposing") if key in options}
    concept = Concept.of(query, **words)
    labelled = labels_for(store.rows, labels)
    if len(labelled) < 2:
        raise LabelError(
            f"{labelled.source}: {len(labelled)} labelled row is too few to choose a threshold by"
        )
    found = concept_scores(store, concept)[labelled.positions]
    calibration = calibrate_scores(found, labelled.values, _groups(store, labelled), **options)
    vector, opponents = concept.join(store.query_vectors(concept.all_queries))
    against = opponents if len(opponents) else None
    target = Target.from_calibration(
        label or _name_of(concept), calibration, found, vector, against, **concept.words
    )
    return concept, target, calibration


def _groups(store: EmbedStore, labelled: Labelled) -> list[str]:
    """Name the picture of each labelled row, so that copies of one never stand on both sides of a split."""
    hashes = store.rows.metadata(["content_hash"]).column("content_hash").to_pylist()
    return [hashes[position] or f"row {position}" for position in labelled.positions.tolist()]


def _name_of(concept: Concept) -> str:
    text = "".join(c if c.isalnum() or c in " _-" else "" for c in concept.label).strip()
    return text[:60].strip() or "classifier"
