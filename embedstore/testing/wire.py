"""HTTP on 127.0.0.1 that can go wrong on order: requests in, replies out, faults carried out on the way.

It knows nothing of what is served: `nomic_server` inherits from `Service` and makes a `Reply` of each `Request`. Which
fault a request meets is left to `faults`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
import threading
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from embedstore.testing.faults import SPOILING, Fault, Faults


@dataclass
class Request:
    """What a client sent; `headers` are case-blind."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes

    @property
    def route(self) -> str:
        """Method and path, such as ``GET /v1/user``."""
        return f"{self.method} {self.path}"

    def json(self) -> Any:
        """Return the body as JSON; ValueError if it is none."""
        return json.loads(self.body)

    def form(self) -> list[tuple[str, bytes]]:
        """Return the fields of a form, of either encoding, in their order; ValueError if it is no form."""
        kind = self.headers.get_content_type()
        if kind == "application/x-www-form-urlencoded":
            pairs = urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True)
            return [(name, value.encode()) for name, value in pairs]
        boundary = self.headers.get_param("boundary")
        if kind != "multipart/form-data" or not isinstance(boundary, str):
            raise ValueError(f"expected a form, found {kind}")
        parts = self.body.split(b"--" + boundary.encode())[1:-1]
        return [_field(part) for part in parts]


def _field(part: bytes) -> tuple[str, bytes]:
    """Read one part of a multipart form: its name and its content."""
    head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    message = Message()
    for line in head.decode().split("\r\n"):
        name, _, value = line.partition(":")
        message[name] = value.strip()
    return str(message.get_param("name", header="content-disposition")), content.removesuffix(b"\r\n")


@dataclass
class Reply:
    """What the server answers: `content`, sent as it is if bytes, else as JSON; and what was embedded for it."""

    content: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    texts: Sequence[str] = ()
    images: Sequence[str] = ()
    """By `features.content_of`."""


class Refused(Exception):
    """The answer to a request that cannot be served: a status, and under ``detail`` what the real server says."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(f"{status}: {detail}")
        self.detail = detail
        self.reply = Reply({"detail": detail}, status)


def invalid(name: str, text: str, kind: str) -> dict[str, Any]:
    """Return one entry of the ``detail`` list of a 422, about the body's field `name`."""
    return {"loc": ["body", name], "msg": text, "type": kind}


class Service(ABC):
    """An HTTP server in threads of this process while it is open; a subclass says what it answers."""

    def __init__(self, latency: float) -> None:
        self.url = ""
        self.latency = latency
        self.faults = Faults()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self._listener = _Listener(self)
        threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._listener.server_address[1]}"
        return self

    def __exit__(self, *error: object) -> None:
        """Stop listening, and break all connections, those that hang too."""
        self._closing.set()
        self._listener.shutdown()
        self._listener.server_close()
        for connection in self._listener.connections.copy():  # in one step: threads still take theirs away
            with contextlib.suppress(OSError):  # it ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    @abstractmethod
    def _answer(self, request: Request) -> Reply:
        """Answer a request that no fault refuses; called in its connection's thread, as the others are."""

    @abstractmethod
    def _count(self, request: Request, reply: Reply) -> None:
        """Take note of a request and of what is to be answered, a fault's refusal too."""

    @abstractmethod
    def _settle(self, reply: Reply, delivered: bool) -> None:
        """Take note, once, of whether a reply, unspoilt, goes out as a whole to a client that is still there."""


class _Listener(ThreadingHTTPServer):
    """The listening socket, and the connections that are open."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service: Service) -> None:
        self.service = service
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away in the middle; show everything else."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection; kept open between requests, as the real service does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _serve(self) -> None:
        """Answer one request, with its fault if it is to have one."""
        service = self.server.service
        url = urllib.parse.urlsplit(self.path)
        fault = service.faults.take(url.path)
        kind, seconds = ("", 0.0) if fault is None else (fault.kind, fault.seconds)
        body = self._read_body(seconds if kind == "slow-upload" else 0.0)
        request = Request(self.command, url.path, dict(urllib.parse.parse_qsl(url.query)), self.headers, body)
        if kind == "dropped":
            service._count(request, Reply(b"", 0))
            self._reset()
            return
        reply = (_refusal(fault, url.path) if fault is not None else None) or service._answer(request)
        service._count(request, reply)
        service._closing.wait(service.latency)
        self._deliver(reply, kind, seconds)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _read_body(self, seconds: float) -> bytes:
        """Read the body, spread over `seconds`."""
        length = int(self.headers.get("Content-Length", 0))
        if not seconds:
            return self.rfile.read(length)
        slices = []
        for start in range(0, length, length // 20 + 1):
            time.sleep(seconds / 20)
            slices.append(self.rfile.read(min(length // 20 + 1, length - start)))
        return b"".join(slices)

    def _deliver(self, reply: Reply, kind: str, seconds: float) -> None:
        """Send the reply, or spoil it, and settle it."""
        service = self.server.service
        whole = kind not in SPOILING or (kind == "duplicate-vectors" and _spoilt(reply.content, kind) == reply.content)
        if not whole:
            service._settle(reply, False)
        if kind in ("slow", "hung"):
            service._closing.wait(seconds)
        content = _spoilt(reply.content, kind)
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        message = self._head(reply, len(content)) + content
        try:
            if kind == "hung" or self._client_gone():
                raise ConnectionAbortedError("nobody is to get this answer")
            if kind == "reset":
                self.connection.sendall(message[: len(message) - len(content) // 2])
                self._reset()
                return
            self._drip(message[:-1], seconds if kind == "drip" else 0.0)
        except OSError:
            self.close_connection = True
            if whole:
                service._settle(reply, False)
            return
        if whole:
            # Before the last byte, so that a client that has the answer finds it counted.
            service._settle(reply, True)
        self.connection.sendall(message[-1:])

    def _head(self, reply: Reply, length: int) -> bytes:
        """Return the status line and the headers."""
        reason = self.responses.get(reply.status, ("", ""))[0]
        headers = {"Content-Type": reply.content_type, "Content-Length": str(length), **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    def _drip(self, message: bytes, seconds: float) -> None:
        """Send in twenty pieces over `seconds`, or at once."""
        step = len(message) // 20 + 1 if seconds else len(message)
        for start in range(0, len(message), step):
            self.connection.sendall(message[start : start + step])
            if seconds and self.server.service._closing.wait(seconds / 20):
                raise ConnectionAbortedError("the server is stopping")

    def _client_gone(self) -> bool:
        """Return whether the client has closed its side."""
        with selectors.DefaultSelector() as waiting:  # `select` takes no number above 1,023
            waiting.register(self.connection, selectors.EVENT_READ)
            readable = waiting.select(0)
        try:
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def _reset(self) -> None:
        """Close with a TCP reset, so that the client sees a broken connection and no orderly end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


_REFUSALS = {
    "402": "Payment required: add a payment method to go on",
    "403": "You do not have access to this resource",
    "plan-403": "Your plan has no embedding tokens left: upgrade to go on",
    "429": "Rate limit exceeded",
    "500": "Internal error",
    "503": "Service unavailable",
}


def _refusal(fault: Fault, path: str) -> Reply | None:
    """Return the answer of a fault that keeps the work from being done, or None."""
    status = int(fault.kind[-3:]) if fault.kind[-3:].isdigit() else 0
    if fault.kind in _REFUSALS:
        after = fault.retry_after if fault.kind in ("429", "503") else None
        headers = {} if after is None else {"Retry-After": _moment(after) if fault.as_date else f"{after:g}"}
        return Reply({"detail": _REFUSALS[fault.kind]}, status, headers)
    if fault.kind.startswith("redirect-"):
        return Reply(b"", status, {"Location": path})
    if fault.kind == "text-500":
        return Reply(b"Internal Server Error", 500, content_type="text/plain")
    if fault.kind.startswith("html-"):
        page = f"<!DOCTYPE html><html><head><title>{status}</title></head><body><h1>Bad gateway</h1></body></html>"
        return Reply(page.encode(), status, content_type="text/html")
    return None


def _moment(seconds: float) -> str:
    """Return the moment after so many seconds, as HTTP writes a date."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def _spoilt(content: Any, kind: str) -> Any:
    """Return an answer with its vectors, or the name of their model, spoilt; others as they are."""
    if not isinstance(content, dict) or not content.get("embeddings"):
        return content
    first, *others = vectors = content["embeddings"]
    spoilt = {
        "wrong-count": {"embeddings": vectors[:-1]},
        "extra-vector": {"embeddings": [*vectors, first]},
        "wrong-dim": {"embeddings": [vector[:-1] for vector in vectors]},
        "duplicate-vectors": {"embeddings": [first, first, *others[1:]][: len(vectors)]},
        "wrong-model": {"model": "another-model-v0"},
        "nan": {"embeddings": [[float("nan"), *first[1:]], *others]},
    }
    return content | spoilt.get(kind, {})
