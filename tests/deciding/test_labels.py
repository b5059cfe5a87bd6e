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
        "label = cat",
        "label == 'cat'",
        'label=="cat"',
        "label in ('cat', 'bird')",
        "label = 'cat' and width > 3",
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
        forms += [str(file), file, f"{file}:kind=cat", f"{file}:kind == 'cat'"]
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
        ("lable=cat", "no column 'lable'; .* Did you mean 'label'"),
        ("label == 'cta'", "no row has label == 'cta'; the values are cat, dog. Did you mean 'cat'"),
        ("dog", "Did you mean label=dog"),
        ("label = 'cat' and widht > 3", "widht"),
        ("label=cat and width > 3", "single quotes"),
        ("label.str.contains('c')", "Say which rows are positive by COLUMN=VALUE"),
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


def test_a_condition_labels_what_it_can_judge(store: EmbedStore) -> None:
    """Rows for which a condition is neither true nor false have no label; one that no row keeps says no everywhere."""
    half = labels_for(store.rows, "case when label = 'cat' then true when width < 0 then false end")
    assert len(half) == 4
    assert half.values.all()
    assert not labels_for(store.rows, "width > 1000000").values.any()
    assert labels_for(store.rows, "width=40").values.all()
    assert labels_for(store.rows, "width = 40.0").values.all()


def test_a_cell_that_is_neither_is_named_with_its_line(store: EmbedStore, tmp_path: Path) -> None:
    """A word that is no yes and no no stands in the message with its line in the file, and with the way to use it."""
    file, ids = tmp_path / "l.csv", [row["id"] for row in store.to_table(["id"]).to_pylist()]
    cells = ["yes", "", "maybe", "no"]
    file.write_text(
        "id,label\n" + "".join(f"{name},{cell}\n" for name, cell in zip(reversed(ids), cells, strict=False))
    )
    with pytest.raises(LabelError, match=rf"{file}, line 4: label is 'maybe'; .* name it: {file}:label=maybe"):
        labels_for(store.rows, file)
    assert labels_for(store.rows, f"{file}:label=maybe").values.sum() == 1
