"""Records and data frames of Python objects: own ids, metadata, and pictures in every form."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image
from small_pictures import png, put

from embedstore import images
from embedstore.errors import SourceError
from embedstore.sources import Record, open_source


def grey(value: int) -> Image.Image:
    return Image.new("RGB", (4, 3), (value, value, value))


def told(record: Record) -> tuple[str | None, dict[str, Any]]:
    return record.id, dict(record.metadata)


def test_records_hold_pictures_in_every_form(tmp_path: Path) -> None:
    """Paths lead to their files, the others are in memory; ids and labels are the user's, nested values JSON."""
    path = put(tmp_path / "a.png", 7)
    records = [
        {"image": path, "id": "file", "label": "cat"},
        {"image": str(path), "id": "again", "box": [1.0, 2.5, float("nan")]},
        {"image": png(1), "id": 3, "points": np.array([[1, 2]])},
        {"image": grey(9), "id": "pil", "mask": grey(1), "raw": b"x"},
        {"image": np.zeros((2, 2), np.uint8), "id": "array", "at": {"x": 1}},
    ]
    source = open_source(records)
    found = list(source)
    assert [record.uri for record in found] == [
        str(path),
        "memory:again#1",
        "memory:3#2",
        "memory:pil#3",
        "memory:array#4",
    ]
    assert [told(record) for record in found] == [
        ("file", {"label": "cat"}),
        ("again", {"box": "[1.0, 2.5, null]"}),
        ("3", {"points": "[[1, 2]]"}),
        ("pil", {}),
        ("array", {"at": '{"x": 1}'}),
    ]
    assert [images.read(record.load()).width for record in found] == [3, 3, 3, 4, 2]
    assert source.left_out == {"mask": "pictures", "raw": "bytes"}
    assert source.failures == []


def test_records_without_ids_are_known_by_content() -> None:
    """Their keys are made of the pictures; the uris tell the rows. Others of the list may have ids."""
    [one, two, own] = open_source([{"image": png(1)}, {"image": png(1), "label": "b"}, {"image": png(1), "id": 7}])
    assert (one.id, two.id, own.id, own.uri) == (None, None, "7", "memory:7#2")
    digest = hashlib.sha256(png(1)).hexdigest()
    assert (one.key, two.key) == (f"memory:{digest}", f"memory:{digest}#2")
    assert (one.uri, two.uri) == (f"memory:{digest[:16]}#0", f"memory:{digest[:16]}#1")


def test_a_record_without_a_picture_is_a_failure() -> None:
    """None and NaN are no pictures; the other records are taken."""
    source = open_source([{"image": None, "id": "a"}, {"image": float("nan"), "id": "b"}, {"image": png(1), "id": "c"}])
    assert [record.id for record in source] == ["c"]
    assert [(failure.uri, failure.reason) for failure in source.failures] == [
        ("memory:a#0", "there is no picture"),
        ("memory:b#1", "there is no picture"),
    ]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"picture": png(1)}], r"the key 'image'.*row 0 has 'picture'"),
        ([{"image": png(1), "id": "a"}] * 3, r"1 ids stand in several rows, such as 'a'"),
        ([{"image": png(1), "id": 1.5}], r"found 1.5 in row 0"),
    ],
)
def test_records_that_are_none(records: list[dict[str, Any]], message: str) -> None:
    """Other keys, missing ids and ids that stand twice are one clear error, before anything is read."""
    with pytest.raises(SourceError, match=message):
        open_source(records)


def test_the_key_of_the_picture_may_be_named() -> None:
    """`image_column` names it."""
    [record] = open_source([{"img": png(1), "n": 1}], image_column="img")
    assert told(record) == (None, {"n": 1})


@pytest.mark.parametrize("make", [pd.DataFrame, lambda columns: pl.DataFrame(columns, schema_overrides=OBJECT)])
def test_frames_of_pillow_images(make: Any) -> None:
    """Pandas and Polars alike: the column of images, ids, and metadata with their missing values."""
    frame = make({"image": [grey(1), None, grey(3)], "id": ["a", "b", "c"], "label": ["x", None, None]})
    source = open_source(frame)
    assert [(record.uri, *told(record)) for record in source] == [
        ("table:a#0", "a", {"label": "x"}),
        ("table:c#2", "c", {"label": None}),
    ]
    assert [failure.uri for failure in source.failures] == ["table:b#1"]
    assert "'image'" in source.describe()


OBJECT = {"image": pl.Object}


def test_frames_of_arrays_and_of_two_pictures() -> None:
    """Arrays are pictures too; with two such columns the one called image is taken, or the one that is named."""
    arrays = [np.full((2, 3, 3), value, np.uint8) for value in range(2)]
    frame = pd.DataFrame({"image": arrays, "mask": [grey(0), grey(1)], "n": [1, 2]})
    source = open_source(frame)
    assert [record.metadata for record in source] == [{"n": 1}, {"n": 2}]
    assert source.left_out == {"mask": "pictures"}
    assert [images.read(record.load()).width for record in open_source(frame, image_column="mask")] == [4, 4]
    with pytest.raises(SourceError, match="several columns may hold the pictures: a, b"):
        open_source(pd.DataFrame({"a": arrays, "b": arrays}))


def test_the_index_of_a_data_frame_is_no_column() -> None:
    """Rows that were chosen or shuffled bring their numbers of before along: said, and not kept, either way."""
    for image in (grey, lambda value: png(value)):
        frame = pd.DataFrame({"image": [image(1), image(2), image(3)], "n": [1, 2, 3]}).iloc[[2, 0, 1]]
        source = open_source(frame)
        assert [dict(record.metadata) for record in source] == [{"n": 3}, {"n": 1}, {"n": 2}]
        assert source.left_out == {
            "__index_level_0__": "the index of the data frame; its reset_index() makes a column of it"
        }


def test_a_frame_that_arrow_cannot_hold_is_one_error() -> None:
    """A column of anything at all is named as Arrow names it."""
    with pytest.raises(SourceError, match=r"cannot be read as a table.*leave that column out"):
        open_source(pd.DataFrame({"image": [png(1)], "thing": [object()]}))


def test_the_id_column_of_a_table_in_memory_is_the_id() -> None:
    """So it is for pyarrow, pandas and Polars; ids that are none are refused, and the message says what to do."""
    table = pa.table({"image": [png(1), png(1)], "id": [7, 8], "label": ["x", "y"]})
    for form in (table, table.to_pandas(), pl.from_arrow(table)):
        assert [(record.uri, *told(record)) for record in open_source(form)] == [
            ("table:7#0", "7", {"label": "x"}),
            ("table:8#1", "8", {"label": "y"}),
        ]
    for ids in ([1, 1], [None, 2], [0.5, 2.0]):
        with pytest.raises(SourceError, match="rename it, and ids are made of the pictures"):
            open_source(pa.table({"image": [png(1), png(2)], "id": ids}))
