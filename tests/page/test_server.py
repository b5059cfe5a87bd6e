"""The server listens where it is told, answers all calls over HTTP, and ends when it is told to."""

from __future__ import annotations

import http.client
import json
import socket
import threading

import numpy as np
import pytest

from embedstore.errors import InputError
from embedstore.page import app
from embedstore.page.server import PageServer
from embedstore.page.session import Session
from embedstore.store import EmbedStore

BIRD = {"query": {"terms": [{"text": "bird"}]}}


def post(server: PageServer, call: str, args: object = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    body = json.dumps({} if args is None else args).encode()
    connection.request("POST", f"/api/v1/{call}", body, {"Authorization": f"Bearer {server.token}"})
    return connection.getresponse()


def test_a_free_port_a_token_of_its_own_and_a_url(photo_store: EmbedStore) -> None:
    """Two servers are two addresses with two tokens; the token stands in the fragment alone."""
    session = Session(photo_store)
    with PageServer(session).running() as one, PageServer(session).running() as two:
        assert one.port != two.port
        assert one.token != two.token
        assert len(one.token) >= 32
        assert one.url == f"http://127.0.0.1:{one.port}/#{one.token}"
        assert one.address == f"http://127.0.0.1:{one.port}/"


def test_it_listens_on_loopback_alone(photo_store: EmbedStore) -> None:
    """Unless it is told otherwise."""
    server = PageServer(Session(photo_store))
    assert server.host == "127.0.0.1"
    assert server._socket.getsockname()[0] == "127.0.0.1"
    server._socket.close()


def test_a_taken_port_and_a_foreign_address_are_told(photo_store: EmbedStore) -> None:
    """With what to do."""
    session = Session(photo_store)
    with (
        PageServer(session).running() as server,
        pytest.raises(InputError, match=rf"port {server.port}.*another --port"),
    ):
        PageServer(session, port=server.port)
    with pytest.raises(InputError, match=r"another --host|no address of this machine"):
        PageServer(session, host="192.0.2.1")
    with pytest.raises(InputError, match="no address of this machine"):
        PageServer(session, host="not a host")


def test_scores_travel_in_one_body(photo_store: EmbedStore) -> None:
    """JSON and two typed arrays, each on 8 bytes; the same numbers as in the library, to the bit."""
    with PageServer(Session(photo_store)).running() as server:
        answer = post(server, "score", BIRD)
        body = answer.read()
        assert answer.getheader("content-type") == "application/octet-stream"
        assert int(answer.getheader("content-length") or 0) == len(body)
        result, buffers = app.unpacked(body)
        scores, rows = np.frombuffer(buffers[0], "<f4"), np.frombuffer(buffers[1], "<u4")
        assert (len(scores), len(rows)) == (result["n"], result["n"])
        assert (photo_store.scores("bird")[0][rows] == scores).all()
        assert len(body) % 8 == 0


def test_it_ends_with_open_connections_and_while_a_call_runs(photo_store: EmbedStore) -> None:
    """Nobody who holds on keeps it from ending."""
    begun, end = threading.Event(), threading.Event()

    class Slow(Session):
        def answer(self, *words: object, **options: object) -> tuple[dict[str, object], list[object]]:
            begun.set()
            end.wait(120)
            return {}, []

    try:
        with PageServer(Slow(photo_store)).running() as server:
            held = socket.create_connection(("127.0.0.1", server.port), 10)
            held.sendall(b"GET /api HTT")
            head = f"POST /api/v1/info HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            asked = socket.create_connection(("127.0.0.1", server.port), 10)
            asked.sendall(f"{head}Authorization: Bearer {server.token}\r\nContent-Length: 0\r\n\r\n".encode())
            assert begun.wait(30)
        assert not end.is_set()
        with pytest.raises(OSError, match=r"."):
            socket.create_connection(("127.0.0.1", server.port), 10)
        held.close()
        asked.close()
    finally:
        end.set()
