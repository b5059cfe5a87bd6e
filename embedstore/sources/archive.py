"""Tar and zip archives -> one record for each picture file inside, in the order of the archive.

Nothing is unpacked to disk, and nothing is held but what is being read. Members of a zip and of a plain tar are read
when loaded; a compressed tar can only be read from its start, so its members are best loaded while they are listed.
Members that are no regular files, links above all, are passed over; names are only names. How a compressed tar is
unpacked is `unpacking`'s business, opening a picture that of `images`.
"""

from __future__ import annotations

import contextlib
import functools
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeAlias

from embedstore.errors import ImageError, SourceError
from embedstore.files import open_regular
from embedstore.images import SUFFIXES, PictureSource, turns
from embedstore.sources.picture_files import kind_of
from embedstore.sources.record import Passing, Record, Source, gathered, printable
from embedstore.sources.unpacking import TarBytes
from embedstore.wording import counted

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, ValueError, RecursionError, NotImplementedError),
)
"""What the readers of archives raise on damaged ones."""

_Member: TypeAlias = tuple[str, Callable[[], PictureSource], int | None]
"""A name, how to load the bytes, and how many these are where they are at hand only now."""


class ArchiveSource(Source):
    """The picture files of an archive; raises SourceError where it is none, or where there is no picture in it.

    How many there are is not known of a compressed tar, which would have to be unpacked for it. An archive that is cut
    short or damaged gives the members before that, and a failure.
    """

    def __init__(self, path: str, *, label_from_folder: bool = False) -> None:
        self._path = os.path.abspath(path)
        self._label_from_folder = label_from_folder
        lower = self._path.lower()
        self._plain = lower.endswith((".zip", ".tar"))
        number = 0
        try:
            self._zip = _open_zip(self._path) if lower.endswith(".zip") else None
            for _ in self._members(Counter()):
                number += 1
                if not self._plain:
                    break
        except _DAMAGED as error:
            if not number:
                why = error.strerror if isinstance(error, OSError) and error.strerror else error
                raise SourceError(f"{self._path} is no readable archive: {why}") from error
        if not number:
            raise SourceError(f"{self._path} holds no pictures; expected files of {', '.join(SUFFIXES)}")
        files = counted(number, "picture file") if self._plain else "picture files"
        super().__init__(f"{files} in {self._path}", number if self._plain else None)

    def __iter__(self) -> Iterator[Record]:
        number = 0
        self.skipped.clear()
        try:
            for name, load, passing in self._members(self.skipped):
                number += 1
                folder = os.path.basename(os.path.dirname(name))
                metadata = {"label": folder or None} if self._label_from_folder else {}
                place = f"{self._path}!{printable(name)}"
                yield Record(f"tar:{place}", place, load, metadata, passing)
        except _DAMAGED as error:
            self._fail(self._path, f"the archive cannot be read on after {counted(number, 'picture')}: {error}")

    def _members(self, skipped: Counter[str]) -> Iterator[_Member]:
        """List the picture files; count the others by kind."""
        if self._zip is None:
            yield from _of_tar(self._path, self._plain, skipped)
            return
        for entry in self._zip.infolist():
            if entry.is_dir() or stat.S_ISLNK(entry.external_attr >> 16):
                continue
            if _is_picture(entry.filename, skipped):
                yield entry.filename, functools.partial(_from_zip, self._zip, entry), None


def _is_picture(name: str, skipped: Counter[str]) -> bool:
    """Return whether a file is taken for a picture, else count it; hidden files, as macOS adds them, are not."""
    is_picture = name.lower().endswith(SUFFIXES) and not os.path.basename(name).startswith(".")
    if not is_picture:
        skipped[kind_of(os.path.basename(name))] += 1
    return is_picture


def _open_zip(path: str) -> zipfile.ZipFile:
    """Open a zip file; it stays open while records refer to it, and may be read by several threads at once.

    Raises BadZipFile where its members take more bytes than it has, as they lie over each other.
    """
    file = open_regular(path)
    try:
        archive = zipfile.ZipFile(file)
        packed, size = sum(entry.compress_size for entry in archive.infolist()), os.fstat(file.fileno()).st_size
        if packed > size:
            raise zipfile.BadZipFile(f"its members claim {packed:,} bytes, and it has {size:,}: they overlap")
        return archive
    except BaseException:
        file.close()
        raise


def _from_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Read one member of a zip file."""
    turns.refuse_large(member.file_size)
    try:
        with archive.open(member) as file:
            data = gathered(file, member.file_size)
            file.read(1)  # where nothing follows the checksum is compared
            return data
    except ImageError:
        raise
    except (*_DAMAGED, RuntimeError) as error:  # a password is wanted: RuntimeError
        raise ImageError(f"it cannot be unpacked from the archive: {error}") from error


def _of_tar(path: str, plain: bool, skipped: Counter[str]) -> Iterator[_Member]:
    """List the picture files of a tar; count the others by kind."""
    with contextlib.closing(TarBytes(path)) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as archive:
        number = 0
        while (member := _next(archive)) is not None:
            number += 1
            if not member.isfile() or not _is_picture(member.name, skipped):
                continue
            if member.size > turns.LARGEST_FILE:
                yield member.name, functools.partial(_refuse, member.size), None
            elif plain and not member.issparse():
                yield member.name, functools.partial(_slice, path, member.offset_data, member.size), None
            else:
                at_hand = functools.partial(_extracted, archive, member)
                load = Passing(at_hand, functools.partial(_from_start, path, number))
                yield member.name, load, member.size
                load.gone()
        if not unpacked.is_ended:
            raise tarfile.ReadError("it ends in the middle of a header")


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Go on to the next member; the ones before are forgotten, however many there are."""
    member = archive.next()
    vars(archive)["members"].clear()
    return member


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Read the member that a tar is at."""
    try:
        file = archive.extractfile(member)
        assert file is not None
        return gathered(file, member.size)
    except _DAMAGED as error:
        raise ImageError(f"it cannot be unpacked from the archive: {error}") from error


def _from_start(path: str, number: int) -> bytes:
    """Read the member of this number, from 1, of a tar that is past it."""
    try:
        with contextlib.closing(TarBytes(path)) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as archive:
            for _ in range(number):
                member = _next(archive)
            if member is None:
                raise ImageError("it is not in the archive any more")
            return _extracted(archive, member)
    except _DAMAGED as error:
        raise ImageError(f"it cannot be unpacked from the archive: {error}") from error


def _slice(path: str, offset: int, size: int) -> bytes:
    """Read a part of a file."""
    with open_regular(path) as file:
        file.seek(offset)
        return gathered(file, size)


def _refuse(size: int) -> bytes:
    """Refuse a member that no picture needs."""
    turns.refuse_large(size)
    raise AssertionError("unreachable: it is too large")
