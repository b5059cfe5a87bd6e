"""Queries -> their unit vectors: looked up in the store, in the vectors kept from earlier queries, else embedded.

A text or picture is embedded once; its vector is kept in the store's ``queries/`` table, so a repeated query needs no
model and no network. The table is written under a lock of its own, so that searching never waits for an `add`. What
may be asked is said in `queries`.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from embedstore import vectors
from embedstore.errors import QueryError
from embedstore.searching.queries import Query
from embedstore.space import Space
from embedstore.storage import changes
from embedstore.storage.rows import Rows
from embedstore.storage.table import DeltaFolder
from embedstore.vectors import Vectors

if TYPE_CHECKING:
    from embedstore.embedders.protocol import Embedder

_log = logging.getLogger("embedstore")

_LOCK_TIMEOUT = 10.0
SCHEMA = pa.schema(
    [*((name, pa.string()) for name in ("id", "kind", "text", "space")), ("added_at", pa.timestamp("us", tz="UTC"))]
)


class QueryVectors:
    """Finds the vectors of queries for one store; what is embedded is kept in `cache`.

    `embedder` is called only when a query is neither kept nor in the store.
    """

    def __init__(self, cache: QueryCache, embedder: Callable[[], Embedder]) -> None:
        self.cache, self._space = cache, cache.space
        self._caches = [cache]
        self._embedder = embedder

    def __len__(self) -> int:
        """Return how many vectors of the store's own space are kept."""
        return len(self.cache)

    def vectors(self, queries: Sequence[Query], rows: Rows) -> Vectors:
        """Return unit vectors, float32 of shape (n_queries, dim); texts not known are embedded together.

        Raises QueryError for an id that is not among `rows`.
        """
        self._embed_texts([query.value for query in queries if query.kind == "text"])
        found = [self._vector(query, rows) for query in queries]
        return np.array(found) if found else np.empty((0, self._space.dim), np.float32)

    def _vector(self, query: Query, rows: Rows) -> Vectors:
        if query.kind == "text":
            cached = self._cached("text", query.value)
            assert cached is not None
            return cached
        if query.kind == "image":
            return self._image_vector(query.value, rows)
        if query.kind == "vector":
            given = vectors.as_vectors(query.value, self._space.dim, "the query")
            unit: Vectors = vectors.normalise(given, "the query")[0]
            return unit
        known = rows.vector_where("id", query.value)
        if known is None:
            raise QueryError(f"there is no record with the id {query.value!r} in this store")
        return known

    def _cached(self, kind: str, text: str) -> Vectors | None:
        """Look a vector up: of the store's own backend first, then of the one that stands in for it."""
        kept = (cache.get(kind, text) for cache in self._caches)
        return next((vector for vector in kept if vector is not None), None)

    def _new_cache(self, embedder: Embedder) -> QueryCache:
        """Return where this embedder's vectors are kept: they say which backend made them."""
        if self._space.takes(embedder.space):
            return self.cache
        if self._caches[-1].space != embedder.space:
            _log.warning(
                "queries are embedded by %s, the store's vectors are of %s: scores differ a little from the store's "
                "own, and so may decisions near a threshold",
                embedder.space,
                self._space,
            )
            self._caches.append(QueryCache(self.cache.table, embedder.space))
        return self._caches[-1]

    def _embed_texts(self, texts: Sequence[str]) -> None:
        """Embed the texts that no cache has, and store them some at a time."""
        missing = [text for text in dict.fromkeys(texts) if self._cached("text", text) is None]
        if not missing:
            return
        from embedstore.embedders.batches import embed_texts  # late: what was asked before needs none

        embedder = self._embedder()
        cache = self._new_cache(embedder)
        new = [text for text in missing if cache.get("text", text) is None]
        embed_texts(embedder, new, functools.partial(cache.put, "text"))

    def _image_vector(self, source: Any, rows: Rows) -> Vectors:
        from embedstore import images

        picture = images.read(source)
        known = rows.vector_where("content_hash", picture.content_hash)
        if known is None:
            known = self._cached("image", picture.content_hash)
        if known is None:
            embedder = self._embedder()
            cache = self._new_cache(embedder)
            known = cache.get("image", picture.content_hash)
            if known is None:
                from embedstore.embedders import protocol

                made = protocol.pictures(embedder, [embedder.prepare(picture.image)])
                cache.put("image", [picture.content_hash], made)
                known = made[0]
        return known


class QueryCache:
    """The store's ``queries/`` table: vectors of one space by kind, ``text`` or ``image``, and text or content hash."""

    def __init__(self, table: DeltaFolder, space: Space) -> None:
        self.table, self.space = table, space

    def __len__(self) -> int:
        return len(self._known)

    def get(self, kind: str, text: str) -> Vectors | None:
        """Return the vector that is kept, shape (dim,), or None."""
        return self._known.get(_key(kind, text))

    def put(self, kind: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Keep one vector for each text; on a read-only disk, for this process only."""
        from filelock import FileLock  # only new queries need it

        keys, count = [_key(kind, text) for text in texts], len(texts)
        self._known.update(zip(keys, vectors, strict=True))
        columns = (keys, [kind] * count, list(texts), [self.space.key] * count, [datetime.now(UTC)] * count)
        rows = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
        try:
            # Small parts are merged, which no two processes may do at once.
            with FileLock(self.table.path.with_name(".queries.lock"), timeout=_LOCK_TIMEOUT):
                if not self.table.exists():
                    self.table.create(SCHEMA)
                changes.upsert(self.table, rows, vectors, replaces=False)
        except OSError as error:  # of which the lock's timeout is one
            _log.warning("the query's vector could not be kept in the store: %s", error)

    @functools.cached_property
    def _known(self) -> dict[str, Vectors]:
        """The vectors by key, read when first asked for."""
        if not self.table.exists():
            return {}
        snapshot = self.table.snapshot()
        keys, spaces = (column.to_pylist() for column in snapshot.read(["id", "space"]).columns)
        stored = (row for part in snapshot.parts for group in part.groups() for row in group)
        return {key: row for key, space, row in zip(keys, spaces, stored, strict=True) if space == self.space.key}


def _key(kind: str, text: str) -> str:
    """Return the id of a row: 32 hex digits.

    The text is the finished one, with its template filled in. Texts are always embedded as queries for pictures
    (Nomic's task type ``search_query``), so the task needs no place in the key; the space is a column beside it.
    """
    return hashlib.sha256(f"{kind}\0{text}".encode()).hexdigest()[:32]
