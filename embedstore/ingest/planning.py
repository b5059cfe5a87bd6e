"""What an `add` would do, found out by reading and hashing only: nothing is embedded, sent or written."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from embedstore import images
from embedstore.errors import EmbedderError, InputError
from embedstore.ingest.arrivals import tally
from embedstore.ingest.incoming import ahead, bar, measured
from embedstore.ingest.known import Known
from embedstore.ingest.reports import AddPlan
from embedstore.machine import cores
from embedstore.sources import Failure, Record, Source
from embedstore.storage import journal
from embedstore.storage.metadata import Columns
from embedstore.store import EmbedStore

_SAMPLE = 64
_AHEAD = 64
_BATCH = 64


def plan(
    store: EmbedStore,
    source: Source,
    lenders: Sequence[EmbedStore],
    batch_size: int | None,
    progress: bool | None,
) -> AddPlan:
    """Count what would happen to each record of a source; see `adding.plan_add`."""
    planner = _Planner(store, lenders)
    with ThreadPoolExecutor(cores()) as pool:
        shown = bar(source, source.count(), "planned", progress)
        for record, outcome in ahead(pool, planner.look, shown, _AHEAD):
            planner.take(record, outcome)
    made = planner.made
    made.failures.extend(source.failures)
    embedder = planner.embedder
    pictures: int = getattr(embedder, "batch_size", _BATCH) if batch_size is None else batch_size
    made.requests = math.ceil(made.embedded / pictures)
    rate = getattr(embedder, "requests_per_second", None)
    made.seconds = made.requests / rate if rate else None
    made.upload_bytes = round(float(np.mean(planner.sizes)) * made.embedded) if planner.sizes else None
    return made


class _Planner:
    """Goes through the records once."""

    def __init__(self, store: EmbedStore, lenders: Sequence[EmbedStore]) -> None:
        self.made = AddPlan()
        self.sizes: list[int] = []
        self.embedder: Any = None
        # A plan needs neither weights nor a key: without them it goes without sizes and times.
        with contextlib.suppress(EmbedderError):
            self.embedder = store.embedder
        self._known = Known(store.rows, lenders)
        self._columns = Columns(store.snapshot.schema)
        self._waiting = journal.content_hashes(store.path / "journal")
        self._new: set[str] = set()
        self._seen: set[str] = set()

    def look(self, record: Record) -> tuple[str, int | None] | Failure:
        """Read one record; runs on a reader thread."""
        return measured(record, self._upload_size)

    def take(self, record: Record, outcome: tuple[str, int | None] | Failure) -> None:
        """Count one record."""
        self.made.found += 1
        if isinstance(outcome, Failure):
            self.made.failures.append(outcome)
            return
        if record.uri in self._seen:
            self.made.unchanged += 1
            return
        self._seen.add(record.uri)
        content_hash, size = outcome
        decision = self._known.decide(record, content_hash, self._columns.fit(record.metadata, record.uri))
        here = self._known.holds(content_hash)
        if not here and content_hash in self._waiting:
            self.made.recovered += 1
            return
        needed = not here and content_hash not in self._new
        tally(self.made, decision, needed=needed, lent=self._known.lent(content_hash))
        if needed:
            self._new.add(content_hash)
            if size is not None and len(self.sizes) < _SAMPLE:
                self.sizes.append(size)

    def _upload_size(self, content_hash: str, data: Any) -> int | None:
        """Return the bytes that a new picture takes on the wire; None where nothing is sent, or enough is known."""
        if self.embedder is None or len(self.sizes) >= _SAMPLE or self._known.holds(content_hash):
            return None
        if getattr(self.embedder, "requests_per_second", None) is None:
            return None
        try:
            prepared = self.embedder.prepare(images.read(data).image)
        except (EmbedderError, InputError):
            return None
        return len(prepared) if isinstance(prepared, bytes) else None
