"""Matches written as a folder of Parquet files: the rows of `classify`, whole or not at all; no file of others lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run
from filelock import FileLock

from embedstore.deciding import evaluation, match_parts, thresholds
from embedstore.errors import InputError, NotOursError, PathError
from embedstore.searching.queries import Concept, Query
from embedstore.store import EmbedStore

ROWS, DIM = 900, 8
QUERY, OTHER = Query.vector(np.eye(DIM)[0]), Query.vector(np.eye(DIM)[1])
ORDER = [("score", "descending"), ("id", "ascending")]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> EmbedStore:
    """A store of three parts; some of its vectors stand in it twice, so that scores tie."""
    store = EmbedStore.create(tmp_path_factory.mktemp("parts") / "s.store", space="mine", dim=DIM)
    random = np.random.default_rng(3)
    for number in range(3):
        rows = random.standard_normal((ROWS // 3, DIM)).astype(np.float32)
        rows[::7] = rows[1]
        names = [f"{number}-{row}" for row in random.permutation(len(rows))]
        kinds = np.where(rows[:, 0] > 1, "first", np.where(rows[:, 1] > 1, "second", "none"))
        vectors = pa.array(list(rows / np.linalg.norm(rows, axis=1, keepdims=True)), pa.list_(pa.float32()))
        columns = {"id": names, "kind": kinds, "width_of": random.integers(0, 9, len(rows)), "vector": vectors}
        store.add(pa.table(columns), embedding_column="vector", progress=False)
    assert len(store.snapshot.parts) == 3
    return store


def read(folder: Path) -> pa.Table:
    """Read a folder as anybody would, all of its files at once."""
    return pq.read_table(folder)


@pytest.mark.parametrize("query", [QUERY, Concept.of(QUERY, opposing=[OTHER])])
@pytest.mark.parametrize("where", [None, "width_of < 4"])
def test_the_files_hold_the_rows_of_classify(opened: EmbedStore, tmp_path: Path, query: Any, where: str | None) -> None:
    """Same columns, types and values; each file in the order of an answer; DuckDB reads the same."""
    told = opened.write_matches(tmp_path / "m", query, 0.2, where)
    expected = opened.classify(query, 0.2, where).table
    assert read(tmp_path / "m").sort_by(ORDER).equals(expected.combine_chunks())
    assert (told.matches, told.files) == (len(expected), 3)
    assert told.images == (ROWS if where is None else int(opened.mask(where).sum()))
    for file in (tmp_path / "m").glob("*.parquet"):
        table = pq.read_table(file)
        assert table.equals(table.sort_by(ORDER))
    counted = duckdb.sql(f"select count(distinct id), sum(score) from '{tmp_path}/m/*.parquet'").fetchall()
    assert counted == [(len(expected), pytest.approx(expected.column("score").to_numpy().sum(dtype=np.float64)))]


@pytest.mark.parametrize("mode", ["argmax", "multi-label"])
def test_several_classes_are_written_as_they_are_predicted(opened: EmbedStore, tmp_path: Path, mode: Any) -> None:
    """The rows of `evaluation.predict`, and how many are of each class."""
    queries = {"first": QUERY, "second": OTHER}
    kinds = thresholds.calibrate_classes(opened.reader, queries, "kind", name="kinds", mode=mode, resamples=0)
    told = opened.write_matches(tmp_path / "m", kinds)
    expected = evaluation.predict(opened.reader, kinds)
    by = [("id", "ascending"), ("predicted", "ascending")]
    assert read(tmp_path / "m").sort_by(by).equals(expected.sort_by(by))
    labels = expected.column("predicted").to_pylist()
    assert told.by_class == {label: labels.count(label) for label in ("first", "second")}
    with pytest.raises(InputError, match="a threshold for each class"):
        opened.write_matches(tmp_path / "n", kinds, 0.3)


def test_a_classifier_of_one_class_brings_its_threshold(opened: EmbedStore, tmp_path: Path) -> None:
    """Its own by default, another where one is given; a query needs one."""
    classifier = opened.calibrate(QUERY, "kind=first", resamples=0)
    assert opened.write_matches(tmp_path / "m", classifier).matches == len(opened.classify(classifier))
    assert opened.write_matches(tmp_path / "n", classifier, 0.5).matches == opened.count(QUERY, 0.5)
    with pytest.raises(InputError, match="needs a threshold"):
        opened.write_matches(tmp_path / "o", QUERY)


def test_an_earlier_answer_is_replaced_and_nothing_else(opened: EmbedStore, tmp_path: Path) -> None:
    """An empty folder is taken, an own one replaced; one with another file in it, or changed, is refused and stays."""
    folder = tmp_path / "m"
    folder.mkdir()
    opened.write_matches(folder, QUERY, 0.2)
    told = opened.write_matches(folder, QUERY, 2.0)
    assert (told.matches, told.files) == (0, 0)
    assert [file.name for file in folder.iterdir()] == [match_parts.NOTE]
    opened.write_matches(folder, QUERY, 0.2)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(NotOursError, match="holds what embedstore did not write"):
        opened.write_matches(folder, QUERY, 0.9)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before | {"mine.txt": b"mine"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_what_fails_half_way_leaves_the_earlier_answer(
    opened: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error after the first file: the folder is as before, and nothing lies beside it."""
    opened.write_matches(tmp_path / "m", QUERY, 0.2)
    before = {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()}
    write = match_parts.write_rows

    def fail_later(table: pa.Table, file: Path) -> None:
        if "000000000000" not in file.name:
            raise OSError(28, "No space left on device", str(file))
        write(table, file)

    monkeypatch.setattr(match_parts, "write_rows", fail_later)
    with pytest.raises(OSError, match="No space left"):
        opened.write_matches(tmp_path / "m", QUERY, 0.1)
    assert {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_what_another_has_begun_is_left_out(
    opened: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file, as a worker that was killed leaves it, is no part of the answer."""
    write = match_parts.write_rows

    def and_half_of_it(table: pa.Table, file: Path) -> None:
        write(table, file)
        file.with_name(f".half.{file.name}").write_bytes(file.read_bytes()[:100])

    monkeypatch.setattr(match_parts, "write_rows", and_half_of_it)
    told = opened.write_matches(tmp_path / "m", QUERY, 0.2)
    files = [file.name for file in (tmp_path / "m").iterdir()]
    assert len(files) == told.files + 1
    assert len(read(tmp_path / "m")) == told.matches


def test_a_folder_that_cannot_be_made_is_said_before_the_work(opened: EmbedStore, tmp_path: Path) -> None:
    """The folder that it lies in is not there, or a file has the name."""
    with pytest.raises(PathError, match="is not there"):
        opened.write_matches(tmp_path / "no" / "m", QUERY, 0.2)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotOursError):
        opened.write_matches(tmp_path / "file", QUERY, 0.2)


def test_the_command_prints_how_many(opened: EmbedStore, tmp_path: Path) -> None:
    """For people and for programs; options that need the rows here are refused."""
    words = ("classify", opened.path, "--id", "0-5", "--threshold", "0.3", "--output-folder", tmp_path / "m")
    matches = len(opened.classify(Query.id("0-5"), 0.3))
    shown = run(*words)
    assert shown.exit_code == 0
    assert shown.stdout.startswith(
        f"{matches:,} of 900 images match 'id 0-5' above 0.3000\nwritten to {tmp_path}/m in 3"
    )
    told = json.loads(run(*words, "--json").stdout)
    assert (told["matches"], told["images"], told["files"], told["threshold"]) == (matches, ROWS, 3, 0.3)
    note = json.loads((tmp_path / "m" / match_parts.NOTE).read_text())
    assert sum(note["rows"].values()) == matches
    for place in (tmp_path / "no" / "m", tmp_path / ("n" * 300)):
        refused = run(*words[:-1], place)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert place.name[:200] in refused.stderr
    for more in (("--csv",), ("--force",), ("-o", tmp_path / "rows.csv"), ("--sheet", tmp_path / "s.png")):
        refused = run(*words, *more)
        assert refused.exit_code == 2
        assert "--output-folder writes the matches and prints how many" in refused.output


def test_what_a_killed_run_has_left_goes_with_the_next(opened: EmbedStore, tmp_path: Path) -> None:
    """A folder that another still writes stays, and so does what has another name or is no folder of ours."""
    abandoned, held = tmp_path / ".m.0123abcd", tmp_path / ".m.4567ef01"
    kept = [tmp_path / name for name in (".m.backup", ".m.89abcdef", ".mm.0123abcd")]
    for folder in (abandoned, held, *kept):
        folder.mkdir()
    for folder in (abandoned, held, kept[0], kept[2]):
        (folder / match_parts._HELD).touch()
    with FileLock(held / match_parts._HELD):
        opened.write_matches(tmp_path / "m", QUERY, 0.2)
    assert set(tmp_path.iterdir()) == {tmp_path / "m", held, *kept}
    note = json.loads((tmp_path / "m" / match_parts.NOTE).read_text(encoding="utf-8"))
    assert list(note["sizes"]) == sorted(path.name for path in (tmp_path / "m").iterdir() if path.suffix == ".parquet")


def test_a_link_leads_to_the_folder_that_is_replaced(opened: EmbedStore, tmp_path: Path) -> None:
    """Also where nothing is there yet; the link stays."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "m")
    for threshold in (0.2, 0.3):
        told = opened.write_matches(link, QUERY, threshold)
        assert pq.read_table(tmp_path / "m").num_rows == told.matches > 0
    assert link.is_symlink()
    assert set(tmp_path.iterdir()) == {link, tmp_path / "m"}
