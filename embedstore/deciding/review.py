"""A reader, a classifier and labels -> the pictures that a person should look at: near the threshold, and the mistakes.

`ScoredRows` scores the rows and reads the labels once, and makes a `Review` of some: a table, a CSV to be filled in, a
contact sheet. Labels that a person gives in the CSV come back in through `labels.labels_for`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from embedstore import cells
from embedstore.deciding.classifier import Classifier
from embedstore.deciding.labels import NO_LABELS, Labelled, labels_for
from embedstore.errors import InputError
from embedstore.files import naming
from embedstore.measures.curves import above
from embedstore.measures.samples import as_labels, as_scores
from embedstore.searching.reader import Reader
from embedstore.storage.rows import Rows
from embedstore.vectors import Positions

COLUMNS = ("id", "uri", "score", "reason", "label")
SHEETS = (".png", ".jpg", ".jpeg")
YES_NO = {True: "yes", False: "no", None: ""}
"""How a label is written."""


@dataclass(frozen=True, eq=False)
class Review:
    """Rows to look at, in the order in which they should be."""

    table: pa.Table
    """Columns as in `COLUMNS`; ``label`` is null where a person should fill it."""
    title: str
    rows: Rows | None = None
    """Where small copies of pictures are looked for that no file holds."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def save_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows; fill the column ``label`` with yes or no, and give the file back as labels."""
        with naming(path), open(path, "w", newline="", encoding="utf-8") as file:
            file.write(cells.line(COLUMNS))
            for row in self.table.to_pylist():
                shown = row | {"score": f"{row['score']:.6f}", "label": YES_NO[row["label"]]}
                file.write(cells.line(shown[name] for name in COLUMNS))

    def save_sheet(self, path: str | os.PathLike[str]) -> None:
        """Draw the pictures with their scores; a green line below: labelled as a match, red: as none."""
        reasons, labels = (self.table.column(name).to_pylist() for name in ("reason", "label"))
        draw_sheet(self.table, path, self.title, reasons, labels, self.rows)


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """The rows of a reader, scored by a classifier of one class, and the labels of some of them, or of none."""

    reader: Reader
    name: str
    """Of the classifier; so is the threshold."""
    threshold: float
    scores: NDArray[np.float32]
    """Shape (n_rows,)."""
    labelled: Labelled

    @classmethod
    def of(cls, reader: Reader, classifier: Classifier, labels: Any = None) -> ScoredRows:
        """Score the rows, and read labels as `labels.labels_for` does; ClassifierError with several classes."""
        threshold = classifier.threshold
        labelled = NO_LABELS if labels is None else labels_for(reader.rows, labels)
        return cls(reader, classifier.name, threshold, classifier.scores_in(reader)[0], labelled)

    def to_label(self, n_near: int = 20, n_stratified: int = 20, seed: int = 0) -> Review:
        """Pick unlabelled rows nearest the threshold, and a sample over all scores: see `review_sample`."""
        done = np.zeros(len(self.scores), dtype=np.bool_)
        done[self.labelled.positions] = True
        positions, reasons = review_sample(self.scores, self.threshold, n_near, n_stratified, seed, done)
        return self._review(positions, reasons, f"label these, threshold {self.threshold:.4f}")

    def around(self, n: int = 32) -> Review:
        """Return up to `n` rows around the threshold, half on each side where there are, highest score first."""
        positions = boundary(self.scores, self.threshold, n)
        matched = above(self.scores[positions], self.threshold).tolist()
        reasons = ["match" if match else "no match" for match in matched]
        return self._review(positions, reasons, f"around the threshold {self.threshold:.4f}")

    def mistakes(self) -> tuple[Review, Review]:
        """Return the false positives and the false negatives among the labelled rows, each with the worst first."""
        positions = self.labelled.positions
        wrong, missed = (
            self._review(positions[rows], [what] * len(rows), f"{len(rows)} {what}s at {self.threshold:.4f}")
            for rows, what in zip(
                errors_of(self.scores[positions], self.labelled.values, self.threshold),
                ("false positive", "false negative"),
                strict=True,
            )
        )
        return wrong, missed

    def _review(self, positions: Positions, reasons: Sequence[str], title: str) -> Review:
        """Make the review of some rows, with the labels that are known of them."""
        truth: NDArray[Any] = np.full(len(self.scores), None)
        truth[self.labelled.positions] = self.labelled.values
        rows = self.reader.rows.take(positions, ["id", "uri"])
        columns = {
            "id": rows.column("id"),
            "uri": rows.column("uri"),
            "score": pa.array(self.scores[positions], pa.float32()),
            "reason": pa.array(list(reasons), pa.string()),
            "label": pa.array(truth[positions].tolist(), pa.bool_()),
        }
        return Review(pa.table(columns), f"{self.name}: {title}", self.reader.rows)


def draw_sheet(
    rows: pa.Table,
    file: str | os.PathLike[str],
    title: str,
    notes: Sequence[Any],
    marks: Sequence[bool | None] | None = None,
    store: Rows | None = None,
) -> None:
    """Draw the pictures of rows (``uri``, ``score``) on a sheet, each with its score and its note below.

    Of pictures that no file holds the small copies are drawn that the `store` keeps, which the rows are of. `marks`
    puts a green (True) or red (False) line under each, or none (None).
    """
    from embedstore import images
    from embedstore.sources import pictures_at

    uris, scores = rows.column("uri").to_pylist(), rows.column("score").to_pylist()
    pictures = pictures_at(uris, None if store is None else store.thumbnails_at)
    captions = [f"{score:.4f}\n{'' if note is None else note}" for score, note in zip(scores, notes, strict=True)]
    items = list(zip(map(pictures.get, uris), captions, strict=True))
    if Path(file).suffix.lower() not in SHEETS:
        raise InputError(f"a sheet's name must end in one of {', '.join(SHEETS)}, found {Path(file).name!r}")
    with naming(file):
        images.contact_sheet(items, 8, title=title, marks=marks).save(Path(file))


def review_sample(
    scores: ArrayLike,
    threshold: float,
    n_near: int = 20,
    n_stratified: int = 20,
    seed: int = 0,
    labelled: ArrayLike | None = None,
) -> tuple[Positions, list[str]]:
    """Return positions, highest score first, of rows to label, and for each the reason, in words.

    They are the `n_near` rows nearest the threshold (of equally near ones the earlier), whose labels move it, and
    `n_stratified` others, one at random from each of as many slices of equal numbers of rows over the whole range of
    scores, whose labels tell precision and recall. Rows where `labelled`, shape (n,), is true are left out.
    """
    values = as_scores(scores).astype(np.float64)
    if n_near < 0 or n_stratified < 0:
        raise InputError(f"numbers of rows cannot be negative, found {n_near} and {n_stratified}")
    done = np.zeros(len(values), dtype=np.bool_) if labelled is None else as_labels(labelled, len(values))
    open_rows = np.flatnonzero(~done)
    near = open_rows[np.argsort(np.abs(values[open_rows] - threshold), kind="stable")[:n_near]]
    reasons = dict.fromkeys(near.tolist(), "near the threshold")
    rest = np.setdiff1d(open_rows, near)
    rest = rest[np.argsort(values[rest], kind="stable")]
    rng = np.random.default_rng(seed)
    for part in np.array_split(rest, min(n_stratified, len(rest)) or 1):
        if n_stratified and len(part):
            low, high = values[part[0]], values[part[-1]]
            reasons[int(rng.choice(part))] = f"sample of scores {low:.4f} to {high:.4f}"
    positions = sorted(reasons, key=lambda row: (-values[row], row))
    return np.array(positions, dtype=np.int64), [reasons[row] for row in positions]


def errors_of(scores: ArrayLike, labels: ArrayLike, threshold: float) -> tuple[Positions, Positions]:
    """Return the positions of the false positives, highest score first, and of the false negatives, lowest first.

    So the worst errors come first.
    """
    values = as_scores(scores)
    truth = as_labels(labels, len(values))
    matched = above(values, threshold)
    wrong, missed = np.flatnonzero(matched & ~truth), np.flatnonzero(~matched & truth)
    return wrong[np.argsort(-values[wrong], kind="stable")], missed[np.argsort(values[missed], kind="stable")]


def boundary(scores: ArrayLike, threshold: float, n: int = 24) -> Positions:
    """Return up to `n` rows around the threshold, half on each side where there are, highest score first."""
    values: NDArray[Any] = as_scores(scores)
    order = np.argsort(-values, kind="stable")
    cut = int(above(values, threshold).sum())
    first = max(0, min(cut - n // 2, len(values) - n))
    return order[first : first + n]
