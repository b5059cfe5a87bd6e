"""Displays hold the numbers they draw, and draw the numbers they hold."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from embedstore.deciding.plots import (
    PrecisionRecallDisplay,
    RocDisplay,
    ScoreHistogramDisplay,
    ThresholdDisplay,
)
from embedstore.errors import InputError, PathError
from embedstore.measures.curves import precision_recall

RNG = np.random.default_rng(0)
LABELS = RNG.random(300) < 0.5
SCORES = RNG.normal(0.05 + 0.02 * LABELS, 0.01).astype(np.float32)
CURVE = precision_recall(SCORES, LABELS)
CHOSEN = 0.06


def displays():
    return [
        PrecisionRecallDisplay.from_curve(CURVE, CHOSEN, "a dog"),
        RocDisplay.from_curve(CURVE, CHOSEN),
        ThresholdDisplay.from_curve(CURVE, CHOSEN),
        ScoreHistogramDisplay.from_scores(SCORES, LABELS, CHOSEN),
        ScoreHistogramDisplay.from_scores(SCORES),
    ]


@pytest.mark.parametrize("display", displays(), ids=lambda display: type(display).__name__)
def test_pictures_are_written(display, tmp_path):
    """Each display writes a PNG with something drawn on it, and an SVG, whatever the case of the ending."""
    png = display.save(tmp_path / "plot.PNG")
    with Image.open(png) as picture:
        assert picture.size == (960, 720)
        assert len(picture.convert("RGB").getcolors(100_000)) > 50
    assert b"<svg" in display.save(tmp_path / "plot.svg").read_bytes()


def test_curves_draw_the_numbers_they_hold():
    """The points of the lines are those of the curve, and the marked point is that of the threshold."""
    metrics = CURVE.at(CHOSEN)
    shown = PrecisionRecallDisplay.from_curve(CURVE, CHOSEN).plot()
    line, _, mark = shown.ax_.get_lines()
    precision, recall, _ = CURVE.precision_recall_curve()
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([recall, precision]))
    assert mark.get_xydata().tolist() == [[metrics.recall, metrics.precision]]
    assert f"average precision {CURVE.average_precision:.3f}" in line.get_label()
    roc = RocDisplay.from_curve(CURVE, CHOSEN).plot().ax_.get_lines()
    fpr, tpr, _ = CURVE.roc_curve()
    np.testing.assert_array_equal(roc[0].get_xydata(), np.column_stack([fpr, tpr]))
    assert roc[2].get_xydata()[0] == pytest.approx([metrics.fp / CURVE.n_neg, metrics.recall])
    lines = ThresholdDisplay.from_curve(CURVE, CHOSEN).plot().ax_.get_lines()
    for line, name in zip(lines, ("precision", "recall", "f1"), strict=False):
        np.testing.assert_array_equal(line.get_xdata(), CURVE.thresholds[:-1])
        np.testing.assert_array_equal(line.get_ydata(), getattr(CURVE, name)[:-1])
    assert [line.get_ydata()[0] for line in lines[4:]] == [metrics.precision, metrics.recall, metrics.f1]


def test_histogram_counts_each_label():
    """The bars of positives and negatives are NumPy's counts with common edges."""
    shown = ScoreHistogramDisplay.from_scores(SCORES, LABELS, CHOSEN, bins=20)
    wide = SCORES.astype(np.float64)
    for name, rows in (("positive", wide[LABELS]), ("negative", wide[~LABELS])):
        assert shown.counts[name].tolist() == np.histogram(rows, 20, (wide.min(), wide.max()))[0].tolist()
    assert ScoreHistogramDisplay.from_scores(SCORES).counts["all"].sum() == 300


def test_axes_that_are_given_are_drawn_into():
    """With axes given no figure is made, and the display keeps them."""
    figure = Figure()
    left, right = figure.subplots(1, 2)
    shown = RocDisplay.from_curve(CURVE, name="left").plot(left)
    assert shown.ax_ is left
    assert shown.figure_ is figure
    assert left.get_title(loc="left") == "left"
    assert not right.lines


def test_many_points_are_thinned():
    """Of 100,000 cuts 2,000 are drawn, the first and the last among them, so that an SVG stays small."""
    labels = RNG.random(100_000) < 0.5
    curve = precision_recall(RNG.normal(labels, 1), labels)
    line = RocDisplay.from_curve(curve).plot().ax_.get_lines()[0]
    assert len(line.get_xdata()) == 2000
    assert line.get_xydata()[[0, -1]].tolist() == [[0, 0], [1, 1]]


def test_other_endings_are_refused(tmp_path):
    """A file name with another ending is an error, before anything is drawn."""
    with pytest.raises(InputError, match=r"'plot.bmp' should end in one of \.png \.svg \.pdf"):
        displays()[0].save(tmp_path / "plot.bmp")
    with pytest.raises(PathError, match=r"no/such is not there; make it first"):
        displays()[0].save(tmp_path / "no" / "such" / "plot.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_command_is_named():
    """Where matplotlib is missing, making a display works, and drawing says what to install; pyplot is never used."""
    program = """
import sys
sys.modules["matplotlib.figure"] = None
from embedstore.measures.curves import precision_recall
from embedstore.errors import MissingDependencyError
from embedstore.deciding.plots import RocDisplay
display = RocDisplay.from_curve(precision_recall([0.1, 0.2], [False, True]))
try:
    display.plot()
except MissingDependencyError as error:
    print(error, "matplotlib.pyplot" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install matplotlib False" in printed
