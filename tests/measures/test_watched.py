"""Watched intervals against their plain definition, and against runs in which somebody looks after every label."""

from __future__ import annotations

import sys
from fractions import Fraction
from itertools import pairwise, product
from math import exp, inf, log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, binom, hypergeom

from embedstore.errors import InputError
from embedstore.measures.watched import Strata, count_evidence, count_interval, rate_intervals, share_interval

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from measuring import watched


def plain_evidence(positives: int, hits: int, trials: int, population: int) -> float:
    """The prior over the number of positives by the posterior: beta-binomial both, as Waudby-Smith and Ramdas."""
    left = positives - hits
    if not 0 <= left <= population - trials:
        return inf
    prior = betabinom.pmf(positives, population, 0.5, 0.5)
    return log(prior / betabinom.pmf(left, population - trials, 0.5 + hits, 0.5 + trials - hits))


labels = st.integers(0, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n), st.integers(n, 60)))


@given(labels, st.floats(0.5, 0.99))
@settings(max_examples=100)
def test_a_count_is_kept_unless_the_evidence_refutes_it(counts, confidence):
    """The bounds are the first and the last number of positives that the ratio of prior and posterior allows."""
    hits, trials, population = counts
    against = [plain_evidence(positives, hits, trials, population) for positives in range(population + 1)]
    assert count_evidence(np.arange(population + 1), hits, trials, population) == pytest.approx(against, abs=1e-9)
    kept = [positives for positives, value in enumerate(against) if value < -log(1 - confidence)]
    low, high = count_interval(hits, trials, population, confidence)
    assert (int(low), int(high)) == (kept[0], kept[-1])


@pytest.mark.parametrize(("population", "positives", "trials"), [(12, 4, 5), (9, 0, 3), (10, 10, 9), (7, 3, 1)])
def test_the_evidence_is_a_martingale(population, positives, trials):
    """Whatever was drawn, the next label leaves the evidence against the truth as it was, on average; or lowers it."""
    assert exp(count_evidence(positives, 0, 0, population)) == pytest.approx(1)
    for hits in range(max(0, trials - (population - positives)), min(positives, trials) + 1):
        before = exp(count_evidence(positives, hits, trials, population))
        chance = Fraction(positives - hits, max(population - trials, 1))
        after = sum(
            float(share) * exp(count_evidence(positives, hits + hit, trials + 1, population))
            for hit, share in ((1, chance), (0, 1 - chance))
            if share
        )
        if 0 < chance < 1:
            assert after == pytest.approx(before)
        else:  # only one kind of rows is left
            assert after < before
    drawn = np.arange(trials + 1)
    possible = hypergeom.pmf(drawn, population, positives, trials)
    evidence = count_evidence(positives, drawn, trials, population)
    assert sum(p * exp(e) for p, e in zip(possible, evidence, strict=True) if p > 0) <= 1 + 1e-9


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.5, 0.999))
@settings(max_examples=100)
def test_a_share_is_kept_unless_the_evidence_refutes_it(hits, misses, confidence):
    """Inside the bounds the mixture is less than 1 / (1 - confidence) times as likely, outside more; so with scipy."""
    trials = hits + misses
    low, high = map(float, share_interval(hits, trials, confidence))
    mixed = betabinom.pmf(hits, trials, 0.5, 0.5)

    def refuted(share: float) -> bool:
        return bool(mixed >= binom.pmf(hits, trials, share) / (1 - confidence))

    assert low <= hits / max(trials, 1) <= high
    assert low == 0 or refuted(low * (1 - 1e-9))
    assert high == 1 or refuted(high + (1 - high) * 1e-9)
    assert not refuted(low + 1e-9)
    assert not refuted(high - 1e-9)


def test_arrays_give_what_numbers_give_and_large_stores_what_endless_ones():
    """Counts in arrays are judged one by one; the bounds of a large store are those of rows without end."""
    hits, trials = np.array([[0, 3], [40, 5]]), np.array([[0, 50], [80, 5]])
    low, high = count_interval(hits, trials, 10**8, 0.95)
    shares = share_interval(hits, trials, 0.95)
    for place in product(range(2), range(2)):
        one = count_interval(hits[place], trials[place], 10**8, 0.95)
        assert (low[place], high[place]) == (int(one[0]), int(one[1]))
        assert low[place] / 10**8 == pytest.approx(shares[0][place], abs=1e-4)
        assert high[place] / 10**8 == pytest.approx(shares[1][place], abs=1e-4)
    assert [int(end) for end in count_interval(7, 20, 20, 0.95)] == [7, 7]


strata = st.builds(
    lambda tp, fp, fn, tn, more, others: Strata(tp, fp, fn, tn, tp + fp + more, fn + tn + others),
    *(st.integers(0, 6),) * 4,
    st.integers(0, 12),
    st.integers(0, 30),
)


@given(strata)
@settings(max_examples=60)
def test_rates_range_over_all_that_is_not_refuted(counts):
    """The bounds of recall and F1 are the extremes over all pairs of counts, tried one by one."""
    recalls, f1s, precisions = [], [], []
    for above, below in product(range(counts.matches + 1), range(counts.others + 1)):
        against = plain_evidence(above, counts.tp, counts.tp + counts.fp, counts.matches)
        both = against + plain_evidence(below, counts.fn, counts.fn + counts.tn, counts.others)
        if against < log(20) and counts.matches:
            precisions.append(above / counts.matches)
        if both < log(20):
            recalls += [above / (above + below)] if above + below else [0, 1]
            whole = counts.matches + above + below
            f1s.append(2 * above / whole if whole else 0)
    found = rate_intervals(counts, 0.95)
    assert found["recall"] == pytest.approx((min(recalls), max(recalls)))
    assert found["f1"] == pytest.approx((min(f1s), max(f1s)))
    assert found["precision"] == pytest.approx((min(precisions, default=0), max(precisions, default=0)))


def test_steps_widen_and_never_narrow():
    """In a large store, where not every pair is tried, the bounds lie just outside the exact ones."""
    counts = Strata(30, 10, 6, 54, 3_000, 4_000)
    above = np.arange(counts.matches + 1)[:, np.newaxis]
    below = np.arange(counts.others + 1)
    both = count_evidence(above, 30, 40, 3_000) + count_evidence(below, 6, 60, 4_000)
    kept = both < log(20)
    recall = (above / np.maximum(above + below, 1))[kept]
    f1 = (2 * above / (3_000 + above + below))[kept]
    for name, values in (("recall", recall), ("f1", f1)):
        low, high = rate_intervals(counts, 0.95)[name]
        assert values.min() - 0.005 < low <= values.min()
        assert values.max() <= high < values.max() + 0.005


def test_more_labels_of_the_same_shares_narrow():
    """Four times the labels make every interval narrower; and all labels leave none."""
    widths = []
    for times in (1, 4, 16, 64):
        counts = Strata(4 * times, times, times, 14 * times, 320, 960)
        found = rate_intervals(counts, 0.95)
        widths.append([found[name][1] - found[name][0] for name in ("precision", "recall", "f1")])
    for wider, narrower in pairwise(widths):
        assert all(new < old for old, new in zip(wider, narrower, strict=True))
    assert widths[-1] == [0, 0, 0]


@pytest.mark.parametrize(("hits", "trials"), [(3, 2), (-1, 5)])
def test_counts_that_contradict_each_other_are_refused(hits, trials):
    """More hits than trials, fewer than none, more labels than rows and a confidence of 1 are errors."""
    with pytest.raises(InputError, match="at most the number of trials"):
        share_interval(hits, trials, 0.95)
    with pytest.raises(InputError, match="more rows are labelled than there are"):
        count_interval(2, 5, 4, 0.95)
    with pytest.raises(InputError, match="between 0 and 1"):
        count_interval(2, 5, 9, 1.0)


def test_whoever_looks_after_every_label_is_told_the_truth():
    """In at most 5 % of runs of 1,000 labels is an interval ever wrong; bounds for one look are, in over 10 %."""
    found = list(watched.cells(draws=60, seed=1))
    assert len(found) == 5 * len(watched.PREVALENCES) + 1
    assert [cell for cell in found if not cell.holds] == []
