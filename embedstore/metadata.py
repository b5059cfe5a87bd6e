"""A source's own columns -> columns that every engine can read.

Text, whole numbers, floats, booleans, dates and times are kept; names that the store uses itself get the prefix
``source_``. Anything else (lists, structures) is left to the source, which says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from embedstore.errors import InputError

RESERVED = ("id", "uri", "content_hash", "width", "height", "added_at", "embedding", "score")
_UNSAFE = re.compile(r"[ ,;{}()\n\t=]")


def column_name(name: str) -> str:
    """Return the name a source's column has in the store."""
    safe = _UNSAFE.sub("_", name)
    return f"source_{safe}" if safe.lower() in RESERVED else safe


def storable(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows of metadata as a table with storable types, one row for each.

    Raises
    ------
    InputError
        A column holds values of several kinds.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [_plain(row.get(name)) for row in rows]
        try:
            columns[column_name(name)] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            kinds = sorted({type(value).__name__ for value in values if value is not None})
            raise InputError(
                f"column {name!r} holds values of several kinds ({', '.join(kinds)}); make them one kind in the source"
            ) from error
    table = pa.table(columns) if columns else pa.table({"": pa.nulls(len(rows))}).select([])
    return storable_types(table)


def storable_types(table: pa.Table) -> pa.Table:
    """Return a table with each column cast to a storable type; columns that have none are left out."""
    columns = {}
    for field in table.schema:
        kind = storable_type(field.type)
        if kind is not None:
            columns[field.name] = table.column(field.name).cast(kind)
    return pa.table(columns) if columns else table.select([])


def storable_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the storable type that holds `kind`, or None."""
    types = pa.types
    if types.is_dictionary(kind):
        return storable_type(kind.value_type)
    if types.is_null(kind) or types.is_boolean(kind) or types.is_date32(kind):
        return kind
    if types.is_integer(kind):
        return pa.int64()
    if types.is_floating(kind) or types.is_decimal(kind):
        return pa.float64()
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC")
    return pa.date32() if types.is_date64(kind) else None


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
