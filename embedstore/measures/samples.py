"""Scores, labels and groups of copies in, one checked sample out, and the ways to hold a part of it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError
from embedstore.measures.labels import as_labels, as_scores
from embedstore.measures.rates import Ints

Validation = Literal["kfold", "split", "none"]


@dataclass(frozen=True, eq=False)
class Sample:
    """Labelled rows.

    Attributes
    ----------
    scores : ndarray of shape (n,), floating
    labels : ndarray of shape (n,), bool
    groups : ndarray of shape (n,), int64
        Rows with equal numbers, 0 to `n_groups` - 1, are copies of one picture.
    """

    scores: NDArray[np.floating[Any]]
    labels: NDArray[np.bool_]
    groups: Ints

    def __getitem__(self, rows: NDArray[Any]) -> Sample:
        """Return some rows, their groups numbered anew."""
        groups = np.unique(self.groups[rows], return_inverse=True)[1].astype(np.int64)
        return Sample(self.scores[rows], self.labels[rows], groups)

    @property
    def n_groups(self) -> int:
        """Number of different pictures."""
        return int(self.groups.max()) + 1

    @property
    def effective_size(self) -> float:
        """How many independent pictures the rows are worth (Kish 1965); the number of rows without copies."""
        return float(len(self.groups) ** 2 / np.square(np.bincount(self.groups)).sum())

    @property
    def first_of_each(self) -> Sample:
        """One row for each picture."""
        return self[np.unique(self.groups, return_index=True)[1]]


def as_sample(scores: ArrayLike, labels: ArrayLike, groups: ArrayLike | None) -> Sample:
    """Check the rows and number their groups."""
    values = as_scores(scores)
    truth = as_labels(labels, len(values))
    if groups is None:
        return Sample(values, truth, np.arange(len(values), dtype=np.int64))
    given = np.asarray(groups)
    if given.shape != values.shape:
        raise InputError(
            f"groups: expected one value for each of {len(values)} rows, found shape {given.shape}"
        )
    return Sample(values, truth, np.unique(given, return_inverse=True)[1].astype(np.int64))


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
        return ([rows], f"split: on {int(rows.sum())} rows held out at random") if both else ([], flat)
    folds = min(folds, scarcest)
    return [(place % folds == k)[sample.groups] for k in range(folds)], f"by {folds}-fold cross-validation"


def _stratified_order(sample: Sample, rng: np.random.Generator) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the groups in random order within label and size, and the label of each group (that of most rows)."""
    sizes = np.bincount(sample.groups)
    positives = np.bincount(sample.groups, weights=sample.labels)
    strata = positives * 2 > sizes
    order = np.lexsort((rng.random(len(sizes)), -sizes, strata))
    return order.astype(np.int64), strata
