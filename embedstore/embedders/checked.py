"""What an embedder returned -> unit vectors, or an error: the one check before an answer is stored anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from embedstore.embedders.protocol import Embedder
from embedstore.errors import EmbedderError
from embedstore.vectors import Vectors, as_vectors, normalise

_WHAT = "the embedder's answer"


def pictures(embedder: Embedder, prepared: Sequence[Any]) -> Vectors:
    """Embed prepared pictures; unit vectors, float32 of shape (n, dim), in the order given.

    Raises
    ------
    EmbedderError
        As `Embedder.embed_prepared`; or the answer has another shape.
    VectorError
        A vector has NaN, infinity or length zero.
    """
    return _checked(embedder, embedder.embed_prepared(prepared), len(prepared), "pictures")


def texts(embedder: Embedder, given: Sequence[str]) -> Vectors:
    """Embed texts as queries; returns and raises as `pictures`."""
    return _checked(embedder, embedder.embed_texts(given), len(given), "texts")


def _checked(embedder: Embedder, found: ArrayLike, count: int, what: str) -> Vectors:
    if np.shape(found) != (count, embedder.space.dim):
        raise EmbedderError(
            f"the embedder returned shape {np.shape(found)} for {count} {what} of {embedder.space.dim} components"
        )
    return normalise(as_vectors(found, embedder.space.dim, _WHAT), _WHAT)
