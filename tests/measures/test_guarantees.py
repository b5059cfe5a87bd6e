"""Guarantees against scipy, against a plain loop, and against draws from a known source."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import UnreachableError
from embedstore.measures.choice import Constraints, choose_threshold
from embedstore.measures.curves import precision_recall
from embedstore.measures.guarantees import _starts, chance_of, fewest_matches, lower_bound, precision_holds


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.05, 0.99), st.floats(0.5, 0.999))
@settings(max_examples=200, deadline=None)
def test_binomial_bounds_equal_scipy(hits, misses, share, confidence):
    """The bound is Clopper and Pearson's and the chance is the binomial tail, as scipy.stats has them."""
    trials = hits + misses
    assert chance_of(hits, trials, share) == pytest.approx(scipy.stats.binom.sf(hits - 1, trials, share))
    if trials:
        test = scipy.stats.binomtest(hits, trials, alternative="greater")
        expected = test.proportion_ci(confidence, method="exact").low
        assert lower_bound(hits, trials, confidence) == pytest.approx(expected, abs=1e-9)


def test_fewest_matches_is_the_first_that_can_pass():
    """59 matches without an error show a precision of .95 at 95 % confidence, 58 do not."""
    assert fewest_matches(0.95, 0.95) == 59
    assert lower_bound(59, 59, 0.95) >= 0.95 > lower_bound(58, 58, 0.95)


def test_certified_cuts_follow_the_rule():
    """The certified cuts are those that a plain loop over the starts and the tests certifies."""
    rng = np.random.default_rng(5)
    labels = rng.random(700) < 0.6
    curve = precision_recall(np.round(rng.normal(labels * 2.5, 1), 2), labels)
    starts = [k for k in (62, 124, 248, 496) if k <= 700]
    while True:  # the error is shared among as many starts as fit
        first = fewest_matches(0.9, 1 - 0.05 / len(starts))
        fitting = [first * 2**i for i in range(12) if first * 2**i <= 700]
        if len(fitting) <= len(starts):
            break
        starts = fitting
    expected = np.zeros(len(curve.tp), dtype=bool)
    level, due = 0.0, list(fitting)
    for cut in range(len(curve.tp) - 1, -1, -1):
        matches = curve.tp[cut] + curve.fp[cut]
        while due and matches >= due[0]:  # a start brings its share of the error to whatever is left of those before
            level += 0.05 / len(starts)
            due.pop(0)
        passes = level > 0 and scipy.stats.binom.sf(curve.tp[cut] - 1, matches, 0.9) <= level
        expected[cut] = passes
        level = level if passes or not level else 0.0
    assert expected.any()
    assert (precision_holds(curve.tp, curve.matches, 0.9, 0.95) == expected).all()


def draw(rng, n, distance=2.5):
    labels = rng.random(n) < 0.5
    return rng.normal(0.05 + 0.01 * distance * labels, 0.01).astype(np.float32), labels


@pytest.mark.parametrize(("n", "share"), [(300, 0.9), (300, 0.95), (2000, 0.95)])
def test_guaranteed_precision_holds_on_held_out_rows(n, share):
    """In at most 5 % of 200 draws does a guaranteed precision fail: true precision, and that of a held-out half.

    Of 200 draws with a chance of 5 % each more than 19 fail with a probability below 1 %.
    """
    rng = np.random.default_rng(int(n + 100 * share))
    big = precision_recall(*draw(rng, 400_000))
    failed_truth = failed_half = reached = 0
    for _ in range(200):
        rows, held_out = draw(rng, n), draw(rng, n)
        try:
            threshold = choose_threshold(precision_recall(*rows), "recall", min_precision=share).threshold
        except UnreachableError:
            continue
        reached += 1
        failed_truth += big.at(threshold).precision < share
        failed_half += precision_recall(*held_out).at(threshold).precision < share
    assert failed_truth <= 19
    assert failed_half <= 19
    assert reached >= (190 if n == 2000 else 40)


def test_without_guarantee_the_limit_fails_on_held_out_rows():
    """The same draws with guarantee=False break the limit in a third of the cases: the guarantee matters."""
    rng = np.random.default_rng(3)
    failed = 0
    for _ in range(100):
        curve, held_out = precision_recall(*draw(rng, 300)), precision_recall(*draw(rng, 300))
        choice = choose_threshold(curve, "recall", min_precision=0.9, guarantee=False)
        failed += held_out.at(choice.threshold).precision < 0.9
    assert failed > 33


def test_guaranteed_recall_holds():
    """In at most 5 % of 200 draws is the true recall below the guaranteed one; precision is then maximal."""
    rng = np.random.default_rng(4)
    big = precision_recall(*draw(rng, 400_000))
    failed = 0
    for _ in range(200):
        choice = choose_threshold(precision_recall(*draw(rng, 300)), "precision", min_recall=0.9)
        failed += big.at(choice.threshold).recall < 0.9
    assert 1 <= failed <= 19  # not wasteful either


def test_two_guarantees_hold_together():
    """Asked for together, precision and recall both hold in truth in all but 5 % of 200 draws."""
    rng = np.random.default_rng(6)
    big = precision_recall(*draw(rng, 400_000, distance=3))
    failed = reached = 0
    for _ in range(200):
        curve = precision_recall(*draw(rng, 600, distance=3))
        try:
            choice = choose_threshold(curve, min_precision=0.85, min_recall=0.85)
        except UnreachableError:
            continue
        reached += 1
        truth = big.at(choice.threshold)
        failed += truth.precision < 0.85 or truth.recall < 0.85
    assert failed <= 19
    assert reached > 150


def test_error_of_finished_runs_is_not_lost():
    """More is certified than by runs that each keep to their own share of the error, and nothing less (Wiens 2003)."""
    rng = np.random.default_rng(11)
    more = 0
    for _ in range(60):
        curve = precision_recall(*draw(rng, 1000, distance=2))
        holds = precision_holds(curve.tp, curve.matches, 0.9, 0.95)
        apart = np.zeros_like(holds)
        starts, error = _starts(1000, 0.9, 0.95)
        passed = chance_of(curve.tp, curve.matches, 0.9) <= error
        for start in starts:
            cuts = np.flatnonzero(curve.matches >= start)[::-1]
            apart[cuts[np.logical_and.accumulate(passed[cuts])]] = True
        assert (holds >= apart).all()
        more += int(holds.sum()) > int(apart.sum())
    assert more > 20


def test_the_evidence_guarantees_for_another_curve():
    """A cut of a weighted curve is certified when the threshold there is, on the rows that were drawn at random."""
    rng = np.random.default_rng(12)
    scores, labels = draw(rng, 900, distance=3)
    random = rng.random(900) < 0.6
    weights = np.where(random, 5.0, 1.0)
    evidence = precision_recall(scores[random], labels[random])
    curve = precision_recall(scores, labels, weights)
    limits = Constraints(min_precision=0.85, min_recall=0.8)
    kept = limits.masks(curve, evidence)
    alone = limits.masks(evidence)
    for cut, threshold in enumerate(curve.thresholds.tolist()):
        for name in ("min_precision", "min_recall"):
            assert kept[name][cut] == alone[name][evidence.cut(threshold)]
    assert kept["min_precision"].any()
    assert not kept["min_recall"].all()
