"""Folders, globs and single files -> records, with the metadata that lies beside the pictures.

`expand` turns a path or a glob, as a person types it, into paths that exist. A `MetadataFile` has the layout of
Hugging Face's *imagefolder*: a column ``file_name``, relative to the metadata file; every other column belongs to that
file. Folders named train, validation, val and test at the top of a folder are its splits. Opening a picture is left to
`images`, parsing the metadata to `table_files`; which texts are paths is decided in the package's `__init__`.
"""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embedstore.errors import SourceError, SourceNotFoundError
from embedstore.files import open_regular
from embedstore.images import SUFFIXES, file_content
from embedstore.sources.metadata_columns import is_scalar, scalars_of
from embedstore.sources.record import Record, Source
from embedstore.sources.table_files import read_small
from embedstore.wording import counted

_METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_HEIF = (".heic", ".heif")
_START = 16
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*")
_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
HIDDEN, UNNAMED, OTHER = "hidden", "without an ending", "other"
"""What is passed over, besides files of other endings: pictures with a dot before their name, or without an ending."""
_HINTS = dict.fromkeys(_HEIF, " (pip install pillow-heif)") | {UNNAMED: " (name them, and they are taken)"}
_MOST_KINDS = 5
_LONGEST_ENDING = 12


class FileSource(Source):
    """Picture files below folders, or named one by one; sorted by name, each file once.

    Hidden files and folders (names that start with a dot) and files of other endings are passed over and counted,
    unless named directly. Links are followed; a folder that is reached twice, as by a loop of links, is listed once.
    `label_from_folder` adds a column ``label``, the name of the folder that a file lies in, unless its metadata gives
    a label. What lies below folders of splits gets a column ``split`` in the same way, where there is one ``train``
    or there are two; `split` takes only one of them. Raises SourceError where there is no picture in any of the paths,
    which exist, or no such split.
    """

    def __init__(self, paths: Sequence[str], *, label_from_folder: bool = False, split: str | None = None) -> None:
        super().__init__()
        self._paths = [os.path.abspath(path) for path in paths]
        self._label_from_folder = label_from_folder
        self._files: dict[str, Mapping[str, Any]] = {}
        self._splits: dict[str, str] = {}
        self._split: str | None = None
        self._seen_folders: set[tuple[int, int]] = set()
        self._metadata_files: dict[str, MetadataFile | None] = {}
        for path in self._paths:
            if os.path.isdir(path):
                self.folders.append(path)
                self._splits |= _split_folders(path)
                self._walk(path, None)
            else:
                self._add(path, self._metadata_beside(os.path.dirname(path)))
        if not self._files and not self._failures:
            raise SourceError(self._nothing())
        if split is not None:
            self._choose(split)
        where = self._paths[0] + (f" and {len(self._paths) - 1:,} more" if len(self._paths) > 1 else "")
        self._count = len(self._files)
        self._description = f"{counted(self._count, 'picture file')} in {where}"

    def __iter__(self) -> Iterator[Record]:
        for path, metadata in self._files.items():
            if self._label_from_folder and metadata.get("label") is None:
                metadata = {**metadata, "label": os.path.basename(os.path.dirname(path))}
            yield Record(f"file:{path}", path, functools.partial(file_content, path), metadata)

    def _choose(self, split: str) -> None:
        """Keep the files of one split."""
        found = {metadata.get("split") for metadata in self._files.values()} - {None}
        if split not in found:
            has = (
                f"found {', '.join(sorted(map(str, found)))}"
                if found
                else "it has none: folders such as train and test"
            )
            raise SourceError(f"there is no split {split!r} in {self._paths[0]}; {has}")
        self._files = {path: metadata for path, metadata in self._files.items() if metadata.get("split") == split}

    def _add(self, path: str, beside: MetadataFile | None) -> None:
        """Take a file, with what the metadata say of it."""
        try:
            path.encode()
        except UnicodeEncodeError:
            self._fail(path, "the name is not valid UTF-8, so it cannot be stored: rename it")
            return
        row = beside.take(path) if beside is not None else None
        if path not in self._files or row is not None:
            split = {} if self._split is None else {"split": self._split}
            self._files[path] = split | (row or {})

    def _walk(self, folder: str, beside: MetadataFile | None) -> None:
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
        own, outer = self._metadata_beside(folder), self._split
        self._split = self._splits.get(folder, outer)
        for entry in entries:
            if not entry.name.startswith("."):
                self._visit(entry, own or beside)
            elif (kind := kind_of(entry.name)) == HIDDEN:
                self.skipped[kind] += 1
        if own is not None:
            self._take_unused(own)
        self._split = outer

    def _visit(self, entry: os.DirEntry[str], beside: MetadataFile | None) -> None:
        """Take a picture file, go down into a folder, count anything else."""
        ending = os.path.splitext(entry.name)[1].lower()
        is_wanted = ending in SUFFIXES or (beside is not None and entry.path in beside.rows)
        try:
            if entry.is_dir():
                self._walk(entry.path, beside)
            elif is_wanted and entry.is_file():
                self._add(entry.path, beside)
            elif ending not in SUFFIXES:
                self._skip(entry)
            elif entry.is_symlink():
                self._fail(entry.path, f"a link to {os.readlink(entry.path)!r}, which is not there")
            else:
                self._fail(entry.path, "not a regular file")
        except OSError as error:  # a link that leads round in a circle, for one
            self._fail(entry.path, f"it cannot be opened: {error.strerror or error}")

    def _skip(self, entry: os.DirEntry[str]) -> None:
        """Count a file of another kind: a picture without an ending as such, metadata that are used not at all."""
        if entry.name in _METADATA_NAMES and self._metadata_files.get(os.path.dirname(entry.path)) is not None:
            return
        kind = kind_of(entry.name)
        self.skipped[UNNAMED if kind == OTHER and _looks_like_picture(entry) else kind] += 1

    def _metadata_beside(self, folder: str) -> MetadataFile | None:
        """Read the metadata file of a folder once; the first that can be used, if there is one."""
        if folder not in self._metadata_files:
            self._metadata_files[folder] = None
            for path in filter(os.path.lexists, (os.path.join(folder, name) for name in _METADATA_NAMES)):
                try:
                    self._metadata_files[folder] = MetadataFile(path)
                    break
                except (SourceError, OSError) as error:
                    why = (isinstance(error, OSError) and error.strerror) or error
                    self._fail(path, f"the metadata file is not used: {why}")
        return self._metadata_files[folder]

    def _take_unused(self, beside: MetadataFile) -> None:
        """Take the files that only the metadata know of; report rows whose file is not there."""
        for path in [path for path in beside.rows if path not in beside.used]:
            if os.path.isfile(path):
                self._add(path, beside)
            else:
                what = "it is not a regular file" if os.path.exists(path) else "there is no such file"
                self._fail(path, f"named in {beside.path}, but {what}")
        for name, reason in beside.refused:
            self._fail(name, f"named in {beside.path}, but {reason}")

    def _nothing(self) -> str:
        """Say what is there instead of pictures, and what to do."""
        where = self._paths[0] if len(self._paths) == 1 else f"{len(self._paths)} folders"
        if not self.skipped:
            return f"{where} is empty; expected picture files ({', '.join(SUFFIXES)})"
        others = kinds_in_words(self.skipped)
        tables = any(ending in (".parquet", ".arrow", ".jsonl") for ending in self.skipped)
        hint = f"; to read tables, name them: '{where}/*.parquet'" if tables else ""
        return f"{where} holds no pictures: found {others}; expected {', '.join(SUFFIXES)}{hint}"


def kind_of(name: str) -> str:
    """Return what a file that is passed over is counted as, by its name: `HIDDEN` pictures, its ending, or `OTHER`."""
    ending = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        return HIDDEN if ending in (*SUFFIXES, *_HEIF) else OTHER
    return ending if ending[1:].isalnum() and len(ending) <= _LONGEST_ENDING else OTHER


def kinds_in_words(skipped: Mapping[str, int]) -> str:
    """Return what was passed over, the most frequent kinds first, with a way forward where there is one."""
    common = sorted(skipped.items(), key=lambda item: (item[0] not in _HEIF, -item[1], item[0]))
    said = [
        counted(count, "other file") if kind == OTHER else f"{count:,} {kind}{_HINTS.get(kind, '')}"
        for kind, count in common[:_MOST_KINDS]
    ]
    rest = sum(count for _, count in common[_MOST_KINDS:])
    return ", ".join([*said, *([f"{rest:,} of other kinds"] if rest else [])])


def _split_folders(folder: str) -> dict[str, str]:
    """Return the folders of splits at the top of a folder, and which split each is."""
    found = {os.path.join(folder, name): split for name, split in _SPLITS.items()}
    found = {path: split for path, split in found.items() if os.path.isdir(path)}
    return found if "train" in found.values() or len(found) > 1 else {}


def _looks_like_picture(entry: os.DirEntry[str]) -> bool:
    """Return whether a file begins as pictures do."""
    try:
        if not entry.is_file():
            return False
        with open_regular(entry.path) as file:
            start = file.read(_START)
    except OSError:
        return False
    kind, brand = start[:4], start[8:12]
    is_bmp = kind[:2] == b"BM" and start[6:10] == bytes(4)
    is_webp = kind == b"RIFF" and brand == b"WEBP"
    is_heif = start[4:8] == b"ftyp" and brand in _BRANDS
    return start.startswith(_SIGNATURES) or is_bmp or is_webp or is_heif


class MetadataFile:
    """One metadata file: `rows` by absolute path of the picture, and those that were asked for.

    File names that cannot be used are in `refused`, with the reason. Raises SourceError where it cannot be parsed, or
    has no column ``file_name``.
    """

    def __init__(self, path: str) -> None:
        whole = read_small(path)
        table = scalars_of(whole)
        if "file_name" in table.column_names and not is_scalar(whole.schema.field("file_name").type):
            table = table.drop_columns(["file_name"])
        if "file_name" not in table.column_names:
            raise SourceError(f"it needs a column 'file_name'; found {', '.join(table.column_names) or 'no columns'}")
        self.path = path
        self.rows: dict[str, int] = {}
        self.used: set[str] = set()
        self.refused: list[tuple[str, str]] = []
        self._columns: dict[str, list[Any]] = table.to_pydict()
        folder = os.path.dirname(path)
        for row, name in enumerate(self._columns.pop("file_name")):
            if not isinstance(name, str) or not name:
                self.refused.append((f"{path}#{row}", f"row {row} names no file"))
                continue
            picture = os.path.normpath(os.path.join(folder, name))
            if not picture.startswith(os.path.join(folder, "")):
                self.refused.append((picture, "it lies outside the folder of that file"))
            elif picture in self.rows:
                self.refused.append((picture, f"row {row} names it a second time; the first row is used"))
            else:
                self.rows[picture] = row

    def take(self, path: str) -> dict[str, Any] | None:
        """Return what is known of a file, and note that it was asked for; None for a file that is not named."""
        row = self.rows.get(path)
        if row is None:
            return None
        self.used.add(path)
        return {name: values[row] for name, values in self._columns.items()}


def expand(path: str) -> list[str]:
    """Return the path if it exists, else what it matches as a glob (``**`` crosses folders), sorted.

    Raises SourceNotFoundError where it neither exists nor matches anything.
    """
    path = os.path.expanduser(path)
    if os.path.lexists(path):
        if not os.path.exists(path):
            raise SourceNotFoundError(f"{path} is a link to {os.readlink(path)!r}, which is not there")
        return [path]
    if not glob.has_magic(path):
        raise SourceNotFoundError(
            f"there is no {os.path.abspath(path)}; expected a folder, a file or a pattern such as 'photos/**/*.jpg'"
        )
    matching = sorted(glob.glob(path, recursive=True))
    if not matching:
        raise SourceNotFoundError(f"no file matches {path!r} in {os.getcwd()}")
    return matching
