"""How results are printed: every format tells the library's answer, unrounded, and columns line up for people."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import commands, run
from conftest import save_picture

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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("versions", "-f"), "No such option '-f'"),
        (("sweep", "bird", "-f"), "No such option '-f'"),
        (("rank", "bird", "--label", "category=bird", "-f"), "No such option '-f'"),
        (("export", "--columns", "id", "-f"), "no column 'uri'"),
        (("search", "bird", "--json", "--csv"), "--json and --csv are two forms"),
        (("search", "bird", "--tsv", "-f", "--nl"), "--nl and --tsv and -f are two forms"),
        (("info", "--nl", "--json"), "--json and --nl are two forms"),
        (("search", "bird", "-0"), "-0 ends the paths of -f; add -f"),
        (("export", "-0", "--csv"), "-0 ends the paths of -f; add -f"),
        (("search", "bird", "--json", "-o", "x.csv"), "--json and -o are two forms"),
        (("export", "-f", "-o", "x.csv"), "-f and -o are two forms"),
    ],
)
def test_flags_that_contradict_each_other_are_wrong_usage(
    photo_store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    """Paths of what has none, two forms at once, an ending of nothing: exit status 2, and nothing is done."""
    monkeypatch.chdir(tmp_path)
    result = run(words[0], photo_store.path, *words[1:])
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert list(tmp_path.iterdir()) == []


ODD = {"a\nb.png": r"'a'$'\n''b.png'", "t\tt.png": r"'t'$'\t''t.png'", "e\x1b[2J.png": r"'e'$'\033''[2J.png'"}


def test_names_that_break_lines_are_quoted_for_people_only(tmp_path: Path) -> None:
    """A row is a line in what people see, also of a failure; JSON, CSV, files, -f and -0 have the names as they are."""
    folder, path = tmp_path / "p", tmp_path / "s.store"
    for number, name in enumerate(ODD):
        save_picture(folder / name, number)
    (folder / "bro\nken.png").write_text("no picture")
    added = run("add", path, folder, "--model", "objects")
    assert r"  failed: '" + str(folder) + r"/bro'$'\n''ken.png': " in added.stdout
    assert added.stdout.count("\n") == 3
    uris = {str(folder / name) for name in ODD}
    shown = run("search", path, "dog").stdout.splitlines()
    assert {line.split("  ")[-1] for line in shown} == {f"'{folder}/{text[1:]}" for text in ODD.values()}
    exported = run("export", path, "--columns", "id,uri").stdout.splitlines()
    assert [line.count("\t") for line in exported] == [1] * 4
    assert {row["uri"] for row in json.loads(run("search", path, "dog", "--json").stdout)} == uris
    assert {row["uri"] for row in csv.DictReader(io.StringIO(run("search", path, "dog", "--csv").stdout))} == uris
    paths = run("search", path, "dog", "-f")
    assert set(paths.stdout.removesuffix("\n").split(f"\n{tmp_path}")) >= {f"/p/{name}" for name in list(ODD)[1:2]}
    assert "1 path holds a line break: with -0 each ends in a NUL instead" in paths.stderr
    with_nul = run("search", path, "dog", "-f", "-0")
    assert set(with_nul.stdout.split("\0")) == {*uris, ""}
    assert "line break" not in with_nul.stderr


def test_one_is_said_as_one(tmp_path: Path) -> None:
    """What is counted is never `1 parts`, in any report on a store of one picture."""
    save_picture(tmp_path / "p" / "a.png", 1)
    path = tmp_path / "s.store"
    said = run("add", path, tmp_path / "p", "--model", "objects", "--dry-run").output
    said += run("add", path, tmp_path / "p", "--model", "objects").output
    for words in (
        ("info",),
        ("verify", "--deep"),
        ("compact",),
        ("search", "dog"),
        ("export", "-o", tmp_path / "e.csv"),
    ):
        said += run(words[0], path, *words[1:]).output
    assert "1 picture file in" in said
    assert "1 image in 1 part" in said
    assert "1 of 1 image, nearest to 'dog' first" in said
    assert "1 row written to" in said
    assert re.findall(r"\b1 \w+s\b", said.replace("0.1 s", "")) == []
    assert repr(EmbedStore.open(path).search("dog")).startswith("1 match for 'dog'\n")


WRITTEN = [
    *((name, "--sheet", ".png", ".jpg .jpeg") for name in ("search", "classify", "count", "review")),
    *((name, "-o", ".parquet", ".csv .tsv .jsonl .json .arrow") for name in ("search", "classify", "export", "sweep")),
    *((name, "-o", ".parquet", ".csv .tsv .jsonl .json .arrow") for name in ("rank", "versions", "labels")),
    ("review", "-o", ".csv", ""),
    ("carry", "-o", ".csv", ""),
    ("plot", "-o", ".png", ".svg .pdf"),
    ("plot --kind boundary", "-o", ".png", ".jpg .jpeg"),
    ("report", "-o", ".html", ".htm"),
]
"""Every option that names a file to write: command, option, the endings."""


def test_no_option_that_writes_a_file_is_forgotten() -> None:
    """All of them are `file_option`s, and tried below."""
    found = {
        (name, option.opts[0])
        for name, command in commands().items()
        for option in command.params
        if isinstance(option, click.Option) and {"-o", "--sheet"} & set(option.opts)
    }
    assert found == {(name.split()[0], option) for name, option, *_ in WRITTEN}


@pytest.mark.parametrize(("name", "option", "ending", "others"), WRITTEN)
def test_a_file_to_write_is_looked_at_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, option: str, ending: str, others: str
) -> None:
    """Wrong endings and missing folders are said before it is even noticed that there is no store."""
    monkeypatch.chdir(tmp_path)
    command, *more = name.split()
    asked = [] if command in ("export", "versions") else ["dog"]
    asked += ["--threshold", "0.3"] if command in ("classify", "count") else []
    asked += ["--to", "other.store"] if command == "carry" else []
    asked += ["--label", "a=b"] if command in ("rank", "plot", "report") else []
    words = [command, "no.store", *asked, *more]
    wrong = run(*words, option, "x.gif")
    assert wrong.exit_code == 2
    known = f"one of {ending} {others}" if others else ending
    assert f"'x.gif' should end in {known}\n" in wrong.stderr
    lost = run(*words, option, f"no/such/x{ending}")
    assert lost.exit_code == 1
    folder = tmp_path / "no" / "such"
    assert lost.stderr == (
        f"error: no/such/x{ending}: the folder {folder} is not there; make it first, or choose another path\n"
    )
    assert "no.store" in run(*words, option, f"x{ending}").stderr
    assert list(tmp_path.iterdir()) == []


def test_versions_have_a_head(photo_store: EmbedStore) -> None:
    """What stands in a column is said above it."""
    lines = run("versions", photo_store.path).stdout.splitlines()
    assert lines[0].split() == ["version", "made", "by"]
    assert len(lines) == len(photo_store.versions()) + 1


def test_a_query_in_json_is_the_text_itself(photo_store: EmbedStore) -> None:
    """No quotes of Python within those of JSON."""
    count = json.loads(run("count", photo_store.path, "bird", "--threshold", 0.4, "--json").stdout)
    assert count["query"] == "bird"
    ranked = json.loads(run("rank", photo_store.path, "it's", "bird", "--label", "category=bird", "--json").stdout)
    assert {row["query"] for row in ranked} == {"it's", "bird"}


def test_search_says_how_many_of_how_many(photo_store: EmbedStore) -> None:
    """On stderr, as `classify` does, also when there are none, and that -n has held some back."""
    total = len(photo_store)
    ask = ("search", photo_store.path, "bird")
    assert run(*ask).stderr == f"10 of {total} images, nearest to 'bird' first\n"
    assert run(*ask, "--threshold", 2).stderr == f"0 of {total} images match 'bird' above 2.0000\n"
    assert run(*ask, "--threshold", 0.4, "-n", 2).stderr == (
        f"2 of {total} images match 'bird' above 0.4000; -n 2 shows no more\n"
    )
    assert run(*ask, "-q").stderr == ""


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
