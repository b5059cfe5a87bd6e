"""The ledger: what has been paid for and is not yet a row, who embeds what now, and what is known from elsewhere.

One SQLite file that all processes share. A batch of new rows is written to it, and synced, before further requests are
made; `folder` turns what has gathered into a part, and only then do the rows leave. A picture is *claimed* by its
content hash before it is paid for, so that two adds at once pay once; the claims of a process that has died are free
again. It also keeps the vectors of queries that were asked before, what Atlas was seen to hold, checksums of the
table's log, and the labels that people gave, which nothing deletes.

What does not fit its checksum is never used and never deleted: paid rows are set aside as files. How the file is
written and mended is `ledger_file`'s business, what the rows mean `ingest`'s, the queries `searching`'s, the
confirmations `atlas`', the labels `deciding`'s.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embedstore import files
from embedstore.storage.arrow_columns import pa
from embedstore.storage.ledger_file import LABEL_COLUMNS, DamagedLedgerError, LedgerFile, fits, seal, signed
from embedstore.vectors import Vectors

MOST_QUERIES = 20_000
"""Vectors of queries that are kept, 64 MB of 768 components; the ones asked for longest ago go."""

_log = logging.getLogger("embedstore")
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class PaidBatch:
    """Rows that wait to become a part: their number in the ledger, who wrote them, and how many there are.

    `table` has the columns of the rows, the embedding among them; None where the bytes do not fit their seal.
    """

    id: int
    run: str
    rows: int
    table: pa.Table | None


class LabelEvent(NamedTuple):
    """One event of the log of labels: a row was picked for a concept, or answered; or a whole batch was undone."""

    concept: str
    row: str
    """The id; empty where a batch was undone."""
    answer: str
    """As `deciding.rounds` writes answers; `UNDONE` where the batch of this number counts no more."""
    picked: str
    probability: float | None
    round: int
    condition: str
    at: str
    content_hash: str = ""
    """Of the picture that was looked at, where that is known."""


UNDONE = "undone"


class Ledger:
    """The ledger of a store.

    Reading from one that is not there finds nothing; writing makes it. Each call is a transaction of its own, so that
    threads and forked processes may share an object.

    Parameters
    ----------
    path : Path
        ``ledger.sqlite``.
    most_queries : int, optional
        Vectors of queries that are kept; `MOST_QUERIES` unless told.

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

    def __init__(self, path: Path, most_queries: int | None = None) -> None:
        self.path, self._most_queries = path, most_queries
        self._file = LedgerFile(path)

    def keep_manifest(self, text: str) -> None:
        """Keep a copy of ``store.json``, from which it can be written anew."""
        with self._file.writing() as db:
            db.execute("INSERT OR REPLACE INTO about VALUES ('manifest', ?)", (text,))

    def manifest(self) -> str | None:
        """Return the copy of ``store.json``; None where there is none."""
        return next((value for (value,) in self._file.read("SELECT value FROM about WHERE name = 'manifest'")), None)

    def shrink(self) -> None:
        """Give the file's free space back to the disk."""
        self._file.give_space_back(0)

    def check(self) -> list[str]:
        """Read every byte that matters; return what is damaged, in words."""
        return self._file.check()

    def salvage(self) -> Path:
        """Put a ledger that SQLite cannot read aside, and what can be read of it into a new one; return the old file.

        The caller holds the store's lock, and no other process has a claim.
        """
        return self._file.salvage()

    @property
    def id(self) -> str | None:
        """32 hex digits, drawn when the file was made; None when there is none."""
        return next((value for (value,) in self._file.read("SELECT value FROM about WHERE name = 'id'")), None)

    # Paid rows and claims.

    def claim(self, run: str, content_hashes: Sequence[str], is_alive: Callable[[str], bool]) -> set[str]:
        """Claim pictures before they are paid for; return those that are this run's now.

        The others are paid for, or claimed by a run for which ``is_alive(run)`` is true.
        """
        with self._file.writing() as db:
            taken: dict[str, tuple[str, int | None]] = {}
            for some in _chunks(content_hashes):
                rows = db.execute(
                    "SELECT content_hash, claims.run, paid.id FROM claims LEFT JOIN paid ON paid.id = claims.paid "
                    f"WHERE content_hash IN ({_marks(some)})",
                    some,
                )
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
        with self._file.writing() as db:
            if content_hashes is None:
                db.execute("DELETE FROM claims WHERE run = ? AND paid IS NULL", (run,))
            else:
                statement = "DELETE FROM claims WHERE run = ? AND paid IS NULL AND content_hash = ?"
                db.executemany(statement, [(run, content_hash) for content_hash in content_hashes])

    def owners(self, content_hashes: Sequence[str]) -> dict[str, tuple[str, int | None]]:
        """Return who has claimed pictures, and the number of the batch where they are paid for, by content hash."""
        found: dict[str, tuple[str, int | None]] = {}
        for some in _chunks(content_hashes):
            rows = self._file.read(f"SELECT * FROM claims WHERE content_hash IN ({_marks(some)})", some)
            found.update({content_hash: (owner, paid) for content_hash, owner, paid in rows})
        return found

    def pay(self, run: str, rows: pa.Table) -> int:
        """Write rows down and return their number; when this returns they are on the disk."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        content = memoryview(sink.getvalue())
        hashes = {value for value in rows.column("content_hash").to_pylist() if value}
        with self._file.writing() as db:
            number = _next_number(db)
            values = (number, run, len(rows), content)
            db.execute(
                "INSERT INTO paid (id, run, rows, content, seal) VALUES (?, ?, ?, ?, ?)", (*values, seal(values))
            )
            db.executemany(
                "UPDATE claims SET paid = ? WHERE content_hash = ? AND run = ?",
                [(number, content_hash, run) for content_hash in hashes],
            )
        return number

    def number_behind(self, number: int) -> None:
        """Give all batches to come larger numbers than `number`, which a table has taken in."""
        last = "SELECT CAST(value AS INTEGER) FROM about WHERE name = 'last'"
        if number > next((count for (count,) in self._file.read(last)), 0):
            with self._file.writing() as db:
                db.execute("INSERT OR REPLACE INTO about VALUES ('last', ?)", (str(number),))

    def waiting(self) -> dict[str, int]:
        """Return how many rows wait, by the run that wrote them."""
        return dict(self._file.read("SELECT run, coalesce(sum(rows), 0) FROM paid GROUP BY run"))

    def paid_hashes(self) -> set[str]:
        """Return the content hashes of pictures that are paid for and not yet in the table."""
        return {name for (name,) in self._file.read("SELECT content_hash FROM claims WHERE paid IS NOT NULL")}

    def paid(self, numbers: Sequence[int] | None = None) -> Iterator[PaidBatch]:
        """Yield the batches that wait, or those of these numbers, in the order in which they were written."""
        wanted = [number for (number,) in self._file.read("SELECT id FROM paid ORDER BY id")]
        for number in wanted if numbers is None else sorted(set(wanted) & set(numbers)):
            for run, rows, content, sealed in self._file.read(
                "SELECT run, rows, content, seal FROM paid WHERE id = ?", (number,)
            ):
                sound = fits("paid", (number, run, rows, content), sealed)
                yield PaidBatch(number, run or "", rows or 0, _table(content) if sound else None)

    def settle(self, numbers: Sequence[int]) -> None:
        """Let go of batches that are in the table, or set aside, and of the claims on their pictures."""
        with self._file.writing() as db:
            db.executemany("DELETE FROM claims WHERE paid = ?", [(number,) for number in numbers])
            db.executemany("DELETE FROM paid WHERE id = ?", [(number,) for number in numbers])
        self._file.give_space_back()

    def set_aside(self, batch: PaidBatch, folder: Path) -> Path:
        """Write the bytes of a batch that cannot be used to a file in `folder`, and let go of it; return the file."""
        [(content,)] = self._file.read("SELECT content FROM paid WHERE id = ?", (batch.id,))
        folder.mkdir(exist_ok=True)
        file = folder / f"paid-{self.id}-{batch.id}.arrow"
        files.replace(file, content or b"")
        self.settle([batch.id])
        return file

    # Queries asked before.

    def query_count(self, space: str) -> int:
        """Return how many vectors of queries are kept of an embedding space."""
        return int(next(iter(self._file.read("SELECT count(*) FROM queries WHERE space = ?", (space,))), (0,))[0])

    def queries(self, space: str, kind: str, texts: Sequence[str]) -> dict[str, Vectors]:
        """Return the vectors that are kept, shape (dim,), by text or content hash; those that are sound."""
        found: dict[str, Vectors] = {}
        for some in _chunks(texts):
            for text, vector, sealed in self._file.read(
                f"SELECT text, vector, seal FROM queries WHERE space = ? AND kind = ? AND text IN ({_marks(some)})",
                (space, kind, *some),
            ):
                if fits("queries", (space, kind, text, vector), sealed):
                    found[text] = np.frombuffer(vector, "<f4").astype(np.float32)
                else:
                    _log.warning("the kept vector of the query %r is damaged; it is made again", text)
        return found

    def keep_queries(self, space: str, kind: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Keep one vector for each text or content hash, float32 of shape (len(texts), dim)."""
        rows = [(space, kind, text, np.asarray(row, "<f4").tobytes()) for text, row in zip(texts, vectors, strict=True)]
        with self._file.writing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO queries (space, kind, text, vector, seal) VALUES (?, ?, ?, ?, ?)",
                [(*row, seal(row)) for row in rows],
            )
            most = self._most_queries or MOST_QUERIES
            [(span,)] = db.execute("SELECT max(id) - min(id) + 1 FROM queries")
            if span is not None and span > most:  # else there cannot be too many, and to count them takes a walk
                [(excess,)] = db.execute("SELECT max(count(*) - ?, 0) FROM queries", (most,))
                db.execute("DELETE FROM queries WHERE id IN (SELECT id FROM queries ORDER BY id LIMIT ?)", (excess,))

    # What a service was seen to hold.

    def confirm(self, dataset: str, about: str, value: str) -> None:
        """Write down something that was seen of a remote dataset; when this returns it is on the disk."""
        values = (dataset, about, value, datetime.now(UTC).isoformat(timespec="seconds"))
        with self._file.writing() as db:
            db.execute(
                "INSERT INTO confirmations (dataset, about, value, at, seal) VALUES (?, ?, ?, ?, ?)",
                (*values, seal(values)),
            )

    def confirmations(self, dataset: str, about: str) -> list[str]:
        """Return what was written down, in order, without what is damaged: the service is asked again for that."""
        rows = self._file.read(
            "SELECT dataset, about, value, at, seal FROM confirmations WHERE dataset = ? AND about = ? ORDER BY id",
            (dataset, about),
        )
        return [row[2] for row in rows if fits("confirmations", row[:-1], row[-1])]

    def confirmed_datasets(self) -> list[str]:
        """Return the remote datasets of which something was written down."""
        return [name for (name,) in self._file.read("SELECT DISTINCT dataset FROM confirmations")]

    # Labels that people gave.

    def add_labels(self, events: Sequence[LabelEvent], undoes: int | None = None) -> int:
        """Write events down as one batch, and return its number; when this returns they are on the disk.

        An event that undoes a batch stands in that batch, whose number is `undoes`.
        """
        with self._file.writing() as db:
            counts = "SELECT seq FROM sqlite_sequence WHERE name = 'labels' UNION ALL SELECT max(id) FROM labels"
            count = max((number for (number,) in db.execute(counts) if number), default=0)
            batch = count + 1 if undoes is None else undoes
            for number, event in enumerate(events, count + 1):
                chance = "" if event.probability is None else repr(event.probability)
                values = (number, batch, *event[:4], chance, *event[5:])
                db.execute(f"INSERT INTO labels VALUES ({_marks(values)}, ?)", (*values, seal(values)))
        return batch

    def label_batches(self, concept: str | None = None) -> dict[int, list[LabelEvent]]:
        """Return the events of a concept, or of all, in order, by the batch that they came in; without undone batches.

        Raises DamagedLedgerError where one of them does not fit its seal: a label that nobody gave would be worse.
        """
        query = f"SELECT {', '.join(LABEL_COLUMNS)}, seal FROM labels ORDER BY id"
        batches: dict[int, list[LabelEvent]] = {}
        for *values, sealed in self._file.read(query, since=2):  # all of them: a damaged name would be found by none
            if not fits("labels", values, sealed):
                raise DamagedLedgerError(
                    f"{self.path}: label {values[0]} does not fit its checksum; `embedstore repair STORE` sets it "
                    "aside, and keeps the others"
                )
            _, batch, name, row, answer, picked, chance, *rest = values
            if concept is not None and name != concept:
                continue
            if answer == UNDONE:
                batches.pop(batch, None)
            else:
                event = LabelEvent(name, row, answer, picked, float(chance) if chance else None, *rest)
                batches.setdefault(batch, []).append(event)
        return batches

    # Checksums of the table's log.

    def note(self, checksums: Mapping[str, int | None]) -> None:
        """Write down the xxh3 of files of the log, by name; None for a file that is gone."""
        with self._file.writing() as db:
            for name, checksum in checksums.items():
                if checksum is None:
                    db.execute("DELETE FROM log_files WHERE name = ?", (name,))
                else:
                    values = (name, signed(checksum))
                    db.execute("INSERT OR REPLACE INTO log_files VALUES (?, ?, ?)", (*values, seal(values)))

    def noted(self) -> dict[str, int]:
        """Return the xxh3 of files of the log that were written down, by name."""
        return {name: value % 2**64 for name, value in self._file.read("SELECT name, checksum FROM log_files")}


def _table(content: bytes) -> pa.Table:
    with pa.ipc.open_stream(content) as reader:
        return reader.read_all()


def _next_number(db: sqlite3.Connection) -> int:
    """Return a number that no batch has had: it is counted in two places, so that one damaged count gives none twice.

    A number that comes again would be one that the table has taken in already, and its rows would be dropped.
    """
    counts = db.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = 'paid' "
        "UNION ALL SELECT CAST(value AS INTEGER) FROM about WHERE name = 'last'"
    )
    number = 1 + max((count for (count,) in counts), default=0)
    db.execute("INSERT OR REPLACE INTO about VALUES ('last', ?)", (str(number),))
    return number


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield so many values at a time as a statement may hold on every SQLite."""
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
