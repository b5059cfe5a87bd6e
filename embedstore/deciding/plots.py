"""Curves and scores -> pictures: display objects that hold their numbers and draw last.

Each is made from numbers (``from_curve``, ``from_scores``), holds them as plain arrays for whoever draws otherwise,
and draws into the axes of the caller or into a figure of its own. No pyplot, so no state outside the objects. What is
plotted is made by `curves`; a page with a slider is left to `page`.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from embedstore.errors import MissingDependencyError
from embedstore.files import naming
from embedstore.measures.curves import Curve
from embedstore.measures.rates import Floats, Ints, Metrics
from embedstore.measures.samples import as_labels, as_scores
from embedstore.result_files import CURVES, to_write

BLUE, ORANGE, GREEN, INK, PALE = "#2f6ca8", "#d9722b", "#3f8f5f", "#333333", "#9a9a9a"
MAX_POINTS = 2000
_NOTE_WIDTH = 92
UNIT = (-0.02, 1.02)
"""From where to where an axis of rates runs."""


@dataclass(eq=False)
class Display:
    """In common: `name`, instead of the kind's title; `notes` below it; after `plot`, `ax_` and `figure_`."""

    name: str = field(default="", kw_only=True)
    notes: Sequence[str] = field(default=(), kw_only=True)
    ax_: Any = field(default=None, init=False, repr=False)
    figure_: Any = field(default=None, init=False, repr=False)
    title: ClassVar[str]

    def plot(self, ax: Any = None, size: tuple[float, float] = (6.4, 4.8)) -> Self:
        """Draw into `ax`, or into a new figure of `size` inches, width and height.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        """
        if ax is None:
            try:
                from matplotlib.figure import Figure  # an optional package, and slow to import
            except ImportError as error:
                raise MissingDependencyError(
                    "pictures need matplotlib, which is not installed: pip install matplotlib"
                ) from error
            ax = Figure(figsize=size, layout="constrained").add_subplot()
        self.ax_, self.figure_ = ax, ax.figure
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        ax.grid(color="#e6e6e6", linewidth=0.8)
        ax.set_axisbelow(True)
        self._draw(ax)
        lines = [line for note in self.notes for line in textwrap.wrap(note, _NOTE_WIDTH)]
        ax.set_title(self.name or self.title, loc="left", fontsize=12, color=INK, pad=6 + 11 * len(lines))
        for place, line in enumerate(reversed(lines)):
            ax.annotate(
                line, (0, 1), (0, 5 + 11 * place), "axes fraction", "offset points", fontsize=8, color="#6b7280"
            )
        return self

    def save(self, path: str | os.PathLike[str], dpi: int = 150) -> Path:
        """Draw into a new figure and write it; the ending of the name (.png, .svg, .pdf) says how.

        Raises
        ------
        InputError, PathError
            Another ending, or a folder that is not there.
        MissingDependencyError
            As `plot`.
        """
        file = to_write(path, CURVES)
        self.plot()
        drawn = io.BytesIO()  # matplotlib stumbles over a disk that is full, and hides that it was
        self.figure_.savefig(drawn, format=file.suffix[1:].lower(), dpi=dpi, facecolor="white")
        with naming(file):
            file.write_bytes(drawn.getvalue())
        return file

    def svg(self, width: float = 6.4, height: float = 4.8) -> str:
        """Draw into a new figure of so many inches, and return it as an ``<svg>`` element; raises as `plot`."""
        self.plot(size=(width, height))
        drawn = io.StringIO()
        self.figure_.savefig(drawn, format="svg", facecolor="white")
        text = drawn.getvalue()
        return text[text.index("<svg") :]

    def _draw(self, ax: Any) -> None:
        """Draw the numbers."""
        raise NotImplementedError


@dataclass(eq=False)
class PrecisionRecallDisplay(Display):
    """Precision over recall at every threshold, as scikit-learn's `precision_recall_curve` has them.

    Recall descends, and ends at precision 1. `prevalence` is the share of positives, the precision of chance; `chosen`
    is the threshold to be marked.
    """

    title = "Precision and recall"
    precision: Floats
    recall: Floats
    average_precision: float
    prevalence: float
    chosen: Metrics | None = None

    @classmethod
    def from_curve(
        cls, curve: Curve, threshold: float | None = None, name: str = "", notes: Sequence[str] = ()
    ) -> Self:
        """Take the numbers of a curve; `threshold` is marked."""
        precision, recall, _ = curve.precision_recall_curve()
        chosen = None if threshold is None else curve.at(threshold)
        prevalence = curve.n_pos / curve.n
        return cls(precision, recall, curve.average_precision, prevalence, chosen, name=name, notes=notes)

    def _draw(self, ax: Any) -> None:
        recall, precision = _thin(self.recall, self.precision)
        label = f"average precision {self.average_precision:.3f}"
        ax.plot(recall, precision, color=BLUE, linewidth=2, drawstyle="steps-post", label=label)
        ax.axhline(self.prevalence, color=PALE, linewidth=1, linestyle="--", label=f"chance {self.prevalence:.3f}")
        if self.chosen is not None:
            _mark(ax, self.chosen.recall, self.chosen.precision, self.chosen)
        ax.set(xlabel="Recall", ylabel="Precision", xlim=UNIT, ylim=UNIT)
        _legend(ax)


@dataclass(eq=False)
class RocDisplay(Display):
    """True over false positives at every threshold: the rates `tpr` and `fpr` ascend from (0, 0) to (1, 1).

    `roc_auc` is NaN with one class only; `chosen` is the threshold to be marked.
    """

    title = "Receiver operating characteristic"
    fpr: Floats
    tpr: Floats
    roc_auc: float
    chosen: Metrics | None = None

    @classmethod
    def from_curve(
        cls, curve: Curve, threshold: float | None = None, name: str = "", notes: Sequence[str] = ()
    ) -> Self:
        """Take the numbers of a curve; `threshold` is marked."""
        fpr, tpr, _ = curve.roc_curve()
        return cls(fpr, tpr, curve.roc_auc, None if threshold is None else curve.at(threshold), name=name, notes=notes)

    def _draw(self, ax: Any) -> None:
        fpr, tpr = _thin(self.fpr, self.tpr)
        ax.plot(fpr, tpr, color=BLUE, linewidth=2, label=f"area {self.roc_auc:.3f}")
        ax.plot([0, 1], [0, 1], color=PALE, linewidth=1, linestyle="--", label="chance 0.500")
        if self.chosen is not None:
            _mark(ax, 1 - self.chosen.specificity, self.chosen.recall, self.chosen)
        ax.set(xlabel="False-positive rate", ylabel="True-positive rate (recall)", xlim=UNIT, ylim=UNIT)
        _legend(ax)


@dataclass(eq=False)
class ThresholdDisplay(Display):
    """Precision, recall and F1 over ascending thresholds; `chosen` is the one to be marked.

    The cut at which nothing matches is left out, as precision means nothing there.
    """

    title = "Precision, recall and F1 at each threshold"
    thresholds: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    chosen: Metrics | None = None

    @classmethod
    def from_curve(
        cls, curve: Curve, threshold: float | None = None, name: str = "", notes: Sequence[str] = ()
    ) -> Self:
        """Take the numbers of a curve; `threshold` is marked."""
        chosen = None if threshold is None else curve.at(threshold)
        precision, recall, f1 = curve.precision[:-1], curve.recall[:-1], curve.f1[:-1]
        return cls(curve.thresholds[:-1], precision, recall, f1, chosen, name=name, notes=notes)

    def _draw(self, ax: Any) -> None:
        thresholds, precision, recall, f1 = _thin(self.thresholds, self.precision, self.recall, self.f1)
        lines = (("precision", precision, BLUE), ("recall", recall, ORANGE), ("F1", f1, GREEN))
        for label, values, colour in lines:
            ax.plot(thresholds, values, color=colour, linewidth=2, drawstyle="steps-post", label=label)
        if self.chosen is not None:
            _mark_threshold(ax, self.chosen.threshold)
            marked = (self.chosen.precision, self.chosen.recall, self.chosen.f1)
            style = {"markeredgecolor": "white", "markersize": 8}
            for value, (_, _, colour) in zip(marked, lines, strict=True):
                ax.plot(self.chosen.threshold, value, "o", color=colour, **style)
        ax.set(xlabel="Threshold (a match is score > threshold)", ylim=UNIT)
        _legend(ax)


@dataclass(eq=False)
class ScoreHistogramDisplay(Display):
    """How many rows have which score, by label; `threshold` is to be marked.

    Between the `edges`, shape (bins + 1,), lie the `counts`, shape (bins,), of ``"positive"`` and ``"negative"``, or of
    ``"all"`` without labels.
    """

    title = "Scores"
    edges: Floats
    counts: dict[str, Ints]
    threshold: float | None = None

    @classmethod
    def from_scores(
        cls,
        scores: ArrayLike,
        labels: ArrayLike | None = None,
        threshold: float | None = None,
        bins: int = 50,
        name: str = "",
        notes: Sequence[str] = (),
    ) -> Self:
        """Count scores in bins of equal width, with the same edges for both labels."""
        values = as_scores(scores).astype(np.float64)
        edges = np.histogram_bin_edges(values, bins)
        groups = {"all": values}
        if labels is not None:
            truth = as_labels(labels, len(values))
            groups = {"negative": values[~truth], "positive": values[truth]}
        counts = {key: np.histogram(group, edges)[0].astype(np.int64) for key, group in groups.items()}
        return cls(edges, counts, threshold, name=name, notes=notes)

    def _draw(self, ax: Any) -> None:
        colours = {"negative": PALE, "positive": BLUE, "all": BLUE}
        for key, counts in self.counts.items():
            label = f"{key} ({int(counts.sum()):,})"
            ax.stairs(counts, self.edges, fill=True, alpha=0.45, color=colours[key], label=label)
            ax.stairs(counts, self.edges, color=colours[key], linewidth=1.2)
        if self.threshold is not None:
            _mark_threshold(ax, self.threshold)
        ax.set(xlabel="Score", ylabel="Rows", ylim=(0, None))
        ax.yaxis.get_major_locator().set_params(integer=True)
        _legend(ax)


def _legend(ax: Any) -> None:
    """Say below the axes what is drawn: within them it would lie on a curve sooner or later."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)


def _mark(ax: Any, x: float, y: float, chosen: Metrics) -> None:
    """Mark a point of a curve with its threshold and F1."""
    label = f"score > {chosen.threshold:.4f}: F1 {chosen.f1:.3f}"
    ax.plot(x, y, "o", color=ORANGE, markeredgecolor="white", markersize=9, label=label)


def _mark_threshold(ax: Any, threshold: float) -> None:
    """Draw the threshold as an upright line."""
    ax.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label=f"threshold {threshold:.4f}")


def _thin(*columns: Floats) -> tuple[Floats, ...]:
    """Return at most `MAX_POINTS` points, the ends among them: more cannot be seen, and make large SVG files."""
    n = len(columns[0])
    if n <= MAX_POINTS:
        return columns
    kept = np.linspace(0, n - 1, MAX_POINTS).round().astype(np.intp)
    return tuple(column[kept] for column in columns)
