"""The contract that every embedder keeps; `tests/embedder_contract.py` holds it as one test class for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import ImageError
from embedstore.space import Space

if TYPE_CHECKING:
    from PIL import Image


def require_rgb(image: Image.Image) -> None:
    """Refuse a picture that `images.decode` has not made RGB.

    Raises
    ------
    ImageError
    """
    if image.mode != "RGB":
        raise ImageError(
            f"expected an RGB picture, found mode {image.mode}: decode it with embedstore.images"
        )


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
        """Turn one RGB picture (see `images.decode`) into the model's input; pure CPU work, order-free."""
        ...

    def embed_prepared(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Embed prepared pictures.

        Returns
        -------
        ndarray of shape (n, dim), float32
            Unit vectors, in the order given.

        Raises
        ------
        RejectedImagesError
            The batch holds a picture that is refused for good; the caller may halve the batch.
        ServiceError
            Nothing was embedded, for a reason that does not lie in the pictures.
        """
        ...

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as *queries* for pictures.

        Returns
        -------
        ndarray of shape (n, dim), float32
            Unit vectors, in the order given.
        """
        ...
