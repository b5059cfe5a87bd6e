"""A file of labels -> its columns, and where it says how its rows were picked, a history of each concept.

A text may name another column, and the value that is positive: ``file.csv:kind=dog``. What is made of the cells is left
to `label_lines`, what becomes of the labels to `labels`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.deciding.label_lines import PICKS, has_picks, lines_of, matches
from embedstore.deciding.rounds import History, Label
from embedstore.errors import LabelError, did_you_mean
from embedstore.storage.rows import Rows
from embedstore.vectors import Positions
from embedstore.wording import counted

_NAMES = ("id", "uri", "path", "file_name", "file", "image")


def file_of(text: str) -> str | None:
    """Return the file that a text names, before an optional ``:column=value``."""
    for end in (len(text), text.rfind(":")):
        if end > 0 and os.path.isfile(text[:end]):
            return text[:end]
    return text if text.lower().endswith((".csv", ".jsonl", ".parquet", ".tsv")) else None


def split_value(text: str) -> tuple[str, str | None]:
    """Split ``column=value`` or ``column == value``; the value is None where none is named."""
    column, sign, value = text.partition("=")
    return column.strip().strip('"'), value.strip() if sign else None


def value_among(values: list[Any], value: str) -> str | None:
    """Return the reading of a value, with or without what is around it in other languages, that some row has."""
    readings = (value, unquoted(value))
    return next((each for each in readings if any(matches(one, each) for one in values)), None)


def unquoted(value: str) -> str:
    """Return a value without the second sign of ``==`` and without quotes around it."""
    value = value.removeprefix("=").strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


@dataclass(frozen=True)
class LabelFile:
    """The columns of a file of labels, as the text that names it chooses them."""

    path: str
    key: str
    """The column that names the rows."""
    column: str
    positive: str | None
    """The value that counts as yes; None where the values are yes and no."""
    names: list[Any]
    values: list[Any]
    picks: dict[str, list[Any]]
    """What it says of how rows were picked, and for which concept, by column."""

    @classmethod
    def read(cls, text: str) -> LabelFile:
        """Read a file that a text names; LabelError where it cannot be read, or lacks a column."""
        from embedstore.sources.table_files import read_small

        file = file_of(text) or text
        column, value = split_value(text[len(file) + 1 :] or "label")
        try:
            table = read_small(file)
        except OSError as error:
            why = error.strerror or error
            raise LabelError(f"the labels {file!r} cannot be read: {why}; name a file, or say COLUMN=VALUE") from error
        key = next((name for name in _NAMES if name in table.column_names), None)
        if key is None or column not in table.column_names:
            other = f"; {file}:COLUMN=VALUE takes another" if value is None else ""
            guess = did_you_mean(column, table.column_names) if column not in table.column_names else ""
            raise LabelError(
                f"{file} needs a column {column!r} and one that names the rows ({', '.join(_NAMES)}); "
                f"it has {', '.join(table.column_names)}{other}" + (f".{guess}" if guess else "")
            )
        names, values = table.column(key).to_pylist(), table.column(column).to_pylist()
        if value is not None:
            value = value_among(values, value) or value
        picks = {name: table.column(name).to_pylist() for name in (*PICKS, "concept") if name in table.column_names}
        return cls(file, key, column, value, names, values, picks)

    def neither(self, row: int) -> str:
        """Say where a value stands that is neither yes nor no."""
        return (
            f"{self._place(row)}: {self.column} is {self.values[row]!r}; expected yes or no (true or false, 1 or 0), "
            "or nothing where there is no label. Where another word is the positive one, name it: "
            f"{self.path}:{self.column}={self.values[row]}"
        )

    def histories(self, rows: Rows) -> list[History] | None:
        """Return what the file tells of each concept; None where it does not say how any row was picked.

        Raises LabelError where it holds no answer at all, names a row that is not there, or a cell cannot be read.
        """
        if not has_picks(self.picks):
            return None
        positions = positions_of(rows, self.names, self.path, self.key)
        ids = rows.take(positions, ["id"]).column("id").to_pylist()
        by_concept: dict[str, list[Label]] = {}
        for concept, line in lines_of(self.picks, ids, self.values, self._blame, self.positive):
            by_concept.setdefault(concept, []).append(line)
        if not by_concept:
            raise LabelError(f"{self.path}: no row has a label")
        return [History(concept, tuple(lines)) for concept, lines in by_concept.items()]

    def _blame(self, row: int, name: str) -> str:
        """Say where a cell stands that cannot be read."""
        if name == "label":
            return self.neither(row)
        return f"{self._place(row)}: {name} is {self.picks[name][row]!r}"

    def _place(self, row: int) -> str:
        heads = {".csv": 2, ".tsv": 2, ".jsonl": 1}.get(os.path.splitext(self.path)[1].lower())
        return f"{self.path}, row {row}" if heads is None else f"{self.path}, line {row + heads}"


def positions_of(rows: Rows, names: list[Any], source: str, key: str) -> Positions:
    """Find the rows that are named; a name that is no row is a LabelError, as a typing mistake would be.

    Relative paths are taken from the folder of the file `source`.
    """
    lookup, texts = rows.lookup("id" if key == "id" else "uri"), [str(name) for name in names]
    positions = lookup.first_of_each(texts)
    if key != "id":
        relative = np.flatnonzero(positions < 0)
        paths = [os.path.abspath(Path(source).parent / texts[place]) for place in relative.tolist()]
        positions[relative] = lookup.first_of_each(paths)
    lost = np.flatnonzero(positions < 0)
    if len(lost):
        unknown = counted(len(lost), "row that is", "rows that are")
        raise LabelError(f"{source} names {unknown} not in the store; the first is {names[int(lost[0])]!r}")
    return positions
