"""The `nomic` embedder: pictures and texts to vectors by Nomic's service, over the official client.

The client's own functions make the requests, one for each batch that they are given; asking again, the budget and the
look at the vectors are `remote`'s. How many requests may leave in a while is said in `rate_limit`; timeouts and the key
are left to `transport`, what stands inside the client to `nomic_transport`, batching and saving to `ingest`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from embedstore.embedders.nomic_transport import EmbeddingTransport, with_globals
from embedstore.embedders.protocol import Lazy, State, require_rgb
from embedstore.embedders.rate_limit import REQUESTS, WINDOW, RateLimiter, shared_limiter
from embedstore.embedders.remote import RemoteEmbedder, Retries
from embedstore.embedders.transport import PassingError, Timeouts
from embedstore.errors import CredentialsError, MissingDependencyError, ModelNotFoundError
from embedstore.settings import Key, find_key, require_key
from embedstore.space import Space

if TYPE_CHECKING:
    from PIL import Image

MODELS: Final = {"nomic-embed-v1.5": ("nomic-embed-vision-v1.5", "nomic-embed-text-v1.5")}
"""Name of a space's model -> the service's names of its picture and text models."""

DIM: Final = 768
LARGEST_SIDE: Final = 512
ALIKE: Final = 16
"""Levels, of 256, by which two pictures differ at most that may have one vector: the noise of a JPEG file."""


class NomicAPIEmbedder(RemoteEmbedder):
    """Embeds through Nomic's service; keeps the `Embedder` protocol.

    Nothing is looked up or sent before the first picture or text: without a `key` it is then found as
    `settings.find_key` says. Each call of `embed_prepared` is one request; `timeouts` are those of a request, `retries`
    those of a batch. `max_requests` is a budget of embedding requests in all, those that fail included; `requests_sent`
    counts them. The default `limiter` is shared by all processes of this user on this machine; `requests_per_second` is
    what it allows in the long run.
    """

    service = "Nomic's service"
    summary = "Nomic Embed v1.5 through Nomic's service"
    needs = "a key from https://atlas.nomic.ai: NOMIC_API_KEY, or `nomic login`"
    space = Space("nomic-embed-v1.5", "nomic-api", precision="float32", preprocessing="jpeg512-1", dim=DIM)
    requests_per_second: Final = REQUESTS / WINDOW

    def __init__(
        self,
        model: str = "nomic-embed-v1.5",
        *,
        key: Key | str | None = None,
        batch_size: int = 64,
        workers: int = 4,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
        max_requests: int | None = None,
        limiter: RateLimiter | None = None,
    ) -> None:
        if model not in MODELS:
            raise ModelNotFoundError(f"Nomic's service is used for {', '.join(MODELS)}; found {model!r}")
        super().__init__(
            batch_size=batch_size, workers=workers, timeouts=timeouts, retries=retries, max_requests=max_requests
        )
        self._image_model, self._text_model = MODELS[model]

        def given() -> Key | str | None:  # a traceback that shows local names shows no key
            return key

        self._client = Lazy(lambda: _Client(require_key(given()), self.timeouts, limiter))

    @classmethod
    def state(cls) -> State:
        """Ready when there is a key that can be used; there are no weights on this machine."""
        try:
            return State(ready=find_key() is not None)
        except CredentialsError:  # a list of models says "not ready"; whoever uses the model is told why
            return State(ready=False)

    def prepare(self, image: Image.Image) -> bytes:
        """Turn one RGB picture into the JPEG file that is sent.

        The same bytes as the client makes: a picture larger than 512 pixels is reduced by a whole factor, so it
        may keep up to 1,023; the quality is Pillow's default, 75. Other than the client's, the reduced picture
        always has at least one pixel each way. ImageError if the picture is not RGB.
        """
        require_rgb(image)
        factor = max(image.width // LARGEST_SIDE, image.height // LARGEST_SIDE)
        if factor > 1:
            image = image.resize((max(1, image.width // factor), max(1, image.height // factor)))
        file = io.BytesIO()
        image.save(file, format="JPEG")
        return file.getvalue()

    def is_same_picture(self, one: bytes, other: bytes) -> bool:
        """Tell whether two JPEG files look the same to the model, as pages of one colour do whatever their size."""
        return one == other or bool(np.abs(_as_seen(one) - _as_seen(other)).max() <= ALIKE)

    def send_pictures(self, prepared: Sequence[bytes]) -> Any:
        """Send JPEG files, as `prepare` makes them, in one request."""
        files = [("images", bytes(file)) for file in prepared]
        return rows_of(self._client.value.images(images=files, model=self._image_model), self._image_model)

    def send_texts(self, texts: Sequence[str]) -> Any:
        """Send texts as queries for pictures (task type ``search_query``), in one request."""
        answer = self._client.value.texts(list(texts), self._text_model, "search_query")
        return rows_of(answer, self._text_model)

    def limiter(self) -> RateLimiter:
        """Return the limiter of the service's address."""
        return self._client.value.limiter


def rows_of(answer: Any, model: str) -> Any:
    """Return the rows of an answer, given as JSON; PassingError where it has none, or those of another model."""
    if not isinstance(answer, dict) or not isinstance(answer.get("embeddings"), list):
        raise PassingError(f"the answer has no embeddings: {answer!r:.80}", nonsense=True)
    if answer.get("model") != model:
        raise PassingError(f"asked for {model}, answered by {answer.get('model')!r:.80}", nonsense=True)
    return answer["embeddings"]


def _as_seen(file: bytes) -> NDArray[np.int16]:
    """Return a picture as small as the model sees it, int16 of shape (224, 224, 3)."""
    from PIL import Image as pil

    with pil.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB").resize((224, 224), pil.Resampling.BICUBIC), np.int16)


class _Client:
    """The official client's two request functions, bound to our transport, and the limiter of its address.

    The client works out the address itself (tenant, ``ATLAS_API_PATH``), and asks ``GET /v1/user``, as it always does.
    """

    def __init__(self, key: Key, timeouts: Timeouts, limiter: RateLimiter | None) -> None:
        try:
            from nomic import embed  # it imports pandas and more: half a second that only the service's users pay
            from nomic.dataset import AtlasClass
        except RuntimeError as error:
            raise CredentialsError(f"the nomic client needs a home folder ({error}): set HOME to a folder") from None

        for name in ("image_api_request", "text_api_request"):
            if not hasattr(embed, name):
                raise MissingDependencyError(
                    f"this version of the nomic client has no {name}; pip install 'nomic>=3.9,<4'"
                )
        transport = EmbeddingTransport(key, timeouts, "embedding with Nomic's service")
        start = with_globals(AtlasClass.__init__, requests=transport)
        account = type("Account", (AtlasClass,), {"credentials": transport.login, "__init__": start})()
        ours = {"requests": transport, "atlas_class": account}
        self.images = with_globals(embed.image_api_request, **ours)
        self.texts = with_globals(embed.text_api_request, **ours)
        self.limiter = limiter or shared_limiter(account.atlas_api_path)
