"""The official client's own functions with our transport inside them, and what Nomic's answers mean.

The client sends without any timeout, keeps its key in every header it builds, takes any answer with status 200 for
good, and sleeps and retries on its own. It looks `requests` up as a global name: `with_globals` makes a copy of one of
its functions that finds a `Transport` under that name instead. So the client's code runs as it is, its modules stay
untouched, and each answer is judged before the client sees it. How often to try again, and whether vectors are sound,
is left to `remote`; what Atlas's answers mean, to `atlas.answers`.
"""

from __future__ import annotations

import os
from types import FunctionType
from typing import Any

from embedstore.embedders.transport import Answer, Transport, require_good
from embedstore.settings import key_places


def with_globals(function: Any, **names: Any) -> Any:
    """Return a copy of `function` that finds `names` among its globals; the function itself stays as it is."""
    visible = {**function.__globals__, **names}
    copy = FunctionType(function.__code__, visible, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


class EmbeddingTransport(Transport):
    """Raises for every status but 200, so that the client's own sleeping and retrying never begins."""

    def request(self, method: str, url: str, **arguments: Any) -> Answer:
        """Send one request; return its answer if that is JSON with status 200; else raise as `require_good`."""
        answer = super().request(method, url, **arguments)
        address = os.environ.get("ATLAS_API_PATH", "not set")
        require_good(
            answer, self.key, "Nomic's service", places=key_places(), advice=f"check ATLAS_API_PATH ({address})"
        )
        return answer
