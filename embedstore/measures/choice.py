"""A curve and what is wished of a threshold -> one threshold: objectives, limits, ties said, the impossible said.

`Wishes` is the one home of the eight words in which a threshold is asked for. The choice is made on the rows that it
is given; how well it does on other rows is measured by `calibration`, what can be guaranteed there is said by
`guarantees`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import InputError, UnreachableError, option, spelt
from embedstore.measures import guarantees
from embedstore.measures.curves import Curve, floors
from embedstore.measures.guarantees import Mask
from embedstore.measures.rates import Floats, Metrics, MetricsTable, Rates, ratio
from embedstore.wording import counted

OBJECTIVES = ("f1", "f0.5", "f2", "fbeta", "balanced_accuracy", "mcc", "cost", "precision", "recall")


@dataclass(frozen=True)
class Wishes:
    """What a threshold is asked to do.

    Attributes
    ----------
    objective : str
        What is made as large as possible: one of `OBJECTIVES`; ``"f0.5"``, ``"f2"`` and the like are F-beta.
        ``"precision"`` needs `min_recall`, and ``"recall"`` needs `min_precision` or `max_matches`: alone they would
        choose one match, or everything.
    beta : float, optional
        For ``"fbeta"``: recall counts `beta` times as much as precision.
    cost : dict of str to float, optional
        For ``"cost"``: what one ``fp``, ``fn``, ``tp`` and ``tn`` costs; what is not named costs nothing.
    min_precision, min_recall : float, optional
        In (0, 1].
    max_matches : int, optional
        At most so many of the labelled rows may match.
    guarantee : bool
        Whether `min_precision` and `min_recall` must hold on *further* rows too, with probability `confidence`; else
        on the labelled rows only.
    confidence : float
        In (0, 1); also that of the intervals of a calibration.

    Raises
    ------
    InputError
        A wish that means nothing.
    """

    objective: str = "f1"
    beta: float | None = None
    cost: Mapping[str, float] | None = None
    min_precision: float | None = None
    min_recall: float | None = None
    max_matches: int | None = None
    guarantee: bool = True
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Refuse what means nothing, before anything is counted."""
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence must lie between 0 and 1, found {self.confidence!r}")
        goal, limits = self.goal, self.limits
        if goal.name == "precision" and limits.min_recall is None:
            needed = option("min_recall", 0.9)
            raise InputError(f"the objective 'precision' needs {needed} or the like, else the best is one match")
        if goal.name == "recall" and limits.min_precision is None and limits.max_matches is None:
            needed = f"{option('min_precision', 0.9)} or {option('max_matches', 100)}"
            raise InputError(f"the objective 'recall' needs {needed} or the like, else all match")

    @classmethod
    def of_words(cls, objective: str, constraints: str) -> Wishes:
        """Read what `Objective` and `Constraints` say of themselves, as a classifier keeps it; without a guarantee.

        InputError for what they do not say.
        """
        words: dict[str, Any] = {"guarantee": False}
        name, _, prices = objective.partition(" ")
        pairs = [price.split("=") for price in prices.split(", ")] if prices else []
        limits = re.sub(r" \(confidence [^)]*\)$", "", constraints)
        try:
            words |= {"cost": {key: float(value) for key, value in pairs}} if pairs else {}
            for limit in [] if limits == "no constraint" else limits.split(" and "):
                if limit.startswith("at most "):
                    words["max_matches"] = int(limit.split()[2].replace(",", ""))
                else:
                    rate, _, least = limit.partition(" >= ")
                    words[f"min_{rate}"] = float(least)
            return cls(name, **words)
        except (TypeError, ValueError) as error:
            raise InputError(f"no objective and limits: {objective!r} with {constraints!r}") from error

    @property
    def goal(self) -> Objective:
        """What is made as large as possible; InputError for an objective that is none."""
        name, beta, cost = self.objective, self.beta, self.cost
        letter = re.fullmatch(r"f(\d+(?:\.\d+)?)", str(name))
        if letter and name != "f1":
            name, beta = "fbeta", float(letter[1])
        if name not in OBJECTIVES:
            raise InputError(f"unknown objective {name!r}; choose one of {', '.join(OBJECTIVES)}")
        if name == "fbeta" and not (beta is not None and 0 < beta < float("inf")):
            needed = spelt(f"beta > 0, found {beta!r}; or write 'f0.5', 'f2'", "a number: write f0.5 or f2")
            raise InputError(f"the objective 'fbeta' needs {needed}")
        if name == "cost" and not (cost and set(cost) <= {"tp", "fp", "fn", "tn"}):
            raise InputError(
                "the objective 'cost' needs "
                + spelt(f"cost={{'fp': 1, 'fn': 5}} (also 'tp', 'tn'), found {cost!r}", "--cost-fp 1 or --cost-fn 5")
            )
        return Objective(name, beta or 1.0, dict(cost or {}))

    @property
    def limits(self) -> Constraints:
        """What must be kept."""
        confidence = self.confidence if self.guarantee else None
        return Constraints(self.min_precision, self.min_recall, self.max_matches, confidence)


@dataclass(frozen=True)
class Objective:
    """What is made as large as possible; `beta` is of ``"fbeta"`` and `cost` of ``"cost"``, see `Wishes`."""

    name: str = "f1"
    beta: float = 1.0
    cost: Mapping[str, float] = field(default_factory=dict)

    def value(self, rates: Rates[Any]) -> Any:
        """Return the objective at one threshold or at many; larger is better (a cost is negative, and per row)."""
        if self.name == "fbeta":
            return rates.fbeta(self.beta)
        if self.name == "cost":
            counts: Any = rates
            total = sum(price * getattr(counts, count) for count, price in self.cost.items())
            return -ratio(total, counts.tp + counts.fp + counts.fn + counts.tn)
        return getattr(rates, self.name)

    def __str__(self) -> str:
        if self.name == "fbeta":
            return f"f{self.beta:g}"
        if self.name == "cost":
            return "cost " + ", ".join(f"{count}={price:g}" for count, price in self.cost.items())
        return self.name


@dataclass(frozen=True)
class Constraints:
    """What a threshold must keep; as in `Wishes`, but that `confidence` is None where nothing is to be guaranteed."""

    min_precision: float | None = None
    min_recall: float | None = None
    max_matches: int | None = None
    confidence: float | None = 0.95

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing."""
        for name, share in (("min_precision", self.min_precision), ("min_recall", self.min_recall)):
            if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
                raise InputError(f"{option(name)} must be larger than 0 and at most 1, found {share!r}")
        if self.max_matches is not None and self.max_matches < 1:
            raise InputError(f"{option('max_matches')} must be at least 1, found {self.max_matches!r}")
        if self.confidence is not None and 1.0 in (self.min_precision, self.min_recall):
            raise InputError(
                "no number of labelled rows can guarantee a precision or recall of 1 on further rows; ask for less, or "
                + spelt("pass guarantee=False", "pass --no-guarantee", "take back that limits hold on further pictures")
                + " to ask for it on the labelled rows only"
            )

    @property
    def guaranteed(self) -> bool:
        """Whether a limit is to hold on further rows too."""
        return self.confidence is not None and (self.min_precision, self.min_recall) != (None, None)

    @property
    def each_confidence(self) -> float | None:
        """The confidence of each of the limits, so that both hold together with `confidence`."""
        if self.confidence is None or None in (self.min_precision, self.min_recall):
            return self.confidence
        return 1 - (1 - self.confidence) / 2

    def masks(self, counted: Curve | MetricsTable, evidence: Curve | None = None) -> dict[str, Mask]:
        """Return for each limit where it is kept: at which cuts of a curve, or at which thresholds of a table.

        A guarantee is given by the `evidence`: the curve of a simple random sample, not weighted; by default
        `counted` itself, which is then a curve.
        """
        kept: dict[str, Mask] = {}
        matches = counted.tp + counted.fp
        if isinstance(counted, Curve) and self.confidence is not None:
            kept = self._guaranteed(counted, evidence)
        else:
            if self.min_precision is not None:
                kept["min_precision"] = (counted.precision >= self.min_precision) & (matches > 0)
            if self.min_recall is not None:
                kept["min_recall"] = counted.recall >= self.min_recall
        if self.max_matches is not None:
            kept["max_matches"] = matches <= self.max_matches
        return kept

    def _guaranteed(self, curve: Curve, evidence: Curve | None) -> dict[str, Mask]:
        """Return for each limit at which cuts of a curve the evidence guarantees it."""
        seen, confidence = evidence or curve, self.each_confidence or 0.0
        kept: dict[str, Mask] = {}
        if self.min_precision is not None:
            kept["min_precision"] = guarantees.precision_holds(seen.tp, seen.matches, self.min_precision, confidence)
        if self.min_recall is not None:
            kept["min_recall"] = guarantees.recall_holds(seen.tp, self.min_recall, confidence)
        if evidence is None:
            return kept
        places = evidence.scores.searchsorted(floors(curve.thresholds, evidence.scores.dtype), side="right")
        return {name: mask[places] for name, mask in kept.items()}

    def __str__(self) -> str:
        limits = []
        if self.min_precision is not None:
            limits.append(f"precision >= {self.min_precision:g}")
        if self.min_recall is not None:
            limits.append(f"recall >= {self.min_recall:g}")
        if self.max_matches is not None:
            limits.append(f"at most {counted(self.max_matches, 'match', 'matches')}")
        text = " and ".join(limits) or "no constraint"
        return f"{text} (confidence {self.confidence:g})" if self.guaranteed else text


@dataclass(frozen=True)
class Choice:
    """A chosen threshold.

    `metrics` are the figures on the rows it was chosen on: too good by a little, see `calibration`. `value` is the
    objective reached; a cost is per row. `ties` says how many cuts reach the same value, this one included; `notes`
    are sentences that the reader should know.
    """

    metrics: Metrics
    objective: Objective
    constraints: Constraints
    value: float
    ties: int = 1
    notes: tuple[str, ...] = ()

    @property
    def threshold(self) -> float:
        """Midway between two neighbouring distinct scores."""
        return self.metrics.threshold


def choose_threshold(curve: Curve, objective: str = "f1", **wishes: Any) -> Choice:
    """Choose the best threshold of all that there are, by `Wishes` in words; returns and raises as `choose`.

    Examples
    --------
    >>> from embedstore.measures.curves import precision_recall
    >>> choose_threshold(precision_recall([0.02, 0.05, 0.06, 0.08], [False, False, True, True])).threshold
    0.055
    """
    wished = Wishes(objective, **wishes)
    return choose(curve, wished.goal, wished.limits)


def choose(curve: Curve, goal: Objective, limits: Constraints, evidence: Curve | None = None) -> Choice:
    """Choose the best threshold of all that there are; `evidence` is that of `Constraints.masks`.

    Of cuts that tie on the objective the one with the higher F1 is taken, and then the highest threshold: the
    fewest matches, so the fewest false ones. Raises UnreachableError, whose `best` says how near one can come, where
    no threshold keeps to the limits.
    """
    kept = limits.masks(curve, evidence)
    feasible = np.logical_and.reduce([np.ones(len(curve.tp), dtype=np.bool_), *kept.values()])
    if not feasible.any():
        raise _unreachable(curve, limits, kept, evidence or curve)
    values = np.asarray(goal.value(curve), dtype=np.float64)
    best, tied = best_cut(values, curve.f1, feasible)
    cut, ties = int(best), int(tied)
    notes = curve.warnings
    if ties > 1:
        notes += (f"{ties} thresholds reach the same {goal}; taken is the one with the higher F1, then the highest",)
    value = -float(values[cut]) if goal.name == "cost" else float(values[cut])
    return Choice(curve.at_cut(cut), goal, limits, value, ties, notes)


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


def _unreachable(curve: Curve, limits: Constraints, kept: dict[str, Mask], evidence: Curve) -> UnreachableError:
    """Make the error that says which limit cannot be kept and how near one can come."""
    n, n_pos = int(evidence.n), int(evidence.n_pos)
    confidence = limits.each_confidence
    best = {"precision": float(curve.precision[:-1].max()), "recall": float(curve.recall.max())}
    sentences = []
    if "min_precision" in kept and not kept["min_precision"].any():
        text = f"the best precision on these {n} rows is {best['precision']:.4f}"
        if confidence is not None:
            best["precision_bound"] = guarantees.precision_floor(evidence.tp, evidence.matches, confidence)
            needed = guarantees.needed_matches(n, float(limits.min_precision or 0), confidence)
            matches = counted(needed, "match", "matches")
            text += (
                f"; what can be guaranteed is {best['precision_bound']:.4f} "
                f"(to show {limits.min_precision:g} takes at least {matches} without one error, "
                f"and these rows have {counted(n_pos, 'positive')})"
            )
        sentences.append(text)
    if "min_recall" in kept and not kept["min_recall"].any():
        text = f"the best recall is {best['recall']:.4f}"
        if confidence is not None:
            best["recall_bound"] = float(guarantees.lower_bound(n_pos, n_pos, confidence))
            text += f"; what {n_pos} positives can guarantee is {best['recall_bound']:.4f}"
        sentences.append(text)
    if not sentences:
        others = np.logical_and.reduce([mask for name, mask in kept.items() if name != "min_precision"])
        best["precision"] = float(curve.precision[others].max()) if others.any() else 0.0
        sentences.append(f"each can be kept alone; with the others the best precision is {best['precision']:.4f}")
    return UnreachableError(
        f"no threshold keeps {limits}: {'; '.join(sentences)}. Ask for less, label more rows, or ask a better query",
        best,
    )
