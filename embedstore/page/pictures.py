"""A row -> a small JPEG of its picture, or why there is none; kept on the disk by content hash, with a bound.

The picture comes from where the row says that it is, and is shown only if it is the one that was embedded: its content
hash is compared. Else from the small copy that the store keeps. Decoding is left to `images`, the ways to a picture to
`sources`. Nothing is ever written into the store.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedstore import files, images
from embedstore.errors import ImageError
from embedstore.files import holder_of
from embedstore.images import PictureSource
from embedstore.settings import cache_dir
from embedstore.sources import is_missing, pictures_at
from embedstore.storage.rows import Rows

_log = logging.getLogger("embedstore")

SIDE = 320
"""Longest side in pixels."""
MOST_BYTES = 256 << 20
"""What the kept ones may take on the disk, some 15,000 of them; the oldest go first."""
NEIGHBOURS = 64
"""So many pictures of one archive or table are made in one reading of it."""
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Small:
    """A small picture; without `jpeg` what is missing, in words."""

    jpeg: bytes | None
    why: str = ""


class SmallPictures:
    """Makes small pictures of rows. Threads may share one.

    Parameters
    ----------
    folder : Path, optional
        Where they are kept: by default in `settings.cache_dir`. It is made with the first, and may be deleted at any
        time; where it cannot be written to, nothing is kept.
    most_bytes : int
    """

    def __init__(self, folder: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        if folder is None:
            with contextlib.suppress(OSError):  # a user without a home folder
                folder = cache_dir() / f"page-{SIDE}"
        self._kept = None if folder is None else KeptFiles(folder, most_bytes)
        self._readings: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, rows: Rows, row: int, neighbours: Callable[[], Sequence[int]] = tuple) -> Small:
        """Return the small picture of a row.

        `neighbours` returns rows that will be asked for next: an archive or table is read through for several at once.
        """
        [(uri, digest)] = _about(rows, [row])
        kept = self._get(digest)
        if kept is not None:
            return Small(kept)
        holder = holder_of(uri)
        if holder is not None and holder != uri:
            return self._inside(rows, row, holder, uri, digest, neighbours)
        pictures = pictures_at([uri], rows.thumbnails_at)
        if uri in pictures:
            return self._made(pictures[uri], digest, holder is not None)
        return self._copy(rows, uri) or Small(None, _why_not(uri))

    def _inside(
        self, rows: Rows, row: int, holder: str, uri: str, digest: str, neighbours: Callable[[], Sequence[int]]
    ) -> Small:
        """Read an archive or a table through once for a row and its neighbours in it; others wait for that."""
        with self._lock:
            turn = self._readings.setdefault(holder, threading.Lock())
        with turn:
            kept = self._get(digest)
            if kept is not None:
                return Small(kept)
            wanted = {uri: digest}
            if self._kept is not None and _HASH.fullmatch(digest):
                others = [other for other in neighbours() if other != row][:NEIGHBOURS]
                near = (pair for pair in _about(rows, others) if pair[0].startswith(holder))
                wanted |= {other: key for other, key in near if self._get(key) is None}
            found = pictures_at(wanted)
            made = {name: self._made(found[name], wanted[name], True) for name in found}
        return made.get(uri) or self._copy(rows, uri) or Small(None, f"{holder} does not hold it any more")

    def _made(self, source: PictureSource, digest: str, is_original: bool) -> Small:
        """Make one smaller and keep it, if it is the picture that was embedded."""
        try:
            if is_original:
                original = as_embedded(source, digest)
                if original is None:
                    return Small(None, "another picture has taken the place of the one that was embedded; add it again")
                source, found = original
                if not digest and (kept := self._get(found)) is not None:
                    return Small(kept)
                digest = found
            jpeg = images.thumbnail(source, SIDE)
        except ImageError as error:
            return Small(None, f"it cannot be shown: {error}")
        except OSError as error:
            return Small(None, f"it cannot be read: {error.strerror or error}")
        if is_original and self._kept is not None:
            self._kept.put(digest, jpeg)
        return Small(jpeg)

    def _copy(self, rows: Rows, uri: str) -> Small | None:
        """Return the small copy that the store keeps, if it keeps one."""
        found = rows.thumbnails_at([uri])
        return self._made(found[uri], "", False) if uri in found else None

    def _get(self, digest: str) -> bytes | None:
        return None if self._kept is None else self._kept.get(digest)


def as_embedded(source: PictureSource, digest: str) -> tuple[PictureSource, str] | None:
    """Return an original with its content hash; None where it is not the picture that was embedded, of this hash.

    Where `digest` is none, as in a store of vectors alone, any picture is taken. Raises ImageError and OSError.
    """
    if isinstance(source, os.PathLike):
        source = images.file_content(source)
    found = images.content_hash(source)
    return None if _HASH.fullmatch(digest) and found != digest else (source, found)


class KeptFiles:
    """JPEG files by content hash, ``3f/3f2a41....jpg``, of at most so many bytes together: the oldest are deleted.

    Two processes may share a folder: each counts what it writes itself, and looks again before it deletes.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._most = folder, most_bytes
        self._lock = threading.Lock()
        self._bytes: int | None = None
        self._ended = False

    def get(self, digest: str) -> bytes | None:
        """Return a file's bytes, or None; what is no hash names none."""
        if not _HASH.fullmatch(digest):
            return None
        try:
            return files.read_regular(self._path(digest)) or None
        except OSError:
            return None

    def put(self, digest: str, data: bytes) -> None:
        """Keep a file; where that cannot be, this and further ones are not kept, which is logged."""
        if self._ended or not _HASH.fullmatch(digest):
            return
        path = self._path(digest)
        try:
            for folder in (self._folder, path.parent):  # what pictures show is this user's alone
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.replace(path, data, durable=False)
            with self._lock:
                if self._bytes is None:
                    self._bytes = sum(size for _, size, _ in self._listed())
                else:
                    self._bytes += len(data)
                if self._bytes > self._most:
                    self._shrink()
        except OSError as error:
            self._ended = True
            _log.warning("no small pictures are kept in %s: %s", self._folder, error.strerror or error)

    def _shrink(self) -> None:
        """Delete the oldest, until there is room for a tenth again."""
        listed = sorted(self._listed())
        total = sum(size for _, size, _ in listed)
        for _, size, path in listed:
            if total <= 0.9 * self._most:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._bytes = total

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / f"{digest}.jpg"

    def _listed(self) -> Iterable[tuple[int, int, Path]]:
        """Yield the time, the size and the path of each."""
        for path in self._folder.glob("??/*.jpg"):
            with contextlib.suppress(OSError):  # another process has deleted it
                about = path.stat()
                yield about.st_mtime_ns, about.st_size, path


def _about(rows: Rows, numbers: Sequence[int]) -> list[tuple[str, str]]:
    """Return uri and content hash of rows, "" where they are not known."""
    if not numbers:
        return []
    found = rows.take(np.array(numbers, np.int64), ["uri", "content_hash"])
    pairs = zip(found.column("uri").to_pylist(), found.column("content_hash").to_pylist(), strict=True)
    return [(uri or "", digest or "") for uri, digest in pairs]


def _why_not(uri: str) -> str:
    """Say why there is no picture at a uri."""
    if not uri:
        return "the row does not say where its picture is"
    if is_missing(uri):
        return "the file is not there any more"
    if os.path.isabs(uri):
        return "the file is not here, or may not be read"
    return "its picture was never a file on this machine, and the store keeps no small copy"
