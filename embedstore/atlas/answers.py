"""Requests to Atlas, what its answers mean, and how long to go on: good, a failure that may pass, or one with a name.

The official client takes most failures for success, or for "there is no such dataset". So every answer is judged
here before the client sees it, and only good ones get through. Requests that change nothing when repeated are
repeated, up to a deadline; the others fail once, and `apply` asks the server what became of them. Whoever asks again
waits by `Pauses`, which says so where it takes long.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from embedstore.embedders.transport import Answer, PassingError, Timeouts, Transport, retry_after
from embedstore.embedders.waits import LOGGER
from embedstore.errors import AtlasError, CredentialsError
from embedstore.settings import Key, key_places, require_key

_ONCE: Final = ("/v1/project/data/add/arrow", "/v1/project/create", "/v1/project/index/create")
"""Posting these twice may do the work twice; all other requests may be repeated."""

_PROGRESS: Final = ("/v1/project/data/add/blobs", "/quadtree/")
"""A good answer to one of these is a step of its own: there are many of them in one call of the client."""


class RefusedError(AtlasError):
    """Atlas refuses the request for good."""


class NotFoundError(RefusedError):
    """There is no such thing."""


class ConflictError(RefusedError):
    """Rows with some of these ids are there already; none of the upload was stored."""


class TooLargeError(RefusedError):
    """The upload is too large."""


class LockedError(AtlasError):
    """The dataset is being indexed and takes no rows now."""


class LimitError(RefusedError):
    """The organisation's plan does not cover it: no room for more rows, or a bill to be paid first."""


_NAMED: Final[dict[str, type[AtlasError]]] = {
    "due to ID conflict": ConflictError,
    "transaction lock is held": LockedError,
    "currently indexing": LockedError,
    "exceeds your organization limit": LimitError,
}
"""Failures that the server's words name, whatever its status and the form of its body."""

_OF_THE_PLAN: Final = ("plan", "upgrade", "quota", "billing", "payment", "limit", "subscription")
"""Words of a 403 that is about money rather than about rights."""

LONG: Final = 2.0
"""Seconds that nobody waits without being told."""

_log = logging.getLogger(LOGGER)


class AtlasTransport(Transport):
    """Stands in the place of `requests` in the official client; returns good answers only.

    A step, which is a look-up, a shard, the wait for a lock or for a map, may take `step` seconds; progress begins a
    new one. Without a `key` the configured one is looked up. `tell` gets a line for each wait of more than two seconds;
    by default it is a warning of the log.
    """

    def __init__(self, key: Key | str | None, step: float, tell: Callable[[str], None] | None = None) -> None:
        if not step > 0:
            raise AtlasError(f"a timeout is a number of seconds larger than 0; found {step!r}")
        # A request takes less than half a step in all, so that a step that began can end in time.
        timeouts = Timeouts(min(10.0, step / 12), read=min(60.0, step / 8), total=step / 4)
        super().__init__(require_key(key), timeouts, "talking to Atlas")
        self.step = step
        self.tell = tell or _log.warning
        self.lag = min(60.0, step / 10)  # seconds for which Atlas may not show yet what it has accepted
        self.begin()

    def begin(self) -> None:
        """Begin a step."""
        self.deadline = time.monotonic() + self.step

    def has_time(self, pause: float) -> bool:
        """Tell whether a request made after `pause` seconds ends within the step."""
        longest = self.timeouts.connect + self.timeouts.read + self.timeouts.total
        return time.monotonic() + pause + longest <= self.deadline

    def request(self, method: str, url: str, **arguments: Any) -> Answer:
        """Send a request, again after failures that may pass where that is harmless; return its good answer.

        Raises PassingError where it failed and may not be repeated blindly, RefusedError and LockedError and their
        kinds, AtlasError where it failed until the step was over, and CredentialsError.
        """
        if hasattr(arguments.get("data"), "read"):
            arguments["data"] = arguments["data"].read()  # as bytes it is sent within the deadline
        if urlsplit(url).path in _ONCE:
            return self._send(method, url, arguments)
        pauses = Pauses(self)
        while True:
            try:
                return self._send(method, url, arguments)
            except PassingError as error:
                if not pauses.wait(error.pause, str(error)):
                    raise AtlasError(
                        f"given up after {pauses.attempts} attempts, as a further one might not end within "
                        f"{self.step:g} s: {error}"
                    ) from None

    def _send(self, method: str, url: str, arguments: dict[str, Any]) -> Answer:
        if time.monotonic() > self.deadline:
            raise AtlasError(f"given up, as Atlas did not answer usably within {self.step:g} s")
        answer = super().request(method, url, **arguments)
        self._judge(answer, url)
        if any(path in url for path in _PROGRESS):
            self.begin()
        return answer

    def _judge(self, answer: Answer, url: str) -> None:
        """Raise for every answer that is not what the client takes it for."""
        status, path = answer.status_code, urlsplit(url).path
        if status in (200, 201):
            if not _is_well_formed(answer, path):
                raise PassingError(
                    f"Atlas answered {status} with a page in place of data: a proxy's? {answer.excerpt()}"
                )
            return
        detail = _detail(answer)
        said = self.key.scrub(f"Atlas answered {status} to {path}: {detail or answer.excerpt()}")
        for words, failure in _NAMED.items():
            if words in (detail or ""):
                raise failure(said)
        if status == 401:
            raise CredentialsError(f"the key from {self.key.source} was refused; {key_places()}. {said}")
        if status == 402 or (status == 403 and any(word in (detail or "").lower() for word in _OF_THE_PLAN)):
            raise LimitError(
                f"the plan of the organisation does not cover this. Look at its plan and billing in Atlas, or give "
                f"another organisation's dataset. {said}"
            )
        if status == 403:
            raise RefusedError(
                f"the key from {self.key.source} has no right to this: ask an owner of the organisation, or give "
                f"another dataset, as organisation/dataset. {said}"
            )
        if status == 413 and "/data/add/" in path:
            raise TooLargeError(said)
        if detail is None or status in (408, 413, 425, 429) or status >= 500:
            raise PassingError(said, pause=retry_after(answer.headers.get("Retry-After")))
        raise (NotFoundError if status == 404 else RefusedError)(said)


class Pauses:
    """Pauses between attempts at one thing: each about twice the one before, as long as there is time.

    No attempt begins later than `within` seconds from now; by default an attempt must end within the transport's step.
    """

    def __init__(self, transport: AtlasTransport, within: float | None = None) -> None:
        self._transport, self._within = transport, within
        self._next = min(1.0, transport.step / 60)
        self._started = time.monotonic()
        self.attempts = 1

    @property
    def waited(self) -> float:
        """Seconds since the first attempt."""
        return time.monotonic() - self._started

    def wait(self, least: float = 0.0, why: str = "") -> bool:
        """Sleep, for `least` seconds at least, before the next attempt; return False at once if there is no time.

        A long sleep is told, with the reason `why`; without one it is a step of a wait that was told as a whole.
        """
        pause = max(least, self._next * random.uniform(0.5, 1.0))
        in_time = self._transport.has_time(pause) if self._within is None else self.waited + pause <= self._within
        if not in_time:
            return False
        if why and pause >= LONG:
            self._transport.tell(f"waiting {pause:.0f} s, then trying again: {why}")
        time.sleep(pause)
        self._next = min(2 * self._next, 15.0, self._transport.step / 20)
        self.attempts += 1
        return True


def _detail(answer: Answer) -> str | None:
    """Return what a JSON body says, an object's ``detail`` or a bare string; None for a page."""
    try:
        body = answer.json()
    except ValueError:
        return None
    said = body.get("detail", body) if isinstance(body, dict) else body
    return said if isinstance(said, str) else json.dumps(said)


def _is_well_formed(answer: Answer, path: str) -> bool:
    """Tell whether the body of a good answer is of the kind that its route has."""
    if "/quadtree/" in path:
        return answer.content[:6] == b"ARROW1"
    if path.endswith("/schema"):
        return answer.content[:1] not in (b"<", b"{", b"")
    try:
        answer.json()
    except ValueError:
        return False
    return True
