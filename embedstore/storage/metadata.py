"""A source's own columns -> columns that every engine can read.

Text, whole numbers, floats, booleans, dates and times are kept; names that the store uses itself get the prefix
``source_``. Anything else (lists, structures, bytes) is left to the source. `Columns` holds records to one type
for each column *before* their pictures are embedded, so that no paid vector meets a row that cannot be stored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from embedstore.errors import InputError

RESERVED = ("id", "uri", "content_hash", "width", "height", "added_at", "embedding", "score")
_UNSAFE = re.compile(r"[ ,;{}()=\x00-\x1f\x7f\ud800-\udfff]")
_LEAVES = "embedding."
"""So begin the names that Parquet gives to what is inside the vectors."""
_INT64 = 2**63

_KINDS: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    date: pa.date32(),
    datetime: pa.timestamp("us", tz="UTC"),
}


def column_name(name: str, known: Iterable[str] = ()) -> str:
    """Return the name a source's column has in the store: as one of `known` is spelled that differs by case only."""
    safe = _UNSAFE.sub("_", name) or "unnamed"
    if safe.lower() in RESERVED or safe.lower().startswith(_LEAVES):
        safe = f"source_{safe}"
    return next((column for column in known if column.lower() == safe.lower()), safe)


def require_distinct(names: Iterable[str]) -> None:
    """Refuse columns of one source that would be one column here.

    Delta takes names that differ by case only for the same, and signs that are unsafe become underscores.

    Raises
    ------
    InputError
        The message names both columns.
    """
    taken: dict[str, str] = {}
    for name in names:
        other = taken.setdefault(column_name(name).lower(), name)
        if other != name:
            raise InputError(
                f"the columns {other!r} and {name!r} would both be {column_name(other)!r} in the store, where case "
                "does not count and signs such as spaces become underscores; rename one of them in the source"
            )


class Columns:
    """The metadata columns that rows on their way into a store have, each of one type.

    Parameters
    ----------
    schema : pyarrow.Schema
        The store's columns; theirs are the types that stay.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._types: dict[str, pa.DataType] = {}
        self._in_store: set[str] = set()
        self._names: dict[str, str] = {}
        self._distinct: set[tuple[str, ...]] = set()
        self.left_out: dict[str, str] = {}
        """Columns of which values were left out, and why."""
        self.stored(schema)

    def fit(self, metadata: Mapping[str, Any], uri: str) -> dict[str, Any]:
        """Return what is known of one record by column name, in the values that the store will hold.

        Whole numbers become floats in a column of floats, and anything becomes text in a column of text; values
        that no column can hold (lists and the like) are left out.

        Raises
        ------
        InputError
            A value does not fit the column's type, or two columns would be one; the message names `uri`, the columns
            and both types.
        """
        names = tuple(metadata)
        if names not in self._distinct:
            require_distinct(names)
            self._distinct.add(names)
        fitted: dict[str, Any] = {}
        for name, given in metadata.items():
            value = _storable_value(given)
            if value is None and given is not None and not _is_missing(given):
                self.left_out[name] = type(given).__name__
                continue
            column = self._column(name)
            if value is None:
                fitted.setdefault(column, None)
            else:
                fitted[column] = self._fit_value(column, value, uri)
        return fitted

    def table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Return rows that `fit` returned as a table; columns that hold nothing so far are text."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {
            name: pa.array([row.get(name) for row in rows], self._types.get(name, pa.string())) for name in names
        }
        return pa.table(columns) if columns else pa.table({"": pa.nulls(len(rows))}).select([])

    def stored(self, schema: pa.Schema) -> None:
        """Take note of the store's columns after rows have been taken in: these types are final."""
        fields = {field.name: field.type for field in schema if field.name not in RESERVED}
        self._types.update(fields)
        self._in_store.update(fields)

    @property
    def renamed(self) -> dict[str, str]:
        """The columns of the source that have another name in the store, by their own."""
        return {name: column for name, column in self._names.items() if name != column}

    def _column(self, name: str) -> str:
        """Return a column's name in the store; Delta takes names that differ by case only for the same."""
        if name not in self._names:
            self._names[name] = column_name(name, (*self._types, *self._names.values()))
        return self._names[name]

    def _fit_value(self, column: str, value: Any, uri: str) -> Any:
        given = _KINDS[type(value)]
        kind = self._types.setdefault(column, given)
        if kind == given:
            return value
        if pa.types.is_string(kind):
            return _as_text(value)
        if pa.types.is_floating(kind) and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if pa.types.is_integer(kind) and isinstance(value, float):
            if value.is_integer():  # pandas turns whole numbers into floats where one is missing
                value = int(value)
                if kind == pa.int64():
                    return value
            elif column not in self._in_store:
                self._types[column] = pa.float64()
                return value
        if column in self._in_store and _holds(kind, value):
            return value
        raise InputError(
            f"{uri}: column {column!r} holds {kind} and here {value!r} ({given}); rename the column in the source, or "
            "make its values one kind"
        )


def _holds(kind: pa.DataType, value: Any) -> bool:
    """Tell whether a column of this type, which another writer may have declared, holds just this value."""
    if isinstance(value, bool) is not pa.types.is_boolean(kind):
        return False
    try:
        stored = pa.scalar(value, kind).as_py()
    except (pa.ArrowException, TypeError, OverflowError):
        return False
    return bool(stored == value) or (isinstance(stored, datetime) and isinstance(value, datetime))


def storable_types(table: pa.Table) -> pa.Table:
    """Return a table with each column cast to a storable type; columns that have none are left out.

    Raises
    ------
    InputError
        A value is beyond what the storable type holds, such as a whole number of more than 63 bits.
    """
    columns = {}
    for field in table.schema:
        kind = storable_type(field.type)
        if kind is not None:
            try:
                columns[field.name] = table.column(field.name).cast(kind)
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"column {field.name!r} holds {field.type} that {kind} cannot hold ({error}); "
                    "store it as text, or leave it out"
                ) from error
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


def equal(stored: Any, given: Any) -> bool:
    """Tell whether two values of a column are the same; not-a-number is the same as itself."""
    if stored == given:
        return True
    return isinstance(stored, float) and isinstance(given, float) and stored != stored and given != given


def _storable_value(value: Any) -> Any:
    """Return a value as bool, int, float, str, date or datetime in UTC; None when it is missing or none of these."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()  # a NumPy scalar
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else float(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode() if not value.isascii() else str.__str__(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        try:
            return None if _is_missing(value) else _in_utc(value)
        except OverflowError:  # the first or last day of all, in another zone
            return None
    return value if type(value) is date else None


def _in_utc(moment: datetime) -> datetime:
    """Return a moment as a plain datetime in UTC; one without a zone is taken to be in UTC, as Arrow takes it."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    parts = (aware.year, aware.month, aware.day, aware.hour, aware.minute, aware.second, aware.microsecond)
    return datetime(*parts, tzinfo=UTC)


def _is_missing(value: Any) -> bool:
    """Tell whether this is some library's way to say that there is no value (pandas' NaT and NA)."""
    return value is None or type(value).__name__ in ("NaTType", "NAType")


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    return value.isoformat() if isinstance(value, date) else str(value)
