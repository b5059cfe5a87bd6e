"""A reader, a classifier and labels -> the pictures that a person should look at: near the threshold, and the mistakes.

`ScoredRows` scores the rows and reads the labels once, and makes a `Review` of some: a table, a CSV to be filled in, a
contact sheet. Which rows are next is told by `rounds`. Labels that a person gives in the CSV come back in through
`label_log`, or `labels.labels_for`; a review that is written over it takes them along.
"""

from __future__ import annotations

import csv
import dataclasses
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
from embedstore.deciding import label_log
from embedstore.deciding.classifier import Classifier
from embedstore.deciding.label_lines import PICKS, answer_of, now
from embedstore.deciding.labels import NO_LABELS, Labelled, condition_text, labels_for
from embedstore.deciding.rounds import NEAR, OPEN, RANDOM, UNSURE, History, Label, pick, random_order
from embedstore.errors import NotOursError, spelt
from embedstore.files import naming, open_regular, replace
from embedstore.measures.curves import above
from embedstore.measures.samples import as_labels, as_scores
from embedstore.result_files import REVIEWS, SHEETS, to_write, written_for_people
from embedstore.searching.reader import Reader
from embedstore.storage.rows import Rows
from embedstore.vectors import Mask, Positions
from embedstore.wording import counted

COLUMNS = ("row", "id", "uri", "score", "predicted", "truth", "reason", "concept", *PICKS, "label")
"""Of the CSV: what is known, how the row was picked, and last what a person says."""
_REASONS = {NEAR: "near the threshold", RANDOM: "at random"}
_NOTHING_PICKED = {
    "picked": pa.string(),
    "probability": pa.float64(),
    "round": pa.int64(),
    "where": pa.string(),
    "at": pa.string(),
}
_SURPLUS = "cells beyond the last column"
_MOST_DRAWN = 400


@dataclass(frozen=True, eq=False)
class Review:
    """Rows to look at, in the order in which they should be."""

    table: pa.Table
    """Columns ``id``, ``uri``, ``score``, ``predicted`` and ``truth`` (the class, or "not" and the class; ``truth`` is
    null where there is no label), ``reason``, ``concept``, and how the row was picked, as in `rounds.Label`: null in a
    review of mistakes."""
    title: str
    notes: tuple[str, ...] = ()
    """Where the rows are from, and when: lines below the title of a sheet."""
    rules: Mapping[int, str] = field(default_factory=dict)
    """What a line says that stands before the row of that number, such as the threshold."""
    rows: Rows | None = None
    """Where small copies of pictures are looked for that no file holds."""
    left_out: int = 0
    """How many more rows there are, of which these are the first."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def right(self) -> list[bool | None]:
        """Whether each row is predicted as it is labelled; None without a label."""
        pairs = zip(*(self.table.column(name).to_pylist() for name in ("predicted", "truth")), strict=True)
        return [None if truth is None else predicted == truth for predicted, truth in pairs]

    def save_csv(self, path: str | os.PathLike[str], force: bool = False) -> int:
        """Write the rows; fill the column ``label`` with yes, no or, where it cannot be told, ?, and import the file.

        A review that is there already may hold labels of yours: they are kept, by concept and id, also those of rows
        that are not in this review any more. Returns how many. Rows are numbered from 1 in the column ``row``, as on a
        sheet.

        Parameters
        ----------
        path : path
        force : bool
            Replace the file whatever it is; labels in it are lost.

        Raises
        ------
        NotOursError
            Without `force`: the file is no review, has columns that a review has not, or labels of another store.
        InputError, PathError
            As `result_files.to_write`: its name does not end in .csv, or its folder is not there.
        """
        file = to_write(path, REVIEWS)
        there = None if force else _lines_there(path)
        carried = {(line["concept"], line["id"]): line for line in there or ()}
        lines = []
        for row in self.table.to_pylist():
            given = carried.pop((row["concept"], row["id"]), None) or carried.pop(("", row["id"]), {})
            picks = {name: given[name] for name in PICKS} if given and row["picked"] is None else {}
            lines.append({**row, **picks, "score": f"{row['score']:.6f}", "label": given.get("label")})
        if strange := self._not_of_the_store([line["id"] for line in carried.values()]):
            raise NotOursError(
                f"{file} holds labels of {counted(strange, 'row')} that {'is' if strange == 1 else 'are'} not in this "
                f"store; name another file, or replace it with {spelt('force=True', '--force')}"
            )
        lines += carried.values()
        text = cells.line(COLUMNS)
        for number, line in enumerate(lines, 1):
            text += cells.line({**line, "row": number}.get(name) for name in COLUMNS)
        with written_for_people(file, force or there is not None):
            if file.exists() and not file.is_file():
                file.write_text(text, encoding="utf-8", newline="")
            else:
                replace(file.resolve(), text)  # whole or not at all: the labels in the old one are somebody's work
        return sum(bool(line["label"].strip()) for line in there or ())

    def _not_of_the_store(self, ids: Sequence[str]) -> int:
        """Return how many of some rows are not in the store, where that is known."""
        return 0 if self.rows is None else int((self.rows.lookup("id").first_of_each(ids) < 0).sum())

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
    where: str = ""
    """The condition that keeps them, in words."""

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
        scores, kept = classifier.scores_in(reader)[0], reader.mask(where)
        return cls(reader, classifier, threshold, scores, labelled, kept, condition_text(where))

    def to_label(self, n_near: int = 20, n_random: int = 20, over: str | os.PathLike[str] | None = None) -> Review:
        """Pick the next round of rows to label: those nearest the threshold, and others at random.

        Rows that are labelled, here, in the store's log or in the review `over` which this one will be written, are not
        picked. Rows of rounds before that are begun and not yet answered come along. See `rounds.pick`.
        """
        concept = self.classifier.target.label
        known = self._known(concept, over)
        done = np.zeros(len(self.scores), dtype=np.bool_) if self.kept is None else ~self.kept
        done[self.labelled.positions] = True
        places = self.reader.rows.lookup("id").first_of_each(list(known.rows))
        done[places[places >= 0]] = True
        number = known.last_round + 1
        ids = self.reader.rows.metadata(["id"]).column("id")
        order = random_order(concept, number, (name for chunk in ids.chunks for name in chunk.to_pylist()))
        positions, picked, probability = pick(self.scores, self.threshold, order, n_near, n_random, done)
        at = now()
        told = {
            row: Label("", OPEN, how, chance, number, self.where, at)
            for row, how, chance in zip(positions.tolist(), picked.tolist(), probability.tolist(), strict=True)
        }
        open_ = {line.row: line for line in reversed(known.lines) if line.round}
        for place, row, answer in zip(places.tolist(), known.rows, known.answers.tolist(), strict=True):
            if place >= 0 and answer == OPEN and row in open_:
                told[place] = open_[row]
        rows = np.array(sorted(told, key=lambda row: (-self.scores[row], row)), dtype=np.int64)
        lines = [told[row] for row in rows.tolist()]
        reasons = [_REASONS[line.picked] if line.round == number else "not answered yet" for line in lines]
        return self._review(rows, reasons, "pictures to label", lines)

    def _known(self, concept: str, over: str | os.PathLike[str] | None) -> History:
        """Return what is known of the labels of a concept, here, in the store's log and in a review's CSV."""
        known = label_log.history(self.reader.ledger, concept, self.reader.rows)
        if self.labelled.history is not None:
            known = known.joined(self.labelled.history)
        there = () if over is None else _lines_there(over) or ()
        lines = tuple(_as_label(line) for line in there if line["concept"] in ("", concept))
        return known.joined(History(concept, lines))

    def around(self, n: int = 32) -> Review:
        """Return up to `n` rows around the threshold, half on each side where there are, highest score first."""
        rows = np.arange(len(self.scores)) if self.kept is None else np.flatnonzero(self.kept)
        positions = rows[boundary(self.scores[rows], self.threshold, n)]
        matched = above(self.scores[positions], self.threshold).tolist()
        reasons = ["match" if match else "no match" for match in matched]
        return self._review(positions, reasons, "around the threshold")

    def mistakes(self, most: int | None = None) -> tuple[Review, Review]:
        """Return the false positives and the false negatives among the labelled rows, each with the worst first.

        Of each at most `most`; the titles count all.
        """
        both = []
        for rows, reason in zip(self._mistakes(), ("false positive", "false negative"), strict=True):
            shown = rows[:most]
            review = self._review(shown, [reason] * len(shown), f"{len(rows)} {reason}s")
            both.append(dataclasses.replace(review, left_out=len(rows) - len(shown)))
        return both[0], both[1]

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

    def _review(
        self, positions: Positions, reasons: Sequence[str], title: str, picks: Sequence[Label] | None = None
    ) -> Review:
        """Make the review of some rows, those that match first, with the labels that are known of them."""
        label = self.classifier.target.label
        rows = self.reader.rows.take(positions, ["id", "uri"])
        matched = above(self.scores[positions], self.threshold)
        columns = {
            "id": rows.column("id"),
            "uri": rows.column("uri"),
            "score": pa.array(self.scores[positions], pa.float32()),
            "predicted": pa.array([_in_words(label, match) for match in matched.tolist()], pa.string()),
            "truth": pa.array(self._truths(positions), pa.string()),
            "reason": pa.array(list(reasons), pa.string()),
            "concept": pa.array([label] * len(rows), pa.string()),
        }
        for name, kind in _NOTHING_PICKED.items():
            values = [None] * len(rows) if picks is None else [getattr(line, name) for line in picks]
            columns[name] = pa.array(values, kind)
        line = f"threshold {self.threshold:.4f}: above, predicted {label}; below, predicted {_in_words(label, False)}"
        rules = {int(matched.sum()): line} if len(positions) else {}
        return Review(pa.table(columns), f"{self.name}: {title}", self.notes, rules, self.reader.rows)

    def _truths(self, positions: Positions) -> list[str | None]:
        """Return how rows are labelled, in words; None where they are not."""
        known, values, label = self.labelled.positions, self.labelled.values, self.classifier.target.label
        places = np.searchsorted(known, positions)
        there = places < len(known)
        there[there] = known[places[there]] == positions[there]
        found: list[str | None] = [None] * len(positions)
        for number in np.flatnonzero(there).tolist():
            found[number] = _in_words(label, bool(values[places[number]]))
        return found

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
        return first, f"truth: {len(self.labelled):,} rows labelled by {self.labelled.described}; {held_out}"


def place_of(reader: Reader) -> str:
    """Return the name of the folder that a reader's rows lie in; "an empty store" where there are none."""
    parts = reader.rows.snapshot.parts
    if not parts:
        return "an empty store"
    cache = parts[0].cache
    return parts[0].path.absolute().parents[1].name if cache is None else cache.bucket.url.split("/")[-2]


def _in_words(label: str, positive: bool) -> str:
    """Write a prediction or a truth."""
    return label if positive else f"not {label}"


def _lines_there(path: str | os.PathLike[str]) -> list[dict[str, str]] | None:
    """Return the lines of a review's CSV that hold an answer, and those that were picked together with such a line.

    Each has all `COLUMNS`. None where the file is no review of ours.
    """
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
    lines = [dict.fromkeys(COLUMNS, "") | {name: cells.read(cell) for name, cell in row.items()} for row in rows]
    begun = {_sheet_of(line) for line in lines if line["label"].strip() and line["round"]}
    return [line for line in lines if line["label"].strip() or _sheet_of(line) in begun]


def _sheet_of(line: Mapping[str, str]) -> tuple[str, ...]:
    """Return what lines that were picked together have in common."""
    return tuple(line[name] for name in ("concept", "round", "where", "at"))


def _as_label(line: Mapping[str, str]) -> Label:
    """Return a line of a review's CSV; what is written there and no answer is one all the same, of a kind."""
    answer = answer_of(line["label"])
    try:
        chance, number = float(line["probability"]), int(line["round"])
    except ValueError:
        chance, number = None, 0
    return Label(
        line["id"], UNSURE if answer is None else answer, line["picked"], chance, number, line["where"], line["at"]
    )


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
