"""What a dataset has of a store's rows: which, with which values, and whether the vectors are those of now.

Which rows the dataset has is looked up on the server itself, by id; only for stores too large for that is the ledger
believed, where the count of rows and a sample of its ids speak for it. Atlas shows no vector but on maps, so whether a
vector is another by now is told by the ledger's hash of what was sent. What to do about it is left to `plan`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.atlas.client import Progress, RemoteDataset
from embedstore.atlas.columns import AtlasRows, lacks_picture
from embedstore.atlas.confirmations import UNKNOWN, Confirmations, hashes_of
from embedstore.atlas.maps import ids_on_map
from embedstore.atlas.outcome import SyncPlan
from embedstore.errors import AtlasError
from embedstore.storage.rows import Rows

EVERY_ID = 50_000  # up to so many ids are looked up one and all, at each sync
SAMPLE = 1_000  # ids of the ledger that are looked up when there are more
_AT_ONCE = 4_096


def compare(
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
    confirmed = confirmations.known(remote.id).seen
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
    plan.bare = [name for name, row in rows.items() if lacks_picture(row)] if plan.images else []
    return present


def compare_contents(
    plan: SyncPlan,
    confirmations: Confirmations,
    dataset_id: str,
    ids: Sequence[str],
    rows: Rows,
    positions: NDArray[np.int64],
) -> None:
    """Put down which rows that are there were sent with another vector, or picture, than they have now.

    `ids` are those rows' in Atlas, `positions` their places among the store's `rows`.
    """
    known = confirmations.known(dataset_id)
    for start in range(0, len(ids), _AT_ONCE):
        names, places = ids[start : start + _AT_ONCE], positions[start : start + _AT_ONCE]
        for name, now in zip(names, contents(rows, places, images=plan.images), strict=True):
            sent = known.hash_of(name)
            if sent == UNKNOWN or now == UNKNOWN:
                plan.unknown += 1
            elif sent != now:
                plan.outdated.append(name)


def contents(rows: Rows, positions: NDArray[np.int64], *, images: bool) -> list[str]:
    """Return a hash of what goes with each row: its vector as float16, or its picture; UNKNOWN if it has none."""
    if not images:
        return hashes_of(rows.vectors(positions).astype(np.float16))
    return [value or UNKNOWN for value in rows.take(positions).column("content_hash").to_pylist()]


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
