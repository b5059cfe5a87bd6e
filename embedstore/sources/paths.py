"""A path or a glob, as a person types it -> paths that exist."""

from __future__ import annotations

import glob
import os

from embedstore.errors import SourceNotFoundError


def expand(path: str) -> list[str]:
    """Return the path if it exists, else what it matches as a glob (``**`` crosses folders), sorted.

    Raises
    ------
    SourceNotFoundError
        It neither exists nor matches anything.
    """
    path = os.path.expanduser(path)
    if os.path.lexists(path):
        if not os.path.exists(path):
            raise SourceNotFoundError(f"{path} is a link to {os.readlink(path)!r}, which is not there")
        return [path]
    if not glob.has_magic(path):
        raise SourceNotFoundError(
            f"there is no {os.path.abspath(path)}; expected a folder, a file or a pattern such as 'photos/**/*.jpg'"
        )
    found = sorted(glob.glob(path, recursive=True))
    if not found:
        raise SourceNotFoundError(f"no file matches {path!r} in {os.getcwd()}")
    return found
