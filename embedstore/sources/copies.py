"""Pictures by their uris -> files in a folder, with the bytes that they have: for who wants the pictures of an answer.

Finding them, in tables and archives too, is left to `sources`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

from embedstore import images
from embedstore.files import holder_of, naming
from embedstore.images import PictureSource
from embedstore.sources import pictures_at

_AT_ONCE = 500
"""So many pictures of tables and archives are in memory; each such group costs one reading of those."""


def copy_pictures(uris: Sequence[str], folder: str | os.PathLike[str]) -> list[Path | None]:
    """Write the pictures at `uris` into a folder, which is made where it is not there.

    A copy has the bytes of its picture, and its name: that of the file, or of the member of an archive; a row of a
    table is named after both (``test-257.jpg``). What was an array of pixels becomes a PNG. No file is overwritten:
    one with the same bytes counts as the copy, beside another a number is put behind the name.

    Returns
    -------
    list of Path or None
        Where the copy of each lies, in the order of `uris`; None where there is no picture to be had.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    copies: list[Path | None] = []
    for start in range(0, len(uris), _AT_ONCE):
        some = uris[start : start + _AT_ONCE]
        found = pictures_at(some)
        copies += (_copy(uri, found[uri], place) if uri in found else None for uri in some)
    return copies


def _copy(uri: str, picture: PictureSource, folder: Path) -> Path:
    """Write one picture under its name, or find that it is there."""
    content = _content(picture)
    stem, ending = os.path.splitext(_name_of(uri))
    if ending.lower() not in images.SUFFIXES:
        stem, ending = stem + ending, images.ending_of(content)
    number = 1
    while (target := folder / f"{stem}{'' if number == 1 else f'-{number}'}{ending}").exists():
        if target.is_file() and target.stat().st_size == len(content) and target.read_bytes() == content:
            return target
        number += 1
    with naming(target), target.open("xb") as file:
        file.write(content)
    return target


def _content(picture: PictureSource) -> bytes:
    """Return the bytes of a picture as they are, or those of a PNG."""
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, os.PathLike):
        return Path(picture).read_bytes()
    png = io.BytesIO()
    images.read(picture).image.save(png, "PNG")
    return png.getvalue()


def _name_of(uri: str) -> str:
    """Return the name of a picture's file, of a member, or of a table and a row."""
    holder = holder_of(uri) or uri
    if holder == uri:
        return os.path.basename(uri)
    inner = re.split(r"[/\\]", uri[len(holder) + 1 :])[-1].strip(". ") or "picture"
    return inner if uri[len(holder)] == "!" else f"{Path(holder).stem}-{inner}"
