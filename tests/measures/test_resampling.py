"""Where the truth lies: the posterior of the figures against scipy's, the best threshold against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, betabinom
from sklearn.linear_model import LogisticRegression

from embedstore.measures.choice import choose_threshold
from embedstore.measures.curves import precision_recall
from embedstore.measures.resampling import (
    best_threshold_interval,
    effective_positives,
    spread_of_figures,
)
from embedstore.measures.samples import as_sample


def draw(seed, n, distance=2.2, positives=0.5):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < positives
    return rng.normal(0.05 + 0.01 * distance * labels, 0.01).astype(np.float32), labels


TAILS = [0.025, 0.5, 0.975]
NONE = np.zeros(4)


@pytest.mark.parametrize("trust", [1.0, 2 / 3])
def test_the_figures_spread_as_beta_distributions(trust):
    """Precision, recall and F1 have the quantiles of scipy's beta: Jeffreys' with each row counting as told.

    F1 = 2 J / (1 + J), where J = tp / (tp + fp + fn) is a share like precision.
    """
    scores, labels = draw(3, 300)
    counted = precision_recall(scores, labels).at(0.06)
    spread = spread_of_figures(as_sample(scores, labels, None), 0.06, NONE, trust, np.random.default_rng(0))
    tp, fp, fn = (trust * count + 0.5 for count in (counted.tp, counted.fp, counted.fn))
    shares = beta.ppf(TAILS, tp, fp + fn)
    expected = {
        "precision": beta.ppf(TAILS, tp, fp),
        "recall": beta.ppf(TAILS, tp, fn),
        "f1": 2 * shares / (1 + shares),
    }
    for name, quantiles in expected.items():
        assert np.quantile(getattr(spread.expected, name), TAILS) == pytest.approx(quantiles, abs=0.006)


def test_another_sample_adds_its_own_chance():
    """Its counts sum to the number of rows; what matches is beta-binomial, as scipy has it."""
    scores, labels = draw(4, 200)
    counted = precision_recall(scores, labels).at(0.06)
    spread = spread_of_figures(as_sample(scores, labels, None), 0.06, NONE, 1.0, np.random.default_rng(0)).another
    assert (spread.tp + spread.fp + spread.fn + spread.tn == 200).all()
    found = betabinom(200, counted.tp + 0.5, 200 - counted.tp + 1.5)
    assert np.quantile(spread.tp, TAILS) == pytest.approx(found.ppf(TAILS), abs=3)


def test_optimism_is_taken_off():
    """The middle is that of the counts on the rows with what held-out rows showed more of each."""
    scores, labels = draw(5, 400)
    here = precision_recall(scores, labels).at(0.06)
    optimism = np.array([-8.0, 11.0, 8.0, -11.0])
    spread = spread_of_figures(as_sample(scores, labels, None), 0.06, optimism, 1.0, np.random.default_rng(0))
    expected = beta.median(here.tp - 8 + 0.5, here.fp + 11 + 0.5)
    assert np.median(spread.expected.precision) == pytest.approx(expected, abs=0.004)


def test_copies_and_heavy_rows_are_worth_what_kish_says():
    """Four copies of each row change nothing; rows of weights w are worth (sum w)² / sum w² rows."""
    scores, labels = draw(6, 120)
    copies = as_sample(*(np.repeat(column, 4) for column in (scores, labels, np.arange(120))))
    once = spread_of_figures(as_sample(scores, labels, None), 0.06, NONE, 1.0, np.random.default_rng(0)).expected
    again = spread_of_figures(copies, 0.06, NONE, 1.0, np.random.default_rng(1)).expected
    assert np.quantile(again.f1, TAILS) == pytest.approx(np.quantile(once.f1, TAILS), abs=0.006)
    weights = np.where(np.arange(120) % 2, 1.0, 9.0)
    heavy = as_sample(scores, labels, None, weights)
    spread = spread_of_figures(heavy, 0.06, NONE, 1.0, np.random.default_rng(2)).expected
    matched = scores > np.float32(0.06)
    right, wrong = weights[matched & labels], weights[matched & ~labels]
    rng = np.random.default_rng(3)
    plain = [(side.sum() / (side**2).sum() * side.sum(), (side**2).sum() / side.sum()) for side in (right, wrong)]
    worth = (weights**2).sum() / weights.sum()
    tp, fp = (
        scale * rng.standard_gamma(shape, 20_000) + worth * rng.standard_gamma(0.5, 20_000) for shape, scale in plain
    )
    assert np.quantile(spread.precision, TAILS) == pytest.approx(np.quantile(tp / (tp + fp), TAILS), abs=0.012)
    assert effective_positives(heavy) == pytest.approx(weights[labels].sum() ** 2 / (weights[labels] ** 2).sum())


def test_the_interval_of_the_best_threshold_is_that_of_a_plain_loop():
    """A loop over samples of the world that scikit-learn's regression makes gives nearly the same ends.

    Each sample takes each row a Poisson number of times, with a label drawn anew; where the best F1 of a sample is
    reached against that of the world's best threshold says how much may be missing on the labelled rows.
    """
    scores, labels = draw(11, 250, positives=0.3)
    curve = precision_recall(scores, labels)
    choice = choose_threshold(curve)
    sample = as_sample(scores, labels, None)
    low, high = best_threshold_interval(sample, None, curve, choice, 4000, 0.95, np.random.default_rng(0))

    plain = scores.astype(np.float64)
    model = LogisticRegression(C=2.5**2).fit(((plain - plain.mean()) / plain.std())[:, np.newaxis], labels)
    chance = model.predict_proba(((plain - plain.mean()) / plain.std())[:, np.newaxis])[:, 1]
    world = precision_recall(
        np.repeat(scores, 2), np.tile([True, False], 250), np.stack([chance, 1 - chance], 1).ravel()
    )
    best = world.thresholds[world.best_cut]
    rng, gains = np.random.default_rng(1), []
    for _ in range(1500):
        rows = np.repeat(np.arange(250), rng.poisson(1.0, 250))
        drawn = precision_recall(scores[rows], rng.random(len(rows)) < chance[rows])
        gains.append(drawn.f1.max() - drawn.at(best).f1)
    near = np.flatnonzero(curve.f1 >= curve.f1.max() - np.quantile(gains, 0.95))
    assert low == pytest.approx(curve.scores[near[0] - 1], abs=0.0015)
    assert high == pytest.approx(curve.scores[near[-1]], abs=0.0015)
    assert low <= choice.threshold <= high
