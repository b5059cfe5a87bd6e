"""What scikit-learn's callers pass as X and y -> pictures or a table of numbers, and two classes.

Whether the pictures can be read and the numbers are vectors of a space is found out by `embed_once` and
`estimators`.
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, column_or_1d

from embedstore.errors import ImageError, LabelError


def pictures_or_table(X: Any) -> Any:
    """Tell pictures from vectors.

    Parameters
    ----------
    X
        One picture in any form, several in a sequence or a 1-d array, or rows of numbers.

    Returns
    -------
    list or other
        A list holds one item for each picture. Anything else is meant to be a table of numbers, and is for
        `sklearn.utils.validation.validate_data` to check.

    Raises
    ------
    ImageError
        Neither of them.
    """
    if _is_one_picture(X):
        return [X]
    if hasattr(X, "column_names") and hasattr(X, "features"):
        raise ImageError(f"this is a data set; pass one of its columns, such as X[{X.column_names[0]!r}]")
    if hasattr(X, "to_pylist"):
        return X.to_pylist()
    if not hasattr(X, "shape") and hasattr(X, "__array__"):
        X = np.asarray(X)
    shape = getattr(X, "shape", None)
    if shape is not None:
        numbers = len(shape) == 1 and getattr(X.dtype, "kind", "O") in "biufc"
        return X if numbers or len(shape) in (0, 2) else list(X)
    try:
        items = list(X)
    except TypeError as error:
        raise ImageError(
            f"expected a picture, a list of pictures or an array of vectors, found {type(X).__name__}"
        ) from error
    return np.asarray(items) if items and all(_is_number_or_row(item) for item in items) else items


def two_classes(y: Any, asked: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read the labels of two classes.

    Parameters
    ----------
    y : array-like of shape (n,)
        Two different values; the larger is that of a match.
    asked : str
        The query, by which labels in the wrong order are recognised.

    Returns
    -------
    classes : ndarray of shape (2,)
        Ascending.
    positive : ndarray of shape (n,), bool

    Raises
    ------
    LabelError
        More classes or fewer, missing labels, or texts of which the one that the query names comes first.
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
    _require_order(classes, asked)
    return classes, position.astype(np.bool_)


def _require_order(classes: NDArray[Any], asked: str) -> None:
    """Refuse texts of which the one that is not meant comes last."""
    low, high = (re.search(rf"\b{re.escape(str(name))}\b", asked, re.IGNORECASE) for name in classes)
    if low and not high and classes.dtype.kind in "OUS":
        raise LabelError(
            f"the query is {asked!r}, and of the labels {classes.tolist()} the last one would be that of a "
            f"match, as everywhere in scikit-learn; pass labels == {classes.tolist()[0]!r}"
        )


def _is_one_picture(X: Any) -> bool:
    """Tell whether this is a picture by itself."""
    if isinstance(X, np.ndarray):
        return (X.ndim == 2 and X.dtype == np.uint8) or (X.ndim == 3 and X.shape[2] in (1, 2, 3, 4))
    if isinstance(X, str | bytes | bytearray | memoryview | os.PathLike) or type(X) is dict:
        return True
    return any(base.__module__ == "PIL.Image" for base in type(X).__mro__)


def _is_number_or_row(item: Any) -> bool:
    """Tell whether an item of a list is a row of numbers, or one number."""
    if isinstance(item, np.ndarray | np.generic):
        return item.ndim < 2 and item.dtype.kind in "biufc"
    if isinstance(item, list | tuple):
        return all(isinstance(x, int | float) for x in item)
    return isinstance(item, int | float | complex)
