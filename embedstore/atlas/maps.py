"""Maps of a dataset: made and waited for; their tiles read back as tables.

The order of a map's rows is its own, but the files of one tile agree with each other, so each row of a tile comes
back with its id, its vector and its metadata. What becomes of the rows is left to `pull` and `plan`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import feather

from embedstore.atlas.answers import LockedError, NotFoundError, Pauses
from embedstore.atlas.client import Progress, RemoteDataset, explained
from embedstore.atlas.columns import VECTORS
from embedstore.atlas.confirmations import Confirmations
from embedstore.embedders.transport import PassingError
from embedstore.errors import AtlasError, EmbedStoreError, spelt

FEWEST_ROWS = 20  # Atlas makes no map of fewer rows

_IDS = "datum_id"


def wait_until_unlocked(remote: RemoteDataset, progress: Progress) -> None:
    """Wait until the dataset takes rows, as it takes none while a map is made; AtlasError after a whole step."""
    pauses = Pauses(remote.transport, remote.transport.step)
    while True:
        remote.transport.begin()
        if not remote.refresh().locked:
            remote.transport.begin()
            return
        waited = f"{pauses.waited:.0f} s"
        progress(f"{remote.identifier} is locked while Atlas makes a map; waiting, {waited} so far")
        if not pauses.wait():
            raise AtlasError(
                f"{remote.identifier} has been locked for {waited}, as Atlas makes a map of it; run again later, "
                f"or wait longer with {spelt('timeout=', '--timeout')}"
            )


def ensure_map(remote: RemoteDataset, confirmations: Confirmations, progress: Progress) -> str:
    """Make a map of all rows, unless the ledger knows one of as many; return what became of it, with its link.

    No topic model is made: its names come from texts, and a store holds pictures. AtlasError where Atlas refuses,
    fails, or takes longer than a step.
    """
    known = confirmations.mapped(remote.id)
    if any(known.get(index) == remote.total for index in remote.maps):
        return f"there is one of these rows already: {remote.link}/map"
    if remote.refresh().total < FEWEST_ROWS:
        raise AtlasError(f"Atlas makes maps of at least {FEWEST_ROWS} rows; {remote.identifier} has {remote.total}")
    index_id = _ordered(remote, {index["id"] for index in remote.meta["atlas_indices"]}, progress)
    _wait_until_built(remote, index_id, progress)
    confirmations.built(remote.id, index_id, remote.total)
    return f"made: {remote.link}/map"


def _ordered(remote: RemoteDataset, before: set[str], progress: Progress) -> str:
    """Order a map, once: after a failure look whether it is being made before ordering it again."""
    wait_until_unlocked(remote, progress)
    pauses = Pauses(remote.transport)
    while True:
        failure: EmbedStoreError | None = None
        try:
            with explained("ordering a map"):
                remote.official.create_index(name=remote.meta["slug"], topic_model=False)
        except LockedError:
            wait_until_unlocked(remote, progress)
        except PassingError as error:
            failure = error
        new = [index["id"] for index in remote.refresh().meta["atlas_indices"] if index["id"] not in before]
        if new:
            return str(new[-1])
        if not pauses.wait():
            raise AtlasError(f"Atlas lists no new map: {failure or 'it said it was making one'}")


def _wait_until_built(remote: RemoteDataset, index_id: str, progress: Progress) -> None:
    """Wait until a map can be read; AtlasError if Atlas fails or takes longer than a step."""
    pauses = Pauses(remote.transport, remote.transport.step)
    while True:
        remote.transport.begin()
        stage = _stage(remote, index_id)
        if stage == "Completed" and index_id in remote.refresh().maps and not remote.locked:
            return
        if any(word in stage.lower() for word in ("fail", "error")):
            raise AtlasError(f"Atlas could not make the map: its stage is {stage!r}; see {remote.link}")
        waited = f"{pauses.waited:.0f} s"
        progress(f"map: {stage}, {waited} so far")
        if not pauses.wait():
            raise AtlasError(
                f"the map is not finished after {waited} (stage {stage!r}); Atlas goes on with it: {remote.link}"
            )


def _stage(remote: RemoteDataset, index_id: str) -> str:
    """Return what Atlas says of the making of a map."""
    try:
        with explained("asking for the map's progress"):
            return str(_projection(remote, index_id)._status["index_build_stage"])
    except NotFoundError:
        return "not begun"


def _projection(remote: RemoteDataset, index_id: str) -> Any:
    """Return the client's object for a map; NotFoundError if it has none yet."""
    for index in remote.official.indices:
        if index.id == index_id and index.projections:
            return index.projections[0]
    raise NotFoundError(f"the index {index_id} of {remote.identifier} has no map yet")


def ids_on_map(remote: RemoteDataset, index_id: str) -> list[str]:
    """Return the ids of a map's rows, in the map's order."""
    return [str(i) for tile in read_tiles(remote, index_id, ()) for i in tile.column("id").to_pylist()]


def read_tiles(remote: RemoteDataset, index_id: str, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
    """Yield a map's tiles as tables with a column ``id`` and others: the dataset's own, vectors too, unless named.

    The dataset must have been opened with a folder for tiles. Raises AtlasError where a file is missing, or two files
    of a tile do not have the same number of rows.
    """
    remote.transport.begin()
    with explained("reading the map"):
        projection = _projection(remote, index_id)
        registered = dict(projection._registered_columns)
    ids = remote.id_field or next((name for name, sidecar in registered.items() if sidecar == _IDS), None)
    if ids is None or ids not in registered:
        raise AtlasError(f"the map of {remote.identifier} has no column of ids, so its rows cannot be named")
    if columns is None:
        own = set(remote.meta["project_fields"] or ())
        shown = (name for name in registered if name in own and not name.startswith("_") and name != ids)
        columns = (VECTORS, *shown)
    sidecars = {ids: registered[ids], **{name: registered[name] for name in columns if name in registered}}
    with explained("fetching the map's files"):
        for sidecar in dict.fromkeys(sidecars.values()):
            projection._download_sidecar(sidecar)
        keys = projection._manifest["key"].to_pylist()
    for key in keys:
        with explained(f"reading the map's tile {key}"):
            tile = _tile(projection.tile_destination, key, sidecars, ids)
        yield tile


def _tile(folder: Path, key: str, sidecars: dict[str, str], ids: str) -> pa.Table:
    """Join the files of one tile, row by row."""
    files: dict[str, pa.Table] = {}
    for sidecar in dict.fromkeys(sidecars.values()):
        name = f"{key}.{sidecar}.feather" if sidecar else f"{key}.feather"
        files[sidecar] = feather.read_table(folder / name, memory_map=False)
    counts = {sidecar: len(table) for sidecar, table in files.items()}
    if len(set(counts.values())) > 1:
        raise AtlasError(f"the files of the map's tile {key} have different numbers of rows: {counts}")
    columns = {"id" if name == ids else name: files[sidecar].column(name) for name, sidecar in sidecars.items()}
    return pa.table(columns)
