"""What a calibration says, in worlds of known truth: a short form of ``scripts/measure_decisions.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from measuring import intervals
from measuring.worlds import Binormal


@pytest.mark.parametrize(("n", "prevalence"), [(40, 0.1), (300, 0.01), (300, 0.5), (2_000, 0.01)])
def test_intervals_hold_what_they_are_said_to_hold(n, prevalence):
    """Of 60 draws the best threshold, this one's figures over all rows and on another sample lie inside 53 at least.

    A rate of 95 % gives fewer with a probability of 1 in 100; one of 77 %, as for another sample's threshold, passes
    with one of 1 in 50.
    """
    for cell in intervals.given(Binormal(prevalence), n, 60, 1):
        assert cell.holds, cell
        assert cell.seen >= 53 / 60, cell


def test_intervals_of_reviewed_labels_hold():
    """The same of 400 labels of two rounds in a world in which no line holds; and F1 is right to 0.03 on average."""
    for cell in intervals.reviewed(Binormal(0.2, spread=1.5), 400, 25, 1):
        assert cell.holds, cell


def test_forty_reviewed_labels_reach_eighty_random_ones():
    """The true F1 at the threshold that two rounds of ten near and ten random rows choose, over 40 stores."""
    cell = intervals.choosing(Binormal(0.05, 3.0, 1.5), 40, 1)
    assert cell.seen > 0, cell


def test_what_is_said_of_the_measurement_is_true():
    """Not one of 40 calibrations calls figures cross-validated that are not, or the other way round."""
    (cell,) = intervals.validations(40, 1)
    assert cell.seen == 0, cell
