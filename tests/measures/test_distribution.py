"""Scores without labels: counts, suggestions, and how two sets of scores differ."""

from __future__ import annotations

import sys
from pathlib import Path

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import InputError
from embedstore.measures.distribution import ScoreDistribution

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from measuring import gaps as simulated

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
    assert found.prominence > 3 * found.limit
    ordered = np.sort(scores)[::-1].astype(np.float64)
    assert found.width == ordered[9] - ordered[10]


def test_the_rule_of_the_gap_is_the_one_that_is_written():
    """Weighed gaps against a power of the rank, fitted to the logarithms, and limits that sum up to the error."""
    scores = np.random.default_rng(3).normal(size=400)
    scores[:4] += 7
    found = ScoreDistribution.of(scores).gap(0.1)
    top = np.sort(scores)[::-1]
    weighed = [k * (top[k - 1] - top[k]) for k in range(1, 65)]
    slope, start = np.polyfit(np.log(range(9, 65)), np.log(weighed[8:]) + np.euler_gamma, 1)
    used = np.log(range(9, 65))
    error = np.sqrt(np.pi**2 / 6 / ((used - used.mean()) ** 2).sum())
    level = start + slope * used.mean()
    upwards = min(slope, slope * (0.5 - 64 / 399)) - error / 2
    excess = {}
    for k in range(1, 33):
        way = np.log(k) - used.mean()
        times = weighed[k - 1] / np.exp(level + (upwards if way < 0 else max(slope, 0)) * way)
        excess[k] = times - np.log(k * sum(1 / j for j in range(1, 33)) / 0.1), times
    best = max(excess, key=lambda k: excess[k][0])
    assert found.matches == best
    assert found.prominence == pytest.approx(excess[best][1])
    assert found.prominence - found.limit == pytest.approx(excess[best][0])


def test_few_or_equal_scores_have_no_gap():
    """Of fewer than 20 distinct scores nothing is told; repeats neither make a gap nor hide one."""
    assert ScoreDistribution.of([0.1]).gap() is None
    assert ScoreDistribution.of(np.full(500, 0.1)).gap() is None
    assert ScoreDistribution.of([0.0, 0.01, 0.02, 9.0]).gap() is None
    scores = np.random.default_rng(4).exponential(size=300)
    assert ScoreDistribution.of(np.repeat(scores, 3)).gap() is None
    far = np.append(scores, [40.0, 41.0])
    assert ScoreDistribution.of(far).gap().matches == 2
    assert ScoreDistribution.of(np.repeat(far, 3)).gap().matches == 6


def test_gaps_of_chance_are_none_and_three_positives_are_found():
    """The script's cells in short."""
    found = list(simulated.cells(60, seed=1))
    assert len(found) > 15
    assert [cell for cell in found if not cell.holds] == []


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
