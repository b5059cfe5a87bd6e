"""The rows that answer a query, nearest first: an Arrow table that is read when looked at, and shows itself."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore import vectors
from embedstore.errors import MissingDependencyError
from embedstore.storage.arrow_columns import float32_array, pick
from embedstore.storage.rows import Rows
from embedstore.vectors import Positions

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_SHOWN_IN_NOTEBOOK = 24


class Matches:
    """The result of `EmbedStore.search` or `EmbedStore.classify`.

    Ordered by score, largest first, and by id among equals; put in order and read when first looked at. A slice is
    `Matches` too, and reads its own rows only.

    Parameters
    ----------
    rows : Rows or pyarrow.Table
        What `positions` count.
    positions : ndarray of shape (n,), int64
        In any order.
    scores : ndarray of shape (n,), float32
    query : str
        What was asked, in words.
    threshold : float or None
        Every score here is larger than this.

    Examples
    --------
    >>> matches = store.search("bird", k=3)                        # doctest: +SKIP
    >>> [(round(m["score"], 2), m["uri"]) for m in matches]        # doctest: +SKIP
    """

    def __init__(
        self,
        rows: Rows | pa.Table,
        positions: Positions,
        scores: NDArray[np.float32],
        query: str,
        threshold: float | None = None,
    ) -> None:
        self._rows = rows
        self._positions, self._scores = positions, scores
        self._ordered = False
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._table: pa.Table | None = None
        self.query = query
        self.threshold = threshold

    def _in_order(self) -> None:
        """Put the rows in the total order: score descending, then id ascending. Ids are read where scores tie only."""
        if self._ordered:
            return
        order = np.argsort(-self._scores, kind="stable")
        descending = self._scores[order]
        same = descending[1:] == descending[:-1]
        tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False)) if len(order) else order
        if len(tied):
            ids = self._take(self._positions[order[tied]], ["id"]).column("id").to_pylist()
            order[tied] = order[tied][vectors.total_order(descending[tied], ids)]
        self._positions, self._scores, self._ordered = self._positions[order], self._scores[order], True

    def _take(self, positions: Positions, columns: Sequence[str] | None) -> pa.Table:
        if isinstance(self._rows, Rows):
            return self._rows.take(positions, columns)
        return pick(self._rows if columns is None else self._rows.select(columns), positions)

    @property
    def table(self) -> pa.Table:
        """The rows: columns ``id``, ``score`` (float32), ``uri``, then the others but for the embedding."""
        if self._table is None:
            self._in_order()
            self._table = self._take(self._positions, None).add_column(1, "score", float32_array(self._scores))
        return self._table

    def _column(self, name: str) -> list[Any]:
        """Return one column, without reading the others."""
        if self._table is not None:
            return list(self._table.column(name).to_pylist())
        if name not in self._columns:
            self._in_order()
            self._columns[name] = self._take(self._positions, [name]).column(name)
        return list(self._columns[name].to_pylist())

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Matches: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | Matches:
        self._in_order()
        if not isinstance(place, slice):
            number = range(len(self))[place]
            return self[number : number + 1].to_pylist()[0]
        part = Matches(self._rows, self._positions[place], self._scores[place], self.query, self.threshold)
        part._ordered = (place.step or 1) > 0
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel with the rows: where they were read from may not be there."""
        rows = self.table.drop_columns(["score"])
        return (Matches, (rows, np.arange(len(self)), self._scores, self.query, self.threshold))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_pylist())

    def __repr__(self) -> str:
        above = "" if self.threshold is None else f" above {self.threshold:.4f}"
        lines = [f"{len(self)} matches for {self.query}{above}"]
        lines += [f"  {row['score']:.4f}  {row['uri']}" for row in self[:10]]
        if len(self) > 10:
            lines.append(f"  and {len(self) - 10} more")
        return "\n".join(lines)

    @property
    def id(self) -> list[str]:
        """Ids of the records."""
        return self._column("id")

    @property
    def uri(self) -> list[str]:
        """Where the pictures are."""
        return self._column("uri")

    @property
    def score(self) -> NDArray[np.float32]:
        """Scores, descending."""
        self._in_order()
        return self._scores.copy()

    def to_pylist(self) -> list[dict[str, Any]]:
        """Return one dictionary for each row."""
        return list(self.table.to_pylist())

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas DataFrame."""
        return self.table.to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """Return a Polars DataFrame; MissingDependencyError where Polars is not installed."""
        try:
            import polars as pl
        except ImportError as error:
            raise MissingDependencyError("to_polars needs Polars: pip install polars") from error
        frame = pl.from_arrow(self.table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _repr_html_(self) -> str:
        """Show the nearest pictures in a notebook."""
        from embedstore.images import figure  # only a notebook needs the pictures themselves
        from embedstore.sources import pictures_at

        shown = self[:_SHOWN_IN_NOTEBOOK]
        pictures = pictures_at(shown.uri, self._rows.thumbnails_at if isinstance(self._rows, Rows) else None)
        pairs = zip(shown.uri, shown.score, strict=True)
        cells = [figure(pictures.get(uri), uri, f"{score:.4f}", 128) for uri, score in pairs]
        head = html.escape(repr(self).splitlines()[0])
        return f"<p>{head}</p><div style='display:flex;flex-wrap:wrap;gap:8px'>{''.join(cells)}</div>"
