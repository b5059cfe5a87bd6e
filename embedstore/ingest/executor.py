"""Who reads the records of an `add` and embeds its pictures: `IngestExecutor`, by default threads of this process.

A record -> its hash, and the model's input where its picture is new; or why it cannot be read. Every executor does
that by the functions of this module. What a record means for the store, what is embedded and what is written is
decided by `pipeline`, in this process; the workers of a cluster are `cluster.ray_ingest`'s business.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from embedstore import images
from embedstore.embedders.protocol import Embedder
from embedstore.errors import EmbedderError, ImageError, InputError
from embedstore.images import PictureSource, turns
from embedstore.settings import cores
from embedstore.sources import Failure, Record
from embedstore.storage.thumbnails import Thumbnails

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 64
"""Pictures that are read ahead of the model, as many again as a batch holds."""
CHANGED = "the file was changed while it was read; try again"


@dataclass(slots=True)
class PreparedRecord:
    """A record that has been read: its hash, and the model's input and the upright picture's size where that is new."""

    content_hash: str
    width: int | None = None
    height: int | None = None
    prepared: Any = None
    """What the embedder's ``prepare`` returned, or what stands for it."""


@dataclass(frozen=True)
class Job:
    """What an executor must know of an `add`. Threads may share one.

    `model` returns the embedder, which is loaded when it is first asked for. `holds` tells whether a picture of this
    hash has a vector already. `thumbnails` are None where none are to be kept. `stopped` is set when nothing more is
    wanted. `batch_size` is the user's, None where the embedder is to say.
    """

    model: Callable[[], Embedder]
    holds: Callable[[str], bool]
    thumbnails: Thumbnails | None
    stopped: threading.Event
    batch_size: int | None = None

    def wants_thumbnail(self, record: Record, content_hash: str) -> bool:
        """Tell whether a small copy of a record's picture is to be kept: it is in no file here, and has none yet."""
        return self.thumbnails is not None and not os.path.isabs(record.uri) and self.thumbnails.wants(content_hash)

    def keep_thumbnail(self, record: Record, content_hash: str, make: Callable[[int], bytes]) -> None:
        """Keep what ``make(side)`` returns, where it is wanted; one that cannot be made is done without."""
        if self.thumbnails is not None and self.wants_thumbnail(record, content_hash):
            with contextlib.suppress(ImageError):
                self.thumbnails.keep(content_hash, make)


class IngestExecutor(Protocol):
    """Reads records, and embeds what it has prepared of them."""

    def ahead(self, records: Iterable[Record], count: int | None) -> Iterator[tuple[Record, PreparedRecord | Failure]]:
        """Read records, about `count`, some ahead; yield each with what came of it, in order.

        Raises EmbedderError where the model cannot be had, or the network is switched off: no record can be read then.
        """
        ...

    def read(self, record: Record) -> PreparedRecord | Failure:
        """Read one record; raises as `ahead`."""
        ...

    def embedder(self) -> Embedder:
        """Return what embeds the ``prepared`` of a record read here; loaded when it is first asked for."""
        ...


ExecutorFactory: TypeAlias = Callable[[Job], AbstractContextManager[IngestExecutor]]
"""Makes an executor for a job, for as long as the context lasts."""


@contextlib.contextmanager
def thread_executor(job: Job) -> Iterator[IngestExecutor]:
    """Give an executor on threads of this process."""
    with ThreadPoolExecutor(cores()) as pool:
        yield _ThreadExecutor(job, pool)


class _ThreadExecutor:
    def __init__(self, job: Job, pool: ThreadPoolExecutor) -> None:
        self._job, self._pool = job, pool

    def ahead(self, records: Iterable[Record], count: int | None) -> Iterator[tuple[Record, PreparedRecord | Failure]]:
        window = 4 * cores() + 2 * min(self._job.batch_size or _AHEAD, 4 * _AHEAD)
        return ahead(self._pool, self.read, (record.carried() for record in records), window)

    def read(self, record: Record) -> PreparedRecord | Failure:
        """Read and hash a record; decode and prepare its picture if it is new. The first such picture loads the model.

        Raises EmbedderError where the model cannot be had, or the network is switched off: no record can be read then.
        """
        job = self._job

        def look(content_hash: str, data: PictureSource) -> PreparedRecord:
            if job.holds(content_hash):
                job.keep_thumbnail(record, content_hash, functools.partial(images.thumbnail, data))
                return PreparedRecord(content_hash)
            picture = decoded(content_hash, data)
            job.keep_thumbnail(record, content_hash, functools.partial(images.thumbnail, picture.image))
            return PreparedRecord(content_hash, picture.width, picture.height, job.model().prepare(picture.image))

        seen = examined(record, look, job.stopped)
        return seen if isinstance(seen, Failure) else seen[1]

    def embedder(self) -> Embedder:
        return self._job.model()


def decoded(content_hash: str, data: PictureSource) -> images.Picture:
    """Decode a picture that had this hash when it was looked at; ImageError where it is another by now."""
    picture = images.read(data)
    if picture.content_hash != content_hash:
        raise ImageError(CHANGED)
    return picture


def examined(
    record: Record, look: Callable[[str, PictureSource], T], stopped: threading.Event | None = None
) -> tuple[str, T] | Failure:
    """Load and hash a record; return its hash and what `look` makes of hash and picture.

    Raises EmbedderError, and what `look` does but for ImageError and OSError: what is wrong with a record is returned.
    Waits for its turn of the memory, and holds it until then; ends early once `stopped` is set.
    """
    with turns.holding(stopped):
        try:
            data = record.load()
            content_hash = images.content_hash(data)
        except Exception as error:  # noqa: BLE001  (archives, decoders and users' sources raise anything)
            return wrong_with(record, error)
        try:
            return content_hash, look(content_hash, data)
        except (OSError, ImageError) as error:
            return wrong_with(record, error)


def wrong_with(record: Record, error: Exception) -> Failure:
    """Return what is wrong with a record; what is wrong with this process is raised: no record can be read then."""
    if isinstance(error, EmbedderError):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error
    return Failure(record.uri, reason(error))


def reason(error: Exception) -> str:
    """Return why a record could not be read, on one line, without the path that stands beside it anyway."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    name, text = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, OSError | InputError):
        return text or name
    return f"{name}: {text}" if text else name


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], window: int
) -> Iterator[tuple[T, R]]:
    """Apply a function on a pool, at most `window` items ahead; yield (item, result) in order."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) >= window:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
