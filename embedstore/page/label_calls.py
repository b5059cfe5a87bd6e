"""A scored query -> what is labelled, one more answer, the last one taken back, and which rows are next.

Every label is written through `label_log`, with how its row was picked; which rows are next is told by `review`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embedstore.deciding import label_log
from embedstore.deciding.labels import Labelled
from embedstore.deciding.rounds import GIVEN, NEAR, NO, OPEN, RANDOM, SEARCH, UNSURE, YES, History, Label
from embedstore.page.asked import Arguments, truth_of
from embedstore.page.scored_query import ScoredQuery
from embedstore.page.telling import Answer
from embedstore.storage.rows import Rows

ANSWERS = (NO, YES, UNSURE, OPEN)
"""By their codes in the answer of `labels`."""
WAYS = (GIVEN, RANDOM, NEAR, SEARCH)
"""How rows were picked, by code."""
_NAMES = {"yes": YES, "no": NO, "unsure": UNSURE, "open": OPEN}


def labels(query: ScoredQuery, args: Arguments) -> Answer:
    """Return which rows are labelled, and how each was answered and picked."""
    truth = truth_of(args.get("labels"))
    if truth is not None:
        return told_of_labelled(query.concept, query.labels(truth))
    history = query.history()
    rows = query.reader.rows.lookup("id").first_of_each(list(history.rows)) if history.lines else np.empty(0, np.int64)
    there = rows >= 0
    said, ways = history.answers[there].tolist(), history.picked[there].tolist()
    counted = Counter(ways)
    arrays = [
        rows[there].astype("<u4"),
        np.array([ANSWERS.index(one) for one in said], np.uint8),
        np.array([WAYS.index(one) for one in ways], np.uint8),
    ]
    picked = {way: counted[way] for way in WAYS}
    return {"concept": query.concept, **_counts(said), "picked": picked}, arrays


def told_of_labelled(concept: str, labelled: Labelled) -> Answer:
    """Return the rows that are labelled yes or no, as `labels` does."""
    answers = labelled.values.astype(np.uint8)
    yes = int(answers.sum())
    ways = np.zeros(len(answers), np.uint8)
    if labelled.picked is not None:
        ways = np.array([WAYS.index(one) for one in labelled.picked.tolist()], np.uint8)
    picked = dict(zip(WAYS, np.bincount(ways, minlength=len(WAYS)).tolist(), strict=True))
    counts = {"yes": yes, "no": len(answers) - yes, "unsure": 0, "open": 0}
    return {"concept": concept, **counts, "picked": picked}, [labelled.positions.astype("<u4"), answers, ways]


def label(query: ScoredQuery, args: Arguments) -> dict[str, Any]:
    """Write one answer into the store's log; a row of a round keeps how that round picked it."""
    row = query.row(args.whole("row"))
    answer = {"yes": YES, "no": NO, "?": UNSURE}[args.one_of("answer", ("yes", "no", "?"))]
    name = query.reader.rows.take(np.array([row], np.int64), ["id"]).column("id")[0].as_py()
    known = query.history()
    own = known.among([name]).lines
    picked = next((line for line in reversed(own) if line.round), Label(name, picked=SEARCH))
    new = History(query.concept, (picked._replace(answer=answer, content_hash=""),))
    label_log.add(query.reader, new)
    said = counts(query.reader.rows, known.joined(new))
    return {"row": row, "answer": args.text("answer"), "picked": picked.picked, "counts": said}


def undo(query: ScoredQuery) -> dict[str, Any]:
    """Take back the last event of the concept: a label, or a whole round that was picked."""
    batch = label_log.undo(query.reader.ledger, query.concept)
    if batch is None:
        return {"undone": None, "counts": _now(query)}
    rows = _rows(query, batch.rows)
    return {"undone": {"rows": rows, "round": batch.open > 0}, "counts": _now(query)}


def following(query: ScoredQuery, args: Arguments) -> dict[str, Any]:
    """Return the rows to label next: those of the round that is begun; else of a new one, which is written down."""
    near, random = args.whole("near", 10, most=500), args.whole("random", 10, most=500)
    found = replace(query.found, threshold=args.threshold())
    if not len(query.order):
        return {"round": 0, "rows": [], "left": 0}
    is_begun = _now(query)["open"] > 0
    review = found.to_label(0, 0) if is_begun else found.to_label(near, random)
    if not is_begun:
        lines = [
            Label(one["id"], OPEN, one["picked"], one["probability"], one["round"], one["where"], one["at"])
            for one in review.table.to_pylist()
        ]
        if lines:
            label_log.add(query.reader, History(query.concept, tuple(lines)))
    told = review.table.select(["id", "picked", "reason", "score", "round"]).to_pylist()
    rows = _rows(query, [one["id"] for one in told])
    shown = [
        {"row": row, "picked": one["picked"], "reason": one["reason"], "score": one["score"]}
        for row, one in zip(rows, told, strict=True)
    ]
    return {"round": max((one["round"] for one in told), default=0), "rows": shown, "left": len(shown)}


def counts(rows: Rows, history: History) -> dict[str, int]:
    """Return how many of those rows that there are were answered how."""
    if not history.lines:
        return _counts([])
    there = rows.lookup("id").first_of_each(list(history.rows)) >= 0
    return _counts(history.answers[there].tolist())


def _now(query: ScoredQuery) -> dict[str, int]:
    return counts(query.reader.rows, query.history())


def _counts(said: Sequence[str]) -> dict[str, int]:
    found = Counter(said)
    return {name: found[answer] for name, answer in _NAMES.items()}


def _rows(query: ScoredQuery, ids: Sequence[str]) -> list[int]:
    """Return the numbers of those rows that this version has."""
    found = query.reader.rows.lookup("id").first_of_each(list(ids))
    return [int(row) for row in found.tolist() if row >= 0]
