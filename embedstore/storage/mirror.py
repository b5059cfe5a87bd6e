"""The log of a table in a bucket, and the mirror of it on this machine.

`MirroredLog` turns the objects of a ``_delta_log`` into files that everyone else reads as any log's: before the newest
version is told, what is new in the bucket comes down, first of all the last checkpoint and what follows it, and older
files once they are asked for; a commit appears here once a conditional put has made it there.
The bucket is the truth: a mirror that has seen what the bucket denies is an error, as only its owner knows why.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from embedstore import files
from embedstore.errors import DamagedStoreError, InputError
from embedstore.storage.bucket import Bucket, Listed
from embedstore.storage.log_files import (
    LAST_CHECKPOINT,
    History,
    Log,
    commit_name,
    damage_of,
    is_of_log,
    version_of,
)

_AT_ONCE = 8
_YOUNG_SECONDS = 2.0
_LONG_SECONDS = 600
"""A log keeps its last hour's commits; a change that took so long makes sure that its place in the log is not past."""
_READINGS = 5
"""How often the bucket is listed again because a vacuum has deleted what was listed."""


class MirroredLog(Log):
    """The log of one table in a bucket.

    Parameters
    ----------
    folder : Path
        Where it is mirrored; it may be deleted at any time.
    bucket : Bucket
        The place of ``_delta_log``.
    """

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        super().__init__(folder)
        self._bucket = bucket
        self._lock = threading.Lock()
        self._tags: dict[str, str] = {}
        """Of what was read while it was too young to be known by its time."""

    def newest(self) -> int:
        """Return the newest version in the bucket, after it came down."""
        self.pull()
        return super().newest()

    def files_of(self, version: int) -> tuple[list[Path], bool]:
        """Return the files of a version; what is missing or damaged in the mirror comes down again."""
        try:
            return super().files_of(version)
        except (DamagedStoreError, InputError):
            for anew in (False, True):
                self.pull(whole=True, anew=anew)
                with suppress(DamagedStoreError, InputError):
                    return super().files_of(version)
            return super().files_of(version)

    def complete(self) -> None:
        """Bring down the files of all versions."""
        self.pull(whole=True)

    def history(self) -> History:
        """Return what all files in the bucket say."""
        self.complete()
        return super().history()

    def timestamps(self) -> dict[int, float]:
        """Return when each commit in the bucket was made, by its clock, as those of machines differ; all come down."""
        self.complete()
        return {
            version_of(name): one.modified
            for name, one in self._listed_in_bucket("").items()
            if name == commit_name(version_of(name))
        }

    def check(self) -> list[str]:
        """Read every object and return what is damaged, in words, or is not what was read of it before."""
        self.pull(whole=True)
        listed = self._listed_in_bucket("")
        contents = self._read([name for name in listed if name != LAST_CHECKPOINT])
        differing = [name for name, content in contents.items() if content != _bytes_of(self.folder / name)]
        problems = [
            f"{self._bucket.url}/{name} is not what this machine has read of it, and keeps as {self.folder / name}; "
            "put that back, or delete it if the object is right"
            for name in differing
        ]
        return problems or super().check()

    def publish(self, staged: Log, after: int) -> list[int]:
        """Put new commits into the bucket, each where there is none yet, and then here; return their versions.

        Raises
        ------
        FileExistsError
            Another writer has made such a version meanwhile.
        BucketError
            Whether it was made is not known.
        """
        new = {number: path for number, path in sorted(staged.commits().items()) if number > after}
        for path in new.values():
            content = path.read_bytes()
            self._bucket.create(path.name, content)
            self._keep(path.name, content)
        return list(new)

    def require_behind(self, version: int, made: Sequence[int], began: float) -> None:
        """Take commits back that were `made` behind a version whose own is gone: a vacuum came long after both.

        Their names were free only because it had expired what others made there: a machine that slept in between.
        """
        if time.time() - began < _LONG_SECONDS:
            return
        try:
            self._bucket.size(commit_name(version))
        except FileNotFoundError:
            names = [commit_name(number) for number in made]
            self._bucket.delete(names)
            self._drop(names)
            raise FileExistsError(names[0]) from None

    def publish_checkpoint(self, staged: Log) -> None:
        """Put the newest checkpoint of a staged log into the bucket, and then the hint that there is one."""
        paths = max(staged.checkpoints().items())[1]
        for path in [*paths, staged.folder / LAST_CHECKPOINT]:
            content = path.read_bytes()
            self._bucket.write(path.name, content)
            self._keep(path.name, content)

    def sync(self) -> None:
        """Do nothing: what the bucket has taken, it keeps."""

    def expire(self, before: int) -> None:
        """Delete the objects of versions before one that has a checkpoint."""
        old = [path.name for number, path in self.commits().items() if number < before]
        old += [path.name for number, paths in self.checkpoints().items() if number < before for path in paths]
        if old:
            self._bucket.delete(old)
            self._drop(old)

    def pull(self, *, whole: bool = False, anew: bool = False) -> None:
        """Bring down what is new in the bucket.

        Parameters
        ----------
        whole : bool
            Compare with all that is there, rather than with what comes after the newest commit here, or the last
            checkpoint.
        anew : bool
            Read what is here already once more.

        Raises
        ------
        DamagedStoreError
            The bucket has no commit that this machine has seen, or another in its place.
        """
        with self._lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            for _ in range(_READINGS):
                if self._pulled(whole, anew):
                    return

    def _pulled(self, whole: bool, anew: bool) -> bool:
        """Bring down what is new; return whether all that was listed was still there."""
        newest = max(self.commits(), default=-1)
        first = 0 if whole else self._last_checkpoint() if newest < 0 else newest
        listed = self._listed_in_bucket(commit_name(first - 1) if first > 0 else "")
        if newest >= 0 and self._is_past(newest, listed):
            whole, listed = True, self._listed_in_bucket("")
        if whole:
            self._drop(name for name in self.names() - listed.keys() if version_of(name) <= newest)
        wanted = [one.name for one in listed.values() if anew or not self._is_known(one)]
        contents = self._read(wanted)
        for name in sorted(contents, key=_order):
            if self._denies(name, contents[name]):
                raise self._denied(f"has another version {version_of(name)}")
            self._keep(name, contents[name], listed[name].modified)
            self._tags[name] = listed[name].tag
        return len(contents) == len(wanted)

    def _is_known(self, listed: Listed) -> bool:
        """Tell whether an object is here as it is, by its time or, while it is young, by its tag."""
        path = self.folder / listed.name
        if is_same(path, listed):
            return True
        known = bool(listed.tag) and self._tags.get(listed.name) == listed.tag
        if not known or not path.exists() or path.stat().st_size != listed.size:
            return False
        mark(path, listed.modified)
        return True

    def _last_checkpoint(self) -> int:
        """Return the version of the last checkpoint, by the hint in the bucket; 0 where it says none."""
        try:
            return int(json.loads(self._bucket.read(LAST_CHECKPOINT))["version"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0

    def _is_past(self, newest: int, listed: dict[str, Listed]) -> bool:
        """Tell whether a vacuum has deleted the newest commit that is known here, after newer ones were made."""
        if commit_name(newest) in listed:
            return False
        later = max((version_of(name) for name in listed), default=-1)
        if later < newest:
            raise self._denied("has an older newest version")
        return True

    def _denies(self, name: str, content: bytes) -> bool:
        """Tell whether the bucket has a commit that differs from a sound one here: a commit is never written twice."""
        path = self.folder / name
        differs = name == commit_name(version_of(name)) and _bytes_of(path) not in (None, content)
        return differs and damage_of(path) is None

    def _denied(self, what: str) -> DamagedStoreError:
        return DamagedStoreError(
            f"{self._bucket.url} {what} than this machine has read there: its commits were deleted, or an older copy "
            f"of the store was put back. If that was meant, delete {self.folder} and go on; else put back what is gone,"
            f" of which the files are there"
        )

    def _listed_in_bucket(self, after: str) -> dict[str, Listed]:
        return {one.name: one for one in self._bucket.list(after=after) if is_of_log(one.name)}

    def _read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the contents of objects, without those that a vacuum has deleted meanwhile."""
        if len(names) < 2:
            return {name: content for name in names if (content := _unless_gone(self._bucket.read, name)) is not None}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            contents = pool.map(lambda name: _unless_gone(self._bucket.read, name), names)
            return {name: content for name, content in zip(names, contents, strict=True) if content is not None}

    def _keep(self, name: str, content: bytes, modified: float | None = None) -> None:
        """Write a file of the mirror; its time is the object's, by which it is known to be the same."""
        path = self.folder / name
        if _bytes_of(path) != content:
            files.replace(path, content, durable=False)
        if modified is not None:
            mark(path, modified)

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def advice(self, what: str) -> str:
        """Return what was found, with what to do about it."""
        return (
            f"{what} (of {self._bucket.url}): restore the object from a copy; or copy the store down, and run "
            "`embedstore repair COPY`: README, Stores on S3, says how"
        )


def _order(name: str) -> tuple[int, int]:
    """Order files so that whoever sees one finds all that it needs: checkpoints, commits, and the hint last."""
    if name == LAST_CHECKPOINT:
        return 2, 0
    return int(name.endswith(".json") and ".checkpoint." not in name), version_of(name)


def mark(path: Path, modified: float) -> None:
    """Give a file the time of the object that it was read from, so that `is_same` knows it.

    Not while that is so young that it may be replaced within the same second, which is as finely as services tell.
    """
    if time.time() - modified > _YOUNG_SECONDS:
        with suppress(OSError):  # a cache that can only be read serves what it has
            os.utime(path, (modified, modified))


def is_same(path: Path, listed: Listed) -> bool:
    """Tell whether a file here is that of an object, by its size and by the time that it was given for it."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return False
    return about.st_size == listed.size and abs(about.st_mtime - listed.modified) < 1e-3


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _unless_gone(read: Callable[[str], bytes], name: str) -> bytes | None:
    try:
        return read(name)
    except FileNotFoundError:
        return None
