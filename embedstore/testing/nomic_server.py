"""`NomicServer`: Nomic's service on this machine, as far as the official client calls it.

Who may ask, how often, and what was counted is here. HTTP is left to `wire`, what goes wrong to `faults`, the
answers to `embedding_routes` and `atlas_routes`.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from embedstore.testing import features
from embedstore.testing.atlas_routes import AtlasRoutes
from embedstore.testing.atlas_state import Atlas
from embedstore.testing.embedding_routes import embed_images, embed_texts
from embedstore.testing.faults import Faults
from embedstore.testing.refusals import Refused
from embedstore.testing.wire import Reply, Request, StandIn

ORGANISATION = {
    "organization_id": "6f3d1c1e-2a55-4f0b-9d2f-3f5d3a0e7c11",
    "slug": "stand-in",
    "user_id": "auth0|stand-in",
    "access_role": "OWNER",
    "plan_type": "verified",
}


@dataclasses.dataclass(frozen=True)
class Counts:
    """What the server has done so far; a snapshot.

    Attributes
    ----------
    requests : int
        Requests to the embedding routes, those that failed included.
    images : Counter[str]
        Times that each picture (see `NomicServer.content_of`) was embedded in an answer that went out whole.
    spoilt : Counter[str]
        Times that each picture was embedded in an answer that was lost: cut off, hung, wrong by a fault, or the
        client had gone. The real service may charge for these.
    texts : Counter[str]
        Times that each text was embedded in an answer that went out whole.
    routes : Counter[str]
        Requests by ``"METHOD /path"``, all routes.
    statuses : Counter[int]
        Answers by HTTP status, as the server meant them.
    """

    requests: int
    images: Counter[str]
    spoilt: Counter[str]
    texts: Counter[str]
    routes: Counter[str]
    statuses: Counter[int]


class NomicServer:
    """A stand-in for Nomic's service; a context manager that serves while it is open.

    It speaks to the official client (set ``ATLAS_API_PATH``, see `environment`), from this process or another.
    Vectors are deterministic: a picture's depends on its decoded pixels only, a text's on its words, and colours
    have the same meaning in both (see `features`).

    Parameters
    ----------
    key : str
        The only key that is accepted.
    latency : float
        Seconds that each answer takes.
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
        self.key = key
        self.faults = Faults()
        self.pictures: dict[str, bytes] = {}
        self.atlas = Atlas(ORGANISATION["slug"])
        self._atlas_routes = AtlasRoutes(self.atlas, ORGANISATION)
        self.url = ""
        self._wire = StandIn(self._answer, self._count, self.faults)
        self._wire.latency = latency
        self._rate_limit = rate_limit
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()
        self._counts = Counts(0, Counter(), Counter(), Counter(), Counter(), Counter())
        self.last_request: Request | None = None

    def __enter__(self) -> NomicServer:
        self.url = self._wire.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wire.stop()

    def environment(self, home: str | Path) -> dict[str, str]:
        """Write the client's credentials file under `home` and return the environment that leads here.

        Parameters
        ----------
        home : str | Path
            A folder to serve as the home directory, such as pytest's ``tmp_path``; made if it is not there.

        Returns
        -------
        dict[str, str]
            To be added to the environment of a process *before* it imports the client.
        """
        folder = Path(home) / ".nomic"
        folder.mkdir(parents=True, exist_ok=True)
        login = {"refresh_token": None, "token": self.key, "tenant": "production", "expires": None}
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
    def latency(self) -> float:
        """Seconds that each answer takes; may be set while the server runs."""
        return self._wire.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._wire.latency = seconds

    @property
    def counts(self) -> Counts:
        """What was done so far, as a snapshot."""
        with self._lock:
            fields = {
                name: Counter(value) for name, value in vars(self._counts).items() if name != "requests"
            }
            embedding = sum(n for route, n in self._counts.routes.items() if "/v1/embedding/" in route)
            return Counts(requests=embedding, **fields)

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
        """Answer a request."""
        self.last_request = request
        try:
            self._admit(request)
            return self._route(request)
        except Refused as refused:
            return refused.reply

    def _count(self, request: Request, reply: Reply) -> None:
        """Count a request and its answer."""
        with self._lock:
            self._counts.routes[f"{request.method} {request.path}"] += 1
            self._counts.statuses[reply.status] += 1

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

    def _route(self, request: Request) -> Reply:
        """Find who answers."""
        route = f"{request.method} {request.path}"
        if route == "GET /v1/user":
            return Reply(
                {
                    "sub": ORGANISATION["user_id"],
                    "organizations": [ORGANISATION],
                    "default_organization": ORGANISATION["organization_id"],
                }
            )
        if route == "POST /v1/embedding/text":
            return embed_texts(request, self._settle_texts)
        if route == "POST /v1/embedding/image":
            return embed_images(request, self.pictures, self.faults, self._settle_images)
        return self._atlas_routes.answer(request)

    def _settle_texts(self, texts: Sequence[str], delivered: bool) -> None:
        """Count texts whose vectors got through."""
        if delivered:
            with self._lock:
                self._counts.texts.update(texts)

    def _settle_images(self, contents: Sequence[str], delivered: bool) -> None:
        """Count pictures whose vectors got through, or were lost."""
        with self._lock:
            (self._counts.images if delivered else self._counts.spoilt).update(contents)
