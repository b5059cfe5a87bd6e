"""Records that have been read -> batches to the model -> vectors in the journal.

One `Run` is one `add`. Only its own thread writes; readers and requests run on two pools. A batch that comes back
is in the journal before the next one leaves. What a record means for the store is decided by `known`, how it is
read by `incoming`, how rows become parts by `arrivals`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from embedstore.embedders import checked
from embedstore.embedders.protocol import Embedder
from embedstore.errors import BudgetSpentError, EmbedderError, RejectedImagesError
from embedstore.ingest.arrivals import Arrival, Arrivals, recover, tally
from embedstore.ingest.incoming import Ready, ahead, bar, read
from embedstore.ingest.reports import AddReport, write_failures
from embedstore.machine import cores
from embedstore.sources import Failure, Record, Source
from embedstore.store import EmbedStore
from embedstore.vectors import Vectors

_BATCHES_AHEAD = 64
_MOST_WORKERS = 256

Batch = list[tuple[str, Any]]
"""Content hashes of pictures, each with what the embedder's ``prepare`` made of it."""


class Run:
    """One `add`: what is under way, what waits for it, and the journal that keeps what is done.

    Parameters
    ----------
    store : EmbedStore
    lenders : sequence of EmbedStore
        Stores whose vectors may be copied.
    workers, batch_size : int or None
        Batches under way at once and pictures in each; None asks the embedder.
    """

    def __init__(
        self, store: EmbedStore, lenders: Sequence[EmbedStore], workers: int | None, batch_size: int | None
    ) -> None:
        self._store = store
        self._workers = workers
        self._batch_size = batch_size
        self._report = AddReport(recovered=recover(store))
        self._arrivals = Arrivals(store, lenders)
        self._seen: set[str] = set()
        self._batch: Batch = []
        self._to_send: deque[Batch] = deque()
        self._under_way: dict[Future[Vectors], Batch] = {}
        self._waiting: dict[str, list[Arrival]] = {}
        self._failure: Exception | None = None
        self._loading = threading.Lock()
        self._embedder: Embedder | None = None

    def run(self, source: Source, progress: bool | None) -> AddReport:
        """Take everything from a source; whatever ends this early, what was embedded is stored first."""
        started = time.perf_counter()
        try:
            self._take_all(source, progress)
        except BudgetSpentError as error:
            self._report.stopped = str(error)
        except Exception as error:
            if self._report.embedded:
                error.add_note(
                    f"{self._report.embedded:,} images were embedded and are stored; "
                    "run the same command again to go on"
                )
            raise
        finally:
            self._report.failures.extend(source.failures)
            write_failures(self._store.path, self._report.failures)
            self._arrivals.close()
            self._report.seconds = time.perf_counter() - started
            self._report.images, self._report.version = len(self._store), self._store.version
        return self._report

    def _take_all(self, source: Source, progress: bool | None) -> None:
        def read_one(record: Record) -> Ready | Failure:
            return read(record, self._arrivals.known.holds, self._prepare)

        window = 4 * cores() + 2 * (self._batch_size or _BATCHES_AHEAD)
        shown = bar(source, source.count(), "added", progress)
        with ThreadPoolExecutor(cores()) as readers, ThreadPoolExecutor(_MOST_WORKERS) as self._models:
            try:
                for record, ready in ahead(readers, read_one, shown, window):
                    self._take(record, ready)
                    self._collect(0.0)
                    self._send(full_only=True)
                self._send(full_only=False)
            finally:
                while self._under_way:
                    self._collect(None)
        if self._failure is not None:
            raise self._failure

    def _prepare(self, image: Any) -> Any:
        """Make the model's input; the first picture that is new loads the model."""
        return self._model().prepare(image)

    def _model(self) -> Embedder:
        """Return the embedder. It is asked for when there is something to embed, and not before.

        Raises
        ------
        SpaceMismatchError
            It is of another backend than the store's vectors: good for queries at most.
        """
        with self._loading:
            if self._embedder is None:
                embedder = self._store.embedder
                self._store.space.require(embedder.space, "the embedder")
                self._batch_size = self._batch_size or embedder.batch_size
                self._workers = self._workers or embedder.workers
                self._embedder = embedder
            return self._embedder

    def _take(self, record: Record, ready: Ready | Failure) -> None:
        """Decide what a record means, and put it where it belongs: nowhere, to the free rows, or into a batch."""
        self._report.found += 1
        if isinstance(ready, Ready) and record.uri in self._seen:
            self._report.unchanged += 1
            return
        self._seen.add(record.uri)
        known = isinstance(ready, Ready) and self._arrivals.known.holds(ready.content_hash)
        if isinstance(ready, Ready) and ready.prepared is None and not known:
            # Another process has removed the row whose vector this picture was to share.
            ready = read(record, self._arrivals.known.holds, self._prepare)
        if isinstance(ready, Failure):
            self._report.failures.append(ready)
            return
        metadata = self._arrivals.columns.fit(record.metadata, record.uri)
        decision = self._arrivals.known.decide(record, ready.content_hash, metadata)
        if decision.action == "unchanged":
            tally(self._report, decision, needed=False, lent=False)
            return
        row = Arrival(decision, record, ready.content_hash, ready.width, ready.height)
        vector = self._arrivals.vector(ready.content_hash)
        if vector is not None:
            tally(self._report, decision, needed=False, lent=self._arrivals.known.lent(ready.content_hash))
            self._arrivals.write_later(row, vector)
        elif ready.content_hash in self._waiting:
            self._waiting[ready.content_hash].append(row)
        else:
            self._waiting[ready.content_hash] = [row]
            self._batch.append((ready.content_hash, ready.prepared))

    def _send(self, *, full_only: bool) -> None:
        """Give batches to the model, once the number under way allows; without `full_only` until none is left."""
        while self._failure is None:
            if self._batch and (not full_only or len(self._batch) >= (self._batch_size or 1)):
                self._to_send.append(self._batch)
                self._batch = []
            if self._to_send and len(self._under_way) < (self._workers or 1):
                self._submit(self._to_send.popleft())
            elif self._to_send or (self._under_way and not full_only):
                self._collect(None)
            else:
                return
        raise self._failure

    def _submit(self, batch: Batch) -> None:
        """Start one call of the embedder; there is a journal for its answer before it leaves."""
        self._arrivals.begin()
        self._report.requests += 1
        self._under_way[self._models.submit(checked.pictures, self._model(), [item for _, item in batch])] = (
            batch
        )

    def _collect(self, timeout: float | None) -> None:
        """Write down what has come back, waiting for something for at most `timeout` seconds.

        A failure is kept until everything that came back with it is written down. A batch is forgotten after it
        was written, so that an interrupt between the two writes it twice, which `changes.fold` sets right,
        rather than never.
        """
        done, _ = wait(self._under_way, timeout, FIRST_COMPLETED)
        for future in done:
            batch = self._under_way[future]
            error = future.exception()
            if error is None:
                self._write_embedded(batch, future.result())
            elif isinstance(error, RejectedImagesError):
                self._halve(batch, error)
            elif self._failure is None or isinstance(self._failure, BudgetSpentError):
                self._failure = error if isinstance(error, Exception) else EmbedderError(repr(error))
            del self._under_way[future]
        if done:
            self._arrivals.fold_when_due()

    def _halve(self, batch: Batch, error: RejectedImagesError) -> None:
        """Send the halves of a refused batch before all others; a picture that is refused alone is to blame."""
        if len(batch) > 1:
            middle = len(batch) // 2
            self._to_send.extendleft((batch[middle:], batch[:middle]))
            return
        rows = self._waiting.pop(batch[0][0])
        self._report.failures += [Failure(row.record.uri, " ".join(str(error).split())) for row in rows]

    def _write_embedded(self, batch: Batch, found: Vectors) -> None:
        """Put the rows that waited for these pictures into the journal, and count them."""
        pairs = [
            (row, vector)
            for (content_hash, _), vector in zip(batch, found, strict=True)
            for row in self._waiting.get(content_hash, ())
        ]
        self._arrivals.write([row for row, _ in pairs], [vector for _, vector in pairs])
        for (content_hash, _), vector in zip(batch, found, strict=True):
            for number, row in enumerate(self._waiting.pop(content_hash, ())):
                tally(self._report, row.decision, needed=number == 0, lent=False)
            self._arrivals.remember(content_hash, vector)
