"""Orders a system call to fail, in this process: the n-th open, write, fsync, ... of a file under a folder.

A small library, compiled here from ``failing_calls.c`` and preloaded, stands before libc's calls.
"""

from __future__ import annotations

import ctypes
import errno
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CALLS: Mapping[str, tuple[str, ...]] = {
    "open": ("EACCES", "EMFILE", "EIO", "ENOSPC", "EROFS"),
    "write": ("ENOSPC", "EIO"),
    "read": ("EIO",),
    "fsync": ("EIO", "ENOSPC"),
    "rename": ("EACCES", "ENOSPC", "EIO", "EROFS"),
    "unlink": ("EACCES", "EIO", "EROFS"),
    "ftruncate": ("EIO", "ENOSPC", "EROFS"),
    "mmap": ("ENOMEM", "EACCES"),
    "mkdir": ("EACCES", "ENOSPC", "EROFS"),
}
"""Kinds of calls (``rename`` stands for links too), and what they are made to fail with."""


def library(folder: Path) -> Path | None:
    """Compile the library into a folder; None where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    made = folder / "failing_calls.so"
    words = [compiler, "-O1", "-shared", "-fPIC", "-o", str(made), str(Path(__file__).with_suffix(".c")), "-ldl"]
    return made if subprocess.run(words, capture_output=True).returncode == 0 else None


def arm(fault: Mapping[str, Any]) -> None:
    """Let the calls of a kind fail from the n-th on, once or for ever; with n = 0 all kinds are counted only."""
    code = getattr(errno, fault["error"]) if fault.get("error") else 0
    kind, folder = fault.get("call", "").encode(), fault["folder"].encode()
    _preloaded().torture_arm(kind, code, ctypes.c_long(fault["n"]), int(fault.get("forever", False)), folder)


def seen() -> dict[str, int]:
    """Return how many calls there were, by kind."""
    library = _preloaded()
    library.torture_seen.restype = ctypes.c_long
    return {call: int(library.torture_seen(call.encode())) for call in CALLS}


def _preloaded() -> Any:
    return ctypes.CDLL(None)
