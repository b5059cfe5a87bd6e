"""Conditions choose the rows that SQL says, or are refused with a way forward; nothing else can be reached by them."""

from __future__ import annotations

import ast
import contextlib
import datetime
import doctest
import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedstore
from embedstore.errors import FilterError
from embedstore.storage import where as where_module
from embedstore.storage.where import parse_where

UTC = datetime.UTC
DAYS = [datetime.date(2026, 1, day) for day in range(1, 6)]
TABLE = pa.table(
    {
        "label": ["cat", "dog", None, "Cat", "ca't"],
        "width": pa.array([100, 200, 300, None, -400], pa.int32()),
        "score": pa.array([0.5, None, -1.5, math.nan, -0.0]),
        "good": [True, False, None, True, False],
        "day": DAYS,
        "added_at": pa.array(
            [datetime.datetime(2026, 1, day, 0, tzinfo=UTC) for day in range(1, 6)], pa.timestamp("us", "UTC")
        ),
        "local": pa.array([datetime.datetime(2026, 1, day, 12) for day in range(1, 6)], pa.timestamp("ms")),
        "odd name": [1, 2, 3, 4, 5],
        "select": ["a", "b", "c", "d", "e"],
        "height": pa.array([150] * 5, pa.int64()),
        "kind": pa.array(["x", "y", "x", None, "y"]).dictionary_encode(),
        "long": pa.array(["x", "y", None, "", "z"], pa.large_string()),
        "price": pa.array([Decimal("1.10"), None, Decimal("2.20"), Decimal("0"), Decimal("-3")], pa.decimal128(10, 2)),
        "small": pa.array([1, 2, 3, None, -1], pa.int8()),
        "single": pa.array([0.1, 0.5, None, 1, 2], pa.float32()),
        "tags": pa.array([["a", "b"], [], None, ["c"], [None]], pa.list_(pa.string())),
        "meta": [
            {"a": 1, "b": {"c": "q"}},
            None,
            {"a": 3, "b": None},
            {"a": None, "b": None},
            {"a": 5, "b": {"c": "r"}},
        ],
        "micro": [1, 1, 1, 2, 2],
        "\u00b5": [1] * 5,  # the sign for a millionth, and the Greek letter
        "\u03bc": [2] * 5,
        "empty": pa.nulls(5),
    }
)


def rows(where: Any, table: pa.Table = TABLE) -> list[int]:
    parsed = parse_where(where, table.schema)
    assert parsed is not None
    assert parsed.columns
    mask = parsed.mask(table.select(list(parsed.columns)))
    assert mask.dtype == np.bool_
    assert mask.shape == (len(table),)
    return [int(row) for row in np.flatnonzero(mask)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("label == 'cat'", [0]),
        ("label = 'ca''t'", [4]),
        ("'cat' = label", [0]),
        ("label != 'cat'", [1, 3, 4]),
        ("not label <> 'cat'", [0]),
        ("label in ('cat', 'dog')", [0, 1]),
        ("label in ['cat', 'dog']", [0, 1]),
        ("label not in ('cat', 'dog')", [3, 4]),
        ("label in ('cat', null)", [0]),
        ("label not in ('cat', null)", []),
        ("label in []", []),
        ("label is null", [2]),
        ("label is not null", [0, 1, 3, 4]),
        ("label is distinct from 'cat'", [1, 2, 3, 4]),
        ("contains(label, 'a')", [0, 3, 4]),
        ("'a' in label", [0, 3, 4]),
        ("label.contains('og')", [1]),
        ("starts_with(label, 'ca')", [0, 4]),
        ("label like 'ca_'", [0]),
        ("label ilike 'CA%'", [0, 3, 4]),
        ("label like '%''%'", [4]),
        ("label.lower() = 'cat'", [0, 3]),
        ("length(trim(upper(label))) = 3 and regexp_matches(label, '^[a-z]+$')", [0, 1]),
        ("label collate nocase = 'CAT'", [0, 3]),
        ("LABEL = 'cat' AND Width > 50", [0]),
        ("width > 100", [1, 2]),
        ("width > 99.5", [0, 1, 2]),
        ("width = '100'", [0]),
        ("width = -400", [4]),
        ("width between 100 and 200", [0, 1]),
        ("100 <= width and width < 300", [0, 1]),
        ("width in (100, 300.0)", [0, 2]),
        ("width > height", [1, 2]),
        ("width * 2 - height > 100", [1, 2]),
        ("width + 2147483647 > 0", [0, 1, 2, 4]),
        ("width = 99999999999999999999999", []),
        ("score != 0.5", [2, 3, 4]),
        ("score = 'nan'", [3]),
        ("score > 1e308", [3]),
        ("isnan(score)", [3]),
        ("score = 0", [4]),
        ("score = -0.0", [4]),
        ("score in (0.0, 7)", [4]),
        ("good", [0, 3]),
        ("not good", [1, 4]),
        ("good is not true", [1, 2, 4]),
        ("good = false", [1, 4]),
        ("good or width > 250", [0, 2, 3]),
        ("case when good then width = 100 else width < 0 end", [0, 4]),
        ("coalesce(width, 0) = 0", [3]),
        ("day >= '2026-01-04'", [3, 4]),
        ("day in ('2026-01-02')", [1]),
        ("added_at < '2026-01-02'", [0]),
        ("added_at = date '2026-01-02'", [1]),
        ("added_at <= '2026-01-02T02:00:00+02:00'", [0, 1]),
        ("added_at > '2026-01-03T23:59:59Z'", [3, 4]),
        ("added_at between '2026-01-02' and '2026-01-03'", [1, 2]),
        ("year(added_at) = 2026 and extract(day from added_at) = 5", [4]),
        ("date_trunc('day', added_at) = '2026-01-02'", [1]),
        ("added_at > timestamp '2026-01-05' - interval 1 day", [4]),
        ("added_at < now() - interval 10 years", []),
        ("local = '2026-01-03 12:00'", [2]),
        ('"odd name" > 3', [3, 4]),
        ('"ODD NAME" > 3 and label = \'"x"\'', []),
        ("\"select\" = 'b'", [1]),
        ("kind = 'x'", [0, 2]),
        ("kind in ('y')", [1, 4]),
        ("long = 'x' or long = ''", [0, 3]),
        ("price > 1.1", [2]),
        ("price = 1.10", [0]),
        ("small > 1.5", [1, 2]),
        ("single >= 0.5", [1, 3, 4]),
        ("list_contains(tags, 'a')", [0]),
        ("'c' in tags", [3]),
        ("len(tags) = 0", [1]),
        ("tags[1] = 'a'", [0]),
        ("meta.a > 2", [2, 4]),
        ("meta.b.c = 'q'", [0]),
        ("meta['a'] = 1", [0]),
        ("\u00b5 = 1 and \u03bc = 2 and micro = 2", [3, 4]),
        ("\u00b5 = 2", []),
        ("empty = 'x'", []),
        ("empty is null and width = 100", [0]),
        ("  width\n> 100  and\n label = 'dog'\n", [1]),
        ("true", [0, 1, 2, 3, 4]),
        ("1 = 2", []),
        (pc.field("width") > 100, [1, 2]),
        (pc.field("label").is_null(), [2]),
        (pc.field("meta", "a") == 3, [2]),
        (pc.field("good"), [0, 3]),
        (pc.field(1) > 100, [1, 2]),
        (pc.scalar(True), [0, 1, 2, 3, 4]),
        ([True, False, False, True, False], [0, 3]),
        ((False,) * 5, []),
        (np.array([False, False, True, False, False]), [2]),
        (pa.array([True, None, False, None, True]), [0, 4]),
        (pa.chunked_array([[True, None], [False, None, True]]), [0, 4]),
    ],
)
def test_conditions(where: Any, expected: list[int]) -> None:
    """Each condition chooses exactly these rows; what is not known chooses none."""
    assert rows(where) == expected


def test_example_in_the_documentation() -> None:
    """The example of parse_where gives what it says."""
    found = doctest.testmod(where_module)
    assert (found.failed, found.attempted > 0) == (0, True)


def test_no_condition() -> None:
    """None stands for no condition, and a parsed one is passed through."""
    assert parse_where(None, TABLE.schema) is None
    parsed = parse_where("width > 1", TABLE.schema)
    assert parse_where(parsed, TABLE.schema) is parsed


@pytest.mark.parametrize(
    ("where", "columns"),
    [
        ("width > 3 and (label = 'width' or Width < 2) and \"odd name\" in (1)", ["width", "label", "odd name"]),
        ("label.lower() = 'x' or starts_with(kind, label)", ["label", "kind"]),
        ("meta.a = 1", ["meta"]),
        ("rows.width = height", ["width", "height"]),
        ("\u03bc = 1", ["\u03bc"]),
        ("tags[small] = 'score'", ["tags", "small"]),
        ("case when good then day else current_date end > '2020-01-01'", ["good", "day"]),
        (pc.field("width") > pc.field("height"), ["width", "height"]),
        (pc.field("meta", "a") == 1, ["meta"]),
        (pc.field("label") == "width", ["label"]),
        (pc.field(1) > 1, TABLE.column_names),
    ],
)
def test_columns_are_those_that_are_named(where: Any, columns: list[str]) -> None:
    """Only what a condition names is read."""
    parsed = parse_where(where, TABLE.schema)
    assert parsed is not None
    assert sorted(parsed.columns) == sorted(columns)


@pytest.mark.parametrize(
    ("where", "lasting"),
    [
        ("width > 3 and added_at < '2026-05-01'", True),
        ("date_diff('day', added_at, timestamptz '2026-05-01') > 3", True),
        ("added_at > now() - interval 3 days", False),
        ("day = TODAY()", False),
        ("day = Current_Date or width > 3", False),
        ("added_at < current_timestamp", False),
        ("local < localtimestamp", False),
        ("current_time > '12:00'", False),
        ("localtime > '12:00'", False),
        ("age(local) > interval 1 year", False),
    ],
)
def test_what_asks_for_the_time_does_not_last(where: str, lasting: bool) -> None:
    """A mask may be kept only for a condition that keeps the same rows tomorrow."""
    parsed = parse_where(where, TABLE.schema)
    assert parsed is not None
    assert parsed.lasting is lasting
    parsed.mask(TABLE)


def test_empty_chunked_and_sliced_tables() -> None:
    """No rows give an empty mask; many chunks keep the order of rows."""
    where = parse_where("width >= 200", TABLE.schema)
    assert where is not None
    assert where.mask(TABLE.slice(0, 0)).shape == (0,)
    chunks = pa.concat_tables([TABLE.slice(row, 1) for row in range(5)] * 100)
    np.testing.assert_array_equal(where.mask(chunks), np.tile([False, True, True, False, False], 100))
    assert where.mask(TABLE.slice(1, 2)).tolist() == [True, True]


def test_names_of_the_store_may_be_any() -> None:
    """A column named as the rows are numbered, or as their table, is a column like others."""
    table = pa.table({"row number": [3, 1, 2], "rows": [1, 2, 3], "row number_?": [True, False, True]})
    assert rows('"row number" < 3', table) == [1, 2]
    assert rows("rows = 3", table) == [2]
    assert rows('"row number_?" and "row number" > 2', table) == [0]
    with pytest.raises(FilterError, match="row number"):
        rows('"row number" = 0')


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("lable = 'cat'", r'"lable" not found.*Candidate bindings: .*label'),
        ("zebra = 1", "Candidate bindings"),
        ('label == "cat"', "'single quotes'"),
        ("label == cat", "'single quotes'"),
        ("odd name > 3", "does not work"),
        ("select = 'a'", "syntax error"),
        ("width >", "syntax error"),
        ("label is None", "for None write is null"),
        ("label == None", "for None write is null"),
        ("200 < width <= 400", r"Chained comparisons .* use AND"),
        ("label.startswith('ca')", r"did you mean starts_with\(label, 'ca'\)"),
        ("label.endswith('at')", r"did you mean ends_with\(label, 'at'\)"),
        ("col('odd name') = 1", 'did you mean "column name"'),
        ("label = 'cat' && good", "for && write and"),
        ("(label = 'cat') | good", "for | write or"),
        ("~good", "for ~ write not"),
        ("!good", "for ! write not"),
        ("label", r"is a value \(VARCHAR\), not true or false"),
        ("width", r"is a value \(INTEGER\)"),
        ("'abc'", "is a value"),
        ("null", "is a value"),
        ("width + 1", "is a value"),
        ("label > 3", "Cannot compare values of type VARCHAR and type INTEGER"),
        ("label > width", "Cannot compare"),
        ("added_at > 2024", "Cannot compare"),
        ("label = '\0'", "characters that no text has"),
        ("label = '\ud800'", "characters that no text has"),
        ("width > 3 -- and good", "comment"),
        ("good /* or not */", "comment"),
        ("/* good", "does not work|comment"),
        ("width > 3; drop table rows", "not one expression"),
        ("1); drop table rows", "not one expression"),
        ("1) or (1", "syntax error"),
        ("1) is true from rows; set threads = 1; select (1", "does not work|not one"),
        ("good) or (good", "syntax error"),
        ("good, good", "not one expression"),
        ("good as other", "not one expression"),
        ("good union select true", "not one expression"),
        ("distinct good", "syntax error"),
        ("good from rows", "syntax error"),
        ("good where good", "syntax error"),
        ("good limit 1", "syntax error"),
        ("(select 1) = 1", "a select of its own"),
        ("width in (select 1)", "a select of its own"),
        ("exists (from rows)", "a select of its own"),
        ("width = any([100])", r"a select of its own; .* label in \('cat', 'dog'\)"),
        ("'x' in (from read_text('/etc/passwd'))", "a select of its own"),
        ("(table rows)", "a select of its own"),
        ("?", "a parameter"),
        ("width = $1", "a parameter"),
        ("*", r"a \*"),
        ("columns('w.*') > 1", r"a \*"),
        ("#1 = 1", "positional reference"),
        ("row_number() over () > 1", "window function"),
        ("sum(width) > 3", "calls sum, which it may not"),
        ("count(*) > 1", "calls count_star"),
        ("unnest(tags) = 'a'", "calls unnest"),
        ("[x for x in tags] = []", "calls list_apply"),
        ("read_csv('/etc/passwd') = 1", "calls read_csv"),
        ("read_text('/etc/passwd') = ''", "calls read_text"),
        ("getenv('HOME') = ''", "calls getenv"),
        ("current_setting('threads') = '1'", "calls current_setting"),
        ("getvariable('x') = 1", "calls getvariable"),
        ("pragma_version() = 1", "calls pragma_version"),
        ("query('select 1') = 1", "calls query"),
        ("nextval('s') = 1", "calls nextval"),
        ("random() < 0.5", "calls random"),
        ("repeat(label, 1000000000) = ''", "calls repeat"),
        ("len(range(1000000000)) > 1", "calls range"),
        ("sleep_ms(1000000)", "calls sleep_ms"),
        ("write_log('x')", "calls write_log"),
        ("error('x')", "calls error"),
        ("main.current_query() = ''", "calls current_query"),
        ("case width when 100 then good else good end", "write case when label"),
        (7, "not int of int"),
        ({"width": 3}, "not dict"),
        (["yes", "no"], "not list"),
        ([[True], [False, True]], "not list"),
        (np.array([0, 1, 1, 0, 0]), "not ndarray of int64"),
        (np.ones((5, 1), bool), "not ndarray"),
        (pa.array([1, 0, 1, 0, 1]), "not .*of int64"),
        (pc.field("label") > 3, "does not fit the columns"),
        (pc.field("nope") > 3, "does not fit the columns"),
        (pc.field("width"), r"is a value \(int32\)"),
    ],
)
def test_refused(where: Any, message: str) -> None:
    """What is no condition on one row is refused before a row is read, with what was meant."""
    with pytest.raises(FilterError, match=message) as caught:
        parse_where(where, TABLE.schema)
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("width = 'abc'", "Could not convert string 'abc'"),
        ("label = 'cat' or 'dog'", r"write label in \('cat', 'dog'\)"),
        ("label::int > 3", "Could not convert string 'cat'"),
        ("added_at > 'yesterday'", "timestamp.*yesterday.*YYYY-MM-DD"),
        ([True] * 4, "says 4 times .* there are 5 rows"),
        ([], "says 0 times"),
    ],
)
def test_values_that_do_not_fit(where: Any, message: str) -> None:
    """A value that cannot be read as its column's type, or a mask of another length, says so."""
    with pytest.raises(FilterError, match=message):
        rows(where)


def test_a_mask_is_a_copy() -> None:
    """What is done to an answer does not change the condition."""
    where = parse_where([True] * 5, TABLE.schema)
    assert where is not None
    where.mask(TABLE)[:] = False
    assert where.mask(TABLE).all()


def test_many_values() -> None:
    """Thousands of values in a list, and of conditions in a row, are no trouble."""
    many = ", ".join(f"'x{value}'" for value in range(20_000))
    assert rows(f"label in ({many}, 'cat')") == [0]
    assert rows(" or ".join(["label = 'dog'"] * 2_000)) == [1]


HOSTILE = {
    "100,000 or": " or ".join(["width = 1"] * 100_000),
    "6,000 or": " or ".join(f"width = {number}" for number in range(6_000)),
    "100,000 and": " and ".join(["width = 1"] * 100_000),
    "100,000 plus": "1" + " + 1" * 100_000 + " > 0",
    "900 plus": "width" + " + 1" * 900 + " > 0",
    "not": "not " * 100_000 + "good",
    "90 not": "not " * 90 + "good",
    "minus": "1 = " + "- " * 100_000 + "1",
    "9,000 minus": "- " * 9_000,
    "nested": "(" * 100_000 + "good" + ")" * 100_000,
    "90 nested": "(" * 90 + "good" + ")" * 90,
    "1 MB of (": "(" * 2**20,
    "3,000 (": "(" * 3_000,
    "1 MB of [": "[" * 2**20,
    "1 MB of '": "'" * 2**20,
    "1 MB of ' and one": "'" * (2**20 + 1),
    'odd "': '"' * 300_001,
    "quotes apart": "' " * 200_000,
    "1 MB of text": "label = '" + "x" * 2**20 + "'",
    "comments": "/*" * 200_000,
    "digits": "width = " + "9" * 300_000,
    "case": "case " * 60 + "width" + " when 1 then 1 when 2 then 2 end" * 60 + " = 1",
    "searched case": "case when " * 90 + "good" + " then true else false end" * 90,
    "calls": "abs(" * 90 + "width" + ")" * 90 + " > 1",
    "fields": "meta" + ".a" * 9_000 + " = 1",
    "casts": "good" + "::bool" * 5_000,
    "lambdas": "list_apply([1], x -> " * 90 + "1" + ")" * 90,
    "1 MB of blanks": "good" + " " * 2**20,
    "semicolons": ";" * 2**18,
    "pattern": "label ~ '" + "(a|b)*" * 1_600 + "'",
}
CHILD = """
import contextlib, json, sys, time
import pyarrow as pa
from embedstore.errors import FilterError
from embedstore.storage import where
from embedstore.storage.where import parse_where

def counted(text, cursor=where._cursor):
    asked.append(text)
    return cursor(text)

asked = []
where._cursor = counted
table = pa.table({"label": ["a", "b"], "width": [1, 2], "good": [True, False], "meta": [{"a": 1}, {"a": 2}]})
parse_where("good", table.schema).mask(table)
for name, text in json.load(sys.stdin).items():
    asked.clear()
    start = time.perf_counter()
    try:
        said = parse_where(text, table.schema).mask(table).tolist()
    except FilterError as error:
        said = str(error)
    print(json.dumps([name, time.perf_counter() - start, bool(asked), said]), flush=True)
"""
PARSED = {
    "6,000 or", "900 plus", "90 not", "90 nested", "searched case", "calls", "fields", "casts", "lambdas", "pattern",
}  # fmt: skip
"""What of these texts the parser sees at all; with some of the others it would be busy for minutes."""


def test_hostile_texts_end_soon_and_crash_nothing() -> None:
    """Texts of any depth and length end in an answer or in an error, none hangs, and the process lives on.

    A text hangs after 10 seconds, as in `scripts/torture`; on a quiet machine none takes one.
    """
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(HOSTILE), capture_output=True, text=True, timeout=120
    )
    said = {name: rest for name, *rest in map(json.loads, child.stdout.splitlines())}
    assert (child.returncode, list(said)) == (0, list(HOSTILE)), child.stderr[-500:]
    assert not {name: seconds for name, (seconds, *_) in said.items() if seconds > 10}
    assert {name for name, (_, parsed, _) in said.items() if parsed} == PARSED
    assert all(isinstance(what, list) or len(what) < 1200 for *_, what in said.values())
    answered = {name: what for name, (*_, what) in said.items() if isinstance(what, list)}
    assert answered == {
        "6,000 or": [True, True],
        "90 not": [True, False],
        "90 nested": [True, False],
        "searched case": [True, False],
        "calls": [False, True],
        "pattern": [True, True],
    }


def in_another_process(code: str, **environment: str) -> str:
    head = "import pyarrow as pa\nfrom embedstore.storage.where import parse_where\n"
    child = subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, timeout=60, env=environment
    )
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


def test_times_do_not_depend_on_where_the_machine_stands() -> None:
    """A time without a zone is in UTC, whatever zone the machine is in."""
    code = (
        "import datetime\n"
        "times = [datetime.datetime(2026, 1, 1, hour, tzinfo=datetime.UTC) for hour in (0, 5, 23)]\n"
        "table = pa.table({'t': pa.array(times, pa.timestamp('us', 'UTC'))})\n"
        'for where in ("t < \'2026-01-01 05:00\'", "hour(t) = 23", "t::date = \'2026-01-01\'"):\n'
        "    print(parse_where(where, table.schema).mask(table).tolist())\n"
    )
    said = {in_another_process(code, TZ=zone) for zone in ("America/New_York", "Asia/Kolkata")}
    assert said == {"[True, False, False]\n[False, False, True]\n[True, True, True]"}


def test_a_forked_process_asks_for_itself() -> None:
    """A child that has none of its parent's threads answers, and ends."""
    code = (
        "import os, sys\n"
        "table = pa.table({'n': list(range(300_000))})\n"
        "count = lambda: int(parse_where('n % 3 = 0', table.schema).mask(table).sum())\n"
        "first = count()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    sys.exit(0 if count() == first else 1)\n"
        "print(first, os.waitpid(child, 0)[1], count())\n"
    )
    assert in_another_process(code) == "100000 0 100000"


def test_duckdb_is_met_in_one_place_and_late() -> None:
    """One module imports it, inside functions: who does not filter does not wait for it."""
    importers = {}
    for path in Path(embedstore.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            if any(name.split(".")[0] == "duckdb" for name in names):
                importers.setdefault(path.name, []).append(node in tree.body)
    assert set(importers) == {"where.py"}
    assert not any(importers["where.py"])
    code = "import sys, embedstore, embedstore.store\nprint('duckdb' in sys.modules)"
    assert in_another_process(code) == "False"


def test_a_condition_reaches_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, setting or variable of Python is within reach of the database that is asked, and no file appears."""
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    rows("width > 3")
    with where_module._cursor("a test") as cursor:
        for query in (
            f"FROM read_csv('{secret}')",
            f"FROM '{secret}'",
            f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
            f"ATTACH '{tmp_path / 'other.db'}'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET threads = 1",
            "SET enable_external_access = true",
            "RESET lock_configuration",
            "FROM TABLE_OF_PYTHON",
        ):
            with pytest.raises(Exception, match=r"disabled|locked|not exist|Cannot change"):
                cursor.execute(query)
        said = cursor.execute("SELECT current_setting('TimeZone'), current_setting('temp_directory')").fetchall()
    assert said == [("UTC", "")]
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


TABLE_OF_PYTHON = TABLE


MILLION = 1_000_000


@pytest.fixture(scope="module")
def million() -> pa.Table:
    numbers = np.arange(MILLION)
    names = np.array([f"k{number}" for number in range(977)])
    table = pa.table({"n": numbers % 977, "s": pa.array(names[numbers % 977]), "x": numbers / 7.0})
    return pa.concat_tables([table.slice(start, 7_001) for start in range(0, MILLION, 7_001)])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("n % 3 = 0", lambda n: n % 3 == 0),
        ("n in (1, 2, 3, 4, 5, 6, 7, 8)", lambda n: (n >= 1) & (n <= 8)),
        (f"s in ({', '.join(repr(f'k{k}') for k in range(0, 977, 3))})", lambda n: n % 3 == 0),
        (
            f"s not in [{', '.join(repr(f'k{k}') for k in range(0, 977, 3))}] and n > 500",
            lambda n: (n % 3 > 0) & (n > 500),
        ),
        (
            "s like 'k9%' or n in (0, 10, 20, 30, 40, 50)",
            lambda n: ((n % 10 == 0) & (n <= 50)) | (n == 9) | ((n >= 90) & (n < 100)) | (n >= 900),
        ),
    ],
    ids=["plain", "a short list", "a long list", "not in a list", "joined"],
)
def test_a_million_rows_keep_their_order(million: pa.Table, where: str, expected: Callable[[Any], Any]) -> None:
    """The mask stands in the order of the rows, however many threads have worked on it."""
    wanted = expected(np.arange(MILLION) % 977)
    parsed = parse_where(where, million.schema)
    assert parsed is not None
    for _ in range(3):
        assert np.array_equal(parsed.mask(million), wanted)


def test_many_threads_ask_at_once(million: pa.Table) -> None:
    """Each gets the answer to its own question about its own rows, and errors go to who made them."""
    pieces = [million.slice(1_000 * number, 5_000 + number) for number in range(16)]

    def ask(number: int) -> bool:
        table = pieces[number % 16]
        if number % 10 == 9:
            with pytest.raises(FilterError, match=f"nothing_{number}"):
                rows(f"nothing_{number} = 1", table)
            return True
        wanted = np.flatnonzero(table.column("n").to_numpy() % (number + 2) == 0)
        return rows(f"n % {number + 2} = 0", table) == wanted.tolist()

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(200)))


def test_an_evaluation_that_takes_too_long_is_stopped(million: pa.Table) -> None:
    """It ends with an error soon after its time, and the next one is answered."""
    parsed = parse_where(" or ".join(f"x * {number} + n = {number}.3" for number in range(1_500)), million.schema)
    assert parsed is not None
    with pytest.raises(FilterError, match=r"stopped after 0\.2 seconds"):
        parsed.mask(million, seconds=0.2)
    assert len(rows("n = 3", million)) == 1_024


def test_whoever_presses_ctrl_c_is_heard() -> None:
    """An interrupt by hand stays one, and is no error of the condition."""
    code = (
        "import os, signal, threading\n"
        "table = pa.table({'n': range(20_000)})\n"
        "text = ' or '.join(f'n * {number} - {number} = n + 7' for number in range(60))\n"
        "where = parse_where(text, table.schema)\n"
        "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n"
        "    where.mask(pa.concat_tables([table] * 500))\n"
        "except KeyboardInterrupt:\n"
        "    print('heard')\n"
    )
    assert in_another_process(code) == "heard"


@settings(max_examples=150, deadline=None)
@given(st.text("abns()[]{}'\"`=<>!&|~.,;:?$#@*-+/ \n\t0123456789_inotrd\u00b5\u00e9\U0001f600", max_size=30))
def test_any_text_is_understood_or_refused(text: str) -> None:
    """No text raises anything but FilterError."""
    with contextlib.suppress(FilterError):
        rows(text)


# Against Python itself, row by row. Three truth values: True, False, None for "not known".

Row = dict[str, Any]
Term = tuple[str, Callable[[Row], Any]]  # SQL, and the same as a function of a row
NUMBERS = [None, -2, -1, 0, 1, 2, 3]
FLOATS = [None, -1.5, -0.0, 0.0, 0.25, 1.0, 2.5, math.nan, math.inf]
TEXTS = [None, "", "a", "b", "ab", "aB", "a'b", "%", "_", "a\\", "\u00e9", "ba\n"]
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def placed(value: Any) -> Any:
    """What orders as SQL does: not-a-number is itself, and above all numbers; text goes by its bytes."""
    if isinstance(value, str):
        return value.encode()
    return (1, 0.0) if isinstance(value, float) and math.isnan(value) else (0, value)


def compared(sign: str, a: Any, b: Any) -> bool | None:
    return None if a is None or b is None else SIGNS[sign](placed(a), placed(b))


def negated(value: bool | None) -> bool | None:
    return None if value is None else not value


def both(a: bool | None, b: bool | None) -> bool | None:
    return False if a is False or b is False else None if a is None or b is None else True


def either(a: bool | None, b: bool | None) -> bool | None:
    return negated(both(negated(a), negated(b)))


def among(value: Any, others: list[Any]) -> bool | None:
    found: bool | None = False
    for other in others:
        found = either(found, compared("=", value, other))
    return found


def like(value: str | None, pattern: str) -> bool | None:
    wanted = "".join({"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return None if value is None else re.fullmatch(wanted, value, re.DOTALL) is not None


def literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, float) and not math.isfinite(value):
        return f"'{value}'::double"
    return str(value)


def number(draw: random.Random, deep: int = 2) -> Term:
    form = draw.choice(["n", "i", "x", "literal", "literal", *["sum"] * deep])
    if form == "literal":
        value = draw.choice(NUMBERS[1:] + FLOATS[1:])
        return literal(value), lambda row: value
    if form != "sum":
        return form, lambda row: row[form]
    (left, a), (right, b) = number(draw, deep - 1), number(draw, deep - 1)
    sign = draw.choice("+-*")
    ways = {"+": lambda p, q: p + q, "-": lambda p, q: p - q, "*": lambda p, q: p * q}

    def value_of(row: Row) -> Any:
        p, q = a(row), b(row)
        return None if p is None or q is None else ways[sign](p, q)

    return f"({left} {sign} {right})", value_of


def text(draw: random.Random) -> Term:
    form = draw.choice(["s", "s", "t", "literal", "upper", "joined"])
    value = draw.choice(TEXTS[1:])
    if form in ("s", "t"):
        return form, lambda row: row[form]
    if form == "literal":
        return literal(value), lambda row: value
    if form == "upper":
        return "upper(s)", lambda row: None if row["s"] is None else row["s"].upper()
    return f"(t || {literal(value)})", lambda row: None if row["t"] is None else row["t"] + value


def simple(draw: random.Random) -> Term:
    kind, values = draw.choice([(number, NUMBERS + FLOATS), (text, TEXTS)])
    (left, a), (right, b), (third, c) = kind(draw), kind(draw), kind(draw)
    form = draw.choice(
        ["compare", "compare", "in", "not in", "between", "null", "not null", "bare", "like", "distinct"]
    )
    if form == "compare":
        sign = draw.choice(list(SIGNS))
        return f"{left} {sign} {right}", lambda row: compared(sign, a(row), b(row))
    if form in ("in", "not in"):
        some = draw.sample(values, draw.randint(1, len(values)))
        inside: Term = f"{left} {form} ({', '.join(map(literal, some))})", lambda row: among(a(row), some)
        return inside if form == "in" else (inside[0], lambda row: negated(inside[1](row)))
    if form == "between":
        return (
            f"{left} between {right} and {third}",
            lambda row: both(compared(">=", a(row), b(row)), compared("<=", a(row), c(row))),
        )
    if form == "null":
        return f"{left} is null", lambda row: a(row) is None
    if form == "not null":
        return f"{left} is not null", lambda row: a(row) is not None
    if form == "like":
        pattern = "".join(draw.choice(["%", "_", "a", "b", "\\", "'"]) for _ in range(draw.randint(0, 4)))
        return f"s like {literal(pattern)}", lambda row: like(row["s"], pattern)
    if form == "distinct":
        return (
            f"{left} is distinct from {right}",
            lambda row: (a(row) is None) != (b(row) is None) or compared("!=", a(row), b(row)) is True,
        )
    return "b", lambda row: row["b"]


def condition(draw: random.Random, deep: int = 3) -> Term:
    form = draw.choice(["simple", "and", "or", "not", "unknown", "true"]) if deep else "simple"
    if form == "simple":
        return simple(draw)
    left, a = condition(draw, deep - 1)
    if form == "not":
        return f"not ({left})", lambda row: negated(a(row))
    if form == "unknown":
        return f"({left}) is null", lambda row: a(row) is None
    if form == "true":
        return f"({left}) is not true", lambda row: a(row) is not True
    right, b = condition(draw, deep - 1)
    join = both if form == "and" else either
    return f"(({left}) {form} ({right}))", lambda row: join(a(row), b(row))


def test_4000_conditions_against_python() -> None:
    """For any rows and any condition the mask is what Python says of each row, null being "not known"."""
    draw = random.Random(20260501)
    columns = {"n": NUMBERS, "i": NUMBERS, "x": FLOATS, "s": TEXTS, "t": TEXTS, "b": [None, True, False]}
    kinds = {"n": pa.int64(), "i": pa.int32(), "x": pa.float64(), "s": pa.string(), "t": pa.string(), "b": pa.bool_()}
    data = [{name: draw.choice(values) for name, values in columns.items()} for _ in range(60)]
    table = pa.table({name: pa.array([row[name] for row in data], kind) for name, kind in kinds.items()})
    conditions = [condition(draw) for _ in range(4_000)]

    def differs(term: Term) -> str | None:
        expected = [place for place, row in enumerate(data) if term[1](row) is True]
        return None if rows(term[0], table) == expected else term[0]

    with ThreadPoolExecutor(2) as pool:
        assert [where for where in pool.map(differs, conditions) if where is not None] == []
