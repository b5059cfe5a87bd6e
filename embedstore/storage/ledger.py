"""The ledger: what has been paid for and is not yet a row, who embeds what now, and what is known from elsewhere.

One SQLite file that all processes share. A batch of new rows is written to it, and synced, before further requests are
made; `folder` turns what has gathered into a part, and only then do the rows leave. A picture is *claimed* by its
content hash before it is paid for, so that two adds at once pay once; the claims of a process that has died are free
again. It also keeps the vectors of queries that were asked before, what Atlas was seen to hold, and checksums of the
table's log.

Every value that matters stands beside an xxh3 of itself, its seal. What does not fit its seal is never used and never
deleted: paid rows are set aside as files, a ledger that SQLite cannot read is set aside whole, after what can be read
of it was saved. What the rows mean is left to `ingest`, the queries to `searching`, the confirmations to `atlas`.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from embedstore import files
from embedstore.errors import DamagedStoreError, FormatVersionError, StoreLockedError
from embedstore.vectors import Vectors

FORMAT_VERSION = 1
MOST_QUERIES = 20_000
"""Vectors of queries that are kept, 64 MB of 768 components; the ones asked for longest ago go."""

_log = logging.getLogger("embedstore")
_PATIENCE = 30.0
_SLACK_PAGES = 4_096
_AT_ONCE = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS paid (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, rows INTEGER NOT NULL, content BLOB NOT NULL,
    seal INTEGER);
CREATE TABLE IF NOT EXISTS claims (content_hash TEXT PRIMARY KEY, run TEXT NOT NULL, paid INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS claims_paid ON claims (paid);
CREATE TABLE IF NOT EXISTS queries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,
    vector BLOB NOT NULL, seal INTEGER, UNIQUE (space, kind, text));
CREATE TABLE IF NOT EXISTS confirmations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, dataset TEXT NOT NULL, about TEXT NOT NULL, value TEXT NOT NULL,
    at TEXT NOT NULL, seal INTEGER);
CREATE INDEX IF NOT EXISTS confirmations_dataset ON confirmations (dataset);
CREATE TABLE IF NOT EXISTS log_files (name TEXT PRIMARY KEY, checksum INTEGER NOT NULL, seal INTEGER);
"""
_SEALED = {
    "paid": ("run", "rows", "content"),
    "queries": ("space", "kind", "text", "vector"),
    "confirmations": ("dataset", "about", "value", "at"),
    "log_files": ("name", "checksum"),
}
_OS_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


class DamagedLedgerError(DamagedStoreError):
    """SQLite cannot read the ledger."""


@dataclass(frozen=True, slots=True)
class PaidBatch:
    """Rows that wait to become a part: their number in the ledger, who wrote them, and how many there are.

    `table` has the columns of the rows, the embedding among them; None where the bytes do not fit their seal.
    """

    id: int
    run: str
    rows: int
    table: pa.Table | None


class Ledger:
    """The ledger of a store.

    Reading from one that is not there finds nothing; writing makes it. Each call is a transaction of its own, so that
    threads and forked processes may share an object.

    Parameters
    ----------
    path : Path
        ``ledger.sqlite``.

    Raises
    ------
    DamagedLedgerError
        From every method: SQLite cannot read the file. `salvage` saves what can be read.
    FormatVersionError
        A newer embedstore wrote it.
    StoreLockedError
        Another process has been writing for half a minute.
    OSError
        The disk is full, cannot be written to, or fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make an empty ledger, synced."""
        with self._writing():
            pass

    @property
    def id(self) -> str | None:
        """32 hex digits, drawn when the file was made; None when there is none."""
        return next((value for (value,) in self._read("SELECT value FROM about WHERE name = 'id'")), None)

    # Paid rows and claims.

    def claim(self, run: str, content_hashes: Sequence[str], is_alive: Callable[[str], bool]) -> set[str]:
        """Claim pictures before they are paid for; return those that are this run's now.

        The others are paid for, or claimed by a run for which ``is_alive(run)`` is true.
        """
        with self._writing() as db:
            taken: dict[str, tuple[str, int | None]] = {}
            for some in _chunks(content_hashes):
                rows = db.execute(f"SELECT * FROM claims WHERE content_hash IN ({_marks(some)})", some)
                taken.update({content_hash: (owner, paid) for content_hash, owner, paid in rows})
            living = {owner: owner == run or is_alive(owner) for owner, paid in taken.values() if paid is None}
            blocked = {
                content_hash
                for content_hash, (owner, paid) in taken.items()
                if paid is not None or (living[owner] and owner != run)
            }
            mine = [content_hash for content_hash in content_hashes if content_hash not in blocked]
            db.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, NULL)", [(name, run) for name in mine])
        return set(mine)

    def release(self, run: str, content_hashes: Sequence[str] | None = None) -> None:
        """Give back what a run has claimed and not paid for, of these pictures or of all."""
        if not self.path.exists():
            return
        with self._writing() as db:
            if content_hashes is None:
                db.execute("DELETE FROM claims WHERE run = ? AND paid IS NULL", (run,))
            else:
                statement = "DELETE FROM claims WHERE run = ? AND paid IS NULL AND content_hash = ?"
                db.executemany(statement, [(run, content_hash) for content_hash in content_hashes])

    def owners(self, content_hashes: Sequence[str]) -> dict[str, tuple[str, int | None]]:
        """Return who has claimed pictures, and the number of the batch where they are paid for, by content hash."""
        found: dict[str, tuple[str, int | None]] = {}
        for some in _chunks(content_hashes):
            rows = self._read(f"SELECT * FROM claims WHERE content_hash IN ({_marks(some)})", some)
            found.update({content_hash: (owner, paid) for content_hash, owner, paid in rows})
        return found

    def pay(self, run: str, rows: pa.Table) -> int:
        """Write rows down and return their number; when this returns they are on the disk."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        content = memoryview(sink.getvalue())
        hashes = {value for value in rows.column("content_hash").to_pylist() if value}
        with self._writing() as db:
            values = (run, len(rows), content)
            cursor = db.execute(
                "INSERT INTO paid (run, rows, content, seal) VALUES (?, ?, ?, ?)", (*values, _seal(values))
            )
            number = int(cursor.lastrowid or 0)
            db.executemany(
                "UPDATE claims SET paid = ? WHERE content_hash = ? AND run = ?",
                [(number, content_hash, run) for content_hash in hashes],
            )
        return number

    def waiting(self) -> dict[str, int]:
        """Return how many rows wait, by the run that wrote them."""
        return dict(self._read("SELECT run, sum(rows) FROM paid GROUP BY run"))

    def paid_hashes(self) -> set[str]:
        """Return the content hashes of pictures that are paid for and not yet in the table."""
        return {name for (name,) in self._read("SELECT content_hash FROM claims WHERE paid IS NOT NULL")}

    def paid(self, numbers: Sequence[int] | None = None) -> Iterator[PaidBatch]:
        """Yield the batches that wait, or those of these numbers, in the order in which they were written."""
        wanted = [number for (number,) in self._read("SELECT id FROM paid ORDER BY id")]
        for number in wanted if numbers is None else sorted(set(wanted) & set(numbers)):
            for run, rows, content, seal in self._read(
                "SELECT run, rows, content, seal FROM paid WHERE id = ?", (number,)
            ):
                yield PaidBatch(number, run, rows, _table(content) if _seal((run, rows, content)) == seal else None)

    def settle(self, numbers: Sequence[int]) -> None:
        """Let go of batches that are in the table, or set aside, and of the claims on their pictures."""
        with self._writing() as db:
            db.executemany("DELETE FROM claims WHERE paid = ?", [(number,) for number in numbers])
            db.executemany("DELETE FROM paid WHERE id = ?", [(number,) for number in numbers])
        self._give_space_back()

    def set_aside(self, batch: PaidBatch, folder: Path) -> Path:
        """Write the bytes of a batch that cannot be used to a file in `folder`, and let go of it; return the file."""
        [(content,)] = self._read("SELECT content FROM paid WHERE id = ?", (batch.id,))
        folder.mkdir(exist_ok=True)
        file = folder / f"paid-{self.id}-{batch.id}.arrow"
        files.replace(file, content)
        self.settle([batch.id])
        return file

    # Queries asked before.

    def query_count(self, space: str) -> int:
        """Return how many vectors of queries are kept of an embedding space."""
        return int(next(iter(self._read("SELECT count(*) FROM queries WHERE space = ?", (space,))), (0,))[0])

    def queries(self, space: str, kind: str, texts: Sequence[str]) -> dict[str, Vectors]:
        """Return the vectors that are kept, shape (dim,), by text or content hash; those that are sound."""
        found: dict[str, Vectors] = {}
        for some in _chunks(texts):
            for text, vector, seal in self._read(
                f"SELECT text, vector, seal FROM queries WHERE space = ? AND kind = ? AND text IN ({_marks(some)})",
                (space, kind, *some),
            ):
                if _seal((space, kind, text, vector)) == seal:
                    found[text] = np.frombuffer(vector, "<f4").astype(np.float32)
                else:
                    _log.warning("the kept vector of the query %r is damaged; it is made again", text)
        return found

    def keep_queries(self, space: str, kind: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Keep one vector for each text or content hash, float32 of shape (len(texts), dim)."""
        rows = [(space, kind, text, np.asarray(row, "<f4").tobytes()) for text, row in zip(texts, vectors, strict=True)]
        with self._writing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO queries (space, kind, text, vector, seal) VALUES (?, ?, ?, ?, ?)",
                [(*row, _seal(row)) for row in rows],
            )
            db.execute(
                "DELETE FROM queries WHERE id <= (SELECT id FROM queries ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (MOST_QUERIES,),
            )

    # What a service was seen to hold.

    def confirm(self, dataset: str, about: str, value: str) -> None:
        """Write down something that was seen of a remote dataset; when this returns it is on the disk."""
        values = (dataset, about, value, datetime.now(UTC).isoformat(timespec="seconds"))
        with self._writing() as db:
            db.execute(
                "INSERT INTO confirmations (dataset, about, value, at, seal) VALUES (?, ?, ?, ?, ?)",
                (*values, _seal(values)),
            )

    def confirmations(self, dataset: str, about: str) -> list[str]:
        """Return what was written down, in order, without what is damaged: the service is asked again for that."""
        rows = self._read(
            "SELECT dataset, about, value, at, seal FROM confirmations WHERE dataset = ? AND about = ? ORDER BY id",
            (dataset, about),
        )
        return [row[2] for row in rows if _seal(row[:-1]) == row[-1]]

    def confirmed_datasets(self) -> list[str]:
        """Return the remote datasets of which something was written down."""
        return [name for (name,) in self._read("SELECT DISTINCT dataset FROM confirmations")]

    # Checksums of the table's log.

    def note(self, checksums: Mapping[str, int | None]) -> None:
        """Write down the xxh3 of files of the log, by name; None for a file that is gone."""
        with self._writing() as db:
            for name, checksum in checksums.items():
                if checksum is None:
                    db.execute("DELETE FROM log_files WHERE name = ?", (name,))
                else:
                    values = (name, _signed(checksum))
                    db.execute("INSERT OR REPLACE INTO log_files VALUES (?, ?, ?)", (*values, _seal(values)))

    def noted(self) -> dict[str, int]:
        """Return the xxh3 of files of the log that were written down, by name."""
        return {name: value % 2**64 for name, value in self._read("SELECT name, checksum FROM log_files")}

    # The file itself.

    def check(self) -> list[str]:
        """Read every byte that matters; return what is damaged, in words."""
        if not self.path.exists():
            return []
        try:
            problems = [f"{self.path.name}: {text}" for (text,) in self._read("PRAGMA integrity_check") if text != "ok"]
            for table, columns in _SEALED.items():
                rows = self._read(f"SELECT rowid, {', '.join(columns)}, seal FROM {table}")
                problems += [
                    f"{self.path.name}: row {row[0]} of {table} does not fit its checksum"
                    for row in rows
                    if _seal(row[1:-1]) != row[-1]
                ]
        except DamagedLedgerError as error:
            return [str(error)]
        return problems

    def salvage(self) -> Path:
        """Put a ledger that SQLite cannot read aside, and what can be read of it into a new one; return the old file.

        The caller holds the store's lock, and no other process has a claim.
        """
        aside = _free_name(self.path)
        fresh = Ledger(aside.with_name(f".{aside.name}.new"))
        fresh.path.unlink(missing_ok=True)
        fresh.create()
        with fresh._writing() as db:
            for table, columns in _SEALED.items():
                marks = ", ".join("?" * (len(columns) + 1))
                for row in self._readable(table, (*columns, "seal")):
                    db.execute(f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}, seal) VALUES ({marks})", row)
        for suffix in ("", "-journal"):
            beside = self.path.with_name(self.path.name + suffix)
            if beside.exists():
                beside.rename(aside.with_name(aside.name + suffix))
        fresh.path.rename(self.path)
        files.sync_folder(self.path.parent)
        return aside

    def _readable(self, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return the sound rows of a table that can be read from its start, and from its end."""
        found: dict[int, tuple[Any, ...]] = {}
        for order in ("ASC", "DESC"):
            try:
                with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as db:
                    query = f"SELECT rowid, {', '.join(columns)} FROM {table} ORDER BY rowid {order}"
                    for number, *row in db.execute(query):
                        if _seal(row[:-1]) == row[-1]:
                            found[number] = tuple(row)
            except sqlite3.Error as error:
                _log.debug("reading %s of %s ended: %s", table, self.path, error)
        return [found[number] for number in sorted(found)]

    def _give_space_back(self) -> None:
        """Shrink the file when much of it is free."""
        [(free,)] = self._read("PRAGMA freelist_count")
        if free > _SLACK_PAGES:
            with self._connected() as db:
                db.executescript("PRAGMA incremental_vacuum")  # `execute` frees one page

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        if not self.path.exists():
            return []
        with self._connected() as db:
            if db.execute("PRAGMA user_version").fetchone()[0] == 0 and not query.startswith("PRAGMA"):
                return []  # it is being made
            return db.execute(query, tuple(values)).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        new = not self.path.exists()
        with self._connected() as db:
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                db.execute("BEGIN EXCLUSIVE")
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute("INSERT OR IGNORE INTO about VALUES ('id', ?)", (uuid.uuid4().hex,))
                db.execute("INSERT OR IGNORE INTO about VALUES ('format', ?)", (str(FORMAT_VERSION),))
                db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
                db.execute("COMMIT")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
        if new:
            files.sync_folder(self.path.parent)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction, and turn SQLite's errors into ours."""
        try:
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)) as db:
                # A commit ends by shortening the rollback journal, which FULL syncs: deleted, it could come back
                # after a power cut and take the commit with it.
                db.execute("PRAGMA journal_mode = TRUNCATE")
                db.execute("PRAGMA synchronous = FULL")
                self._require_format(db)
                yield db
        except (sqlite3.Error, UnicodeDecodeError) as error:  # damaged names may be no UTF-8
            raise self._as_ours(error) from error

    def _require_format(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == FORMAT_VERSION or (version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone()):
            return
        [(said,)] = db.execute("SELECT value FROM about WHERE name = 'format'").fetchall() or [("none",)]
        if version <= FORMAT_VERSION or said != str(version):
            raise sqlite3.DatabaseError(f"it says format version {version} in one place and {said} in another")
        raise FormatVersionError(
            f"{self.path} has format version {version}; this embedstore reads up to {FORMAT_VERSION}. "
            "Upgrade with: pip install -U embedstore"
        )

    def _as_ours(self, error: Exception) -> Exception:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _OS_ERRORS:
            number = _OS_ERRORS[code]
            return OSError(number, f"{os.strerror(number)}: the ledger cannot be used ({error})", str(self.path))
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
            return StoreLockedError(f"another process is writing to {self.path}; wait for it, or end it and try again")
        return DamagedLedgerError(
            f"{self.path} cannot be read ({error}); `embedstore repair` saves what can be read of it"
        )


def _table(content: bytes) -> pa.Table:
    with pa.ipc.open_stream(content) as reader:
        return reader.read_all()


def _seal(values: Iterable[Any]) -> int:
    """Return the xxh3 of values as SQLite stores it, a signed number; each with its length: none runs into another."""
    digest = xxhash.xxh3_64()
    for value in values:
        data = value.encode() if isinstance(value, str) else value
        data = struct.pack("<q", data) if isinstance(data, int) else data
        digest.update(struct.pack("<Q", len(data)))
        digest.update(data)
    return _signed(digest.intdigest())


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield so many values at a time as a statement may hold on every SQLite."""
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside
