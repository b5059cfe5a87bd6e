"""The rate limit of a service, kept by all processes of one user on one machine together.

The times of the last requests lie in one small file for each address, guarded by a lock file. How many may leave,
and in how long, is said here and nowhere else; sending, and what to do about a refusal, is left to `remote`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock

from embedstore import files
from embedstore.embedders import waits
from embedstore.embedders.waits import SAY_EVERY, Notices, moment_after
from embedstore.errors import ServiceError
from embedstore.settings import STATE_DIR, rate_limit, state_dir

_log = logging.getLogger("embedstore")
REQUESTS: Final = 1200  # requests that Nomic's service takes in a window
WINDOW: Final = 301.0  # seconds: the service's five minutes, and one more, as requests arrive later than they leave
_State = tuple[list[float], float, str]
"""The times of requests, until when none may leave, and why."""
_NOTHING: Final[_State] = ([], 0.0, "")
_alone: dict[Path, _State] = {}
"""What this process knows by itself, where the file cannot be written."""
_alone_lock = threading.RLock()
_SLACK: Final = WINDOW / 300.0
_LONG: Final = 2.0  # seconds that nobody waits without being told
LONGEST_BLOCK: Final = 3600.0  # seconds for which `RateLimiter.block` can stop requests at most


class LongWaitError(ServiceError):
    """The next request may leave only after a longer wait than is allowed; nothing was sent."""


def shared_limiter(address: str) -> RateLimiter:
    """Return the limiter that all processes of this user share for Nomic's service at `address`.

    ``EMBEDSTORE_RATE_LIMIT`` may name another limit, see `settings.rate_limit`. The first half of a window's requests
    may leave at once, the others are spread, so that nobody stands still for minutes.
    """
    requests, seconds = rate_limit() or (REQUESTS, 300.0)
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    path = state_dir() / f"nomic-requests-{name}.json"
    at_once = math.ceil(requests / 2)
    return RateLimiter(requests, seconds * _SLACK, path, at_once=at_once, service="Nomic's service")


class RateLimiter:
    """Lets at most `limit` requests leave in any stretch of `window` seconds, over all processes.

    Limiters with the same `path`, the file of the times, share one limit. Once `at_once` of them have left, by default
    all, those that are left are spread evenly over the time until the window moves on. `clock` returns seconds since
    the epoch, on which the processes must agree; `service` is its name in messages.
    """

    def __init__(
        self,
        limit: int,
        window: float,
        path: Path,
        *,
        at_once: int | None = None,
        service: str = "the service",
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = waits.sleep,
    ) -> None:
        if limit < 1 or window <= 0:
            raise ValueError(f"a rate limit needs limit >= 1 and window > 0; found {limit} and {window}")
        self.limit, self.window, self.path, self.service = limit, window, path, service
        self._at_once = limit if at_once is None else at_once
        self._clock, self._sleep = clock, sleep
        self._threads = threading.Lock()
        self._notices = Notices(clock)
        self._unsaid = 0.0  # seconds waited since the last line
        self._processes = FileLock(path.with_name(path.name + ".lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._be_alone(error, _NOTHING)

    def acquire(self, longest: float = math.inf) -> float:
        """Wait until one more request may leave, count it, and return the seconds waited.

        Raises LongWaitError at once where it is known that this takes more than `longest` seconds.
        """
        waited = 0.0
        while True:
            seconds, reason = self._try()
            if seconds <= 0:
                return waited
            if seconds > longest:
                again = moment_after(seconds, self._clock())
                raise LongWaitError(
                    f"{reason}: {seconds:.0f} s are left, and no more than {longest:g} s are waited here, so nothing "
                    f"was sent; {again}. What was asked before is answered now"
                )
            self._tell(seconds, reason)
            piece = min(seconds, self._notices.due("limit") or SAY_EVERY)
            self._sleep(piece)
            waited += piece

    def _tell(self, seconds: float, reason: str) -> None:
        """Say that it is waited, and why, every few seconds, however many threads wait; not for short waits."""
        with self._threads:
            self._unsaid += min(seconds, SAY_EVERY)
            due = self._unsaid >= _LONG
        if due and self._notices.say("limit", f"waiting {seconds:.{0 if seconds >= 1 else 1}f} s: {reason}"):
            with self._threads:
                self._unsaid = 0.0

    def block(self, seconds: float, why: str = "") -> None:
        """Let no request of any process leave for `seconds`, at most `LONGEST_BLOCK`, as a ``Retry-After`` asks.

        `why` is what the service said, for those who will wait.
        """
        with self._locked():
            times, until, reason = self._read()
            end = self._clock() + min(seconds, LONGEST_BLOCK)
            self._write(times, *((until, reason) if until >= end else (end, why)))
        self._notices.quiet("limit")  # whoever was asked has said so

    def _try(self) -> tuple[float, str]:
        """Count a request and return 0 seconds, or return the seconds after which to ask again, and the reason."""
        with self._locked():
            times, until, why = self._read()
            now = self._clock()
            if until > now:
                return until - now, why or f"{self.service} has asked for a pause"
            if (held := self._next(times) - now) > 0:
                shared = "all processes of this user on this machine together"
                return max(held, 1e-3), f"{self.service} takes {self.limit:,} requests in {self.window:.0f} s, {shared}"
            self._write([*times, now], until, why)
            return 0.0, ""

    def _next(self, times: list[float]) -> float:
        """Return the moment at which the next request may leave, after those of the window."""
        if len(times) >= self.limit:
            return times[-self.limit] + self.window
        if len(times) < self._at_once:
            return -math.inf
        return times[-1] + (times[0] + self.window - times[-1]) / (self.limit - len(times) + 1)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other thread, and no other process, come between reading and writing."""
        with self._threads:
            if self.path not in _alone:
                try:
                    self._processes.acquire()
                except OSError as error:
                    self._be_alone(error, _NOTHING)
            try:
                with _alone_lock:
                    yield
            finally:
                if self._processes.is_locked:
                    self._processes.release()

    def _be_alone(self, error: OSError, state: _State) -> None:
        """Go on without a file, and say so: a limit that is kept by each process is better than no answer."""
        if self.path in _alone:
            return
        _alone[self.path] = state
        _log.warning(
            "the limit of %s is kept by this process alone: %s; %s names a folder that can be written to",
            self.service,
            error,
            STATE_DIR,
        )

    def _read(self) -> _State:
        """Return the times inside the window, ascending, until when all is blocked, and why."""
        now = self._clock()
        try:
            if self.path in _alone:
                times, until, why = _alone[self.path]
            else:
                state = json.loads(self.path.read_text())
                times = sorted(float(moment) for moment in state["times"])
                until, why = float(state["until"]), str(state.get("why", ""))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return _NOTHING  # not there yet, or not our file any more; the service's own 429 still holds
        except OSError as error:
            self._be_alone(error, _NOTHING)
            return _NOTHING
        # A clock that was set back leaves times far ahead, which must not block for hours.
        near = [moment for moment in times if abs(now - moment) < self.window]
        return near, until if until <= now + LONGEST_BLOCK else 0.0, why

    def _write(self, times: list[float], until: float, why: str) -> None:
        if self.path in _alone:
            _alone[self.path] = times, until, why
            return
        try:
            files.replace(self.path, json.dumps({"times": times, "until": until, "why": why}), durable=False)
        except OSError as error:
            self._be_alone(error, (times, until, why))
