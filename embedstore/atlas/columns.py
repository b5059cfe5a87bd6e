"""A store's rows -> the table that Atlas gets: names, ids and types made safe, and a word on each change.

Atlas has texts, 32-bit whole numbers, 32-bit floats and times in milliseconds, ids of at most 36 characters, and names
that it keeps for itself or takes for equal. The client casts everything to these without a check: 3,000,000,000 becomes
-1,294,967,296. Here every value is kept, or changed in a way that is said, or its column is named as one that cannot be
sent; also when the columns of a dataset are given already. What each was goes along as `AtlasRows.origins`, by which
`restoring` has it back. What to do about it is left to `plan`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

VECTORS, PICTURES = "_embeddings", "_blob_hash"  # private columns of the rows' vectors, or of their pictures
NOTHING: Final = "null"  # how Atlas writes a text that is not there; the client makes it of empty texts, too
EMPTY: Final = '""'  # how an empty text travels
LONGEST_ID: Final = 36
STORED_ID: Final = "stored_id"  # column with the store's own ids, where some of them are longer
FROM_THE_MAP: Final = "map_"  # columns that a store has from a map begin so

_MEANING_MORE: Final = r'^(\\*)(null|"")$'  # texts that mean something else there get one more backslash
_LOCAL: Final = {"added_at": "when this store took the row in; another store has its own"}
_ON_THE_MAP: Final = ("x", "y", "ix")
_COMES_BACK_AS: Final = {
    "string": "string",
    "int32": "int64",
    "float": "double",
    "timestamp[ms]": "timestamp[us, tz=UTC]",
}
"""What a store makes of the types that Atlas has."""
_LARGEST_FLOAT: Final = float(np.finfo(np.float32).max)
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_FIRST_SECOND: Final = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
_LAST_SECOND: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


@dataclass
class AtlasRows:
    """Rows as Atlas takes them: of types that neither the client nor Atlas changes."""

    table: pa.Table  # the column of ids is among its columns
    ids: list[str]  # what each row is called in Atlas
    changes: dict[str, list[str]] = field(default_factory=dict)  # by column of the store: what is sent otherwise
    unsent: dict[str, str] = field(default_factory=dict)  # by column: why it stays here
    problems: list[str] = field(default_factory=list)  # what keeps the rows from going into the dataset at all
    new: list[str] = field(default_factory=list)  # columns that the dataset was made without
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)  # by column there: name and type here

    @property
    def left_behind(self) -> list[str]:
        """Columns that somebody who has the dataset only cannot have."""
        return [name for name in self.unsent if name not in _LOCAL and not name.startswith(FROM_THE_MAP)]


def atlas_rows(
    rows: pa.Table, id_field: str = "id", schema: pa.Schema | None = None, *, escape: bool = True
) -> AtlasRows:
    """Convert rows, with a column ``id`` of texts and others of any type, to what Atlas takes.

    `id_field` is what the dataset calls the column of ids; `schema` has its columns when it has rows already, as they
    are given for good then. Without `escape` empty texts are as good as missing ones: so it is in datasets whose
    description does not tell how to read them.
    """
    stored = [str(value) for value in rows.column("id").to_pylist()]
    ids = atlas_ids(stored)
    wanted = {} if schema is None else {f.name: f.type for f in schema if not f.name.startswith("_")}
    columns: dict[str, Any] = {id_field: pa.array(ids, pa.string())}
    converted = AtlasRows(pa.table(columns), ids)
    if ids != stored:
        long = sum(a != b for a, b in zip(ids, stored, strict=True))
        converted.changes["id"] = [f"{long:,} of more than {LONGEST_ID} characters as 32 hex digits of their SHA-256"]
    hidden = (ids != stored or STORED_ID in wanted) and STORED_ID not in rows.column_names
    if hidden:
        rows = rows.append_column(STORED_ID, pa.array(stored, pa.string()))
    names = safe_names([name for name in rows.column_names if name != "id"], taken=[id_field])
    for name, safe in names.items():
        if name in _LOCAL:
            converted.unsent[name] = _LOCAL[name]
        elif name.startswith(FROM_THE_MAP):
            converted.unsent[name] = "it came from a map of Atlas, which has its own"
        elif schema is not None and safe not in wanted:
            converted.new.append(name)
            converted.unsent[name] = "the dataset was made without it, and takes no new columns"
        elif (values := _values(converted, name, safe, rows.column(name), wanted.get(safe), escape)) is not None:
            columns[safe] = values
            was_id = hidden and name == STORED_ID
            if was_id or safe != name or _COMES_BACK_AS.get(str(values.type)) != str(rows.column(name).type):
                converted.origins[safe] = ("id" if was_id else name, str(rows.column(name).type))
    for name in wanted:
        if name not in columns and name not in converted.unsent:
            hint = " (--classifier NAME adds a classifier's)" if name.endswith(("_score", "_match")) else ""
            converted.problems.append(
                f"the dataset has a column {name!r}, which these rows have not: Atlas takes no rows without it{hint}"
            )
    converted.table = pa.table(columns)
    return converted


def _values(
    rows: AtlasRows, name: str, safe: str, column: pa.ChunkedArray, wanted: pa.DataType | None, escape: bool
) -> pa.Array | None:
    """Convert one column, and note among the rows what was changed or why it cannot be."""
    try:
        result = convert(column, escape) if wanted is None else convert_to(column, wanted, escape)
    except UnsendableError as error:
        if wanted is None:
            rows.unsent[name] = str(error)
        else:
            rows.problems.append(f"column {name!r}: {error}")
        return None
    notes = ([f"named {safe!r}"] if safe != name else []) + result.notes
    if notes:
        rows.changes[name] = notes
    return result.values


def atlas_ids(ids: Sequence[str]) -> list[str]:
    """Return ids that Atlas takes; one of more than 36 characters becomes 32 hex digits of its SHA-256."""
    return [name if len(name) <= LONGEST_ID else hashlib.sha256(name.encode()).hexdigest()[:32] for name in ids]


def safe_names(names: Sequence[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return names that Atlas takes, by the store's own.

    Atlas keeps names that start with ``_`` for itself, a map has columns of its own, and names that differ in case
    only count as equal: ``_split, Label, label, x`` go as ``split, Label, label_2, x_value``. The outcome depends on
    the order of the names, which a store keeps.
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
    return int(kind.list_size) if kind is not None and types.is_fixed_size_list(kind) else None


def lacks_picture(row: dict[str, Any]) -> bool:
    """Tell whether a row as Atlas shows it should have a picture and has none."""
    return PICTURES in row and row[PICTURES] in (None, "", "null")


class UnsendableError(ValueError):
    """A column has no form that Atlas takes; the message says why."""


@dataclass
class Converted:
    """A column as Atlas takes it."""

    values: pa.Array  # of type string, int32, float32 or timestamp[ms]
    notes: list[str] = field(default_factory=list)  # what was changed, in words; empty if nothing was

    def note(self, count: int, text: str) -> None:
        """Note a change of some values, if there are any."""
        if count:
            self.notes.append(f"{count:,} {text}")


def convert(column: pa.Array | pa.ChunkedArray, escape: bool = True) -> Converted:
    """Turn a column of any type into one that Atlas takes; UnsendableError if it has no such form."""
    return _written(_convert(column), escape)


def convert_to(column: pa.Array | pa.ChunkedArray, wanted: pa.DataType, escape: bool = True) -> Converted:
    """Turn a column into the type that it has in a dataset already; UnsendableError if its values do not fit."""
    if types.is_null(column.type):
        return _written(Converted(pa.nulls(len(column), wanted)), escape)
    result = _convert(column)
    kind = result.values.type
    if types.is_string(wanted):
        if not kind.equals(wanted):
            result = _as_text(result.values, f"{kind} as text, as the dataset has it")
        return _written(result, escape)
    if kind.equals(wanted):
        return result
    exact = types.is_floating(wanted) and types.is_int32(kind)
    if exact and not pc.any(pc.greater(pc.abs(result.values.cast(pa.int64())), 2**24)).as_py():
        return Converted(result.values.cast(wanted), result.notes)
    raise UnsendableError(f"it is {wanted} in the dataset, and holds values here that go as {kind}")


def _convert(column: pa.Array | pa.ChunkedArray) -> Converted:
    """Turn a column into one of a type that Atlas has, texts as they are and missing ones missing."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    for kinds, turn in _RULES:
        if any(is_kind(values.type) for is_kind in kinds):
            return turn(values)
    raise UnsendableError(f"Atlas has no column for {values.type}")


def _written(result: Converted, escape: bool) -> Converted:
    """Write missing and empty texts as Atlas can hold them, and texts that look like those so that they differ."""
    texts = result.values
    if not types.is_string(texts.type):
        return result
    empty = pc.fill_null(pc.equal(pc.binary_length(texts), 0), False)
    alike = pc.fill_null(pc.match_substring_regex(texts, _MEANING_MORE), False)
    result.note(texts.null_count, f'missing texts as "{NOTHING}"')
    result.note(pc.sum(empty).as_py() or 0, f"empty texts as {EMPTY if escape else chr(34) + NOTHING + chr(34)}")
    if escape:
        result.note(pc.sum(alike).as_py() or 0, f"texts {NOTHING} or {EMPTY} with a backslash before them")
        texts = pc.if_else(alike, pc.binary_join_element_wise("\\", texts, ""), texts)
    result.values = pc.if_else(empty, EMPTY if escape else NOTHING, pc.fill_null(texts, NOTHING))
    return result


def _null(values: pa.Array) -> Converted:
    raise UnsendableError("it holds no value, so that Atlas would not know its type")


def _bytes(values: pa.Array) -> Converted:
    raise UnsendableError("it holds bytes, and Atlas has no such column (pictures go with --images)")


def _texts(values: pa.Array) -> Converted:
    return Converted(values.cast(pa.string()))


def _as_text(values: pa.Array, how: str, say: Callable[[Any], str] = str) -> Converted:
    """Write each value as text."""
    texts = [None if value is None else say(value) for value in values.to_pylist()]
    return Converted(pa.array(texts, pa.string()), [how])


def _integers(values: pa.Array) -> Converted:
    try:
        return Converted(values.cast(pa.int32()))
    except pa.ArrowInvalid:
        return _as_text(values, "whole numbers beyond 32 bit: as text")


def _floats(values: pa.Array) -> Converted:
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore", invalid="ignore"):
        small = numbers.astype(np.float32)
    if np.isinf(small).any():
        return _as_text(values, f"numbers beyond {_LARGEST_FLOAT:.3g} or infinite: as text", repr)
    result = Converted(pa.array(small, pa.float32(), from_pandas=True))
    result.note(result.values.null_count - values.null_count, "NaN as missing")
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(small.astype(np.float64) - numbers) / np.abs(numbers)
    off = off[np.isfinite(off)]
    if len(off) and off.max() > 0:
        result.notes.append(f"as 32-bit floats, off by at most {off.max():.1e} of the value")
    return result


def _times(values: pa.Array) -> Converted:
    kind = values.type
    if types.is_timestamp(kind) and kind.tz is not None:
        values = values.cast(pa.timestamp(kind.unit, tz="UTC")).cast(pa.timestamp(kind.unit))
    if types.is_timestamp(kind) and not _within_years(values):
        how = f"times outside the years 1 to 9999: as text, {kind.unit} since 1970"
        return _as_text(values.cast(pa.int64()), how)
    whole = values.cast(pa.timestamp("ms"), safe=False)
    result = Converted(whole)
    if types.is_timestamp(kind) and kind.unit in ("us", "ns"):
        rest = np.mod(values.cast(pa.int64()).drop_null().to_numpy(), _PER_SECOND[kind.unit] // 1_000)
        result.note(int(np.count_nonzero(rest)), "times lose what is below a millisecond")
    if types.is_timestamp(kind) and kind.tz is not None and kind.tz != "UTC":
        result.notes.append(f"times of the zone {kind.tz} as UTC")
    return result


def _within_years(values: pa.Array) -> bool:
    """Tell whether all times lie in years that calendars of programs have; milliseconds reach them all."""
    numbers = values.cast(pa.int64()).drop_null().to_numpy() // _PER_SECOND[values.type.unit]
    return not len(numbers) or bool(numbers.min() >= _FIRST_SECOND and numbers.max() <= _LAST_SECOND)


def _nested(values: pa.Array) -> Converted:
    def say(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, default=_json)

    try:
        return _as_text(values, "lists and structures as JSON text", say)
    except TypeError as error:
        raise UnsendableError(f"it holds {error} within lists or structures, which JSON cannot say") from None


def _json(value: Any) -> Any:
    """Say in JSON what it has no form for."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    raise TypeError(type(value).__name__)


Rule = tuple[tuple[Callable[[pa.DataType], bool], ...], Callable[[pa.Array], Converted]]
_RULES: Final[tuple[Rule, ...]] = (
    ((types.is_null,), _null),
    ((types.is_string, types.is_large_string, types.is_string_view), _texts),
    ((types.is_dictionary,), lambda values: _convert(values.dictionary_decode())),
    ((types.is_boolean,), lambda values: _as_text(values, "true and false as text", lambda v: str(v).lower())),
    ((types.is_integer,), _integers),
    ((types.is_floating,), _floats),
    ((types.is_timestamp, types.is_date), _times),
    ((types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view), _bytes),
    ((types.is_decimal, types.is_time, types.is_duration), lambda values: _as_text(values, f"{values.type} as text")),
    ((types.is_nested,), _nested),
)
"""Which types are turned how; the first rule that fits."""
