"""Rows to look at next, and errors by rank."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.review import ScoredRows, boundary, errors_of, review_sample
from embedstore.deciding.target import Target
from embedstore.errors import ClassifierError, InputError
from embedstore.store import EmbedStore

SCORES = np.random.default_rng(0).normal(0.06, 0.01, 500).astype(np.float32)


def test_review_takes_the_nearest_and_a_spread():
    """The nearest rows are those of sorting by distance; the others cover slices of equal numbers of rows."""
    positions, reasons = review_sample(SCORES, 0.065, n_near=15, n_stratified=10, seed=1)
    near = [p for p, why in zip(positions, reasons, strict=True) if why == "near the threshold"]
    distance = np.abs(SCORES.astype(np.float64) - 0.065)
    assert set(near) == set(np.argsort(distance)[:15])
    others = sorted(SCORES[p] for p in positions if p not in near)
    assert len(others) == 10
    rest = np.sort(np.delete(SCORES, near))
    for value, part in zip(others, np.array_split(rest, 10), strict=True):
        assert part[0] <= value <= part[-1]
    assert (np.diff(SCORES[positions]) <= 0).all()
    assert len(set(positions.tolist())) == len(reasons) == 25


def test_review_leaves_out_labelled_rows_and_repeats_itself():
    """Rows with a label are never picked; equal seeds pick the same rows, others others."""
    labelled = np.arange(500) % 2 == 0
    picked, _ = review_sample(SCORES, 0.065, 15, 10, 3, labelled)
    assert not labelled[picked].any()
    assert picked.tolist() == review_sample(SCORES, 0.065, 15, 10, 3, labelled)[0].tolist()
    assert picked.tolist() != review_sample(SCORES, 0.065, 15, 10, 4, labelled)[0].tolist()


def test_review_of_few_rows_takes_them_all():
    """With fewer rows than asked for, each comes once; with none left, none comes."""
    assert sorted(review_sample([0.1, 0.2, 0.3], 0.2, 2, 20)[0].tolist()) == [0, 1, 2]
    assert len(review_sample([0.1, 0.2], 0.2, 2, 2, labelled=[True, True])[0]) == 0
    assert len(review_sample(SCORES, 0.06, 0, 0)[0]) == 0
    with pytest.raises(InputError, match="cannot be negative"):
        review_sample(SCORES, 0.06, -1)


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
    assert missed.title == f"bird: {len(missed)} false negatives at 0.4500"
    by_id = dict(zip(ids.tolist(), labels.tolist(), strict=True))
    assert all(row["label"] == by_id[row["id"]] for row in rows.around().table.to_pylist())
    unlabelled = ScoredRows.of(photo_store.reader, classifier)
    assert len(unlabelled.to_label(5, 5)) == 10
    assert unlabelled.around().table.column("label").null_count == 32


def test_one_class_is_reviewed_at_a_time(photo_store: EmbedStore) -> None:
    """A classifier of two classes is refused."""
    vectors = photo_store.query_vectors(["bird", "flower"])
    pairs = zip(("bird", "flower"), vectors, strict=True)
    both = Classifier("two", photo_store.space, tuple(Target(n, 0.4, v) for n, v in pairs), "argmax")
    with pytest.raises(ClassifierError, match="has 2 classes"):
        ScoredRows.of(photo_store.reader, both)
