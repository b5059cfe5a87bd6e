"""The embedder `tiny`: pictures and texts to vectors by a service at ``TINY_URL``, whose key is ``TINY_KEY``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from PIL import Image

from embedstore.embedders.protocol import require_rgb
from embedstore.embedders.remote import RemoteEmbedder
from embedstore.embedders.transport import Transport, require_good
from embedstore.settings import Key
from embedstore.space import Space


class TinyEmbedder(RemoteEmbedder):
    """Asks the service; retries, the budget, waits and the look at its vectors are the base class's."""

    service = "Tiny's service"
    summary = "colours, by a service of our own"
    needs = "TINY_URL and TINY_KEY"
    space = Space("tiny-colours", "tiny-api", "float32", preprocessing="box8-1", dim=12)

    def prepare(self, image: Image.Image) -> bytes:
        """Turn an RGB picture into 8 x 8 points."""
        require_rgb(image)
        return image.resize((8, 8), Image.Resampling.BOX).tobytes()

    def send_pictures(self, prepared: Sequence[bytes]) -> Any:
        """Ask for the vectors of pictures."""
        return self._ask("pictures", [picture.hex() for picture in prepared])

    def send_texts(self, texts: Sequence[str]) -> Any:
        """Ask for the vectors of texts."""
        return self._ask("texts", list(texts))

    def _ask(self, what: str, items: list[str]) -> Any:
        key = Key(os.environ["TINY_KEY"], "TINY_KEY")
        transport = Transport(key, self.timeouts, "embedding with Tiny's service")
        answer = transport.post(f"{os.environ['TINY_URL']}/v1/{what}", json={"items": items})
        require_good(answer, key, self.service)
        return answer.json()["embeddings"]
