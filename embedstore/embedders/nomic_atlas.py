"""The space of pictures that Atlas embedded by itself: texts are embedded by Nomic's API, pictures only there.

A dataset of pictures is embedded in Atlas, in bulk, out of the JPEG files that were sent (at most 512 pixels each way,
quality 90). The API gets other files of the same pictures (see `nomic_api`), so the vectors are near, not equal, and
the spaces are two. Texts know no such difference. Sending pictures there and fetching their vectors is `atlas`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from embedstore.embedders.nomic_api import NomicAPIEmbedder
from embedstore.embedders.protocol import State
from embedstore.errors import SpaceMismatchError, spelt
from embedstore.space import Space
from embedstore.vectors import Vectors

if TYPE_CHECKING:
    from PIL import Image

SPACE: Final = Space("nomic-embed-v1.5", "nomic-atlas", precision="float16", preprocessing="jpeg512-q90", dim=768)
"""Where the vectors lie that Atlas makes of pictures, and gives out as float16."""


class NomicAtlasEmbedder:
    """Embeds texts through Nomic's service for a store whose pictures Atlas has embedded; refuses pictures.

    Options are those of `nomic_api.NomicAPIEmbedder`.
    """

    summary = "pictures embedded in bulk by Atlas (add --via-atlas), texts through Nomic's service"
    needs = NomicAPIEmbedder.needs
    space = SPACE
    batch_size, workers = 64, 1

    def __init__(self, **options: Any) -> None:
        self._texts = NomicAPIEmbedder(**options)

    @classmethod
    def state(cls) -> State:
        """Ready when there is a key that can be used."""
        return NomicAPIEmbedder.state()

    def prepare(self, image: Image.Image) -> NoReturn:
        """Raise SpaceMismatchError: a picture is embedded by Atlas, or in another space."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        add = spelt("embedstore.atlas.add_via_atlas(store, source, name)", "`add STORE SOURCE --via-atlas ORG/NAME`")
        raise SpaceMismatchError(
            f"the pictures of this store were embedded by Atlas, in the space {SPACE}; Nomic's API embeds pictures in "
            f"the space {NomicAPIEmbedder.space}, from other files of them, and the two are not mixed. {add} lets "
            "Atlas embed more; ask with texts, or with a record of the store by its id"
        )

    def embed_prepared(self, prepared: Sequence[Any]) -> Vectors:
        """Raise SpaceMismatchError, as `prepare`."""
        self._refuse()

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts as queries for pictures; see `nomic_api.NomicAPIEmbedder.embed_texts`."""
        return self._texts.embed_texts(texts)
