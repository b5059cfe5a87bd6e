"""Verifying names what is damaged, what is gone and what has changed."""

from __future__ import annotations

from pathlib import Path

from conftest import save_picture

from embedstore.store import EmbedStore


def test_deleted_pictures_with_signs_in_their_paths_are_named(tmp_path: Path) -> None:
    """A ! or # in a path makes no archive or table of its folder: the picture is missing when it is deleted."""
    names = ("hey!/a.png", "no. #1/b.png", "c!.png", "stays!/d#.png")
    files = [save_picture(tmp_path / "p" / name, number) for number, name in enumerate(names)]
    store = EmbedStore.create(tmp_path / "s.store", model="objects")
    store.add(tmp_path / "p")
    assert store.verify().missing_files == []
    for file in files[:3]:
        file.unlink()
    assert store.verify().missing_files == [str(file) for file in sorted(files[:3])]
