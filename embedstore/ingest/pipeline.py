"""Records of a source -> hashed, decoded where the picture is new -> batches to the model -> rows that are written.

One `Run` is one `add`. Only its own thread writes; reading, some records ahead, and embedding are its executor's
business, in this process or elsewhere. Whatever is wrong with one record, the others go on: it becomes a `Failure`.
What a record means for the store is decided by `deduplication`, how rows become parts by `row_writer`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from embedstore.embedders.batches import Batch, Outcome, embed
from embedstore.embedders.protocol import Embedder
from embedstore.embedders.waits import Notices
from embedstore.errors import BudgetSpentError
from embedstore.ingest.deduplication import Intake
from embedstore.ingest.executor import CHANGED, ExecutorFactory, IngestExecutor, Job, PreparedRecord, thread_executor
from embedstore.ingest.reports import AddReport, write_failures
from embedstore.ingest.row_writer import NewRow, RowWriter, recover
from embedstore.sources import Failure, Record, Source
from embedstore.storage.folder import StoreFolder
from embedstore.storage.rows import Rows
from embedstore.wording import counted

T = TypeVar("T")
_POLL_SECONDS = 0.2


def bar(items: Iterable[T], total: int | None, what: str, progress: bool | None) -> Iterable[T]:
    """Show progress on stderr while iterating: count, rate and time left."""
    from tqdm import tqdm

    disable = None if progress is None else not progress  # None: off when stderr is no terminal
    shown: Iterable[T] = tqdm(
        items, total=total, desc=what, unit=" images", disable=disable, dynamic_ncols=True, leave=False
    )
    return shown


class Run:
    """One `add`, of the name `run`: what is under way, what waits for it, and where what is done is kept.

    `embedder` is called when there is something to embed, and not before. None for `workers` (batches under way at
    once) and `batch_size` asks it. `reused` are the rows of stores whose vectors may be copied. With `thumbnails` small
    copies of pictures that no file holds are kept. `start_executor` makes what reads and embeds.
    """

    def __init__(
        self,
        folder: StoreFolder,
        embedder: Callable[[], Embedder],
        run: str,
        reused: Sequence[Rows] = (),
        workers: int | None = None,
        batch_size: int | None = None,
        thumbnails: bool = True,
        start_executor: ExecutorFactory = thread_executor,
    ) -> None:
        self._folder, self._make_embedder, self._start_executor = folder, embedder, start_executor
        self._workers, self._batch_size = workers, batch_size
        self._report = AddReport(recovered=recover(folder))
        self._writer = RowWriter(folder, reused, run)
        self._intake = Intake(self._report, self._writer.columns)
        self._waiting: dict[str, list[NewRow]] = {}
        self._elsewhere: set[str] = set()
        self._loading = threading.Lock()
        self._job = Job(
            self._model,
            lambda content_hash: self._writer.known.holds(content_hash),
            folder.thumbnails if thumbnails else None,
            threading.Event(),
            batch_size,
        )
        self._notices = Notices()
        self._embedder: Embedder | None = None
        self._executor: IngestExecutor
        self._wrong_before = 0

    @property
    def seen(self) -> set[str]:
        """The uris of all records so far that could be read."""
        return self._intake.seen

    def run(self, source: Source, progress: bool | None) -> AddReport:
        """Take everything from a source; whatever ends this early, what was embedded is stored first."""
        started = time.perf_counter()
        try:
            self._take_all(source, progress)
        except BudgetSpentError as error:
            self._report.stopped = self._stopping(error, source.count())
        except BaseException as error:  # Ctrl-C too
            if n := self._report.embedded:
                stored = counted(n, "image was embedded and is stored", "images were embedded and are stored")
                error.add_note(f"{stored}; run the same command again to go on")
            raise
        finally:
            self._report.end(source, self._writer.columns)
            self._report.wrong_answers = getattr(self._embedder, "wrong_answers", 0) - self._wrong_before
            if (sent := getattr(self._embedder, "requests_sent", None)) is not None:
                self._report.requests = sent - self._sent_before
            self._report.left = sum(map(len, self._waiting.values()))
            try:
                self._writer.close()
            finally:
                write_failures(self._folder.failures, self._report.failures)
            self._report.seconds = time.perf_counter() - started
            rows = self._writer.rows
            self._report.images, self._report.version = len(rows), rows.snapshot.version
        return self._report

    def _stopping(self, error: BudgetSpentError, total: int | None) -> str:
        """Return why a budget ended the run, with what was paid for and what is left of the source."""
        paid = counted(self._report.embedded, "picture was paid for", "pictures were paid for")
        waiting = sum(map(len, self._waiting.values()))
        if total is None:
            rest = f"{waiting:,} of those read so far are left, and what comes after them"
        else:
            rest = f"{max(waiting, waiting + total - self._report.found):,} of {total:,} are left"
        return f"{error}: {paid}, {rest}"

    def _take_all(self, source: Source, progress: bool | None) -> None:
        shown = bar(source, source.count(), "added", progress)
        with self._start_executor(self._job) as self._executor:
            try:
                self._embed(self._take(*pair) for pair in self._executor.ahead(shown, source.count()))
                while self._elsewhere:
                    self._embed(self._left_to_others())
            except BaseException:
                self._job.stopped.set()
                raise

    def _embed(self, items: Iterable[tuple[str, Any] | None]) -> None:
        embed(
            items,
            self._executor.embedder,
            self._keep,
            workers=self._workers,
            batch_size=self._batch_size,
            starting=self._starting,
        )

    def _model(self) -> Embedder:
        """Return the embedder; it is asked for when there is something to embed, and not before.

        Raises SpaceMismatchError for another backend than that of the store's vectors: good for queries at most.
        """
        with self._loading:
            if self._embedder is None:
                embedder = self._make_embedder()
                self._folder.space.require(embedder.space, "the embedder")
                self._wrong_before = getattr(embedder, "wrong_answers", 0)
                self._sent_before = getattr(embedder, "requests_sent", 0)
                self._embedder = embedder
            return self._embedder

    def _take(self, record: Record, ready: PreparedRecord | Failure) -> tuple[str, Any] | None:
        """Decide what a record means; return its picture where that is to be embedded, by content hash."""
        known = self._writer.known
        if isinstance(ready, PreparedRecord) and ready.prepared is None and not known.holds(ready.content_hash):
            # Another process has removed the row whose vector this picture was to share.
            ready = self._executor.read(record)
        outcome = ready if isinstance(ready, Failure) else ready.content_hash
        decision = self._intake.decide(record, outcome, known)
        if decision is None or isinstance(ready, Failure):
            return None
        if decision.action == "unchanged":
            self._report.tally(decision.action, needed=False)
            return None
        row = NewRow(decision, record, ready.content_hash, ready.width, ready.height)
        vector = self._writer.vector(ready.content_hash)
        if vector is not None:
            self._report.tally(decision.action, needed=False, origin=known.origin(ready.content_hash))
            self._writer.write_later(row, vector)
        elif ready.content_hash in self._waiting:
            self._waiting[ready.content_hash].append(row)
        else:
            self._waiting[ready.content_hash] = [row]
            return ready.content_hash, ready.prepared
        return None

    def _starting(self, batch: Batch) -> Batch:
        """Claim a batch before it leaves; what another process has claimed is waited for at the end."""
        mine = self._writer.claim([content_hash for content_hash, _ in batch])
        self._elsewhere.update(content_hash for content_hash, _ in batch if content_hash not in mine)
        self._report.requests += bool(mine)
        return [item for item in batch if item[0] in mine]

    def _left_to_others(self) -> Iterator[tuple[str, Any] | None]:
        """Wait for pictures that other processes have claimed; yield those that these have given up, as soon as any."""
        given_up: list[str] = []
        while self._elsewhere and not given_up:
            for content_hash, outcome in self._writer.elsewhere(sorted(self._elsewhere)).items():
                if outcome is True:
                    continue
                self._elsewhere.discard(content_hash)
                if outcome is False:
                    given_up.append(content_hash)
                    continue
                for row in self._waiting.pop(content_hash):
                    self._report.tally(row.decision.action, needed=False)
                    self._writer.write_later(row, outcome)
            if self._elsewhere and not given_up:
                pictures = counted(len(self._elsewhere), "picture is", "pictures are")
                self._notices.say("others", f"{pictures} being embedded by another process: waiting")
                time.sleep(_POLL_SECONDS)
        for content_hash in given_up:
            yield self._again(content_hash)

    def _again(self, content_hash: str) -> tuple[str, Any] | None:
        """Return a picture that another process has claimed and given up, read again; None where that fails."""
        ready = self._executor.read(self._waiting[content_hash][0].record)
        if isinstance(ready, PreparedRecord) and ready.content_hash == content_hash and ready.prepared is not None:
            return content_hash, ready.prepared
        why = ready.reason if isinstance(ready, Failure) else CHANGED
        self._report.failures.extend(Failure(row.record.uri, why) for row in self._waiting.pop(content_hash))
        return None

    def _keep(self, outcomes: list[tuple[str, Outcome]]) -> None:
        """Write down the rows that waited for these pictures, and count them; the same batch may come twice."""
        rows, vectors = [], []
        for content_hash, outcome in outcomes:
            for row in self._waiting.get(content_hash, ()):
                if isinstance(outcome, Exception):
                    self._report.failures.append(Failure(row.record.uri, " ".join(str(outcome).split())))
                else:
                    rows.append(row)
                    vectors.append(outcome)
        self._writer.write(rows, vectors)
        self._writer.release([content_hash for content_hash, outcome in outcomes if isinstance(outcome, Exception)])
        for content_hash, outcome in outcomes:
            waited = self._waiting.pop(content_hash, ())
            if not isinstance(outcome, Exception):
                for number, row in enumerate(waited):
                    self._report.tally(row.decision.action, needed=number == 0)
                self._writer.remember(content_hash, outcome)
        self._writer.fold_when_due()
