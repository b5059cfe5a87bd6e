"""The figures that a page shows rest on what it says they rest on: weights, rounds, and who chose the threshold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedstore.page.measuring import CHOSEN
from embedstore.page.pictures import SmallPictures
from embedstore.page.session import Session
from embedstore.store import EmbedStore

BIRD = {"terms": [{"text": "bird"}]}
TRUTH = {"column": "category", "value": "bird"}


@pytest.fixture
def session(photo_store: EmbedStore, tmp_path: Path) -> Session:
    store = EmbedStore.open(shutil.copytree(photo_store.path, tmp_path / "p.store"))
    return Session(store, SmallPictures(tmp_path / "small"))


def ask(session: Session, call: str, /, **args: Any) -> dict[str, Any]:
    """Return the plain part of an answer."""
    return dict(json.loads(json.dumps(session.answer(call, args)[0], allow_nan=False)))


def birds(session: Session) -> list[bool]:
    """Tell of each row whether it is a bird."""
    return [value == "bird" for value in session.store.to_table(["category"]).column("category").to_pylist()]


def say(session: Session, number: int, rows: list[int], truth: list[bool], unsure: tuple[int, ...] = ()) -> None:
    """Label rows by the truth, or ? those that are `unsure`."""
    for row in rows:
        answer = "?" if row in unsure else "yes" if truth[row] else "no"
        ask(session, "label", scored=number, row=row, answer=answer)


def picked(session: Session, number: int, threshold: float, near: int, random: int) -> dict[int, str]:
    """Return the rows of the next round, and how each was picked."""
    rows = ask(session, "next", scored=number, threshold=threshold, near=near, random=random)["rows"]
    return {row["row"]: row["picked"] for row in rows}


def curve_of(session: Session, number: int) -> tuple[dict[str, Any], Any, Any, Any]:
    told, buffers = session.answer("measure", {"scored": number})
    return told, *(np.frombuffer(one, "<f8") for one in buffers)


@pytest.mark.parametrize("where", ["", "width >= 200"])
def test_weighted_figures_are_those_of_the_definition(session: Session, where: str) -> None:
    """Of each round: what was known before and its near rows count 1, its random rows 1 / probability; then the mean.

    Rows found by browsing count where a later round knew them, and nowhere else; those that cannot be told nowhere.
    """
    told, buffers = session.answer("score", {"query": BIRD, "where": where})
    number, truth = told["scored"], birds(session)
    scores, rows = np.frombuffer(buffers[0], "<f4"), np.frombuffer(buffers[1], "<u4").tolist()
    before = rows[60:66]
    say(session, number, before, truth)
    first = picked(session, number, 0.45, 4, 9)
    unsure = tuple(list(first)[:2])
    say(session, number, list(first), truth, unsure)
    between = [row for row in rows if row not in first and row not in before][10:14]
    say(session, number, between, truth)
    second = picked(session, number, 0.4, 5, 12)
    say(session, number, list(second), truth)
    after = [row for row in rows if row not in {*before, *first, *between, *second}][:5]
    say(session, number, after, truth)

    known = [len(before), len(before) + len(first) + len(between)]
    rounds = [(first, 9, len(rows) - known[0] - 4), (second, 12, len(rows) - known[1] - 5)]
    weights = dict.fromkeys({*before, *first, *between, *second}, 0.0)
    for earlier, (own, n_random, others) in zip(([*before], [*before, *first, *between]), rounds, strict=True):
        share = n_random / (9 + 12)
        for row, how in own.items():
            weights[row] += share * (others / n_random if how == "random" else 1)
        for row in earlier:
            weights[row] += share
    measured, cuts, tp, fp = curve_of(session, number)
    place = {row: at for at, row in enumerate(rows)}
    for cut in range(len(cuts) + 1):
        limit = cuts[cut - 1] if cut else -np.inf
        above = [row for row in weights if row not in unsure and scores[place[row]] > limit]
        assert tp[cut] == pytest.approx(sum(weights[row] for row in above if truth[row]))
        assert fp[cut] == pytest.approx(sum(weights[row] for row in above if not truth[row]))
    assert (measured["n_labelled"], measured["n_counted"]) == (len(weights) + len(after) - 2, len(weights) - 2)
    assert measured["n_yes_counted"] == sum(truth[row] for row in weights if row not in unsure)


def test_labels_that_cannot_count_are_not_counted(session: Session) -> None:
    """Browsed ones beside a round, and those of a round that waits: it is said how many labels the figures rest on."""
    number, truth = ask(session, "score", query=BIRD, where="")["scored"], birds(session)
    first = picked(session, number, 0.45, 5, 5)
    say(session, number, list(first), truth)
    before = ask(session, "measure", scored=number)
    browsed = [row for row in range(40) if row not in first][:8]
    say(session, number, browsed, truth)
    second = picked(session, number, 0.45, 5, 5)
    say(session, number, list(second)[:3], truth)
    now = ask(session, "measure", scored=number)
    assert {**now, "doubts": [], "source": ""} == {
        **before,
        "doubts": [],
        "source": "",
        "n_labelled": 21,
        "n_yes": sum(truth[row] for row in [*first, *browsed, *list(second)[:3]]),
    }
    assert (now["n_counted"], now["n_yes_counted"]) == (10, sum(truth[row] for row in first))
    assert "round 2 does not count yet: 7 rows have no answer" in now["doubts"][0]
    for _ in range(4):
        ask(session, "undo", scored=number)
    assert ask(session, "measure", scored=number)["doubts"] == []
    for _ in range(9):
        ask(session, "undo", scored=number)
    lost = ask(session, "measure", scored=number)
    assert (lost["measured"], lost["best"]) == (False, None)
    assert "round 1 does not count yet" in lost["why"]


def test_a_round_of_a_condition_counts_there_alone(session: Session) -> None:
    truth = birds(session)
    within = ask(session, "score", query=BIRD, where="width >= 200")["scored"]
    say(session, within, list(picked(session, within, 0.45, 5, 10)), truth)
    assert ask(session, "measure", scored=within)["measured"]
    everywhere = ask(session, "score", query=BIRD, where="")["scored"]
    told = ask(session, "measure", scored=everywhere)
    assert not told["measured"]
    assert "its rows are of those where width >= 200" in told["why"]


def test_who_chose_the_threshold_is_said_beside_the_interval(session: Session) -> None:
    """The intervals are of a threshold that these labels did not choose; where they are exact that is all the same."""
    number, truth = ask(session, "score", query=BIRD, where="")["scored"], birds(session)
    say(session, number, list(picked(session, number, 0.45, 10, 20)), truth)
    best = ask(session, "measure", scored=number)["best"]["threshold"]
    assert CHOSEN in ask(session, "interval", scored=number, threshold=best)["notes"]
    assert CHOSEN not in ask(session, "interval", scored=number, threshold=best - 0.2)["notes"]
    every = ask(session, "measure", scored=number, labels=TRUTH)["best"]["threshold"]
    assert ask(session, "interval", scored=number, labels=TRUTH, threshold=every)["notes"] == []


def test_a_classifiers_own_threshold_is_known_by_its_labels(session: Session) -> None:
    """Calibrated by these labels, or by none: a note says which; elsewhere on the slider there is nothing to say."""
    number, truth = ask(session, "score", query=BIRD, where="")["scored"], birds(session)
    say(session, number, list(picked(session, number, 0.45, 10, 20)), truth)
    made = ask(session, "calibrate", scored=number)
    ask(session, "save", calibrated=made["calibrated"], name="bird")
    again = ask(session, "score", query={"classifier": "bird"}, where="")
    [note] = ask(session, "interval", scored=again["scored"], threshold=again["start"]["threshold"])["notes"]
    assert note.startswith("not held out: the threshold was chosen on these rows")
    assert ask(session, "interval", scored=again["scored"], threshold=0.2)["notes"] == []
    ask(session, "save", scored=number, threshold=0.3, name="by-hand", replace=False)
    by_hand = ask(session, "score", query={"classifier": "by-hand"}, where="")
    [note] = ask(session, "interval", scored=by_hand["scored"], threshold=0.3)["notes"]
    assert note.startswith("the threshold was chosen by no labels; if somebody set it where these labels look best, ")


def test_a_long_query_shares_the_name_of_its_labels(session: Session) -> None:
    """Two that begin alike have their labels together, which each says."""
    long = "a photo of a bird that sits on a branch over a river in the snow"
    numbers = []
    for ending in ("morning", "evening"):
        told = ask(session, "score", query={"terms": [{"text": f"{long} {ending}"}]}, where="")
        assert any("which another query that begins so shares" in doubt for doubt in told["doubts"])
        numbers.append(told["scored"])
    ask(session, "label", scored=numbers[0], row=3, answer="yes")
    assert ask(session, "labels", scored=numbers[1])["yes"] == 1
    assert ask(session, "score", query=BIRD, where="")["doubts"] == []


def test_a_whole_number_of_a_float_column_is_written_as_javascript_does(tmp_path: Path) -> None:
    """3.0 travels as JSON's 3.0 and comes back as 3; a null has no label."""
    store = EmbedStore.create(tmp_path / "s.store", space="mine", dim=2)
    vectors = pa.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], pa.list_(pa.float32()))
    table = pa.table({"id": list("abcd"), "stars": [3.0, None, 2.5, 3.0], "vector": vectors})
    store.add(table, embedding_column="vector")
    session = Session(store)
    number = ask(session, "score", query={"terms": [{"id": "a"}]}, where="")["scored"]
    told = ask(session, "labels", scored=number, labels={"column": "stars", "value": "3"})
    assert (told["yes"], told["no"]) == (2, 1)
    assert ask(session, "labels", scored=number, labels={"column": "stars", "value": "2.5"})["yes"] == 1


@pytest.mark.parametrize("answers", [["yes"] * 3, ["no"] * 3, ["?"] * 3])
@pytest.mark.parametrize("vectors", [[[1.0, 0.0]] * 3, [[1.0, 0.0], [1.0, 1e-4], [0.0, 1.0]]])
def test_labels_of_one_kind_and_scores_that_tie(tmp_path: Path, answers: list[str], vectors: list[Any]) -> None:
    """Nothing breaks, no figure is not a number, and what says little says so."""
    store = EmbedStore.create(tmp_path / "s.store", space="mine", dim=2)
    listed = pa.array(vectors, pa.list_(pa.float32()))
    store.add(pa.table({"id": list("abc"), "vector": listed}), embedding_column="vector")
    session = Session(store)
    told = ask(session, "score", query={"terms": [{"id": "a"}]}, where="")
    number = told["scored"]
    rows = picked(session, number, told["start"]["threshold"], 0, 3)
    for row, answer in zip(rows, answers, strict=True):
        ask(session, "label", scored=number, row=row, answer=answer)
    measured = ask(session, "measure", scored=number)
    assert measured["measured"] is (answers[0] != "?")
    again = ask(session, "score", query={"terms": [{"id": "a"}]}, where="")
    assert np.isfinite(again["start"]["threshold"])
    found = ask(session, "interval", scored=number, threshold=told["start"]["threshold"])
    if measured["measured"]:
        assert measured["warnings"]
        assert all(low <= high for low, high in found["intervals"].values())
    else:
        assert (found["known"], measured["best"]) == (False, None)
