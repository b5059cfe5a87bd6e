"""What a sync would do, and what it did: values that print.

`plan` fills a `SyncPlan`, `apply` a `SyncReport`; both are words here and JSON for programs. What goes beside a plan
and is not printed, the rows in the form to be sent, is its `Work`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.atlas.answers import AtlasTransport
from embedstore.atlas.columns import AtlasRows
from embedstore.storage.rows import Rows
from embedstore.store import EmbedStore
from embedstore.vectors import Vectors
from embedstore.wording import counted


@dataclass
class Loss:
    """What float16 takes from the vectors."""

    component: float = 0.0  # largest difference of a component
    score: float = 0.0  # no score with a unit query moves by more: the largest length of a row's difference
    rows: int = 0  # of so many vectors

    def of(self, vectors: Vectors) -> NDArray[np.float16]:
        """Return vectors as float16, and take the difference into account."""
        halves = vectors.astype(np.float16)
        if len(vectors):
            off = vectors.astype(np.float64) - halves
            self.component = max(self.component, float(np.abs(off).max()))
            self.score = max(self.score, float(np.sqrt((off**2).sum(axis=1)).max()))
            self.rows += len(vectors)
        return halves

    def __str__(self) -> str:
        return (
            f"vectors travel as float16: components off by at most {self.component:.1e}, scores by at most "
            f"{self.score:.1e} ({counted(self.rows, 'vector')} measured)"
        )


@dataclass
class Work:
    """What `apply` needs besides what is printed: rows of one version of the store, in the form to be sent."""

    store: EmbedStore
    rows: Rows
    transport: AtlasTransport
    converted: AtlasRows  # the rows that are meant
    positions: NDArray[np.int64]  # their places among the store's `rows`
    shards: list[NDArray[np.int64]]  # numbers of those that Atlas lacks, for each upload
    public: bool
    index: bool


@dataclass
class SyncPlan:
    """What a sync would do."""

    dataset: str  # organisation/dataset
    dataset_id: str | None = None  # None: it is not there
    create: bool = False  # it is to be made
    is_public: bool = False  # whether everybody may see it, now or once it is made
    images: bool = False  # pictures are sent rather than vectors
    rows: int = 0  # of the store, that are meant
    present: int = 0  # of these, those that Atlas has
    missing: int = 0  # and those that are to be sent
    total: int = 0  # rows of the dataset now
    how: str = "there is no dataset"  # how `present` is known
    gone: list[str] = field(default_factory=list)  # ids that Atlas has and the store has not; no client can delete them
    unnamed: int = 0  # rows that Atlas has besides, whose ids are not known as they are on no map
    # By id and column: (value here, value there). No client can change rows.
    differing: dict[str, dict[str, tuple[Any, Any]]] = field(default_factory=dict)
    changes: dict[str, list[str]] = field(default_factory=dict)  # of columns, see `columns.AtlasRows`
    unsent: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # `apply_sync` refuses a plan that has any, and rows to send
    notes: list[str] = field(default_factory=list)
    shards: int = 0  # uploads that it takes
    loss: Loss = field(default_factory=Loss)  # of the vectors that are to be sent
    work: Work | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        values = {name: value for name, value in vars(self).items() if name not in ("loss", "work")}
        return {**values, "float16_loss": vars(self.loss)}

    def __str__(self) -> str:
        return "\n".join([*self._about(), *self.about_rows(), *self.about_columns(), *self._ends()])

    def _about(self) -> Iterator[str]:
        what = "pictures" if self.images else "vectors"
        seen = "public" if self.is_public else "private"
        if self.dataset_id is None:
            yield (f"{self.dataset}: to be made, {seen}, with {what}" if self.create else f"{self.dataset}: not there")
        else:
            yield f"{self.dataset}: {counted(self.total, 'row')}, {seen}"
        there = f"{self.present:,} there already ({self.how})"
        yield f"  {counted(self.rows, 'row')} of the store: {there}, {self.missing:,} missing"
        if self.missing:
            yield f"  to be sent in {counted(self.shards, 'shard')}"

    def about_rows(self) -> Iterator[str]:
        """Yield what is to be said of rows that differ or are in one place only."""
        if self.gone:
            rows = listed(self.gone, "that Atlas has and the store has not")
            yield f"  {rows}; the client cannot delete them"
        if self.unnamed:
            rows = counted(self.unnamed, "further row there is", "further rows there are")
            yield f"  {rows} not this store's; on no map, so no id is known"
        if self.differing:
            name, columns = next(iter(self.differing.items()))
            column, (here, there) = next(iter(columns.items()))
            rows = counted(len(self.differing), "row differs", "rows differ")
            yield (
                f"  {rows}, and cannot be changed from here; the first is {name}: "
                f"{column} is {here!r} here and {there!r} there"
            )

    def about_columns(self) -> Iterator[str]:
        """Yield what is to be said of columns that are not sent as they are."""
        for name, notes in self.changes.items():
            yield f"  column {name}: {'; '.join(notes)}"
        for name, reason in self.unsent.items():
            yield f"  column {name} is not sent: {reason}"

    def _ends(self) -> Iterator[str]:
        if self.loss.rows:
            yield f"  {self.loss}"
        yield from (f"  {note}" for note in self.notes)
        yield from (f"  problem: {problem}" for problem in self.problems)
        yield "nothing was sent"


@dataclass
class SyncReport:
    """What a sync did, and what the server held when it ended."""

    plan: SyncPlan = field(repr=False)
    dataset: str = ""
    dataset_id: str = ""
    created: bool = False  # the dataset was made
    rows: int = 0  # of the store, that were meant
    present: int = 0  # of these, those that Atlas had
    sent: int = 0  # and those that were sent and then seen there
    total: int = 0  # rows of the dataset, as Atlas counts
    uploads: int = 0
    refused: int = 0  # uploads that failed or that Atlas did not take, and that were made good
    skipped: dict[str, str] = field(default_factory=dict)  # by id: why a picture could not be sent; nor was its row
    loss: Loss = field(default_factory=Loss)  # of the vectors that were sent
    map: str | None = None  # what became of it; None if none was asked for
    link: str = ""  # where people look at the dataset
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        plan = self.plan
        values = {name: value for name, value in vars(self).items() if name not in ("plan", "loss")}
        about = {name: getattr(plan, name) for name in ("gone", "unnamed", "changes", "unsent", "notes")}
        return {**values, **about, "differing": len(plan.differing), "float16_loss": vars(self.loss)}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        made = " (made now)" if self.created else ""
        yield f"{self.dataset}{made}: {counted(self.sent, 'row')} sent and seen there, {self.present:,} there already"
        if self.refused:
            yield f"  {self.refused:,} of {counted(self.uploads, 'upload')} failed or were refused, and were made good"
        if self.skipped:
            name, reason = next(iter(self.skipped.items()))
            rows = counted(len(self.skipped), "row")
            yield f"  {rows} not sent for want of their picture; the first is {name}: {reason}"
        if self.sent:
            yield from self.plan.about_columns()
        if self.loss.rows:
            yield f"  {self.loss}"
        yield from self.plan.about_rows()
        yield from (f"  {note}" for note in self.plan.notes)
        if self.map is not None:
            yield f"  map: {self.map}"
        yield f"  {counted(self.total, 'row')} there in all: {self.link} ({self.seconds:.1f} s)"


def listed(ids: list[str], what: str) -> str:
    """Say how many rows there are, and name the first of them."""
    shown = ", ".join(ids[:5])
    return f"{counted(len(ids), 'row')} {what}: {shown}{' …' if len(ids) > 5 else ''}"
