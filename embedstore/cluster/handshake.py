"""What runs first in a worker: it says which embedstore it has, and goes on only with the driver's.

`scan_bundle` and `IngestActor` travel to a worker as code, not as names to import, so that a node with another
embedstore, or with none, can say so; hence nothing is imported here but the standard library. What is done then is the
business of `scan_worker`, for scans, and of `ingest_worker`, for records that are added.
"""

from __future__ import annotations

import socket
from typing import Any


def scan_bundle(version: str, payload: bytes, *shared: Any) -> tuple[str | None, str, Any]:
    """Return the kind of the answer, this node's name, and the answer, as `scan_worker.answer` has it.

    The kind is None, the answer what is found here, where the version is another: then `payload` is not even read.
    """
    node, found = _version_checked(version)
    if found is not None:
        return None, node, found
    from embedstore.cluster import scan_worker

    kind, answer = scan_worker.answer(payload, shared)
    return kind, node, answer


class IngestActor:
    """Keeps what it has read and loaded between its calls."""

    def handshake(self, version: str, payload: bytes) -> tuple[str | None, str, Any]:
        """Return as `call` does; apart only so that a process that works can be told from one that starts."""
        return self.call(version, payload)

    def ping(self) -> None:
        """Answer, on a thread of its own, while other calls are under way."""

    def call(self, version: str, payload: bytes, *shared: Any) -> tuple[str | None, str, Any]:
        """Return as `scan_bundle` does, with the answer as `ingest_worker.answer` has it."""
        node, found = _version_checked(version)
        if found is not None:
            return None, node, found
        from embedstore.cluster import ingest_worker

        kind, answer = ingest_worker.answer(payload, shared)
        return kind, node, answer


def _version_checked(version: str) -> tuple[str, dict[str, str] | None]:
    """Return this node's name, and which embedstore is here where that is another."""
    node = socket.gethostname()
    try:
        from ray import get_runtime_context

        import embedstore
    except ImportError:
        return node, {"embedstore": "none"}
    node = f"{node} (Ray node {get_runtime_context().get_node_id()[:8]})"
    return node, None if embedstore.__version__ == version else {"embedstore": embedstore.__version__}
