"""Records of a source -> what the pipeline takes: hashed, and decoded where the picture is new.

Runs on reader threads, some records ahead of the model. Whatever is wrong with one record, the others go on: it
becomes a `Failure`. What a record means for the store is decided by `known`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from embedstore import images
from embedstore.errors import EmbedderError, ImageError, InputError
from embedstore.sources import Failure, Record, Source, open_source

T = TypeVar("T")


@dataclass(slots=True)
class Ready:
    """A record that has been read: its hash, and the model's input where the picture is new.

    Attributes
    ----------
    content_hash : str
    width, height : int or None
        Pixels of the upright picture; None where it was not decoded.
    prepared : object
        What the embedder's ``prepare`` returned; None where the picture is known.
    """

    content_hash: str
    width: int | None = None
    height: int | None = None
    prepared: Any = None


def read(record: Record, holds: Callable[[str], bool], prepare: Callable[[Any], Any]) -> Ready | Failure:
    """Read and hash a record; decode and prepare its picture unless `holds` tells that it is known.

    Raises
    ------
    EmbedderError
        The embedder cannot be had, or the network is switched off: no record can be read then.
    """
    try:
        data = record.load()
        content_hash = images.content_hash(data)
        if holds(content_hash):
            return Ready(content_hash)
        picture = images.read(data)
    except EmbedderError:
        raise
    except Exception as error:  # noqa: BLE001  (archives, decoders and users' sources raise anything)
        return Failure(record.uri, reason(error))
    try:
        return Ready(content_hash, picture.width, picture.height, prepare(picture.image))
    except ImageError as error:
        return Failure(record.uri, reason(error))


def measured(record: Record, size_of: Callable[[str, Any], int | None]) -> tuple[str, int | None] | Failure:
    """Read and hash a record for a plan, and ask how large its picture will be when it is sent."""
    try:
        data = record.load()
        content_hash = images.content_hash(data)
        return content_hash, size_of(content_hash, data)
    except EmbedderError:
        raise
    except Exception as error:  # noqa: BLE001  (as in `read`)
        return Failure(record.uri, reason(error))


def reason(error: Exception) -> str:
    """Return why a record could not be read, on one line, without the path that stands beside it anyway."""
    if isinstance(error, ImageError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, OSError | InputError):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[Record], T], records: Iterable[Record], window: int
) -> Iterator[tuple[Record, T]]:
    """Apply a function on a pool, at most `window` records ahead; yield (record, result) in order."""
    waiting: deque[tuple[Record, Future[T]]] = deque()
    try:
        for record in records:
            waiting.append((record, pool.submit(function, record)))
            if len(waiting) >= window:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def bar(records: Iterable[T], total: int | None, what: str, progress: bool | None) -> Iterable[T]:
    """Show progress on stderr while iterating: count, rate and time left."""
    from tqdm import tqdm

    disable = None if progress is None else not progress  # None: off when stderr is no terminal
    shown: Iterable[T] = tqdm(
        records, total=total, desc=what, unit=" images", disable=disable, dynamic_ncols=True, leave=False
    )
    return shown


class Chosen(Source):
    """Those records of a source whose uris are in a list, such as the failures of an earlier `add`."""

    def __init__(self, source: Source, uris: Collection[str]) -> None:
        super().__init__()
        self._source = source
        self._uris = set(uris)

    @property
    def failures(self) -> list[Failure]:
        """Of the source, as far as they are in the list."""
        return [failure for failure in self._source.failures if failure.uri in self._uris]

    def describe(self) -> str:
        """Return how many are wanted, and of what."""
        return f"{len(self._uris):,} chosen of: {self._source.describe()}"

    def count(self) -> int:
        """Return how many are wanted."""
        return len(self._uris)

    def __iter__(self) -> Iterator[Record]:
        return (record for record in self._source if record.uri in self._uris)


class Absent(Source):
    """Uris that are no files and no addresses, each a failure."""

    def __init__(self, uris: Sequence[str]) -> None:
        super().__init__()
        for uri in uris:
            self._fail(uri, "it is not there; for rows of tables and archives name their SOURCE too")

    def describe(self) -> str:
        """Return how many there are."""
        return f"{len(self._failures):,} that are not there"

    def count(self) -> int:
        """Return 0: there is nothing to read."""
        return 0

    def __iter__(self) -> Iterator[Record]:
        return iter(())


def open_chosen(source: Any, uris: Sequence[str], **options: Any) -> Source:
    """Open a source for the records in a list of uris only; without a source, the files and addresses themselves.

    Raises
    ------
    InputError
        The list is empty, or nothing in it is there.
    """
    from embedstore.sources.record import Chain

    if not uris:
        raise InputError("the list of what failed is empty: there is nothing to try again")
    if source is not None:
        return Chosen(open_source(source, **options), uris)
    there = [uri for uri in uris if "://" in uri or os.path.exists(uri)]
    absent = sorted(set(uris) - set(there))
    parts: list[Source] = [open_source(there, **options)] if there else []
    return Chain([*parts, Absent(absent)]) if absent else parts[0]
