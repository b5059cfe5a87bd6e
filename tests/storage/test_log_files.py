"""The log on the disk: torn, flipped, missing and in which order it is written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import DamagedStoreError, InputError, StoreError, VersionGoneError
from embedstore.storage import changes, log_files, parts
from embedstore.storage.ledger import Ledger
from embedstore.storage.log_files import commit_name
from embedstore.storage.table import DeltaFolder
from embedstore.store import EmbedStore

SCHEMA = pa.schema([("id", pa.string()), ("n", pa.int64())])
HINT = "_last_checkpoint"


def batch(start: int, count: int) -> tuple[pa.Table, np.ndarray]:
    numbers = np.arange(start, start + count)
    vectors = np.random.default_rng(start).standard_normal((count, 4), dtype=np.float32)
    return pa.table({"id": [f"{n:06}" for n in numbers], "n": numbers}, schema=SCHEMA), vectors


def table_in(folder: Path, noted: bool = True) -> DeltaFolder:
    notes = Ledger(folder / "ledger.sqlite") if noted else None
    return DeltaFolder(folder / "images", 4, folder / "index" / "images.json", notes)


def filled(folder: Path, noted: bool = True, adds: int = 3) -> DeltaFolder:
    table = table_in(folder, noted)
    table.create(SCHEMA)
    for number in range(adds):
        changes.upsert(table, *batch(number * 10, 3), replaces=False)
    return table


def ids(table: DeltaFolder) -> list[str]:
    return table.snapshot().read(["id"]).column("id").to_pylist()


def log_of(table: DeltaFolder) -> Path:
    return table.path / "_delta_log"


@pytest.mark.parametrize("noted", [True, False])
def test_a_torn_newest_commit_is_never_read_past_nor_written_on(tmp_path: Path, noted: bool) -> None:
    """Empty, zeros, garbage or cut anywhere: reading and writing name the file and the way on, note or no note."""
    table = filled(tmp_path, noted)
    newest = log_of(table) / commit_name(table.newest_version())
    good = newest.read_bytes()
    before = ids(table)
    for bad in (b"", b"\n", b"\0" * len(good), b"garbage", b"[]\n", *(good[:n] for n in range(1, len(good) - 1, 37))):
        newest.write_bytes(bad)
        for use in (lambda: ids(table), lambda: changes.upsert(table, *batch(900, 2)), lambda: table.vacuum(0, False)):
            with pytest.raises(
                DamagedStoreError, match=rf"{newest.name}.*embedstore repair {re.escape(str(tmp_path))}"
            ):
                use()
        assert any(newest.name in problem for problem in table.check())
    newest.write_bytes(good)
    assert (ids(table), table.check()) == (before, [])


def test_a_newest_commit_that_is_gone_is_missed(tmp_path: Path) -> None:
    """The ledger remembers it: reading, adding and `check` say so instead of going on from fewer rows."""
    table = filled(tmp_path)
    newest = log_of(table) / commit_name(3)
    newest.unlink()
    for use in (lambda: ids(table), lambda: changes.upsert(table, *batch(900, 2))):
        with pytest.raises(DamagedStoreError, match=f"{newest.name} is not there"):
            use()
    assert any(newest.name in problem for problem in table.check())


def test_a_commit_missing_in_the_middle_is_named(tmp_path: Path) -> None:
    """Without any notes too."""
    table = filled(tmp_path, noted=False)
    (tmp_path / "index" / "images.json").unlink()
    (log_of(table) / commit_name(1)).unlink()
    with pytest.raises(DamagedStoreError, match=f"{commit_name(1)} is not there"):
        ids(table)
    assert [commit_name(1) in problem for problem in table.check()] == [True]


def test_every_flip_in_the_log_is_named_and_none_changes_an_answer(tmp_path: Path) -> None:
    """Commits, a checkpoint and the hint at it: 900 flips are each named, and what is read is right or an error."""
    table = filled(tmp_path, adds=4)
    table._checkpoint(4)
    changes.upsert(table, *batch(100, 3))
    expected, note = ids(table), tmp_path / "index" / "images.json"
    assert table.check() == []
    rng = np.random.default_rng(5)
    read = 0
    for path in sorted(log_of(table).iterdir()):
        good = path.read_bytes()
        for place in rng.integers(0, len(good), 900 // 8):
            bad = bytearray(good)
            bad[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            note.unlink(missing_ok=True)
            assert any(path.name in problem for problem in table.check()), (path.name, place)
            try:
                assert ids(table) == expected
                read += 1
            except DamagedStoreError as error:
                assert path.name in str(error)  # noqa: PT017
        path.write_bytes(good)
    assert read > 300  # around the checkpoint, the hint and old commits
    assert table.check() == []


def test_flips_in_a_log_without_notes_end_in_an_answer_or_an_error_of_ours(tmp_path: Path) -> None:
    """A store whose ledger is lost: no raw traceback from any flip."""
    table = filled(tmp_path, noted=False)
    rng = np.random.default_rng(6)
    for path in sorted(log_of(table).iterdir()):
        good = path.read_bytes()
        for place in rng.integers(0, len(good), 60):
            bad = bytearray(good)
            bad[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            (tmp_path / "index" / "images.json").unlink(missing_ok=True)
            table.check()
            try:
                ids(table)
            except StoreError as error:
                assert len(str(error)) < 600  # noqa: PT017
        path.write_bytes(good)


@pytest.mark.parametrize("noted", [True, False])
def test_a_broken_checkpoint_is_read_around_while_every_commit_is_there(tmp_path: Path, noted: bool) -> None:
    """Reading and writing go on, `check` names it, and the next checkpoint is sound."""
    table = filled(tmp_path, noted)
    table._checkpoint(3)
    checkpoint, hint = log_of(table) / f"{3:020}.checkpoint.parquet", log_of(table) / HINT
    good = checkpoint.read_bytes(), hint.read_bytes()
    for number, bad in enumerate((b"", b"PAR1", good[0][:-30])):
        checkpoint.write_bytes(bad)
        (tmp_path / "index" / "images.json").unlink()
        assert len(ids(table)) == 9 + number
        assert any(checkpoint.name in problem for problem in table.check())
        assert changes.upsert(table, *batch(500 + number, 1)).rows == 10 + number
    checkpoint.write_bytes(good[0])
    for bad in (b"", b"{", b'{"version": 99}', b"[]"):
        hint.write_bytes(bad)
        (tmp_path / "index" / "images.json").unlink()
        assert len(ids(table)) == 12
        assert any(hint.name in problem for problem in table.check())
    table._checkpoint(table.newest_version())
    assert table.check() == []


def test_a_checkpoint_that_says_something_else_than_its_commits_is_named(tmp_path: Path) -> None:
    """Also where nothing is noted of it: 400 flips of another program's checkpoint are named, or change no answer."""
    table = filled(tmp_path, noted=False)
    table._checkpoint(3)
    checkpoint, note = log_of(table) / f"{3:020}.checkpoint.parquet", tmp_path / "index" / "images.json"
    assert table.check() == []
    good, expected = checkpoint.read_bytes(), ids(table)
    rng = np.random.default_rng(7)
    named = 0
    for place in rng.integers(0, len(good), 400):
        bad = bytearray(good)
        bad[place] ^= 1 << int(rng.integers(8))
        checkpoint.write_bytes(bad)
        note.unlink(missing_ok=True)
        problems = table.check()
        assert not problems or any(checkpoint.name in problem for problem in problems), place
        named += bool(problems)
        if not problems:
            try:
                assert ids(table) == expected, place
            except DamagedStoreError:  # what deltalake refuses and pyarrow does not: no answer at all
                named += 1
    assert named > 50


def test_a_broken_checkpoint_without_its_commits_is_named(tmp_path: Path) -> None:
    """After a vacuum only the checkpoint knows the parts: no traceback, and no empty table."""
    table = filled(tmp_path)
    table.vacuum(0, dry_run=False)
    assert len(ids(table)) == 9
    checkpoint = log_of(table) / f"{3:020}.checkpoint.parquet"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    (tmp_path / "index" / "images.json").unlink()
    with pytest.raises(DamagedStoreError, match=checkpoint.name):
        ids(table)


def test_a_lost_ledger_is_no_damage(tmp_path: Path) -> None:
    """Then the log is only held against itself."""
    table = filled(tmp_path)
    (tmp_path / "ledger.sqlite").unlink()
    assert table.check() == []
    assert len(ids(table)) == 9


def test_missing_resized_and_unknown_parts_are_told_apart(tmp_path: Path) -> None:
    """`check` names the first two, `orphans` the third; a part that was replaced is none of these."""
    table = filled(tmp_path)
    changes.upsert(table, *batch(0, 1))
    first, second = table.snapshot().parts[:2]
    orphan = table.new_part(iter([batch(70, 2)]), SCHEMA)
    assert (table.check(), table.orphans()) == ([], [orphan.name])
    first.path.unlink()
    with second.path.open("ab") as file:
        file.write(b"x")
    said = table.check()
    assert [first.name in said[0], "not on the disk" in said[0], second.name in said[1], "bytes" in said[1]] == [
        True
    ] * 4


def test_five_hundred_small_adds_leave_few_files(tmp_path: Path) -> None:
    """After compact and vacuum: at most 60 files, 1.3 times the live data, every row, and versions go on."""
    store = EmbedStore.create(tmp_path / "s.store", space="own", dim=768)
    rng = np.random.default_rng(0)
    for number in range(500):
        rows, _ = batch(number * 2, 2)
        table = store.folder.images
        with store.folder.writing():
            vectors = rng.standard_normal((2, 768), dtype=np.float32)
            changes.upsert(table, parts_rows(rows), vectors / np.linalg.norm(vectors, axis=1)[:, None], replaces=False)
    store.refresh()
    assert len(table._files.checkpoints()) >= 10
    assert table.check() == []
    store.compact()
    store.vacuum(0)
    found = [path for path in store.path.rglob("*") if path.is_file()]
    assert len(found) <= 60
    live = sum(part.size for part in store.snapshot.parts)
    assert sum(path.stat().st_size for path in found) <= 1.3 * live
    assert table.check() == []
    again = EmbedStore.open(store.path)
    assert (len(again), again.snapshot.version) == (1000, store.snapshot.version)
    assert len({row["id"] for row in again.to_table(["id"]).to_pylist()}) == 1000
    assert again.versions()[0]["version"] == store.version
    with pytest.raises(InputError, match="vacuum has removed"):
        EmbedStore.open(store.path, version=7)


def parts_rows(rows: pa.Table) -> pa.Table:
    return rows.append_column("uri", rows.column("id"))


def test_vacuum_keeps_what_younger_versions_need(tmp_path: Path) -> None:
    """Versions of the last hours stay readable, older ones go with their commits."""
    table = filled(tmp_path)
    table._checkpoint(3)
    changes.compact(table, table.snapshot())
    changes.upsert(table, *batch(500, 3))
    for number in range(5):
        path = log_of(table) / commit_name(number)
        text = re.sub(r'"timestamp":(\d+)', lambda m: f'"timestamp":{int(m[1]) - 36_000_000}', path.read_text())
        path.write_text(text)
        table._files._note({path.name: None})
    assert len(table.vacuum(5, dry_run=True)) == 0  # younger than five hours, by their own times
    import os

    for path in table.path.glob("*.parquet"):
        os.utime(path, (time.time() - 36_000,) * 2)
    assert len(table.vacuum(5, dry_run=False)) == 3
    assert table.snapshot(4).rows == 9
    assert table.snapshot(5).rows == 12
    with pytest.raises(InputError, match="vacuum has removed"):
        table.snapshot(2)
    assert table.check() == []


def test_a_reader_across_compact_and_vacuum_is_told_to_refresh(tmp_path: Path) -> None:
    """Its version is gone, which is no damage; a part that is really lost is."""
    table = filled(tmp_path)
    held = table.snapshot()
    changes.compact(table, table.snapshot())
    table.vacuum(0, dry_run=False)
    for use in (
        lambda: held.read(["id"]),
        lambda: held.parts[0].groups(),
        lambda: held.parts[1].read_rows([0], ["id"]),
    ):
        with pytest.raises(VersionGoneError, match=r"refresh\(\)"):
            use()
    newest = table.snapshot()
    assert newest.rows == 9
    newest.parts[0].path.unlink()
    with pytest.raises(DamagedStoreError, match="not on the disk"):
        newest.parts[0].groups()


def test_a_commit_that_another_program_has_overtaken_is_made_again(tmp_path: Path) -> None:
    """A foreign append between the reading of the log and the commit loses nothing."""
    from deltalake import write_deltalake

    rows, vectors = batch(700, 2)
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False))
    foreign = rows.append_column(pa.field("embedding", kind, nullable=False), pa.array(vectors.tolist(), kind))

    class Overtaken(DeltaFolder):
        left = 2

        @contextmanager
        def _staged(self, version: int) -> Iterator[tuple[Path, Any]]:
            with super()._staged(version) as found:
                if self.left:
                    self.left -= 1
                    write_deltalake(str(self.path), foreign, mode="append")
                yield found

    filled(tmp_path)
    table = Overtaken(tmp_path / "images", 4, tmp_path / "index" / "images.json", Ledger(tmp_path / "ledger.sqlite"))
    wide, more = batch(800, 2)
    changes.upsert(table, wide.append_column("label", pa.array(["a", "b"])), more, replaces=False)
    assert sorted(ids(table)) == sorted(
        [
            *(f"{n * 10 + m:06}" for n in range(3) for m in range(3)),
            "000700",
            "000700",
            "000701",
            "000701",
            "000800",
            "000801",
        ]
    )
    assert table.check() == []


def test_the_log_is_made_anew_from_parts(tmp_path: Path) -> None:
    """The old log is put aside; rows, columns, transactions are there, and removed parts stay out."""
    table = filled(tmp_path)
    changes.upsert(table, *batch(100, 2), transaction=("series", 7))
    gone = changes.remove(table, table.snapshot(), np.arange(11) < 3)
    expected = ids(table)
    newest = log_of(table) / commit_name(gone.version)
    for name in (commit_name(gone.version), commit_name(2)):
        (log_of(table) / name).write_bytes(b"")
    history = table.readable_history()
    assert history.unreadable == [commit_name(2), newest.name]
    assert history.transactions == {"series": 7}
    on_disk = [parts.open_part(path, 4) for path in sorted(table.path.glob("*.parquet"))]
    live = [part for part in on_disk if part.name not in history.removed]
    aside = table.rebuild(live, SCHEMA, sorted(history.transactions.items()))
    assert (aside / commit_name(0)).exists()
    # The removal itself could not be read: its rows are back, none is lost.
    assert sorted(ids(table)) == sorted([*expected, "000000", "000001", "000002"])
    assert (table.applied("series"), table.check(), table.orphans()) == (7, [], [])
    assert changes.upsert(table, *batch(300, 2)).rows == 13
    assert not list(table.path.glob("_commit-*"))


def test_parts_that_were_removed_stay_out_of_a_new_log(tmp_path: Path) -> None:
    """What the readable files say was removed is not brought back."""
    table = filled(tmp_path)
    changes.remove(table, table.snapshot(), np.arange(9) < 3)
    changes.upsert(table, *batch(100, 2))
    (log_of(table) / commit_name(5)).write_bytes(b"{")
    history = table.readable_history()
    live = [
        part
        for part in (parts.open_part(path, 4) for path in sorted(table.path.glob("*.parquet")))
        if part.name not in history.removed
    ]
    table.rebuild(live, SCHEMA)
    assert ids(table) == ["000010", "000011", "000012", "000020", "000021", "000022", "000100", "000101"]


CHILD = """
import sys
from embedstore.store import EmbedStore
from embedstore.storage.ledger import Ledger
settle = Ledger.settle
def marked(self, numbers):
    sys.stderr.write("THE PAID ROWS GO\\n"); sys.stderr.flush()
    return settle(self, numbers)
Ledger.settle = marked
EmbedStore.open(sys.argv[1]).add(sys.argv[2], progress=False)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_paid_rows_leave_the_ledger_only_when_their_part_and_commit_are_on_the_disk(
    tmp_path: Path, pictures: Path
) -> None:
    """The order of one add: part, images/, commit, _delta_log/; the commit has its name only after it is synced."""
    store = EmbedStore.create(tmp_path / "s.store", model="objects")
    trace = tmp_path / "trace"
    words = [
        "strace",
        "-f",
        "-y",
        "-s",
        "200",
        "-o",
        str(trace),
        "-e",
        "trace=fsync,fdatasync,link,linkat,rename,write",
    ]
    ran = subprocess.run(
        [*words, sys.executable, "-c", CHILD, str(store.path), str(pictures)],
        capture_output=True,
        text=True,
        timeout=250,
    )
    if "ptrace" in ran.stderr.lower() and ran.returncode:
        pytest.skip("processes may not be traced here")
    assert ran.returncode == 0, ran.stderr
    images = re.escape(str(store.path / "images"))
    commit = r"_delta_log/\d{20}\.json"
    steps = [
        rf"fsync\(\d+<{images}/part-[^/]+\.parquet>",
        rf"fsync\(\d+<{images}>",
        rf"fsync\(\d+<{images}/.*{commit}>",
        rf"link(at)?\(.*, \"{images}/{commit}\"",
        rf"fsync\(\d+<{images}/_delta_log>",
        r"THE PAID ROWS GO",
    ]
    lines = trace.read_text(errors="replace").splitlines()
    first = [next((n for n, line in enumerate(lines) if re.search(step, line)), None) for step in steps]
    assert None not in first, first
    assert first == sorted(first), first


@pytest.mark.parametrize("moment", range(5))
def test_a_vacuum_while_the_log_is_read_takes_nothing_from_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Whichever file is being read: history, check and the newest version are those of a log read in peace."""

    def vacuum_at(moment: int, path: Path) -> int:
        if countdown and countdown.pop() == moment:
            table_in(table.path.parent).vacuum(0, dry_run=False)
        return int(real(path))

    real, countdown = log_files._checksum, list[int]()
    for reading in ("history", "check", "snapshot"):
        table = filled(tmp_path / reading)
        changes.compact(table, table.snapshot())
        expected, live = ids(table), {part.name for part in table.snapshot().parts}
        (tmp_path / reading / "index" / "images.json").unlink()
        countdown = list(range(5))
        with monkeypatch.context() as patch:
            patch.setattr(log_files, "_checksum", lambda path: vacuum_at(moment, path))
            if reading == "history":
                history = table.readable_history()
                assert (history.live, history.unreadable) == (live, [])
            elif reading == "check":
                assert table.check() == []
            else:
                assert ids(table) == expected
        assert not countdown


def test_no_part_is_called_unneeded_while_the_log_cannot_be_read(tmp_path: Path) -> None:
    """A commit that cannot be read may name any part; `check` names the commit."""
    table = filled(tmp_path)
    (table.path / "stray.parquet").write_bytes(b"")
    assert table.orphans() == ["stray.parquet"]
    (log_of(table) / commit_name(2)).write_bytes(b"{")
    assert table.orphans() == []
    assert commit_name(2) in str(table.check())
