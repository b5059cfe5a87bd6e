"""`metadata.csv`, `.jsonl` or `.parquet` beside pictures -> what is known of each file.

The layout is Hugging Face's *imagefolder*: a column ``file_name``, relative to the metadata file; every other
scalar column belongs to that file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from embedstore.errors import SourceError
from embedstore.sources.columns import scalars_of
from embedstore.sources.tabular import read_small

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


class Beside:
    """The rows of one metadata file, by absolute path of the picture.

    Attributes
    ----------
    path : str
        The metadata file.
    refused : list of (str, str)
        File names that cannot be used, and why.
    """

    def __init__(self, path: str, table: pa.Table) -> None:
        self.path = path
        self.refused: list[tuple[str, str]] = []
        self._columns = {name: table[name].to_pylist() for name in table.column_names if name != "file_name"}
        self._rows: dict[str, int] = {}
        self._used: set[str] = set()
        folder = os.path.dirname(path)
        for row, name in enumerate(table["file_name"].to_pylist()):
            self._place(folder, name, row)

    def _place(self, folder: str, name: Any, row: int) -> None:
        """Find the file that a row speaks of."""
        if not isinstance(name, str) or not name:
            self.refused.append((f"{self.path}#{row}", f"row {row} names no file"))
            return
        path = os.path.normpath(os.path.join(folder, name))
        if not path.startswith(os.path.join(folder, "")):
            self.refused.append((path, "it lies outside the folder of that file"))
        elif path in self._rows:
            self.refused.append((path, f"row {row} names it a second time; the first row is used"))
        else:
            self._rows[path] = row

    def __contains__(self, path: str) -> bool:
        return path in self._rows

    def take(self, path: str) -> dict[str, Any] | None:
        """Return what is known of a file, and note that it was asked for; None for a file that is not named."""
        row = self._rows.get(path)
        if row is None:
            return None
        self._used.add(path)
        return {name: values[row] for name, values in self._columns.items()}

    def unused(self) -> Iterator[str]:
        """Yield the files that nobody asked for, in the order of the rows."""
        return (path for path in list(self._rows) if path not in self._used)


def read_beside(path: str) -> Beside:
    """Read a metadata file.

    Raises
    ------
    SourceError
        It cannot be parsed, or has no column ``file_name``.
    """
    table = read_small(path)
    if "file_name" not in table.column_names:
        raise SourceError(
            f"it needs a column 'file_name'; found {', '.join(table.column_names) or 'no columns'}"
        )
    return Beside(path, scalars_of(table))
