"""Labels as a caller of scikit-learn has them -> two classes; labelled scores -> the probability of a match.

What scikit-learn checks is checked by scikit-learn, with its words. Choosing a threshold is left to `measures`, labels
of rows of a store to `labels`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, column_or_1d

from embedstore.errors import LabelError


def two_classes(y: Any, asked: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return two classes, ascending, and which labels are of the larger, that of a match: bool of shape (n,).

    LabelError for more classes or fewer, missing labels, or texts of which the one that the query `asked` for names
    comes first.
    """
    try:
        values = column_or_1d(y, warn=True)
        assert_all_finite(values, input_name="y")
        check_classification_targets(values)
        kind = type_of_target(values, input_name="y", raise_unknown=True)
    except ValueError as error:
        raise LabelError(str(error)) from error
    classes, position = np.unique(values, return_inverse=True)
    if kind != "binary":
        raise LabelError(
            f"Only binary classification is supported. The type of the target is {kind}. "
            "Compare with the class that is looked for, as in labels == 'dog'"
        )
    if len(classes) < 2:
        raise LabelError(f"all labels are {classes.tolist()}: labels of one class only choose no threshold")
    low, high = (re.search(rf"\b{re.escape(str(name))}\b", asked, re.IGNORECASE) for name in classes)
    if low and not high and classes.dtype.kind in "OUS":
        raise LabelError(
            f"the query is {asked!r}, and of the labels {classes.tolist()} the last one would be that of a "
            f"match, as everywhere in scikit-learn; pass labels == {classes.tolist()[0]!r}"
        )
    return classes, position.astype(np.bool_)


def platt_sigmoid(scores: NDArray[Any], truth: NDArray[np.bool_], sample_weight: NDArray[Any] | None = None) -> Any:
    """Fit Platt's sigmoid, 1 / (1 + exp(a score + b)), to labelled scores, shape (n,) each.

    Returns what has `predict_proba`, to be asked with scores of shape (n, 1). The targets are smoothed (Platt 1999), so
    that scores which separate the classes leave the sigmoid finite.
    """
    column, every = scores[:, np.newaxis], np.arange(len(scores))
    sigmoid = CalibratedClassifierCV(_KnownScores(), method="sigmoid", cv=[(every, every)])
    return sigmoid.fit(column, truth, sample_weight=sample_weight)


class _KnownScores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Scores that are known, as something that scikit-learn asks for scores: the one feature is the score.

    They are told in float64 and in the unit of their own spread: the search for the sigmoid's two numbers ends where
    steps are small, and cosines that lie within hundredths would end it early.
    """

    def fit(self, X: NDArray[Any], y: NDArray[Any], sample_weight: Any = None) -> _KnownScores:
        """Know the classes and the spread."""
        self.classes_ = np.unique(y)
        known = np.unique(X).astype(np.float64)  # weights and repeats must not matter here
        self.middle_, self.spread_ = known.mean(), known.std() or 1.0
        return self

    def decision_function(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Return the score, shape (n,)."""
        score: NDArray[np.float64] = (X[:, 0].astype(np.float64) - self.middle_) / self.spread_
        return score
