"""Curves against scikit-learn and against counting by hand."""

from __future__ import annotations

import warnings

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import InputError
from embedstore.measures.curves import above, curves, metrics_at, midway, midways, precision_recall

CLOSE = {"rtol": 0, "atol": 1e-12}


anywhere = st.floats(-1, 1, width=32)


tied = st.integers(-4, 4).map(lambda step: step / 64)


nomic_like = st.floats(0.03125, 0.09375, width=32)


@st.composite
def scored_rows(draw, max_rows=60):
    n = draw(st.integers(1, max_rows))
    kind = draw(st.sampled_from([anywhere, tied, nomic_like]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    scores = draw(npst.arrays(dtype, n, elements=kind))
    one_class = draw(st.sampled_from([None, None, None, True, False]))
    if one_class is not None:
        return scores, np.full(n, one_class)
    return scores, draw(npst.arrays(np.bool_, n))


def quiet(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one class only is part of what is tested
        return function(*args, **kwargs)


def sklearn_figures(labels, predicted):
    options = {"zero_division": 0}
    return {
        "precision": sk.precision_score(labels, predicted, **options),
        "recall": sk.recall_score(labels, predicted, **options),
        "f1": sk.f1_score(labels, predicted, **options),
        "specificity": sk.recall_score(labels, predicted, pos_label=False, **options),
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "mcc": sk.matthews_corrcoef(labels, predicted),
    }


@given(scored_rows(max_rows=12))
@settings(max_examples=60, deadline=None)
def test_every_rate_at_every_cut_equals_scikit_learn(rows):
    """At every cut every rate is scikit-learn's for the predictions ``score > threshold``."""
    scores, labels = rows
    curve = precision_recall(scores, labels)
    for cut, threshold in enumerate(curve.thresholds):
        predicted = scores.astype(np.float64) > threshold
        for name, expected in quiet(sklearn_figures, labels, predicted).items():
            assert getattr(curve, name)[cut] == pytest.approx(expected, abs=1e-12), name
            assert getattr(curve.at_cut(cut), name) == pytest.approx(expected, abs=1e-12), name
        for beta in (0.5, 2.0):
            expected = sk.fbeta_score(labels, predicted, beta=beta, zero_division=0)
            assert curve.fbeta(beta)[cut] == pytest.approx(expected, abs=1e-12)


@given(scored_rows())
@settings(max_examples=200, deadline=None)
def test_whole_curve_equals_scikit_learn(rows):
    """The precision-recall curve, average precision and ROC AUC are scikit-learn's, also for one class."""
    scores, labels = rows
    curve = precision_recall(scores, labels)
    for ours, theirs in zip(
        curve.precision_recall_curve(), quiet(sk.precision_recall_curve, labels, scores), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, **CLOSE)
    expected = quiet(sk.average_precision_score, labels, scores)
    assert curve.average_precision == pytest.approx(expected, abs=1e-12)
    expected = quiet(sk.roc_auc_score, labels, scores)
    assert curve.roc_auc == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(scored_rows(), st.lists(st.one_of(anywhere, tied, st.floats(-2, 2)), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_threshold_counts_what_is_strictly_above(rows, thresholds):
    """`at` counts rows with score > threshold, compared in float64, for one threshold and for many."""
    scores, labels = rows
    curve = precision_recall(scores, labels)
    table = curve.at(np.array(thresholds))
    for name in ("threshold", "tp", "fp", "fn", "tn"):
        assert (getattr(metrics_at(scores, labels, thresholds), name) == getattr(table, name)).all()
    for number, threshold in enumerate(thresholds):
        matched = scores.astype(np.float64) > threshold
        assert (above(scores, threshold) == matched).all()
        counts = (
            int((matched & labels).sum()),
            int((matched & ~labels).sum()),
            int((~matched & labels).sum()),
            int((~matched & ~labels).sum()),
        )
        one = curve.at(threshold)
        assert (one.tp, one.fp, one.fn, one.tn) == counts
        assert table[number] == one
        assert table.f1[number] == one.f1


@given(npst.arrays(np.float32, st.integers(1, 30), elements=anywhere, unique=True))
@settings(max_examples=200, deadline=None)
def test_midway_thresholds_separate_neighbours(scores):
    """A midway threshold separates its neighbours, compared in float64 or in float32."""
    ordered = np.unique(scores)
    for cut, threshold in enumerate(midways(ordered)):
        assert midway(ordered, cut) == threshold
        expected = np.arange(len(ordered)) >= cut
        assert ((ordered.astype(np.float64) > threshold) == expected).all()
        assert ((ordered.astype(np.float64) >= threshold) == expected).all()
        assert ((ordered > np.float32(threshold)) == expected).all()


def test_adjacent_float32_scores_are_separated():
    """Two float32 scores with no float32 between them have a threshold, whichever of the two is even."""
    for start in (0.06, np.nextafter(np.float32(0.06), np.float32(1))):
        low = np.float32(start)
        high = np.nextafter(low, np.float32(1))
        threshold = midway(np.array([low, high]), 1)
        assert float(low) < threshold < float(high)
        assert precision_recall(np.array([low, high]), [False, True]).at(threshold).f1 == 1.0


def test_hundred_thousand_rows_equal_scikit_learn():
    """At 100,000 rows with ties the whole curve and its areas are scikit-learn's to 1e-12."""
    rng = np.random.default_rng(0)
    labels = rng.random(100_000) < 0.3
    scores = rng.normal(0.05 + 0.01 * labels, 0.012).astype(np.float32)
    scores[:50_000] = np.round(scores[:50_000], 4)
    curve = precision_recall(scores, labels)
    for ours, theirs in zip(curve.precision_recall_curve(), sk.precision_recall_curve(labels, scores), strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)
    assert curve.average_precision == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-12)
    assert curve.roc_auc == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    for threshold in (0.04, 0.0613, 0.09):
        expected = sklearn_figures(labels, scores.astype(np.float64) > threshold)
        for name, value in expected.items():
            assert getattr(curve.at(threshold), name) == pytest.approx(value, abs=1e-12), name


def test_roc_curve_equals_scikit_learn():
    """The ROC curve has scikit-learn's points when that drops none."""
    rng = np.random.default_rng(1)
    labels = rng.random(200) < 0.5
    scores = np.round(rng.normal(labels * 0.5, 1), 1)
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    ours = precision_recall(scores, labels).roc_curve()
    np.testing.assert_allclose(ours[0], fpr, **CLOSE)
    np.testing.assert_allclose(ours[1], tpr, **CLOSE)


def test_minus_zero_and_zero_are_one_score():
    """A score of -0.0 ties with 0.0."""
    curve = precision_recall(np.array([-0.0, 0.0, 1.0], dtype=np.float32), [True, False, True])
    assert curve.scores.tolist() == [0.0, 1.0]
    assert curve.tp.tolist() == [2, 1, 0]


def test_one_class_is_flagged():
    """One class only, and one score only, give figures and say what they lack."""
    none = precision_recall([0.1, 0.2], [False, False])
    assert none.one_class
    assert none.f1.tolist() == [0.0, 0.0, 0.0]
    assert "no row is labelled positive" in none.warnings[0]
    assert np.isnan(none.roc_auc)
    every = precision_recall([0.1, 0.1], [True, True])
    assert len(every.warnings) == 2
    assert every.at(-1.0).precision == 1.0


def test_many_queries_give_a_curve_each():
    """A matrix of scores gives one curve for each row, with shared labels or with its own."""
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(3, 20)).astype(np.float32)
    labels = rng.random((3, 20)) < 0.5
    for curve, row, truth in zip(curves(matrix, labels), matrix, labels, strict=True):
        assert (curve.tp == precision_recall(row, truth).tp).all()
    assert [c.n_pos for c in curves(matrix, labels[0])] == [labels[0].sum()] * 3
    with pytest.raises(InputError, match="2 rows of labels for 3"):
        curves(matrix, labels[:2])


def test_nan_threshold_is_refused():
    """A threshold that is NaN or not a number is an error, infinity is not."""
    curve = precision_recall([0.1, 0.2], [True, False])
    assert curve.at(float("inf")).tp == 0
    assert curve.at(-float("inf")).fp == 1
    for bad in (float("nan"), np.array([0.1, np.nan]), "high"):
        with pytest.raises(InputError, match="threshold must be a number"):
            curve.at(bad)


@given(scored_rows(), st.integers(2, 30))
def test_telling_cuts_hold_the_best_and_leave_out_what_is_worse(rows, n):
    """The best F1 by trying every cut is among them; no cut left out beats one of theirs on F1."""
    curve = precision_recall(*rows)
    cuts = curve.telling(n)
    f1 = [curve.at(float(threshold)).f1 for threshold in curve.thresholds]
    assert f1[curve.best_cut] == max(f1)
    assert max(f1[curve.best_cut + 1 :], default=-1) < max(f1)
    assert curve.best_cut in cuts
    assert (np.diff(cuts) > 0).all()
    assert min(len(curve.tp), n) <= len(cuts) + (n if len(curve.tp) > n else 0)
    assert len(cuts) <= n + 1


def test_telling_cuts_run_from_whole_recall_to_whole_precision():
    """From recall 1 to precision 1, as far as F1 is half of the best; none is far from the next."""
    rng = np.random.default_rng(0)
    labels = np.arange(20_000) < 1_000
    scores = rng.normal(0.05 + 0.03 * labels, 0.01)
    curve = precision_recall(scores, labels)
    table = curve.at(curve.thresholds[curve.telling(20)])
    best = curve.f1.max()
    assert table.f1.max() == best
    assert (table.f1 >= best / 2 - 1e-12).all()
    assert table.recall[0] > 0.97
    assert table.precision[-1] > 0.97
    assert np.abs(np.diff(table.recall)).max() < 0.12
    assert np.abs(np.diff(table.precision)).max() < 0.12


@given(scored_rows(max_rows=40), st.data())
@settings(deadline=None)
def test_weighted_figures_equal_scikit_learns(rows, data):
    """With sample_weight every count is a sum of weights, and every rate is scikit-learn's."""
    scores, labels = rows
    weights = data.draw(npst.arrays(np.float64, len(scores), elements=st.sampled_from([0.0, 0.5, 1.0, 3.0, 40.0])))
    if not weights.any():
        with pytest.raises(InputError, match="no row has a weight above 0"):
            precision_recall(scores, labels, weights)
        return
    curve = precision_recall(scores, labels, weights)
    assert curve.tp[-1] == curve.fp[-1] == 0
    for threshold in [*curve.thresholds.tolist(), *scores.tolist()]:
        matched = scores.astype(np.float64) > threshold
        seen = curve.at(threshold)
        assert seen.tp == pytest.approx(weights[matched & labels].sum())
        assert seen.fp == pytest.approx(weights[matched & ~labels].sum())
        assert seen.fn == pytest.approx(weights[~matched & labels].sum())
        assert seen.tn == pytest.approx(weights[~matched & ~labels].sum())
        options = {"sample_weight": weights, "zero_division": 0}
        assert seen.precision == pytest.approx(quiet(sk.precision_score, labels, matched, **options))
        assert seen.recall == pytest.approx(quiet(sk.recall_score, labels, matched, **options))
        assert seen.f1 == pytest.approx(quiet(sk.f1_score, labels, matched, **options))
    if 0 < weights[labels].sum() < weights.sum():
        assert curve.average_precision == pytest.approx(
            sk.average_precision_score(labels, scores, sample_weight=weights)
        )
        assert curve.roc_auc == pytest.approx(sk.roc_auc_score(labels, scores, sample_weight=weights))
    told = metrics_at(scores, labels, [0.0, 0.05], weights)
    assert told.tp.tolist() == curve.at([0.0, 0.05]).tp.tolist()


@given(scored_rows(max_rows=40))
@settings(deadline=None)
def test_equal_weights_count_rows(rows):
    """Weights of 1 give the counts of no weights, as floats."""
    plain, weighed = precision_recall(*rows), precision_recall(*rows, np.ones(len(rows[0])))
    assert plain.tp.tolist() == weighed.tp.tolist()
    assert plain.fp.tolist() == weighed.fp.tolist()
    assert plain.scores.tolist() == weighed.scores.tolist()
    assert plain.tp.dtype == np.int64


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([1.0], "one for each of 2 rows"),
        ([1.0, -1.0], "row 1 has -1.0"),
        ([1.0, float("inf")], "row 1 has inf"),
        ([1.0, float("nan")], "NaN, so it counts nowhere"),
        (["a", "b"], "expected numbers"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights, says):
    """The message names the row, or what was expected."""
    with pytest.raises(InputError, match=says):
        precision_recall([0.1, 0.2], [True, False], weights)
