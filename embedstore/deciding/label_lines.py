"""Cells that people write, yes, no and ?, and how each row was picked <-> the lines of a history of labels.

Reads and makes the columns of a review's CSV and of an export; which rows of a store are meant is left to `labels`.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.deciding.rounds import GIVEN, NEAR, NO, OPEN, PICKED, RANDOM, UNSURE, YES, History, Label
from embedstore.errors import LabelError

TRUE = ("1", "true", "yes", "y", "t", "x")
FALSE = ("0", "false", "no", "n", "f", "-")
CANNOT_TELL = ("?", "unsure")
PICKS = ("picked", "probability", "round", "where", "at")
"""Columns that say how a row was picked: see `rounds.Label`."""
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("concept", "id", "label", "picked")),
        ("probability", pa.float64()),
        ("round", pa.int64()),
        *((name, pa.string()) for name in ("where", "at")),
    ]
)
"""Of an export: a line for each row and round."""


def now() -> str:
    """Return the time as a line has it: ISO 8601, UTC, to the microsecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def is_missing(value: Any) -> bool:
    """Say whether a value is no label: null, NaN or empty."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def is_yes_or_no(value: Any) -> bool:
    """Say whether a value is true or false, or the number that stands for it."""
    return isinstance(value, bool | np.bool_) or (isinstance(value, int | float | np.number) and value in (0, 1))


def as_truth(value: Any) -> Any:
    """Read a text of yes or no; anything else is left to `as_labels` to judge."""
    if isinstance(value, str):
        lower = value.strip().lower()
        return True if lower in TRUE else False if lower in FALSE else value
    return value


def matches(value: Any, wanted: str) -> bool:
    """Say whether a value is the one that is positive, written as text; 3 and 3.0 are one number."""
    if value is None or str(value) == wanted:
        return value is not None
    if isinstance(value, bool):
        return as_truth(wanted) is value
    return isinstance(value, float) and value.is_integer() and f"{value:.0f}" == wanted


def answer_of(value: Any, positive: str | None = None) -> str | None:
    """Read a cell as an answer; None where it is neither yes nor no nor ?."""
    if is_missing(value):
        return OPEN
    if isinstance(value, str) and value.strip().lower() in CANNOT_TELL:
        return UNSURE
    if positive is not None:
        return YES if matches(value, positive) else NO
    read = as_truth(value)
    return (YES if read else NO) if is_yes_or_no(read) else None


def has_picks(table: Mapping[str, Sequence[Any]]) -> bool:
    """Say whether a table tells how its rows were picked: one that embedstore wrote, or that says so of any row."""
    return {"concept", "picked"} <= set(table) or any(not is_missing(value) for value in table.get("picked", ()))


def lines_of(
    table: Mapping[str, Sequence[Any]],
    ids: Iterable[str],
    answers: Sequence[Any],
    blame: Callable[[int, str], str],
    positive: str | None = None,
) -> list[tuple[str, Label]]:
    """Read lines from the columns `PICKS` of a table, as far as it has them, each with its concept ("" for none).

    `ids` and `answers` are those of its rows; `blame` says of a row and a column what is wrong there. Rows that were
    picked together and of which nobody has answered any are left out. LabelError for a cell that cannot be read.
    """
    found, concepts = [], table.get("concept")
    for row, (identity, cell) in enumerate(zip(ids, answers, strict=True)):
        answer = answer_of(cell, positive)
        if answer is None:
            raise LabelError(blame(row, "label"))
        picked, probability, round_, where, at = (table[name][row] if name in table else None for name in PICKS)
        how = GIVEN if is_missing(picked) else str(picked).strip()
        if how not in PICKED:
            raise LabelError(f"{blame(row, 'picked')}; expected one of {', '.join(PICKED)}, or nothing")
        chance = _number(probability, lambda value: 0 < value <= 1)
        number = _number(round_, lambda value: value >= 0 and value == int(value))
        if chance is None or number is None:
            raise LabelError(blame(row, "probability" if chance is None else "round"))
        place: tuple[float | None, int, str] = (None, 0, "")
        if how in (NEAR, RANDOM):
            place = (None if chance != chance else chance, 1 if number != number else max(1, int(number)), _text(where))
        concept = "" if concepts is None else _text(concepts[row])
        found.append((concept, Label(identity, answer, how, *place, _moment(at))))
    begun = {(concept, line.sheet) for concept, line in found if line.answer != OPEN}
    return [
        (concept, line)
        for concept, line in found
        if line.answer != OPEN or (line.round and (concept, line.sheet) in begun)
    ]


def table_of(histories: Iterable[History]) -> pa.Table:
    """Return a line for each row and round, with the last answer to each row, as `lines_of` reads them again."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for history in histories:
        last = {(line.row, line.sheet if line.round else None): line for line in history.lines}
        for line in last.values():
            answer = str(history.answers[history.rows[line.row]])
            values = (history.concept, line.row, answer or None, line.picked, line.probability, line.round or None)
            for name, value in zip(SCHEMA.names, (*values, line.where or None, line.at or None), strict=True):
                columns[name].append(value)
    return pa.table(columns, schema=SCHEMA)


def _number(value: Any, holds: Callable[[float], bool]) -> float | None:
    """Read a cell that holds a number, NaN where it is empty; None where it is none that `holds`."""
    if is_missing(value):
        return float("nan")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and holds(number) else None


def _text(value: Any) -> str:
    return "" if is_missing(value) else str(value)


def _moment(value: Any) -> str:
    """Write a time as `now` does; readers of CSV make times of what looks like one."""
    return value.isoformat(timespec="microseconds") if hasattr(value, "isoformat") else _text(value)
