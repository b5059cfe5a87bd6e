"""What a worker does first: it says which embedstore it has, and goes on only with the driver's.

`greet` travels to a worker as code, not as a name to import, so that a node with another embedstore, or with none, can
say so; hence nothing is imported here but the standard library. What is done then is `worker_side`'s business.
"""

from __future__ import annotations

import socket
from typing import Any


def greet(version: str, payload: bytes, *shared: Any) -> tuple[str | None, str, Any]:
    """Return the kind of the answer, this node's name, and the answer, as `worker_side.answer` has it.

    The kind is None, the answer what is found here, where the version is another: then `payload` is not even read.
    """
    node = socket.gethostname()
    try:
        from ray import get_runtime_context

        import embedstore
    except ImportError:
        return None, node, {"embedstore": "none"}
    node = f"{node} (Ray node {get_runtime_context().get_node_id()[:8]})"
    if embedstore.__version__ != version:
        return None, node, {"embedstore": embedstore.__version__}
    from embedstore.cluster import worker_side

    kind, found = worker_side.answer(payload, shared)
    return kind, node, found
