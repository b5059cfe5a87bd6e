"""One class: its score, and how its scores elsewhere differ from those of its calibration."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.deciding.target import Target
from embedstore.measures.choice import Wishes
from embedstore.measures.curves import precision_recall
from embedstore.vectors import normalise, scores


def unit(seed, n, dim=16):
    return normalise(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))


def test_shift_is_told_on_other_rows():
    """On rows like those of the calibration there is no shift; where all scores are lower it is said."""
    rows, asked = unit(0, 300), Target("dog", 0.0, unit(1, 1))
    found = asked.score(scores(asked.vectors, rows))
    labels = found + np.random.default_rng(2).normal(0, 0.2, 300) > 0.2
    target = asked.measured(found, labels, precision_recall(found, labels).at(0.2).to_dict())
    assert not target.shift(found).differs
    moved = target.shift(found - np.float32(0.2))
    assert moved.differs
    assert moved.median_shift == pytest.approx(-0.2, abs=1e-6)
    assert moved.seen_share < moved.expected_share
    advice = target.advice(found - np.float32(0.2), Wishes(guarantee=False))
    assert advice.verdict == "scores"
    assert "calibrate again" in str(advice)
    assert asked.advice(found, Wishes(guarantee=False)) is None
    assert asked.shift(found) is None
