"""A store and a dataset of Atlas -> what a sync would do, as a value that prints. Nothing is sent or written.

Which rows the dataset has is looked up on the server itself, by id (`_compare`); only for stores too large for that
is the ledger believed, where the count of rows and a sample of its ids speak for it. What rows look like there is said
by `columns`, what is planned is a `SyncPlan` of `outcome`, and `apply` carries it out.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.atlas.answers import AtlasTransport
from embedstore.atlas.client import (
    MissingDatasetError,
    Progress,
    RemoteDataset,
    open_dataset,
    parse_identifier,
    silent,
)
from embedstore.atlas.columns import PICTURES, VECTORS, AtlasRows, atlas_ids, atlas_rows, dimension, lacks_picture
from embedstore.atlas.confirmations import Confirmations
from embedstore.atlas.maps import ids_on_map
from embedstore.atlas.outcome import SyncPlan, Work, listed
from embedstore.deciding.evaluation import with_columns
from embedstore.errors import AtlasError, spelt
from embedstore.searching.reader import Reader
from embedstore.settings import Key
from embedstore.store import EmbedStore

EVERY_ID = 50_000  # up to so many ids are looked up one and all, at each sync
SAMPLE = 1_000  # ids of the ledger that are looked up when there are more
SHARD_ROWS: Final = 5_000
SHARD_PICTURES: Final = 200
SHARD_BYTES: Final = 12_000_000  # largest shard; the client would cut one of more than 16 MB in two
LOSS_ROWS: Final = 20_000  # of so many vectors the loss by float16 is measured, at most


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
    progress: Progress = silent,
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
        Look every id up, though there are more than `EVERY_ID`.
    shard_rows : int, optional
        Most rows in one upload; by default 5,000, or 200 with pictures.
    key : Key or str, optional
        By default as configured, see `settings.find_key`.
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
    reader = store.reader  # one version for all that follows
    mask = reader.mask(where)
    chosen = np.arange(len(reader.rows)) if mask is None else np.flatnonzero(mask)
    kept = store.classifier(classifier) if isinstance(classifier, str) else classifier
    transport = AtlasTransport(key, timeout)
    with tempfile.TemporaryDirectory() as folder:
        remote = _opened(transport, identifier, Path(folder), plan)
        converted = _converted(plan, reader, chosen, remote, with_columns(reader, kept))
        present: set[str] = set()
        if remote is not None and remote.id_field is not None:
            confirmations = Confirmations(store.folder, remote.identifier)
            every = set(atlas_ids(reader.rows.metadata(["id"]).column("id").to_pylist()))
            present = _compare(plan, remote, confirmations, converted, every, recheck, progress)
    missing = np.array([i for i, name in enumerate(converted.ids) if name not in present], dtype=np.int64)
    plan.rows, plan.missing = len(chosen), len(missing)
    plan.present = plan.rows - plan.missing
    if remote is None and not plan.rows:
        plan.problems.append("there are no rows to send, and so no dataset is made")
    most = shard_rows or (SHARD_PICTURES if images else SHARD_ROWS)
    shards = _shards(missing, converted.table, reader.space.dim, most)
    plan.work = Work(store, reader.rows, transport, converted, chosen, shards, public, index)
    plan.shards = len(shards)
    if plan.is_public and plan.missing and "uri" not in plan.unsent:
        plan.notes.append("everybody may see the column uri, which holds paths of this machine")
    if not images:
        sample = chosen[missing][:: max(1, math.ceil(len(missing) / LOSS_ROWS))]
        for start in range(0, len(sample), 4096):
            plan.loss.of(reader.rows.vectors(sample[start : start + 4096]))
    return plan


def _shards(missing: NDArray[np.int64], table: pa.Table, dim: int, most: int) -> list[NDArray[np.int64]]:
    """Cut the missing rows into uploads."""
    row_bytes = table.nbytes / max(len(table), 1) + 2 * dim
    limit = max(1, min(most, math.floor(SHARD_BYTES / row_bytes)))
    return np.array_split(missing, math.ceil(len(missing) / limit)) if len(missing) else []


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


def _converted(
    plan: SyncPlan, reader: Reader, chosen: NDArray[np.int64], remote: RemoteDataset | None, rows: pa.Table
) -> AtlasRows:
    """Turn the rows into what would be sent, and note what keeps them from going into the dataset."""
    if remote is None or remote.schema is None:
        # The types of a new dataset follow from all rows, as later syncs must fit in.
        converted = atlas_rows(rows)
        converted.table = converted.table.take(pa.array(chosen))
        converted.ids = converted.table.column("id").to_pylist()
    else:
        converted = atlas_rows(rows.take(pa.array(chosen)), remote.id_field or "id", remote.schema)
    plan.changes, plan.unsent = converted.changes, converted.unsent
    plan.problems += converted.problems
    if remote is not None:
        plan.problems += _mismatches(plan, reader.space.dim, remote)
    return converted


def _mismatches(plan: SyncPlan, dim: int, remote: RemoteDataset) -> Iterator[str]:
    """Yield what makes the dataset one that this store's rows cannot go into."""
    if remote.id_field is None:
        yield "the dataset numbers its rows itself (it has no unique_id_field), so that no row can be recognised"
    schema = remote.schema
    if schema is None:
        if remote.id_field not in (None, "id"):
            created = spelt("create=True", "--create")
            yield f"the empty dataset calls its ids {remote.id_field!r}; make another one, with {created}"
        return
    there = dimension(schema)
    if plan.images and PICTURES not in schema.names:
        pictures = spelt("images=True", "--images")
        yield f"the dataset was not made of pictures, and {pictures} would send some: choose another one"
    elif not plan.images and VECTORS not in schema.names:
        pictures = spelt("images=True", "--images")
        yield f"the dataset has no column {VECTORS}: it was made of pictures or texts ({pictures} sends pictures)"
    elif not plan.images and there not in (None, dim):
        yield f"the dataset holds vectors of {there} numbers, this store of {dim}"
    if remote.id_field is not None:
        place = schema.get_field_index(remote.id_field)
        if place >= 0 and not pa.types.is_string(schema.field(place).type):
            yield f"the dataset's ids are {schema.field(place).type}; a store's are texts"


def _compare(
    plan: SyncPlan,
    remote: RemoteDataset,
    confirmations: Confirmations,
    converted: AtlasRows,
    every: set[str],
    recheck: bool,
    progress: Progress,
) -> set[str]:
    """Ask the server what it has, put down how that compares, and return which of the rows it has, by id.

    `every` has the ids of all rows of the store, as Atlas would know them.
    """
    confirmed = confirmations.confirmed(remote.id)
    if not confirmed and confirmations.others(remote.id):
        plan.notes.append("the dataset is not the one of earlier syncs: that was deleted, and this is a new one")
    if not remote.total:
        plan.how = "the dataset is empty"
        return set()
    lookup, asked = converted.ids, set(converted.ids)
    trusted = [name for name in confirmed if name in asked]
    present: set[str] = set()
    rows: dict[str, dict[str, Any]] = {}
    plan.how = "each id was looked up"
    if not recheck and len(lookup) > EVERY_ID and trusted and remote.total >= len(confirmed):
        sample = trusted[:: max(1, len(trusted) // SAMPLE)]
        rows = remote.rows_of(sample, progress)
        if len(rows) == len(sample):
            lookup = [name for name in lookup if name not in confirmed]
            present = set(trusted)
            plan.how = f"by the ledger; the count and {len(sample):,} ids looked up agree with it"
    rows |= remote.rows_of(lookup, progress)
    present |= rows.keys()
    rest = remote.total - len(present)
    if rest > 0:
        others = _others(remote, asked, [*(every - asked), *confirmed], rest, progress)
        plan.gone = sorted(others - every)
        plan.unnamed = max(0, rest - len(others))
    plan.differing = differences(converted.ids, converted.table, rows)
    bare = [name for name, row in rows.items() if lacks_picture(row)] if plan.images else []
    if bare:
        plan.notes.append(f"{listed(bare, 'there without a picture')}; the client cannot mend them")
    return present


def _others(
    remote: RemoteDataset, asked: set[str], candidates: Iterable[str], rest: int, progress: Progress
) -> set[str]:
    """Return the ids of the `rest` rows of a dataset that were not asked for, as far as anything names them."""
    wanted = [name for name in dict.fromkeys(candidates) if name not in asked]
    others = set(remote.rows_of(wanted, progress))
    if rest > len(others) and remote.maps:
        try:
            others |= set(ids_on_map(remote, remote.maps[-1])) - asked
        except AtlasError as error:
            progress(f"the map could not be read, so that some ids stay unknown: {error}")
    return others


def differences(
    ids: Sequence[str], table: pa.Table, rows: dict[str, dict[str, Any]]
) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Compare what would be sent with what is there: by id and column, (value to be sent, value there)."""
    differing: dict[str, dict[str, tuple[Any, Any]]] = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        for row_id, value in zip(ids, table.column(name).to_pylist(), strict=True):
            row = rows.get(row_id)
            if row is not None and name in row and _plain(value, kind) != _plain(row[name], kind):
                differing.setdefault(row_id, {})[name] = (value, row[name])
    return differing


def _plain(value: Any, kind: pa.DataType) -> Any:
    """Return a value so that equal ones compare equal, whichever way JSON carried them."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if pa.types.is_floating(kind):
        return float(np.float32(value))
    if pa.types.is_timestamp(kind):
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return round(value.replace(tzinfo=value.tzinfo or UTC).timestamp() * 1000)  # UTC where no zone is said
    return value
