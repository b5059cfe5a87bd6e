"""`NomicServer`: Nomic's service on this machine, as far as the official client calls it.

Who may ask, how often, and what was counted is here. HTTP is left to `wire`, what goes wrong to `faults`, the
answers to `routes`, what Atlas holds to `atlas_state`.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.testing import features
from embedstore.testing.atlas_state import Atlas
from embedstore.testing.routes import AtlasRoutes, embed_images, embed_texts
from embedstore.testing.wire import Refused, Reply, Request, Service


@dataclass(frozen=True)
class Counts:
    """What the server has done so far; a snapshot. Pictures go by `NomicServer.content_of`."""

    images: Counter[str] = field(default_factory=Counter)
    """Times that each picture was embedded in an answer that went out whole."""
    spoilt: Counter[str] = field(default_factory=Counter)
    """Times that each picture was embedded in an answer that was lost: cut off, hung, wrong by a fault, or the client
    had gone. The real service may charge for these."""
    texts: Counter[str] = field(default_factory=Counter)
    """Times that each text was embedded in an answer that went out whole."""
    routes: Counter[str] = field(default_factory=Counter)
    """Requests by ``"METHOD /path"``, all routes."""
    statuses: Counter[int] = field(default_factory=Counter)
    """Answers by HTTP status, as the server meant them."""

    @property
    def requests(self) -> int:
        """Number of requests to the embedding routes, those that failed included."""
        return sum(n for route, n in self.routes.items() if "/v1/embedding/" in route)


class NomicServer(Service):
    """A stand-in for Nomic's service; a context manager that serves while it is open.

    It speaks to the official client (set ``ATLAS_API_PATH``, see `environment`), from this process or another.
    Vectors are deterministic: a picture's depends on its decoded pixels only, a text's on its words, and colours
    have the same meaning in both (see `features`).

    Parameters
    ----------
    key : str
        The only key that is accepted.
    latency : float
        Seconds that each answer takes; may be set while the server runs.
    rate_limit : tuple[int, float] | None
        Embedding requests allowed in any stretch of so many seconds, such as ``(1200, 300)``; more get a 429 with
        ``Retry-After``. None: no limit.

    Attributes
    ----------
    url : str
        The address, such as ``http://127.0.0.1:40123``.
    faults : Faults
        Order what is to go wrong here.
    pictures : dict[str, bytes]
        Encoded pictures by URL, for requests that name URLs: the stand-in fetches nothing.
    atlas : Atlas
        The datasets, to look at and to limit or lock.
    last_request : Request | None
        The last request that no fault refused: its `headers`, `body`, `json()` and `form()`.

    Examples
    --------
    >>> with NomicServer() as server:
    ...     server.faults.script(["429", "reset"])
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self,
        *,
        key: str = "nk-stand-in-4f1d6c0b9a7e",
        latency: float = 0.0,
        rate_limit: tuple[int, float] | None = None,
    ) -> None:
        super().__init__(latency)
        self.key = key
        self.pictures: dict[str, bytes] = {}
        self.atlas = Atlas()
        self.last_request: Request | None = None
        self._rate_limit = rate_limit
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()
        self._counts = Counts()

    def environment(self, home: str | Path, *, domain: str | None = None) -> dict[str, str]:
        """Write the client's credentials file under `home` and return the environment that leads here.

        `home` is a folder to serve as the home directory, such as pytest's ``tmp_path``; made if it is not there. With
        a `domain` the login is to the deployment of an enterprise, as ``nomic login --domain`` writes it. The variables
        are to be added to the environment of a process *before* it imports the client; without ``ATLAS_API_PATH`` among
        them the client would go to the login's own address.
        """
        folder = Path(home) / ".nomic"
        folder.mkdir(parents=True, exist_ok=True)
        login = {"refresh_token": None, "token": self.key, "tenant": "production", "expires": None}
        if domain is not None:
            login |= {"tenant": "enterprise", "frontend_domain": domain, "api_domain": f"api.{domain}"}
        (folder / "credentials").write_text(json.dumps(login))
        return {
            "HOME": str(home),
            "USERPROFILE": str(home),
            "ATLAS_API_PATH": self.url,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "EMBEDSTORE_STATE_DIR": str(Path(home) / "state"),
        }

    @property
    def counts(self) -> Counts:
        """What was done so far, as a snapshot."""
        with self._lock:
            return copy.deepcopy(self._counts)

    @property
    def requests(self) -> int:
        """Number of requests to the embedding routes, those that failed included."""
        return self.counts.requests

    @property
    def images(self) -> int:
        """Number of pictures embedded in answers that went out whole."""
        return self.counts.images.total()

    @property
    def image_counts(self) -> Mapping[str, int]:
        """Times that each picture was embedded in an answer that went out whole; keys as of `content_of`."""
        return self.counts.images

    @property
    def texts(self) -> int:
        """Number of texts embedded in answers that went out whole."""
        return self.counts.texts.total()

    @staticmethod
    def content_of(image: bytes) -> str:
        """Return the key of an encoded picture in the counts: a hash of its decoded pixels."""
        return features.content_of(features.decode_pixels(image))

    @staticmethod
    def image_vector(image: bytes) -> NDArray[np.float32]:
        """Return the vector of an encoded picture, of shape (768,), as this server answers it."""
        return features.image_vector(features.decode_pixels(image))

    @staticmethod
    def text_vector(text: str) -> NDArray[np.float32]:
        """Return the vector of a text, of shape (768,), as this server answers it."""
        return features.text_vector(text)

    def _answer(self, request: Request) -> Reply:
        self.last_request = request
        try:
            self._admit(request)
            if request.route == "POST /v1/embedding/text":
                return embed_texts(request)
            if request.route == "POST /v1/embedding/image":
                return embed_images(request, self.pictures, self.faults)
            return AtlasRoutes(self.atlas).answer(request)
        except Refused as refused:
            return refused.reply

    def _admit(self, request: Request) -> None:
        """Check the key and the rate."""
        sent = request.headers.get("Authorization", "")
        if sent != f"Bearer {self.key}":
            # It repeats what it was sent, as careless servers do: so tests can prove that no error passes it on.
            raise Refused(401, f"Could not validate credentials: {sent}")
        if self._rate_limit is None or not request.path.startswith("/v1/embedding/"):
            return
        limit, seconds = self._rate_limit
        with self._lock:
            now = time.monotonic()
            while self._recent and self._recent[0] <= now - seconds:
                self._recent.popleft()
            if len(self._recent) >= limit:
                refused = Refused(429, "Rate limit exceeded")
                refused.reply.headers["Retry-After"] = f"{self._recent[0] + seconds - now:.3f}"
                raise refused
            self._recent.append(now)

    def _count(self, request: Request, reply: Reply) -> None:
        with self._lock:
            self._counts.routes[request.route] += 1
            self._counts.statuses[reply.status] += 1

    def _settle(self, reply: Reply, delivered: bool) -> None:
        with self._lock:
            (self._counts.images if delivered else self._counts.spoilt).update(reply.images)
            self._counts.texts.update(reply.texts if delivered else ())
