"""What an `add` would do, and what it did: values that print."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from embedstore import cells, files
from embedstore.errors import InputError, spelt
from embedstore.sources import Failure, Source
from embedstore.sources.picture_files import kinds_in_words
from embedstore.storage.metadata import Columns
from embedstore.wording import counted, one_line, quoted

_log = logging.getLogger("embedstore")

FAILURES = "failures.csv"
"""Name, in the store's folder, of the list of what the newest `add` could not take."""

Origin = Literal["store", "reused", "older"]
"""Where the vector of a known picture comes from: a row of the store, another store, an older version of the store."""

_WORDS = {
    "embedded": "embedded",
    "copied": "copied from the same picture",
    "reused": "taken from other stores",
    "found_again": "found again in older versions",
    "added": "added with their vectors",
    "updated": "with new metadata",
    "moved": "moved",
    "unchanged": "unchanged",
    "failures": "failed",
    "left": "left for the next run",
}
_PLAN_WORDS = {
    "embedded": "to embed",
    "copied": "with the content of another, so embedded once",
    "reused": "to take from other stores",
    "found_again": "to take from older versions of this store",
    "recovered": "embedded already by an add that was cut short",
    "updated": "with new metadata",
    "moved": "moved or renamed",
    "unchanged": "here already",
    "failures": "cannot be read",
}
_FATES = ("embedded", "copied", "reused", "found_again", "added", "updated", "moved", "unchanged", "left")
_REPLACED = "of them another picture under a known name"


@dataclass
class Counts:
    """How many records met each fate; see `deduplication.Action` for the words.

    `found` are all that the source had, or named and could not give. Each meets one fate, so that `found` is the sum,
    see `accounted`, of these: `embedded`, pictures that a model had to turn into a vector; `copied` and `reused`, whose
    vector was in the store already, or in one named by ``reuse``; `found_again`, whose vector only an older version of
    the store had; `added`, which came with a vector; `updated`, `moved` and `unchanged`, whose rows are there;
    `failures`, which could not be used, with the reason; `left`, which an `add` that ended early had no time for.
    `replaced` are those of the first five that took the place of another picture under a known name. `recovered` were
    embedded by an earlier `add` that was cut short: for a plan, these are a fate too; an `add` counts rows of the
    ledger, whether the source has them or not.

    `requests` are calls to the embedder; those of an `add` with a service are what was sent, failed ones included.
    `skipped` counts what is no record, by kind; `left_out` names columns that are not kept, with the reason, and
    `renamed` those that have another name in the store.
    """

    found: int = 0
    embedded: int = 0
    copied: int = 0
    reused: int = 0
    found_again: int = 0
    added: int = 0
    replaced: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    recovered: int = 0
    left: int = 0
    requests: int = 0
    failures: list[Failure] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def tally(self, action: str, *, needed: bool, origin: Origin | None = None) -> None:
        """Count a `Decision.action`; `needed`: it costs an embedding; `origin`: where else the vector comes from."""
        if needed:
            self.embedded += 1
        elif origin == "reused":
            self.reused += 1
        elif origin == "older":
            self.found_again += 1
        elif action in ("copied", "embedded", "replaced"):
            self.copied += 1
        else:
            setattr(self, action, getattr(self, action) + 1)
        self.replaced += action == "replaced"

    @property
    def accounted(self) -> int:
        """The sum of all fates, which is `found`."""
        counts: list[int] = [getattr(self, name) for name in _FATES]
        return sum(counts) + len(self.failures)

    @property
    def all_failed(self) -> bool:
        """Whether there was something, and none of it could be used."""
        return bool(self.found) and len(self.failures) == self.found

    def end(self, source: Source, columns: Columns) -> None:
        """Take over what a source says of itself at its end, and how its columns are called in the store."""
        self.failures.extend(source.failures)
        self.found += len(source.failures)
        self.skipped = dict(source.skipped)
        self.left_out = source.left_out | columns.left_out
        self.renamed = columns.renamed

    def in_words(self, words: dict[str, str]) -> list[str]:
        """Return what there is to say: each count that is not 0, with its words."""
        numbers = {**vars(self), "failures": len(self.failures)}
        return [f"{numbers[name]:,} {said}" for name, said in words.items() if numbers[name]]

    def notes(self) -> list[str]:
        """Return what was not taken as it is, a line each."""
        lines = [f"skipped: {kinds_in_words(self.skipped)}"] if self.skipped else []
        if self.renamed:
            names = ", ".join(f"{name!r} is {column!r}" for name, column in self.renamed.items())
            lines.append(f"columns under another name: {names}")
        if self.left_out:
            lines.append(f"columns left out: {', '.join(f'{name!r} ({why})' for name, why in self.left_out.items())}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass
class AddPlan(Counts):
    """What `add` would do."""

    source: str = ""
    """What is read, and what of it is left out, in words."""
    seconds: float | None = None
    """How long the requests take at the service's rate limit; None for a local model."""
    upload_bytes: int | None = None
    """What would be sent, estimated from the first pictures; None for a local model."""

    @property
    def accounted(self) -> int:
        """The sum of all fates, which is `found`."""
        return super().accounted + self.recovered

    def __str__(self) -> str:
        lines = [self.source] if self.source else []
        lines.append(f"{self.found:,} found")
        lines += [f"  {said}" for said in self.in_words(_PLAN_WORDS)]
        if self.replaced:
            lines.append(f"  {self.replaced:,} {_REPLACED}")
        lines += [f"  {note}" for note in self.notes()]
        if self.seconds is not None:
            lines.append(f"  {counted(self.requests, 'request')} to the service")
        if self.upload_bytes is not None:
            lines.append(f"  about {self.upload_bytes / 1e6:,.1f} MB to send")
        if self.seconds is not None:
            lines.append(f"  about {duration(self.seconds)} at the service's rate limit")
        lines.append("nothing was embedded or written")
        return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a length of time in the unit that suits it: 4 s, 2.5 min, 2.0 h."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:,.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


@dataclass
class AddReport(Counts):
    """What `add` did.

    `missing` are rows of earlier adds whose file is not in the folder any more, `pruned` those of them that were
    removed. `wrong_answers` of a service were no sound vectors and were asked for again; it may have charged for them.
    `images` and `version` are the store's afterwards; `stopped`: why it ended before the source.
    """

    missing: int = 0
    pruned: int = 0
    wrong_answers: int = 0
    seconds: float = 0.0
    images: int = 0
    version: int = 0
    stopped: str | None = None

    def __str__(self) -> str:
        replaced = f"; {self.replaced:,} {_REPLACED}" if self.replaced else ""
        lines = [f"{self.found:,} found: {', '.join(self.in_words(_WORDS)) or 'nothing to do'}{replaced}"]
        lines += self.notes()
        if self.recovered:
            lines.append(f"{self.recovered:,} recovered from an add that was cut short")
        lines += [f"  failed: {quoted(failure.uri)}: {one_line(failure.reason)}" for failure in self.failures[:5]]
        if len(self.failures) > 5:
            lines.append(f"  and {len(self.failures) - 5:,} more, all of them in {FAILURES}")
        if self.pruned:
            whose = "its file is" if self.pruned == 1 else "their files are"
            lines.append(f"{self.pruned:,} removed, as {whose} not there any more")
        if left := self.missing - self.pruned:
            what = "file of an earlier add is" if left == 1 else "files of earlier adds are"
            lines.append(f"{left:,} {what} not there any more; {spelt('prune=True', '--prune')} removes what is gone")
        if self.wrong_answers:
            wrong = counted(self.wrong_answers, "answer of the service was", "answers of the service were")
            lines.append(f"{wrong} no sound vectors, and asked for again")
        if self.stopped:
            lines.append(f"stopped: {self.stopped}; run the same command again to go on")
        rate = f", {self.embedded / self.seconds:,.0f} images/s" if self.embedded and self.seconds else ""
        lines.append(f"{counted(self.images, 'image')} in the store ({self.seconds:.1f} s{rate})")
        return "\n".join(lines)


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write the list of failures as CSV (uri, reason), or take an old list away when there are none.

    Where that cannot be done a warning says so: the rows are stored, and that is what an `add` is for.
    """
    rows = [("uri", "reason"), *((failure.uri, failure.reason) for failure in failures)]
    try:
        if failures:
            files.replace(path, "".join(map(cells.line, rows)).encode("utf-8", "backslashreplace"), durable=False)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        what = (
            f"list of {counted(len(failures), 'failure')} cannot be written to"
            if failures
            else "old list of failures stays in"
        )
        _log.warning("the %s %s: %s; the rows are stored", what, path, error.strerror or error)


def read_failures(path: Path) -> list[str]:
    """Return the uris of a list of failures that an `add` has written, each once; InputError where there is none."""
    try:
        with files.open_regular(path) as content, io.TextIOWrapper(content, "utf-8", newline="") as file:
            return list(dict.fromkeys(cells.read(row["uri"]) for row in csv.DictReader(file) if row["uri"]))
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}; an add in which something failed writes {FAILURES}") from error
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no list of failures: expected CSV with a column 'uri'") from error
