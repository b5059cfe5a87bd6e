"""Labels in every form name the same rows."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedstore.deciding.labels import labels_for, labels_of_column
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


def test_a_column_without_values_is_said(store: EmbedStore) -> None:
    """Where no row is left, as after a removal, no list of values is begun that is empty."""
    store.remove(where="width > 0")
    with pytest.raises(LabelError, match=r"no row has label=cat; no row has any value there$"):
        labels_for(store.rows, "label=cat")


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


def test_labels_of_several_sources_add_up(store: EmbedStore, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In their order: of a row that has several the last one counts, which is said, with how many contradict."""
    ids = [row["id"] for row in store.to_table(["id"]).to_pylist()]
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("id,label\n" + "".join(f"{name},yes\n" for name in ids[:5]))
    two.write_text("id,label\n" + "".join(f"{name},{'yes' if name == ids[3] else 'no'}\n" for name in ids[3:8]))
    for sources in ([one, str(two)], (str(one), str(two)), [dict.fromkeys(ids[:5], True), two]):
        caplog.clear()
        found = labels_for(store.rows, sources)
        assert found.positions.tolist() == list(range(8))
        assert found.values.tolist() == [True] * 4 + [False] * 4
        assert found.weights is None
        assert "2 rows are labelled in several of these; the last one counts; 1 of them yes in one" in caplog.text
    assert labels_for(store.rows, [str(two), str(one)]).values.tolist() == [True] * 5 + [False] * 3
    caplog.clear()
    assert len(labels_for(store.rows, ["label=cat", "label=cat"])) == 12
    assert "of them yes" not in caplog.text
    assert labels_for(store.rows, [str(one)]).source == str(one)


PICKED = "id,label,picked,probability,round\n"


def test_a_file_says_how_its_rows_were_picked(store: EmbedStore, tmp_path: Path) -> None:
    """Its columns make weights; rows that were merely given have none, and those that cannot be told are no labels."""
    ids = [row["id"] for row in store.to_table(["id"]).to_pylist()]
    file, given = tmp_path / "picked.csv", tmp_path / "given.csv"
    lines = [("yes", "near", 1, 1), ("no", "random", 0.25, 1), ("yes", "random", 0.25, 1), ("?", "random", 0.25, 1)]
    told = (f"{name},{','.join(map(str, line))}\n" for name, line in zip(ids, lines, strict=False))
    file.write_text(PICKED + "".join(told))
    found = labels_for(store.rows, file)
    assert found.positions.tolist() == [0, 1, 2]
    assert found.picked is not None
    assert found.picked.tolist() == ["near", "random", "random"]
    assert found.weights is not None
    assert found.weights.tolist() == [1, 4, 4]
    assert found.random is not None
    assert found.random.tolist() == [False, True, True]
    given.write_text(f"id,label\n{ids[5]},no\n")
    both = labels_for(store.rows, [given, file])
    assert both.weights is not None
    assert np.array_equal(both.weights, [1, 4, 4, np.nan], equal_nan=True)
    assert both.to_measure().positions.tolist() == [0, 1, 2]
    some = both.within(store.rows, "id <> '" + ids[1] + "'")
    assert some.weights is not None
    assert np.array_equal(some.weights, [1, 4, np.nan], equal_nan=True)


def test_rows_called_random_count_alike(store: EmbedStore, tmp_path: Path) -> None:
    """Where every row is, and no probability is told, they are a simple random sample of equal weights."""
    ids = [row["id"] for row in store.to_table(["id"]).to_pylist()]
    file = tmp_path / "random.csv"
    file.write_text("id,label,picked\n" + "".join(f"{name},yes,random\n" for name in ids[:4]))
    found = labels_for(store.rows, file)
    assert found.weights is not None
    assert found.weights.tolist() == [1] * 4
    assert found.random is not None
    assert found.random.all()
    file.write_text("id,label,picked\n" + "".join(f"{name},yes,near\n" for name in ids[:4]))
    with pytest.raises(LabelError, match="how these rows were picked is not known"):
        labels_for(store.rows, file).to_measure()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("yes,chance,0.5,1", r"line 2: picked is 'chance'; expected one of given"),
        ("yes,random,1.5,1", r"line 2: probability is 1.5"),
        ("yes,random,0,1", r"line 2: probability is 0"),
        ("yes,random,0.5,-1", r"line 2: round is -1"),
        ("maybe,random,0.5,1", r"line 2: label is 'maybe'; expected yes or no"),
        (",random,0.5,1", r"no row has a label"),
    ],
)
def test_a_pick_that_cannot_be_read_is_named_with_its_line(
    store: EmbedStore, tmp_path: Path, line: str, says: str
) -> None:
    """In the column where it stands."""
    file = tmp_path / "picked.csv"
    file.write_text(f"{PICKED}{store.to_table(['id']).to_pylist()[0]['id']},{line}\n")
    with pytest.raises(LabelError, match=says):
        labels_for(store.rows, file)


def test_labels_of_a_column_open_no_file(store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as the text says where that names a column, of texts and of numbers; a file's name is none."""
    for column, value in (("label", "cat"), ("width", "40")):
        told, there = labels_of_column(store.rows, column, value), labels_for(store.rows, f"{column}={value}")
        assert told.positions.tolist() == there.positions.tolist()
        assert told.values.tolist() == there.values.tolist()
        assert (told.source, told.positive) == (there.source, there.positive)
        assert labels_for(store.rows, told) is told
    blank = EmbedStore.create(tmp_path / "blank.store", space="mine", dim=2)
    texts = ["cat", None, "", " ", "\t\u3000", " cat", "dog"]
    ids, vectors = [str(number) for number in range(7)], [[1.0, 0.0]] * 7
    blank.add(pa.table({"id": ids, "kind": texts, "v": vectors}), embedding_column="v", progress=False)
    told, there = labels_of_column(blank.rows, "kind", "cat"), labels_for(blank.rows, "kind=cat")
    assert told.positions.tolist() == there.positions.tolist()
    assert told.values.tolist()[0] is True
    (tmp_path / "label=cat.csv").write_text("id,label\nx,yes\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabelError, match=r"no row has label=cat\.csv"):
        labels_of_column(store.rows, "label", "cat.csv")
    with pytest.raises(LabelError, match="there is no column 'lable'"):
        labels_of_column(store.rows, "lable", "cat")
