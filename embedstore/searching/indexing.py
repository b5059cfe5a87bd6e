"""`embedstore index`: an index file for each part that has none, and none for parts that are gone.

Says what was done, and for kinds that may miss rows how many they miss. What an index file is, is left to `index`;
how it answers, to `shortlist`.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from embedstore.errors import InputError
from embedstore.searching import scan, shortlist
from embedstore.searching.index import KINDS, PartIndex, Shelf
from embedstore.store import EmbedStore
from embedstore.vectors import Vectors, normalise

_K = 20
_QUERIES = 50


@dataclass
class IndexReport:
    """What `build` has done.

    Attributes
    ----------
    kind : str
    parts : int
        Parts that are indexed now.
    built, kept : int
        Index files made, and found in order.
    deleted : list of str
        Files of parts that are gone.
    foreign : int
        Parts in a foreign layout, which are not indexed.
    bytes : int
        Size of the index files of this kind.
    recall : dict
        For kinds that may miss rows: the share of the true nearest 20 that was found, for ``rows`` of the store as
        queries and for random ``texts``.
    seconds : float
    """

    kind: str
    parts: int = 0
    built: int = 0
    kept: int = 0
    deleted: list[str] = field(default_factory=list)
    foreign: int = 0
    bytes: int = 0
    recall: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.kind}: {self.built} built, {self.kept} in order, {len(self.deleted)} files deleted; "
            f"{self.bytes / 1e6:,.1f} MB in {self.seconds:,.1f} s"
        ]
        if self.kind == "fp16":
            lines.append("answers are exact: the same rows and scores as without an index")
        for what, share in self.recall.items():
            lines.append(
                f"recall@{_K} {share:.3f} for {what} as queries (approximate=True; scores are exact)"
            )
        if self.foreign:
            lines.append(
                f"{self.foreign} parts in a foreign layout are scanned; `embedstore compact` lays them out anew"
            )
        return "\n".join(lines)


def build(store: EmbedStore, shelf: Shelf, kind: str = "fp16") -> IndexReport:
    """Make the index files that are missing, stale or damaged, and delete those of parts that are gone.

    Raises
    ------
    InputError
        There is no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"there is no index of the kind {kind!r}; choose one of {', '.join(KINDS)}")
    started = time.perf_counter()
    report = IndexReport(kind)
    with store.writing():
        parts = [part for part in store.snapshot.parts if part.mapped and part.rows]
        report.foreign = sum(not part.mapped for part in store.snapshot.parts)
        report.deleted = shelf.prune(store.snapshot.parts)
        for part in parts:
            index = shelf.get(part, kind)
            report.kept += index is not None
            report.built += index is None
            index = index or shelf.build(part, kind)
            report.bytes += index.note.size
    report.parts = len(parts)
    if kind != "fp16" and parts:
        report.recall = _recall(store, shelf, kind)
    report.seconds = time.perf_counter() - started
    return report


def _recall(store: EmbedStore, shelf: Shelf, kind: str) -> dict[str, float]:
    """Measure the share of the true nearest rows that the index finds."""
    executor = scan.Threads()
    parts = store.snapshot.parts
    indexes = shelf.get_all(parts, kind, executor)
    chosen = np.linspace(0, len(store) - 1, min(_QUERIES, len(store))).astype(np.int64)
    rows = store.rows.vectors(chosen)
    # A text lies far from all pictures, but not in any direction: towards their middle, and a little to one of them.
    towards = rows.mean(axis=0) + 0.1 * rows
    noise = np.random.default_rng(0).standard_normal(rows.shape) / np.sqrt(rows.shape[1])
    texts = normalise((0.1 * towards + noise).astype(np.float32))
    return {
        "rows of the store": _share_found(store, indexes, rows),
        "random texts": _share_found(store, indexes, texts),
    }


def _share_found(store: EmbedStore, indexes: dict[str, PartIndex], queries: Vectors) -> float:
    executor, parts = scan.Threads(), store.snapshot.parts
    found = wanted = 0
    for query, true in zip(queries, scan.nearest(parts, queries, _K, None, executor).positions, strict=True):
        partial = shortlist.candidates(parts, indexes, query[np.newaxis], _K, None, executor)
        found += len(np.intersect1d(true, partial.positions[0]))
        wanted += len(true)
    return found / wanted
