"""Labels in any form -> which rows are labelled, and which of them are positive.

A column of the store, a file of ids or paths, a mapping or an array: each ends as positions and booleans. What is
done with them is left to `deciding`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.errors import LabelError
from embedstore.measures.labels import as_labels
from embedstore.storage.rows import Rows
from embedstore.vectors import Positions

_TRUE = ("1", "true", "yes", "y", "t", "x")
_FALSE = ("0", "false", "no", "n", "f", "-")
_NAMES = ("id", "uri", "path", "file_name", "file", "image")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows that have a label.

    Attributes
    ----------
    positions : ndarray of shape (n,), int64
        Positions of the rows, ascending.
    values : ndarray of shape (n,)
        bool for one class, or the class's name (object) for several.
    source : str
        Where the labels came from, in words.
    """

    positions: Positions
    values: NDArray[Any]
    source: str

    def __len__(self) -> int:
        return len(self.positions)


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
    values = [None if value is None else value for value in np.asarray(labels, dtype=object).tolist()]
    if len(values) != len(rows):
        raise LabelError(
            f"{len(values)} labels for {len(rows)} rows; give one for each, None where there is none"
        )
    return _of_values(np.arange(len(rows)), values, None, "an array")


def classes_for(rows: Rows, labels: str) -> Labelled:
    """Read the names of the classes of a column; rows where it is null have no label."""
    if labels not in rows.columns:
        raise LabelError(f"there is no column {labels!r}; the columns are {', '.join(rows.columns)}")
    values = np.array(rows.metadata([labels]).column(labels).to_pylist(), dtype=object)
    known = np.flatnonzero([value is not None for value in values])
    if not len(known):
        raise LabelError(
            f"column {labels!r} is null in all {len(values)} rows; there is nothing to learn from"
        )
    return Labelled(known, np.array([str(value) for value in values[known]], dtype=object), labels)


def _split(text: str) -> tuple[str, str | None]:
    column, sign, value = text.partition("=")
    return column.strip(), value.strip() if sign else None


def _file_of(text: str) -> str | None:
    """Return the file that a text names, before an optional ``:column=value``."""
    for end in (len(text), text.rfind(":")):
        if end > 0 and os.path.isfile(text[:end]):
            return text[:end]
    return text if text.lower().endswith((".csv", ".jsonl", ".parquet", ".tsv")) else None


def _of_file(rows: Rows, text: str) -> Labelled:
    file = _file_of(text) or text
    column, value = _split(text[len(file) + 1 :] or "label")
    table = _read(Path(file))
    key = next((name for name in _NAMES if name in table.column_names), None)
    if key is None or column not in table.column_names:
        raise LabelError(
            f"{file} needs a column {column!r} and one that names the rows ({', '.join(_NAMES)}); "
            f"it has {', '.join(table.column_names)}"
        )
    return _of_pairs(
        rows,
        table.column(key).to_pylist(),
        table.column(column).to_pylist(),
        value,
        file,
        key,
        Path(file).parent,
    )


def _read(file: Path) -> pa.Table:
    from embedstore.sources.tabular import read_small

    try:
        return read_small(str(file))
    except OSError as error:
        raise LabelError(f"the labels {str(file)!r} cannot be read: {error}") from error


def _of_pairs(
    rows: Rows,
    names: Sequence[Any],
    values: Sequence[Any],
    positive: str | None,
    source: str,
    key: str,
    folder: Path | None = None,
) -> Labelled:
    """Find the rows that are named; a name that is no row is an error, as a typing mistake would be."""
    own = rows.metadata(["id" if key == "id" else "uri"]).column(0).to_pylist()
    place = {name: position for position, name in enumerate(own)}
    found: list[int] = []
    lost = []
    for name in names:
        position = place.get(str(name))
        if position is None and folder is not None and key != "id":
            position = place.get(os.path.abspath(folder / str(name)))
        if position is None:
            lost.append(name)
        else:
            found.append(position)
    if lost:
        raise LabelError(
            f"{source} names {len(lost)} rows that are not in the store; the first is {lost[0]!r}"
        )
    by_position = dict(zip(found, values, strict=True))
    if len(by_position) < len(found):
        raise LabelError(f"{source} names a row twice; keep one label for each")
    ordered = sorted(by_position)
    return _of_values(np.array(ordered, np.int64), [by_position[p] for p in ordered], positive, source)


def _of_column(column: pa.ChunkedArray, value: str | None, source: str) -> Labelled:
    values = column.to_pylist()
    if value is not None and not any(_matches(one, value) for one in values):
        seen = sorted({str(one) for one in values if one is not None})
        shown = ", ".join(seen[:12]) + (" ..." if len(seen) > 12 else "")
        raise LabelError(f"no row has {source}; the values are {shown}")
    return _of_values(np.arange(len(values)), values, value, source)


def _of_values(positions: Positions, values: list[Any], positive: str | None, source: str) -> Labelled:
    """Turn values into booleans, leaving out what has no label."""
    known = [
        number for number, value in enumerate(values) if value is not None and value == value and value != ""
    ]
    if not known:
        raise LabelError(f"{source}: no row has a label")
    kept = [values[number] for number in known]
    if positive is not None:
        truth = np.array([_matches(value, positive) for value in kept], dtype=np.bool_)
    else:
        truth = as_labels([_truth(value) for value in kept], what=source)
    return Labelled(positions[known], truth, source)


def _matches(value: Any, wanted: str) -> bool:
    return value is not None and (
        str(value) == wanted or (isinstance(value, bool) and _truth(wanted) is value)
    )


def _truth(value: Any) -> Any:
    """Read a text of yes or no; anything else is left to `as_labels` to judge."""
    if isinstance(value, str):
        lower = value.strip().lower()
        return True if lower in _TRUE else False if lower in _FALSE else value
    return value
