"""Choosing a threshold, against trying every one; guarantees, against draws from a known source."""

from __future__ import annotations

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import InputError, UnreachableError
from embedstore.measures.choice import choose_threshold
from embedstore.measures.curves import precision_recall
from embedstore.measures.guarantees import chance_of, fewest_matches, lower_bound, precision_holds

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
    """With confidence=None, recall is the largest with precision >= p, precision the largest with recall >= r."""
    scores, labels = rows
    curve = precision_recall(scores, labels)
    tried = [curve.at(threshold) for threshold in curve.thresholds]
    allowed = [m.recall for m in tried if m.precision >= share and m.tp + m.fp]
    if allowed:
        choice = choose_threshold(curve, "recall", min_precision=share, confidence=None)
        assert choice.metrics.recall == max(allowed)
        assert choice.metrics.precision >= share
    else:
        with pytest.raises(UnreachableError) as caught:
            choose_threshold(curve, "recall", min_precision=share, confidence=None)
        assert caught.value.best["precision"] == max(m.precision for m in tried)
    choice = choose_threshold(curve, "precision", min_recall=share, confidence=None)
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
    with pytest.raises(
        UnreachableError, match=r"each can be kept alone.* best precision is 0\.5000"
    ) as caught:
        choose_threshold(curve, min_precision=0.9, min_recall=0.9, confidence=None)
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
    for start in fitting:
        for cut in range(len(curve.tp) - 1, -1, -1):
            matches = curve.tp[cut] + curve.fp[cut]
            if matches >= start:
                if scipy.stats.binom.sf(curve.tp[cut] - 1, matches, 0.9) > 0.05 / len(starts):
                    break
                expected[cut] = True
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
    """The same draws with confidence=None break the limit in a third of the cases: the guarantee matters."""
    rng = np.random.default_rng(3)
    failed = 0
    for _ in range(100):
        curve, held_out = precision_recall(*draw(rng, 300)), precision_recall(*draw(rng, 300))
        choice = choose_threshold(curve, "recall", min_precision=0.9, confidence=None)
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


def test_too_few_rows_for_a_guarantee_are_said():
    """Thirty perfect matches cannot show a precision of .95: the error gives the bound and what it would take."""
    curve = precision_recall(np.arange(60, dtype=np.float32), np.arange(60) >= 30)
    with pytest.raises(UnreachableError, match="at least 59 matches") as caught:
        choose_threshold(curve, min_precision=0.95)
    assert caught.value.best["precision"] == 1.0
    assert 0.85 < caught.value.best["precision_bound"] < 0.91
    assert choose_threshold(curve, min_precision=0.85).metrics.precision == 1.0
