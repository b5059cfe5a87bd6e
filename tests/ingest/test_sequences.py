"""One picture, several, or a table of numbers: told by form, in every container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from embedstore.errors import ImageError
from embedstore.ingest.sequences import pictures_or_table

GREY = np.zeros((4, 5), np.uint8)
RGB = np.zeros((4, 5, 3), np.uint8)
ROW = [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    "one", ["a.jpg", Path("a.jpg"), b"bytes", bytearray(b"b"), {"path": "a.jpg"}, Image.new("RGB", (2, 2)), GREY, RGB]
)
def test_one_picture_is_a_list_of_one(one: Any) -> None:
    """In each of its forms; what comes back for it is a list."""
    found = pictures_or_table(one)
    assert (len(found.content), found.is_table, found.is_array) == (1, False, False)
    assert found.content[0] is one


@pytest.mark.parametrize(
    ("several", "is_array"),
    [
        (["a.jpg", "b.jpg"], False),
        (("a.jpg", Path("b.jpg")), False),
        (iter([RGB, RGB]), False),
        ([GREY, GREY], False),
        (np.array(["a.jpg", "b.jpg"]), True),
        (pd.Series(["a.jpg", "b.jpg"]), True),
        (pa.array(["a.jpg", "b.jpg"]), True),
        (np.zeros((2, 4, 5, 3), np.uint8), True),
    ],
)
def test_several_pictures_have_an_item_each(several: Any, is_array: bool) -> None:
    """Arrays and columns are arrays, all other sequences are not."""
    found = pictures_or_table(several)
    assert (len(found.content), found.is_table, found.is_array) == (2, False, is_array)


@pytest.mark.parametrize(
    "table", [np.array([ROW, ROW]), [ROW, ROW], [np.array(ROW)] * 2, pd.DataFrame([ROW, ROW]), np.array(ROW), ROW]
)
def test_numbers_are_a_table(table: Any) -> None:
    """Rows of numbers, and a row or number too few, which is refused where a table is wanted."""
    found = pictures_or_table(table)
    assert (found.is_table, found.is_array) == (True, True)


def test_a_column_of_pictures_is_left_as_it_is() -> None:
    """It is read picture by picture; a column of paths is a list, and a whole data set is refused."""
    rows = datasets.Dataset.from_dict({"image": ["a.jpg", "b.jpg"]})
    pictures = rows.cast_column("image", datasets.Image())["image"]
    assert pictures_or_table(pictures).content is pictures
    assert pictures_or_table(rows["image"]) == (["a.jpg", "b.jpg"], False, False)
    with pytest.raises(ImageError, match=r"X\['image'\]"):
        pictures_or_table(rows)
    with pytest.raises(ImageError, match="found int"):
        pictures_or_table(7)
