"""Counts over several classes, against scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as sk

from embedstore.errors import LabelError
from embedstore.measures.rates import Confusion, confusion, figures_in_words, name_in_words


def test_confusion_equals_scikit_learn():
    """Counts, accuracy and abstentions are scikit-learn's, where an abstention is a class that nothing has."""
    rng = np.random.default_rng(2)
    truth = rng.choice(["bird", "cat", "dog"], 300).tolist()
    guesses = [label if rng.random() < 0.6 else rng.choice(["bird", "cat", "dog", "none"]) for label in truth]
    names = ["bird", "cat", "dog"]
    expected = sk.confusion_matrix(truth, guesses, labels=[*names, "none"])
    found = confusion(truth, [None if guess == "none" else guess for guess in guesses])
    assert found.names == tuple(names)
    assert (found.counts == expected[:3, :3]).all()
    assert (found.abstained == expected[:3, 3]).all()
    assert found.accuracy == pytest.approx(sk.accuracy_score(truth, guesses))
    assert found.coverage == pytest.approx(1 - guesses.count("none") / 300)
    fields = json.loads(json.dumps(found.to_dict()))
    assert fields["counts"] == expected[:3, :3].tolist()
    assert (fields["accuracy"], fields["coverage"]) == (found.accuracy, found.coverage)
    assert Confusion.from_dict(fields).to_dict() == found.to_dict()
    precision, recall, f1, support = sk.precision_recall_fscore_support(truth, guesses, labels=names)
    for place, name in enumerate(names):
        one = found.by_class[name]
        assert (one.precision, one.recall, one.f1) == pytest.approx((precision[place], recall[place], f1[place]))
        assert (one.tp + one.fn, one.tp + one.fp + one.fn + one.tn) == (support[place], 300)


def test_weighted_confusion_equals_scikit_learn():
    """With weights the counts and rates are scikit-learn's with `sample_weight`, and say "about"."""
    rng = np.random.default_rng(3)
    truth, guesses = (rng.choice(["bird", "cat", "fish"], 200).tolist() for _ in range(2))
    weight = rng.exponential(30, 200)
    named = [None if guess == "fish" else guess for guess in guesses]
    found = confusion(truth, named, ["bird", "cat"], weight)
    expected = sk.confusion_matrix(truth, guesses, labels=["bird", "cat", "fish"], sample_weight=weight)
    assert found.table() == pytest.approx(expected)
    assert found.accuracy == pytest.approx(sk.accuracy_score(truth, guesses, sample_weight=weight))
    assert found.by_class["cat"].f1 == pytest.approx(
        sk.f1_score(truth, guesses, labels=["cat"], average="macro", sample_weight=weight)
    )
    assert f"of about {weight.sum():,.0f} rows" in str(found)


def test_names_of_figures_have_one_spelling():
    """F with a capital for people, in every head and line; what an option or JSON calls f1 stays so there."""
    names = ("f1", "f0.5", "f3", "precision", "fp", "mcc", "threshold")
    assert [*map(name_in_words, names)] == ["F1", "F0.5", "F3", "precision", "fp", "mcc", "threshold"]


def test_figures_in_words_say_what_is_an_estimate():
    """Whole counts stand as they are, estimated ones rounded with "about", rates and thresholds with four decimals."""
    figures = {"threshold": 0.45, "matches": 1200, "precision": 1.0, "tp": 13.1, "fp": 0.0, "fn": 1234, "tn": 5}
    assert figures_in_words(figures) == ["0.4500", "1,200", "1.0000", "about 13", "about 0", "1,234", "5"]


def test_confusion_needs_a_label_for_each_row():
    """Different lengths, no rows and missing labels are errors."""
    for truth, guesses in ((["a"], ["a", "b"]), ([], [])):
        with pytest.raises(LabelError, match="one prediction for each label"):
            confusion(truth, guesses)
    with pytest.raises(LabelError, match="row 1 has no label"):
        confusion(["a", None], ["a", "a"])


def test_no_prediction_is_right_for_a_row_of_no_class():
    """Of the rows of "fish", which no classifier of cats and dogs knows, those that are undecided are right."""
    truth = ["cat", "cat", "dog", "fish", "fish", "fish"]
    found = confusion(truth, ["cat", None, "dog", None, None, "cat"], ["dog", "cat"])
    assert (found.accuracy, found.rightly_undecided, found.coverage) == (4 / 6, 2, 3 / 6)
    assert found.table().tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 2]]
    assert str(found).splitlines()[1:] == [
        "dog                  1    0     0",
        "cat                  0    1     1",
        "none                 0    1     2",
        "accuracy 0.6667, decided 50.0% of 6 rows; 2 are of none of the classes, rightly",
    ]
