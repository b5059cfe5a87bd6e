"""What Atlas was sent and seen to hold, and which maps were ordered, in the store's ledger: a sync cut short goes on.

Each entry belongs to one dataset by its UUID: what is known of a dataset that was deleted and made again counts for
nothing. An upload is written down before it leaves, with a hash of what goes with each row, and again when its rows
were seen; a map when it is about to be ordered, when its name is known, and when it is built. So after a kill at any
moment it is known what may be there. The server remains the truth; `plan` says how much of it is asked again.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import xxhash
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from embedstore.errors import StoreLockedError
from embedstore.storage.folder import StoreFolder

_ROWS, _MAPS = "rows", "maps"
_OF_AN_ORDER: Final = ("rows", "state", "before", "topics", "at")  # in the order of the fields of `Order`
UNKNOWN: Final = ""
"""The hash of what went with a row that another store, or another machine, has sent."""


@dataclass
class Known:
    """What the ledger tells of the rows of a dataset."""

    seen: dict[str, str] = field(default_factory=dict)  # by id: the hash of what was sent, or UNKNOWN
    sent: dict[str, str] = field(default_factory=dict)  # by id: sent and not seen yet, so that it may be there
    removed: int = 0  # rows that were deleted there from here

    def hash_of(self, name: str) -> str:
        """Return the hash of what is there with a row, if it is there."""
        return self.seen.get(name, UNKNOWN) or self.sent.get(name, UNKNOWN)

    @property
    def state(self) -> str:
        """A hash of all this: a map that was made in another state shows other rows, or other vectors."""
        digest = xxhash.xxh3_64(str(self.removed).encode())
        for name in sorted(self.seen):
            digest.update(f"{name} {self.seen[name]}\n".encode())
        return digest.hexdigest()


@dataclass
class Order:
    """A map that was ordered."""

    id: str
    rows: int  # of the dataset then
    state: str  # `Known.state` then
    before: list[str]  # indices that the dataset had before
    topics: str = ""  # which were ordered with it, as JSON; empty for none
    at: float = 0.0  # when, in seconds since the epoch
    accepted: bool = False  # Atlas has said that it makes it
    index: str | None = None  # the map's, once it is listed
    built: bool = False
    given_up: bool = False  # it was not made: it never got there, or Atlas failed


def hashes_of(halves: NDArray[np.float16]) -> list[str]:
    """Return a hash of each vector as it is sent, shape (n, dim)."""
    return [xxhash.xxh3_64_hexdigest(row.tobytes()) for row in np.ascontiguousarray(halves)]


class Confirmations:
    """What is known of one dataset of Atlas, ``organisation/dataset``, in a store's folder."""

    def __init__(self, folder: StoreFolder, identifier: str) -> None:
        self._ledger, self._identifier = folder.ledger, identifier
        name = re.sub(r"[^\w.-]", "-", identifier.replace("/", "__"))
        self._lock = folder.path / ".running" / f"sync-{name}.lock"

    def known(self, dataset_id: str) -> Known:
        """Return what is known of a dataset's rows."""
        known, sendings = Known(), dict[str, tuple[dict[str, str], dict[str, str]]]()
        for entry in self._entries(_ROWS, dataset_id):
            if "sending" in entry:
                rows = dict(zip(entry["ids"], entry["hashes"], strict=True))
                sendings[entry["sending"]] = rows, {name: known.hash_of(name) for name in rows}
                for name, sent in rows.items():
                    # Two uploads that were cut short, with unequal vectors: either may be there.
                    known.sent[name] = sent if known.sent.get(name, sent) == sent else UNKNOWN
            elif "arrived" in entry:
                rows, before = sendings.get(entry["arrived"], ({}, {}))
                others = {name: before.get(name, UNKNOWN) for name in entry.get("not_by_it", ())}
                self._see(known, rows | others)
            elif "gone" in entry:
                known.removed += len(entry["gone"])
                for name in entry["gone"]:
                    known.seen.pop(name, None)
                    known.sent.pop(name, None)
            else:
                self._see(known, {name: known.hash_of(name) for name in entry["ids"]})
        return known

    @staticmethod
    def _see(known: Known, rows: Mapping[str, str]) -> None:
        known.seen.update(rows)
        for name in rows:
            known.sent.pop(name, None)

    def sending(self, dataset_id: str, ids: Sequence[str], hashes: Sequence[str]) -> str:
        """Write down that rows are about to be sent, each with a hash of its vector or picture; return its name."""
        name = uuid.uuid4().hex
        self._write(_ROWS, {"dataset": dataset_id, "sending": name, "ids": list(ids), "hashes": list(hashes)})
        return name

    def arrived(self, dataset_id: str, sending: str, *, not_by_it: Sequence[str] = ()) -> None:
        """Write down that all rows of a sending were seen; when this returns it is on the disk.

        Those that are there `not_by_it` were found there: somebody else has sent them, or an earlier sending.
        """
        others = {"not_by_it": list(not_by_it)} if not_by_it else {}
        self._write(_ROWS, {"dataset": dataset_id, "arrived": sending, **others})

    def seen(self, dataset_id: str, ids: Sequence[str]) -> None:
        """Write down that rows were seen, whoever has sent them."""
        self._write(_ROWS, {"dataset": dataset_id, "ids": list(ids)})

    def gone(self, dataset_id: str, ids: Sequence[str]) -> None:
        """Write down that rows were deleted, and seen to be gone."""
        self._write(_ROWS, {"dataset": dataset_id, "gone": list(ids)})

    def orders(self, dataset_id: str) -> list[Order]:
        """Return the maps that were ordered, the newest last."""
        orders: dict[str, Order] = {}
        for entry in self._entries(_MAPS, dataset_id):
            name = entry["order"]
            if "rows" in entry:
                orders[name] = Order(name, *(entry[about] for about in _OF_AN_ORDER))
            elif name in orders:
                for about in ("accepted", "index", "built", "given_up"):
                    setattr(orders[name], about, entry.get(about, getattr(orders[name], about)))
        return list(orders.values())

    def ordering(self, dataset_id: str, rows: int, state: str, before: Sequence[str], topics: str = "") -> Order:
        """Write down that a map is about to be ordered."""
        order = Order(uuid.uuid4().hex, rows, state, list(before), topics, time.time())
        entry = {name: getattr(order, name) for name in _OF_AN_ORDER}
        self._write(_MAPS, {"dataset": dataset_id, "order": order.id, **entry})
        return order

    def about_order(self, dataset_id: str, order: Order, **what: Any) -> None:
        """Write down what has become of an order: ``accepted``, its ``index``, ``built`` or ``given_up``."""
        for name, value in what.items():
            setattr(order, name, value)
        self._write(_MAPS, {"dataset": dataset_id, "order": order.id, **what})

    def others(self, dataset_id: str) -> int:
        """Return how many other datasets of this name are known, deleted by now."""
        known = {entry["dataset"] for about in (_ROWS, _MAPS) for entry in self._all(about)}
        return len(known - {dataset_id})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other syncs of this store with this dataset away; StoreLockedError if there is one now."""
        self._lock.parent.mkdir(exist_ok=True)
        try:
            with FileLock(self._lock, timeout=0):
                yield
        except Timeout as error:
            raise StoreLockedError("another process syncs this store with this dataset now") from error

    def _write(self, about: str, entry: dict[str, Any]) -> None:
        self._ledger.confirm(self._identifier, about, json.dumps(entry))

    def _entries(self, about: str, dataset_id: str) -> list[dict[str, Any]]:
        return [entry for entry in self._all(about) if entry["dataset"] == dataset_id]

    def _all(self, about: str) -> list[dict[str, Any]]:
        entries = [json.loads(value) for value in self._ledger.confirmations(self._identifier, about)]
        # An earlier version wrote maps down without their order.
        return [entry for entry in entries if about != _MAPS or "order" in entry]
