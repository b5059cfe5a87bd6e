"""What becomes of values and columns that Atlas does not take as they are, on paper and through the client."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from atlas_stores import unit_vectors, vector_store
from hypothesis import given
from hypothesis import strategies as st

from embedstore.atlas import apply_sync, plan_sync
from embedstore.atlas.columns import (
    UnsendableError,
    atlas_ids,
    atlas_rows,
    convert,
    convert_to,
    safe_names,
)
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

DAY = dt.datetime(2024, 5, 6, 7, 8, 9, 123456)
IDS = [f"{row:032x}" for row in range(4)]
AWKWARD: dict[str, pa.Array] = {
    "bool": pa.array([True, False, None, True]),
    "int8": pa.array([1, -1, None, 127], pa.int8()),
    "int64 small": pa.array([1, 2, 3, -(2**31)]),
    "int64 beyond": pa.array([1, 3_000_000_000, None, -(2**63)]),
    "uint32": pa.array([0, 2**32 - 1, 1, 2], pa.uint32()),
    "uint64": pa.array([0, 2**64 - 1, 1, 2], pa.uint64()),
    "half": pa.array(np.array([1, 0.5, -2, 65504], np.float16)),
    "float": pa.array([0.1, None, -0.0, 1e30], pa.float32()),
    "double": pa.array([0.1, 1 / 3, None, 1e-300]),
    "double nan": pa.array([float("nan"), 1.0, 2.0, 3.0]),
    "double huge": pa.array([1e300, 1.0, None, -1.5]),
    "double infinite": pa.array([float("inf"), 1.0, 2.0, 3.0]),
    "decimal": pa.array([Decimal("1.10"), None, Decimal("-3.00"), Decimal("0.01")]),
    "text": pa.array(["a", "", None, "null"]),
    "large text": pa.array(["ä", "日本", None, "x" * 5000], pa.large_string()),
    "text view": pa.array(["a", "b", None, ""], pa.string_view()),
    "category": pa.array(["a", "b", "a", None]).dictionary_encode(),
    "category of numbers": pa.array([5, 6, 5, 2**40]).dictionary_encode(),
    "no text at all": pa.array([None] * 4, pa.string()),
    "nothing": pa.nulls(4),
    "date": pa.array([dt.date(1969, 12, 31), dt.date(2024, 2, 29), None, dt.date(1, 1, 1)]),
    "date64": pa.array([dt.date(1969, 12, 31), dt.date(2024, 2, 29), None, dt.date(1, 1, 1)], pa.date64()),
    "time stamp": pa.array([DAY, None, DAY, DAY.replace(microsecond=0)]),
    "time stamp utc": pa.array([DAY, None, DAY, DAY], pa.timestamp("us", tz="UTC")),
    "time stamp zone": pa.array([DAY, None, DAY, DAY], pa.timestamp("ns", tz="Europe/Berlin")),
    "time stamp far": pa.array([2**60, 0, None, 1], pa.timestamp("s")),
    "time": pa.array([dt.time(1, 2, 3, 4), None, dt.time(0), dt.time(23, 59)]),
    "duration": pa.array([dt.timedelta(seconds=1.5), None, dt.timedelta(0), dt.timedelta(days=-1)]),
    "bytes": pa.array([b"a", b"", None, b"\xff"]),
    "fixed bytes": pa.array([b"ab", b"cd", None, b"\xff\x00"], pa.binary(2)),
    "list": pa.array([[1, 2], [], None, [3]]),
    "list of bytes": pa.array([[b"a"], [], None, [b"b"]]),
    "structure": pa.array([{"x": 1, "when": DAY}, {"x": None, "when": None}, None, {"x": 2, "when": DAY}]),
    "_private": pa.array(["a", "b", "c", "d"]),
    "Text": pa.array([1, 2, 3, 4]),
    "x": pa.array([1.5, 2.5, 3.5, 4.5]),
    "Id": pa.array([9, 8, 7, 6]),
}
UNSENT = {"nothing", "bytes", "fixed bytes", "list of bytes"}


def test_there_are_thirty_seven() -> None:
    """The table of awkward columns has 37."""
    assert len(AWKWARD) == 37


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The 37 columns, made safe, sent through the client, and as the server then has them."""
    from embedstore.atlas.answers import AtlasTransport
    from embedstore.atlas.client import open_dataset

    made = atlas_rows(pa.table({"id": IDS, **AWKWARD}))
    with NomicServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment(tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
        transport = AtlasTransport(None, 20.0)
        remote = open_dataset(transport, "stand-in/awkward", create={"description": "", "is_public": False})
        remote.add(made.table, unit_vectors(4, 8).astype(np.float16))
        answered = remote.refresh().rows_of(IDS)
        return made, server.atlas.dataset("awkward").rows, answered


def test_each_column_goes_or_is_named(sent: Any) -> None:
    """Each of 37 awkward columns arrives, or is named with the reason."""
    made, rows, _ = sent
    assert set(made.unsent) == UNSENT
    assert all(made.unsent.values())
    assert made.problems == []
    assert len(rows.column_names) == 37 - len(UNSENT) + 2  # the ids and the vectors
    assert rows.select(made.table.column_names).equals(made.table)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bool", ["true", "false", "null", "true"]),
        ("int8", [1, -1, None, 127]),
        ("int64 small", [1, 2, 3, -(2**31)]),
        ("int64 beyond", ["1", "3000000000", "null", str(-(2**63))]),
        ("uint32", ["0", "4294967295", "1", "2"]),
        ("uint64", ["0", str(2**64 - 1), "1", "2"]),
        ("half", [1, 0.5, -2, 65504]),
        ("float", [float(np.float32(0.1)), None, 0.0, float(np.float32(1e30))]),
        ("double", [float(np.float32(0.1)), float(np.float32(1 / 3)), None, 0.0]),
        ("double nan", [None, 1, 2, 3]),
        ("double huge", ["1e+300", "1.0", "null", "-1.5"]),
        ("double infinite", ["inf", "1.0", "2.0", "3.0"]),
        ("decimal", ["1.10", "null", "-3.00", "0.01"]),
        ("text", ["a", '""', "null", "\\null"]),
        ("large text", ["ä", "日本", "null", "x" * 5000]),
        ("text view", ["a", "b", "null", '""']),
        ("category", ["a", "b", "a", "null"]),
        ("category of numbers", ["5", "6", "5", str(2**40)]),
        ("no text at all", ["null"] * 4),
        ("date", [dt.datetime(1969, 12, 31), dt.datetime(2024, 2, 29), None, dt.datetime(1, 1, 1)]),
        ("date64", [dt.datetime(1969, 12, 31), dt.datetime(2024, 2, 29), None, dt.datetime(1, 1, 1)]),
        (
            "time stamp",
            [
                DAY.replace(microsecond=123000),
                None,
                DAY.replace(microsecond=123000),
                DAY.replace(microsecond=0),
            ],
        ),
        ("time", ["01:02:03.000004", "null", "00:00:00", "23:59:00"]),
        ("duration", ["0:00:01.500000", "null", "0:00:00", "-1 day, 0:00:00"]),
        ("list", ["[1, 2]", "[]", "null", "[3]"]),
        (
            "structure",
            [
                json.dumps({"x": 1, "when": DAY.isoformat()}),
                '{"x": null, "when": null}',
                "null",
                json.dumps({"x": 2, "when": DAY.isoformat()}),
            ],
        ),
        ("private", ["a", "b", "c", "d"]),
        ("Text_2", [1, 2, 3, 4]),
        ("x_value", [1.5, 2.5, 3.5, 4.5]),
        ("Id_2", [9, 8, 7, 6]),
    ],
)
def test_values_there(sent: Any, name: str, expected: list[Any]) -> None:
    """The server holds these values for each column."""
    assert sent[1].column(name).to_pylist() == expected


def test_times_of_a_zone_are_utc(sent: Any) -> None:
    """A time of a zone arrives as UTC, cut to milliseconds."""
    stored = AWKWARD["time stamp zone"].cast(pa.timestamp("ms", tz="UTC"), safe=False)
    assert sent[1].column("time stamp zone").to_pylist() == [
        None if value is None else value.replace(tzinfo=None) for value in stored.to_pylist()
    ]
    assert sent[1].column("time stamp far").type == pa.string()


def test_what_is_changed_is_said(sent: Any) -> None:
    """A change is noted for each column whose values or name are not kept, and for no other."""
    made = sent[0]
    kept = {"int8", "int64 small", "half", "float", "date", "date64"}
    assert set(AWKWARD) - UNSENT - kept == set(made.changes)
    assert made.changes["text"] == [
        '1 missing texts as "null"',
        '1 empty texts as ""',
        '1 texts null or "" with a backslash before them',
    ]
    assert made.changes["_private"] == ["named 'private'"]


def test_no_difference_after_the_way_there(sent: Any) -> None:
    """Rows as the server answers them count as equal to what was sent."""
    from embedstore.atlas.compare import differences

    made, _, answered = sent
    assert len(answered) == 4
    assert differences(IDS, made.table, answered) == {}


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1))
def test_no_whole_number_is_changed(values: list[int | None]) -> None:
    """Whole numbers arrive as they are: as numbers where all fit into 32 bit, else as their digits."""
    found = convert(pa.array(values, pa.int64())).values
    if all(value is None or -(2**31) <= value < 2**31 for value in values):
        assert found.type == pa.int32()
        assert found.to_pylist() == values
    else:
        assert [None if text == "null" else int(text) for text in found.to_pylist()] == values


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_no_float_is_lost(values: list[float]) -> None:
    """Floats arrive within the error that is said, or to the bit as text."""
    found = convert(pa.array(values, pa.float64()))
    if found.values.type == pa.string():
        assert [float(text) for text in found.values.to_pylist()] == values
    else:
        assert found.values.to_pylist() == np.array(values, np.float32).tolist()


@given(st.lists(st.text(max_size=3), max_size=8, unique=True))
def test_names_differ_whatever_their_case(names: list[str]) -> None:
    """Safe names are one for each name, none starts with an underscore, and no two differ in case only."""
    safe = safe_names(names, taken=["id"])
    assert list(safe) == names
    lower = [name.lower() for name in safe.values()]
    assert len(set(lower)) == len(lower)
    assert "id" not in lower
    assert not any(name.startswith("_") for name in safe.values())
    assert all(safe.values())


def test_long_ids() -> None:
    """Ids of more than 36 characters become 32 hex digits of their SHA-256; the long one goes along."""
    import hashlib

    long, short = "s" * 37, "t" * 36
    made = atlas_rows(pa.table({"id": [long, short]}))
    assert made.ids == [hashlib.sha256(long.encode()).hexdigest()[:32], short]
    assert made.table.column("stored_id").to_pylist() == [long, short]
    assert "36 characters" in made.changes["id"][0]
    assert atlas_ids([short]) == [short]


def test_into_a_column_that_is_there() -> None:
    """Into a dataset's column values go if they fit in without loss, and are refused otherwise."""
    assert convert_to(pa.array([1, 2]), pa.string()).values.to_pylist() == ["1", "2"]
    assert convert_to(pa.array([1, 2]), pa.float32()).values.to_pylist() == [1.0, 2.0]
    assert convert_to(pa.nulls(2), pa.int32()).values.to_pylist() == [None, None]
    assert convert_to(pa.nulls(2), pa.string()).values.to_pylist() == ["null", "null"]
    for values, wanted in (
        ([2**24 + 1], pa.float32()),
        ([2**31], pa.int32()),
        (["a"], pa.int32()),
        ([1.5], pa.int32()),
    ):
        with pytest.raises(UnsendableError):
            convert_to(pa.array(values), wanted)


def test_a_store_with_awkward_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a store given such columns each that it keeps arrives in Atlas or is named, and a plan again agrees."""
    beyond = ("Id", "Text", "uint64", "time stamp far")  # of these the store itself has no room
    typed = {name: values for name, values in AWKWARD.items() if name not in beyond}
    store = vector_store(tmp_path / "s.store", 4, **typed)
    with NomicServer() as server:
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        plan = plan_sync(store, "stand-in/awkward", create=True)
        assert apply_sync(plan).sent == 4
        there = [name.lstrip("_") for name in server.atlas.dataset("awkward").columns]
        safe = safe_names([name for name in store.columns if name != "id"], ["id"])
        for name in store.columns:
            assert name in plan.unsent or safe.get(name, name) in there
        assert len(store.columns) > 20
        again = plan_sync(EmbedStore.open(store.path), "stand-in/awkward")
        assert (again.missing, again.differing, again.problems) == (0, {}, [])
