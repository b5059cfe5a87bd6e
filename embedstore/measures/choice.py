"""A curve and a wish in, one threshold out: objectives, constraints, ties said, the impossible said.

This chooses on the rows it is given. How well the choice does on other rows is measured by `calibration`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import InputError, UnreachableError
from embedstore.measures.curves import Curve
from embedstore.measures.guarantees import Mask, lower_bound, needed_matches, precision_floor
from embedstore.measures.objectives import Constraints, Objective
from embedstore.measures.rates import Floats, Metrics


@dataclass(frozen=True)
class Choice:
    """A chosen threshold.

    Attributes
    ----------
    threshold : float
        Midway between two neighbouring distinct scores.
    metrics : Metrics
        The figures on the rows it was chosen on: too good by a little, see `calibration`.
    objective : Objective
    constraints : Constraints
    value : float
        The objective reached; a cost is per row.
    ties : int
        How many cuts reach the same value, this one included.
    notes : tuple of str
        Sentences that the reader should know.
    """

    threshold: float
    metrics: Metrics
    objective: Objective
    constraints: Constraints
    value: float
    ties: int = 1
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.metrics}\nchosen for {self.objective} = {self.value:.4f} with {self.constraints}"
        return "\n".join([text, *(f"note: {note}" for note in self.notes)])


def choose_threshold(
    curve: Curve,
    objective: str | Objective = "f1",
    *,
    beta: float | None = None,
    cost: Mapping[str, float] | None = None,
    min_precision: float | None = None,
    min_recall: float | None = None,
    max_matches: int | None = None,
    confidence: float | None = 0.95,
) -> Choice:
    """Choose the best threshold of all that there are.

    Of cuts that tie on the objective the one with the higher F1 is taken, and then the highest threshold: the
    fewest matches, so the fewest false ones.

    Parameters
    ----------
    curve : Curve
    objective : str
        One of `OBJECTIVES`. ``"precision"`` needs `min_recall` and ``"recall"`` needs `min_precision` or
        `max_matches`: alone they would choose one match, or everything.
    beta, cost
        See `Objective`.
    min_precision, min_recall, max_matches, confidence
        See `Constraints`.

    Raises
    ------
    InputError
        An objective or limit that means nothing.
    UnreachableError
        No threshold keeps to the limits; `best` of the error says how near one can come.

    Examples
    --------
    >>> from embedstore.measures.curves import precision_recall
    >>> choose_threshold(precision_recall([0.02, 0.05, 0.06, 0.08], [False, False, True, True])).threshold
    0.055
    """
    goal = objective if isinstance(objective, Objective) else Objective.parse(objective, beta, cost)
    limits = Constraints(min_precision, min_recall, max_matches, confidence)
    if goal.name == "precision" and min_recall is None:
        raise InputError("the objective 'precision' needs min_recall=..., else the best is a single match")
    if goal.name == "recall" and min_precision is None and max_matches is None:
        raise InputError("the objective 'recall' needs min_precision=... or max_matches=..., else all match")
    kept = limits.masks(curve)
    feasible = np.logical_and.reduce([np.ones(len(curve.tp), dtype=np.bool_), *kept.values()])
    if not feasible.any():
        raise _unreachable(curve, limits, kept)
    values = np.asarray(goal.value(curve), dtype=np.float64)
    cut, ties = best_cut(values, curve.f1, feasible)
    value = float(values[cut])
    notes = list(curve.warnings)
    if int(ties) > 1:
        notes.append(
            f"{int(ties)} thresholds reach the same {goal}; taken is the one with the higher F1, "
            "then the highest"
        )
    value = -value if goal.name == "cost" else value
    metrics = curve.at_cut(int(cut))
    return Choice(metrics.threshold, metrics, goal, limits, value, int(ties), tuple(notes))


def best_cut(values: Floats, f1: Floats, feasible: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the best cut along the last axis, and how many cuts tie with it on `values`.

    Equal to 1e-12 is a tie: MCC and the cost round.
    """
    allowed = np.where(feasible, values, -np.inf)
    best = allowed.max(axis=-1, keepdims=True)
    tied = allowed >= best - 1e-12 * np.maximum(1.0, np.abs(best))
    second = np.where(tied, f1, -1.0)
    cut = values.shape[-1] - 1 - np.argmax(second[..., ::-1], axis=-1)
    return cut, tied.sum(axis=-1)


def _unreachable(curve: Curve, limits: Constraints, kept: dict[str, Mask]) -> UnreachableError:
    """Make the error that says which limit cannot be kept and how near one can come."""
    confidence = limits.each_confidence
    best = {"precision": float(curve.precision[:-1].max()), "recall": float(curve.recall.max())}
    sentences = []
    if "min_precision" in kept and not kept["min_precision"].any():
        text = f"the best precision on these {curve.n} rows is {best['precision']:.4f}"
        if confidence is not None:
            best["precision_bound"] = precision_floor(curve.tp, curve.matches, confidence)
            needed = needed_matches(curve.n, float(limits.min_precision or 0), confidence)
            text += (
                f"; what can be guaranteed is {best['precision_bound']:.4f} "
                f"(to show {limits.min_precision:g} takes at least {needed} matches without one error, "
                f"and there are {curve.n_pos} positives)"
            )
        sentences.append(text)
    if "min_recall" in kept and not kept["min_recall"].any():
        text = f"the best recall is {best['recall']:.4f}"
        if confidence is not None:
            best["recall_bound"] = float(lower_bound(curve.n_pos, curve.n_pos, confidence))
            text += f"; what {curve.n_pos} positives can guarantee is {best['recall_bound']:.4f}"
        sentences.append(text)
    if not sentences:
        others = np.logical_and.reduce([mask for name, mask in kept.items() if name != "min_precision"])
        best["precision"] = float(curve.precision[others].max()) if others.any() else 0.0
        reached = f"with the others the best precision is {best['precision']:.4f}"
        sentences.append(f"each can be kept alone; {reached}")
    return UnreachableError(
        f"no threshold keeps {limits}: {'; '.join(sentences)}. "
        "Ask for less, label more rows, or ask a better query",
        best,
    )
