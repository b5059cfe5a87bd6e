"""The official client's own classes, made safe without changing them, and one dataset of Atlas as we use it.

Each of the client's methods is copied with other globals (see `nomic_transport.with_globals`): `AtlasTransport` in
the place of ``requests``, so that there are timeouts and only good answers get through; a logger that turns warnings
of an upload into errors, because the client warns where it changes or drops values; no progress bars. The client's
code does the rest: how an upload is validated, encoded and addressed, how maps are made and their tiles fetched.
When to send what is left to `apply`, what an answer means to `answers`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any, NoReturn

import pyarrow as pa
from numpy.typing import NDArray

from embedstore.atlas.answers import AtlasTransport, NotFoundError
from embedstore.embedders.nomic_transport import with_globals
from embedstore.errors import AtlasError, EmbedStoreError, InputError, spelt

PREFIX = "atlas://"
LOOK_UP = 500  # ids asked for in one request
PICTURE_MODEL = "nomic-embed-vision-v1.5"  # embeds the pictures of a dataset, in Atlas itself

Progress = Callable[[str], None]  # is told in words how things go

_UPLOADING = ("add_data", "_add_blobs", "_add_embeddings", "_add_data", "_validate_and_correct_arrow_upload")
_log = logging.getLogger("embedstore.atlas")


class MissingDatasetError(AtlasError):
    """There is no such dataset, and it was not to be made; `identifier` is its whole name."""

    def __init__(self, message: str, identifier: str) -> None:
        super().__init__(message)
        self.identifier = identifier


def silent(text: str) -> None:
    """Report progress to nobody."""


def parse_identifier(name: str) -> str:
    """Return ``organisation/dataset``, or ``dataset`` alone, without the ``atlas://`` before it.

    A dataset alone is one of the key's own organisation. InputError where it is no such name, or one of which Atlas
    would keep no letter.
    """
    identifier = name.removeprefix(PREFIX).strip("/")
    parts = identifier.split("/")
    if len(parts) > 2 or not all(part.strip() for part in parts) or not any(map(str.isalnum, parts[-1])):
        raise InputError(f"a dataset of Atlas is named dataset or organisation/dataset; found {name!r}")
    return identifier


class RemoteDataset:
    """A dataset of Atlas, around the client's own object (`official`); made by `open_dataset`.

    `id` is its UUID, another one when it was deleted and made again; `identifier` is ``organisation/dataset`` as Atlas
    writes it; `id_field` names the column of ids, None when Atlas numbers the rows itself; `link` is for people.
    """

    def __init__(self, official: Any, transport: AtlasTransport) -> None:
        self.official, self.transport = official, transport
        self.id, self.identifier = str(official.id), str(official.identifier)
        self.id_field: str | None = official.id_field
        self.link = f"{official.web_path}/data/{self.identifier}"

    @property
    def meta(self) -> dict[str, Any]:
        """What Atlas said of it at the last `refresh`."""
        return dict(self.official.meta)

    @property
    def total(self) -> int:
        """Number of rows."""
        return int(self.official.total_datums or 0)

    @property
    def schema(self) -> pa.Schema | None:
        """The columns, the private ones too; None before the first row."""
        return self.official.schema

    @property
    def locked(self) -> bool:
        """Whether it takes no rows now."""
        return bool(self.official.meta["insert_update_delete_lock"])

    @property
    def maps(self) -> list[str]:
        """Ids of the indices that have a map, in the order in which Atlas lists them."""
        return [index["id"] for index in self.meta["atlas_indices"] if index["projections"]]

    def refresh(self) -> RemoteDataset:
        """Ask Atlas anew."""
        with explained("looking at the dataset"):
            self.official._latest_dataset_state()
        self.official._schema = None
        return self

    def rows_of(self, ids: Sequence[str], progress: Progress | None = None) -> dict[str, dict[str, Any]]:
        """Return the rows that Atlas has of `ids`, by id, without vectors.

        With `progress`, which is told how things go, each request is a step of its own; else all are of this one.
        """
        rows: dict[str, dict[str, Any]] = {}
        for number, start in enumerate(range(0, len(ids), LOOK_UP), 1):
            if progress is not None:
                self.transport.begin()
            rows |= self._rows_of(list(ids[start : start + LOOK_UP]))
            if progress is not None and number % 20 == 0:
                progress(f"looked up {start + LOOK_UP:,} of {len(ids):,} ids")
        return rows

    def _rows_of(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """Ask for rows by id; where Atlas answers "not found" for all because of some, ask for halves."""
        try:
            with explained("looking rows up"):
                rows = self.official.get_data(ids)
        except NotFoundError as error:
            if "project" in str(error).partition(": ")[2].lower():
                raise AtlasError(f"the dataset {self.identifier} is gone: {error}") from None
            middle = len(ids) // 2
            return self._rows_of(ids[:middle]) | self._rows_of(ids[middle:]) if middle else {}
        asked = set(ids)
        named = {str(row.get(self.id_field)): row for row in rows}
        return {name: row for name, row in named.items() if name in asked}

    def delete_rows(self, ids: Sequence[str]) -> None:
        """Ask Atlas to delete rows, in one request; whether they are gone is to be looked up.

        The official client had this (``delete_data``) and has it no more, but Nomic's published types still name the
        route. Tried against the stand-in only. Raises RefusedError where Atlas does not do it.
        """
        official = self.official
        with explained("deleting rows"):
            self.transport.post(
                f"{official.atlas_api_path}/v1/project/data/delete",
                headers=official.header,
                json={"project_id": self.id, "datum_ids": list(ids)},
            )

    def delete(self) -> None:
        """Delete the dataset, with its rows and maps."""
        with explained("deleting the dataset"):
            self.official._delete_project_by_id(self.id)

    def order_map(self, topic_model: Any) -> None:
        """Order a map of all rows; `topic_model` is what the client's ``create_index`` takes under that name.

        Pictures are embedded by Nomic Embed Vision v1.5, as the client's ``map_data`` has it; its ``create_index``
        would name the model for texts.
        """
        options = {"embedding_model": PICTURE_MODEL} if self.meta["modality"] == "image" else {}
        with explained("ordering a map"):
            self.official.create_index(name=self.meta["slug"], topic_model=topic_model, **options)

    def add(self, table: pa.Table, load: NDArray[Any]) -> None:
        """Send rows with their float16 vectors in one request, or with pictures (an array of objects), which go first.

        No row is sent unless every picture has arrived. What became of the rows is to be asked after any outcome.
        """
        from tqdm import tqdm

        hidden = tqdm(total=0, disable=True)  # given a bar, the client makes none and prints no verdict
        if load.dtype == object:
            with explained("sending pictures"):
                self.official.add_data(data=table, blobs=list(load), pbar=hidden)
        else:
            with explained("sending rows"):
                self.official.add_data(data=table, embeddings=load, pbar=hidden)


def open_dataset(
    transport: AtlasTransport, identifier: str, *, create: dict[str, Any] | None = None, tiles: Path | None = None
) -> RemoteDataset:
    """Open ``organisation/dataset``, or a dataset of the key's own organisation by its name alone.

    Atlas writes a dataset's name in small letters, digits and ``-``.

    `create`, a `description` and `is_public`, makes it if it is not there; else MissingDatasetError. `tiles` is a
    folder for the files of its maps: the client's own, in the home directory, is never used, as it keeps old ones.
    """
    options = {"unique_id_field": "id", **(create or {})}
    with explained(f"opening {identifier}"):
        official = _official_class(transport, create is not None, tiles)
        return RemoteDataset(official(identifier=identifier, **options), transport)


def _official_class(transport: AtlasTransport, may_create: bool, tiles: Path | None) -> Any:
    """Return the client's class with our globals in its methods; it makes no dataset unless allowed."""
    # Pandas comes with it: half a second that only Atlas's users pay.
    from nomic import dataset as theirs
    from nomic import utils
    from tqdm import tqdm

    ours: dict[str, Any] = {
        "requests": transport,
        "logger": _log,
        "tqdm": functools.partial(tqdm, disable=True),
        "print": lambda *_: None,
        "download_feather": with_globals(utils.download_feather, requests=transport),
    }
    topics = theirs.AtlasMapTopics
    ours["AtlasMapTopics"] = type("Topics", (topics,), _copies(topics, ours))
    projections = _copies(theirs.AtlasProjection, ours)
    projections["tile_destination"] = property(lambda projection: _folder(tiles) / projection.id)
    ours["AtlasProjection"] = type("Projection", (theirs.AtlasProjection,), projections)

    def lookup(self: Any, identifier: str) -> Any:
        """Only a plain "not found" means that there is none; the client takes every failure for it."""
        try:
            return methods["_get_dataset_by_slug_identifier"](self, identifier)
        except NotFoundError:
            return None

    def refuse(self: Any, identifier: str, **_: Any) -> NoReturn:
        raise MissingDatasetError(
            f"there is no dataset {identifier} in Atlas. "
            f"Check the name; or make it with {spelt('create=True', '--create')}",
            identifier,
        )

    methods = _copies(theirs.AtlasClass, ours)
    known = {**methods, "credentials": transport.login, "_get_dataset_by_slug_identifier": lookup}
    account = type("Account", (theirs.AtlasClass,), known)
    own = _copies(theirs.AtlasDataset, ours)
    if not may_create:
        own["_create_project"] = refuse
    return type("Dataset", (theirs.AtlasDataset, account), own)


def _copies(cls: type, ours: dict[str, Any]) -> dict[str, Any]:
    """Return copies of a class's methods and properties that find `ours` among their globals."""
    copies: dict[str, Any] = {}
    for name, member in vars(cls).items():
        names = {**ours, "logger": _Strict()} if name in _UPLOADING else ours
        if name == "create_index":  # it sleeps for a map that is not listed yet; `maps` waits by itself
            names = {**ours, "time": _NoTime()}
        if isinstance(member, FunctionType) and not hasattr(member, "__wrapped__"):
            copies[name] = with_globals(member, **names)
        elif isinstance(member, property):
            copies[name] = property(with_globals(member.fget, **names))
    return copies


def _folder(tiles: Path | None) -> Path:
    if tiles is None:
        raise AtlasError("this dataset was not opened to read maps")
    return tiles


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn what the client raises into an error that says what was being done."""
    try:
        yield
    except EmbedStoreError:
        raise
    except Exception as error:
        raise AtlasError(f"{doing}: the Nomic client raised {type(error).__name__}: {error}") from error


class _NoTime:
    """The clock of a method that is not to sleep."""

    def sleep(self, seconds: float) -> None:
        """Return at once."""


class _Strict:
    """The logger of an upload: a warning means that values are changed or rows are lost."""

    def warning(self, message: object) -> NoReturn:
        raise AtlasError(f"the Nomic client would lose or change data: {message}")

    def info(self, message: object) -> None:
        """Nothing is lost: nothing to say."""

    error, debug = warning, info
