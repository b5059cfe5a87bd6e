"""Vectors that somebody else made -> rows of a store, without any picture being read.

Checked for dimension, numbers and length, given ids, and stored a part's worth at a time. Reading them from files
and tables is left to `sources.vector_batches`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import InputError, VectorError, spelt
from embedstore.ingest.deduplication import record_id
from embedstore.ingest.pipeline import bar
from embedstore.ingest.reports import AddReport
from embedstore.ingest.row_writer import recover
from embedstore.sources import VectorBatch, vector_batches
from embedstore.storage.changes import fitted, merged_schema
from embedstore.storage.folder import StoreFolder, own_columns
from embedstore.storage.metadata import column_name, require_distinct, storable_types
from embedstore.storage.parts import rows_per_part
from embedstore.storage.rows import Rows
from embedstore.vectors import EXACT_TOLERANCE, UNIT_TOLERANCE, Mask, Vectors, as_vectors, norms
from embedstore.vectors import normalise as to_unit_length

_MEANT = ("id", "uri", "content_hash", "width", "height")
"""Columns of a source of vectors that mean what they mean in the store."""


def add_vectors(
    folder: StoreFolder, source: Any, embedding_column: str, *, normalise: bool = False, progress: bool | None = None
) -> AddReport:
    """Store the vectors of a table; every other column that can be kept becomes metadata.

    `source` is what `sources.vector_batches` takes. A column ``id`` of unique texts (of any length, such as paths) or
    whole numbers gives the ids; without it they come from the file's path and the row number, and for what is in memory
    from the vector. Columns ``uri`` (unique
    too), ``content_hash``, ``width`` and ``height`` keep their meaning.

    Rows whose id, vector and metadata are in the store already count as unchanged, those with another vector as
    replaced, those with other metadata only (the place that they came from included) as updated. A row whose uri the
    store has under another id takes that row's place, and counts as replaced.

    Raises VectorError for vectors of another dimension, with NaN, or not of unit length where `normalise` does not
    scale them. Batches before it are stored.
    """
    started = time.perf_counter()
    report = AddReport(recovered=recover(folder))
    limit = rows_per_part(folder.space.dim)
    now = datetime.now(UTC)
    held: list[tuple[pa.Table, Vectors]] = []
    named = False
    columns = folder.images.snapshot().schema.names
    batches = vector_batches(source, embedding_column, limit, report.left_out)
    for batch in bar(batches, None, "added", progress):
        too_many = sum(len(rows) for rows, _ in held) + len(batch.vectors) > limit
        if held and (too_many or named != _names_uris(batch)):
            _add_batch(folder, held, named, report)
        named = _names_uris(batch)
        found = _checked(batch.vectors, folder.space.dim, report.found, normalise)
        rows = _rows(batch, columns, now)
        report.renamed |= _renamed(batch, columns)
        columns = [*columns, *(name for name in rows.column_names if name not in columns)]
        held.append((rows, found))
        report.found += len(found)
    _add_batch(folder, held, named, report)
    report.seconds = time.perf_counter() - started
    newest = folder.images.snapshot()
    report.images, report.version = newest.rows, newest.version
    return report


def _add_batch(folder: StoreFolder, held: list[tuple[pa.Table, Vectors]], named: bool, report: AddReport) -> None:
    """Store what has gathered, in one commit, and let go of it; `named`: the source itself gives each row its uri."""
    if not held:
        return
    rows = pa.concat_tables([table for table, _ in held], promote_options="permissive")
    found = np.concatenate([block for _, block in held]) if len(held) > 1 else held[0][1]
    held.clear()
    if named:
        _require_unique(rows.column("uri"), "uri", "uris tell the file and the row number")
    _require_unique(rows.column("id"), "id", "ids are made from the file's path and the row number")
    with folder.writing() as newest:
        stored = Rows(newest)
        merged = merged_schema(newest.schema, rows.schema)
        rows = fitted(rows, pa.schema([merged.field(name) for name in rows.schema.names]))
        known = _known(stored, "id", rows.column("id"))
        taken = _known(stored, "uri", rows.column("uri")) if named else np.zeros(len(rows), bool)
        if taken.any():
            _require_older(stored, rows)
        same, replaced = np.zeros((2, len(rows)), bool)
        if known.any():
            places = np.flatnonzero(known)
            same[places], replaced[places] = _compared(stored, rows.take(pa.array(places)), found[places])
        replaced |= taken & ~known
        report.unchanged += int(same.sum())
        report.replaced += int(replaced.sum())
        report.updated += int((known & ~same & ~replaced).sum())
        report.added += int((~known | replaced).sum())
        if not same.all():
            new = (rows.filter(pa.array(~same)), found[~same]) if same.any() else (rows, found)
            folder.upsert(*new, replaces=bool(known.any() or taken.any()), by_uri=named, newest=newest)


def _names_uris(batch: VectorBatch) -> bool:
    """Tell whether a source says itself what its rows are called; without that they are called by their places."""
    given = batch.metadata
    return "uri" in given.schema.names and all(isinstance(uri, str) for uri in given.column("uri").to_pylist())


def _known(stored: Rows, name: str, values: pa.ChunkedArray) -> Mask:
    """Tell which values of a column the store has; the few are hashed and the many looked up, for each batch is."""
    values = pc.if_else(pc.equal(values, ""), None, values)
    old = stored.metadata([name]).column(name)
    common = old.filter(pc.is_in(old, value_set=values.combine_chunks(), skip_nulls=True))
    return np.asarray(pc.is_in(values, value_set=common.combine_chunks(), skip_nulls=True).to_numpy())


def _require_older(stored: Rows, rows: pa.Table) -> None:
    """Refuse uris that rows of the same source, which are in the store by now, have too."""
    old = stored.metadata(["uri", "id", "added_at"])
    here = pc.and_(
        pc.equal(old.column("added_at"), rows.column("added_at")[0]),
        pc.is_in(old.column("uri"), value_set=rows.column("uri").combine_chunks()),
    )
    earlier = dict(zip(*(column.to_pylist() for column in old.filter(here).columns[:2]), strict=True))
    for uri, identity in zip(rows.column("uri").to_pylist(), rows.column("id").to_pylist(), strict=True):
        if uri and earlier.get(uri, identity) != identity:
            raise InputError(_twice(1, "uri", uri, "uris tell the file and the row number"))


def _compared(stored: Rows, rows: pa.Table, found: Vectors) -> tuple[Mask, Mask]:
    """Tell which rows are in the store already just so, and which with another vector."""
    positions = stored.positions(rows.column("id").to_pylist())
    same = np.asarray((stored.vectors(positions) == found).all(axis=1))
    replaced = ~same
    for name in rows.schema.names:
        if name == "added_at":
            continue
        if name not in stored.columns:
            same &= rows.column(name).is_null().to_numpy()
            continue
        before = stored.metadata([name]).column(0).take(pa.array(positions))
        given = rows.column(name)
        equals = pc.fill_null(pc.equal(before, given), False).to_numpy()
        both_null = pc.and_(before.is_null(nan_is_null=True), given.is_null(nan_is_null=True)).to_numpy()
        same &= equals | both_null
    return same, replaced


def _require_unique(values: pa.ChunkedArray, name: str, otherwise: str) -> None:
    """Refuse an id or a uri that several rows of a batch have; an empty uri says nothing."""
    counts = pc.value_counts(values.combine_chunks())
    twice = counts.filter(pc.and_(pc.greater(counts.field("counts"), 1), pc.not_equal(counts.field("values"), "")))
    if len(twice):
        raise InputError(_twice(len(twice), name, twice[0]["values"].as_py(), otherwise))


def _twice(number: int, name: str, value: str, otherwise: str) -> str:
    return (
        f"{number:,} {name}s stand in several rows, such as {value!r}; {name}s are unique. "
        f"Rename the column {name!r}, and {otherwise}"
    )


def _checked(found: Vectors, dim: int, done: int, normalise: bool) -> Vectors:
    if found.ndim == 2 and found.shape[1] != dim:
        raise VectorError(
            f"the vectors have {found.shape[1]} components and those of this store {dim}: another model made them; "
            "add them to a store of their own"
        )
    checked = as_vectors(found, dim, f"rows from {done}")
    if normalise:
        return to_unit_length(checked, f"rows from {done}")
    lengths = norms(checked)
    off = np.flatnonzero(np.abs(lengths - 1) > UNIT_TOLERANCE)
    if len(off):
        raise VectorError(
            f"row {done + off[0]} has length {lengths[off[0]]:.4g} and {len(off)} of {len(found)} rows are not of unit "
            f"length; a store holds unit ones. Scale them with {spelt('normalise=True', '--normalise')}: cosines stay"
        )
    return checked if np.abs(lengths - 1).max(initial=0) <= EXACT_TOLERANCE else to_unit_length(checked)


def _rows(batch: VectorBatch, known: Sequence[str], now: datetime) -> pa.Table:
    """Give each vector an id and the store's own columns; the others are spelled as `known` columns are."""
    given, names, count = batch.metadata, batch.metadata.schema.names, len(batch.vectors)
    uris, keys = batch.uris, batch.keys
    if _names_uris(batch):
        uris = keys = given.column("uri").to_pylist()
    columns: dict[str, Any] = {"id": _ids(given, keys), "uri": uris, "added_at": [now] * count}
    for name in ("content_hash", "width", "height"):
        kind = own_columns().field(name).type
        columns[name] = given.column(name).cast(kind) if name in names else pa.nulls(count, kind)
    others = [name for name in names if name not in _MEANT]
    require_distinct(others)
    table, kept = pa.table(columns, schema=own_columns()), storable_types(given.select(others))
    for field in kept.schema:
        table = table.append_column(field.with_name(column_name(field.name, known)), kept.column(field.name))
    return table


def _renamed(batch: VectorBatch, known: Sequence[str]) -> dict[str, str]:
    """Return the columns of a batch that have another name in the store, by their own."""
    others = [name for name in batch.metadata.schema.names if name not in _MEANT]
    return {name: column for name in others if (column := column_name(name, known)) != name}


def _ids(given: pa.Table, keys: Sequence[str]) -> list[str]:
    if "id" not in given.schema.names:
        return [record_id(f"vector:{key}") for key in keys]
    ids = [str(value) if isinstance(value, int) else value for value in given.column("id").to_pylist()]
    bad = [value for value in ids if not isinstance(value, str) or not value]
    if bad:
        raise InputError(
            f"the column 'id' should hold a text or a whole number in every row; found {bad[0]!r}. "
            "Rename the column, and ids are made from the file's path and the row number"
        )
    return ids
