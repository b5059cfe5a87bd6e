"""A scored query and labels -> curve, intervals, plan, calibrated classifier: one call of the library each, made plain.

Where nothing can be measured the answer says so and why: that is no error of a page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from embedstore.deciding import census, label_plan, thresholds
from embedstore.deciding.classifier import Classifier
from embedstore.deciding.label_plan import LabelPlan
from embedstore.deciding.labels import Labelled
from embedstore.errors import InputError, LabelError
from embedstore.measures.calibration import figure_rows
from embedstore.measures.curves import Curve
from embedstore.measures.distribution import ScoreDistribution
from embedstore.measures.rates import Metrics
from embedstore.page.asked import Arguments, Truth, truth_of
from embedstore.page.scored_query import ScoredQuery
from embedstore.page.telling import Answer

NO_NUMBERS = np.empty(0, np.float64)
CHOSEN = (
    "the best F1 by these same labels is here; where they have chosen the threshold, its figures flatter, and its "
    "ranges are not sure to hold: calibrate, to measure it on labels held out"
)
"""What is said of a threshold that may have been chosen by the labels that measure it."""


def suggest(query: ScoredQuery) -> dict[str, Any]:
    """Say where to look first when nothing is labelled: see `thresholds.Sweep.suggestion`."""
    if not len(query.order):
        return {"words": "no row is scored", "threshold": None, "floor": None, "gap": None}
    if isinstance(query.asked, Classifier):
        distribution = ScoreDistribution(query.descending[::-1])
        swept = thresholds.Sweep(query.label, distribution, None, None, query.found.scores)
    else:
        swept = thresholds.sweep(query.reader, query.asked, where=query.where)
    gap, floor = swept.gap, swept.floor
    first = floor if gap is None else gap.threshold
    return {
        "words": swept.suggestion,
        "threshold": first,
        "floor": floor,
        "gap": None if gap is None else dataclasses.asdict(gap),
    }


def measure(query: ScoredQuery, args: Arguments) -> Answer:
    """Measure every threshold by labels: see `curves.Curve`."""
    try:
        labelled = query.labels(truth_of(args.get("labels")))
    except LabelError as error:
        return _not_measured(str(error)), [NO_NUMBERS] * 3
    try:
        curve, rests = query.measured(labelled)
    except LabelError as error:
        counts = {"n_labelled": len(labelled), "n_yes": int(labelled.values.sum()), "source": labelled.source}
        return {**_not_measured(str(error)), **counts, "doubts": list(labelled.doubts)}, [NO_NUMBERS] * 3
    return told_of_curve(labelled, rests, curve), _arrays(curve)


def told_of_curve(labelled: Labelled, rests: Labelled, curve: Curve) -> dict[str, Any]:
    """Return what labels say of thresholds, and those of them that this rests on, in plain values."""
    return {
        "measured": True,
        "why": "",
        "n_labelled": len(labelled),
        "n_yes": int(labelled.values.sum()),
        "n_counted": len(rests),
        "n_yes_counted": int(rests.values.sum()),
        "source": rests.described,
        "weighted": rests.weights is not None,
        "n": curve.n,
        "n_pos": curve.n_pos,
        "average_precision": curve.average_precision,
        "best": _figures(curve.at_cut(curve.best_cut)),
        "doubts": list(labelled.doubts),
        "warnings": list(curve.warnings),
    }


def interval(query: ScoredQuery, args: Arguments) -> dict[str, Any]:
    """Estimate what a threshold is worth on all rows, with intervals that hold however often one looks.

    They hold for a threshold that these labels did not choose: a note says where they may have.
    """
    truth, threshold = truth_of(args.get("labels")), args.threshold()
    try:
        labels = query.for_library(truth)
        if labels is None:
            raise LabelError(f"nothing is labelled yet for {query.concept!r}")
        is_own = isinstance(query.asked, Classifier) and threshold == query.asked.threshold
        own = None if is_own else threshold  # of a classifier's own it is known by which labels it was chosen
        found = census.estimate(query.reader, query.asked, labels, threshold=own, where=query.where)
    except LabelError as error:
        nothing: dict[str, Any] = {"confidence": 0.95, "intervals": {}, "figures": {}, "n_random": 0, "n_pos": 0}
        positives = {"positives": None, "positives_interval": None}
        return {"known": False, "why": str(error), **nothing, **positives, "notes": []}
    plain = found.to_dict()
    return {
        "known": bool(found.intervals),
        "why": "",
        **{name: plain[name] for name in ("confidence", "intervals", "figures", "n_random", "n_pos")},
        "notes": [*found.notes, *(_chosen(query, truth, threshold) if own is not None else [])],
        "positives": found.positives,
        "positives_interval": list(found.interval),
    }


def _chosen(query: ScoredQuery, truth: Truth | None, threshold: float) -> list[str]:
    """Say where the labels themselves may have chosen the threshold that they are to measure."""
    labelled = query.labels(truth)
    try:
        curve, _ = query.measured(labelled)
    except LabelError:
        return []
    exact = len(labelled) == len(query.order)
    return [CHOSEN] if not exact and not curve.one_class and curve.cut(threshold) == curve.best_cut else []


def plan(query: ScoredQuery, args: Arguments) -> dict[str, Any]:
    """Say how many more labels are expected to certify a limit: see `label_plan.plan_labels`."""
    found: LabelPlan = label_plan.plan_labels(
        query.reader,
        query.asked,
        query.for_library(truth_of(args.get("labels"))),
        min_precision=args.number("min_precision", None),
        min_recall=args.number("min_recall", None),
        where=query.where,
    )
    return {**found.to_dict(), "words": str(found)}


def calibrate(query: ScoredQuery, args: Arguments) -> Classifier:
    """Choose a threshold by labels, and measure it: see `thresholds.calibrate`."""
    labels = query.for_library(truth_of(args.get("labels")))
    if labels is None:
        raise LabelError(f"nothing is labelled yet for {query.concept!r}; label some rows, or choose a column")
    made = thresholds.calibrate(query.reader, query.as_concept, labels, where=query.where, **wishes(query, args))
    if not isinstance(query.asked, Classifier):
        return made
    before = query.asked.target
    words = {name: getattr(before, name) for name in ("queries", "weights", "template", "opposing")}
    return dataclasses.replace(made, targets=(dataclasses.replace(made.target, **words),))


def wishes(query: ScoredQuery, args: Arguments) -> dict[str, Any]:
    """Return what a calibration is asked for, as the library takes it."""
    found: dict[str, Any] = {"name": query.concept, "label": query.concept, "objective": args.text("objective", "f1")}
    cost = args.get("cost")
    if cost is not None:
        if not isinstance(cost, Mapping) or set(cost) - {"fp", "fn"}:
            raise InputError(f'cost must be such as {{"fp": 1, "fn": 5}}, found {cost!r}')
        costs = Arguments("cost", cost, ("fp", "fn"))
        found["cost"] = {name: costs.number(name, 1.0) for name in ("fp", "fn")}
        found["objective"] = "cost"
    for name in ("min_precision", "min_recall"):
        if (limit := args.number(name, None)) is not None:
            found[name] = limit
    found["guarantee"] = args.flag("guarantee", True)
    return found


def in_words(classifier: Classifier) -> dict[str, Any]:
    """Return what a calibrated classifier of one class is, and what was measured."""
    target = classifier.target
    rows = figure_rows(target.figures, target.intervals)
    return {
        "threshold": classifier.threshold,
        "figures": [[name, value, None if pair is None else list(pair)] for name, value, pair in rows],
        "validation": classifier.validation,
        "warnings": list(classifier.warnings),
        "objective": classifier.objective,
        "constraints": classifier.constraints,
        "words": str(classifier),
    }


def _not_measured(why: str) -> dict[str, Any]:
    return {
        "measured": False,
        "why": why,
        "source": "",
        "weighted": False,
        "n": 0,
        "n_pos": 0,
        "n_labelled": 0,
        "n_yes": 0,
        "n_counted": 0,
        "n_yes_counted": 0,
        "average_precision": None,
        "best": None,
        "doubts": [],
        "warnings": [],
    }


def _figures(found: Metrics) -> dict[str, float]:
    counts = {name: getattr(found, name) for name in ("tp", "fp", "fn", "tn")}
    rates = {name: float(getattr(found, name)) for name in ("precision", "recall", "f1")}
    return {"threshold": found.threshold, **rates, **counts, "matches": found.tp + found.fp}


def _arrays(curve: Curve) -> list[Any]:
    """Return the distinct scores, ascending, and the true and false positives from each upwards, float64."""
    return [np.ascontiguousarray(values, dtype="<f8") for values in (curve.scores, curve.tp, curve.fp)]
