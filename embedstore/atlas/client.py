"""The official client's own classes, made safe without changing them, and one dataset of Atlas as we use it.

Each of the client's methods is copied with other globals (see `nomic_transport.with_globals`): `AtlasTransport` in
the place of ``requests``, so that there are timeouts and only good answers get through; a logger that turns warnings
of an upload into errors, because the client warns where it changes or drops values; no progress bars. The client's
code does the rest: how an upload is validated, encoded and addressed, how maps are made and their tiles fetched.
When to send what is `apply`'s.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.atlas.answers import AtlasTransport, Limits, NotFoundError
from embedstore.credentials import Key, require_key
from embedstore.embedders.nomic_transport import PLACEHOLDER, with_globals
from embedstore.errors import AtlasError, EmbedStoreError, InputError

PREFIX = "atlas://"
LOOK_UP = 500
"""Ids asked for in one request."""

_UPLOADING = ("add_data", "_add_blobs", "_add_embeddings", "_add_data", "_validate_and_correct_arrow_upload")
_log = logging.getLogger("embedstore.atlas")


class MissingDatasetError(AtlasError):
    """There is no such dataset, and it was not to be made."""


def parse_identifier(name: str) -> str:
    """Return ``organisation/dataset``, without the ``atlas://`` before it.

    Raises
    ------
    InputError
        It is not of this form.
    """
    identifier = name.removeprefix(PREFIX).strip("/")
    if identifier.count("/") != 1 or not all(part.strip() for part in identifier.split("/")):
        raise InputError(f"a dataset of Atlas is named organisation/dataset; found {name!r}")
    return identifier


class RemoteDataset:
    """A dataset of Atlas.

    Parameters
    ----------
    official : nomic.AtlasDataset
        As `open_dataset` makes it.
    transport : AtlasTransport
    """

    def __init__(self, official: Any, transport: AtlasTransport) -> None:
        self.official, self.transport = official, transport

    @property
    def meta(self) -> dict[str, Any]:
        """What Atlas said of it at the last `refresh`."""
        return dict(self.official.meta)

    @property
    def id(self) -> str:
        """The dataset's UUID: another one when it was deleted and made again."""
        return str(self.official.id)

    @property
    def identifier(self) -> str:
        """``organisation/dataset`` as Atlas writes it."""
        return str(self.official.identifier)

    @property
    def total(self) -> int:
        """Number of rows."""
        return int(self.official.total_datums or 0)

    @property
    def id_field(self) -> str | None:
        """Name of the column of ids; None when Atlas numbers the rows itself."""
        name = self.official.id_field
        return None if name is None else str(name)

    @property
    def schema(self) -> pa.Schema | None:
        """The columns, the private ones too; None before the first row."""
        return self.official.schema

    @property
    def locked(self) -> bool:
        """Whether it takes no rows now."""
        return bool(self.official.meta["insert_update_delete_lock"])

    @property
    def link(self) -> str:
        """Where people look at it."""
        return f"{self.official.web_path}/data/{self.identifier}"

    @property
    def maps(self) -> list[str]:
        """Ids of the indices that have a map, in the order in which Atlas lists them."""
        return [index["id"] for index in self.meta["atlas_indices"] if index["projections"]]

    def refresh(self) -> RemoteDataset:
        """Ask Atlas anew."""
        with told("looking at the dataset"):
            self.official._latest_dataset_state()
        self.official._schema = None
        return self

    def rows_of(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the rows that Atlas has of `ids`, by id, without vectors."""
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), LOOK_UP):
            found |= self._rows_of(list(ids[start : start + LOOK_UP]))
        return found

    def _rows_of(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """Ask for rows by id; where Atlas answers "not found" for all because of some, ask for halves."""
        try:
            with told("looking rows up"):
                rows = self.official.get_data(ids)
        except NotFoundError as error:
            if "project" in str(error).partition(": ")[2].lower():
                raise AtlasError(f"the dataset {self.identifier} is gone: {error}") from None
            middle = len(ids) // 2
            return self._rows_of(ids[:middle]) | self._rows_of(ids[middle:]) if middle else {}
        asked = set(ids)
        named = {str(row.get(self.id_field)): row for row in rows}
        return {name: row for name, row in named.items() if name in asked}

    def add(self, table: pa.Table, vectors: NDArray[np.float16]) -> None:
        """Send rows with their vectors in one request; what became of them is to be asked after any outcome."""
        with told("sending rows"):
            self.official.add_data(data=table, embeddings=vectors, pbar=_NoBar())

    def add_pictures(self, table: pa.Table, pictures: Sequence[bytes]) -> None:
        """Send pictures, then the rows; no row is sent unless every picture has arrived."""
        with told("sending pictures"):
            self.official.add_data(data=table, blobs=list(pictures), pbar=_NoBar())


def connect(key: Key | str | None, limits: Limits) -> AtlasTransport:
    """Return the way to Atlas, with the key that is given or configured; nothing is sent yet."""
    return AtlasTransport(key if isinstance(key, Key) else require_key(key), limits)


def open_dataset(
    transport: AtlasTransport,
    identifier: str,
    *,
    create: dict[str, Any] | None = None,
    tiles: Path | None = None,
) -> RemoteDataset:
    """Open a dataset of Atlas.

    Parameters
    ----------
    transport : AtlasTransport
    identifier : str
        ``organisation/dataset``; Atlas writes the latter in small letters, digits and ``-``.
    create : dict, optional
        Make it if it is not there, with these `description` and `is_public`.
    tiles : Path, optional
        Folder for the files of its maps. The client's own, in the home directory, is never used: it keeps old
        files for ever.

    Raises
    ------
    MissingDatasetError
        It is not there, and `create` is not given.
    """
    options = {"unique_id_field": "id", **(create or {})}
    with told(f"opening {identifier}"):
        official = _official_class(transport, create is not None, tiles)
        return RemoteDataset(official(identifier=identifier, **options), transport)


def _official_class(transport: AtlasTransport, may_create: bool, tiles: Path | None) -> Any:
    """Return the client's class with our globals in its methods; it makes no dataset unless allowed."""
    from nomic import (
        dataset as theirs,
    )  # it imports pandas and more: half a second that only Atlas's users pay
    from nomic import utils
    from tqdm import tqdm

    ours: dict[str, Any] = {
        "requests": transport,
        "logger": _log,
        "tqdm": functools.partial(tqdm, disable=True),
        "print": lambda *_: None,
        "download_feather": with_globals(utils.download_feather, requests=transport),
    }
    destination = property(lambda projection: _folder(tiles) / projection.id)
    ours["AtlasProjection"] = type(
        "Projection",
        (theirs.AtlasProjection,),
        {**_copies(theirs.AtlasProjection, ours), "tile_destination": destination},
    )

    def lookup(self: Any, identifier: str) -> Any:
        """Only a plain "not found" means that there is none; the client takes every failure for it."""
        try:
            return methods["_get_dataset_by_slug_identifier"](self, identifier)
        except NotFoundError:
            return None

    def refuse(self: Any, identifier: str, **_: Any) -> NoReturn:
        raise MissingDatasetError(
            f"there is no dataset {identifier} in Atlas. Check the name; or make it: --create (create=True)"
        )

    login = {**transport.key.tenant, "token": PLACEHOLDER, "expires": None}
    methods = _copies(theirs.AtlasClass, ours)
    account = type(
        "Account",
        (theirs.AtlasClass,),
        {**methods, "credentials": login, "_get_dataset_by_slug_identifier": lookup},
    )
    own = _copies(theirs.AtlasDataset, ours)
    if not may_create:
        own["_create_project"] = refuse
    return type("Dataset", (theirs.AtlasDataset, account), own)


def _copies(cls: type, ours: dict[str, Any]) -> dict[str, Any]:
    """Return copies of a class's methods and properties that find `ours` among their globals."""
    made: dict[str, Any] = {}
    for name, member in vars(cls).items():
        names = {**ours, "logger": _Strict()} if name in _UPLOADING else ours
        if isinstance(member, FunctionType) and not hasattr(member, "__wrapped__"):
            made[name] = with_globals(member, **names)
        elif isinstance(member, property):
            made[name] = property(with_globals(member.fget, **names))
    return made


def _folder(tiles: Path | None) -> Path:
    if tiles is None:
        raise AtlasError("this dataset was not opened to read maps")
    return tiles


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn what the client raises into an error that says what was being done."""
    try:
        yield
    except EmbedStoreError:
        raise
    except Exception as error:
        raise AtlasError(f"{doing}: the Nomic client raised {type(error).__name__}: {error}") from error


class _Strict:
    """The logger of an upload: a warning means that values are changed or rows are lost."""

    def _raise(self, message: object) -> NoReturn:
        raise AtlasError(f"the Nomic client would lose or change data: {message}")

    warning = error = _raise

    def _pass(self, message: object) -> None:
        """Nothing to be told."""

    info = debug = _pass


class _NoBar:
    """A progress bar that nobody sees; given one, the client makes none and prints no verdict."""

    def update(self, number: int = 1) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to end."""


Report = Callable[[str], None]


def silent(text: str) -> None:
    """Report progress to nobody."""
