"""What Atlas was seen to hold, written down in the store's ledger, so that a sync that was cut short goes on.

Each entry belongs to one dataset by its UUID: what was seen of a dataset that was deleted and made again counts for
nothing. The server remains the truth; `plan` says how much of it is asked again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from filelock import FileLock, Timeout

from embedstore.errors import StoreLockedError
from embedstore.storage.folder import StoreFolder

_SEEN, _MAPS = "rows", "maps"


class Confirmations:
    """What is known of one dataset of Atlas, ``organisation/dataset``, in a store's folder."""

    def __init__(self, folder: StoreFolder, identifier: str) -> None:
        self._ledger, self._identifier = folder.ledger, identifier
        name = re.sub(r"[^\w.-]", "-", identifier.replace("/", "__"))
        self._lock = folder.path / ".running" / f"sync-{name}.lock"

    def confirmed(self, dataset_id: str) -> dict[str, None]:
        """Return the ids that were seen in a dataset, in the order in which they were."""
        return {name: None for entry in self._entries(_SEEN, dataset_id) for name in entry["ids"]}

    def mapped(self, dataset_id: str) -> dict[str, int]:
        """Return how many rows the dataset had when a map was made of it, by the map's index."""
        return {entry["index"]: entry["rows"] for entry in self._entries(_MAPS, dataset_id)}

    def others(self, dataset_id: str) -> int:
        """Return how many other datasets of this name are known, deleted by now."""
        known = {entry["dataset"] for about in (_SEEN, _MAPS) for entry in self._all(about)}
        return len(known - {dataset_id})

    def confirm(self, dataset_id: str, ids: Sequence[str]) -> None:
        """Write down that rows were seen; when this returns it is on the disk."""
        self._write(_SEEN, {"dataset": dataset_id, "ids": list(ids)})

    def built(self, dataset_id: str, index_id: str, rows: int) -> None:
        """Write down that a map was made of so many rows."""
        self._write(_MAPS, {"dataset": dataset_id, "index": index_id, "rows": rows})

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
        return [json.loads(value) for value in self._ledger.confirmations(self._identifier, about)]
