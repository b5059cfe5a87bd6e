"""Columns of any kind -> columns that Atlas keeps as they are, and a word on each that had to be changed.

Atlas has texts, 32-bit whole numbers, 32-bit floats and times in milliseconds. The client casts everything to these
without a check: 3,000,000,000 becomes -1,294,967,296. Here every value is either kept, or changed in a way that is
said, or its column is named as one that cannot be sent. Names are left to `columns`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NOTHING: Final = "null"
"""How Atlas writes a text that is not there; empty texts, too."""

TIME: Final = pa.timestamp("ms")
_LARGEST_FLOAT: Final = float(np.finfo(np.float32).max)


class UnsendableError(ValueError):
    """A column has no form that Atlas takes; the message says why."""


@dataclass
class Converted:
    """A column as Atlas takes it.

    Attributes
    ----------
    values : pyarrow.Array
        Of type string, int32, float32 or timestamp[ms].
    notes : list of str
        What was changed, in words; empty if nothing was.
    """

    values: pa.Array
    notes: list[str] = field(default_factory=list)

    def note(self, count: int, text: str) -> None:
        """Note a change of some values, if there are any."""
        if count:
            self.notes.append(f"{count:,} {text}")


def convert(column: pa.Array | pa.ChunkedArray) -> Converted:
    """Turn a column into one that Atlas takes.

    Parameters
    ----------
    column : pyarrow.Array or ChunkedArray
        Of any type.

    Raises
    ------
    UnsendableError
        It has no form that Atlas takes.

    Examples
    --------
    >>> convert(pa.array([1, 3_000_000_000])).values.to_pylist()
    ['1', '3000000000']
    """
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(values, pa.ChunkedArray):  # several chunks that are too long for one
        values = pa.concat_arrays(values.chunks)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    kind = values.type
    for fits, turn in _RULES:
        if fits(kind):
            return turn(values)
    raise UnsendableError(f"Atlas has no column for {kind}")


def convert_to(column: pa.Array | pa.ChunkedArray, wanted: pa.DataType) -> Converted:
    """Turn a column into the type that it has in a dataset already.

    Raises
    ------
    UnsendableError
        Its values do not fit there.
    """
    if pa.types.is_null(column.type):
        found = Converted(pa.nulls(len(column), wanted))
        return _texts(found.values) if pa.types.is_string(wanted) else found
    found = convert(column)
    kind = found.values.type
    if kind.equals(wanted):
        return found
    if pa.types.is_string(wanted):
        return _as_text(found.values, f"{kind} as text, as the dataset has it")
    exact = pa.types.is_floating(wanted) and pa.types.is_int32(kind)
    if exact and not pc.any(pc.greater(pc.abs(found.values.cast(pa.int64())), 2**24)).as_py():
        return Converted(found.values.cast(wanted), found.notes)
    raise UnsendableError(f"it is {wanted} in the dataset, and holds values here that go as {kind}")


def _null(values: pa.Array) -> Converted:
    raise UnsendableError("it holds no value, so that Atlas would not know its type")


def _bytes(values: pa.Array) -> Converted:
    raise UnsendableError("it holds bytes, and Atlas has no such column (pictures go with --images)")


def _texts(values: pa.Array) -> Converted:
    texts = values.cast(pa.string())
    found = Converted(texts)
    empty = pc.fill_null(pc.equal(pc.binary_length(texts), 0), False)
    found.note(texts.null_count, f'missing texts as "{NOTHING}"')
    found.note(pc.sum(empty).as_py() or 0, f'empty texts as "{NOTHING}"')
    found.values = pc.if_else(empty, NOTHING, pc.fill_null(texts, NOTHING))
    return found


def _as_text(values: pa.Array, how: str, say: Callable[[Any], str] = str) -> Converted:
    """Write each value as text."""
    texts = [None if value is None else say(value) for value in values.to_pylist()]
    found = _texts(pa.array(texts, pa.string()))
    found.notes.insert(0, how)
    return found


def _booleans(values: pa.Array) -> Converted:
    return _as_text(values, "true and false as text", lambda value: "true" if value else "false")


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
    found = Converted(pa.array(small, pa.float32(), from_pandas=True))
    found.note(found.values.null_count - values.null_count, "NaN as missing")
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(small.astype(np.float64) - numbers) / np.abs(numbers)
    off = off[np.isfinite(off)]
    if len(off) and off.max() > 0:
        found.notes.append(f"as 32-bit floats, off by at most {off.max():.1e} of the value")
    return found


def _times(values: pa.Array) -> Converted:
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        values = values.cast(pa.timestamp(kind.unit, tz="UTC")).cast(pa.timestamp(kind.unit))
    if pa.types.is_timestamp(kind) and not _within_years(values):
        how = f"times outside the years 1 to 9999: as text, {kind.unit} since 1970"
        return _as_text(values.cast(pa.int64()), how)
    whole = values.cast(TIME, safe=False)
    found = Converted(whole)
    if pa.types.is_timestamp(kind) and kind.unit in ("us", "ns"):
        step = 1_000 if kind.unit == "us" else 1_000_000
        rest = np.mod(values.cast(pa.int64()).drop_null().to_numpy(), step)
        found.note(int(np.count_nonzero(rest)), "times lose what is below a millisecond")
    if pa.types.is_timestamp(kind) and kind.tz is not None and kind.tz != "UTC":
        found.notes.append(f"times of the zone {kind.tz} as UTC")
    return found


def _within_years(values: pa.Array) -> bool:
    """Tell whether all times lie in years that calendars of programs have; milliseconds reach them all."""
    numbers = values.cast(pa.int64()).drop_null().to_numpy() // _PER_SECOND[values.type.unit]
    return not len(numbers) or bool(numbers.min() >= _FIRST_SECOND and numbers.max() <= _LAST_SECOND)


_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_FIRST_SECOND: Final = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
_LAST_SECOND: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


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


def _dictionary(values: pa.Array) -> Converted:
    return convert(values.dictionary_decode())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return str(kind).startswith(("binary", "large_binary", "fixed_size_binary", "binary_view"))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_other(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind))


_RULES: Final[tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], Converted]], ...]] = (
    (pa.types.is_null, _null),
    (_is_text, _texts),
    (pa.types.is_dictionary, _dictionary),
    (pa.types.is_boolean, _booleans),
    (pa.types.is_integer, _integers),
    (pa.types.is_floating, _floats),
    (_is_time, _times),
    (_is_bytes, _bytes),
    (_is_other, lambda values: _as_text(values, f"{values.type} as text")),
    (pa.types.is_nested, _nested),
)
"""Which types are turned how; the first rule that fits."""
