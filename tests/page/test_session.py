"""Every call answers what the library itself does."""

from __future__ import annotations

import csv
import io
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scored_stores import scored_store

from embedstore import cells
from embedstore.deciding import census, label_plan, thresholds
from embedstore.deciding.labels import labels_of_column
from embedstore.errors import (
    ClassifierError,
    ClassifierExistsError,
    FilterError,
    InputError,
    LabelError,
    QueryError,
    UnreachableError,
)
from embedstore.measures.curves import precision_recall
from embedstore.page.pictures import SmallPictures
from embedstore.page.scored_query import ScoredGone, ScoredQuery
from embedstore.page.session import CALLS, Session
from embedstore.searching.queries import Concept, Query
from embedstore.store import EmbedStore

BIRD = {"terms": [{"text": "bird"}]}
TRUTH = {"column": "category", "value": "bird"}


@pytest.fixture
def store(photo_store: EmbedStore, tmp_path: Path) -> EmbedStore:
    """A copy of the photo store, to be written to."""
    return EmbedStore.open(shutil.copytree(photo_store.path, tmp_path / "p.store"))


@pytest.fixture
def session(store: EmbedStore, tmp_path: Path) -> Session:
    return Session(store, SmallPictures(tmp_path / "small"))


def ask(session: Session, call: str, /, **args: Any) -> dict[str, Any]:
    """Return the plain part of an answer, which JSON can hold."""
    result, _ = session.answer(call, args)
    return dict(json.loads(json.dumps(result, allow_nan=False)))


def scored(session: Session, query: Any = BIRD, where: str = "") -> tuple[dict[str, Any], Any, Any]:
    result, buffers = session.answer("score", {"query": query, "where": where})
    return result, np.frombuffer(buffers[0], "<f4"), np.frombuffer(buffers[1], "<u4")


def test_info_says_what_the_store_is(session: Session, store: EmbedStore) -> None:
    """Its rows, columns, classifiers and concepts."""
    found = ask(session, "info")
    assert (found["name"], found["n_rows"], found["version"]) == ("p.store", len(store), store.version)
    assert [column["name"] for column in found["columns"]] == store.columns
    assert found["classifiers"] == []
    assert found["concepts"] == []
    assert all(found["capabilities"].values())


@pytest.mark.parametrize(("words", "where"), [("bird", ""), ("dog", "width > 200"), ("snow", "category <> 'bird'")])
def test_scores_are_those_of_the_library_in_its_order(
    session: Session, store: EmbedStore, words: str, where: str
) -> None:
    """To the bit; the rows stand as in a search of all of them."""
    result, scores, rows = scored(session, {"terms": [{"text": words}]}, where)
    mask = store.mask(where or None)
    brute = store.scores(words)[0]
    assert (scores == brute[rows]).all()
    assert (np.diff(scores) <= 0).all()
    assert sorted(rows.tolist()) == (np.arange(len(store)) if mask is None else np.flatnonzero(mask)).tolist()
    ids = store.to_table(["id"]).column("id").to_pylist()
    assert [ids[row] for row in rows] == store.search(words, k=len(store), where=where or None).id
    assert (result["n"], result["n_rows"], result["high"]) == (len(scores), len(store), float(scores[0]))


def test_equal_scores_stand_by_id(tmp_path: Path) -> None:
    """As everywhere: rows that were added in another order."""
    store = EmbedStore.create(tmp_path / "t.store", space="mine", dim=2)
    vectors = pa.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 4, pa.list_(pa.float32()))
    store.add(pa.table({"id": list("cabgdfe"), "vector": vectors}), embedding_column="vector")
    _, scores, rows = scored(Session(store), {"terms": [{"id": "a"}]})
    ids = store.to_table(["id"]).column("id").to_pylist()
    assert [ids[row] for row in rows] == list("abcdefg")
    assert scores.tolist() == [1.0] * 3 + [0.0] * 4


def test_a_mix_templates_and_opponents(session: Session, store: EmbedStore) -> None:
    """Scored as the library scores the same concept."""
    query = {
        "terms": [{"text": "bird", "weight": 2}, {"text": "snow", "weight": -0.5}],
        "against": ["fish"],
        "template": "a photo of a {}",
    }
    result, scores, rows = scored(session, query)
    mix = Query("mix", ((2.0, Query.text("bird")), (-0.5, Query.text("snow"))), "2:bird - 0.5:snow")
    concept = Concept.of(mix, template="a photo of a {}", opposing=[Query.text("fish")])
    assert (scores == store.reader.concept_scores(concept)[rows]).all()
    assert result["query"] == "2:bird - 0.5:snow against fish"


def test_rows_are_told_with_all_their_columns(session: Session, store: EmbedStore) -> None:
    """In the order asked for, with the score of each."""
    result, scores, rows = scored(session)
    asked = rows[[5, 0, 3]].tolist()
    found = ask(session, "rows", scored=result["scored"], rows=asked)["rows"]
    assert [row["row"] for row in found] == asked
    assert [row["score"] for row in found] == [float(scores[place]) for place in (5, 0, 3)]
    table = store.to_table().to_pylist()
    for row in found:
        there = table[row["row"]]
        assert row["id"] == there["id"]
        assert set(row["values"]) == set(store.columns)
        assert row["values"]["category"] == there["category"]
        assert row["values"]["added_at"] == there["added_at"].isoformat()
    with pytest.raises(InputError, match="at most 500"):
        ask(session, "rows", scored=result["scored"], rows=[0] * 501)
    with pytest.raises(InputError, match="there is no row"):
        ask(session, "rows", scored=result["scored"], rows=[len(store)])


def test_measure_is_the_curve_of_the_library(session: Session, store: EmbedStore) -> None:
    """By a column; and what the best F1 is."""
    result, _, _ = scored(session)
    told, buffers = session.answer("measure", {"scored": result["scored"], "labels": TRUTH})
    labels = [value == "bird" for value in store.to_table(["category"]).column("category").to_pylist()]
    curve = precision_recall(store.scores("bird")[0], labels)
    for buffer, values in zip(buffers, (curve.scores, curve.tp, curve.fp), strict=True):
        assert np.frombuffer(buffer, "<f8").tolist() == values.tolist()
    best = store.sweep("bird", "category=bird").best
    assert best is not None
    assert {name: told["best"][name] for name in ("threshold", "precision", "recall", "f1")} == {
        name: getattr(best, name) for name in ("threshold", "precision", "recall", "f1")
    }
    assert (told["measured"], told["weighted"], told["n_yes"]) == (True, False, sum(labels))
    assert told["average_precision"] == curve.average_precision


def test_without_labels_nothing_is_measured_and_why_is_said(session: Session) -> None:
    """No figure is made up, none is an error."""
    number = scored(session)[0]["scored"]
    told, buffers = session.answer("measure", {"scored": number})
    assert (told["measured"], [len(one) for one in buffers]) == (False, [0, 0, 0])
    assert "no labels of 'bird'" in told["why"]
    known = ask(session, "interval", scored=number, threshold=0.4)
    assert (known["known"], known["intervals"]) == (False, {})
    with pytest.raises(LabelError, match="nothing is labelled yet"):
        ask(session, "calibrate", scored=number)
    with pytest.raises(LabelError, match="no column"):
        session.answer("labels", {"scored": number, "labels": {"column": "none", "value": "x"}})


def test_labels_open_no_file(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would read a text that names one."""
    (tmp_path / "category=secret.csv").write_text("id,label\nx,yes\n")
    monkeypatch.chdir(tmp_path)
    number = scored(session)[0]["scored"]
    with pytest.raises(LabelError, match=r"no row has category=secret\.csv"):
        session.answer("labels", {"scored": number, "labels": {"column": "category", "value": "secret.csv"}})
    for labels in (
        "category=secret.csv",
        ["a.csv"],
        {"column": "category"},
        {"x": True},
        5,
        {"column": 1, "value": "a"},
    ):
        with pytest.raises(InputError, match="labels must be null"):
            session.answer("measure", {"scored": number, "labels": labels})


def label_all(session: Session, number: int, rows: list[dict[str, Any]], truth: list[bool]) -> None:
    for one in rows:
        ask(session, "label", scored=number, row=one["row"], answer="yes" if truth[one["row"]] else "no")


def test_a_round_is_picked_labelled_and_measured(session: Session, store: EmbedStore) -> None:
    """Its rows are open in the store's log, keep how they were picked, and the figures are the library's."""
    number = scored(session)[0]["scored"]
    truth = [value == "bird" for value in store.to_table(["category"]).column("category").to_pylist()]
    first = ask(session, "next", scored=number, threshold=0.45, near=5, random=15)
    assert (first["round"], first["left"], len(first["rows"])) == (1, 20, 20)
    history = store.labels("bird")
    assert sorted(history.answers.tolist()) == [""] * 20
    assert sorted(history.picked.tolist()) == ["near"] * 5 + ["random"] * 15
    again = ask(session, "next", scored=number, threshold=0.45)
    assert again["rows"] == [{**row, "reason": "not answered yet"} for row in first["rows"]]
    label_all(session, number, first["rows"][:19], truth)
    left = ask(session, "next", scored=number, threshold=0.45)
    assert [row["row"] for row in left["rows"]] == [first["rows"][19]["row"]]
    assert not ask(session, "measure", scored=number)["measured"]
    answered = ask(session, "label", scored=number, row=first["rows"][19]["row"], answer="no")
    assert (answered["picked"], answered["counts"]["open"]) == (first["rows"][19]["picked"], 0)

    measured, buffers = session.answer("measure", {"scored": number})
    swept = store.sweep("bird", store.labels("bird"))
    assert swept.curve is not None
    assert (measured["measured"], measured["weighted"]) == (True, True)
    assert np.frombuffer(buffers[1], "<f8").tolist() == swept.curve.tp.tolist()
    assert measured["n"] == pytest.approx(len(store))
    told = ask(session, "interval", scored=number, threshold=0.5)
    there = census.estimate(store.reader, "bird", store.labels("bird"), threshold=0.5)
    assert told["known"]
    assert told["intervals"] == {name: list(pair) for name, pair in there.intervals.items()}
    assert (told["n_random"], told["positives"]) == (there.n_random, there.positives)
    assert ask(session, "next", scored=number, threshold=0.45)["round"] == 2


def test_a_label_that_was_found_counts_as_found(session: Session, store: EmbedStore) -> None:
    """It is `search`, measures nothing by itself, and is taken back by undo; the log keeps all."""
    number = scored(session)[0]["scored"]
    assert ask(session, "undo", scored=number)["undone"] is None
    for row, answer in ((3, "yes"), (4, "?"), (3, "no")):
        assert ask(session, "label", scored=number, row=row, answer=answer)["picked"] == "search"
    told, buffers = session.answer("labels", {"scored": number})
    assert [np.frombuffer(one, kind).tolist() for one, kind in zip(buffers, ("<u4", "u1", "u1"), strict=True)] == [
        [3, 4],
        [0, 2],
        [3, 3],
    ]
    assert told["picked"] == {"given": 0, "random": 0, "near": 0, "search": 2}
    assert not ask(session, "measure", scored=number)["measured"]
    undone = ask(session, "undo", scored=number)
    assert undone["undone"] == {"rows": [3], "round": False}
    assert undone["counts"] == {"yes": 1, "no": 0, "unsure": 1, "open": 0}
    for _ in range(2):
        ask(session, "undo", scored=number)
    assert store.labels("bird").lines == ()
    assert ask(session, "info")["concepts"] == []


def test_a_round_can_be_taken_back(session: Session, store: EmbedStore) -> None:
    """As one event."""
    number = scored(session)[0]["scored"]
    picked = ask(session, "next", scored=number, threshold=0.45, near=2, random=3)
    undone = ask(session, "undo", scored=number)["undone"]
    assert undone["round"]
    assert sorted(undone["rows"]) == sorted(row["row"] for row in picked["rows"])


def test_labels_of_a_column_are_those_of_the_library(session: Session, store: EmbedStore) -> None:
    """All given; within the condition of the query."""
    number = scored(session, where="width > 200")[0]["scored"]
    told, buffers = session.answer("labels", {"scored": number, "labels": TRUTH})
    there = labels_of_column(store.rows, "category", "bird").within(store.rows, "width > 200")
    assert np.frombuffer(buffers[0], "<u4").tolist() == there.positions.tolist()
    assert np.frombuffer(buffers[1], "u1").astype(bool).tolist() == there.values.tolist()
    assert (told["yes"], told["picked"]["given"]) == (int(there.values.sum()), len(there))


def test_what_goes_over_all_labels_takes_turns(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curve, intervals and labels are asked for together; each takes memory by the million rows, so one at a time."""
    number = scored(session)[0]["scored"]
    at_work, most = [], []
    truth = ScoredQuery.for_library

    def looked(query: ScoredQuery, wanted: Any) -> Any:
        at_work.append(wanted)
        most.append(len(at_work))
        time.sleep(0)  # another thread's turn, if it may
        found = truth(query, wanted)
        at_work.pop()
        return found

    monkeypatch.setattr(ScoredQuery, "for_library", looked)
    asked = {"scored": number, "labels": TRUTH, "threshold": 0.4}
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: session.answer("interval", asked)[0], range(24)))
    assert max(most) == 1
    assert all(one == told[0] for one in told)


def test_the_plan_is_that_of_the_library(session: Session, store: EmbedStore) -> None:
    """Number for number."""
    number = scored(session)[0]["scored"]
    told = ask(session, "plan", scored=number, labels=TRUTH, min_precision=0.8)
    there = label_plan.plan_labels(store.reader, "bird", "category=bird", min_precision=0.8)
    assert {**told, "words": ""} == {**json.loads(json.dumps(there.to_dict())), "words": ""}
    assert told["words"] == str(there)
    with pytest.raises(InputError, match="say what is to be certified"):
        ask(session, "plan", scored=number)


@pytest.mark.parametrize(
    "wishes",
    [
        {},
        {"objective": "f2"},
        {"min_precision": 0.7, "objective": "recall", "guarantee": False},
        {"cost": {"fp": 1, "fn": 5}},
    ],
)
def test_calibrate_is_that_of_the_library(session: Session, store: EmbedStore, wishes: dict[str, Any]) -> None:
    """Threshold, figures and intervals; and what is saved is what the library reads."""
    number = scored(session)[0]["scored"]
    told = ask(session, "calibrate", scored=number, labels=TRUTH, **wishes)
    if "cost" in wishes:
        wishes = {"objective": "cost", **wishes}
    there = thresholds.calibrate(store.reader, "bird", "category=bird", **wishes)
    assert told["threshold"] == there.threshold
    figures = {name: (value, pair) for name, value, pair in told["figures"]}
    for name in ("precision", "recall", "f1"):
        assert figures[name] == (there.target.figures[name], list(there.target.intervals[name]))
    assert (told["objective"], told["constraints"]) == (there.objective, there.constraints)
    saved = ask(session, "save", calibrated=told["calibrated"], name="my birds")
    assert saved == {"name": "my birds", "threshold": there.threshold, "measured": True}
    kept = store.classifier("my birds")
    assert kept.to_dict() | {"name": "", "created_at": ""} == there.to_dict() | {"name": "", "created_at": ""}
    assert (kept.scores_in(store.reader)[0] == store.scores("bird")[0]).all()


def test_a_limit_out_of_reach_is_an_error(session: Session) -> None:
    """Which says how near one comes."""
    number = scored(session)[0]["scored"]
    with pytest.raises(UnreachableError):
        ask(session, "calibrate", scored=number, labels=TRUTH, min_precision=0.999, min_recall=0.999)


def test_a_threshold_nobody_measured_can_be_saved(session: Session, store: EmbedStore) -> None:
    """It says so, and takes no name that is taken unless it is told to."""
    number = scored(session, {"terms": [{"text": "bird"}], "against": ["fish"]})[0]["scored"]
    assert ask(session, "save", scored=number, threshold=0.1, name="b") == {
        "name": "b",
        "threshold": 0.1,
        "measured": False,
    }
    kept = store.classifier("b")
    assert kept.target.opposing == ("fish",)
    assert not kept.n
    with pytest.raises(ClassifierExistsError, match="'b'"):
        ask(session, "save", scored=number, threshold=0.2, name="b")
    ask(session, "save", scored=number, threshold=0.2, name="b", replace=True)
    assert store.classifier("b").threshold == 0.2
    for name in ("../b", "", "a/b", ".b"):
        with pytest.raises(ClassifierError, match="cannot name a classifier"):
            ask(session, "save", scored=number, threshold=0.2, name=name)


def test_a_saved_classifier_is_asked_by_name(session: Session, store: EmbedStore) -> None:
    """With its own threshold, and can be calibrated anew without losing what it looks for."""
    query = {"terms": [{"text": "bird"}, {"text": "penguin"}], "against": ["fish"]}
    ask(session, "save", scored=scored(session, query)[0]["scored"], threshold=0.25, name="b")
    before = store.classifier("b")
    result, scores, rows = scored(session, {"classifier": "b"})
    assert result["start"]["threshold"] == 0.25
    assert result["classifier"]["name"] == "b"
    assert (scores == before.scores_in(store.reader)[0][rows]).all()
    told = ask(session, "calibrate", scored=result["scored"], labels=TRUTH)
    ask(session, "save", calibrated=told["calibrated"], name="c")
    after = store.classifier("c")
    assert (after.target.queries, after.target.opposing) == (before.target.queries, before.target.opposing)
    assert np.allclose(after.vectors, before.vectors, atol=1e-6)
    found = ask(session, "classify", query={"classifier": "c"})
    assert found["n"] == len(store.classify(after))
    listed = ask(session, "classifiers")["classifiers"]
    assert [(one["name"], one["classes"][0]["threshold"]) for one in listed] == [("b", 0.25), ("c", told["threshold"])]
    assert ask(session, "suggest", scored=result["scored"])["words"]


def test_one_class_of_several(session: Session, store: EmbedStore) -> None:
    """Is named; without that the error says which there are."""
    made = thresholds.calibrate_classes(store.reader, {"bird": "bird", "fish": "fish"}, "category", name="both")
    store.save_classifier(made)
    result, scores, rows = scored(session, {"classifier": "both", "class": "fish"})
    assert (scores == made.of_class("fish").scores_in(store.reader)[0][rows]).all()
    assert result["concept"] == "fish"
    with pytest.raises(ClassifierError, match="bird, fish"):
        scored(session, {"classifier": "both"})
    with pytest.raises(ClassifierError, match="no class"):
        scored(session, {"classifier": "both", "class": "dog"})


def test_a_classifier_that_cannot_be_read_hides_no_other(session: Session, store: EmbedStore) -> None:
    """It is listed with why."""
    ask(session, "save", scored=scored(session)[0]["scored"], threshold=0.25, name="b")
    (store.folder.classifiers / "broken.json").write_text("{")
    listed = ask(session, "classifiers")["classifiers"]
    assert [one["name"] for one in listed] == ["b", "broken"]
    assert "is not JSON" in listed[1]["error"]


def test_search_and_classify_are_those_of_the_library(session: Session, store: EmbedStore) -> None:
    """Rows, order and scores."""
    found = ask(session, "search", query=BIRD, k=7, where="width > 100")["rows"]
    there = store.search("bird", k=7, where="width > 100")
    assert [(row["id"], row["score"]) for row in found] == list(zip(there.id, there.score.tolist(), strict=True))
    told = ask(session, "classify", query=BIRD, threshold=0.4, limit=3)
    matches = store.classify("bird", 0.4)
    assert (told["n"], [row["id"] for row in told["rows"]]) == (len(matches), matches.id[:3])
    assert ask(session, "search", query=BIRD, threshold=2)["rows"] == []


def test_an_export_is_the_table_of_the_library(session: Session, store: EmbedStore) -> None:
    """In each of the formats."""
    number = scored(session)[0]["scored"]
    table = store.classify("bird", 0.4).table
    files = {}
    for form in ("csv", "jsonl", "parquet"):
        told, [content] = session.answer("export", {"scored": number, "threshold": 0.4, "format": form})
        assert (told["name"], told["n"]) == (f"bird.{form}", len(table))
        files[form] = bytes(content)
    assert pq.read_table(io.BytesIO(files["parquet"])).equals(table)
    assert [json.loads(line)["id"] for line in files["jsonl"].decode().splitlines()] == table.column("id").to_pylist()
    lines = list(csv.DictReader(io.StringIO(files["csv"].decode(), newline="")))
    assert [cells.read(line["uri"]) for line in lines] == table.column("uri").to_pylist()
    assert [np.float32(line["score"]) for line in lines] == table.column("score").to_pylist()
    nothing, [content] = session.answer("export", {"scored": number, "threshold": 2, "format": "csv"})
    assert (nothing["n"], bytes(content).count(b"\n")) == (0, 1)


def test_where_to_look_first(session: Session, store: EmbedStore, tmp_path: Path) -> None:
    """A gap; labels, once there are some; else few rows above."""
    swept = store.sweep("bird")
    assert swept.gap is not None
    result, _, _ = scored(session)
    assert result["start"]["threshold"] == swept.gap.threshold
    told = ask(session, "suggest", scored=result["scored"])
    assert told["words"] == swept.suggestion
    assert (told["floor"], told["gap"]["threshold"]) == (swept.floor, swept.gap.threshold)
    truth = [value == "bird" for value in store.to_table(["category"]).column("category").to_pylist()]
    picked = ask(session, "next", scored=result["scored"], threshold=0.45, near=10, random=30)
    label_all(session, result["scored"], picked["rows"], truth)
    best = store.sweep("bird", store.labels("bird")).best
    assert best is not None
    again = scored(session)[0]["start"]
    assert (again["threshold"], again["why"]) == (best.threshold, "the best F1 on 40 labelled rows")
    plain = EmbedStore.create(tmp_path / "flat.store", space="mine", dim=2)
    angles = np.linspace(0, 1.5, 400)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    table = pa.table({"id": [f"{n:03}" for n in range(400)], "vector": pa.array(list(vectors), pa.list_(pa.float32()))})
    plain.add(table, embedding_column="vector")
    first, scores, _ = scored(Session(plain), {"terms": [{"id": "000"}]})
    assert int((scores > first["start"]["threshold"]).sum()) == 20


def test_what_the_page_keeps_is_bounded_and_told(session: Session) -> None:
    """The seventeenth query pushes the first out, the one used last stays."""
    first = scored(session)[0]["scored"]
    second = scored(session)[0]["scored"]
    for _ in range(15):
        scored(session)
        ask(session, "rows", scored=second, rows=[0])
    with pytest.raises(ScoredGone, match="score it again"):
        ask(session, "rows", scored=first, rows=[0])
    ask(session, "rows", scored=second, rows=[0])


def test_a_scored_query_keeps_its_version(session: Session, store: EmbedStore, pictures: Path) -> None:
    """Rows that came later are there after a refresh, in queries of then."""
    number = scored(session)[0]["scored"]
    other = EmbedStore.open(store.path)
    other.add(pictures)
    assert scored(session)[0]["n_rows"] == 242
    assert ask(session, "refresh")["n_rows"] == 254
    assert scored(session)[0]["n_rows"] == 254
    with pytest.raises(InputError, match="242"):
        ask(session, "rows", scored=number, rows=[250])


@pytest.mark.parametrize("name", ["nothing", "_info", "answer", "__init__", "", "store"])
def test_a_call_that_is_none(session: Session, name: str) -> None:
    """Only those of the list are calls."""
    with pytest.raises(InputError, match="there is no call"):
        session.answer(name)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_arguments_that_are_none(session: Session, name: str) -> None:
    """Each call refuses what it does not know, and what is no object."""
    with pytest.raises(InputError, match="has no argument"):
        session.answer(name, {"nothing": 1})
    for args in ([], "x", 5):
        with pytest.raises(InputError, match="expected an object"):
            session.answer(name, args)


@pytest.mark.parametrize("wrong", [None, "x", -1, 1.5, True, 2**70, [], float("nan"), float("inf"), 10**400])
def test_values_of_wrong_kinds(session: Session, wrong: Any) -> None:
    """In every argument of every call: an error of ours or, where null means nothing given, an answer."""
    number = scored(session)[0]["scored"]
    usual = {"scored": number, "query": BIRD, "threshold": 0.4, "row": 1, "rows": [1], "answer": "yes", "name": "n"}
    for name, arguments in CALLS.items():
        for argument in arguments:
            if name in ("plan", "calibrate", "picture"):
                continue
            args = {one: usual[one] for one in arguments if one in usual} | {argument: wrong}
            try:
                result, _ = session.answer(name, args)
            except (InputError, ClassifierError, ScoredGone):
                continue
            json.dumps(result, allow_nan=False)


def test_a_condition_that_is_none_is_told(session: Session) -> None:
    """As in the library: no file is read by it either."""
    for where in ("no", "x =", "uri in (select * from read_csv('/etc/passwd'))", "1; drop table x"):
        with pytest.raises(FilterError):
            scored(session, where=where)


def test_a_text_is_never_a_path(session: Session, photo_store: EmbedStore) -> None:
    """A file of that name is not opened."""
    uri = photo_store.to_table(["uri"]).column("uri")[0].as_py()
    _, scores, _ = scored(session, {"terms": [{"text": uri}], "against": [uri]})
    assert (scores == 0).all()
    assert scored(session, {"terms": [{"text": uri}]})[0]["high"] < 0.99
    with pytest.raises(QueryError, match="no record with the id"):
        scored(session, {"terms": [{"id": uri}]})


def test_a_store_of_ones_own_vectors(tmp_path: Path) -> None:
    """Is asked by ids; a text says what is missing."""
    store = scored_store(tmp_path / "own.store", 3)
    session = Session(store)
    assert not ask(session, "info")["capabilities"]["picture"]
    result, scores, rows = scored(session, {"terms": [{"id": "3-7"}]}, "kind = 'yes'")
    assert (scores == store.scores(Query.id("3-7"))[0][rows]).all()
    told = ask(session, "measure", scored=result["scored"], labels={"column": "kind", "value": "yes"})
    assert told["n_yes"] == told["n"] == len(scores)
    with pytest.raises(LookupError, match="no embedder here"):
        scored(session, BIRD)


def test_an_empty_store(tmp_path: Path) -> None:
    """Has no rows, and no call fails for that but those that need one."""
    session = Session(EmbedStore.create(tmp_path / "e.store", model="objects"))
    result, scores, rows = scored(session)
    number = result["scored"]
    assert (len(scores), len(rows), result["low"]) == (0, 0, None)
    assert ask(session, "suggest", scored=number)["threshold"] is None
    assert ask(session, "rows", scored=number, rows=[])["rows"] == []
    assert not ask(session, "measure", scored=number)["measured"]
    assert ask(session, "next", scored=number, threshold=0)["rows"] == []
    assert ask(session, "search", query=BIRD)["rows"] == []
    assert ask(session, "export", scored=number, threshold=0)["n"] == 0


def test_threads_may_share_a_session(session: Session, store: EmbedStore) -> None:
    """Labels of several threads are all kept, queries are not mixed up."""
    number = scored(session)[0]["scored"]
    start = threading.Barrier(6)

    def work(worker: int) -> float:
        start.wait(60)
        for row in range(worker * 5, worker * 5 + 5):
            ask(session, "label", scored=number, row=row, answer="yes" if row % 2 else "no")
        return float(scored(session, {"terms": [{"text": f"bird {worker}"}]})[0]["high"])

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, range(6)))
    assert found == [float(store.scores(f"bird {worker}").max()) for worker in range(6)]
    told = ask(session, "labels", scored=number)
    assert (told["yes"], told["no"]) == (15, 15)


def test_a_store_that_can_only_be_read(photo_store: EmbedStore, tmp_path: Path) -> None:
    """Nothing is written into it by looking: not a byte, not a time."""
    copy = Path(shutil.copytree(photo_store.path, tmp_path / "p.store"))

    def state() -> list[tuple[str, int, int]]:
        return sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in copy.rglob("*"))

    session = Session(EmbedStore.open(copy), SmallPictures(tmp_path / "small"))
    scored(session)  # the query's vector may be kept
    before = state()
    number = scored(session)[0]["scored"]
    ask(session, "rows", scored=number, rows=[1, 2])
    ask(session, "thumbnail", scored=number, row=1)
    ask(session, "measure", scored=number, labels=TRUTH)
    ask(session, "export", scored=number, threshold=0.4)
    assert state() == before


def test_a_text_without_a_known_word_is_doubted(session: Session) -> None:
    """As the library warns of it."""
    assert scored(session)[0]["doubts"] == []
    [doubt] = scored(session, {"terms": [{"text": "qwxzv"}]})[0]["doubts"]
    assert "no known word in 'qwxzv'" in doubt
