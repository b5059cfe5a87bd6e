"""An `add` on a Ray cluster: bundles of records to its workers, hashes and vectors back, in order.

What is known, claimed, paid for and written is this process's business as ever, through the one ledger; workers read,
hash, decode, prepare and run the model. To a service this process sends: it limits a key, not a machine, so more
senders would gain nothing; the key stays here, one limiter and one budget hold, a worker that dies costs no request.

A call whose worker died is made again: twice as it is, as a node may be lost for any reason, the second time with
nothing beside it; then in halves, down to the one record that ends each worker it is given to.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore import images
from embedstore.cluster import connection
from embedstore.cluster.actor_pool import AT_ONCE, ActorPool, PooledActor, WorkerDiedError
from embedstore.cluster.ingest_worker import Absent, Wanted
from embedstore.cluster.ray_executor import RayExecutor
from embedstore.embedders import registry
from embedstore.embedders.protocol import Embedder
from embedstore.errors import ClusterError, InputError, RejectedImagesError
from embedstore.images import turns
from embedstore.ingest.executor import (
    ExecutorFactory,
    IngestExecutor,
    Job,
    PreparedRecord,
    ahead,
    thread_executor,
    wrong_with,
)
from embedstore.searching.scan import Executor
from embedstore.sources import Failure, Record

BUNDLE = 32
"""Records that a worker is sent at once."""
BUNDLES_PER_WORKER = 3
"""Bundles for each worker that are read ahead of the model."""
TRIES = 3
"""Workers that may die of one call; the last of them has nothing else to do."""
CARRIED_BYTES, BUNDLE_BYTES = 256 << 20, 16 << 20
"""Files that travel because only this process has them: all of them together, and those of one bundle."""


def ingest_executor_for(executor: Executor) -> ExecutorFactory:
    """Return what starts the executor of an `add` beside one of scans: on its cluster, or in this process."""
    return ray_ingest_executor if isinstance(executor, RayExecutor) else thread_executor


@contextlib.contextmanager
def ray_ingest_executor(job: Job) -> Iterator[IngestExecutor]:
    """Give an executor on the cluster that this process is connected to."""
    ray = connection.connected(None)
    actors = ActorPool(ray, job.stopped)
    try:
        with ThreadPoolExecutor(AT_ONCE * actors.size, thread_name_prefix="embedstore-ray") as threads:
            yield RayIngestExecutor(ray, job, actors, threads)
    finally:
        actors.close()


@dataclass(slots=True)
class _Outgoing:
    """A record, and the same as it is sent; or why it cannot be read. `turn`: the room that it takes meanwhile."""

    record: Record
    sent: Record | Failure
    turn: turns.Turn


@dataclass(eq=False, slots=True)
class _PreparedRef:
    """Stands for a prepared picture, which a worker keeps; `deaths`: how many workers have died embedding it."""

    record: Record
    content_hash: str
    actor: PooledActor
    deaths: int = 0


class RayIngestExecutor:
    """See `ray_ingest_executor`; keeps the protocol `IngestExecutor`."""

    def __init__(self, ray: Any, job: Job, actors: ActorPool, threads: ThreadPoolExecutor) -> None:
        self._ray, self._job, self._actors, self._threads = ray, job, actors, threads
        self._room = turns.Budget(CARRIED_BYTES)
        self._naming = threading.Lock()
        self._named: tuple[Any, ...] | None = None

    # What `pipeline` asks.

    def ahead(self, records: Iterable[Record], count: int | None) -> Iterator[tuple[Record, PreparedRecord | Failure]]:
        """Read records in bundles; see `IngestExecutor.ahead`."""
        size = BUNDLE if count is None else min(BUNDLE, math.ceil(count / (2 * AT_ONCE * self._actors.size)) or 1)
        bundles = self._bundles(records, size)
        for bundle, found in ahead(self._threads, self._read, bundles, BUNDLES_PER_WORKER * self._actors.size):
            yield from zip((item.record for item in bundle), found, strict=True)

    def read(self, record: Record) -> PreparedRecord | Failure:
        """Read one record; see `IngestExecutor.read`."""
        return self._read([self._packed(record)])[0]

    def embedder(self) -> Embedder:
        """Return an embedder whose pictures are prepared elsewhere, and embedded there too where the model is."""
        return _WorkersEmbedder(self._job.model(), self, self._actors.size)

    def _bundles(self, records: Iterable[Record], size: int) -> Iterator[list[_Outgoing]]:
        """Cut records into bundles, in order; those that are at hand only now are loaded now."""
        bundle: list[_Outgoing] = []
        for record in records:
            bundle.append(self._packed(record))
            if len(bundle) >= size or sum(item.turn.amount for item in bundle) >= BUNDLE_BYTES:
                yield bundle
                bundle = []
        if bundle:
            yield bundle

    def _packed(self, record: Record) -> _Outgoing:
        turn = self._room.take(record.passing or 0, self._job.stopped)
        return _Outgoing(record, portable(record), turn)

    # Stage one: records are read, hashed and, where that is wanted, decoded and prepared.

    def _read(self, bundle: list[_Outgoing], deaths: int = 0) -> list[PreparedRecord | Failure]:
        """Read a bundle, on a thread of the pool, through the deaths of workers."""
        try:
            return self._read_together(bundle, alone=deaths >= TRIES - 1)
        except WorkerDiedError as error:
            deaths += 1
            if deaths < TRIES:
                return self._read(bundle, deaths)
            if len(bundle) == 1:
                return [Failure(bundle[0].record.uri, f"the worker that reads it dies, again and again: {error}")]
            middle = len(bundle) // 2
            return self._read(bundle[:middle], TRIES - 1) + self._read(bundle[middle:], TRIES - 1)
        finally:
            for item in bundle:
                item.turn.release()

    def _read_together(self, bundle: list[_Outgoing], alone: bool) -> list[PreparedRecord | Failure]:
        """Have a bundle hashed by one worker, and then prepared what of it is new."""
        sent = [item.sent for item in bundle if isinstance(item.sent, Record)]
        with self._actors.acquire("bundle", alone=alone) as actor:
            hashed = iter(self._actors.call(actor, pickle.dumps(("hash_records", sent))))
            seen = [p.sent if isinstance(p.sent, Failure) else _judged(next(hashed), actor) for p in bundle]
            wanted: dict[int, Wanted] = {}
            for position, (item, content_hash) in enumerate(zip(bundle, seen, strict=True)):
                if isinstance(content_hash, str) and isinstance(item.sent, Record):
                    prepared = not self._job.holds(content_hash)
                    small = self._job.wants_thumbnail(item.record, content_hash)
                    if prepared or small:
                        wanted[position] = Wanted(item.sent, content_hash, prepared, small)
            answers = self._ask(actor, "prepare", list(wanted.values())) if wanted else []
            made = {n: _judged(answer, actor) for n, answer in zip(wanted, answers, strict=True)}
        return [self._outcome(item.record, seen[n], made.get(n), actor) for n, item in enumerate(bundle)]

    def _outcome(self, record: Record, seen: Any, info: Any, actor: PooledActor) -> PreparedRecord | Failure:
        """Return what came of a record: of its hash, and of its picture where that was wanted."""
        if isinstance(seen, Failure) or info is None:
            return seen if isinstance(seen, Failure) else PreparedRecord(seen)
        if isinstance(info, Failure):
            return info
        if info.thumbnail is not None:
            self._job.keep_thumbnail(record, seen, lambda side: info.thumbnail)
        if info.width is None:
            return PreparedRecord(seen)
        return PreparedRecord(seen, info.width, info.height, _PreparedRef(record, seen, actor))

    # Stage two: what is prepared is embedded, by the worker that has it.

    def vectors(self, kept: Sequence[_PreparedRef]) -> NDArray[np.float32]:
        """Return the vectors of pictures as their model has them."""
        return np.concatenate(list(self._by_worker("embed", kept)))

    def fetched(self, kept: Sequence[_PreparedRef]) -> list[Any]:
        """Return what workers have prepared."""
        return [item for some in self._by_worker("fetch", kept) for item in some]

    def _by_worker(self, what: str, kept: Sequence[_PreparedRef]) -> Iterator[Any]:
        """Ask for neighbours that one worker has together."""
        start = 0
        for end in range(1, len(kept) + 1):
            if end == len(kept) or kept[end].actor is not kept[start].actor:
                yield self._asked(what, kept[start:end])
                start = end

    def _asked(self, what: str, kept: Sequence[_PreparedRef]) -> Any:
        """Ask for pictures of one worker, through its death.

        Raises RejectedImagesError, after which the caller sends halves, where one cannot be had or ends its workers.
        """
        whole = False
        while True:
            alone = any(item.deaths >= TRIES - 1 for item in kept)
            wanted = [Wanted(self._record_for(item, whole), item.content_hash) for item in kept]
            try:
                with self._actors.acquire("batch", kept[0].actor, alone) as actor:
                    found = self._ask(actor, what, wanted)
            except WorkerDiedError as error:
                whole = True
                for item in kept:
                    item.deaths += 1
                if any(item.deaths >= TRIES for item in kept):
                    why = f"the worker that embeds it dies, again and again: {error}"
                    raise RejectedImagesError(why) from None
                continue
            if not isinstance(found, dict):
                return found
            wrong = next((_judged(lacking, actor) for lacking in found.values() if lacking is not None), None)
            if wrong is not None:
                raise RejectedImagesError(wrong.reason)
            whole = True

    def _record_for(self, item: _PreparedRef, whole: bool) -> Record | None:
        """Return the record of a picture, for who has to read it again; None where that would carry its bytes."""
        if not whole and self._actors.is_alive(item.actor) and not _is_named(item.record):
            return None
        found = portable(item.record)
        if isinstance(found, Failure):
            raise RejectedImagesError(found.reason)
        return found

    def _ask(self, actor: PooledActor, what: str, wanted: list[Wanted]) -> Any:
        """Have a worker do what needs the embedder, which is named, or travels with the call."""
        with self._naming:
            if self._named is None:
                self._named = self._name()
        name, *own = self._named
        return self._actors.call(actor, pickle.dumps((what, name, wanted)), *own)

    def _name(self) -> tuple[Any, ...]:
        """Return the name of the embedder; for one of the user's own also where it lies pickled.

        InputError where that cannot be: an embedder behind a service is never pickled, as it may hold a key.
        """
        embedder = self._job.model()
        name = registry.name_of(embedder)
        if name is not None:
            return (name,)
        why = "it is behind a service, and what may hold a key does not travel"
        if not is_behind_service(embedder):
            try:
                return "own", self._ray.put(self._ray.cloudpickle.dumps(embedder))
            except Exception as error:  # noqa: BLE001  (whatever the user's own class may raise)
                why = f"{type(error).__name__}: {error}"
        raise InputError(
            f"the workers of a Ray cluster cannot be given this {type(embedder).__name__} ({why}); install it on every "
            f"node as a plug-in, under the entry point group {registry.GROUP}, or add without Ray"
        )


class _WorkersEmbedder:
    """An embedder of pictures that workers have prepared; keeps the `Embedder` protocol."""

    def __init__(self, own: Embedder, executor: RayIngestExecutor, size: int) -> None:
        self._own, self._executor = own, executor
        self._sends = is_behind_service(own)
        self.space, self.batch_size = own.space, own.batch_size
        self.workers = own.workers if self._sends else AT_ONCE * size
        self.prepare: Callable[[Image.Image], Any] = own.prepare
        self.embed_texts = own.embed_texts

    def embed_prepared(self, prepared: Sequence[_PreparedRef]) -> NDArray[np.float32]:
        """Have pictures embedded where they are; a service is asked from here."""
        if self._sends:
            return self._own.embed_prepared(self._executor.fetched(prepared))
        return self._executor.vectors(prepared)


def is_behind_service(embedder: Embedder) -> bool:
    """Tell whether an embedder sends requests."""
    from embedstore.embedders.remote import RemoteEmbedder  # late: it brings file locks

    return isinstance(embedder, RemoteEmbedder)


def portable(record: Record) -> Record | Failure:
    """Return a record as it can travel, without its metadata; or why it cannot be read.

    What names a place, a path or an address, is read by whoever gets it. Else the bytes go along. A Pillow image goes
    as the pixels that it is known by: what else it holds does not survive pickling.
    """
    if _is_named(record):
        return Record(record.key, record.uri, record.load)
    try:
        data = record.load()
        if isinstance(data, Image.Image):
            data = np.asarray(images.read(data).image)
    except Exception as error:  # noqa: BLE001  (archives, decoders and users' sources raise anything)
        return wrong_with(record, error)
    return Record(record.key, record.uri, functools.partial(images.as_source, data))


def _is_named(record: Record) -> bool:
    """Tell whether a record is loaded by a function of this package from nothing but names and numbers."""
    load = record.load
    if not isinstance(load, functools.partial) or load.keywords:
        return False
    return load.func.__module__.startswith("embedstore.") and all(isinstance(word, str | int) for word in load.args)


def _judged(found: Any, actor: PooledActor) -> Any:
    """Return what a worker has found; raise ClusterError for a file that only its node does not see."""
    if not isinstance(found, Absent):
        return found
    if os.access(found.path, os.R_OK):
        raise ClusterError(
            f"{actor.node} cannot read {found.path} ({found.failure.reason}), which is there for this process: every "
            "node of the cluster must see the pictures at the same path, on a file system that they share; mount it "
            "there, or add without Ray. What was embedded is stored"
        )
    return found.failure
