"""Rows to look at next, and errors by rank."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedstore import cells
from embedstore.deciding import review
from embedstore.deciding.classifier import Classifier
from embedstore.deciding.review import ScoredRows, boundary, errors_of
from embedstore.deciding.rounds import pick, random_order
from embedstore.deciding.target import Target
from embedstore.errors import ClassifierError, NotOursError
from embedstore.store import EmbedStore

SCORES = np.random.default_rng(0).normal(0.06, 0.01, 500).astype(np.float32)


def test_errors_come_worst_first():
    """False positives are all that match and should not, highest first; false negatives the reverse."""
    labels = np.random.default_rng(1).random(500) < 0.5
    wrong, missed = errors_of(SCORES, labels, 0.06)
    matched = SCORES.astype(np.float64) > 0.06
    assert set(wrong) == set(np.flatnonzero(matched & ~labels))
    assert set(missed) == set(np.flatnonzero(~matched & labels))
    assert (np.diff(SCORES[wrong]) <= 0).all()
    assert (np.diff(SCORES[missed]) >= 0).all()


def test_boundary_shows_both_sides():
    """Around the threshold half the rows match and half do not, as far as there are any."""
    shown = boundary(SCORES, 0.06, 10)
    assert (SCORES[shown] > 0.06).tolist() == [True] * 5 + [False] * 5
    assert len(boundary(SCORES, 1.0, 10)) == 10
    assert len(boundary(SCORES, -1.0, 10)) == 10
    assert boundary([0.1, 0.2], 0.15, 10).tolist() == [1, 0]


def with_threshold(store: EmbedStore, threshold: float) -> Classifier:
    return Classifier("bird", store.space, (Target("bird", threshold, store.query_vectors(["bird"])[0]),))


def test_a_review_decides_as_exactly_as_the_classifier(photo_store: EmbedStore) -> None:
    """A row whose score exceeds the threshold by less than float32 can tell is shown as the match that it is."""
    score = float(np.sort(photo_store.scores("bird")[0])[-20])
    classifier = with_threshold(photo_store, float(np.nextafter(score, -1)))
    shown = ScoredRows.of(photo_store.reader, classifier).around(40).table.to_pylist()
    assert {row["id"] for row in shown if row["reason"] == "match"} == set(photo_store.classify(classifier).id)
    assert [row["reason"] for row in shown] == ["match"] * 20 + ["no match"] * 20


def test_a_review_knows_the_labels_and_its_mistakes(photo_store: EmbedStore) -> None:
    """Labelled rows keep their label and are not asked for; the mistakes are all rows decided wrongly."""
    labels = np.array(photo_store.to_table(["category"]).column("category").to_pylist()) == "bird"
    scores = photo_store.scores("bird")[0]
    classifier = with_threshold(photo_store, 0.45)
    rows = ScoredRows.of(photo_store.reader, classifier, "category=bird")
    assert len(rows.to_label()) == 0
    wrong, missed = rows.mistakes()
    ids = np.array(photo_store.to_table(["id"]).column("id").to_pylist())
    assert set(wrong.table.column("id").to_pylist()) == set(ids[(scores > 0.45) & ~labels])
    assert set(missed.table.column("id").to_pylist()) == set(ids[(scores <= 0.45) & labels])
    assert missed.title == f"bird: {len(missed)} false negatives"
    for whole, first in zip((wrong, missed), rows.mistakes(2), strict=True):
        assert first.table.equals(whole.table.slice(0, 2))
        assert (first.title, len(first) + first.left_out) == (whole.title, len(whole))
    assert (set(wrong.right), set(missed.right)) == ({False}, {False})
    by_id = dict(zip(ids.tolist(), ["bird" if label else "not bird" for label in labels], strict=True))
    around = rows.around()
    assert all(row["truth"] == by_id[row["id"]] for row in around.table.to_pylist())
    assert [row["predicted"] for row in around.table.to_pylist()] == ["bird"] * 16 + ["not bird"] * 16
    assert list(around.rules) == [16]
    assert around.rules[16].startswith("threshold 0.4500")
    unlabelled = ScoredRows.of(photo_store.reader, classifier)
    assert len(unlabelled.to_label(5, 5)) == 10
    assert unlabelled.around().table.column("truth").null_count == 32
    assert set(unlabelled.around().right) == {None}


def answered(file: Path, *answers: str) -> dict[str, str]:
    """Write answers into the first lines of a review, backwards as a spreadsheet may leave it; return them by id."""
    lines = read(file)
    given = {line["id"]: answer for line, answer in zip(lines, answers, strict=False) if answer}
    write(file, [{**line, "label": given.get(line["id"], line["label"])} for line in reversed(lines)])
    return given


def test_labels_in_a_review_are_kept(photo_store: EmbedStore, tmp_path: Path) -> None:
    """By id, in whatever order a spreadsheet left them; so are the open rows of their round, which come again at the
    top; force drops both."""
    file, rows = tmp_path / "review.csv", ScoredRows.of(photo_store.reader, with_threshold(photo_store, 0.45))
    assert rows.to_label(5, 5).save_csv(file) == 0
    first = read(file)
    assert [row["row"] for row in first] == [str(number) for number in range(1, 11)]
    given = answered(file, "yes", "no", "maybe, =1")
    other = rows.to_label(4, 3, over=file)
    assert other.save_csv(file) == 3
    again = read(file)
    assert {row["id"]: row["label"] for row in again if row["label"]} == given
    assert {row["id"] for row in again} > {row["id"] for row in first}
    assert len(again) == 10 + 7
    assert [row["id"] for row in again][:14] == other.table.column("id").to_pylist()
    assert [row["row"] for row in again] == [str(number) for number in range(1, 18)]
    columns = ("picked", "probability", "round", "at")
    told = {row["id"]: [row[name] for name in columns] for row in first}
    assert all([row[name] for name in columns] == told.get(row["id"]) for row in again if row["id"] in told)
    assert {row["round"] for row in again if row["id"] not in told} == {"2"}
    assert other.save_csv(file, force=True) == 0
    assert not any(row["label"] for row in read(file))


def test_a_round_that_nobody_has_begun_is_picked_anew(photo_store: EmbedStore, tmp_path: Path) -> None:
    """The same rows for the same wish, and it stays the first round; others near another threshold."""
    file = tmp_path / "review.csv"
    written = []
    for threshold in (0.45, 0.45, 0.3):
        rows = ScoredRows.of(photo_store.reader, with_threshold(photo_store, threshold))
        rows.to_label(5, 5, over=file).save_csv(file)
        written.append(read(file))
    assert [line["id"] for line in written[0]] == [line["id"] for line in written[1]]
    near = [{line["id"] for line in lines if line["picked"] == "near"} for lines in written]
    assert near[0] != near[2]
    assert {(len(lines), line["round"]) for lines in written for line in lines} == {(10, "1")}


def test_a_review_picks_as_a_round_does(photo_store: EmbedStore) -> None:
    """What stands in it is what `rounds.pick` says of the store's scores, of those rows that a condition keeps."""
    where = "category <> 'bird'"
    rows = ScoredRows.of(photo_store.reader, with_threshold(photo_store, 0.3), where=where)
    found = rows.to_label(6, 9).table.to_pylist()
    ids = np.array(photo_store.to_table(["id"]).column("id").to_pylist())
    left_out = ~photo_store.mask(where)
    order = random_order("bird", 1, ids)
    positions, picked, probability = pick(photo_store.scores("bird")[0], 0.3, order, 6, 9, left_out)
    assert [row["id"] for row in found] == ids[positions].tolist()
    assert [row["picked"] for row in found] == picked.tolist()
    assert [row["probability"] for row in found] == probability.tolist()
    assert {(row["concept"], row["round"], row["where"]) for row in found} == {("bird", 1, where)}


def test_mistakes_written_over_a_begun_round_keep_it_whole(photo_store: EmbedStore, tmp_path: Path) -> None:
    """Its open rows too, with how they were picked: without them a round of half its answers would look whole."""
    file = tmp_path / "review.csv"
    rows = ScoredRows.of(photo_store.reader, with_threshold(photo_store, 0.45), "category=bird")
    unlabelled = ScoredRows.of(photo_store.reader, with_threshold(photo_store, 0.45))
    unlabelled.to_label(5, 5).save_csv(file)
    first = {line["id"]: line for line in read(file)}
    answered(file, "yes")
    assert rows.all_mistakes().save_csv(file) == 1
    after = {line["id"]: line for line in read(file)}
    assert set(first) < set(after)
    assert all(after[name][column] == first[name][column] for name in first for column in ("picked", "round", "at"))


def test_labels_of_another_class_stay_its_own(photo_store: EmbedStore, tmp_path: Path) -> None:
    """A review of flowers over one of birds gives no flower the answer of a bird, and loses none."""
    file = tmp_path / "review.csv"
    ScoredRows.of(photo_store.reader, with_threshold(photo_store, 0.45)).to_label(5, 200).save_csv(file)
    given = answered(file, *["yes"] * 205)
    flower = Classifier("flower", photo_store.space, (Target("flower", 0.4, photo_store.query_vectors(["flower"])[0]),))
    ScoredRows.of(photo_store.reader, flower).to_label(5, 5, over=file).save_csv(file)
    lines = read(file)
    assert {line["id"]: line["label"] for line in lines if line["concept"] == "bird"} == given
    assert [line["label"] for line in lines if line["concept"] == "flower"] == [""] * 10


def test_labels_of_another_store_are_not_mixed_in(photo_store: EmbedStore, store: EmbedStore, tmp_path: Path) -> None:
    """A review is not written into one of another store, as no import would take it; the labels there stay."""
    file = tmp_path / "review.csv"
    ScoredRows.of(photo_store.reader, with_threshold(photo_store, 0.45)).to_label(2, 2).save_csv(file)
    answered(file, "yes", "no")
    before = file.read_bytes()
    other = ScoredRows.of(store.reader, with_threshold(store, 0.45)).to_label(2, 2, over=file)
    with pytest.raises(NotOursError, match="holds labels of 4 rows that are not in this store; name another file"):
        other.save_csv(file)
    assert file.read_bytes() == before
    other.save_csv(file, force=True)
    assert len(read(file)) == 4


@pytest.mark.parametrize(
    ("n", "edge", "shown"),
    [
        (8, 3, [0, 1, 2, 3, 4, 5, 6, 7]),
        (20, 10, [0, 1, 2, 3, 10, 11, 12, 13]),
        (20, 2, [0, 1, 2, 3, 4, 5, 6, 7]),
        (20, 19, [0, 1, 2, 3, 4, 5, 6, 19]),
        (20, 20, list(range(8))),
        (20, None, list(range(8))),
    ],
)
def test_a_sheet_shows_both_sides_of_the_threshold(
    monkeypatch: pytest.MonkeyPatch, n: int, edge: int | None, shown: list[int]
) -> None:
    """Of more rows than a sheet holds, the first of either side; the short side whole."""
    monkeypatch.setattr(review, "_MOST_DRAWN", 8)
    rules = {} if edge is None else {edge: "threshold"}
    assert review.Review(pa.table({"id": [str(row) for row in range(n)]}), "t", (), rules)._drawn() == shown


@pytest.mark.parametrize(
    "content",
    [
        "id,uri,score,label,mine\na,b,0.1,yes,precious\n",
        "name,notes\na,b\n",
        "id,score,label\na,0.1,yes,precious\n",
        "\x89PNG",
    ],
)
def test_a_file_that_is_no_review_is_left_alone(photo_store: EmbedStore, tmp_path: Path, content: str) -> None:
    """A table with columns of its own, or something else, is refused, to the bit; force replaces it."""
    file = tmp_path / "mine.csv"
    file.write_bytes(content.encode("latin-1"))
    picked = ScoredRows.of(photo_store.reader, with_threshold(photo_store, 0.45)).to_label(2, 2)
    with pytest.raises(NotOursError, match="name another file, or replace it"):
        picked.save_csv(file)
    assert file.read_bytes() == content.encode("latin-1")
    picked.save_csv(file, force=True)
    assert len(read(file)) == 4


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return [{name: cells.read(cell) for name, cell in row.items()} for row in csv.DictReader(stream)]


def write(file: Path, rows: list[dict[str, str]]) -> None:
    """Write as a spreadsheet does: a mark of the encoding, other line ends."""
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)


def test_one_class_is_reviewed_at_a_time(photo_store: EmbedStore) -> None:
    """A classifier of two classes is refused."""
    vectors = photo_store.query_vectors(["bird", "flower"])
    pairs = zip(("bird", "flower"), vectors, strict=True)
    both = Classifier("two", photo_store.space, tuple(Target(n, 0.4, v) for n, v in pairs), "argmax")
    with pytest.raises(ClassifierError, match="has 2 classes"):
        ScoredRows.of(photo_store.reader, both)
