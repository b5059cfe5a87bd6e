"""A rate limit over a rolling window, kept by all processes of one user on one machine together.

The times of the last requests lie in one small file, guarded by a lock file. It knows no service; the numbers
come from `nomic_api`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from platformdirs import user_state_path

STATE_VARIABLE = "EMBEDSTORE_STATE_DIR"
"""Environment variable that puts the state shared by processes into another folder."""


def state_dir() -> Path:
    """Return the folder of the state that this user's processes share; it may not exist yet."""
    given = os.environ.get(STATE_VARIABLE)
    return Path(given) if given else user_state_path("embedstore", appauthor=False)


LONGEST_BLOCK = 3600.0
"""Seconds for which `RateLimiter.block` can stop requests at most."""


class RateLimiter:
    """Lets at most `limit` requests leave in any stretch of `window` seconds, over all processes.

    Parameters
    ----------
    limit : int
        Requests, at least 1.
    window : float
        Seconds.
    path : Path
        File of the times; limiters with the same path share one limit.
    clock : Callable[[], float]
        Seconds since the epoch; the processes must agree on it.
    sleep : Callable[[float], None]
        Waits for so many seconds.

    Examples
    --------
    >>> import tempfile
    >>> limiter = RateLimiter(2, 60.0, Path(tempfile.mkdtemp()) / "times.json")
    >>> limiter.acquire(), limiter.acquire()
    (0.0, 0.0)
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
        path.parent.mkdir(parents=True, exist_ok=True)
        self._processes = FileLock(path.with_name(path.name + ".lock"))

    def acquire(self) -> float:
        """Wait until one more request may leave, and count it.

        Returns
        -------
        float
            Seconds waited.
        """
        waited = 0.0
        while (seconds := self._try()) > 0:
            self._sleep(seconds)
            waited += seconds
        return waited

    def block(self, seconds: float) -> None:
        """Let no request of any process leave for `seconds` from now, as a ``Retry-After`` asks.

        More than `LONGEST_BLOCK` counts as that.
        """
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
        except FileNotFoundError:
            return [], 0.0
        except (ValueError, KeyError, TypeError):
            return [], 0.0  # not our file any more; the service's own 429 still holds
        # A clock that was set back leaves times far ahead, which must not block for hours.
        near = [moment for moment in times if abs(now - moment) < self.window]
        return near, until if until <= now + LONGEST_BLOCK else 0.0

    def _write(self, times: list[float], until: float) -> None:
        """Replace the file as a whole."""
        beside = self.path.with_name(self.path.name + ".new")
        beside.write_text(json.dumps({"times": times, "until": until}))
        os.replace(beside, self.path)
