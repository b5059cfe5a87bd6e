"""A plan -> rows in Atlas, each of them seen there before it counts as sent.

A shard goes out through the official client's ``add_data``; whatever is answered, and whether anything is, the
server is then asked which of its rows it has, and only those that it lacks are sent again. What is about to leave and
what was seen is written into the ledger. So a sync that ends well has nothing left to lose, and one that does not goes
on where it was. What is to be replaced is deleted shard by shard, each just before its rows are sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore import images
from embedstore.atlas import description
from embedstore.atlas.answers import AtlasTransport, ConflictError, LockedError, Pauses, RefusedError, TooLargeError
from embedstore.atlas.client import LOOK_UP, MissingDatasetError, Progress, RemoteDataset, open_dataset, silent
from embedstore.atlas.columns import lacks_picture
from embedstore.atlas.compare import contents
from embedstore.atlas.confirmations import Confirmations
from embedstore.atlas.maps import ensure_map, wait_until_unlocked
from embedstore.atlas.outcome import SyncPlan, SyncReport, Work, listed
from embedstore.atlas.plan import ABOUT, plan_sync
from embedstore.embedders.transport import PassingError
from embedstore.errors import AtlasError, EmbedStoreError, ImageError, spelt
from embedstore.sources import pictures_at
from embedstore.store import EmbedStore
from embedstore.wording import counted

LONGEST_SIDE: Final = 512  # pixels of a picture that is sent, each way
JPEG_QUALITY: Final = 90
_SENDS: Final = 8
"""Times that rows are sent without one of them getting through, before the sync ends with an error."""

Numbers = NDArray[np.int64]


def sync(store: EmbedStore | str | os.PathLike[str], name: str, **options: Any) -> SyncReport:
    """Bring a store's rows to a dataset of Atlas, and see them there: `plan_sync` and `apply_sync` in one call.

    Parameters
    ----------
    store : EmbedStore or path
    name : str
        ``dataset`` or ``organisation/dataset``; made, private, if it is not there.
    **options
        Those of `plan_sync`.

    Returns
    -------
    SyncReport

    Raises
    ------
    AtlasError, CredentialsError, OfflineError, InputError, StoreLockedError
        As `plan_sync` and `apply_sync`.

    Examples
    --------
    >>> embedstore.sync(store, "cats-and-dogs", images=True, index=True)   # doctest: +SKIP
    """
    opened = store if isinstance(store, EmbedStore) else EmbedStore.open(store)
    plan = plan_sync(opened, name, **options)
    return apply_sync(plan, progress=options.get("progress", silent))


def apply_sync(plan: SyncPlan, *, progress: Progress = silent) -> SyncReport:
    """Carry out a plan.

    Parameters
    ----------
    plan : SyncPlan
        Of `plan_sync`.
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
    if plan.problems and (plan.shards or plan.dataset_id is None):
        raise AtlasError(f"{plan.dataset}: {'; '.join(plan.problems)}")
    started = time.perf_counter()
    with Confirmations(work.store.folder, plan.dataset).held():
        remote = _opened(plan, work)
        made = plan.dataset_id is None or bool(plan.anew)
        report = SyncReport(plan, remote.identifier, remote.id, made, plan.rows, plan.present)
        confirmations = Confirmations(work.store.folder, remote.identifier)
        try:
            _Delivery(work, remote, confirmations, report, progress).run()
            if work.index:
                report.map = ensure_map(remote, confirmations, work.topic_model)
        except AtlasError as error:
            rows = counted(plan.missing + len(plan.replaced), "row")
            error.add_note(f"{report.sent:,} of {rows} were sent and seen in Atlas before this")
            raise
    report.total, report.link = remote.total, remote.link
    report.seconds = time.perf_counter() - started
    return report


def _opened(plan: SyncPlan, work: Work) -> RemoteDataset:
    """Open the dataset that the plan is about, or make it, perhaps again."""
    transport, create = work.transport, None
    transport.begin()
    told = work.description
    if plan.anew:
        old = open_dataset(transport, plan.dataset)
        told = description.read(old.meta.get("description")).text if told is None else told
        _delete(old, plan)
    if plan.dataset_id is None or plan.anew:
        rows, told = work.converted, ABOUT if told is None else told
        text = description.write(told, work.store.space, rows.origins, rows.left_behind, images=plan.images)
        create = {"description": text, "is_public": plan.is_public if plan.anew else work.public}
    remote = _made_or_found(plan, transport, create)
    if create is None and remote.id != plan.dataset_id:
        raise AtlasError(f"the dataset {plan.dataset} was deleted and made again since the plan: plan anew")
    if create is not None and remote.meta.get("is_public") and not create["is_public"]:
        raise AtlasError(
            f"{remote.identifier} was to be private and is public; nothing was sent. Somebody else may have made it "
            "meanwhile: plan anew"
        )
    return remote


def _delete(remote: RemoteDataset, plan: SyncPlan) -> None:
    """Delete the dataset that is to be made again, and see that it is gone."""
    if remote.id != plan.dataset_id or remote.total != plan.total:
        raise AtlasError(f"the dataset {plan.dataset} has changed since the plan: plan anew")
    wait_until_unlocked(remote)
    remote.delete()
    pauses = Pauses(remote.transport, remote.transport.lag)
    while True:
        try:
            there = open_dataset(remote.transport, plan.dataset)
        except MissingDatasetError:
            plan.total = 0
            return
        if there.id != plan.dataset_id or not pauses.wait():
            raise AtlasError(f"Atlas was told to delete {plan.dataset} and still shows a dataset of this name")


def _made_or_found(plan: SyncPlan, transport: AtlasTransport, create: dict[str, Any] | None) -> RemoteDataset:
    """Open or make the dataset; after a failure it may have been made all the same, by us or by another process."""
    pauses = Pauses(transport)
    while True:
        try:
            return open_dataset(transport, plan.dataset, create=create)
        except (PassingError, RefusedError) as error:
            if create is not None and isinstance(error, RefusedError):
                try:
                    return open_dataset(transport, plan.dataset)
                except MissingDatasetError:
                    raise error from None
            if create is None or not pauses.wait(getattr(error, "pause", 0.0), str(error)):
                raise AtlasError(f"the dataset {plan.dataset} could not be opened: {error}") from None


class _Delivery:
    """The sending of all shards of one plan."""

    def __init__(
        self, work: Work, remote: RemoteDataset, confirmations: Confirmations, report: SyncReport, progress: Progress
    ) -> None:
        self._work, self._remote, self._confirmations = work, remote, confirmations
        self._report, self._progress = report, progress
        self._plan, self._transport = report.plan, work.transport
        self._ids = work.converted.ids
        self._old = set(self._plan.replaced)
        self._found: set[str] = set()  # rows that were there already when they were sent, whoever had sent them

    def run(self) -> None:
        """Send the shards one by one; count after each, and look at a sample of all at the end."""
        dataset = self._remote.id
        sent = {self._ids[number] for shard in self._work.shards for number in shard}
        known = self._confirmations.known(dataset).seen
        there = [name for name in self._ids if name not in sent and name not in known]
        if there:
            self._confirmations.seen(dataset, there)
        count = len(self._work.shards)
        for number, shard in enumerate(self._work.shards, 1):
            wait_until_unlocked(self._remote)
            numbers, table, load = self._loaded(shard)
            if not len(numbers):
                continue
            ids = [self._ids[i] for i in numbers]
            self._make_room([name for name in ids if name in self._old])
            hashes = contents(self._work.rows, self._work.positions[numbers], images=self._plan.images)
            sending = self._confirmations.sending(dataset, ids, hashes)
            self._deliver(numbers, table, load)
            self._confirmations.arrived(dataset, sending, not_by_it=sorted(self._found.intersection(ids)))
            self._report.sent += len(numbers)
            self._require_count()
            self._progress(f"shard {number:,} of {count:,}: {counted(self._report.sent, 'row')} seen in Atlas")
        self._look_back()

    def _make_room(self, ids: Sequence[str]) -> None:
        """Delete rows that others take the place of, and see that they are gone."""
        self._transport.begin()
        pauses = Pauses(self._transport)
        left = list(ids)
        while left:
            try:
                for start in range(0, len(left), LOOK_UP):
                    self._remote.delete_rows(left[start : start + LOOK_UP])
            except LockedError:
                wait_until_unlocked(self._remote)
            except (RefusedError, PassingError) as error:
                rows = counted(len(left), "row")
                raise AtlasError(
                    f"Atlas did not delete {rows} that others were to take the place of, the first of them {left[0]}: "
                    f"{error}. They are as they were; without {spelt('replace=True', '--replace')} they stay so"
                ) from None
            left = sorted(self._remote.rows_of(left))
            if left and not pauses.wait():
                raise AtlasError(f"Atlas was told to delete {listed(left, 'that it still shows')}: run it again later")
        if ids:
            self._confirmations.gone(self._remote.id, ids)
            self._report.replaced += len(ids)

    def _loaded(self, shard: Numbers) -> tuple[Numbers, pa.Table, NDArray[Any]]:
        """Return the rows of a shard and what goes with them, float16 vectors or JPEG files (an array of objects)."""
        table = self._work.converted.table.take(pa.array(shard))
        if not self._plan.images:
            vectors = self._work.rows.vectors(self._work.positions[shard])
            return shard, table, self._report.loss.of(vectors)
        pictures = self._pictures(shard)
        kept = np.isin(shard, list(pictures))
        return shard[kept], table.filter(pa.array(kept)), np.array(list(pictures.values()), object)

    def _pictures(self, shard: Numbers) -> dict[int, bytes]:
        """Read the pictures of a shard as small JPEG files, by number; note those that cannot be had."""
        rows = self._work.rows.take(self._work.positions[shard])
        uris, hashes = rows.column("uri").to_pylist(), rows.column("content_hash").to_pylist()
        sources = pictures_at([uri for uri in uris if uri])
        pictures: dict[int, bytes] = {}
        for number, uri, content_hash in zip(shard.tolist(), uris, hashes, strict=True):
            try:
                if uri not in sources:
                    raise ImageError(f"{uri} is not to be had on this machine")
                if content_hash and images.content_hash(sources[uri]) != content_hash:
                    raise ImageError(f"{uri} is another picture now than the store embedded; add it again")
                pictures[number] = images.thumbnail(sources[uri], LONGEST_SIDE, quality=JPEG_QUALITY)
            except (ImageError, OSError) as error:
                self._report.skipped[self._ids[number]] = str(error)
        return pictures

    def _deliver(self, numbers: Numbers, table: pa.Table, load: NDArray[Any], *, halved: bool = False) -> None:
        """Send rows until the server shows each of them; `halved` when they are a part of some that were refused."""
        pauses, fruitless, left = Pauses(self._transport), 0, np.arange(len(numbers))
        self._transport.begin()
        while True:
            failure = self._send(table.take(pa.array(left)), load[left])
            ids = [self._ids[numbers[i]] for i in left]
            # A conflict means that there are some, which may be shown late: waiting for one costs less than halving.
            known = isinstance(failure, ConflictError) and (not halved or len(left) == 1)
            there = self._seen(ids, least=len(ids) if failure is None else int(known))
            if isinstance(failure, ConflictError):
                self._found |= there  # none of the upload was stored
            remaining = left[[name not in there for name in ids]]
            if not len(remaining):
                return
            if len(remaining) < len(left):
                left, fruitless = remaining, 0
                self._transport.begin()
                continue
            fruitless += 1
            if isinstance(failure, ConflictError | TooLargeError) and len(left) > 1:
                for half in np.array_split(left, 2):
                    self._deliver(numbers[half], table.take(pa.array(half)), load[half], halved=True)
                return
            if isinstance(failure, LockedError) and fruitless < _SENDS:
                wait_until_unlocked(self._remote)
            asked = failure.pause if isinstance(failure, PassingError) else 0.0
            hopeless = fruitless >= _SENDS or isinstance(failure, RefusedError)
            if hopeless or not pauses.wait(asked, str(failure or "Atlas does not show rows that it accepted")):
                why = failure or "it accepted them and does not show them"
                rows = counted(len(left), "row")
                raise AtlasError(
                    f"{rows}, the first of them {ids[0]}, did not get into {self._remote.identifier}: "
                    f"{why}. Run the same command again to go on"
                )

    def _send(self, table: pa.Table, load: NDArray[Any]) -> EmbedStoreError | None:
        """Make one upload; return how it failed, if it did."""
        self._report.uploads += 1
        try:
            self._remote.add(table, load)
        except (PassingError, LockedError, RefusedError) as error:
            self._report.refused += 1
            self._progress(f"an upload of {counted(len(table), 'row')} failed; asking what Atlas has of it: {error}")
            return error
        return None

    def _seen(self, ids: Sequence[str], *, least: int) -> set[str]:
        """Return the ids that the server shows, with their pictures if these were sent.

        Rows that are there may take a moment until they are shown: for so many at least it is asked for a while.
        """
        pauses = Pauses(self._transport, self._transport.lag)
        while True:
            rows = self._remote.rows_of(ids)
            bare = [name for name, row in rows.items() if self._plan.images and lacks_picture(row)]
            if bare:
                raise AtlasError(f"{len(bare):,} rows are in Atlas without their picture; the first is {bare[0]}")
            if len(rows) >= least or not pauses.wait():
                return set(rows)

    def _require_count(self) -> None:
        """Ask the dataset anew for its number of rows, which may lag behind for a moment."""
        least = self._plan.total + self._report.sent - self._report.replaced
        pauses = Pauses(self._transport, self._transport.lag)
        while True:
            self._transport.begin()
            if self._remote.refresh().total >= least:
                return
            if not pauses.wait():
                raise AtlasError(
                    f"Atlas shows the rows that were sent, but counts {self._remote.total:,} rows where there must be "
                    f"{least:,} at least in {self._remote.identifier}: not confirmed; run the same command again"
                )

    def _look_back(self) -> None:
        """At the end look the newest state up, the count and a sample of all rows that should be there."""
        self._require_count()
        meant = [name for name in self._ids if name not in self._report.skipped]
        sample = meant[:: max(1, len(meant) // 500)]
        self._transport.begin()
        lost = set(sample) - self._remote.rows_of(sample).keys()
        if lost:
            raise AtlasError(
                f"{len(lost):,} of {len(sample):,} rows looked up at the end are not in Atlas, though they were: "
                "somebody deletes rows there, or has made the dataset again. Run the same command again"
            )
