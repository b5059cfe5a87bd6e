"""Scores and a threshold in, the rows that a person should look at out.

Contact sheets and tables of these rows are drawn by others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError
from embedstore.measures.labels import as_labels, as_scores
from embedstore.measures.thresholds import above

Positions = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ReviewSample:
    """Rows to be labelled next.

    Attributes
    ----------
    positions : ndarray of shape (k,), intp
        Positions in the scores given, highest score first.
    reasons : list of str
        For each: ``"near the threshold"``, or ``"sample of scores a to b"``.
    """

    positions: Positions
    reasons: list[str]

    def __len__(self) -> int:
        return len(self.positions)


def review_sample(
    scores: ArrayLike,
    threshold: float,
    n_near: int = 20,
    n_stratified: int = 20,
    seed: int = 0,
    labelled: ArrayLike | None = None,
) -> ReviewSample:
    """Pick the rows nearest the threshold, and a sample that covers the whole range of scores.

    Labels of the first move the threshold; labels of the second tell precision and recall.

    Parameters
    ----------
    scores : array-like of shape (n,)
    threshold : float
    n_near : int
        How many of the nearest; of equally near ones the earlier row.
    n_stratified : int
        How many further rows, one at random from each of as many slices of equal numbers of rows.
    seed : int
    labelled : array-like of shape (n,), bool, optional
        Rows that have a label already and are left out.
    """
    values = as_scores(scores).astype(np.float64)
    if n_near < 0 or n_stratified < 0:
        raise InputError(f"numbers of rows cannot be negative, found {n_near} and {n_stratified}")
    done = np.zeros(len(values), dtype=np.bool_) if labelled is None else as_labels(labelled, len(values))
    open_rows = np.flatnonzero(~done)
    near = open_rows[np.argsort(np.abs(values[open_rows] - threshold), kind="stable")[:n_near]]
    reasons = dict.fromkeys(near.tolist(), "near the threshold")
    rest = np.setdiff1d(open_rows, near)
    rest = rest[np.argsort(values[rest], kind="stable")]
    rng = np.random.default_rng(seed)
    for part in np.array_split(rest, min(n_stratified, len(rest)) or 1):
        if n_stratified and len(part):
            low, high = values[part[0]], values[part[-1]]
            reasons[int(rng.choice(part))] = f"sample of scores {low:.4f} to {high:.4f}"
    positions = np.array(sorted(reasons, key=lambda row: (-values[row], row)), dtype=np.intp)
    return ReviewSample(positions, [reasons[int(row)] for row in positions])


def errors_of(scores: ArrayLike, labels: ArrayLike, threshold: float) -> tuple[Positions, Positions]:
    """Return the rows that a threshold gets wrong.

    Returns
    -------
    false_positives : ndarray of intp
        Rows that match and should not, highest score (the worst error) first.
    false_negatives : ndarray of intp
        Rows that should match and do not, lowest score (the worst error) first.
    """
    values = as_scores(scores)
    truth = as_labels(labels, len(values))
    matched = above(values, threshold)
    wrong, missed = np.flatnonzero(matched & ~truth), np.flatnonzero(~matched & truth)
    return (
        wrong[np.argsort(-values[wrong], kind="stable")],
        missed[np.argsort(values[missed], kind="stable")],
    )


def boundary(scores: ArrayLike, threshold: float, n: int = 24) -> Positions:
    """Return up to `n` rows around the threshold, half on each side where there are, highest score first."""
    values: NDArray[Any] = as_scores(scores)
    order = np.argsort(-values, kind="stable")
    cut = int(above(values, threshold).sum())
    first = max(0, min(cut - n // 2, len(values) - n))
    return order[first : first + n]
