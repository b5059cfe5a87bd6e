"""A store and a dataset of Atlas -> what a sync would do, as a value that prints. Nothing is sent or written.

What the dataset has is said by `compare`, what rows look like there by `columns`; here it is decided what is sent, what
takes the place of what, and what stands in the way. The result is a `SyncPlan` of `outcome`, and `apply` carries it
out.
"""

from __future__ import annotations

import difflib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.atlas import description
from embedstore.atlas.answers import AtlasTransport
from embedstore.atlas.client import (
    MissingDatasetError,
    Progress,
    RemoteDataset,
    open_dataset,
    parse_identifier,
    silent,
)
from embedstore.atlas.columns import PICTURES, VECTORS, AtlasRows, atlas_ids, atlas_rows, dimension
from embedstore.atlas.compare import compare, compare_contents
from embedstore.atlas.confirmations import Confirmations
from embedstore.atlas.outcome import SyncPlan, Work
from embedstore.deciding.evaluation import with_columns
from embedstore.errors import InputError, did_you_mean, option, spelt
from embedstore.searching.reader import Reader
from embedstore.settings import Key
from embedstore.store import EmbedStore

SHARD_ROWS: Final = 5_000
SHARD_PICTURES: Final = 200
SHARD_BYTES: Final = 12_000_000  # largest shard; the client would cut one of more than 16 MB in two
LOSS_ROWS: Final = 20_000  # of so many vectors the loss by float16 is measured, at most
ABOUT: Final = "Images of an embedstore store."
_TOPIC_OPTIONS: Final = ("build_topic_model", "topic_label_field", "cluster_method", "enforce_topic_hierarchy")


def plan_sync(
    store: EmbedStore,
    name: str,
    *,
    where: Any = None,
    images: bool = False,
    classifier: Any = None,
    create: bool | None = None,
    public: bool = False,
    description: str | None = None,
    index: bool = False,
    topic_model: bool | str | dict[str, Any] = False,
    replace: bool = False,
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
        ``organisation/dataset``, or ``dataset`` alone for one of the key's own organisation; with or without
        ``atlas://`` before it.
    where : str or Expression, optional
        Which rows.
    images : bool
        Send the pictures, at most 512 pixels each way, for Atlas to embed; not the vectors.
    classifier : str or Classifier, optional
        Adds its scores and matches as columns; a name means one that is saved in the store.
    create : bool, optional
        Whether to make the dataset if it is not there. By default it is made, unless its name is nearly that of one
        which this store was synced with.
    public : bool
        Make it so that everybody may see it. A dataset that is there stays as it is.
    description : str, optional
        For people, of a dataset that is made. A line about the columns and the space is added for `pull`.
    index : bool
        Make a map when all rows are there.
    topic_model : bool, str or dict
        Whether the map has topics; a column whose texts name them; or what the client's ``create_index`` takes.
    replace : bool
        Delete what differs there and send it anew: rows with other values, or another vector or picture than was
        sent. Where the store has new columns the dataset is deleted and made again. Maps that are there keep showing
        the old rows; with `index` a new one is made.
    recheck : bool
        Look every id up, though there are more than `compare.EVERY_ID`.
    shard_rows : int, optional
        Most rows in one upload; by default 5,000, or 200 with pictures.
    key : Key or str, optional
        By default as configured, see `settings.find_key`.
    timeout : float
        Seconds for each step: a look-up, a shard, the wait for a lock or a map.
    progress : callable
        Is told in words how things go, and why it waits for how long; without it waits are warnings of the log.

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
    plan = SyncPlan(identifier, create=create is not False, is_public=public, images=images, replace=replace)
    reader = store.reader  # one version for all that follows
    mask = reader.mask(where)
    chosen = np.arange(len(reader.rows)) if mask is None else np.flatnonzero(mask)
    kept = store.classifier(classifier) if isinstance(classifier, str) else classifier
    transport = AtlasTransport(key, timeout, None if progress is silent else progress)
    with tempfile.TemporaryDirectory() as folder:
        remote = _opened(transport, identifier, Path(folder), plan)
        if remote is None:
            _guard(plan, store, create)
        rows = with_columns(reader, kept)
        converted = _converted(plan, reader, chosen, remote, rows)
        if remote is not None:
            converted = _replacing(plan, remote, converted, rows, chosen, whole=mask is None)
        present: set[str] = set()
        if remote is not None and remote.id_field is not None:
            present = _present(plan, remote, store, reader, converted, chosen, recheck, progress)
    if plan.anew and (plan.gone or plan.unnamed):
        plan.problems.append("to be made again with new columns, but rows that this store has not would be lost")
    sent = _to_send(plan, converted, present)
    most = shard_rows or (SHARD_PICTURES if images else SHARD_ROWS)
    shards = _shards(sent, converted.table, reader.space.dim, most)
    plan.shards = len(shards)
    topics = _topic_model(topic_model, converted)
    if description is not None and remote is not None and not plan.anew:
        plan.notes.append("the dataset is there, and keeps its description: change it in Atlas itself")
    if topics and not index:
        plan.notes.append(f"topics come with a map, which {spelt('index=True', '--index')} makes")
    work = Work(store, reader.rows, transport, converted, chosen, shards, public, description, index, topics)
    plan.work = work
    _finish(plan, work, sent)
    return plan


def _present(
    plan: SyncPlan,
    remote: RemoteDataset,
    store: EmbedStore,
    reader: Reader,
    converted: AtlasRows,
    chosen: NDArray[np.int64],
    recheck: bool,
    progress: Progress,
) -> set[str]:
    """Return which rows the dataset has, by id, and put down how they compare."""
    confirmations = Confirmations(store.folder, remote.identifier)
    if any(not (order.built or order.given_up) for order in confirmations.orders(remote.id)):
        made = spelt("index=True", "--index")
        plan.notes.append(f"a map was ordered, and not seen finished yet: {made} waits for it")
    every = set(atlas_ids(reader.rows.metadata(["id"]).column("id").to_pylist()))
    present = compare(plan, remote, confirmations, converted, every, recheck, progress)
    there = np.array([i for i, name in enumerate(converted.ids) if name in present], dtype=np.int64)
    names = [converted.ids[i] for i in there]
    compare_contents(plan, confirmations, remote.id, names, reader.rows, chosen[there])
    return present


def _to_send(plan: SyncPlan, converted: AtlasRows, present: set[str]) -> NDArray[np.int64]:
    """Return the numbers of the rows to be sent, and put down how many there are of each kind."""
    old = {*plan.differing, *plan.outdated, *plan.bare} if plan.replace else set()
    plan.replaced = [] if plan.anew else [name for name in converted.ids if name in old]
    kept = set() if plan.anew else present - old
    sent = np.array([i for i, name in enumerate(converted.ids) if name not in kept], dtype=np.int64)
    plan.rows = len(converted.ids)
    plan.missing = len(sent) - len(plan.replaced)
    plan.present = plan.rows - plan.missing
    return sent


def _finish(plan: SyncPlan, work: Work, sent: NDArray[np.int64]) -> None:
    """Put down what else is to be known before anything is sent."""
    if plan.dataset_id is None and not plan.rows:
        plan.problems.append("there are no rows to send, and so no dataset is made")
    if plan.is_public and len(sent) and "uri" not in plan.unsent:
        plan.notes.append("everybody may see the column uri, which holds paths of this machine")
    if not plan.images:
        sample = work.positions[sent][:: max(1, math.ceil(len(sent) / LOSS_ROWS))]
        for start in range(0, len(sample), 4096):
            plan.loss.of(work.rows.vectors(sample[start : start + 4096]))


def _shards(sent: NDArray[np.int64], table: pa.Table, dim: int, most: int) -> list[NDArray[np.int64]]:
    """Cut the rows to be sent into uploads."""
    row_bytes = table.nbytes / max(len(table), 1) + 2 * dim
    limit = max(1, min(most, math.floor(SHARD_BYTES / row_bytes)))
    return np.array_split(sent, math.ceil(len(sent) / limit)) if len(sent) else []


def _opened(transport: AtlasTransport, identifier: str, folder: Path, plan: SyncPlan) -> RemoteDataset | None:
    """Open the dataset, or say in the plan that there is none."""
    try:
        remote = open_dataset(transport, identifier, tiles=folder)
    except MissingDatasetError as error:
        plan.dataset = error.identifier
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


def _guard(plan: SyncPlan, store: EmbedStore, create: bool | None) -> None:
    """Make no dataset of a name that is nearly that of one which this store is in, unless told to."""
    known = store.folder.ledger.confirmed_datasets()
    if create is not None or plan.dataset in known:
        return
    near = difflib.get_close_matches(
        plan.dataset.partition("/")[2], [name.partition("/")[2] for name in known], 1, 0.85
    )
    if near:
        plan.create = False
        plan.problems.append(
            f"there is no dataset {plan.dataset} in Atlas, and this store was synced with {near[0]!r}: "
            f"did you mean that? {spelt('create=True', '--create')} makes a new one"
        )


def _converted(
    plan: SyncPlan, reader: Reader, chosen: NDArray[np.int64], remote: RemoteDataset | None, rows: pa.Table
) -> AtlasRows:
    """Turn the rows into what would be sent, and note what keeps them from going into the dataset."""
    described = description.read("" if remote is None else remote.meta.get("description"))
    escape = described.escaped or remote is None
    if remote is None or remote.schema is None:
        converted = _of_a_new_dataset(rows, chosen, escape)
    else:
        converted = atlas_rows(rows.take(pa.array(chosen)), remote.id_field or "id", remote.schema, escape=escape)
    plan.changes, plan.unsent = converted.changes, converted.unsent
    plan.problems += converted.problems
    if remote is not None:
        plan.problems += _mismatches(plan, reader, remote, described)
        if not described.escaped and (converted.origins or not escape):
            plan.notes.append(
                "the dataset's description does not tell what its columns were: what comes down is as Atlas has it"
            )
    return converted


def _of_a_new_dataset(rows: pa.Table, chosen: NDArray[np.int64], escape: bool = True) -> AtlasRows:
    """Turn rows into those of a dataset without columns; their types follow from all rows, as later syncs must fit."""
    converted = atlas_rows(rows, escape=escape)
    converted.table = converted.table.take(pa.array(chosen))
    converted.ids = converted.table.column("id").to_pylist()
    return converted


def _replacing(
    plan: SyncPlan,
    remote: RemoteDataset,
    converted: AtlasRows,
    rows: pa.Table,
    chosen: NDArray[np.int64],
    *,
    whole: bool,
) -> AtlasRows:
    """Say what becomes of columns that the dataset was made without: with `replace` it is made again for them.

    Raises InputError where not all rows are meant.
    """
    for name in converted.new:
        plan.unsent[name] += f"; {spelt('replace=True', '--replace')} deletes the dataset and makes it again with it"
    if not (plan.replace and converted.new and plan.total):
        return converted
    if not whole:
        raise InputError(
            f"the columns {', '.join(converted.new)} take a dataset that is made again with all rows: "
            f"leave {option('where')} out, or {spelt('replace=True', '--replace')}"
        )
    plan.anew = list(converted.new)
    plan.problems = [problem for problem in plan.problems if problem not in converted.problems]
    anew = _of_a_new_dataset(rows, chosen)
    there = [field.name for field in remote.schema or () if not field.name.startswith("_")]
    lost = [name for name in there if name not in (*anew.table.column_names, remote.id_field)]
    if lost:
        plan.notes.append(f"made again, the dataset loses what these rows have not: {', '.join(lost)}")
    plan.changes, plan.unsent = anew.changes, anew.unsent
    return anew


def _topic_model(given: bool | str | dict[str, Any], rows: AtlasRows) -> bool | dict[str, Any]:
    """Return topics as the client takes them, with columns as Atlas has them; InputError where there is no such."""
    options: dict[str, Any] = {"topic_label_field": given} if isinstance(given, str) else {}
    options |= given if isinstance(given, dict) else {}
    for name in options:
        if name not in _TOPIC_OPTIONS:
            guess = did_you_mean(name, _TOPIC_OPTIONS)
            raise InputError(f"a topic model has the options {', '.join(_TOPIC_OPTIONS)}; found {name!r}.{guess}")
    column = options.get("topic_label_field")
    if column is not None:
        safe = next((safe for safe, (name, _) in rows.origins.items() if name == column), column)
        if safe not in rows.table.column_names:
            names = [name for name in rows.table.column_names if not name.startswith("_")]
            raise InputError(
                f"topics are named by a column of texts; {column!r} is none that is sent, there are "
                f"{', '.join(names)}.{did_you_mean(str(column), names)}"
            )
        options["topic_label_field"] = safe
    return options or bool(given)


def _mismatches(
    plan: SyncPlan, reader: Reader, remote: RemoteDataset, described: description.Described
) -> Iterator[str]:
    """Yield what makes the dataset one that this store's rows cannot go into."""
    dim = reader.space.dim
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
    elif not plan.images and described.space is not None and described.space.rounded() != reader.space.rounded():
        yield f"the dataset holds vectors of the space {described.space}, this store of {reader.space}: never mixed"
    if remote.id_field is not None:
        place = schema.get_field_index(remote.id_field)
        if place >= 0 and not pa.types.is_string(schema.field(place).type):
            yield f"the dataset's ids are {schema.field(place).type}; a store's are texts"
