"""Scores without labels: counts, suggestions, and how two sets of scores differ."""

from __future__ import annotations

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import InputError
from embedstore.measures.distribution import ScoreDistribution

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


def test_negative_number_of_matches_is_refused():
    """A negative number of matches is an error."""
    with pytest.raises(InputError, match="cannot be negative"):
        ScoreDistribution.of([0.1]).threshold_for(-1)
