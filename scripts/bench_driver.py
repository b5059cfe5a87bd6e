"""How many vectors a second one process takes in, for any number of workers that make them.

python scripts/bench_driver.py [COUNT]

An `add` of pictures whose hashes and vectors cost nothing: what is left is what the driver of a cluster does for each,
the decision, the claim, the synced ledger and the parts. What Ray takes for a call comes on top.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.ingest.executor import IngestExecutor, Job, PreparedRecord
from embedstore.ingest.pipeline import Run
from embedstore.sources import Record, Source
from embedstore.space import Space
from embedstore.store import EmbedStore

DIM, BATCH = 768, 64


class Numbers(Source):
    """Records of nothing."""

    def __iter__(self) -> Iterator[Record]:
        """Yield as many as there are to be."""
        for number in range(self.count() or 0):
            yield Record(f"file:/shared/{number}.jpg", f"/shared/{number}.jpg", bytes, {"label": "none"})


class Free:
    """An executor that has everything done already."""

    space = Space.given("numbers", DIM)
    batch_size, workers = BATCH, 16

    def __init__(self) -> None:
        rows = np.random.default_rng(0).standard_normal((BATCH, DIM), np.float32)
        self._rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def ahead(self, records: Any, count: int | None) -> Iterator[tuple[Record, PreparedRecord]]:
        """Yield each record as read."""
        for record in records:
            yield record, PreparedRecord(hashlib.sha256(record.uri.encode()).hexdigest(), 500, 375, record.uri)

    def read(self, record: Record) -> Any:
        """Not asked for."""
        raise NotImplementedError

    def embedder(self) -> Any:
        """Return itself."""
        return self

    prepare = embed_texts = read

    def embed_prepared(self, prepared: Sequence[Any]) -> Any:
        """Return vectors of no meaning."""
        return self._rows[: len(prepared)]


def main(count: int) -> None:
    """Add, and print the rate."""
    free = Free()

    @contextlib.contextmanager
    def start_executor(job: Job) -> Iterator[IngestExecutor]:
        job.model()
        yield free

    with tempfile.TemporaryDirectory() as place:
        store = EmbedStore.create(Path(place) / "s.store", embedder=free)
        with store.folder.running.begun() as name:
            started = time.perf_counter()
            Run(store.folder, lambda: free, name, start_executor=start_executor).run(Numbers("numbers", count), False)
            seconds = time.perf_counter() - started
    print(f"{count:,} vectors of {DIM} components in {seconds:.1f} s: {count / seconds:,.0f} a second")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
