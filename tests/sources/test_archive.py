"""Archives become records without being unpacked."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from small_pictures import png

from embedstore.errors import ImageError, SourceError
from embedstore.sources import open_source


def test_archives(tmp_path: Path) -> None:
    """Zip, tar and compressed tar give the same pictures in their own order, with folders as labels."""
    members = {"cat/2.png": png(2), "dog/1.png": png(1), "readme.txt": b"x", "dog/._1.png": b"x"}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")):
        with tarfile.open(tmp_path / name, mode) as archive:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    for name in ("a.zip", "a.tar", "a.tar.gz", "a.tar.xz"):
        source = open_source(tmp_path / name, label_from_folder=True)
        records = list(source)
        assert [record.key for record in records] == [
            f"tar:{tmp_path}/{name}!cat/2.png",
            f"tar:{tmp_path}/{name}!dog/1.png",
        ]
        assert [record.load() for record in records] == [png(2), png(1)]
        assert [record.metadata["label"] for record in records] == ["cat", "dog"]
        assert source.count() in (2, None)
        assert source.skipped == {".txt": 1, "hidden": 1}


def test_damaged_archives(tmp_path: Path) -> None:
    """A file that is no archive, and an archive without pictures, are errors; a damaged member is one failure."""
    for name in ("a.zip", "a.tar", "a.tar.gz"):
        (tmp_path / name).write_bytes(b"no archive at all" * 100)
        with pytest.raises(SourceError, match="no readable archive"):
            open_source(tmp_path / name)
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png(1))
    data = path.read_bytes()
    path.write_bytes(data.replace(png(1)[20:30], b"0123456789"))
    (record,) = open_source(path)
    with pytest.raises(ImageError, match="cannot be unpacked"):
        record.load()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(SourceError, match="holds no pictures"):
        open_source(path)


def test_a_member_whose_name_is_damaged_is_a_failure_of_its_own(tmp_path: Path) -> None:
    """The local name of a member, marked as UTF-8, is none; the other members are read."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(("\u00e9.png", "b.png")):
            archive.writestr(name, png(number))
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xdb\xdb", 1))
    first, second = list(open_source(path))
    assert second.load() == png(1)
    with pytest.raises(ImageError, match="cannot be unpacked from the archive"):
        first.load()
