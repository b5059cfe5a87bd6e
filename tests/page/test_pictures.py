"""A small picture is that of the row, or it is said why there is none; what is kept is bounded."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import save_picture
from PIL import Image

from embedstore.page import pictures as module
from embedstore.page.pictures import SIDE, KeptFiles, SmallPictures
from embedstore.storage.thumbnails import Thumbnails
from embedstore.store import EmbedStore


def size_of(jpeg: bytes | None) -> tuple[int, int]:
    assert jpeg is not None
    picture = Image.open(io.BytesIO(jpeg))
    assert picture.format == "JPEG"
    return picture.size


def place_of(store: EmbedStore, name: str) -> int:
    return next(place for place, uri in enumerate(uris_of(store)) if uri.endswith(name))


def uris_of(store: EmbedStore) -> list[str]:
    return list(store.to_table(["uri"]).column("uri").to_pylist())


def kept_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*.jpg"))


def test_a_file_is_shown_small_and_kept(tmp_path: Path) -> None:
    """No side longer than it should be; the second time from the folder, whatever has become of the original."""
    file = save_picture(tmp_path / "p" / "a.png", 1, (1000, 500))
    store = EmbedStore.create(tmp_path / "s.store", model="objects")
    store.add(tmp_path / "p")
    small = SmallPictures(tmp_path / "small")
    first = small.get(store.rows, 0)
    assert size_of(first.jpeg) == (SIDE, SIDE // 2)
    [kept] = kept_in(tmp_path / "small")
    assert kept.stem == store.to_table(["content_hash"]).column("content_hash")[0].as_py()
    file.unlink()
    assert small.get(store.rows, 0) == first


def test_another_picture_in_its_place_is_not_shown(store: EmbedStore, tmp_path: Path) -> None:
    """The scores are of the one that was embedded."""
    file = uris_of(store)[3]
    save_picture(Path(file), 999)
    small = SmallPictures(tmp_path / "small")
    found = small.get(store.rows, 3)
    assert (found.jpeg, "another picture" in found.why) == (None, True)
    assert kept_in(tmp_path / "small") == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda file: file.unlink(), "not there any more"),
        (lambda file: shutil.rmtree(file.parent), "not there any more"),
        (lambda file: (file.unlink(), file.mkdir()), "not here"),
        (lambda file: file.write_bytes(b"no picture"), "another picture"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "not here"),
    ],
)
def test_why_a_picture_is_missing(store: EmbedStore, tmp_path: Path, change: object, why: str) -> None:
    """In words; a pipe is not waited for."""
    assert callable(change)
    change(Path(uris_of(store)[2]))
    found = SmallPictures(tmp_path / "small").get(store.rows, 2)
    assert found.jpeg is None
    assert why in found.why


def test_pictures_of_an_archive_are_made_in_one_reading(
    store: EmbedStore, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The neighbours come along."""
    with tarfile.open(tmp_path / "p.tar", "w") as archive:
        archive.add(pictures, "p")
    made = EmbedStore.create(tmp_path / "t.store", model="objects")
    made.add(tmp_path / "p.tar")
    small, readings = SmallPictures(tmp_path / "small"), []
    reading = module.pictures_at

    def counted(uris: object, *more: object) -> object:
        readings.append(uris)
        return reading(uris, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "pictures_at", counted)
    for row in range(len(made)):
        assert size_of(small.get(made.rows, row, lambda: range(len(made))).jpeg) == (40, 30)
    assert len(readings) == 1
    assert len(kept_in(tmp_path / "small")) == len(made)
    (tmp_path / "p.tar").unlink()
    shutil.rmtree(tmp_path / "small")
    assert "never a file" in small.get(made.rows, 0).why or "not" in small.get(made.rows, 0).why


def test_what_was_in_memory_is_shown_from_the_store_s_copy(tmp_path: Path) -> None:
    """And not kept again."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))
    store = EmbedStore.create(tmp_path / "s.store", model="objects")
    store.add([picture])
    small = SmallPictures(tmp_path / "small")
    assert size_of(small.get(store.rows, 0).jpeg) == (200, 150)
    assert kept_in(tmp_path / "small") == []
    shutil.rmtree(store.path / "thumbnails")
    assert "keeps no small copy" in small.get(store.rows, 0).why


def test_rows_without_a_hash_are_shown_by_that_of_the_file(tmp_path: Path) -> None:
    """As those of vectors of one's own are: what lies there now is the picture."""
    file = save_picture(tmp_path / "a.png", 1)
    store = EmbedStore.create(tmp_path / "v.store", space="mine", dim=2)
    table = pa.table({"id": ["a"], "uri": [str(file)], "vector": pa.array([[1.0, 0.0]], pa.list_(pa.float32()))})
    store.add(table, embedding_column="vector")
    assert uris_of(store) == [str(file)]
    small = SmallPictures(tmp_path / "small")
    first = small.get(store.rows, 0)
    assert size_of(first.jpeg) == (40, 30)
    save_picture(file, 2)
    assert small.get(store.rows, 0).jpeg != first.jpeg


def test_a_damaged_copy_and_a_bomb_are_missing(store: EmbedStore, tmp_path: Path) -> None:
    """Neither ends in a traceback."""
    digest = store.to_table(["content_hash"]).column("content_hash")[0].as_py()
    Path(uris_of(store)[0]).unlink()
    copies = Thumbnails(store.path / "thumbnails")
    copies.keep(digest, lambda side: b"damaged")
    found = SmallPictures(tmp_path / "small").get(store.rows, 0)
    assert found.jpeg is None


def test_what_is_kept_has_a_bound(tmp_path: Path) -> None:
    """The oldest go; the newest stays; names that are no hashes are none of ours."""
    kept = KeptFiles(tmp_path, 10_000)
    names = [f"{number:064x}" for number in range(30)]
    for number, name in enumerate(names):
        kept.put(name, bytes(1000))
        if (file := tmp_path / name[:2] / f"{name}.jpg").exists():
            os.utime(file, (number, number))
        held = sum(file.stat().st_size for file in kept_in(tmp_path))
        assert held <= 10_000
        assert kept.get(name) is not None
    assert kept.get(names[0]) is None
    assert len(kept_in(tmp_path)) >= 8
    for name in ("../" * 21 + "x", "", "x" * 64, "A" * 64, "/etc/passwd"):
        kept.put(name, b"x")
        assert kept.get(name) is None
    assert all(len(file.stem) == 64 for file in kept_in(tmp_path))


def test_a_folder_that_cannot_be_written_costs_no_picture(
    store: EmbedStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """That nothing is kept is said once."""
    (tmp_path / "file").write_text("in the way")
    small = SmallPictures(tmp_path / "file" / "small")
    for row in range(3):
        assert size_of(small.get(store.rows, row).jpeg) == (40, 30)
    assert caplog.text.count("no small pictures are kept") == 1


def test_the_usual_place_is_the_user_s_cache(
    store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never the store."""
    monkeypatch.setenv("EMBEDSTORE_CACHE_DIR", str(tmp_path / "cache"))
    before = sorted(store.path.rglob("*"))
    assert SmallPictures().get(store.rows, 0).jpeg
    assert len(list((tmp_path / "cache").rglob("*.jpg"))) == 1
    assert sorted(store.path.rglob("*")) == before


@pytest.mark.skipif(os.name == "nt", reason="no pipes in folders there")
def test_what_is_kept_is_the_user_s_alone_and_a_pipe_among_it_is_never_waited_for(tmp_path: Path) -> None:
    """Nobody else may look at the small pictures."""
    kept = KeptFiles(tmp_path / "small", 1 << 20)
    one, other = "a" * 64, "b" * 64
    kept.put(one, b"x")
    assert [path.stat().st_mode & 0o077 for path in (tmp_path / "small", tmp_path / "small" / "aa")] == [0, 0]
    (tmp_path / "small" / "bb").mkdir()
    os.mkfifo(tmp_path / "small" / "bb" / f"{other}.jpg")
    assert (kept.get(one), kept.get(other)) == (b"x", None)
