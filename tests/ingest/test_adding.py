"""Adding pictures: each is embedded once, whatever happens to files and metadata; one bad file stops nothing."""

from __future__ import annotations

import functools
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import save_picture
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from embedstore import images
from embedstore.embedders.nomic_api import NomicAPIEmbedder
from embedstore.embedders.objects import ObjectsEmbedder
from embedstore.errors import (
    BudgetSpentError,
    EmbedderError,
    InputError,
    ServiceError,
    SourceError,
    SpaceMismatchError,
    StoreLockedError,
)
from embedstore.ingest import adding, pipeline
from embedstore.ingest.reports import FAILURES, AddReport, read_failures
from embedstore.sources import Record, Source, open_source
from embedstore.storage.folder import StoreFolder
from embedstore.storage.ledger import Ledger
from embedstore.storage.table import Snapshot
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer


class Counting(ObjectsEmbedder):
    """The bundled model, which notes how many pictures it was given, and may be told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.fails_after: int | None = None
        self._guard = threading.Lock()

    @property
    def embedded(self) -> int:
        return sum(self.batches)

    def embed_prepared(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        with self._guard:
            if self.fails_after is not None and len(self.batches) >= self.fails_after:
                raise ServiceError("the service is gone")
            self.batches.append(len(prepared))
        return super().embed_prepared(prepared)


@pytest.fixture
def counting(tmp_path: Path) -> EmbedStore:
    """An empty store of a counting embedder."""
    return EmbedStore.create(tmp_path / "counted.store", embedder=Counting())


def embedded(store: EmbedStore) -> int:
    assert isinstance(store.embedder, Counting)
    return store.embedder.embedded


def rows_by_uri(store: EmbedStore) -> dict[str, dict[str, Any]]:
    return {row["uri"]: row for row in store.to_table().to_pylist()}


def assert_consistent(store: EmbedStore) -> None:
    """Every row's vector is what the model makes of the file at its uri, and ids are unique."""
    table = store.to_table(["id", "uri", "content_hash"])
    ids = table.column("id").to_pylist()
    assert len(set(ids)) == len(ids)
    embedder = ObjectsEmbedder()
    for identity, uri, content_hash in zip(*table.to_pydict().values(), strict=True):
        picture = images.read(Path(uri))
        assert picture.content_hash == content_hash
        expected = embedder.embed_prepared([embedder.prepare(picture.image)])
        np.testing.assert_allclose(store.vectors([identity]), expected, atol=1e-6)


# --- once -----------------------------------------------------------------------------------------------------


def test_a_second_add_embeds_nothing_and_writes_nothing(counting: EmbedStore, pictures: Path) -> None:
    """Adding the same folder again gives the model nothing to do, and the store keeps its version."""
    first = counting.add(pictures, label_from_folder=True)
    version = counting.version
    again = counting.add(pictures, label_from_folder=True)
    assert (first.embedded, first.found, embedded(counting)) == (12, 12, 12)
    assert (again.embedded, again.unchanged, again.requests) == (0, 12, 0)
    assert counting.version == version
    assert counting.info()["waiting_in_ledger"] == 0
    assert not list((counting.path / ".running").iterdir())
    assert_consistent(counting)


def test_rows_tell_of_the_files(counting: EmbedStore, pictures: Path) -> None:
    """A row holds the file's SHA-256, its size in pixels, its folder as the label, and an id of 32 hex digits."""
    counting.add(pictures, label_from_folder=True)
    rows = rows_by_uri(counting)
    assert set(rows) == {str(path) for path in pictures.rglob("*.png")}
    for uri, row in rows.items():
        assert row["content_hash"] == images.content_hash(Path(uri))
        assert (row["width"], row["height"], row["label"]) == (40, 30, Path(uri).parent.name)
        assert len(bytes.fromhex(row["id"])) == 16


def test_moved_and_renamed_files_keep_their_ids(counting: EmbedStore, pictures: Path) -> None:
    """Half the files moved or renamed: nothing is embedded, ids and vectors stay, uris are the new ones."""
    counting.add(pictures)
    before = {row["content_hash"]: row["id"] for row in rows_by_uri(counting).values()}
    (pictures / "other").mkdir()
    for number, path in enumerate(sorted(pictures.rglob("*.png"))[::2]):
        path.rename(pictures / "other" / (path.name if number % 2 else f"renamed {number}.png"))
    report = counting.add(pictures)
    assert (report.moved, report.unchanged, report.embedded, embedded(counting)) == (6, 6, 0, 12)
    after = rows_by_uri(counting)
    assert {row["content_hash"]: row["id"] for row in after.values()} == before
    assert set(after) == {str(path) for path in pictures.rglob("*.png")}
    assert_consistent(counting)


def test_a_copied_file_is_no_move(counting: EmbedStore, pictures: Path) -> None:
    """A copy of a file that is still there is a further row with an id of its own, without an embedding."""
    counting.add(pictures)
    shutil.copy(pictures / "cat" / "00.png", pictures / "cat" / "copy.png")
    report = counting.add(pictures)
    assert (report.copied, report.moved, report.embedded, len(counting)) == (1, 0, 0, 13)
    assert_consistent(counting)


def test_a_changed_file_is_replaced(counting: EmbedStore, pictures: Path) -> None:
    """A file whose content changed is embedded anew under its old id; its metadata stay."""
    counting.add(pictures, label_from_folder=True)
    changed = str(save_picture(pictures / "cat" / "00.png", 99))
    before = rows_by_uri(counting)[changed]
    report = counting.add(pictures)
    after = rows_by_uri(counting)[changed]
    assert (report.replaced, report.embedded, report.unchanged, len(counting)) == (1, 1, 11, 12)
    assert (after["id"], after["label"]) == (before["id"], "cat")
    assert after["content_hash"] == images.content_hash(Path(changed)) != before["content_hash"]
    assert_consistent(counting)


def test_two_files_that_change_places_cost_nothing(counting: EmbedStore, pictures: Path) -> None:
    """Two files swap names: both rows are replaced, with the vectors that are there."""
    counting.add(pictures)
    one, two = pictures / "cat" / "00.png", pictures / "dog" / "01.png"
    one.rename(pictures / "between.png")
    two.rename(one)
    (pictures / "between.png").rename(two)
    report = counting.add(pictures)
    assert (report.replaced, report.embedded, embedded(counting)) == (2, 0, 12)
    assert_consistent(counting)


def test_duplicates_are_two_rows_and_one_embedding(counting: EmbedStore, pictures: Path) -> None:
    """Equal files in one source, near or far apart, are rows of their own that share one call of the model."""
    for number in range(12):
        source = pictures / ("cat" if number % 3 == 0 else "dog") / f"{number:02}.png"
        shutil.copy(source, pictures / f"z{number}.png")
        shutil.copy(source, source.with_name(f"{number:02}b.png"))
    report = counting.add(pictures, batch_size=5)
    assert (report.found, report.embedded, report.copied, len(counting)) == (36, 12, 24, 36)
    assert embedded(counting) == 12
    assert_consistent(counting)


def test_a_source_that_names_a_file_twice_gives_one_row(counting: EmbedStore, pictures: Path) -> None:
    """The same uri twice in one source is one record."""
    report = counting.add([np.zeros((9, 9, 3), np.uint8), pictures, str(pictures / "cat" / "00.png")])
    assert (report.embedded, len(counting)) == (13, 13)


def test_pictures_from_an_archive_do_not_count_as_moved(counting: EmbedStore, pictures: Path) -> None:
    """A picture added from a zip and then from a folder is two rows: the one in the archive is still there."""
    archive = shutil.make_archive(str(pictures.parent / "all"), "zip", pictures)
    counting.add(archive)
    report = counting.add(pictures)
    assert (report.moved, report.copied, report.embedded, len(counting)) == (0, 12, 0, 24)
    assert counting.add(archive).unchanged == 12


def test_an_archive_that_was_moved_takes_its_rows_along(counting: EmbedStore, pictures: Path) -> None:
    """The same zip under another name costs nothing and keeps the ids."""
    archive = Path(shutil.make_archive(str(pictures.parent / "all"), "zip", pictures))
    counting.add(archive)
    before = set(counting.to_table(["id"]).column("id").to_pylist())
    report = counting.add(archive.rename(archive.with_name("moved.zip")))
    assert (report.moved, report.embedded) == (12, 0)
    assert set(counting.to_table(["id"]).column("id").to_pylist()) == before


def test_a_new_file_at_a_place_that_was_left_gets_another_id(counting: EmbedStore, pictures: Path) -> None:
    """A file moves away and, later, a new one takes its name: the ids stay apart."""
    counting.add(pictures)
    old = pictures / "cat" / "00.png"
    old.rename(pictures / "cat" / "elsewhere.png")
    counting.add(pictures)
    save_picture(old, 77)
    report = counting.add(pictures)
    assert (report.embedded, len(counting)) == (1, 13)
    assert_consistent(counting)


def test_a_store_lends_its_vectors(counting: EmbedStore, store: EmbedStore, pictures: Path) -> None:
    """Pictures of a store named by `reuse` are copied to the bit with their sizes; the model sees the others only."""
    save_picture(pictures / "new.png", 50)
    report = counting.add(pictures, reuse=[store.path])
    assert (report.reused, report.embedded, embedded(counting)) == (12, 1, 1)
    for row in store.to_table(["id", "uri"]).to_pylist():
        mine = rows_by_uri(counting)[row["uri"]]
        assert (mine["width"], mine["height"]) == (40, 30)
        assert np.array_equal(counting.vectors([mine["id"]]), store.vectors([row["id"]]))


def test_only_a_store_of_the_same_space_lends(store: EmbedStore, tmp_path: Path, pictures: Path) -> None:
    """A lender of another space is refused before anything is read, and the error names both."""
    other = EmbedStore.create(tmp_path / "other.store", space="my-clip", dim=4)
    with pytest.raises(SpaceMismatchError, match=r"my-clip.*objects"):
        store.add(pictures, reuse=[other])


def test_nothing_new_needs_no_model(store: EmbedStore, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without the model, adding what is there already works; a new picture says what is missing."""
    opened = EmbedStore.open(store.path)

    def missing(space: object, **options: object) -> None:
        raise EmbedderError("no weights here")

    monkeypatch.setattr("embedstore.embedders.registry.embedder_for_space", missing)
    assert opened.add(pictures).unchanged == 12
    save_picture(pictures / "new.png", 60)
    with pytest.raises(EmbedderError, match="no weights here"):
        opened.add(pictures)


# --- metadata -------------------------------------------------------------------------------------------------


def test_corrected_metadata_are_taken_without_embedding(counting: EmbedStore, pictures: Path) -> None:
    """A corrected metadata.csv changes the rows it speaks of, and nothing is embedded."""
    table = pictures / "metadata.csv"
    names = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
    table.write_text("file_name,price,note\n" + "".join(f"{name},1.5,fine\n" for name in names))
    assert counting.add(pictures).embedded == 12
    assert counting.add(pictures).unchanged == 12
    table.write_text(table.read_text().replace(f"{names[3]},1.5,fine", f"{names[3]},2.5,"))
    report = counting.add(pictures)
    assert (report.updated, report.unchanged, embedded(counting)) == (1, 11, 12)
    rows = rows_by_uri(counting)
    assert (rows[str(pictures / names[3])]["price"], rows[str(pictures / names[3])]["note"]) == (2.5, "")
    assert {row["price"] for row in rows.values()} == {1.5, 2.5}


def test_columns_named_like_the_stores_own_stay_apart(counting: EmbedStore, pictures: Path) -> None:
    """A source's column ``width`` becomes ``source_width``; adding again finds it unchanged."""
    names = [str(path.relative_to(pictures)) for path in pictures.rglob("*.png")]
    (pictures / "metadata.csv").write_text("file_name,width,my col\n" + "".join(f"{name},7,x\n" for name in names))
    counting.add(pictures)
    row = counting.to_table().to_pylist()[0]
    assert (row["width"], row["source_width"], row["my_col"]) == (40, 7, "x")
    assert counting.add(pictures).unchanged == 12


def test_a_label_is_added_later_without_embedding(counting: EmbedStore, pictures: Path) -> None:
    """Labels from folders come into a store that had none, and stay when the folder is added without them."""
    counting.add(pictures)
    report = counting.add(pictures, label_from_folder=True)
    assert (report.updated, report.embedded) == (12, 0)
    assert counting.add(pictures).unchanged == 12
    labels = counting.to_table(["label"]).column("label").to_pylist()
    assert sorted(labels) == ["cat"] * 4 + ["dog"] * 8


def test_a_type_conflict_is_found_before_a_picture_is_embedded(counting: EmbedStore, pictures: Path) -> None:
    """Text in a column of numbers ends the add with the column's name, and the model was given nothing."""
    table = pictures / "metadata.csv"
    table.write_text("file_name,year\ncat/00.png,1999\n")
    counting.add(pictures)
    save_picture(pictures / "new.png", 40)
    table.write_text("file_name,year\nnew.png,unknown\n")
    with pytest.raises(InputError, match=r"new\.png: column 'year' holds int64 and here 'unknown'"):
        counting.add(pictures)
    assert embedded(counting) == 12
    table.write_text("file_name,year\nnew.png,2001\n")
    assert counting.add(pictures).embedded == 1


# --- one bad file among many ----------------------------------------------------------------------------------


def huge_png(path: Path, side: int) -> None:
    """Write a valid PNG header of side x side pixels with hardly any data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


@pytest.fixture
def bad_files(pictures: Path) -> dict[Path, str]:
    """Broken files of every kind among the pictures, with a word of the reason expected."""
    bad = {name: pictures / "dog" / name for name in ("empty.jpg", "text.jpg", "cut.jpg", "bomb.png", "loop.png")}
    bad["empty.jpg"].touch()
    bad["text.jpg"].write_text("<html>Not found</html>")
    save_picture(pictures / "dog" / "whole.jpg", 30, (400, 300))
    bad["cut.jpg"].write_bytes((pictures / "dog" / "whole.jpg").read_bytes()[:2000])
    huge_png(bad["bomb.png"], 30_000)
    bad["loop.png"].symlink_to(bad["loop.png"])
    words = ["0 bytes", "no picture", "cut short", "900,000,000 pixels", "symbolic links"]
    return dict(zip(bad.values(), words, strict=True))


def test_bad_files_are_reported_and_the_rest_is_stored(
    counting: EmbedStore, pictures: Path, bad_files: dict[Path, str]
) -> None:
    """Each broken file is a failure with its reason, in the report and in failures.csv; all others are rows."""
    weird = [
        "a b.png",
        "ü-日本.png",
        "100%.png",
        "new\nline.png",
        "#1!.png",
        "[x]*?.png",
        "'quote\".png",
        "-f.png",
    ]
    for number, name in enumerate(weird):
        save_picture(pictures / name, 100 + number)
    report = counting.add(pictures, batch_size=4)
    reasons = {failure.uri: failure.reason for failure in report.failures}
    assert set(reasons) == {str(path) for path in bad_files}
    for path, word in bad_files.items():
        assert word in reasons[str(path)], reasons[str(path)]
    assert (report.found, report.embedded, len(counting)) == (26, 21, 21)
    assert set(read_failures(counting.path / FAILURES)) == set(reasons)
    assert {str(pictures / name) for name in weird} < set(rows_by_uri(counting))
    assert_consistent(counting)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_a_failure(counting: EmbedStore, pictures: Path) -> None:
    """A file without read permission is reported as such."""
    (pictures / "cat" / "00.png").chmod(0)
    report = counting.add(pictures)
    assert [failure.reason for failure in report.failures] == ["Permission denied"]
    assert len(counting) == 11


def add_source(store: EmbedStore, source: Source, **options: int) -> AddReport:
    """Add a source that is open already."""
    try:
        with store.folder.running.begun() as name:
            return pipeline.Run(store.folder, lambda: store.embedder, name, **options).run(source, False)
    finally:
        store.refresh()


def test_a_file_that_vanishes_is_a_failure(counting: EmbedStore, pictures: Path) -> None:
    """A file that is deleted between listing and reading is reported, and the others are stored."""
    from embedstore.sources import open_source

    opened = open_source(str(pictures))
    (pictures / "cat" / "00.png").unlink()
    report = add_source(counting, opened)
    assert [failure.reason for failure in report.failures] == ["No such file or directory"]
    assert len(counting) == 11


def test_a_mended_file_is_taken_from_the_list_of_failures(
    counting: EmbedStore, pictures: Path, bad_files: dict[Path, str]
) -> None:
    """`only` with failures.csv reads those files alone, with or without the source; what fails again stays listed."""
    counting.add(pictures)
    mended, gone = pictures / "dog" / "cut.jpg", pictures / "dog" / "text.jpg"
    save_picture(mended, 200)
    gone.unlink()
    failed = read_failures(counting.path / FAILURES)
    report = counting.add(only=failed)
    assert (report.embedded, report.found) == (1, 5)
    left = dict.fromkeys(failure.uri for failure in report.failures)
    assert set(left) == {str(path) for path in bad_files} - {str(mended)}
    save_picture(pictures / "dog" / "empty.jpg", 201)
    again = counting.add(pictures, only=read_failures(counting.path / FAILURES), label_from_folder=True)
    assert (again.embedded, again.found) == (1, 3)
    assert rows_by_uri(counting)[str(pictures / "dog" / "empty.jpg")]["label"] == "dog"


def test_the_list_of_failures_goes_when_nothing_fails(
    counting: EmbedStore, pictures: Path, bad_files: dict[Path, str]
) -> None:
    """An add without failures takes an old list away; a list that is not there, or is none, is an error."""
    counting.add(pictures)
    assert (counting.path / FAILURES).exists()
    counting.add(pictures / "cat")
    assert not (counting.path / FAILURES).exists()
    with pytest.raises(InputError, match="an add in which something failed"):
        read_failures(counting.path / FAILURES)
    with pytest.raises(InputError, match="column 'uri'"):
        read_failures(counting.path / "store.json")
    with pytest.raises(InputError, match="nothing to try again"):
        counting.add(only=[])


def records(*loads: Any) -> Source:
    """A source whose records load as the functions do; an exception among them is raised while listing."""

    class Made(Source):
        def describe(self) -> str:
            return f"{len(loads)} made"

        def count(self) -> int:
            return len(loads)

        def __iter__(self) -> Iterator[Record]:
            for number, load in enumerate(loads):
                if isinstance(load, Exception):
                    raise load
                yield Record(f"made:{number}", f"made {number}", load)

    return Made()


def pixels(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)


def test_whatever_a_record_raises_is_its_own_failure(counting: EmbedStore) -> None:
    """A source of the user's own may raise anything for one record, or give nonsense: the others are stored."""

    def broken() -> Any:
        raise ZeroDivisionError("division by zero")

    source = records(lambda: pixels(1), broken, lambda: "no picture", lambda: pixels(2))
    report = add_source(counting, source)
    assert (report.found, report.embedded, len(counting)) == (4, 2, 2)
    assert {failure.uri: failure.reason.split(",")[0] for failure in report.failures} == {
        "made 1": "ZeroDivisionError: division by zero",
        "made 2": "expected bytes",
    }


def test_a_source_that_breaks_off_leaves_what_came_before(counting: EmbedStore) -> None:
    """A source that raises in the middle ends the add with its error; the pictures before it are stored."""
    source = records(*(functools.partial(pixels, n) for n in range(20)), SourceError("the tape is torn"))
    with pytest.raises(SourceError, match="torn"):
        add_source(counting, source, workers=1, batch_size=2)
    before = embedded(counting)
    assert len(counting) == before
    whole = records(*(functools.partial(pixels, n) for n in range(25)))
    assert add_source(counting, whole, workers=1, batch_size=2).embedded == 25 - before


def test_a_store_that_is_locked_meanwhile_costs_nothing(
    counting: EmbedStore, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes the store's lock during an add and keeps it: the rows wait in the ledger, the error
    counts them, and the next add takes them in without embedding."""
    monkeypatch.setattr("embedstore.storage.folder.LOCK_TIMEOUT", 0.05)
    monkeypatch.setattr("embedstore.storage.parts.rows_per_part", lambda dim: 4)
    lock = FileLock(counting.path / ".lock")
    embed = Counting.embed_prepared

    def then_lock(self: Counting, prepared: Any) -> Any:
        lock.acquire()
        return embed(self, prepared)

    monkeypatch.setattr(Counting, "embed_prepared", then_lock)
    with pytest.raises(StoreLockedError) as caught:
        counting.add(pictures, batch_size=2, workers=1)
    assert "12 rows wait in the ledger; the next add takes them in" in caught.value.__notes__
    with pytest.raises(StoreLockedError):
        counting.add(pictures)
    lock.release(force=True)
    report = counting.add(pictures)
    assert (report.recovered, report.unchanged, embedded(counting), len(counting)) == (12, 12, 12, 12)
    assert_consistent(counting)


# --- a model that fails, an interrupt -------------------------------------------------------------------------


def test_what_was_embedded_before_a_failure_is_stored(counting: EmbedStore, pictures: Path) -> None:
    """The model fails at the third batch: two batches are rows, the error says so, and the next add does the rest."""
    assert isinstance(counting.embedder, Counting)
    counting.embedder.fails_after = 2
    with pytest.raises(ServiceError, match="gone") as caught:
        counting.add(pictures, batch_size=3, workers=1)
    assert "6 images were embedded and are stored" in caught.value.__notes__[0]
    assert len(EmbedStore.open(counting.path)) == 6
    counting.embedder.fails_after = None
    report = counting.add(pictures)
    assert (report.unchanged, report.embedded, embedded(counting)) == (6, 6, 12)
    assert_consistent(counting)


def test_an_interrupt_loses_nothing(counting: EmbedStore, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at any write to the ledger: what came back is stored, and nothing is embedded twice."""
    pay = Ledger.pay

    def interrupted(self: Ledger, run: str, table: Any) -> int:
        number = pay(self, run, table)
        if not interrupts:
            interrupts.append(True)
            raise KeyboardInterrupt
        return number

    interrupts: list[bool] = []
    monkeypatch.setattr(Ledger, "pay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        counting.add(pictures, batch_size=2, workers=2)
    before = embedded(counting)
    assert len(counting) == before
    assert counting.add(pictures).embedded == 12 - before
    assert embedded(counting) == len(counting) == 12
    assert_consistent(counting)


def test_a_full_disk_ends_the_add_and_keeps_what_was_written(
    counting: EmbedStore, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that cannot be written raises its OSError at once; the batches before it are rows."""
    pay = Ledger.pay
    calls: list[int] = []

    def full(self: Ledger, run: str, table: Any) -> int:
        calls.append(len(table))
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return pay(self, run, table)

    monkeypatch.setattr(Ledger, "pay", full)
    with pytest.raises(OSError, match="No space left"):
        counting.add(pictures, batch_size=2, workers=1)
    assert len(EmbedStore.open(counting.path)) == 4
    monkeypatch.undo()
    assert counting.add(pictures).unchanged == 4


def test_a_wrong_shape_from_an_embedder_is_refused(counting: EmbedStore, pictures: Path) -> None:
    """An embedder that returns too few vectors is an error that names both shapes, and nothing is stored."""
    embedder = counting.embedder
    embedder.embed_prepared = lambda prepared: np.ones((1, embedder.space.dim), np.float32)  # type: ignore[method-assign]
    with pytest.raises(EmbedderError, match=r"shape \(1, \d+\) for 12 pictures"):
        counting.add(pictures)
    assert len(counting) == 0


def test_an_old_version_takes_nothing(store: EmbedStore, pictures: Path) -> None:
    """A store opened at an older version refuses to add before a picture is embedded."""
    save_picture(pictures / "new.png", 70)
    pinned = EmbedStore.open(store.path, version=store.version, embedder=Counting())
    with pytest.raises(InputError, match="opened to read version"):
        pinned.add(pictures)
    assert embedded(pinned) == 0


# --- many rows, many writers ----------------------------------------------------------------------------------


def test_rows_become_parts_on_the_way(counting: EmbedStore, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a part at every fourth row, rows appear while the add runs, duplicates across parts cost nothing, and
    the store is what it would be in one piece."""
    for number in range(12, 40):
        save_picture(pictures / "more" / f"{number}.png", number)
        shutil.copy(pictures / "more" / f"{number}.png", pictures / "more" / f"{number}b.png")
    shutil.copytree(pictures / "more", pictures / "zz")
    monkeypatch.setattr("embedstore.storage.parts.rows_per_part", lambda dim: 4)
    folds = []
    fold = StoreFolder.fold

    def counted(self: StoreFolder) -> Snapshot:
        folds.append(fold(self).rows)
        return self.snapshot()

    monkeypatch.setattr(StoreFolder, "fold", counted)
    report = counting.add(pictures, batch_size=3)
    assert (report.found, report.embedded, embedded(counting)) == (12 + 4 * 28, 40, 40)
    assert len(folds) > 5
    assert folds == sorted(folds)
    monkeypatch.undo()
    assert len(counting) == report.found
    assert counting.add(pictures).unchanged == report.found
    assert_consistent(counting)


ADD = "import sys; from embedstore.store import EmbedStore; EmbedStore.open(sys.argv[1]).add(sys.argv[2], batch_size=3)"


def test_two_processes_leave_each_id_once(tmp_path: Path, pictures: Path) -> None:
    """Two processes add the same folder to one store at once: every picture is one row, with the right vector."""
    made = EmbedStore.create(tmp_path / "both.store", model="objects")
    both = [subprocess.Popen([sys.executable, "-c", ADD, str(made.path), str(pictures)]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    made.refresh()
    assert len(made) == 12
    assert made.info()["waiting_in_ledger"] == 0
    assert_consistent(made)


def test_random_changes_between_adds(counting: EmbedStore, tmp_path: Path) -> None:
    """Through 15 rounds of random new files, copies, moves, changes and deletions, every file has one row with its
    own vector, and the model was given each distinct content once."""
    dice = random.Random(7)
    folder = tmp_path / "changing"
    contents: set[str] = set()
    number = 0
    for _ in range(15):
        for _ in range(dice.randrange(1, 6)):
            files = sorted(folder.rglob("*.png"))
            number += 1
            new = folder / dice.choice("abc") / f"{number}.png"
            new.parent.mkdir(parents=True, exist_ok=True)
            what = dice.choice(["new", "new", "copy", "move", "change", "delete"]) if files else "new"
            if what == "new":
                save_picture(new, number)
            elif what == "copy":
                shutil.copy(dice.choice(files), new)
            elif what == "move":
                dice.choice(files).rename(new)
            elif what == "change":
                save_picture(dice.choice(files), 1000 + number)
            else:
                dice.choice(files).unlink()
        files = sorted(folder.rglob("*.png"))
        if not files:
            continue
        counting.add(folder, batch_size=dice.randrange(1, 4))
        contents |= {images.content_hash(path) for path in files}
        there = {path: row for path, row in rows_by_uri(counting).items() if Path(path).exists()}
        assert set(there) == {str(path) for path in files}
        for uri, row in there.items():
            assert row["content_hash"] == images.content_hash(Path(uri))
        ids = counting.to_table(["id"]).column("id").to_pylist()
        assert len(set(ids)) == len(ids)
    assert embedded(counting) == len(contents)
    gone = [row["id"] for row in counting.to_table().to_pylist() if not Path(row["uri"]).exists()]
    if gone:
        counting.remove(gone)
    assert_consistent(counting)


def test_pictures_in_memory_are_known_again(counting: EmbedStore) -> None:
    """Arrays and Pillow images of the same pixels are one picture, tomorrow too."""
    pixels = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert counting.add([pixels, Image.fromarray(pixels)]).embedded == 1
    assert counting.add(Image.fromarray(pixels)).unchanged == 1
    assert len(counting) == 2


def test_a_copy_whose_original_goes_meanwhile_is_one_row(
    store: EmbedStore, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another add takes the copy in as new; the original goes, and this add takes it for moved: one row has the uri."""
    original = pictures / "dog" / "01.png"
    copy = original.with_name("copy.png")
    other = EmbedStore.open(store.path)

    class Meanwhile(Source):
        def __iter__(self) -> Iterator[Record]:
            shutil.copy(original, copy)
            assert other.add(copy).copied == 1
            original.unlink()
            yield from open_source(copy)

    def opened(source: Any, **options: Any) -> Source:
        return source if isinstance(source, Source) else open_source(source, **options)

    monkeypatch.setattr(adding, "open_source", opened)
    assert store.add(Meanwhile()).moved == 1
    uris = store.to_table(["uri"]).column("uri").to_pylist()
    assert (len(uris), len(set(uris)), str(copy) in uris) == (12, 12, True)


def test_any_names_of_columns_are_stored(counting: EmbedStore, pictures: Path) -> None:
    """Those of the vectors' own leaves, and what a NUL hides; of pictures that are paid for, and of vectors."""
    files = sorted(map(str, pictures.rglob("*.png")))
    names = ["embedding.list.element", "embedding", "a\0b", "a", "score", "id"]
    values = {name: [f"{name}-{number}" for number in range(12)] for name in names}
    report = counting.add(pa.table({"image": files, **values}), progress=False)
    assert (report.embedded, report.failures) == (12, [])
    stored = counting.to_table(["source_embedding.list.element", "source_embedding", "a_b", "a", "source_score"])
    for column, name in zip(stored.columns, names, strict=False):
        assert sorted(column.to_pylist()) == sorted(values[name])
    assert counting.verify(deep=True).ok
    own = EmbedStore.create(counting.path.with_name("own.store"), space="own", dim=3)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.eye(3, dtype=np.float32).reshape(-1)), 3)
    own.add(pa.table({"v": vectors, **{name: some[:3] for name, some in values.items()}}), embedding_column="v")
    assert own.to_table(["a_b"]).column(0).to_pylist() == values["a\0b"][:3]
    assert own.verify(deep=True).ok


def test_names_that_are_one_are_told_before_anything_is_paid(counting: EmbedStore, pictures: Path) -> None:
    """Up to case and signs that no name can have."""
    files = sorted(map(str, pictures.rglob("*.png")))
    with pytest.raises(InputError, match=r"'a\\x00b' and 'A_b'"):
        counting.add(pa.table({"image": files, "a\0b": files, "A_b": files}), progress=False)
    assert embedded(counting) == 0
    assert counting.folder.ledger.waiting() == {}


@pytest.mark.parametrize("failing", [True, False])
def test_a_list_of_failures_that_cannot_be_written_costs_a_warning(
    counting: EmbedStore, pictures: Path, caplog: pytest.LogCaptureFixture, failing: bool
) -> None:
    """A folder stands in its place: all rows are stored, nothing waits in the ledger, and one line says so."""
    if failing:
        (pictures / "broken.png").write_bytes(b"no picture")
    (counting.path / FAILURES / "in").mkdir(parents=True)
    report = counting.add(pictures, progress=False)
    assert (report.embedded, len(report.failures), len(counting)) == (12, failing, 12)
    assert counting.folder.ledger.waiting() == {}
    assert [FAILURES in record.message for record in caplog.records] == [True]


# --- what the report says -------------------------------------------------------------------------------------


def test_every_record_meets_one_fate(counting: EmbedStore, pictures: Path, tmp_path: Path) -> None:
    """`found` is the sum of the fates: new, copied, replaced, moved, updated, unchanged, broken, listed in vain."""
    counting.add(pictures)
    (pictures / "cat" / "00.png").rename(pictures / "moved.png")
    shutil.copy(pictures / "dog" / "01.png", pictures / "copy.png")
    save_picture(pictures / "cat" / "03.png", 300)
    shutil.copy(pictures / "dog" / "02.png", pictures / "cat" / "06.png")
    save_picture(pictures / "new.png", 301)
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    (pictures / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (pictures / "metadata.csv").write_text("file_name,note\ndog/04.png,nice\nno.png,lost\n")
    report = counting.add(pictures)
    fates = {name: getattr(report, name) for name in ("embedded", "copied", "moved", "updated", "unchanged")}
    assert fates == {"embedded": 2, "copied": 2, "moved": 1, "updated": 1, "unchanged": 8}
    assert (report.replaced, len(report.failures), report.found) == (2, 3, 17)
    assert report.accounted == report.found
    assert str(report).startswith(
        "17 found: 2 embedded, 2 copied from the same picture, 1 with new metadata, 1 moved, 8 unchanged, 3 failed; "
        "2 of them another picture under a known name\n"
    )
    plan = counting.plan_add(pictures)
    assert (plan.accounted, plan.found) == (17, 17)


def test_an_add_that_ends_early_says_what_is_left(counting: EmbedStore, pictures: Path) -> None:
    """Of what was read, so that the sum is right."""
    embedder = counting.embedder
    assert isinstance(embedder, Counting)
    batch = embedder.embed_prepared

    def spent(prepared: Sequence[Any]) -> Any:
        if embedder.batches:
            raise BudgetSpentError("the budget of 1 requests is spent")
        return batch(prepared)

    embedder.embed_prepared = spent  # type: ignore[method-assign]
    report = counting.add(pictures, batch_size=4, workers=1)
    assert (report.embedded, report.stopped is not None) == (4, True)
    assert report.left > 0
    assert report.accounted == report.found
    assert f"4 embedded, {report.left} left for the next run" in str(report)


def test_what_is_kept_otherwise_is_said(counting: EmbedStore, pictures: Path) -> None:
    """Columns that get another name, and those that are left out, with the reason."""
    table = pa.table(
        {"image": [str(pictures / "cat" / "00.png")], "score": [0.5], "a b": [1], "raw": [b"x"], "tags": [["x", "y"]]}
    )
    report = counting.add(table, image_column="image")
    assert report.renamed == {"score": "source_score", "a b": "a_b"}
    assert report.left_out == {"raw": "bytes"}
    assert "columns under another name: 'score' is 'source_score', 'a b' is 'a_b'" in str(report)
    assert "columns left out: 'raw' (bytes)" in str(report)
    [row] = counting.to_table().to_pylist()
    assert (row["tags"], row["source_score"]) == ('["x", "y"]', 0.5)
    assert counting.mask("tags like '%\"y\"%'").tolist() == [True]  # type: ignore[union-attr]


def test_files_that_are_gone_are_said_and_pruned(counting: EmbedStore, pictures: Path, tmp_path: Path) -> None:
    """Only those of the folders of the source: not other folders', archives', URLs' or what is in memory."""
    other = save_picture(tmp_path / "other" / "a.png", 50)
    with zipfile.ZipFile(pictures / "z.zip", "w") as archive:
        archive.write(save_picture(tmp_path / "b.png", 51), "b.png")
    counting.add([pictures, other, str(pictures / "z.zip"), np.zeros((4, 4), np.uint8)])
    (pictures / "z.zip").unlink()
    other.unlink()
    (pictures / "cat" / "00.png").unlink()
    (pictures / "dog" / "01.png").unlink()
    report = counting.add(pictures)
    assert (report.missing, report.pruned, len(counting)) == (2, 0, 15)
    assert "2 files of earlier adds are not there any more" in str(report)
    gone = {row["uri"] for row in counting.to_table().to_pylist() if row["id"] in counting.missing()}
    assert gone == {str(pictures / "cat" / "00.png"), str(pictures / "dog" / "01.png"), str(other)}
    report = counting.add(pictures, prune=True)
    assert (report.missing, report.pruned, report.images, len(counting)) == (2, 2, 13, 13)
    assert "2 removed, as their files are not there any more" in str(report)
    assert counting.add(pictures).missing == 0
    with pytest.raises(InputError, match="the source names none"):
        counting.add(np.zeros((4, 4), np.uint8), prune=True)


def test_a_folder_that_cannot_be_looked_into_is_not_gone(
    counting: EmbedStore, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system does not say that a file is not there, its row stays."""
    counting.add(pictures)
    (pictures / "cat" / "00.png").unlink()

    def refused(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "lstat", refused)
    assert counting.missing() == []


def test_requests_of_a_report_are_those_that_were_sent(server: NomicServer, tmp_path: Path) -> None:
    """Those that failed too, and none that a spent budget forbade: it is what the service may charge for."""
    for seed in range(6):
        save_picture(tmp_path / "p" / f"{seed}.png", seed)
    server.faults.script(["503"])
    store = EmbedStore.create(tmp_path / "s.store", embedder=NomicAPIEmbedder(max_requests=3, batch_size=2, workers=1))
    report = store.add(tmp_path / "p")
    assert report.stopped
    assert (report.requests, server.requests) == (3, 3)
