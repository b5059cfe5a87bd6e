"""Where a threshold lies among scores, and what it matches: the one home of the strict rule.

A match is ``score > threshold``. Scores are float32 (or float64), thresholds Python floats; the two are
compared exactly, whatever NumPy would round. Counting what matches is left to `curves` and `distribution`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError

Floats = NDArray[np.float64]


def above(scores: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.bool_]:
    """Return which scores match: ``score > threshold``, compared exactly.

    NumPy rounds a Python float to float32 before it compares it with float32 scores, so that a score may
    count as equal to a threshold that it exceeds. Here the threshold is rounded *down*, which changes no
    answer: the result is that of comparing in float64, as DuckDB and JavaScript do, at the speed of float32.
    """
    matched: NDArray[np.bool_] = scores > floor(threshold, scores.dtype)
    return matched


def midway(scores: NDArray[np.floating[Any]], cut: int) -> float:
    """Return the threshold of one cut of distinct ascending `scores`: midway between the two neighbours.

    The middle is taken in float64, so it lies strictly between any two float32 scores. Where they are
    adjacent float32 numbers the middle would round up to the larger one for a reader who compares in float32;
    a quarter of the way is taken there. (Between adjacent float64 scores there is no number: the lower one is
    returned, which ``>`` separates.) Below the smallest and above the largest score it is the next number of
    the scores' type.
    """
    near = scores[max(cut - 1, 0) : cut + 1]
    return float(midways(near)[0 if cut == 0 else 1])


def midways(scores: NDArray[np.floating[Any]]) -> Floats:
    """Return the thresholds of all cuts."""
    low, high = scores[:-1].astype(np.float64), scores[1:].astype(np.float64)
    middle = low / 2 + high / 2
    if scores.dtype == np.float32:
        rounded_up = middle.astype(np.float32) >= scores[1:]
        middle[rounded_up] = low[rounded_up] + (high[rounded_up] - low[rounded_up]) / 4
    else:
        outside = (middle < low) | (middle >= high)
        middle[outside] = low[outside]
    with np.errstate(over="ignore"):
        first = np.nextafter(scores[:1], scores.dtype.type(-np.inf))
        last = np.nextafter(scores[-1:], scores.dtype.type(np.inf))
    return np.concatenate([first.astype(np.float64), middle, last.astype(np.float64)])


def as_thresholds(thresholds: ArrayLike) -> Floats:
    """Return thresholds as float64, or say what is wrong with them."""
    try:
        values = np.asarray(thresholds, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"a threshold must be a number, found {thresholds!r}") from error
    if np.isnan(values).any():
        raise InputError("a threshold must be a number, found NaN")
    return values


def floor(threshold: float, dtype: np.dtype[Any]) -> Any:
    """Return the largest number of `dtype` that does not exceed the threshold."""
    if threshold != threshold:
        raise InputError("a threshold must be a number, found NaN")
    with np.errstate(over="ignore"):
        value = dtype.type(threshold)
        return value if float(value) <= threshold else np.nextafter(value, dtype.type(-np.inf))


def floors(thresholds: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `floor` of each threshold."""
    with np.errstate(over="ignore"):
        values = thresholds.astype(dtype)
        too_large = values.astype(np.float64) > thresholds
        values[too_large] = np.nextafter(values[too_large], dtype.type(-np.inf))
    return values
