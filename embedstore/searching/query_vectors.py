"""Queries -> their unit vectors: looked up in the store, in the vectors kept from earlier queries, else embedded.

A text or picture is embedded once; its vector is kept in the store's ledger, so a repeated query needs no model and no
network. What may be asked is said in `queries`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedstore import vectors
from embedstore.errors import ImageError, QueryError, StoreError, VectorError
from embedstore.searching.queries import Query, combine
from embedstore.space import Space
from embedstore.storage.ledger import Ledger
from embedstore.storage.rows import Rows
from embedstore.vectors import ArrayCache, Vectors

if TYPE_CHECKING:
    from embedstore.embedders.protocol import Embedder

_log = logging.getLogger("embedstore")

_MEMORY_BYTES = 64 * 2**20
"""Vectors of queries that a reader remembers."""


class QueryVectors:
    """Finds the vectors of queries for one store; what is embedded is kept in `cache`.

    `embedder` is called only when a query is neither kept nor in the store.
    """

    def __init__(self, cache: QueryCache, embedder: Callable[[], Embedder]) -> None:
        self.cache, self._space = cache, cache.space
        self._caches = [cache]
        self._embedder = embedder
        self._checked: set[str] = set()

    def __len__(self) -> int:
        """Return how many vectors of the store's own space are kept."""
        return len(self.cache)

    def vectors(self, queries: Sequence[Query], rows: Rows) -> Vectors:
        """Return unit vectors, float32 of shape (n_queries, dim); texts not known are embedded together.

        Raises QueryError for an id that is not among `rows`.
        """
        self._embed_texts([text for query in queries for text in query.texts])
        found = [self._vector(query, rows) for query in queries]
        return np.array(found) if found else np.empty((0, self._space.dim), np.float32)

    def warn_of_unknown(self, queries: Sequence[Query]) -> None:
        """Log a warning for texts of which the store's model knows no word, once for each."""
        texts = [text for query in queries for text in query.texts if text not in self._checked]
        if not texts:
            return
        from embedstore.embedders.registry import unknown_texts  # late: a vector or an id needs none

        self._checked.update(texts)
        if unknown := unknown_texts(self._space, texts):
            more = f" and {len(unknown) - 1} more texts" if len(unknown) > 1 else ""
            _log.warning(
                "no known word in %r%s: the model %r has only pieces of such words, so these scores mean little",
                unknown[0],
                more,
                self._space.model,
            )

    def _vector(self, query: Query, rows: Rows) -> Vectors:
        if query.kind == "text":
            cached = self._cached("text", query.value)
            assert cached is not None
            return cached
        if query.kind == "mix":
            return combine([self._vector(one, rows) for _, one in query.value], [weight for weight, _ in query.value])
        if query.kind == "image":
            return self._image_vector(query, rows)
        if query.kind == "vector":
            return self._given_vector(query)
        known = rows.vector_where("id", query.value)
        if known is None:
            raise QueryError(f"there is no record with the id {query.value!r} in this store")
        return known

    def _given_vector(self, query: Query) -> Vectors:
        given = vectors.as_vectors(query.value, what=query.label)
        if given.shape != (1, self._space.dim):
            raise VectorError(
                f"{query.label}: expected shape ({self._space.dim},), as the store's vectors have, found "
                f"{np.shape(query.value)}; a grey picture is Query.image(array)"
            )
        unit: Vectors = vectors.normalise(given, query.label)[0]
        return unit

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
            self._caches.append(QueryCache(self.cache.ledger, embedder.space))
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

    def _image_vector(self, query: Query, rows: Rows) -> Vectors:
        from embedstore import images

        try:
            picture = images.read(query.value)
        except ImageError as error:
            raise ImageError(f"{query.label}: {error}") from error
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
    """The vectors of one space that the ledger keeps, by kind, ``text`` or ``image``, and text or content hash.

    A ledger that cannot be read or written costs a warning, never an answer; this process remembers what it has seen.
    `what` is kept is said by the warning.
    """

    def __init__(self, ledger: Ledger, space: Space, what: str = "queries") -> None:
        self.ledger, self.space, self._what = ledger, space, what
        self._seen: ArrayCache[Vectors] = ArrayCache(_MEMORY_BYTES)
        self._warned = False

    def __len__(self) -> int:
        try:
            return self.ledger.query_count(self.space.key)
        except (StoreError, OSError) as error:
            self._warn(error)
            return 0

    def get(self, kind: str, text: str) -> Vectors | None:
        """Return the vector that is kept, shape (dim,), or None."""
        return self.get_many(kind, [text]).get(text)

    def get_many(self, kind: str, texts: Sequence[str]) -> dict[str, Vectors]:
        """Return the vectors that are kept of these texts, shape (dim,) each, by text."""
        found = {text: seen for text in texts if (seen := self._seen.get((kind, text))) is not None}
        unseen = [text for text in texts if text not in found]
        try:
            kept = self.ledger.queries(self.space.key, kind, unseen) if unseen else {}
        except (StoreError, OSError) as error:
            self._warn(error)
            return found
        for text, vector in kept.items():
            if vector.shape == (self.space.dim,):
                found[text] = self._seen.put((kind, text), vector)
        return found

    def put(self, kind: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Keep one vector for each text; on a read-only disk, for this process only."""
        for text, vector in zip(texts, vectors, strict=True):
            self._seen.put((kind, text), vector.copy())
        try:
            self.ledger.keep_queries(self.space.key, kind, texts, vectors)
        except (StoreError, OSError) as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            _log.warning("%s are not kept: %s", self._what, error)
            self._warned = True
