"""A table: Parquet parts under a Delta Lake log, which makes every change atomic and every version readable.

The log is written by `deltalake`, into a folder beside, and published by `log_files` once it is on the disk; this
module decides which actions go into it. `layout_note` remembers the parts, so that opening a store reads one small
file. What the rows mean is left to `folder`.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from embedstore import files
from embedstore.errors import DamagedStoreError, InputError, StoreError, StoreLockedError, VersionGoneError
from embedstore.storage import arrow_columns, log_files, parts
from embedstore.storage.arrow_columns import EMBEDDING, pa
from embedstore.storage.commits import location, write_commit
from embedstore.storage.layout_note import LayoutNote
from embedstore.storage.log_files import History, Log, Notes
from embedstore.storage.parts import Part
from embedstore.vectors import Vectors
from embedstore.wording import counted

_log = logging.getLogger("embedstore")
_CHECKPOINT_EVERY = 50
_ATTEMPTS = 5
_STAGE = "_commit-"


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
    """

    def __init__(self, path: Path, dim: int, note_file: Path, notes: Notes | None = None) -> None:
        self.path = path
        self.dim = dim
        self._note = LayoutNote(note_file)
        self._files = Log(path / log_files.NAME, notes)

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
            return self._newest(newest)
        if not 0 <= version <= newest:
            raise InputError(f"there is no version {version}; versions go from 0 to {newest}")
        with self._opened(version) as table:
            missing = sum(not (self.path / name).exists() for name in _names(table))
            if missing:
                raise InputError(
                    f"version {version} needs {counted(missing, 'file')} that vacuum removed; choose a later version"
                )
            return self._read(version, table)

    def new_part(self, batches: Iterator[tuple[pa.Table, Vectors]], schema: pa.Schema) -> Part:
        """Write a part that no version names yet; `commit` adds it."""
        # The time in front keeps the order of names the order of writing.
        name = f"part-{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.parquet"
        return parts.write(self.path / name, batches, schema, self.dim)

    def commit(
        self,
        add: Sequence[Part],
        remove: Sequence[Part] = (),
        *,
        operation: str,
        new_fields: Sequence[pa.Field] = (),
        transaction: tuple[str, int] | None = None,
        data_change: bool = True,
    ) -> Snapshot:
        """Make parts appear and disappear in one step, and return the new version.

        Parameters
        ----------
        add, remove : sequence of Part
        operation : str
            What it was for, kept in the log.
        new_fields : sequence of pyarrow.Field
            Columns that the table does not have yet.
        transaction : tuple of str and int, optional
            Name of a series of units of work, and the number of the last one that this commit holds; see `applied`.
        data_change : bool
            False when the same rows are only laid out anew.
        """
        # Whoever sees the commit, also after a power cut, must find the parts.
        files.sync_folder(self.path)
        for _ in range(_ATTEMPTS):
            newest = self.newest_version()
            try:
                with self._staged(newest) as (staged, table):
                    table = write_commit(table, staged, add, remove, operation, new_fields, transaction, data_change)
                    known = self._note.read(self.path, newest, self._files.checksum(newest), self.dim)
                    made = self._files.publish(Log(staged / log_files.NAME), newest)
                    snapshot = self._read(made[-1], table, [*add, *(known[0] if known else ())])
                break
            except FileExistsError:
                _log.info("another program has changed %s meanwhile; trying again", self.path)
        else:
            raise StoreLockedError(f"another program keeps changing {self.path}; end it and try again")
        if any(number % _CHECKPOINT_EVERY == 0 for number in made):
            self._try_checkpoint(made[-1])
        self._remember(snapshot, self._files.checksum(snapshot.version))
        return snapshot

    def applied(self, series: str) -> int:
        """Return the number of the last unit of a series of `transaction`s that is in the log; -1 for none."""
        with self._opened(self.newest_version()) as table:
            number = table.transaction_version(series)
        return -1 if number is None else int(number)

    def versions(self) -> list[dict[str, Any]]:
        """Return the versions, newest first: version, timestamp, operation."""
        entries = []
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
                if others[name].stat().st_size == history.added[name]:
                    found.append(parts.open_part(others[name], self.dim))
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
        cut = time.time() - keep_hours * 3600
        oldest = newest if keep_hours == 0 else self._current_at(cut, newest)
        with self._opened(oldest) as table:
            needed = set(_names(table))
        for number, path in self._files.commits().items():
            needed |= log_files.parts_added(path) if number > oldest else set()
        others = [path for name, path in self._on_disk().items() if name not in needed]
        old = {path: about.st_size for path in others if (about := _stat(path)) and about.st_mtime <= cut}
        if not dry_run:
            self._files.sync()
            self._checkpoint(newest)
            for path in old:
                path.unlink(missing_ok=True)
            files.sync_folder(self.path)
            kept = [number for number in self._files.checkpoints() if number <= oldest]
            if kept:
                self._files.expire(before=max(kept))
            for folder in self.path.glob(f"{_STAGE}*"):
                shutil.rmtree(folder, ignore_errors=True)
        return {path.relative_to(self.path).as_posix(): old[path] for path in sorted(old)}

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
                    problems.append(f"part {name} is in the table's log but not on the disk; restore it from a copy")
                elif (size := on_disk[name].stat().st_size) != history.added[name]:
                    problems.append(f"part {name} is {size} bytes long; the log says {history.added[name]}")
        return problems

    def texts_in_parts(self, column: str, leaving: Collection[str] = ()) -> set[str]:
        """Return what stands in a column of text in all parts on the disk, of any version, but those named `leaving`.

        Raises DamagedStoreError where a part cannot be read.
        """
        found: set[str] = set()
        for name, path in self._on_disk().items():
            if name not in leaving:
                table = parts.open_part(path, self.dim).read([column])
                found.update(value for values in table.columns for value in values.unique().to_pylist())
        return found

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
            if found := self._note.read(self.path, newest, commit, self.dim):
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

    def _read(self, version: int, table: Any, known: Sequence[Part] = ()) -> Snapshot:
        """Read a version from the log, and the layout of each part that is not known from its footer."""
        by_name = {part.name: part for part in known}
        found = (by_name.get(name) or parts.open_part(self.path / name, self.dim) for name in _names(table))
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
            f"the log of {self.path} cannot be read: {str(error).splitlines()[0]}; "
            f"run `embedstore repair {quote(str(self.path.parent))}`"
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
        except (DeltaError, OSError) as error:  # the commit stands
            _log.warning("no checkpoint of version %d could be made: %s", version, error)

    def _current_at(self, moment: float, newest: int) -> int:
        """Return the version that was the newest at a moment; the oldest that can be read for an earlier one."""
        made = self._files.timestamps()
        first = 0 if 0 in made else min((n for n in self._files.checkpoints() if n + 1 >= min(made)), default=newest)
        return max([first, *(number for number, at in made.items() if at <= moment)])

    def _besides(self, current: Snapshot) -> dict[str, Path]:
        """Return the Parquet files in the folder that a version does not need."""
        needed = {part.name for part in current.parts}
        return {name: path for name, path in self._on_disk().items() if name not in needed}

    def _on_disk(self) -> dict[str, Path]:
        """Return the Parquet files in the folder, by the name that the log would have for them."""
        found = {path.relative_to(self.path): path for path in self.path.rglob("*.parquet")}
        return {at.as_posix(): path for at, path in found.items() if at.parts[0][0] not in "_."}


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None  # another vacuum has just deleted it


def _names(table: Any) -> list[str]:
    return sorted(table.get_add_actions(flatten=True).column("path").to_pylist())


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
