"""Vectors that somebody else made -> rows of a store, without any picture being read.

Checked for dimension, numbers and length, given ids, and stored a part's worth at a time. Reading them from files
and tables is left to `sources`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import InputError, VectorError
from embedstore.ingest.arrivals import recover
from embedstore.ingest.incoming import bar
from embedstore.ingest.known import is_usable_id, record_id
from embedstore.ingest.reports import AddReport
from embedstore.sources import VectorBatch, vector_batches
from embedstore.storage.folder import SCHEMA
from embedstore.storage.metadata import column_name, storable_types
from embedstore.storage.parts import rows_per_part
from embedstore.store import EmbedStore
from embedstore.vectors import EXACT_TOLERANCE, UNIT_TOLERANCE, Mask, Vectors, as_vectors, norms
from embedstore.vectors import normalise as to_unit_length

_BASE = ("uri", "content_hash", "width", "height")


def add_vectors(
    store: EmbedStore,
    source: Any,
    embedding_column: str,
    *,
    normalise: bool = False,
    progress: bool | None = None,
) -> AddReport:
    """Store the vectors of a table; every other storable column becomes metadata.

    Parameters
    ----------
    store : EmbedStore
    source : path of a Parquet, Arrow or .npy file, pyarrow.Table, or list of these
    embedding_column : str
        Holds lists of ``store.space.dim`` numbers.
    normalise : bool
        Scale vectors to unit length, rather than refuse those that are not.
    progress : bool, optional

    Returns
    -------
    AddReport
        Rows whose id, vector and metadata are in the store already count as unchanged, those with another vector
        as replaced, those with other metadata only (the place that they came from included) as updated.

    Raises
    ------
    VectorError
        Vectors of another dimension, with NaN, or not of unit length. Batches before it are stored.

    Notes
    -----
    A column ``id`` of unique texts of 1 to 36 characters, or of whole numbers, gives the ids; without it they come
    from the file's path and the row number. Columns ``uri``, ``content_hash``, ``width`` and ``height`` keep their
    meaning.
    """
    started = time.perf_counter()
    report = AddReport(recovered=recover(store))
    limit = rows_per_part(store.space.dim)
    held: list[tuple[pa.Table, Vectors]] = []
    for batch in bar(vector_batches(source, embedding_column, limit), None, "added", progress):
        if held and sum(len(rows) for rows, _ in held) + len(batch.vectors) > limit:
            _add_batch(store, held, report)
        found = _checked(batch.vectors, store.space.dim, report.found, normalise)
        held.append((_rows(batch), found))
        report.found += len(found)
    _add_batch(store, held, report)
    report.seconds = time.perf_counter() - started
    report.images, report.version = len(store), store.version
    return report


def _add_batch(store: EmbedStore, held: list[tuple[pa.Table, Vectors]], report: AddReport) -> None:
    """Store what has gathered, in one commit, and let go of it."""
    if not held:
        return
    rows = pa.concat_tables([table for table, _ in held], promote_options="permissive")
    found = np.concatenate([block for _, block in held]) if len(held) > 1 else held[0][1]
    held.clear()
    _require_unique(rows)
    with store.writing():
        known = _known(store, rows.column("id"))
        same, replaced = np.zeros((2, len(rows)), bool)
        if known.any():
            places = np.flatnonzero(known)
            same[places], replaced[places] = _compared(store, rows.take(pa.array(places)), found[places])
        report.unchanged += int(same.sum())
        report.replaced += int(replaced.sum())
        report.updated += int((known & ~same & ~replaced).sum())
        report.added += int((~known).sum())
        if not same.all():
            new = (rows.filter(pa.array(~same)), found[~same]) if same.any() else (rows, found)
            store.upsert(*new, replaces=bool(known.any()))


def _known(store: EmbedStore, ids: pa.ChunkedArray) -> Mask:
    """Tell which ids the store has; the few are hashed and the many looked up, for each batch is."""
    old = store.rows.metadata(["id"]).column("id")
    common = old.filter(pc.is_in(old, value_set=ids.combine_chunks()))
    return np.asarray(pc.is_in(ids, value_set=common.combine_chunks()).to_numpy())


def _compared(store: EmbedStore, rows: pa.Table, found: Vectors) -> tuple[Mask, Mask]:
    """Tell which rows are in the store already just so, and which with another vector."""
    positions = store.rows.positions(rows.column("id").to_pylist())
    same = np.asarray((store.rows.vectors(positions) == found).all(axis=1))
    replaced = ~same
    for name in rows.schema.names:
        if name == "added_at":
            continue
        if name not in store.columns:
            same &= rows.column(name).is_null().to_numpy()
            continue
        before = store.rows.metadata([name]).column(0).take(pa.array(positions))
        given = rows.column(name).cast(before.type)
        equals = pc.fill_null(pc.equal(before, given), False).to_numpy()
        both_null = pc.and_(before.is_null(nan_is_null=True), given.is_null(nan_is_null=True)).to_numpy()
        same &= equals | both_null
    return same, replaced


def _require_unique(rows: pa.Table) -> None:
    """Refuse an id that several rows of a batch have."""
    counts = pc.value_counts(rows.column("id").combine_chunks())
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise InputError(
            f"{len(twice):,} ids stand in several rows, such as {twice[0]['values'].as_py()!r}; ids are unique. "
            "Rename the column 'id', and ids are made from the file's path and the row number"
        )


def _checked(found: Vectors, dim: int, done: int, normalise: bool) -> Vectors:
    checked = as_vectors(found, dim, f"rows from {done}")
    if normalise:
        return to_unit_length(checked, f"rows from {done}")
    lengths = norms(checked)
    off = np.flatnonzero(np.abs(lengths - 1) > UNIT_TOLERANCE)
    if len(off):
        raise VectorError(
            f"row {done + off[0]} has length {lengths[off[0]]:.4g} and {len(off)} of {len(found)} rows are not of unit "
            "length; a store holds unit vectors. Scale them with normalise=True (--normalise): cosines stay as they are"
        )
    return checked if np.abs(lengths - 1).max(initial=0) <= EXACT_TOLERANCE else to_unit_length(checked)


def _rows(batch: VectorBatch) -> pa.Table:
    """Give each vector an id and the store's own columns."""
    given = batch.metadata
    count = len(batch.vectors)
    uris = _texts(given, "uri") or batch.uris
    columns: dict[str, Any] = {"id": _ids(given, uris), "uri": uris}
    for name in _BASE[1:]:
        kind = SCHEMA.field(name).type
        columns[name] = given.column(name).cast(kind) if name in given.schema.names else pa.nulls(count, kind)
    columns["added_at"] = [datetime.now(UTC)] * count
    table = pa.table(columns, schema=SCHEMA)
    others = [name for name in given.schema.names if name not in ("id", *_BASE)]
    kept = storable_types(given.select(others))
    for field in kept.schema:
        table = table.append_column(field.with_name(column_name(field.name)), kept.column(field.name))
    return table


def _texts(given: pa.Table, name: str) -> Sequence[str] | None:
    if name not in given.schema.names:
        return None
    values = given.column(name).to_pylist()
    return values if all(isinstance(value, str) for value in values) else None


def _ids(given: pa.Table, uris: Sequence[str]) -> list[str]:
    if "id" not in given.schema.names:
        return [record_id(f"vector:{uri}") for uri in uris]
    ids = [str(value) if isinstance(value, int) else value for value in given.column("id").to_pylist()]
    bad = [value for value in ids if not is_usable_id(value)]
    if bad:
        raise InputError(
            f"the column 'id' should hold texts of 1 to 36 characters, or whole numbers; found {bad[0]!r}. "
            "Rename the column, and ids are made from the file's path and the row number"
        )
    return ids
