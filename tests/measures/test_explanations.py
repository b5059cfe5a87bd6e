"""Why scores differ from those of a calibration, and what then: known truth, and the EM as its authors wrote it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from embedstore.measures import explanations
from embedstore.measures.choice import Constraints, Objective
from embedstore.measures.explanations import advise
from embedstore.measures.score_summary import ScoreSummary


def draw(rng, n, prevalence, separation=2.5, moved=0.0):
    labels = rng.random(n) < prevalence
    return rng.normal(size=n) + separation * labels + moved, labels


@pytest.fixture
def there():
    """1,000 labelled rows, 5 % positive."""
    scores, labels = draw(np.random.default_rng(1), 1_000, 0.05)
    return ScoreSummary.of(scores, labels, 2.1)


def em(scores, chances, prevalence, rounds=5_000):
    """Estimate the new prevalence as Saerens, Latinne and Decaestecker (2002) write: equations 2.9 and 2.10."""
    new = prevalence
    for _ in range(rounds):
        positive, negative = new / prevalence * chances, (1 - new) / (1 - prevalence) * (1 - chances)
        new = float((positive / (positive + negative)).mean())
    return new, positive / (positive + negative)


@pytest.mark.parametrize("prevalence", [0.002, 0.2, 0.6])
def test_the_prevalence_is_where_em_ends(there, prevalence):
    """The estimate, the best threshold and its expected F1 are those of the EM's posteriors, threshold by threshold."""
    scores, _ = draw(np.random.default_rng(2), 500, prevalence)
    found = advise(scores, there, 2.1, resamples=20)
    odds = explanations._LogOdds.fit(there.knots, there.positive, there.negative)
    prior = there.prevalence / (1 - there.prevalence) * odds.ratio(scores)
    estimate, chances = em(scores, prior / (1 + prior), there.prevalence)
    assert found.prevalence == pytest.approx(estimate, abs=2e-4)
    expected = {}
    for threshold in [*np.sort(scores)[::-1][1:], -np.inf]:
        match = scores > threshold
        expected[threshold] = 2 * chances[match].sum() / (match.sum() + chances.sum())
    best = max(expected, key=expected.get)
    assert found.expected["f1"] == pytest.approx(expected[best], abs=2e-3)
    assert (scores > found.threshold).sum() == pytest.approx((scores > best).sum(), abs=2)
    match = scores > 2.1
    assert found.expected_unchanged["precision"] == pytest.approx(chances[match].mean(), abs=2e-3)


def test_the_odds_are_those_of_logistic_regression():
    """Of many rows the penalty is nothing and the line is scikit-learn's; of separate classes it is finite."""
    scores, labels = draw(np.random.default_rng(3), 40_000, 0.3)
    knots, places = np.unique(np.round(scores, 2), return_inverse=True)
    counts = [np.bincount(places[side], minlength=len(knots)).astype(float) for side in (labels, ~labels)]
    plain = LogisticRegression(C=np.inf, tol=1e-8).fit(np.round(scores, 2)[:, np.newaxis], labels)
    odds = explanations._LogOdds.fit(knots, *counts)
    assert odds.slope == pytest.approx(plain.coef_[0, 0], rel=1e-3)
    prior = np.log(labels.sum() / (~labels).sum())
    assert odds.start + prior == pytest.approx(plain.intercept_[0], rel=1e-3)
    apart = explanations._LogOdds.fit(np.arange(20.0), np.repeat([0.0, 1.0], 10), np.repeat([1.0, 0.0], 10))
    assert 0.1 < apart.slope < 10


def test_firths_penalty_is_that_of_the_data_twice_half():
    """The fit solves Firth's equations, written out with loops over the rows."""
    rng = np.random.default_rng(4)
    scores, labels = draw(rng, 30, 0.3, 1.0)
    order = np.argsort(scores)
    x, y = scores[order], labels[order].astype(float)
    odds = explanations._LogOdds.fit(x, y, 1 - y)
    chance = 1 / (1 + np.exp(-(odds.start + np.log(y.sum() / (30 - y.sum())) + odds.slope * x)))
    design = np.stack([np.ones(30), x], axis=1)
    spread = chance * (1 - chance)
    inverse = np.linalg.inv(sum(s * np.outer(row, row) for s, row in zip(spread, design, strict=True)))
    for column in range(2):
        equation = 0.0
        for row in range(30):
            leverage = spread[row] * design[row] @ inverse @ design[row]
            equation += (y[row] - chance[row] + leverage * (0.5 - chance[row])) * design[row, column]
        assert equation == pytest.approx(0, abs=1e-6)


def test_more_positives_are_told_and_the_threshold_is_chosen_anew(there):
    """From 5 to 20 %: the prevalence is the cause, nothing needs a label, and the F1 of truth grows."""
    scores, labels = draw(np.random.default_rng(5), 5_000, 0.2)
    found = advise(scores, there, 2.1)
    assert found.verdict == "prevalence"
    assert found.interval[0] < 0.2 < found.interval[1]
    assert found.to_label == 0

    def f1(threshold):
        match = scores > threshold
        return 2 * (match & labels).sum() / (match.sum() + labels.sum())

    assert f1(found.threshold) > f1(2.1) + 0.02
    assert f1(found.threshold) == pytest.approx(found.expected["f1"], abs=0.05)
    assert "It seems that more of these rows are positive" in str(found)
    assert "Label" not in str(found)
    assert json.loads(json.dumps(found.to_dict()))["threshold"] == found.threshold


def test_fewer_positives_and_lower_scores_of_theirs_cannot_be_told_apart(there):
    """Both are called unclear, with both explanations, a threshold for the one and labels for the other."""
    for prevalence, separation in ((0.01, 2.5), (0.05, 1.0)):
        scores, _ = draw(np.random.default_rng(6), 10_000, prevalence, separation)
        found = advise(scores, there, 2.1)
        assert found.verdict == "unclear"
        assert "the positives score lower here" in found.instead
        assert found.threshold > 2.1
        assert found.to_label == 40
        text = str(found)
        assert "Either fewer of these rows are positive" in text
        assert "scores alone cannot tell which. Label 40 of these rows" in text
        assert "distributed as on" not in text


def test_moved_scores_ask_for_labels(there):
    """No threshold is advised where all scores moved, however well some prevalence would fit the tail."""
    scores, _ = draw(np.random.default_rng(7), 5_000, 0.05, moved=0.4)
    found = advise(scores, there, 2.1)
    assert (found.verdict, found.threshold, found.to_label) == ("scores", None, 40)
    assert "No prevalence explains it" in str(found)


def test_without_a_shift_nothing_is_advised(there):
    """Also not a threshold that another prevalence would like better."""
    scores, _ = draw(np.random.default_rng(8), 2_000, 0.05)
    found = advise(scores, there, 2.1)
    assert (found.verdict, found.threshold, found.prevalence) == ("none", None, None)
    assert str(found) == str(found.shift)


def test_what_was_wished_there_is_kept_here(there):
    """A limit holds for the expected figures; one that cannot be kept gives no threshold, and the labels are asked."""
    scores, _ = draw(np.random.default_rng(9), 5_000, 0.2)
    kept = advise(scores, there, 2.1, Objective("recall"), Constraints(min_precision=0.95, confidence=None))
    assert kept.expected["precision"] >= 0.95
    loose = advise(scores, there, 2.1, Objective("fbeta", 2.0))
    assert loose.threshold < kept.threshold
    few = advise(scores, there, 2.1, limits=Constraints(max_matches=10, confidence=None))
    assert (scores > few.threshold).sum() == 50
    never = Constraints(min_precision=1.0, min_recall=1.0, confidence=None)
    none = advise(scores, there, 2.1, limits=never)
    assert (none.verdict, none.threshold, none.to_label) == ("prevalence", None, 40)
    assert "no threshold is expected to keep what was asked" in str(none)


def test_too_little_known_is_said():
    """Of one positive, of a query that sorts the wrong way round, of a classifier without kept labels."""
    rng = np.random.default_rng(10)
    scores, labels = draw(rng, 300, 0.3)
    here = scores - 3
    one = ScoreSummary.of(scores, np.arange(300) == 7, 1.0)
    turned = ScoreSummary.of(scores, ~labels, 1.0)
    old = ScoreSummary.from_dict({"n": 300, "percentiles": np.percentile(scores, np.arange(101)).tolist()}, 0.3)
    for kept in (one, turned, old):
        found = advise(here, kept, 1.0)
        assert (found.verdict, found.prevalence, found.to_label) == ("unclear", None, 40)
        assert "Scores alone cannot tell why" in str(found)


def test_the_interval_is_of_both_samples(there):
    """Fewer rows here, and fewer labelled there, make it wider; equal seeds give equal ends."""
    rng = np.random.default_rng(11)
    scores, _ = draw(rng, 20_000, 0.3)
    few = ScoreSummary.of(*draw(rng, 200, 0.05), 2.1)

    def width(kept, rows):
        low, high = advise(rows, kept, 2.1).interval
        assert (low, high) == advise(rows, kept, 2.1).interval
        return high - low

    assert width(there, scores) < width(there, scores[:300])
    assert width(there, scores) < width(few, scores)
