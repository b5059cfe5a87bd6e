"""P(match | score) against scikit-learn, the expected curve against a plain sum, and the test of a random sample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.linear_model import LogisticRegression

from embedstore.measures.curves import precision_recall
from embedstore.measures.fitted import Population, chances, doubt_of_sample, fit_line, fit_lines
from embedstore.measures.samples import as_sample


def store(seed, n=3000, spread=1.0, share=0.1):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < share
    z = rng.standard_normal(n) * np.where(truth, spread, 1.0) + 2 * truth
    return (0.05 + 0.01 * z).astype(np.float32), truth


@pytest.mark.parametrize("terms", [2, 3])
def test_lines_are_those_of_scikit_learn(terms):
    """Logistic regression on the score, and its square: the same chances to six digits, ten fits at once."""
    scores, truth = store(1)
    standard = Population.of(scores).standard(scores)
    rng = np.random.default_rng(0)
    hits, rows = rng.poisson(1.0, (10, 3000)) * truth, np.ones(3000)
    hits = np.minimum(hits, 1)
    lines = fit_lines(standard, hits, rows, terms)
    columns = standard[:, np.newaxis] ** np.arange(1, terms)
    for line, mine in zip(lines, hits, strict=True):
        model = LogisticRegression(C=2.5**2, tol=1e-10, max_iter=1000).fit(columns, mine)
        # Theirs has no prior on the intercept, ours one that is next to none.
        assert chances(line, standard) == pytest.approx(model.predict_proba(columns)[:, 1], abs=2e-4)


def test_rows_of_one_score_may_be_told_by_their_number():
    """Positives and rows at a score give the line of so many single rows."""
    standard = np.array([-1.0, 0.0, 2.0])
    hits, rows = np.array([1.0, 3.0, 4.0]), np.array([10.0, 8.0, 5.0])
    labels = np.concatenate([np.arange(n) < k for k, n in zip(hits, rows, strict=True)])
    assert fit_lines(standard, hits, rows) == pytest.approx(fit_lines(np.repeat(standard, rows.astype(int)), labels))


def test_separable_labels_and_one_class_give_a_finite_line():
    """A threshold that separates all labels, and labels that are all equal, have chances strictly between 0 and 1."""
    standard = np.linspace(-1, 1, 20)
    for labels in (standard > 0, np.ones(20, dtype=bool)):
        found = chances(fit_line(standard, labels), standard)
        assert ((found > 0) & (found < 1)).all()
        assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize(("spread", "bends"), [(1.0, (0, 8)), (2.0, (40, 40))])
def test_the_line_bends_where_it_must(spread, bends):
    """In worlds where the log-odds are a parabola it is bent; where they are a line in about 5 % of 40 fits."""
    bent = 0
    for seed in range(40):
        scores, truth = store(seed, spread=spread, share=0.3)
        bent += len(fit_line(Population.of(scores).standard(scores), truth)) == 3
    assert bends[0] <= bent <= bends[1]


def test_the_expected_curve_is_a_plain_sum():
    """At every threshold: the labels of the labelled rows that exceed it, and the chances of all others."""
    scores, truth = store(2, 400)
    rows = np.random.default_rng(0).permutation(400)[:60]
    sample, everyone = as_sample(scores[rows], truth[rows], None), Population.of(scores)
    curve = everyone.expected_curve(sample)
    line = fit_line(everyone.standard(scores[rows]), truth[rows])
    chance = chances(line, everyone.standard(scores))
    chance[rows] = truth[rows]
    for threshold in (0.04, 0.055, 0.07):
        matched = scores.astype(np.float64) > threshold
        assert curve.at(threshold).tp == pytest.approx(chance[matched].sum())
        assert curve.at(threshold).fp == pytest.approx((1 - chance)[matched].sum())
    assert curve.n == pytest.approx(400)


def test_a_thinned_population_keeps_its_rows():
    """All rows are counted, and a number of matches is right to a hundredth, and to one row."""
    scores = np.arange(20_000.0)
    everyone = Population.of(scores)
    thin = everyone.thinned(1000)
    assert len(thin.scores) <= 1000
    assert thin.rows.sum() == everyone.rows.sum() == 20_000
    above = np.cumsum(thin.rows[::-1])[::-1]
    assert above.tolist() == [(scores >= score).sum() for score in thin.scores]
    assert (above[:-1] <= 1.01 * above[1:] + 1).all()


def test_labels_picked_by_score_are_told_from_random_ones():
    """Rows near a threshold, and as many positives as negatives, are no random sample; random rows pass in 199 of 200.

    The distance is that of scipy's two-sample test.
    """
    scores, truth = store(4, 4000)
    everyone, rng = Population.of(scores), np.random.default_rng(0)
    near = np.argsort(np.abs(scores - 0.07))[:60]
    balanced = np.concatenate([rng.permutation(np.flatnonzero(side))[:60] for side in (truth, ~truth)])
    for rows in (near, balanced):
        text = doubt_of_sample(as_sample(scores[rows], truth[rows], None), everyone)
        assert f"distance {ks_2samp(scores[rows], scores).statistic:.2f} of 1" in text
    draws = [rng.permutation(4000)[:100] for _ in range(200)]
    doubts = [doubt_of_sample(as_sample(scores[rows], truth[rows], None), everyone) for rows in draws]
    assert sum(text is not None for text in doubts) <= 1
    weighted = as_sample(scores[near], truth[near], None, np.arange(1.0, 61.0))
    assert doubt_of_sample(weighted, everyone) is None
    assert doubt_of_sample(as_sample(scores, truth, None), everyone) is None


def test_forty_reviewed_labels_choose_as_well_as_eighty_random_ones():
    """The mean F1 over 60 stores of a threshold chosen on the expected curve of 20 near and 20 random rows."""
    rng, gains = np.random.default_rng(5), []
    for seed in range(60):
        scores, truth = store(seed, 4000, spread=1.3)
        every, everyone = precision_recall(scores, truth), Population.of(scores)
        order = rng.permutation(4000)
        near = np.argsort(np.abs(scores - np.quantile(scores, 0.95)))[:20]
        rows = np.union1d(near, order[:20])
        reviewed = everyone.expected_curve(as_sample(scores[rows], truth[rows], None))
        plain = precision_recall(scores[order[:80]], truth[order[:80]])
        gains.append(
            every.at(reviewed.thresholds[reviewed.best_cut]).f1 - every.at(plain.thresholds[plain.best_cut]).f1
        )
    assert np.mean(gains) > 0
