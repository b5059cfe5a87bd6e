"""Scores of several classes and the true class of labelled rows -> one class for each further row, or none.

Scores of different queries are of different offset and scale, so neither they nor what they exceed their thresholds by
can be compared. What can is the probability of each class given *all* the scores: a multinomial logistic regression,
fitted by scikit-learn (imported when something is fitted, here and nowhere else below the estimator) and applied
without. Counting the decisions is left to `rates`, thresholds for one class alone to `calibration`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError, LabelError, option
from embedstore.measures.rates import ClassCounts, Confusion, Floats, Ints, Metrics, confusion
from embedstore.measures.samples import as_weights
from embedstore.wording import counted

STRENGTH = 1.0
"""scikit-learn's ``C`` of the regression on standardised scores: its default, on which little depends."""
NEARLY_ALL = 0.9
"""A class that matches more than this share of the rows is suspected of swallowing the others."""
_FLATTERS = "on the rows that it was fitted on, which flatters"
_SWALLOWS = 0.75
"""It does where less than this share of what it matches is right."""


@dataclass(frozen=True, eq=False)
class Competition:
    """What several classes decide together: ``softmax(weights @ scores + bias)``, and when that is too little.

    Attributes
    ----------
    classes : tuple of str
        The classes, in the order of the rows of scores.
    weights, bias : ndarray of shape (n_outcomes, n_classes) and (n_outcomes,), float64
        Of the classes and, last, of none of them, where rows of none were labelled.
    abstain_below : float
        In [0, 1): where the likeliest class is less probable than this, none is decided for. With 0, the default, that
        is so only where none of them is the likeliest outcome.
    confusion : Confusion or None
        Of the decisions on the labelled rows, each by a fit that has not seen its picture; None where it is not known
        how the rows were picked.
    validation : str
        How that was measured, in words.
    """

    classes: tuple[str, ...]
    weights: Floats
    bias: Floats
    abstain_below: float = 0.0
    confusion: Confusion | None = None
    validation: str = ""

    def __post_init__(self) -> None:
        """Refuse coefficients that do not fit the classes, and a bound that is no probability (InputError)."""
        n, outcomes = len(self.classes), len(self.bias)
        if self.weights.shape != (outcomes, n) or outcomes not in (n, n + 1):
            raise InputError(f"{n} classes compete by weights of shape {self.weights.shape} and {outcomes} biases")
        if not 0 <= self.abstain_below < 1:
            raise InputError(
                f"{option('abstain_below')} must be at least 0 and less than 1, found {self.abstain_below!r}"
            )

    @property
    def knows_none(self) -> bool:
        """Whether rows of none of the classes were labelled, so that none has a probability of its own."""
        return len(self.bias) > len(self.classes)

    @property
    def doubts(self) -> list[str]:
        """What the decision may be wrong about, one sentence each; a class that swallows the others by name."""
        doubts = []
        if self.confusion is not None:
            told = (swallowing(name, one, "is decided for") for name, one in self.confusion.by_class.items())
            doubts += [text for text in told if text]
        if self.validation == _FLATTERS:
            doubts.append(f"which class is decided for is measured {self.validation}: label more pictures of each")
        if not self.knows_none and not self.abstain_below:
            doubts.append(
                "every labelled row is of one of the classes, so none of them is never an answer; label some rows as "
                f"of another, or ask for {option('abstain_below', 0.5)}"
            )
        return doubts

    def probabilities(self, scores: ArrayLike) -> Floats:
        """Return the probability of each class, float64 of shape (n_classes, n_rows), for scores of that shape.

        Where `knows_none`, what is missing to 1 is the probability of none of them. The bits of a row's depend on its
        scores alone.
        """
        return self._outcomes(scores)[: len(self.classes)]

    def decide(self, scores: ArrayLike) -> Ints:
        """Return the number of each row's class, shape (n_rows,), -1 for none, for scores of (n_classes, n_rows)."""
        outcomes = self._outcomes(scores)
        best = np.argmax(outcomes, axis=0)
        named = (best < len(self.classes)) & (outcomes.max(axis=0) >= self.abstain_below)
        return np.where(named, best, -1).astype(np.int64)

    def _outcomes(self, scores: ArrayLike) -> Floats:
        """Return the probability of each outcome, shape (n_outcomes, n_rows)."""
        lines = np.asarray(scores, dtype=np.float64)
        if lines.ndim != 2 or len(lines) != len(self.classes):
            raise InputError(f"expected scores of shape ({len(self.classes)}, n_rows), found {lines.shape}")
        # Class by class, as the bits of a matrix product depend on its shape.
        logits = np.repeat(self.bias[:, np.newaxis], lines.shape[1], axis=1)
        for weights, line in zip(self.weights.T, lines, strict=True):
            logits += weights[:, np.newaxis] * line
        shares = np.exp(logits - logits.max(axis=0, initial=-np.inf))
        outcomes: Floats = shares / shares.sum(axis=0)
        return outcomes

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "weights": self.weights.tolist(),
            "bias": self.bias.tolist(),
            "abstain_below": self.abstain_below,
            "validation": self.validation,
            "confusion": None if self.confusion is None else self.confusion.to_dict(),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], classes: Sequence[str]) -> Competition:
        """Read what `to_dict` wrote; KeyError, TypeError, ValueError or InputError for anything else."""
        weights, bias = (np.array(fields[name], dtype=np.float64) for name in ("weights", "bias"))
        if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ValueError("weights and bias must be finite")
        counts, bound = fields["confusion"], float(fields["abstain_below"])
        measured = None if counts is None else Confusion.from_dict(counts)
        return cls(tuple(classes), weights, bias, bound, measured, str(fields["validation"]))


def compete(
    scores: ArrayLike,
    names: Sequence[Any],
    classes: Sequence[str],
    groups: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    abstain_below: float = 0.0,
    folds: int = 5,
    seed: int = 0,
) -> Competition:
    """Fit what several classes decide together, and measure it on pictures that the fit has not seen.

    The fit is scikit-learn's `LogisticRegression` with its default penalty on standardised scores, which a score alone
    may have picked the rows for: that changes no probability given the scores.

    Parameters
    ----------
    scores : array-like of shape (n_classes, n)
    names : sequence of n
        The true class of each row; anything that is not among `classes` is none of them.
    classes : sequence of str
        In the order of the scores.
    groups : array-like of shape (n,), optional
        Equal values mark copies of one picture, which always stand on one side of a fold.
    sample_weight : array-like of shape (n,), optional
        How many rows each stands for, in the fit and in the figures. NaN where that is not known: such a row counts as
        one in the fit, and not in the figures.
    abstain_below : float
        See `Competition`.
    folds : int
        Of the cross-validation, stratified by class.
    seed : int
        Equal seeds give equal folds.

    Raises
    ------
    LabelError
        A class has no row, or all rows are of one.
    InputError
        Arguments that do not fit each other.
    """
    lines = np.asarray(scores, dtype=np.float64)
    places = {name: number for number, name in enumerate(classes)}
    truth = np.array([places.get(str(name), len(places)) for name in names], dtype=np.int64)
    if lines.shape != (len(places), len(truth)):
        raise InputError(f"expected scores of shape ({len(places)}, {len(truth)}), found {lines.shape}")
    if folds < 2:
        raise InputError(f"folds must be at least 2, found {folds!r}")
    seen = np.bincount(truth, minlength=len(places) + 1)
    if not seen[:-1].all():
        raise LabelError(f"no labelled row is of the class {classes[int(np.argmin(seen[:-1]))]!r}; check its name")
    if np.count_nonzero(seen) < 2:
        raise LabelError(f"all labelled rows are of the class {classes[0]!r}: there is nothing to tell it from")
    outcomes = len(places) + int(seen[-1] > 0)
    weight = as_weights(sample_weight, len(truth))
    known = ~np.isnan(weight)
    in_fit = np.where(known, weight / weight[known].mean(), 1.0)

    def fitted(rows: NDArray[np.bool_]) -> Competition:
        coefficients = _fit(lines[:, rows], truth[rows], in_fit[rows], outcomes)
        return Competition(tuple(classes), *coefficients, abstain_below)

    chosen = fitted(np.ones(len(truth), dtype=np.bool_))
    copies = np.arange(len(truth)) if groups is None else np.asarray(groups)
    if copies.shape != truth.shape:
        raise InputError(f"groups: expected one value for each of {len(truth)} rows, found shape {copies.shape}")
    parts = _folds(truth, np.unique(copies, return_inverse=True)[1].astype(np.int64), folds, seed)
    guesses = chosen.decide(lines)
    for held in parts:
        guesses[held] = fitted(~held).decide(lines[:, held])
    if not known.any():
        return dataclasses.replace(chosen, validation="not at all: how the labelled rows were picked is not known")
    predicted = [None if guess < 0 else classes[guess] for guess in guesses[known].tolist()]
    truths = [str(name) for name, kept in zip(names, known.tolist(), strict=True) if kept]
    counts = confusion(truths, predicted, classes, None if sample_weight is None else weight[known])
    how = f"by {len(parts)}-fold cross-validation" if parts else _FLATTERS
    return dataclasses.replace(chosen, confusion=counts, validation=how)


def swallowing(name: str, counts: ClassCounts | Metrics, how: str = "matches") -> str | None:
    """Say that a class matches nearly every row, wrongly so; None where it does not."""
    matches, rows = counts.tp + counts.fp, counts.tp + counts.fp + counts.fn + counts.tn
    if not rows or matches <= NEARLY_ALL * rows or counts.precision >= _SWALLOWS:
        return None
    nearly = f"{name} {how} nearly everything: {matches / rows:.1%} of the labelled rows"
    return f"{nearly}, {counts.precision:.1%} of them rightly; ask a better query for it"


def _fit(lines: Floats, truth: Ints, weight: Floats, outcomes: int) -> tuple[Floats, Floats]:
    """Return weights and biases for plain scores; an outcome that no row has gets none, and no probability."""
    from sklearn.linear_model import LogisticRegression

    centre, scale = lines.mean(axis=1), lines.std(axis=1)
    scale[scale == 0] = 1.0
    weights, bias = np.zeros((outcomes, len(lines))), np.full(outcomes, -np.inf)
    present = np.unique(truth)
    if len(present) == 1:
        bias[present] = 0.0
        return weights, bias
    model = LogisticRegression(C=STRENGTH, max_iter=1000)
    model.fit(((lines.T - centre) / scale), truth, sample_weight=weight)
    coefficients, constants = model.coef_, model.intercept_
    if len(present) == 2:  # scikit-learn keeps those of the second alone
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        constants = np.concatenate([np.zeros_like(constants), constants])
    weights[present] = coefficients / scale
    bias[present] = constants - weights[present] @ centre
    return weights, bias


def _folds(truth: Ints, groups: Ints, folds: int, seed: int) -> list[NDArray[np.bool_]]:
    """Return masks of the rows to be held out in turn, stratified by class; none where each has one picture only."""
    from sklearn.model_selection import StratifiedKFold

    first = np.unique(groups, return_index=True)[1]  # copies of a picture are rarely of two classes
    strata = truth[first]
    seen = np.bincount(strata)
    folds = min(folds, int(seen.max()))
    if folds < 2:
        return []
    # A class with fewer pictures than folds would be warned of; it is dealt out all the same, as its own turn comes.
    scarce = seen[strata] < folds
    ordinary = np.flatnonzero(~scarce)
    part = np.empty(len(strata), dtype=np.int64)
    for number, (_, held) in enumerate(
        StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(ordinary)), strata[ordinary])
    ):
        part[ordinary[held]] = number
    part[scarce] = np.random.default_rng(seed).permutation(int(scarce.sum())) % folds
    return [part[groups] == number for number in range(folds)]


def words_of(competition: Competition) -> str:
    """Say in a line how right the decision is, and how that was measured."""
    counts = competition.confusion
    if counts is None:
        return f"which class: measured {competition.validation}"
    return (
        f"which class: accuracy {counts.accuracy:.4f}, decided {counts.coverage:.1%} of "
        f"{counted(round(counts.n), 'row')}, measured {competition.validation}"
    )
