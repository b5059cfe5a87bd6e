"""The SQLite file beneath the ledger: its tables, its transactions, and what is done when its bytes are damaged.

Every value that matters stands beside an xxh3 of itself, its seal: `LedgerFile.check` names what does not fit it, and
`LedgerFile.salvage` puts a file that SQLite cannot read aside, after what can be read of it was saved. What the tables
are for is `ledger`'s business.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import struct
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import xxhash

from embedstore import files
from embedstore.errors import DamagedStoreError, FormatVersionError, StoreLockedError

FORMAT_VERSION = 2
"""2 has labels. A file of version 1 is read as it is, and gets what is new when it is next written to."""

_log = logging.getLogger("embedstore")
_PATIENCE = 30.0
_SLACK_PAGES = 4_096
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
CREATE TABLE IF NOT EXISTS labels (
    id INTEGER PRIMARY KEY AUTOINCREMENT, batch INTEGER NOT NULL, concept TEXT NOT NULL, row TEXT NOT NULL,
    answer TEXT NOT NULL, picked TEXT NOT NULL, probability TEXT NOT NULL, round INTEGER NOT NULL,
    condition TEXT NOT NULL, at TEXT NOT NULL, content_hash TEXT NOT NULL, seal INTEGER);
"""
LABEL_COLUMNS = (
    *("id", "batch", "concept", "row", "answer", "picked"),
    *("probability", "round", "condition", "at", "content_hash"),
)
_SEALED = {
    "paid": ("id", "run", "rows", "content"),
    "queries": ("space", "kind", "text", "vector"),
    "confirmations": ("dataset", "about", "value", "at"),
    "log_files": ("name", "checksum"),
    "labels": LABEL_COLUMNS,
}
_BLOBS = ("content", "vector")
_SINCE = {"labels": 2}
"""The format versions that brought a table, where that is not the first."""
_OS_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


class DamagedLedgerError(DamagedStoreError):
    """SQLite cannot read the ledger."""


class LedgerFile:
    """The file; each call of `read` and each block of `writing` is a transaction of its own.

    Reading from one that is not there finds nothing; writing makes it.

    Parameters
    ----------
    path : Path

    Raises
    ------
    DamagedLedgerError, FormatVersionError, StoreLockedError, OSError
        See `ledger.Ledger`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self) -> list[str]:
        """Read every byte that matters; return what is damaged, in words."""
        if not self.path.exists():
            return []
        if not self.path.stat().st_size:
            return [f"{self.path.name} is empty: what it held is gone; `embedstore repair STORE` makes a new one"]
        try:
            problems = [f"{self.path.name}: {text}" for (text,) in self.read("PRAGMA integrity_check") if text != "ok"]
            for table, columns in _SEALED.items():
                rows = self.read(f"SELECT rowid, {', '.join(columns)}, seal FROM {table}", since=_SINCE.get(table, 1))
                problems += [
                    f"{self.path.name}: row {row[0]} of {table} does not fit its checksum"
                    for row in rows
                    if not fits(table, row[1:-1], row[-1])
                ]
            stray = "SELECT DISTINCT paid FROM claims WHERE paid IS NOT NULL AND paid NOT IN (SELECT id FROM paid)"
            problems += [
                f"{self.path.name}: a claim says that a picture is paid for in batch {number}, which is not there"
                for (number,) in self.read(stray)
            ]
        except (DamagedLedgerError, FormatVersionError) as error:
            return [str(error)]
        return problems

    def salvage(self) -> Path:
        """Put a ledger that SQLite cannot read aside, and what can be read of it into a new one; return the old file.

        The caller holds the store's lock, and no other process has a claim.
        """
        aside = _free_name(self.path)
        fresh = LedgerFile(aside.with_name(f".{aside.name}.new"))
        fresh.path.unlink(missing_ok=True)
        with fresh.writing() as db:
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
                        if fits(table, row[:-1], row[-1]):
                            found[number] = tuple(row)
            except sqlite3.Error as error:
                _log.debug("reading %s of %s ended: %s", table, self.path, error)
        return [found[number] for number in sorted(found)]

    def give_space_back(self, slack: int = _SLACK_PAGES) -> None:
        """Shrink the file when more than so many pages of it are free."""
        [(free,)] = self.read("PRAGMA freelist_count") or [(0,)]
        if free > slack:
            with self._connected() as db:
                db.executescript("PRAGMA incremental_vacuum")  # `execute` frees one page

    def read(self, query: str, values: Sequence[Any] = (), since: int = 1) -> list[Any]:
        """Return the rows of a query; none where there is no file, or one of a format version before `since`."""
        if not self.path.exists():
            return []
        with self._connected() as db:
            if db.execute("PRAGMA user_version").fetchone()[0] < since and not query.startswith("PRAGMA"):
                return []  # it is being made, or older than what is asked for
            return db.execute(query, tuple(values)).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection whose statements are committed together and synced, or not at all."""
        new = not self.path.exists()
        with self._connected() as db:
            if db.execute("PRAGMA user_version").fetchone()[0] < FORMAT_VERSION:
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                db.execute("BEGIN EXCLUSIVE")
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute("INSERT OR IGNORE INTO about VALUES ('id', ?)", (uuid.uuid4().hex,))
                db.execute("INSERT OR REPLACE INTO about VALUES ('format', ?)", (str(FORMAT_VERSION),))
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
        if 0 < version < FORMAT_VERSION and said == str(version):
            return
        if version <= FORMAT_VERSION or said != str(version):
            raise sqlite3.DatabaseError(f"it says format version {version} in one place and {said} in another")
        raise FormatVersionError(
            f"{self.path} has format version {version}; this embedstore reads up to {FORMAT_VERSION}. "
            "Use a newer embedstore"
        )

    def _as_ours(self, error: Exception) -> Exception:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _OS_ERRORS:
            number = _OS_ERRORS[code]
            return OSError(number, f"{os.strerror(number)}: the ledger cannot be used ({error})", str(self.path))
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
            return StoreLockedError(f"another process is writing to {self.path}; wait for it, or end it and try again")
        return DamagedLedgerError(
            f"{self.path} cannot be read ({error}); `embedstore repair STORE` saves what can be read of it"
        )


def seal(values: Iterable[Any]) -> int:
    """Return the xxh3 of values as SQLite stores it, a signed number; each with its length: none runs into another."""
    digest = xxhash.xxh3_64()
    for value in values:
        data = value.encode() if isinstance(value, str) else value
        data = struct.pack("<q", data) if isinstance(data, int) else data
        digest.update(struct.pack("<Q", len(data)))
        digest.update(data)
    return signed(digest.intdigest())


def fits(table: str, values: Sequence[Any], sealed: int | None) -> bool:
    """Tell whether a table's sealed values, in the order of its columns, are what was sealed.

    In type too: one bit makes bytes, or null, of a text.
    """
    columns = zip(_SEALED[table], values, strict=False)
    typed = all(isinstance(value, bytes) == (name in _BLOBS) for name, value in columns)
    return typed and None not in values and seal(values) == sealed


def signed(number: int) -> int:
    """Return 64 bits as the signed number that SQLite stores."""
    return number - 2**64 if number >= 2**63 else number


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside
