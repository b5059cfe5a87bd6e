"""Whatever a user has as scores and labels in, checked arrays out; or an error that says what is wrong.

Reading labels from columns and files is left to whoever has them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError, LabelError


def as_scores(scores: ArrayLike, what: str = "scores") -> NDArray[np.floating[Any]]:
    """Return scores as a 1-d array: float32 (float16 becomes it), anything else float64.

    Raises
    ------
    InputError
        Not one row of numbers, none at all, NaN or infinity.
    """
    try:
        values = np.asarray(scores)
        narrow = values.dtype in (np.float16, np.float32)
        values = values.astype(np.float32 if narrow else np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected numbers, found {type(scores).__name__}") from error
    if values.ndim != 1:
        raise InputError(
            f"{what}: expected one row of shape (n,), found shape {values.shape}; "
            "give the scores of one query, or use the function for many"
        )
    if len(values) == 0:
        raise InputError(f"{what}: there are none; add images first, or loosen the filter")
    # A sum is finite only when all are, and is many times faster than looking at each.
    if not np.isfinite(np.sum(values, dtype=np.float64)) and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"{what}: row {row} is {values[row]}; leave out rows without a score")
    return values


def as_labels(labels: ArrayLike, n: int | None = None, what: str = "labels") -> NDArray[np.bool_]:
    """Return labels as a 1-d array of bool; numbers that are all 0 or 1 are taken too.

    Parameters
    ----------
    labels : array-like of shape (n,)
    n : int, optional
        Number of scores that they go with.

    Raises
    ------
    LabelError
        Another length, a missing label, or values that are neither true nor false.
    """
    values = np.asarray(labels)
    if values.ndim != 1:
        raise LabelError(f"{what}: expected one label for each row, shape (n,), found shape {values.shape}")
    if n is not None and len(values) != n:
        raise LabelError(f"{what}: {len(values)} labels for {n} scores; give exactly one for each row")
    if values.dtype == np.bool_:
        return values
    plain: list[Any] = values.tolist() if values.dtype.kind not in "iuf" else []
    missing = np.array([_is_missing(value) for value in plain]) if plain else values != values
    if missing.any():
        raise LabelError(
            f"{what}: {int(missing.sum())} of {len(values)} are missing, first in row {int(np.argmax(missing))}; "
            "leave those rows out or label them"
        )
    wrong = np.array([not _is_truth(value) for value in plain]) if plain else (values != 0) & (values != 1)
    if wrong.any():
        raise LabelError(
            f"{what}: expected true and false (or 1 and 0), found {values.tolist()[int(np.argmax(wrong))]!r}; "
            "compare with the value that you look for, as in `labels == 'dog'`"
        )
    return values.astype(np.bool_)


def _is_missing(value: object) -> bool:
    """Say whether a value is None, NaN, or pandas' NA and NaT (which cannot be compared)."""
    is_nan = isinstance(value, float | np.floating) and bool(np.isnan(value))
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def _is_truth(value: object) -> bool:
    """Say whether a value is true, false, 1 or 0."""
    return isinstance(value, bool | np.bool_ | int | float | np.number) and value in (0, 1)
