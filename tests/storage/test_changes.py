"""Changes that another writer, who does not hold the lock, has overtaken: as if the one had come after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import StoreLockedError
from embedstore.storage import arrow_columns, changes
from embedstore.storage.table import DeltaFolder, OvertakenError, Snapshot

SCHEMA = pa.schema([("id", pa.string()), ("uri", pa.string())])
Change = Callable[[DeltaFolder], Snapshot]


def rows(names: list[str], seed: int) -> tuple[pa.Table, np.ndarray]:
    vectors = np.random.default_rng(seed).standard_normal((len(names), 4), dtype=np.float32)
    return pa.table({"id": names, "uri": [f"/{name}" for name in names]}, schema=SCHEMA), vectors


def paid(names: list[str], seed: int) -> pa.Table:
    table, vectors = rows(names, seed)
    return table.append_column(arrow_columns.embedding_field(), arrow_columns.list_array(vectors))


def filled(folder: Path) -> DeltaFolder:
    """Return a table of five parts, in versions 1 to 5, of which the last replaces a row of the first."""
    table = DeltaFolder(folder / "images", 4, folder / "index" / "images.json")
    table.create(SCHEMA)
    for number in range(4):
        changes.upsert(table, *rows([f"{number}a", f"{number}b"], number))
    changes.upsert(table, *rows(["0b", "4a"], 9))
    return table


def state(table: DeltaFolder) -> dict[str, bytes]:
    """Return what stands in the newest version, and require that it does once."""
    snapshot = table.snapshot()
    ids = snapshot.read(["id"]).column("id").to_pylist()
    vectors = [vector.tobytes() for part in snapshot.parts for group in part.groups() for vector in group]
    assert len(set(ids)) == len(ids) == len(vectors)
    return dict(zip(ids, vectors, strict=True))


def rival(table: DeltaFolder) -> None:
    """Replace one row, remove another, add one: three parts go, and each change below meets one of them."""
    changes.upsert(table, *rows(["1a", "new"], 20))
    ids = table.snapshot().read(["id"]).column("id").to_pylist()
    changes.remove(table, table.snapshot(), np.array([name == "2a" for name in ids]))


def interrupted(table: DeltaFolder, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> list[str]:
    """Let a rival go between the computing of a change and its commit; return what the table then tells."""
    told: list[str] = []
    real, other = table.commit, DeltaFolder(table.path, 4, table.path.parent / "other.json")

    def commit(*given: Any, **options: Any) -> Snapshot:
        if len(told) < times:
            told.append(f"after {options['base'].version}")
            rival(other) if times == 1 else changes.upsert(other, *rows([f"r{len(told)}"], len(told)))
        return real(*given, **options)

    monkeypatch.setattr(table, "commit", commit)
    return told


def removed(table: DeltaFolder) -> Snapshot:
    newest = table.snapshot()
    return changes.remove(table, newest, np.isin(newest.read(["id"]).column("id").to_pylist(), ["1a", "2a", "3a"]))


CHANGES: dict[str, Change] = {
    "upsert": lambda table: changes.upsert(table, *rows(["1a", "2b", "mine"], 30)),
    "upsert of what is new": lambda table: changes.upsert(
        table, *rows(["new", "mine"], 30), replaces="new" in state(table)
    ),
    "fold": lambda table: changes.fold(table, [paid(["1b", "mine"], 31), paid(["mine", "3a"], 32)], ("series", 7)),
    "remove": removed,
    "restore": lambda table: changes.restore(table, table.snapshot(), table.snapshot(2)),
    "compact": lambda table: changes.compact(table, table.snapshot()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_was_overtaken_is_made_anew_from_the_newest_version(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are those of one after the other, once, none that was removed is back; of the lost try no part stays."""
    in_turn, at_once = filled(tmp_path / "in turn"), filled(tmp_path / "at once")
    rival(in_turn)
    CHANGES[name](in_turn)
    told = interrupted(at_once, monkeypatch)
    CHANGES[name](at_once)
    assert told == ["after 5"]
    assert state(at_once) == state(in_turn)
    assert at_once.snapshot().version == in_turn.snapshot().version
    assert at_once.orphans() == []


def test_a_mask_of_rows_follows_them_to_where_they_are_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were marked go, also after a rival has laid all of them out anew; a callable is asked again."""
    table = filled(tmp_path)
    newest, other = table.snapshot(), DeltaFolder(table.path, 4, tmp_path / "other.json")
    changes.compact(other, other.snapshot())
    mask = np.isin(newest.read(["id"]).column("id").to_pylist(), ["0b", "4a"])
    assert changes.remove(table, newest, mask).rows == newest.rows - 2
    assert not {"0b", "4a"} & state(table).keys()
    seen: list[int] = []

    def all_of(snapshot: Snapshot) -> np.ndarray:
        seen.append(snapshot.version)
        return np.ones(snapshot.rows, bool)

    interrupted(table, monkeypatch)
    assert changes.remove(table, table.snapshot(), all_of).rows == 0
    assert seen == [7, 9]


def test_small_parts_that_were_overtaken_are_left_for_the_next_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the upsert are in, those of the rival too, and the merge has left no file."""
    table = filled(tmp_path)
    monkeypatch.setattr(changes, "_TIER", 4)
    real, other = table.commit, DeltaFolder(table.path, 4, tmp_path / "other.json")

    def commit(*given: Any, **options: Any) -> Snapshot:
        if options["operation"] == "compact":
            with monkeypatch.context() as patch:
                patch.setattr(changes, "_TIER", 30)
                rival(other)
        return real(*given, **options)

    monkeypatch.setattr(table, "commit", commit)
    found = changes.upsert(table, *rows(["mine"], 40))
    assert found.version == 8
    assert {"mine", "new"} < state(table).keys()
    assert table.orphans() == []


def test_paid_rows_whose_commit_has_arrived_after_all_are_not_folded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rival is an earlier try of this very fold; what somebody removed since does not come back."""
    table = filled(tmp_path)
    real, other = table.commit, DeltaFolder(table.path, 4, tmp_path / "other.json")
    batch, tries = paid(["mine", "my other"], 50), list[int]()

    def commit(*given: Any, **options: Any) -> Snapshot:
        tries.append(options["base"].version)
        changes.fold(other, [batch], ("series", 3))
        newest = other.snapshot()
        changes.remove(other, newest, np.isin(newest.read(["id"]).column("id").to_pylist(), ["mine"]))
        return real(*given, **options)

    monkeypatch.setattr(table, "commit", commit)
    changes.fold(table, [batch], ("series", 3))
    assert tries == [5]
    assert "my other" in state(table)
    assert "mine" not in state(table)


def test_whoever_is_always_overtaken_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After as many tries as are allowed, with what to do, and without a file of any try; the table goes on."""
    table = filled(tmp_path)
    monkeypatch.setattr(changes, "TRIES", 3)
    told = interrupted(table, monkeypatch, times=3)
    with pytest.raises(StoreLockedError, match=r"another program has changed .*try again"):
        changes.upsert(table, *rows(["mine"], 60))
    assert told == ["after 5", "after 6", "after 7"]
    assert table.orphans() == []
    assert changes.upsert(table, *rows(["mine"], 60)).version >= 9


def test_a_commit_after_a_version_that_is_past_is_refused(tmp_path: Path) -> None:
    """Nothing is put on top of what the change was not computed from."""
    table = filled(tmp_path)
    old, newest = table.snapshot(3), table.snapshot()
    with pytest.raises(OvertakenError):
        table.commit([], [old.parts[0]], base=old, operation="remove")
    assert table.newest_version() == newest.version
