"""A bundle of tasks -> their results, in a worker's process; and what must be the same on all nodes.

A score's last bits come from NumPy's dot product, which sums in another order on another kind of processor. `traits`
therefore holds a digest of such sums beside the versions: equal traits, equal answers. Bundles are cut and sent by
`ray_executor`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import pickle
import platform
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedstore import __version__, vectors
from embedstore.errors import EmbedStoreError
from embedstore.searching.scan import one_blas_thread
from embedstore.storage.parts import Part

DONE, FAILED, UNSEEN, UNLIKE = "done", "failed", "unseen", "unlike"
"""Kinds of answer: the results, an error of the library, a part that is not seen here, the traits of another node."""
BITS = "last bits of a score"
_PROBED = (7, 100, 384, 512, 768, 1024)
_MOST_PARTS = 512
_known: OrderedDict[Path, Part] = OrderedDict()


@functools.cache
def traits() -> dict[str, str]:
    """Return what driver and workers must agree on, by name."""
    random = np.random.default_rng(0)
    digest = hashlib.sha256()
    for dim in _PROBED:
        rows = random.standard_normal((65, dim), np.float32)
        digest.update(vectors.scores(rows[:1], rows[1:]).tobytes())
    python = ".".join(platform.python_version_tuple()[:2])
    return {"embedstore": __version__, "Python": python, "NumPy": np.__version__, BITS: digest.hexdigest()[:12]}


class Packer(pickle.Pickler):
    """Pickles a bundle; large query vectors are left to `place`, which names where they are found."""

    def __init__(self, file: io.BytesIO, place: Any) -> None:
        super().__init__(file, protocol=5)
        self._place = place

    def persistent_id(self, obj: Any) -> Any:
        """Return the place of a matrix of vectors; None for all else."""
        return self._place(obj) if type(obj) is np.ndarray and obj.ndim == 2 else None


class _Unpacker(pickle.Unpickler):
    def __init__(self, payload: bytes, shared: Sequence[Any]) -> None:
        super().__init__(io.BytesIO(payload))
        self._shared = shared

    def persistent_load(self, pid: Any) -> Any:
        return self._shared[pid]


def answer(payload: bytes, shared: Sequence[Any]) -> tuple[str, Any]:
    """Do the tasks of a bundle; return the kind of the answer and the results, merged where the bundle says how."""
    unpacker = _Unpacker(payload, shared)
    expected = unpacker.load()
    if expected != traits():
        return UNLIKE, traits()
    function, combine, tasks = unpacker.load()
    try:
        _keep_to_one_thread()
        results: list[Any] = []
        for task in tasks:
            part = _opened(task.part)
            if part is None:
                return UNSEEN, task.part
            found = function(dataclasses.replace(task, part=part))
            results = [combine(results[0], found)] if combine is not None and results else [*results, found]
        return DONE, results
    except (EmbedStoreError, OSError) as error:  # a full disk, where a task writes
        return FAILED, error


@functools.cache
def _keep_to_one_thread() -> None:
    """Let matrix products of this process, which has one core of its node, run on one thread for good."""
    one_blas_thread.__enter__()


def _opened(part: Part) -> Part | None:
    """Return a part as this process has it mapped already, if it has; None where the file is not seen here."""
    kept = _known.get(part.path)
    if kept is None or (kept.rows, kept.dim, kept.blocks) != (part.rows, part.dim, part.blocks):
        if not part.exists():
            return None
        kept = part
        if part.mapped:  # what had to be decoded is not worth its memory
            _known[part.path] = part
    if part.mapped:
        _known.move_to_end(part.path)
    while len(_known) > _MOST_PARTS:
        _known.popitem(last=False)
    return kept
