"""A new folder, whole or not at all: made beside, synced, and renamed into place.

What goes in is left to whoever makes it. Of makers at once on one path the first wins; what one that was killed has
left is cleared away by the next.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from embedstore import files
from embedstore.errors import StoreLockedError

_MAKING = ".making"
_LONGEST = 60
"""Letters of a name that the name of the folder beside repeats; a name may have 255 bytes."""
_TIMEOUT = 60.0
"""Seconds to wait for another process that makes the same folder."""


def is_free(path: Path, names: Sequence[str]) -> bool:
    """Tell whether a folder can be made at a path: there is nothing, or an empty folder.

    What a maker that was killed has left of `names` counts as nothing.
    """
    if not path.is_dir():
        return not path.exists()
    entries = set(os.listdir(path))
    if any(name.startswith(f"{_MAKING}-") for name in entries) and names[-1] not in entries:
        entries -= set(names)
    return not any(not name.startswith(_MAKING) for name in entries)


@contextlib.contextmanager
def whole_folder(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """Give a folder to fill; when the context ends well it is at `path`, otherwise it is gone.

    A folder on a file system of its own, or in one that cannot be written to, is filled entry by entry instead.

    Parameters
    ----------
    path : Path
        Where there is nothing, or an empty folder.
    names : sequence of str
        What the folder will hold. The last makes it what it is, and is the last to be put there.

    Raises
    ------
    FileExistsError
        There is something at `path`; another maker may have been quicker.
    StoreLockedError
        Another process has been making it for a minute.
    """
    path = _followed(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    base, prefix = _beside(path)
    with _alone(base / f"{prefix}.lock"):
        if not is_free(path, names):
            raise FileExistsError(f"{path} is there already")
        _clear(base, prefix, names)
        beside = base / f"{prefix}-{uuid.uuid4().hex[:8]}"
        beside.mkdir()
        try:
            yield beside
            files.sync_tree(beside)
            if base == path:
                for name in sorted(os.listdir(beside), key=lambda name: name == names[-1]):
                    (beside / name).rename(path / name)
            else:
                _put(beside, path)
            files.sync_folder(base)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                _clear(base, prefix, names)
            raise
        shutil.rmtree(beside, ignore_errors=True)  # where it was emptied


def discard(path: Path, names: Sequence[str]) -> None:
    """Delete a folder that `whole_folder` made, so that it can be made again whenever this is cut short."""
    path = _followed(path)
    base, prefix = _beside(path)
    beside = base / f"{prefix}-{uuid.uuid4().hex[:8]}"
    if base == path:
        beside.mkdir()
        _clear(base, prefix, names)
    else:
        path.rename(beside)
        shutil.rmtree(beside)


def _followed(path: Path) -> Path:
    """Return where a link leads, so that it stays a link; other paths as they are."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _beside(path: Path) -> tuple[Path, str]:
    """Return the folder in which one is made that is to be at `path`, and with what its name begins there."""
    if path.is_dir() and (os.path.ismount(path) or not os.access(path.parent, os.W_OK)):
        return path, _MAKING
    return path.parent, f".{path.name[:_LONGEST]}{_MAKING}"


def _put(beside: Path, path: Path) -> None:
    """Rename a folder into place, over nothing or an empty folder."""
    if os.name == "nt" and path.is_dir():
        path.rmdir()  # Windows renames over no folder
    beside.rename(path)


def _clear(base: Path, prefix: str, names: Sequence[str]) -> None:
    """Delete what makers that have died left in a folder; the caller is the only one who lives."""
    left = [name for name in os.listdir(base) if name.startswith(f"{prefix}-")]
    put = (
        [*reversed(names)] if left and prefix == _MAKING else []
    )  # as long as others are left, it is known what these are
    for name in [*put, *left]:
        entry = base / name
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Be the only maker, as long as the context lasts."""
    from filelock import FileLock, Timeout  # not needed to search

    try:
        with FileLock(file, timeout=_TIMEOUT):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows deletes no file that is open
                    file.unlink()
    except Timeout as error:
        raise StoreLockedError(f"another process is making {file.parent}; wait for it, or end it") from error
