"""Conditions as people type them choose the rows that they say, or are refused with a way forward."""

from __future__ import annotations

import contextlib
import datetime
import doctest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.errors import FilterError
from embedstore.filters import parse_where
from embedstore.filters import where as where_module

UTC = datetime.UTC
TABLE = pa.table(
    {
        "label": ["cat", "dog", None, "Cat", "ca't"],
        "width": pa.array([100, 200, 300, None, -400], pa.int32()),
        "score": pa.array([0.5, None, -1.5, float("nan"), 2.0]),
        "good": [True, False, None, True, False],
        "day": pa.array([datetime.date(2024, 1, day) for day in range(1, 6)]),
        "added_at": pa.array(
            [datetime.datetime(2024, 1, day, 12, tzinfo=UTC) for day in range(1, 6)],
            pa.timestamp("us", "UTC"),
        ),
        "local": pa.array([datetime.datetime(2024, 1, day, 12) for day in range(1, 6)], pa.timestamp("ms")),
        "odd name": [1, 2, 3, 4, 5],
        "class": ["a", "b", "c", "d", "e"],
        "height": pa.array([150, 150, 150, 150, 150], pa.int64()),
        "kind": pa.array(["x", "y", "x", None, "y"]).dictionary_encode(),
        "empty": pa.nulls(5),
    }
)


def rows(where: Any) -> list[int]:
    parsed = parse_where(where, TABLE.column_names)
    assert parsed is not None
    mask = parsed.mask(TABLE.select(list(parsed.columns)))
    assert mask.dtype == np.bool_
    assert mask.shape == (5,)
    return [int(row) for row in np.flatnonzero(mask)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("label == 'cat'", [0]),
        ('label == "ca\'t"', [4]),
        ("'cat' == label", [0]),
        ("label != 'cat'", [1, 3, 4]),
        ("not label == 'cat'", [1, 3, 4]),
        ("label in ['cat', 'dog']", [0, 1]),
        ("label in ('cat',)", [0]),
        ("label not in ['cat', 'dog']", [3, 4]),
        ("label in ['cat', None]", [0, 2]),
        ("label not in ['cat', None]", [1, 3, 4]),
        ("label in []", []),
        ("label is None", [2]),
        ("label is null", [2]),
        ("label is not None", [0, 1, 3, 4]),
        ("'a' in label", [0, 3, 4]),
        ("'a' not in label", [1]),
        ("label.contains('og')", [1]),
        ("label.startswith('ca')", [0, 4]),
        ("label.endswith('t') and not label.startswith('C')", [0, 4]),
        ("label.lower() == 'cat'", [0, 3]),
        ("label.upper().startswith('CA')", [0, 3, 4]),
        ("label.lower() in ['cat']", [0, 3]),
        ("width > 100", [1, 2]),
        ("width > 99.5", [0, 1, 2]),
        ("width == -400", [4]),
        ("width < +150 and width > - 500", [0, 4]),
        ("100 <= width < 300", [0, 1]),
        ("300 > width > 100", [1]),
        ("width in [100, 300.0]", [0, 2]),
        ("width in [100, 300]", [0, 2]),
        ("width > height", [1, 2]),
        ("score > -2", [0, 2, 4]),
        ("score != 0.5", [2, 3, 4]),
        ("good", [0, 3]),
        ("not good", [1, 4]),
        ("good == False", [1, 4]),
        ("good == true", [0, 3]),
        ("good in [False]", [1, 4]),
        ("good or width > 250", [0, 2, 3]),
        ("(label == 'cat') | (width == 200) & ~good", [0, 1]),
        ("day >= '2024-01-04'", [3, 4]),
        ("day in ['2024-01-02']", [1]),
        ("added_at < '2024-01-02'", [0]),
        ("added_at < '2024-01-02T12:00:00'", [0]),
        ("added_at <= '2024-01-02T14:00:00+02:00'", [0, 1]),
        ("added_at > '2024-01-04T12:00:00Z'", [4]),
        ("local == '2024-01-03 12:00'", [2]),
        ("local == '2024-01-03T14:00+02:00'", [2]),
        ("`odd name` > 3", [3, 4]),
        ("col('odd name') > 3 and label == '`x'", []),
        ("`class` == 'b'", [1]),
        ("kind == 'x'", [0, 2]),
        ("kind in ['y']", [1, 4]),
        ("empty == 'x'", []),
        ("empty in ['x', 'y']", []),
        ("empty is None and width == 100", [0]),
        ("  width\n> 100  and\n label == 'dog'", [1]),
        (pc.field("width") > 100, [1, 2]),
        (pc.field("label").is_null(), [2]),
    ],
)
def test_conditions(where: Any, expected: list[int]) -> None:
    """Each form of condition chooses exactly these rows; rows without the value match neither it nor its not."""
    assert rows(where) == expected


def test_example_in_the_documentation() -> None:
    """The example of parse_where gives what it says."""
    assert doctest.testmod(where_module).failed == 0
    assert doctest.testmod(where_module).attempted > 0


def test_no_condition() -> None:
    """None stands for no condition, and a parsed one is passed through."""
    assert parse_where(None, ["a"]) is None
    parsed = parse_where("a > 1", ["a"])
    assert parse_where(parsed, ["a"]) is parsed


def test_columns_are_those_that_are_used() -> None:
    """The columns are named once each, in order of appearance; a ready expression needs all."""
    names = TABLE.column_names
    where = parse_where("width > 3 and (label == 'x' or width < 2) and `odd name` in [1]", names)
    assert where is not None
    assert where.columns == ("width", "label", "odd name")
    ready = parse_where(pc.field("width") > 1, names)
    assert ready is not None
    assert ready.columns == tuple(names)


def test_expression_is_pyarrows_own() -> None:
    """The expression filters a pyarrow table to the same rows as the mask."""
    where = parse_where("label in ['cat', 'dog'] and 50 < width <= 200", TABLE.column_names)
    assert where is not None
    assert isinstance(where.expression, pc.Expression)
    assert TABLE.filter(where.expression).equals(TABLE.filter(pa.array(where.mask(TABLE))))


def test_empty_chunked_and_sliced_tables() -> None:
    """No rows give an empty mask; many chunks keep the order of rows."""
    where = parse_where("width >= 200", ["width"])
    assert where is not None
    assert where.mask(TABLE.slice(0, 0)).shape == (0,)
    chunks = pa.concat_tables([TABLE.slice(row, 1) for row in range(5)] * 100)
    np.testing.assert_array_equal(where.mask(chunks), np.tile([False, True, True, False, False], 100))
    assert where.mask(TABLE.slice(1, 2)).tolist() == [True, True]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "empty"),
        ("lable == 'cat'", r"no column 'lable'.*did you mean 'label'.*width"),
        ("zebra == 1", r"no column 'zebra'.*found label, width"),
        ("col('no such') == 1", "no column 'no such'"),
        ("label = 'cat'", "single =; to compare, write =="),
        ("width > 3 and label = 'a==b'", "single ="),
        ("label == 'cat' AND width > 3", "lower case"),
        ("label LIKE 'c%'", "contains"),
        ("label == 'cat' && good", "write and, or, not"),
        ("!good", "write and, or, not"),
        ("width <> 3", "write !="),
        ("`odd name > 3", "backtick"),
        ("class == 'a'", "in backticks: `class`"),
        ("odd name > 3", "in backticks: `odd name`"),
        ("width >", "cannot be parsed"),
        ("label == None", "label is None"),
        ("None != label", "label is None"),
        ("label is 'cat'", "write =="),
        ("label == 'cat' or 'dog'", r"label in \['cat', 'dog'\]"),
        ("label == cat", "no column 'cat'"),
        ("1 < 2", "one side must be a column"),
        ("True", "a value, not a condition"),
        ("label == 'cat' & width > 3", "parentheses"),
        ("width * 2 > 3", "calculates nothing"),
        ("(width > 3) > 2", "cannot be compared"),
        ("label in 'cat'", "write column in"),
        ("label in ['cat', 3]", "not all text"),
        ("label in [width]", "write column in"),
        ("3 in width", "write column in"),
        ("label.startswith(width)", r"column.startswith\('text'\)"),
        ("label.startswith('a', 'b')", r"column.startswith\('text'\)"),
        ("'a'.startswith('a')", r"column.startswith\('text'\)"),
        ("'a'.lower() == label", "go with columns"),
        ("label == b'cat'", "not understood"),
        ("label == f'{width}'", "not understood"),
        ("label[0] == 'c'", "not understood"),
        ("label.__class__ == 'c'", "not understood"),
        ("__import__('os').system('true')", "not understood"),
        ("(lambda: 1)() == width", "not understood"),
        ("[x for x in label] == 1", "not understood"),
        ("(width := 3) > 2", "single ="),
        ("not " * 5000 + "good", "nested too deeply|cannot be parsed"),
        ("(" * 500 + "good" + ")" * 500, "cannot be parsed"),
        ("width == 99999999999999999999999", "out of range"),
        (7, "not int"),
    ],
)
def test_refused(where: Any, message: str) -> None:
    """What is no condition is refused when it is parsed, with what was meant; nothing is ever executed."""
    with pytest.raises(FilterError, match=message):
        parse_where(where, TABLE.column_names)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("label > 3", r"'label' is text \(string\), and 3 is a number; write it in quotes: '3'"),
        ("label in [3, 4]", "write it in quotes"),
        ("width == '3'", "leave out the quotes"),
        ("good == 1", "write True or False"),
        ("good == 'yes'", "write True or False"),
        ("width == True", "'width' is a number"),
        ("label", "expected a column that is true or false"),
        ("width.startswith('1')", "expected a column that is text"),
        ("width.lower() == 'a'", "expected a column that is text"),
        ("'a' in width", "expected a column that is text"),
        ("label > width", "cannot be compared"),
        ("added_at > 'yesterday'", "is no time; write '2024-05-31'"),
        ("added_at > 2024", "'added_at' is a time"),
        (pc.field("label") > 3, "does not fit"),
        (pc.field("nope") > 3, "does not fit"),
        (pc.field("width"), "does not fit"),
    ],
)
def test_types_that_do_not_fit(where: Any, message: str) -> None:
    """A value of another type than its column is refused with both types and what to write."""
    with pytest.raises(FilterError, match=message):
        rows(where)


@pytest.mark.parametrize("number", [1000, 20_000])
def test_many_values_and_many_conditions(number: int) -> None:
    """Thousands of values in a list, and of conditions in a row, are no trouble."""
    many = ", ".join(f"'x{value}'" for value in range(number))
    assert rows(f"label in [{many}, 'cat']") == [0]
    alternatives = " or ".join(["label == 'dog'"] * (number // 10))
    assert rows(alternatives) == [1]


# Against Python itself, row by row. Three truth values: True, False, None for "not known".

Row = dict[str, Any]
VALUES = {
    "n": st.none() | st.integers(-3, 3),
    "x": st.none() | st.sampled_from([-1.5, 0.0, 1.0, 2.5, float("nan")]),
    "s": st.none() | st.text("ab'\"\\ ", max_size=3),
    "b": st.none() | st.booleans(),
}
TYPES = {"n": pa.int64(), "x": pa.float64(), "s": pa.string(), "b": pa.bool_()}
COMPARE = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
Condition = tuple[str, Any]  # the text, and a function of a row


def compare(sign: str, a: Any, b: Any) -> bool | None:
    return None if a is None or b is None else bool(COMPARE[sign](a, b))


def negated(value: bool | None) -> bool | None:
    return None if value is None else not value


def both(a: bool | None, b: bool | None) -> bool | None:
    return False if a is False or b is False else None if a is None or b is None else True


def either(a: bool | None, b: bool | None) -> bool | None:
    return negated(both(negated(a), negated(b)))


@st.composite
def simple(draw: st.DrawFn) -> Condition:
    name = draw(st.sampled_from(["n", "x", "s"]))
    literal = {"n": st.integers(-4, 4), "x": st.sampled_from([-1.5, 0, 1, 0.25]), "s": st.text("ab'\"\\ ")}[
        name
    ]
    form = draw(
        st.sampled_from(["plain", "mirrored", "chain", "in", "not in", "null", "bare", "text", "columns"])
    )
    a, b = draw(literal), draw(literal)
    sign, other = draw(st.sampled_from(list(COMPARE))), draw(st.sampled_from(list(COMPARE)))
    if form == "plain":
        return f"{name} {sign} {a!r}", lambda row: compare(sign, row[name], a)
    if form == "mirrored":
        return f"{a!r} {sign} {name}", lambda row: compare(sign, a, row[name])
    if form == "chain":
        return (
            f"{a!r} {sign} {name} {other} {b!r}",
            lambda row: both(compare(sign, a, row[name]), compare(other, row[name], b)),
        )
    if form == "in":
        return f"{name} in [{a!r}, {b!r}]", lambda row: None if row[name] is None else row[name] in (a, b)
    if form == "not in":
        return f"{name} not in [{a!r}]", lambda row: None if row[name] is None else row[name] != a
    if form == "null":
        return f"{name} is None", lambda row: row[name] is None
    if form == "bare":
        return "b", lambda row: row["b"]
    if form == "columns":
        return f"n {sign} x", lambda row: compare(sign, row["n"], row["x"])
    text = draw(st.text("ab'\"\\", min_size=1, max_size=2))
    ways: list[Condition] = [
        (f"{text!r} in s", lambda row: None if row["s"] is None else text in row["s"]),
        (f"s.startswith({text!r})", lambda row: None if row["s"] is None else row["s"].startswith(text)),
        (f"s.endswith({text!r})", lambda row: None if row["s"] is None else row["s"].endswith(text)),
    ]
    return draw(st.sampled_from(ways))


def combined(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map(lambda p: (f"({p[0][0]}) and {p[1][0]}", lambda row: both(p[0][1](row), p[1][1](row)))),
        pairs.map(lambda p: (f"({p[0][0]} or {p[1][0]})", lambda row: either(p[0][1](row), p[1][1](row)))),
        pairs.map(lambda p: (f"(({p[0][0]}) & ({p[1][0]}))", lambda row: both(p[0][1](row), p[1][1](row)))),
        inner.map(lambda c: (f"not ({c[0]})", lambda row: negated(c[1](row)))),
        inner.map(lambda c: (f"~({c[0]})", lambda row: negated(c[1](row)))),
    )


def parenthesised(condition: Condition) -> Condition:
    return f"({condition[0]})", condition[1]


CONDITIONS = st.recursive(
    simple().map(parenthesised), lambda inner: combined(inner).map(parenthesised), max_leaves=6
)


@given(st.lists(st.fixed_dictionaries(VALUES), max_size=8), CONDITIONS)
def test_mask_equals_python_row_by_row(data: list[Row], condition: Condition) -> None:
    """For any rows and any condition the mask is what Python says of each row, null being "not known"."""
    text, expected = condition
    table = pa.table({name: pa.array([row[name] for row in data], kind) for name, kind in TYPES.items()})
    where = parse_where(text, table.column_names)
    assert where is not None
    assert where.mask(table).tolist() == [expected(row) is True for row in data]


@given(st.text("abns()[]'\"`=<>!&|~., 0123456789_inotrd", max_size=30))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """No text raises anything but FilterError."""
    table = pa.table({name: pa.nulls(2, kind) for name, kind in TYPES.items()})
    with contextlib.suppress(FilterError):
        where = parse_where(text, table.column_names)
        assert where is not None
        assert where.mask(table).shape == (2,)
