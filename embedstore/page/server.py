"""A session -> a server on this machine, reached by an address with a token in its fragment, until Ctrl-C.

Requests are guarded by `guards` and answered by `app`. The token is drawn anew for each server, stands in no log, and
never leaves a browser by itself: fragments are not sent.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator

import uvicorn

from embedstore.errors import InputError
from embedstore.page.app import make_app
from embedstore.page.guards import Guards, Hosts, is_any, patient
from embedstore.page.session import Session

_log = logging.getLogger("embedstore")

LOOPBACK = "127.0.0.1"
_LONGEST_GOODBYE = 1
_FILES_OF_A_CONNECTION = 3
"""Of the files that may be open one is a connection's, the others are the store's and of those just accepted."""


class PageServer:
    """A server of one session; it listens from the moment that it is made.

    Parameters
    ----------
    session : Session
    host : str
        The address to listen on.
    port : int
        0 for a free one.
    patience : float
        See `guards.patient`.
    most_connections : int
        Fewer where the system lets this process have few files open.

    Raises
    ------
    InputError
        The address cannot be listened on; the message says why.
    """

    def __init__(
        self,
        session: Session,
        host: str = LOOPBACK,
        port: int = 0,
        patience: float = 10.0,
        most_connections: int = 512,
    ) -> None:
        self.token = secrets.token_urlsafe(32)
        self._socket = _listening(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._app = make_app(session)
        guarded = Guards(self._app, self.token, Hosts(host, self.port))
        most = min(most_connections, most_files() // _FILES_OF_A_CONNECTION)
        config = uvicorn.Config(
            guarded,
            http=patient(patience, most),
            backlog=max(8, most // 4),  # so many are accepted at once, before one too many is seen
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_LONGEST_GOODBYE,
            h11_max_incomplete_event_size=32 << 10,
        )
        self._server = _Server(config)

    @property
    def address(self) -> str:
        """Where the page is, without the token."""
        name = LOOPBACK if is_any(self.host) else self.host
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}/"

    @property
    def url(self) -> str:
        """Where the page is, with the token in the fragment."""
        return f"{self.address}#{self.token}"

    def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until Ctrl-C or `stop`; `ready` is called once requests are answered."""
        self._server.ready = ready
        quiet = logging.getLogger("uvicorn.error")
        before, quiet.disabled = quiet.disabled, True  # it would tell of every client that cannot speak
        try:
            self._server.run([self._socket])
        finally:
            quiet.disabled = before
            self._socket.close()
            for workers in self._app.state.workers:
                workers.close()

    def stop(self) -> None:
        """Ask the server to end; from any thread."""
        self._server.should_exit = True

    @contextlib.contextmanager
    def running(self) -> Iterator[PageServer]:
        """Serve in another thread within this context."""
        ready = threading.Event()
        thread = threading.Thread(target=self.run, args=(ready.set,), daemon=True)
        thread.start()
        try:
            if not ready.wait(30):
                raise RuntimeError("the page's server has not begun within 30 seconds")
            yield self
        finally:
            self.stop()
            thread.join()

    def open_browser(self) -> None:
        """Open the page in the user's browser, without waiting for it."""
        threading.Thread(target=_open, args=(self.url,), daemon=True).start()


class _Server(uvicorn.Server):
    """Uvicorn's server, which says when it is ready, and does not raise a signal again that has ended it."""

    ready: Callable[[], object]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            try:
                yield
            finally:
                self._captured_signals.clear()


def most_files() -> int:
    """Return how many files this process may have open."""
    try:
        import resource
    except ImportError:  # Windows, where sockets are no files
        return 1 << 14
    limit: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 14 if limit == resource.RLIM_INFINITY else limit


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens."""
    try:
        [family, kind, proto, _, place] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, proto)
    except OSError as error:
        raise InputError(f"{host!r} is no address of this machine: {error.strerror}; 127.0.0.1 always is") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(1024)
    except OSError as error:
        made.close()
        way = "another --port, or none for a free one" if port else "another --host"
        raise InputError(f"cannot listen on {host}, port {port}: {error.strerror}; choose {way}") from error
    return made


def _open(url: str) -> None:
    try:
        opened = webbrowser.open(url)
    except webbrowser.Error:
        opened = False
    if not opened:
        _log.warning("no browser could be opened; open the address yourself")
