"""A dataset of Atlas -> rows of a store: vectors and metadata come down, and nothing is embedded again.

Vectors are read from a map, whose order is its own; each is stored with its id. What Atlas has rounded to float16
is said in the store's space. Reading the map is left to `maps`, storing vectors to `given`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.atlas.answers import Limits
from embedstore.atlas.client import RemoteDataset, Report, connect, open_dataset, parse_identifier, silent
from embedstore.atlas.columns import VECTORS
from embedstore.atlas.maps import read_tiles, wait_until_unlocked
from embedstore.atlas.values import NOTHING
from embedstore.credentials import Key
from embedstore.errors import AtlasError, InputError
from embedstore.ingest.given import add_vectors
from embedstore.ingest.reports import AddReport
from embedstore.space import Space
from embedstore.store import EmbedStore

_BATCH_ROWS: Final = 20_000
_COLUMN: Final = "embedding"


@dataclass
class PullReport:
    """What came down.

    Attributes
    ----------
    dataset : str
    rows : int
        Rows of the map.
    unmapped : int
        Rows of the dataset that are on no map yet, and so could not be read.
    added : AddReport
        What the store made of them.
    seconds : float
    """

    dataset: str
    rows: int = 0
    unmapped: int = 0
    added: AddReport = field(default_factory=AddReport)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        names = ("dataset", "rows", "unmapped", "seconds")
        return {**{name: getattr(self, name) for name in names}, "added": self.added.to_dict()}

    def __str__(self) -> str:
        lines = [
            f"{self.dataset}: {self.rows:,} rows came down, rounded to float16 by Atlas",
            str(self.added),
        ]
        if self.unmapped:
            lines.append(
                f"{self.unmapped:,} rows are on no map yet and stayed there: make a new map "
                "(embedstore sync atlas STORE ORG/NAME --index) and run the same command again"
            )
        return "\n".join(lines)


def pull(
    store: EmbedStore | str | os.PathLike[str],
    name: str,
    *,
    space: Space | str | None = None,
    key: Key | str | None = None,
    timeout: float = 600.0,
    progress: Report = silent,
) -> PullReport:
    """Take a dataset's vectors and metadata into a store.

    Parameters
    ----------
    store : EmbedStore or path
        A path of no store is made one.
    name : str
        ``atlas://organisation/dataset``.
    space : Space or str, optional
        What made the vectors, or a name for it. Datasets that `apply_sync` made say it themselves.
    key : Key or str, optional
    timeout : float
        Seconds for each step.
    progress : callable

    Returns
    -------
    PullReport

    Raises
    ------
    AtlasError
        The dataset has no map, or the map's files do not agree.
    InputError
        Nothing says what made the vectors.
    SpaceMismatchError
        The store's vectors lie elsewhere, or were not rounded.
    """
    started = time.perf_counter()
    transport = connect(key, Limits(timeout))
    with tempfile.TemporaryDirectory() as folder:
        remote = open_dataset(transport, parse_identifier(name), tiles=Path(folder))
        if not remote.maps:
            raise AtlasError(
                f"{remote.identifier} has no map, and Atlas gives vectors out by its maps only. Make one: "
                "embedstore sync atlas STORE ORG/NAME --index, or in Atlas itself"
            )
        wait_until_unlocked(remote, progress)
        report = PullReport(remote.identifier)
        opened: EmbedStore | None = None
        for batch in _batches(remote):
            if opened is None:
                opened = _store(store, _space(remote, space, batch))
            added = add_vectors(opened, batch, _COLUMN, normalise=True, progress=False)
            report.rows += len(batch)
            _tally(report.added, added)
            progress(f"{report.rows:,} rows came down")
    report.unmapped = max(0, remote.total - report.rows)
    report.seconds = report.added.seconds = time.perf_counter() - started
    return report


def _batches(remote: RemoteDataset) -> Iterator[pa.Table]:
    """Yield the newest map's rows, several tiles at once, as a table that a store takes."""
    tiles: list[pa.Table] = []
    seen: set[str] = set()
    for tile in read_tiles(remote, remote.maps[-1]):
        ids = [str(value) for value in tile.column("id").to_pylist()]
        if len(set(ids)) < len(ids) or not seen.isdisjoint(ids):
            raise AtlasError(f"the map of {remote.identifier} shows an id twice; make a new map")
        seen.update(ids)
        tiles.append(tile)
        if sum(map(len, tiles)) >= _BATCH_ROWS:
            yield _storable(pa.concat_tables(tiles, promote_options="permissive"))
            tiles = []
    if tiles:
        yield _storable(pa.concat_tables(tiles, promote_options="permissive"))


def _storable(tile: pa.Table) -> pa.Table:
    """Undo what Atlas needed: float16 vectors, "null" for missing texts, times without a zone."""
    if VECTORS not in tile.column_names:
        raise AtlasError("the map has no vectors")
    columns: dict[str, Any] = {}
    for name in tile.column_names:
        column = tile.column(name)
        if name == VECTORS:
            columns[_COLUMN] = column.cast(pa.list_(pa.float32(), column.type.list_size))
        elif pa.types.is_string(column.type) and name != "id":
            columns[name] = pc.if_else(pc.equal(column, NOTHING), None, column)
        elif pa.types.is_timestamp(column.type) and column.type.tz is None:
            columns[name] = column.cast(pa.timestamp("us", tz="UTC"))
        else:
            columns[name] = column
    return pa.table(columns)


def _space(remote: RemoteDataset, given: Space | str | None, batch: pa.Table) -> Space:
    """Say where the vectors lie: as the caller says, or as the dataset's description does."""
    dim = batch.schema.field(_COLUMN).type.list_size
    if isinstance(given, str):
        given = Space.given(given, dim)
    if given is None and remote.meta.get("modality") != "image":
        given = Space.from_text(str(remote.meta.get("description") or ""))
    if given is None:
        raise InputError(
            f"nothing says what made the vectors of {remote.identifier} ({dim}-d): name the model (--model nomic) "
            "or, for vectors of your own, a space (--space NAME)"
        )
    if given.dim != dim:
        raise InputError(f"the space {given} has {given.dim} dimensions, {remote.identifier} has {dim}")
    return given.rounded()


def _store(store: EmbedStore | str | os.PathLike[str], space: Space) -> EmbedStore:
    """Open or make the store that the vectors go into."""
    if not isinstance(store, EmbedStore):
        path = Path(store)
        if not (path / "store.json").exists():
            return EmbedStore.create(path, space=space)
        store = EmbedStore.open(path)
    store.space.require(space, "what comes from Atlas")
    return store


def _tally(total: AddReport, added: AddReport) -> None:
    """Add up what the batches brought."""
    for name, value in vars(added).items():
        if type(value) is int and name not in ("images", "version"):
            setattr(total, name, getattr(total, name) + value)
    total.images, total.version = added.images, added.version
