"""The journal and its folding: at no moment of a crash is a row lost or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedstore.storage import changes, journal, parts
from embedstore.storage.folder import SCHEMA
from embedstore.storage.journal import Journal
from embedstore.store import EmbedStore

DIM = 8


def fold(store: EmbedStore, waiting: Journal) -> None:
    """Take a journal in, and read what it became."""
    with store.folder.writing():
        store.folder.fold(waiting)
    store.refresh()


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
    table = pa.table(base, schema=SCHEMA)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table.append_column(parts.embedding_field(), parts.list_array(found)), found


def vectors_of(table: pa.Table) -> np.ndarray:
    return parts.vectors_of(table.column("embedding"), DIM, "test")


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    """An empty store of vectors of eight components."""
    return EmbedStore.create(tmp_path / "small.store", space="mine", dim=DIM)


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    """Batches come back whole, in order, to the bit, also to another reader; then the journal can be discarded."""
    kept = Journal(tmp_path / "journal")
    batches = [batch(0, 3), batch(3, 1), batch(4, 64)]
    for table, _ in batches:
        kept.append(table)
    assert kept.rows == journal.waiting(tmp_path / "journal") == 68
    for read, (table, found) in zip(kept.read(), batches, strict=True):
        assert read.drop_columns(["embedding"]).equals(table.drop_columns(["embedding"]))
        assert np.array_equal(vectors_of(read), found)
    kept.discard()
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_torn_frame_costs_itself_only(tmp_path: Path) -> None:
    """Cut at every byte of the last frame, the journal yields all frames before it, and never a wrong row."""
    kept = Journal(tmp_path / "journal")
    kept.append(batch(0, 2)[0])
    whole_until = kept.path.stat().st_size
    kept.append(batch(2, 1)[0])
    content = kept.path.read_bytes()
    assert len(content) - whole_until > 1000
    for end in range(whole_until, len(content)):
        kept.path.write_bytes(content[:end])
        assert [len(table) for table in kept.read()] == [2]
    kept.path.write_bytes(content)
    assert [len(table) for table in kept.read()] == [2, 1]
    for end in range(30):
        kept.path.write_bytes(content[:end])
        assert kept.read() == []
    kept.discard()


@pytest.mark.parametrize("position", [30, 200, 900])
def test_a_flipped_bit_is_not_believed(tmp_path: Path, position: int) -> None:
    """A frame whose checksum does not agree ends the reading before it."""
    kept = Journal(tmp_path / "journal")
    kept.append(batch(0, 2)[0])
    first_end = kept.path.stat().st_size
    kept.append(batch(2, 2)[0])
    content = bytearray(kept.path.read_bytes())
    content[first_end + position] ^= 1
    kept.path.write_bytes(bytes(content))
    assert [table.column("id")[0].as_py()[-1] for table in kept.read()] == ["0"]
    kept.discard()


def test_a_write_that_fails_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a write that failed in the middle, later batches are still read: it left no torn frame before them."""
    kept = Journal(tmp_path / "journal")
    kept.append(batch(0, 2)[0])

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            kept.append(batch(2, 2)[0])
    kept.append(batch(4, 2)[0])
    assert [table.column("uri")[0].as_py() for table in kept.read()] == ["/p/0.png", "/p/4.png"]
    kept.discard()


HOLD = """
import sys, time, pathlib
sys.path.insert(0, sys.argv[2])
from test_journal import Journal, batch
kept = Journal(pathlib.Path(sys.argv[1]))
kept.append(batch(0, 5)[0])
print("held", flush=True)
time.sleep(60)
"""


def test_a_journal_belongs_to_its_process_while_that_lives(small: EmbedStore, pictures: Path) -> None:
    """The journal of a living process is left alone; once it is killed, the next writer folds it and cleans up."""
    folder = small.path / "journal"
    words = [sys.executable, "-c", HOLD, str(folder), str(Path(__file__).parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert list(journal.orphans(folder)) == []
        assert small.info()["waiting_in_journal"] == 5
        assert len(small) == 0
        process.send_signal(signal.SIGKILL)
    table = batch(5, 1)[0].select(["id", "uri", "embedding"])
    report = small.add(table, embedding_column="embedding")
    assert (report.recovered, report.added, len(small)) == (5, 1, 6)
    assert list(folder.iterdir()) == []
    assert small.info()["waiting_in_journal"] == 0


def fold_in_steps(store: EmbedStore, kept: Journal, steps: int) -> None:
    """Do the first steps of `changes.fold`: write the part, commit it, delete the journal."""
    table = store.folder.images
    if steps >= 1:
        rows = pa.concat_tables(kept.read())
        found = parts.vectors_of(rows.column("embedding"), DIM, "test")
        if steps == 1:
            groups = iter([(rows.drop_columns(["embedding"]), found)])
            table.new_part(groups, store.snapshot.schema)
        else:
            changes.upsert(table, rows.drop_columns(["embedding"]), found, transaction=kept.name)
    if steps >= 3:
        kept.path.unlink()
    kept.close()


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_crash_between_any_two_steps_of_a_fold(small: EmbedStore, steps: int) -> None:
    """Ended before the part, after it, after the commit, or after deleting the journal: the next writer finds every
    row once, with its vector."""
    kept = Journal(small.path / "journal")
    expected = {}
    for first in (0, 64, 128):
        table, found = batch(first, 64)
        expected |= dict(zip(table.column("id").to_pylist(), found, strict=True))
        kept.append(table)
    fold_in_steps(small, kept, steps)
    from embedstore.ingest.row_writer import recover

    opened = EmbedStore.open(small.path)
    recovered = recover(opened.folder)
    assert recovered == (192 if steps < 2 else 0)
    assert recover(opened.folder) == 0
    opened.refresh()
    ids = opened.to_table(["id"]).column("id").to_pylist()
    assert sorted(ids) == sorted(expected)
    assert np.array_equal(opened.vectors(ids), np.array([expected[identity] for identity in ids]))
    assert journal.waiting(small.path / "journal") == 0


def test_a_fold_is_remembered_beyond_checkpoints(small: EmbedStore) -> None:
    """After 55 further commits, which bring a checkpoint of the log, a journal that was folded is not folded again."""
    kept = Journal(small.path / "journal")
    kept.append(batch(0, 2)[0])
    content, name = kept.path.read_bytes(), kept.name
    fold(small, kept)
    for number in range(55):
        later = Journal(small.path / "journal")
        later.append(batch(100 + number, 1)[0])
        fold(small, later)
    small.remove([f"{0:032x}"])
    (small.path / "journal" / f"{name}.journal").write_bytes(content)
    from embedstore.ingest.row_writer import recover

    assert recover(small.folder) == 0
    assert len(small) == 56


def test_the_last_row_of_an_id_counts(small: EmbedStore) -> None:
    """A record that a journal holds twice is one row, the later one; one that the table has is replaced."""
    for first, word in ((0, "old"), (0, "new")):
        kept = Journal(small.path / "journal")
        kept.append(batch(first, 2, note=["x", "y"])[0])
        kept.append(batch(first + 1, 1, note=[word])[0])
        fold(small, kept)
        assert sorted(small.to_table(["note"]).column("note").to_pylist()) == sorted(["x", word])


def test_paid_rows_find_a_place_when_the_table_has_changed(small: EmbedStore) -> None:
    """A journal whose column got another type, or other letters, in the meantime is folded: text under a new name."""
    for values in ({"year": [1999]}, {"year": ["unknown"]}, {"Year": [2001]}):
        kept = Journal(small.path / "journal")
        kept.append(batch(len(small), 1, **values)[0])
        fold(small, kept)
    rows = small.to_table(["year", "year_string"]).to_pylist()
    assert [(row["year"], row["year_string"]) for row in rows] == [
        (1999, None),
        (None, "unknown"),
        (2001, None),
    ]


def test_many_small_folds_leave_few_parts(small: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """70 journals of 64 rows, each folded by itself, leave at most 14 parts, every row once, and no file unnamed."""
    expected = {}
    for number in range(70):
        table, found = batch(64 * number, 64)
        expected |= dict(zip(table.column("id").to_pylist(), found, strict=True))
        kept = Journal(small.path / "journal")
        kept.append(table)
        fold(small, kept)
    assert len(small.snapshot.parts) <= 14
    opened = EmbedStore.open(small.path)
    ids = opened.to_table(["id"]).column("id").to_pylist()
    assert len(ids) == len(set(ids)) == 4_480
    assert np.array_equal(opened.vectors(ids), np.array([expected[identity] for identity in ids]))
