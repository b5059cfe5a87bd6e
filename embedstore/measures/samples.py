"""Whatever a user has as scores, labels and groups of copies -> checked arrays, or an error that says what is wrong.

A checked `Sample` can be held out in parts, with all copies of a picture on one side. Reading labels from columns and
files is left to `deciding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError, LabelError, spelt
from embedstore.measures.rates import Floats, Ints, ratio
from embedstore.wording import counted

Validation = Literal["kfold", "split", "none"]


def as_scores(scores: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return scores as a 1-d array: float32 (float16 becomes it), anything else float64.

    Raises InputError for what is not one row of numbers, for none at all, NaN and infinity.
    """
    try:
        values = np.asarray(scores)
        narrow = values.dtype in (np.float16, np.float32)
        values = values.astype(np.float32 if narrow else np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"scores: expected numbers, found {type(scores).__name__}") from error
    if values.ndim != 1:
        raise InputError(
            f"scores: expected one row of shape (n,), found shape {values.shape}; "
            "give the scores of one query, or use the function for many"
        )
    if len(values) == 0:
        raise InputError("scores: there are none; add images first, or loosen the filter")
    # A sum is finite only when all are, and is many times faster than looking at each.
    if not np.isfinite(np.sum(values, dtype=np.float64)) and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"scores: row {row} is {values[row]}; leave out rows without a score")
    return values


def as_labels(labels: ArrayLike, n: int | None = None, what: str = "labels") -> NDArray[np.bool_]:
    """Return labels as a 1-d array of bool, `n` of them where that is told; numbers that are all 0 or 1 are taken too.

    Raises LabelError for another length, a missing label, and values that are neither true nor false.
    """
    values = np.asarray(labels)
    if values.ndim != 1:
        raise LabelError(f"{what}: expected one label for each row, shape (n,), found shape {values.shape}")
    if n is not None and len(values) != n:
        raise LabelError(
            f"{what}: {counted(len(values), 'label')} for {counted(n, 'score')}; give exactly one for each row"
        )
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
            + spelt("compare with the value that you look for, as in labels == 'dog'", "say which value is positive")
        )
    return values.astype(np.bool_)


def _is_missing(value: object) -> bool:
    """Say whether a value is None, NaN, or pandas' NA and NaT (which cannot be compared)."""
    is_nan = isinstance(value, float | np.floating) and bool(np.isnan(value))
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def _is_truth(value: object) -> bool:
    """Say whether a value is true, false, 1 or 0."""
    return isinstance(value, bool | np.bool_ | int | float | np.number) and value in (0, 1)


def as_weights(weights: ArrayLike | None, n: int, what: str = "sample_weight") -> Floats:
    """Return how much each of `n` rows counts: float64, all 1 where nothing is told.

    NaN marks a row that counts nowhere (see `Sample.weights`); InputError for another length, for what is no number,
    for negative and infinite weights, and where no weight is above 0 (unless all are NaN).
    """
    if weights is None:
        return np.ones(n)
    try:
        values = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected numbers, found {type(weights).__name__}") from error
    if values.shape != (n,):
        raise InputError(f"{what}: expected one for each of {counted(n, 'row')}, found shape {values.shape}")
    wrong = (values < 0) | np.isinf(values)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{what}: row {row} has {values[row]}; a weight is a finite number of at least 0")
    if not (values > 0).any() and not np.isnan(values).all():
        raise InputError(f"{what}: no row has a weight above zero, so nothing can be counted")
    return values


@dataclass(frozen=True, eq=False)
class Sample:
    """Labelled rows, shape (n,) each; those with equal `groups`, 0 to `n_groups` - 1, are copies of one picture."""

    scores: NDArray[np.floating[Any]]
    labels: NDArray[np.bool_]
    groups: Ints
    weights: Floats
    """For how many rows of the store each row stands (Horvitz and Thompson 1952); 1 each where nothing is told. NaN
    where it is not known how the row was picked: such a row may help to choose a threshold, never to measure one."""
    random: NDArray[np.bool_]
    """Which rows are, alone, a simple random sample."""

    def __getitem__(self, rows: NDArray[Any]) -> Sample:
        """Return some rows, their groups numbered anew."""
        groups = np.unique(self.groups[rows], return_inverse=True)[1].astype(np.int64)
        return Sample(self.scores[rows], self.labels[rows], groups, self.weights[rows], self.random[rows])

    @property
    def is_weighted(self) -> bool:
        """Whether the rows stand for different numbers of others, or some for nobody knows how many."""
        return bool((self.weights != self.weights[0]).any())

    @property
    def measurable(self) -> Sample:
        """The rows of which it is known how they were picked."""
        return self[np.isfinite(self.weights)]

    @property
    def n_groups(self) -> int:
        """Number of different pictures."""
        return int(self.groups.max()) + 1

    @property
    def effective_size(self) -> float:
        """How many independent pictures the rows are worth (Kish 1965).

        The number of rows, where no two are copies and all weigh the same; 0 where none has a weight.
        """
        of_each = np.bincount(self.groups, weights=self.weights)
        return float(ratio(of_each.sum() ** 2, np.square(of_each).sum()))

    @property
    def first_of_each(self) -> Sample:
        """One row for each picture."""
        return self[np.unique(self.groups, return_index=True)[1]]


def as_sample(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None,
    sample_weight: ArrayLike | None = None,
    random: ArrayLike | None = None,
) -> Sample:
    """Check the rows and number their groups; without `random` all rows of known weight are taken for random."""
    values = as_scores(scores)
    truth = as_labels(labels, len(values))
    weights = as_weights(sample_weight, len(values))
    drawn = np.isfinite(weights) if random is None else as_labels(random, len(values), "random")
    if groups is None:
        return Sample(values, truth, np.arange(len(values), dtype=np.int64), weights, drawn)
    copies = np.asarray(groups)
    if copies.shape != values.shape:
        raise InputError(f"groups: expected one value for each of {len(values)} rows, found shape {copies.shape}")
    return Sample(values, truth, np.unique(copies, return_inverse=True)[1].astype(np.int64), weights, drawn)


def holdouts(
    sample: Sample, validation: str, folds: int, test_fraction: float, rng: np.random.Generator
) -> tuple[list[NDArray[np.bool_]], str]:
    """Return masks of the rows to be held out in turn, and a sentence that says so; none when it cannot be done."""
    if validation not in get_args(Validation):
        raise InputError(f"validation must be one of {get_args(Validation)}, found {validation!r}")
    if validation == "kfold" and folds < 2:
        raise InputError(f"folds must be at least 2, found {folds!r}")
    if validation == "split" and not 0 < test_fraction < 1:
        raise InputError(f"test_fraction must lie between 0 and 1, found {test_fraction!r}")
    flat = "on the rows that it was chosen on"
    order, strata = _stratified_order(sample, rng)
    scarcest = int(min(np.bincount(strata, minlength=2)))
    if validation == "none" or scarcest < 2:
        return [], flat
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    if validation == "split":
        # Every 1/test_fraction-th picture in the stratified order is held out.
        held = np.floor((place + 1) * test_fraction) > np.floor(place * test_fraction)
        rows = held[sample.groups]
        both = all(len(np.unique(sample.labels[side])) == 2 for side in (rows, ~rows))
        return ([rows], f"split: on {counted(int(rows.sum()), 'row')} held out at random") if both else ([], flat)
    folds = min(folds, scarcest)
    return [(place % folds == k)[sample.groups] for k in range(folds)], f"by {folds}-fold cross-validation"


def _stratified_order(sample: Sample, rng: np.random.Generator) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the groups in random order within label and size, and the label of each group (that of most rows)."""
    sizes = np.bincount(sample.groups)
    positives = np.bincount(sample.groups, weights=sample.labels)
    strata = positives * 2 > sizes
    order = np.lexsort((rng.random(len(sizes)), -sizes, strata))
    return order.astype(np.int64), strata
