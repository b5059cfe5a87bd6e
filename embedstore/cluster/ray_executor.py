"""Runs an executor's tasks on a Ray cluster: in bundles that are large first and small in the end, few at a time.

The vectors stay in the store's files, which every node reads at the same path; what travels is queries, masks and
results. A bundle whose worker dies is done again by another: it only reads, or writes files that are the same however
often they are written, so the answer is the same. What a worker does is `scan_worker`'s business; how Ray is reached,
`connection`'s.
"""

from __future__ import annotations

import functools
import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from embedstore import __version__
from embedstore.cluster import connection, handshake, scan_worker
from embedstore.errors import ClusterError, InputError, StoreNotFoundError
from embedstore.searching.scan import Executor, Task
from embedstore.storage.parts import Part

SHARES = 2
"""A bundle is a worker's share of what is left, cut in so many: the last ones are small, so that all end together."""
LEAST_BYTES = 256 << 20
MOST_BYTES = 1 << 30
"""Vectors that a bundle reads: enough that its way, 2 ms of processors, costs little; few enough that one that is lost
does."""
COUNTED_FOR = 10.0
"""For so many seconds the workers are not counted again: to ask takes as long as a bundle's way."""
IN_FLIGHT = 3
"""Bundles for each worker that are sent and not yet answered."""
RETRIES = 5
"""How often Ray tries a bundle again whose worker died."""
_SHARED_BYTES = 64 << 10
"""Query vectors of so many bytes are laid into Ray's object store once, rather than sent with each bundle."""


class RayExecutor(Executor):
    """The executor of a cluster.

    Parameters
    ----------
    address : str, optional
        Of the head node, HOST:PORT; ``"auto"`` for the cluster that this machine belongs to. By default the one that
        this process is connected to, else ``RAY_ADDRESS``, else one is started on this machine for this process.

    Raises
    ------
    MissingDependencyError
        Ray is not installed.
    ClusterError
        There is no cluster at this address, or it refuses us.
    """

    local = False

    def __init__(self, address: str | None = None) -> None:
        self._ray = connection.connected(address)
        self._ray.cloudpickle.register_pickle_by_value(handshake)
        remote = self._ray.remote(num_cpus=1, max_retries=RETRIES)
        self._scan_bundle = remote(handshake.scan_bundle)
        self._counted: tuple[float, int] | None = None

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Apply `function` to each task of a scan; results come in the order of tasks."""
        for results in self._answers(function, None, tasks):
            yield from results

    def fold(
        self, function: Callable[[Any], Any], combine: Callable[[Any, Any], Any], tasks: Iterable[Any], empty: Any
    ) -> Any:
        """Apply `function` to each task and combine the results: those of a bundle where they are made."""
        answers = self._answers(function, combine, tasks)
        return functools.reduce(combine, (found for results in answers for found in results), empty)

    def close(self) -> None:
        """Leave the cluster; one that was started for this process ends."""
        self._ray.shutdown()

    def _answers(self, function: Any, combine: Any, tasks: Iterable[Any]) -> Iterator[list[Any]]:
        """Yield the results of each bundle, in order, with at most so many bundles on their way."""
        ordered = list(tasks)
        workers = self._workers()
        waiting: deque[Any] = deque()
        shared = _Shared(self._ray)
        try:
            for bundle in bundles(ordered, workers):
                payload = shared.packed(function, combine, bundle)
                waiting.append(self._scan_bundle.remote(__version__, payload, *shared.references))
                if len(waiting) >= IN_FLIGHT * workers:
                    yield self._answer(waiting.popleft())
            while waiting:
                yield self._answer(waiting.popleft())
        finally:
            for left in waiting:  # somebody stopped asking, or an error came first
                self._ray.cancel(left)

    def _workers(self) -> int:
        """Return how many workers the cluster has, or had just now."""
        now = time.monotonic()
        if self._counted is None or now - self._counted[0] > COUNTED_FOR:
            self._counted = now, max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
        return self._counted[1]

    def _answer(self, reference: Any) -> list[Any]:
        """Wait for a bundle's results; raise what a worker could not do."""
        errors = self._ray.exceptions
        try:
            kind, node, found = self._ray.get(reference)
        except errors.RayTaskError:
            raise  # an error that nobody foresaw, with the worker's traceback
        except errors.RayError as error:
            first = str(error).strip().splitlines()[0]
            raise ClusterError(
                f"a worker of the Ray cluster died, and so did those that took its work over ({RETRIES} times): "
                f"{type(error).__name__}: {first}; look at the cluster's memory and logs, then ask again"
            ) from error
        if kind == scan_worker.DONE:
            return list(found)
        if kind == scan_worker.UNSEEN:
            raise _unseen(found, node)
        if kind == scan_worker.FAILED:
            found.add_note(f"on {node}")
            raise found
        raise _unlike(found, node)


class _Shared:
    """The matrices of vectors that many bundles have in common, each laid into the object store once."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._placed: dict[int, int] = {}
        self._held: list[Any] = []
        self.references: list[Any] = []

    def packed(self, function: Any, combine: Any, bundle: list[Task]) -> bytes:
        file = io.BytesIO()
        packer = scan_worker.Packer(file, self._place)
        packer.dump(scan_worker.traits())
        packer.dump((function, combine, bundle))
        return file.getvalue()

    def _place(self, matrix: Any) -> int | None:
        if matrix.nbytes < _SHARED_BYTES:
            return None
        if id(matrix) not in self._placed:
            self._placed[id(matrix)] = len(self.references)
            self._held.append(matrix)  # else another could get its id
            self.references.append(self._ray.put(matrix))
        return self._placed[id(matrix)]


def bundles(tasks: list[Task], workers: int) -> Iterator[list[Task]]:
    """Cut tasks, in order, into bundles: each reads about a worker's share of what is left, divided by `SHARES`."""
    left = sum(task.size for task in tasks)
    bundle: list[Task] = []
    size = 0
    for task in tasks:
        wanted = min(max(left / (workers * SHARES), LEAST_BYTES), MOST_BYTES)
        if bundle and size + task.size > wanted:
            yield bundle
            left -= size
            bundle, size = [], 0
        bundle.append(task)
        size += task.size
    if bundle:
        yield bundle


def executor_of(word: str) -> RayExecutor:
    """Return the executor that a word names: ``"ray"``, or ``"ray:ADDRESS"``. InputError for any other."""
    kind, _, address = word.partition(":")
    if kind != "ray":
        raise InputError(f"executor {word!r} is not known; expected 'ray', or 'ray:ADDRESS' such as 'ray:auto'")
    return RayExecutor(address or None)


def _unseen(part: Part, node: str) -> Exception:
    """Return what it means that a node does not see a part."""
    if part.cache is None and part.exists():
        return StoreNotFoundError(
            f"{node} sees no file {part.path}, which is there for this process: every node of the cluster must see "
            "the store's folder at the same path, on a file system that they share; mount it there, or ask without Ray"
        )
    try:
        part.groups()
    except Exception as error:  # noqa: BLE001 - it is handed on: the error that a scan in this process would end with
        return error
    return ClusterError(f"{node} saw no file {part.path} for a moment; ask again")


def _unlike(found: dict[str, str], node: str) -> ClusterError:
    """Return the error of nodes that differ, which names what differs and both values."""
    ours = scan_worker.traits()
    differing = [name for name, value in found.items() if ours[name] != value]
    said = "; ".join(f"{name} {ours[name]} here, {found[name]} on {node}" for name in differing)
    if differing == [scan_worker.BITS]:
        advice = (
            "their processors sum in another order: set OPENBLAS_CORETYPE to the same kind (Haswell, say) for this "
            "process and where Ray is started on each node"
        )
    else:
        advice = f"install the same on every node: pip install 'embedstore[ray]=={ours['embedstore']}'"
    return ClusterError(f"driver and worker differ: {said}; answers could differ too. {advice[0].upper()}{advice[1:]}")
