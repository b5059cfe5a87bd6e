"""Tar and zip archives -> one record for each picture file inside, in the order of the archive.

Nothing is unpacked to disk. Members of a zip and of a plain tar are read when loaded; a compressed tar can only be
read from its start, so its members are read while they are listed. Opening a picture is left to `images`.
"""

from __future__ import annotations

import functools
import itertools
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator

from embedstore.errors import ImageError, SourceError
from embedstore.images import SUFFIXES
from embedstore.sources.record import Record, Source, printable
from embedstore.sources.web import MAX_BYTES

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class ArchiveSource(Source):
    """The picture files of an archive; raises SourceError where it is none, or where there is no picture in it.

    How many there are is not known of a compressed tar, which would have to be unpacked for it.
    """

    def __init__(self, path: str, *, label_from_folder: bool = False) -> None:
        self._path = os.path.abspath(path)
        self._label_from_folder = label_from_folder
        lower = self._path.lower()
        self._plain = lower.endswith((".zip", ".tar"))
        try:
            # It stays open while records refer to it, and may be read by several threads at once.
            self._zip = zipfile.ZipFile(self._path) if lower.endswith(".zip") else None
            number = sum(1 for _ in itertools.islice(self._members(), None if self._plain else 1))
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise SourceError(f"{self._path} is no readable archive: {error}") from error
        if not number:
            raise SourceError(f"{self._path} holds no pictures; expected files of {', '.join(SUFFIXES)}")
        how_many = f"{number:,} " if self._plain else ""
        super().__init__(f"{how_many}picture files in {self._path}", number if self._plain else None)

    def __iter__(self) -> Iterator[Record]:
        for name, load in self._members():
            folder = os.path.basename(os.path.dirname(name))
            metadata = {"label": folder or None} if self._label_from_folder else {}
            place = f"{self._path}!{printable(name)}"
            yield Record(f"tar:{place}", place, load, metadata)

    def _members(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """List names of picture files, and how to read them; of a compressed tar with their bytes."""
        if self._zip is not None:
            for entry in self._zip.infolist():
                if not entry.is_dir() and _is_picture(entry.filename):
                    yield entry.filename, functools.partial(_from_zip, self._zip, entry)
            return
        with tarfile.open(self._path, "r:" if self._plain else "r:*") as archive:
            for member in archive:
                if not member.isfile() or not _is_picture(member.name):
                    continue
                if member.size > MAX_BYTES:
                    yield member.name, functools.partial(_too_large, member.size)
                elif self._plain and not member.issparse():
                    yield member.name, functools.partial(_slice, self._path, member.offset_data, member.size)
                elif (file := archive.extractfile(member)) is not None:
                    yield member.name, functools.partial(bytes, file.read())


def _is_picture(name: str) -> bool:
    """Return whether a member is taken for a picture; hidden files, as macOS adds them, are not."""
    return name.lower().endswith(SUFFIXES) and not os.path.basename(name).startswith(".")


def _from_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Read one member of a zip file."""
    if member.file_size > MAX_BYTES:
        return _too_large(member.file_size)
    try:
        return archive.read(member)
    except (RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ImageError(f"it cannot be unpacked from the archive: {error}") from error


def _slice(path: str, offset: int, size: int) -> bytes:
    """Read a part of a file."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def _too_large(size: int) -> bytes:
    """Refuse a member that no picture needs."""
    raise ImageError(f"the file in the archive has {size:,} bytes, more than {MAX_BYTES:,}")
