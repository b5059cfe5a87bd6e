"""Labels in any form -> which rows are labelled, and which of them are positive.

A column of the store, a condition, a file of ids or paths, a mapping or an array: each ends as positions and booleans.
What is done with them is left to `thresholds`, `evaluation` and `review`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.errors import FilterError, LabelError, did_you_mean
from embedstore.measures.samples import as_labels
from embedstore.storage.rows import Rows
from embedstore.vectors import Positions
from embedstore.wording import counted

_TRUE = ("1", "true", "yes", "y", "t", "x")
_FALSE = ("0", "false", "no", "n", "f", "-")
_NAMES = ("id", "uri", "path", "file_name", "file", "image")
_PLAIN = re.compile(r"""[^=<>!'"()]+==?\s*('[^']*'|"[^"]*"|[^'"=<>()]*)""")
"""A column, and one value of it: nothing that only SQL says."""
_WORDS = re.compile(r"[\w.-]+( (?!and |or |in |is |not |like )[\w.-]+)*")
"""A name, or a value that somebody takes for one."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows that have a label, by ascending positions."""

    positions: Positions
    values: NDArray[Any]
    """bool for one class, or the class's name (object) for several."""
    source: str
    """Where the labels came from, in words."""
    positive: str | None = None
    """The value that counts as positive; None where the labels are yes and no, or classes."""
    picked: NDArray[Any] | None = None
    """How each row came to be labelled (object array of str): given, random, near or search; None: all given."""
    weights: NDArray[np.float64] | None = None
    """For how many rows each stands, NaN where that is not known; None: all alike."""
    random: NDArray[np.bool_] | None = None
    """Which rows are, alone, a simple random sample; None: all."""

    def __len__(self) -> int:
        return len(self.positions)

    def within(self, rows: Rows, where: Any) -> Labelled:
        """Return the labels of those rows that a condition keeps; LabelError where it keeps none of them."""
        mask = rows.mask(where)
        if mask is None:
            return self
        kept = mask[self.positions]
        words = f"{self.source} where {where if isinstance(where, str) else 'a mask holds'}"
        if not kept.any():
            raise LabelError(f"{words}: none of the {len(self)} labelled rows is kept; loosen the condition")
        picked = None if self.picked is None else self.picked[kept]
        weights = None if self.weights is None else self.weights[kept]
        random = None if self.random is None else self.random[kept]
        return Labelled(self.positions[kept], self.values[kept], words, self.positive, picked, weights, random)


NO_LABELS = Labelled(np.empty(0, np.int64), np.empty(0, np.bool_), "no labels")


def labels_for(rows: Rows, labels: Any) -> Labelled:
    """Read the labels of one class.

    Parameters
    ----------
    rows : Rows
    labels : str, path, mapping or array-like
        ``"animal=dog"``, or ``"animal == 'dog'"``: a column of the store and the value that is positive. Another
        condition, as `where` takes them: ``"animal = 'dog' and width > 300"``. A boolean column's name. Rows where
        any of these is null have no label. A path of a CSV, JSON lines or Parquet file with a column ``id`` (or
        ``uri``, ``path``, ``file_name``) and a column ``label`` of yes and no; ``"file.csv:kind=dog"`` for
        another column and value. A mapping from ids to booleans. An array of shape (n_rows,), bool, in the
        order of the store's rows, None for no label.

    Raises
    ------
    LabelError
        They do not fit the rows; the message says how.
    """
    if isinstance(labels, Mapping):
        return _of_pairs(rows, list(labels), list(labels.values()), None, "a mapping", "id")
    if isinstance(labels, os.PathLike) or (isinstance(labels, str) and _file_of(labels)):
        return _of_file(rows, os.fspath(labels))
    if isinstance(labels, str):
        return _of_text(rows, labels)
    values = np.asarray(labels, dtype=object).tolist()
    if len(values) != len(rows):
        found = f"{counted(len(values), 'label')} for {counted(len(rows), 'row')}"
        raise LabelError(f"{found}; give one for each, None where there is none")
    return _of_values(np.arange(len(rows)), values, None, "an array")


def classes_for(rows: Rows, labels: str) -> Labelled:
    """Read the names of the classes of a column; rows where it is null have no label."""
    if labels not in rows.columns:
        raise LabelError(_no_column(rows, labels))
    values = np.array(rows.metadata([labels]).column(labels).to_pylist(), dtype=object)
    known = np.flatnonzero([value is not None for value in values])
    if not len(known):
        raise LabelError(f"column {labels!r} is null in every row ({len(values):,}); there is nothing to learn from")
    return Labelled(known, np.array([str(value) for value in values[known]], dtype=object), labels)


def _of_text(rows: Rows, text: str) -> Labelled:
    """Read a column's name, a column and a value, or a condition."""
    column, value = _split(text)
    if column in rows.columns:
        values = rows.metadata([column]).column(column).to_pylist()
        chosen = None if value is None else _value_among(values, value)
        if value is None or chosen is not None:
            return _of_values(np.arange(len(values)), values, chosen, text, lambda row: _no_truth(text, values[row]))
    plain = (_PLAIN if value is not None else _WORDS).fullmatch(text) is not None
    if plain and column not in rows.columns:
        raise LabelError(_no_labels(rows, text, column))
    try:
        truth = _or_empty(rows, rows.mask(text))
        known = np.flatnonzero(_or_empty(rows, rows.mask(f"({text}\n) is not null")))
    except FilterError as error:
        if plain:
            raise LabelError(_no_row(rows, text, column)) from None
        raise LabelError(f"{error}. Say which rows are positive by COLUMN=VALUE, or by SQL as in --where") from None
    if plain and not truth.any():
        raise LabelError(_no_row(rows, text, column))
    if not len(known):
        raise LabelError(f"{text}: no row has a label")
    return Labelled(known, truth[known], text)


def _or_empty(rows: Rows, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Return a mask; all rows where there is none."""
    return np.ones(len(rows), np.bool_) if mask is None else mask


def _no_column(rows: Rows, name: str) -> str:
    guess = did_you_mean(name, rows.columns)
    return f"there is no column {name!r}; the columns are {', '.join(rows.columns)}" + (f".{guess}" if guess else "")


def _no_labels(rows: Rows, text: str, column: str) -> str:
    """Say that a text is neither a file nor a column; and where it is a value, of which column."""
    if text != column:
        return f"{text!r} is neither a file nor a column and its value: {_no_column(rows, column)}"
    held = (name for name, values in _texts(rows) if text in values)
    guess = next((f" Did you mean {name}={text}?" for name in held), did_you_mean(text, rows.columns))
    return (
        f"{text!r} is neither a file nor a column of the store.{guess} Say which rows are positive by COLUMN=VALUE; "
        f"the columns are {', '.join(rows.columns)}"
    )


def _texts(rows: Rows) -> Iterator[tuple[str, set[Any]]]:
    """Yield the columns of texts that are no name of a picture, with their values."""
    for field in rows.snapshot.schema:
        if pa.types.is_string(field.type) and field.name not in ("id", "uri", "content_hash"):
            yield field.name, set(rows.metadata([field.name]).column(0).unique().to_pylist())


def _no_row(rows: Rows, text: str, column: str) -> str:
    """Say that no row has a column's value, and which values there are."""
    seen = sorted({str(one) for one in rows.metadata([column]).column(0).to_pylist() if one is not None})
    shown = ", ".join(seen[:12]) + (", ..." if len(seen) > 12 else "")
    guess = did_you_mean(_unquoted(_split(text)[1] or ""), seen)
    return f"no row has {text}; the values are {shown}" + (f".{guess}" if guess else "")


def _split(text: str) -> tuple[str, str | None]:
    """Split ``column=value`` or ``column == value``; the value is None where none is named."""
    column, sign, value = text.partition("=")
    return column.strip().strip('"'), value.strip() if sign else None


def _value_among(values: list[Any], value: str) -> str | None:
    """Return the reading of a value, with or without what is around it in other languages, that some row has."""
    readings = (value, _unquoted(value))
    return next((each for each in readings if any(_matches(one, each) for one in values)), None)


def _unquoted(value: str) -> str:
    """Return a value without the second sign of ``==`` and without quotes around it."""
    value = value.removeprefix("=").strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _file_of(text: str) -> str | None:
    """Return the file that a text names, before an optional ``:column=value``."""
    for end in (len(text), text.rfind(":")):
        if end > 0 and os.path.isfile(text[:end]):
            return text[:end]
    return text if text.lower().endswith((".csv", ".jsonl", ".parquet", ".tsv")) else None


def _of_file(rows: Rows, text: str) -> Labelled:
    """Read the labels of a file, by the columns that it has or that the text names."""
    from embedstore.sources.table_files import read_small

    file = _file_of(text) or text
    column, value = _split(text[len(file) + 1 :] or "label")
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
        value = _value_among(values, value) or value
    found = _of_pairs(rows, names, values, value, file, key, lambda row: _neither(file, row, column, values[row]))
    return dataclasses.replace(found, source=text)


def _of_pairs(
    rows: Rows,
    names: list[Any],
    values: list[Any],
    positive: str | None,
    source: str,
    key: str,
    blame: Callable[[int], str] | None = None,
) -> Labelled:
    """Find the rows that are named; a name that is no row is an error, as a typing mistake would be.

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
    order = np.argsort(positions)
    positions = positions[order]
    if (positions[1:] == positions[:-1]).any():
        raise LabelError(f"{source} names a row twice; keep one label for each")
    places = order.tolist()
    sorted_blame = None if blame is None else lambda number: blame(places[number])
    return _of_values(positions, [values[place] for place in places], positive, source, sorted_blame)


def _of_values(
    positions: Positions,
    values: list[Any],
    positive: str | None,
    source: str,
    blame: Callable[[int], str] | None = None,
) -> Labelled:
    """Turn values into booleans, leaving out what has no label; `blame` says of one, by its place, what is wrong."""
    known = [number for number, value in enumerate(values) if not _is_missing(value)]
    if not known:
        raise LabelError(f"{source}: no row has a label")
    kept = [values[number] for number in known]
    if positive is not None:
        truth = np.array([_matches(value, positive) for value in kept], dtype=np.bool_)
    else:
        read = [_truth(value) for value in kept]
        wrong = next((number for number, value in enumerate(read) if not _is_yes_or_no(value)), None)
        if wrong is not None and blame is not None:
            raise LabelError(blame(known[wrong]))
        mixed = None if wrong is None else object  # NumPy would make texts of numbers that stand beside texts
        truth = as_labels(np.array(read, dtype=mixed), what=source)
    return Labelled(positions[known], truth, source, positive)


def _no_truth(column: str, value: Any) -> str:
    return (
        f"{column}: expected true and false (or yes and no), found {value!r}; say which value is positive, as in "
        f"{column}={value}"
    )


def _neither(file: str, row: int, column: str, value: Any) -> str:
    """Say where in a file a value stands that is neither yes nor no."""
    heads = {".csv": 2, ".tsv": 2, ".jsonl": 1}.get(os.path.splitext(file)[1].lower())
    place = f"row {row}" if heads is None else f"line {row + heads}"
    return (
        f"{file}, {place}: {column} is {value!r}; expected yes or no (true or false, 1 or 0), or nothing where "
        f"there is no label. Where another word is the positive one, name it: {file}:{column}={value}"
    )


def _is_yes_or_no(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) or (isinstance(value, int | float | np.number) and value in (0, 1))


def _matches(value: Any, wanted: str) -> bool:
    """Say whether a value is the one that is positive, written as text."""
    return value is not None and (str(value) == wanted or (isinstance(value, bool) and _truth(wanted) is value))


def _is_missing(value: Any) -> bool:
    """Say whether a value is no label: null, NaN or empty."""
    return value is None or value != value or value == ""


def _truth(value: Any) -> Any:
    """Read a text of yes or no; anything else is left to `as_labels` to judge."""
    if isinstance(value, str):
        lower = value.strip().lower()
        return True if lower in _TRUE else False if lower in _FALSE else value
    return value
