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
from embedstore.errors import spelt
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
    description: str | None  # for people, of a dataset that is made
    index: bool
    topic_model: bool | dict[str, Any] = False  # as the client takes it


@dataclass
class SyncPlan:
    """What a sync would do."""

    dataset: str  # organisation/dataset
    dataset_id: str | None = None  # None: it is not there
    create: bool = False  # it is to be made
    is_public: bool = False  # whether everybody may see it, now or once it is made
    images: bool = False  # pictures are sent rather than vectors
    replace: bool = False  # what differs is to be deleted and sent anew
    rows: int = 0  # of the store, that are meant
    present: int = 0  # of these, those that Atlas has
    missing: int = 0  # and those that it has not
    replaced: list[str] = field(default_factory=list)  # ids of those that it has and that are to be replaced
    anew: list[str] = field(default_factory=list)  # columns for which the dataset is to be made again
    total: int = 0  # rows of the dataset now
    how: str = "there is no dataset"  # how `present` is known
    gone: list[str] = field(default_factory=list)  # ids that Atlas has and the store has not; they are left alone
    unnamed: int = 0  # rows that Atlas has besides, whose ids are not known as they are on no map
    # By id and column: (value here, value there).
    differing: dict[str, dict[str, tuple[Any, Any]]] = field(default_factory=dict)
    outdated: list[str] = field(default_factory=list)  # ids of rows that were sent with another vector, or picture
    unknown: int = 0  # rows that are there, and no ledger here knows with which vector or picture
    bare: list[str] = field(default_factory=list)  # ids of rows that are there without their picture
    changes: dict[str, list[str]] = field(default_factory=dict)  # of columns, see `columns.AtlasRows`
    unsent: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # `apply_sync` refuses a plan that has any, and something to do
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
        if self.anew:
            yield (
                f"  to be deleted and made again, with its maps, for the columns it was made without: "
                f"{', '.join(self.anew)}"
            )
        there = f"{self.present:,} there already ({self.how})"
        yield f"  {counted(self.rows, 'row')} of the store: {there}, {self.missing:,} missing"
        if self.replaced:
            yield f"  {listed(self.replaced, 'to be deleted there and sent anew')}"
        if self.shards:
            yield f"  to be sent in {counted(self.shards, 'shard')}"

    def about_rows(self, *, done: bool = False) -> Iterator[str]:
        """Yield what is to be said of rows that differ or are in one place only; `done` when they were replaced."""
        if self.gone:
            yield f"  {listed(self.gone, 'that Atlas has and the store has not')}; they are left alone"
        if self.unnamed:
            rows = counted(self.unnamed, "further row there is", "further rows there are")
            yield f"  {rows} not this store's; on no map, so no id is known"
        what = "picture" if self.images else "vector"
        replaced = done and (self.replace or self.anew)
        advice = "" if self.replace else f"; {spelt('replace=True', '--replace')} deletes and sends anew"
        if self.outdated and not replaced:
            yield f"  {listed(self.outdated, f'whose {what} is another now than the one that was sent')}{advice}"
        if self.bare and not replaced:
            yield f"  {listed(self.bare, 'there without a picture')}{advice}"
        if self.differing and not replaced:
            name, columns = next(iter(self.differing.items()))
            column, (here, there) = next(iter(columns.items()))
            rows = counted(len(self.differing), "row differs", "rows differ")
            yield f"  {rows}; the first is {name}: {column} is {here!r} here and {there!r} there{advice}"
        if self.unknown:
            rows = counted(self.unknown, "row there was", "rows there were")
            yield f"  {rows} not sent from here, or before this was noted: whether the {what} is this one is not known"

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
    sent: int = 0  # those that were sent and then seen there
    replaced: int = 0  # of these, those that took the place of others
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
        about = {
            name: getattr(plan, name)
            for name in ("gone", "unnamed", "outdated", "unknown", "bare", "anew", "changes", "unsent", "notes")
        }
        return {**values, **about, "differing": len(plan.differing), "float16_loss": vars(self.loss)}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        seen = "public" if self.plan.is_public else "private"
        made = f" (made {'again' if self.plan.anew else 'now'}, {seen})" if self.created else ""
        rows = f"{counted(self.sent, 'row')} sent and seen there"
        if self.replaced:
            rows += f", {self.replaced:,} of them in the place of others"
        yield f"{self.dataset}{made}: {rows}, {self.present - self.replaced:,} there already"
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
        yield from self.plan.about_rows(done=True)
        if self.replaced and self.map is None:
            yield f"  maps that are there show the rows as they were; {spelt('index=True', '--index')} makes a new one"
        yield from (f"  {note}" for note in self.plan.notes)
        if self.map is not None:
            yield f"  map: {self.map}"
        yield f"  {counted(self.total, 'row')} there in all: {self.link} ({self.seconds:.1f} s)"


def listed(ids: list[str], what: str) -> str:
    """Say how many rows there are, and name the first of them."""
    shown = ", ".join(ids[:5])
    return f"{counted(len(ids), 'row')} {what}: {shown}{' …' if len(ids) > 5 else ''}"
