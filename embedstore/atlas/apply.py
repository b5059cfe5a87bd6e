"""A plan -> rows in Atlas, each of them seen there before it counts as sent.

A shard goes out through the official client's ``add_data``; whatever is answered, and whether anything is, the
server is then asked which of its rows it has, and only those that it lacks are sent again. What was seen is written
into the ledger. So a sync that ends well has nothing left to lose, and one that does not goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore import images
from embedstore.atlas.answers import (
    AtlasTransport,
    ConflictError,
    LimitError,
    LockedError,
    PassingError,
    RefusedError,
    TooLargeError,
)
from embedstore.atlas.client import MissingDatasetError, RemoteDataset, Report, open_dataset, silent
from embedstore.atlas.columns import lacks_picture
from embedstore.atlas.ledger import Ledger
from embedstore.atlas.maps import ensure_map, wait_until_unlocked
from embedstore.atlas.outcome import SyncPlan, SyncReport, Work
from embedstore.errors import AtlasError, ImageError
from embedstore.sources.places import pictures_at

LONGEST_SIDE: Final = 512
"""Pixels of a picture that is sent, each way."""

JPEG_QUALITY: Final = 90
_SENDS: Final = 8
"""Times that rows are sent without one of them getting through, before the sync ends with an error."""

Numbers = NDArray[np.int64]


def apply_sync(plan: SyncPlan, *, progress: Report = silent) -> SyncReport:
    """Carry out a plan.

    Parameters
    ----------
    plan : SyncPlan
        Of `plan.plan_sync`.
    progress : callable
        Is told in words how things go.

    Returns
    -------
    SyncReport
        All rows meant, but those under ``skipped``, were seen on the server.

    Raises
    ------
    AtlasError
        Something stands in the way, or could not be completed or confirmed in time. What was confirmed is in the
        ledger; the same call goes on from there.
    StoreLockedError
        Another process syncs this store with this dataset now.
    """
    work = plan.work
    if work is None:
        raise AtlasError("this plan was not made by plan_sync")
    if plan.problems and (plan.missing or plan.dataset_id is None):
        raise AtlasError(f"{plan.dataset}: {'; '.join(plan.problems)}")
    started = time.perf_counter()
    remote = _opened(plan, work)
    report = SyncReport(plan, remote.identifier, remote.id, plan.dataset_id is None, plan.rows, plan.present)
    ledger = Ledger(work.store.path, remote.identifier)
    try:
        with ledger.held():
            _Delivery(plan, work, remote, ledger, report, progress).run(work.cut)
            if work.index:
                report.map = ensure_map(remote, ledger, progress)
    except AtlasError as error:
        error.add_note(f"{report.sent:,} of {plan.missing:,} rows were sent and seen in Atlas before this")
        raise
    report.total, report.link = remote.total, remote.link
    report.seconds = time.perf_counter() - started
    return report


def _opened(plan: SyncPlan, work: Work) -> RemoteDataset:
    """Open the dataset that the plan is about, or make it."""
    transport, create = work.transport, None
    if plan.dataset_id is None:
        described = f"Images of an embedstore store. {work.store.space.to_json()}"
        create = {"description": described, "is_public": work.public}
    transport.begin()
    remote = _made_or_found(plan, transport, create)
    if plan.dataset_id is not None and remote.id != plan.dataset_id:
        raise AtlasError(f"the dataset {plan.dataset} was deleted and made again since the plan: plan anew")
    if plan.dataset_id is None and remote.meta.get("is_public") and not work.public:
        raise AtlasError(
            f"{remote.identifier} was to be private and is public; nothing was sent. Somebody else may have made it "
            "meanwhile: plan anew"
        )
    return remote


def _made_or_found(plan: SyncPlan, transport: AtlasTransport, create: dict[str, Any] | None) -> RemoteDataset:
    """Open or make the dataset; after a failure it may have been made all the same, by us or by another process."""
    pause = transport.limits.first_wait
    while True:
        try:
            return open_dataset(transport, plan.dataset, create=create)
        except (PassingError, RefusedError) as error:
            if not transport.has_time(pause) or create is None:
                raise AtlasError(f"the dataset {plan.dataset} could not be opened: {error}") from None
            if isinstance(error, RefusedError):
                try:
                    return open_dataset(transport, plan.dataset)
                except MissingDatasetError:
                    raise error from None
            time.sleep(pause)
            pause = min(2 * pause, transport.limits.longest_wait)


class _Delivery:
    """The sending of all shards of one plan."""

    def __init__(
        self,
        plan: SyncPlan,
        work: Work,
        remote: RemoteDataset,
        ledger: Ledger,
        report: SyncReport,
        progress: Report,
    ) -> None:
        self._plan, self._work, self._remote = plan, work, remote
        self._ledger, self._report, self._progress = ledger, report, progress
        self._ids = [work.made.ids[i] for i in work.missing]
        self._limits = work.transport.limits

    def run(self, cut: Sequence[Numbers]) -> None:
        """Send the shards one by one; count after each, and look at a sample of all at the end."""
        lacking = set(self._ids)
        known = self._ledger.confirmed(self._remote.id)
        there = [name for name in self._work.made.ids if name not in lacking and name not in known]
        if there:
            self._ledger.confirm(self._remote.id, there)
        for number, shard in enumerate(cut, 1):
            wait_until_unlocked(self._remote, self._progress)
            numbers, table, load = self._loaded(shard)
            if not len(numbers):
                continue
            self._deliver(numbers, table, load)
            self._ledger.confirm(self._remote.id, [self._ids[i] for i in numbers])
            self._report.sent += len(numbers)
            self._require_count(self._plan.total + self._report.sent)
            self._progress(f"shard {number:,} of {len(cut):,}: {self._report.sent:,} rows seen in Atlas")
        self._look_back()

    def _loaded(self, shard: Numbers) -> tuple[Numbers, pa.Table, Any]:
        """Return the rows of a shard and what goes with them, float16 vectors or JPEG files."""
        table = self._work.made.table.take(pa.array(self._work.missing[shard]))
        if not self._plan.images:
            vectors = self._work.rows.vectors(self._work.positions[shard])
            return shard, table, self._report.loss.of(vectors)
        pictures = self._pictures(shard)
        kept = [place for place, number in enumerate(shard) if number in pictures]
        return shard[kept], table.take(pa.array(kept, pa.int64())), [pictures[shard[place]] for place in kept]

    def _pictures(self, shard: Numbers) -> dict[int, bytes]:
        """Read the pictures of a shard as small JPEG files, by number; note those that cannot be had."""
        rows = self._work.rows.take(self._work.positions[shard])
        uris, hashes = rows.column("uri").to_pylist(), rows.column("content_hash").to_pylist()
        sources = pictures_at([uri for uri in uris if uri])
        made: dict[int, bytes] = {}
        for number, uri, content_hash in zip(shard.tolist(), uris, hashes, strict=True):
            try:
                if uri not in sources:
                    raise ImageError(f"{uri} is not to be had on this machine")
                if content_hash and images.content_hash(sources[uri]) != content_hash:
                    raise ImageError(f"{uri} is another picture now than the store embedded; add it again")
                made[number] = images.thumbnail(sources[uri], LONGEST_SIDE, quality=JPEG_QUALITY)
            except (ImageError, OSError) as error:
                self._report.skipped[self._ids[number]] = str(error)
        return made

    def _deliver(self, numbers: Numbers, table: pa.Table, load: Any) -> None:
        """Send rows until the server shows each of them."""
        transport, pause, fruitless = self._work.transport, self._limits.first_wait, 0
        left = np.arange(len(numbers))
        transport.begin()
        while True:
            failure = self._send(table.take(pa.array(left)), _taken(load, left))
            ids = [self._ids[numbers[i]] for i in left]
            lagging = isinstance(failure, ConflictError) and len(left) == 1
            there = self._seen(ids, patient=failure is None or lagging)
            remaining = left[[name not in there for name in ids]]
            if not len(remaining):
                return
            got_through = len(remaining) < len(left)
            left = remaining
            if got_through:
                fruitless = 0
                transport.begin()
                continue
            fruitless += 1
            if isinstance(failure, ConflictError | TooLargeError) and len(left) > 1:
                for half in np.array_split(left, 2):
                    self._deliver(numbers[half], table.take(pa.array(half)), _taken(load, half))
                return
            wait = max(pause, failure.pause if isinstance(failure, PassingError) else 0.0)
            if fruitless >= _SENDS or not transport.has_time(wait) or isinstance(failure, RefusedError):
                raise self._undelivered(len(left), ids[0], failure)
            if isinstance(failure, LockedError):
                wait_until_unlocked(self._remote, self._progress)
            time.sleep(wait)
            pause = min(2 * pause, self._limits.longest_wait)

    def _send(self, table: pa.Table, load: Any) -> AtlasError | None:
        """Make one upload; return how it failed, if it did."""
        self._report.uploads += 1
        try:
            if self._plan.images:
                self._remote.add_pictures(table, load)
            else:
                self._remote.add(table, load)
        except (PassingError, ConflictError, TooLargeError, LockedError, LimitError, RefusedError) as error:
            self._report.refused += 1
            self._progress(f"an upload of {len(table):,} rows failed; asking what Atlas has of it: {error}")
            return error
        return None

    def _seen(self, ids: Sequence[str], *, patient: bool) -> set[str]:
        """Return the ids that the server shows, with their pictures if these were sent.

        Rows that were accepted may take a moment until they are shown: then it is asked again for a while.
        """
        pause, until = self._limits.first_wait, time.monotonic() + min(60.0, self._limits.step / 10)
        while True:
            rows = self._remote.rows_of(ids)
            bare = [name for name, row in rows.items() if self._plan.images and lacks_picture(row)]
            if bare:
                raise AtlasError(
                    f"{len(bare):,} rows are in Atlas without their picture; the first is {bare[0]}"
                )
            if len(rows) == len(ids) or not patient or time.monotonic() + pause > until:
                return set(rows)
            time.sleep(pause)
            pause = min(2 * pause, self._limits.longest_wait)

    def _require_count(self, least: int) -> None:
        """Ask the dataset anew for its number of rows, which may lag behind for a moment."""
        pause, until = self._limits.first_wait, time.monotonic() + min(60.0, self._limits.step / 10)
        while True:
            self._work.transport.begin()
            if self._remote.refresh().total >= least:
                return
            if time.monotonic() + pause > until:
                raise AtlasError(
                    f"Atlas shows the rows that were sent, but counts {self._remote.total:,} rows where there must be "
                    f"{least:,} at least in {self._remote.identifier}: not confirmed; run the same command again"
                )
            time.sleep(pause)
            pause = min(2 * pause, self._limits.longest_wait)

    def _look_back(self) -> None:
        """At the end look the newest state up, the count and a sample of all rows that should be there."""
        self._require_count(self._plan.total + self._report.sent)
        meant = [name for name in self._work.made.ids if name not in self._report.skipped]
        sample = meant[:: max(1, len(meant) // 500)]
        self._work.transport.begin()
        lost = set(sample) - self._remote.rows_of(sample).keys()
        if lost:
            raise AtlasError(
                f"{len(lost):,} of {len(sample):,} rows looked up at the end are not in Atlas, though they were: "
                "somebody deletes rows there, or has made the dataset again. Run the same command again"
            )

    def _undelivered(self, count: int, first: str, failure: AtlasError | None) -> AtlasError:
        why = failure or "it accepted them and does not show them"
        return AtlasError(
            f"{count:,} rows, the first of them {first}, did not get into {self._remote.identifier}: {why}. "
            "Run the same command again to go on"
        )


def _taken(load: Any, places: Numbers) -> Any:
    """Return the vectors or pictures at some places."""
    return load[places] if isinstance(load, np.ndarray) else [load[i] for i in places]
