"""Whatever is damaged is named, and what the rest of a store tells is made again: nothing is lost in silence."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedstore import files
from embedstore.errors import DamagedStoreError, StoreNotFoundError
from embedstore.storage.folder import Manifest
from embedstore.store import EmbedStore
from embedstore.upkeep import repair, verify

DIM = 8
LOG = "images/_delta_log"


def unit(number: int) -> np.ndarray:
    """The vector of a row by its number."""
    vector = np.random.default_rng(number).standard_normal(DIM).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector))


def rows(numbers: range, word: str = "first") -> pa.Table:
    """Ready vectors with ids, uris and a word."""
    return pa.table(
        {
            "id": [f"row-{n}" for n in numbers],
            "uri": [f"p/{n}.jpg" for n in numbers],
            "word": [word] * len(numbers),
            "vector": [unit(n).tolist() for n in numbers],
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four parts, an index, a classifier, a kept query and rows that wait in the ledger."""
    store = EmbedStore.create(tmp_path_factory.mktemp("made") / "s.store", space="mine", dim=DIM)
    for start in (0, 40, 80):
        store.add(rows(range(start, start + 40)), embedding_column="vector")
    store.remove(["row-3"])
    store.add(rows(range(50, 52), "second"), embedding_column="vector")
    store.index("fp16")
    store.save_classifier(store.calibrate(unit(0), np.arange(len(store)) % 3 == 0, name="third"))
    store.folder.ledger.keep_queries(store.space.to_json(), "text", ["a dog"], unit(1)[None])
    store.folder.ledger.note({})
    return store.path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "s.store")


def answers(path: Path) -> dict[str, object]:
    """Everything that the store says of its rows."""
    store = EmbedStore.open(path)
    table = store.to_table([*store.columns, "embedding"]).sort_by("id")
    return {row["id"]: row for row in table.to_pylist()}


def flip(file: Path, dice: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    file.write_bytes(content)


def newest(path: Path, pattern: str) -> Path:
    return sorted(path.glob(pattern))[-1]


# --- verify ----------------------------------------------------------------------------------------------------


def test_a_sound_store_is_called_sound(path: Path) -> None:
    report = verify(path, deep=True)
    assert report.problems == []
    assert (report.ok, report.rows, report.unsealed_parts, report.unnamed_parts) == (True, 119, 0, [])


@pytest.mark.parametrize(
    "pattern",
    ["images/*.parquet", f"{LOG}/*.json", "index/*.faiss", "index/part-*.json", "classifiers/*.json", "store.json"],
)
def test_each_flipped_bit_is_named_with_its_file_or_changes_no_answer(path: Path, pattern: str) -> None:
    """40 flips in each kind of file; the ledger's have a test of their own."""
    dice, truth, named = random.Random(pattern), answers(path), 0
    for _ in range(40):
        file = dice.choice(sorted(path.glob(pattern)))
        before = file.read_bytes()
        flip(file, dice)
        problems = verify(path, deep=True).problems
        named += any(file.name in problem or file.stem in problem for problem in problems)
        if not problems:
            assert answers(path) == truth
        file.write_bytes(before)
        (path / "index" / "images.json").unlink(missing_ok=True)
    assert named >= 38


@pytest.mark.parametrize("damage", ["empty", "gone", "half"])
def test_a_torn_newest_commit_is_named(path: Path, damage: str) -> None:
    """The layout note, which would answer for it, is not believed."""
    file = newest(path, f"{LOG}/*.json")
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:100])
    report = verify(path)
    assert any(file.name in problem for problem in report.problems)
    with pytest.raises(DamagedStoreError, match="embedstore repair"):
        EmbedStore.open(path)


def test_verify_ends_in_a_report_whatever_is_there(path: Path) -> None:
    """Files emptied, cut, replaced by folders or noise, one after the other: never a traceback."""
    dice = random.Random(5)
    for file in sorted(each for each in path.rglob("*") if each.is_file() and each.name != ".lock"):
        for damage in ("empty", "noise", "folder", "gone"):
            broken = shutil.copytree(path, path.parent / "broken.store")
            target = broken / file.relative_to(path)
            target.unlink()
            if damage == "folder":
                target.mkdir()
            elif damage != "gone":
                target.write_bytes(b"" if damage == "empty" else dice.randbytes(300))
            report = verify(broken, deep=True)
            assert report.ok or all(isinstance(problem, str) and problem for problem in report.problems)
            shutil.rmtree(broken)


def test_what_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        verify(tmp_path)
    with pytest.raises(StoreNotFoundError):
        repair(tmp_path / "nothing")


def test_uris_that_stand_twice_are_counted(path: Path) -> None:
    """As two adds at once could leave them before uris replaced each other."""
    store = EmbedStore.open(path)
    with store.folder.writing() as snapshot:
        twin = store.to_table(snapshot.schema.names).slice(0, 1)
        twin = twin.set_column(twin.schema.get_field_index("id"), "id", pa.array(["twin"]))
        store.folder.upsert(twin, unit(0)[None], replaces=False, by_uri=False)
    [problem] = verify(path).problems
    assert problem.startswith("1 uris stand in several rows")


# --- repair ----------------------------------------------------------------------------------------------------


def test_a_sound_store_needs_no_repair(path: Path) -> None:
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    report = repair(path)
    assert (report.steps, report.lost, str(report)) == ([], [], "nothing to repair")
    assert {file: file.read_bytes() for file in before} == before


def break_newest_commit(path: Path) -> None:
    newest(path, f"{LOG}/*.json").write_bytes(b"")


def break_oldest_commit(path: Path) -> None:
    flip(sorted(path.glob(f"{LOG}/*.json"))[0], random.Random(1))


def break_manifest(path: Path) -> None:
    (path / "store.json").write_text("{")


def break_ledger(path: Path) -> None:
    content = (path / "ledger.sqlite").read_bytes()
    (path / "ledger.sqlite").write_bytes(b"x" * 4096 + content[4096:])


def break_index(path: Path) -> None:
    flip(newest(path, "index/*.faiss"), random.Random(2))


def lose_log(path: Path) -> None:
    shutil.rmtree(path / LOG)


@pytest.mark.parametrize(
    "damage", [break_newest_commit, break_oldest_commit, break_manifest, break_ledger, break_index, lose_log]
)
def test_what_the_rest_tells_is_made_again(path: Path, damage: Callable[[Path], None]) -> None:
    """Afterwards every answer is what it was, verify calls the store sound, and the store can be added to."""
    truth = answers(path)
    damage(path)
    assert not verify(path, deep=True).ok
    before = sorted(file for file in path.rglob("*") if file.is_file())
    planned = repair(path, dry_run=True)
    assert planned.steps
    assert sorted(file for file in path.rglob("*") if file.is_file()) == before
    done = repair(path)
    assert done.steps[: len(planned.steps)] == planned.steps
    if damage is lose_log:  # nothing tells any more which rows were removed: they are back, and named
        assert set(answers(path)) == {*truth, "row-3"}
    else:
        assert answers(path) == truth
    report = verify(path, deep=True)
    assert report.problems == []
    EmbedStore.open(path).add(rows(range(200, 203)), embedding_column="vector")
    assert verify(path, deep=True).ok
    assert repair(path).steps == []


def test_a_damaged_part_keeps_its_sound_row_groups(tmp_path: Path) -> None:
    """Of a part of three row groups one is damaged: its rows are named as lost, an add brings back just these."""
    store = EmbedStore.create(tmp_path / "s.store", space="mine", dim=DIM)
    store.add(rows(range(9_000)), embedding_column="vector")
    truth = answers(store.path)
    [part] = store.snapshot.parts
    assert part.blocks is not None
    content = bytearray(part.path.read_bytes())
    content[part.blocks[1].offset + 77] ^= 4
    part.path.write_bytes(content)
    with pytest.raises(DamagedStoreError, match=part.name):
        store.folder.remove(["row-1"], None)
    report = repair(store.path)
    assert any(f"4,096 rows of images/{part.name}" in line for line in report.lost)
    kept = answers(store.path)
    assert len(kept) == 9_000 - 4_096
    assert all(truth[name] == row for name, row in kept.items())
    assert (store.path / "set-aside" / part.name).read_bytes() == content
    assert verify(store.path, deep=True).ok
    again = EmbedStore.open(store.path)
    assert again.add(rows(range(9_000)), embedding_column="vector").added == 4_096
    assert set(answers(store.path)) == set(truth)


def test_a_part_that_is_gone_is_named_and_the_rest_can_be_read(path: Path) -> None:
    gone = EmbedStore.open(path).snapshot.parts[0].path
    gone.unlink()
    with pytest.raises(DamagedStoreError):
        EmbedStore.open(path).to_table()
    report = repair(path)
    assert any(gone.name in line for line in report.lost)
    assert len(answers(path)) > 0
    assert verify(path, deep=True).ok


def test_a_damaged_classifier_is_listed_as_lost(path: Path) -> None:
    file = path / "classifiers" / "third.json"
    content = json.loads(file.read_text())
    content["targets"][0]["threshold"] = 0.123
    file.write_text(json.dumps(content))
    assert any("third.json" in problem for problem in verify(path).problems)
    report = repair(path)
    assert report.steps == []
    assert any("third.json" in line for line in report.lost)
    assert file.exists()


def test_without_a_copy_of_the_manifest_nothing_is_guessed(path: Path) -> None:
    (path / "store.json").unlink()
    (path / "ledger.sqlite").unlink()
    with pytest.raises(DamagedStoreError, match="restore it from a copy"):
        repair(path)


def test_an_old_store_gets_a_copy_of_its_manifest(path: Path) -> None:
    """One whose ledger was deleted, or that an earlier embedstore made."""
    (path / "ledger.sqlite").unlink()
    assert repair(path).steps == ["keep a copy of store.json in ledger.sqlite"]
    assert EmbedStore.open(path).folder.ledger.manifest() == (path / "store.json").read_text()


def test_rows_that_wait_in_a_damaged_ledger_are_kept_where_they_can_be_read(path: Path) -> None:
    """The paid rows before and after the damaged page become rows of the store."""
    from embedstore.ingest.row_writer import recover

    store = EmbedStore.open(path)
    for start in range(300, 340, 4):
        waiting = store.to_table([*store.columns, "embedding"]).slice(0, 4)
        ids = pa.array([f"row-{n}" for n in range(start, start + 4)])
        waiting = waiting.set_column(waiting.schema.get_field_index("id"), "id", ids)
        uris = pa.array([f"p/{n}.jpg" for n in range(start, start + 4)])
        waiting = waiting.set_column(waiting.schema.get_field_index("uri"), "uri", uris)
        store.folder.ledger.pay("dead", waiting)
    file = path / "ledger.sqlite"
    content = bytearray(file.read_bytes())
    content[:16] = b"no database now!"
    file.write_bytes(content)
    repair(path)
    assert verify(path).waiting in (0, 40)
    assert recover(EmbedStore.open(path).folder) in (0, 40)
    assert any(name.startswith("ledger.sqlite.damaged") for name in verify(path).set_aside)
    assert files.is_sealed(json.loads((path / "store.json").read_text()))


def test_a_part_that_was_never_finished_is_no_damage(path: Path) -> None:
    """A killed change leaves half a part that no version names: vacuum deletes it, verify says so."""
    half = path / "images" / "part-09999999999999999999-0123456789ab.parquet"
    half.write_bytes(b"PAR1 and no more")
    report = verify(path, deep=True)
    assert (report.problems, report.unnamed_parts) == ([], [half.name])
    EmbedStore.open(path).vacuum(0)
    assert not half.exists()


def test_a_vacuum_ends_its_work_beside_a_damaged_ledger(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It gives back what it can, and names the ledger."""
    store = EmbedStore.open(path)
    store.compact()
    ledger = path / "ledger.sqlite"
    ledger.write_bytes(b"no ledger" * 1000)
    assert EmbedStore.open(path).vacuum(0).files
    assert "ledger.sqlite" in caplog.text
    assert EmbedStore.open(path).vacuum(0).files == []


@pytest.mark.parametrize("content", [{}, {"format_version": "2"}, {"format_version": 1, "store_id": "1"}, 7])
def test_a_manifest_that_lacks_something_is_no_manifest(content: object) -> None:
    """Also one without a checksum, as an early embedstore wrote it."""
    with pytest.raises(ValueError, match=r"it (lacks|is)|supported"):
        Manifest.from_text(json.dumps(content))
