"""A table with a column of pictures -> records; every other scalar column is metadata.

The pictures are taken as they are stored, undecoded, so that they are hashed as files are.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from embedstore.errors import ImageError
from embedstore.sources.columns import (
    Features,
    features_of,
    find_image_column,
    is_binary,
    is_picture_struct,
    is_text,
    scalar_names,
    scalars_of,
)
from embedstore.sources.record import Record, Source
from embedstore.sources.tabular import Tabular
from embedstore.sources.web import download, is_url, without_password

_ROWS = 64  # pictures of a piece are in memory together


class TableSource(Source):
    """The rows of a table.

    Keys are ``file:<path>#<row>`` for files. Rows of a table in memory have no place of their own that lasts,
    so their keys are made of the picture's hash: ``<name>:<hash>``, and ``#2`` and so on for its second
    appearance.

    Parameters
    ----------
    image_column : str, optional
        The column that holds the pictures, where it cannot be found by its type.
    extra : mapping, optional
        More metadata, the same for each row, such as the split; a column of that name in the table is
        preferred.

    Raises
    ------
    SourceError
        No column holds pictures.
    """

    def __init__(
        self, tabular: Tabular, *, image_column: str | None = None, extra: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self._tabular = tabular
        self._extra = dict(extra or {})
        self._features: Features = features_of(tabular.schema)
        self._column = find_image_column(tabular.schema, self._features, image_column)
        self._kept, self._skipped = scalar_names(tabular.schema, without=self._column)

    def describe(self) -> str:
        """Return the number of rows, the columns kept and those left out."""
        rows = "rows" if self._tabular.rows is None else f"{self._tabular.rows:,} rows"
        text = f"{rows} of {self._tabular.name}: pictures in {self._column!r}"
        text += f", metadata {', '.join(self._kept)}" if self._kept else ""
        return text + (f"; left out, as no scalars: {', '.join(self._skipped)}" if self._skipped else "")

    def count(self) -> int | None:
        """Return the number of rows, where it is known."""
        return self._tabular.rows

    def __iter__(self) -> Iterator[Record]:
        first, seen = 0, Counter[str]()
        for piece in self._tabular.stream(_ROWS, [self._column, *self._kept]):
            metadata = scalars_of(piece, self._column, self._features).to_pylist()
            loads = self._loads(piece[self._column].combine_chunks())
            for offset, (load, place) in enumerate(loads):
                row = first + offset
                if load is None:
                    self._fail(f"{self._tabular.name}#{row}", f"row {row} has no picture")
                    continue
                key, uri = self._names(row, load, seen)
                if place is not None:
                    seen[place] += 1
                    uri = place if seen[place] == 1 else uri
                yield Record(key, uri, load, self._extra | (metadata[offset] if metadata else {}))
            first += piece.num_rows

    def _names(self, row: int, load: Callable[[], bytes], seen: Counter[str]) -> tuple[str, str]:
        """Return the key of a row, and a uri that no other row has."""
        if self._tabular.stable_rows:
            place = f"{self._tabular.name}#{row}"
            return (place if "://" in place else f"file:{place}"), place
        try:
            what = hashlib.sha256(load()).hexdigest()
        except (OSError, ImageError):
            what = f"row {row}"  # reported when it is loaded again for embedding
        seen[what] += 1
        key = f"table:{what}" + (f"#{seen[what]}" if seen[what] > 1 else "")
        return key, key

    def _loads(self, column: pa.Array) -> Iterator[tuple[Callable[[], bytes] | None, str | None]]:
        """Yield for each row how to get at the picture's bytes, and the path or URL if they lie elsewhere."""
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        if is_picture_struct(column.type):
            for row, value in enumerate(column):
                if value.is_valid and value["bytes"].is_valid:
                    yield functools.partial(_bytes_at, column, row), None
                else:
                    path = value["path"].as_py() if value.is_valid else None
                    yield self._load_path(path), self._place(path)
        elif is_text(column.type):
            for text in column.to_pylist():
                yield self._load_path(text), self._place(text)
        elif is_binary(column.type):
            for row, value in enumerate(column):
                yield functools.partial(_bytes_at, column, row) if value.is_valid else None, None
        else:
            for row in range(len(column)):
                yield functools.partial(_refuse, self._column, str(column.type), row), None

    def _place(self, path: str | None) -> str | None:
        """Return the absolute path, or the URL, that a text in the table means."""
        if not path or is_url(path):
            return without_password(path) if path else None
        return os.path.normpath(os.path.join(self._tabular.folder or os.getcwd(), path))

    def _load_path(self, path: str | None) -> Callable[[], bytes] | None:
        """Return how to read a path or URL."""
        if not path:
            return None
        if is_url(path):
            return functools.partial(download, path)
        return Path(self._place(path) or path).read_bytes


def _bytes_at(column: pa.Array, row: int) -> bytes:
    """Copy the bytes of one row out of a column of bytes, or of structs with bytes."""
    value = column[row]
    data: bytes = (value["bytes"] if is_picture_struct(column.type) else value).as_py()
    return data


def _refuse(column: str, kind: str, row: int) -> bytes:
    """Say that a column was named for pictures that cannot hold any."""
    raise ImageError(
        f"column {column!r} is of type {kind}; expected bytes, a struct of bytes and path, or paths"
    )
