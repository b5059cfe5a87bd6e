"""A ``where`` and a table -> which rows match.

The store gives the columns that are needed and takes the mask; how a string is understood is `language`'s
business.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.errors import FilterError
from embedstore.filters.language import build, parse

Condition: TypeAlias = "str | pa.compute.Expression"


@dataclass(frozen=True)
class Where:
    """A condition on the metadata of a row.

    Attributes
    ----------
    expression : pyarrow.compute.Expression
        For datasets and tables of pyarrow. Strings are not yet turned into dates in it, as the types of the
        columns are not known; `mask` does so.
    columns : tuple of str
        The columns that `mask` needs, in order of appearance; all columns for a ready expression, which does
        not tell which it uses.
    """

    expression: pa.compute.Expression
    columns: tuple[str, ...]
    _tree: ast.expr | None = field(default=None, repr=False)

    def mask(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return which rows match.

        A comparison with a missing value (null) is neither true nor false, and so is its ``not``: a row
        matches only if the whole condition is true.

        Parameters
        ----------
        table : pyarrow.Table of n rows
            With at least `columns`.

        Returns
        -------
        ndarray of shape (n,), bool

        Raises
        ------
        FilterError
            A value is compared with a column of another type.
        """
        expression = self.expression
        if self._tree is not None:
            expression, _ = build(self._tree, list(self.columns), table.schema)
        number = "row number"
        while number in table.column_names:
            number += "_"
        numbered = table.append_column(number, pa.array(np.arange(table.num_rows)))
        try:
            matching = numbered.filter(expression)[number].to_numpy()
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise FilterError(f"the filter {expression} does not fit the columns: {error}") from error
        mask = np.zeros(table.num_rows, np.bool_)
        mask[matching] = True
        return mask


def parse_where(where: Condition | Where | None, columns: Sequence[str]) -> Where | None:
    """Understand a condition.

    Parameters
    ----------
    where : str, pyarrow.compute.Expression or None
        See `language` for what a string may say; nothing of it is ever executed.
    columns : sequence of str
        The columns that there are.

    Returns
    -------
    Where or None
        None for no condition.

    Raises
    ------
    FilterError
        The string does not parse, says what is not understood, or names no such column.

    Examples
    --------
    >>> import pyarrow as pa
    >>> where = parse_where("label in ['cat', 'dog'] and 200 < width <= 400", ["label", "width", "year"])
    >>> where.columns
    ('label', 'width')
    >>> where.mask(pa.table({"label": ["cat", "dog", None], "width": [300, 100, 300]})).tolist()
    [True, False, False]
    """
    if where is None or isinstance(where, Where):
        return where
    if isinstance(where, str):
        tree = parse(where, columns)
        expression, used = build(tree, columns)
        return Where(expression, tuple(used), tree)
    import pyarrow.compute as pc  # late: only filters need it

    if isinstance(where, pc.Expression):
        return Where(where, tuple(columns))
    raise FilterError(
        f"a filter is a string such as \"label == 'cat'\" or a pyarrow expression, not {type(where).__name__}"
    )
