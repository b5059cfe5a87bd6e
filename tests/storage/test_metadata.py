"""Metadata of records: one type for each column, decided before a picture is paid for."""

from __future__ import annotations

import enum
import math
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.errors import InputError
from embedstore.storage.metadata import (
    RESERVED,
    Columns,
    column_name,
    equal,
    require_distinct,
    storable_type,
    storable_types,
)


class Colour(enum.StrEnum):
    RED = "red"


def fit(value: Any, schema: pa.Schema | None = None) -> Any:
    return Columns(schema or pa.schema([])).fit({"x": value}, "/a.png").get("x", "left out")


@pytest.mark.parametrize(
    ("given_value", "stored"),
    [
        (True, True),
        (np.bool_(False), False),
        (np.int32(7), 7),
        (np.uint8(255), 255),
        (2**70, float(2**70)),
        (np.float32(0.5), 0.5),
        (Decimal("1.25"), 1.25),
        ("text", "text"),
        (np.str_("text"), "text"),
        (Colour.RED, "red"),
        ("bad \udcff name", "bad \\udcff name"),
        (date(2024, 2, 29), date(2024, 2, 29)),
        (datetime(2024, 2, 29, 12), datetime(2024, 2, 29, 12, tzinfo=UTC)),
        (datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))), datetime(2024, 1, 1, 10, tzinfo=UTC)),
        (pd.Timestamp("2024-01-01 00:00:00.000001"), datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        (None, None),
        (pd.NaT, None),
        (pd.NA, None),
        ([1, 2], "left out"),
        ({"a": 1}, "left out"),
        (b"bytes", "left out"),
    ],
)
def test_values_become_what_a_column_can_hold(given_value: Any, stored: Any) -> None:
    """Each kind of value has one form in the store; lists, structures and bytes are left out."""
    found = fit(given_value)
    assert found == stored
    assert type(found) is type(stored)


@given(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.text(),
        st.dates(),
        st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5))]), min_value=datetime(1700, 1, 1)),
    )
)
def test_what_is_fitted_comes_back_equal(value: Any) -> None:
    """A fitted value that went through an Arrow column is equal to itself, so that adding again changes nothing."""
    columns = Columns(pa.schema([]))
    fitted = columns.fit({"x": value}, "/a.png")
    stored = columns.table([fitted]).column("x")[0].as_py()
    assert equal(stored, fitted["x"])
    assert equal(stored, columns.fit({"x": value}, "/a.png")["x"])


def test_the_stores_type_decides() -> None:
    """Whole numbers fit floats and whole floats fit whole numbers; anything fits text; nothing else fits."""
    schema = pa.schema(
        [
            ("whole", pa.int64()),
            ("real", pa.float64()),
            ("text", pa.string()),
            ("flag", pa.bool_()),
            ("day", pa.date32()),
        ]
    )
    columns = Columns(schema)
    fitted = columns.fit({"whole": 2.0, "real": 3, "text": 4, "flag": None}, "/a.png")
    assert fitted == {"whole": 2, "real": 3.0, "text": "4", "flag": None}
    assert type(fitted["real"]) is float
    texts = [columns.fit({"text": v}, "")["text"] for v in (True, 2.0, 2.5, date(2024, 1, 2))]
    assert texts == ["true", "2", "2.5", "2024-01-02"]
    for name, value in (
        ("whole", 2.5),
        ("whole", "2"),
        ("whole", True),
        ("real", "x"),
        ("flag", 1),
        ("day", "today"),
    ):
        with pytest.raises(InputError, match=rf"/b\.png: column '{name}' holds"):
            columns.fit({name: value}, "/b.png")
    with pytest.raises(InputError):
        columns.fit({"whole": math.nan}, "/b.png")


def test_a_new_column_of_whole_numbers_may_become_floats() -> None:
    """1 and then 2.5 make a column of floats while the column is not in the store; later it stays what it is."""
    columns = Columns(pa.schema([]))
    rows = [columns.fit({"x": value}, "") for value in (1, 2.5, 3)]
    assert columns.table(rows).schema.field("x").type == pa.float64()
    columns = Columns(pa.schema([]))
    row = columns.fit({"x": 1}, "")
    columns.stored(columns.table([row]).schema)
    with pytest.raises(InputError):
        columns.fit({"x": 2.5}, "")


def test_types_outlive_a_fold() -> None:
    """A type that only rows under way have is still held when the store has taken in others."""
    columns = Columns(pa.schema([]))
    under_way = columns.fit({"later": 1}, "")
    columns.stored(pa.schema([("label", pa.string())]))
    with pytest.raises(InputError):
        columns.fit({"later": "text"}, "")
    assert columns.table([under_way]).schema.field("later").type == pa.int64()


def test_names_that_differ_by_case_are_one_column() -> None:
    """Delta knows no case, so ``Label`` goes into ``label``, in the store and within a source."""
    columns = Columns(pa.schema([("label", pa.string())]))
    assert columns.fit({"Label": "x"}, "") == {"label": "x"}
    assert columns.fit({"Size": 1}, "") == {"Size": 1}
    assert columns.fit({"size": 2}, "") == {"Size": 2}


@pytest.mark.parametrize(
    "names", [("Label", "label"), ("my column", "my_column"), ("id", "source_id"), ("a b", "a\tb")]
)
def test_two_columns_that_would_be_one_are_refused(names: tuple[str, str]) -> None:
    """Before a picture is embedded, with both names; in one record or a table's columns."""
    with pytest.raises(InputError, match=f"{names[0]!r} and {names[1]!r}".replace("\\", "\\\\")):
        Columns(pa.schema([])).fit(dict.fromkeys(names, 1), "a.jpg")
    with pytest.raises(InputError, match="rename one of them"):
        require_distinct(["other", *names])


def test_a_column_of_nothing_is_text() -> None:
    """A column that has held nothing so far is stored as text, and rows that lack a column have nothing in it."""
    columns = Columns(pa.schema([]))
    rows = [columns.fit({"x": None}, ""), columns.fit({"y": 1}, "")]
    table = columns.table(rows)
    assert table.to_pylist() == [{"x": None, "y": None}, {"x": None, "y": 1}]
    assert table.schema.field("x").type == pa.string()
    assert columns.table([{}, {}]).num_columns == 0


@given(st.text())
def test_names_are_safe(name: str) -> None:
    """Any name becomes one that is not the store's own, is not empty, and has no character that Delta refuses."""
    safe = column_name(name)
    assert safe
    assert safe.lower() not in RESERVED
    assert not set(safe) & set(" ,;{}()\n\t=\0\r\x1f\x7f\ud800")
    assert not safe.lower().startswith("embedding.")


def test_names_that_would_meet_in_a_part_are_kept_apart_or_refused() -> None:
    """Names within the vectors get the prefix; what a NUL hides is part of the name; what becomes one is refused."""
    assert column_name("embedding.list.element") == "source_embedding.list.element"
    assert column_name("Embedding.x") == "source_Embedding.x"
    assert [column_name(name) for name in ("a", "a\0b", "\0", "a\ud800")] == ["a", "a_b", "_", "a_"]
    require_distinct(["a", "a\0b", "embedding.list.element", "embedding"])
    for two in (["a\0b", "a_b"], ["a\0b", "A b"], ["embedding.x", "source_embedding.x"], ["Embedding", "embedding"]):
        with pytest.raises(InputError, match=re.escape(repr(two[1]))):
            require_distinct(two)


def test_a_moment_beyond_the_calendar_of_utc_is_left_out() -> None:
    """The first hours of year 1 in the east are in no year in UTC."""
    assert fit(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == "left out"


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (pa.int8(), pa.int64()),
        (pa.float16(), pa.float64()),
        (pa.decimal128(9, 2), pa.float64()),
        (pa.large_string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.timestamp("ns"), pa.timestamp("us", tz="UTC")),
        (pa.date64(), pa.date32()),
        (pa.list_(pa.int8()), None),
        (pa.struct([("a", pa.int8())]), None),
        (pa.binary(), None),
        (pa.time64("us"), None),
    ],
)
def test_columns_of_tables_have_a_storable_type_or_none(kind: pa.DataType, stored: pa.DataType | None) -> None:
    """Types of foreign tables become the store's; those without a place are left out."""
    assert storable_type(kind) == stored


def test_a_number_too_large_to_store_is_said() -> None:
    """An unsigned number of 64 bits is an error with the column's name, not Arrow's own."""
    with pytest.raises(InputError, match="'big' holds uint64 that int64 cannot hold"):
        storable_types(pa.table({"big": pa.array([2**64 - 1], pa.uint64())}))
