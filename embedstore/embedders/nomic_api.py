"""The `nomic` embedder: pictures and texts to vectors by Nomic's service, over the official client.

The client's own functions make the requests, one for each batch that it is given. Around them this module keeps
what they do not: the rate limit, the budget and retries. Timeouts and the key are left to `nomic_transport`, what an
answer means to `nomic_answers`, batching and saving to `ingest`.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from embedstore.credentials import Key, require_key
from embedstore.embedders.nomic_answers import DIM, CheckedTransport, PassingError, checked, parsed
from embedstore.embedders.nomic_transport import (
    Timeouts,
    official_account,
    with_globals,
)
from embedstore.embedders.protocol import require_rgb
from embedstore.embedders.rate_limit import RateLimiter, state_dir
from embedstore.errors import (
    BudgetSpentError,
    MissingDependencyError,
    ModelNotFoundError,
    QueryError,
    RejectedImagesError,
    ServiceError,
)
from embedstore.space import Space

if TYPE_CHECKING:
    from PIL import Image

MODELS: Final = {"nomic-embed-v1.5": ("nomic-embed-vision-v1.5", "nomic-embed-text-v1.5")}
"""Name of a space's model -> the service's names of its picture and text models."""

SPACE: Final = Space("nomic-embed-v1.5", "nomic-api", precision="float32", preprocessing="jpeg512-1", dim=DIM)
"""Where the vectors lie."""

REQUESTS, WINDOW = 1200, 301.0
"""The service's rate limit: requests in five minutes, and one second, as they arrive later than they leave."""

TEXTS_PER_REQUEST: Final = 10
LARGEST_SIDE: Final = 512
NONSENSE_LIMIT: Final = 3
"""Answers that were paid for and cannot be used, after which a batch is given up."""


@dataclass(frozen=True)
class Retries:
    """How long to go on with a request that fails.

    Attributes
    ----------
    attempts : int
        Requests at most, the first one included.
    first_wait, longest_wait : float
        Seconds to wait after the first failure, and at most; it doubles in between, with jitter.
    patience : float
        Seconds spent on failing, after which no further attempt is made. Waiting for the rate limit, or as long as
        ``Retry-After`` asks, does not count.
    """

    attempts: int = 10
    first_wait: float = 1.0
    longest_wait: float = 30.0
    patience: float = 300.0


class NomicAPIEmbedder:
    """Embeds through Nomic's service; keeps the `Embedder` protocol.

    Nothing is looked up or sent before the first picture or text.

    Parameters
    ----------
    model : str
        A name among `MODELS`.
    key : Key | str | None
        The API key; None looks it up (see `credentials.find_key`) when it is first needed.
    batch_size : int
        Pictures in one request; each batch given to `embed_prepared` is one request, whatever its size.
    workers : int
        Requests under way at once.
    timeouts : Timeouts
        Of each request.
    retries : Retries
        Of each batch.
    max_requests : int | None
        A budget: embedding requests that may be sent in all, those that fail included.
    limiter : RateLimiter | None
        None: 1,200 requests in five minutes, shared by all processes of this user on this machine.

    Attributes
    ----------
    requests_sent : int
        Embedding requests sent so far, those that failed included.
    requests_per_second : float
        What the rate limit allows in the long run.
    """

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
        self.space = SPACE
        self.batch_size, self.workers = batch_size, workers
        self.requests_sent = 0
        self._image_model, self._text_model = MODELS[model]
        self._given_key = key
        self._timeouts = timeouts if timeouts is not None else Timeouts()
        self._retries = retries if retries is not None else Retries()
        self._max_requests = max_requests
        self._limiter = limiter
        self._lock = threading.Lock()
        self._client: _Client | None = None

    def prepare(self, image: Image.Image) -> bytes:
        """Turn one RGB picture into the JPEG file that is sent.

        The same bytes as the client makes: a picture larger than 512 pixels is reduced by a whole factor, so it
        may keep up to 1,023; the quality is Pillow's default, 75. Other than the client's, the reduced picture
        always has at least one pixel each way.

        Raises
        ------
        ImageError
            Not an RGB picture.
        """
        require_rgb(image)
        factor = max(image.width // LARGEST_SIDE, image.height // LARGEST_SIDE)
        if factor > 1:
            image = image.resize((max(1, image.width // factor), max(1, image.height // factor)))
        file = io.BytesIO()
        image.save(file, format="JPEG")
        return file.getvalue()

    def embed_prepared(self, prepared: Sequence[bytes]) -> NDArray[np.float32]:
        """Embed JPEG files in one request.

        Parameters
        ----------
        prepared : Sequence[bytes]
            What `prepare` returned.

        Returns
        -------
        ndarray of shape (n, 768), float32
            Unit vectors, in the order given.

        Raises
        ------
        RejectedImagesError
            The service refuses this batch for good (400, 413, 422).
        CredentialsError
            No key, or one that is refused.
        BudgetSpentError
            `max_requests` have been sent.
        OfflineError
            The network is switched off.
        ServiceError
            All attempts failed.
        """
        if not prepared:
            return np.empty((0, DIM), np.float32)
        files = [("images", bytes(file)) for file in prepared]
        what = f"embedding {len(files)} pictures"
        return self._embed(what, self._image_model, len(files), lambda client: client.images(files))

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as queries for pictures (task type ``search_query``), ten to a request.

        Returns
        -------
        ndarray of shape (n, 768), float32
            Unit vectors, in the order given.

        Raises
        ------
        QueryError
            Not a list of texts, or the service refuses a text.
        CredentialsError, BudgetSpentError, OfflineError, ServiceError
            As of `embed_prepared`.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise QueryError(f"expected a list of texts, found {type(texts).__name__}: {texts!r:.80}")
        batches = [list(texts[i : i + TEXTS_PER_REQUEST]) for i in range(0, len(texts), TEXTS_PER_REQUEST)]
        if not batches:
            return np.empty((0, DIM), np.float32)
        with ThreadPoolExecutor(min(self.workers, len(batches))) as pool:
            return np.concatenate(list(pool.map(self._embed_text_batch, batches)))

    def _embed_text_batch(self, texts: list[str]) -> NDArray[np.float32]:
        """Embed the texts of one request."""
        what = f"embedding {len(texts)} texts"
        try:
            return self._embed(what, self._text_model, len(texts), lambda client: client.texts(texts))
        except RejectedImagesError as error:
            raise QueryError(f"Nomic's service refuses a text among {texts!r:.200}: {error}") from None

    def _embed(self, what: str, model: str, n: int, send: Callable[[_Client], Any]) -> NDArray[np.float32]:
        """Send until a good answer comes, and return its vectors."""
        import stamina

        started, free, nonsense = time.monotonic(), 0.0, 0
        retries = self._retries
        for attempt in stamina.retry_context(
            on=PassingError,
            attempts=retries.attempts,
            timeout=None,
            wait_initial=retries.first_wait,
            wait_max=retries.longest_wait,
            wait_jitter=retries.first_wait,
        ):
            with attempt:
                try:
                    client = self._connected()
                    self._spend()
                    free += client.limiter.acquire()
                    return checked(send(client), model, n)
                except PassingError as error:
                    nonsense += error.nonsense
                    spent = time.monotonic() - started - free
                    if spent > retries.patience or nonsense >= NONSENSE_LIMIT:
                        raise ServiceError(
                            f"{what}: given up after {attempt.num} requests and {spent:.0f} s: {error}"
                        ) from None
                    if attempt.num == retries.attempts:
                        raise ServiceError(
                            f"{what}: given up after {attempt.num} requests: {error}"
                        ) from None
                    raise
        raise AssertionError("stamina ends with a return or an error")

    def _connected(self) -> _Client:
        """Return the client, made when first needed."""
        with self._lock:
            if self._client is None:
                given = self._given_key
                key = given if isinstance(given, Key) else require_key(given)
                self._client = _Client(
                    key, self._timeouts, self._limiter, self._image_model, self._text_model
                )
            return self._client

    def _spend(self) -> None:
        """Count a request against the budget."""
        with self._lock:
            if self._max_requests is not None and self.requests_sent >= self._max_requests:
                raise BudgetSpentError(
                    f"the budget of {self._max_requests} requests is spent; what was embedded is kept: "
                    "run the same command again to go on"
                )
            self.requests_sent += 1


class _Client:
    """The official client's two request functions, bound to our transport, and the limiter of its address."""

    def __init__(
        self, key: Key, timeouts: Timeouts, limiter: RateLimiter | None, image_model: str, text_model: str
    ) -> None:
        from nomic import embed  # it imports pandas and more: half a second that only the service's users pay

        for name in ("image_api_request", "text_api_request"):
            if not hasattr(embed, name):
                raise MissingDependencyError(
                    f"this version of the nomic client has no {name}; pip install 'nomic>=3.9,<4'"
                )
        transport = CheckedTransport(key, timeouts, "embedding with Nomic's service")
        account = official_account(transport)
        ours = {"requests": transport, "atlas_class": account}
        self._images = with_globals(embed.image_api_request, **ours)
        self._texts = with_globals(embed.text_api_request, **ours)
        self._image_model, self._text_model = image_model, text_model
        self.limiter = limiter if limiter is not None else shared_limiter(account.atlas_api_path)
        transport.limiter = self.limiter

    def images(self, files: list[tuple[str, bytes]]) -> Any:
        """Send one request with pictures; return the answer's JSON."""
        return parsed(lambda: self._images(images=files, model=self._image_model))

    def texts(self, texts: list[str]) -> Any:
        """Send one request with texts; return the answer's JSON."""
        return parsed(lambda: self._texts(texts, self._text_model, "search_query"))


def shared_limiter(address: str) -> RateLimiter:
    """Return the rate limiter that all processes of this user share for the service at `address`."""
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    return RateLimiter(REQUESTS, WINDOW, state_dir() / f"nomic-requests-{name}.json")
