"""What this process has embedded: vectors by key, within a limit of bytes.

What a key says is the caller's business.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from embedstore.vectors import Vectors

MEMORY_BYTES = 256 * 2**20
"""Vectors that the process remembers: 83,000 of 768 components. A store has no such limit."""


class Memory:
    """Vectors by key, of several threads and spaces; those used longest ago go first when it is full.

    Parameters
    ----------
    limit : int
        Bytes of all vectors together.
    """

    def __init__(self, limit: int = MEMORY_BYTES) -> None:
        self._limit = limit
        self._bytes = 0
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: str) -> Vectors | None:
        """Return the vector of shape (dim,) for a key, or None."""
        with self._lock:
            found = self._vectors.get(key)
            if found is not None:
                self._vectors.move_to_end(key)
            return found

    def put(self, key: str, vector: Vectors) -> None:
        """Remember a copy of a vector."""
        with self._lock:
            if key not in self._vectors:
                self._vectors[key] = vector.copy()
                self._bytes += vector.nbytes
            while self._bytes > self._limit:
                self._bytes -= self._vectors.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._vectors.clear()
            self._bytes = 0


MEMORY = Memory()
"""What this process has embedded."""
