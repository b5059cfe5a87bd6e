"""What Atlas was seen to hold, written down in the store, so that a sync that was cut short goes on.

One line of JSON for each shard whose rows the server has shown, appended and flushed to the disk. A line belongs to
one dataset by its UUID: lines about a dataset that was deleted and made again count for nothing. The server remains
the truth; `plan` says how much of it is asked again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from embedstore.errors import StoreLockedError


class Ledger:
    """The ledger of one dataset of Atlas, ``organisation/dataset``, in a store's folder."""

    def __init__(self, store: Path, identifier: str) -> None:
        name = re.sub(r"[^\w.-]", "-", identifier.replace("/", "__"))
        self.path = store / "atlas" / f"{name}.jsonl"

    def confirmed(self, dataset_id: str) -> dict[str, None]:
        """Return the ids that were seen in a dataset, in the order in which they were."""
        return {name: None for line in self._lines(dataset_id) for name in line.get("ids", ())}

    def mapped(self, dataset_id: str) -> dict[str, int]:
        """Return how many rows the dataset had when a map was made of it, by the map's index."""
        return {line["index"]: line["rows"] for line in self._lines(dataset_id) if "index" in line}

    def others(self, dataset_id: str) -> int:
        """Return how many other datasets of this name it tells of, deleted by now."""
        return len({line["dataset"] for line in self._all()} - {dataset_id})

    def confirm(self, dataset_id: str, ids: Sequence[str]) -> None:
        """Write down that rows were seen; when this returns it is on the disk."""
        self._append({"dataset": dataset_id, "ids": list(ids)})

    def built(self, dataset_id: str, index_id: str, rows: int) -> None:
        """Write down that a map was made of so many rows."""
        self._append({"dataset": dataset_id, "index": index_id, "rows": rows})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other syncs of this store with this dataset away; StoreLockedError if there is one now."""
        self.path.parent.mkdir(exist_ok=True)
        try:
            with FileLock(self.path.with_suffix(".lock"), timeout=0):
                yield
        except Timeout as error:
            raise StoreLockedError("another process syncs this store with this dataset now") from error

    def _append(self, fields: dict[str, Any]) -> None:
        line = json.dumps({**fields, "at": datetime.now(UTC).isoformat(timespec="seconds")}).encode()
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line  # the last line was cut short by a kill
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _lines(self, dataset_id: str) -> list[dict[str, Any]]:
        return [line for line in self._all() if line["dataset"] == dataset_id]

    def _all(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that were written whole."""
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue  # cut short by a kill; what it said is asked from the server
