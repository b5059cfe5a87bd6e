"""Which rows of a store a dataset has already, which it has besides, and which it has otherwise.

Ids are looked up on the server itself. Only for stores too large for that is the ledger believed, where the count
of rows and a sample of its ids speak for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.atlas.client import LOOK_UP, RemoteDataset, Report
from embedstore.atlas.ledger import Ledger
from embedstore.atlas.maps import ids_on_map
from embedstore.errors import AtlasError

EVERY_ID = 50_000
"""Up to so many ids are looked up one and all, at each sync."""

SAMPLE = 1_000
"""Ids of the ledger that are looked up when there are more."""


@dataclass
class Census:
    """What a dataset holds.

    Attributes
    ----------
    present : set of str
        Of the ids asked for, those it has.
    rows : dict of str to dict
        The rows that were looked up, by id.
    how : str
        How `present` is known, in words.
    elsewhere : set of str
        Ids that it has and that were not asked for, of the store all the same.
    gone : list of str
        Ids that it has and the store has not.
    unnamed : int
        Rows that it has besides, whose ids nobody told.
    """

    present: set[str] = field(default_factory=set)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    how: str = "the dataset is empty"
    elsewhere: set[str] = field(default_factory=set)
    gone: list[str] = field(default_factory=list)
    unnamed: int = 0


def take_census(
    remote: RemoteDataset,
    ledger: Ledger,
    ids: Sequence[str],
    others: Iterable[str],
    progress: Report,
    *,
    recheck: bool = False,
) -> Census:
    """Find out what a dataset holds.

    Parameters
    ----------
    remote : RemoteDataset
    ledger : Ledger
    ids : sequence of str
        Of the rows that are to be synced.
    others : iterable of str
        Ids of the store's other rows.
    progress : callable
    recheck : bool
        Look every id up, however many there are.
    """
    census = Census()
    if not remote.total:
        return census
    confirmed = ledger.confirmed(remote.id)
    asked = set(ids)
    trusted = [name for name in confirmed if name in asked]
    lookup = list(ids)
    census.how = "each id was looked up"
    if not recheck and len(ids) > EVERY_ID and trusted and remote.total >= len(confirmed):
        sample = trusted[:: max(1, len(trusted) // SAMPLE)]
        census.rows = _look(remote, sample, progress)
        if len(census.rows) == len(sample):
            lookup = [name for name in ids if name not in confirmed]
            census.present = set(trusted)
            census.how = f"by the ledger; the count and {len(sample):,} ids looked up agree with it"
    census.rows |= _look(remote, lookup, progress)
    census.present |= census.rows.keys()
    _find_others(census, remote, asked, set(others), confirmed, progress)
    return census


def _find_others(
    census: Census,
    remote: RemoteDataset,
    asked: set[str],
    others: set[str],
    confirmed: Iterable[str],
    progress: Report,
) -> None:
    """Name the rows of the dataset that were not asked for, as far as anything tells their ids."""
    rest = remote.total - len(census.present)
    if rest <= 0:
        return
    candidates = [name for name in dict.fromkeys([*others, *confirmed]) if name not in asked]
    found = set(_look(remote, candidates, progress))
    if rest > len(found) and remote.maps:
        try:
            found |= set(ids_on_map(remote, remote.maps[-1])) - asked
        except AtlasError as error:
            progress(f"the map could not be read, so that some ids stay unknown: {error}")
    census.elsewhere = found & others
    census.gone = sorted(found - others)
    census.unnamed = max(0, rest - len(found))


def _look(remote: RemoteDataset, ids: Sequence[str], progress: Report) -> dict[str, dict[str, Any]]:
    """Look rows up, each request a step of its own."""
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(ids), LOOK_UP):
        remote.transport.begin()
        found |= remote.rows_of(ids[start : start + LOOK_UP])
        if (start // LOOK_UP) % 20 == 19:
            progress(f"looked up {start + LOOK_UP:,} of {len(ids):,} ids")
    remote.transport.begin()
    return found


def differences(
    ids: Sequence[str], table: pa.Table, rows: dict[str, dict[str, Any]]
) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Compare what would be sent with what is there.

    Returns
    -------
    dict of str to dict
        By id and column: the value in the store, as it would be sent, and the value there.
    """
    found: dict[str, dict[str, tuple[Any, Any]]] = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        for identity, value in zip(ids, table.column(name).to_pylist(), strict=True):
            row = rows.get(identity)
            if row is not None and name in row and _plain(value, kind) != _plain(row[name], kind):
                found.setdefault(identity, {})[name] = (value, row[name])
    return found


def _plain(value: Any, kind: pa.DataType) -> Any:
    """Return a value so that equal ones compare equal, whichever way JSON carried them."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if pa.types.is_floating(kind):
        return float(np.float32(value))
    if pa.types.is_timestamp(kind):
        return _milliseconds(value)
    return value


def _milliseconds(value: Any) -> Any:
    """Return a time as milliseconds since 1970, UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    return value
