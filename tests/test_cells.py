"""CSV that a spreadsheet opens runs nothing, and every reader here gives back the text that was written."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from command_line import run
from conftest import save_picture
from hypothesis import given
from hypothesis import strategies as st

from embedstore import cells
from embedstore.deciding.labels import labels_for
from embedstore.deciding.review import ScoredRows
from embedstore.ingest.reports import read_failures, write_failures
from embedstore.sources import Failure
from embedstore.sources.table_files import read_small
from embedstore.store import EmbedStore

HOSTILE = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-x", "＝1", "=", "-"]
HARMLESS = ["", "a=1", "'quoted'", "-5", "+1.5", "-1e-07", "-.5", "cat", "5 - 3"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    """One more than it has."""
    assert cells.written(text) == f"'{text}"


@pytest.mark.parametrize("value", [*HARMLESS, -5, -0.25, float("-inf"), None, True])
def test_other_values_are_written_as_they_are(value: Any) -> None:
    """Numbers stay numbers, also as text."""
    assert cells.line([value, 1]) == ("" if value is None else str(value)) + ",1\n"


@given(st.one_of(st.text(), st.from_regex(r"'{0,3}[=+\-@\t\r'0-9a]{0,4}")))
def test_every_text_comes_back(text: str) -> None:
    """And no cell begins as a formula, unless it is a number."""
    cell = cells.written(text)
    assert cells.read(cell) == text
    assert cell[:1] not in set("=+-@\t\r") or float(cell) is not None


@given(values=st.lists(st.one_of(st.none(), st.text(), st.integers(), st.floats(allow_nan=False)), min_size=1))
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_line_is_read_as_one_row(values: list[Any], delimiter: str) -> None:
    """By Python's own reader, whatever quotes, line breaks and delimiters are in it."""
    line = cells.line(values, delimiter)
    rows = list(csv.reader(io.StringIO(line, newline=""), delimiter=delimiter))
    assert [[cells.read(cell) for cell in row] for row in rows] == [
        ["" if value is None else str(value) for value in values]
    ]


def test_a_table_of_hostile_texts_comes_back_by_way_of_csv(tmp_path: Path) -> None:
    """Exported as CSV and TSV and read again: names of columns, texts and negative numbers are what they were."""
    texts = HOSTILE + [text for text in HARMLESS if text and not text.lstrip("+-.").startswith(tuple("015"))]
    x = np.eye(len(texts), dtype=np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), len(texts))
    store = EmbedStore.create(tmp_path / "s.store", space="own", dim=len(texts))
    numbers = [-1.5 * number for number in range(len(texts))]
    store.add(pa.table({"v": vectors, "-text": texts, "n": numbers}), embedding_column="v", progress=False)
    for ending in (".csv", ".tsv"):
        file = tmp_path / f"out{ending}"
        assert run("export", store.path, "--columns", "-text,n", "-o", file).exit_code == 0
        for row in csv.reader(
            io.StringIO(file.read_bytes().decode(), newline=""), delimiter="\t" if ending == ".tsv" else ","
        ):
            assert row[0][:1] not in set("=+-@\t\r")
        again = read_small(str(file))
        assert again.column("-text").to_pylist() == texts
        assert again.column("n").to_pylist() == numbers


def test_matches_failures_reviews_and_labels_are_safe_and_come_back(tmp_path: Path) -> None:
    """A picture named as a formula: in a search, in a review that is filled in, and in a list of failures."""
    folder = tmp_path / "p"
    for number, name in enumerate(["=1+1.png", "-x.png", "@a.png"]):
        save_picture(folder / name, number)
    store = EmbedStore.create(tmp_path / "s.store", model="objects")
    store.add(folder, progress=False)
    ids = store.to_table(["id"]).column("id").to_pylist()
    metadata = pa.table({"uri": ["=1+1.png", "-x.png", "@a.png"]})
    renamed = store.to_table(["embedding"]).append_column("uri", metadata.column("uri")).append_column("id", [ids])
    named = EmbedStore.create(tmp_path / "n.store", space=store.space)
    named.add(renamed, embedding_column="embedding", progress=False)
    printed = run("search", named.path, "--id", ids[0], "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert sorted(row["uri"] for row in rows) == ["'-x.png", "'=1+1.png", "'@a.png"]
    assert all(float(row["score"]) == float(row["score"]) for row in rows)

    classifier = named.calibrate(named.vectors([ids[0]])[0], {identity: identity == ids[0] for identity in ids})
    review = ScoredRows.of(named.reader, classifier, {identity: identity == ids[0] for identity in ids}).around()
    review.save_csv(tmp_path / "review.csv")
    with (tmp_path / "review.csv").open(newline="") as file:
        kept = [{"uri": row["uri"], "label": "yes"} for row in csv.DictReader(file)]
    assert all(row["uri"].startswith("'") for row in kept)
    (tmp_path / "labels.csv").write_text("uri,label\n" + "".join(f"{row['uri']},yes\n" for row in kept))
    assert len(labels_for(named.rows, tmp_path / "labels.csv")) == len(kept) > 0

    failed = [Failure("=1+1.png", "-no"), Failure("-x.png", "@no"), Failure("'=x", "no")]
    write_failures(tmp_path / "failures.csv", failed)
    assert not any(line.startswith(("=", "-", "@")) for line in (tmp_path / "failures.csv").read_text().splitlines())
    assert read_failures(tmp_path / "failures.csv") == [failure.uri for failure in failed]


def test_lines_for_people_stand_in_columns() -> None:
    """The first column to the left, the others to the right, each as wide as its widest cell."""
    assert cells.aligned([("", "cat"), ("truth", "3"), ("x", "12345")]) == [
        "         cat",
        "truth      3",
        "x      12345",
    ]
