"""A reader, a classifier and labels -> the pictures that a person should look at: near the threshold, and the mistakes.

`ScoredRows` scores the rows and reads the labels once, and makes a `Review` of some: a table, a CSV to be filled in, a
contact sheet. Labels that a person gives in the CSV come back in through `labels.labels_for`; a review that is written
over it takes them along.
"""

from __future__ import annotations

import csv
import datetime
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from embedstore import cells
from embedstore.deciding.classifier import Classifier
from embedstore.deciding.labels import NO_LABELS, Labelled, labels_for
from embedstore.errors import InputError
from embedstore.files import naming, open_regular, replace
from embedstore.measures.curves import above
from embedstore.measures.samples import as_labels, as_scores
from embedstore.result_files import REVIEWS, SHEETS, to_write, written_for_people
from embedstore.searching.reader import Reader
from embedstore.storage.rows import Rows
from embedstore.vectors import Mask, Positions

COLUMNS = ("row", "id", "uri", "score", "predicted", "truth", "reason", "label")
"""Of the CSV: what is known, and last what a person says."""
_SURPLUS = "cells beyond the last column"
_MOST_DRAWN = 400


@dataclass(frozen=True, eq=False)
class Review:
    """Rows to look at, in the order in which they should be."""

    table: pa.Table
    """Columns ``id``, ``uri``, ``score``, ``predicted`` and ``truth`` (the class, or "not" and the class; ``truth`` is
    null where there is no label), ``reason``."""
    title: str
    notes: tuple[str, ...] = ()
    """Where the rows are from, and when: lines below the title of a sheet."""
    rules: Mapping[int, str] = field(default_factory=dict)
    """What a line says that stands before the row of that number, such as the threshold."""
    rows: Rows | None = None
    """Where small copies of pictures are looked for that no file holds."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def right(self) -> list[bool | None]:
        """Whether each row is predicted as it is labelled; None without a label."""
        pairs = zip(*(self.table.column(name).to_pylist() for name in ("predicted", "truth")), strict=True)
        return [None if truth is None else predicted == truth for predicted, truth in pairs]

    def save_csv(self, path: str | os.PathLike[str], force: bool = False) -> int:
        """Write the rows; fill the column ``label`` with yes or no, and give the file back as labels.

        A review that is there already may hold labels of yours: they are kept, by id, also those of rows that are not
        in this review any more. Returns how many. Rows are numbered from 1 in the column ``row``, as on a sheet.

        Parameters
        ----------
        path : path
        force : bool
            Replace the file whatever it is; labels in it are lost.

        Raises
        ------
        NotOursError
            Without `force`: the file is no review, or has columns that a review has not.
        InputError, PathError
            As `result_files.to_write`: its name does not end in .csv, or its folder is not there.
        """
        file = to_write(path, REVIEWS)
        labelled = None if force else _labelled_rows(path)
        carried = dict(labelled or {})
        lines = []
        for row in self.table.to_pylist():
            given = carried.pop(str(row["id"]), {})
            lines.append({**row, "score": f"{row['score']:.6f}", "label": given.get("label")})
        lines += carried.values()
        text = cells.line(COLUMNS)
        for number, line in enumerate(lines, 1):
            text += cells.line({**line, "row": number}.get(name) for name in COLUMNS)
        with written_for_people(file, force or labelled is not None):
            if file.exists() and not file.is_file():
                file.write_text(text, encoding="utf-8", newline="")
            else:
                replace(file.resolve(), text)  # whole or not at all: the labels in the old one are somebody's work
        return len(labelled or {})

    def save_sheet(self, path: str | os.PathLike[str]) -> None:
        """Draw the pictures with number, score, prediction and truth, and a mark that says whether they agree.

        Of very many, 400 are drawn: the first before a rule, and the first after it.
        """
        drawn = self._drawn()
        shown, captions = self.table.take(pa.array(drawn, pa.int64())), []
        for number, row in zip(drawn, shown.to_pylist(), strict=True):
            truth = "" if row["truth"] is None else f"\ntruth: {row['truth']}"
            captions.append(f"#{number + 1}  {row['score']:.4f}\npredicted: {row['predicted']}{truth}")
        right, uris = self.right, shown.column("uri").to_pylist()
        rules = {int(np.searchsorted(drawn, place)): text for place, text in self.rules.items()}
        part = (f"{len(drawn)} of {len(self):,} are drawn",) if len(drawn) < len(self) else ()
        words = {"title": self.title, "notes": (*self.notes, *part), "rules": rules}
        _draw(uris, captions, path, self.rows, marks=[right[number] for number in drawn], **words)

    def _drawn(self) -> list[int]:
        """Return the rows that a sheet shows: at most `_MOST_DRAWN`, from both sides of a rule."""
        edge = min(self.rules, default=0)
        before = min(edge, max(_MOST_DRAWN // 2, _MOST_DRAWN - (len(self) - edge)))
        return [*range(before), *range(edge, min(len(self), edge + _MOST_DRAWN - before))]


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """The rows of a reader, scored by a classifier of one class, and the labels of some of them, or of none."""

    reader: Reader
    classifier: Classifier
    threshold: float
    scores: NDArray[np.float32]
    """Shape (n_rows,)."""
    labelled: Labelled
    kept: Mask | None = None
    """Which rows are shown at all, shape (n_rows,); None for all."""

    @classmethod
    def of(
        cls, reader: Reader, classifier: Classifier, labels: Any = None, where: Any = None, label: str | None = None
    ) -> ScoredRows:
        """Score the rows, and read labels as `labels.labels_for` does.

        Of the rows only those that `where` keeps are shown. Of several classes `label` chooses one; then labels may be
        the column of all classes, too. Raises ClassifierError for several classes of which none is chosen.
        """
        if label is not None:
            classifier = classifier.of_class(label)
            if isinstance(labels, str) and labels in reader.rows.columns:
                labels = f"{labels}={label}"
        threshold = classifier.threshold
        labelled = NO_LABELS if labels is None else labels_for(reader.rows, labels).within(reader.rows, where)
        return cls(reader, classifier, threshold, classifier.scores_in(reader)[0], labelled, reader.mask(where))

    def to_label(self, n_near: int = 20, n_stratified: int = 20, seed: int = 0) -> Review:
        """Pick unlabelled rows nearest the threshold, and a sample over all scores: see `review_sample`."""
        done = np.zeros(len(self.scores), dtype=np.bool_) if self.kept is None else ~self.kept
        done[self.labelled.positions] = True
        positions, reasons = review_sample(self.scores, self.threshold, n_near, n_stratified, seed, done)
        return self._review(positions, reasons, "pictures to label")

    def around(self, n: int = 32) -> Review:
        """Return up to `n` rows around the threshold, half on each side where there are, highest score first."""
        rows = np.arange(len(self.scores)) if self.kept is None else np.flatnonzero(self.kept)
        positions = rows[boundary(self.scores[rows], self.threshold, n)]
        matched = above(self.scores[positions], self.threshold).tolist()
        reasons = ["match" if match else "no match" for match in matched]
        return self._review(positions, reasons, "around the threshold")

    def mistakes(self) -> tuple[Review, Review]:
        """Return the false positives and the false negatives among the labelled rows, each with the worst first."""
        (wrong, missed), reasons = self._mistakes(), ("false positive", "false negative")
        both = (
            self._review(rows, [reason] * len(rows), f"{len(rows)} {reason}s")
            for rows, reason in zip((wrong, missed), reasons, strict=True)
        )
        return next(both), next(both)

    def all_mistakes(self) -> Review:
        """Return the false positives and then the false negatives, as `mistakes` does, in one review."""
        wrong, missed = self._mistakes()
        reasons = ["false positive"] * len(wrong) + ["false negative"] * len(missed)
        title = f"mistakes: {len(wrong)} false positives, {len(missed)} false negatives"
        return self._review(np.concatenate([wrong, missed]), reasons, title)

    def _mistakes(self) -> tuple[Positions, Positions]:
        """Return the positions of the false positives and of the false negatives."""
        positions = self.labelled.positions
        wrong, missed = errors_of(self.scores[positions], self.labelled.values, self.threshold)
        return positions[wrong], positions[missed]

    def _review(self, positions: Positions, reasons: Sequence[str], title: str) -> Review:
        """Make the review of some rows, those that match first, with the labels that are known of them."""
        label = self.classifier.target.label
        truth: NDArray[Any] = np.full(len(self.scores), None)
        truth[self.labelled.positions] = [_in_words(label, bool(value)) for value in self.labelled.values]
        rows = self.reader.rows.take(positions, ["id", "uri"])
        matched = above(self.scores[positions], self.threshold)
        columns = {
            "id": rows.column("id"),
            "uri": rows.column("uri"),
            "score": pa.array(self.scores[positions], pa.float32()),
            "predicted": pa.array([_in_words(label, match) for match in matched.tolist()], pa.string()),
            "truth": pa.array(truth[positions].tolist(), pa.string()),
            "reason": pa.array(list(reasons), pa.string()),
        }
        line = f"threshold {self.threshold:.4f}: above, predicted {label}; below, predicted {_in_words(label, False)}"
        rules = {int(matched.sum()): line} if len(positions) else {}
        return Review(pa.table(columns), f"{self.name}: {title}", self.notes, rules, self.reader.rows)

    @property
    def name(self) -> str:
        """The name of the classifier, with that of the class where it is another."""
        name, label = self.classifier.name, self.classifier.target.label
        return name if label == name else f"{name} ({label})"

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the rows and labels are from, when they were looked at, and whether the labels were held out."""
        reader, now = self.reader, datetime.datetime.now(datetime.UTC)
        first = f"{place_of(reader)}, version {reader.version}, {len(reader):,} images; {now:%Y-%m-%d %H:%M} UTC"
        if not len(self.labelled):
            return (first,)
        held_out = self.classifier.held_out(reader, self.labelled)
        return first, f"truth: {len(self.labelled):,} rows labelled by {self.labelled.source}; {held_out}"


def place_of(reader: Reader) -> str:
    """Return the name of the folder that a reader's rows lie in; "an empty store" where there are none."""
    parts = reader.rows.snapshot.parts
    return parts[0].path.absolute().parents[1].name if parts else "an empty store"


def _in_words(label: str, positive: bool) -> str:
    """Write a prediction or a truth."""
    return label if positive else f"not {label}"


def _labelled_rows(path: str | os.PathLike[str]) -> dict[str, dict[str, str]] | None:
    """Return the rows of a review's CSV that a person has labelled, by id; None where the file is no review of ours."""
    if not os.path.isfile(path):
        return None
    try:
        with open_regular(path) as opened:
            text = opened.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey=_SURPLUS, restval="")
    if not {"id", "score", "label"} <= set(reader.fieldnames or ()) <= set(COLUMNS):
        return None
    rows = list(reader)
    if any(_SURPLUS in row for row in rows):
        return None
    texts = ({name: cells.read(cell) for name, cell in row.items()} for row in rows)
    return {row["id"]: row for row in texts if row["label"].strip()}


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
    puts a check mark (True) or a cross (False) on each, or none (None).
    """
    uris, scores = rows.column("uri").to_pylist(), rows.column("score").to_pylist()
    captions = [f"{score:.4f}\n{'' if note is None else note}" for score, note in zip(scores, notes, strict=True)]
    _draw(uris, captions, file, store, title=title, marks=marks)


def _draw(
    uris: Sequence[str], captions: Sequence[str], file: str | os.PathLike[str], store: Rows | None, **words: Any
) -> None:
    """Draw pictures with captions on a sheet of eight columns; `words` are those of `images.contact_sheet`."""
    from embedstore import images
    from embedstore.sources import pictures_at

    place = to_write(file, SHEETS)
    pictures = pictures_at(uris, None if store is None else store.thumbnails_at)
    items = list(zip(map(pictures.get, uris), captions, strict=True))
    with naming(place):
        images.contact_sheet(items, 8, **words).save(place)


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
