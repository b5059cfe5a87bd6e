"""Maps of a dataset: ordered once, waited for, and their tiles read back as tables.

An order is in the ledger before it leaves, so that after a kill, a lost answer or a timeout the next sync finds the
map that is being made, waits for it and orders no other. The order of a map's rows is its own, but the files of one
tile agree with each other, so each row of a tile comes back with its id, its vector and its metadata. What becomes of
the rows is left to `pull` and `compare`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyarrow import feather

from embedstore.atlas.answers import LockedError, NotFoundError, Pauses
from embedstore.atlas.client import RemoteDataset, explained
from embedstore.atlas.columns import FROM_THE_MAP, VECTORS
from embedstore.atlas.confirmations import Confirmations, Order
from embedstore.embedders.transport import PassingError
from embedstore.errors import AtlasError, EmbedStoreError, spelt

FEWEST_ROWS = 20  # Atlas makes no map of fewer rows

_IDS = "datum_id"
_LOST: Final = 3600.0  # seconds after which a map that was ordered and is not listed will not come any more
_PLACES: Final = ("x", "y")
_TOPIC: Final = "_topic_depth_"
_NUMBERED: Final = "_int"


def wait_until_unlocked(remote: RemoteDataset) -> None:
    """Wait until the dataset takes rows, as it takes none while a map is made; AtlasError after a whole step."""
    pauses = Pauses(remote.transport, remote.transport.step)
    while True:
        remote.transport.begin()
        if not remote.refresh().locked:
            remote.transport.begin()
            return
        if pauses.attempts == 1:
            seconds = f"{remote.transport.step:.0f} s"
            remote.transport.tell(
                f"waiting for at most {seconds}: {remote.identifier} is locked while Atlas makes a map"
            )
        if not pauses.wait():
            raise AtlasError(
                f"{remote.identifier} has been locked for {pauses.waited:.0f} s, as Atlas makes a map of it; run again "
                f"later, or wait longer with {spelt('timeout=', '--timeout')}"
            )


def ensure_map(remote: RemoteDataset, confirmations: Confirmations, topic_model: Any = False) -> str:
    """Make a map of all rows, unless there is one; return what became of it, with its link.

    A map that was ordered before and is not finished is waited for, in Atlas's word or the ledger's, whoever ordered
    it; another is ordered only if that one shows other rows, or other vectors. `topic_model` is what the client's
    ``create_index`` takes. AtlasError where Atlas refuses, fails, or takes longer than a step.
    """
    unfinished = [order for order in confirmations.orders(remote.id) if not order.built and not order.given_up]
    for order in unfinished:
        _finish(remote, confirmations, order)
    rows = remote.refresh().total
    if rows < FEWEST_ROWS:
        raise AtlasError(f"Atlas makes maps of at least {FEWEST_ROWS} rows; {remote.identifier} has {rows}")
    state, topics = confirmations.known(remote.id).state, json.dumps(topic_model) if topic_model else ""
    orders = confirmations.orders(remote.id)
    waited = {order.id for order in unfinished}
    for order in reversed(orders):
        alike = (order.rows, order.state) == (rows, state) and topics in ("", order.topics)
        if order.built and alike and order.index in remote.maps:
            made = "made" if order.id in waited else "there is one of these rows already"
            return f"{made}: {remote.link}/map"
    others = [index for index in _indices(remote) if index not in {order.index for order in orders}]
    under_way = remote.locked and bool(others) and _stage(remote, others[-1]) != "Completed"
    order = confirmations.ordering(
        remote.id, rows, state, others[:-1] if under_way else _indices(remote), "" if under_way else topics
    )
    if not under_way:  # the dataset takes no rows while a map is made, so that one under way has all that are there
        _send_order(remote, topic_model)
    confirmations.about_order(remote.id, order, accepted=True)
    _finish(remote, confirmations, order)
    return f"made: {remote.link}/map"


def _indices(remote: RemoteDataset) -> list[str]:
    """Return the ids of all indices, with a map or without one yet."""
    return [str(index["id"]) for index in remote.meta["atlas_indices"]]


def _send_order(remote: RemoteDataset, topic_model: Any) -> None:
    """Order a map, once: after a failure look whether it is being made before ordering it again."""
    wait_until_unlocked(remote)
    before = set(_indices(remote))
    pauses = Pauses(remote.transport)
    while True:
        failure: EmbedStoreError | None = None
        try:
            remote.order_map(topic_model)
            return
        except LockedError as error:
            wait_until_unlocked(remote)
            failure = error
        except PassingError as error:
            failure = error
        lag = remote.transport.lag if isinstance(failure, PassingError) else 0.0
        if _newest(remote, before, lag) is not None:
            return
        if not pauses.wait(getattr(failure, "pause", 0.0), str(failure)):
            raise AtlasError(f"Atlas lists no new map: {failure}")


def _newest(remote: RemoteDataset, before: set[str], seconds: float) -> str | None:
    """Return the index that is new; a server that may show it late is asked for so long, and while it makes one."""
    pauses = Pauses(remote.transport, seconds)
    while True:
        remote.transport.begin()
        new = [index for index in _indices(remote.refresh()) if index not in before]
        if new:
            return new[-1]
        if remote.locked:
            wait_until_unlocked(remote)
        elif not pauses.wait():
            return None


def _finish(remote: RemoteDataset, confirmations: Confirmations, order: Order) -> bool:
    """Wait until a map that was ordered can be read, and write down what becomes of it; False if there is none.

    AtlasError if Atlas fails, or takes longer than a step.
    """
    known = {other.index for other in confirmations.orders(remote.id) if other.index and other.id != order.id}
    if order.index is None:
        transport = remote.transport
        index = _newest(remote, known.union(order.before), transport.step if order.accepted else transport.lag)
        if index is None:
            if order.accepted and time.time() - order.at < _LOST:
                raise AtlasError(
                    f"Atlas has taken the order of a map and does not list it yet: look at {remote.link}. The same "
                    "command waits for it, and orders no other for an hour"
                )
            confirmations.about_order(remote.id, order, given_up=True)
            return False
        confirmations.about_order(remote.id, order, index=index)
    elif order.index not in _indices(remote.refresh()):
        confirmations.about_order(remote.id, order, given_up=True)  # somebody has deleted it
        return False
    try:
        _wait_until_built(remote, str(order.index))
    except FailedMapError:
        confirmations.about_order(remote.id, order, given_up=True)
        raise
    confirmations.about_order(remote.id, order, built=True)
    return True


class FailedMapError(AtlasError):
    """Atlas could not make a map."""


def _wait_until_built(remote: RemoteDataset, index_id: str) -> None:
    """Wait until a map can be read; AtlasError if Atlas fails or takes longer than a step."""
    transport = remote.transport
    pauses, told = Pauses(transport, transport.step), ""
    while True:
        transport.begin()
        stage = _stage(remote, index_id)
        if stage == "Completed" and index_id in remote.refresh().maps and not remote.locked:
            return
        if any(word in stage.lower() for word in ("fail", "error")):
            raise FailedMapError(f"Atlas could not make the map: its stage is {stage!r}; see {remote.link}")
        if stage != told:
            left = max(0.0, transport.step - pauses.waited)
            transport.tell(f"waiting for at most {left:.0f} s: Atlas makes the map of {remote.identifier} ({stage})")
            told = stage
        if not pauses.wait():
            raise AtlasError(
                f"the map is not finished after {pauses.waited:.0f} s (stage {stage!r}); Atlas goes on with it: "
                f"{remote.link}. The same command waits for it, and orders no other; {spelt('timeout=', '--timeout')} "
                "says for how long"
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


def read_tiles(
    remote: RemoteDataset, index_id: str, columns: tuple[str, ...] | None = None, *, found: bool = False
) -> Iterator[pa.Table]:
    """Yield a map's tiles as tables with a column ``id`` and others: the dataset's own, vectors too, unless named.

    With `found` there is also what the map has found: the columns of `found_columns`. The dataset must have been
    opened with a folder for tiles. Raises AtlasError where a file is missing, or two files of a tile do not have the
    same number of rows.
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
    names = {ids: "id", **{name: name for name in columns if name in registered}}
    if found:
        names |= {name: safe for name, safe in found_columns(registered).items() if name not in names}
    sidecars = {name: registered[name] for name in names}
    topics = _topic_names(projection) if any(_is_numbered(name) for name in names) else {}
    with explained("fetching the map's files"):
        for sidecar in dict.fromkeys(sidecars.values()):
            projection._download_sidecar(sidecar)
        keys = projection._manifest["key"].to_pylist()
    for key in keys:
        with explained(f"reading the map's tile {key}"):
            tile = _tile(projection.tile_destination, key, sidecars)
        yield _with_topics(tile, topics).rename_columns([names[name] for name in tile.column_names])


def found_columns(registered: Iterable[str]) -> dict[str, str]:
    """Return what a map has found, as a store calls it, by the names of its columns.

    Where each row lies (``map_x``, ``map_y``), its topics from the broadest on (``map_topic_1``, ...), and whether it
    is a duplicate (``map_duplicate``), in which group (``map_duplicate_group``).
    """
    names = {}
    for name in registered:
        if name in _PLACES:
            names[name] = f"{FROM_THE_MAP}{name}"
        elif name.startswith(_TOPIC):
            names[name] = f"{FROM_THE_MAP}topic_{name.removeprefix(_TOPIC).removesuffix(_NUMBERED)}"
        elif name.startswith("_duplicate_class"):
            names[name] = f"{FROM_THE_MAP}duplicate"
        elif name.startswith("_cluster"):
            names[name] = f"{FROM_THE_MAP}duplicate_group"
    return names


def _is_numbered(name: str) -> bool:
    """Tell whether a map's column has numbers of topics in the place of their names."""
    return name.startswith(_TOPIC) and name.endswith(_NUMBERED)


def _topic_names(projection: Any) -> dict[tuple[str, int], str]:
    """Return the names of a map's topics, by their column and number."""
    with explained("reading the map's topics"):
        rows = projection.topics.metadata.to_dict("records")
        return {
            (f"{_TOPIC}{row['depth']}{_NUMBERED}", int(row["topic_id"])): str(row["topic_short_description"])
            for row in rows
        }


def _with_topics(tile: pa.Table, topics: dict[tuple[str, int], str]) -> pa.Table:
    """Put the names of topics in the place of their numbers; one without a name is missing."""
    for place, name in enumerate(tile.column_names):
        if _is_numbered(name):
            texts = [topics.get((name, number)) for number in tile[name].to_pylist()]
            tile = tile.set_column(place, name, pa.array(texts, pa.string()))
    return tile


def _tile(folder: Path, key: str, sidecars: dict[str, str]) -> pa.Table:
    """Join the files of one tile, row by row."""
    files: dict[str, pa.Table] = {}
    for sidecar in dict.fromkeys(sidecars.values()):
        name = f"{key}.{sidecar}.feather" if sidecar else f"{key}.feather"
        files[sidecar] = feather.read_table(folder / name, memory_map=False)
    counts = {sidecar: len(table) for sidecar, table in files.items()}
    if len(set(counts.values())) > 1:
        raise AtlasError(f"the files of the map's tile {key} have different numbers of rows: {counts}")
    return pa.table({name: files[sidecar].column(name) for name, sidecar in sidecars.items()})
