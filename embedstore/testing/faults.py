"""What goes wrong at the stand-in, and when: a queue that a test writes, or dice with a seed.

This module only chooses the fault of a request; `wire` carries it out.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

_Refusing = Literal["429", "500", "503", "text-500", "html-200", "html-413", "html-502", "html-504"]
_Final = Literal["402", "403", "plan-403"]
_Elsewhere = Literal["redirect-307", "redirect-308"]
_Slow = Literal["slow", "slow-upload", "drip"]
_Broken = Literal["hung", "dropped", "reset"]
_Wrong = Literal["wrong-count", "extra-vector", "wrong-dim", "duplicate-vectors", "wrong-model", "nan"]
Kind = Literal[_Refusing, _Elsewhere, _Slow, _Broken, _Wrong, _Final]
"""The kinds of fault.

``429``, ``500`` and ``503`` answer with a JSON body, ``text-500`` with a plain word, ``html-*`` with a web page
under that status, ``dropped`` breaks the connection; ``402`` says that a payment is due, ``403`` that the key may not,
``plan-403`` that the plan is at its end; ``redirect-*`` sends the client to the same path once more. None of these does
the work that was asked for. All the others do the work, and then: ``slow`` answers after some seconds, ``slow-upload``
reads the request slowly, ``drip`` sends the answer piece by piece, ``hung`` never answers, ``reset`` breaks the
connection in the middle of the answer, ``wrong-count`` leaves one vector out, ``extra-vector`` gives one more,
``wrong-dim`` drops a component of each, ``duplicate-vectors`` gives the second input the first one's (an answer of one
vector stays as it is), ``wrong-model`` names another model, ``nan`` makes one number not a number.
"""

FINAL: tuple[Kind, ...] = get_args(_Final)
"""Kinds that end all work: no request will get through until somebody sees to it."""

KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind not in FINAL)
"""All other kinds of fault."""

PASSING: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind != "html-413")
"""Kinds after which the same request may succeed; 413 says that it is too large for good."""

OF_VECTORS: tuple[Kind, ...] = get_args(_Wrong)
"""Kinds that only an answer with vectors can have."""

SPOILING = (frozenset(get_args(_Broken)) | frozenset(OF_VECTORS)) - {"dropped"}
"""Kinds that do the work, and lose it: the service has computed, and perhaps charged for, what nobody got."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one request.

    Attributes
    ----------
    kind : Kind
        What goes wrong.
    seconds : float
        For ``slow``, ``slow-upload`` and ``drip``: how long it takes. For ``hung``: after how long the server drops
        the connection, at the latest when it stops.
    retry_after : float | None
        For ``429`` and ``503``: value of the ``Retry-After`` header in seconds; None sends no such header.
    as_date : bool
        Say so as a date, which has whole seconds.
    """

    kind: Kind
    seconds: float = 3600.0
    retry_after: float | None = 0.0
    as_date: bool = False

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, *FINAL):
            raise ValueError(f"there is no fault {self.kind!r}; the kinds are {', '.join((*KINDS, *FINAL))}")

    @classmethod
    def of(cls, kind: Kind | Fault) -> Fault:
        """Return `kind` itself, or the fault of that kind that suits quick tests: nothing slow over 50 ms."""
        if isinstance(kind, Fault):
            return kind
        return cls(kind, seconds=3600.0 if kind == "hung" else 0.05)


class Faults:
    """The faults of one server. All methods may be called while it runs, from any thread.

    A request takes the next scripted fault if there is one that applies to its path, else throws the dice.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[tuple[str, Fault | None]] = deque()
        self._dice: Callable[[str], Fault | None] = _never
        self._poison: Callable[[NDArray[np.uint8]], int | None] = _never

    def script(self, faults: Iterable[Kind | Fault | None], *, path: str = "/v1/embedding/") -> None:
        """Queue faults for the coming requests whose path starts with `path`; None lets one request pass."""
        with self._lock:
            self._queue.extend((path, None if fault is None else Fault.of(fault)) for fault in faults)

    def random(
        self, rate: float, seed: int, kinds: Sequence[Kind | Fault] = PASSING, *, path: str = "/v1/embedding/"
    ) -> None:
        """Let a share `rate` (from 0 to 1) of the requests whose path starts with `path` fail, each in some way."""
        dice, faults = random.Random(seed), [Fault.of(kind) for kind in kinds]
        self._dice = lambda asked: dice.choice(faults) if asked.startswith(path) and dice.random() < rate else None

    def refuse(self, pixels: Callable[[NDArray[np.uint8]], bool] | None, *, status: int = 400) -> None:
        """Refuse each image request with a picture whose decoded RGB array satisfies `pixels`; None ends it."""
        self._poison = _never if pixels is None else lambda picture: status if pixels(picture) else None

    def clear(self) -> None:
        """Forget all that was ordered."""
        with self._lock:
            self._queue.clear()
            self._dice = self._poison = _never

    @property
    def left(self) -> int:
        """Number of scripted faults that have not happened yet."""
        return len(self._queue)

    def take(self, path: str) -> Fault | None:
        """Return what is to go wrong with a request for `path`."""
        with self._lock:
            if not self._queue:
                return self._dice(path)
            return self._queue.popleft()[1] if path.startswith(self._queue[0][0]) else None

    def refusal(self, pixels: NDArray[np.uint8]) -> int | None:
        """Return the status with which a picture is refused, or None."""
        return self._poison(pixels)


def _never(asked: object) -> None:
    """Let a path, or a picture, pass."""
