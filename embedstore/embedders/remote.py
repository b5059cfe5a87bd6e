"""What an embedder behind a service needs around each request, whatever the service: a base class for all of them.

`RemoteEmbedder` turns prepared pictures and texts into requests, and what comes back into vectors or an error that the
caller's loop understands: it asks again after failures that may pass, within attempts and patience; keeps a budget and
a rate limit; says every wait; and believes no answer before it was looked at. A subclass sends one request, and raises
`transport.PassingError` where another attempt may get through, RejectedImagesError where a picture is refused
(`batches` halves the batch then), any other error where it is over; `transport.require_good` does so by HTTP status.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import unicodedata
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import ArrayLike

from embedstore.embedders.protocol import require_texts
from embedstore.embedders.rate_limit import LONGEST_BLOCK, RateLimiter
from embedstore.embedders.transport import PassingError, Timeouts
from embedstore.embedders.waits import SAY_EVERY, Notices, ending_with, moment_after
from embedstore.errors import BudgetSpentError, QueryError, RejectedImagesError, ServiceError, VectorError
from embedstore.space import Space
from embedstore.vectors import Vectors, as_vectors, normalise
from embedstore.wording import counted

if TYPE_CHECKING:
    from PIL import Image
    from tenacity import RetryCallState

NONSENSE_LIMIT: Final = 3
"""Answers that were paid for and cannot be used, after which a batch is given up."""
FIRST_PATIENCE: Final = 15.0
"""Seconds of failing, and two requests, after which a service that has never answered well is taken for dead."""
PERSON_WAITS: Final = 60.0
"""Seconds that a text waits at most, for a pause or for failures to pass: somebody is waiting for it."""
_REMEMBERED: Final = 4 << 20
"""Bytes of pictures, the newest, whose vectors no other picture may get."""


@dataclass(frozen=True)
class Retries:
    """How long to go on with a request that fails: until `attempts` were made, or `patience` is over."""

    attempts: int = 10  # requests at most, the first one included
    first_wait: float = 1.0  # seconds after the first failure; doubled after each further one, with jitter
    longest_wait: float = 30.0
    patience: float = 300.0  # seconds spent on failing; waiting for the rate limit, or as asked, does not count
    longest_pause: float = LONGEST_BLOCK  # seconds that the rate limit, or a pause asked for, may take at a time


class RemoteEmbedder(ABC):
    """Embeds through a service; keeps the `Embedder` protocol. Nothing is sent before the first picture or text.

    Parameters
    ----------
    batch_size : int, optional
        Pictures in one request.
    workers : int, optional
        Requests under way at once.
    timeouts : Timeouts, optional
        How long one request may take; for the subclass, which sends it.
    retries : Retries, optional
        How long to go on; for texts, `PERSON_WAITS` seconds at most.
    max_requests : int, optional
        A budget of requests in all, those that fail included.

    Attributes
    ----------
    requests_sent : int
        Requests so far, those that failed included.
    wrong_answers : int
        Answers so far that could not be used though the work was done, and perhaps charged for.
    delivered : bool
        Whether any answer so far was good.
    notices : Notices
        What is said of waits.
    """

    space: Space
    service: ClassVar[str] = "the service"
    texts_per_request: ClassVar[int] = 10

    def __init__(
        self,
        *,
        batch_size: int = 64,
        workers: int = 4,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
        max_requests: int | None = None,
    ) -> None:
        self.batch_size, self.workers = batch_size, workers
        self.timeouts = timeouts or Timeouts()
        self.requests_sent = self.wrong_answers = 0
        self._retries, self._max_requests = retries or Retries(), max_requests
        self._lock = threading.Lock()
        self.notices = Notices()
        self.delivered = False
        self._newest: OrderedDict[bytes, Any] = OrderedDict()

    # What a subclass says.

    @abstractmethod
    def prepare(self, image: Image.Image) -> Any:
        """Turn one RGB picture into what is sent; pure CPU work."""

    @abstractmethod
    def send_pictures(self, prepared: Sequence[Any]) -> ArrayLike:
        """Make one request; return what should be the vectors of the pictures, in order."""

    @abstractmethod
    def send_texts(self, texts: Sequence[str]) -> ArrayLike:
        """Make one request; return what should be the vectors of the texts, as queries, in order."""

    def limiter(self) -> RateLimiter | None:
        """Return what says when a request may leave; None where nothing limits them."""
        return None

    def is_same_picture(self, one: Any, other: Any) -> bool:
        """Tell whether two prepared pictures may well have the very same vector."""
        return bool(one == other)

    # What the protocol asks for.

    def embed_prepared(self, prepared: Sequence[Any]) -> Vectors:
        """Embed prepared pictures in one request; unit vectors of shape (n, dim), in order.

        Raises RejectedImagesError where the service refuses this batch for good, BudgetSpentError when `max_requests`
        have been sent, ServiceError when all attempts failed or a pause takes too long; CredentialsError and
        OfflineError.
        """
        if not len(prepared):
            return np.empty((0, self.space.dim), np.float32)
        what = f"embedding {counted(len(prepared), 'picture')}"
        return self._embed(what, prepared, self.send_pictures, self.is_same_picture, self._retries)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts as queries for pictures, `texts_per_request` to a request, in order.

        Raises QueryError for what is no list of texts, and for a text that is refused; else as `embed_prepared`.
        """
        require_texts(texts)
        step = self.texts_per_request
        lots = [list(texts[start : start + step]) for start in range(0, len(texts), step)]
        if not lots:
            return np.empty((0, self.space.dim), np.float32)
        if len(lots) == 1:
            return self._embed_lot(lots[0])
        over = threading.Event()

        def embed_lot(lot: list[str]) -> Vectors:
            with ending_with(over):
                return self._embed_lot(lot)

        with ThreadPoolExecutor(min(self.workers, len(lots))) as pool:
            try:
                return np.concatenate(list(pool.map(embed_lot, lots)))
            finally:  # what still waits after a failure or an interrupt is not wanted
                over.set()

    def _embed_lot(self, texts: list[str]) -> Vectors:
        """Embed the texts of one request."""
        retries = self._retries
        patience, pause = min(retries.patience, PERSON_WAITS), min(retries.longest_pause, PERSON_WAITS)
        limited = dataclasses.replace(retries, patience=patience, longest_pause=pause)
        what = f"embedding {counted(len(texts), 'text')}"
        try:
            return self._embed(what, texts, self.send_texts, _is_same_text, limited)
        except RejectedImagesError as error:
            raise QueryError(f"{self.service} refuses a text among {texts!r:.200}: {error}") from None

    # One request, and its repetitions.

    def _embed(
        self,
        what: str,
        inputs: Sequence[Any],
        send: Callable[[Sequence[Any]], ArrayLike],
        is_same: Callable[[Any, Any], bool],
        retries: Retries,
    ) -> Vectors:
        """Send until a good answer comes, and return its vectors; each failure that may pass is a line."""
        attempts = _Attempts(self, what, retries)

        def once() -> Vectors:
            try:
                self._require_budget()
                attempts.limiter = self.limiter()
                if attempts.limiter is not None:
                    attempts.free += attempts.limiter.acquire(retries.longest_pause)
                self._require_budget(spend=True)
                with self.notices.watching(f"an answer of {self.service}"):
                    rows = send(inputs)
                vectors = self._sound(rows, inputs, is_same)
            except PassingError as error:
                attempts.nonsense += error.nonsense
                self._note(error, attempts.limiter)
                raise
            self.delivered = True
            return vectors

        return attempts.until_done(once)

    def _note(self, error: PassingError, limiter: RateLimiter | None) -> None:
        """Count an answer that cannot be used; let nobody send during a pause that was asked for."""
        with self._lock:
            self.wrong_answers += error.nonsense
        if error.pause > LONGEST_BLOCK:
            raise ServiceError(f"{error}; it asks to wait {error.pause / 3600:.1f} hours: run again then") from None
        if error.pause > 0 and limiter is not None:
            limiter.block(error.pause, f"{error}; it asks to wait")

    def _require_budget(self, *, spend: bool = False) -> None:
        """Raise BudgetSpentError where no further request may be sent; count one with `spend`."""
        with self._lock:
            if self._max_requests is not None and self.requests_sent >= self._max_requests:
                raise BudgetSpentError(
                    f"the budget of {counted(self._max_requests, 'request')} is spent; what was embedded is kept"
                )
            self.requests_sent += spend

    # Whether an answer is believed.

    def _sound(self, rows: ArrayLike, inputs: Sequence[Any], is_same: Callable[[Any, Any], bool]) -> Vectors:
        """Return the unit vectors of an answer; PassingError where they are not one good vector for each input."""
        vectors = sound_vectors(rows, len(inputs), self.space.dim)
        with self._lock:
            known, own, doubled = self._newest, OrderedDict[bytes, Any](), 0
            for vector, item in zip(vectors, inputs, strict=True):
                name = vector.tobytes()
                other = own.get(name, known.get(name))
                if other is not None and type(other) is type(item) and not is_same(other, item):
                    doubled += 1
                own.setdefault(name, item)
            if doubled:
                raise PassingError(
                    f"{doubled} of {counted(len(inputs), 'vector')} {'is' if doubled == 1 else 'are'} that of another, "
                    "different input",
                    nonsense=True,
                )
            known.update(own)
            size = sum(map(_size, known.values()))
            while size > _REMEMBERED and len(known) > 1:
                size -= _size(known.popitem(last=False)[1])
        return vectors


def sound_vectors(rows: ArrayLike, n: int, dim: int) -> Vectors:
    """Return n unit vectors of `dim` components that an answer holds.

    Raises PassingError for another number of vectors or dimension, NaN, infinity and a vector of length zero.
    """
    try:
        count = len(rows)  # type: ignore[arg-type]
    except TypeError:
        raise PassingError(f"the answer has no embeddings: {rows!r:.80}", nonsense=True) from None
    if count != n:
        raise PassingError(f"expected {counted(n, 'vector')}, one for each input; found {count}", nonsense=True)
    try:
        return normalise(as_vectors(rows, dim, "the answer's vectors"))
    except VectorError as error:
        raise PassingError(str(error), nonsense=True) from None


@dataclass
class _Attempts:
    """The attempts at one request: how long to wait after a failure, what is said of it, and when it is enough.

    `free` are seconds that cost no patience, as somebody asked for them; `nonsense` counts answers of no use.
    """

    embedder: RemoteEmbedder
    what: str
    retries: Retries
    limiter: RateLimiter | None = None
    free: float = 0.0
    nonsense: int = 0
    started: float = dataclasses.field(default_factory=lambda: time.monotonic())

    def until_done(self, once: Callable[[], Vectors]) -> Vectors:
        """Call `once` until it raises no PassingError; ServiceError where that is given up."""
        import tenacity  # late: only for requests

        first = self.retries.first_wait
        doubling = tenacity.wait_exponential(multiplier=first, max=self.retries.longest_wait)
        waits = doubling + tenacity.wait_random(0, first)

        def wait(state: RetryCallState) -> float:
            pause = _failure(state).pause
            if pause:
                return 0.0 if self.limiter is not None else pause  # the limiter holds all processes back
            return float(waits(state))

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PassingError),
            wait=wait,
            stop=self._is_over,
            before_sleep=self._tell,
            sleep=self._sleep,
            retry_error_callback=self._give_up,
        )
        return attempts(once)

    @property
    def _spent(self) -> float:
        """Seconds of patience that are gone."""
        return time.monotonic() - self.started - self.free

    def _is_over(self, state: RetryCallState) -> bool:
        """Tell whether it is enough, also where it would be after the wait that comes next."""
        pause = _failure(state).pause
        if pause > self.retries.longest_pause:
            return True
        # A first request may hang, and the next one not.
        tried = self.embedder.delivered or state.attempt_number < 2
        patience = self.retries.patience if tried else min(self.retries.patience, FIRST_PATIENCE)
        lasted = self._spent + (0.0 if pause else state.upcoming_sleep)
        return lasted > patience or self.nonsense >= NONSENSE_LIMIT or state.attempt_number >= self.retries.attempts

    def _tell(self, state: RetryCallState) -> None:
        error = _failure(state)
        seconds = error.pause or state.upcoming_sleep
        number = f"attempt {state.attempt_number} of {self.retries.attempts}"
        line = f"{self.what}: {number}: {error}; again in {seconds:.1f} s"
        self.embedder.notices.say(str(error), line, min(seconds, SAY_EVERY))
        if error.pause and self.limiter is None:
            self.free += error.pause

    def _sleep(self, seconds: float) -> None:
        self.embedder.notices.sleep(seconds, f"{self.what} failed, and is tried again")

    def _give_up(self, state: RetryCallState) -> Vectors:
        error, count = _failure(state), counted(state.attempt_number, "request")
        long, longest = "", self.retries.longest_pause
        if error.pause > longest:
            again = moment_after(error.pause)
            long = f", as it asks to wait {error.pause:.0f} s and no more than {longest:g} s are waited here; {again}"
        raise ServiceError(f"{error}: {self.what} was given up after {count} and {self._spent:.0f} s{long}") from None


def _failure(state: RetryCallState) -> PassingError:
    """Return why the last attempt failed."""
    error = state.outcome and state.outcome.exception()
    assert isinstance(error, PassingError)
    return error


def _is_same_text(one: str, other: str) -> bool:
    """Tell whether a model may well read two texts alike: case, accents and signs are not letters that it must know."""
    return _letters(one) == _letters(other)


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text[:2000].casefold())
    return "".join(sign for sign in plain if sign.isascii() and sign.isalnum())


def _size(item: Any) -> int:
    return max(1024, len(item) if isinstance(item, bytes | str) else int(getattr(item, "nbytes", 0)))
