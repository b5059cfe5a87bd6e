"""Scores without labels: counts, suggestions, and how two sets of scores differ."""

from __future__ import annotations

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import InputError
from embedstore.measures.distribution import ScoreDistribution, distribution_shift

some_scores = npst.arrays(np.float32, st.integers(1, 40), elements=st.integers(-9, 9).map(lambda step: step / 128))


@given(some_scores, st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=5), st.integers(0, 45))
@settings(max_examples=150, deadline=None)
def test_counts_and_percentiles_are_exact(scores, thresholds, most):
    """Matches and percentiles are those of counting, and `threshold_for` is the lowest that keeps the limit."""
    seen = ScoreDistribution.of(scores)
    wide = scores.astype(np.float64)
    expected = [int((wide > threshold).sum()) for threshold in thresholds]
    assert seen.matches(thresholds).tolist() == expected
    assert [seen.matches(threshold) for threshold in thresholds] == expected
    for threshold in thresholds:
        assert seen.percentile(threshold) == pytest.approx(100 * (wide <= threshold).mean())
    chosen = seen.threshold_for(most)
    assert seen.matches(chosen) <= most
    lower = wide[wide < chosen]
    if len(lower):
        assert (wide >= lower.max()).sum() > most


def test_gap_finds_the_group_at_the_top():
    """Ten scores that stand out from a thousand are separated, and the prominence says that it is no chance."""
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.normal(0.05, 0.005, 990), rng.normal(0.1, 0.002, 10)]).astype(np.float32)
    found = ScoreDistribution.of(scores).gap()
    assert found.matches == 10
    assert (scores > found.threshold).sum() == 10
    assert found.prominence > 50
    ordered = np.sort(scores)[::-1].astype(np.float64)
    assert found.width == ordered[9] - ordered[10]


def test_gap_of_chance_is_not_prominent():
    """Scores of an exponential tail, without a group at the top, have a prominence of chance."""
    prominent = [
        ScoreDistribution.of(np.random.default_rng(seed).exponential(size=1000)).gap(0.3).prominence
        for seed in range(50)
    ]
    assert np.median(prominent) < 8
    assert max(prominent) < 20


def test_gap_needs_two_scores():
    """One score, or equal ones, have no gap; `fewest` keeps the gap from cutting off a single outlier."""
    assert ScoreDistribution.of([0.1]).gap() is None
    assert ScoreDistribution.of([0.1, 0.1]).gap() is None
    scores = [1.3, 0.5, 0.49, 0.3, 0.29, 0.28, 0.27]
    assert ScoreDistribution.of(scores).gap().matches == 1
    assert ScoreDistribution.of(scores).gap(fewest=2).matches == 3


def test_noise_floor_keeps_nonsense_out():
    """Above the noise floor no nonsense query matches more than the share of rows that was allowed."""
    rng = np.random.default_rng(2)
    nonsense = rng.normal(0.04, 0.01, (7, 400)).astype(np.float32)
    floor = ScoreDistribution.of(rng.normal(size=400)).noise_floor(nonsense, share=0.02)
    worst = (nonsense.astype(np.float64) > floor).sum(axis=1).max()
    assert worst == 8
    with pytest.raises(InputError, match=r"expected shape \(n_queries, 400\), found \(7, 30\)"):
        ScoreDistribution.of(np.zeros(400)).noise_floor(nonsense[:, :30])
    with pytest.raises(InputError, match="share must be"):
        ScoreDistribution.of(np.zeros(400)).noise_floor(nonsense, share=1)


@pytest.mark.parametrize(("n", "m", "moved"), [(300, 500, 0.0), (300, 500, 0.4), (2000, 150, -1.0), (50, 50, 3.0)])
def test_shift_is_the_distance_of_kolmogorov_and_smirnov(n, m, moved):
    """Computed from 101 percentiles the distance is scipy's to within 0.02, and the medians and shares are exact."""
    rng = np.random.default_rng(n)
    there, here = rng.normal(size=m), rng.normal(moved, 1, n)
    expected = float((there > 0.5).mean())
    shift = distribution_shift(here, ScoreDistribution.of(there).summary(), 0.5, expected)
    assert shift.distance == pytest.approx(scipy.stats.ks_2samp(here, there).statistic, abs=0.02)
    assert shift.median_shift == pytest.approx(np.median(here) - np.median(there))
    assert shift.seen_share == (here > 0.5).mean()
    assert shift.differs == (abs(moved) > 0.3)
    assert f"{shift.seen_share:.1%}" in str(shift)
    assert f"{expected:.1%}" in str(shift)


def test_equal_and_constant_scores_do_not_shift():
    """The same scores have distance 0, also when all are equal or many tie."""
    for scores in (np.full(30, 0.05), np.repeat([0.03, 0.05, 0.09], 40)):
        shift = distribution_shift(scores, ScoreDistribution.of(scores).summary(), 0.04, 0.5)
        assert shift.distance < 0.02
        assert not shift.differs


def test_negative_number_of_matches_is_refused():
    """A negative number of matches is an error."""
    with pytest.raises(InputError, match="cannot be negative"):
        ScoreDistribution.of([0.1]).threshold_for(-1)
