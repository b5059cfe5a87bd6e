"""Every match of a query or a classifier -> Parquet files in a folder, written where the rows are scored.

One file for each part of the store that holds a match, so that no match travels and what is written twice, because a
worker died, is the same file. They are written into a folder beside, which takes the name that was given when all are
there: whoever reads the folder finds an answer that is whole. What a match is is left to `evaluation` and `reader`.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import glob
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.evaluation import predicted
from embedstore.errors import InputError, NotOursError, PathError
from embedstore.measures.curves import above, as_threshold
from embedstore.result_files import write_rows
from embedstore.searching import scan
from embedstore.searching.matches import Matches
from embedstore.searching.queries import Concept, opposed
from embedstore.searching.reader import Reader
from embedstore.storage.table import conform
from embedstore.vectors import Positions, Vectors
from embedstore.wording import counted, quoted

NOTE = "_matches.json"
"""Says what the files hold; what reads Parquet folders passes over a name that begins so."""

_HELD = ".writing"
"""Locked by who writes into a folder that is not whole yet; a process that ends lets go of it, however it ends."""
_TRIES = 50

Take: TypeAlias = Callable[[Positions, Sequence[str]], pa.Table]
"""Returns columns of rows by their places among those that were scored."""


@dataclass(frozen=True)
class MatchParts:
    """What was written: how many rows of `images` match, in which files, by class where there are several."""

    folder: str
    query: str
    threshold: float | None
    """None where each of several classes has its own."""
    images: int
    matches: int = 0
    by_class: dict[str, int] = field(default_factory=dict)
    files: int = 0
    store_id: str = ""
    version: int = 0
    """Of the store that was read."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        above = "" if self.threshold is None else f" above {self.threshold:.4f}"
        match = "matches" if self.matches == 1 else "match"
        lines = [f"{self.matches:,} of {counted(self.images, 'image')} {match} {self.query!r}{above}"]
        lines += [f"  {label}: {number:,}" for label, number in self.by_class.items()]
        return "\n".join([*lines, f"written to {quoted(self.folder)} in {counted(self.files, 'Parquet file')}"])


def write_matches(
    reader: Reader, folder: str | os.PathLike[str], query: Any, threshold: Any = None, where: Any = None, **words: Any
) -> MatchParts:
    """Write every match into a folder, as Parquet files with the columns and rows that `classify` answers with.

    Each file is in the order of an answer: score descending, then id ascending. On a cluster every node must see the
    folder that `folder` lies in.

    Parameters
    ----------
    reader : Reader
    folder : path
        New, empty, or an earlier answer that was written by this function and not changed since: it is replaced.
    query : query, list of queries, Concept or Classifier
    threshold : float, optional
        A match is a score larger than this; by default a classifier's own.
    where : str, Expression or mask, optional
        Only rows that this keeps.
    **words
        `template`, `weights`, `opposing`: see `Concept.of`.

    Raises
    ------
    NotOursError
        The folder holds something else.
    PathError
        The folder that it lies in is not there, for this process or for a node of the cluster.
    """
    target = Path(os.path.abspath(folder))
    if target.is_symlink():  # the folder that it leads to is replaced, not the link
        target = target.resolve()
    _require_replaceable(target)
    queries, decide, label, limit = _asked(reader, query, threshold, words)
    parts, mask = reader.rows.snapshot.parts, reader.mask(where)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    write = functools.partial(_write_part, folder=beside, schema=reader.rows.snapshot.schema, decide=decide)
    pieces = scan.strips(parts, max((part.rows for part in parts), default=1), mask)
    tasks = [scan.Task(*piece, queries, 0, np.empty(0, np.float32)) for piece in pieces]
    images = len(reader) if mask is None else int(np.count_nonzero(mask))
    told = MatchParts(os.fspath(folder), label, limit, images, store_id=reader.store_id, version=reader.version)
    files: dict[str, int] = {}
    by_class: collections.Counter[str] = collections.Counter()
    beside.mkdir()
    held = FileLock(beside / _HELD)
    try:
        with contextlib.suppress(NotImplementedError):  # a file system without locks
            held.acquire()
        for name, rows, classes in reader.executor.map(write, tasks):
            files |= {name: rows} if rows else {}
            by_class.update(classes)
        told = replace(told, matches=sum(files.values()), by_class=dict(by_class), files=len(files))
        _finish(beside, target, told, files)
    finally:
        held.release(force=True)
        _discard(beside)
    _discard_abandoned(target)
    return told


def _asked(reader: Reader, query: Any, threshold: Any, words: dict[str, Any]) -> tuple[Vectors, Any, str, float | None]:
    """Return the vectors to score, what decides by their scores, what was asked in words, and the one threshold."""
    if not isinstance(query, Classifier):
        if threshold is None:
            raise InputError("a query needs a threshold to decide by; `store.calibrate` finds one")
        concept, limit = Concept.of(query, **words), as_threshold(threshold)
        vector, opponents = reader.concept_vectors([concept])[0]
        return (
            np.concatenate([vector[np.newaxis], opponents]),
            functools.partial(_exceeding, limit=limit),
            concept.label,
            limit,
        )
    query.require_space(reader.space)
    queries = reader.query_vectors(list(query.vectors))
    if len(query.targets) == 1:
        limit = query.threshold if threshold is None else as_threshold(threshold)
        return queries, functools.partial(_exceeding, limit=limit), query.name, limit
    if threshold is not None:
        raise InputError(f"{query.name!r} has a threshold for each class; leave threshold out")
    return queries, functools.partial(_predicted, classifier=query), query.name, None


def _exceeding(lines: Vectors, take: Take, columns: Sequence[str], limit: float) -> pa.Table:
    """Return the rows whose score exceeds a limit, as `Matches.table` has them."""
    line = opposed(lines[0], lines[1:]) if len(lines) > 1 else lines[0]
    chosen = np.flatnonzero(above(line, limit))
    return Matches(take(chosen, columns), np.arange(len(chosen)), line[chosen], "", limit).table


def _predicted(lines: Vectors, take: Take, columns: Sequence[str], classifier: Classifier) -> pa.Table:
    """Return the rows of each class, as `evaluation.predict` has them."""
    scores = classifier.scores(lines)
    return predicted(classifier, scores, classifier.match(scores), take)


def _write_part(task: scan.Task, folder: Path, schema: pa.Schema, decide: Any) -> tuple[str, int, dict[str, int]]:
    """Write the matches of one part; return the file's name, its rows, and how many are of each class."""
    if not folder.is_dir():
        raise PathError(
            errno.ENOENT,
            "there is no such folder, where the matches are to be written; every node of a cluster must see the folder "
            "that the answer's folder lies in, at the same path",
            os.fspath(folder),
        )
    kept = np.arange(task.first, task.last) if task.mask is None else task.first + np.flatnonzero(task.mask)

    def take(places: Positions, columns: Sequence[str]) -> pa.Table:
        wanted = pa.schema([schema.field(name) for name in columns])
        return conform(task.part.read_rows(kept[places], columns), wanted) if len(places) else wanted.empty_table()

    table = decide(scan.query_scores(task), take, schema.names)
    name = f"matches-{task.position:012d}.parquet"
    if len(table):
        beside = folder / f".{os.getpid()}.{uuid.uuid4().hex[:8]}.{name}"
        try:
            write_rows(table, beside)
            beside.replace(folder / name)
        finally:
            beside.unlink(missing_ok=True)
    labels = table.column("predicted").to_pylist() if "predicted" in table.column_names else []
    return name, len(table), dict(collections.Counter(labels))


def _require_replaceable(target: Path) -> None:
    """Refuse a folder that holds what was not written here."""
    if not target.parent.is_dir():
        raise PathError(errno.ENOENT, f"the folder {target.parent} is not there; make it first", os.fspath(target))
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not _is_own(target))):
        raise NotOursError(
            f"{target} is there already and holds what embedstore did not write, or what was changed since; name "
            "another folder, or move it away"
        )


def _is_own(folder: Path) -> bool:
    """Tell whether a folder holds an earlier answer, and nothing else."""
    try:
        told = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return {**told["sizes"]} == _sizes(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file in a folder but for the note."""
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.name not in (NOTE, _HELD)}


def _finish(beside: Path, target: Path, told: MatchParts, files: dict[str, int]) -> None:
    """Leave only the files that are told of, by name with their rows, add the note, and give the folder its name."""
    for file in list(beside.iterdir()):
        if file.name not in files:  # what a worker that was killed had begun
            file.unlink()
    note = {**told.to_dict(), "folder": target.name, "rows": files, "sizes": _sizes(beside)}
    (beside / NOTE).write_text(json.dumps(note, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with _moved_away(target):
        beside.rename(target)


def _discard_abandoned(target: Path) -> None:
    """Delete the folders in which earlier runs, which were killed, have written for the same target."""
    for folder in target.parent.glob(f".{glob.escape(target.name)}.*"):
        if re.fullmatch("[0-9a-f]{8}", folder.suffix[1:]) and (folder / _HELD).is_file():
            with contextlib.suppress(Timeout, OSError, NotImplementedError), FileLock(folder / _HELD, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def _discard(folder: Path) -> None:
    """Delete a folder in which tasks that nobody waits for any more may still be writing."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


@contextlib.contextmanager
def _moved_away(target: Path) -> Iterator[None]:
    """Let another folder take the place of an earlier answer; it comes back where that fails."""
    earlier = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        target.rename(earlier)
    except FileNotFoundError:
        yield
        return
    try:
        yield
    except BaseException:
        earlier.rename(target)
        raise
    shutil.rmtree(earlier)
