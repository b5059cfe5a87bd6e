"""URLs become records, and are downloaded when they are loaded."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_pictures import png, put

from embedstore.errors import OfflineError
from embedstore.sources import open_source


class Server(http.server.BaseHTTPRequestHandler):
    """Serves a picture; /busy fails twice; /short breaks off; /secret wants a name and a password."""

    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.path == "/busy.png" and self.requests.count(self.path) < 3:
            self.send_error(503)
        elif self.path == "/missing.png":
            self.send_error(404)
        elif self.path == "/secret.png" and self.headers["Authorization"] != "Basic bWU6cGFzcw==":
            self.send_error(401)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(png(7)) + (5 if self.path == "/short.png" else 0)))
            self.end_headers()
            self.wfile.write(png(7))

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on this machine, with the network switch off: downloads are asked for by URL, wherever it leads."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "0")
    monkeypatch.setenv("EMBEDSTORE_ALLOW_PRIVATE_URLS", "1")
    Server.requests = []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_urls_are_downloaded_when_loaded(tmp_path: Path, server: str) -> None:
    """A list of URLs and paths in a text file is listed without a request; loading downloads; repeats come once."""
    put(tmp_path / "local.png", 3)
    lines = ["# remark", f"http://{server}/a.png", "", "local.png", f"http://{server}/a.png"]
    (tmp_path / "urls.txt").write_text("\n".join(lines))
    records = list(open_source(tmp_path / "urls.txt"))
    assert Server.requests == []
    assert [record.uri for record in records] == [f"{tmp_path}/local.png", f"http://{server}/a.png"]
    assert [record.load() for record in records] == [png(3), png(7)]
    assert Server.requests == ["/a.png"]


def test_busy_server_is_asked_again(server: str) -> None:
    """A server that is busy is asked three times; one that says no is asked once."""
    (record,) = open_source(f"http://{server}/busy.png")
    assert record.load() == png(7)
    assert len(Server.requests) == 3
    (record,) = open_source([f"http://{server}/missing.png"])
    with pytest.raises(OSError, match="404"):
        record.load()
    assert len(Server.requests) == 4


def test_short_download_is_no_picture(server: str) -> None:
    """A download that breaks off is an OSError, not half a picture."""
    (record,) = open_source(f"http://{server}/short.png")
    with pytest.raises(OSError, match=r"stopped|IncompleteRead"):
        record.load()


def test_passwords_of_urls_are_used_and_not_kept(server: str) -> None:
    """Name and password in a URL are sent, and appear in no key, uri or error."""
    (record,) = open_source(f"http://me:pass@{server}/secret.png")
    assert record.load() == png(7)
    assert "pass" not in record.key + record.uri
    (record,) = open_source(f"http://me:wrong@{server}/secret.png")
    with pytest.raises(OSError, match="401") as caught:
        record.load()
    assert "wrong" not in str(caught.value)


def test_urls_offline(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the network switched off no request is made, and the error says so."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    (record,) = open_source(f"http://{server}/a.png")
    with pytest.raises(OfflineError, match=r"downloading from 127\.0\.0\.1"):
        record.load()
    assert Server.requests == []
