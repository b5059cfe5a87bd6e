"""A pool of Ray actors, one for each processor of the cluster; a call whose actor dies goes back to the caller.

An actor is acquired for a bundle to be read, or for a batch to be embedded: the one that is preferred, where it lives,
else the one with the least to do; or `alone`, so that its death says something of what it was asked.
Nothing is repeated here: whoever asked knows whether that costs. A worker that dies is replaced by a new one, which
says again which versions it has (Ray's own restart would not ask), as soon as the cluster has a place for it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from embedstore import __version__
from embedstore.cluster import handshake, ingest_worker
from embedstore.embedders import waits
from embedstore.embedders.waits import Notices
from embedstore.errors import ClusterError
from embedstore.images.turns import StoppedError

AT_ONCE = 2
"""Bundles, and as many batches, that one worker has at once: while one computes, another waits for files or for us."""
START_SECONDS = 180.0
"""For so long no worker may be there before it is given up."""
START_TRIES = 5
"""So many workers that die one after the other before they have said a word are no accident."""
HUNG_SECONDS = 60.0
"""After so long an actor that owes an answer is asked whether it is there; after as long again it counts as dead."""
_POLL_SECONDS = 0.2


_PING = "ping"


class WorkerDiedError(ClusterError):
    """The worker that a call was sent to has died within it, or hangs."""


class _HungError(Exception):
    """An actor does not even answer a ping."""


@dataclass(eq=False)
class PooledActor:
    """An actor that has passed the handshake, and for how many bundles and batches it is in use."""

    handle: Any
    node: str
    in_use: Counter[str] = field(default_factory=Counter)


class ActorPool:
    """The workers of one `add`, through `ray`, which is connected. Threads may share one.

    `size` is how many there are to be. Once `stopped` is set calls end early. Nodes that join later help only where
    workers have died.
    """

    def __init__(self, ray: Any, stopped: threading.Event) -> None:
        self._ray, self._stopped = ray, stopped
        ray.cloudpickle.register_pickle_by_value(handshake)
        self._make = ray.remote(
            num_cpus=1, max_restarts=0, max_task_retries=0, max_concurrency=2 * AT_ONCE, concurrency_groups={_PING: 1}
        )(handshake.IngestActor)
        self.size = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        self._changed = threading.Condition()
        self._actors: list[Any] = []
        self._ready: list[PooledActor] = []
        self._reserved: PooledActor | None = None
        self._error: Exception | None = None
        self._closed = False
        self._failed_starts = 0
        self._seen_at = time.monotonic()
        self._notices = Notices()
        for _ in range(self.size):
            self._start()

    def close(self) -> None:
        """End all workers."""
        with self._changed:
            self._closed = True
            handles, self._ready = list(self._actors), []
        for actor in handles:
            self._ray.kill(actor)

    def is_alive(self, actor: PooledActor) -> bool:
        """Tell whether a worker has not been found dead."""
        with self._changed:
            return actor in self._ready

    @contextlib.contextmanager
    def acquire(self, what: str, prefer: PooledActor | None = None, alone: bool = False) -> Iterator[PooledActor]:
        """Wait for a worker, and hold it for one more `what`, ``"bundle"`` or ``"batch"``.

        Raises StoppedError once nobody wants the answer any more, ClusterError where there is no worker at all.
        """
        actor = self._acquired(what, prefer, alone)
        try:
            yield actor
        finally:
            with self._changed:
                actor.in_use[what] -= 1
                if alone and self._reserved is actor:
                    self._reserved = None
                self._changed.notify_all()

    def call(self, actor: PooledActor, payload: bytes, *shared: Any) -> Any:
        """Return what a worker answers, see `ingest_worker`.

        Raises WorkerDiedError where it died within the call, StoppedError as `acquire`, and what the worker raises.
        """
        try:
            kind, _, found = self._got(actor, actor.handle.call.remote(__version__, payload, *shared))
        except self._deaths as error:
            self._lost(actor, error)
            raise WorkerDiedError(f"a worker on {actor.node} died: {_said(error)}") from error
        except self._ray.exceptions.RayTaskError:
            raise  # an error that nobody foresaw, with the worker's traceback
        except self._ray.exceptions.RayError as error:
            raise ClusterError(
                f"the Ray cluster fails: {type(error).__name__}: {_said(error)}. What was embedded is stored; see what "
                "`ray status` tells, and run the same again to go on"
            ) from error
        if kind == ingest_worker.FAILED:
            found.add_note(f"on {actor.node}")
            raise found
        return found

    @property
    def _deaths(self) -> tuple[type[Exception], ...]:
        """What Ray raises for a worker that is gone, or cannot be reached any more, and for an answer lost with it."""
        known = self._ray.exceptions
        gone = known.RayActorError, known.WorkerCrashedError, known.NodeDiedError, known.OutOfMemoryError
        return *gone, known.ObjectLostError, known.RpcError, _HungError

    def _got(self, actor: PooledActor, reference: Any) -> Any:
        """Wait for an answer for as long as it is wanted; _HungError where the actor does not even answer a ping."""
        asked, ping = time.monotonic(), None
        while True:
            try:
                return self._ray.get(reference, timeout=_POLL_SECONDS)
            except self._ray.exceptions.GetTimeoutError:
                if self._stopped.is_set():
                    raise StoppedError("the reading was stopped") from None
            if time.monotonic() - asked > HUNG_SECONDS:
                if ping is not None and not self._ray.wait([ping], timeout=0)[0]:
                    raise _HungError(f"it has not answered for {HUNG_SECONDS:.0f} s")
                asked, ping = time.monotonic(), actor.handle.ping.options(concurrency_group=_PING).remote()

    def _acquired(self, what: str, prefer: PooledActor | None, alone: bool) -> PooledActor:
        while True:
            with self._changed:
                if self._error is not None:
                    raise self._error
                actor = self._free(what, prefer, alone)
                if actor is not None:
                    actor.in_use[what] += 1
                    return actor
                self._changed.wait(_POLL_SECONDS)
                self._require_any()
            if self._stopped.is_set():
                raise StoppedError("the reading was stopped")
            waits.sleep(0)  # ends where the calling thread is wanted no more

    def _free(self, what: str, prefer: PooledActor | None, alone: bool) -> PooledActor | None:
        """Return the worker to take, None while there is none; one that is to be had alone gets nothing new."""

        def load(actor: PooledActor) -> int:
            return actor.in_use.total()

        if alone:
            if self._reserved not in self._ready:
                self._reserved = min(self._ready, key=load, default=None)
            return None if self._reserved is None or load(self._reserved) else self._reserved
        others = [actor for actor in self._ready if actor is not self._reserved]
        wanted = [prefer] if prefer is not None and prefer in others else others
        return min((actor for actor in wanted if actor.in_use[what] < AT_ONCE), key=load, default=None)

    def _require_any(self) -> None:
        """Raise ClusterError where there has been no worker for too long."""
        if self._ready:
            self._seen_at = time.monotonic()
            return
        waited = time.monotonic() - self._seen_at
        if waited > START_SECONDS:
            raise ClusterError(
                f"no worker could be started on the Ray cluster within {START_SECONDS:.0f} s: are its processors all "
                "taken by other work, or its nodes gone? `ray status` tells. What was embedded is stored; run the same "
                "again to go on"
            )
        if waited > waits.SAY_EVERY:
            self._notices.say("none", f"waiting for a worker of the Ray cluster, {waited:.0f} s so far")

    def _lost(self, actor: PooledActor, error: Exception) -> None:
        """Do without a worker from now on, and start another."""
        with self._changed:
            if actor not in self._ready:
                return  # another of its calls was told before
            self._ready.remove(actor)
            self._actors.remove(actor.handle)
            self._seen_at = time.monotonic()
        self._notices.say(actor.node, f"a worker on {actor.node} died, and its work is done again: {_said(error)}")
        self._ray.kill(actor.handle)  # one that only could not be reached does nothing twice
        self._start()

    def _start(self) -> None:
        """Ask for one more worker; it is in the pool once it has said that it is like this process."""
        with self._changed:
            if self._closed:
                return
            actor = self._make.remote()
            self._actors.append(actor)
        threading.Thread(target=self._shake_hands, args=(actor,), name="embedstore-handshake", daemon=True).start()

    def _shake_hands(self, actor: Any) -> None:
        """Wait until a worker has its place and answers."""
        environment = {name: os.environ.get(name) for name in ingest_worker.SETTINGS}
        hello = pickle.dumps(("hello", ingest_worker.traits(), environment))
        again = False
        try:
            kind, node, found = self._ray.get(actor.handshake.remote(__version__, hello))
        except Exception as error:  # noqa: BLE001  (it is told to whoever calls)
            with self._changed:
                self._actors.remove(actor)
                self._failed_starts += 1
                again = self._failed_starts < START_TRIES and isinstance(error, self._deaths)
                if not again and self._error is None:
                    self._error = ClusterError(f"no worker of the Ray cluster comes to life: {_said(error)}")
                self._changed.notify_all()
            if again:
                self._start()
            return
        with self._changed:
            self._failed_starts = 0
            if kind != ingest_worker.DONE:
                self._error = self._error or _unlike(found, node)
            elif not self._closed:
                self._ready.append(PooledActor(actor, node))
            self._changed.notify_all()


def _said(error: Exception) -> str:
    """Return the first line of an error of Ray's, which may have dozens."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _unlike(found: dict[str, str], node: str) -> ClusterError:
    """Return the error of a node that differs, which names what differs and both values."""
    ours = ingest_worker.traits()
    said = "; ".join(
        f"{name} {ours[name]} here, {value} on {node}" for name, value in found.items() if ours[name] != value
    )
    return ClusterError(
        f"driver and worker differ: {said}; the vectors of one store could differ too. Install the same on every node: "
        f"pip install 'embedstore[ray]=={ours['embedstore']}'"
    )
