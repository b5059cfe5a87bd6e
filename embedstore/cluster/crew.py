"""Calls -> the workers of a Ray cluster, one for each of its processors; what a dead one had goes back to who called.

A call goes to the worker that is asked for, where it lives, else to the one with the least to do; a careful one to a
worker that does nothing else meanwhile, so that its death says something of that call. Nothing is repeated here:
whoever called knows whether that costs. A worker that dies is replaced by a new one, which says again which versions it
has (Ray's own restart would not ask), as soon as the cluster has a place for it.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from dataclasses import dataclass
from typing import Any

from embedstore import __version__
from embedstore.cluster import greeting, record_side
from embedstore.embedders import waits
from embedstore.embedders.waits import Notices
from embedstore.errors import ClusterError
from embedstore.images.turns import StoppedError

MOST_CALLS = 8
"""Calls that one worker has at once, on threads of its own: while one computes, others wait for files and networks."""
START_SECONDS = 180.0
"""For so long no worker may be there before it is given up."""
STILLBORN = 5
"""So many workers that die one after the other before they have said a word are no accident."""
_POLL_SECONDS = 0.2


class WorkerDiedError(ClusterError):
    """The worker that a call was sent to has died within it."""


@dataclass(eq=False)
class Member:
    """A worker that has been greeted, and how many calls it has under way."""

    actor: Any
    node: str
    under_way: int = 0


class Crew:
    """The workers of one `add`, through `ray`, which is connected. Threads may share one.

    `size` is how many there are to be. Once `stopped` is set calls end early. Nodes that join later help only where
    workers have died.
    """

    def __init__(self, ray: Any, stopped: threading.Event) -> None:
        self._ray, self._stopped = ray, stopped
        ray.cloudpickle.register_pickle_by_value(greeting)
        self._make = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, max_concurrency=MOST_CALLS)(
            greeting.Worker
        )
        self.size = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        self._changed = threading.Condition()
        self._actors: list[Any] = []
        self._members: list[Member] = []
        self._reserved: Member | None = None
        self._error: Exception | None = None
        self._closed = False
        self._stillborn = 0
        self._seen_at = time.monotonic()
        self._notices = Notices()
        for _ in range(self.size):
            self._start()

    def close(self) -> None:
        """End all workers."""
        with self._changed:
            self._closed = True
            actors, self._members = list(self._actors), []
        for actor in actors:
            self._ray.kill(actor)

    def lives(self, member: Member) -> bool:
        """Tell whether a worker has not been found dead."""
        with self._changed:
            return member in self._members

    def call(self, payload: bytes, *shared: Any, prefer: Member | None = None, careful: bool = False) -> Any:
        """Return what a worker answers, see `record_side`, and the worker.

        Raises WorkerDiedError where it died within the call, StoppedError once nobody wants the answer any more, and
        what the worker raises.
        """
        member = self._taken(prefer, careful)
        try:
            kind, _, found = self._got(member.actor.answer.remote(__version__, payload, *shared))
        except self._deaths as error:
            self._lost(member, error)
            raise WorkerDiedError(f"a worker on {member.node} died: {_said(error)}") from error
        finally:
            self._give_back(member, careful)
        if kind == record_side.FAILED:
            found.add_note(f"on {member.node}")
            raise found
        return found, member

    @property
    def _deaths(self) -> tuple[type[Exception], ...]:
        """What Ray raises for a worker that is gone, or cannot be reached any more, and for an answer lost with it."""
        known = self._ray.exceptions
        return known.RayActorError, known.WorkerCrashedError, known.NodeDiedError, known.ObjectLostError, known.RpcError

    def _got(self, reference: Any) -> Any:
        """Wait for an answer for as long as it is wanted."""
        while True:
            try:
                return self._ray.get(reference, timeout=_POLL_SECONDS)
            except self._ray.exceptions.GetTimeoutError:
                if self._stopped.is_set():
                    raise StoppedError("the reading was stopped") from None

    def _taken(self, prefer: Member | None, careful: bool) -> Member:
        """Wait for a worker that may have one more call, and count it."""
        while True:
            with self._changed:
                if self._error is not None:
                    raise self._error
                member = self._free(prefer, careful)
                if member is not None:
                    member.under_way += 1
                    return member
                self._changed.wait(_POLL_SECONDS)
                self._require_any()
            if self._stopped.is_set():
                raise StoppedError("the reading was stopped")
            waits.sleep(0)  # ends where the calling thread is wanted no more

    def _free(self, prefer: Member | None, careful: bool) -> Member | None:
        if careful:
            if self._reserved not in self._members:
                self._reserved = min(self._members, key=lambda member: member.under_way, default=None)
            return None if self._reserved is None or self._reserved.under_way else self._reserved
        others = [member for member in self._members if member is not self._reserved]
        wanted = [prefer] if prefer in others else others
        free = [member for member in wanted if member is not None and member.under_way < MOST_CALLS]
        return min(free, key=lambda member: member.under_way, default=None)

    def _require_any(self) -> None:
        """Raise ClusterError where there has been no worker for too long."""
        if self._members:
            self._seen_at = time.monotonic()
            return
        alone = time.monotonic() - self._seen_at
        if alone > START_SECONDS:
            raise ClusterError(
                f"no worker could be started on the Ray cluster within {START_SECONDS:.0f} s: are its processors all "
                "taken by other work, or its nodes gone? `ray status` tells. What was embedded is stored; run the same "
                "again to go on"
            )
        if alone > waits.SAY_EVERY:
            self._notices.say("none", f"waiting for a worker of the Ray cluster, {alone:.0f} s so far")

    def _give_back(self, member: Member, careful: bool) -> None:
        with self._changed:
            member.under_way -= 1
            if careful and self._reserved is member:
                self._reserved = None
            self._changed.notify_all()

    def _lost(self, member: Member, error: Exception) -> None:
        """Do without a worker from now on, and start another."""
        with self._changed:
            if member not in self._members:
                return  # another of its calls was told before
            self._members.remove(member)
            self._actors.remove(member.actor)
            self._seen_at = time.monotonic()
        self._notices.say(member.node, f"a worker on {member.node} died, and its work is done again: {_said(error)}")
        self._ray.kill(member.actor)  # one that only could not be reached does nothing twice
        self._start()

    def _start(self) -> None:
        """Ask for one more worker; it is a member once it has said that it is like this process."""
        with self._changed:
            if self._closed:
                return
            actor = self._make.remote()
            self._actors.append(actor)
        threading.Thread(target=self._greet, args=(actor,), name="embedstore-greet", daemon=True).start()

    def _greet(self, actor: Any) -> None:
        """Wait until a worker has its place and answers."""
        environment = {name: os.environ.get(name) for name in record_side.SETTINGS}
        hello = pickle.dumps(("hello", record_side.traits(), environment))
        again = False
        try:
            kind, node, found = self._ray.get(actor.answer.remote(__version__, hello))
        except Exception as error:  # noqa: BLE001  (it is told to whoever calls)
            with self._changed:
                self._actors.remove(actor)
                self._stillborn += 1
                again = self._stillborn < STILLBORN and isinstance(error, self._deaths)
                if not again and self._error is None:
                    self._error = ClusterError(f"no worker of the Ray cluster comes to life: {_said(error)}")
                self._changed.notify_all()
            if again:
                self._start()
            return
        with self._changed:
            self._stillborn = 0
            if kind != record_side.DONE:
                self._error = self._error or _unlike(found, node)
            elif not self._closed:
                self._members.append(Member(actor, node))
            self._changed.notify_all()


def _said(error: Exception) -> str:
    """Return the first line of an error of Ray's, which may have dozens."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _unlike(found: dict[str, str], node: str) -> ClusterError:
    """Return the error of a node that differs, which names what differs and both values."""
    ours = record_side.traits()
    said = "; ".join(
        f"{name} {ours[name]} here, {value} on {node}" for name, value in found.items() if ours[name] != value
    )
    return ClusterError(
        f"driver and worker differ: {said}; the vectors of one store could differ too. Install the same on every node: "
        f"pip install 'embedstore[ray]=={ours['embedstore']}'"
    )
