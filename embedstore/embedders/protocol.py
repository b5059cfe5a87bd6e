"""The contract that every embedder keeps, and the one check of its answers before any of them is stored or scored.

Prepared pictures and texts become unit vectors, or an error. `tests/embedder_contract.py` holds the contract as one
test class for all. Which embedder is meant is left to `registry`, many pictures at once to `batches`, decoding to
`images`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import EmbedderError, ImageError, QueryError
from embedstore.space import Space
from embedstore.vectors import Vectors, as_vectors, normalise

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")


class Lazy(Generic[T]):
    """A value made at first use, once, whichever thread comes first."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: T | None = None

    @property
    def value(self) -> T:
        """The value; what making it raises is raised, and it is made anew at the next use."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


class State(NamedTuple):
    """What of an embedder is on this machine: whether it could run now, its weights' bytes, folder and commits."""

    ready: bool
    size_bytes: int | None = None
    folder: Path | None = None
    revisions: Mapping[str, str] | None = None


@runtime_checkable
class Embedder(Protocol):
    """Turns pictures and texts into unit vectors of one space.

    `prepare` and `embed_prepared` are apart so that decoding and resizing run on all cores while the model, or
    the service, works on the batch before. Both may be called from several threads at once.

    Attributes
    ----------
    space : Space
        Where the vectors lie.
    batch_size : int
        Number of pictures that one call of `embed_prepared` should be given; more is allowed.
    workers : int
        Number of calls of `embed_prepared` that may usefully be under way at once.
    """

    space: Space
    batch_size: int
    workers: int

    def prepare(self, image: Image.Image) -> Any:
        """Turn one RGB picture (see `images.read`) into the model's input; pure CPU work, order-free."""
        ...

    def embed_prepared(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Embed prepared pictures; unit vectors of shape (n, dim), in the order given.

        Raises
        ------
        RejectedImagesError
            The batch holds a picture that is refused for good; the caller may halve the batch.
        ServiceError
            Nothing was embedded, for a reason that does not lie in the pictures.
        """
        ...

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as *queries* for pictures; unit vectors of shape (n, dim), in the order given."""
        ...


def require_rgb(image: Image.Image) -> None:
    """Raise ImageError for a picture that `images.read` has not made RGB."""
    if image.mode != "RGB":
        raise ImageError(f"expected an RGB picture, found mode {image.mode}: decode it with embedstore.images")


def require_texts(texts: Sequence[str]) -> None:
    """Raise QueryError for what is no list of texts; one text is none."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise QueryError(f"expected a list of texts, found {type(texts).__name__} {texts!r:.80}; pass [text]")


def pictures(embedder: Embedder, prepared: Sequence[Any]) -> Vectors:
    """Embed prepared pictures; unit vectors, float32 of shape (n, dim), in the order given.

    Raises what the embedder does; EmbedderError for an answer of another shape, VectorError for NaN, infinity and
    vectors of length zero in it.
    """
    return _checked(embedder, embedder.embed_prepared(prepared), len(prepared), "pictures")


def texts(embedder: Embedder, queries: Sequence[str]) -> Vectors:
    """Embed texts as queries; returns and raises as `pictures`."""
    return _checked(embedder, embedder.embed_texts(queries), len(queries), "texts")


def _checked(embedder: Embedder, answer: ArrayLike, count: int, what: str) -> Vectors:
    if np.shape(answer) != (count, embedder.space.dim):
        raise EmbedderError(
            f"the embedder returned shape {np.shape(answer)} for {count} {what} of {embedder.space.dim} components"
        )
    name = "the embedder's answer"
    return normalise(as_vectors(answer, embedder.space.dim, name), name)
