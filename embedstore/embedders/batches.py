"""The one loop that embeds: prepared pictures -> batches under way -> vectors, or what is wrong with a picture.

A batch that the service refuses is halved until the pictures that are to blame stand alone. Whatever ends the loop,
what came back before is handed on first. Where it is kept, and whether a picture need be embedded at all, is left to
the callers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from embedstore.embedders import protocol
from embedstore.embedders.protocol import Embedder
from embedstore.embedders.waits import LOGGER, WaitEndedError, ending_with
from embedstore.errors import BudgetSpentError, EmbedderError, ImageError, RejectedImagesError
from embedstore.vectors import Vectors

MOST_WORKERS = 256
MOST_BYTES = 64 << 20
"""Prepared pictures that are under way together; one batch always is, and a batch leaves early at a quarter of it."""
MOST_KEPT = 1_024
"""Pictures that are handed on together once they have come back."""
MOST_PAUSE = 0.2
"""Seconds for which what has come back gathers at most."""
_log = logging.getLogger(LOGGER)
TEXTS_AT_ONCE = 40
"""Texts that are embedded before their vectors are handed on: what a failure can cost."""

Batch = list[tuple[str, Any]]
"""Keys of pictures, each with what the embedder's ``prepare`` made of it."""
Outcome = Vectors | EmbedderError | ImageError
"""A unit vector of shape (dim,), or why there is none."""


def embed(
    items: Iterable[tuple[str, Any] | None],
    embedder: Callable[[], Embedder],
    keep: Callable[[list[tuple[str, Outcome]]], None],
    *,
    workers: int | None = None,
    batch_size: int | None = None,
    starting: Callable[[Batch], Batch] = lambda batch: batch,
) -> None:
    """Embed prepared pictures, several batches at once.

    `items` are taken as fast as batches leave; None stands for a picture that needs no embedding, and only gives the
    loop the time to hand on what has come back. `embedder` is called when there is something to embed, and not before;
    None for `workers` (calls under way at once) and `batch_size` asks it. `starting` gets each batch before it leaves,
    and returns what of it is to leave. `keep` gets what has come back, of one batch or several, as (key, vector or
    error), in the calling thread; an interrupt while it works makes the same come again. Where it takes long, what
    comes back gathers for as long as it took before: a sync of the disk costs the same for many.

    Raises the first error that lies not in a picture, of a spent budget and a harder one the harder; nothing more is
    sent after it, and what is under way is kept first. After an interrupt too; calls that only wait for their turn, or
    to try again, end at once then.
    """
    with ThreadPoolExecutor(MOST_WORKERS, thread_name_prefix="embedstore-embed") as pool:
        calls = _Calls(pool, embedder, keep, workers, batch_size, starting)
        try:
            for item in items:
                if item is not None:
                    calls.add(item)
                calls.collect_when_due()
                calls.send(full_only=True)
                if calls.failure is not None:
                    break
            calls.send(full_only=False)
        except KeyboardInterrupt:
            late = threading.Timer(1.0, calls.say_late)
            late.daemon = True
            late.start()
            raise
        finally:
            calls.over.set()
            if isinstance(items, Generator):
                items.close()
            pool.shutdown()
            calls.collect(0.0)
    if calls.failure is not None:
        raise calls.failure


def embed_texts(embedder: Embedder, texts: Sequence[str], keep: Callable[[Sequence[str], Vectors], None]) -> None:
    """Embed texts as queries, some at a time; `keep` gets each lot with its vectors before the next is sent."""
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        some = texts[start : start + TEXTS_AT_ONCE]
        keep(some, protocol.texts(embedder, some))


@dataclass
class _Calls:
    """What is gathered, what waits to be sent, what is under way, and what has come back.

    Answers are put down by the thread that got them, so that an interrupt of this one, wherever it strikes, loses none.
    """

    pool: ThreadPoolExecutor
    embedder: Callable[[], Embedder]
    keep: Callable[[list[tuple[str, Outcome]]], None]
    workers: int | None
    batch_size: int | None
    starting: Callable[[Batch], Batch]
    batch: Batch = field(default_factory=list)
    batch_bytes: int = 0
    to_send: deque[Batch] = field(default_factory=deque)
    under_way: int = 0
    bytes_under_way: int = 0
    back: deque[tuple[Batch, Vectors | BaseException]] = field(default_factory=deque)
    arrived: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    failure: Exception | None = None
    due: float = 0.0

    def add(self, item: tuple[str, Any]) -> None:
        """Gather a picture."""
        self.batch.append(item)
        self.batch_bytes += _bytes_of([item])

    def say_late(self) -> None:
        """Say after an interrupt that, and why, the end is still to come."""
        if self.under_way > len(self.back):
            _log.warning("interrupted: answers are on their way, perhaps paid for, and are waited for")

    def send(self, *, full_only: bool) -> None:
        """Give batches to the embedder, once the number under way allows; without `full_only` until none is left.

        Nothing is sent after a failure.
        """
        while self.failure is None:
            if self.batch and (not full_only or self._is_full()):
                self.to_send.append(self.batch)
                self.batch, self.batch_bytes = [], 0
            if self.to_send and self._has_room():
                batch = self.starting(self.to_send.popleft())
                if batch:
                    self.under_way += 1
                    self.bytes_under_way += _bytes_of(batch)
                    self.pool.submit(self._call, batch)
            elif self.to_send or (self.under_way and not full_only):
                self.collect(None)
            else:
                return

    def _is_full(self) -> bool:
        if len(self.batch) >= (self.batch_size or self.embedder().batch_size):
            return True
        return self.batch_bytes > MOST_BYTES // 4

    def _has_room(self) -> bool:
        """Return whether a batch may leave: workers are idle, and what is under way has not got too large."""
        if self.under_way and self.bytes_under_way + _bytes_of(self.to_send[0]) > MOST_BYTES:
            return False
        return self.under_way < (self.workers or self.embedder().workers)

    def _call(self, batch: Batch) -> None:
        """Embed a batch, on a thread of the pool."""
        try:
            with ending_with(self.over):
                answer: Vectors | BaseException = protocol.pictures(self.embedder(), [item for _, item in batch])
        except BaseException as error:  # noqa: BLE001  (it is judged, and raised, by the thread that waits)
            answer = error
        self.back.append((batch, answer))
        self.arrived.set()

    def collect_when_due(self) -> None:
        """Hand on what has come back, unless something was just now."""
        if self.back and time.monotonic() >= self.due:
            self.collect(0.0)

    def collect(self, timeout: float | None) -> None:
        """Hand on what has come back, waiting for something for at most `timeout` seconds.

        A batch is forgotten after it was kept, so that an interrupt between the two keeps it twice, rather than
        never. A failure waits until everything that came back with it is kept.
        """
        if self.under_way and not self.back:
            self.arrived.wait(timeout)
        self.arrived.clear()
        while self.back:
            if self._keep_first():
                continue
            batch, answer = self.back[0]
            if isinstance(answer, RejectedImagesError):
                self._halve(batch, answer)
            elif self.failure is None or (
                isinstance(self.failure, BudgetSpentError) and not isinstance(answer, WaitEndedError)
            ):
                self.failure = answer if isinstance(answer, Exception) else EmbedderError(repr(answer))
            self._forget_first()

    def _keep_first(self) -> int:
        """Keep the first batches that have come back, up to one that has failed; return how many these are."""
        outcomes: list[tuple[str, Outcome]] = []
        count = 0
        while count < len(self.back) and len(outcomes) < MOST_KEPT:
            batch, answer = self.back[count]
            if isinstance(answer, BaseException):
                break
            outcomes.extend(zip((key for key, _ in batch), answer, strict=True))
            count += 1
        if count:
            started = time.monotonic()
            self.keep(outcomes)
            for _ in range(count):
                self._forget_first()
            ended = time.monotonic()
            self.due = ended + min(ended - started, MOST_PAUSE)
        return count

    def _forget_first(self) -> None:
        batch, _ = self.back.popleft()
        self.under_way -= 1
        self.bytes_under_way -= _bytes_of(batch)

    def _halve(self, batch: Batch, error: RejectedImagesError) -> None:
        """Send the halves of a refused batch before all others; a picture that is refused alone is to blame."""
        if len(batch) == 1:
            self.keep([(batch[0][0], error)])
            return
        middle = len(batch) // 2
        self.to_send.extendleft((batch[middle:], batch[:middle]))


def _bytes_of(batch: Batch) -> int:
    """Return about how much memory prepared pictures take: bytes and arrays are counted, other things are not."""
    return sum(len(item) if isinstance(item, bytes) else getattr(item, "nbytes", 0) for _, item in batch)
