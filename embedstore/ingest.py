"""Records of a source -> rows of a store, each picture embedded once.

Reading, hashing and decoding run on all cores ahead of the model; vectors go to the journal batch by batch and
into a part at the end, or every 40,000 rows. What a record means for the store is decided by `known`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore import changes, images, journal, parts, scan, vectors
from embedstore.embedders.protocol import Embedder
from embedstore.errors import EmbedderError, ImageError, InputError, RejectedImagesError
from embedstore.folder import SCHEMA
from embedstore.known import Decision, Known
from embedstore.metadata import storable
from embedstore.reports import AddPlan, AddReport, Counts, write_failures
from embedstore.sources import Failure, Record, open_source
from embedstore.store import EmbedStore
from embedstore.vectors import Vectors

_PLAN_SAMPLE = 64
_FREE_ROWS = 1_000


def add(
    store: EmbedStore,
    source: Any,
    *,
    label_from_folder: bool = False,
    embedding_column: str | None = None,
    image_column: str | None = None,
    split: str | None = None,
    normalise: bool = False,
    reuse: Sequence[Any] = (),
    workers: int | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> AddReport:
    """Embed what is new in `source` and store it.

    Parameters
    ----------
    store : EmbedStore
    source : path, glob, list, datasets.Dataset, PIL.Image.Image, ndarray or bytes
        See `sources.open_source`.
    label_from_folder : bool
        Keep the name of a file's folder as its ``label``.
    embedding_column : str, optional
        The source holds vectors in this column; they are stored and nothing is embedded.
    image_column, split : str, optional
        For data sets: which column and which split.
    normalise : bool
        Scale given vectors to unit length, rather than refuse those that are not.
    reuse : sequence of EmbedStore or path
        Stores of the same space; a vector of a known picture is copied from them.
    workers, batch_size : int, optional
        Requests under way at once, and pictures in each; the embedder knows good values.
    progress : bool, optional
        Show a bar on stderr; by default when that is a terminal.

    Returns
    -------
    AddReport
        Pictures that cannot be read are in ``failures``, there and in the store's ``failures.csv``.

    Raises
    ------
    SourceError, EmbedderError, SpaceMismatchError
        What was embedded before is in the store; the same call goes on from there.

    Notes
    -----
    Each batch is on the disk before more than `workers` further ones are under way: if the process is killed, at
    most ``workers * batch_size`` pictures are embedded a second time.
    """
    if embedding_column is not None:
        from embedstore.given import add_vectors

        return add_vectors(store, source, embedding_column, normalise=normalise, progress=progress)
    opened = open_source(source, label_from_folder=label_from_folder, image_column=image_column, split=split)
    run = _Run(store, _lenders(store, reuse), workers, batch_size)
    return run.run(opened, progress)


def plan_add(
    store: EmbedStore,
    source: Any,
    *,
    label_from_folder: bool = False,
    image_column: str | None = None,
    split: str | None = None,
    reuse: Sequence[Any] = (),
    batch_size: int | None = None,
    progress: bool | None = None,
) -> AddPlan:
    """Say what `add` would do: nothing is embedded, sent or written.

    Returns
    -------
    AddPlan
    """
    opened = open_source(source, label_from_folder=label_from_folder, image_column=image_column, split=split)
    known = Known(store.rows, _lenders(store, reuse))
    plan = AddPlan()
    new: set[str] = set()
    sizes: list[int] = []
    with ThreadPoolExecutor(scan.cores()) as pool:
        for record, outcome in _ahead(pool, _hashed, bar(opened, opened.count(), "planned", progress), 256):
            plan.found += 1
            if isinstance(outcome, Failure):
                plan.failures.append(outcome)
                continue
            content_hash, data = outcome
            decision = known.decide(record, content_hash)
            needed = not known.holds(content_hash) and content_hash not in new
            tally(plan, decision, needed=needed, lent=known.lent(content_hash))
            if needed:
                new.add(content_hash)
                if len(sizes) < _PLAN_SAMPLE and (size := _upload_size(store, data)) is not None:
                    sizes.append(size)
    plan.failures.extend(opened.failures)
    plan.requests = math.ceil(plan.embedded / (batch_size or _embedder_value(store, "batch_size", 64)))
    rate = getattr(store.embedder, "requests_per_second", None) if plan.embedded else None
    plan.seconds = plan.requests / rate if rate else None
    plan.upload_bytes = round(np.mean(sizes) * plan.embedded) if sizes else None
    return plan


def tally(counts: Counts, decision: Decision, *, needed: bool, lent: bool) -> None:
    """Count a decision; `needed` tells whether it costs an embedding, `lent` whether another store has it."""
    if decision.action in ("unchanged", "updated", "moved", "replaced"):
        setattr(counts, decision.action, getattr(counts, decision.action) + 1)
    if needed:
        counts.embedded += 1
    elif lent:
        counts.reused += 1
    elif decision.action in ("copied", "embedded"):
        counts.copied += 1


@dataclass(slots=True)
class _Ready:
    """A record that has been read: its hash, and the model's input where the picture is new."""

    content_hash: str
    width: int | None
    height: int | None
    prepared: Any


@dataclass(slots=True)
class _Row:
    """A row on its way into the store."""

    decision: Decision
    record: Record
    content_hash: str
    width: int | None
    height: int | None


class _Run:
    """One `add`: what is under way, what waits for it, and the journal that keeps what is done."""

    def __init__(
        self, store: EmbedStore, lenders: Sequence[EmbedStore], workers: int | None, batch_size: int | None
    ) -> None:
        self._store = store
        self._lenders = lenders
        self._workers = workers
        self._batch_size = batch_size
        self._known = Known(store.rows, lenders)
        self._report = AddReport()
        self._schema = store.snapshot.schema
        self._journal: journal.Journal | None = None
        self._seen: set[str] = set()
        self._batch: list[tuple[str, Any]] = []
        self._waiting: dict[str, list[_Row]] = {}
        self._under_way: dict[Future[list[Vectors | EmbedderError]], list[str]] = {}
        self._fresh: dict[str, Vectors] = {}
        self._free: list[tuple[_Row, Vectors]] = []

    def run(self, source: Any, progress: bool | None) -> AddReport:
        started = time.perf_counter()
        self._recover()
        # Made before the first picture is read: a missing key or model is an error at once.
        embedder = self._store.embedder
        self._batch_size = self._batch_size or embedder.batch_size
        self._workers = self._workers or embedder.workers
        try:
            with (
                ThreadPoolExecutor(scan.cores()) as readers,
                ThreadPoolExecutor(self._workers) as self._models,
            ):
                try:
                    self._take_all(source, embedder, readers, progress)
                    self._send()
                finally:
                    self._finish_under_way()
        except EmbedderError as error:
            error.add_note(
                f"{self._report.embedded - self._lost():,} images were embedded and are stored; "
                "run the same command again to go on"
            )
            raise
        finally:
            self._fold()
            self._report.failures.extend(source.failures)
            write_failures(self._store.path, self._report.failures)
            self._report.seconds = time.perf_counter() - started
            self._report.images, self._report.version = len(self._store), self._store.version
        return self._report

    def _take_all(
        self, source: Any, embedder: Embedder, readers: ThreadPoolExecutor, progress: bool | None
    ) -> None:
        def read(record: Record) -> _Ready | Failure:
            return _read(record, self._known, embedder)

        window = 4 * scan.cores() + 2 * (self._batch_size or 1)
        for record, outcome in _ahead(readers, read, bar(source, source.count(), "added", progress), window):
            self._report.found += 1
            if isinstance(outcome, Failure):
                self._report.failures.append(outcome)
            elif record.uri in self._seen:
                self._report.unchanged += 1
            else:
                self._seen.add(record.uri)
                self._take(record, outcome)

    def _take(self, record: Record, ready: _Ready) -> None:
        decision = self._known.decide(record, ready.content_hash)
        here = self._fresh.get(ready.content_hash)
        needed = here is None and not self._known.holds(ready.content_hash)
        first = needed and ready.content_hash not in self._waiting
        tally(self._report, decision, needed=first, lent=self._known.lent(ready.content_hash))
        if decision.action == "unchanged":
            return
        row = _Row(decision, record, ready.content_hash, ready.width, ready.height)
        if not needed:
            vector = here if here is not None else self._known.vector(ready.content_hash)
            assert vector is not None
            if row.width is None:
                row.width, row.height = self._known.size(ready.content_hash)
            self._free.append((row, vector))
            if len(self._free) >= _FREE_ROWS:
                self._keep_free()
            return
        if first and ready.prepared is None:  # another process has removed the row that had the vector
            again = _read(record, self._known, self._store.embedder)
            if isinstance(again, Failure):
                self._report.failures.append(again)
                return
            row.width, row.height, ready = again.width, again.height, again
        self._waiting.setdefault(ready.content_hash, []).append(row)
        if first:
            self._batch.append((ready.content_hash, ready.prepared))
            if len(self._batch) >= (self._batch_size or 1):
                self._send()

    def _send(self) -> None:
        """Give the batch to the model, once the number of batches under way allows."""
        if not self._batch:
            return
        while len(self._under_way) >= (self._workers or 1):
            self._collect()
        hashes, prepared = zip(*self._batch, strict=True)
        self._batch = []
        self._report.requests += 1
        embedder = self._store.embedder
        self._under_way[self._models.submit(_embed, embedder, list(prepared))] = list(hashes)

    def _collect(self) -> None:
        """Write down what has come back."""
        done, _ = wait(self._under_way, return_when=FIRST_COMPLETED)
        for future in done:
            hashes = self._under_way.pop(future)
            rows: list[_Row] = []
            lines: list[Vectors] = []
            for content_hash, outcome in zip(hashes, future.result(), strict=True):
                waiting = self._waiting.pop(content_hash)
                if isinstance(outcome, EmbedderError):
                    self._report.embedded -= 1
                    self._report.copied -= len(waiting) - 1
                    self._report.failures += [Failure(row.record.uri, str(outcome)) for row in waiting]
                    continue
                self._fresh[content_hash] = outcome
                rows += waiting
                lines += [outcome] * len(waiting)
            if rows:
                self._keep(rows, np.stack(lines))

    def _finish_under_way(self) -> None:
        """Write down every batch that comes back, even when one of them, or the source, has failed."""
        failure: EmbedderError | None = None
        while self._under_way:
            try:
                self._collect()
            except EmbedderError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _lost(self) -> int:
        """Count the pictures that were to be embedded and have not been."""
        return len(self._waiting)

    def _keep(self, rows: Sequence[_Row], found: Vectors) -> None:
        """Put rows into the journal; fold it when it has grown to a part."""
        table = _table(rows)
        self._schema = changes.merged_schema(self._schema, table.schema)
        column = parts.list_array(found)
        if self._journal is None:
            self._journal = journal.Journal(self._store.path / "journal")
        self._journal.append(table.append_column(parts.embedding_field(), column))
        if self._journal.rows >= parts.rows_per_part(self._store.space.dim) and not self._free:
            self._fold()

    def _keep_free(self) -> None:
        """Put down rows whose vectors cost nothing, many at a time."""
        rows, self._free = self._free, []
        if rows:
            self._keep([row for row, _ in rows], np.stack([vector for _, vector in rows]))

    def _fold(self) -> None:
        self._keep_free()
        if self._journal is None:
            return
        with self._store.writing():
            self._store.fold(self._journal)
        self._journal = None
        self._fresh = {}
        self._known = Known(self._store.rows, self._lenders)

    def _recover(self) -> None:
        """Fold what an `add` left behind that was killed."""
        for orphan in journal.orphans(self._store.path / "journal"):
            before = len(self._store)
            with self._store.writing():
                self._store.fold(orphan)
            self._report.recovered += len(self._store) - before
        self._known = Known(self._store.rows, self._lenders)
        self._schema = self._store.snapshot.schema


def _read(record: Record, known: Known, embedder: Embedder) -> _Ready | Failure:
    """Read, hash and, for a picture that is new, decode and prepare a record; runs on a reader thread."""
    try:
        data = record.load()
        content_hash = images.content_hash(data)
        if known.holds(content_hash):
            return _Ready(content_hash, None, None, None)
        picture = images.read(data)
        return _Ready(picture.content_hash, picture.width, picture.height, embedder.prepare(picture.image))
    except (ImageError, OSError) as error:
        return Failure(record.uri, reason(error))


def _hashed(record: Record) -> tuple[str, Any] | Failure:
    try:
        data = record.load()
        return images.content_hash(data), data
    except (ImageError, OSError) as error:
        return Failure(record.uri, reason(error))


def reason(error: Exception) -> str:
    """Return why a record could not be read, without the path that stands beside it anyway."""
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ImageError):
        return error.strerror
    return str(error)


def _embed(embedder: Embedder, prepared: list[Any]) -> list[Vectors | EmbedderError]:
    """Embed a batch; when it is refused, halve it until the pictures that are to blame stand alone."""
    try:
        found = embedder.embed_prepared(prepared)
    except RejectedImagesError as error:
        if len(prepared) == 1:
            return [error]
        middle = len(prepared) // 2
        return _embed(embedder, prepared[:middle]) + _embed(embedder, prepared[middle:])
    if found.shape != (len(prepared), embedder.space.dim):
        raise EmbedderError(
            f"the embedder returned shape {found.shape} for {len(prepared)} pictures of {embedder.space.dim} components"
        )
    return list(vectors.normalise(vectors.as_vectors(found, embedder.space.dim, "the embedder's answer")))


def _table(rows: Sequence[_Row]) -> pa.Table:
    """Return rows as a table without vectors."""
    now = datetime.now(UTC)
    base = {
        "id": [row.decision.id for row in rows],
        "uri": [row.record.uri for row in rows],
        "content_hash": [row.content_hash for row in rows],
        "width": [row.width for row in rows],
        "height": [row.height for row in rows],
        "added_at": [now] * len(rows),
    }
    table = pa.table(base, schema=SCHEMA)
    metadata = storable([row.decision.metadata for row in rows])
    for name in metadata.schema.names:
        table = table.append_column(metadata.schema.field(name), metadata.column(name))
    return table


def _ahead(pool: ThreadPoolExecutor, function: Any, records: Iterable[Record], window: int) -> Iterator[Any]:
    """Apply a function on a pool, at most `window` records ahead; yield (record, result) in order."""
    waiting: deque[tuple[Record, Future[Any]]] = deque()
    try:
        for record in records:
            waiting.append((record, pool.submit(function, record)))
            if len(waiting) >= window:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def bar(records: Iterable[Any], total: int | None, what: str, progress: bool | None) -> Iterable[Any]:
    """Show progress on stderr while iterating: count, rate and time left."""
    from tqdm import tqdm

    disable = None if progress is None else not progress  # None: off when stderr is no terminal
    shown: Iterable[Any] = tqdm(
        records, total=total, desc=what, unit=" images", disable=disable, dynamic_ncols=True, leave=False
    )
    return shown


def _lenders(store: EmbedStore, reuse: Sequence[Any]) -> list[EmbedStore]:
    lenders = []
    for other in reuse:
        lender = other if isinstance(other, EmbedStore) else EmbedStore.open(other)
        store.space.require(lender.space, f"the store {lender.path} named by reuse")
        lenders.append(lender)
    return lenders


def _embedder_value(store: EmbedStore, name: str, otherwise: int) -> int:
    try:
        return int(getattr(store.embedder, name))
    except EmbedderError:
        return otherwise


def _upload_size(store: EmbedStore, data: Any) -> int | None:
    """Return the bytes that one picture takes on the wire; None where the embedder sends nothing."""
    try:
        prepared = store.embedder.prepare(images.read(data).image)
    except (EmbedderError, InputError):
        return None
    return len(prepared) if isinstance(prepared, bytes) else None
