"""What is being waited for, in words: one line when a wait begins, and another every few seconds while it goes on.

Whoever waits for a service, for its limit or for another process says so here, with the reason and the seconds. The
lines go to the logger `LOGGER`, which the command line switches off with ``-q``. When to wait is left to who does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from embedstore.errors import ServiceError

LOGGER: Final = "embedstore.waits"
SAY_EVERY: Final = 8.0  # seconds after which somebody who waits hears of it again

_log = logging.getLogger(LOGGER)
_thread = threading.local()


class WaitEndedError(ServiceError):
    """A wait was cut short, as nobody wants any more what would have come after it; nothing was sent."""


@contextmanager
def ending_with(over: threading.Event) -> Iterator[None]:
    """Let `sleep` in this thread end with WaitEndedError once `over` is set: an interrupt meets another thread."""
    before = getattr(_thread, "over", None)
    _thread.over = over
    try:
        yield
    finally:
        _thread.over = before


def sleep(seconds: float) -> None:
    """Sleep; see `ending_with`."""
    over: threading.Event | None = getattr(_thread, "over", None)
    if over is None:
        time.sleep(seconds)
    elif over.wait(seconds):
        raise WaitEndedError("a wait was cut short, and nothing was sent after it")


def moment_after(seconds: float, now: float | None = None) -> str:
    """Return when to come back, in words; `now` is in seconds since the epoch."""
    moment = datetime.fromtimestamp((time.time() if now is None else now) + seconds)
    return f"run the same again at {moment:%H:%M:%S}"


class Notices:
    """The lines of one embedder, limiter or run; threads that wait for the same thing share one, and say it once.

    `clock` returns seconds; only differences count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._until: dict[str, float] = {}

    def say(self, reason: str, line: str, seconds: float = SAY_EVERY) -> bool:
        """Say a line, unless one for the same reason was said and its time is not over; return whether it was said.

        For the next `seconds` nothing more is said for this reason.
        """
        with self._lock:
            now = self._clock()
            if now < self._until.get(reason, now):
                return False
            self._until = {known: until for known, until in self._until.items() if until > now}
            self._until[reason] = now + seconds
        _log.warning("%s", line)
        return True

    def due(self, reason: str) -> float:
        """Return the seconds for which nothing is said for this reason."""
        with self._lock:
            return max(0.0, self._until.get(reason, 0.0) - self._clock())

    def quiet(self, reason: str, seconds: float = SAY_EVERY) -> None:
        """Say nothing for this reason for the next `seconds`."""
        with self._lock:
            self._until[reason] = self._clock() + seconds

    def sleep(self, seconds: float, reason: str) -> None:
        """Sleep, and say every `SAY_EVERY` seconds how long it still takes; the first line is the caller's."""
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            sleep(min(left, SAY_EVERY))
            if (left := end - self._clock()) > 1:
                self.say(reason, f"waiting {left:.0f} s: {reason}", min(left, SAY_EVERY) - 0.1)

    @contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """Say every `SAY_EVERY` seconds, as long as the context lasts, for how long `what` has been waited for."""
        over = threading.Event()
        began = time.monotonic()

        def watch() -> None:
            while not over.wait(SAY_EVERY):
                self.say(what, f"waiting for {what}, {time.monotonic() - began:.0f} s so far", SAY_EVERY - 0.5)

        threading.Thread(target=watch, name="embedstore-watch", daemon=True).start()
        try:
            yield
        finally:
            over.set()
