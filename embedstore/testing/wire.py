"""HTTP on 127.0.0.1 that can go wrong on order: requests in, replies out, faults carried out on the way.

It knows nothing of what is served; `nomic_server` gives it a function from `Request` to `Reply`.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from embedstore.testing.faults import SPOILING, Fault, Faults

HTML = "<!DOCTYPE html><html><head><title>{status}</title></head><body><h1>Bad gateway</h1></body></html>"


@dataclass
class Request:
    """What a client sent; `headers` are case-blind."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes

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
    """What the server answers.

    `content` is sent as it is if bytes, else as JSON. `settle` is called once, with whether the answer,
    unspoilt, goes out as a whole to a client that is still there.
    """

    content: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    settle: Callable[[bool], None] = lambda delivered: None

    def encoded(self) -> bytes:
        """Return the body's bytes."""
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


class StandIn:
    """An HTTP server in threads of this process; a context manager.

    Parameters
    ----------
    answer : Callable[[Request], Reply]
        Called in the connection's thread for each request that no fault refuses.
    count : Callable[[Request, Reply], None]
        Called for each request and what is to be answered, a fault's refusal too.
    faults : Faults
        What is to go wrong.
    """

    def __init__(
        self, answer: Callable[[Request], Reply], count: Callable[[Request, Reply], None], faults: Faults
    ) -> None:
        self.answer, self.count = answer, count
        self.faults = faults
        self.latency = 0.0
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: _Listener | None = None

    def start(self) -> str:
        """Listen on a free port; return the address as a URL without a slash at its end."""
        self._listener = _Listener(self)
        threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    def stop(self) -> None:
        """Stop listening, and break all connections, those that hang too."""
        self.closing.set()
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
        with self._lock:
            for connection in self._connections:
                _break(connection)

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def _closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)


class _Listener(ThreadingHTTPServer):
    """The listening socket."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away in the middle; show everything else."""
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection; kept open between requests, as the real service does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.server.stand_in._opened(self.connection)

    def finish(self) -> None:
        self.server.stand_in._closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _serve(self) -> None:
        """Answer one request, with its fault if it is to have one."""
        stand_in = self.server.stand_in
        url = urllib.parse.urlsplit(self.path)
        fault = stand_in.faults.take(url.path)
        body = self._read_body(fault.seconds if fault is not None and fault.kind == "slow-upload" else 0.0)
        query = dict(urllib.parse.parse_qsl(url.query))
        request = Request(self.command, url.path, query, self.headers, body)
        if fault is not None and fault.kind == "dropped":
            stand_in.count(request, Reply(b"", 0))
            self._reset()
            return
        reply = refused(fault) if fault is not None else None
        if reply is None:
            reply = stand_in.answer(request)
        stand_in.count(request, reply)
        stand_in.closing.wait(stand_in.latency)
        self._deliver(reply, fault)

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

    def _deliver(self, reply: Reply, fault: Fault | None) -> None:
        """Send the reply, or spoil it, and settle it."""
        closing = self.server.stand_in.closing
        kind = fault.kind if fault is not None else ""
        seconds = fault.seconds if fault is not None else 0.0
        whole = kind not in SPOILING
        if not whole:
            reply.settle(False)
        if kind in ("slow", "hung"):
            closing.wait(seconds)
        content = spoilt(reply, kind).encoded()
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
                reply.settle(False)
            return
        if whole:
            # Before the last byte, so that a client that has the answer finds it counted.
            reply.settle(True)
        self.connection.sendall(message[-1:])

    def _head(self, reply: Reply, length: int) -> bytes:
        """Return the status line and the headers."""
        reason = self.responses.get(reply.status, ("", ""))[0]
        headers = {"Content-Type": reply.content_type, "Content-Length": str(length), **reply.headers}
        lines = [
            f"HTTP/1.1 {reply.status} {reason}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def _drip(self, message: bytes, seconds: float) -> None:
        """Send in twenty pieces over `seconds`, or at once."""
        step = len(message) // 20 + 1 if seconds else len(message)
        for start in range(0, len(message), step):
            self.connection.sendall(message[start : start + step])
            if seconds and self.server.stand_in.closing.wait(seconds / 20):
                raise ConnectionAbortedError("the server is stopping")

    def _client_gone(self) -> bool:
        """Return whether the client has closed its side."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def _reset(self) -> None:
        """Close with a TCP reset, so that the client sees a broken connection and no orderly end."""
        self.close_connection = True
        self.server.stand_in._closed(self.connection)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def refused(fault: Fault) -> Reply | None:
    """Return the answer of a fault that keeps the work from being done, or None."""
    if fault.kind in ("429", "500", "503"):
        after = fault.retry_after
        headers = {"Retry-After": f"{after:g}"} if after is not None and fault.kind != "500" else {}
        details = {"429": "Rate limit exceeded", "500": "Internal error", "503": "Service unavailable"}
        return Reply({"detail": details[fault.kind]}, int(fault.kind), headers)
    if fault.kind == "text-500":
        return Reply(b"Internal Server Error", 500, content_type="text/plain")
    if fault.kind.startswith("html-"):
        status = int(fault.kind.removeprefix("html-"))
        return Reply(HTML.format(status=status).encode(), status, content_type="text/html")
    return None


def spoilt(reply: Reply, kind: str) -> Reply:
    """Return the reply with its vectors, or the name of their model, spoilt; others as they are."""
    content = reply.content
    if not isinstance(content, dict) or "embeddings" not in content or not content["embeddings"]:
        return reply
    if kind == "wrong-count":
        return Reply({**content, "embeddings": content["embeddings"][:-1]}, reply.status)
    if kind == "wrong-model":
        return Reply({**content, "model": "another-model-v0"}, reply.status)
    if kind == "nan":
        first, *others = content["embeddings"]
        return Reply({**content, "embeddings": [[float("nan"), *first[1:]], *others]}, reply.status)
    return reply


def _break(connection: socket.socket) -> None:
    """End a connection that a thread may be reading from."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it ended by itself
