"""What to make as large as possible and what to keep to: the words a threshold is asked for in.

`choice` chooses by them; nothing here chooses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedstore.errors import InputError
from embedstore.measures.curves import Curve
from embedstore.measures.guarantees import Mask, as_share, precision_holds, recall_holds
from embedstore.measures.rates import Rates, ratio

OBJECTIVES = ("f1", "f0.5", "f2", "fbeta", "balanced_accuracy", "mcc", "cost", "precision", "recall")


@dataclass(frozen=True)
class Objective:
    """What is made as large as possible.

    Attributes
    ----------
    name : str
        One of `OBJECTIVES`; ``"f0.5"``, ``"f2"`` and the like are F-beta.
    beta : float, optional
        For ``"fbeta"``: recall counts `beta` times as much as precision.
    cost : dict of str to float, optional
        For ``"cost"``: what one ``fp``, ``fn``, ``tp`` and ``tn`` costs; what is not named costs nothing.
    """

    name: str = "f1"
    beta: float | None = None
    cost: Mapping[str, float] | None = None

    @classmethod
    def parse(
        cls, name: str, beta: float | None = None, cost: Mapping[str, float] | None = None
    ) -> Objective:
        """Read an objective, or raise InputError that names the known ones."""
        letter = re.fullmatch(r"f(\d+(?:\.\d+)?)", str(name))
        if letter and name != "f1":
            name, beta = "fbeta", float(letter[1])
        if name not in OBJECTIVES:
            raise InputError(f"unknown objective {name!r}; choose one of {', '.join(OBJECTIVES)}")
        if name == "fbeta" and not (beta is not None and 0 < beta < float("inf")):
            raise InputError(f"the objective 'fbeta' needs beta > 0, found {beta!r}; or write 'f0.5', 'f2'")
        if name == "cost" and not (cost and set(cost) <= {"tp", "fp", "fn", "tn"}):
            raise InputError(
                f"the objective 'cost' needs cost={{'fp': ..., 'fn': ...}} (also 'tp', 'tn'), found {cost!r}"
            )
        return cls(name, beta if name == "fbeta" else None, dict(cost) if name == "cost" and cost else None)

    def value(self, rates: Rates[Any]) -> Any:
        """Return the objective at one threshold or at many; larger is better (a cost is negative)."""
        if self.name == "fbeta":
            return rates.fbeta(self.beta or 1.0)
        if self.name == "cost":
            counts: Any = rates
            total = sum(price * getattr(counts, count) for count, price in (self.cost or {}).items())
            return -ratio(total, counts.tp + counts.fp + counts.fn + counts.tn)
        return getattr(rates, self.name)

    def __str__(self) -> str:
        if self.name == "fbeta":
            return f"f{self.beta:g}"
        if self.name == "cost":
            return "cost " + ", ".join(f"{count}={price:g}" for count, price in (self.cost or {}).items())
        return self.name


@dataclass(frozen=True)
class Constraints:
    """What a threshold must keep.

    Attributes
    ----------
    min_precision, min_recall : float, optional
        In (0, 1].
    max_matches : int, optional
        At most so many of the labelled rows may match.
    confidence : float, optional
        With this probability precision and recall keep to their limits on *further* rows too (see
        `guarantees`). None: it is enough that they do on the labelled rows.
    """

    min_precision: float | None = None
    min_recall: float | None = None
    max_matches: int | None = None
    confidence: float | None = 0.95

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing."""
        for name in ("min_precision", "min_recall"):
            if getattr(self, name) is not None:
                as_share(getattr(self, name), name)
        if self.max_matches is not None and self.max_matches < 1:
            raise InputError(f"max_matches must be at least 1, found {self.max_matches!r}")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise InputError(f"confidence must lie between 0 and 1, found {self.confidence!r}")
        if self.confidence is not None and 1.0 in (self.min_precision, self.min_recall):
            raise InputError(
                "no number of labelled rows can guarantee a precision or recall of 1 on further rows; "
                "ask for less, or pass confidence=None to ask for it on the labelled rows only"
            )

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return (self.min_precision, self.min_recall, self.max_matches) != (None, None, None)

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

    def masks(self, curve: Curve) -> dict[str, Mask]:
        """Return for each limit at which cuts it is kept."""
        found: dict[str, Mask] = {}
        confidence = self.each_confidence
        if self.min_precision is not None:
            found["min_precision"] = (
                (curve.precision >= self.min_precision) & (curve.matches > 0)
                if confidence is None
                else precision_holds(curve.tp, curve.matches, self.min_precision, confidence)
            )
        if self.min_recall is not None:
            found["min_recall"] = (
                curve.recall >= self.min_recall
                if confidence is None
                else recall_holds(curve.tp, self.min_recall, confidence)
            )
        if self.max_matches is not None:
            found["max_matches"] = curve.matches <= self.max_matches
        return found

    def __str__(self) -> str:
        limits = []
        if self.min_precision is not None:
            limits.append(f"precision >= {self.min_precision:g}")
        if self.min_recall is not None:
            limits.append(f"recall >= {self.min_recall:g}")
        if self.max_matches is not None:
            limits.append(f"at most {self.max_matches} matches")
        text = " and ".join(limits) or "no constraint"
        return f"{text} (confidence {self.confidence:g})" if self.guaranteed else text
