"""A column of texts -> the positions of a text in it, in 16 bytes a row beside the column itself.

A dictionary of a million uris, ids or hashes takes ten times that.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

_AT_ONCE = 65_536


class Lookup:
    """Finds texts in a column.

    Parameters
    ----------
    column : pyarrow.ChunkedArray of string
        Nulls and empty texts are not found.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column
        hashes = np.fromiter(_hashes(column), np.int64, len(column))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def __contains__(self, text: str) -> bool:
        return self.first(text) is not None

    def first(self, text: str) -> int | None:
        """Return the first position of a text, or None."""
        return next(self.positions(text), None)

    def positions(self, text: str) -> Iterator[int]:
        """Yield the positions of a text, ascending."""
        if not text:
            return
        wanted = hash(text)
        place = int(np.searchsorted(self._hashes, wanted))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            position = int(self._order[place])
            if self._column[position].as_py() == text:  # two texts may have the same hash
                yield position
            place += 1


def _hashes(column: pa.ChunkedArray) -> Iterator[int]:
    """Yield the hash of each text, with few of them as Python objects at a time."""
    for start in range(0, len(column), _AT_ONCE):
        for text in column.slice(start, _AT_ONCE).to_pylist():
            yield hash(text)
