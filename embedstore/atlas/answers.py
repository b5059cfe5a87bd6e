"""Requests to Atlas, and what its answers mean: good, a failure that may pass, or one of those with a name.

The official client takes most failures for success, or for "there is no such dataset". So every answer is judged
here before the client sees it, and only good ones get through. Requests that change nothing when repeated are
repeated, up to a deadline; the others fail once, and `apply` asks the server what became of them.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from embedstore.credentials import PLACES, Key
from embedstore.embedders.nomic_answers import retry_after
from embedstore.embedders.nomic_transport import Answer, NoAnswerError, Timeouts, Transport
from embedstore.errors import AtlasError, CredentialsError

_ONCE: Final = ("/v1/project/data/add/arrow", "/v1/project/create", "/v1/project/index/create")
"""Posting these twice may do the work twice; all other requests may be repeated."""

_PROGRESS: Final = ("/v1/project/data/add/blobs", "/quadtree/")
"""A good answer to one of these is a step of its own: there are many of them in one call of the client."""


class PassingError(AtlasError):
    """A failure that another attempt may not meet; `pause` is how many seconds the server asks to wait."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


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
    """The organisation's plan has no room for more rows."""


@dataclass(frozen=True)
class Limits:
    """How long to try.

    Attributes
    ----------
    step : float
        Seconds for one step: a look-up, a shard, the wait for a lock or for a map. Progress begins a new step.
    """

    step: float = 600.0

    def __post_init__(self) -> None:
        """Refuse what is no time."""
        if not self.step > 0:
            raise AtlasError(f"a timeout is a number of seconds larger than 0; found {self.step!r}")

    @property
    def request(self) -> Timeouts:
        """Of one request; in all less than half a step, so that a step that began can end in time."""
        return Timeouts(min(10.0, self.step / 12), read=min(60.0, self.step / 8), total=self.step / 4)

    @property
    def longest_request(self) -> float:
        """Seconds that one request takes at most."""
        timeouts = self.request
        return timeouts.connect + timeouts.read + timeouts.total

    @property
    def first_wait(self) -> float:
        """Seconds before the first repetition; later ones wait longer."""
        return min(1.0, self.step / 60)

    @property
    def longest_wait(self) -> float:
        """Seconds between two attempts or looks, at most."""
        return min(15.0, self.step / 20)


class AtlasTransport(Transport):
    """Stands in the place of `requests` in the official client; returns good answers only.

    Parameters
    ----------
    key : Key
    limits : Limits
    """

    def __init__(self, key: Key, limits: Limits) -> None:
        super().__init__(key, limits.request, "talking to Atlas")
        self.limits = limits
        self.begin()

    def begin(self) -> None:
        """Begin a step: from now on `Limits.step` seconds are left."""
        self.deadline = time.monotonic() + self.limits.step

    def has_time(self, pause: float = 0.0) -> bool:
        """Tell whether a request made after `pause` seconds ends within the step."""
        return time.monotonic() + pause + self.limits.longest_request <= self.deadline

    def request(self, method: str, url: str, **arguments: Any) -> Answer:
        """Send a request, again after failures that may pass where that is harmless; return its good answer.

        Raises
        ------
        PassingError
            It failed, and may not be repeated blindly.
        RefusedError, LockedError
            And their kinds.
        AtlasError
            It failed until the step was over.
        CredentialsError
            The key is refused.
        """
        if hasattr(arguments.get("data"), "read"):
            arguments["data"] = arguments["data"].read()  # as bytes it is sent within the deadline
        if urlsplit(url).path in _ONCE:
            return self._send(method, url, arguments)
        wait, attempts = self.limits.first_wait, 1
        while True:
            try:
                return self._send(method, url, arguments)
            except PassingError as error:
                pause = max(error.pause, wait * random.uniform(0.5, 1.0))
                if not self.has_time(pause):
                    raise AtlasError(
                        f"given up after {attempts} attempts, as a further one might not end within "
                        f"{self.limits.step:g} s: {error}"
                    ) from None
                time.sleep(pause)
                wait, attempts = min(2 * wait, self.limits.longest_wait), attempts + 1

    def _send(self, method: str, url: str, arguments: dict[str, Any]) -> Answer:
        if time.monotonic() > self.deadline:
            raise AtlasError(f"given up, as Atlas did not answer usably within {self.limits.step:g} s")
        try:
            answer = super().request(method, url, **arguments)
        except NoAnswerError as error:
            raise PassingError(str(error)) from None
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
                    f"Atlas answered {status} with a page in place of data: a proxy's? {excerpt(answer)}"
                )
            return
        detail = _detail(answer)
        found = self.key.scrub(f"Atlas answered {status} to {path}: {detail or excerpt(answer)}")
        named = _named(detail or "")
        if named is not None:
            raise named(found)
        if status == 401:
            raise CredentialsError(f"the key from {self.key.source} was refused; {PLACES}. {found}")
        if status == 413 and "/data/add/" in path:
            raise TooLargeError(found)
        if detail is None or status in (408, 413, 425, 429) or status >= 500:
            raise PassingError(found, retry_after(answer.headers.get("Retry-After")))
        raise (NotFoundError if status == 404 else RefusedError)(found)


def _named(detail: str) -> type[AtlasError] | None:
    """Return the failure that the server's words name, whatever its status and the form of its body."""
    words: Mapping[str, type[AtlasError]] = {
        "due to ID conflict": ConflictError,
        "transaction lock is held": LockedError,
        "currently indexing": LockedError,
        "exceeds your organization limit": LimitError,
    }
    return next((kind for text, kind in words.items() if text in detail), None)


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


def excerpt(answer: Answer) -> str:
    """Return the beginning of an answer's body, on one line."""
    text = " ".join(answer.text.split())
    return text if len(text) <= 200 else text[:200] + "…"
