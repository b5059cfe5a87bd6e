"""Columns beside pictures: plain values stay, nested ones are JSON, and what is left out is named."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_pictures import png

from embedstore.sources import open_source, parquet_pages
from embedstore.sources.metadata_columns import MOST_JSON, TOO_LONG, json_text, plain_value


def metadata(**columns: Any) -> tuple[list[dict[str, Any]], dict[str, str]]:
    rows = len(next(iter(columns.values())))
    source = open_source(pa.table({"image": [png(row) for row in range(rows)], **columns}))
    return [dict(record.metadata) for record in source], source.left_out


def test_nested_values_are_json() -> None:
    """Lists, structs, lists of structs and maps, with nulls, dates and letters of any alphabet inside."""
    day = datetime.date(2024, 2, 29)
    rows, left_out = metadata(
        tags=[["ä", None], None],
        box=pa.array([[1.5, float("inf")], []]),
        objects=[[{"at": day, "n": 1}], []],
        about=[{"a": {"b": True}}, None],
        names=pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    )
    assert rows[0] == {
        "tags": '["ä", null]',
        "box": "[1.5, null]",
        "objects": '[{"at": "2024-02-29", "n": 1}]',
        "about": '{"a": {"b": true}}',
        "names": '{"k": 1}',
    }
    assert rows[1] == {"tags": None, "box": "[]", "objects": "[]", "about": None, "names": None}
    assert left_out == {}


def test_what_is_left_out_is_named() -> None:
    """Bytes at any depth, vectors of either kind, and values that are too long; columns without any value go unsaid."""
    vectors = np.ones((2, 64), np.float32)
    rows, left_out = metadata(
        raw=[b"x", b"y"],
        audio=[{"bytes": b"x", "rate": 1}, None],
        fixed=pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 64),
        lists=pa.array(vectors.tolist()),
        long=[["a" * MOST_JSON], ["b"]],
        nothing=pa.nulls(2),
        clock=[datetime.time(1, 2), None],
    )
    assert rows == [{"long": None, "clock": "01:02:00"}, {"long": '["b"]', "clock": None}]
    assert left_out == {
        "raw": "bytes",
        "audio": "bytes",
        "fixed": "vectors",
        "lists": "vectors",
        "long": f"more than {MOST_JSON:,} letters as JSON",
    }


@pytest.mark.parametrize(
    "value", [[1, 2.5, None, True], {"a": [{"b": "c"}]}, (1, 2), np.arange(3), {1: "x"}, [[], {}], np.float32(0.5)]
)
def test_json_is_what_json_reads(value: Any) -> None:
    """The text is read back as the plain value."""
    plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    assert json.loads(json_text(value)) == json.loads(json.dumps(plain))


def test_plain_values_stay() -> None:
    """Text, numbers and dates are not touched."""
    for value in ("a", 1, 2.5, True, None, datetime.date(2024, 1, 1)):
        assert plain_value(value) is value
    assert plain_value(np.array(3)) == 3


def test_a_list_that_unpacks_to_millions_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Parquet file says it in a few bytes; the column is named, and not read. Long values are not looked at."""
    monkeypatch.setattr(parquet_pages, "MOST_VALUES", 100_000)
    path = tmp_path / "t.parquet"
    counts = {"image": [png(0), png(1)], "few": [[1], [2, 3]], "many": [[0] * 100_001, []], "long": [[0] * 99_000, [1]]}
    pq.write_table(pa.table(counts), path)
    assert path.stat().st_size < 10_000
    source = open_source(path)
    assert [record.metadata for record in source] == [{"few": "[1]", "long": None}, {"few": "[2, 3]", "long": "[1]"}]
    assert source.left_out == {"many": "more than 100,000 values in a row group", "long": TOO_LONG}
