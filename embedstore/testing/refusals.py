"""The one exception of the stand-in: a request that is answered with an error, in the real server's words."""

from __future__ import annotations

from typing import Any

from embedstore.testing.wire import Reply


class Refused(Exception):
    """The answer to a request that cannot be served.

    Parameters
    ----------
    status : int
        HTTP status.
    detail : Any
        What the real server says, under ``detail`` in a JSON object.
    """

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(f"{status}: {detail}")
        self.detail = detail
        self.reply = Reply({"detail": detail}, status)


def invalid(name: str, text: str, kind: str) -> dict[str, Any]:
    """Return one entry of the ``detail`` list of a 422, about the body's field `name`."""
    return {"loc": ["body", name], "msg": text, "type": kind}
