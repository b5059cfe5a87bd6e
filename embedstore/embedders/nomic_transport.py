"""What stands in the place of `requests` inside the official client's functions: timeouts, the key, honest errors.

The client sends without any timeout, keeps its key in every header it builds, and sleeps and retries on its own.
It looks `requests` up as a global name. `with_globals` makes a copy of one of its functions that finds a
`Transport` under that name instead: the client's code runs as it is, its modules stay untouched, and other users
of the client in this process notice nothing. What is sent and what an answer means is left to `nomic_api`.
"""

from __future__ import annotations

import io
import ipaddress
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from embedstore.credentials import Key
from embedstore.errors import ServiceError
from embedstore.offline import require_network

if TYPE_CHECKING:
    import requests

PLACEHOLDER = "kept-by-embedstore"
"""What the client gets to see in the place of the key."""

_PIECE = 65536


@dataclass(frozen=True)
class Timeouts:
    """How long one request may take, in seconds.

    Attributes
    ----------
    connect : float
        Until the connection stands.
    read : float
        Between two pieces, sent or received.
    total : float
        From the first byte sent to the last received; noticed when a piece comes, or after `read` at the latest.
    """

    connect: float = 10.0
    read: float = 60.0
    total: float = 180.0


class NoAnswerError(ServiceError):
    """The request brought no whole answer: no connection, a broken one, or none in time."""


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
        """Return the body as JSON; ValueError if it is none."""
        return json.loads(self.content)

    def close(self) -> None:
        """Nothing is open any more."""


class Transport:
    """Sends one request, once, within its timeouts, with the key added at the last moment.

    May be used by several threads at once; each keeps a connection of its own open.

    Parameters
    ----------
    key : Key
        Goes into the ``Authorization`` header, and out of every error.
    timeouts : Timeouts
        Of each request.
    purpose : str
        What wants the network, for the error when it is switched off.
    """

    def __init__(self, key: Key, timeouts: Timeouts, purpose: str) -> None:
        self.key, self.timeouts, self.purpose = key, timeouts, purpose
        self._thread = threading.local()

    def get(self, url: str, **arguments: Any) -> Answer:
        """Send a GET; takes what `requests.get` takes."""
        return self.request("GET", url, **arguments)

    def post(self, url: str, **arguments: Any) -> Answer:
        """Send a POST; takes what `requests.post` takes."""
        return self.request("POST", url, **arguments)

    def request(self, method: str, url: str, **arguments: Any) -> Answer:
        """Send one request and read its answer whole, whatever its status.

        Raises
        ------
        NoAnswerError
            No connection, a broken one, or a timeout.
        OfflineError
            The network is switched off and `url` is not on this machine.
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
            response = session.request(
                method,
                url,
                timeout=(limits.connect, min(limits.read, limits.total)),
                stream=True,
                **arguments,
            )
            with response:
                return Answer(response.status_code, response.headers, _read_within(response, deadline))
        except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
            raise self._no_answer(f"no answer within {limits}", url, error) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._no_answer("the connection failed", url, error) from None

    def _no_answer(self, what: str, url: str, error: Exception) -> NoAnswerError:
        """Return the error for a request without an answer, free of the key."""
        where = urlsplit(url).netloc.rpartition("@")[2]
        return NoAnswerError(self.key.scrub(f"{where}: {what} ({type(error).__name__}: {error})"))

    def _session(self, local: bool) -> requests.Session:
        """Return this thread's session."""
        session: requests.Session | None = getattr(self._thread, "session", None)
        if session is None:
            session = _new_session(self.key, self.timeouts.total)
            self._thread.session = session
        session.trust_env = not local  # a proxy for the network has no business between us and this machine
        return session


class _Bearer:
    """Puts the key into the header of a request that is about to leave."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        return request


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
            return super().send(request, *arguments, **options)

    session = requests.Session()
    session.auth = _Bearer(key)
    for scheme in ("http://", "https://"):
        session.mount(scheme, PiecewiseAdapter(pool_connections=1, pool_maxsize=1, max_retries=0))
    return session


def _read_within(response: Any, deadline: float) -> bytes:
    """Read a body as its pieces come, so that a server that drips cannot hold us past the deadline."""
    pieces = []
    while piece := response.raw.read1(_PIECE, decode_content=True):
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
    """Return a copy of `function` that finds `names` among its globals; the function itself stays as it is.

    Examples
    --------
    >>> def area(r):
    ...     return pi * r * r
    >>> with_globals(area, pi=3)(2)
    12
    """
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def official_account(transport: Transport) -> Any:
    """Return the client's own account object for the transport's key, made without its file.

    The client works out the address (tenant, ``ATLAS_API_PATH``) and asks ``GET /v1/user``, as it always does.
    """
    from nomic.dataset import AtlasClass

    login = {**transport.key.tenant, "token": PLACEHOLDER, "expires": None}

    class Account(AtlasClass):  # type: ignore[misc]
        """The client's class with its credentials given, not read from the disk."""

        credentials = login
        __init__ = with_globals(AtlasClass.__init__, requests=transport)

    return Account()
