"""Changes to the rows of a table: take paid rows in, remove rows, restore older ones, merge small parts.

Each is one commit, computed from one version: a `Draft` of it. Whoever calls holds the store's lock; where somebody who
does not, another machine or program, has made a version meanwhile, the draft goes and the change is computed again from
the newest version, as if it had come after. No byte is copied from one part to another before it was compared with its
checksum, so that damage is never passed on as sound.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embedstore.errors import DamagedStoreError, InputError, StoreError
from embedstore.storage import arrow_columns, parts
from embedstore.storage.arrow_columns import EMBEDDING, pa
from embedstore.storage.parts import Part
from embedstore.storage.table import DeltaFolder, OvertakenError, Snapshot, conform
from embedstore.vectors import Mask, Vectors
from embedstore.wording import counted

Batch = tuple["pa.Table", Vectors]

_log = logging.getLogger("embedstore")

_TIER = 8
"""Small parts are merged when so many of one size class have gathered: each row is copied a few times at most."""

UNFOLDED = "metadata_json"
"""The column that holds, as JSON, the metadata of paid rows that the table cannot hold in columns of its own."""

_PLACE = re.compile(r"#\d+$")

COMPACT_ROWS = 400_000
"""Largest part that `compact` makes of smaller ones: 1.2 GB at 768 components."""

TRIES = 20
"""How often a change is computed before it gives way to those who keep making versions."""

_LONGEST_PAUSE = 2.0


class Draft:
    """A change that is being computed from one version, `base`, with the parts that were written for it."""

    def __init__(self, table: DeltaFolder, base: Snapshot) -> None:
        self.table, self.base = table, base
        self._written: list[Part] = []
        self._offered = False

    def write(self, batches: Iterator[Batch], schema: pa.Schema) -> Part:
        """Write a part for this change."""
        self._written.append(self.table.new_part(batches, schema))
        return self._written[-1]

    def commit(self, added: Sequence[Part], removed: Sequence[Part], operation: str, **options: Any) -> Snapshot:
        """Make the version; OvertakenError where `base` is not the newest any more, or a part was vacuumed meanwhile.

        InputError where that is an older part, which cannot be written again.
        """
        if gone := self.table.vacuumed(added):
            if all(part in self._written for part in gone):
                raise OvertakenError(f"{self.table.name} was vacuumed before a change was done; keep more hours")
            raise InputError(f"this needs {counted(len(gone), 'file')} that vacuum has removed; choose a later version")
        self._offered = True
        return self.table.commit(added, removed, base=self.base, operation=operation, **options)

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Delete the parts of a draft that came to nothing; whether one did that failed otherwise nobody knows."""
        if isinstance(error, OvertakenError) or (error is not None and not self._offered):
            try:
                self.table.discard(self._written)
            except (StoreError, OSError) as left:  # a vacuum sees to them
                _log.debug("parts that were written for nothing are left: %s", left)


def _settled(table: DeltaFolder, newest: Snapshot, change: Callable[[Draft], Snapshot]) -> Snapshot:
    """Make a change to `newest`, or to what is the newest by then; StoreLockedError where others never pause."""
    from tenacity import (  # late, as below
        Retrying,
        retry_if_exception_type,
        stop_after_attempt,
        wait_random_exponential,
    )

    tries = Retrying(
        retry=retry_if_exception_type(OvertakenError),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.02, max=_LONGEST_PAUSE),
        reraise=True,
    )
    for attempt in tries:
        with attempt, Draft(table, newest if attempt.retry_state.attempt_number == 1 else table.snapshot()) as draft:
            return change(draft)
    raise AssertionError("tenacity gives a result or raises")  # pragma: no cover


def fold(table: DeltaFolder, batches: Sequence[pa.Table], transaction: tuple[str, int]) -> Snapshot:
    """Turn batches of paid rows, with their embedding, into one part; rows that the table has already are replaced.

    Of several rows with one id or one uri the last one counts, here and in the table.
    The commit carries the transaction, so that whoever finds the batches again knows that they are in.
    """
    newest = table.snapshot()

    def change(draft: Draft) -> Snapshot:
        if draft.base is not newest and table.applied(transaction[0]) >= transaction[1]:
            return draft.base  # an earlier try, whose answer was lost, has arrived after all
        rows = _last_of_each(_concatenated(batches, draft.base.schema))
        vectors = arrow_columns.vectors_of(rows.column(EMBEDDING), table.dim, "the ledger")
        rows = rows.drop_columns([EMBEDDING])
        return _upsert(draft, rows, vectors, ("id", "uri"), transaction)

    return merge_small(table, _settled(table, newest, change))


def without_metadata(batch: pa.Table, own: Sequence[str]) -> pa.Table:
    """Return paid rows with the columns `own` and the embedding, and all others as JSON text in one."""
    others = batch.drop_columns([*own, EMBEDDING]).to_pylist()
    texts = [json.dumps(row, ensure_ascii=False, default=str) for row in others]
    return batch.select([*own, EMBEDDING]).append_column(UNFOLDED, pa.array(texts, pa.string()))


def upsert(
    table: DeltaFolder,
    rows: pa.Table,
    vectors: Vectors,
    *,
    transaction: tuple[str, int] | None = None,
    replaces: bool = True,
    by_uri: bool = True,
    newest: Snapshot | None = None,
) -> Snapshot:
    """Add rows in one commit, in place of those with the same ids, or the same uris.

    Parameters
    ----------
    table : DeltaFolder
    rows : pyarrow.Table
        Metadata columns; new ones widen the table.
    vectors : ndarray of shape (n_rows, dim), float32
    transaction : tuple of str and int, optional
        See `DeltaFolder.commit`.
    replaces : bool
        False when the caller knows that no id is in the table, and no uri.
    by_uri : bool
        False where a uri tells only from which row of a source a row came, so that others may have the same.
    newest : Snapshot, optional
        The version of which the caller knows what `replaces` says; by default the one that is the newest now.
    """
    known = newest or table.snapshot()
    keys = ("id", "uri") if by_uri else ("id",)

    def change(draft: Draft) -> Snapshot:
        return _upsert(draft, rows, vectors, keys if replaces or draft.base is not known else (), transaction)

    return merge_small(table, _settled(table, known, change))


def _upsert(
    draft: Draft, rows: pa.Table, vectors: Vectors, keys: Sequence[str], transaction: tuple[str, int] | None
) -> Snapshot:
    """Add rows in place of those that have the same values in the columns `keys`."""
    schema = merged_schema(draft.base.schema, rows.schema)
    new_fields = [field for field in schema if field.name not in draft.base.schema.names]
    rows = fitted(rows, schema)
    added: list[Part] = []
    removed: list[Part] = []
    new = {name: found for name in keys if name in schema.names and len(found := _values(rows.column(name)))}
    if new:
        added, removed = _without(draft, lambda part: _is_in(part, new))
    added.append(draft.write(_grouped(rows, vectors), schema))
    return draft.commit(added, removed, "add", new_fields=new_fields, transaction=transaction)


def remove(table: DeltaFolder, newest: Snapshot, leaving: Mask | Callable[[Snapshot], Mask]) -> Snapshot:
    """Remove rows of `newest`.

    `leaving`, bool of shape (n_rows,), marks them; where another version has become the newest by then, those of the
    same ids. Or it is called with the version that the change is computed from, and returns such a mask.
    """

    def change(draft: Draft) -> Snapshot:
        going = leaving(draft.base) if callable(leaving) else marked_in(draft.base, newest, leaving)
        those = draft.base.parts
        starts = dict(zip(those, np.cumsum([0, *(part.rows for part in those)]), strict=False))
        added, removed = _without(draft, lambda part: going[starts[part] : starts[part] + part.rows])
        return draft.commit(added, removed, "remove") if removed else draft.base

    return _settled(table, newest, change)


def marked_in(snapshot: Snapshot, other: Snapshot, marked: Mask) -> Mask:
    """Return which rows of a version have the ids of those that are marked in another."""
    if snapshot is other:
        return marked
    import pyarrow.compute as pc  # as below

    ids = other.read(["id"]).column("id").filter(pa.array(marked)).combine_chunks()
    return np.asarray(pc.is_in(snapshot.read(["id"]).column("id"), value_set=ids).to_numpy())


def restore(table: DeltaFolder, newest: Snapshot, older: Snapshot) -> Snapshot:
    """Make a new version with the rows of an older one, by its parts: nothing is copied, and no version is lost.

    Columns that the table has got since stay, empty. DamagedStoreError where a part that would come back is damaged.
    """

    def change(draft: Draft) -> Snapshot:
        now, then = ({part.name for part in snapshot.parts} for snapshot in (draft.base, older))
        added = [part for part in older.parts if part.name not in now]
        removed = [part for part in draft.base.parts if part.name not in then]
        if not added and not removed:
            return draft.base
        _require_sound(added)
        return draft.commit(added, removed, f"restore of version {older.version}")

    return _settled(table, newest, change)


def merge_small(table: DeltaFolder, snapshot: Snapshot) -> Snapshot:
    """Merge parts smaller than `parts.ROWS_PER_PART` where `_TIER` of one size class have gathered.

    Damaged ones stay as they are, with a warning: what has just been added is not held up by them. So do all where
    another program has changed the table meanwhile: the next change sees to them.
    """
    tiers: dict[int, list[Part]] = {}
    for part in snapshot.parts:
        if part.rows < parts.rows_per_part(table.dim) and part.mapped:
            tiers.setdefault(len(np.base_repr(max(part.rows, 1), _TIER)), []).append(part)
    full = [group for group in tiers.values() if len(group) >= _TIER]
    damaged = [(part, problems) for group in full for part in group if (problems := part.check(afresh=False))]
    for _, problems in damaged:
        _log.warning("%s; the part is not merged with others. Run `embedstore verify STORE --deep`", problems[0])
    spoilt = {part.name for part, _ in damaged}
    full = [[part for part in group if part.name not in spoilt] for group in full]
    full = [group for group in full if len(group) >= _TIER]
    if not full:
        return snapshot
    try:
        with Draft(table, snapshot) as draft:
            merged = _merge(draft, full)
    except OvertakenError as error:
        _log.debug("small parts are left for the next change: %s", error)
        return table.snapshot()
    return merge_small(table, merged)


def compact(table: DeltaFolder, newest: Snapshot) -> Snapshot:
    """Merge parts up to `COMPACT_ROWS`; lay foreign ones out to be mapped, and give old ones checksums."""

    def change(draft: Draft) -> Snapshot:
        groups = _to_compact(draft.base)
        return _merge(draft, groups) if groups else draft.base

    return _settled(table, newest, change)


def _to_compact(snapshot: Snapshot) -> list[list[Part]]:
    """Return the parts that `compact` merges, or writes anew by themselves."""
    groups: list[list[Part]] = []
    for part in snapshot.parts:
        if part.rows >= COMPACT_ROWS and part.mapped and part.checked:
            continue
        if groups and sum(other.rows for other in groups[-1]) + part.rows <= COMPACT_ROWS:
            groups[-1].append(part)
        else:
            groups.append([part])
    return [group for group in groups if len(group) > 1 or not (group[0].mapped and group[0].checked)]


def without_rows(table: DeltaFolder, schema: pa.Schema, part: Part, damaged: Mask) -> list[Part]:
    """Write the rows of a part that are not `damaged`, bool of shape (part.rows,), into a new one, if there are any.

    Only the row groups of those rows are read.
    """
    if damaged.all():
        return []
    return [table.new_part(_sound(part, schema, ~damaged), schema)]


def copies(snapshot: Snapshot) -> dict[str, Mask]:
    """Return which rows have a later one of the same ``id``, and of the same ``uri``: bool of shape (n_rows,) each.

    A uri that ends in ``#12`` tells a row of a table, which is another's once the table changes: ids tell these apart.
    """
    table = snapshot.read(["id", "uri"])
    found = {}
    for name in ("id", "uri"):
        values = table.column(name).to_pylist()
        last = {value: row for row, value in enumerate(values)}
        found[name] = np.array(
            [
                bool(value) and last[value] != row and not (name == "uri" and _PLACE.search(value))
                for row, value in enumerate(values)
            ],
            dtype=bool,
        )
    return found


def merged_schema(old: pa.Schema, new: pa.Schema) -> pa.Schema:
    """Return the columns of both.

    Raises
    ------
    InputError
        A column has one type in the table and another, that does not fit, in the new rows; or a name that differs
        from another's by case only, which Delta takes for the same.
    """
    fields, spelled = list(old), {name.lower(): name for name in old.names}
    for field in new:
        other = spelled.setdefault(field.name.lower(), field.name)
        if other != field.name:
            raise InputError(f"the columns {other!r} and {field.name!r} differ by case only; rename one in the source")
        if field.name not in old.names:
            kind = pa.string() if pa.types.is_null(field.type) else field.type
            fields.append(pa.field(field.name, kind))
        elif not _fits(field.type, old.field(field.name).type):
            raise InputError(
                f"column {field.name!r} holds {old.field(field.name).type} in this store and {field.type} in what is "
                "being added; rename it in the source, or convert its values"
            )
    return pa.schema(fields)


def _fits(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Tell whether values of one type may go into a column of another; whether each does, its cast will say."""
    if given == wanted or pa.types.is_null(given) or pa.types.is_string(wanted):
        return True
    numbers = (pa.types.is_integer, pa.types.is_floating)
    if pa.types.is_integer(given):
        return any(is_kind(wanted) for is_kind in (*numbers, pa.types.is_decimal))
    return any(is_kind(given) and is_kind(wanted) for is_kind in (pa.types.is_floating, pa.types.is_timestamp))


def fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows in the columns of a table; InputError, before anything is written, for values beyond their types."""
    for number, field in enumerate(rows.schema):
        wanted = schema.field(field.name).type
        try:
            if field.type != wanted:
                rows = rows.set_column(number, field.name, rows.column(number).cast(wanted))
        except pa.ArrowException as error:
            raise InputError(
                f"column {field.name!r} holds {wanted} in this store, and what is being added does not fit: {error}; "
                "rename it in the source, or convert its values"
            ) from error
    return conform(rows, schema)


def _merge(draft: Draft, groups: Sequence[Sequence[Part]]) -> Snapshot:
    _require_sound([part for group in groups for part in group])
    schema, dim = draft.base.schema, draft.base.dim
    added = [draft.write(_regrouped(group, schema, dim), schema) for group in groups]
    removed = [part for group in groups for part in group]
    return draft.commit(added, removed, "compact", data_change=False)


def _without(draft: Draft, leaving_of: Callable[[Part], Mask]) -> tuple[list[Part], list[Part]]:
    """Write each part that loses rows anew; return the parts to add and those to take out."""
    schema = draft.base.schema
    losing = [(part, leaving) for part in draft.base.parts if (leaving := np.asarray(leaving_of(part))).any()]
    kept = [(part, ~leaving) for part, leaving in losing if not leaving.all()]
    _require_sound([part for part, _ in kept])
    added = [draft.write(_kept(part, schema, keep), schema) for part, keep in kept]
    return added, [part for part, _ in losing]


def _require_sound(old: Sequence[Part]) -> None:
    """Refuse to copy rows out of parts whose bytes do not fit their checksums."""
    problems = [problem for part in old for problem in part.check(afresh=False)]
    if problems:
        more = f" (and {len(problems) - 1} more like this)" if len(problems) > 1 else ""
        raise DamagedStoreError(
            f"{problems[0]}{more}. Nothing of it was copied, and no row was changed. "
            "`embedstore verify STORE --deep` lists all that is damaged: restore those files from a copy, "
            "or run `embedstore repair STORE`"
        )


def _kept(part: Part, schema: pa.Schema, keep: Mask) -> Iterator[Batch]:
    metadata = conform(part.read(schema.names), schema)
    start = 0
    for group in part.groups():
        mask = keep[start : start + len(group)]
        if mask.any():
            yield metadata.slice(start, len(group)).filter(pa.array(mask)), group[mask]
        start += len(group)


def _sound(part: Part, schema: pa.Schema, keep: Mask) -> Iterator[Batch]:
    start = 0
    for group in part.groups():
        mask = keep[start : start + len(group)]
        if mask.any():
            yield conform(part.read_rows(start + np.flatnonzero(mask), schema.names), schema), group[mask]
        start += len(group)


def _regrouped(group: Sequence[Part], schema: pa.Schema, dim: int) -> Iterator[Batch]:
    """Yield the rows of several parts in full row groups, holding one row group in memory."""
    limit = parts.rows_per_group(dim)
    tables: list[pa.Table] = []
    blocks: list[Vectors] = []
    held = 0
    for part in group:
        metadata = conform(part.read(schema.names), schema)
        start = 0
        for block in part.groups():
            while len(block):
                taken = block[: limit - held]
                tables.append(metadata.slice(start, len(taken)))
                blocks.append(taken)
                held += len(taken)
                start += len(taken)
                block = block[len(taken) :]
                if held == limit:
                    yield pa.concat_tables(tables), np.concatenate(blocks)
                    tables, blocks, held = [], [], 0
    if held:
        yield pa.concat_tables(tables), np.concatenate(blocks)


def _grouped(rows: pa.Table, vectors: Vectors) -> Iterator[Batch]:
    limit = parts.rows_per_group(vectors.shape[1])
    for start in range(0, len(rows), limit):
        yield rows.slice(start, limit), vectors[start : start + limit]


def _values(column: pa.ChunkedArray) -> pa.Array:
    """Return the values of a column of text that say something: neither null nor empty."""
    import pyarrow.compute as pc  # slow to import, and not needed to search

    return column.filter(pc.not_equal(column, "")).combine_chunks()


def _is_in(part: Part, values: Mapping[str, pa.Array]) -> Mask:
    """Tell which rows of a part have one of the values, in the column of that name or in another."""
    import pyarrow.compute as pc  # as above

    found: Mask = np.zeros(part.rows, bool)
    columns = conform(part.read(list(values)), pa.schema([(name, some.type) for name, some in values.items()]))
    for name, some in values.items():
        found |= pc.is_in(columns.column(name), value_set=some).to_numpy()
    return found


def _concatenated(batches: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Join batches from the ledger, whose rows are paid for and must find a place whatever the table has become.

    A column that another process has meanwhile given another type, or written in other letters, is kept as text
    under a name that tells its type.
    """
    rows = pa.concat_tables(batches, promote_options="permissive")
    others = {name.lower(): name for name in schema.names}
    for number, field in enumerate(rows.schema):
        known = others.get(field.name.lower())
        if known is None or (known == field.name and field.type == schema.field(known).type):
            continue
        column = rows.column(number)
        try:
            cast = column.cast(schema.field(known).type) if _fits(field.type, schema.field(known).type) else None
        except pa.ArrowInvalid:
            cast = None
        if cast is None:
            rows = rows.set_column(number, f"{field.name}_{field.type}", column.cast(pa.string()))
        else:
            rows = rows.set_column(number, known, cast)
    return rows


def _last_of_each(rows: pa.Table) -> pa.Table:
    """Return rows without those of which a later one has the id or the uri."""
    ids, uris = rows.column("id").to_pylist(), rows.column("uri").to_pylist()
    seen_ids: set[str] = set()
    seen_uris: set[str] = set()
    last = []
    for number in range(len(rows) - 1, -1, -1):
        if ids[number] not in seen_ids and not (uris[number] and uris[number] in seen_uris):
            last.append(number)
        seen_ids.add(ids[number])
        seen_uris.add(uris[number])
    return rows if len(last) == len(rows) else rows.take(pa.array(last[::-1]))
