"""What an `add` would do, and what it did: values that print."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedstore.sources import Failure

FAILURES = "failures.csv"
"""Name, in the store's folder, of the list of what the newest `add` could not take."""


@dataclass
class Counts:
    """How many records met each fate; see `known.Decision` for the words.

    Attributes
    ----------
    found, embedded, copied, replaced, updated, moved, unchanged : int
        Records. `replaced` is counted in `embedded` too where the new picture had to be embedded.
    requests : int
        Calls to the embedder.
    failures : list of Failure
        Records that could not be used, each with the reason.
    """

    found: int = 0
    embedded: int = 0
    copied: int = 0
    reused: int = 0
    replaced: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
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
    "replaced": "replaced",
    "updated": "with new metadata",
    "moved": "moved",
    "unchanged": "unchanged",
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
        lines += [f"  {part}" for part in self.parts()]
        lines.append(f"  {self.requests:,} requests to the model")
        if self.upload_bytes is not None:
            lines.append(f"  about {self.upload_bytes / 1e6:,.1f} MB to send")
        if self.seconds is not None:
            lines.append(f"  at least {self.seconds / 60:,.1f} minutes at the rate limit")
        lines.append("nothing was embedded or written")
        return "\n".join(lines)


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
    recovered : int
        Rows of an earlier `add` that was cut short, found in its journal.
    stopped : str or None
        Why it ended before the source did.
    """

    seconds: float = 0.0
    images: int = 0
    version: int = 0
    recovered: int = 0
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
    """Return the uris of a list of failures."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row["uri"] for row in csv.DictReader(file)]
