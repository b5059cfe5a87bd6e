"""Whatever a caller passes for pictures -> a list with one item for each, or what is meant to be a table of vectors.

Tells one picture from several, and pictures from numbers, by form alone: nothing is opened. What an item of the list
may be is said by `images.as_source`; tables are checked by whoever wants vectors.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from embedstore.errors import ImageError
from embedstore.images import is_image


def pictures_or_table(X: Any) -> tuple[Any, bool]:
    """Return a list with one item for each picture, or else a table of numbers, unchecked; and whether X is an array.

    Takes one picture in any form, several in a sequence or a 1-d array, or rows of numbers. Arrays are those of NumPy,
    Arrow and pandas but for a single picture, and all tables of numbers, also those in nested lists. Raises ImageError
    for others.
    """
    if isinstance(X, np.ndarray) and X.ndim == 2:
        return ([X], False) if X.dtype == np.uint8 else (X, True)  # a grey picture; other numbers are vectors
    if isinstance(X, str | os.PathLike) or type(X) is dict or is_image(X):
        return [X], False
    if hasattr(X, "column_names") and hasattr(X, "features"):
        raise ImageError(f"this is a data set; pass one of its columns, such as X[{X.column_names[0]!r}]")
    if hasattr(X, "to_pylist"):
        return X.to_pylist(), True
    if not hasattr(X, "shape") and hasattr(X, "__array__"):
        X = np.asarray(X)
    shape = getattr(X, "shape", None)
    if shape is not None:
        numbers = len(shape) == 1 and getattr(X.dtype, "kind", "O") in "biufc"
        return (X if numbers or len(shape) in (0, 2) else list(X)), True
    try:
        items = list(X)
    except TypeError as error:
        raise ImageError(
            f"expected a picture, a list of pictures or an array of vectors, found {type(X).__name__}"
        ) from error
    is_table = bool(items) and all(_is_number_or_row(item) for item in items)
    return (np.asarray(items), True) if is_table else (items, False)


def _is_number_or_row(item: Any) -> bool:
    """Tell whether an item of a list is a row of numbers, or one number."""
    if isinstance(item, np.ndarray | np.generic):
        return item.ndim < 2 and item.dtype.kind in "biufc"
    if isinstance(item, list | tuple):
        return all(isinstance(x, int | float) for x in item)
    return isinstance(item, int | float | complex)
