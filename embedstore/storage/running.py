"""Which processes work on a store now: each holds a lock on a file of its own, which its death lets go.

Turns a run into a name that claims can carry, and a name into whether that run still lives. A run also holds some room
on the disk, for what it has paid for when the disk fills up. What is claimed is left to `ledger`.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock

RESERVE_BYTES = 8 * 2**20
"""Room for the answers under way: 256 pictures of 768 components take a megabyte, and SQLite writes them twice."""


class Running:
    """The runs of a store, in its folder ``.running/``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def begun(self) -> Iterator[str]:
        """Be a run, as long as the context lasts; gives its name, 32 hex digits."""
        self._folder.mkdir(exist_ok=True)
        self.anybody()
        name, file, lock = self._locked()
        try:
            _fill(self._reserve(name))
            yield name
        finally:
            self.give_up_reserve(name)
            file.unlink(missing_ok=True)
            lock.release()

    def _locked(self) -> tuple[str, Path, FileLock]:
        """Return a new name, and its file with the lock held on it.

        A file is there for a moment before it is locked: another process may take it for that of a run that has died,
        and delete it. A lock on a file that nobody finds would say nothing.
        """
        from filelock import FileLock  # not needed to search

        while True:
            name = uuid.uuid4().hex
            file = self._folder / f"{name}.lock"
            lock = FileLock(file)
            lock.acquire()
            if file.exists():
                return name, file, lock
            lock.release()

    def give_up_reserve(self, name: str) -> bool:
        """Free the room that a run holds on the disk; return whether there was any."""
        reserve = self._reserve(name)
        there = reserve.exists()
        reserve.unlink(missing_ok=True)
        return there

    def _reserve(self, name: str) -> Path:
        return self._folder / f"{name}.reserve"

    def is_alive(self, name: str) -> bool:
        """Tell whether the run of this name goes on, in this process or another."""
        from filelock import FileLock, Timeout  # as above

        file = self._folder / f"{name}.lock"
        if not file.exists():
            return False
        try:
            with FileLock(file, timeout=0, is_singleton=False):
                # Nobody takes up the name of a run that has died.
                self.give_up_reserve(name)
                file.unlink(missing_ok=True)
                return False
        except Timeout:
            return True

    def anybody(self) -> bool:
        """Tell whether any run goes on; the files of those that have died are deleted."""
        living = [file for file in self._folder.glob("*.lock") if self.is_alive(file.stem)]
        return bool(living)


def _fill(file: Path) -> None:
    """Write `RESERVE_BYTES` of noughts: a hole in a file would hold no room."""
    with file.open("wb", buffering=0) as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, RESERVE_BYTES)
        else:
            stream.write(bytes(RESERVE_BYTES))
