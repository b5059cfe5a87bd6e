"""What a command could not do -> one line that a person reads: the file, what was wrong with it, and the way on.

The library's own errors say it themselves. Here are the words for what the operating system refuses, whether Python or
one of the libraries below was refused. Anything else is a fault in this program, and is left as it is.
"""

from __future__ import annotations

import errno
import os
import re

from embedstore.errors import EmbedStoreError

BUDGET_SPENT = 3
"""Exit status of a command that a budget of requests has ended: what was paid for is stored."""

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again; what was paid for is kept"),
    errno.EDQUOT: (
        "your quota is used up",
        "free some space and run the same command again; what was paid for is kept",
    ),
    errno.EFBIG: ("the file would be too large here", "raise the limit (ulimit -f), or choose another disk"),
    errno.EIO: (
        "the disk cannot be read or written",
        "look after it; `embedstore verify STORE --deep` says what is damaged",
    ),
    errno.EACCES: ("permission denied", "change who may use it, or choose another path"),
    errno.EPERM: ("this is not permitted", "change who may use it, or choose another path"),
    errno.EROFS: ("the disk can only be read", "choose a path on another, or copy the store to one"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n) and run the same command again"),
    errno.ENFILE: ("too many files are open on this machine", "end other programs and run the same command again"),
    errno.ENOMEM: ("there is not enough memory", "end other programs, or use a smaller --batch-size or -n"),
    errno.ENOTDIR: ("a part of this path is a file and no folder", "check the path"),
    errno.EISDIR: ("this is a folder", "name a file"),
    errno.EEXIST: ("this is there already", "choose another path"),
    errno.ENOTEMPTY: ("this folder is not empty", "choose another path"),
    errno.EBUSY: ("this is in use", "end what uses it, or choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("these links lead in a circle", "check the path"),
    errno.ENXIO: ("nothing can be read there", "name a file"),
    errno.ESTALE: ("the network disk has let go of the file", "run the same command again"),
    errno.ENOTCONN: ("the network disk is not connected", "connect it and run the same command again"),
    errno.ETIMEDOUT: ("there was no answer in time", "run the same command again"),
    errno.ENOLCK: ("this disk cannot lock files", "keep the store on another"),
    errno.EINVAL: ("this disk or path does not take what is needed", "choose another path"),
    errno.ENODEV: ("there is nothing of this kind", "name a file"),
    errno.EPIPE: ("the other end has closed the connection", "run the same command again"),
    errno.ESPIPE: ("a pipe can only be read once, in order", "name a file"),
}
_LIBRARIES = {"_internal", "deltalake", "pyarrow", "duckdb", "_duckdb", "sqlite3", "pyo3_runtime"}
"""Where the errors of deltalake (``_internal`` too), Arrow, DuckDB and SQLite come from."""
_NUMBER = re.compile(r"(?:os error|errno) (\d+)", re.IGNORECASE)
_LONGEST = 400


def line_for(error: BaseException) -> str | None:
    """Return the line for an error, or None for one that nobody has foreseen."""
    if isinstance(error, EmbedStoreError):
        return str(error)
    if isinstance(error, OSError):
        return _refused(error)
    if isinstance(error, MemoryError):
        return "; ".join(_REASONS[errno.ENOMEM])
    if isinstance(error, UnicodeDecodeError):
        return f"a file is no text in UTF-8 ({_short(error)}); name another, or convert it"
    if isinstance(error, UnicodeEncodeError):
        return f"a text cannot be written in {error.encoding} ({_short(error)}); set PYTHONIOENCODING=utf-8"
    if isinstance(error, EOFError):
        return f"a file ends too early ({_short(error)}); restore it from a copy"
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read; restore it from a copy"
    if _LIBRARIES.isdisjoint(cls.__module__.split(".")[0] for cls in type(error).__mro__):
        return None
    number = _NUMBER.search(str(error))
    if number and int(number[1]) in _REASONS:
        why, way = _REASONS[int(number[1])]
        return f"{why}: {_short(error)}; {way}"
    return f"{_short(error)}; `embedstore verify STORE --deep` says whether the store is damaged"


def _refused(error: OSError) -> str:
    """Say what the operating system, or the network, did not do."""
    if error.errno is None:
        number = _NUMBER.search(str(error))
        why, way = _REASONS.get(int(number[1]) if number else 0, ("", ""))
        return f"{why}: {_short(error)}; {way}" if why else _short(error)
    name = "" if error.filename is None else os.fsdecode(error.filename)
    if error.errno == errno.ENOENT:
        folder = os.path.dirname(os.path.abspath(name))
        if name and not os.path.isdir(folder):
            return f"{name}: the folder {folder} is not there; make it first, or choose another path"
        why, way = "there is no such file or folder", "check the name"
    else:
        why, way = _REASONS.get(error.errno, (error.strerror or type(error).__name__, "choose another path"))
    return f"{name}: {why}; {way}" if name else f"{why} ({_short(error)}); {way}"


def _short(error: BaseException) -> str:
    """Return what an error says on one line that is not endless."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
