"""Curves of P(match | score) against scikit-learn, against a plain weighing of the prior, and against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import kstest, norm, truncnorm, uniform
from sklearn.linear_model import LogisticRegression

from embedstore.errors import InputError, LabelError
from embedstore.measures.logistic import BEND, PREVALENCES, SLOPE, Thinned, match_curves


def draw(seed, n, prevalence=0.1, separation=2.0):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < prevalence
    return (0.05 + 0.01 * (rng.standard_normal(n) + separation * truth)).astype(np.float32), truth, rng


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=1500))
@settings(max_examples=60)
def test_thinned_scores_stand_for_every_row(scores):
    """Few values ascend, stand for as many rows as there are, and have their mean; up to 300 are kept as they are."""
    thin = Thinned.of(np.array(scores, np.float32))
    assert thin.rows.sum() == len(scores)
    assert (np.diff(thin.values) >= 0).all()
    assert len(thin.values) <= 602
    assert np.average(thin.values, weights=thin.rows) == pytest.approx(np.mean(scores), abs=1e-6)
    if len(scores) <= 300:
        assert thin.values == pytest.approx(np.sort(scores))


def test_many_labels_give_logistic_regression():
    """With 20,000 labels chances lie around scikit-learn's fit without a penalty, as closely as its own errors."""
    scores, truth, rng = draw(1, 40_000)
    labelled = rng.permutation(len(scores))[:20_000]
    curves = match_curves(scores, scores[labelled], truth[labelled], 600, rng)

    def design(values):
        z = (np.asarray(values, float) - curves.centre) / curves.scale
        return np.stack([np.ones_like(z), z, np.maximum(z, 0) ** 2], axis=1)

    rows = design(scores[labelled])
    fitted = LogisticRegression(C=1e9, fit_intercept=False).fit(rows, truth[labelled])
    chance = fitted.predict_proba(rows)[:, 1]
    covariance = np.linalg.inv((rows * (chance * (1 - chance))[:, np.newaxis]).T @ rows)
    for score in (0.05, 0.06, 0.065, 0.07, 0.075):
        place = design([score])[0]
        error = np.sqrt(place @ covariance @ place)
        found = logit(curves.chance([score])[:, 0])
        assert found.mean() == pytest.approx(place @ fitted.coef_[0], abs=error / 2)
        assert found.std() == pytest.approx(error, rel=0.25)


def test_without_labels_the_curves_are_the_stated_prior():
    """The log-odds of the share of matches are uniform between the bounds, slopes and bends normal, in their bounds."""
    scores, _, rng = draw(2, 3_000)
    curves = match_curves(scores, [], [], 2_000, rng)
    shares = curves.chance(scores).mean(axis=1)
    low, high = logit(PREVALENCES)
    assert kstest(logit(shares), uniform(low, high - low).cdf).pvalue > 0.001
    slope = truncnorm(-SLOPE[0] / SLOPE[1], np.inf, *SLOPE)
    assert kstest(curves.slope, slope.cdf).pvalue > 0.001
    z = (scores.max() - curves.centre) / curves.scale
    bend = np.log1p(2 * z * curves.curvature / curves.slope)
    assert kstest(bend, norm(0, BEND).cdf).statistic < 0.05  # the highest score is a mean of few
    chance = curves.chance(np.sort(scores))
    assert (np.diff(chance, axis=1) >= -1e-12).all()


def plain_posterior(scores, labelled, truth, curves, rng, n=4_000):
    """Draws from the prior with weights by how well they fit the labels."""
    z = (scores.astype(float) - curves.centre) / curves.scale
    odds = rng.uniform(*logit(PREVALENCES), n)
    slope = truncnorm.rvs(-SLOPE[0] / SLOPE[1], np.inf, *SLOPE, size=n, random_state=rng)
    curvature = slope * np.expm1(rng.normal(0, BEND, n)) / (2 * z.max())
    rise = slope[:, np.newaxis] * z + curvature[:, np.newaxis] * np.maximum(z, 0) ** 2
    low, high = np.full(n, -250.0), np.full(n, 60.0)
    for _ in range(40):
        middle = (low + high) / 2
        less = expit(middle[:, np.newaxis] + rise).mean(axis=1) < expit(odds)
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    chance = expit(low[:, np.newaxis] + rise[:, labelled])
    weights = np.prod(np.where(truth[labelled], chance, 1 - chance), axis=1)
    return odds, slope, weights / weights.sum()


def test_few_labels_weigh_the_prior_by_their_likelihood():
    """Means and spreads are those of a great many draws from the prior, each weighed by how well it fits the labels."""
    scores, truth, rng = draw(3, 300)
    labelled = rng.permutation(len(scores))[:30]
    curves = match_curves(scores, scores[labelled], truth[labelled], 4_000, rng)
    odds, slope, weights = plain_posterior(scores, labelled, truth, curves, rng)
    found = logit(curves.chance(scores).mean(axis=1))
    for seen, plain in ((found, odds), (curves.slope, slope)):
        mean = (weights * plain).sum()
        spread = np.sqrt((weights * (plain - mean) ** 2).sum())
        assert seen.mean() == pytest.approx(mean, abs=0.15 * spread)
        assert seen.std() == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("near", [True, False])
def test_picking_by_score_does_not_bend_the_curve(near):
    """400 labels nearest to a score, or 400 at random: the true chance lies among the curves where labels were."""
    scores, truth, rng = draw(4, 20_000)
    picked = np.argsort(np.abs(scores - 0.066))[:400] if near else rng.permutation(len(scores))[:400]
    curves = match_curves(scores, scores[picked], truth[picked], 1_000, rng)
    z = (0.066 - 0.05) / 0.01
    wanted = 0.1 * norm.pdf(z - 2) / (0.1 * norm.pdf(z - 2) + 0.9 * norm.pdf(z))
    low, high = np.quantile(curves.chance([0.066]), [0.005, 0.995])
    assert low < wanted < high
    assert high - low < 0.35


@pytest.mark.parametrize("truth", [True, False])
def test_labels_of_one_kind_and_equal_scores_are_no_trouble(truth):
    """All yes, all no, one row, one score for all: the chances are finite and between 0 and 1."""
    rng = np.random.default_rng(0)
    for scores in (np.linspace(0, 1, 50), np.full(50, 0.3), np.array([0.3])):
        curves = match_curves(scores, scores[:20], np.full(len(scores[:20]), truth), 50, rng)
        chance = curves.chance(scores)
        assert chance.shape == (50, len(scores))
        assert ((chance >= 0) & (chance <= 1)).all()
        assert curves.chance(scores, 3) == pytest.approx(chance[3])
        assert len(curves) == 50


def test_what_does_not_fit_is_refused():
    """No scores, and a label too many, are errors."""
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="there are none"):
        match_curves([], [], [], 10, rng)
    with pytest.raises(LabelError, match="exactly one"):
        match_curves([0.1, 0.2], [0.1], [True, False], 10, rng)
