"""Small copies of pictures that no file on this machine holds, by content hash: ``thumbnails/3f/3f2a41....jpg``.

For people only: sheets, reports and the notebook show them where a picture was in memory, or at a URL. No row needs
them. Each is a file that is written beside and renamed, in no transaction with its row: what a kill leaves is one more
file or one fewer, never a row that differs. Making them small is left to `images`, which pictures get one to `ingest`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from embedstore import files

FOLDER = "thumbnails"
"""Name of their folder in a store's."""

SIDE = 200
"""Longest side in pixels."""

MOST_BYTES = 256 << 20
"""What they may take together, those of some 40,000 photographs; further pictures have none."""

_ENDING = ".jpg"

_log = logging.getLogger("embedstore")


class Thumbnails:
    """The thumbnails of a store. Threads may share one.

    Parameters
    ----------
    folder : Path
        Made with the first thumbnail; it may be deleted at any time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._names: set[str] | None = None
        self._bytes = 0
        self._ended = False

    def get(self, content_hash: str) -> bytes | None:
        """Return the JPEG file of a picture, or None."""
        if not _is_hash(content_hash):
            return None
        try:
            return self._path(content_hash).read_bytes()
        except OSError:
            return None

    def wants(self, content_hash: str) -> bool:
        """Tell whether a picture has none yet, and there is room for it."""
        with self._lock:
            if self._names is None:
                self._names, self._bytes = set(), 0
                for path, size in self._listed():
                    self._names.add(path.stem)
                    self._bytes += size
            return not self._ended and content_hash not in self._names and self._bytes < MOST_BYTES

    def keep(self, content_hash: str, make: Callable[[int], bytes]) -> None:
        """Keep what ``make(side)`` returns, if `wants` it; where it cannot be written, this and further ones are not.

        Raises what `make` raises.
        """
        if not self.wants(content_hash):
            return
        data = make(SIDE)
        path = self._path(content_hash)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(path, data, durable=False)
        except OSError as error:
            with self._lock:
                first, self._ended = not self._ended, True
            if first:
                _log.warning("no thumbnails are kept in %s: %s", self._folder, error.strerror or error)
            return
        with self._lock:
            if self._names is not None:
                self._names.add(content_hash)
            self._bytes += len(data)

    def drop_all_but(self, needed: Collection[str], dry_run: bool) -> dict[str, int]:
        """Delete those of other content hashes; return names, as ``thumbnails/3f/3f2a41....jpg``, and their bytes."""
        old = {path: size for path, size in sorted(self._listed()) if path.stem not in needed}
        if not dry_run:
            for path in old:
                path.unlink(missing_ok=True)
            for folder in {path.parent for path in old}:
                with contextlib.suppress(OSError):  # others are in it
                    folder.rmdir()
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            with self._lock:
                self._names = None
        return {f"{FOLDER}/{path.parent.name}/{path.name}": size for path, size in old.items()}

    def any(self) -> bool:
        """Tell whether there may be some."""
        return self._folder.is_dir()

    def _path(self, content_hash: str) -> Path:
        return self._folder / content_hash[:2] / f"{content_hash}{_ENDING}"

    def _listed(self) -> Iterator[tuple[Path, int]]:
        """Yield the files and their sizes; what is being written counts too."""
        for folder in _entries(self._folder):
            for entry in _entries(folder.path) if folder.is_dir() else ():
                with contextlib.suppress(OSError):  # it is gone by now
                    yield Path(entry.path), entry.stat().st_size


def _entries(folder: str | Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return list(listing)
    except OSError:
        return ()


def _is_hash(text: str) -> bool:
    """Tell whether this is a name that a thumbnail may have: a damaged row leads nowhere else."""
    return len(text) == 64 and not set(text) - set("0123456789abcdef")
