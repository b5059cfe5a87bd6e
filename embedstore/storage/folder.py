"""The store's folder: what lies where, the lock, and every change to the rows.

`StoreFolder` turns a path into the places of a store and into the versions of its rows. Each change is one commit and
returns the version that it made. It asks nothing of a model: questions are `searching`'s business.
"""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from embedstore import files
from embedstore.errors import (
    DamagedStoreError,
    FormatVersionError,
    InputError,
    StoreExistsError,
    StoreLockedError,
    StoreNotFoundError,
    did_you_mean,
    option,
    spelt,
)
from embedstore.space import Space
from embedstore.storage import changes, journal, parts, thumbnails
from embedstore.storage.arrow_columns import pa
from embedstore.storage.bucket import is_url
from embedstore.storage.commits import location
from embedstore.storage.creation import discard, is_free, whole_folder
from embedstore.storage.ledger import Ledger, PaidBatch
from embedstore.storage.older_versions import VacuumReport, only_in
from embedstore.storage.remote_place import CLASSIFIERS, IMAGES, MANIFEST, RemotePlace
from embedstore.storage.rows import Rows
from embedstore.storage.running import Running
from embedstore.storage.table import DeltaFolder, Snapshot
from embedstore.vectors import Mask, Vectors

_log = logging.getLogger("embedstore")

FORMAT_VERSION = 1
_LEDGER = ("ledger.sqlite", "ledger.sqlite-journal")
_NEW = (IMAGES, "index", CLASSIFIERS, *_LEDGER, ".lock", ".running", "failures.csv", thumbnails.FOLDER, MANIFEST)
"""What a store without rows may hold; the last makes a folder a store."""


@functools.cache
def own_columns() -> pa.Schema:
    """Return the columns that every store has, besides ``embedding``."""
    texts = [pa.field(name, pa.string()) for name in ("id", "uri", "content_hash")]
    numbers = [pa.field(name, pa.int64()) for name in ("width", "height")]
    return pa.schema([*texts, *numbers, pa.field("added_at", pa.timestamp("us", tz="UTC"))])


_OLD_FOLDERS = ("queries", "atlas")  # of stores that an earlier version has made; the ledger holds such things now

LOCK_TIMEOUT = 60.0
"""Seconds to wait for another process that writes."""


@dataclass(frozen=True)
class Manifest:
    """The content of ``store.json``, which makes a folder a store.

    Attributes
    ----------
    store_id : str
        32 hex digits, drawn at creation.
    created_at : str
        ISO 8601, UTC.
    space : Space
    """

    store_id: str
    created_at: str
    space: Space

    def to_text(self) -> str:
        """Return what stands in the file."""
        content: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "store_id": self.store_id,
            "created_at": self.created_at,
            "space": self.space.to_dict(),
        }
        return json.dumps(files.sealed(content), indent=2) + "\n"

    @classmethod
    def from_text(cls, text: str | bytes) -> Manifest:
        """Read what `to_text` returned, or an earlier embedstore wrote without a checksum.

        Raises ValueError where it is damaged, FormatVersionError where a newer embedstore wrote it.
        """
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
        if files.is_sealed(content) and not files.is_intact(content):
            raise ValueError("it does not fit its checksum")
        try:
            version = content["format_version"]
            if version > FORMAT_VERSION:
                raise FormatVersionError(
                    f"it has format version {version}; this embedstore reads up to {FORMAT_VERSION}. "
                    "Use a newer embedstore"
                )
            return cls(content["store_id"], content["created_at"], Space.from_dict(content["space"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it lacks {error}" if isinstance(error, KeyError) else str(error)) from error

    def write(self, path: Path) -> None:
        """Write ``store.json`` in one step; from then on the folder is a store."""
        files.replace(path / MANIFEST, self.to_text())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read the manifest of the store at `path`; raises as `StoreFolder.open`."""
        file = path / MANIFEST
        try:
            return cls.from_text(file.read_bytes())
        except FormatVersionError as error:
            raise FormatVersionError(f"{path}: {error}") from error
        except (FileNotFoundError, NotADirectoryError) as error:
            if (path / IMAGES).is_dir():
                raise DamagedStoreError(f"{file} is gone; {_repaired(path)}") from error
            raise StoreNotFoundError(f"{path} is no store: {_what_else(path)}") from error
        except (ValueError, RecursionError, OSError) as error:
            raise DamagedStoreError(f"{file} cannot be read ({error}); {_repaired(path)}") from error


def _manifest_of(remote: RemotePlace) -> Manifest:
    """Read the manifest of a store in a bucket; raises as `StoreFolder.open`."""
    try:
        return Manifest.from_text(remote.bucket.read(MANIFEST))
    except FormatVersionError as error:
        raise FormatVersionError(f"{remote.url}: {error}") from error
    except FileNotFoundError as error:
        if remote.has_parts():
            raise DamagedStoreError(f"{remote.url}/{MANIFEST} is gone; restore it from a copy") from error
        raise StoreNotFoundError(
            f"{remote.url} is no store: there is no {MANIFEST}. {_way(remote.url, 'FOLDER')}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DamagedStoreError(f"{remote.url}/{MANIFEST} cannot be read ({error}); restore it from a copy") from error


def _repaired(path: Path) -> str:
    return f"`embedstore repair {quote(str(path))}` writes it anew from its copy"


def _what_else(path: Path) -> str:
    """Say what there is in the place of a store, and the way to one."""
    if path.exists() and not path.is_dir():
        return "it is a file. Name the folder of a store"
    known = path if path.is_dir() else path.absolute().parent
    stores = sorted(file.parent for file in known.glob(f"*/{MANIFEST}"))
    if not path.is_dir():
        guess = did_you_mean(path.name, [store.name for store in stores])
        return f"it does not exist.{guess} {_way(path, 'FOLDER')}"
    if stores:
        return f"it is a folder without store.json, and has a store in it. Did you mean {str(stores[0])!r}?"
    if is_free(path, _NEW):
        return f"it is a folder without store.json, and empty. {_way(path, 'FOLDER')}"
    return (
        f"it is a folder without store.json, and has other files in it. {_way(_store_beside(path), quote(str(path)))}"
    )


def _way(path: Path | str, source: str) -> str:
    """Say how a store of a source is made at a path."""
    return spelt(
        f"EmbedStore.create({str(path)!r}, model='objects') makes one (or another model), and its `add` fills it",
        f"`embedstore add {quote(str(path))} {source} --model objects` makes one (or another --model)",
    )


def _store_beside(path: Path) -> Path:
    """Return a good name for the store of a folder's pictures."""
    beside = path.parent if path.name not in ("", os.pardir) else path / os.pardir
    return beside / f"{path.resolve().name}.store"


class StoreFolder:
    """The folder of a store.

    Parameters
    ----------
    path : Path
    about : Manifest
    pinned : int, optional
        A version that is only to be read: changes are refused.
    remote : RemotePlace, optional
        Where the store is, if that is in a bucket: `path` is its home on this machine then.

    Attributes
    ----------
    path : Path
        What must not be lost is here: all of a store on this machine, of one in a bucket what this machine has paid
        for, asked and labelled.
    location : str
        What people call it: the path as given, or the URL.
    cache : Path
        What can be made again is here.
    about : Manifest
    pinned : int or None
    space : Space
        The embedding space of all its vectors.
    id : str
        32 hex digits, drawn at creation.
    created_at : str
    images : DeltaFolder
        The table of rows.
    ledger : Ledger
        What is paid for and not yet a row, who embeds what, and queries asked before.
    running : Running
        Who works on the store now.
    thumbnails : Thumbnails
        Small copies of pictures that no file holds; disposable.
    index, failures, set_aside : Path
        Index files and layout notes; the list of what the last add could not take; paid rows that were found damaged.
    """

    def __init__(
        self, path: Path, about: Manifest, pinned: int | None = None, remote: RemotePlace | None = None
    ) -> None:
        self.path, self.about, self.remote = path, about, remote
        self.location = str(path) if remote is None else remote.url
        self.space, self.id, self.created_at = about.space, about.store_id, about.created_at
        place = path.absolute()  # what is relative, such as s3:x or file:x, other libraries take for an address
        self.cache = place if remote is None else remote.cache(self.id)
        self.index = self.cache / "index"
        self.failures, self.set_aside = path / "failures.csv", path / "set-aside"
        self.ledger, self.running = Ledger(place / "ledger.sqlite"), Running(place / ".running")
        self.thumbnails = thumbnails.Thumbnails(self.cache / thumbnails.FOLDER)
        parts_here = None if remote is None else remote.images(self.id)
        notes = self.ledger if remote is None else None  # the bucket is the truth, also when it is set back
        self.images = DeltaFolder(self.cache / IMAGES, self.space.dim, self.index / "images.json", notes, parts_here)
        self.pinned = pinned

    @property
    def name(self) -> str:
        """The last part of where the store is."""
        return self.path.absolute().name if self.remote is None else self.location.rpartition("/")[2]

    @property
    def classifiers(self) -> Path:
        """The folder of the saved classifiers; those of a store in a bucket, as they are there now."""
        folder = self.cache / CLASSIFIERS
        if self.remote is not None:
            self.remote.pull_classifiers(folder)
        return folder

    def publish_classifier(self, file: Path) -> None:
        """Let a classifier that was saved in `classifiers` be that of all machines."""
        if self.remote is not None:
            self.remote.publish_classifier(file)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        space: Space,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | str | None = None,
    ) -> StoreFolder:
        """Make the folder of an empty store, whole or not at all; or a store in a bucket, at a URL.

        Raises
        ------
        StoreExistsError
            The folder is a store, or holds something else.
        StoreLockedError
            Another process has been making a store there for a minute.
        InputError
            The path has signs in it that the table's library reads otherwise.
        """
        about = Manifest(uuid.uuid4().hex, datetime.now(UTC).isoformat(timespec="seconds"), space)
        if is_url(path):
            remote = RemotePlace(os.fspath(path), cache_dir, cache_bytes)
            remote.create(about.to_text(), own_columns(), space.dim)
            return cls._of_remote(remote, about)
        path = Path(path)
        cls.require_free(path)
        new = cls(path, about)
        location(new.images.path)
        try:
            with whole_folder(path, _NEW) as beside:
                made = cls(beside, about)
                made.index.mkdir()
                (made.cache / CLASSIFIERS).mkdir()
                made.images.create(own_columns())
                made.ledger.keep_manifest(about.to_text())
                about.write(beside)
        except OSError as error:
            if error.errno in (None, errno.EEXIST, errno.ENOTEMPTY):
                cls.require_free(path)  # another process was quicker
            raise
        return new

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        pinned: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | str | None = None,
    ) -> StoreFolder:
        """Open the folder of a store; nothing is written, but for what mirrors a bucket on this machine.

        Raises
        ------
        StoreNotFoundError
            There is no store there.
        FormatVersionError
            A newer embedstore wrote it.
        DamagedStoreError
            ``store.json`` is not what it should be.
        """
        if is_url(path):
            remote = RemotePlace(os.fspath(path), cache_dir, cache_bytes)
            return cls._of_remote(remote, _manifest_of(remote), pinned)
        return cls(Path(path), Manifest.read(Path(path)), pinned)

    @classmethod
    def _of_remote(cls, remote: RemotePlace, about: Manifest, pinned: int | None = None) -> StoreFolder:
        """Return a store in a bucket, with its folders on this machine."""
        home, cache = remote.home(about.store_id), remote.cache(about.store_id)
        location(cache / IMAGES)
        home.mkdir(parents=True, exist_ok=True)
        (cache / IMAGES).mkdir(parents=True, exist_ok=True)
        return cls(home, about, pinned, remote)

    def discard_if_unused(self) -> bool:
        """Delete the store if it never had a row, none waits, and nobody works on it; return whether it is gone."""
        with self.writing() as newest:
            if newest.version or self.ledger.waiting() or self.running.anybody():
                return False
            if self.remote is not None:
                return self.remote.discard(self.id)
            discard(self.path, _NEW)
        return True

    @staticmethod
    def require_free(path: str | os.PathLike[str]) -> None:
        """Refuse to make a store over something else, with StoreExistsError."""
        if is_url(path):
            RemotePlace(os.fspath(path)).require_free()
            return
        path = Path(path)
        if not is_free(path, _NEW):
            if StoreFolder.is_at(path):
                raise StoreExistsError(
                    f"{path} is a store already; "
                    + spelt(f"EmbedStore.open({str(path)!r}) opens it", "choose another path")
                )
            if path.is_dir():
                raise StoreExistsError(
                    f"{path} is a folder with other files in it; choose another path for the store, such as "
                    f"{_store_beside(path)}"
                )
            raise StoreExistsError(f"{path} is there already, and no folder; choose another path for the store")

    @staticmethod
    def is_at(path: str | os.PathLike[str]) -> bool:
        """Tell whether there is a store at a path, or at the URL of a place in a bucket."""
        return RemotePlace(os.fspath(path)).is_store() if is_url(path) else (Path(path) / MANIFEST).exists()

    def snapshot(self) -> Snapshot:
        """Return the version that is to be read: the pinned one, else the newest."""
        return self.images.snapshot(self.pinned)

    def is_newest(self, snapshot: Snapshot) -> bool:
        """Tell whether there is no version to move on to from this one."""
        return self.pinned is not None or self.images.newest_version() == snapshot.version

    @contextmanager
    def writing(self) -> Iterator[Snapshot]:
        """Hold the store's lock; gives the newest version.

        It stays so until the lock is let go, but for those who do not ask for it: another program, or another machine
        where the store is in a bucket. What is computed from it is computed again then; see `changes`.

        Raises
        ------
        StoreLockedError
            Another process holds it for longer than `LOCK_TIMEOUT`.
        InputError
            This folder was opened at an older version.
        """
        if self.pinned is not None:
            raise InputError(
                f"this store was opened to read version {self.pinned}; open it without {spelt('a version', '--at')}"
            )
        with self.locked():
            yield self.images.snapshot()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store's lock, whatever its log is like; raises StoreLockedError as `writing`."""
        from filelock import FileLock, Timeout  # not needed to search

        try:
            with FileLock(self.path / ".lock", timeout=LOCK_TIMEOUT):
                yield
        except Timeout as error:
            raise StoreLockedError(
                f"another process is writing to {self.location}; wait for it, or end it and try again"
            ) from error

    def on_this_machine(self) -> dict[str, Any] | None:
        """Say where a store in a bucket has its folders here, and how full the cache is; None for one that is here."""
        if self.remote is None:
            return None
        where = {"home": str(self.path), "cache": str(self.cache)}
        return {**where, "cached_bytes": self.images.cached_bytes(), "cache_bytes": self.remote.limit}

    def has_orphans(self) -> bool:
        """Tell whether rows wait that no living run has paid for."""
        waiting = self.ledger.waiting()
        return (self.path / "journal").exists() or any(not self.running.is_alive(run) for run in waiting)

    def fold(self) -> Snapshot:
        """Take the rows that wait in the ledger into the table; the caller holds `writing`.

        Safe to repeat: the commit says up to where it has read the ledger, so rows are neither lost nor doubled if the
        process dies between any two steps. Rows whose bytes are damaged are set aside.
        """
        journal.take_over(self.path / "journal", self.images, self.ledger)
        series = self.ledger.id
        if series is not None and self.ledger.waiting():
            applied = self.images.applied(series)
            held: list[PaidBatch] = []
            for batch in self.ledger.paid():
                if batch.table is None:
                    file = self.ledger.set_aside(batch, self.set_aside)
                    _log.warning(
                        "%d paid rows are damaged and cannot be used; they are set aside in %s", batch.rows, file
                    )
                    continue
                held.append(batch)
                if sum(each.rows for each in held) >= parts.rows_per_part(self.space.dim):
                    self._fold(series, applied, held)
                    held = []
            self._fold(series, applied, held)
        return self.images.snapshot()

    def catch_up(self, newest: Snapshot) -> None:
        """Let no batch that is paid for from now on have a number of one that is in the table: it would be dropped.

        That comes of an older copy of the home, which was put back while the table went on in its bucket.
        """
        if self.remote is not None and (series := self.ledger.id) is not None:
            self.ledger.number_behind(self.images.applied(series, newest.version))

    def _fold(self, series: str, applied: int, held: Sequence[PaidBatch]) -> None:
        """Take batches of paid rows into the table in one commit, and let go of them in the ledger."""
        new = [(batch.id, batch.table) for batch in held if batch.table is not None and batch.id > applied]
        try:
            if new:
                changes.fold(self.images, [table for _, table in new], (series, new[-1][0]))
        except (ValueError, TypeError, pa.ArrowException) as error:
            _log.warning(
                "metadata of paid rows cannot be stored (%s); it is kept as text in %r", error, changes.UNFOLDED
            )
            plain = [changes.without_metadata(table, own_columns().names) for _, table in new]
            changes.fold(self.images, plain, (series, new[-1][0]))
        if held:
            self.ledger.settle([batch.id for batch in held])

    def upsert(
        self, rows: pa.Table, vectors: Vectors, *, replaces: bool, by_uri: bool = True, newest: Snapshot | None = None
    ) -> Snapshot:
        """Add rows with their vectors in one commit; the caller holds `writing`. See `changes.upsert`."""
        return changes.upsert(self.images, rows, vectors, replaces=replaces, by_uri=by_uri, newest=newest)

    def leaving(self, rows: Rows, ids: Sequence[str] | None, where: Any) -> Mask:
        """Return which rows `remove` would remove, bool of shape (n_rows,)."""
        if (ids is None) == (where is None):
            raise InputError("say which records to remove, either by ids or by where='...'")
        leaving = rows.mask(where)
        if leaving is None:
            leaving = np.zeros(len(rows), dtype=bool)
            leaving[rows.positions(list(ids or ()))] = True
        return leaving

    def remove(self, ids: Sequence[str] | None, where: Any) -> int:
        """Remove records by id or by a condition, in one commit; return how many. See `EmbedStore.remove`."""
        with self.writing() as newest:
            first = self.leaving(Rows(newest), ids, where)
            removed = 0

            def leaving(snapshot: Snapshot) -> Mask:
                nonlocal removed
                mask = first if snapshot is newest else self._leaving_still(newest, first, snapshot, where)
                removed = int(mask.sum())
                return mask

            changes.remove(self.images, newest, leaving)
        return removed

    def _leaving_still(self, newest: Snapshot, first: Mask, snapshot: Snapshot, where: Any) -> Mask:
        """Return which rows of a version `remove` removes, that another program has made meanwhile."""
        if isinstance(where, str):
            return self.leaving(Rows(snapshot), None, where)
        return changes.marked_in(snapshot, newest, first)

    def restore(self, version: int) -> Snapshot:
        """Make a new version with the rows of an older one; see `EmbedStore.restore`."""
        with self.writing() as newest:
            return changes.restore(self.images, newest, self.images.snapshot(version))

    def compact(self) -> Snapshot:
        """Merge small parts into large ones, and lay out anew what another program has written."""
        with self.writing() as newest:
            return changes.compact(self.images, newest)

    def vacuum(self, keep_hours: int, dry_run: bool) -> VacuumReport:
        """Delete files that only versions older than `keep_hours` hours need; a dry run says what that would cost."""
        if self.remote is not None and keep_hours < 1:
            raise InputError(
                f"{self.location} is in a bucket, where other machines may have put a part whose commit is still to "
                f"come; keep the files of an hour at least: {option('keep_hours', 1)}"
            )
        if dry_run:
            return self.vacuum_plan(keep_hours)
        with self.writing():
            deleted = self.images.vacuum(keep_hours, dry_run=False)
            folders = self._old_folders() | self._drop_thumbnails(deleted.keys(), dry_run=False)
            self._shrink_ledger()
            for name in _OLD_FOLDERS:
                if name in folders:
                    shutil.rmtree(self.path / name)
        return VacuumReport([*deleted, *folders], sum((deleted | folders).values()))

    def vacuum_plan(self, keep_hours: int) -> VacuumReport:
        """Return what `vacuum` would delete, and what that would cost; nothing is written or locked."""
        going = self.images.vacuum(keep_hours, dry_run=True)
        images = only_in(self.images, going.keys(), Rows(self.images.snapshot())) if going else 0
        others = self._old_folders() | self._drop_thumbnails(going.keys(), dry_run=True)
        return VacuumReport([*going, *others], sum((going | others).values()), images, dry_run=True)

    def _old_folders(self) -> dict[str, int]:
        """Return the names of folders of earlier formats, with the bytes in them."""
        there = [self.path / name for name in _OLD_FOLDERS if (self.path / name).is_dir()]
        return {folder.name: sum(file.stat().st_size for file in folder.rglob("*")) for folder in there}

    def _drop_thumbnails(self, gone: Collection[str], dry_run: bool) -> dict[str, int]:
        """Delete thumbnails of pictures that no row has, in any part but those `gone`; none while somebody adds."""
        if not self.thumbnails.any() or self.running.anybody():
            return {}
        try:
            needed = self.images.texts_in_parts("content_hash", gone) | self.ledger.paid_hashes()
        except DamagedStoreError as error:
            _log.warning("no thumbnail is deleted: %s", error)
            return {}
        return self.thumbnails.drop_all_but(needed, dry_run)

    def _shrink_ledger(self) -> None:
        try:
            self.ledger.shrink()
        except DamagedStoreError as error:  # what no version needs is gone all the same
            _log.warning("%s", error)
