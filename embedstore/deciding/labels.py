"""Labels in any form -> which rows are labelled, and which of them are positive.

A column of the store, a file of ids or paths, a mapping or an array: each ends as positions and booleans. What is
done with them is left to `thresholds`, `evaluation` and `review`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.errors import LabelError
from embedstore.measures.samples import as_labels
from embedstore.storage.rows import Rows
from embedstore.vectors import Positions
from embedstore.wording import counted

_TRUE = ("1", "true", "yes", "y", "t", "x")
_FALSE = ("0", "false", "no", "n", "f", "-")
_NAMES = ("id", "uri", "path", "file_name", "file", "image")


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
        return Labelled(self.positions[kept], self.values[kept], words, self.positive)


NO_LABELS = Labelled(np.empty(0, np.int64), np.empty(0, np.bool_), "no labels")


def labels_for(rows: Rows, labels: Any) -> Labelled:
    """Read the labels of one class.

    Parameters
    ----------
    rows : Rows
    labels : str, path, mapping or array-like
        ``"animal=dog"``: a column of the store and the value that is positive; rows where it is null have no
        label. A boolean column's name. A path of a CSV, JSON lines or Parquet file with a column ``id`` (or
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
        column, value = _split(labels)
        if column not in rows.columns:
            raise LabelError(
                f"{labels!r} is neither a file nor a column of the store; say column=value, such as label=dog. "
                f"The columns are {', '.join(rows.columns)}"
            )
        return _of_column(rows.metadata([column]).column(column), value, labels)
    values = np.asarray(labels, dtype=object).tolist()
    if len(values) != len(rows):
        found = f"{counted(len(values), 'label')} for {counted(len(rows), 'row')}"
        raise LabelError(f"{found}; give one for each, None where there is none")
    return _of_values(np.arange(len(rows)), values, None, "an array")


def classes_for(rows: Rows, labels: str) -> Labelled:
    """Read the names of the classes of a column; rows where it is null have no label."""
    if labels not in rows.columns:
        raise LabelError(f"there is no column {labels!r}; the columns are {', '.join(rows.columns)}")
    values = np.array(rows.metadata([labels]).column(labels).to_pylist(), dtype=object)
    known = np.flatnonzero([value is not None for value in values])
    if not len(known):
        raise LabelError(f"column {labels!r} is null in every row ({len(values):,}); there is nothing to learn from")
    return Labelled(known, np.array([str(value) for value in values[known]], dtype=object), labels)


def _split(text: str) -> tuple[str, str | None]:
    """Split ``column=value``; the value is None where none is named."""
    column, sign, value = text.partition("=")
    return column.strip(), value.strip() if sign else None


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
        raise LabelError(f"the labels {file!r} cannot be read: {error}") from error
    key = next((name for name in _NAMES if name in table.column_names), None)
    if key is None or column not in table.column_names:
        raise LabelError(
            f"{file} needs a column {column!r} and one that names the rows ({', '.join(_NAMES)}); "
            f"it has {', '.join(table.column_names)}"
        )
    names, values = table.column(key).to_pylist(), table.column(column).to_pylist()
    if value is None:
        _require_truths(values, file)
    found = _of_pairs(rows, names, values, value, file, key)
    return dataclasses.replace(found, source=text)


def _require_truths(values: list[Any], file: str) -> None:
    """Refuse a label of a file that is neither yes nor no, with its value and its line; an empty one is none."""
    for number, value in enumerate(values):
        truth = _truth(value)
        if not _is_missing(value) and truth not in (True, False):
            line = f"line {number + 2}" if file.lower().endswith((".csv", ".tsv")) else f"row {number + 1}"
            raise LabelError(
                f"{file}, {line}: the label {value!r} is neither yes nor no; correct it, leave it empty, or say which "
                f"value is positive: {file}:COLUMN=VALUE"
            )


def _of_pairs(rows: Rows, names: list[Any], values: list[Any], positive: str | None, source: str, key: str) -> Labelled:
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
    return _of_values(positions, [values[place] for place in order.tolist()], positive, source)


def _of_column(column: pa.ChunkedArray, value: str | None, source: str) -> Labelled:
    """Compare a column with the value that is positive; one that no row has is an error."""
    values = column.to_pylist()
    if value is not None and not any(_matches(one, value) for one in values):
        seen = sorted({str(one) for one in values if one is not None})
        shown = ", ".join(seen[:12]) + (" ..." if len(seen) > 12 else "")
        raise LabelError(f"no row has {source}; the values are {shown}")
    return _of_values(np.arange(len(values)), values, value, source)


def _of_values(positions: Positions, values: list[Any], positive: str | None, source: str) -> Labelled:
    """Turn values into booleans, leaving out what has no label."""
    known = [number for number, value in enumerate(values) if not _is_missing(value)]
    if not known:
        raise LabelError(f"{source}: no row has a label")
    kept = [values[number] for number in known]
    if positive is not None:
        truth = np.array([_matches(value, positive) for value in kept], dtype=np.bool_)
    else:
        found = [_truth(value) for value in kept]
        mixed = any(isinstance(value, str) for value in found)  # NumPy would make a text of True
        truth = as_labels(np.array(found, dtype=object) if mixed else np.asarray(found), what=source)
    return Labelled(positions[known], truth, source, positive)


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
