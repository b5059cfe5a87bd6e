"""A table: Parquet parts under a Delta Lake log, which makes every change atomic and every version readable.

The log is written by `deltalake`; this module decides which actions go into it and remembers the layout of the
parts beside it, so that opening a store reads one small file. What the rows mean is left to `store`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore import files
from embedstore.errors import DamagedStoreError, InputError, StoreNotFoundError
from embedstore.storage import parts
from embedstore.storage.parts import EMBEDDING, Block, Part
from embedstore.vectors import Vectors

_LOG = "_delta_log"
_COMMIT_NAME = re.compile(r"(\d{20})\.json")
_SNAPSHOT_VERSION = 2
_MISREAD = re.compile(r"%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f\ud800-\udfff]" + (r"|\\" if os.name == "posix" else ""))
"""What deltalake decodes or refuses in a path, also in one that is quoted: escapes, backslashes, control characters."""


@dataclass(frozen=True)
class Snapshot:
    """One version of a table.

    Attributes
    ----------
    version : int
        Version in the Delta log.
    parts : tuple of Part
        In the order of their names, which is the order of writing.
    schema : pyarrow.Schema
        All columns but the embedding; a part may lack some, which then are null.
    dim : int
        Number of components of a vector.
    """

    version: int
    parts: tuple[Part, ...]
    schema: pa.Schema
    dim: int

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
    snapshot_file : Path
        Where to remember the layout of the newest version; disposable.
    """

    def __init__(self, path: Path, dim: int, snapshot_file: Path) -> None:
        self.path = path
        self.dim = dim
        self._snapshot_file = snapshot_file

    def exists(self) -> bool:
        """Tell whether the table has been created."""
        return (self.path / _LOG).is_dir()

    def location(self) -> str:
        """Return the path as deltalake is given it: absolute, because it and pyarrow take ``s3:x`` for a bucket.

        Raises
        ------
        InputError
            deltalake would read and write elsewhere, however it is given this path.
        """
        path = os.path.abspath(self.path)
        if found := _MISREAD.search(path):
            raise InputError(
                f"no store can be at {path!r}: the library that keeps its log takes {found[0]!r} in a path for "
                "something else and would use another folder; rename the folder, or choose another path"
            )
        return path

    def create(self, schema: pa.Schema) -> None:
        """Create an empty table with the embedding and the columns of `schema`."""
        from deltalake import DeltaTable

        self.path.mkdir(parents=True, exist_ok=True)
        full = pa.schema([*schema, parts.embedding_field()])
        configuration = {"delta.checkpointInterval": "50"}
        DeltaTable.create(self.location(), schema=full, mode="error", configuration=configuration)

    def newest_version(self) -> int:
        """Return the newest version by the names in the log, without reading it."""
        try:
            names = os.listdir(self.path / _LOG)
        except FileNotFoundError as error:
            raise StoreNotFoundError(f"{self.path} has no table; make a store with `embedstore add`") from error
        versions = [int(match[1]) for name in names if (match := _COMMIT_NAME.fullmatch(name))]
        if not versions:
            raise DamagedStoreError(f"{self.path / _LOG} holds no commit; restore the folder from a copy")
        return max(versions)

    def snapshot(self, version: int | None = None) -> Snapshot:
        """Return a version of the table, the newest by default.

        Raises
        ------
        InputError
            There is no such version, or vacuum has removed its parts.
        """
        newest = self.newest_version()
        if version is None or version == newest:
            return self._remembered(newest) or self._remember(self._read(newest))
        if not 0 <= version <= newest:
            raise InputError(f"there is no version {version}; versions go from 0 to {newest}")
        names = self._names(self._delta(version))
        missing = sum(not (self.path / name).exists() for name in names)
        if missing:
            raise InputError(f"version {version} needs {missing} files that vacuum has removed; open a later version")
        return self._read(version)

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
        from deltalake import CommitProperties, Transaction
        from deltalake.schema import Schema
        from deltalake.transaction import AddAction, RemoveAction

        table = self._delta()
        if new_fields:
            nullable = pa.schema([field.with_nullable(True) for field in new_fields])
            table.alter.add_columns(Schema.from_arrow(nullable).fields)
            table = self._delta()
        now = int(time.time() * 1000)
        actions: list[Any] = [
            RemoveAction(
                path=part.name,
                deletion_timestamp=now,
                data_change=data_change,
                partition_values={},
                size=_size(part),
            )
            for part in remove
        ]
        actions += [
            AddAction(
                path=part.name,
                size=_size(part),
                partition_values={},
                modification_time=now,
                data_change=data_change,
                stats=json.dumps({"numRecords": part.rows}),
            )
            for part in add
        ]
        applied = [Transaction(app_id=transaction[0], version=transaction[1])] if transaction else None
        properties = CommitProperties(custom_metadata={"embedstore": operation}, app_transactions=applied)
        table.create_write_transaction(actions, "append", table.schema(), commit_properties=properties)
        return self.snapshot()

    def applied(self, series: str) -> int:
        """Return the number of the last unit of a series of `transaction`s that is in the log; -1 for none."""
        number = self._delta().transaction_version(series)
        return -1 if number is None else int(number)

    def versions(self) -> list[dict[str, Any]]:
        """Return the versions, newest first: version, timestamp, operation."""
        entries = []
        for entry in self._delta().history():
            stamp = datetime.fromtimestamp(entry["timestamp"] / 1000).astimezone()
            operation = entry.get("embedstore") or entry.get("operation", "")
            entries.append({"version": entry["version"], "timestamp": stamp, "operation": str(operation).lower()})
        return sorted(entries, key=lambda entry: -entry["version"])

    def vacuum(self, keep_hours: int, dry_run: bool) -> list[str]:
        """Delete files that no version younger than `keep_hours` needs; return their names."""
        removed = self._delta().vacuum(
            retention_hours=keep_hours, dry_run=dry_run, enforce_retention_duration=False, full=True
        )
        if not dry_run:
            self._delta().cleanup_metadata()
        return list(removed)

    def _delta(self, version: int | None = None) -> Any:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        try:
            return DeltaTable(self.location(), version=version)
        except DeltaError as error:
            raise DamagedStoreError(f"the log of {self.path} cannot be read: {error}") from error

    @staticmethod
    def _names(table: Any) -> list[str]:
        return sorted(table.get_add_actions(flatten=True).column("path").to_pylist())

    def _read(self, version: int) -> Snapshot:
        """Read a version from the log, and each part's layout from its footer."""
        table = self._delta(version)
        found = tuple(parts.open_part(self.path / name, self.dim) for name in self._names(table))
        return Snapshot(version, found, _columns(table), self.dim)

    def _remembered(self, version: int) -> Snapshot | None:
        """Return the snapshot from its file when that is of this version and fits the parts on the disk."""
        try:
            note = json.loads(self._snapshot_file.read_bytes())
            if (note["format"], note["version"], note["dim"]) != (_SNAPSHOT_VERSION, version, self.dim):
                return None
            found = []
            for entry in note["parts"]:
                path = self.path / entry["name"]
                if path.stat().st_size != entry["size"]:
                    return None
                blocks = entry["blocks"]
                found.append(
                    Part(
                        path,
                        entry["rows"],
                        self.dim,
                        None if blocks is None else [Block(*block) for block in blocks],
                    )
                )
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(note["columns"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # a note that cannot be read is made again from the log
        return Snapshot(version, tuple(found), schema, self.dim)

    def _remember(self, snapshot: Snapshot) -> Snapshot:
        note = {
            "format": _SNAPSHOT_VERSION,
            "version": snapshot.version,
            "dim": self.dim,
            "columns": base64.b64encode(snapshot.schema.serialize()).decode(),
            "parts": [
                {
                    "name": part.name,
                    "rows": part.rows,
                    "size": _size(part),
                    "blocks": None if part.blocks is None else [[b.offset, b.rows] for b in part.blocks],
                }
                for part in snapshot.parts
            ],
        }
        try:
            self._snapshot_file.parent.mkdir(exist_ok=True)
            files.replace(self._snapshot_file, json.dumps(note), durable=False)
        except OSError:
            return snapshot  # a store on a read-only disk is read from its log each time
        return snapshot


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


def _size(part: Part) -> int:
    return part.path.stat().st_size
