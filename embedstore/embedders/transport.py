"""HTTP to a service, once for each request, within timeouts; and what its status means: good, passing, refused.

Nothing is tried again here, and no answer's content is believed: that is `remote`'s business. A key is added to the
request at the last moment, and taken out of every error. Redirects are followed with the body, and without the key
where they lead to another host.
"""

from __future__ import annotations

import contextlib
import functools
import io
import ipaddress
import json
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from embedstore.errors import CredentialsError, OfflineError, PlanLimitError, RejectedImagesError, ServiceError
from embedstore.settings import Key, require_network

if TYPE_CHECKING:
    import requests

_PLAN = re.compile(
    r"\b(plans?|quotas?|billing|upgrade|subscription|payment|credits?|organi[sz]ation limit|usage limit|trial)\b", re.I
)
"""Words of a 403 that is about the account's plan; any other is about the key."""


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
        except OfflineError:  # a redirect led to the network
            raise
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
            session = _new_session(self.key, self.timeouts.total, self.purpose)
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


def _new_session(key: Key, total: float, purpose: str) -> requests.Session:
    """Return a session that adds the key and sends bodies in pieces, within `total` seconds each."""
    import requests
    from requests.adapters import HTTPAdapter

    class PiecewiseAdapter(HTTPAdapter):  # type: ignore[misc]
        def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
            body = request.body.getvalue() if isinstance(request.body, _Body) else request.body
            if isinstance(body, str | bytes):  # anew for each hop of a redirect, which would send an empty rest
                request.body = _Body(body.encode() if isinstance(body, str) else body, time.monotonic() + total)
            return super().send(request, *arguments, **options)

    class Session(requests.Session):  # type: ignore[misc]
        def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
            """Let the key go to no other host; and no password of a netrc file in its place."""
            if not is_loopback(prepared_request.url):
                require_network(purpose)
            if self.should_strip_auth(response.request.url, prepared_request.url):
                prepared_request.headers.pop("Authorization", None)

    def with_key(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {key.reveal()}"
        return request

    session = Session()
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


def require_good(answer: Answer, key: Key, service: str = "the service", *, places: str = "", advice: str = "") -> None:
    """Return for an answer that is JSON with status 200; else raise what it means for a batch.

    `service` is its name in messages; `places` says where another key may stand, `advice` what to look at otherwise.

    Raises PassingError where another attempt may get through (408, 425, 429, 5xx, a page in place of JSON),
    RejectedImagesError where what was sent is refused for good (400, 413, 422), CredentialsError where the key is (401,
    403), PlanLimitError where the account's plan is at its end (402, and a 403 that says so), else ServiceError.
    """
    status = answer.status_code
    if status == 200:
        try:
            answer.json()
        except ValueError as error:
            raise PassingError(f"status 200, but no JSON ({error}): a proxy's page?", nonsense=True) from None
        return
    said = f"{service} answered {status}: {key.scrub(answer.excerpt())}"
    if status == 402 or (status == 403 and _PLAN.search(answer.text[:2000])):
        what = "a payment is due" if status == 402 else "its plan does not allow this, or what it allows is used up"
        raise PlanLimitError(
            f"the key from {key.source} is good, but {what}; see to the account it belongs to, or use another key. "
            f"What was embedded before is kept. {said}"
        )
    if status in (401, 403):
        raise CredentialsError(f"the key from {key.source} was refused{places and f'; {places}'}. {said}")
    if status in (408, 425, 429) or status >= 500:
        raise PassingError(said, pause=retry_after(answer.headers.get("Retry-After")))
    if status in (400, 413, 422) and not _blames_the_request(answer):
        raise RejectedImagesError(said)
    raise ServiceError(said + (advice and f"; {advice}"))


def _blames_the_request(answer: Answer) -> bool:
    """Return whether a refusal lies in a parameter of the request, so that halving the batch is of no use."""
    try:
        detail = answer.json()["detail"]
        return any(set(entry["loc"]) & {"model", "task_type", "dimensionality"} for entry in detail)
    except (ValueError, KeyError, TypeError):
        return False  # no list of fields: then it is the content
