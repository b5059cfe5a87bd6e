"""The shape of everything that pictures come from: a source yields records, and tells what it could not list."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedstore.images import PictureSource


@dataclass(frozen=True, slots=True)
class Record:
    """One picture, not yet read.

    Attributes
    ----------
    key : str
        Names the same thing tomorrow: ``file:/photos/cat.jpg``, ``tar:/a.tar!cat.jpg``, ``memory:<hash>``.
    uri : str
        Where a person finds it.
    load : callable
        Returns the file's bytes, or the picture in memory. Safe to call from any thread, once or often.
        Raises `ImageError` or `OSError` when there is nothing to be had.
    metadata : mapping of str to scalar
        What is known of it: str, int, float, bool, date, datetime, Decimal or None by column name.
    id : str or None
        The user's own id, where the source has one; otherwise it is made from `key`.
    """

    key: str
    uri: str
    load: Callable[[], PictureSource]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that could not be listed, or a row without a picture.

    Attributes
    ----------
    uri : str
        What it was; always printable.
    reason : str
        A sentence.
    """

    uri: str
    reason: str


class Source(ABC):
    """Records, listed lazily and in the same order every time.

    A record of a table or of a compressed archive keeps its bytes in memory for as long as it lives, so use
    records up as they come; ``list(source)`` is for small sources.
    """

    def __init__(self) -> None:
        self._failures: dict[Failure, None] = {}

    @property
    def failures(self) -> list[Failure]:
        """What could not be listed; complete once the source has been iterated to its end."""
        return list(self._failures)

    def _fail(self, uri: str, reason: str) -> None:
        """Note a failure, once."""
        self._failures[Failure(printable(uri), reason)] = None

    @abstractmethod
    def describe(self) -> str:
        """Return a line for people: what this is, how much of it, what is left out."""

    @abstractmethod
    def count(self) -> int | None:
        """Return about how many records there will be, for a progress bar; None when that is not known."""

    @abstractmethod
    def __iter__(self) -> Iterator[Record]: ...


class Chain(Source):
    """Several sources, one after the other."""

    def __init__(self, parts: list[Source]) -> None:
        super().__init__()
        self._parts = parts

    @property
    def failures(self) -> list[Failure]:
        """The failures of all parts."""
        return [failure for part in self._parts for failure in part.failures]

    def describe(self) -> str:
        """Return the descriptions of the first parts."""
        shown = "; ".join(part.describe() for part in self._parts[:3])
        return shown + (f"; and {len(self._parts) - 3} more" if len(self._parts) > 3 else "")

    def count(self) -> int | None:
        """Return the sum, or None when one part does not know."""
        total = 0
        for part in self._parts:
            count = part.count()
            if count is None:
                return None
            total += count
        return total

    def __iter__(self) -> Iterator[Record]:
        for part in self._parts:
            yield from part


def printable(text: str) -> str:
    """Return text that any terminal and any file can take: bytes of a name that are no UTF-8 become ``\\xff``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
