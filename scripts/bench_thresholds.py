#!/usr/bin/env python
"""Time thresholds against scikit-learn, side by side in one run, and print the ratios.

Three comparisons on synthetic scores of the size that Nomic's have (0.03 to 0.09, float32), labels half positive:

1. the full exact curve (precision and recall at every distinct score) against ``precision_recall_curve``;
2. 1,000 thresholds (scores and labels in, precision, recall and F1 at each out) against a loop that calls
   ``precision_score``, ``recall_score`` and ``f1_score`` at each, which is how the cookbook tries thresholds;
   the loop is timed on some of the thresholds, spread evenly, and its time for all is in proportion;
3. one further threshold on a query that has a curve already.

Results are compared before they are timed.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics

from embedstore.measures.curves import metrics_at, precision_recall


def seconds(call: Callable[[], Any]) -> float:
    """Return the time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turn(ours: Callable[[], Any], theirs: Callable[[], Any], runs: int) -> tuple[float, float]:
    """Return the median times of two calls that take turns, so that a busy machine slows both."""
    ours(), theirs()
    gc.disable()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(runs)]
    gc.enable()
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def loop(scores: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> list[tuple[float, float, float]]:
    """Try thresholds one by one with scikit-learn."""
    found = []
    for threshold in thresholds:
        predicted = scores > threshold
        found.append(
            (
                metrics.precision_score(labels, predicted, zero_division=0),
                metrics.recall_score(labels, predicted, zero_division=0),
                metrics.f1_score(labels, predicted, zero_division=0),
            )
        )
    return found


def main() -> None:
    """Run the three comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--thresholds", type=int, default=1_000)
    parser.add_argument("--looped", type=int, default=20, help="thresholds that the loop is timed on")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    labels = rng.random(arguments.rows) < 0.5
    scores = rng.normal(0.055 + 0.01 * labels, 0.01).astype(np.float32)
    thresholds = np.linspace(0.03, 0.09, arguments.thresholds)
    print(f"{arguments.rows:,} labelled rows, float32 scores, {arguments.thresholds:,} thresholds")

    curve = precision_recall(scores, labels)
    for ours, theirs in zip(
        curve.precision_recall_curve(), metrics.precision_recall_curve(labels, scores), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    ours, theirs = in_turn(
        lambda: precision_recall(scores, labels).precision_recall_curve(),
        lambda: metrics.precision_recall_curve(labels, scores),
        31,
    )
    print(f"full exact curve: {ours * 1e3:.2f} ms; precision_recall_curve: {theirs * 1e3:.2f} ms")
    print(f"    {theirs / ours:.1f} times faster (goal 4)")

    def sweep() -> tuple[np.ndarray, ...]:
        table = metrics_at(scores, labels, thresholds)
        return table.precision, table.recall, table.f1

    some = thresholds[:: max(1, len(thresholds) // arguments.looped)]
    columns = metrics_at(scores, labels, some)
    np.testing.assert_allclose(
        np.column_stack([columns.precision, columns.recall, columns.f1]),
        # The loop compares in float64, as the counts do: NumPy would round its thresholds to float32.
        loop(scores.astype(np.float64), labels, some),
        rtol=0,
        atol=1e-12,
    )
    ours = statistics.median(seconds(sweep) for _ in range(31))
    theirs = seconds(lambda: loop(scores, labels, some)) * len(thresholds) / len(some)
    print(
        f"{len(thresholds):,} thresholds: {ours * 1e3:.2f} ms; loop of precision, recall and F1 scores: "
        f"{theirs:.1f} s (timed on {len(some)} of them, in proportion)"
    )
    print(f"    {theirs / ours:,.0f} times faster (goal 10,000)")

    count = 20_000
    further = rng.uniform(0.03, 0.09, count).tolist()
    start = time.perf_counter()
    for threshold in further:
        curve.at(threshold).f1  # noqa: B018 - the reading is what is timed
    each = (time.perf_counter() - start) / count
    print(f"a further threshold, with its F1: {each * 1e6:.1f} microseconds (goal 20)")


if __name__ == "__main__":
    main()
