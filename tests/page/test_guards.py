"""What strangers send is refused, whole and in time, while the server goes on answering its own page."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import resource
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedstore.page.guards import CSP, MOST_BYTES, MOST_PICTURE_BYTES, Hosts, is_any, is_loopback
from embedstore.page.pictures import SmallPictures
from embedstore.page.server import PageServer
from embedstore.page.session import Session
from embedstore.store import EmbedStore

PATIENCE = 1.0


@pytest.fixture(scope="module")
def served(photo_store: EmbedStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """A server with little patience."""
    session = Session(photo_store, SmallPictures(tmp_path_factory.mktemp("small")))
    with PageServer(session, patience=PATIENCE).running() as running:
        yield running


def ask(
    server: PageServer, method: str = "POST", path: str = "/api/v1/info", body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send a request with the token, and these headers instead of what is usual; return the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    sent = {"Authorization": f"Bearer {server.token}"} | {name.replace("_", "-"): one for name, one in headers.items()}
    connection.putrequest(method, path, skip_host="Host" in sent)
    for name, value in sent.items():
        if value:
            connection.putheader(name, value)
    if "Content-Length" not in sent:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, content
    connection.close()
    return found


def kind_of(body: bytes) -> str:
    return str(json.loads(body)["error"]["type"])


def test_the_own_page_is_answered(served: PageServer) -> None:
    """With the token, from each of the names of this machine, with and without an Origin."""
    assert ask(served)[0] == 200
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        assert ask(served, Host=f"{name}:{served.port}")[0] == 200
    assert ask(served, Origin=f"http://127.0.0.1:{served.port}", Sec_Fetch_Site="same-origin")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil:{port}"]
)
def test_a_foreign_host_is_refused(served: PageServer, host: str) -> None:
    """A name that somebody else has led here, or another port: also for what holds no data."""
    for path in ("/api/v1/info", "/api", "/"):
        status, _, body = ask(served, "GET", path, Host=host.format(port=served.port))
        assert (status, kind_of(body)) == (403, "ForeignHost")


def test_two_hosts_are_refused(served: PageServer) -> None:
    """Which of them is meant nobody knows: h11 refuses that, or we do."""
    with socket.create_connection(("127.0.0.1", served.port), 10) as sent:
        own = f"Host: 127.0.0.1:{served.port}\r\n"
        sent.sendall(f"GET /api HTTP/1.1\r\n{own}Host: evil.example\r\n\r\n".encode())
        assert sent.recv(100).split()[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "http://localhost"]
)
def test_a_foreign_origin_is_refused(served: PageServer, origin: str) -> None:
    """A page of another site, or of another server of this machine."""
    status, _, body = ask(served, Origin=origin.format(port=served.port))
    assert (status, kind_of(body)) == (403, "ForeignOrigin")


def test_of_two_origins_none_may_be_foreign(served: PageServer) -> None:
    """Neither the first nor the last."""
    own, foreign = f"Origin: http://127.0.0.1:{served.port}\r\n", "Origin: http://evil.example\r\n"
    for origins in (own + foreign, foreign + own):
        with socket.create_connection(("127.0.0.1", served.port), 10) as sent:
            sent.sendall(f"GET /api HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n{origins}\r\n".encode())
            assert sent.recv(100).split()[1] == b"403"


def test_a_request_across_sites_is_refused(served: PageServer) -> None:
    """Also where a browser sends no Origin, as for a picture."""
    status, _, body = ask(served, "GET", "/api/v1/thumbnail/1/1", Sec_Fetch_Site="cross-site")
    assert (status, kind_of(body)) == (403, "ForeignOrigin")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer x", "Basic {token}", "{token}", "Bearer {token}x", "Bearer ü"]
)
def test_without_the_token_nothing_is_told(served: PageServer, header: str) -> None:
    """Of all that reads or writes; nor does a refusal tell the token."""
    for path in ("/api/v1/info", "/api/v1/thumbnail/1/1", "/api/v1/nothing"):
        status, _, body = ask(served, path=path, Authorization=header.format(token=served.token))
        assert (status, kind_of(body)) == (401, "TokenNeeded")
        assert served.token.encode() not in body


def test_what_holds_no_data_needs_no_token(served: PageServer) -> None:
    """The page itself, and what the calls are."""
    for path in ("/api", "/api/v1/openapi.json"):
        assert ask(served, "GET", path, Authorization="")[0] == 200


def test_headers_keep_the_page_to_itself(served: PageServer) -> None:
    """Every answer has them, refusals too; data is kept nowhere."""
    for answer in (ask(served), ask(served, Host="evil.example"), ask(served, "GET", "/api"), ask(served, path="/x")):
        headers = answer[1]
        assert headers["content-security-policy"] == CSP
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers
    assert "unsafe" not in CSP
    assert ask(served)[1]["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/static/../session.py", "/static/%2e%2e/session.py", "/static//etc/passwd"]
)
def test_no_path_leads_out(served: PageServer, path: str) -> None:
    """Files are served by names that are known, nothing else."""
    status, _, body = ask(served, "GET", path)
    assert status == 404
    assert b"root:" not in body
    assert b"Session" not in body


@pytest.mark.parametrize(("path", "most"), [("/api/v1/info", MOST_BYTES), ("/api/v1/picture", MOST_PICTURE_BYTES)])
def test_a_body_that_says_that_it_is_too_large_is_not_read(served: PageServer, path: str, most: int) -> None:
    """The answer comes before a byte of it; one byte less would be read."""
    status, _, body = ask(served, path=path, Content_Length=str(most + 1))
    assert (status, kind_of(body)) == (413, "TooLarge")


@pytest.mark.parametrize("length", ["-1", "abc", "9" * 30])
def test_a_length_that_is_none_is_refused(served: PageServer, length: str) -> None:
    """By h11 or by us; the connection ends."""
    assert ask(served, Content_Length=length)[0] in (400, 413)


def test_a_body_of_100_mb_is_refused_while_it_comes(served: PageServer) -> None:
    """In pieces, without a length: it ends at the limit, and memory does not grow by what was sent."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", served.port), 30) as stream:
        own = f"Host: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {served.token}\r\n"
        head = f"POST /api/v1/picture HTTP/1.1\r\n{own}"
        stream.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        try:
            while sent < 100 << 20:
                stream.sendall(piece)
                sent += len(piece)
            answer = stream.recv(1 << 16)
        except OSError:  # the server has closed it: what it said may be lost with that
            answer = b"413"
    assert b"413" in answer
    assert sent < 40 << 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 80 << 20
    assert ask(served)[0] == 200


def test_200_slow_clients_are_dropped_while_a_good_one_is_served(served: PageServer) -> None:
    """They send a byte now and then and never finish a head; no time is needed for them to be dropped but patience."""
    slow = [socket.create_connection(("127.0.0.1", served.port), 10) for _ in range(200)]
    begun = time.monotonic()
    for stream in slow:
        stream.setblocking(False)
    head, dropped, answered = b"POST /api/v1/info HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"y" * 1000, 0, 0
    place = 0
    while dropped < 200:
        assert time.monotonic() - begun < 60 * PATIENCE, f"{200 - dropped} of 200 are still connected"
        open_ = [stream for stream in slow if stream.fileno() >= 0]
        for stream in open_:
            try:
                stream.send(head[place : place + 1])
                if stream.recv(1) == b"":
                    stream.close()
            except BlockingIOError:
                continue
            except OSError:
                stream.close()
        place = min(place + 1, len(head) - 1)
        dropped = sum(stream.fileno() < 0 for stream in slow)
        if dropped < 200:
            assert ask(served)[0] == 200
            answered += 1
    assert answered > 0
    assert ask(served)[0] == 200


def test_a_body_that_never_ends_is_dropped_too(served: PageServer) -> None:
    """After the head there is as much time again, and no more."""
    with socket.create_connection(("127.0.0.1", served.port), 60) as stream:
        head = (
            f"POST /api/v1/info HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {served.token}\r\n"
        )
        stream.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        with contextlib.suppress(ConnectionResetError):  # as sudden an end as any
            assert stream.recv(100) == b""
    assert ask(served)[0] == 200


def test_more_connections_than_there_may_be_cost_the_oldest_unfinished_one(photo_store: EmbedStore) -> None:
    """Who holds connections open locks nobody out: no time has to pass for that."""
    with PageServer(Session(photo_store), patience=3600, most_connections=8).running() as server:
        held = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(8)]
        for stream in held:
            stream.sendall(b"GET ")
        assert ask(server)[0] == 200
        held[0].settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert held[0].recv(1) == b""
        for stream in held:
            stream.close()


@pytest.mark.skipif(os.name == "nt", reason="sockets are no files there")
def test_where_few_files_may_be_open_a_flood_of_connections_locks_nobody_out(photo_store: EmbedStore) -> None:
    """As on a Mac, where a process may have 256: fewer connections are open at once."""
    command = f"ulimit -n 256; exec {shlex.join([sys.executable, '-m', 'embedstore', 'serve', str(photo_store.path)])}"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        address, _, token = process.stdout.readline().strip().partition("/#")
        port = int(address.rpartition(":")[2])
        held = []
        for _ in range(600):
            held.append(socket.create_connection(("127.0.0.1", port), 30))
            with contextlib.suppress(OSError):
                held[-1].sendall(b"GET / HT")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        score = json.dumps({"query": {"terms": [{"text": "bird"}]}})
        connection.request("POST", "/api/v1/score", score, {"Authorization": f"Bearer {token}"})
        assert connection.getresponse().status == 200
        connection.close()
        for stream in held:
            stream.close()
        process.terminate()
        assert "Too many open files" not in process.stderr.read()


def test_a_kept_connection_is_used_again(served: PageServer) -> None:
    """Patience is for what is unfinished: a good client asks several times on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    for _ in range(5):
        connection.request("POST", "/api/v1/classifiers", b"{}", {"Authorization": f"Bearer {served.token}"})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, {"classifiers": []})
    connection.close()


def test_a_silent_connection_outlives_patience(served: PageServer) -> None:
    """Between requests a good client may be silent for longer than a slow one is borne."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.connect()
    used = connection.sock
    for _ in range(2):
        connection.request("POST", "/api/v1/classifiers", b"{}", {"Authorization": f"Bearer {served.token}"})
        assert connection.getresponse().read()
        with socket.create_connection(("127.0.0.1", served.port), 60) as slow:
            slow.sendall(b"G")
            with contextlib.suppress(ConnectionResetError):
                assert slow.recv(1) == b""
    assert connection.sock is used
    connection.close()


def test_silent_connections_lock_nobody_out(photo_store: EmbedStore) -> None:
    """Not even those that have asked once: the one that has been silent for longest goes."""
    with PageServer(Session(photo_store), patience=3600, most_connections=4).running() as server:
        held = []
        for _ in range(4):
            silent = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            silent.request("GET", "/api/v1/openapi.json")
            assert silent.getresponse().read()
            held.append(silent)
        assert ask(server)[0] == 200
        assert held[0].sock is not None
        with contextlib.suppress(ConnectionResetError):
            assert held[0].sock.recv(1) == b""
        for silent in held:
            silent.close()


def test_no_log_has_the_token(served: PageServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither that of the library nor that of uvicorn, whatever is asked."""
    caplog.set_level(logging.DEBUG)
    for path in ("/api/v1/info", f"/api/v1/{served.token}", "/api/v1/nothing"):
        ask(served, path=path)
    ask(served, Authorization="")
    assert served.token not in caplog.text


def test_names_of_a_server() -> None:
    """Of one address its own; of all addresses any number, as no foreign name is one."""
    own = Hosts("192.168.1.7", 8000)
    assert own.has("192.168.1.7:8000")
    assert own.has("localhost:8000")
    assert not own.has("192.168.1.8:8000")
    every = Hosts("0.0.0.0", 8000)
    assert every.has("192.168.1.8:8000")
    assert every.has("[fe80::1]:8000")
    assert every.has(f"{socket.gethostname()}:8000")
    for foreign in ("evil.example:8000", "192.168.1.8:1", "192.168.1.8", "1.2.3.4.evil.example:8000", ":8000", "x:y"):
        assert not every.has(foreign)
    assert not every.is_origin("https://192.168.1.8:8000")
    assert (is_any("0.0.0.0"), is_any("::"), is_any("127.0.0.1"), is_any("localhost")) == (True, True, False, False)
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "myhost")] == [True] * 3 + [
        False
    ] * 2


def test_the_page_reaches_no_file_of_the_store_by_a_name(served: PageServer, photo_store: EmbedStore) -> None:
    """The store's own files are served by none."""
    for path in ("/store.json", f"/{photo_store.path}/store.json", "/static/store.json"):
        assert ask(served, "GET", path)[0] == 404
    assert Path(photo_store.path, "store.json").exists()
