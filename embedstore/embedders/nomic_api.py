"""The `nomic` embedder: pictures and texts to vectors by Nomic's service, over the official client.

The client's own functions make the requests, one for each batch that it is given. Around them this module keeps
what they do not: the budget and retries. How many requests may leave in a while is said in `rate_limit`; timeouts,
the key and what an answer means are left to `nomic_transport`, batching and saving to `protocol` and `ingest`.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from embedstore.embedders.nomic_transport import (
    DIM,
    EmbeddingTransport,
    PassingError,
    Timeouts,
    vectors_of,
    with_globals,
)
from embedstore.embedders.protocol import Lazy, State, require_rgb, require_texts
from embedstore.embedders.rate_limit import REQUESTS, WINDOW, RateLimiter, shared_limiter
from embedstore.errors import (
    BudgetSpentError,
    CredentialsError,
    MissingDependencyError,
    ModelNotFoundError,
    QueryError,
    RejectedImagesError,
    ServiceError,
)
from embedstore.settings import Key, find_key, require_key
from embedstore.space import Space
from embedstore.vectors import Vectors
from embedstore.wording import counted

if TYPE_CHECKING:
    from PIL import Image

_log = logging.getLogger("embedstore")

MODELS: Final = {"nomic-embed-v1.5": ("nomic-embed-vision-v1.5", "nomic-embed-text-v1.5")}
"""Name of a space's model -> the service's names of its picture and text models."""

TEXTS_PER_REQUEST: Final = 10
LARGEST_SIDE: Final = 512
NONSENSE_LIMIT: Final = 3
"""Answers that were paid for and cannot be used, after which a batch is given up."""


@dataclass(frozen=True)
class Retries:
    """How long to go on with a request that fails: until `attempts` were made, or `patience` is over."""

    attempts: int = 10  # requests at most, the first one included
    first_wait: float = 1.0  # seconds after the first failure; doubled after each further one, with jitter
    longest_wait: float = 30.0
    patience: float = 300.0  # seconds spent on failing; waiting for the rate limit, or as asked, does not count


class NomicAPIEmbedder:
    """Embeds through Nomic's service; keeps the `Embedder` protocol.

    Nothing is looked up or sent before the first picture or text: without a `key` it is then found as
    `settings.find_key` says. Each call of `embed_prepared` is one request; `timeouts` are those of a request, `retries`
    those of a batch. `max_requests` is a budget of embedding requests in all, those that fail included; `requests_sent`
    counts them. The default `limiter` is shared by all processes of this user on this machine; `requests_per_second` is
    what it allows in the long run.
    """

    summary = "Nomic Embed Vision and Text v1.5 through Nomic's service"
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
        self.batch_size, self.workers = batch_size, workers
        self.requests_sent = 0
        self._image_model, self._text_model = MODELS[model]
        self._retries, self._max_requests = retries or Retries(), max_requests
        self._lock = threading.Lock()
        self._client = Lazy(lambda: _Client(require_key(key), timeouts or Timeouts(), limiter))

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

    def embed_prepared(self, prepared: Sequence[bytes]) -> Vectors:
        """Embed JPEG files, as `prepare` makes them, in one request; unit vectors of shape (n, 768), in order.

        Raises RejectedImagesError where the service refuses this batch for good (400, 413, 422), BudgetSpentError when
        `max_requests` have been sent, ServiceError when all attempts failed; CredentialsError and OfflineError.
        """
        if not prepared:
            return np.empty((0, DIM), np.float32)
        files = [("images", bytes(file)) for file in prepared]
        what, model = f"embedding {counted(len(files), 'picture')}", self._image_model
        return self._embed(what, model, len(files), lambda client: client.images(images=files, model=model))

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts as queries for pictures (task type ``search_query``), ten to a request, in order.

        Raises QueryError for what is no list of texts, and for a text that is refused; else as `embed_prepared`.
        """
        require_texts(texts)
        batches = [list(texts[i : i + TEXTS_PER_REQUEST]) for i in range(0, len(texts), TEXTS_PER_REQUEST)]
        if not batches:
            return np.empty((0, DIM), np.float32)
        with ThreadPoolExecutor(min(self.workers, len(batches))) as pool:
            return np.concatenate(list(pool.map(self._embed_text_batch, batches)))

    def _embed_text_batch(self, texts: list[str]) -> Vectors:
        """Embed the texts of one request."""
        what, model = f"embedding {len(texts)} texts", self._text_model
        try:
            return self._embed(what, model, len(texts), lambda client: client.texts(texts, model, "search_query"))
        except RejectedImagesError as error:
            raise QueryError(f"Nomic's service refuses a text among {texts!r:.200}: {error}") from None

    def _embed(self, what: str, model: str, n: int, send: Callable[[_Client], Any]) -> Vectors:
        """Send until a good answer comes, and return its vectors; each failure that may pass is a line of the log."""
        import tenacity  # late: only for requests

        def tell(state: tenacity.RetryCallState) -> None:
            error, wait = state.outcome and state.outcome.exception(), state.next_action and state.next_action.sleep
            number = state.attempt_number
            _log.warning("%s: attempt %d of %d: %s; again in %.1f s", what, number, retries.attempts, error, wait)

        started, free, nonsense = time.monotonic(), 0.0, 0
        retries = self._retries
        doubling = tenacity.wait_exponential(multiplier=retries.first_wait, max=retries.longest_wait)
        waits = doubling + tenacity.wait_random(0, retries.first_wait)
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PassingError), wait=waits, before_sleep=tell, reraise=True
        )
        for attempt in attempts:
            with attempt:
                try:
                    client = self._client.value
                    self._spend()
                    free += client.limiter.acquire()
                    return vectors_of(send(client), model, n)
                except PassingError as error:
                    nonsense += error.nonsense
                    spent, number = time.monotonic() - started - free, attempt.retry_state.attempt_number
                    enough = spent > retries.patience or nonsense >= NONSENSE_LIMIT
                    if not enough and number < retries.attempts:
                        raise
                    seconds = f" and {spent:.0f} s" if enough else ""
                    raise ServiceError(
                        f"{what}: given up after {counted(number, 'request')}{seconds}: {error}"
                    ) from None
        raise AssertionError("tenacity ends with a return or an error")

    def _spend(self) -> None:
        """Count a request against the budget."""
        with self._lock:
            if self._max_requests is not None and self.requests_sent >= self._max_requests:
                raise BudgetSpentError(
                    f"the budget of {counted(self._max_requests, 'request')} is spent; what was embedded is kept: "
                    "run the same command again to go on"
                )
            self.requests_sent += 1


class _Client:
    """The official client's two request functions, bound to our transport, and the limiter of its address.

    The client works out the address itself (tenant, ``ATLAS_API_PATH``), and asks ``GET /v1/user``, as it always does.
    """

    def __init__(self, key: Key, timeouts: Timeouts, limiter: RateLimiter | None) -> None:
        from nomic import embed  # it imports pandas and more: half a second that only the service's users pay
        from nomic.dataset import AtlasClass

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
        self.limiter = transport.limiter = limiter or shared_limiter(account.atlas_api_path)
