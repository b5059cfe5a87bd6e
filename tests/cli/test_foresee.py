"""`embedstore estimate` and `embedstore plan-labels`: twins of Python, and what they say to do next works."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import run, run_process

from embedstore.store import EmbedStore


@pytest.fixture
def labelled(photo_store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[EmbedStore, Path]:
    """A copy of the store of photographs with a classifier, and a file of 49 labels."""
    shutil.copytree(photo_store.path, tmp_path / "photos.store")
    monkeypatch.chdir(tmp_path)
    store = EmbedStore.open("photos.store")
    store.save_classifier(store.calibrate("bird", "category=bird", name="bird"))
    table = store.to_table(["id", "uri", "category"]).to_pylist()
    rows = sorted(table, key=lambda row: row["uri"])[::5]
    lines = [f"{row['id']},{'yes' if row['category'] == 'bird' else 'no'}" for row in rows]
    Path("labels.csv").write_text("\n".join(["id,label", *lines]) + "\n")
    return store, Path("labels.csv")


def test_estimate_is_the_twin_of_python(labelled: tuple[EmbedStore, Path]) -> None:
    """A classifier's name brings its threshold, words beside it make a query of it; text and JSON are Python's."""
    store, file = labelled
    by_name = store.estimate(store.classifier("bird"), str(file))
    words = ("estimate", "photos.store", "bird", "--label", file)
    assert run(*words).stdout == f"{by_name}\n"
    assert json.loads(run(*words, "--json").stdout) == json.loads(json.dumps(by_name.to_dict()))
    plain = store.estimate("bird", str(file), threshold=0.3, where="width > 100", confidence=0.9)
    asked = ("estimate", "photos.store", "--text", "bird", "--label", file, "--threshold", "0.3")
    assert run(*asked, "--where", "width > 100", "--confidence", "0.9").stdout == f"{plain}\n"


def test_plan_labels_is_the_twin_of_python_and_names_the_next_command(labelled: tuple[EmbedStore, Path]) -> None:
    """The review that it names picks as many rows as the plan asks for."""
    store, file = labelled
    plan = store.plan_labels(store.classifier("bird"), str(file), min_recall=0.7)
    found = run("plan-labels", "photos.store", "bird", "--label", file, "--min-recall", "0.7")
    assert found.stdout == f"{plan}\n"
    assert plan.advice
    next_line = next(line for line in found.stderr.splitlines() if line.startswith("next: embedstore "))
    assert next_line.endswith(f" --near 0 --random {plan.advice} --label labels.csv")
    reviewed = run(*shlex.split(next_line.removeprefix("next: embedstore ")), "-o", "review.csv")
    assert reviewed.exit_code == 0
    assert f"{plan.advice} pictures in review.csv" in reviewed.output
    quiet = run("plan-labels", "photos.store", "bird", "--label", file, "--min-recall", "0.7", "--json", "-q")
    assert json.loads(quiet.stdout) == json.loads(json.dumps(plan.to_dict()))
    assert quiet.stderr == ""


def test_a_plan_for_a_query_without_labels_names_a_review_of_it(labelled: tuple[EmbedStore, Path]) -> None:
    """No classifier and no label is there: the review that is named picks rows, whose labels serve the next plan."""
    asked = ("plan-labels", "photos.store", "a dog", "--min-recall", "0.8", "--most", "50", "--where", "width > 1")
    found = run(*asked)
    next_line = next(line for line in found.stderr.splitlines() if line.startswith("next: embedstore "))
    assert "--near 0 --random" in next_line
    assert next_line.endswith("--where 'width > 1'")
    assert run(*shlex.split(next_line.removeprefix("next: embedstore ")), "-o", "dogs.csv").exit_code == 0
    with open("dogs.csv", newline="") as file:
        rows = [{**row, "label": "no" if number else "yes"} for number, row in enumerate(csv.DictReader(file))]
    with open("dogs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert run("labels", "photos.store", "--import", "dogs.csv").exit_code == 0
    again = json.loads(run(*asked, "--json").stdout)
    assert (again["n_random"], again["n_pos"]) == (len(rows), 1)
    elsewhere = json.loads(run(*asked[:-2], "--json").stdout)
    assert elsewhere["n_random"] == 0
    assert "its rows are of those where width > 1" in elsewhere["notes"][0]


def test_what_means_nothing_is_an_error_in_words_of_the_shell(labelled: tuple[EmbedStore, Path]) -> None:
    """No limit, no query, no labels for an estimate."""
    refused = run("plan-labels", "photos.store", "bird")
    assert refused.exit_code == 1
    assert "--min-precision 0.9 or --min-recall 0.9" in refused.output
    assert run("plan-labels", "photos.store", "--min-recall", "0.7").exit_code == 2
    assert run("estimate", "photos.store", "bird").exit_code == 2


def test_progress_stays_off_where_nobody_looks(labelled: tuple[EmbedStore, Path]) -> None:
    """In a pipe stderr holds the next command and nothing else."""
    done = run_process("plan-labels", "photos.store", "bird", "--label", labelled[1], "--min-recall", "0.7")
    assert done.returncode == 0
    assert [line.split()[:2] for line in done.stderr.splitlines()] == [["next:", "embedstore"]]
