"""A store's rows -> the table that Atlas gets: names, ids and types made safe, each change said.

Names that Atlas keeps for itself, or would take for equal, are changed; ids that are too long are shortened. Values
are converted by `values`. Whether the outcome agrees with the columns of a dataset that is there already is decided
here; what to do about it, in `plan`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from embedstore.atlas.values import UnsendableError, convert, convert_to

LONGEST_ID: Final = 36
_LOCAL: Final = {"added_at": "when this store took the row in; another store has its own"}
_ON_THE_MAP: Final = ("x", "y", "ix")
VECTORS, PICTURES = "_embeddings", "_blob_hash"
"""Private columns of the rows' vectors, or of their pictures."""


@dataclass
class Sendable:
    """Rows as Atlas takes them.

    Attributes
    ----------
    table : pyarrow.Table
        Of types that neither the client nor Atlas changes; the column of ids is among them.
    ids : list of str
        What each row is called in Atlas.
    changes : dict of str to list of str
        By column of the store: what is sent other than it is there.
    unsent : dict of str to str
        By column: why it stays here.
    problems : list of str
        What keeps the rows from going into the dataset at all.
    """

    table: pa.Table
    ids: list[str]
    changes: dict[str, list[str]] = field(default_factory=dict)
    unsent: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def sendable(rows: pa.Table, id_field: str = "id", schema: pa.Schema | None = None) -> Sendable:
    """Make rows safe to send.

    Parameters
    ----------
    rows : pyarrow.Table
        A column ``id`` of texts, and others of any type.
    id_field : str
        What the dataset calls the column of ids.
    schema : pyarrow.Schema, optional
        The columns of the dataset, when it has rows already: they are given for good.
    """
    stored = [str(value) for value in rows.column("id").to_pylist()]
    ids = atlas_ids(stored)
    columns: dict[str, Any] = {id_field: pa.array(ids, pa.string())}
    made = Sendable(pa.table(columns), ids)
    if ids != stored:
        rows = rows.append_column("stored_id", pa.array(stored, pa.string()))
        long = sum(a != b for a, b in zip(ids, stored, strict=True))
        made.changes["id"] = [
            f"{long:,} of more than {LONGEST_ID} characters as 32 hex digits of their SHA-256"
        ]
    wanted = {} if schema is None else {f.name: f.type for f in schema if not f.name.startswith("_")}
    names = safe_names([name for name in rows.column_names if name != "id"], taken=[id_field])
    for name, safe in names.items():
        if name in _LOCAL:
            made.unsent[name] = _LOCAL[name]
        elif schema is not None and safe not in wanted:
            made.unsent[name] = "the dataset was made without it, and takes no new columns"
        else:
            _take(made, columns, name, safe, rows.column(name), wanted.get(safe))
    made.problems += _missing(wanted, columns, made.unsent)
    made.table = pa.table(columns)
    return made


def _take(
    made: Sendable, columns: dict[str, Any], name: str, safe: str, column: Any, wanted: pa.DataType | None
) -> None:
    """Convert one column and put it among the others."""
    try:
        found = convert(column) if wanted is None else convert_to(column, wanted)
    except UnsendableError as error:
        if wanted is None:
            made.unsent[name] = str(error)
        else:
            made.problems.append(f"column {name!r}: {error}")
        return
    columns[safe] = found.values
    notes = ([f"named {safe!r}"] if safe != name else []) + found.notes
    if notes:
        made.changes[name] = notes


def _missing(wanted: Iterable[str], columns: Iterable[str], unsent: Iterable[str]) -> list[str]:
    """Say which columns of the dataset the rows lack."""
    lacking = [name for name in wanted if name not in columns and name not in unsent]
    hint = " (--classifier NAME adds a classifier's)"
    return [
        f"the dataset has a column {name!r}, which these rows have not: Atlas takes no rows without it"
        + (hint if name.endswith(("_score", "_match")) else "")
        for name in lacking
    ]


def atlas_ids(ids: Sequence[str]) -> list[str]:
    """Return ids that Atlas takes; one of more than 36 characters becomes 32 hex digits of its SHA-256."""
    return [
        name if len(name) <= LONGEST_ID else hashlib.sha256(name.encode()).hexdigest()[:32] for name in ids
    ]


def safe_names(names: Sequence[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return names that Atlas takes, by the store's own.

    Atlas keeps names that start with ``_`` for itself, a map has columns of its own, and names that differ in case
    only count as equal. The outcome depends on the order of the names, which a store keeps.

    Examples
    --------
    >>> safe_names(["_split", "Label", "label", "x"])
    {'_split': 'split', 'Label': 'Label', 'label': 'label_2', 'x': 'x_value'}
    """
    lower = {name.lower() for name in taken}
    safe: dict[str, str] = {}
    for name in names:
        wanted = name.strip().lstrip("_") or "column"
        wanted = f"{wanted}_value" if wanted.lower() in _ON_THE_MAP else wanted
        number, chosen = 1, wanted
        while chosen.lower() in lower:
            number += 1
            chosen = f"{wanted}_{number}"
        lower.add(chosen.lower())
        safe[name] = chosen
    return safe


def dimension(schema: pa.Schema) -> int | None:
    """Return the number of components of a dataset's vectors; None if its schema does not say."""
    place = schema.get_field_index(VECTORS)
    kind = None if place < 0 else schema.field(place).type
    return int(kind.list_size) if kind is not None and pa.types.is_fixed_size_list(kind) else None


def lacks_picture(row: dict[str, Any]) -> bool:
    """Tell whether a row as Atlas shows it should have a picture and has none."""
    return PICTURES in row and row[PICTURES] in (None, "", "null")
