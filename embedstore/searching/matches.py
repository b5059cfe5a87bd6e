"""The rows that answer a query: an Arrow table, nearest first, that shows itself."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.errors import ImageError, MissingDependencyError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from embedstore.images import PictureSource

_SHOWN_IN_NOTEBOOK = 24


class Unread(Protocol):
    """Rows that are still where they are kept; `answers` finds them."""

    def __len__(self) -> int: ...

    def read(self, columns: Sequence[str] | None) -> pa.Table:
        """Return these columns, or all, of the rows in their order."""
        ...


class Matches:
    """The result of `EmbedStore.search` or `EmbedStore.classify`.

    Ordered by score, largest first, and by id among equals.

    Attributes
    ----------
    table : pyarrow.Table
        Columns ``id``, ``score`` (float32), ``uri``, then the rest of the row but for the embedding.
    query : str
        What was asked, in words.
    threshold : float or None
        Every score here is larger than this.

    Examples
    --------
    >>> matches = store.search("bird", k=3)                        # doctest: +SKIP
    >>> [(round(m["score"], 2), m["uri"]) for m in matches]        # doctest: +SKIP
    """

    def __init__(self, table: pa.Table | Unread, query: str, threshold: float | None = None) -> None:
        self._source = table
        self._columns: dict[str, pa.ChunkedArray] = {}
        self.query = query
        self.threshold = threshold

    @property
    def table(self) -> pa.Table:
        """The rows, read when first asked for."""
        if not isinstance(self._source, pa.Table):
            self._source = self._source.read(None)
        return self._source

    def _column(self, name: str) -> pa.ChunkedArray:
        """Return one column, without reading the others."""
        if isinstance(self._source, pa.Table):
            return self._source.column(name)
        if name not in self._columns:
            self._columns[name] = self._source.read([name]).column(name)
        return self._columns[name]

    def __len__(self) -> int:
        return len(self._source)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel with the rows: where they were read from may not be there."""
        return (Matches, (self.table, self.query, self.threshold))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_pylist())

    def __repr__(self) -> str:
        above = "" if self.threshold is None else f" above {self.threshold:.4f}"
        lines = [f"{len(self)} matches for {self.query}{above}"]
        lines += [f"  {row['score']:.4f}  {row['uri']}" for row in self.table.slice(0, 10).to_pylist()]
        if len(self) > 10:
            lines.append(f"  and {len(self) - 10} more")
        return "\n".join(lines)

    @property
    def id(self) -> list[str]:
        """Ids of the records."""
        return list(self._column("id").to_pylist())

    @property
    def uri(self) -> list[str]:
        """Where the pictures are."""
        return list(self._column("uri").to_pylist())

    @property
    def score(self) -> NDArray[np.float32]:
        """Scores, descending."""
        # By their buffers, as Arrow's to_numpy imports pandas.
        chunks = [
            np.frombuffer(chunk.buffers()[1], np.float32, len(chunk), 4 * chunk.offset)
            for chunk in self._column("score").chunks
            if len(chunk)
        ]
        return np.concatenate([np.empty(0, np.float32), *chunks])

    def to_pylist(self) -> list[dict[str, Any]]:
        """Return one dictionary for each row."""
        return list(self.table.to_pylist())

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas DataFrame."""
        return self.table.to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """Return a Polars DataFrame.

        Raises
        ------
        MissingDependencyError
            Polars is not installed.
        """
        try:
            import polars as pl
        except ImportError as error:
            raise MissingDependencyError("to_polars needs Polars: pip install polars") from error
        frame = pl.from_arrow(self.table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _repr_html_(self) -> str:
        """Show the nearest pictures in a notebook."""
        from embedstore.sources import pictures_at  # only a notebook needs the pictures themselves

        rows = self.table.slice(0, _SHOWN_IN_NOTEBOOK).to_pylist()
        pictures = pictures_at([row["uri"] for row in rows])
        cells = [_cell(row, pictures.get(row["uri"])) for row in rows]
        head = html.escape(repr(self).splitlines()[0])
        return f"<p>{head}</p><div style='display:flex;flex-wrap:wrap;gap:8px'>{''.join(cells)}</div>"


def _cell(row: dict[str, Any], source: PictureSource | None) -> str:
    from embedstore import images

    title = html.escape(str(row["uri"]), quote=True)
    try:
        if source is None:
            raise ImageError("not on this machine")
        data = base64.b64encode(images.thumbnail(source, 128)).decode()
        picture = f"<img src='data:image/jpeg;base64,{data}' title='{title}' style='height:128px'>"
    except (OSError, ImageError):
        picture = f"<div style='width:128px;height:128px;background:#ddd' title='{title}'></div>"
    return f"<figure style='margin:0'>{picture}<figcaption>{row['score']:.4f}</figcaption></figure>"
