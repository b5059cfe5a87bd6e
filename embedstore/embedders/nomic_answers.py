"""What an answer of Nomic's service means: good vectors, a failure that may pass, or one that will not.

The client takes any answer with status 200 for good, and retries by itself on some others. Here every answer is
judged before the client sees it (`CheckedTransport`), and its vectors after (`parsed`, `checked`). How often to try
again is left to `nomic_api`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embedstore.credentials import PLACES
from embedstore.embedders.nomic_transport import Answer, NoAnswerError, Transport
from embedstore.embedders.rate_limit import LONGEST_BLOCK, RateLimiter
from embedstore.errors import CredentialsError, RejectedImagesError, ServiceError, VectorError
from embedstore.vectors import as_vectors, normalise

DIM: Final = 768
"""Components of a vector."""


class PassingError(ServiceError):
    """A failure that another attempt may not meet; `nonsense` if the service did the work and it is lost."""

    def __init__(self, message: str, *, nonsense: bool = False) -> None:
        super().__init__(message)
        self.nonsense = nonsense


class CheckedTransport(Transport):
    """Raises for every status but 200, so that the client's own sleeping and retrying never begins."""

    limiter: RateLimiter | None = None

    def request(self, method: str, url: str, **arguments: Any) -> Answer:
        """Send one request; return its answer if the status is 200."""
        try:
            answer = super().request(method, url, **arguments)
        except NoAnswerError as error:
            raise PassingError(str(error)) from None
        status = answer.status_code
        if status == 200:
            return answer
        found = f"Nomic's service answered {status}: {self.key.scrub(_excerpt(answer))}"
        if status in (401, 403):
            raise CredentialsError(f"the key from {self.key.source} was refused; {PLACES}. {found}")
        if status in (408, 425, 429) or status >= 500:
            self._wait_as_asked(answer, found)
            raise PassingError(found)
        if status in (400, 413, 422) and not _blames_the_request(answer):
            raise RejectedImagesError(found)
        raise ServiceError(f"{found}; check ATLAS_API_PATH ({os.environ.get('ATLAS_API_PATH', 'not set')})")

    def _wait_as_asked(self, answer: Answer, found: str) -> None:
        """Hold back the requests of all processes for as long as ``Retry-After`` says."""
        seconds = retry_after(answer.headers.get("Retry-After"))
        if seconds > LONGEST_BLOCK:
            raise ServiceError(f"{found}; it asks to wait {seconds / 3600:.1f} hours: run again then")
        if seconds > 0 and self.limiter is not None:
            self.limiter.block(seconds)


def retry_after(value: str | None) -> float:
    """Return the seconds that a ``Retry-After`` header asks to wait: a number or a date; 0 if it is neither."""
    if value is None:
        return 0.0
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def checked(answer: Any, model: str, n: int) -> NDArray[np.float32]:
    """Return the vectors of an answer that is what was asked for.

    Raises
    ------
    ServiceError
        Another model, another number of vectors, another dimension, NaN, infinity or a vector of length zero.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("embeddings"), list):
        raise PassingError(f"the answer has no embeddings: {answer!r:.80}", nonsense=True)
    if answer.get("model") != model:
        raise PassingError(f"asked for {model}, answered by {answer.get('model')!r:.80}", nonsense=True)
    if len(answer["embeddings"]) != n:
        found = len(answer["embeddings"])
        raise PassingError(f"expected {n} vectors, one for each input; found {found}", nonsense=True)
    try:
        return normalise(as_vectors(answer["embeddings"], DIM, "the answer's vectors"))
    except VectorError as error:
        raise PassingError(str(error), nonsense=True) from None


def parsed(send: Callable[[], Any]) -> Any:
    """Return the JSON of an answer; a page in its place is an error that may pass."""
    try:
        return send()
    except ValueError as error:
        if isinstance(error, RejectedImagesError):
            raise
        raise PassingError(f"status 200, but no JSON ({error}): a proxy's page?", nonsense=True) from None


def _excerpt(answer: Answer) -> str:
    """Return the beginning of an answer's body, on one line."""
    text = " ".join(answer.text.split())
    return text if len(text) <= 300 else text[:300] + "…"


def _blames_the_request(answer: Answer) -> bool:
    """Return whether a refusal lies in a parameter of the request, so that halving the batch is of no use."""
    try:
        detail = answer.json()["detail"]
        return any(set(entry["loc"]) & {"model", "task_type", "dimensionality"} for entry in detail)
    except (ValueError, KeyError, TypeError):
        return False  # no list of fields: then it is the content
