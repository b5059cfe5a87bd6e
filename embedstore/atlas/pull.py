"""A dataset of Atlas -> rows of a store: vectors and metadata come down, and nothing is embedded again.

Vectors are read from a map, whose order is its own; each is stored with its id. What Atlas has rounded to float16, or
embedded itself, is said in the store's space. Reading the map is left to `maps`, having columns back as they were to
`restoring`, storing vectors to the store's `add`.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore.atlas import description
from embedstore.atlas.answers import AtlasTransport
from embedstore.atlas.client import PREFIX, Progress, RemoteDataset, open_dataset, parse_identifier, silent
from embedstore.atlas.columns import FROM_THE_MAP
from embedstore.atlas.description import Described
from embedstore.atlas.maps import read_tiles, wait_until_unlocked
from embedstore.atlas.restoring import COLUMN, restored
from embedstore.embedders.nomic_atlas import SPACE as BY_ATLAS
from embedstore.errors import AtlasError, InputError, SpaceMismatchError, spelt
from embedstore.ingest.reports import AddReport
from embedstore.settings import Key
from embedstore.space import Space
from embedstore.storage.folder import StoreFolder
from embedstore.store import EmbedStore
from embedstore.wording import counted


@dataclass
class PullReport:
    """What came down."""

    dataset: str
    rows: int = 0  # of the map
    unmapped: int = 0  # of the dataset, on no map yet, so that they could not be read
    added: AddReport = field(default_factory=AddReport)  # what the store made of them
    notes: dict[str, str] = field(default_factory=dict)  # by column: what is not as it was where it came from
    found: list[str] = field(default_factory=list)  # columns with what the map has found
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "added": self.added.to_dict()}

    def __str__(self) -> str:
        lines = [f"{self.dataset}: {counted(self.rows, 'row')} came down, rounded to float16 by Atlas", str(self.added)]
        for name, note in self.notes.items():
            lines.append(f"column {name}: {note}")
        if self.found:
            lines.append(f"of the map there are the columns {', '.join(self.found)}")
        if self.unmapped:
            lines.append(
                f"{counted(self.unmapped, 'row')} on no map yet stayed there: make a new map "
                "(embedstore sync atlas STORE ORG/NAME --index) and run the same command again"
            )
        return "\n".join(lines)


def pull(
    store: EmbedStore | str | os.PathLike[str],
    name: str,
    *,
    space: Space | str | None = None,
    map: bool = False,
    key: Key | str | None = None,
    timeout: float = 600.0,
    progress: Progress = silent,
) -> PullReport:
    """Take a dataset's vectors and metadata into a store.

    Parameters
    ----------
    store : EmbedStore or path
        A path of no store is made one.
    name : str
        ``atlas://organisation/dataset``, or ``atlas://dataset`` for one of the key's own organisation.
    space : Space or str, optional
        What made the vectors, or a name for it. Datasets that `apply_sync` made say it themselves.
    map : bool
        Also take what the map has found, as columns: see `maps.found_columns`.
    key : Key or str, optional
    timeout : float
        Seconds for each step.
    progress : callable
        Is told how things go; without it waits are warnings of the log.

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
    transport = AtlasTransport(key, timeout, None if progress is silent else progress)
    with tempfile.TemporaryDirectory() as folder:
        remote = open_dataset(transport, parse_identifier(name), tiles=Path(folder))
        if not remote.maps:
            raise AtlasError(
                f"{remote.identifier} has no map, and Atlas gives vectors out by its maps only. Make one "
                "with `embedstore sync atlas STORE ORG/NAME --index`, or in Atlas itself"
            )
        wait_until_unlocked(remote)
        described = description.read(remote.meta.get("description"))
        report = PullReport(remote.identifier)
        report.notes = dict.fromkeys(described.unsent, "it could not be sent, so it stayed where it was")
        tables = _tables(remote, described, report, progress, found=map)
        first = next(tables, None)
        if first is not None:
            opened = store_for(store, _space(remote, described, space, first), "what comes from Atlas")
            report.added = opened.add(
                itertools.chain([first], tables), embedding_column=COLUMN, normalise=True, progress=False
            )
    report.rows = report.added.found
    report.unmapped = max(0, remote.total - report.rows)
    report.seconds = report.added.seconds = time.perf_counter() - started
    return report


def _tables(
    remote: RemoteDataset, described: Described, report: PullReport, progress: Progress, *, found: bool
) -> Iterator[pa.Table]:
    """Yield the newest map's rows, tile by tile, as tables that a store takes."""
    seen: set[str] = set()
    for tile in read_tiles(remote, remote.maps[-1], found=found):
        ids = [str(value) for value in tile.column("id").to_pylist()]
        if len(set(ids)) < len(ids) or not seen.isdisjoint(ids):
            raise AtlasError(f"the map of {remote.identifier} shows an id twice; make a new map")
        seen.update(ids)
        progress(f"{counted(len(seen), 'row')} came down")
        rows = restored(tile, described, report.notes)
        report.found = [name for name in rows.column_names if name.startswith(FROM_THE_MAP)]
        if "uri" not in rows.column_names:
            rows = rows.append_column("uri", pa.array([f"{PREFIX}{remote.identifier}#{name}" for name in ids]))
        yield rows


def _space(remote: RemoteDataset, described: Described, given: Space | str | None, rows: pa.Table) -> Space:
    """Say where the vectors lie: as the caller says, or as the dataset's description does.

    Pictures were embedded by Atlas, whatever the description of an earlier version says of the store.
    """
    dim = rows.schema.field(COLUMN).type.list_size
    if isinstance(given, str):
        given = Space.given(given, dim)
    if remote.meta.get("modality") == "image" and described.space is not None:
        if given is not None and given.rounded() != BY_ATLAS:
            raise SpaceMismatchError(
                f"the pictures of {remote.identifier} were embedded by Atlas itself, in the space {BY_ATLAS}, from "
                f"files of at most 512 pixels; that is not {given}, and the two are not mixed"
            )
        given = BY_ATLAS
    elif given is None:
        given = described.space
    if given is None:
        raise InputError(
            f"nothing says what made the vectors of {remote.identifier} ({dim}-d): name "
            + spelt(
                "the space, such as space=NomicAPIEmbedder.space, or a name of your own for it",
                "the model (--model nomic) or, for vectors of your own, a space (--space NAME)",
            )
        )
    if given.dim != dim:
        raise InputError(f"the space {given} has {given.dim} dimensions, {remote.identifier} has {dim}")
    return given.rounded()


def store_for(store: EmbedStore | str | os.PathLike[str], space: Space, what: str) -> EmbedStore:
    """Open or make the store that vectors of a space go into; SpaceMismatchError names `what` where it has another."""
    if not isinstance(store, EmbedStore):
        if not StoreFolder.is_at(store):
            return EmbedStore.create(store, space=space)
        store = EmbedStore.open(store)
    store.space.require(space, what)
    return store
