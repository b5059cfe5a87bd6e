"""The bootstrap against a plain loop that resamples rows and chooses again."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.measures.choice import Constraints, Objective, choose_threshold
from embedstore.measures.curves import precision_recall
from embedstore.measures.resampling import bootstrap
from embedstore.measures.samples import as_sample


def draw(seed, n, distance=2.2, positives=0.5):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < positives
    return rng.normal(0.05 + 0.01 * distance * labels, 0.01).astype(np.float32), labels


def test_resampled_thresholds_equal_a_plain_bootstrap():
    """The quantiles of the resampled thresholds agree with a plain loop that resamples rows and chooses again."""
    scores, labels = draw(11, 400)
    sample = as_sample(scores, labels, None)
    choice = choose_threshold(precision_recall(scores, labels))
    table = bootstrap(
        sample, sample, choice.metrics, Objective(), Constraints(), 2000, np.random.default_rng(0)
    ).another
    rng = np.random.default_rng(1)
    plain = []
    for _ in range(600):
        rows = rng.integers(400, size=400)
        plain.append(choose_threshold(precision_recall(scores[rows], labels[rows])).threshold)
    for tail in (0.1, 0.5, 0.9):
        # Between two thresholds of equal rank the plain loop takes another midpoint.
        assert np.quantile(table.threshold, tail) == pytest.approx(np.quantile(plain, tail), abs=0.0006)
