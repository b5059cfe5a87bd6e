"""Labels of two classes in any two values, and Platt's sigmoid of their scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from embedstore.deciding.two_classes import platt_sigmoid, two_classes
from embedstore.errors import LabelError


@pytest.mark.parametrize(
    ("labels", "classes"),
    [([True, False], [False, True]), ([1, 0], [0, 1]), (["dog", "cat"], ["cat", "dog"]), ([3.0, -1.0], [-1.0, 3.0])],
)
def test_the_larger_label_is_that_of_a_match(labels: list[object], classes: list[object]) -> None:
    """Classes ascend, and the second is the one looked for."""
    found, truth = two_classes(labels, "a bird")
    assert found.tolist() == classes
    assert truth.tolist() == [True, False]


def test_labels_that_would_be_the_wrong_way_round_are_refused() -> None:
    """Where the query names the class that comes first it says what to pass."""
    with pytest.raises(LabelError, match=r"pass labels == 'dog'"):
        two_classes(["dog", "wolf"], "a dog in the snow")
    assert two_classes(["dog", "wolf"], "a wolf, no dog")[1].tolist() == [False, True]


@pytest.mark.parametrize("unit", [1.0, 0.01])
def test_the_sigmoid_is_platts_in_any_unit(unit: float) -> None:
    """It minimises the log loss of the smoothed targets, by SciPy, also of scores as narrow as Nomic's."""
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.2
    scores = ((rng.standard_normal(400) + 2 * truth) * unit).astype(np.float32)
    n_pos, n_neg = int(truth.sum()), int((~truth).sum())
    target = np.where(truth, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    z = scores.astype(np.float64) / unit
    line = minimize(lambda ab: np.sum(np.logaddexp(0, ab[0] * z + ab[1]) - target * (ab[0] * z + ab[1])), [1, 0]).x
    found = platt_sigmoid(scores, truth).predict_proba(scores[:, np.newaxis])
    np.testing.assert_allclose(found[:, 1], expit(line[0] * z + line[1]), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_many_labels_give_plain_logistic_regression() -> None:
    """Smoothing vanishes as labels grow: without a penalty scikit-learn's regression says the same."""
    rng = np.random.default_rng(1)
    truth = rng.random(200_000) < 0.5
    scores = (rng.standard_normal(200_000) + truth).astype(np.float32)[:, np.newaxis]
    plain = LogisticRegression(C=np.inf).fit(scores, truth).predict_proba(scores[:100])
    np.testing.assert_allclose(platt_sigmoid(scores[:, 0], truth).predict_proba(scores[:100]), plain, atol=1e-4)


def test_scores_that_separate_leave_it_finite() -> None:
    """Few labels are never certain: one positive of three is believed about as far as its smoothed target, 2/3."""
    found = platt_sigmoid(np.array([0.1, 0.2, 0.9], np.float32), np.array([False, False, True]))
    highest = found.predict_proba(np.array([[0.9]]))[0, 1]
    assert 0.5 < highest < 0.75
    assert np.isfinite(found.predict_proba(np.array([[1e6], [-1e6]]))).all()


def test_equal_scores_give_the_share() -> None:
    """Where all scores are equal nothing can be told from them."""
    truth = np.arange(100) < 25
    found = platt_sigmoid(np.full(100, 0.3, np.float32), truth).predict_proba(np.array([[0.3]]))[0, 1]
    assert found == pytest.approx(0.26, abs=0.02)
