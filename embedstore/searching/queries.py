"""A query and its vector: what may be asked, and the cache that makes asking again free.

Turns text, picture, id or vector into a unit vector of the store's space. A text or picture is embedded once; its
vector is kept in the store's ``queries/`` table, so a repeated query needs no model and no network.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embedstore import vectors
from embedstore.embedders import checked
from embedstore.embedders.protocol import Embedder
from embedstore.errors import QueryError
from embedstore.searching.query_cache import QueryCache, image_key, text_key
from embedstore.space import Space
from embedstore.vectors import Vectors

_log = logging.getLogger("embedstore")

MIXED = "EMBEDSTORE_ALLOW_MIXED_BACKEND"
"""Environment variable: ``1`` allows another backend of a store's model for queries (``--allow-mixed-backend``)."""

TEXTS_AT_ONCE = 40
"""Texts that are embedded before their vectors are stored: what a failure can cost."""


@dataclass(frozen=True, eq=False)
class Query:
    """What is asked of a store; made by `Query.of` from what a caller would naturally pass.

    Attributes
    ----------
    kind : {"text", "image", "id", "vector"}
    value : str, bytes, PIL.Image.Image or ndarray
    label : str
        The query in words, for people.
    """

    kind: Literal["text", "image", "id", "vector"]
    value: Any
    label: str

    @classmethod
    def text(cls, text: str) -> Query:
        """Ask for pictures that a text describes.

        Raises
        ------
        QueryError
            The text is empty.
        """
        if not text.strip():
            raise QueryError("the query is empty; give some words, such as 'a tiny white ball'")
        return cls("text", text.strip(), repr(text.strip()))

    @classmethod
    def image(cls, source: Any) -> Query:
        """Ask for pictures like this one: a path, bytes, a PIL image or an array of pixels."""
        if isinstance(source, str | os.PathLike):
            try:
                return cls("image", Path(source).read_bytes(), str(source))
            except OSError as error:
                raise QueryError(
                    f"the picture {os.fspath(source)!r} cannot be read: {error.strerror}"
                ) from error
        return cls("image", source, "a picture")

    @classmethod
    def id(cls, identity: str) -> Query:
        """Ask for pictures like a record of the store, by its id."""
        return cls("id", identity, f"id {identity}")

    @classmethod
    def vector(cls, values: Any) -> Query:
        """Ask with a vector of the store's space; it is scaled to unit length."""
        return cls("vector", values, "a vector")

    @classmethod
    def of(cls, query: Any) -> Query:
        """Read a query: text (any ``str``), path, PIL image, bytes of a picture, 1-d vector, or a `Query`.

        Raises
        ------
        QueryError
            None of these.
        """
        if isinstance(query, Query):
            return query
        if isinstance(query, str):
            return cls.text(query)
        if isinstance(query, os.PathLike | bytes):
            return cls.image(query)
        if isinstance(query, np.ndarray):
            return cls.vector(query) if query.ndim == 1 else cls.image(query)
        if type(query).__module__.startswith("PIL."):
            return cls.image(query)
        if isinstance(query, Sequence) and all(isinstance(x, int | float) for x in query):
            return cls.vector(query)
        raise QueryError(
            f"cannot search for a {type(query).__name__}; give a text, a path or picture, a vector, or Query.id(...)"
        )


def mixing_is_allowed() -> bool:
    """Tell whether the environment lets another backend of a store's model make query vectors."""
    return os.environ.get(MIXED, "").strip().lower() in ("1", "true", "yes", "on")


class Resolver:
    """Turns queries into vectors of one store.

    Parameters
    ----------
    space : Space
    cache : QueryCache
    embedder : callable
        Returns the embedder; called only when a query is neither cached nor in the store.
    vector_by_id, vector_by_hash : callable
        Look a record's vector up; return None when there is no such record.
    """

    def __init__(
        self,
        space: Space,
        cache: QueryCache,
        embedder: Callable[[], Embedder],
        vector_by_id: Callable[[str], Vectors | None],
        vector_by_hash: Callable[[str], Vectors | None],
    ) -> None:
        self._space = space
        self._caches = [cache]
        self._embedder = embedder
        self._by_id = vector_by_id
        self._by_hash = vector_by_hash

    def vectors(self, queries: Sequence[Query]) -> Vectors:
        """Return unit vectors, float32 of shape (n_queries, dim); texts not known are embedded together.

        Raises
        ------
        QueryError
            An id that is not in the store.
        """
        self._embed_texts([query.value for query in queries if query.kind == "text"])
        found = [self._vector(query) for query in queries]
        return np.stack(found) if found else np.empty((0, self._space.dim), np.float32)

    def _vector(self, query: Query) -> Vectors:
        if query.kind == "text":
            cached = self._cached(text_key(query.value))
            assert cached is not None
            return cached
        if query.kind == "image":
            return self._image_vector(query.value)
        if query.kind == "vector":
            given = vectors.as_vectors(query.value, self._space.dim, "the query")
            unit: Vectors = vectors.normalise(given, "the query")[0]
            return unit
        known = self._by_id(query.value)
        if known is None:
            raise QueryError(f"there is no record with the id {query.value!r} in this store")
        return known

    def _cached(self, key: str) -> Vectors | None:
        """Look a vector up: of the store's own backend first, then of the one that stands in for it."""
        found = (cache.get(key) for cache in self._caches)
        return next((vector for vector in found if vector is not None), None)

    def _new_cache(self, embedder: Embedder) -> QueryCache:
        """Return where this embedder's vectors are kept: they say which backend made them."""
        if self._space.takes(embedder.space):
            return self._caches[0]
        if self._caches[-1].space != embedder.space:
            _log.warning(
                "queries are embedded by %s, the store's vectors are of %s: scores differ a little from the store's "
                "own, and so may decisions near a threshold",
                embedder.space,
                self._space,
            )
            self._caches.append(self._caches[0].beside(embedder.space))
        return self._caches[-1]

    def _embed_texts(self, texts: Sequence[str]) -> None:
        """Embed the texts that no cache has, and store them some at a time."""
        missing = [text for text in dict.fromkeys(texts) if self._cached(text_key(text)) is None]
        if not missing:
            return
        embedder = self._embedder()
        cache = self._new_cache(embedder)
        new = [text for text in missing if cache.get(text_key(text)) is None]
        for start in range(0, len(new), TEXTS_AT_ONCE):
            some = new[start : start + TEXTS_AT_ONCE]
            cache.put([(text_key(text), "text", text) for text in some], checked.texts(embedder, some))

    def _image_vector(self, source: Any) -> Vectors:
        from embedstore import images

        picture = images.read(source)
        key = image_key(picture.content_hash)
        known = self._by_hash(picture.content_hash)
        if known is None:
            known = self._cached(key)
        if known is not None:
            return known
        embedder = self._embedder()
        cache = self._new_cache(embedder)
        if (mixed := cache.get(key)) is not None:
            return mixed
        found = checked.pictures(embedder, [embedder.prepare(picture.image)])
        cache.put([(key, "image", picture.content_hash)], found)
        first: Vectors = found[0]
        return first
