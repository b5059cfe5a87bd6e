"""Whatever a caller passes for pictures -> a sequence with one item for each, or what is meant as a table of vectors.

Tells one picture from several, and pictures from numbers, by form alone: nothing is opened. What an item of the list
may be is said by `images.as_source`; tables are checked by whoever wants vectors.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from embedstore.errors import ImageError
from embedstore.images import is_image
from embedstore.sources import hub


class Given(NamedTuple):
    """What was given, in one of two forms."""

    content: Any
    """A sequence with one item for each picture, or else numbers, unchecked."""
    is_table: bool
    """Whether it is numbers."""
    is_array: bool
    """Whether it came as an array of NumPy, a column of pandas or Arrow, or as a table of numbers in any form."""


def pictures_or_table(X: Any) -> Given:
    """Tell what was given: one picture in any form, several in a sequence or a 1-d array, or rows of numbers.

    Raises ImageError for others.
    """
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype != np.uint8:
        return Given(X, is_table=True, is_array=True)
    if isinstance(X, str | os.PathLike) or type(X) is dict or is_image(X):  # 2-d bytes are a grey picture
        return Given([X], is_table=False, is_array=False)
    if hasattr(X, "column_names") and hasattr(X, "features"):
        raise ImageError(f"this is a data set; pass one of its columns, such as X[{X.column_names[0]!r}]")
    if hub.is_column_of_pictures(X):
        return Given(X, is_table=False, is_array=False)  # as it is: a list would hold all its pictures decoded
    if hasattr(X, "to_pylist"):
        return Given(X.to_pylist(), is_table=False, is_array=True)
    if not hasattr(X, "shape") and hasattr(X, "__array__"):
        X = np.asarray(X)
    shape = getattr(X, "shape", None)
    if shape is not None:
        numbers = len(shape) == 1 and getattr(X.dtype, "kind", "O") in "biufc"
        is_table = numbers or len(shape) in (0, 2)
        return Given(X if is_table else list(X), is_table, is_array=True)
    try:
        items = list(X)
    except TypeError as error:
        raise ImageError(
            f"expected a picture, a list of pictures or an array of vectors, found {type(X).__name__}"
        ) from error
    is_table = bool(items) and all(_is_number_or_row(item) for item in items)
    return Given(np.asarray(items) if is_table else items, is_table, is_array=is_table)


def _is_number_or_row(item: Any) -> bool:
    """Tell whether an item of a list is a row of numbers, or one number."""
    if isinstance(item, np.ndarray | np.generic):
        return item.ndim < 2 and item.dtype.kind in "biufc"
    if isinstance(item, list | tuple):
        return all(isinstance(x, int | float) for x in item)
    return isinstance(item, int | float | complex)
