"""Rows to look at, errors by rank, and counts over several classes."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk

from embedstore.errors import InputError, LabelError
from embedstore.measures.confusion import confusion
from embedstore.measures.review import boundary, errors_of, review_sample

SCORES = np.random.default_rng(0).normal(0.06, 0.01, 500).astype(np.float32)


def test_review_takes_the_nearest_and_a_spread():
    """The nearest rows are those of sorting by distance; the others cover slices of equal numbers of rows."""
    sample = review_sample(SCORES, 0.065, n_near=15, n_stratified=10, seed=1)
    near = [p for p, why in zip(sample.positions, sample.reasons, strict=True) if why == "near the threshold"]
    distance = np.abs(SCORES.astype(np.float64) - 0.065)
    assert set(near) == set(np.argsort(distance)[:15])
    others = sorted(SCORES[p] for p in sample.positions if p not in near)
    assert len(others) == 10
    rest = np.sort(np.delete(SCORES, near))
    for value, part in zip(others, np.array_split(rest, 10), strict=True):
        assert part[0] <= value <= part[-1]
    assert (np.diff(SCORES[sample.positions]) <= 0).all()
    assert len(set(sample.positions.tolist())) == len(sample) == 25


def test_review_leaves_out_labelled_rows_and_repeats_itself():
    """Rows with a label are never picked; equal seeds pick the same rows, others others."""
    labelled = np.arange(500) % 2 == 0
    sample = review_sample(SCORES, 0.065, 15, 10, 3, labelled)
    assert not labelled[sample.positions].any()
    assert sample.positions.tolist() == review_sample(SCORES, 0.065, 15, 10, 3, labelled).positions.tolist()
    assert sample.positions.tolist() != review_sample(SCORES, 0.065, 15, 10, 4, labelled).positions.tolist()


def test_review_of_few_rows_takes_them_all():
    """With fewer rows than asked for, each comes once; with none left, none comes."""
    assert sorted(review_sample([0.1, 0.2, 0.3], 0.2, 2, 20).positions.tolist()) == [0, 1, 2]
    assert len(review_sample([0.1, 0.2], 0.2, 2, 2, labelled=[True, True])) == 0
    assert len(review_sample(SCORES, 0.06, 0, 0)) == 0
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


def test_confusion_equals_scikit_learn():
    """Counts and the report of each class are scikit-learn's; an abstention counts against recall only."""
    rng = np.random.default_rng(2)
    truth = rng.choice(["bird", "cat", "dog"], 300).tolist()
    guesses = [label if rng.random() < 0.6 else rng.choice(["bird", "cat", "dog", "none"]) for label in truth]
    names = ["bird", "cat", "dog"]
    expected = sk.confusion_matrix(truth, guesses, labels=[*names, "none"])
    found = confusion(truth, [None if guess == "none" else guess for guess in guesses])
    assert found.names == tuple(names)
    assert (found.counts == expected[:3, :3]).all()
    assert (found.abstained == expected[:3, 3]).all()
    figures = sk.precision_recall_fscore_support(truth, guesses, labels=names, zero_division=0)
    for row, name in enumerate(names):
        ours = found.report()[row]
        assert ours["class"] == name
        for key, theirs in zip(("precision", "recall", "f1", "support"), figures, strict=True):
            assert ours[key] == pytest.approx(theirs[row], abs=1e-12)
    assert found.report()[-1]["f1"] == pytest.approx(figures[2].mean(), abs=1e-12)
    assert found.accuracy == pytest.approx(sk.accuracy_score(truth, guesses))
    assert found.coverage == pytest.approx(1 - guesses.count("none") / 300)


def test_confusion_needs_a_label_for_each_row():
    """Different lengths, no rows and missing labels are errors."""
    for truth, guesses in ((["a"], ["a", "b"]), ([], [])):
        with pytest.raises(LabelError, match="one prediction for each label"):
            confusion(truth, guesses)
    with pytest.raises(LabelError, match="row 1 has no label"):
        confusion(["a", None], ["a", "a"])
