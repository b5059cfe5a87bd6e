"""A store and a dataset of Atlas -> what a sync would do, as a value that prints. Nothing is sent or written.

What the server holds is found out by `census`, what the rows look like there by `columns`; `apply` carries out.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.atlas.answers import AtlasTransport, Limits
from embedstore.atlas.census import Census, differences, take_census
from embedstore.atlas.client import (
    MissingDatasetError,
    RemoteDataset,
    Report,
    connect,
    open_dataset,
    parse_identifier,
    silent,
)
from embedstore.atlas.columns import (
    PICTURES,
    VECTORS,
    Sendable,
    atlas_ids,
    dimension,
    lacks_picture,
    sendable,
)
from embedstore.atlas.ledger import Ledger
from embedstore.atlas.outcome import SyncPlan, Work, listed
from embedstore.atlas.verdicts import with_verdicts
from embedstore.credentials import Key
from embedstore.store import EmbedStore

_LARGEST: Final = {False: 5_000, True: 200}
"""Rows of a shard at most, without pictures and with them."""

SHARD_BYTES: Final = 12_000_000
"""Largest shard; the client would cut one of more than 16 MB in two."""

_LOSS_ROWS: Final = 20_000


def plan_sync(
    store: EmbedStore,
    name: str,
    *,
    where: Any = None,
    images: bool = False,
    classifier: Any = None,
    create: bool = False,
    public: bool = False,
    index: bool = False,
    recheck: bool = False,
    shard_rows: int | None = None,
    key: Key | str | None = None,
    timeout: float = 600.0,
    progress: Report = silent,
) -> SyncPlan:
    """Find out what a sync would do.

    Parameters
    ----------
    store : EmbedStore
    name : str
        ``organisation/dataset``, with or without ``atlas://`` before it.
    where : str or Expression, optional
        Which rows.
    images : bool
        Send the pictures, at most 512 pixels each way, for Atlas to embed; not the vectors.
    classifier : str or Classifier, optional
        Adds its scores and matches as columns; a name means one that is saved in the store.
    create : bool
        Make the dataset if it is not there.
    public : bool
        Make it so that everybody may see it. A dataset that is there stays as it is.
    index : bool
        Make a map when all rows are there.
    recheck : bool
        Look every id up, though there are more than `census.EVERY_ID`.
    shard_rows : int, optional
        Most rows in one upload; by default 5,000, or 200 with pictures.
    key : Key or str, optional
        By default as configured, see `credentials.find_key`.
    timeout : float
        Seconds for each step: a look-up, a shard, the wait for a lock or a map.
    progress : callable
        Is told in words how things go.

    Returns
    -------
    SyncPlan

    Raises
    ------
    AtlasError
        Atlas does not answer, or something unusable.
    CredentialsError, OfflineError, InputError, FilterError, ClassifierError
    """
    identifier = parse_identifier(name)
    plan = SyncPlan(identifier, create=create, is_public=public, images=images)
    mask = store.mask(where)
    chosen = np.arange(len(store)) if mask is None else np.flatnonzero(mask)
    transport = connect(key, Limits(timeout))
    with tempfile.TemporaryDirectory() as folder:
        remote = _opened(transport, identifier, Path(folder), plan)
        made = _made(plan, store, chosen, remote, with_verdicts(store, store.rows, classifier))
        census = Census()
        if remote is not None and remote.id_field is not None:
            census = _counted(plan, store, remote, made, chosen, recheck, progress)
    lacking = np.array([i for i, name in enumerate(made.ids) if name not in census.present], dtype=np.int64)
    plan.rows, plan.missing = len(chosen), len(lacking)
    plan.present = plan.rows - plan.missing
    if remote is None and not plan.rows:
        plan.problems.append("there are no rows to send, and so no dataset is made")
    cut = _shards(len(lacking), made.table, store.space.dim, shard_rows or _LARGEST[images])
    plan.work = Work(store, store.rows, transport, chosen[lacking], made, lacking, cut, public, index)
    plan.shards = len(cut)
    if plan.is_public and plan.missing and "uri" not in plan.unsent:
        plan.notes.append("everybody may see the column uri, which holds paths of this machine")
    if not images:
        _measure(plan)
    return plan


def _shards(count: int, table: pa.Table, dim: int, most: int) -> list[NDArray[np.int64]]:
    """Cut so many missing rows into uploads, as numbers among them."""
    row_bytes = table.nbytes / max(len(table), 1) + 2 * dim
    limit = max(1, min(most, math.floor(SHARD_BYTES / row_bytes)))
    return np.array_split(np.arange(count), math.ceil(count / limit)) if count else []


def _opened(transport: AtlasTransport, identifier: str, folder: Path, plan: SyncPlan) -> RemoteDataset | None:
    """Open the dataset, or say in the plan that there is none."""
    try:
        remote = open_dataset(transport, identifier, tiles=folder)
    except MissingDatasetError as error:
        if not plan.create:
            plan.problems.append(str(error))
        return None
    plan.dataset, plan.dataset_id, plan.total = remote.identifier, remote.id, remote.total
    if plan.is_public and not remote.meta.get("is_public"):
        plan.notes.append("the dataset is private and stays so: make it public in Atlas itself")
    plan.is_public = bool(remote.meta.get("is_public"))
    if remote.locked:
        plan.notes.append("the dataset is locked, as Atlas makes a map; a sync waits for it")
    return remote


def _made(
    plan: SyncPlan,
    store: EmbedStore,
    chosen: NDArray[np.int64],
    remote: RemoteDataset | None,
    rows: pa.Table,
) -> Sendable:
    """Turn the rows into what would be sent, and note what keeps them from going into the dataset."""
    schema = None if remote is None else remote.schema
    if schema is None:
        # The types of a new dataset follow from all rows, as later syncs must fit in.
        made = sendable(rows)
        made.table = made.table.take(pa.array(chosen))
        made.ids = made.table.column("id").to_pylist()
    else:
        assert remote is not None
        made = sendable(rows.take(pa.array(chosen)), remote.id_field or "id", schema)
    plan.changes, plan.unsent = made.changes, made.unsent
    plan.problems += made.problems
    if remote is not None:
        plan.problems += _mismatches(plan, store, remote)
    return made


def _mismatches(plan: SyncPlan, store: EmbedStore, remote: RemoteDataset) -> Iterator[str]:
    """Yield what makes the dataset one that this store's rows cannot go into."""
    if remote.id_field is None:
        yield "the dataset numbers its rows itself (it has no unique_id_field), so that no row can be recognised"
    schema = remote.schema
    if schema is None:
        if remote.id_field not in (None, "id"):
            yield f"the empty dataset calls its ids {remote.id_field!r}; make another one, with --create"
        return
    dim = dimension(schema)
    if plan.images and PICTURES not in schema.names:
        yield "the dataset was not made of pictures, and --images would send some: choose another one"
    elif not plan.images and VECTORS not in schema.names:
        yield f"the dataset has no column {VECTORS}: it was made of pictures or texts (--images sends pictures)"
    elif not plan.images and dim not in (None, store.space.dim):
        yield f"the dataset holds vectors of {dim} numbers, this store of {store.space.dim}"
    if remote.id_field is not None:
        place = schema.get_field_index(remote.id_field)
        if place >= 0 and not pa.types.is_string(schema.field(place).type):
            yield f"the dataset's ids are {schema.field(place).type}; a store's are texts"


def _counted(
    plan: SyncPlan,
    store: EmbedStore,
    remote: RemoteDataset,
    made: Sendable,
    chosen: NDArray[np.int64],
    recheck: bool,
    progress: Report,
) -> Census:
    """Ask the server what it has, and put down how that compares."""
    ledger = Ledger(store.path, remote.identifier)
    every = atlas_ids(store.rows.metadata(["id"]).column("id").to_pylist())
    others = set(every) - set(made.ids)
    census = take_census(remote, ledger, made.ids, others, progress, recheck=recheck)
    plan.how, plan.gone, plan.unnamed = census.how, census.gone, census.unnamed
    plan.differing = differences(made.ids, made.table, census.rows)
    bare = [name for name, row in census.rows.items() if lacks_picture(row)] if plan.images else []
    if bare:
        plan.notes.append(
            f"{listed(bare, 'rows are there without their picture')}; the client cannot mend them"
        )
    if not ledger.confirmed(remote.id) and ledger.others(remote.id):
        plan.notes.append(
            "the dataset is not the one of earlier syncs: that was deleted, and this is a new one"
        )
    return census


def _measure(plan: SyncPlan) -> None:
    """Measure what float16 takes from the vectors that are to be sent, or from a share of them."""
    work = plan.work
    assert work is not None
    step = max(1, math.ceil(len(work.positions) / _LOSS_ROWS))
    for start in range(0, len(work.positions), 4096 * step):
        plan.loss.of(work.rows.vectors(work.positions[start : start + 4096 * step : step]))
