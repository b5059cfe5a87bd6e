"""Rows <-> lines of CSV that a spreadsheet shows and does not run: an apostrophe before what looks like a formula.

Every writer of CSV writes its lines here, every reader takes the apostrophe off again. Numbers stay numbers. `aligned`
makes lines for people to read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

_STARTS = "=+@\t\r\n＝＋－＠-"  # the wide ones count in Japanese and Chinese spreadsheets
_FORMULA = re.compile(rf"'*[{_STARTS}]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_QUOTED = re.compile(r'["\r\n]')
MARKED = rf"^'('*[{_STARTS}])"
"""Regular expression of cells that have an apostrophe of ours; its first group is what begins the text."""


def line(values: Iterable[Any], delimiter: str = ",") -> str:
    """Return a row as a line with its end; None is an empty cell.

    Line breaks of either kind are within quotes, which those of Python's ``csv`` are not always.
    """
    text = delimiter.join(_cell(value, delimiter) for value in values)
    return f"{text or chr(34) * 2}\n"  # a line with nothing on it is no row


def written(text: str) -> str:
    """Return a text with an apostrophe before it if it begins as a formula, else as it is.

    What begins with apostrophes and then as a formula gets one more, so that `read` gives every text back.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def read(cell: str) -> str:
    """Return the text of a cell that `written` made, or anybody else."""
    return cell[1:] if re.match(MARKED, cell) else cell


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells, the head first, as lines in columns: the first column to the left, the others to the right.

    >>> aligned([("", "cat", "dog"), ("truth", "3", "11")])
    ['       cat  dog', 'truth    3   11']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    )
    return ["  ".join(line).rstrip() for line in lines]


def _cell(value: Any, delimiter: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value)
    text = written(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) or delimiter in text else text
