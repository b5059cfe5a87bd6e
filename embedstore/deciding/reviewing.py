"""A store and a classifier -> the pictures that a person should look at: near the threshold, and the mistakes.

Labels that a person gives in the CSV come back in through `labelling.labels_for`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.deciding import decide
from embedstore.deciding.labelling import Labelled, labels_for
from embedstore.errors import ClassifierError
from embedstore.measures.classifier import Classifier
from embedstore.measures.review import boundary, errors_of, review_sample
from embedstore.store import EmbedStore

COLUMNS = ("id", "uri", "score", "reason", "label")


@dataclass(frozen=True, eq=False)
class Review:
    """Rows to look at, highest score first.

    Attributes
    ----------
    table : pyarrow.Table
        Columns ``id``, ``uri``, ``score``, ``reason``, ``label``; ``label`` is null where a person should fill it.
    title : str
    threshold : float
    """

    table: pa.Table
    title: str
    threshold: float

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def save_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows; fill the column ``label`` with yes or no, and give the file back as labels."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for row in self.table.to_pylist():
                label = {True: "yes", False: "no", None: ""}[row["label"]]
                writer.writerow([row["id"], row["uri"], f"{row['score']:.6f}", row["reason"], label])

    def save_sheet(self, path: str | os.PathLike[str], columns: int = 8) -> None:
        """Draw the pictures with their scores; a green line below: labelled as a match, red: as none."""
        from embedstore import images
        from embedstore.sources import pictures_at

        rows = self.table.to_pylist()
        pictures = pictures_at(row["uri"] for row in rows)
        items = [(pictures.get(row["uri"]), f"{row['score']:.4f}\n{row['reason']}") for row in rows]
        sheet = images.contact_sheet(items, columns, title=self.title, marks=[row["label"] for row in rows])
        sheet.save(Path(path))


def review(
    store: EmbedStore,
    classifier: Classifier,
    labels: Any = None,
    *,
    n_near: int = 20,
    n_stratified: int = 20,
    seed: int = 0,
) -> Review:
    """Pick unlabelled rows nearest the threshold, and a sample over all scores.

    Parameters
    ----------
    store : EmbedStore
    classifier : Classifier
        Of one class.
    labels : optional
        Rows that have a label in these are left out; see `labelling.labels_for`.
    n_near, n_stratified, seed
        See `review.review_sample`.
    """
    scores = _scores(store, classifier)
    done = np.zeros(len(scores), dtype=np.bool_)
    if labels is not None:
        done[labels_for(store.rows, labels).positions] = True
    picked = review_sample(scores, classifier.threshold, n_near, n_stratified, seed, done)
    title = f"{classifier.name}: label these, threshold {classifier.threshold:.4f}"
    return _review(store, scores, picked.positions, picked.reasons, None, title, classifier.threshold)


def around(store: EmbedStore, classifier: Classifier, labels: Any = None, n: int = 32) -> Review:
    """Return up to `n` rows around the threshold, half on each side where there are."""
    scores = _scores(store, classifier)
    labelled = None if labels is None else labels_for(store.rows, labels)
    positions = boundary(scores, classifier.threshold, n)
    reasons = ["match" if scores[place] > classifier.threshold else "no match" for place in positions]
    title = f"{classifier.name}: around the threshold {classifier.threshold:.4f}"
    return _review(store, scores, positions, reasons, labelled, title, classifier.threshold)


def mistakes(store: EmbedStore, classifier: Classifier, labels: Any) -> tuple[Review, Review]:
    """Return the false positives and the false negatives, each with the worst first."""
    scores = _scores(store, classifier)
    labelled = labels_for(store.rows, labels)
    wrong, missed = errors_of(scores[labelled.positions], labelled.values, classifier.threshold)
    found = []
    for places, what in ((wrong, "false positive"), (missed, "false negative")):
        positions = labelled.positions[places]
        title = f"{classifier.name}: {len(places)} {what}s at {classifier.threshold:.4f}"
        found.append(
            _review(store, scores, positions, [what] * len(places), labelled, title, classifier.threshold)
        )
    return found[0], found[1]


def _scores(store: EmbedStore, classifier: Classifier) -> NDArray[np.float32]:
    if len(classifier.targets) > 1:
        raise ClassifierError(
            f"{classifier.name!r} has {len(classifier.targets)} classes; review one class at a time"
        )
    scores: NDArray[np.float32] = decide.apply(store, classifier)[0][0]
    return scores


def _review(
    store: EmbedStore,
    scores: NDArray[np.float32],
    positions: NDArray[Any],
    reasons: Sequence[str],
    labelled: Labelled | None,
    title: str,
    threshold: float,
) -> Review:
    known = (
        {}
        if labelled is None
        else dict(zip(labelled.positions.tolist(), labelled.values.tolist(), strict=True))
    )
    rows = store.rows.metadata(["id", "uri"]).take(pa.array(positions, pa.int64()))
    labels = [known.get(place) for place in positions.tolist()]
    table = pa.table(
        {
            "id": rows.column("id"),
            "uri": rows.column("uri"),
            "score": pa.array(scores[positions], pa.float32()),
            "reason": pa.array(list(reasons), pa.string()),
            "label": pa.array(labels, pa.bool_()),
        }
    )
    return Review(table, title, threshold)
