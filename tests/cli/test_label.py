"""The commands for who labels: what goes out is filled in, comes in, is counted, and can be taken back."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run

from embedstore.deciding.labels import labels_for
from embedstore.store import EmbedStore


@pytest.fixture
def calibrated(photo_store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbedStore:
    """A copy of the photo store that keeps the classifier 'bird', in the folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photo_store.path, "p.store")
    assert run("calibrate", "p.store", "bird", "--label", "category=bird", "--name", "bird").exit_code == 0
    return EmbedStore.open("p.store")


def fill(file: str = "review.csv", leave: int = 0) -> None:
    """Answer the lines of a review, but for the last ones, as a person does."""
    with open(file, newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows[: len(rows) - leave]:
        row["label"] = "yes" if "/bird/" in row["uri"] else "no"
    with open(file, "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_review_fill_in_import_calibrate(calibrated: EmbedStore, caplog: pytest.LogCaptureFixture) -> None:
    """The way that the commands themselves point out, two rounds long: each says the next step, and that step works."""
    asked = run("review", "p.store", "bird", "--near", 10, "--random", 30)
    assert "then: embedstore labels p.store --import review.csv" in asked.stderr
    fill()
    brought = run("labels", "p.store", "--import", "review.csv")
    assert brought.exit_code == 0
    assert "bird: 40 new labels" in brought.stderr
    assert "undo it with: embedstore labels p.store --undo" in brought.stderr
    second = run("review", "p.store", "bird", "--near", 5, "--random", 15, "-o", "two.csv")
    assert "20 pictures in two.csv" in second.stderr
    fill("two.csv")
    assert "bird: 20 new labels" in run("labels", "p.store", "--import", "two.csv").stderr
    made = run("calibrate", "p.store", "bird", "--name", "mine")
    assert made.exit_code == 0
    assert "by the store's own labels of 'bird': 60 rows" in caplog.text
    assert calibrated.classifier("mine").n == 60
    for name, *more in (("evaluate",), ("plot", "-o", "a.png"), ("report", "-o", "a.html"), ("review", "--mistakes")):
        caplog.clear()
        result = run(name, "p.store", "mine", *more)
        assert result.exit_code == 0, result.stderr
        assert "the store's own labels" in caplog.text


def test_labels_are_listed_by_round_and_pick(calibrated: EmbedStore) -> None:
    """A table for people, the same numbers as JSON; what holds a round up is said; an empty store says the way."""
    assert "embedstore review p.store NAME" in run("labels", "p.store").stderr
    run("review", "p.store", "bird", "--near", 4, "--random", 6)
    fill(leave=3)
    assert "bird: 7 new labels; 3 rows have no answer yet" in run("labels", "p.store", "--import", "review.csv").stderr
    result = run("labels", "p.store", "--json")
    rows = json.loads(result.stdout)
    assert [(row["concept"], row["round"], row["picked"]) for row in rows] == [
        ("bird", 1, "near"),
        ("bird", 1, "random"),
    ]
    assert sum(row["yes"] + row["no"] for row in rows) == 7
    assert sum(row["open"] for row in rows) == 3
    shown = run("labels", "p.store", "bird")
    assert shown.stdout.splitlines()[0].split() == ["concept", "round", "picked", "yes", "no", "cannot", "tell", "open"]
    assert "bird: round 1 does not count yet: 3 rows have no answer" in shown.stderr
    assert run("labels", "p.store", "birds").exit_code == 1
    assert "Did you mean 'bird'" in run("labels", "p.store", "birds").stderr


def test_labels_go_out_come_back_and_are_taken_back(calibrated: EmbedStore) -> None:
    """Export, undo, import: as before; a file of somebody else is left alone."""
    run("labels", "p.store", "bird", "--import", "category=bird", "--picked", "random")
    before = labels_for(calibrated.rows, calibrated.labels("bird"))
    assert before.picked is not None
    assert set(before.picked) == {"random"}
    assert run("labels", "p.store", "--export", "all.csv").exit_code == 0
    assert "bird: 242 labels taken back" in run("labels", "p.store", "--undo").stderr
    assert "no labels are left" in run("labels", "p.store", "--undo").stderr
    assert run("calibrate", "p.store", "bird").exit_code == 2
    assert "bird: 242 new labels" in run("labels", "p.store", "--import", "all.csv").stderr
    after = labels_for(calibrated.rows, calibrated.labels("bird"))
    assert after.values.tolist() == before.values.tolist()
    assert "the store knew all of it" in run("labels", "p.store", "--import", "all.csv").stderr
    Path("mine.csv").write_text("my own work\n")
    assert run("labels", "p.store", "--export", "mine.csv").exit_code == 1
    assert Path("mine.csv").read_text() == "my own work\n"


def test_several_labels_add_up(calibrated: EmbedStore) -> None:
    """--label twice takes both; once kept the last alone."""
    ids = calibrated.to_table(["id", "category"]).to_pylist()
    for name, some in (("one", ids[:100]), ("two", ids[100:])):
        lines = "".join(f"{row['id']},{'yes' if row['category'] == 'bird' else 'no'}\n" for row in some)
        Path(f"{name}.csv").write_text(f"id,label\n{lines}")
    words = ("calibrate", "p.store", "bird", "--label", "one.csv", "--label", "two.csv", "--name", "both")
    assert run(*words).exit_code == 0
    assert calibrated.classifier("both").n == 242
    assert calibrated.classifier("both").threshold == calibrated.classifier("bird").threshold


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("--import", "a.csv", "--undo"), 2, "three different things"),
        (("--picked", "random"), 2, "--picked needs --import"),
        (("--import", "category=bird"), 1, "name it: CONCEPT"),
        (("bird", "--import", "none.csv"), 1, "none.csv"),
        (("--export", "a.txt"), 2, "should end in one of .csv .parquet"),
    ],
)
def test_what_cannot_be_done_with_labels_is_said(
    calibrated: EmbedStore, words: tuple[str, ...], status: int, says: str
) -> None:
    """In one line, with what to do instead."""
    result = run("labels", "p.store", *words)
    assert result.exit_code == status
    assert says in result.stderr


def test_labels_can_begin_with_nothing(calibrated: EmbedStore) -> None:
    """A query and a score are enough for the first sheet; what is labelled there calibrates the query."""
    asked = run("review", "p.store", "vehicle", "--threshold", 0.4, "--near", 30, "--random", 40)
    assert asked.exit_code == 0, asked.stderr
    with open("review.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    scores = calibrated.scores("vehicle")[0].astype(np.float64)
    ids = np.array(calibrated.to_table(["id"]).column("id").to_pylist())
    near = np.argsort(np.abs(scores - 0.4), kind="stable")[:30]
    assert {row["id"] for row in rows if row["picked"] == "near"} == set(ids[near])
    for row in rows:
        row["label"] = "yes" if "/vehicle/" in row["uri"] else "no"
    with open("review.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert "vehicle: 70 new labels" in run("labels", "p.store", "--import", "review.csv").stderr
    assert run("calibrate", "p.store", "vehicle").exit_code == 0
    moved = run("review", "p.store", "bird", "--threshold", 0.3, "-o", "moved.csv")
    assert moved.exit_code == 0
    assert "keeps no classifier 'brid'" in run("review", "p.store", "brid").stderr
