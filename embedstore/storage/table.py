"""A table: Parquet parts under a Delta Lake log, which makes every change atomic and every version readable.

The log is written by `deltalake`, into a folder beside, and published by `log_files` once it is on the disk; this
module decides which actions go into it. `layout_note` remembers the parts, so that opening a store reads one small
file. What the rows mean is left to `folder`.
"""

from __future__ import annotations

import functools
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedstore import files
from embedstore.errors import DamagedStoreError, InputError, StoreError, StoreLockedError, VersionGoneError
from embedstore.storage import arrow_columns, log_files, parts
from embedstore.storage.arrow_columns import EMBEDDING, pa
from embedstore.storage.bucket import Listed
from embedstore.storage.commits import location, write_commit
from embedstore.storage.layout_note import LayoutNote
from embedstore.storage.log_files import History, Log, Notes
from embedstore.storage.mirror import MirroredLog
from embedstore.storage.part_cache import PartCache
from embedstore.storage.parts import Part
from embedstore.vectors import Vectors
from embedstore.wording import counted

_log = logging.getLogger("embedstore")
_CHECKPOINT_EVERY = 50
_ATTEMPTS = 5
_LONG_SECONDS = 1800
"""A vacuum of a bucket spares what is younger than an hour; what took so long makes sure that it is still there."""
_STAGE = "_commit-"


class OvertakenError(StoreLockedError):
    """Another program has made a version after the one that a change was computed from."""


@dataclass(frozen=True)
class Snapshot:
    """One version of a table.

    Attributes
    ----------
    version : int
        Version in the Delta log.
    parts : tuple of Part
        In the order of their names, which is the order of writing.
    columns : pyarrow.Schema or bytes
        All columns but the embedding, or what Arrow writes for them; a part may lack some, which then are null.
    dim : int
        Number of components of a vector.
    """

    version: int
    parts: tuple[Part, ...]
    columns: pa.Schema | bytes
    dim: int

    @functools.cached_property
    def schema(self) -> pa.Schema:
        """All columns but the embedding; a search that reads no rows has no need to know them."""
        if isinstance(self.columns, bytes):
            return pa.ipc.read_schema(pa.py_buffer(self.columns))
        return self.columns

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(part.rows for part in self.parts)

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read metadata columns of all rows, in row order."""
        missing = [name for name in columns if name not in self.schema.names]
        if missing:
            raise DamagedStoreError(
                f"the log of version {self.version} has no column {missing[0]!r}, which every store has; "
                "run `embedstore verify STORE`, and `embedstore repair STORE`"
            )
        schema = pa.schema([self.schema.field(name) for name in columns])
        return pa.concat_tables([conform(part.read(columns), schema) for part in self.parts] or [schema.empty_table()])


class DeltaFolder:
    """The folder of one Delta table.

    Parameters
    ----------
    path : Path
    dim : int
        Number of components of a vector.
    note_file : Path
        Where to remember the layout of the newest version; disposable.
    notes : Notes, optional
        Who remembers checksums of the log's files: the ledger.
    cache : PartCache, optional
        Of a table in a bucket: what of its parts is in `path`. The log is mirrored there.
    """

    def __init__(
        self, path: Path, dim: int, note_file: Path, notes: Notes | None = None, cache: PartCache | None = None
    ) -> None:
        self.path = path
        self.dim = dim
        self.name = str(path) if cache is None else cache.bucket.url
        self._cache = cache
        self._note = LayoutNote(note_file)
        log = path / log_files.NAME
        self._files = Log(log, notes) if cache is None else MirroredLog(log, cache.bucket / log_files.NAME)

    def exists(self) -> bool:
        """Tell whether the table has been created."""
        return self._files.folder.is_dir()

    def create(self, schema: pa.Schema) -> None:
        """Create an empty table with the embedding and the columns of `schema`; it outlasts a power cut."""
        from deltalake import DeltaTable

        self.path.mkdir(parents=True, exist_ok=True)
        full = pa.schema([*schema, arrow_columns.embedding_field()])
        configuration = {"delta.checkpointInterval": str(_CHECKPOINT_EVERY)}
        DeltaTable.create(location(self.path), schema=full, mode="error", configuration=configuration)
        self._files.adopt()
        for folder in (self.path, self.path.parent, self.path.parent.parent):
            files.sync_folder(folder)

    def newest_version(self) -> int:
        """Return the newest version by the names in the log, without reading it."""
        return self._files.newest()

    def snapshot(self, version: int | None = None) -> Snapshot:
        """Return a version of the table, the newest by default.

        Raises
        ------
        InputError
            There is no such version, or vacuum has removed its parts.
        DamagedStoreError
            The log, or a part's footer, is damaged.
        """
        newest = self.newest_version()
        if version is None or version == newest:
            found = self._newest(newest)
        elif not 0 <= version <= newest:
            raise InputError(f"there is no version {version}; versions go from 0 to {newest}")
        else:
            found = self._older(version)
        files.allow_open(len(found.parts))
        return found

    def new_part(self, batches: Iterator[tuple[pa.Table, Vectors]], schema: pa.Schema) -> Part:
        """Write a part that no version names yet; `commit` adds it."""
        # The time in front keeps the order of names the order of writing.
        name = f"part-{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.parquet"
        part = parts.write(self.path / name, batches, schema, self.dim)
        if self._cache is None:
            return part
        there = Part(part.path, part.rows, part.dim, part.blocks, part.size, self._cache)
        self._cache.adopt(part.path)
        return there

    def discard(self, unused: Iterable[Part]) -> None:
        """Delete parts that were written for a version that was not made."""
        names = [part.name for part in unused]
        if self._cache is not None:
            self._cache.bucket.delete(names)
            self._cache.drop(names)
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def commit(
        self,
        add: Sequence[Part],
        remove: Sequence[Part] = (),
        *,
        base: Snapshot,
        operation: str,
        new_fields: Sequence[pa.Field] = (),
        transaction: tuple[str, int] | None = None,
        data_change: bool = True,
    ) -> Snapshot:
        """Make parts appear and disappear in one step, and return the new version.

        Parameters
        ----------
        add, remove : sequence of Part
        base : Snapshot
            The version that the change was computed from.
        operation : str
            What it was for, kept in the log.
        new_fields : sequence of pyarrow.Field
            Columns that the table does not have yet.
        transaction : tuple of str and int, optional
            Name of a series of units of work, and the number of the last one that this commit holds; see `applied`.
        data_change : bool
            False when the same rows are only laid out anew.

        Raises
        ------
        OvertakenError
            `base` is not the newest version any more: what is right for it may be wrong for the newest.
        """
        # Whoever sees the commit, also after a power cut, must find the parts.
        files.sync_folder(self.path)
        began = time.time()
        try:
            if self.newest_version() != base.version:
                raise FileExistsError(base.version + 1)
            with self._staged(base.version) as (staged, table):
                table = write_commit(table, staged, add, remove, operation, new_fields, transaction, data_change)
                made = self._files.publish(Log(staged / log_files.NAME), base.version)
                self._files.require_behind(base.version, made, began)
                snapshot = self._read(made[-1], table, [*add, *base.parts])
        except FileExistsError as error:
            raise OvertakenError(
                f"another program has changed {self.name} meanwhile, and keeps doing so; try again when it has ended"
            ) from error
        if any(number % _CHECKPOINT_EVERY == 0 for number in made):
            self._try_checkpoint(made[-1])
        self._remember(snapshot, self._files.checksum(snapshot.version))
        return snapshot

    def vacuumed(self, added: Sequence[Part]) -> list[Part]:
        """Return those of the parts that a commit is to name that a vacuum of another machine has taken meanwhile.

        It spares what is young: only parts that were written some time ago are looked for.
        """
        now = time.time_ns()
        young = f"part-{now - _LONG_SECONDS * 10**9:020d}", f"part-{now:020d}~"
        if self._cache is None or all(young[0] < part.name < young[1] for part in added):
            return []
        there = self._on_disk()
        return [part for part in added if part.name not in there]

    def applied(self, series: str, version: int | None = None) -> int:
        """Return the number of the last unit of a series of `transaction`s that is in the log; -1 for none.

        Of a version; of the newest unless told.
        """
        with self._opened(self.newest_version() if version is None else version) as table:
            number = table.transaction_version(series)
        return -1 if number is None else int(number)

    def versions(self) -> list[dict[str, Any]]:
        """Return the versions, newest first: version, timestamp, operation."""
        entries = []
        self._files.complete()
        with self._opened(self.newest_version()) as table:
            history = table.history()
        for entry in history:
            stamp = datetime.fromtimestamp(entry["timestamp"] / 1000).astimezone()
            operation = entry.get("embedstore") or entry.get("operation", "")
            entries.append({"version": entry["version"], "timestamp": stamp, "operation": str(operation).lower()})
        return sorted(entries, key=lambda entry: -entry["version"])

    def former(self, current: Snapshot) -> list[Part]:
        """Return the parts that only versions older than the newest, `current`, need, as far as they are on the disk.

        Without those whose rows were only laid out anew, which are in other parts, and those whose footer is damaged.
        The log is read only where there are other files than `current` has.
        """
        others = self._besides(current)
        if not others:
            return []
        history, found = self._files.history(), []
        for name in sorted(others.keys() & history.added.keys() - history.live - history.rewritten):
            try:
                if others[name].size == history.added[name]:
                    found.append(self.part(name, others[name].size))
            except (StoreError, OSError) as error:  # a vacuum may be deleting them
                _log.debug("nothing is taken from an older version's part: %s", error)
        return found

    def vacuum(self, keep_hours: int, dry_run: bool) -> dict[str, int]:
        """Delete files that no version younger than `keep_hours` needs; return the names of parts, with their bytes.

        Nothing is deleted before the log, and a checkpoint of the newest version, outlast a power cut. Needs the lock,
        but for a dry run.
        """
        if dry_run and not self._besides(self.snapshot()):
            return {}
        newest = self.newest_version()
        now = time.time() if dry_run or self._cache is None else self._cache.bucket.now()
        cut = now - keep_hours * 3600
        oldest = newest if keep_hours == 0 else self._current_at(cut, newest)
        with self._opened(oldest) as table:
            needed = set(_names(table))
        for number, path in self._files.commits().items():
            needed |= log_files.parts_added(path) if number > oldest else set()
        others = {name: file for name, file in self._on_disk().items() if name not in needed}
        old = {name: file.size for name, file in others.items() if file.modified <= cut}
        if not dry_run:
            self._files.sync()
            self._checkpoint(newest)
            if self._cache is not None:
                self._cache.bucket.delete(old)
                self._cache.drop(old)
            for name in old:
                (self.path / name).unlink(missing_ok=True)
            files.sync_folder(self.path)
            kept = [number for number in self._files.checkpoints() if number <= oldest]
            if kept:
                self._files.expire(before=max(kept))
            for folder in self.path.glob(f"{_STAGE}*"):
                shutil.rmtree(folder, ignore_errors=True)
        return dict(sorted(old.items()))

    def check(self) -> list[str]:
        """Read the log and look for the parts that it names; return what is damaged, in words; [] when sound.

        The parts themselves are left to `Part.check`, parts that no version names to `orphans`.
        """
        problems = self._files.check()
        if not problems:
            on_disk, history = self._on_disk(), self._files.history()
            problems += [f"{self._files.folder / name} cannot be read" for name in history.unreadable]
            for name in sorted(history.live):
                if name not in on_disk:
                    where = "on the disk" if self._cache is None else f"in {self.name}"
                    problems.append(f"part {name} is in the table's log but not {where}; restore it from a copy")
                elif (size := on_disk[name].size) != history.added[name]:
                    problems.append(f"part {name} is {size} bytes long; the log says {history.added[name]}")
        return problems

    def texts_in_parts(self, column: str, leaving: Collection[str] = ()) -> set[str]:
        """Return what stands in a column of text in all parts on the disk, of any version, but those named `leaving`.

        Raises DamagedStoreError where a part cannot be read.
        """
        found: set[str] = set()
        for name, file in self._on_disk().items():
            if name not in leaving:
                table = self.part(name, file.size).read([column])
                found.update(value for values in table.columns for value in values.unique().to_pylist())
        return found

    def names_on_disk(self) -> list[str]:
        """Return the names of all parts, of whatever version or none."""
        return sorted(self._on_disk())

    def part(self, name: str, size: int | None = None) -> Part:
        """Return a part by its name, as its footer has it; `size` in bytes where it is known."""
        if self._cache is None:
            return parts.open_part(self.path / name, self.dim)
        return parts.open_part(
            self.path / name, self.dim, self._on_disk()[name].size if size is None else size, self._cache
        )

    def bare_part(self, name: str) -> Part:
        """Return a part by its name, of which nothing is read yet: its footer may be damaged."""
        size = None if self._cache is None else self._on_disk()[name].size
        return Part(self.path / name, 0, self.dim, None, size, self._cache)

    def cached_bytes(self) -> int:
        """Return how many bytes the parts of a table in a bucket take on this machine."""
        return 0 if self._cache is None else self._cache.used()

    def orphans(self) -> list[str]:
        """Return the names of parts on the disk that no version names; [] while a file of the log cannot be read."""
        history = self._files.history()
        return [] if history.unreadable else sorted(self._on_disk().keys() - history.added.keys())

    def readable_history(self) -> History:
        """Return what those files of the log that can be read say of parts, transactions and columns."""
        return self._files.history()

    def columns_of(self, history: History, live: Sequence[Part]) -> pa.Schema:
        """Return the columns, without the embedding, that these parts need in a new log: as the old one has them."""
        from deltalake.schema import Schema

        known = [] if history.schema is None else list(pa.schema(Schema.from_json(history.schema).to_arrow()))
        fields: dict[str, pa.Field] = {}
        for field in [*known, *(field for part in live for field in part.columns())]:
            if field.name != EMBEDDING:
                fields.setdefault(field.name, field.with_nullable(True))
        return pa.schema(list(fields.values()))

    def rebuild(self, live: Sequence[Part], schema: pa.Schema, transactions: Sequence[tuple[str, int]] = ()) -> Path:
        """Make the log anew, with these parts; return the folder where the old one now lies. Needs the lock.

        Parameters
        ----------
        live : sequence of Part
            All parts that the table is to hold; see `readable_history` for those that were removed.
        schema : pyarrow.Schema
            The columns without the embedding.
        transactions : sequence of tuple of str and int
            What `applied` is to say, series by series.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        aside = self.path.parent / f"{log_files.NAME}.damaged-{stamp}-{uuid.uuid4().hex[:6]}"
        with tempfile.TemporaryDirectory(dir=location(self.path), prefix=_STAGE) as folder:
            fresh = DeltaFolder(Path(folder), self.dim, Path(folder) / "note.json")
            fresh.create(schema)
            from deltalake import DeltaTable

            for number, transaction in enumerate(transactions or [None]):
                added = live if number == 0 else ()
                write_commit(DeltaTable(folder), Path(folder), added, (), "repair", (), transaction, True)
            fresh._files.sync()
            self._files.forget(self._files.noted_names())
            if self.exists():
                self._files.folder.rename(aside)
            fresh._files.folder.rename(self._files.folder)
        for changed in (self.path, self.path.parent):
            files.sync_folder(changed)
        self._files.adopt()
        return aside

    def _newest(self, newest: int) -> Snapshot:
        for attempt in range(_ATTEMPTS):
            commit = self._files.checksum(newest)
            if found := self._note.read(self.path, newest, commit, self.dim, self._cache):
                return Snapshot(newest, tuple(found[0]), found[1], self.dim)
            listed = self._files.names()
            try:
                with self._opened(newest) as table:
                    made = self._read(newest, table)
                break
            except (DamagedStoreError, InputError, VersionGoneError):
                # Others may have compacted and vacuumed while this was reading.
                before, newest = newest, self.newest_version()
                if (newest == before and listed == self._files.names()) or attempt == _ATTEMPTS - 1:
                    raise
        self._remember(made, commit)
        return made

    def _older(self, version: int) -> Snapshot:
        with self._opened(version) as table:
            there = self._on_disk()
            missing = sum(name not in there for name in _names(table))
            if missing:
                raise InputError(
                    f"version {version} needs {counted(missing, 'file')} that vacuum removed; choose a later version"
                )
            return self._read(version, table)

    def _read(self, version: int, table: Any, known: Sequence[Part] = ()) -> Snapshot:
        """Read a version from the log, and the layout of each part that is not known from its footer."""
        by_name = {part.name: part for part in known}
        found = (by_name.get(name) or self.part(name, size) for name, size in _sizes(table).items())
        return Snapshot(version, tuple(found), _columns(table), self.dim)

    def _remember(self, snapshot: Snapshot, commit: str) -> None:
        self._note.write(snapshot.version, commit, self.dim, snapshot.parts, snapshot.schema)

    @contextmanager
    def _opened(self, version: int) -> Iterator[Any]:
        """Open a version with `deltalake`; around a damaged checkpoint when all commits are there."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        _, whole = self._files.files_of(version)
        try:
            try:
                table = DeltaTable(location(self.path), version=version) if whole else None
            except DeltaError:
                table = None  # the hint at the last checkpoint may be damaged, which copies come without
            if table is not None:
                yield table
                return
            with tempfile.TemporaryDirectory() as folder:
                self._files.stage(version, Path(folder), linked=False)
                yield DeltaTable(folder, version=version)
        except DeltaError as error:
            raise self._unreadable(error) from error

    @contextmanager
    def _staged(self, version: int) -> Iterator[tuple[Path, Any]]:
        """Give a folder beside with the log of a version, and the table that it is, for `deltalake` to write to."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        with tempfile.TemporaryDirectory(dir=location(self.path), prefix=_STAGE) as folder:
            self._files.stage(version, Path(folder), linked=True)
            try:
                table = DeltaTable(folder)
            except DeltaError as error:
                raise self._unreadable(error) from error
            yield Path(folder), table

    def _unreadable(self, error: Exception) -> DamagedStoreError:
        return DamagedStoreError(
            self._files.advice(f"the log of {self.name} cannot be read: {str(error).splitlines()[0]}")
        )

    def _checkpoint(self, version: int) -> None:
        with self._staged(version) as (staged, table):
            if not (staged / log_files.NAME / f"{version:020}.checkpoint.parquet").exists():
                table.create_checkpoint()
                self._files.publish_checkpoint(Log(staged / log_files.NAME))

    def _try_checkpoint(self, version: int) -> None:
        from deltalake.exceptions import DeltaError

        try:
            self._checkpoint(version)
        except (DeltaError, OSError, StoreError) as error:  # the commit stands
            _log.warning("no checkpoint of version %d could be made: %s", version, error)

    def _current_at(self, moment: float, newest: int) -> int:
        """Return the version that was the newest at a moment; the oldest that can be read for an earlier one."""
        made = self._files.timestamps()
        first = 0 if 0 in made else min((n for n in self._files.checkpoints() if n + 1 >= min(made)), default=newest)
        return max([first, *(number for number, at in made.items() if at <= moment)])

    def _besides(self, current: Snapshot) -> dict[str, Listed]:
        """Return the Parquet files in the folder that a version does not need."""
        needed = {part.name for part in current.parts}
        return {name: file for name, file in self._on_disk().items() if name not in needed}

    def _on_disk(self) -> dict[str, Listed]:
        """Return the Parquet files in the folder, or in the bucket, by the name that the log would have for them."""
        listed = _files_in(self.path) if self._cache is None else self._cache.bucket.list()
        return {file.name: file for file in listed if file.name.endswith(".parquet") and file.name[0] not in "_."}


def _files_in(folder: Path) -> Iterator[Listed]:
    for path in folder.rglob("*.parquet"):
        with suppress(FileNotFoundError):  # a vacuum has just deleted it
            about = path.stat()
            yield Listed(path.relative_to(folder).as_posix(), about.st_size, about.st_mtime)


def _sizes(table: Any) -> dict[str, int]:
    """Return the names of a version's parts, in the order of writing, with their bytes."""
    actions = table.get_add_actions(flatten=True)
    return dict(sorted(zip(*(actions.column(name).to_pylist() for name in ("path", "size_bytes")), strict=True)))


def _names(table: Any) -> list[str]:
    return list(_sizes(table))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return `table` with exactly the columns of `schema`: missing ones null, others cast."""
    columns = []
    for field in schema:
        if field.name in table.schema.names:
            column = table.column(field.name)
            # A cast imports pyarrow.compute even when there is nothing to cast.
            columns.append(column if column.type == field.type else column.cast(field.type))
        else:
            columns.append(pa.nulls(len(table), field.type))
    return pa.table(columns, schema=schema)


def _columns(table: Any) -> pa.Schema:
    """Return the columns but the embedding, each of the type that the log declares, whoever has written them."""
    return pa.schema(
        [field.with_nullable(True) for field in pa.schema(table.schema().to_arrow()) if field.name != EMBEDDING]
    )
