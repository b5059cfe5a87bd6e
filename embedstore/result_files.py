"""The name of a file that a person wants written -> whether it may be: its ending, its folder, and what lies there now.

A result (a table, a sheet, a page) replaces what embedstore itself has written, and nothing else. How it is written is
left to whoever writes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from embedstore.errors import InputError, NotOursError, PathError, spelt
from embedstore.files import kind_of, naming, replace
from embedstore.settings import state_dir

SHEETS = (".png", ".jpg", ".jpeg")
CURVES = (".png", ".svg", ".pdf")
PAGES = (".html", ".htm")
REVIEWS = (".csv",)
ROWS = (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".arrow")
"""Endings of the files that are written under a name that a person gives: what `to_write` is asked with."""


def to_write(path: str | os.PathLike[str], endings: Sequence[str]) -> Path:
    """Return the path of a file that is to be written, once its name and its place are known to do.

    Asked before any work is done for the file, by whatever writes one under a name that a person gave.

    Raises
    ------
    InputError
        The name ends in none of `endings` (in lower case; capitals in the name do not matter).
    PathError
        The folder is not there, or something other than a file has the name.
    """
    file = Path(path)
    if file.suffix.lower() not in endings:
        known = f"one of {' '.join(endings)}" if len(endings) > 1 else endings[0]
        raise InputError(f"{file.name!r} should end in {known}")
    folder = file.absolute().parent
    if not folder.is_dir():
        what = f"{folder} is a file and no folder" if folder.exists() else f"the folder {folder} is not there"
        way = "choose another path" if folder.exists() else "make it first, or choose another path"
        raise PathError(errno.ENOENT, f"{what}; {way}", os.fspath(path))
    if (kind := kind_of(file.stat().st_mode) if file.exists() else None) not in (None, "a device"):
        raise PathError(errno.EINVAL, f"it is {kind}, not a file to write; choose another path", os.fspath(path))
    return file


@contextlib.contextmanager
def written_for_people(path: str | os.PathLike[str], force: bool = False) -> Iterator[None]:
    """Guard a result file (a table, a picture, a page) while it is written: only what is our own is replaced.

    A file is our own when it lies there as it was last written within this context: of the same size, and not changed
    since. An empty file is anybody's, and pipes and devices are written to as they are. What was written is remembered
    in the folder of `settings.state_dir`; where that cannot be, the next run asks for `force`.

    Raises
    ------
    NotOursError
        Without `force`: somebody else has made the file, or has changed it since.
    """
    file = Path(path)
    if not force and file.is_file() and file.stat().st_size and _note_of(file) != _state_of(file):
        raise NotOursError(
            f"{file} is there already and holds what embedstore did not write; name another file, or replace it "
            f"with {spelt('force=True', '--force')}"
        )
    try:
        with naming(file):
            yield
        force = False
    finally:
        if not force and file.is_file():  # half a file of ours is our own too
            with contextlib.suppress(OSError):  # a home that cannot be written to: the next run asks
                _note_place(file).parent.mkdir(parents=True, exist_ok=True)
                replace(_note_place(file), _state_of(file), durable=False)


def _note_place(file: Path) -> Path:
    """Return where it is noted how a result file was written, by its whole path."""
    import xxhash

    return state_dir() / "written" / xxhash.xxh3_128_hexdigest(os.fsencode(file.resolve()))


def _note_of(file: Path) -> str | None:
    try:
        return _note_place(file).read_text(encoding="utf-8")
    except OSError:
        return None


def _state_of(file: Path) -> str:
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
