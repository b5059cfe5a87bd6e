"""Adding to a store: what is new in a source is embedded once and stored; and the plan that only says so.

The two public functions, `add` and `plan_add`. Reading, embedding and storing are `pipeline`'s, ready vectors
`ready_vectors`' business.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from embedstore import images
from embedstore.embedders.protocol import Embedder
from embedstore.errors import EmbedderError, InputError, spelt
from embedstore.images import PictureSource
from embedstore.ingest.deduplication import Intake, KnownRecords
from embedstore.ingest.executor import ExecutorFactory, ahead, examined, thread_executor
from embedstore.ingest.pipeline import Run, bar
from embedstore.ingest.ready_vectors import add_vectors
from embedstore.ingest.reports import AddPlan, AddReport
from embedstore.settings import cores
from embedstore.sources import Failure, Record, Source, is_missing, is_path, open_source
from embedstore.sources.record import Chain, MemorySource
from embedstore.storage.folder import StoreFolder
from embedstore.storage.metadata import Columns
from embedstore.storage.older_versions import OlderPictures
from embedstore.storage.rows import Rows

_SAMPLE = 64
"""Pictures that a plan prepares to learn how many bytes are sent."""
_AHEAD = 64
"""Records that a plan reads ahead."""
_AT_ONCE = 65_536
_BATCH = 64
"""Pictures that a request holds where no embedder says."""


def add(
    folder: StoreFolder,
    embedder: Callable[[], Embedder],
    source: Any = None,
    start_executor: ExecutorFactory = thread_executor,
    *,
    label_from_folder: bool = False,
    embedding_column: str | None = None,
    image_column: str | None = None,
    split: str | None = None,
    normalise: bool = False,
    reuse: Sequence[Any] = (),
    only: Sequence[str] | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    thumbnails: bool = True,
    prune: bool = False,
    progress: bool | None = None,
) -> AddReport:
    """Embed what is new in `source` and store it.

    Parameters
    ----------
    embedder : callable
        Returns the embedder; called when there is something to embed, and not before.
    source : path, glob, list, datasets.Dataset, PIL.Image.Image, ndarray or bytes
        See `sources.open_source`. May be left out when `only` names files and addresses.
    start_executor : callable
        Makes what reads and embeds, see `executor.IngestExecutor`: threads of this process, or workers of a cluster.
        Decisions, claims and rows are this process's own either way.
    label_from_folder : bool
        Keep the name of a file's folder as its ``label``.
    embedding_column : str, optional
        The source holds vectors in this column; they are stored and nothing is embedded.
    image_column, split : str, optional
        For data sets and records which column holds the pictures; for data sets, and folders with folders train,
        validation and test, which split.
    normalise : bool
        Scale given vectors to unit length, rather than refuse those that are not.
    reuse : sequence of EmbedStore or path
        Stores of the same space; a vector of a known picture is copied from them.
    only : sequence of str, optional
        Take only the records with these uris, such as `reports.read_failures` returns.
    workers, batch_size : int, optional
        Requests under way at once, and pictures in each; the embedder knows good values.
    thumbnails : bool
        Keep small copies, of 200 pixels at most, of pictures that no file on this machine holds: those in memory, of
        data sets and at URLs. Sheets and the notebook show them; see `storage.thumbnails`.
    prune : bool
        Remove the rows of pictures below the folders of this source whose files are not there any more. Rows of
        tables, archives and URLs are left alone.
    progress : bool, optional
        Show a bar on stderr; by default when that is a terminal.

    Returns
    -------
    AddReport
        Pictures that cannot be read are in ``failures``, there and in the store's ``failures.csv``. When the
        embedder's budget of requests is spent, ``stopped`` says so.

    Raises
    ------
    SourceError, EmbedderError, SpaceMismatchError
        What was embedded before is in the store; the same call goes on from there.
    InputError
        A metadata value does not fit its column. It is found before the picture is embedded.

    Notes
    -----
    Each batch is on the disk before more than `workers` further ones are under way: if the process is killed, at
    most ``workers * batch_size`` pictures are embedded a second time. Rows become visible to readers when a part's
    worth has gathered, every ten minutes, and at the end. Two calls at once on one store are safe: each row is there
    once, and a picture that is new to both is embedded by the one that claims it first; the other waits for its vector.
    """
    if embedding_column is not None:
        if only is not None:
            raise InputError(
                spelt("`only`", "--retry-failed") + " chooses pictures; a source of given vectors is taken whole"
            )
        if prune:
            raise InputError(f"{spelt('`prune`', '--prune')} looks for the files of pictures; given vectors have none")
        return add_vectors(folder, source, embedding_column, normalise=normalise, progress=progress)
    opened = _open(source, only, label_from_folder=label_from_folder, image_column=image_column, split=split)
    if prune and (only is not None or not opened.folders):
        raise InputError(f"{spelt('`prune`', '--prune')} removes what is gone from a folder; the source names none")
    with folder.running.begun() as name:
        run = Run(folder, embedder, name, _reused(folder, reuse), workers, batch_size, thumbnails, start_executor)
        report = run.run(opened, progress)
    if only is None and opened.folders and report.stopped is None:
        _prune(folder, opened, run.seen, prune, report)
    return report


def all_missing(rows: Rows) -> list[str]:
    """Return the ids of rows whose picture was a file that is not there any more.

    Raises InputError where that is every one: a disk that is not mounted looks so.
    """
    gone = missing(rows)
    if gone and not any(is_path(uri) and not is_missing(uri) for _, uri in _places(rows)):
        raise InputError(
            f"none of the {len(gone):,} files that the store was made of is there: is a disk not mounted, or a folder "
            "renamed? Add the folder where it is now, and the rows go along; or remove them by ids or a condition"
        )
    return gone


def missing(rows: Rows, below: Sequence[str] = (), seen: Collection[str] = ()) -> list[str]:
    """Return the ids of rows whose picture was a file that is not there any more, see `sources.is_missing`.

    Only of those below the folders `below`, where some are named; uris `seen` are known to be there.
    """
    roots = tuple(os.path.join(root, "") for root in below) or ("",)
    gone = [number for number, uri in _places(rows) if uri.startswith(roots) and uri not in seen and is_missing(uri)]
    return list(rows.take(np.array(gone, np.int64), ["id"]).column(0).to_pylist()) if gone else []


def _places(rows: Rows) -> Iterator[tuple[int, str]]:
    """Yield the number and the uri of each row, with few of them as Python objects at a time."""
    uris = rows.metadata(["uri"]).column(0)
    for start in range(0, len(uris), _AT_ONCE):
        texts = uris.slice(start, _AT_ONCE).to_pylist()
        yield from ((start + number, uri) for number, uri in enumerate(texts) if uri)


def _prune(folder: StoreFolder, source: Source, seen: Collection[str], prune: bool, report: AddReport) -> None:
    """Count the rows of files that are gone from the folders of a source, and with `prune` remove them."""
    gone = missing(Rows(folder.snapshot()), source.folders, seen)
    report.missing = len(gone)
    if gone and prune:
        report.pruned = folder.remove(gone, None)
        newest = folder.snapshot()
        report.images, report.version = newest.rows, newest.version


def plan_add(
    folder: StoreFolder,
    embedder: Callable[[], Embedder],
    source: Any = None,
    *,
    label_from_folder: bool = False,
    image_column: str | None = None,
    split: str | None = None,
    reuse: Sequence[Any] = (),
    only: Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> AddPlan:
    """Say what `add` would do, whose parameters these are: nothing is embedded, sent or written.

    Every file is read and hashed, to recognise pictures that are here under another name; none is decoded, so a
    damaged one counts as one to embed. Neither a key nor the weights of a model are needed; without them some figures
    are missing.
    """
    opened = _open(source, only, label_from_folder=label_from_folder, image_column=image_column, split=split)
    planner = _Planner(folder, embedder, _reused(folder, reuse))
    with ThreadPoolExecutor(cores()) as pool:
        shown = bar(opened, opened.count(), "planned", progress)
        look = functools.partial(examined, look=planner.upload_size)
        for record, looked_at in ahead(pool, look, (record.carried() for record in shown), _AHEAD):
            planner.take(record, looked_at)
    return planner.finish(opened, batch_size)


def _open(source: Any, only: Sequence[str] | None, **options: Any) -> Source:
    """Open a source, for the records in a list of uris only where there is one.

    Without a source these are the files and addresses themselves. Raises InputError where there is nothing to add.
    """
    if only is None and source is None:
        raise InputError("say what to add: a folder, files, a data set, or pictures")
    if only is None:
        return open_source(source, **options)
    if not only:
        raise InputError("the list of what failed is empty: there is nothing to try again")
    if source is not None:
        return _FilteredSource(open_source(source, **options), only)
    places = {uri: uri if "://" in uri else _listed_as(uri) for uri in only}
    there = {uri: place for uri, place in places.items() if "://" in place or os.path.exists(place)}
    absent = sorted(places.keys() - there.keys())
    parts: list[Source] = [open_source(list(there.values()), **options)] if there else []
    return Chain([*parts, _MissingSource(absent)]) if absent else parts[0]


def _listed_as(uri: str) -> str:
    """Return the path that a list of failures names: in it, bytes of names that are no UTF-8 stand as ``\\xff``."""
    if os.path.lexists(uri) or "\\x" not in uri:
        return uri
    path = re.sub(rb"\\x([89a-f][0-9a-f])", lambda escaped: bytes.fromhex(escaped[1].decode()), uri.encode())
    return os.fsdecode(path) if os.path.lexists(path) else uri


class _FilteredSource(Source):
    """Those records of a source whose uris are in a list, such as the failures of an earlier `add`."""

    def __init__(self, source: Source, uris: Sequence[str]) -> None:
        super().__init__()
        self._source, self._uris = source, set(uris)
        self.left_out = source.left_out

    @property
    def failures(self) -> list[Failure]:
        return [failure for failure in self._source.failures if failure.uri in self._uris]

    def describe(self) -> str:
        return f"{len(self._uris):,} chosen of: {self._source.describe()}"

    def count(self) -> int:
        return len(self._uris)

    def __iter__(self) -> Iterator[Record]:
        return (record for record in self._source if record.uri in self._uris)


class _MissingSource(MemorySource):
    """No pictures, but a failure for each uri that is no file and no address."""

    def __init__(self, uris: Sequence[str]) -> None:
        super().__init__([])
        for uri in uris:
            inside = "; for rows of tables and archives name their SOURCE too" if {"!", "#"} & set(uri) else ""
            self._fail(uri, f"it is not there{inside}")

    def describe(self) -> str:
        return f"{len(self._failures):,} that are not there"


def _reused(folder: StoreFolder, reuse: Sequence[Any]) -> list[Rows]:
    """Return the rows of the stores that vectors may be copied from: open ones, or paths."""
    reused = []
    for other in reuse:
        is_open = hasattr(other, "folder")
        there = other.folder if is_open else StoreFolder.open(other)
        folder.space.require(there.space, f"the store {there.location} named by reuse")
        reused.append(other.rows if is_open else Rows(there.snapshot()))
    return reused


class _Planner:
    """Goes through the records of a source once, and counts what would happen to each."""

    def __init__(self, folder: StoreFolder, embedder: Callable[[], Embedder], reused: Sequence[Rows]) -> None:
        self._plan = AddPlan()
        self._sizes: list[int] = []
        self._embedder: Any = None
        # A plan needs neither weights nor a key: without them it goes without sizes and times.
        with contextlib.suppress(EmbedderError):
            self._embedder = embedder()
        self._rate = getattr(self._embedder, "requests_per_second", None)
        rows = Rows(folder.snapshot())
        self._known = KnownRecords(rows, reused, OlderPictures(folder.images, rows))
        self._columns = Columns(rows.snapshot.schema)
        self._intake = Intake(self._plan, self._columns)
        self._waiting = folder.ledger.paid_hashes()
        self._new: set[str] = set()

    def take(self, record: Record, looked_at: tuple[str, int | None] | Failure) -> None:
        """Count one record."""
        content_hash, size = (looked_at, None) if isinstance(looked_at, Failure) else looked_at
        decision = self._intake.decide(record, content_hash, self._known)
        if decision is None or isinstance(content_hash, Failure):
            return
        origin = self._known.origin(content_hash)
        if origin is None and content_hash in self._waiting:
            self._plan.recovered += 1
            return
        needed = origin is None and content_hash not in self._new
        self._plan.tally(decision.action, needed=needed, origin=origin)
        if needed:
            self._new.add(content_hash)
            if size is not None and len(self._sizes) < _SAMPLE:
                self._sizes.append(size)

    def finish(self, source: Source, batch_size: int | None) -> AddPlan:
        """Return the plan, with what the counts cost in requests, time and bytes."""
        plan = self._plan
        plan.source = source.describe()
        plan.end(source, self._columns)
        pictures: int = getattr(self._embedder, "batch_size", _BATCH) if batch_size is None else batch_size
        plan.requests = math.ceil(plan.embedded / pictures)
        plan.seconds = plan.requests / self._rate if self._rate else None
        plan.upload_bytes = round(float(np.mean(self._sizes)) * plan.embedded) if self._sizes else None
        return plan

    def upload_size(self, content_hash: str, data: PictureSource) -> int | None:
        """Return the bytes that a new picture takes on the wire; None where nothing is sent, or enough is known.

        Runs on a reader thread.
        """
        if self._rate is None or len(self._sizes) >= _SAMPLE or self._known.holds(content_hash):
            return None
        try:
            prepared = self._embedder.prepare(images.read(data).image)
        except (EmbedderError, InputError):
            return None
        return len(prepared) if isinstance(prepared, bytes) else None
