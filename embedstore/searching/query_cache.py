"""The vectors of queries that were asked before, in the store's ``queries/`` table.

Written under a lock of its own, so that searching never waits for an `add`. What a query is, and when it has to be
embedded, is left to `queries`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa

from embedstore.space import Space
from embedstore.storage import changes
from embedstore.storage.table import DeltaFolder
from embedstore.vectors import Vectors

_log = logging.getLogger("embedstore")
_LOCK_TIMEOUT = 10.0

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("text", pa.string()),
        pa.field("space", pa.string()),
        pa.field("added_at", pa.timestamp("us", tz="UTC")),
    ]
)


class QueryCache:
    """The store's ``queries/`` table: vectors by key.

    Parameters
    ----------
    table : DeltaFolder
    space : Space
        Vectors of another space are not found.

    Attributes
    ----------
    space : Space
    """

    def __init__(self, table: DeltaFolder, space: Space) -> None:
        self._table = table
        self.space = space
        self._known: dict[str, Vectors] | None = None

    def __len__(self) -> int:
        return len(self._load())

    def get(self, key: str) -> Vectors | None:
        """Return the vector of shape (dim,) for a key, or None."""
        return self._load().get(key)

    def put(self, rows: Sequence[tuple[str, str, str]], found: Vectors) -> None:
        """Keep vectors for (key, kind, text) rows; on a read-only disk, for this process only."""
        from filelock import FileLock  # only new queries need it

        known = self._load()
        known.update({key: vector for (key, _, _), vector in zip(rows, found, strict=True)})
        now = datetime.now(UTC)
        columns = [[*row, self.space.key, now] for row in rows]
        table = pa.Table.from_arrays([pa.array(c) for c in zip(*columns, strict=True)], schema=SCHEMA)
        try:
            # Small parts are merged, which no two processes may do at once.
            with FileLock(self._table.path.with_name(".queries.lock"), timeout=_LOCK_TIMEOUT):
                if not self._table.exists():
                    self._table.create(SCHEMA)
                changes.upsert(self._table, table, found, replaces=False)
        except OSError as error:  # of which the lock's timeout is one
            _log.warning("the query's vector could not be kept in the store: %s", error)

    def _load(self) -> dict[str, Vectors]:
        if self._known is None:
            self._known = {}
            if self._table.exists():
                snapshot = self._table.snapshot()
                columns = snapshot.read(["id", "space"]).to_pydict()
                stored = [row for part in snapshot.parts for group in part.groups() for row in group]
                for key, space, vector in zip(columns["id"], columns["space"], stored, strict=True):
                    if space == self.space.key:
                        self._known[key] = vector
        return self._known

    def beside(self, space: Space) -> QueryCache:
        """Return the cache of vectors of another space in the same table."""
        return QueryCache(self._table, space)


def text_key(text: str) -> str:
    """Return the cache key of a text: 32 hex digits.

    The text is the finished one, with its template filled in. Texts are always embedded as queries for pictures
    (Nomic's task type ``search_query``), so the task needs no place in the key; the space is a column beside it.
    """
    return hashlib.sha256(f"text\0{text}".encode()).hexdigest()[:32]


def image_key(content_hash: str) -> str:
    """Return the cache key of a picture: 32 hex digits."""
    return hashlib.sha256(f"image\0{content_hash}".encode()).hexdigest()[:32]
