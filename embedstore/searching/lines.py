"""The scores of a query over all rows, kept so that a further threshold costs a binary search.

Bounded by bytes; the line that was asked for longest ago goes first. Making the scores is left to `scan`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from embedstore.measures.thresholds import floor

Scores = NDArray[np.float32]


class Line:
    """The scores of one query: float32 of shape (n_rows,), read-only, in row order."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.scores.flags.writeable = False
        self._asked = False
        self._ascending: Scores | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self.scores.nbytes * (1 if self._ascending is None else 2)

    def count_above(self, threshold: float) -> int:
        """Return how many scores are larger than `threshold`, compared exactly.

        The first question reads the scores; from the second on they lie sorted beside.
        """
        limit = floor(threshold, self.scores.dtype)
        if self._ascending is None:
            if not self._asked:
                self._asked = True
                return int(np.count_nonzero(self.scores > limit))
            self._ascending = np.sort(self.scores)
        return len(self._ascending) - int(self._ascending.searchsorted(limit, side="right"))


class Lines:
    """Lines by query vector, at most `limit` bytes of them, but always the newest.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[bytes, Line] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Line | None:
        """Return a line, which then is the one used last, or None."""
        with self._lock:
            line = self._kept.get(key)
            if line is not None:
                self._kept.move_to_end(key)
            return line

    def put(self, key: bytes, scores: Scores) -> Line:
        """Keep a line; the ones used longest ago make room for it."""
        line = Line(scores)
        with self._lock:
            self._kept[key] = line
            self._kept.move_to_end(key)
        self.trim()
        return line

    def trim(self) -> None:
        """Drop what is above the limit, for lines that have grown."""
        with self._lock:
            held = sum(line.nbytes for line in self._kept.values())
            while held > self.limit and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                held -= dropped.nbytes
