"""What pictures come from, as one shape: a `Source` yields records, and tells what it could not list.

`MemorySource` turns pictures in memory into records that are known by what they show, `Chain` several sources into
one. Each other kind of source has a module of its own; which one a thing is, is decided in the package's `__init__`.
"""

from __future__ import annotations

import functools
import io
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from embedstore.errors import ImageError, SourceError
from embedstore.images import PictureSource, as_source, content_hash, turns
from embedstore.wording import counted

_PIECE = 1 << 20
_SHOWN = 16  # hex digits of a hash that a uri shows: another picture with them would have to be sought for years


class SupportsRead(Protocol):
    """Anything that bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """One picture, not yet read.

    `key` names the same thing tomorrow, and makes its id: ``file:/photos/cat.jpg``, ``tar:/a.tar!cat.jpg``,
    ``memory:<hash>``; `uri` is where a person finds it. `load` returns the file's bytes, or the picture in memory; it
    is safe to call from any thread, once or often, and raises `ImageError` or `OSError` when there is nothing to be
    had. `metadata` is what is known of it by column: str, int, float, bool, date, datetime, Decimal or None. `id` is
    what the user calls it, None where it gets an id of its key.

    Some are at hand only until the next record is asked for, later they have to be looked for anew: `passing` is how
    many bytes such a one takes, else None. See `carried`.
    """

    key: str
    uri: str
    load: Callable[[], PictureSource]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    passing: int | None = None
    id: str | None = None

    def carried(self) -> Record:
        """Return this record with its bytes, where they are at hand only now: once there is room, and for one `load`.

        The room is given back at the end of the block of `turns.holding` that loads it.
        """
        if self.passing is None:
            return self
        return replace(self, load=_Carried(self.load, turns.CARRIED.take(self.passing)), passing=None)


class Passing:
    """How to load what is at hand, by `read`, until it is `gone`; later it is looked for by `again`."""

    def __init__(self, read: Callable[[], PictureSource], again: Callable[[], PictureSource]) -> None:
        self._read: Callable[[], PictureSource] | None = read
        self._again = again
        self._lock = threading.Lock()

    def __call__(self) -> PictureSource:
        """Load what there is."""
        with self._lock:
            read, self._read = self._read, None
            if read is not None:
                return read()
        return self._again()

    def gone(self) -> None:
        """Forget what was at hand."""
        with self._lock:
            self._read = None


class _Carried:
    """Hands out what was loaded, once; later it is loaded again."""

    def __init__(self, load: Callable[[], PictureSource], turn: turns.Turn) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._at_hand: tuple[PictureSource | Exception, turns.Turn] | None
        try:
            self._at_hand = (load(), turn)
        except Exception as error:  # noqa: BLE001  (told where it is asked for)
            self._at_hand = (error, turn)

    def __call__(self) -> PictureSource:
        with self._lock:
            at_hand, self._at_hand = self._at_hand, None
        if at_hand is None:
            return self._load()
        found, turn = at_hand
        turns.adopt(turn)
        if isinstance(found, Exception):
            raise found
        return found


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that could not be listed, or a row without a picture: what it was, printable, and why, a sentence."""

    uri: str
    reason: str


class Source(ABC):
    """Records, listed lazily and in the same order every time.

    Records of a table in memory keep it there. Those of other sources hold no bytes; where going back to them later
    is slow, as in a compressed archive, they are best loaded as they come.
    """

    def __init__(self, description: str = "", count: int | None = None) -> None:
        self._description, self._count = description, count
        self._failures: dict[Failure, None] = {}
        self.skipped: Counter[str] = Counter()
        """What was passed over, by kind in words; complete once the source has been iterated, as `left_out`."""
        self.left_out: dict[str, str] = {}
        """Columns that are not kept, and why not."""
        self.folders: list[str] = []
        """Folders that were listed whole: a picture below one that is not among the records is not there."""

    @property
    def failures(self) -> list[Failure]:
        """What could not be listed; complete once the source has been iterated to its end."""
        return list(self._failures)

    def _fail(self, uri: str, reason: str) -> None:
        """Note a failure, once."""
        self._failures[Failure(printable(uri), reason)] = None

    def describe(self) -> str:
        """Return a line for people: what this is, how much of it, what is left out."""
        return self._description

    def count(self) -> int | None:
        """Return about how many records there will be, for a progress bar; None when that is not known."""
        return self._count

    @abstractmethod
    def __iter__(self) -> Iterator[Record]: ...


class Chain(Source):
    """Several sources, one after the other; described by the first three."""

    def __init__(self, parts: list[Source]) -> None:
        shown = "; ".join(part.describe() for part in parts[:3])
        more = f"; and {len(parts) - 3} more" if len(parts) > 3 else ""
        counts = [part.count() for part in parts]
        super().__init__(shown + more, None if None in counts else sum(filter(None, counts)))
        self._parts = parts
        self.folders = [folder for part in parts for folder in part.folders]
        self._gather()

    @property
    def failures(self) -> list[Failure]:
        """The failures of all parts."""
        return [failure for part in self._parts for failure in part.failures]

    def __iter__(self) -> Iterator[Record]:
        for part in self._parts:
            yield from part
        self._gather()

    def _gather(self) -> None:
        self.skipped = sum((part.skipped for part in self._parts), Counter[str]())
        self.left_out = {name: why for part in self._parts for name, why in part.left_out.items()}


class MemorySource(Source):
    """Pillow images, arrays and the bytes of files, in the forms that `images.as_source` takes.

    Named as `named_in_memory` says, by their place in the list.
    """

    def __init__(self, pictures: Sequence[Any]) -> None:
        super().__init__(f"{counted(len(pictures), 'picture')} in memory", len(pictures))
        self._pictures = list(pictures)

    def __iter__(self) -> Iterator[Record]:
        seen: Counter[str] = Counter()
        for number, picture in enumerate(self._pictures):
            try:
                digest = content_hash(as_source(picture))
            except ImageError as error:
                self._fail(f"memory: item {number}", str(error))
                continue
            key, uri = named_in_memory("memory:", digest, number, seen)
            yield Record(key, uri, functools.partial(as_source, picture))


def named_in_memory(scheme: str, digest: str, row: int, seen: Counter[str], own: str | None = None) -> tuple[str, str]:
    """Return the key and the uri of a picture in memory: ``table:3f2a41c09b7d8e55#12``, or ``table:cat-7#12``.

    The key is made of the content hash, numbered by `numbered`, so that two equal pictures are two records, and a
    picture keeps its id wherever it stands. In the uri the hash, or the user's `own` id, tells tables apart, and the
    row number, counted from 0, tells where to look.
    """
    if own is not None:
        return f"{scheme}id {own}", f"{scheme}{printable(own)}#{row}"
    return numbered(f"{scheme}{digest}", seen), f"{scheme}{digest[:_SHOWN]}#{row}"


def own_ids(values: Sequence[Any], what: str) -> list[str]:
    """Return the ids that a user gave, as text; whole numbers are taken too.

    Raises SourceError where one is missing, is neither, or stands twice; `what` names the source.
    """
    whole = [str(value) if isinstance(value, int) and not isinstance(value, bool) else value for value in values]
    bad = next((row for row, value in enumerate(whole) if not isinstance(value, str) or not value), None)
    otherwise = "rename it, and ids are made of the pictures"
    if bad is not None:
        raise SourceError(
            f"{what}: 'id' should be a text or a whole number in every row; found {values[bad]!r} in row {bad}. Fill "
            f"it in; or {otherwise}"
        )
    counts = Counter(whole)
    twice = [identity for identity, count in counts.items() if count > 1]
    if twice:
        raise SourceError(
            f"{what}: {len(twice):,} ids stand in several rows, such as {twice[0]!r}; ids are unique. Or {otherwise}"
        )
    return whole


def numbered(key: str, seen: Counter[str]) -> str:
    """Return a key as no other is, and count it: when it comes again, ``#2`` and so on stands behind it."""
    seen[key] += 1
    return key if seen[key] == 1 else f"{key}#{seen[key]}"


def gathered(file: SupportsRead, size: int) -> bytes:
    """Read a file that should have this many bytes, once there is room for them; piece by piece, and no more than that.

    Raises ImageError where it is too large, or shorter.
    """
    turns.hold_file(size)
    buffer = io.BytesIO()
    while buffer.tell() < size and (piece := file.read(min(_PIECE, size - buffer.tell()))):
        buffer.write(piece)
    if buffer.tell() < size:
        raise ImageError(f"it is cut short: {buffer.tell():,} of {size:,} bytes are there")
    return buffer.getvalue()


def printable(text: str) -> str:
    """Return text that any terminal and any file can take: bytes of a name that are no UTF-8 become ``\\xff``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
