"""One GET of a URL -> its bytes in a file, from a public address, within a size and a time.

Addresses that are private, of this machine or of its own network, are refused unless the settings allow them; so are
the places that an answer leads on to. A name is resolved once, and the address that was checked is the one connected
to. The work is done on a thread of its own, which is left behind when time is up or nobody waits any more: a server
that drips, or does not answer at all, holds up nobody. Asking again is left to `web`.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import socket
import ssl
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import IO, Any

from embedstore.errors import ImageError
from embedstore.images import turns
from embedstore.settings import PRIVATE_URLS, URL_SECONDS, private_urls_are_allowed

SILENCE = 30.0
"""Seconds that a server may be silent."""

_IN_MEMORY = 1 << 20  # a larger download waits in a temporary file until it is complete
_PIECE = 1 << 16
_POLL_SECONDS = 0.1


class Fetch:
    """One request under way, with these headers, of which `unredirected` are sent to the first server only."""

    def __init__(self, url: str, headers: Mapping[str, str], unredirected: Mapping[str, str]) -> None:
        self._request = urllib.request.Request(url, headers=dict(headers))
        for name, value in unredirected.items():
            self._request.add_unredirected_header(name, value)
        self._sockets: list[socket.socket] = []
        self._done, self._left = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._body: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  (closed by `run`)
        self._size = 0

    def run(self, deadline: float, stopped: threading.Event | None) -> bytes:
        """Return the body.

        Raises ImageError for a place that may not be asked, or too large a body; OSError where the server cannot be
        reached, refuses, breaks off, or is not done at the `deadline` (of `time.monotonic`); `turns.StoppedError`.
        """
        threading.Thread(target=self._work, name="embedstore-download", daemon=True).start()
        try:
            while not self._done.wait(_POLL_SECONDS):
                if stopped is not None and stopped.is_set():
                    raise turns.StoppedError("the download was stopped")
                if time.monotonic() > deadline:
                    raise OSError(
                        f"the download was not complete in time, {self._size:,} bytes had come; "
                        f"{URL_SECONDS} is how many seconds a picture may take"
                    )
        except BaseException:
            self._leave()
            raise
        if self._error is not None:
            raise self._error
        with self._body as body:
            turns.hold_file(self._size)
            body.seek(0)
            return body.read()

    def connect(self, host: str, port: int, timeout: float | None, via_proxy: bool) -> socket.socket:
        """Connect to one of a host's addresses that may be asked."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if not (via_proxy or private_urls_are_allowed()):
            public = [entry for entry in found if _is_public(str(entry[4][0]))]
            if not public:
                raise _private(host, str(found[0][4][0]))
            found = public
        error: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in found:
            connection = socket.socket(family, kind, protocol)
            self._sockets.append(connection)
            try:
                connection.settimeout(timeout)
                connection.connect(address)
                self._sockets.append(connection.dup())  # TLS takes the first one over
                return connection
            except OSError as raised:
                connection.close()
                error = raised
            if self._left.is_set():
                break
        raise error

    def _work(self) -> None:
        try:
            self._receive()
        except BaseException as error:  # noqa: BLE001  (raised again by the thread that waits)
            self._error = error
        finally:
            for connection in self._sockets:
                connection.close()
            if self._error is not None or self._left.is_set():
                self._body.close()
            self._done.set()

    def _receive(self) -> None:
        try:
            with _opener(self).open(self._request, timeout=SILENCE) as response:
                promised = response.headers.get("Content-Length", "")
                turns.refuse_large(int(promised) if promised.isdigit() else 0)
                while (piece := response.read1(_PIECE)) and not self._left.is_set():
                    self._size += len(piece)
                    turns.refuse_large(self._size)
                    self._body.write(piece)
        except urllib.error.HTTPError as error:
            error.close()
            raise
        except urllib.error.URLError as error:
            raise error.reason if isinstance(error.reason, Exception) else error from None
        except (http.client.HTTPException, ValueError) as error:
            if isinstance(error, ImageError):
                raise
            raise OSError(f"the server's answer cannot be used: {error!r}") from error
        if promised.isdigit() and self._size < int(promised):
            raise OSError(f"the download stopped after {self._size:,} of {promised} bytes")

    def _leave(self) -> None:
        """Make the thread end soon; nobody waits for it."""
        self._left.set()
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _opener(fetch: Fetch) -> urllib.request.OpenerDirector:
    """Make what follows redirects and obeys the environment's proxies, over connections of a fetch."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Handler(fetch),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens http and https URLs over connections of a fetch."""

    def __init__(self, fetch: Fetch) -> None:
        super().__init__()
        self._fetch = fetch

    def http_open(self, request: urllib.request.Request) -> Any:
        """Open an http URL."""
        return self.do_open(self._connections(http.client.HTTPConnection, request), request)

    def https_open(self, request: urllib.request.Request) -> Any:
        """Open an https URL."""
        make = functools.partial(http.client.HTTPSConnection, context=_tls())
        return self.do_open(self._connections(make, request), request)

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def _connections(self, make: Any, request: urllib.request.Request) -> Any:
        """Return a maker of connections. A proxy may be private, but where it resolves names none is to be literal."""
        via_proxy = request.has_proxy() or getattr(request, "_tunnel_host", None) is not None
        if via_proxy and not private_urls_are_allowed():
            _require_public_name(urllib.parse.unquote(urllib.parse.urlsplit(request.full_url).hostname or ""))

        def connection(host: str, **options: Any) -> Any:
            def connect(address: tuple[str, int], timeout: float | None, *_: Any) -> socket.socket:
                return self._fetch.connect(address[0], address[1], timeout, via_proxy)

            made = make(host, **options)
            made._create_connection = connect
            return made

        return connection


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https, and from https to nothing else."""

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Follow, or raise ImageError."""
        place = urllib.parse.urljoin(req.full_url, headers.get("location") or headers.get("uri") or "")
        before, scheme = req.type, urllib.parse.urlsplit(place).scheme.lower()
        if scheme != before and (before, scheme) != ("http", "https"):
            raise ImageError(f"the server leads on from {before} to {scheme}, where no picture is fetched from")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _is_public(address: str) -> bool:
    """Return whether an address belongs to nobody's own network."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if inner is None and found in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(str(inner))
    return found.is_global and not found.is_multicast


def _require_public_name(host: str) -> None:
    """Refuse a host that says itself that it is private."""
    public = True
    with contextlib.suppress(ValueError, OSError):  # a name
        public = _is_public(host if ":" in host else socket.inet_ntoa(socket.inet_aton(host)))
    if not public or host.lower().rstrip(".").rpartition(".")[2] == "localhost":
        raise _private(host, host)


def _private(host: str, address: str) -> ImageError:
    where = host if host == address else f"{host} ({address})"
    return ImageError(
        f"{where} is no public address; if you trust what names it, use --allow-private-urls or {PRIVATE_URLS}=1"
    )
