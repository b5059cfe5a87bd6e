"""A condition as a string -> a pyarrow expression. Parsed as Python is, by `ast`, and never executed.

What is understood:

* columns by name; ```odd name``` or ``col("odd name")`` where a name is no identifier;
* text in quotes, numbers, ``True``, ``False``; dates and times as ISO text, ``added_at >= '2024-05-01'``, UTC
  where no zone is given;
* ``== != < <= > >=``, chained as in ``200 < width <= 400``, between a column and a value or two columns;
* ``in [...]``, ``not in [...]``, ``is None``, ``is not None``; a column of truth values by itself;
* ``and or not``, or ``& | ~`` with parentheses around each comparison;
* text: ``'ca' in label``, ``label.contains('ca')``, ``label.startswith('ca')``, ``label.endswith('at')``, and
  ``label.lower()`` or ``label.upper()`` wherever a column may stand.
"""

from __future__ import annotations

import ast
import difflib
import keyword
import operator
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyarrow as pa

from embedstore.errors import FilterError
from embedstore.filters.values import Operand, as_set, matched

_Join: TypeAlias = "Callable[[pa.compute.Expression, pa.compute.Expression], pa.compute.Expression]"
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`[^`]*`")
_WORDS = {"true": True, "false": False, "null": None, "none": None}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TEXT_TESTS = {"startswith": "starts_with", "endswith": "ends_with", "contains": "match_substring"}
_TEXT_CHANGES = {"lower": "utf8_lower", "upper": "utf8_upper"}


def parse(text: str, columns: Sequence[str]) -> ast.expr:
    """Parse a condition.

    Raises
    ------
    FilterError
        It is empty or no Python expression; the message guesses what was meant.
    """
    if not text.strip():
        raise FilterError("the filter is empty; expected a condition such as \"label == 'cat'\"")
    bare = _QUOTED.sub("''", text)
    if re.search(r"(?<![=!<>])=(?!=)", bare):
        raise FilterError(f"the filter {text!r} has a single =; to compare, write ==")
    source = _QUOTED.sub(_backticks_to_calls, text).strip()
    try:
        return ast.parse(f"(\n{source}\n)", mode="eval").body  # so a filter may have several lines
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        what = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        raise FilterError(f"the filter {text!r} cannot be parsed: {what}{_hint(bare, columns)}") from error


def build(
    tree: ast.expr, columns: Sequence[str], schema: pa.Schema | None = None
) -> tuple[pa.compute.Expression, list[str]]:
    """Turn a parsed condition into an expression.

    Parameters
    ----------
    columns : sequence of str
        The names that may be used.
    schema : pyarrow.Schema, optional
        With it values are fitted to the types of the columns, and checked.

    Returns
    -------
    expression : pyarrow.compute.Expression
    used : list of str
        The columns that it uses, in order of appearance.

    Raises
    ------
    FilterError
        Something in it is not understood, names no column, or does not fit the type of its column.
    """
    builder = _Builder(columns, schema)
    try:
        expression = builder.condition(tree)
    except RecursionError as error:
        raise FilterError("the filter is nested too deeply; use in [...] for many values") from error
    return expression, list(builder.used)


def _backticks_to_calls(found: re.Match[str]) -> str:
    """Write ``col('odd name')`` for a name in backticks; leave text in quotes alone."""
    text = found.group()
    return f"col({text[1:-1]!r})" if text.startswith("`") else text


def _hint(bare: str, columns: Sequence[str]) -> str:
    """Guess from what is outside quotes why a filter does not parse."""
    if re.search(r"\b(AND|OR|NOT|IN|IS|NULL|LIKE|BETWEEN)\b", bare):
        return "; write and, or, not, in, is in lower case, and label.contains('x') for LIKE"
    if "&&" in bare or "||" in bare or re.search(r"!(?!=)", bare):
        return "; write and, or, not"
    if "<>" in bare:
        return "; write != for 'not equal'"
    if "`" in bare:
        return "; a backtick is left open"
    words = set(re.findall(r"\w+", bare))
    reserved = [name for name in columns if name in words and (keyword.iskeyword(name) or name[:1].isdigit())]
    odd = [name for name in columns if not name.isidentifier() and name in bare]
    for name in reserved + odd:
        return f"; write the column in backticks: `{name}`"
    return "; expected a condition such as label == 'cat' and width > 300"


class _Builder:
    """Walks the tree. `condition` returns what is true or false, `operand` what can be compared."""

    def __init__(self, columns: Sequence[str], schema: pa.Schema | None) -> None:
        import pyarrow.compute as pc  # late: only filters need it

        self._pc = pc
        self._columns = list(columns)
        self._schema = schema
        self.used: dict[str, None] = {}

    def condition(self, node: ast.expr) -> pa.compute.Expression:
        """Understand something that is true or false."""
        match node:
            case ast.BoolOp(op=ast.And()):
                return _joined([self.condition(value) for value in node.values], operator.and_)
            case ast.BoolOp(op=ast.Or()):
                return _joined([self.condition(value) for value in node.values], operator.or_)
            case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
                return self.condition(left) & self.condition(right)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self.condition(left) | self.condition(right)
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
                return ~self.condition(operand)
            case ast.Compare():
                return self._comparisons(node)
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in _TEXT_TESTS:
                return self._text_test(value, name, node)
        column = self.operand(node)
        if not column.is_column:
            raise self._refused(
                node, "is a value, not a condition; to allow several, write label in ['cat', 'dog']"
            )
        return column.as_condition()

    def operand(self, node: ast.expr) -> Operand:
        """Understand a column or a value."""
        match node:
            case ast.Name(id=name) if name in self._columns or name.lower() not in _WORDS:
                return self._column(name)
            case ast.Name(id=name):
                return Operand(_WORDS[name.lower()])
            case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str(name))], keywords=[]):
                return self._column(name)
            case ast.Call(func=ast.Attribute(value=value, attr=name), args=[], keywords=[]) if (
                name in _TEXT_CHANGES
            ):
                return self.operand(value).changed(getattr(self._pc, _TEXT_CHANGES[name]))
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return Operand(value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return Operand(-value)
            case ast.UnaryOp(op=ast.UAdd(), operand=ast.Constant(value=int() | float() as value)):
                return Operand(value)
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()):
                raise self._refused(
                    node, "stands between & or | without parentheses: (label == 'cat') & (width > 300)"
                )
            case ast.Compare() | ast.BoolOp():
                raise self._refused(node, "is a condition, and cannot be compared")
        raise self._refused(
            node, "is not understood; a filter compares columns with values, and calculates nothing"
        )

    def _column(self, name: str) -> Operand:
        """Find a column, or say which there are."""
        if name not in self._columns:
            near = difflib.get_close_matches(name, self._columns, n=1)
            raise FilterError(
                f"there is no column {name!r} to filter by"
                + (f"; did you mean {near[0]!r}?" if near else "")
                + (f" Columns: {', '.join(self._columns)}" if near else f"; found {', '.join(self._columns)}")
            )
        self.used[name] = None
        kind = None if self._schema is None else self._schema.field(name).type
        return Operand(None, self._pc.field(name), name, kind)

    def _comparisons(self, node: ast.Compare) -> pa.compute.Expression:
        """Understand one comparison, or a chain of them."""
        operands = [node.left, *node.comparators]
        steps = zip(operands[:-1], node.ops, operands[1:], strict=True)
        return _joined([self._comparison(node, *step) for step in steps], operator.and_)

    def _comparison(
        self, node: ast.Compare, left: ast.expr, sign: ast.cmpop, right: ast.expr
    ) -> pa.compute.Expression:
        """Understand one comparison."""
        if isinstance(sign, (ast.In, ast.NotIn)):
            inside = self._membership(node, left, right)
            return ~inside if isinstance(sign, ast.NotIn) else inside
        one, other = self.operand(left), self.operand(right)
        if isinstance(sign, (ast.Is, ast.IsNot)):
            if not one.is_column or other.is_column or other.value is not None:
                raise self._refused(node, "uses 'is', which only goes with None; to compare, write ==")
            return one.expression.is_null() if isinstance(sign, ast.Is) else one.expression.is_valid()
        how = _COMPARISONS[type(sign)]
        if not one.is_column:
            one, other, how = other, one, _MIRRORED[how]
        if not one.is_column:
            raise self._refused(
                node, "compares two values; one side must be a column, and text goes in quotes"
            )
        if not other.is_column and other.value is None:
            raise self._refused(node, f"compares with None, which is never true; write {one.name} is None")
        return one.compared(how, other)

    def _membership(self, node: ast.Compare, left: ast.expr, right: ast.expr) -> pa.compute.Expression:
        """Understand ``column in [values]`` and ``'text' in column``."""
        if isinstance(right, (ast.List, ast.Tuple, ast.Set)):
            values = [self.operand(item) for item in right.elts]
            column = self.operand(left)
            if not column.is_column or any(value.is_column for value in values):
                raise self._refused(node, "is not understood; write column in ['value', 'value']")
            return as_set(column, [value.value for value in values])
        text, column = self.operand(left), self.operand(right)
        if not column.is_column or text.is_column or not isinstance(text.value, str):
            raise self._refused(
                node, "is not understood; write column in ['a', 'b'], or 'part of text' in column"
            )
        return matched(column, "match_substring", text.value)

    def _text_test(self, value: ast.expr, name: str, call: ast.Call) -> pa.compute.Expression:
        """Understand ``column.startswith('text')`` and its kin."""
        column = self.operand(value)
        match call:
            case ast.Call(args=[ast.Constant(value=str(text))], keywords=[]) if column.is_column:
                return matched(column, _TEXT_TESTS[name], text)
        raise self._refused(call, f"is not understood; write column.{name}('text')")

    def _refused(self, node: ast.AST, reason: str) -> FilterError:
        """Return the error that refuses a part of the filter, quoting it."""
        return FilterError(f"in the filter, {_shown(node)} {reason}")


def _joined(parts: list[pa.compute.Expression], join: _Join) -> pa.compute.Expression:
    """Join conditions as a balanced tree, so that thousands of them do not nest too deeply."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [join(left, right) for left, right in pairs] + parts[len(parts) // 2 * 2 :]
    return parts[0]


def _shown(node: ast.AST) -> str:
    """Return a piece of the filter for a message."""
    text = ast.unparse(node)
    return text if len(text) <= 80 else text[:77] + "..."
