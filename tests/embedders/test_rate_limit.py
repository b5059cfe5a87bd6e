"""A rate limit over a rolling window, shared by processes."""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.embedders.rate_limit import LONGEST_BLOCK, LongWaitError, RateLimiter, shared_limiter
from embedstore.errors import InputError


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "times.json"


def limiter(path: Path, clock: Clock, limit: int = 3, window: float = 10.0) -> RateLimiter:
    return RateLimiter(limit, window, path, clock=clock, sleep=clock.sleep)


def test_the_window_rolls(path: Path, clock: Clock) -> None:
    """The fourth of three a window waits until the first is a window old, not until some period starts anew."""
    limited = limiter(path, clock)
    start = clock.now
    left = []
    for pause in (0, 4, 4, 0, 0, 0):
        clock.now += pause
        limited.acquire()
        left.append(clock.now - start)
    assert left == [0, 4, 8, 10, 14, 18]


@given(pauses=st.lists(st.floats(0, 7), min_size=1, max_size=40), limit=st.integers(1, 5))
def test_no_stretch_of_a_window_has_more_than_the_limit(
    tmp_path_factory: pytest.TempPathFactory, pauses: list[float], limit: int
) -> None:
    """Whatever the pauses, no half-open stretch of a window's length holds more than `limit` requests."""
    clock = Clock()
    limited = limiter(tmp_path_factory.mktemp("rate") / "times.json", clock, limit, 10.0)
    left = []
    for pause in pauses:
        clock.now += pause
        limited.acquire()
        left.append(clock.now)
    for first in left:
        assert sum(first <= moment < first + 10.0 - 1e-6 for moment in left) <= limit


def test_acquire_returns_what_it_waited(path: Path, clock: Clock) -> None:
    """The seconds returned are the seconds that went by."""
    limited = limiter(path, clock, limit=1)
    assert limited.acquire() == 0.0
    before = clock.now
    assert limited.acquire() == pytest.approx(clock.now - before)
    assert clock.now - before == pytest.approx(10.0)


def test_a_block_holds_for_all_limiters_of_the_path(path: Path, clock: Clock) -> None:
    """What one limiter was told to wait, another of the same file waits too; the longer of two blocks holds."""
    one, other = limiter(path, clock), limiter(path, clock)
    one.block(5.0)
    other.block(2.0)
    assert other.acquire() == pytest.approx(5.0)
    assert one.acquire() == 0.0


@pytest.mark.parametrize("seconds", [86400, 9])
def test_a_clock_set_back_does_not_block_for_ever(path: Path, clock: Clock, seconds: float) -> None:
    """After the clock was set back, by a day or by a moment, requests wait two windows at most."""
    limited = limiter(path, clock)
    for _ in range(3):
        limited.acquire()
    limited.block(1.0)
    clock.now -= seconds
    assert limited.acquire() <= 20.0


def test_a_block_has_an_end(path: Path, clock: Clock) -> None:
    """A block for years is a block for the longest time there is."""
    limited = limiter(path, clock)
    limited.block(1e9)
    assert limited.acquire() == pytest.approx(LONGEST_BLOCK)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"times": 3}', '{"times": [], "until": "soon"}'])
def test_a_damaged_file_starts_anew(path: Path, clock: Clock, content: str) -> None:
    """A file that is not ours any more is replaced."""
    limited = limiter(path, clock)
    path.write_text(content)
    assert limited.acquire() == 0.0
    assert json.loads(path.read_text())["times"] == [clock.now]


def test_old_times_are_forgotten(path: Path, clock: Clock) -> None:
    """The file holds one window, however long the limiter is in use."""
    limited = limiter(path, clock)
    for _ in range(50):
        limited.acquire()
    assert len(json.loads(path.read_text())["times"]) <= 3


@pytest.mark.parametrize(("limit", "window"), [(0, 1.0), (-1, 1.0), (1, 0.0)])
def test_a_limit_that_lets_nothing_pass_is_refused(path: Path, limit: int, window: float) -> None:
    """A limit below one or a window of no length is an error."""
    with pytest.raises(ValueError, match="limit >= 1"):
        RateLimiter(limit, window, path)


def take(path: Path, n: int, start: multiprocessing.synchronize.Barrier, gave_up: object) -> None:
    """Take `n` turns in another process; where a turn would have to wait, count it and stop."""

    class Full(Exception):
        pass

    def sleep(seconds: float) -> None:
        raise Full

    limited = RateLimiter(25, 3600.0, path, sleep=sleep)
    start.wait()
    for _ in range(n):
        try:
            limited.acquire()
        except Full:
            with gave_up.get_lock():
                gave_up.value += 1


def test_processes_share_the_limit(path: Path) -> None:
    """Two processes of 20 turns under a limit of 25 get 25 turns together, none lost and none doubled."""
    context = multiprocessing.get_context("spawn")
    start, gave_up = context.Barrier(2), context.Value("i", 0)
    processes = [context.Process(target=take, args=(path, 20, start, gave_up)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(json.loads(path.read_text())["times"]) == 25
    assert gave_up.value == 15


def test_threads_share_a_limiter(path: Path) -> None:
    """Eight threads of one limiter lose no turn."""
    limited = RateLimiter(1000, 3600.0, path)
    threads = [threading.Thread(target=lambda: [limited.acquire() for _ in range(10)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())["times"]) == 80


def test_a_wait_is_said_every_few_seconds(path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """With what is left of it and the reason, once for all who wait; nobody is left without a word for ten seconds."""
    said: list[float] = []
    limited = limiter(path, clock, limit=1, window=300.0)
    limited.service = "Nomic's service"
    limited._sleep = lambda seconds: (said.append(seconds), clock.sleep(seconds))[1]  # type: ignore[func-returns-value]
    limited.acquire()
    limited.acquire()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("waiting 300 s: Nomic's service takes 1 requests in 300 s")
    assert [int(line.split()[1]) for line in lines] == list(range(300, 0, -8))
    assert max(said) < 10
    caplog.clear()
    clock.now += 299.5
    limited.acquire()
    assert caplog.text == "", "half a second is not worth a line"


def test_many_short_waits_are_said_too(path: Path, clock: Clock) -> None:
    """Who is held back again and again hears of it every few seconds."""
    limited = RateLimiter(100, 300.0, path, at_once=50, clock=clock, sleep=clock.sleep)
    said: list[float] = []
    logging.getLogger("embedstore.waits").addFilter(heard := lambda _: said.append(clock.now) is None)
    try:
        for _ in range(70):
            limited.acquire()
    finally:
        logging.getLogger("embedstore.waits").removeFilter(heard)
    assert clock.now - said[0] == pytest.approx(20 * 300 / 51)
    assert max(after - before for before, after in itertools.pairwise(said)) < 10


def test_a_wait_that_is_too_long_is_an_error_at_once(path: Path, clock: Clock) -> None:
    """It says why, how long, and when to come back; a shorter one is made."""
    limited = limiter(path, clock)
    limited.block(300.0, "it answered 429; it asks to wait")
    before = clock.now
    with pytest.raises(LongWaitError, match=r"429; it asks to wait: (300|299) s are left.*20 s.*again at \d\d:"):
        limited.acquire(longest=20)
    assert clock.now == before
    clock.now += 290
    assert limited.acquire(longest=20) == pytest.approx(10)


@given(limit=st.integers(2, 60), ask=st.integers(1, 200), at_once=st.integers(1, 30))
def test_what_is_left_of_a_window_is_spread(
    tmp_path_factory: pytest.TempPathFactory, limit: int, ask: int, at_once: int
) -> None:
    """Never more than the limit in a window, never a pause longer than an even share, and no slower in the long run."""
    clock = Clock()
    at_once = min(at_once, limit - 1)
    path = tmp_path_factory.mktemp("rate") / "times.json"
    limited = RateLimiter(limit, 100.0, path, at_once=at_once, clock=clock, sleep=clock.sleep)
    left = []
    for _ in range(ask):
        limited.acquire()
        left.append(clock.now)
    for first in left:
        assert sum(first <= moment < first + 100.0 - 1e-6 for moment in left) <= limit
    gaps = [after - before for before, after in itertools.pairwise(left)]
    assert max(gaps, default=0) <= 100.0 / (limit - at_once + 1) + 1e-3
    assert left[-1] - left[0] <= 100.0 * (ask / limit + 1)


def test_another_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMBEDSTORE_RATE_LIMIT says requests and seconds; what is neither is an error that shows the form."""
    monkeypatch.setenv("EMBEDSTORE_RATE_LIMIT", "60/5")
    limited = shared_limiter("http://127.0.0.1:1")
    assert (limited.limit, limited.window) == (60, pytest.approx(5, rel=0.01))
    assert limited.window > 5
    for bad in ("60", "0/5", "60/0", "a/b", "-1/5"):
        monkeypatch.setenv("EMBEDSTORE_RATE_LIMIT", bad)
        with pytest.raises(InputError, match="such as 1200/300"):
            shared_limiter("http://127.0.0.1:1")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_where_no_file_can_be_written_the_process_keeps_the_limit(
    tmp_path: Path, clock: Clock, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A home that cannot be written to, as in many containers, costs one warning; limit and pauses hold."""
    path = tmp_path / "deep" / "times.json"
    if what == "folder":
        (tmp_path / "deep").write_text("in the way")
    else:
        path.mkdir(parents=True)
        (path / "in-the-way").touch()
    limited = limiter(path, clock)
    start = clock.now
    left = []
    for _ in range(4):
        limited.acquire()
        left.append(clock.now - start)
    assert left == [0, 0, 0, 10]
    limited.block(30.0, "busy")
    assert limited.acquire() == 30.0
    assert [record.message.split(":")[0] for record in caplog.records if record.name == "embedstore"] == [
        "the limit of the service is kept by this process alone"
    ]
