"""What a sync would do, and what it did: values that print.

They are filled by `plan` and by `apply`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.atlas.answers import AtlasTransport
from embedstore.atlas.columns import Sendable
from embedstore.storage.rows import Rows
from embedstore.store import EmbedStore
from embedstore.vectors import Vectors


@dataclass
class Loss:
    """What float16 takes from the vectors.

    Attributes
    ----------
    component : float
        Largest difference of a component.
    score : float
        No score with a unit query moves by more: the largest length of a row's difference.
    rows : int
        Of so many rows.
    """

    component: float = 0.0
    score: float = 0.0
    rows: int = 0

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
            f"{self.score:.1e} ({self.rows:,} vectors measured)"
        )


@dataclass
class Work:
    """What `apply` needs besides what is printed: rows of one version of the store, in the form to be sent."""

    store: EmbedStore
    rows: Rows
    transport: AtlasTransport
    positions: NDArray[np.int64]
    made: Sendable
    missing: NDArray[np.int64]
    cut: list[NDArray[np.int64]]
    public: bool
    index: bool


@dataclass
class SyncPlan:
    """What a sync would do.

    Attributes
    ----------
    dataset : str
        ``organisation/dataset``.
    dataset_id : str or None
        None: it is not there.
    create : bool
        It is to be made.
    is_public : bool
        Whether everybody may see it, now or once it is made.
    images : bool
        Pictures are sent rather than vectors.
    rows, present, missing : int
        Rows of the store that are meant; of these, those that Atlas has and those that are to be sent.
    total : int
        Rows of the dataset now.
    how : str
        How `present` is known.
    gone : list of str
        Ids that Atlas has and the store has not. No client can delete them.
    unnamed : int
        Rows that Atlas has besides, whose ids are not known as they are on no map.
    differing : dict
        By id and column: (value here, value there). No client can change rows.
    changes, unsent : dict
        Of columns, see `columns.Sendable`.
    problems : list of str
        What stands in the way; `apply_sync` refuses a plan that has any, and rows to send.
    notes : list of str
        What else there is to know.
    shards : int
    loss : Loss
    """

    dataset: str
    dataset_id: str | None = None
    create: bool = False
    is_public: bool = False
    images: bool = False
    rows: int = 0
    present: int = 0
    missing: int = 0
    total: int = 0
    how: str = "there is no dataset"
    gone: list[str] = field(default_factory=list)
    unnamed: int = 0
    differing: dict[str, dict[str, tuple[Any, Any]]] = field(default_factory=dict)
    changes: dict[str, list[str]] = field(default_factory=dict)
    unsent: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shards: int = 0
    loss: Loss = field(default_factory=Loss)
    work: Work | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        names = (
            "dataset",
            "dataset_id",
            "create",
            "is_public",
            "images",
            "rows",
            "present",
            "missing",
            "total",
        )
        more = ("how", "gone", "unnamed", "changes", "unsent", "problems", "notes", "shards")
        values: dict[str, Any] = {name: getattr(self, name) for name in (*names, *more)}
        differing = {
            name: {column: list(pair) for column, pair in columns.items()}
            for name, columns in self.differing.items()
        }
        return {**values, "differing": differing, "float16_loss": vars(self.loss)}

    def __str__(self) -> str:
        return "\n".join([*self._about(), *self.about_rows(), *self.about_columns(), *self._ends()])

    def _about(self) -> Iterator[str]:
        what = "pictures" if self.images else "vectors"
        seen = "public" if self.is_public else "private"
        if self.dataset_id is None:
            yield (
                f"{self.dataset}: to be made, {seen}, with {what}"
                if self.create
                else f"{self.dataset}: not there"
            )
        else:
            yield f"{self.dataset}: {self.total:,} rows, {seen}"
        there = f"{self.present:,} there already ({self.how})"
        yield f"  {self.rows:,} rows of the store: {there}, {self.missing:,} missing"
        if self.missing:
            yield f"  to be sent in {self.shards:,} shards"

    def about_rows(self) -> Iterator[str]:
        """Yield what is to be said of rows that differ or are in one place only."""
        if self.gone:
            rows = listed(self.gone, "rows that Atlas has and the store has not")
            yield f"  {rows}; the client cannot delete them"
        if self.unnamed:
            yield f"  {self.unnamed:,} further rows there are not this store's; on no map, so their ids are unknown"
        if self.differing:
            name, columns = next(iter(self.differing.items()))
            column, (here, there) = next(iter(columns.items()))
            yield (
                f"  {len(self.differing):,} rows differ, and cannot be changed from here; the first is {name}: "
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
    """What a sync did, and what the server held when it ended.

    Attributes
    ----------
    dataset, dataset_id : str
    created : bool
        The dataset was made.
    rows, present, sent : int
        Rows of the store that were meant; of these, those that Atlas had, and those that were sent and then seen
        there.
    total : int
        Rows of the dataset, as Atlas counts.
    uploads, refused : int
        Uploads made, and those of them that failed or that Atlas did not take, and that were made good.
    skipped : dict of str to str
        By id: why a picture could not be sent; nor was its row.
    loss : Loss
        What float16 took from the vectors that were sent.
    map : str or None
        What became of the map; None if none was asked for.
    link : str
    plan : SyncPlan
    seconds : float
    """

    plan: SyncPlan = field(repr=False)
    dataset: str = ""
    dataset_id: str = ""
    created: bool = False
    rows: int = 0
    present: int = 0
    sent: int = 0
    total: int = 0
    uploads: int = 0
    refused: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    loss: Loss = field(default_factory=Loss)
    map: str | None = None
    link: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        names = ("dataset", "dataset_id", "created", "rows", "present", "sent", "total", "uploads", "refused")
        values: dict[str, Any] = {name: getattr(self, name) for name in (*names, "skipped", "map", "link")}
        about = {"gone": self.plan.gone, "unnamed": self.plan.unnamed, "differing": len(self.plan.differing)}
        kept = {"changes": self.plan.changes, "unsent": self.plan.unsent, "notes": self.plan.notes}
        return {**values, **about, **kept, "float16_loss": vars(self.loss), "seconds": self.seconds}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        made = " (made now)" if self.created else ""
        yield f"{self.dataset}{made}: {self.sent:,} rows sent and seen there, {self.present:,} were there already"
        if self.refused:
            yield f"  {self.refused:,} of {self.uploads:,} uploads failed or were refused, and were made good"
        if self.skipped:
            name, reason = next(iter(self.skipped.items()))
            yield f"  {len(self.skipped):,} rows not sent for want of their picture; the first is {name}: {reason}"
        if self.sent:
            yield from self.plan.about_columns()
        if self.loss.rows:
            yield f"  {self.loss}"
        yield from self.plan.about_rows()
        yield from (f"  {note}" for note in self.plan.notes)
        if self.map is not None:
            yield f"  map: {self.map}"
        yield f"  {self.total:,} rows there in all: {self.link} ({self.seconds:.1f} s)"


def listed(ids: list[str], what: str) -> str:
    """Say how many ids there are, and name the first of them."""
    shown = ", ".join(ids[:5])
    return f"{len(ids):,} {what}: {shown}{' …' if len(ids) > 5 else ''}"
