"""The rows that answer a query, nearest first: an Arrow table that is read when looked at, and shows itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from embedstore import vectors
from embedstore.errors import MissingDependencyError
from embedstore.storage.arrow_columns import float32_array, pa, pick
from embedstore.storage.rows import Rows
from embedstore.vectors import Positions
from embedstore.wording import counted, quoted

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_SHOWN_IN_NOTEBOOK = 24


class Matches:
    """The result of `EmbedStore.search` or `EmbedStore.classify`.

    Ordered by score, largest first, and by id among equals; put in order and read when first looked at. A slice is
    `Matches` too, nearest first whatever its step, and reads its own rows only.

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
    >>> matches[0]["id"], len(matches[:2])                         # doctest: +SKIP
    >>> pa.table(matches), pl.DataFrame(matches)                   # doctest: +SKIP
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
        if not self._ordered:
            order = in_order(self._scores, lambda places: self._take(self._positions[places], ["id"]).column("id"))
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

    def batches(self) -> pa.RecordBatchReader:
        """Return the rows of `table` as a stream: of very many, few are in memory at a time."""
        self._in_order()
        if not isinstance(self._rows, Rows) or self._table is not None:
            return self.table.to_reader()
        schema = self[:0].table.schema

        def read(rows: Rows) -> Iterator[pa.RecordBatch]:
            start = 0
            for table in rows.batches(self._positions):
                scores = self._scores[start : start + len(table)]
                start += len(table)
                yield from table.add_column(1, "score", float32_array(scores)).to_batches()

        return pa.RecordBatchReader.from_batches(schema, read(self._rows))

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
        lines = [f"{self._found} {self._asked}"]
        lines += [f"  {row['score']:.4f}  {quoted(row['uri'])}" for row in self[:10]]
        if len(self) > 10:
            lines.append(f"  and {len(self) - 10:,} more")
        return "\n".join(lines)

    @property
    def _found(self) -> str:
        return counted(len(self), "match", "matches")

    @property
    def _asked(self) -> str:
        return f"for {self.query!r}" + ("" if self.threshold is None else f" above {self.threshold:.4f}")

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

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table, which is `table`."""
        return self.table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Hand the rows to whatever reads Arrow: pyarrow, Polars, DuckDB, pandas."""
        return self.table.__arrow_c_stream__(requested_schema)

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

    def save_pictures(self, folder: str | os.PathLike[str]) -> list[Path | None]:
        """Copy the pictures themselves into a folder; return where each is, see `copies.copy_pictures`."""
        from embedstore.sources.copies import copy_pictures  # only who copies needs the pictures themselves

        return copy_pictures(self.uri, folder)

    def _repr_html_(self) -> str:
        """Show the nearest pictures in a notebook."""
        from embedstore import markup  # only a notebook needs it

        shown = self[:_SHOWN_IN_NOTEBOOK]
        more = f"; the nearest {len(shown)} are shown" if len(shown) < len(self) else ""
        captions = [f"{score:.4f}" for score in shown.score]
        copies = self._rows.thumbnails_at if isinstance(self._rows, Rows) else None
        return markup.heading(self._found, self._asked + more) + strip(shown.uri, captions, copies)


def in_order(scores: NDArray[np.float32], ids: Callable[[NDArray[np.intp]], pa.ChunkedArray]) -> NDArray[np.intp]:
    """Return the places of scores, shape (n,), in the total order: score descending, then id ascending.

    `ids` returns the ids at some places: it is asked for those of equal scores only.
    """
    # Ids decide between equal ones: a stable sort would take four times as long for nothing.
    order = np.argsort(-scores)
    descending = scores[order]
    same = (descending[1:] == descending[:-1]) | np.isnan(descending[:-1])  # those of damaged vectors come last
    tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False)) if len(order) else order
    if len(tied):
        order[tied] = order[tied][vectors.total_order(descending[tied], ids(order[tied]).to_pylist())]
    return order


def strip(uris: Sequence[str], captions: Sequence[str], copies: Any = None, side: int = 128) -> str:
    """Return the pictures at `uris` as HTML, `side` pixels wide and high, each with its caption.

    `copies` finds small copies of pictures that no file holds, as `Rows.thumbnails_at`.
    """
    from embedstore import markup  # only a notebook needs the pictures themselves
    from embedstore.images import figure
    from embedstore.sources import pictures_at

    pictures = pictures_at([uri for uri in uris if uri], copies)
    pairs = zip(uris, captions, strict=True)
    return markup.side_by_side(figure(pictures.get(uri), uri or "", caption, side) for uri, caption in pairs)
