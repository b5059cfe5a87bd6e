"""Scores that mean nothing are told from those that do: by simulation, and against the plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import f1_score, roc_auc_score

from embedstore.measures.calibration import calibrate_scores
from embedstore.measures.chance import Ordering, doubts_of_decision
from embedstore.measures.choice import Objective
from embedstore.measures.rates import Metrics
from embedstore.measures.samples import as_sample


def draw(seed, n, distance, positives=0.5, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) < positives * n)
    scores = rng.normal(0.05 + 0.01 * distance * labels, 0.01)
    return (scores.round(2) if ties else scores).astype(np.float32), labels


@pytest.mark.parametrize("ties", [False, True])
def test_the_interval_of_chance_is_that_of_shuffled_labels(ties):
    """Of 2,000 shuffles of the labels 2.5 % lie below and above it, with ROC AUC counted by ranks."""
    scores, labels = draw(1, 90, 1.0, 0.2, ties)
    ordering = Ordering.of(as_sample(scores, labels, None), 0.95)
    rng = np.random.default_rng(0)
    n_pos, n_neg, ranks = labels.sum(), (~labels).sum(), rankdata(scores)
    sums = np.array([ranks[rng.permutation(labels)].sum() for _ in range(2000)])
    shuffled = (sums - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg)
    assert ordering.roc_auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert ordering.chance == pytest.approx(np.quantile(shuffled, [0.025, 0.975]), abs=0.02)
    assert abs((shuffled < ordering.chance[0]).mean() - 0.025) < 0.015
    assert abs((shuffled > ordering.chance[1]).mean() - 0.025) < 0.015


@pytest.mark.parametrize(("n", "positives"), [(20, 0.2), (100, 0.05), (200, 0.5)])
def test_few_meaningless_queries_pass(n, positives):
    """Of 800 without any meaning about 2.5 % pass for better than chance, and as many for reversed.

    A rate of 2.5 % gives more than 36 of 800 with a probability below 1 in 1,000.
    """
    found = [Ordering.of(as_sample(*draw(seed, n, 0.0, positives), None), 0.95) for seed in range(800)]
    assert sum(one.doubt is None for one in found) <= 36
    assert sum(one.is_reversed for one in found) <= 36


def test_meaning_and_its_opposite_are_seen():
    """A good query raises no doubt, its negative is reversed; copies are no evidence; one class only is no case."""
    scores, labels = draw(3, 100, 2.0)
    good, bad = (Ordering.of(as_sample(sign * scores, labels, None), 0.95) for sign in (1, -1))
    assert (good.doubt, good.is_reversed) == (None, False)
    assert bad.is_reversed
    assert f"ROC AUC {bad.roc_auc:.4f}" in bad.doubt
    assert f"opposite of the query would have {good.roc_auc:.4f}" in bad.doubt
    few = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, False, True, True])
    once = Ordering.of(as_sample(*few, None), 0.95)
    copied = Ordering.of(as_sample(*(np.repeat(column, 50) for column in (*few, np.arange(4)))), 0.95)
    assert copied == once
    assert "as far as these labels tell" in once.doubt
    assert Ordering.of(as_sample([0.1, 0.2], [True, True], None), 0.95).doubt is None
    equal = Ordering.of(as_sample([0.1] * 9, np.arange(9) < 4, None), 0.95)
    assert (equal.chance, equal.is_reversed) == ((0.5, 0.5), False)
    assert equal.doubt is not None


@pytest.mark.parametrize("positives", [0.5, 0.15])
def test_a_meaningless_threshold_is_no_better_than_matching_every_row(positives):
    """Of 60 meaningless queries at most 6 pass (5 % would be 3), of 60 good ones at most 3 are doubted.

    Of a middling query, on few labels, it is said with "perhaps".
    """
    doubted = {0.0: 0, 2.5: 0}
    for distance in doubted:
        for seed in range(60):
            result = calibrate_scores(*draw(seed, 150, distance, positives), resamples=200, seed=seed)
            doubted[distance] += any("no better than matching every row" in text for text in result.warnings)
    assert doubted[0.0] >= 54
    assert doubted[2.5] <= 3
    warnings = [text for seed in range(30) for text in calibrate_scores(*draw(seed, 40, 1.2), seed=seed).warnings]
    doubts = [text for text in warnings if "no better than matching" in text]
    assert sum(text.startswith("perhaps ") for text in doubts) > len(doubts) / 3 > 3


def test_the_doubt_names_both_values():
    """F1 of the decision and of matching every row, as scikit-learn has them; other objectives by their own value."""
    truth = np.array([True] * 4 + [False] * 6)
    decided = Metrics(0.1, tp=2, fp=4, fn=2, tn=2)
    predicted = np.array([True, True, False, False, True, True, True, True, False, False])
    (text,) = doubts_of_decision(Objective(), decided, None, 0.95)
    own, every = f1_score(truth, predicted), f1_score(truth, np.ones(10, dtype=bool))
    assert text == (f"no better than matching every row: F1 {own:.4f}, that of every row {every:.4f}")
    assert "mcc -0.1667, that of every row 0.0000" in doubts_of_decision(Objective("mcc"), decided, None, 0.95)[0]
    assert (
        "precision 0.3333, that of every row 0.4000" in doubts_of_decision(Objective("recall"), decided, None, 0.95)[0]
    )
    cost = Objective("cost", cost={"fp": 1, "fn": 1})
    assert doubts_of_decision(cost, decided, None, 0.95) == [
        "no better than matching every row: cost of a row 0.6000, that of every row 0.6000",
        "no better than matching no row: cost of a row 0.6000, that of no row 0.4000",
    ]
    assert doubts_of_decision(Objective(), Metrics(0.1, 4, 1, 0, 5), None, 0.95) == []
    assert doubts_of_decision(Objective(), Metrics(0.1, 4, 0, 2, 0), None, 0.95) == []
