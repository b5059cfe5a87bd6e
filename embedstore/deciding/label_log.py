"""The labels that a store keeps itself: a log of events in its ledger, by concept, that only grows.

Turns labels from anywhere into events, and events into the history of a concept, which `labels.labels_for` reads as it
reads a file. What is undone stays in the log and counts no more. How the events lie on the disk is `storage.ledger`'s
business, what a history says of the store that of `rounds`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.deciding.label_lines import now
from embedstore.deciding.labels import histories_in, said
from embedstore.deciding.rounds import NO, OPEN, PICKED, UNSURE, YES, History, Label
from embedstore.errors import InputError, LabelError, NoLabelsError, did_you_mean, spelt
from embedstore.searching.reader import Reader
from embedstore.storage.ledger import UNDONE, LabelEvent, Ledger
from embedstore.storage.rows import Rows
from embedstore.wording import counted

_log = logging.getLogger("embedstore")
_WORDS = {YES: "yes", NO: "no", UNSURE: "cannot_tell", OPEN: "open"}
COUNTS = pa.schema(
    [
        ("concept", pa.string()),
        ("round", pa.int64()),
        ("picked", pa.string()),
        *((name, pa.int64()) for name in _WORDS.values()),
    ]
)


@dataclass(frozen=True)
class Batch:
    """Events that came together: for which concept, how many rows were answered, how many are open yet."""

    concept: str
    answered: int
    open: int = 0
    rows: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """The ids, in the order of the events."""


def concepts(ledger: Ledger) -> list[str]:
    """Return the concepts that a store has labels of, sorted."""
    return sorted({events[0].concept for events in ledger.label_batches().values()})


def history(ledger: Ledger, concept: str, rows: Rows | None = None) -> History:
    """Return all that a store knows of the labels of a concept; a history without lines where that is nothing.

    With `rows`, labels of rows that have another picture by now are left out: nobody has looked at that one.
    """
    batches = ledger.label_batches(concept)
    lines = [Label(*event[1:]) for events in batches.values() for event in events]
    if rows is not None and lines:
        now_ = _contents(rows, [line.row for line in lines])
        lines = [line for line, content in zip(lines, now_, strict=True) if _is_same(line.content_hash, content)]
    return History(concept, tuple(lines))


def histories(ledger: Ledger, concept: str | None = None, rows: Rows | None = None) -> list[History]:
    """Return the `history` of a concept, or of each; LabelError for a concept that there are no labels of."""
    named = concepts(ledger)
    if concept is not None and concept not in named:
        raise LabelError(_unknown(concept, named))
    return [history(ledger, name, rows) for name in (named if concept is None else [concept])]


def add(reader: Reader, labels: Any, concept: str | None = None, picked: str | None = None) -> list[Batch]:
    """Write labels into the log of a store; when this returns they are on the disk.

    Parameters
    ----------
    reader : Reader
    labels
        All that `labels.labels_for` reads. A file with the columns of a review keeps how each row was picked; of a
        sheet that is begun the open rows are kept too. A `History` is written as it is: rows that a round has picked
        and nobody has answered yet, answers that cannot be told. What the log knows already is not written again.
    concept : str, optional
        What the labels are of; by default as a file says in its column ``concept``.
    picked : str, optional
        How the rows were picked, where the labels do not say so: ``"given"`` by default, or ``"search"``.

    Returns
    -------
    list of Batch
        What is new, one for each concept; it can be undone.

    Raises
    ------
    LabelError
        The labels do not fit, or nobody has said of which concept they are, or the file says of another.
    """
    if picked not in (None, *PICKED):
        raise InputError(f"picked must be one of {', '.join(PICKED)}, found {picked!r}")
    found, writes = [], []
    for new in histories_in(reader.rows, labels):
        name = new.concept or concept
        if not name:
            raise LabelError(f"these labels do not say what they are of; name it: {spelt('concept=', 'CONCEPT')}")
        if concept not in (None, name):
            raise LabelError(f"these labels are of {name!r}, not of {concept!r}; leave {concept!r} out to take them so")
        known = history(reader.ledger, name, reader.rows)
        lines = _news(known, [_stamped(line, picked) for line in new.lines])
        contents = _contents(reader.rows, [line.row for line in lines])
        writes.append([LabelEvent(name, *line[:-1], content) for line, content in zip(lines, contents, strict=True)])
        open_ = sum(line.answer == OPEN for line in lines)
        found.append(Batch(name, len(lines) - open_, open_, tuple(line.row for line in lines)))
    for events in filter(None, writes):
        reader.ledger.add_labels(events)
    return found


def undo(ledger: Ledger, concept: str | None = None) -> Batch | None:
    """Take back what came last, of a concept or at all; None where nothing is left to be taken back."""
    batches = ledger.label_batches(concept)
    if not batches:
        return None
    number, events = max(batches.items())
    name = events[0].concept
    ledger.add_labels([LabelEvent(name, "", UNDONE, "", None, 0, "", now())], undoes=number)
    answered = sum(event.answer != OPEN for event in events)
    return Batch(name, answered, len(events) - answered, tuple(event.row for event in events))


def counts(found: Sequence[History], rows: Rows) -> pa.Table:
    """Count the rows of histories by concept, round and how they were picked, and by their last answer.

    Rows that the store has no more are left out. Columns: see `COUNTS`; ``round`` is null for rows of none.
    """
    lines = []
    for one in found:
        there = rows.lookup("id").first_of_each(list(one.rows)) >= 0
        rounds: dict[str, int | None] = dict.fromkeys(one.rows)
        for line in reversed(one.lines):
            rounds[line.row] = line.round or rounds[line.row]
        told = zip(one.rows, one.picked.tolist(), one.answers.tolist(), there.tolist(), strict=True)
        counted_ = Counter((rounds[row], picked, answer) for row, picked, answer, is_there in told if is_there)
        kinds = sorted({(round_ or 0, picked) for round_, picked, _ in counted_})
        for round_, picked in kinds:
            of_each = {word: counted_[(round_ or None, picked, answer)] for answer, word in _WORDS.items()}
            lines.append({"concept": one.concept, "round": round_ or None, "picked": picked, **of_each})
    return pa.Table.from_pylist(lines, schema=COUNTS)


def doubts(one: History, rows: Rows) -> tuple[str, ...]:
    """Say why rounds of a history do not count, for the rows that there are."""
    return one.weighed("", rows.lookup("id").first_of_each(list(one.rows)) >= 0).doubts


def own_or(reader: Reader, labels: Any, concept: str) -> Any:
    """Return labels, or where none are given, what the store knows of a concept, which is logged.

    Raises NoLabelsError where there is neither.
    """
    if labels is not None:
        return labels
    own = history(reader.ledger, concept, reader.rows)
    if not own.lines:
        raise NoLabelsError(f"{_unknown(concept, concepts(reader.ledger))}; {_HOW}")
    _log.warning("by the store's own labels of %r: %s", concept, counted(said(reader.rows, own), "row"))
    return own


def _contents(rows: Rows, ids: Sequence[str]) -> list[str]:
    """Return the content hash of the pictures of rows, "" where that is not known or the row is gone."""
    places = rows.lookup("id").first_of_each(list(ids))
    found = np.full(len(places), "", dtype=object)
    there = places >= 0
    found[there] = rows.take(places[there], ["content_hash"]).column("content_hash").to_pylist()
    return [value or "" for value in found.tolist()]


def _is_same(seen: str, now_: str) -> bool:
    """Say whether a row has the picture still that was looked at, as far as that is known."""
    return not seen or not now_ or seen == now_


_HOW = "say which rows are positive, such as 'animal=dog', or label what `embedstore review STORE NAME` picks"


def _unknown(concept: str, named: Sequence[str]) -> str:
    """Say that there are no labels of a concept."""
    guess = did_you_mean(concept, list(named))
    known = f"; it has some of {', '.join(named)}" if named else ""
    return f"the store has no labels of {concept!r}{known}" + (f".{guess}" if guess else "")


def _stamped(line: Label, picked: str | None) -> Label:
    """Return a line with the time, where it has none, and how its row was picked, where only the caller knows that."""
    if line.round:
        return line
    return line._replace(at=line.at or now(), picked=picked if picked and line.picked == "given" else line.picked)


def _news(known: History, lines: Sequence[Label]) -> list[Label]:
    """Return the lines that say what a history does not: another answer, or another pick of a row."""
    picks = {(line.row, line.sheet) for line in known.lines if line.round}
    new = []
    for line in lines:
        place = known.rows.get(line.row)
        same = place is not None and (line.answer in (OPEN, known.answers[place]))
        if not (same and (not line.round or (line.row, line.sheet) in picks)):
            new.append(line)
    return new
