"""Choosing a threshold, against trying every one."""

from __future__ import annotations

import dataclasses

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import InputError, UnreachableError
from embedstore.measures.choice import Wishes, choose_threshold
from embedstore.measures.curves import precision_recall

COST = {"fp": 1.0, "fn": 5.0, "tp": -0.5}


@st.composite
def labelled(draw):
    n = draw(st.integers(2, 25))
    scores = draw(npst.arrays(np.float32, n, elements=st.integers(-8, 8).map(lambda step: step / 128)))
    labels = draw(npst.arrays(np.bool_, n))
    labels[draw(st.integers(0, n - 1))] = True
    return scores, labels


def by_hand(name, labels, predicted):
    """The objective from scikit-learn, or counted."""
    if name == "cost":
        counts = {
            "fp": (predicted & ~labels).sum(),
            "fn": (~predicted & labels).sum(),
            "tp": (predicted & labels).sum(),
        }
        return -sum(COST[key] * count for key, count in counts.items()) / len(labels)
    if name.startswith("f"):
        return sk.fbeta_score(labels, predicted, beta=float(name[1:]), zero_division=0)
    if name == "mcc":
        mixed = len(set(labels)) == 2 and len(set(predicted)) == 2
        return np.corrcoef(labels, predicted)[0, 1] if mixed else 0.0
    recalls = [(predicted[labels == side] == side).mean() for side in np.unique(labels)]
    return float(np.mean(recalls))


@pytest.mark.parametrize("objective", ["f1", "f0.5", "f2", "mcc", "balanced_accuracy", "cost"])
@given(rows=labelled())
@settings(max_examples=40, deadline=None)
def test_choice_is_the_best_of_all_thresholds(objective, rows):
    """No threshold does better; ties are counted, and go to the higher F1, then to the highest threshold."""
    scores, labels = rows
    curve = precision_recall(scores, labels)
    tried = []
    for threshold in curve.thresholds:
        predicted = scores.astype(np.float64) > threshold
        f1 = sk.f1_score(labels, predicted, zero_division=0)
        tried.append((by_hand(objective, labels, predicted), f1, threshold))
    best = max(value for value, _, _ in tried)
    tied = [(f1, threshold) for value, f1, threshold in tried if value >= best - 1e-9]
    choice = choose_threshold(curve, objective, cost=COST if objective == "cost" else None)
    assert choice.value == pytest.approx(-best if objective == "cost" else best, abs=1e-9)
    assert choice.ties == len(tied)
    top = max(f1 for f1, _ in tied)
    assert choice.threshold == max(threshold for f1, threshold in tied if f1 >= top - 1e-12)
    assert any("reach the same" in note for note in choice.notes) == (len(tied) > 1)


@given(rows=labelled(), share=st.sampled_from([0.3, 0.6, 0.9, 1.0]))
@settings(max_examples=150, deadline=None)
def test_limits_on_the_labelled_rows_are_kept(rows, share):
    """With guarantee=False, recall is the largest with precision >= p, precision the largest with recall >= r."""
    scores, labels = rows
    curve = precision_recall(scores, labels)
    tried = [curve.at(threshold) for threshold in curve.thresholds]
    allowed = [m.recall for m in tried if m.precision >= share and m.tp + m.fp]
    if allowed:
        choice = choose_threshold(curve, "recall", min_precision=share, guarantee=False)
        assert choice.metrics.recall == max(allowed)
        assert choice.metrics.precision >= share
    else:
        with pytest.raises(UnreachableError) as caught:
            choose_threshold(curve, "recall", min_precision=share, guarantee=False)
        assert caught.value.best["precision"] == max(m.precision for m in tried)
    choice = choose_threshold(curve, "precision", min_recall=share, guarantee=False)
    assert choice.value == max(m.precision for m in tried if m.recall >= share)
    assert choice.metrics.recall >= share


def test_at_most_n_matches():
    """A limit on matches is kept, also when one more would be better."""
    scores = np.linspace(0.03, 0.09, 20).astype(np.float32)
    curve = precision_recall(scores, scores > 0.05)
    assert choose_threshold(curve).metrics.tp > 5
    chosen = choose_threshold(curve, "recall", max_matches=5).metrics
    assert (chosen.tp, chosen.fp) == (5, 0)
    assert (scores > chosen.threshold).sum() == 5


def test_limits_that_exclude_each_other_are_explained():
    """Two limits that can be kept only one at a time are refused with the best that one leaves of the other."""
    curve = precision_recall([0.1, 0.2, 0.3, 0.4], [True, False, False, True])
    with pytest.raises(UnreachableError, match=r"each can be kept alone.* best precision is 0\.5000") as caught:
        choose_threshold(curve, min_precision=0.9, min_recall=0.9, guarantee=False)
    assert caught.value.best["precision"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"objective": "accuracy"}, "choose one of f1"),
        ({"objective": "fbeta"}, "needs beta"),
        ({"objective": "fbeta", "beta": -1}, "needs beta"),
        ({"objective": "cost"}, "needs cost"),
        ({"objective": "cost", "cost": {"false alarm": 1}}, "needs cost"),
        ({"objective": "precision"}, "needs min_recall"),
        ({"objective": "recall"}, "needs min_precision"),
        ({"min_precision": 1.5}, "at most 1"),
        ({"min_recall": 0}, "larger than 0"),
        ({"max_matches": 0}, "at least 1"),
        ({"min_precision": 0.9, "confidence": 2}, "between 0 and 1"),
        ({"min_precision": 1.0}, "guarantee a precision or recall of 1"),
    ],
)
def test_wishes_that_mean_nothing_are_refused(arguments, says):
    """An unknown objective or a limit out of range raises an error that says what would do."""
    curve = precision_recall([0.1, 0.2], [False, True])
    with pytest.raises(InputError, match=says):
        choose_threshold(curve, **arguments)


def test_too_few_rows_for_a_guarantee_are_said():
    """Thirty perfect matches cannot show a precision of .95: the error gives the bound and what it would take."""
    curve = precision_recall(np.arange(60, dtype=np.float32), np.arange(60) >= 30)
    with pytest.raises(UnreachableError, match="at least 59 matches") as caught:
        choose_threshold(curve, min_precision=0.95)
    assert caught.value.best["precision"] == 1.0
    assert 0.85 < caught.value.best["precision_bound"] < 0.91
    assert choose_threshold(curve, min_precision=0.85).metrics.precision == 1.0


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"objective": "f0.5"},
        {"objective": "mcc", "min_recall": 0.75},
        {"objective": "cost", "cost": {"fp": 1.0, "fn": 2.5}, "max_matches": 1200},
        {"objective": "recall", "min_precision": 0.9, "max_matches": 1},
        {"objective": "balanced_accuracy", "min_precision": 0.125, "min_recall": 0.5},
    ],
)
@pytest.mark.parametrize("guarantee", [False, True])
def test_wishes_are_read_from_what_a_classifier_says_of_them(words, guarantee):
    """Objective and limits come back from their words, without the guarantee."""
    wished = Wishes(**words, guarantee=guarantee)
    back = Wishes.of_words(str(wished.goal), str(wished.limits))
    assert back.goal == wished.goal
    assert back.limits == dataclasses.replace(wished.limits, confidence=None)


def test_words_that_are_no_wishes_are_refused():
    """With what they are."""
    for objective, constraints in (("cost fp", "no constraint"), ("f1", "precision about 0.9"), ("f1", "at most ten")):
        with pytest.raises(InputError, match=r"no objective and limits|unknown"):
            Wishes.of_words(objective, constraints)
