"""Labels in every form name the same rows."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from embedstore.deciding.labels import labels_for
from embedstore.errors import LabelError
from embedstore.store import EmbedStore


def test_labels_come_in_every_form(store: EmbedStore, tmp_path: Path) -> None:
    """A column, a file by id or path, a mapping and an array name the same rows."""
    rows = store.to_table().to_pylist()
    expected = [row["label"] == "cat" for row in rows]
    forms: list[object] = [
        "label=cat",
        {row["id"]: row["label"] == "cat" for row in rows},
        expected,
        np.array(expected),
    ]
    for key, head in (("id", "id"), ("uri", "path")):
        file = tmp_path / f"{key}.csv"
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows(
                [
                    [head, "label", "kind"],
                    *([r[key], "yes" if r["label"] == "cat" else "no", r["label"]] for r in reversed(rows)),
                ]
            )
        forms += [str(file), file, f"{file}:kind=cat"]
    for form in forms:
        found = labels_for(store.rows, form)
        assert found.positions.tolist() == list(range(12))
        assert found.values.tolist() == expected
    partial = [None, *expected[1:]]
    assert labels_for(store.rows, partial).positions.tolist() == list(range(1, 12))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("label=bird", "no row has label=bird; the values are cat, dog"),
        ("colour=red", "neither a file nor a column"),
        ("label", "expected true and false"),
        ([True], "1 label for 12 rows"),
        ({"nobody": True}, "not in the store; the first is 'nobody'"),
        ("missing.csv", "missing.csv"),
        ([None] * 12, "no row has a label"),
        (["yes", "maybe"] * 6, "found 'maybe'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(store: EmbedStore, labels: object, says: str) -> None:
    """Each says what was found and what was expected."""
    with pytest.raises(LabelError, match=says):
        store.calibrate("cat", labels)
