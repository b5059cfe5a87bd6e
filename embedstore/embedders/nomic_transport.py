"""Requests to Nomic's services from inside the official client's functions, and what their answers mean.

The client sends without any timeout, keeps its key in every header it builds, takes any answer with status 200 for
good, and sleeps and retries on its own. It looks `requests` up as a global name: `with_globals` makes a copy of one of
its functions that finds a `Transport` under that name instead. So the client's code runs as it is, its modules stay
untouched, and each answer is judged before the client sees it (`EmbeddingTransport`), its vectors after (`vectors_of`).
How often to try again is left to `nomic_api`; what Atlas's answers mean, to `atlas.answers`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import ipaddress
import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from embedstore.embedders.rate_limit import LONGEST_BLOCK, RateLimiter
from embedstore.errors import CredentialsError, RejectedImagesError, ServiceError, VectorError
from embedstore.settings import Key, key_places, require_network
from embedstore.vectors import Vectors, as_vectors, normalise
from embedstore.wording import counted

if TYPE_CHECKING:
    import requests

DIM: Final = 768


@dataclass(frozen=True)
class Timeouts:
    """How long one request may take, in seconds.

    `total` counts from the first byte sent to the last received, and is noticed when a piece comes, or after `read` at
    the latest.
    """

    connect: float = 10.0  # until the connection stands
    read: float = 60.0  # between two pieces, sent or received
    total: float = 180.0

    def __str__(self) -> str:
        return f"{self.connect:g} s for the connection, {self.read:g} s of silence and {self.total:g} s in all"


class PassingError(ServiceError):
    """A failure that another attempt may not meet.

    `nonsense`: the service did the work and it is lost; `pause`: so many seconds it asks to wait.
    """

    def __init__(self, message: str, *, nonsense: bool = False, pause: float = 0.0) -> None:
        super().__init__(message)
        self.nonsense, self.pause = nonsense, pause


class NoAnswerError(PassingError):
    """The request brought no whole answer: no connection, a broken one, or none in time."""


class NoSuchHostError(ServiceError):
    """The name of the service cannot be looked up, and no request has got through so far: there is no network."""


@dataclass(frozen=True)
class Answer:
    """A whole answer; what the client uses of `requests.Response`."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """Return the body as JSON, read once; ValueError if it is none."""
        return self._json

    @functools.cached_property
    def _json(self) -> Any:
        return json.loads(self.content)

    def excerpt(self) -> str:
        """Return the beginning of the body, on one line."""
        text = " ".join(self.text.split())
        return text if len(text) <= 300 else text[:300] + "…"

    def close(self) -> None:
        """Nothing is open any more."""


class Transport:
    """Sends one request, once, within its timeouts, with the key added at the last moment.

    May be used by several threads at once; each keeps a connection of its own open. The key goes into the
    ``Authorization`` header, and out of every error; `purpose` says what wants the network when it is switched off.
    """

    def __init__(self, key: Key, timeouts: Timeouts, purpose: str) -> None:
        self.key, self.timeouts, self.purpose = key, timeouts, purpose
        self._thread = threading.local()
        self._reached = False  # whether any request was answered yet

    @property
    def login(self) -> dict[str, Any]:
        """What the client gets to see in the place of its file: the deployment, and no key."""
        return {**self.key.tenant, "token": "kept-by-embedstore", "expires": None}

    def get(self, url: str, **arguments: Any) -> Answer:
        """Send a GET; takes what `requests.get` takes."""
        return self.request("GET", url, **arguments)

    def post(self, url: str, **arguments: Any) -> Answer:
        """Send a POST; takes what `requests.post` takes."""
        return self.request("POST", url, **arguments)

    def request(self, method: str, url: str, **arguments: Any) -> Answer:
        """Send one request and read its answer whole, whatever its status.

        Raises NoAnswerError for no connection, a broken one or a timeout, NoSuchHostError where the first look-up of
        the host finds none, and OfflineError where the network is switched off and `url` is not on this machine.
        """
        import requests  # it takes long to import, and most commands send nothing
        import urllib3

        local = is_loopback(url)
        if not local:
            require_network(self.purpose)
        limits = self.timeouts
        deadline = time.monotonic() + limits.total
        session = self._session(local)
        try:
            between = (limits.connect, min(limits.read, limits.total))
            with session.request(method, url, timeout=between, stream=True, **arguments) as response:
                answer = Answer(response.status_code, response.headers, _read_within(response, deadline))
                self._reached = True
                return answer
        except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
            raise self._no_answer(f"no answer within {limits}", url, error) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._no_answer("the connection failed", url, error) from None

    def _no_answer(self, what: str, url: str, error: Exception) -> NoAnswerError:
        """Return the error for a request without an answer, free of the key.

        Raises NoSuchHostError for a host that is not known, unless it was reached before: then the network is down for
        a while, and the work of hours may go on.
        """
        where, cause = urlsplit(url).netloc.rpartition("@")[2], _innermost(error)
        said = getattr(cause, "strerror", None) or " ".join(str(cause).split()) or type(cause).__name__
        why = self.key.scrub(said)
        if isinstance(cause, socket.gaierror) and not self._reached:
            raise NoSuchHostError(
                f"{where}: this name cannot be looked up ({why}), so there is no network, or none without a proxy "
                "(HTTPS_PROXY). Nothing was sent; try again when there is one"
            )
        return NoAnswerError(f"{where}: {what} ({why})")

    def _session(self, local: bool) -> requests.Session:
        """Return this thread's session."""
        session: requests.Session | None = getattr(self._thread, "session", None)
        if session is None:
            session = _new_session(self.key, self.timeouts.total)
            self._thread.session = session
        session.trust_env = not local  # a proxy for the network has no business between us and this machine
        return session


class _Body(io.BytesIO):
    """A body that is sent in pieces, each with the connect timeout to itself, all within the deadline.

    Bytes would be sent by one `sendall`, which has to end within the *connect* timeout: too short for ten
    megabytes on a slow line.
    """

    def __init__(self, content: bytes, deadline: float) -> None:
        super().__init__(content)
        self._deadline = deadline

    def read(self, size: int | None = -1) -> bytes:
        if time.monotonic() > self._deadline:
            raise TimeoutError("the request could not be sent in time")
        return super().read(size)


def _new_session(key: Key, total: float) -> requests.Session:
    """Return a session that adds the key and sends bodies in pieces, within `total` seconds each."""
    import requests
    from requests.adapters import HTTPAdapter

    class PiecewiseAdapter(HTTPAdapter):  # type: ignore[misc]
        def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(request.body, str | bytes):
                content = request.body.encode() if isinstance(request.body, str) else request.body
                request.body = _Body(content, time.monotonic() + total)
                request._body_position = 0  # from where a redirect sends it again
            return super().send(request, *arguments, **options)

    def with_key(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {key.reveal()}"
        return request

    session = requests.Session()
    session.auth = with_key
    for scheme in ("http://", "https://"):
        session.mount(scheme, PiecewiseAdapter(pool_connections=1, pool_maxsize=1, max_retries=0))
    return session


def _innermost(error: BaseException) -> BaseException:
    """Return the error that the libraries have wrapped, some of them in the words of others."""
    for _ in range(10):
        around = (getattr(error, "reason", None), *error.args, error.__cause__)
        inner = next((one for one in around if isinstance(one, BaseException)), None)
        if inner is None:
            break
        error = inner
    return error


def _read_within(response: Any, deadline: float) -> bytes:
    """Read a body as its pieces come, so that a server that drips cannot hold us past the deadline."""
    pieces = []
    while piece := response.raw.read1(65536, decode_content=True):
        pieces.append(piece)
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not come to an end in time")
    return b"".join(pieces)


def is_loopback(url: str) -> bool:
    """Return whether `url` leads to this machine, by its literal host; no name is looked up."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def with_globals(function: Any, **names: Any) -> Any:
    """Return a copy of `function` that finds `names` among its globals; the function itself stays as it is."""
    visible = {**function.__globals__, **names}
    copy = FunctionType(function.__code__, visible, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


class EmbeddingTransport(Transport):
    """Raises for every status but 200, so that the client's own sleeping and retrying never begins."""

    limiter: RateLimiter | None = None

    def request(self, method: str, url: str, **arguments: Any) -> Answer:
        """Send one request; return its answer if that is JSON with status 200.

        Raises PassingError where another attempt may get through (408, 425, 429, 5xx, no answer, a page in place of
        JSON), RejectedImagesError where what was sent is refused for good (400, 413, 422), CredentialsError where the
        key is (401, 403), and ServiceError for anything else, also where ``Retry-After`` asks for more than an hour.
        """
        answer = super().request(method, url, **arguments)
        status = answer.status_code
        if status == 200:
            try:
                answer.json()
            except ValueError as error:
                raise PassingError(f"status 200, but no JSON ({error}): a proxy's page?", nonsense=True) from None
            return answer
        said = f"Nomic's service answered {status}: {self.key.scrub(answer.excerpt())}"
        if status in (401, 403):
            raise CredentialsError(f"the key from {self.key.source} was refused; {key_places()}. {said}")
        if status in (408, 425, 429) or status >= 500:
            pause = retry_after(answer.headers.get("Retry-After"))
            if pause > LONGEST_BLOCK:
                raise ServiceError(f"{said}; it asks to wait {pause / 3600:.1f} hours: run again then")
            if pause > 0 and self.limiter is not None:
                self.limiter.block(pause)  # the requests of all processes
            raise PassingError(said, pause=pause)
        if status in (400, 413, 422) and not _blames_the_request(answer):
            raise RejectedImagesError(said)
        raise ServiceError(f"{said}; check ATLAS_API_PATH ({os.environ.get('ATLAS_API_PATH', 'not set')})")


def retry_after(value: str | None) -> float:
    """Return the seconds that a ``Retry-After`` header asks to wait: a number or a date; 0 if it is neither."""
    if value is None:
        return 0.0
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def vectors_of(answer: Any, model: str, n: int) -> Vectors:
    """Return the n unit vectors of an answer, given as JSON.

    Raises PassingError for another model, number of vectors or dimension, NaN, infinity and a vector of length zero.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("embeddings"), list):
        raise PassingError(f"the answer has no embeddings: {answer!r:.80}", nonsense=True)
    if answer.get("model") != model:
        raise PassingError(f"asked for {model}, answered by {answer.get('model')!r:.80}", nonsense=True)
    count = len(answer["embeddings"])
    if count != n:
        raise PassingError(f"expected {counted(n, 'vector')}, one for each input; found {count}", nonsense=True)
    try:
        return normalise(as_vectors(answer["embeddings"], DIM, "the answer's vectors"))
    except VectorError as error:
        raise PassingError(str(error), nonsense=True) from None


def _blames_the_request(answer: Answer) -> bool:
    """Return whether a refusal lies in a parameter of the request, so that halving the batch is of no use."""
    try:
        detail = answer.json()["detail"]
        return any(set(entry["loc"]) & {"model", "task_type", "dimensionality"} for entry in detail)
    except (ValueError, KeyError, TypeError):
        return False  # no list of fields: then it is the content
