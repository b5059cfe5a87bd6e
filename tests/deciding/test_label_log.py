"""The labels that a store keeps: what is added is there, and can be taken back; nothing is told twice or made up."""

from __future__ import annotations

import csv
import logging
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import save_picture

import embedstore
from embedstore import cells
from embedstore.deciding import label_log, thresholds
from embedstore.deciding.classifier import Classifier
from embedstore.deciding.label_lines import table_of
from embedstore.deciding.labels import labels_for
from embedstore.deciding.review import ScoredRows
from embedstore.deciding.rounds import NO, OPEN, UNSURE, YES, History, Label
from embedstore.deciding.target import Target
from embedstore.errors import DamagedStoreError, InputError, LabelError, NoLabelsError
from embedstore.store import EmbedStore


@pytest.fixture
def photos(photo_store: EmbedStore, tmp_path: Path) -> EmbedStore:
    """A copy of the photo store, to be labelled."""
    return EmbedStore.open(shutil.copytree(photo_store.path, tmp_path / "p.store"))


def bird(store: EmbedStore, threshold: float = 0.45) -> Classifier:
    return Classifier("bird", store.space, (Target("bird", threshold, store.query_vectors(["bird"])[0]),))


def truth_of(store: EmbedStore) -> dict[str, bool]:
    """Whether each row is a bird, by id."""
    return {row["id"]: row["category"] == "bird" for row in store.to_table(["id", "category"]).to_pylist()}


def labelled(file: Path, truth: dict[str, bool], leave: int = 0) -> list[dict[str, str]]:
    """Answer all lines of a review's CSV as the truth is, but for the last `leave`; return the lines."""
    with file.open(newline="") as stream:
        lines = [{name: cells.read(cell) for name, cell in row.items()} for row in csv.DictReader(stream)]
    for number, line in enumerate(lines):
        line["label"] = ("yes" if truth[line["id"]] else "no") if number < len(lines) - leave else ""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    return lines


def review(store: EmbedStore, file: Path, near: int = 8, random: int = 12, leave: int = 0) -> list[dict[str, str]]:
    """Write a review and answer it."""
    ScoredRows.of(store.reader, bird(store)).to_label(near, random, over=file).save_csv(file)
    return labelled(file, truth_of(store), leave)


def test_rounds_gather_in_the_store_and_stand_for_all_of_it(photos: EmbedStore, tmp_path: Path) -> None:
    """Two rounds, imported: no row twice, the second is round 2, and the weights of the labels count every row once."""
    first = review(photos, tmp_path / "one.csv")
    assert photos.add_labels(tmp_path / "one.csv") == [label_log.Batch("bird", 20, 0)]
    second = review(photos, tmp_path / "two.csv", 5, 10)
    assert {line["round"] for line in second} == {"2"}
    assert not {line["id"] for line in first} & {line["id"] for line in second}
    photos.add_labels(str(tmp_path / "two.csv"))
    found = labels_for(photos.rows, photos.labels("bird"))
    assert len(found) == 35
    assert found.weights is not None
    assert found.random is not None
    assert found.weights.sum() == pytest.approx(len(photos))
    assert found.random.sum() >= 22
    truth = truth_of(photos)
    ids = photos.to_table(["id"]).column("id").to_pylist()
    assert found.values.tolist() == [truth[ids[row]] for row in found.positions.tolist()]
    by_file = labels_for(photos.rows, [tmp_path / "one.csv", tmp_path / "two.csv"])
    assert by_file.weights is not None
    assert by_file.weights.tolist() == found.weights.tolist()
    assert by_file.random is not None
    assert by_file.random.tolist() == found.random.tolist()


def test_what_is_known_is_not_written_again_and_a_correction_is(photos: EmbedStore, tmp_path: Path) -> None:
    """Importing a file twice adds nothing; another answer in it counts from then on, and the row keeps its round."""
    file = tmp_path / "one.csv"
    lines = review(photos, file, leave=3)
    assert photos.add_labels(file) == [label_log.Batch("bird", 17, 3)]
    assert photos.add_labels(file) == [label_log.Batch("bird", 0, 0)]
    with pytest.raises(LabelError, match="3 rows have no answer"):
        labels_for(photos.rows, photos.labels("bird")).to_measure()
    labelled(file, truth_of(photos) | {lines[0]["id"]: lines[0]["label"] == "no"})
    assert photos.add_labels(file) == [label_log.Batch("bird", 4, 0)]
    history = photos.labels("bird")
    assert history.contradictions == 1
    assert history.answers[history.rows[lines[0]["id"]]] == (YES if lines[0]["label"] == "no" else NO)
    weights = labels_for(photos.rows, history).to_measure().weights
    assert weights is not None
    assert weights.sum() == pytest.approx(len(photos))


def test_the_last_that_came_is_taken_back_first(photos: EmbedStore, tmp_path: Path) -> None:
    """One import at a time, also of one concept among several, until none is left; the next review asks again."""
    lines = review(photos, tmp_path / "one.csv")
    photos.add_labels(tmp_path / "one.csv")
    photos.add_labels({lines[0]["id"]: True}, "flower")
    photos.add_labels({lines[1]["id"]: lines[1]["label"] == "no"}, "bird", picked="search")
    assert photos.undo_labels("flower") == label_log.Batch("flower", 1)
    assert photos.undo_labels() == label_log.Batch("bird", 1)
    assert label_log.concepts(photos.reader.ledger) == ["bird"]
    assert photos.undo_labels() == label_log.Batch("bird", 20)
    assert photos.undo_labels() is None
    assert photos.labels("bird").lines == ()
    again = review(photos, tmp_path / "again.csv")
    assert again == [{**line, "at": again[0]["at"]} for line in lines]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_an_export_comes_back_whole(photos: EmbedStore, tmp_path: Path, ending: str) -> None:
    """Into another copy of the store: the same answers, weights and random part, of every concept."""
    lines = review(photos, tmp_path / "one.csv")
    photos.add_labels({lines[3]["id"]: True, lines[4]["id"]: False}, "flower", picked="search")
    photos.add_labels(tmp_path / "one.csv")
    photos.add_labels({lines[5]["id"]: lines[5]["label"] == "no"}, "bird")
    review(photos, tmp_path / "two.csv", leave=2)
    photos.add_labels(tmp_path / "two.csv")
    table, file = table_of(label_log.histories(photos.reader.ledger)), tmp_path / f"all{ending}"
    if ending == ".csv":
        file.write_text(
            "".join(cells.line(row) for row in [table.column_names, *zip(*table.to_pydict().values(), strict=True)])
        )
    else:
        pq.write_table(table, file)
    other = EmbedStore.open(shutil.copytree(photos.path, tmp_path / "other.store"))
    while other.undo_labels():
        pass
    other.add_labels(file)
    for concept in ("bird", "flower"):
        here, there = (labels_for(one.rows, one.labels(concept)) for one in (photos, other))
        assert there.positions.tolist() == here.positions.tolist()
        assert there.values.tolist() == here.values.tolist()
        if concept == "bird":
            assert np.array_equal(there.weights, here.weights, equal_nan=True)
            assert there.random.tolist() == here.random.tolist()
            assert (here.history.answers == OPEN).sum() == (there.history.answers == OPEN).sum() == 2
        assert (there.picked is None) == (here.picked is None)


def test_the_stores_own_labels_are_used_where_none_are_given(
    photos: EmbedStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By calibrate, evaluate and rank, for the concept of the query's name, which is said; else an error says how."""
    reader = photos.reader
    asks = (
        lambda: photos.calibrate("bird"),
        lambda: photos.evaluate(bird(photos)),
        lambda: thresholds.rank(reader, ["bird"]),
    )
    for ask in asks:
        with pytest.raises(NoLabelsError, match=r"no labels of 'bird'.*embedstore review"):
            ask()
    review(photos, tmp_path / "one.csv", 20, 40)
    photos.add_labels(tmp_path / "one.csv")
    with caplog.at_level(logging.WARNING):
        made = photos.calibrate("bird")
    assert "by the store's own labels of 'bird': 60 rows" in caplog.text
    assert made.n == 60
    figures = photos.evaluate(made).metrics["bird"]
    assert f"about {figures.tp:,.0f}  about" in str(photos.evaluate(made))
    own = labels_for(photos.rows, photos.labels("bird"))
    scores = photos.scores("bird")[0][own.positions].astype(np.float64)
    assert own.weights is not None
    assert figures.tp == pytest.approx(own.weights[(scores > made.threshold) & own.values].sum())
    assert figures.fp == pytest.approx(own.weights[(scores > made.threshold) & ~own.values].sum())
    assert [row["query"] for row in thresholds.rank(reader, ["flower", "bird"])] == ["bird", "flower"]
    with pytest.raises(NoLabelsError, match=r"no labels of 'birds'; it has some of bird.* Did you mean 'bird'"):
        photos.calibrate("birds")


def test_labels_are_counted_where_their_rows_are(
    photos: EmbedStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that was removed, and one of which a person cannot tell, are no labels in what is said of them."""
    review(photos, tmp_path / "one.csv", 20, 40)
    photos.add_labels(tmp_path / "one.csv")
    ids = list(photos.labels("bird").rows)
    photos.remove([ids[0]])
    (tmp_path / "unsure.csv").write_text(f"id,label,picked,probability,round\n{ids[1]},?,given,,\n", encoding="utf-8")
    photos.add_labels(tmp_path / "unsure.csv", "bird")
    with caplog.at_level(logging.WARNING):
        made = photos.calibrate("bird")
    assert made.n == 58
    assert "by the store's own labels of 'bird': 58 rows" in caplog.text
    assert made.labelled == "the store's 58 labels of 'bird'"


def test_rounds_are_of_the_rows_that_were_there(photos: EmbedStore, tmp_path: Path) -> None:
    """A store that has lost a quarter of its rows since says so; the next round, of what is left, is weighed anew."""
    review(photos, tmp_path / "one.csv")
    photos.add_labels(tmp_path / "one.csv")
    assert labels_for(photos.rows, photos.labels("bird")).doubts == ()
    known = {line.row for line in photos.labels("bird").lines}
    unknown = [name for name in photos.to_table(["id"]).column("id").to_pylist() if name not in known]
    photos.remove(unknown[:60])
    [doubt] = labels_for(photos.rows, photos.labels("bird")).doubts
    assert doubt.startswith("the rounds were picked of 242 rows, and there are 182 now")
    review(photos, tmp_path / "two.csv")
    photos.add_labels(tmp_path / "two.csv")
    found = labels_for(photos.rows, photos.labels("bird"))
    assert found.doubts == ("round 1 counts no more: it was picked of 242 rows, the last of 182",)
    assert found.weights is not None
    assert found.weights.sum() == pytest.approx(182)


def test_a_row_that_is_gone_holds_no_round_up(photos: EmbedStore, tmp_path: Path) -> None:
    """Open rows that were removed can never be answered: the round counts without them."""
    lines = review(photos, tmp_path / "one.csv", leave=2)
    photos.add_labels(tmp_path / "one.csv")
    history = photos.labels("bird")
    assert "2 rows have no answer" in label_log.doubts(history, photos.rows)[0]
    photos.remove([line["id"] for line in lines[-2:]])
    assert label_log.doubts(photos.labels("bird"), photos.rows) == ()
    assert len(labels_for(photos.rows, photos.labels("bird")).to_measure()) == 18


def test_a_round_of_a_condition_measures_there_alone(photos: EmbedStore, tmp_path: Path) -> None:
    """Calibrated under the same condition its weights count the rows that are kept; without, there are no figures."""
    where, file = "id < '9'", tmp_path / "one.csv"
    ScoredRows.of(photos.reader, bird(photos), where=where).to_label(8, 40).save_csv(file)
    labelled(file, truth_of(photos))
    photos.add_labels(file)
    kept = photos.mask(where)
    assert kept is not None
    assert 60 < kept.sum() < len(photos)
    for history in (photos.labels("bird"), file):
        found = labels_for(photos.rows, history).within(photos.rows, where)
        assert found.weights is not None
        assert found.weights.sum() == pytest.approx(kept.sum())
        with pytest.raises(LabelError, match=f"its rows are of those where {where}"):
            labels_for(photos.rows, history).to_measure()
    assert photos.calibrate("bird", where=where).targets[0].metrics["tp"] > 0
    everywhere = photos.calibrate("bird")
    assert "tp" not in everywhere.targets[0].metrics
    assert any("round 1 does not count" in warning for warning in everywhere.warnings)


def test_a_label_is_of_the_picture_that_was_looked_at(store: EmbedStore, pictures: Path, tmp_path: Path) -> None:
    """When a file is another picture by now its row has no label, and is asked for again; the others keep theirs."""
    ids = store.to_table(["id", "uri"]).to_pylist()
    store.add_labels({row["id"]: True for row in ids}, "cat")
    changed = Path(ids[3]["uri"])
    save_picture(changed, 999)
    store.add(pictures, label_from_folder=True)
    assert {row["id"] for row in store.to_table(["id"]).to_pylist()} == {row["id"] for row in ids}
    kept = {line.row for line in store.labels("cat").lines}
    assert kept == {row["id"] for row in ids} - {ids[3]["id"]}
    assert len(labels_for(store.rows, store.labels("cat"))) == 11
    target = Target("cat", 0.4, store.query_vectors(["cat"])[0])
    rows = ScoredRows.of(store.reader, Classifier("cat", store.space, (target,)))
    assert rows.to_label(5, 5).table.column("id").to_pylist() == [ids[3]["id"]]
    assert store.add_labels({ids[3]["id"]: True}, "cat") == [label_log.Batch("cat", 1)]
    assert len(store.labels("cat").lines) == 12


def test_labels_say_what_they_are_of(photos: EmbedStore, tmp_path: Path) -> None:
    """Without a concept they are refused, and so are those that say another; so is a way of picking that is none."""
    lines = review(photos, tmp_path / "one.csv")
    with pytest.raises(LabelError, match="do not say what they are of"):
        photos.add_labels({lines[0]["id"]: True})
    with pytest.raises(LabelError, match="are of 'bird', not of 'flower'"):
        photos.add_labels(tmp_path / "one.csv", "flower")
    with pytest.raises(InputError, match="picked must be one of"):
        photos.add_labels({lines[0]["id"]: True}, "bird", picked="chance")
    assert label_log.concepts(photos.reader.ledger) == []


def test_counts_are_those_of_the_last_answers(photos: EmbedStore, tmp_path: Path) -> None:
    """By round and pick, with rows that cannot be told and open ones; rows that were removed are not counted."""
    lines = review(photos, tmp_path / "one.csv", 6, 10, leave=2)
    photos.add_labels(tmp_path / "one.csv")
    unsure = next(line for line in lines if line["label"])
    file = tmp_path / "unsure.csv"
    file.write_text(f"concept,id,label,picked\nbird,{unsure['id']},?,given\n")
    photos.add_labels(file)
    removed = next(line for line in lines if line["label"] and line["id"] != unsure["id"])
    photos.remove([removed["id"]])
    found = label_log.counts([photos.labels("bird")], photos.rows).to_pylist()
    assert [(row["concept"], row["round"], row["picked"]) for row in found] == [
        ("bird", 1, "near"),
        ("bird", 1, "random"),
    ]
    unsure["label"] = "?"
    lines.remove(removed)
    for row in found:
        told = [line["label"] for line in lines if line["picked"] == row["picked"]]
        expected = [told.count(word) for word in ("yes", "no", "?", "")]
        assert [row[name] for name in ("yes", "no", "cannot_tell", "open")] == expected
    assert photos.labels("bird").answers.tolist().count(UNSURE) == 1


def test_a_repair_keeps_every_label_that_is_sound(photos: EmbedStore, tmp_path: Path) -> None:
    """A label whose bytes were changed is named by verify, refused by calibrate and set aside by repair; no other."""
    lines = review(photos, tmp_path / "one.csv")
    photos.add_labels(tmp_path / "one.csv")
    ledger = photos.reader.ledger.path
    with sqlite3.connect(ledger) as db:
        db.execute("UPDATE labels SET answer = 'yes' WHERE row = ?", (lines[7]["id"],))
    before = photos.verify()
    assert [problem for problem in before.problems if "of labels does not fit its checksum" in problem]
    with pytest.raises(DamagedStoreError, match=r"embedstore repair STORE"):
        photos.calibrate("bird")
    photos = EmbedStore.open(photos.path)
    report = embedstore.repair(photos.path)
    assert any("labels must be given again" in lost for lost in report.lost)
    assert photos.verify().ok
    kept = {line.row: line.answer for line in photos.labels("bird").lines}
    assert kept == {line["id"]: line["label"] for line in lines if line["id"] != lines[7]["id"]}
    assert photos.add_labels(tmp_path / "one.csv") == [label_log.Batch("bird", 1)]
    assert labels_for(photos.rows, photos.labels("bird")).to_measure().weights.sum() == pytest.approx(len(photos))


def test_a_history_is_added_as_it_is(photos: EmbedStore) -> None:
    """A round that nobody has answered yet, an answer that cannot be told; what is undone is named."""
    rows = photos.to_table(["id"]).column("id").to_pylist()[:3]
    round_ = tuple(Label(row, OPEN, "random", 0.1, 1, "", "2026-01-01T00:00:00+00:00") for row in rows)
    [batch] = photos.add_labels(History("bird", round_))
    assert (batch.answered, batch.open, batch.rows) == (0, 3, tuple(rows))
    assert [line[:7] for line in photos.labels("bird").lines] == [line[:7] for line in round_]
    answered = (round_[0]._replace(answer=YES), Label(rows[1], UNSURE, "search"))
    assert photos.add_labels(History("bird", answered)) == [label_log.Batch("bird", 2)]
    assert photos.labels("bird").picked.tolist() == ["random"] * 3
    assert photos.labels("bird").answers.tolist() == [YES, UNSURE, OPEN]
    undone = photos.undo_labels("bird")
    assert undone is not None
    assert undone.rows == (rows[0], rows[1])
