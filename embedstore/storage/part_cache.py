"""Parts in a bucket -> files of a folder on this machine, fetched when needed and bounded in what they take.

What was used longest ago goes first. A file that nobody may write to has been whole in the bucket, so that it may go at
any time: whoever reads it holds it open, and has it until then. One lock file stands between all threads and processes
that share the folder while it is decided what goes and who fetches what; nobody fetches what another is fetching. How
objects are read is left to `bucket`, what the bytes mean to `parts`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from embedstore.errors import StoreError
from embedstore.storage.bucket import Bucket, is_url

if TYPE_CHECKING:
    from filelock import FileLock

_FETCHING = ".fetching"
_LOCK = ".lock"
_SUFFIX = ".parquet"
_PAUSE = 0.02
_OLD_SECONDS = 86_400
"""After so long a part that was written here and never uploaded is taken for what a dead process has left."""
_log = logging.getLogger("embedstore")


@dataclass(frozen=True, slots=True)
class _File:
    """One file of the folder: its size, when it was last used, and whether it may go."""

    path: Path
    size: int
    used: int
    spare: bool


class PartCache:
    """The parts of one table that lie on this machine too.

    It travels to other processes as what it was made of.

    Parameters
    ----------
    bucket : Bucket
        Where the parts are.
    folder : Path
        Where they would lie: a part's name is its path in there. Files that are being written count too, and stay.
    limit : int
        How many bytes they may take together. One part is fetched where it is larger by itself.
    """

    def __init__(self, bucket: Bucket, folder: Path, limit: int) -> None:
        self.bucket = bucket
        self.folder = folder.absolute()
        self.limit = limit
        self._has_warned = False

    def __repr__(self) -> str:
        return f"PartCache({self.bucket.url!r}, {str(self.folder)!r}, {self.limit})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (PartCache, (self.bucket, self.folder, self.limit))

    def name_of(self, path: Path) -> str:
        """Return the name in the bucket of a file that lies, or would lie, in the folder."""
        return path.absolute().relative_to(self.folder).as_posix()

    def has(self, name: str, size: int) -> bool:
        """Tell whether a part of `size` bytes is on this machine."""
        about = _stat(self.folder / name)
        return about is not None and about.st_size == size

    def used(self) -> int:
        """Return how many bytes the folder takes."""
        return sum(file.size for file in self._files())

    def file(self, name: str, size: int) -> Path:
        """Return the path of a part, fetched when needed. It may be gone a moment later: see `fetched`."""
        with self.fetched(name, size):
            return self.folder / name

    @contextmanager
    def fetched(self, name: str, size: int) -> Iterator[BinaryIO]:
        """Give a part's file, open for reading, fetched when needed; evicted meanwhile, it is there until it is closed.

        Raises
        ------
        FileNotFoundError
            The bucket has no such part.
        OSError
            It has another size there.
        StoreError
            The folder cannot hold it.
        BucketError
        """
        with self._opened(name, size) or self._fetched(name, size) as file:
            yield file

    @contextmanager
    def open(self, name: str, size: int) -> Iterator[Any]:
        """Give a part as a file to be read here and there: the one on this machine, else one that is read by ranges."""
        with self._native(name, size) or self.bucket.open(name, size) as file:
            yield file

    def adopt(self, path: Path) -> None:
        """Upload a part that was just written in the folder, and count it in. It stays where that fails."""
        self.bucket.upload(self.name_of(path), path)
        with self._locked():
            _make_spare(path)
            self._make_room(0)

    def drop(self, names: Iterable[str]) -> None:
        """Delete what is here of parts, of whatever size."""
        for name in names:
            _delete(self.folder / name)

    def _opened(self, name: str, size: int) -> BinaryIO | None:
        """Open a part's file and mark it as used; None when it is not here, or of another size."""
        if not self._mark_used(name, size):
            return None
        try:
            return (self.folder / name).open("rb")
        except FileNotFoundError:
            return None

    def _mark_used(self, name: str, size: int) -> bool:
        path = self.folder / name
        about = _stat(path)
        if about is None or about.st_size != size:
            return False
        with contextlib.suppress(OSError):  # somebody else's file, or gone
            os.utime(path, ns=(time.time_ns(), about.st_mtime_ns))
        return True

    def _native(self, name: str, size: int) -> Any:
        """Open a part's file for Arrow, which reads it without asking Python; None when it is not here."""
        import pyarrow as pa

        if self._mark_used(name, size):
            with contextlib.suppress(FileNotFoundError):
                return pa.OSFile(str(self.folder / name))
        return None

    def _fetched(self, name: str, size: int) -> BinaryIO:
        """Fetch a part into the folder, or wait until somebody else has, and open it before it can be evicted."""
        beside = self.folder / _FETCHING / urllib.parse.quote(name, safe="")
        while True:
            with self._locked():
                if (file := self._opened(name, size)) is not None:
                    return file
                if (lock := self._begun(beside, size)) is not None:
                    break
            time.sleep(_PAUSE)
        try:
            with self._writing():
                self.bucket.fetch(name, beside, size)
            with self._locked(), self._writing():
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                _delete(path)
                _make_spare(beside)
                beside.replace(path)
                return path.open("rb")
        finally:
            with self._locked():
                beside.unlink(missing_ok=True)
                _let_go(lock)

    def _begun(self, beside: Path, size: int) -> FileLock | None:
        """Make a file for what is fetched, and room for it; None where others must end first. Needs the lock."""
        lock = _lock_of(beside)
        if lock is None:
            return None
        beside.unlink(missing_ok=True)  # of somebody who died over it
        try:
            if self._make_room(size):
                with self._writing():
                    beside.touch()
                    os.truncate(beside, size)
                return lock
        except BaseException:
            beside.unlink(missing_ok=True)
            _let_go(lock)
            raise
        _let_go(lock)
        return None

    def _make_room(self, size: int) -> bool:
        """Delete what was used longest ago until `size` more bytes fit; False where others must end first.

        Needs the lock. What another is fetching stays; what somebody left half fetched goes.
        """
        files, busy = self._files(), False
        for file in [file for file in files if file.path.parent.name == _FETCHING]:
            if (lock := _lock_of(file.path)) is None:
                busy = True
            else:
                files.remove(file)
                file.path.unlink(missing_ok=True)
                _let_go(lock)
        taken = sum(file.size for file in files) + size
        spare = sorted((file for file in files if file.spare), key=lambda file: file.used)
        if busy and taken - sum(file.size for file in spare) > self.limit:
            return False
        for file in spare:
            if taken > self.limit and _delete(file.path):
                taken -= file.size
        if taken > self.limit and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "the part that is read, and those that are written, take %d bytes in %s, where %d are allowed "
                "(--cache-size, cache_size=)",
                taken,
                self.folder,
                self.limit,
            )
        return True

    def _files(self) -> list[_File]:
        """Return the files of parts in the folder, with those that are being fetched."""
        found = []
        for place, folders, names in os.walk(self.folder):
            here = Path(place)
            folders[:] = [name for name in folders if name[0] not in "_." or name == _FETCHING]
            for name in names:
                about = _stat(here / name) if name.endswith(_SUFFIX) else None
                if about is not None:
                    old = time.time() - about.st_mtime > _OLD_SECONDS
                    spare = here.name != _FETCHING and (old or not about.st_mode & stat.S_IWUSR)
                    found.append(_File(here / name, about.st_size, about.st_atime_ns, spare))
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock  # not needed while all parts are here

        with self._writing():
            (self.folder / _FETCHING).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / _LOCK)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Let an error of this machine's disk say what is too small, or not to be written to."""
        try:
            yield
        except OSError as error:
            if is_url(str(error.filename or "")):
                raise
            raise StoreError(
                f"{self.folder} cannot hold parts of {self.bucket.url} ({error.strerror or error}): free some space, "
                "allow less of it (--cache-size, cache_size=), or name another folder (--cache-dir, cache_dir=)"
            ) from error
        except NotImplementedError as error:
            raise StoreError(
                f"{self.folder} is on a file system that cannot lock files; name a folder on a disk of this machine "
                "(--cache-dir, cache_dir=)"
            ) from error


def _stat(path: Path) -> os.stat_result | None:
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return about if stat.S_ISREG(about.st_mode) else None


def _delete(path: Path) -> bool:
    """Delete a file; tell whether it is gone. Where one that is open cannot go it stays."""
    try:
        if os.name == "nt":
            path.chmod(stat.S_IWRITE)
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.debug("%s stays: %s", path, error)
        return False
    return True


def _make_spare(path: Path) -> None:
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)


def _lock_of(file: Path) -> FileLock | None:
    """Take the lock on fetching a file; None where another thread or process has it. Needs the folder's lock."""
    from filelock import FileLock, Timeout  # as above

    lock = FileLock(f"{file}.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _let_go(lock: FileLock) -> None:
    """Release a lock on fetching, and delete its file. Needs the folder's lock, or somebody would lock what is gone."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
