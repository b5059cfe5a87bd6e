"""The ledger: paid rows are neither lost nor doubled, a picture is claimed once, and no damaged byte is believed."""

from __future__ import annotations

import errno
import os
import random
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import DamagedStoreError, FormatVersionError
from embedstore.ingest.row_writer import recover
from embedstore.storage import arrow_columns, changes, ledger
from embedstore.storage.folder import own_columns
from embedstore.storage.ledger import LabelEvent, Ledger
from embedstore.storage.ledger_file import seal
from embedstore.store import EmbedStore

DIM = 8


def batch(first: int, count: int, **columns: object) -> tuple[pa.Table, np.ndarray]:
    """Rows with ids first, first + 1, ..., and a vector that tells the id."""
    numbers = range(first, first + count)
    rng = np.random.default_rng(first)
    found = rng.standard_normal((count, DIM)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    base = {
        "id": [f"{number:032x}" for number in numbers],
        "uri": [f"/p/{number}.png" for number in numbers],
        "content_hash": [f"{number:064x}" for number in numbers],
        "width": [1] * count,
        "height": [1] * count,
        "added_at": [None] * count,
    }
    table = pa.table(base, schema=own_columns())
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table.append_column(arrow_columns.embedding_field(), arrow_columns.list_array(found)), found


def vectors_of(table: pa.Table) -> np.ndarray:
    return arrow_columns.vectors_of(table.column("embedding"), DIM, "test")


def nobody(run: str) -> bool:
    """No other run is alive."""
    return False


def everybody(run: str) -> bool:
    """All other runs are alive."""
    return True


def fold(store: EmbedStore, *batches: pa.Table) -> None:
    """Pay for batches, take them in, and read what they became."""
    for table in batches:
        store.folder.ledger.pay("r", table)
    with store.folder.writing():
        store.folder.fold()
    store.refresh()


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    """An empty store of vectors of eight components."""
    return EmbedStore.create(tmp_path / "small.store", space="mine", dim=DIM)


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


# --- paid rows ------------------------------------------------------------------------------------------------


def test_what_is_paid_is_read_back(book: Ledger) -> None:
    """Batches come back whole, in order, to the bit, also to another reader, until they are settled."""
    assert (book.waiting(), list(book.paid()), book.id) == ({}, [], None)
    assert not book.path.exists()
    batches = [batch(0, 3), batch(3, 1), batch(4, 64)]
    numbers = [book.pay(run, table) for run, (table, _) in zip("aba", batches, strict=True)]
    assert book.waiting() == {"a": 67, "b": 1}
    for read, (table, found), number in zip(Ledger(book.path).paid(), batches, numbers, strict=True):
        assert read.table is not None
        assert read.id == number
        assert read.table.drop_columns(["embedding"]).equals(table.drop_columns(["embedding"]))
        assert np.array_equal(vectors_of(read.table), found)
    book.settle(numbers[:2])
    assert book.waiting() == {"a": 64}


def test_a_number_is_never_given_twice(book: Ledger) -> None:
    """The table remembers up to which number it has read: after settling the numbers go on, also in a new process."""
    first = book.pay("a", batch(0, 1)[0])
    book.settle([first])
    assert Ledger(book.path).pay("a", batch(1, 1)[0]) == first + 1


def test_a_damaged_count_gives_no_number_twice(book: Ledger) -> None:
    """Whichever of the two counts of batches is set back, the numbers go on: rows of a number that the table knows
    would be taken for rows that it has."""
    numbers = [book.pay("a", batch(n, 1)[0]) for n in range(3)]
    book.settle(numbers)
    for damage in (
        "UPDATE sqlite_sequence SET seq = 1",
        "UPDATE about SET value = '1' WHERE name = 'last'",
        "DELETE FROM sqlite_sequence",
        "UPDATE about SET value = 'x' WHERE name = 'last'",
    ):
        with sqlite3.connect(book.path) as db:
            db.execute(damage)
        numbers.append(book.pay("a", batch(9, 1)[0]))
    assert numbers == sorted(set(numbers))


def test_a_claim_on_a_batch_that_is_not_there_is_named_and_holds_nothing_up(book: Ledger) -> None:
    """A picture that a damaged claim calls paid for can be claimed and paid for."""
    hashes = batch(0, 1)[0].column("content_hash").to_pylist()
    book.claim("a", hashes, nobody)
    book.pay("a", batch(0, 1)[0])
    with sqlite3.connect(book.path) as db:
        db.execute("UPDATE claims SET paid = 77")
    assert book.check() == ["ledger.sqlite: a claim says that a picture is paid for in batch 77, which is not there"]
    assert book.claim("b", hashes, nobody) == set(hashes)


def test_the_file_shrinks(book: Ledger) -> None:
    """Space is given back once much of it is free."""
    numbers = [book.pay("a", batch(n, 1, note=["x" * 2_000_000])[0]) for n in range(12)]
    large = book.path.stat().st_size
    book.settle(numbers)
    assert book.path.stat().st_size < large / 10


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_crash_between_any_two_steps_of_a_fold(small: EmbedStore, steps: int) -> None:
    """Ended before the part, after it, after the commit, or after settling: the next writer finds every row once."""
    book, expected, numbers = small.folder.ledger, {}, []
    for first in (0, 64, 128):
        table, found = batch(first, 64)
        expected |= dict(zip(table.column("id").to_pylist(), found, strict=True))
        numbers.append(book.pay("dead", table))
    tables = [each.table for each in book.paid() if each.table is not None]
    if steps == 1:
        rows = pa.concat_tables(tables)
        groups = iter([(rows.drop_columns(["embedding"]), vectors_of(rows))])
        small.folder.images.new_part(groups, small.snapshot.schema)
    if steps >= 2:
        assert book.id is not None
        changes.fold(small.folder.images, tables, (book.id, numbers[-1]))
    if steps == 3:
        book.settle(numbers)
    opened = EmbedStore.open(small.path)
    assert recover(opened.folder) == (192 if steps < 2 else 0)
    assert recover(opened.folder) == 0
    opened.refresh()
    ids = opened.to_table(["id"]).column("id").to_pylist()
    assert sorted(ids) == sorted(expected)
    assert np.array_equal(opened.vectors(ids), np.array([expected[identity] for identity in ids]))
    assert book.waiting() == {}


def test_a_fold_is_remembered_beyond_checkpoints(small: EmbedStore) -> None:
    """After 55 further commits, which bring a checkpoint of the log, rows that were taken in are not taken in again."""
    book = small.folder.ledger
    first, _ = batch(0, 2)
    fold(small, first)
    for number in range(55):
        fold(small, batch(100 + number, 1)[0])
    small.remove([f"{0:032x}"])
    with sqlite3.connect(book.path) as db:  # as if the process had died before settling
        values = (1, "dead", 2, next(_contents(first)))
        db.execute("INSERT INTO paid VALUES (?, ?, ?, ?, ?)", (*values, seal(values)))
    assert recover(small.folder) == 0
    assert book.waiting() == {}
    small.refresh()
    assert len(small) == 56


def _contents(table: pa.Table) -> object:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    yield sink.getvalue().to_pybytes()


def test_the_last_row_of_an_id_counts(small: EmbedStore) -> None:
    """A record that stands in the ledger twice is one row, the later one; one that the table has is replaced."""
    for word in ("old", "new"):
        fold(small, batch(0, 2, note=["x", "y"])[0], batch(1, 1, note=[word])[0])
        assert sorted(small.to_table(["note"]).column("note").to_pylist()) == sorted(["x", word])


def test_paid_rows_find_a_place_when_the_table_has_changed(small: EmbedStore) -> None:
    """Rows whose column got another type, or other letters, in the meantime come in as text under a new name."""
    for values in ({"year": [1999]}, {"year": ["unknown"]}, {"Year": [2001]}):
        fold(small, batch(len(small), 1, **values)[0])
    rows = small.to_table(["year", "year_string"]).to_pylist()
    assert [(row["year"], row["year_string"]) for row in rows] == [(1999, None), (None, "unknown"), (2001, None)]


def test_paid_rows_that_no_column_can_hold_keep_their_metadata_as_text(small: EmbedStore) -> None:
    """Metadata that cannot be stored blocks nothing: the rows come in with their vectors, the metadata as JSON text."""
    table, found = batch(0, 2)
    fold(small, table.append_column("embedding.list.element", pa.array([{"a": 1}, {"a": 2}])), batch(5, 1)[0])
    assert len(small) == 3
    rows = small.to_table(["id", "metadata_json"]).sort_by("id").to_pylist()
    assert rows[1]["metadata_json"] == '{"embedding.list.element": {"a": 2}}'
    assert np.array_equal(small.vectors([f"{n:032x}" for n in range(2)]), found)
    assert small.folder.ledger.waiting() == {}


def test_many_small_folds_leave_few_parts(small: EmbedStore) -> None:
    """70 batches of 64 rows, each taken in by itself, leave at most 14 parts, every row once."""
    expected = {}
    for number in range(70):
        table, found = batch(64 * number, 64)
        expected |= dict(zip(table.column("id").to_pylist(), found, strict=True))
        fold(small, table)
    assert len(small.snapshot.parts) <= 14
    opened = EmbedStore.open(small.path)
    ids = opened.to_table(["id"]).column("id").to_pylist()
    assert len(ids) == len(set(ids)) == 4_480
    assert np.array_equal(opened.vectors(ids), np.array([expected[identity] for identity in ids]))


# --- claims ---------------------------------------------------------------------------------------------------


def test_a_picture_is_claimed_once(book: Ledger) -> None:
    """What another living run has claimed, or anybody has paid for, is not to be had; what a dead one has is."""
    hashes = batch(0, 4)[0].column("content_hash").to_pylist()
    assert book.claim("a", hashes[:2], everybody) == set(hashes[:2])
    assert book.claim("a", hashes[:2], everybody) == set(hashes[:2])
    assert book.claim("b", hashes, everybody) == set(hashes[2:])
    book.pay("a", batch(0, 1)[0])
    assert book.claim("c", hashes, nobody) == set(hashes[1:])
    assert book.owners(hashes)[hashes[0]] == ("a", 1)
    assert book.paid_hashes() == {hashes[0]}
    book.release("c", hashes[1:2])
    assert book.claim("d", hashes, everybody) == {hashes[1]}
    book.release("c")
    assert book.claim("d", hashes, everybody) == set(hashes[1:])
    book.settle([1])
    assert book.claim("d", hashes, everybody) == set(hashes)


CLAIM = """
import sys
from pathlib import Path
from embedstore.storage.ledger import LabelEvent, Ledger
book = Ledger(Path(sys.argv[1]))
for start in range(0, 400, 4):
    for name in book.claim(sys.argv[2], [str(n) for n in range(start, start + 4)], lambda run: True):
        print(name)
"""


def test_four_processes_claim_each_picture_once(book: Ledger) -> None:
    """Of 400 pictures that four processes want at once, each goes to one of them."""
    words = [[sys.executable, "-c", CLAIM, str(book.path), run] for run in "abcd"]
    processes = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in words]
    got = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted((name for names in got for name in names), key=int) == [str(n) for n in range(400)]


# --- queries, confirmations, notes ----------------------------------------------------------------------------


def test_vectors_of_queries_are_kept_up_to_a_bound(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """By space, kind and text, to the bit; a later one replaces an earlier, and beyond the bound the oldest go."""
    monkeypatch.setattr(ledger, "MOST_QUERIES", 1_000)
    found = np.random.default_rng(0).standard_normal((1_200, 8)).astype(np.float32)
    texts = [f"query {n}" for n in range(1_200)]
    book.keep_queries("s", "text", texts, found)
    kept = book.queries("s", "text", texts)
    assert list(kept) == texts[200:]
    assert np.array_equal(np.array(list(kept.values())), found[200:])
    book.keep_queries("s", "text", texts[-1:], found[:1])
    assert np.array_equal(book.queries("s", "text", texts[-1:])[texts[-1]], found[0])
    assert (book.queries("s", "image", texts), book.queries("t", "text", texts)) == ({}, {})
    assert (book.query_count("s"), book.query_count("t")) == (1_000, 0)


def test_confirmations_and_notes_are_read_back(book: Ledger) -> None:
    """What was written down of a remote dataset, in order; checksums of 64 bits, by file name."""
    for value in ("one", "two"):
        book.confirm("d", "ids", value)
    book.confirm("e", "ids", "three")
    assert book.confirmations("d", "ids") == ["one", "two"]
    assert book.confirmations("d", "map") == []
    assert sorted(book.confirmed_datasets()) == ["d", "e"]
    book.note({"0.json": 2**64 - 1, "1.json": 5})
    book.note({"1.json": 6, "0.json": 2**63, "2.json": None})
    assert book.noted() == {"0.json": 2**63, "1.json": 6}
    book.note({"0.json": None})
    assert book.noted() == {"1.json": 6}


# --- labels ---------------------------------------------------------------------------------------------------


def label(row: str, answer: str, concept: str = "bird", chance: float | None = 1 / 3) -> LabelEvent:
    """An event of a round."""
    return LabelEvent(concept, row, answer, "random", chance, 1, "", "2026-01-01T00:00:00+00:00")


def test_labels_are_read_back_by_batch_until_undone(book: Ledger) -> None:
    """To the bit, in order, by concept; an undone batch is gone from the answers, and its events are not."""
    assert book.label_batches() == {}
    first = [label("a", "yes"), label("b", "?", chance=None)]
    one, two = book.add_labels(first), book.add_labels([label("c", "no", "cat")])
    assert Ledger(book.path).label_batches() == {one: first, two: [label("c", "no", "cat")]}
    assert list(book.label_batches("cat")) == [two]
    book.add_labels([label("", ledger.UNDONE)], undoes=one)
    assert list(book.label_batches()) == [two]
    three = book.add_labels(first)
    assert book.label_batches("bird") == {three: first}
    with sqlite3.connect(book.path) as db:
        assert db.execute("SELECT count(*) FROM labels").fetchone() == (6,)
    assert book.check() == []


def test_a_label_that_was_changed_is_named_and_not_believed(book: Ledger) -> None:
    """Any column of it, its place among the others too; a repair keeps the other labels, and the old file."""
    book.add_labels([label(name, "yes") for name in "abc"])
    sound = book.path.read_bytes()
    for change in (
        "answer = 'no'",
        "concept = 'cat'",
        "row = 'd'",
        "picked = 'given'",
        "probability = '0.5'",
        "round = 2",
        "condition = 'x'",
        "at = ''",
        "content_hash = 'x'",
        "batch = 7",
        "id = 9",
    ):
        book.path.write_bytes(sound)
        with sqlite3.connect(book.path) as db:
            db.execute(f"UPDATE labels SET {change} WHERE row = 'b'")
        [problem] = book.check()
        assert "of labels does not fit its checksum" in problem
        with pytest.raises(DamagedStoreError, match="embedstore repair"):
            book.label_batches()
    aside = book.salvage()
    assert [event.row for [*events] in book.label_batches().values() for event in events] == ["a", "c"]
    assert aside.exists()
    book.add_labels([label("d", "yes")])
    assert [event.row for [*events] in book.label_batches().values() for event in events] == ["a", "c", "d"]


def test_a_ledger_of_before_labels_is_read_and_gets_them(book: Ledger) -> None:
    """Version 1 has no such table: nothing is written to read it, and the first label makes it one of version 2."""
    book.pay("a", batch(0, 2)[0])
    with sqlite3.connect(book.path) as db:
        db.execute("DROP TABLE labels")
        db.execute("UPDATE about SET value = '1' WHERE name = 'format'")
        db.execute("PRAGMA user_version = 1")
    before = book.path.read_bytes()
    assert (book.label_batches(), book.check(), book.waiting()) == ({}, [], {"a": 2})
    assert book.path.read_bytes() == before
    book.add_labels([label("a", "yes")])
    assert (len(book.label_batches()), book.check(), book.waiting()) == (1, [], {"a": 2})
    with sqlite3.connect(book.path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT value FROM about WHERE name = 'format'").fetchone() == ("2",)


# --- damage ---------------------------------------------------------------------------------------------------


def filled(book: Ledger) -> Callable[[Ledger], list[object]]:
    """Fill a ledger; return a function that asks everything of it."""
    numbers = range(0, 40, 4)
    hashes = [f"{n:064x}" for n in range(40)]
    book.claim("a", hashes, nobody)
    for first in numbers:
        book.pay("a", batch(first, 4)[0])
    texts = [f"query {n}" for n in range(30)]
    book.keep_queries("s", "text", texts, np.random.default_rng(1).standard_normal((30, 8)).astype(np.float32))
    for n in range(20):
        book.confirm("d", "ids", f"value {n}")
    book.note({f"{n}.json": n**5 for n in range(30)})
    book.add_labels([label(f"row {n}", "yes" if n % 3 else "no") for n in range(60)])

    def ask(of: Ledger) -> list[object]:
        paid = [(each.id, each.rows, None if each.table is None else each.table.to_pydict()) for each in of.paid()]
        queries = {text: vector.tobytes() for text, vector in of.queries("s", "text", texts).items()}
        labels = [event for batch in of.label_batches().values() for event in batch]
        return [paid, queries, of.confirmations("d", "ids"), of.noted(), labels]

    return ask


def test_a_flipped_bit_is_named_or_changes_no_answer(book: Ledger) -> None:
    """Of 400 flips anywhere in the file, none changes an answer unless `check` names it or reading is refused."""
    ask = filled(book)
    truth, content, dice = ask(book), book.path.read_bytes(), random.Random(3)
    assert book.check() == []
    changed = 0
    for _ in range(400):
        damaged = bytearray(content)
        damaged[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        book.path.write_bytes(damaged)
        try:
            same = ask(book) == truth
        except (DamagedStoreError, FormatVersionError):
            same = False
        changed += not same
        assert same or book.check()
    assert changed > 100


def test_a_damaged_batch_is_set_aside(small: EmbedStore, caplog: pytest.LogCaptureFixture) -> None:
    """Paid rows with a flipped bit are kept as a file that the warning names, and those after them are taken in."""
    book = small.folder.ledger
    for first in (0, 5, 10):
        book.pay("dead", batch(first, 5)[0])
    with sqlite3.connect(book.path) as db:
        [content] = db.execute("SELECT content FROM paid WHERE id = 2").fetchone()
        db.execute("UPDATE paid SET content = ? WHERE id = 2", (content[:100] + b"!" + content[101:],))
    assert recover(small.folder) == 10
    [file] = small.folder.set_aside.iterdir()
    assert str(file) in caplog.text
    assert len(file.read_bytes()) == len(content)


@pytest.mark.parametrize("damage", ["header", "page", "short", "empty"])
def test_a_ledger_that_cannot_be_read_is_set_aside_whole(book: Ledger, damage: str) -> None:
    """SQLite's refusal is an error that says what to do; what can be read is saved, and the old file stays."""
    ask = filled(book)
    truth, content = ask(book), book.path.read_bytes()
    pages = {"header": (0, 16), "page": (4096 * (len(content) // 8192), 4096)}
    if damage in pages:
        start, length = pages[damage]
        content = content[:start] + b"\xff" * length + content[start + length :]
    book.path.write_bytes({"short": content[: len(content) // 2 // 4096 * 4096], "empty": b""}.get(damage, content))
    if damage == "empty":
        assert book.waiting() == {}
        return
    assert book.check()
    aside = book.salvage()
    assert aside.name == "ledger.sqlite.damaged-1"
    assert book.check() == []
    for saved, before in zip(ask(book), truth, strict=True):
        kept = saved.items() if isinstance(saved, dict) else saved
        assert all(each in (before.items() if isinstance(before, dict) else before) for each in kept)
    book.pay("a", batch(100, 1)[0])


def test_a_newer_format_is_refused(book: Ledger) -> None:
    """A ledger of a newer embedstore is left as it is, with an error that says what to do."""
    book.keep_manifest("{}")
    with sqlite3.connect(book.path) as db:
        db.execute("UPDATE about SET value = '7' WHERE name = 'format'")
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(FormatVersionError, match="format version 7"):
        book.waiting()


def test_a_full_disk_is_an_oserror_that_names_the_file(book: Ledger) -> None:
    """When the file may not grow, paying raises ENOSPC or EFBIG with the name, and what was there before stays."""
    book.pay("a", batch(0, 2)[0])

    def grow() -> None:
        limit = book.path.stat().st_size + 20_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            book.pay("a", batch(2, 1, note=["x" * 200_000])[0])
        except OSError as error:
            os._exit(40 if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EIO) and error.filename else 41)
        os._exit(42)

    pid = os.fork()
    if pid == 0:
        grow()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 40
    assert book.waiting() == {"a": 2}
    assert book.check() == []


def test_claims_that_are_not_paid_yet_are_no_damage_and_an_empty_file_is(book: Ledger) -> None:
    """What a killed add has claimed is free again; a ledger cut to nothing has lost what it held."""
    book.claim("a", batch(0, 3)[0].column("content_hash").to_pylist(), nobody)
    assert book.check() == []
    book.path.write_bytes(b"")
    [problem] = book.check()
    assert "is empty" in problem


def test_a_paid_batch_whose_values_are_gone_is_set_aside(book: Ledger, tmp_path: Path) -> None:
    """Swapped pages make null of a value that can be none: it is not believed, and asking for it is no traceback."""
    number = book.pay("run", batch(0, 3)[0])
    with sqlite3.connect(book.path) as db:
        db.executescript(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') "
            "WHERE name IN ('paid', 'queries', 'confirmations')"
        )
    with sqlite3.connect(book.path) as db:
        db.execute("UPDATE paid SET run = NULL, rows = NULL, content = NULL")
        db.execute("INSERT INTO confirmations (dataset, about, seal) VALUES ('d', 'a', 1)")
        db.execute("INSERT INTO queries (space, kind, text, seal) VALUES ('s', 'k', 't', 1)")
    [waiting] = book.paid()
    assert (waiting.id, waiting.table) == (number, None)
    assert book.confirmations("d", "a") == []
    assert book.queries("s", "k", ["t"]) == {}
    assert book.set_aside(waiting, tmp_path / "aside").exists()
    assert list(book.paid()) == []
