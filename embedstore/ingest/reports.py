"""What an `add` would do, and what it did: values that print."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedstore.errors import InputError
from embedstore.sources import Failure

FAILURES = "failures.csv"
"""Name, in the store's folder, of the list of what the newest `add` could not take."""


@dataclass
class Counts:
    """How many records met each fate; see `known.Decision` for the words.

    Attributes
    ----------
    found : int
        Records that the source had.
    embedded : int
        Pictures that a model had to turn into a vector.
    copied, reused : int
        New records whose vector was in the store already, or in a store named by ``reuse``.
    added : int
        New records that came with a vector.
    replaced, updated, moved, unchanged : int
        Records that were there. `replaced` is counted in `embedded` too where the new picture had to be embedded.
    recovered : int
        Rows of an earlier `add` that was cut short, found in its journal.
    requests : int
        Calls to the embedder.
    failures : list of Failure
        Records that could not be used, each with the reason.
    """

    found: int = 0
    embedded: int = 0
    copied: int = 0
    reused: int = 0
    added: int = 0
    replaced: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    recovered: int = 0
    requests: int = 0
    failures: list[Failure] = field(default_factory=list)

    def parts(self) -> Iterator[str]:
        """Yield what there is to say, in words."""
        for name, words in _WORDS.items():
            number = getattr(self, name)
            if number:
                yield f"{number:,} {words}"
        if self.failures:
            yield f"{len(self.failures):,} failed"

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["failures"] = [{"uri": failure.uri, "reason": failure.reason} for failure in self.failures]
        return values


_WORDS = {
    "embedded": "embedded",
    "copied": "copied from the same picture",
    "reused": "taken from other stores",
    "added": "added with their vectors",
    "replaced": "replaced",
    "updated": "with new metadata",
    "moved": "moved",
    "unchanged": "unchanged",
}


_PLAN_WORDS = {
    "embedded": "to embed",
    "copied": "with the content of another, so embedded once",
    "reused": "to take from other stores",
    "recovered": "embedded already by an add that was cut short",
    "replaced": "to replace: another picture under a known name",
    "updated": "with new metadata",
    "moved": "moved or renamed",
    "unchanged": "here already",
}


@dataclass
class AddPlan(Counts):
    """What `add` would do.

    Attributes
    ----------
    seconds : float or None
        How long the requests take at the service's rate limit; None for a local model.
    upload_bytes : int or None
        What would be sent, estimated from the first pictures; None for a local model.
    """

    seconds: float | None = None
    upload_bytes: int | None = None

    def __str__(self) -> str:
        lines = [f"{self.found:,} found"]
        lines += [
            f"  {number:,} {_PLAN_WORDS[name]}" for name in _PLAN_WORDS if (number := getattr(self, name))
        ]
        if self.failures:
            lines.append(f"  {len(self.failures):,} cannot be read")
        lines.append(f"  {self.requests:,} {'request' if self.requests == 1 else 'requests'} to the model")
        if self.upload_bytes is not None:
            lines.append(f"  about {self.upload_bytes / 1e6:,.1f} MB to send")
        if self.seconds is not None:
            lines.append(f"  about {duration(self.seconds)} at the service's rate limit")
        lines.append("nothing was embedded or written")
        return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a length of time in the unit that suits it.

    Examples
    --------
    >>> duration(4), duration(150), duration(7200)
    ('4 s', '2.5 min', '2.0 h')
    """
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:,.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


@dataclass
class AddReport(Counts):
    """What `add` did.

    Attributes
    ----------
    seconds : float
        Wall time.
    images : int
        Rows of the store afterwards.
    version : int
        Version of the store afterwards.
    stopped : str or None
        Why it ended before the source did.
    """

    seconds: float = 0.0
    images: int = 0
    version: int = 0
    stopped: str | None = None

    def __str__(self) -> str:
        lines = [f"{self.found:,} found: {', '.join(self.parts()) or 'nothing to do'}"]
        if self.recovered:
            lines.append(f"{self.recovered:,} recovered from an add that was cut short")
        lines += [f"  failed: {failure.uri}: {failure.reason}" for failure in self.failures[:5]]
        if len(self.failures) > 5:
            lines.append(f"  and {len(self.failures) - 5:,} more, all of them in {FAILURES}")
        if self.stopped:
            lines.append(f"stopped: {self.stopped}; run the same command again to go on")
        rate = f", {self.embedded / self.seconds:,.0f} images/s" if self.embedded and self.seconds else ""
        lines.append(f"{self.images:,} images in the store ({self.seconds:.1f} s{rate})")
        return "\n".join(lines)


def write_failures(folder: Path, failures: Sequence[Failure]) -> None:
    """Write the list of failures as CSV (uri, reason), or take an old list away when there are none."""
    path = folder / FAILURES
    if not failures:
        path.unlink(missing_ok=True)
        return
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "reason"])
        writer.writerows((failure.uri, failure.reason) for failure in failures)


def read_failures(path: Path) -> list[str]:
    """Return the uris of a list of failures that an `add` has written, each once.

    Raises
    ------
    InputError
        The file is not there, or is no such list.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return list(dict.fromkeys(row["uri"] for row in rows))
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}; an add in which something failed writes {FAILURES}") from error
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no list of failures: expected CSV with a column 'uri'") from error
