"""Folders, globs and single files -> records, with the metadata that lies beside them (`beside`).

Opening a picture is `images`' work; which strings are paths is decided in the package's `__init__`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedstore.errors import SourceError
from embedstore.images import SUFFIXES
from embedstore.sources.beside import METADATA_NAMES, Beside, read_beside
from embedstore.sources.record import Record, Source


class FileSource(Source):
    """Picture files below folders, or named one by one; sorted by name, each file once.

    Hidden files and folders (names that start with a dot) and files of other endings are passed over, unless
    named directly. Links are followed; a folder that is reached twice, as by a loop of links, is listed once.

    Parameters
    ----------
    paths : sequence of str
        Folders and files that exist.
    label_from_folder : bool
        Add a column ``label``, the name of the folder that a file lies in, unless its metadata gives a label.

    Raises
    ------
    SourceError
        There is no picture in any of the paths.
    """

    def __init__(self, paths: Sequence[str], *, label_from_folder: bool = False) -> None:
        super().__init__()
        self._paths = [os.path.abspath(path) for path in paths]
        self._label_from_folder = label_from_folder
        self._files: dict[str, Mapping[str, Any]] = {}
        self._other_endings: dict[str, int] = {}
        self._seen_folders: set[tuple[int, int]] = set()
        self._beside: dict[str, Beside | None] = {}
        for path in self._paths:
            if os.path.isdir(path):
                self._walk(path, None)
            else:
                self._add(path, self._beside_of(os.path.dirname(path)))
        if not self._files and not self._failures:
            raise SourceError(self._nothing())

    def describe(self) -> str:
        """Return the number of files and where they are."""
        where = self._paths[0] + (f" and {len(self._paths) - 1:,} more" if len(self._paths) > 1 else "")
        others = sum(self._other_endings.values())
        left_out = f"; files of other kinds left out: {others:,}" if others else ""
        return f"{len(self._files):,} picture files in {where}{left_out}"

    def count(self) -> int:
        """Return the number of files."""
        return len(self._files)

    def __iter__(self) -> Iterator[Record]:
        for path, metadata in self._files.items():
            if self._label_from_folder and metadata.get("label") is None:
                metadata = {**metadata, "label": os.path.basename(os.path.dirname(path))}
            yield Record(f"file:{path}", path, functools.partial(Path(path).read_bytes), metadata)

    def _add(self, path: str, beside: Beside | None) -> None:
        """Take a file, with what the metadata say of it."""
        try:
            path.encode()
        except UnicodeEncodeError:
            self._fail(path, "the name is not valid UTF-8, so it cannot be stored: rename it")
            return
        row = beside.take(path) if beside is not None else None
        if path not in self._files or row is not None:
            self._files[path] = row or {}

    def _walk(self, folder: str, beside: Beside | None) -> None:
        """List a folder and what lies below it."""
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in self._seen_folders:
                return
            self._seen_folders.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self._fail(folder, f"the folder cannot be listed: {error.strerror or error}")
            return
        own = self._beside_of(folder)
        for entry in entries:
            if not entry.name.startswith("."):
                self._visit(entry, own or beside)
        if own is not None:
            self._unused_rows(own)

    def _visit(self, entry: os.DirEntry[str], beside: Beside | None) -> None:
        """Take a picture file, go down into a folder, count anything else."""
        ending = os.path.splitext(entry.name)[1].lower()
        try:
            if entry.is_dir():
                self._walk(entry.path, beside)
            elif beside is not None and entry.path in beside and entry.is_file():
                self._add(entry.path, beside)
            elif ending not in SUFFIXES:
                self._other_endings[ending] = self._other_endings.get(ending, 0) + 1
            elif entry.is_file():
                self._add(entry.path, beside)
            else:
                self._fail(entry.path, _why_no_file(entry.path))
        except OSError as error:  # a link that leads round in a circle, for one
            self._fail(entry.path, f"it cannot be opened: {error.strerror or error}")

    def _beside_of(self, folder: str) -> Beside | None:
        """Read the metadata file of a folder once, if there is one that can be used."""
        if folder not in self._beside:
            self._beside[folder] = self._read_beside(folder)
        return self._beside[folder]

    def _read_beside(self, folder: str) -> Beside | None:
        """Look for the metadata file of a folder."""
        for name in METADATA_NAMES:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                try:
                    return read_beside(path)
                except (SourceError, OSError) as error:
                    self._fail(path, f"the metadata file is not used: {error}")
        return None

    def _unused_rows(self, beside: Beside) -> None:
        """Take the files that only the metadata know of; report rows whose file is not there."""
        for path in beside.unused():
            if os.path.isfile(path):
                self._add(path, beside)
            else:
                self._fail(path, f"named in {beside.path}, but there is no such file")
        for name, reason in beside.refused:
            self._fail(name, f"named in {beside.path}, but {reason}")

    def _nothing(self) -> str:
        """Say what was found instead of pictures, and what to do."""
        where = self._paths[0] if len(self._paths) == 1 else f"{len(self._paths)} folders"
        if not self._other_endings:
            return f"{where} is empty; expected picture files ({', '.join(SUFFIXES)})"
        common = sorted(self._other_endings, key=lambda ending: -self._other_endings[ending])[:5]
        found = ", ".join(
            f"{self._other_endings[ending]:,} {ending or 'without ending'}" for ending in common
        )
        tables = any(ending in (".parquet", ".arrow", ".jsonl") for ending in self._other_endings)
        hint = f"; to read tables, name them: '{where}/*.parquet'" if tables else ""
        return f"{where} holds no pictures: found {found}; expected {', '.join(SUFFIXES)}{hint}"


def _why_no_file(path: str) -> str:
    """Say why something with a picture's name is not a file."""
    if os.path.islink(path):
        return f"a link to {os.readlink(path)!r}, which is not there"
    return "not a regular file"
