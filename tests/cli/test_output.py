"""How results are printed: every format tells the library's answer, unrounded, and columns line up for people."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run

from embedstore.cli.output import Column, columns
from embedstore.store import EmbedStore


def test_json_rows_are_the_librarys_rows_unrounded(photo_store: EmbedStore) -> None:
    """Every float32 score reads back as the same float32."""
    found = photo_store.search("bird", k=7)
    rows = json.loads(run("search", photo_store.path, "bird", "-n", 7, "--json").stdout)
    assert [row["id"] for row in rows] == found.id
    assert np.array_equal(np.array([row["score"] for row in rows], np.float32), found.score)


def test_every_format_tells_the_same(photo_store: EmbedStore, tmp_path: Path) -> None:
    """JSON, JSON lines, CSV, TSV, Parquet, Arrow and bare paths hold the same rows in the same order."""
    found = photo_store.search("bird", k=5)
    ask = ("search", photo_store.path, "bird", "-n", 5)
    lines = [json.loads(line) for line in run(*ask, "--nl").stdout.splitlines()]
    assert [row["uri"] for row in lines] == found.uri
    for flag, delimiter in (("--csv", ","), ("--tsv", "\t")):
        table = list(csv.DictReader(io.StringIO(run(*ask, flag).stdout), delimiter=delimiter))
        assert [row["id"] for row in table] == found.id
        assert [np.float32(row["score"]) for row in table] == list(found.score)
    assert run(*ask, "-f").stdout.splitlines() == found.uri
    assert run(*ask, "-f", "-0").stdout == "".join(f"{uri}\0" for uri in found.uri)
    for suffix in (".parquet", ".arrow", ".csv", ".tsv", ".jsonl", ".json"):
        file = tmp_path / f"out{suffix}"
        assert run(*ask, "-o", file).exit_code == 0
        assert _ids(file) == found.id
    assert _ids(tmp_path / "out.parquet") == found.id


def _ids(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return pq.read_table(file).column("id").to_pylist()
    if file.suffix == ".arrow":
        return pa.ipc.open_file(file).read_all().column("id").to_pylist()
    text = file.read_text()
    if file.suffix == ".json":
        return [row["id"] for row in json.loads(text)]
    if file.suffix == ".jsonl":
        return [json.loads(line)["id"] for line in text.splitlines()]
    return [row["id"] for row in csv.DictReader(io.StringIO(text), delimiter="\t" if file.suffix == ".tsv" else ",")]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """A million pushes no line out of its column; numbers stand to the right, and a missing value is empty."""
    rows = [{"n": 1_234_567, "name": "a", "x": 0.5}, {"n": 7, "name": None, "x": -0.25}]
    shown = (Column("n", ",", "rows"), Column("name", head="name"), Column("x", ".2f", "x"))
    assert list(columns(rows, shown)) == [
        "     rows  name      x",
        "1,234,567  a      0.50",
        "        7        -0.25",
    ]
    assert list(columns(rows, [Column("name"), Column("n")])) == ["a  1234567", "         7"]
    assert list(columns([], shown)) == ["rows  name  x"]
    assert list(columns(pa.table({"x": [1.0], "y": [2.0]}), [Column("y", ".1f")])) == ["2.0"]


SAYS_WHETHER_PANDAS = (
    "import sys\nfrom embedstore.cli import main\ntry: main(sys.argv[1:])\n"
    "except SystemExit as end: print(end.code, 'pandas' in sys.modules, file=sys.stderr)"
)


@pytest.mark.parametrize("form", ["-q", "--json", "--csv", ""])
@pytest.mark.parametrize("words", [("sweep", "bird"), ("versions",), ("rank", "bird", "--label", "category=bird")])
def test_figures_need_no_pandas(photo_store: EmbedStore, words: tuple[str, ...], form: str) -> None:
    """Neither for people nor as JSON or CSV: to import pandas takes longer than a sweep."""
    words = (words[0], str(photo_store.path), *words[1:], *form.split())
    command = [sys.executable, "-c", SAYS_WHETHER_PANDAS, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "0 False", done.stderr
    assert bool(done.stdout) == (form != "-q")


def test_rows_without_pictures_have_no_paths(photo_store: EmbedStore) -> None:
    """-f where nothing has a uri is wrong usage."""
    result = run("versions", photo_store.path, "-f")
    assert result.exit_code == 2
    assert "no column 'uri'" in result.stderr


def test_sweeps_are_written_to_every_kind_of_file(photo_store: EmbedStore, tmp_path: Path) -> None:
    """Figures that are no table of the store come out unrounded, with their types."""
    expected = photo_store.sweep("bird").table(n=4)
    for suffix in (".parquet", ".json", ".csv"):
        file = tmp_path / f"sweep{suffix}"
        assert run("sweep", photo_store.path, "bird", "-n", 4, "-o", file).exit_code == 0
    assert pq.read_table(tmp_path / "sweep.parquet").to_pylist() == expected
    assert json.loads((tmp_path / "sweep.json").read_text()) == expected
    with (tmp_path / "sweep.csv").open() as file:
        assert [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)] == expected


def test_a_file_that_cannot_be_written_is_one_line(photo_store: EmbedStore, tmp_path: Path) -> None:
    """A folder that is not there: exit status 1 and its name, no traceback."""
    result = run("search", photo_store.path, "bird", "-o", tmp_path / "nowhere" / "x.csv")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "nowhere" in result.stderr
