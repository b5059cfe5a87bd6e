"""A download ends in time, within a size, and comes from a public address."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_pictures import png

from embedstore.errors import ImageError, InputError
from embedstore.images import turns
from embedstore.sources import fetching, open_source


class Server(http.server.BaseHTTPRequestHandler):
    """Drips, lies about its length, sends too much, or leads on to the place that the query names."""

    asked: list[str]

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.asked.append(path)
        with contextlib.suppress(OSError):
            if path == "/on":
                self.send_response(302)
                self.send_header("Location", query)
                self.end_headers()
                return
            self.send_response(200)
            if path == "/huge":
                self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            if path == "/drip":
                for _ in range(600):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
            elif path == "/endless":
                while True:
                    self.wfile.write(bytes(1 << 20))
            else:
                self.wfile.write(png(7))

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "0")
    monkeypatch.setenv("EMBEDSTORE_ALLOW_PRIVATE_URLS", "1")
    Server.asked = []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.socket.close()


def load(url: str) -> Any:
    (record,) = open_source(url)
    return record.load()


def test_a_server_that_drips_is_left_in_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole download has a deadline, though a byte comes every tenth of a second; the error names the setting."""
    monkeypatch.setenv("EMBEDSTORE_URL_SECONDS", "1")
    started = time.monotonic()
    with pytest.raises(OSError, match=r"not complete in time, \d+ bytes had come; EMBEDSTORE_URL_SECONDS"):
        load(f"{address}/drip")
    assert 1 <= time.monotonic() - started < 3


def test_a_server_that_does_not_answer_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one hold a reader that takes the connection and says nothing."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "0")
    monkeypatch.setenv("EMBEDSTORE_ALLOW_PRIVATE_URLS", "1")
    monkeypatch.setenv("EMBEDSTORE_URL_SECONDS", "0.5")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        for scheme in ("http", "https"):
            with pytest.raises(OSError, match="not complete in time"):
                load(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/a.png")
        assert time.monotonic() - started < 4


def test_a_download_is_dropped_when_the_run_is_stopped(address: str) -> None:
    """A reader in the middle of a download ends at once when nobody wants it any more."""
    stopped = threading.Event()
    (record,) = open_source(f"{address}/drip")
    threading.Timer(0.3, stopped.set).start()
    started = time.monotonic()
    with turns.holding(stopped), pytest.raises(turns.StoppedError):
        record.load()
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("seconds", ["no", "0", "-1", "nan"])
def test_a_deadline_that_is_none_is_refused(address: str, monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    """The setting must be a number of seconds."""
    monkeypatch.setenv("EMBEDSTORE_URL_SECONDS", seconds)
    with pytest.raises(InputError, match="expected a number of seconds"):
        load(f"{address}/a.png")


@pytest.mark.parametrize("path", ["/huge", "/endless"])
def test_a_body_too_large_is_not_read_to_its_end(address: str, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Neither one that says so, of which nothing is read, nor one that does not."""
    monkeypatch.setattr(turns, "LARGEST_FILE", 5 << 20)
    with pytest.raises(ImageError, match=r"more than the 5,242,880"):
        load(address + path)


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/a.png", "data:image/png;base64,AA=="])
def test_redirects_to_other_schemes_are_refused(address: str, place: str) -> None:
    """A server may not lead on to a file of this machine or another protocol."""
    with pytest.raises(ImageError, match=r"leads on from http to (file|ftp|data)"):
        load(f"{address}/on?{place}")


def test_redirects_are_followed_to_where_one_may_go(address: str) -> None:
    """Redirects within http work; a circle of them ends."""
    assert load(f"{address}/on?/a.png") == png(7)
    with pytest.raises(OSError, match="redirect"):
        load(f"{address}/on?/on?/on")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127%2E0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"],
)
def test_private_addresses_are_refused_unless_asked(address: str, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """In whatever way the address of this machine is written, no connection is made; the error says how to allow it."""
    monkeypatch.delenv("EMBEDSTORE_ALLOW_PRIVATE_URLS")
    with pytest.raises(ImageError, match=r"no public address.*--allow-private-urls.*EMBEDSTORE_ALLOW_PRIVATE_URLS=1"):
        load(f"http://{host}:{address.rpartition(':')[2]}/a.png")
    assert Server.asked == []


def test_a_redirect_to_a_private_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public server cannot lead on to this machine: each address is looked at before it is connected to."""
    monkeypatch.setattr(fetching, "_is_public", lambda text: text == "127.0.0.1")
    monkeypatch.delenv("EMBEDSTORE_ALLOW_PRIVATE_URLS")
    port = address.rpartition(":")[2]
    assert load(f"{address}/on?http://127.0.0.1:{port}/a.png") == png(7)
    with pytest.raises(ImageError, match=r"127\.0\.0\.2 is no public address"):
        load(f"{address}/on?http://127.0.0.2:{port}/a.png")
    assert Server.asked == ["/on", "/a.png", "/on"]


def test_the_address_that_was_checked_is_the_one_connected_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that has another address at every look is resolved once for a connection."""
    monkeypatch.delenv("EMBEDSTORE_ALLOW_PRIVATE_URLS")
    answers = iter(["93.184.215.14", "127.0.0.1"])
    connected = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    class Recorder(socket.socket):
        def connect(self, place: Any) -> None:
            connected.append(place[0])
            raise OSError("stop here")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "socket", Recorder)
    monkeypatch.setattr("embedstore.sources.web._WAITS", ())
    with pytest.raises(OSError, match="stop here"):
        load(address.replace("127.0.0.1", "twofold.example") + "/a.png")
    assert connected == ["93.184.215.14"]


@pytest.mark.parametrize(
    ("text", "public"),
    [
        *[(text, False) for text in ("10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1")],
        *[(text, False) for text in ("fe80::1%eth0", "fd00::1", "::", "64:ff9b::a00:1", "2002:a00:1::", "224.0.0.1")],
        *[(text, True) for text in ("93.184.215.14", "2606:4700::1111", "64:ff9b::5db8:d70e")],
    ],
)
def test_which_addresses_are_public(text: str, public: bool) -> None:
    """Private, shared, link-local and multicast ones are not, nor are they inside an address of IPv6."""
    assert fetching._is_public(text) is public


def test_a_table_may_name_urls(address: str, tmp_path: Path) -> None:
    """Its rows are downloaded by the same rules."""
    (tmp_path / "t.csv").write_text(f"url,n\n{address}/a.png,1\nhttp://127.0.0.1:1/b.png,2\n")
    first, second = open_source(tmp_path / "t.csv")
    assert first.load() == png(7)
    with pytest.raises(OSError, match="refused"):
        second.load()
