"""A request is one call of the session; what goes wrong is told with a status that says whose fault it is."""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedstore.page import app, joining
from embedstore.page.pictures import SmallPictures
from embedstore.page.server import PageServer
from embedstore.page.session import Session
from embedstore.store import EmbedStore

BIRD = {"query": {"terms": [{"text": "bird"}]}}


class Client:
    """Asks a server with its token."""

    def __init__(self, server: PageServer) -> None:
        self.server = server

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        connection.request(method, path, body, {"Authorization": f"Bearer {self.server.token}"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type") or "", answer.read()

    def call(self, name: str, **args: Any) -> tuple[int, Any, list[memoryview]]:
        status, kind, body = self.ask("POST", f"/api/v1/{name}", json.dumps(args).encode())
        if kind == "application/octet-stream":
            return status, *app.unpacked(body)
        return status, json.loads(body), []


def bomb(side: int) -> bytes:
    """A PNG file whose header tells of a picture that is larger than what is in it."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.fixture(scope="module")
def client(photo_store: EmbedStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    session = Session(photo_store, SmallPictures(tmp_path_factory.mktemp("small")))
    with PageServer(session).running() as server:
        yield Client(server)


def test_a_call_is_the_session_s_answer(client: Client, photo_store: EmbedStore) -> None:
    """Whatever carries it."""
    status, result, buffers = client.call("score", **BIRD)
    there, arrays = Session(photo_store).answer("score", BIRD)
    assert status == 200
    assert {**result, "scored": 1} == json.loads(json.dumps(there))
    assert [bytes(one) for one in buffers] == [bytes(one) for one in arrays]
    status, rows, none = client.call("rows", scored=result["scored"], rows=[5])
    assert (status, rows["rows"][0]["row"], none) == (200, 5, [])


@pytest.mark.parametrize(
    ("call", "args", "status", "kind"),
    [
        ("score", {}, 400, "QueryError"),
        ("score", {**BIRD, "where": "no such"}, 400, "FilterError"),
        ("score", {**BIRD, "wher": ""}, 400, "InputError"),
        ("score", [], 400, "InputError"),
        ("rows", {"scored": 999, "rows": []}, 410, "ScoredGone"),
        ("nothing", {}, 404, "NoSuchThing"),
        ("save", {"calibrated": 99, "name": "x"}, 410, "ScoredGone"),
        ("score", {"query": {"classifier": "none"}}, 400, "ClassifierError"),
    ],
)
def test_what_cannot_be_done_is_told(client: Client, call: str, args: Any, status: int, kind: str) -> None:
    """With a type and a message."""
    found, _, body = client.ask("POST", f"/api/v1/{call}", json.dumps(args).encode())
    error = json.loads(body)["error"]
    assert (found, error["type"]) == (status, kind)
    assert len(error["message"]) > 10


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"query": ' + b"[" * 50_000, b"nul"])
def test_what_is_no_json_is_told(client: Client, body: bytes) -> None:
    """Also what is nested deeper than a parser likes."""
    status, _, answer = client.ask("POST", "/api/v1/score", body)
    assert (status, json.loads(answer)["error"]["type"]) == (400, "InputError")


def test_a_fault_of_ours_is_told_without_its_inside(photo_store: EmbedStore, caplog: pytest.LogCaptureFixture) -> None:
    """The traceback goes to the log, an apology to the page; the next call is answered."""

    class Faulty(Session):
        def answer(self, name: str, *words: Any, **options: Any) -> Any:
            if name == "info":
                raise ZeroDivisionError("a secret")
            return super().answer(name, *words, **options)

    with PageServer(Faulty(photo_store)).running() as server:
        asked = Client(server)
        status, _, body = asked.ask("POST", "/api/v1/info")
        assert (status, json.loads(body)["error"]["type"]) == (500, "InternalError")
        assert b"secret" not in body
        assert "a secret" in caplog.text
        assert asked.call("classifiers")[0] == 200


def test_a_picture_is_sent_as_it_is(client: Client, photo_store: EmbedStore) -> None:
    """Its bytes are the body; then it can be asked with."""
    file = Path(photo_store.to_table(["uri"]).column("uri")[0].as_py())
    status, _, body = client.ask("POST", "/api/v1/picture", file.read_bytes())
    sent = json.loads(body)
    assert status == 200
    scored = client.call("score", query={"terms": [{"picture": sent["picture"]}]})[1]
    assert scored["high"] == pytest.approx(1.0, abs=1e-5)


def test_a_bomb_is_refused(client: Client) -> None:
    """A picture that says of itself that it has 400 million pixels is not decoded."""
    status, _, body = client.ask("POST", "/api/v1/picture", bomb(20_000))
    assert (status, json.loads(body)["error"]["type"]) == (400, "ImageError")
    assert "pixels" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"no picture", b"\xff\xd8\xff" + b"\0" * 100])
def test_what_is_no_picture_is_told(client: Client, body: bytes) -> None:
    """Nothing, a text, and the beginning of one."""
    status, _, answer = client.ask("POST", "/api/v1/picture", body)
    assert (status, json.loads(answer)["error"]["type"]) == (400, "ImageError")


def test_small_pictures_as_files(client: Client) -> None:
    """A JPEG by scored query and row; 404 with a reason where there is none."""
    scored = client.call("score", **BIRD)[1]["scored"]
    status, kind, body = client.ask("GET", f"/api/v1/thumbnail/{scored}/7")
    assert (status, kind) == (200, "image/jpeg")
    assert max(Image.open(io.BytesIO(body)).size) <= 320
    _, told, buffers = client.call("thumbnail", scored=scored, row=7)
    assert (told["missing"], bytes(buffers[0])) == (False, body)
    for path, status in ((f"{scored}/99999999", 400), ("99/1", 410), (f"{scored}/-1", 404), (f"{scored}/x", 404)):
        assert client.ask("GET", f"/api/v1/thumbnail/{path}")[0] == status


def test_methods_and_names_that_are_none(client: Client) -> None:
    """A call is a POST; what there is not is 404."""
    assert client.ask("GET", "/api/v1/info")[0] == 405
    assert client.ask("PUT", "/api")[0] == 405
    assert client.ask("GET", "/static/session.py")[0] == 404
    assert client.ask("GET", "/api/v1/thumbnail/1")[0] == 404


def test_the_page_s_own_files(photo_store: EmbedStore, client: Client) -> None:
    """Joined by `joining`, each with its type."""
    for path, kind, text in (
        ("/", "text/html", lambda: joining.file_text("index.html")),
        ("/static/page.js", "text/javascript", lambda: joining.file_text("page.js")),
        ("/static/view.js", "text/javascript", joining.module_text),
        ("/static/style.css", "text/css", joining.style_text),
    ):
        status, found, body = client.ask("GET", path)
        assert (status, found, body.decode()) == (200, f"{kind}; charset=utf-8", text())


def test_answers_in_a_body(client: Client) -> None:
    """What is packed is unpacked again, whatever the lengths."""
    for lengths in ([0], [1, 7, 8, 9], [0, 0, 3]):
        buffers = [bytes(range(length)) for length in lengths]
        body = b"".join(bytes(piece) for piece in app.pieces_of({"name": "ü" * len(lengths)}, buffers))
        result, found = app.unpacked(body)
        assert result == {"name": "ü" * len(lengths)}
        assert [bytes(one) for one in found] == buffers
        places = [one.obj.find(bytes(one)) % 8 for one in found if len(one) > 6]  # type: ignore[attr-defined]
        assert places == [0] * len(places)


def test_many_at_once_are_answered_right(client: Client, photo_store: EmbedStore) -> None:
    """Each gets the answer to its own question."""
    words = ["bird", "dog", "flower", "fruit", "car", "tree"] * 4
    truth = {word: float(photo_store.scores(word).max()) for word in set(words)}

    def high(word: str) -> float:
        return float(client.call("score", query={"terms": [{"text": word}]})[1]["high"])

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(high, words))
    assert found == [truth[word] for word in words]


def test_a_slow_call_keeps_no_picture_waiting(photo_store: EmbedStore) -> None:
    """Calls and small pictures have threads of their own."""
    end, begun = threading.Event(), threading.Semaphore(0)

    class Slow(Session):
        def answer(self, name: str, *words: Any, **options: Any) -> Any:
            if name == "plan":
                begun.release()
                end.wait(120)
                return {}, []
            return super().answer(name, *words, **options)

    try:
        with PageServer(Slow(photo_store)).running() as server, ThreadPoolExecutor(app.AT_ONCE) as pool:
            asked = Client(server)
            scored = asked.call("score", **BIRD)[1]["scored"]
            waiting = [pool.submit(asked.call, "plan") for _ in range(app.AT_ONCE)]
            for _ in waiting:
                assert begun.acquire(timeout=30)
            assert asked.ask("GET", f"/api/v1/thumbnail/{scored}/3")[0] == 200
            end.set()
            assert [one.result()[0] for one in waiting] == [200] * app.AT_ONCE
    finally:
        end.set()


def test_numbers_that_are_none_are_null(client: Client) -> None:
    """No answer holds what JSON has not."""
    status, result, _ = client.call("score", **BIRD, where="width < 0")
    assert (status, result["n"], result["low"], result["high"]) == (200, 0, None, None)
    assert np.isfinite(result["start"]["threshold"])


class Held(Session):
    """Answers info once it may, and remembers what it was asked."""

    def __init__(self, store: EmbedStore) -> None:
        super().__init__(store)
        self.may, self.asked = threading.Event(), list[str]()

    def answer(self, name: str, *words: Any, **options: Any) -> Any:
        self.asked.append(name)
        if name in ("info", "picture"):
            self.may.wait(60)
            return {}, []
        return super().answer(name, *words, **options)


def begun(server: PageServer, call: str, body: bytes = b"{}") -> socket.socket:
    """Send a call, and wait for no answer."""
    head = f"POST /api/v1/{call} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.token}\r\n"
    sent = socket.create_connection(("127.0.0.1", server.port), 60)
    sent.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return sent


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_call_of_who_has_gone_is_not_begun_but_for_what_is_written(photo_store: EmbedStore) -> None:
    """A page that moves on takes back what it asked for; a label that it sent is kept."""
    session = Held(photo_store)
    with PageServer(session).running() as server:
        running = [begun(server, "info") for _ in range(app.AT_ONCE)]
        until(lambda: len(session.asked) == app.AT_ONCE)
        going = [begun(server, call) for call in ("score", "label")]
        waiting = server._app.state.workers[0]._waiting
        until(lambda: waiting.qsize() == len(going))
        for stream in going:
            stream.close()
        for _ in range(3):
            assert Client(server).ask("GET", "/api")[0] == 200  # by now their ends have been seen
        running.append(begun(server, "classifiers"))
        until(lambda: waiting.qsize() == len(going) + 1)
        session.may.set()
        for stream in running:
            assert stream.recv(100).startswith(b"HTTP/1.1 200")
            stream.close()
        assert sorted(session.asked[app.AT_ONCE :]) == ["classifiers", "label"]


def test_pictures_to_ask_with_are_read_one_at_a_time_and_hold_up_nothing_else(photo_store: EmbedStore) -> None:
    """One may take gigabytes and seconds."""
    session = Held(photo_store)
    with PageServer(session).running() as server:
        sent = [begun(server, "picture", b"x") for _ in range(40)]
        assert Client(server).call("classifiers")[0] == 200
        assert session.asked.count("picture") == 1
        session.may.set()
        for stream in sent:
            assert stream.recv(100).startswith(b"HTTP/1.1 200")
            stream.close()


@pytest.mark.parametrize("path", ["9" * 5000 + "/1", "1/" + "9" * 20, "-1/1", "x/1", "1.5/0", "1/%0a"])
def test_a_small_picture_of_no_number_is_told(client: Client, path: str) -> None:
    """However long the number is."""
    status, _, body = client.ask("GET", f"/api/v1/thumbnail/{path}")
    assert (status, json.loads(body)["error"]["type"]) == (404, "NoSuchThing")
