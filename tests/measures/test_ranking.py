"""Which query is best: against scikit-learn, against resampling by hand, and in worlds of known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from embedstore.errors import InputError
from embedstore.measures.ranking import _Ordered, rank_scores


def drawn(seed: int, separations: list[float], n: int = 150, prevalence: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < prevalence
    while truth.sum() < 4:
        truth = rng.random(n) < prevalence
    noise = np.sqrt(0.5) * (rng.normal(size=n) + rng.normal(size=(len(separations), n)))
    return (noise + np.array(separations)[:, np.newaxis] * truth).astype(np.float32), truth


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=2, max_size=20))
def test_average_precision_of_resampled_rows_is_scikit_learn_s(rows: list[tuple[int, bool, int]]) -> None:
    """With any ties and any number of copies of each row; 0 where no positive is drawn."""
    scores, truth, times = (np.array(column) for column in zip(*rows, strict=True))
    found = _Ordered.of(scores.astype(np.float32), truth).average_precision(times[np.newaxis].astype(float)).item()
    drawn_rows = np.repeat(np.arange(len(rows)), times)
    positives = truth[drawn_rows].any() if len(drawn_rows) else False
    expected = average_precision_score(truth[drawn_rows], scores[drawn_rows]) if positives else 0.0
    assert found == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=3, max_size=20))
def test_precision_among_the_others_is_the_plain_definition(rows: list[tuple[int, bool]]) -> None:
    """For each positive the share of positives among the other rows that score as high, or of it and the one below."""
    scores, truth = (np.array(column) for column in zip(*rows, strict=True))
    found = _Ordered.of(scores.astype(np.float32), truth).of_others(np.ones((1, len(rows)))).item()
    falling = np.argsort(-scores, kind="stable")
    shares = []
    for row in np.flatnonzero(truth):
        others = np.flatnonzero((scores >= scores[row]) & (np.arange(len(rows)) != row))
        shares.append(truth[others].mean() if len(others) else (1 + truth[falling[1]]) / 2)
    assert found == pytest.approx(np.mean(shares) if shares else 0.0, abs=1e-12)


def test_few_positives_do_not_flatter_among_the_others() -> None:
    """Scores that mean nothing have the prevalence, .1, also with a handful of positives; their AP is .03 more."""
    plain, others, weight = [], [], []
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        truth, scores = rng.random(150) < 0.1, rng.normal(size=150).astype(np.float32)
        one, all_rows = _Ordered.of(scores, truth), np.ones((1, 150))
        plain.append(one.average_precision(all_rows).item())
        others.append(one.of_others(all_rows).item())
        weight.append(truth.sum())
    assert np.average(others, weights=weight) == pytest.approx(0.1, abs=0.008)
    assert np.average(plain, weights=weight) > 0.125


def test_the_best_of_equal_queries_is_not_flattered() -> None:
    """Of 20 equal queries the best is reported more than .15 too high, and corrected to within .03."""
    true = 0.293  # of normal scores one deviation apart, one row in ten positive
    made = [rank_scores(*drawn(seed, [1.0] * 20)) for seed in range(60)]
    raw = [one.average_precision[one.best] - true for one in made]
    corrected = [one.corrected - true for one in made]
    assert np.mean(raw) > 0.15
    assert abs(np.mean(corrected)) < 0.03 + 2 * np.std(corrected) / np.sqrt(60)
    assert np.mean([not one.as_good.all() for one in made]) <= 0.15
    inside = [low <= true <= high for one in made for low, high in one.intervals]
    assert np.mean(inside) > 0.9


def test_a_better_query_is_told_from_the_others() -> None:
    """Where one query is far better and there are labels enough, only it is as good as the best; seeds repeat."""
    scores, truth = drawn(3, [3.0, 1.0, 1.0, 0.0], n=600)
    made = rank_scores(scores, truth)
    assert made.as_good.tolist() == [True, False, False, False]
    assert made.behind[0] == 0
    expected = [average_precision_score(truth, line) for line in scores]
    assert made.average_precision == pytest.approx(expected, abs=1e-12)
    assert made.behind == pytest.approx(max(expected) - np.array(expected), abs=1e-12)
    assert made.corrected == pytest.approx(expected[0], abs=0.05)
    again = rank_scores(scores, truth)
    assert (again.corrected, again.intervals) == (made.corrected, made.intervals)
    equal = rank_scores(scores[[0, 0]], truth)
    assert equal.as_good.all()


def test_copies_are_no_further_evidence() -> None:
    """Eight copies of each picture leave the interval about as wide as one does, not narrower."""
    scores, truth = drawn(5, [1.0, 0.8], n=150)
    one = rank_scores(scores, truth)
    eight = rank_scores(np.repeat(scores, 8, axis=1), np.repeat(truth, 8), np.repeat(np.arange(150), 8))
    apart = rank_scores(np.repeat(scores, 8, axis=1), np.repeat(truth, 8))
    width = [high - low for low, high in (one.intervals[0], eight.intervals[0], apart.intervals[0])]
    assert width[1] == pytest.approx(width[0], rel=0.2)
    assert width[2] < width[0] / 2
    assert eight.corrected == pytest.approx(one.corrected, abs=1e-12)


def test_weights_and_rows_of_unknown_picking() -> None:
    """Average precision is scikit-learn's with `sample_weight`; rows of NaN weight count nowhere."""
    scores, truth = drawn(7, [1.0, 0.5], n=200)
    weight = np.random.default_rng(1).exponential(5, 200)
    weight[150:] = np.nan
    made = rank_scores(scores, truth, sample_weight=weight)
    expected = [average_precision_score(truth[:150], line[:150], sample_weight=weight[:150]) for line in scores]
    assert made.average_precision == pytest.approx(expected, abs=1e-12)


def test_too_little_to_say() -> None:
    """Fewer than four positives correct nothing; no query, and scores of another shape, are errors."""
    scores, truth = drawn(9, [1.0, 0.5])
    truth[:] = False
    truth[:3] = True
    made = rank_scores(scores, truth)
    assert made.corrected is None
    assert all(0 <= low <= high <= 1 for low, high in made.intervals)
    with pytest.raises(InputError, match="expected scores of shape"):
        rank_scores(scores[0], truth)
