"""Requests of strangers -> refused before anything is read: Host, Origin, token, size; and clients too slow to finish.

A page of another site may send requests to this machine (and be led here under its own name), a program on it may hold
connections open. What passes is left to `app`. Nothing here is ever logged, so that no token is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DATA = "/api/v1/"
"""What lies below needs the token, but for `OPEN`."""
OPEN = "/api/v1/openapi.json"
PICTURES = "/api/v1/picture"
MOST_BYTES, MOST_PICTURE_BYTES = 1 << 20, 20 << 20
"""Of a request's body, and of one that is a picture."""

_HEADERS = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class TooLargeError(Exception):
    """A request's body is larger than it may be: the application is to answer with `STATUS`, and read no further."""

    STATUS = 413


class Guards:
    """Lets those requests through to an application that come from its own page, or from who has the token.

    Parameters
    ----------
    app : ASGI application
    token : str
    hosts : Hosts
        Under which names the server is reached.
    """

    def __init__(self, app: Application, token: str, hosts: Hosts) -> None:
        self._app, self._token, self._hosts = app, token.encode(), hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on with a body that is counted and answers that have our headers."""
        if scope["type"] != "http":
            return
        path, headers = scope["path"], dict(scope["headers"])
        is_data = path.startswith(DATA) and path != OPEN

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = b"no-store" if is_data else b"no-cache"
                message["headers"] = [*message.get("headers", []), *_HEADERS, (b"cache-control", kept)]
            await send(message)

        most = MOST_PICTURE_BYTES if path == PICTURES else MOST_BYTES
        refusal = self._refusal(scope["headers"], headers, is_data, most)
        if refusal is not None:
            await refuse(answer, *refusal)
            return
        await self._app(scope, _counted(receive, most), answer)

    def _refusal(
        self, every: Iterable[tuple[bytes, bytes]], headers: dict[bytes, bytes], is_data: bool, most: int
    ) -> tuple[int, str, str] | None:
        """Return status, type and message of why a request is refused; None where it is not."""
        names = [name for name, _ in every]
        host = headers.get(b"host", b"").decode("latin-1")
        origins = [value.decode("latin-1") for name, value in every if name == b"origin"]
        if names.count(b"host") != 1 or not self._hosts.has(host):
            return 403, "ForeignHost", f"this server is not {host!r}; open the address that it printed"
        if not all(self._hosts.is_origin(origin) for origin in origins):
            return 403, "ForeignOrigin", "a page of another site asks; only the page of this server may"
        if headers.get(b"sec-fetch-site", b"none") == b"cross-site":
            return 403, "ForeignOrigin", "a page of another site asks; open the address that the server printed"
        if is_data and not self._has_token(headers.get(b"authorization", b"")):
            return 401, "TokenNeeded", "the token is missing or wrong; open the address that the server printed, whole"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > most:
            return _too_large(most)
        return None

    def _has_token(self, header: bytes) -> bool:
        kind, _, given = header.partition(b" ")
        return hmac.compare_digest(given.strip(), self._token) and kind.lower() == b"bearer"


class Hosts:
    """The names under which a server is reached, with its port.

    Parameters
    ----------
    host : str
        The address that it listens on. For one that stands for all of them (``0.0.0.0``) any address in numbers will
        do, and the name of this machine: who leads a browser here under another name has a name, not a number.
    port : int
    """

    def __init__(self, host: str, port: int) -> None:
        self._port = port
        names = {"127.0.0.1", "localhost", "[::1]", _bracketed(host)}
        self._any = is_any(host)
        if self._any:
            names.add(socket.gethostname())
        self._names = {f"{name}:{port}".lower() for name in names}
        if port == 80:
            self._names |= {name.lower() for name in names}

    def has(self, host: str) -> bool:
        """Tell whether a request's Host is one of ours."""
        if host.lower() in self._names:
            return True
        if not self._any:
            return False
        name, _, port = host.rpartition(":")
        with contextlib.suppress(ValueError):
            return int(port) == self._port and bool(ipaddress.ip_address(name.strip("[]")))
        return False

    def is_origin(self, origin: str) -> bool:
        """Tell whether a request's Origin is the page of this server."""
        return origin.startswith("http://") and self.has(origin.removeprefix("http://"))


def is_any(host: str) -> bool:
    """Tell whether an address stands for all addresses of this machine."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return False


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine alone."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


async def refuse(send: Send, status: int, kind: str, message: str) -> None:
    """Answer with an error, and end the connection: what is still to come of the request is not read."""
    body = json.dumps({"error": {"type": kind, "message": message}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _too_large(most: int) -> tuple[int, str, str]:
    why = f"the request has more than {most:,} bytes, which is the most here; send less"
    return TooLargeError.STATUS, "TooLarge", why


def _counted(receive: Receive, most: int) -> Receive:
    """Return what receives a body, and raises `TooLargeError` once it has more bytes than it may."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise TooLargeError(_too_large(most)[2])
        return message

    return counted


def patient(seconds: float = 10.0, most: int = 512) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol with an end of its patience, which it has not by itself.

    Parameters
    ----------
    seconds : float
        A connection is closed that has not sent a whole head after so long, nor its whole body after as long again, nor
        taken what it asked for after six times as long. It may be silent between requests for as long as uvicorn says.
    most : int
        So many connections are open at once: of more the one goes that has been silent, or has kept its request
        unfinished, for longest; where all wait for answers the new one goes.
    """
    waiting: dict[Patient, None] = {}
    every: set[Patient] = set()

    class Patient(H11Protocol):
        """A connection that is closed when its client takes too long."""

        _end: asyncio.TimerHandle | None = None
        _taking: asyncio.TimerHandle | None = None
        _had_head = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.access_log = False  # also where somebody else has given uvicorn's logger a handler
            every.add(self)
            if len(every) > most:
                slowest = next(iter(waiting), self)
                slowest._drop()
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            every.discard(self)
            if self._taking is not None:
                self._taking.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            state = self.conn.their_state
            if state is h11.IDLE:
                if self._end is None:  # the first byte of another request
                    self._wait()
            elif state is not h11.SEND_BODY:
                self._forget()
            elif not self._had_head:
                self._forget()
                self._had_head = True
                self._wait()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.is_closing():
                return
            if self.conn.their_state is h11.SEND_BODY:
                self._wait()
            elif self.conn.their_state is h11.IDLE:
                waiting[self] = None  # it may be silent, and may go for others

        def pause_writing(self) -> None:
            super().pause_writing()
            self._taking = self.loop.call_later(6 * seconds, self._drop)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._taking is not None:
                self._taking.cancel()

        def _wait(self) -> None:
            self._cancel()
            waiting[self] = None
            self._end = self.loop.call_later(seconds, self._drop)

        def _forget(self) -> None:
            waiting.pop(self, None)
            self._had_head = False
            self._cancel()

        def _cancel(self) -> None:
            if self._end is not None:
                self._end.cancel()
                self._end = None

        def _drop(self) -> None:
            self._forget()
            every.discard(self)
            if self.transport is not None:
                self.transport.abort()

    return Patient
