"""An S3 service on this machine: moto's, in a process of its own, with a hand on what goes wrong.

`S3Server` starts the process and is what a test holds: it makes buckets, orders faults, and reads what was asked for.
Run as a program, this module is the process itself. moto answers several requests at once, and its conditional put then
is none: it looks for the object, and puts it afterwards, whatever another thread has put between (seen with moto 5.2.5,
eight writers and threads switched as often as here: 2 of 40 objects were made by two of them). Here one lock stands
around the whole of moto, so that a request is carried out before the next begins; only bodies and answers travel side
by side. That this makes the conditional put a real one is tested in storage/test_bucket.py.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote

KEY, SECRET = "AKIDOFTHETESTS000000", "sEcReTofTheTests+/0000000000000000000000"
KINDS = ("create", "put", "get", "head", "list", "delete", "start", "piece", "complete", "abort", "bucket", "other")
"""What a request is for: ``create`` is a conditional put; ``start``, ``piece`` and ``complete`` put a large object."""
_CONTROL = "/_control/"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with requests of a kind.

    Attributes
    ----------
    what : str
        ``lost``: it is carried out, and the connection breaks without an answer. ``dropped``: the same, not carried
        out. ``status``: it is answered with `status`, not carried out. ``cut``: half of the answer's body arrives.
        ``hold``: it is carried out, and the answer waits for `S3Server.release`. ``hold-before``: it waits before it is
        carried out. ``slow``: it waits `seconds` before it is carried out. ``pages``: a list comes two names at a time.
    kind : str
        One of `KINDS`; "" for any.
    name : str
        A regular expression that is searched for in the name of the object, or the prefix that is listed.
    nth : int
        The first such request that it befalls, counted from one.
    times : int
        How many from there on.
    status : str
        The code and its name in the answer of ``status``: ``"503 SlowDown"``.
    seconds : float
        For ``slow``.
    """

    what: str
    kind: str = ""
    name: str = ""
    nth: int = 1
    times: int = 1
    status: str = "503 SlowDown"
    seconds: float = 0.0


@dataclass(frozen=True)
class Request:
    """One request: its kind, the object's name (with its bucket), bytes sent and answered, status, and its fault."""

    kind: str
    name: str
    sent: int
    answered: int
    status: int
    fault: str = ""


class S3Server:
    """The service, running while the context is open."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __enter__(self) -> S3Server:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # all it has is in its memory; it would also end with whoever holds its standard input
        self._process.communicate()

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return the variables that lead a process here, and nowhere else."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            "EMBEDSTORE_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }

    def bucket(self) -> str:
        """Make a bucket that no other test has, and return its URL."""
        name = f"bucket-{next(self._numbers)}"
        self._send("PUT", f"/{name}")
        return f"s3://{name}"

    def fail(self, what: str, kind: str = "", name: str = "", **details: Any) -> None:
        """Order a fault; see `Fault`. Requests are counted from now on."""
        fault = Fault(what, kind, name, **details)
        assert kind in ("", *KINDS), kind
        self._send("POST", f"{_CONTROL}fail", json.dumps(asdict(fault)).encode())

    def requests(self, kind: str = "") -> list[Request]:
        """Return what was asked for and answered since the last `reset`, in the order of the answers."""
        found = [Request(**one) for one in json.loads(self._send("GET", f"{_CONTROL}requests"))]
        return [one for one in found if kind in ("", one.kind)]

    def counts(self) -> Counter[str]:
        """Return how many requests there were of each kind."""
        return Counter(one.kind for one in self.requests())

    def reset(self) -> None:
        """Forget faults and requests, and let go of those that are held."""
        self._send("POST", f"{_CONTROL}reset")

    def held(self) -> int:
        """Return how many requests are held now."""
        return int(self._send("GET", f"{_CONTROL}held"))

    def wait_held(self, number: int = 1) -> None:
        """Wait until so many requests are held."""
        for _ in range(3000):
            if self.held() >= number:
                return
            time.sleep(0.01)
        raise TimeoutError(f"{self.held()} requests are held after 30 s, where {number} were awaited")

    def release(self) -> None:
        """Let go of the requests that are held; the faults stand."""
        self._send("POST", f"{_CONTROL}release")

    def _send(self, method: str, path: str, body: bytes = b"") -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Authorization": f"Credential={KEY}/"})
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status == 200, content
        return content


class _Faulty:
    """moto as a WSGI application, with faults before and behind it."""

    def __init__(self, moto: Any) -> None:
        self._moto = moto
        self._whole = threading.Lock()
        self._noting = threading.Lock()
        self._freed = threading.Condition()
        self._rounds, self._held = 0, 0
        self._faults: list[tuple[Fault, Iterator[int]]] = []
        self._log: list[Request] = []

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        path = environ["PATH_INFO"].encode("latin-1").decode()
        if path.startswith(_CONTROL):
            answer = self._control(path.removeprefix(_CONTROL), body)
            start("200 OK", [("Content-Length", str(len(answer)))])
            return [answer]
        kind, name = _meaning(environ, path)
        fault = self._fault(kind, name)
        if fault and fault.what in ("hold-before", "slow"):
            self._hold(fault.seconds)
        if fault and fault.what == "pages":
            environ["QUERY_STRING"] += "&max-keys=2"
        if fault and fault.what in ("status", "dropped"):
            status, headers, content = _refusal(fault.status)
        elif f"Credential={KEY}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            status, headers, content = _refusal("403 InvalidAccessKeyId")
        else:
            status, headers, content = self._carry_out(environ)
        with self._noting:
            what = fault.what if fault else ""
            self._log.append(Request(kind, name, len(body), len(content), int(status[:3]), what))
        if fault and fault.what == "hold":
            self._hold()
        if fault and fault.what in ("lost", "dropped"):
            _hang_up(environ)
        start(status, headers)
        return _cut(environ, content) if fault and fault.what == "cut" else [content]

    def _carry_out(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        said: list[Any] = []
        try:
            with self._whole:
                content = b"".join(self._moto(environ, lambda *words: said.append(words)))
        except KeyError:  # moto's answer to a piece of an upload that was given up meanwhile
            return _refusal("404 NoSuchUpload")
        status, headers = said[0][:2]
        if environ["REQUEST_METHOD"] != "HEAD":
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers.append(("Content-Length", str(len(content))))
        return status, headers, content

    def _control(self, word: str, body: bytes) -> bytes:
        with self._noting:
            if word == "fail":
                self._faults.append((Fault(**json.loads(body)), itertools.count(1)))
            elif word == "reset":
                self._faults, self._log = [], []
            if word in ("reset", "release"):
                with self._freed:
                    self._rounds += 1
                    self._held = 0
                    self._freed.notify_all()
            if word == "requests":
                return json.dumps([asdict(request) for request in self._log]).encode()
            return str(self._held).encode()

    def _fault(self, kind: str, name: str) -> Fault | None:
        """Return the first fault whose turn it is; each counts the requests that it could befall."""
        with self._noting:
            found = None
            for fault, numbers in self._faults:
                if fault.kind in ("", kind) and re.search(fault.name, name):
                    number = next(numbers)
                    if found is None and fault.nth <= number < fault.nth + fault.times:
                        found = fault
            return found

    def _hold(self, seconds: float = 0.0) -> None:
        if seconds:
            time.sleep(seconds)
            return
        with self._freed:
            self._held += 1
            now = self._rounds
            if not self._freed.wait_for(lambda: self._rounds != now, timeout=60):
                self._held -= 1


def _meaning(environ: dict[str, Any], path: str) -> tuple[str, str]:
    """Return the kind of a request, and what it is about: bucket and object."""
    method, query = environ["REQUEST_METHOD"], parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    name = path.strip("/")
    if "/" not in name:
        prefix = unquote(query.get("prefix", [""])[0])
        kind = "list" if method == "GET" else "delete" if "delete" in query else "bucket"
        return kind, f"{name}/{prefix}"
    if method == "POST":
        return "start" if "uploads" in query else "complete", name
    if "uploadId" in query:
        return {"PUT": "piece", "DELETE": "abort"}.get(method, "other"), name
    if method == "PUT":
        return "create" if environ.get("HTTP_IF_NONE_MATCH") == "*" else "put", name
    return {"GET": "get", "HEAD": "head", "DELETE": "delete"}.get(method, "other"), name


def _refusal(status: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return an error as S3 words it: it quotes the key's name, and of a signature all that went into it."""
    number, code = status.split()
    content = (
        f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>refused</Message>"
        f"<AWSAccessKeyId>{KEY}</AWSAccessKeyId><StringToSign>{SECRET}</StringToSign></Error>"
    ).encode()
    return f"{number} {code}", [("Content-Length", str(len(content)))], content


def _hang_up(environ: dict[str, Any]) -> None:
    import socket

    with contextlib.suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionError("hung up on purpose")


def _cut(environ: dict[str, Any], content: bytes) -> Iterator[bytes]:
    yield content[: len(content) // 2]
    _hang_up(environ)


def _serve() -> None:
    """Answer on a free port of this machine, which is printed, until standard input ends."""
    from moto.server import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept

        def log_request(self, *words: object) -> None:
            """Say nothing: a test reads `requests`."""

        def log_error(self, *words: object) -> None:
            """Say nothing: what goes wrong was ordered."""

    sys.setswitchinterval(1e-5)  # what two threads can do to each other they shall do
    app = _Faulty(create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    _serve()
