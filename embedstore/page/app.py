"""HTTP requests -> one call of the session each; its answers -> JSON, or JSON and buffers in one body.

Which requests come this far is told by `guards`, what they are answered by `session`. Calls run in threads, so many at
once, while this loop serves others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeAlias, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from embedstore.errors import ClassifierExistsError, EmbedStoreError, InputError
from embedstore.page import api_page, joining
from embedstore.page.guards import TooLargeError
from embedstore.page.scored_query import ScoredGone
from embedstore.page.session import CALLS, Session

_log = logging.getLogger("embedstore")
T = TypeVar("T")

AT_ONCE, PICTURES_AT_ONCE = 4, 4
"""So many calls run at once, and so many that make small pictures: neither waits for the other. Of those that read a
picture to ask with, which may be of 100 million pixels, one."""
_SENT_AT_ONCE = 8
"""So many bodies that are pictures are in memory at once; a browser sends six."""
_WRITING = ("label", "undo", "next", "save")
"""Calls that are done also for who has gone meanwhile: a page may be closed right after an answer."""
_PIECE = 1 << 18
_HEAD = 4


_Task: TypeAlias = tuple[asyncio.Future[Any], asyncio.AbstractEventLoop, Callable[[], Any]]


class Workers:
    """Threads that run calls, one each at a time; the process may end while they do.

    Parameters
    ----------
    most : int
    name : str
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._waiting: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        for number in range(most):
            threading.Thread(target=self._work, name=f"{name} {number}", daemon=True).start()

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call in one of the threads, and return what it returns."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.put((future, loop, call))
        return await future

    def close(self) -> None:
        """Let each thread end after the call that it runs."""
        for _ in range(self._most):
            self._waiting.put(None)

    def _work(self) -> None:
        while (task := self._waiting.get()) is not None:
            future, loop, call = task
            if future.cancelled():  # whoever asked has gone
                continue
            result: Any = None
            error: BaseException | None = None
            try:
                result = call()
            except BaseException as raised:  # noqa: BLE001  (whoever waits is told)
                error = raised
            with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(_settle, future, result, error)
            del task, future, call, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def make_app(session: Session) -> Starlette:
    """Return the application that asks a session; it is to stand behind `guards.Guards`.

    Its ``state.workers`` are the threads that call; who is done with it closes them.
    """
    workers, painters = Workers(AT_ONCE, "call"), Workers(PICTURES_AT_ONCE, "pictures")
    reader = Workers(1, "picture to ask with")
    pools = {"thumbnail": painters, "picture": reader}
    sent = asyncio.Semaphore(_SENT_AT_ONCE)

    async def answered(
        request: Request, name: str, args: Any, buffers: Sequence[Any] = ()
    ) -> tuple[dict[str, Any], list[Any]]:
        running = pools.get(name, workers).run(lambda: session.answer(name, args, buffers))
        return await (running if name in _WRITING else _unless_gone(request, running))

    async def call(request: Request) -> Response:
        name = request.path_params["call"]
        if name not in CALLS:
            raise HTTPException(404, f"there is no call {name[:40]!r}; there are {', '.join(CALLS)}")
        if name == "picture":
            async with sent:
                result, buffers = await answered(request, name, None, [await request.body()])
        else:
            result, buffers = await answered(request, name, _json(await request.body()))
        return packed(result, buffers)

    async def thumbnail(request: Request) -> Response:
        args = {name: _number(request.path_params[name]) for name in ("scored", "row")}
        result, buffers = await answered(request, "thumbnail", args)
        if result["missing"]:
            return _error(404, "Missing", result["why"])
        return Response(bytes(buffers[0]), media_type="image/jpeg")

    routes = [
        Route("/", _file("index.html", "text/html; charset=utf-8")),
        Route("/static/page.js", _file("page.js", "text/javascript; charset=utf-8")),
        Route("/static/view.js", _text(joining.module_text, "text/javascript; charset=utf-8")),
        Route("/static/style.css", _text(joining.style_text, "text/css; charset=utf-8")),
        Route("/api", lambda request: HTMLResponse(api_page.page())),
        Route("/api/v1/openapi.json", lambda request: Response(api_page.text(), media_type="application/json")),
        Route("/api/v1/thumbnail/{scored}/{row}", thumbnail),
        Route("/api/v1/{call}", call, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _failed})
    for kind in (EmbedStoreError, OSError, TooLargeError, ClientDisconnect):
        app.add_exception_handler(kind, _failed)
    app.state.workers = (workers, painters, reader)
    return app


def packed(result: dict[str, Any], buffers: Sequence[bytes | memoryview]) -> Response:
    """Return an answer: JSON; or with buffers the length of the JSON head, the head, and each buffer on 8 bytes."""
    if not buffers:
        return JSONResponse(result)
    pieces = pieces_of(result, buffers)
    length = sum(len(piece) for piece in pieces)
    headers = {"content-length": str(length)}
    return StreamingResponse(_pieces(pieces), media_type="application/octet-stream", headers=headers)


def pieces_of(result: dict[str, Any], buffers: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return what the body of an answer with buffers is made of."""
    head = json.dumps({**result, "buffers": [len(one) for one in buffers]}, allow_nan=False).encode()
    pieces: list[bytes | memoryview] = [len(head).to_bytes(_HEAD, "little"), head, _padding(_HEAD + len(head))]
    for one in buffers:
        pieces += [one, _padding(len(one))]
    return pieces


def unpacked(body: bytes) -> tuple[dict[str, Any], list[memoryview]]:
    """Read what `packed` wrote with buffers: the result, and the buffers."""
    size = int.from_bytes(body[:_HEAD], "little")
    result = json.loads(body[_HEAD : _HEAD + size])
    place, found = _aligned(_HEAD + size), []
    for length in result.pop("buffers"):
        found.append(memoryview(body)[place : place + length])
        place = _aligned(place + length)
    return result, found


async def _unless_gone(request: Request, running: Coroutine[Any, Any, T]) -> T:
    """Wait for a call; one that is not begun when whoever asked for it has gone is not begun any more."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    call, gone = asyncio.ensure_future(running), asyncio.ensure_future(left())
    try:
        await asyncio.wait((call, gone), return_when=asyncio.FIRST_COMPLETED)
        if call.done():
            return call.result()
        gone.result()  # a body that is too large raises
        raise ClientDisconnect
    finally:
        call.cancel()
        gone.cancel()


async def _pieces(pieces: Sequence[bytes | memoryview]) -> AsyncIterator[bytes | memoryview]:
    """Yield the bytes a little at a time, so that no more is in memory than a client takes."""
    for piece in pieces:
        for start in range(0, len(piece), _PIECE):
            yield piece[start : start + _PIECE]


def _aligned(place: int) -> int:
    return place + -place % 8


def _padding(length: int) -> bytes:
    return b"\0" * (-length % 8)


def _number(text: str) -> int:
    """Read a number of a path."""
    if not re.fullmatch("[0-9]{1,10}", text):
        raise HTTPException(404, f"{text[:40]!r} is no number of a query or row")
    return int(text)


def _json(body: bytes) -> Any:
    """Read the arguments of a call."""
    try:
        return json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is no JSON ({error}); expected an object of arguments") from error


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    return _text(lambda: joining.file_text(name), kind)


def _text(text: Callable[[], str], kind: str) -> Callable[[Request], Response]:
    """Return what answers with a text of the package."""

    def answer(request: Request) -> Response:
        return Response(text(), media_type=kind)

    return answer


def _error(status: int, kind: str, message: str) -> Response:
    return JSONResponse({"error": {"type": kind, "message": message}}, status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = "; /api says what there is" if error.status_code == 404 else ""
    return _error(error.status_code, "NoSuchThing", f"{error.detail}{known}")


async def _failed(request: Request, error: Exception) -> Response:
    """Say what could not be done: the library's words, or for what nobody has foreseen that it is our fault."""
    if isinstance(error, ScoredGone):
        return _error(410, type(error).__name__, str(error))
    if isinstance(error, ClassifierExistsError):
        return _error(409, type(error).__name__, str(error))
    if isinstance(error, EmbedStoreError):
        return _error(400, type(error).__name__, str(error))
    if isinstance(error, TooLargeError | ClientDisconnect):  # what is still to come is not read
        refused = _error(TooLargeError.STATUS, "TooLarge", str(error))
        refused.headers["connection"] = "close"
        return refused
    if isinstance(error, OSError):
        return _error(500, type(error).__name__, error.strerror or str(error))
    _log.error("a call of the page has failed: %r", request.url.path, exc_info=error)
    return _error(500, "InternalError", "a fault in embedstore: what it was is on the server's stderr")
