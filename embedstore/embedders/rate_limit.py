"""The rate limit of Nomic's service, kept by all processes of one user on one machine together.

The times of the last requests lie in one small file for each address, guarded by a lock file. How many may leave,
and in how long, is said here and nowhere else; sending, and what to do about a refusal, is left to `nomic_api`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from filelock import FileLock

from embedstore import files
from embedstore.settings import state_dir

_log = logging.getLogger("embedstore")

REQUESTS: Final = 1200  # requests that the service takes in a window
WINDOW: Final = 301.0  # seconds: the service's five minutes, and one more, as requests arrive later than they leave
_LONG: Final = 2.0  # seconds that nobody waits without being told
LONGEST_BLOCK: Final = 3600.0  # seconds for which `RateLimiter.block` can stop requests at most


def shared_limiter(address: str) -> RateLimiter:
    """Return the limiter that all processes of this user share for the service at `address`."""
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    return RateLimiter(REQUESTS, WINDOW, state_dir() / f"nomic-requests-{name}.json")


class RateLimiter:
    """Lets at most `limit` requests leave in any stretch of `window` seconds, over all processes.

    Limiters with the same `path`, the file of the times, share one limit. `clock` returns seconds since the epoch, on
    which the processes must agree.
    """

    def __init__(
        self,
        limit: int,
        window: float,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if limit < 1 or window <= 0:
            raise ValueError(f"a rate limit needs limit >= 1 and window > 0; found {limit} and {window}")
        self.limit, self.window, self.path = limit, window, path
        self._clock, self._sleep = clock, sleep
        self._threads = threading.Lock()
        self._told = 0.0  # until when it was said that is waited
        path.parent.mkdir(parents=True, exist_ok=True)
        self._processes = FileLock(path.with_name(path.name + ".lock"))

    def acquire(self) -> float:
        """Wait until one more request may leave, count it, and return the seconds waited."""
        waited = 0.0
        while (seconds := self._try()) > 0:
            self._tell(seconds)
            self._sleep(seconds)
            waited += seconds
        return waited

    def _tell(self, seconds: float) -> None:
        """Say that a long wait begins, and why: once, however many threads begin to wait."""
        with self._threads:
            end = self._clock() + seconds
            is_new = seconds >= _LONG and end > self._told + _LONG
            self._told = end if is_new else self._told
        if is_new:
            _log.warning(
                "waiting %.0f s: Nomic's service takes %s requests in %.0f s, or has asked for a pause",
                *(seconds, f"{self.limit:,}", self.window),
            )

    def block(self, seconds: float) -> None:
        """Let no request of any process leave for `seconds`, at most `LONGEST_BLOCK`, as a ``Retry-After`` asks."""
        with self._threads, self._processes:
            times, until = self._read()
            self._write(times, max(until, self._clock() + min(seconds, LONGEST_BLOCK)))

    def _try(self) -> float:
        """Count a request and return 0, or return the seconds after which to ask again."""
        with self._threads, self._processes:
            times, until = self._read()
            now = self._clock()
            if until > now:
                return until - now
            if len(times) >= self.limit:
                return max(times[-self.limit] + self.window - now, 1e-3)
            self._write([*times, now], until)
            return 0.0

    def _read(self) -> tuple[list[float], float]:
        """Return the times inside the window, ascending, and until when all is blocked."""
        now = self._clock()
        try:
            state = json.loads(self.path.read_text())
            times = sorted(float(moment) for moment in state["times"])
            until = float(state["until"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return [], 0.0  # not there yet, or not our file any more; the service's own 429 still holds
        # A clock that was set back leaves times far ahead, which must not block for hours.
        near = [moment for moment in times if abs(now - moment) < self.window]
        return near, until if until <= now + LONGEST_BLOCK else 0.0

    def _write(self, times: list[float], until: float) -> None:
        files.replace(self.path, json.dumps({"times": times, "until": until}), durable=False)
