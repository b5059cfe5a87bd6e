"""A store -> the index files of its parts that are missing, made by an executor, and a report of what was done.

What a file holds, and whether it can be trusted, is left to `index`.
"""

from __future__ import annotations

import contextlib
import functools
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from embedstore.errors import InputError
from embedstore.searching.index import EXACT, KINDS, RECALL_AT, IndexFiles, imported_faiss
from embedstore.searching.scan import Executor, one_blas_thread
from embedstore.settings import cores
from embedstore.storage.folder import StoreFolder
from embedstore.storage.parts import Part
from embedstore.wording import counted


@dataclass
class IndexReport:
    """What `build` has done.

    `parts` are indexed now, their files `built` or found in order and `kept`; `foreign` parts, of another layout, are
    not. `deleted` are the files of parts that are gone; `bytes` is the size of the files of this kind. For kinds that
    may miss rows `recall` is the share of the true nearest `RECALL_AT` that was found, by kind of query.
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
            f"{self.kind}: {self.built} built, {self.kept} in order, {counted(len(self.deleted), 'file')} deleted; "
            f"{self.bytes / 1e6:,.1f} MB in {self.seconds:,.1f} s"
        ]
        if self.kind in EXACT:
            lines.append("answers are exact: the same rows and scores as without an index")
        for what, share in self.recall.items():
            lines.append(f"recall@{RECALL_AT} {share:.3f} for {what} as queries (approximate=True; scores are exact)")
        if self.foreign:
            parts = counted(self.foreign, "part")
            lines.append(
                f"{parts} in a foreign layout: scanned; `embedstore compact STORE` lays out anew what others wrote"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class _ToIndex:
    """A part of which an index is wanted: a task of an executor."""

    part: Part

    @property
    def size(self) -> int:
        """Bytes of its vectors."""
        return self.part.rows * self.part.dim * 4


def _ensured(task: _ToIndex, index_files: IndexFiles, kind: str, alone: bool) -> tuple[bool, int]:
    """Make the index of a part unless there is one in order; return whether it was made, and the file's bytes."""
    if not alone:
        imported_faiss().omp_set_num_threads(1)  # of this thread: the others have the other cores
    index = index_files.get(task.part, kind)
    made = index is None
    return made, (index or index_files.build(task.part, kind)).note.size


def build(folder: StoreFolder, index_files: IndexFiles, executor: Executor, kind: str = EXACT[0]) -> IndexReport:
    """Make the index files that are missing, stale or damaged, and delete those of parts that are gone.

    The executor's tasks write them, each whole or not at all: one that is made twice is the same to the byte.
    Raises InputError where there is no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"there is no index of the kind {kind!r}; choose one of {', '.join(KINDS)}")
    started = time.perf_counter()
    report = IndexReport(kind)
    with folder.writing() as newest:
        tasks = [_ToIndex(part) for part in newest.parts if part.mapped and part.rows]
        report.foreign = sum(not part.mapped for part in newest.parts)
        report.deleted = index_files.prune(newest.parts)
        alone = len(tasks) < cores()
        ensure = functools.partial(_ensured, index_files=index_files, kind=kind, alone=alone)
        with contextlib.nullcontext() if alone else one_blas_thread:
            for made, size in executor.map(ensure, tasks):
                report.built += made
                report.kept += not made
                report.bytes += size
        index_files.prune(newest.parts)  # what a worker that was killed had begun
    report.parts = len(tasks)
    report.seconds = time.perf_counter() - started
    return report
