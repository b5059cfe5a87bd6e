"""What all readers of this process may have in memory together, and how each waits for its turn.

Three budgets of bytes: `FILES` that readers hold whole, `CARRIED` ones that were read while their source was listed,
and `PIXELS`, pictures while they are decoded. A reader takes its turn of FILES before that of PIXELS and never waits
for CARRIED, so none waits for another in a circle; turns come in the order in which they were asked for. With 0.3 GB
for the program itself, 0.1 GB for prepared pictures and 0.3 GB for a page of a table the whole process stays below
1.5 GB, whatever it is given.

Within `holding` a turn lasts until the end of the block, as what was read does. How much a picture takes is `headers`'
business.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from embedstore.errors import ImageError

LARGEST_FILE = 100 << 20
"""Most bytes of a picture's file that are held in memory, 100 MiB: a download, a member of an archive, a cell."""

_POLL_SECONDS = 0.2


class StoppedError(ImageError):
    """What was read is wanted no more: the run that asked for it has ended."""


class Turn:
    """Bytes of a budget, taken until `release`; at the latest until nobody refers to it any more."""

    def __init__(self, budget: Budget, amount: int) -> None:
        self._budget, self.amount = budget, amount

    def release(self) -> None:
        """Give the bytes back; once is enough, and more often does no harm."""
        amount, self.amount = self.amount, 0
        if amount:
            self._budget.give_back(amount)

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    __del__ = release


class Budget:
    """Bytes that threads share: a turn is had at once where there is room and nobody waits, else in order."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._waiting: deque[object] = deque()
        # A turn may be given back by the garbage collector, in a thread that is inside `take`: hence reentrant.
        self._changed = threading.Condition(threading.RLock())

    def take(self, amount: int, stopped: threading.Event | None = None) -> Turn:
        """Wait for `amount` bytes; more than there are counts as all. Raises StoppedError once `stopped` is set."""
        amount, ticket = max(0, min(amount, self.total)), object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._free < amount:
                    if stopped is not None and stopped.is_set():
                        raise StoppedError("the reading was stopped")
                    self._changed.wait(_POLL_SECONDS)
                self._free -= amount
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            return Turn(self, amount)

    def give_back(self, amount: int) -> None:
        """Make room for others; only a `Turn` calls this."""
        with self._changed:
            self._free += amount
            self._changed.notify_all()


FILES = Budget(LARGEST_FILE)
CARRIED = Budget(LARGEST_FILE)
PIXELS = Budget(640 << 20)


@dataclass
class _Held:
    """What the thread that is in a block of `holding` has taken."""

    file: Turn | None = None
    pixels: Turn | None = None
    stopped: threading.Event | None = None

    def release(self) -> None:
        for turn in (self.pixels, self.file):
            if turn is not None:
                turn.release()
        self.pixels = self.file = None


class _Thread(threading.local):
    held: _Held | None = None


_thread = _Thread()


@contextmanager
def holding(stopped: threading.Event | None = None) -> Iterator[None]:
    """Let what this thread reads and decodes count until the end of the block, one picture at a time."""
    before, _thread.held = _thread.held, _Held(stopped=stopped)
    try:
        yield
    finally:
        _thread.held.release()
        _thread.held = before


def stopped() -> threading.Event | None:
    """Return the event that ends this thread's waiting, if the block that it is in has one."""
    return _thread.held.stopped if _thread.held is not None else None


def hold_file(size: int) -> None:
    """Wait until a file of this size may be read whole.

    Outside of `holding` nobody waits, and a thread has one file at a time. Raises ImageError for one that is too large.
    """
    refuse_large(size)
    held = _thread.held
    if held is not None:
        held.release()
        held.file = FILES.take(size, held.stopped)


def adopt(turn: Turn) -> None:
    """Let a turn of CARRIED, taken while the source was listed, last as long as what this thread reads itself."""
    held = _thread.held
    if held is None:
        turn.release()
        return
    held.release()
    held.file = turn


def hold_pixels(amount: int) -> Turn:
    """Wait until a picture may be decoded; outside of `holding` the caller gives the turn back after that."""
    held = _thread.held
    if held is None:
        return PIXELS.take(amount)
    if held.pixels is not None:
        held.pixels.release()
    held.pixels = PIXELS.take(amount, held.stopped)
    return Turn(PIXELS, 0)  # the block gives it back


def refuse_large(size: int) -> None:
    """Raise ImageError for a file that is too large to be held in memory."""
    if size > LARGEST_FILE:
        raise ImageError(
            f"the file has {size:,} bytes, more than the {LARGEST_FILE:,} that are read into memory for one picture; "
            "save the picture smaller, or as a file in a folder of its own, which is read piece by piece"
        )
