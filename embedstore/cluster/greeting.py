"""What a worker does first: it says which embedstore it has, and goes on only with the driver's.

`greet` and `Worker` travel to a worker as code, not as names to import, so that a node with another embedstore, or with
none, can say so; hence nothing is imported here but the standard library. What is done then is the business of
`worker_side`, for scans, and of `record_side`, for records that are added.
"""

from __future__ import annotations

import socket
from typing import Any


def greet(version: str, payload: bytes, *shared: Any) -> tuple[str | None, str, Any]:
    """Return the kind of the answer, this node's name, and the answer, as `worker_side.answer` has it.

    The kind is None, the answer what is found here, where the version is another: then `payload` is not even read.
    """
    node, found = _met(version)
    if found is not None:
        return None, node, found
    from embedstore.cluster import worker_side

    kind, answer = worker_side.answer(payload, shared)
    return kind, node, answer


class Worker:
    """Keeps what it has read and loaded between its calls."""

    def meet(self, version: str, payload: bytes) -> tuple[str | None, str, Any]:
        """Return as `answer` does; apart only so that a process that works can be told from one that starts."""
        return self.answer(version, payload)

    def answer(self, version: str, payload: bytes, *shared: Any) -> tuple[str | None, str, Any]:
        """Return as `greet` does, with the answer as `record_side.answer` has it."""
        node, found = _met(version)
        if found is not None:
            return None, node, found
        from embedstore.cluster import record_side

        kind, answer = record_side.answer(payload, shared)
        return kind, node, answer


def _met(version: str) -> tuple[str, dict[str, str] | None]:
    """Return this node's name, and which embedstore is here where that is another."""
    node = socket.gethostname()
    try:
        from ray import get_runtime_context

        import embedstore
    except ImportError:
        return node, {"embedstore": "none"}
    node = f"{node} (Ray node {get_runtime_context().get_node_id()[:8]})"
    return node, None if embedstore.__version__ == version else {"embedstore": embedstore.__version__}
