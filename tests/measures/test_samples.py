"""Scores and labels as people have them, and samples held out with all copies of a picture on one side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from embedstore.errors import InputError, LabelError
from embedstore.measures.curves import precision_recall
from embedstore.measures.samples import as_sample, holdouts


@pytest.mark.parametrize(
    ("scores", "labels", "error", "says"),
    [
        ([], [], InputError, "there are none"),
        ([0.1, float("nan")], [True, False], InputError, "row 1 is nan"),
        ([0.1, float("inf")], [True, False], InputError, "row 1 is inf"),
        (["a", "b"], [True, False], InputError, "expected numbers"),
        ([[0.1, 0.2]], [True, False], InputError, "shape"),
        ([0.1, 0.2], [True], LabelError, "1 label for 2 scores"),
        ([0.1, 0.2], [True, None], LabelError, "1 of 2 are missing, first in row 1"),
        ([0.1, 0.2], [1.0, float("nan")], LabelError, "1 of 2 are missing"),
        (
            [0.1, 0.2],
            pd.array([True, None], dtype="boolean"),
            LabelError,
            "1 of 2 are missing, first in row 1",
        ),
        ([0.1, 0.2], pa.array([None, True]), LabelError, "1 of 2 are missing, first in row 0"),
        ([0.1, 0.2], ["dog", "cat"], LabelError, "found 'dog'"),
        ([0.1, 0.2], [1, 2], LabelError, "found 2"),
        ([0.1, 0.2], [[True], [False]], LabelError, "one label for each row"),
    ],
)
def test_unusable_input_is_explained(scores, labels, error, says):
    """Scores and labels that cannot be used raise an error that names the row or value."""
    with pytest.raises(error, match=says):
        precision_recall(scores, labels)


def test_labels_of_zero_and_one_are_taken():
    """0 and 1, as integers, floats or objects, and columns of pandas and Arrow, are labels."""
    expected = precision_recall([0.1, 0.2], [True, False]).tp.tolist()
    objects = [np.array([True, 0], dtype=object), np.array([np.True_, np.int8(0)], dtype=object)]
    columns = [pd.array([True, False], dtype="boolean"), pd.Series([True, False]), pa.array([True, False])]
    for labels in ([1, 0], [1.0, 0.0], *objects, *columns):
        assert precision_recall([0.1, 0.2], labels).tp.tolist() == expected


def draw(seed, n, distance=2.2, positives=0.5):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < positives
    return rng.normal(0.05 + 0.01 * distance * labels, 0.01).astype(np.float32), labels


@pytest.mark.parametrize("validation", ["kfold", "split"])
def test_copies_lie_on_one_side_and_labels_are_spread(validation):
    """No picture has copies on both sides, each row is held out once, and both classes are on each side."""
    scores, labels = draw(0, 400, positives=0.2)
    groups = np.random.default_rng(1).integers(0, 250, 400)
    labels = labels[np.unique(groups, return_index=True)[1]][np.unique(groups, return_inverse=True)[1]]
    sample = as_sample(scores, labels, groups)
    parts, _ = holdouts(sample, validation, 5, 0.4, np.random.default_rng(0))
    for held in parts:
        assert not set(groups[held]) & set(groups[~held])
        assert 0.1 < labels[held].mean() < 0.3
    if validation == "kfold":
        assert (np.sum(parts, axis=0) == 1).all()
    else:
        assert 0.3 < parts[0].mean() < 0.5


def test_weights_and_random_rows_go_along_with_a_part():
    """A part of a sample keeps its rows' weights; a row of unknown picking is neither measurable nor random."""
    sample = as_sample([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], None, [2.0, float("nan"), 1.0, 5.0])
    assert sample.random.tolist() == [True, False, True, True]
    part = sample[np.array([1, 3])]
    assert part.measurable.weights.tolist() == [5.0]
    assert part.measurable.scores.tolist() == [0.4]
    assert sample.is_weighted
    assert not as_sample([0.1, 0.2], [0, 1], None).is_weighted
    told = as_sample([0.1, 0.2], [0, 1], None, random=[False, True])
    assert told.random.tolist() == [False, True]


def test_the_effective_size_counts_weights_and_copies():
    """Kish's formula over pictures, written out."""
    sample = as_sample([0.1, 0.2, 0.3], [0, 1, 1], ["a", "b", "b"], [4.0, 1.0, 2.0])
    assert sample.effective_size == pytest.approx((4 + 3) ** 2 / (4**2 + 3**2))
    assert as_sample([0.1, 0.2, 0.3], [0, 1, 1], None).effective_size == 3
    assert as_sample([0.1, 0.2, 0.3], [0, 1, 1], None, [1.0, 0.0, 0.0])[np.array([1, 2])].effective_size == 0
