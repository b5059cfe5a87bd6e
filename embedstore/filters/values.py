"""A column and a value -> one comparison, with the value fitted to the column's type, or an error that says
why not.

Null never matches: a comparison with null is null, and so is its ``not``.
"""

from __future__ import annotations

import datetime
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from embedstore.errors import FilterError

_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Operand:
    """A column, or a value.

    Attributes
    ----------
    value : bool, int, float, str or None
        The value; unused for a column.
    expression : pyarrow.compute.Expression or None
        The column.
    name : str
        The column's name.
    kind : pyarrow.DataType or None
        The column's type, where it is known.
    """

    value: Any
    expression: Any = None
    name: str = ""
    kind: pa.DataType | None = None

    @property
    def is_column(self) -> bool:
        """Whether this is a column."""
        return self.expression is not None

    def changed(self, function: Callable[[Any], Any]) -> Operand:
        """Return this column with a function of text applied."""
        if not self.is_column:
            raise FilterError(f"lower() and upper() go with columns, not with {self.value!r}")
        self._require("text")
        return replace(self, expression=function(self.expression))

    def as_condition(self) -> Any:
        """Return a column of truth values as a condition."""
        self._require("true or false")
        return self.expression

    def compared(self, sign: str, other: Operand) -> Any:
        """Return the comparison of this column with a value or another column."""
        if other.is_column:
            if self.kind is not None and other.kind is not None and _group(self.kind) != _group(other.kind):
                raise FilterError(
                    f"column {self.name!r} is {_told(self.kind)} and column {other.name!r} is {_told(other.kind)}: "
                    "they cannot be compared"
                )
            return _SIGNS[sign](self.expression, other.expression)
        return _SIGNS[sign](self.expression, _scalar(fitted(self, other.value)))

    def _require(self, group: str) -> None:
        """Refuse a column of another group of types."""
        if self.kind is not None and _group(self.kind) not in (group, "nothing"):
            raise FilterError(
                f"column {self.name!r} is {_told(self.kind)}; expected a column that is {group}"
            )


def as_set(column: Operand, values: list[Any]) -> Any:
    """Return ``column in values``; None among the values means "or missing"."""
    import pyarrow.compute as pc  # late: only filters need it

    present = [fitted(column, value) for value in values if value is not None]
    try:
        expression, wanted = _set_of(column, present)
    except (pa.ArrowException, OverflowError) as error:
        raise FilterError(
            f"the values for column {column.name!r} are not all text, all numbers or all of its type: {error}"
        ) from error
    inside = pc.if_else(column.expression.is_valid(), expression.isin(wanted), pa.scalar(None, pa.bool_()))
    return inside | column.expression.is_null() if len(present) < len(values) else inside


def _set_of(column: Operand, values: list[Any]) -> tuple[Any, pa.Array]:
    """Return column and values in one type, as pyarrow's membership test demands."""
    kind = column.kind
    if kind is None:
        return column.expression, pa.array(values)
    if pa.types.is_null(kind):
        return column.expression, pa.nulls(0)
    if _group(kind) == "a number":
        whole = pa.types.is_integer(kind) and all(isinstance(value, int) for value in values)
        common = pa.int64() if whole and kind != pa.uint64() else kind if whole else pa.float64()
        return column.expression.cast(common), pa.array(values, common)
    if _group(kind) == "text":
        return column.expression.cast(pa.string()), pa.array(values, pa.string())
    return column.expression, pa.array(values, kind)


def matched(column: Operand, function: str, text: str) -> Any:
    """Return a test of a part of a column's text."""
    import pyarrow.compute as pc  # late: only filters need it

    column._require("text")
    return getattr(pc, function)(column.expression, text)


def fitted(column: Operand, value: Any) -> Any:
    """Return a value in the type of its column.

    Raises
    ------
    FilterError
        They are of different kinds, or a text is no date.
    """
    kind = column.kind
    if kind is None or pa.types.is_null(kind):
        return value
    group = _group(kind)
    if group == "a time" and isinstance(value, str):
        return _moment(column.name, kind, value)
    of_value = (
        "true or false" if isinstance(value, bool) else "text" if isinstance(value, str) else "a number"
    )
    if of_value != group:
        hints = {"text": f"; write it in quotes: '{value}'", "a number": "; leave out the quotes"}
        hint = hints.get(group, "; write True or False" if group == "true or false" else "")
        raise FilterError(f"column {column.name!r} is {_told(kind)}, and {value!r} is {of_value}{hint}")
    return value


def _moment(name: str, kind: pa.DataType, text: str) -> datetime.date | datetime.datetime:
    """Read ISO text as a date or time of the column's kind."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise FilterError(
            f"column {name!r} is {_told(kind)}, and {text!r} is no time; "
            "write '2024-05-31' or '2024-05-31T18:00:00'"
        ) from error
    if pa.types.is_date(kind):
        return moment.date() if moment.time() == datetime.time() else moment.replace(tzinfo=None)
    if moment.tzinfo is None:
        return moment.replace(tzinfo=datetime.UTC) if kind.tz else moment
    return moment if kind.tz else moment.astimezone(datetime.UTC).replace(tzinfo=None)


def _scalar(value: Any) -> pa.Scalar:
    """Wrap a value for pyarrow."""
    try:
        return pa.scalar(value)
    except (pa.ArrowException, OverflowError) as error:
        raise FilterError(f"the value {value!r} is out of range: {error}") from error


def _group(kind: pa.DataType) -> str:
    """Return the group of types that can be compared with each other."""
    types = pa.types
    if types.is_dictionary(kind):
        return _group(kind.value_type)
    if types.is_null(kind):
        return "nothing"
    if types.is_boolean(kind):
        return "true or false"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "a number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_date(kind) or types.is_timestamp(kind):
        return "a time"
    return f"of type {kind}"


def _told(kind: pa.DataType) -> str:
    """Return a type for a message."""
    group = _group(kind)
    return group if group.startswith("of type") else f"{group} ({kind})"
