"""Whether scores differ from those of a calibration: two tests, against scipy and brute force."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.measures.score_summary import ScoreSummary
from embedstore.measures.shift import critical_distance, percent, same_share_p, shift_of

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from measuring import shifts as simulated


def summary_of(scores, threshold, labels=None, weights=None):
    labels = np.arange(len(scores)) % 2 == 0 if labels is None else labels
    return ScoreSummary.of(scores, labels, threshold, weights)


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(2, 200), st.sampled_from([0, 1, 8]))
@settings(max_examples=60, deadline=None)
def test_the_distance_is_that_of_kolmogorov_and_smirnov(seed, n, m, steps):
    """Of few hundred labelled rows it is scipy's to the last digits, ties included."""
    rng = np.random.default_rng(seed)
    there, here = rng.normal(size=m), rng.normal(0.3, 1.2, n)
    if steps:
        there, here = np.round(there * steps) / steps, np.round(here * steps) / steps
    shift = shift_of(here, summary_of(there, 0.5), 0.5)
    assert shift.distance == pytest.approx(scipy.stats.ks_2samp(here, there).statistic, abs=1e-9)
    assert (shift.seen_share, shift.expected_share) == ((here > 0.5).mean(), (there > 0.5).mean())
    assert shift.median_shift == pytest.approx(np.sort(here)[(n - 1) // 2] - np.sort(there)[(m - 1) // 2])


@pytest.mark.parametrize(("n", "m", "moved"), [(5_000, 20_000, 0.0), (5_000, 20_000, 0.1), (300, 3_000, -1.0)])
def test_a_few_hundred_knots_lose_little_of_the_distance(n, m, moved):
    """Of many labelled rows the distance is scipy's to within 0.011, and never larger."""
    rng = np.random.default_rng(n)
    there, here = rng.normal(size=m), rng.normal(moved, 1, n)
    kept = summary_of(there, 1.5, labels=rng.random(m) < 0.02)
    assert len(kept.knots) < 500
    exact = scipy.stats.ks_2samp(here, there).statistic
    assert exact - 0.011 < shift_of(here, kept, 1.5).distance <= exact + 1e-12


@given(st.integers(1, 40), st.integers(1, 40), st.data())
@settings(max_examples=150, deadline=None)
def test_the_share_is_tested_by_fishers_mid_p(n, m, data):
    """Twice the smaller tail of the hypergeometric distribution, what was seen counting half."""
    hits, others = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    law = scipy.stats.hypergeom(n + m, hits + others, n)
    half = law.pmf(hits) / 2
    expected = min(1.0, 2 * min(law.cdf(hits) - half, law.sf(hits) + half))
    assert same_share_p(hits, n, others, m) == pytest.approx(expected, abs=1e-9)
    if hits * m == others * n:
        assert same_share_p(hits, n, others, m) > 0.5


@pytest.mark.parametrize(("n", "m"), [(12, 242), (60, 60), (200, 1_000)])
def test_the_critical_distance_is_exceeded_as_rarely_as_told(n, m):
    """By scipy's exact distribution, within a third of the level."""
    for error in (0.015, 0.05):
        assert 0.6 < scipy.stats.ks_2samp(*_apart(n, m, critical_distance(n, m, error))).pvalue / error < 1.35


def _apart(n, m, distance):
    """Return samples whose distance is the least that is at least as large."""
    first = np.arange(m) / m
    return np.arange(n) / n * (1 - distance) + distance + 1e-9, first


def test_the_tail_is_seen():
    """From 5 % of matches to 0.2 %: the shape alone hardly tells, the matched share does, and "as on" is not said."""
    rng = np.random.default_rng(1)
    labels = rng.random(1_000) < 0.05
    there = rng.normal(size=1_000) + 2.5 * labels
    here = rng.normal(size=10_000) + 2.5 * (rng.random(10_000) < 0.002)
    shift = shift_of(here, summary_of(there, 2.0, labels), 2.0)
    assert shift.share_differs
    assert "distributed as on" not in str(shift)
    assert f"{percent(shift.seen_share)} of the 10,000 rows match, {percent(shift.expected_share)} did there" in str(
        shift
    )


def test_either_test_alone_tells():
    """A matched share that stays while the rest moves is told too."""
    rng = np.random.default_rng(2)
    there = rng.normal(size=2_000)
    here = np.where(there > 1, there, there - 0.5)
    shift = shift_of(here, summary_of(there, 1.0), 1.0)
    assert (shift.shape_differs, shift.share_differs, shift.differs) == (True, False, True)
    assert "distributed as on" not in str(shift)
    assert "the median" in str(shift)


def test_what_would_have_been_told_is_said():
    """The bounds are the first shares that are not told; one row more on either side is."""
    rng = np.random.default_rng(3)
    there = rng.normal(size=400)
    here = rng.normal(size=900)
    kept = summary_of(there, 1.0)
    shift = shift_of(here, kept, 1.0)
    assert not shift.differs
    hits, (low, high) = round(kept.matched_share * 400), (round(end * 900) for end in shift.unseen)
    told = [same_share_p(hits, 400, matches, 900) < 0.035 for matches in range(901)]
    assert told.index(False) == low
    assert len(told) - 1 - told[::-1].index(False) == high
    assert f"less than {percent(low / 900)} or more than {percent(high / 900)} would be told" in str(shift)


@pytest.mark.parametrize("n", [1_000, 100_000])
def test_a_share_beyond_what_would_be_told_is_told(n: int) -> None:
    """A share just beyond either bound differs, one just within does not: also where a twentieth is what decides."""
    rng = np.random.default_rng(4)
    kept = summary_of(rng.normal(size=n), 1.5)
    low, high = (round(end * n) for end in shift_of(rng.normal(size=n), kept, 1.5).unseen)
    seen = {k: shift_of(np.r_[np.full(k, 2.0), np.zeros(n - k)], kept, 1.5) for k in (low - 1, low, high, high + 1)}
    assert [seen[k].share_differs for k in (low - 1, low, high, high + 1)] == [True, False, False, True]


def test_equal_and_constant_scores_do_not_shift():
    """The same scores have distance 0, also when all are equal or many tie; other constants have distance 1."""
    for scores in (np.full(30, 0.05), np.repeat([0.03, 0.05, 0.09], 40)):
        shift = shift_of(scores, summary_of(scores, 0.04), 0.04)
        assert shift.distance < 1e-12
        assert not shift.differs
    assert shift_of(np.full(30, 0.04), summary_of(np.full(30, 0.05), 0.03), 0.03).distance == 1


def test_trifles_are_not_told_of_very_many_rows():
    """A distance up to 0.02 and shares within a twentieth are taken for equal, however sure; more is told."""
    grid = np.linspace(0, 1, 400_001)
    there = summary_of(grid, 0.9)
    small = shift_of(np.where(grid > 0.9, grid, grid * 0.985), there, 0.9)
    assert 0.01 < small.distance < 0.02
    assert not small.differs
    assert shift_of(grid * 0.97, there, 0.9).shape_differs
    assert shift_of(np.where(grid > 0.893, grid + 0.007, grid), there, 0.9).share_differs


@given(st.integers(0, 2**32 - 1), st.integers(2, 900), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_summary_keeps_the_counts(seed, n, weighted):
    """At its knots the cumulative shares are those of the weighted rows, JSON and back; sizes are Kish's."""
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=n).astype(np.float32), rng.random(n) < 0.3
    weights = rng.choice([0.0, 0.5, 3.0, np.nan], n) if weighted else None
    if weighted and not np.nansum(weights):
        weights[0] = 1.0
    kept = summary_of(scores, 0.4, labels, weights)
    back = ScoreSummary.from_dict(json.loads(json.dumps(kept.to_dict())), kept.matched_share)
    counted = np.nan_to_num(np.ones(n) if weights is None else weights)
    wide = scores.astype(np.float64)
    for knot, total in zip(back.knots, np.cumsum(back.mass), strict=True):
        assert total == pytest.approx(counted[wide <= knot].sum() / counted.sum())
    for side, rows in ((labels, back.positive), (~labels, back.negative)):
        assert rows.sum() == pytest.approx(counted[side].sum())
    assert back.matched_share == pytest.approx(counted[wide > 0.4].sum() / counted.sum())
    assert back.size == pytest.approx(counted.sum() ** 2 / (counted**2).sum())
    assert back.prevalence == pytest.approx(counted[labels].sum() / counted.sum())
    assert back.quantile(1.0) == wide[counted > 0].max()


@pytest.mark.parametrize("n", [200, 20_000])
def test_a_summary_of_another_prevalence(n):
    """It is that of rows drawn at that prevalence: shares above any threshold, and worth what weighting leaves."""
    rng = np.random.default_rng(6)
    labels = rng.random(n) < 0.1
    scores = rng.normal(size=n) + 2.5 * labels
    kept = summary_of(scores, 2.0, labels)
    for prevalence, threshold in ((0.4, 2.2), (0.01, 3.1), (0.1, -9.0), (0.1, 99.0)):
        moved = kept.at_prevalence(prevalence, threshold)
        expected = prevalence * (scores[labels] > threshold).mean()
        expected += (1 - prevalence) * (scores[~labels] > threshold).mean()
        assert moved.matched_share == pytest.approx(expected, abs=1e-9 if n == 200 else 2e-4)
        assert moved.prevalence == pytest.approx(prevalence)
        weights = np.where(labels, prevalence / labels.sum(), (1 - prevalence) / (~labels).sum())
        assert moved.size == pytest.approx(1 / (weights**2).sum())


def test_weighted_rows_stand_for_others():
    """Rows of which half the positives were picked on purpose do not shift, when their weights are told."""
    rng = np.random.default_rng(4)
    truth = rng.random(20_000) < 0.05
    scores = rng.normal(size=20_000) + 2.5 * truth
    chance = np.where(scores > 1.5, 0.5, 0.02)
    picked = rng.random(20_000) < chance
    told = shift_of(scores, summary_of(scores[picked], 2.0, truth[picked], 1 / chance[picked]), 2.0)
    assert told.expected_share == pytest.approx((scores > 2.0).mean(), abs=0.005)
    assert not told.differs
    assert shift_of(scores, summary_of(scores[picked], 2.0, truth[picked]), 2.0).differs


def test_rows_that_were_picked_on_purpose_are_no_picture_of_all():
    """With the scores of all rows that 60 labelled ones were picked from, the tests are of those: sharp, and right."""
    rng = np.random.default_rng(7)
    truth = rng.random(20_000) < 0.05
    scores = rng.normal(size=20_000) + 2.5 * truth
    near = np.argsort(np.abs(scores - 2.0))[:30]
    drawn = rng.choice(np.setdiff1d(np.arange(20_000), near), 30, replace=False)
    picked, weights = np.append(near, drawn), np.repeat([1.0, 19_970 / 30], 30)
    kept = ScoreSummary.of(scores[picked], truth[picked], 2.0, weights, population=scores)
    back = ScoreSummary.from_dict(json.loads(json.dumps(kept.to_dict())), kept.matched_share)
    assert (back.n, back.size, back.matched_share) == (20_000, 20_000, (scores > 2.0).mean())
    assert back.prevalence == pytest.approx(np.average(truth[picked], weights=weights))
    again = rng.normal(size=20_000) + 2.5 * (rng.random(20_000) < 0.05)
    assert not shift_of(again, back, 2.0).differs
    fewer = shift_of(rng.normal(size=20_000) + 2.5 * (rng.random(20_000) < 0.03), back, 2.0)
    assert fewer.share_differs
    assert "the 20,000 rows of the calibration" in str(fewer)
    assert shift_of(scores, back, 2.0).distance < 0.005


def test_classifiers_of_before_are_compared_by_their_percentiles():
    """The 101 percentiles and the matched share are enough for both tests, not for more."""
    rng = np.random.default_rng(5)
    there = rng.normal(size=1_000)
    fields = {"n": 1_000, "percentiles": np.percentile(there, np.arange(101)).tolist()}
    kept = ScoreSummary.from_dict(fields, float((there > 1).mean()))
    assert not kept.labelled
    assert kept.to_dict() == fields
    assert not shift_of(rng.normal(size=1_000), kept, 1.0).differs
    assert shift_of(rng.normal(0.5, 1, 1_000), kept, 1.0).shape_differs
    assert shift_of(rng.normal(size=1_000)[:1_000], kept, 2.5).share_differs
    with pytest.raises(ValueError, match="3 knots with 1 and 1"):
        ScoreSummary.from_dict(
            {"n": 2, "sizes": [2, 1, 1], "whole": True, "knots": [1, 2, 3], "positive": [1], "negative": [1]}, 0
        )


def test_shifts_are_told_and_none_is_invented():
    """The script's cells in short: six shifts are told, none where there is none, and no wrong cause is named."""
    found = list(simulated.cells(40, seed=1))
    assert len(found) == 6 + 6 + 6 + 6
    assert [cell for cell in found if not cell.holds] == []
