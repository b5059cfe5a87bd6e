"""Anything that holds pictures -> a `Source` of records; anything that holds vectors -> `vector_batches`.

Here is decided what kind of thing a source is; one module for each kind lists it. `pictures_at` is the way back from a
record's ``uri`` to its picture, for showing it: as far as it lies on this machine, as a file, a row of a table
(``photos.parquet#12``) or a member of an archive (``photos.zip!cat.jpg``). Of URLs, and of pictures that only were in
memory, there are small copies at most, which a store keeps. Embedding the pictures, and what a store can hold of the
metadata, is left to `ingest`.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from embedstore.errors import ImageError, SourceError, SourceNotFoundError
from embedstore.files import holder_of, open_regular
from embedstore.images import PictureSource, is_image
from embedstore.sources import archive, hub, python_objects, table_files
from embedstore.sources.archive import ArchiveSource
from embedstore.sources.picture_files import FileSource, expand
from embedstore.sources.record import Chain, Failure, MemorySource, Record, Source
from embedstore.sources.table_files import TableSource
from embedstore.sources.vector_batches import VectorBatch, vector_batches
from embedstore.sources.web import UrlSource, is_url

__all__ = ["Failure", "Record", "Source", "VectorBatch", "is_missing", "is_path", "open_source", "pictures_at"]
__all__ += ["vector_batches"]

_Kind: TypeAlias = Literal["file", "table", "archive", "saved", "name", "object", "url", "record", "picture"]
"""What is opened alike: `saved` by ``save_to_disk``, a data set by its `name`, a data set or table as an `object`."""

_LARGEST_LIST = 64 << 20

_WHAT_IS_READ = (
    "a folder, a glob, picture files, tables (.parquet .arrow .jsonl .csv), archives (.tar .zip), a .txt list, URLs, "
    "hf://org/name, a data set, a DataFrame, Pillow images, arrays, bytes, records such as {'image': picture, 'id': "
    "'cat-7', 'label': 'cat'}, or a list of these"
)


def open_source(
    source: Any, *, label_from_folder: bool = False, image_column: str | None = None, split: str | None = None
) -> Source:
    """Find out what kind of source this is, and list it.

    Parameters
    ----------
    source : str, path, object or list
        * a folder (recursive), a glob, a picture file; ``metadata.csv|jsonl|parquet`` beside the files is read;
        * a ``.parquet``, ``.arrow``, ``.jsonl`` or ``.csv`` file with a column of pictures, paths or URLs, or a folder
          written by ``Dataset.save_to_disk``;
        * a ``.tar``, ``.tar.gz`` or ``.zip``; a ``.txt`` file of paths and URLs, one a line; an http(s) URL;
        * ``hf://org/name``, ``hf://org/name:split``, or ``org/name`` where no such path is here: loaded from the hub;
        * a `datasets.Dataset` or `DatasetDict`, a pyarrow Table, a DataFrame, also of Pillow images or arrays; the
          column ``id`` of a table or data frame in memory is what its rows are called;
        * records: ``{"image": picture, "id": "cat-7", "label": "cat"}``, the picture a path, a URL, bytes, a Pillow
          image or an array, other keys metadata;
        * Pillow images, arrays, bytes of a file; or a list of any of these. Things of a list come grouped: files
          first, then tables and archives, URLs, records, pictures in memory, each in their order.
    label_from_folder : bool
        Add a column ``label``: the name of the folder that a file lies in.
    image_column : str, optional
        The column of a table that holds the pictures, where it cannot be found by its type; the key of records.
    split : str, optional
        Take only this split of a data set, or of a folder with folders train, validation (or val) and test.

    Returns
    -------
    Source
        Listed, but with no picture read yet, and nothing downloaded but for ``hf://``.

    Raises
    ------
    SourceNotFoundError
        The path or data set does not exist.
    SourceError
        There is nothing in it, or it is of no kind that is read here.

    Examples
    --------
    >>> source = open_source("photos", label_from_folder=True)      # doctest: +SKIP
    >>> for record in source:                                       # doctest: +SKIP
    ...     print(record.uri, record.metadata["label"], len(record.load()))
    """
    found: dict[_Kind, list[Any]] = defaultdict(list)
    for kind, thing in _things(source):
        found[kind].append(thing)
    if split is not None and not (found["saved"] or found["name"] or found["object"] or found["file"]):
        raise SourceError(f"only data sets and folders have splits, so there is no split {split!r} in this source")
    parts: list[Source] = []
    if found["file"]:
        parts.append(FileSource(found["file"], label_from_folder=label_from_folder, split=split))
    parts += (TableSource(table_files.open_table_file(path), image_column) for path in found["table"])
    parts += (ArchiveSource(path, label_from_folder=label_from_folder) for path in found["archive"])
    parts += (hub.from_disk(path, image_column, split) for path in found["saved"])
    parts += (hub.from_name(name, image_column, split) for name in found["name"])
    parts += (
        hub.from_object(thing, image_column, split)
        if hub.is_dataset(thing)
        else python_objects.of_frame(thing, image_column) or TableSource(table_files.of_arrow_like(thing), image_column)
        for thing in found["object"]
    )
    if found["url"]:
        parts.append(UrlSource(found["url"]))
    if found["record"]:
        parts.append(python_objects.of_records(found["record"], image_column))
    if found["picture"]:
        parts.append(MemorySource(found["picture"]))
    if not parts:
        raise SourceError(f"the list is empty; expected {_WHAT_IS_READ}")
    return parts[0] if len(parts) == 1 else Chain(parts)


def pictures_at(
    uris: Iterable[str], kept: Callable[[Sequence[str]], Mapping[str, bytes]] | None = None
) -> dict[str, PictureSource]:
    """Return the pictures at `uris`, by uri; those that are not to be had are left out.

    A table or archive is read through once, up to the last picture that is wanted of it. Of pictures that no file
    holds `kept` is asked, which returns small copies by uri, as `Rows.thumbnails_at` does: good for people to look at.
    """
    pictures: dict[str, PictureSource] = {}
    inside: dict[str, set[str]] = {}
    nowhere: list[str] = []
    for uri in uris:
        holder = holder_of(uri)
        if holder is None:
            nowhere.append(uri)
            continue
        if holder != uri:
            inside.setdefault(holder, set()).add(uri)
        elif os.access(uri, os.R_OK):
            pictures[uri] = Path(uri)
    for holder, wanted in inside.items():
        pictures |= _pictures_inside(holder, wanted)
    if kept is not None and nowhere:
        pictures |= kept(nowhere)
    return pictures


def is_path(uri: str) -> bool:
    """Tell whether a uri is the path of a picture file, there or not, and not of a row of a table, or a member."""
    inside = (*archive.ENDINGS, *table_files.ENDINGS)
    within = any(uri[:place].lower().endswith(inside) for place, letter in enumerate(uri) if letter in "!#")
    return os.path.isabs(uri) and not within


def is_missing(uri: str) -> bool:
    """Tell whether a uri is the path of a picture file that is not there.

    Never for what lies in a table or an archive, also one that cannot be reached, for URLs and pictures in memory, nor
    where the system does not say: a folder that may not be looked into, for one.
    """
    try:
        if is_path(uri):
            os.lstat(uri)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        pass
    return False


def _pictures_inside(holder: str, wanted: set[str]) -> dict[str, PictureSource]:
    """Read pictures out of a table or an archive; none where another file is in its place by now."""
    pictures: dict[str, PictureSource] = {}
    with contextlib.suppress(SourceError, OSError):
        is_archive = holder.lower().endswith(archive.ENDINGS)
        source = ArchiveSource(holder) if is_archive else TableSource(table_files.open_table_file(holder))
        for record in source:
            if record.uri in wanted:
                wanted.remove(record.uri)
                with contextlib.suppress(ImageError, OSError):
                    pictures[record.uri] = record.load()
            if not wanted:
                break
    return pictures


def _things(source: Any) -> Iterator[tuple[_Kind, Any]]:
    """Yield what a source consists of, one by one, with its kind."""
    if isinstance(source, (str, os.PathLike)):
        yield from _of_text(os.fspath(source))
    elif isinstance(source, np.ndarray):  # one that is no picture is a failure of its own, later
        yield from (("picture", array) for array in (source if source.ndim == 4 else [source]))
    elif is_image(source):
        yield "picture", source
    elif hub.is_dataset(source) or table_files.is_arrow_like(source):
        yield "object", source
    elif isinstance(source, Mapping):
        yield ("picture" if set(source) == {"bytes", "path"} else "record"), source
    elif isinstance(source, Iterable):
        for item in source:
            yield from _things(item)
    else:
        raise SourceError(f"expected {_WHAT_IS_READ}; found an object of type {type(source).__name__}")


def _of_text(text: Any) -> Iterator[tuple[_Kind, str]]:
    """Yield what a path, a glob, a URL or a name means."""
    if not isinstance(text, str) or not text:
        raise SourceError(f"expected {_WHAT_IS_READ}; found {text!r}")
    if is_url(text):
        yield "url", text
    elif text.startswith(hub.PREFIX):
        yield "name", text
    else:
        try:
            paths = expand(text)
        except SourceNotFoundError:
            if not hub.looks_like_name(text):
                raise
            yield "name", text
            return
        for path in paths:
            yield from _of_path(path)


def _of_path(path: str) -> Iterator[tuple[_Kind, str]]:
    """Yield a path that exists, or what the list at that path names."""
    lower = path.lower()
    if os.path.isdir(path):
        yield "saved" if hub.is_saved(path) else "file", path
    elif lower.endswith(table_files.ENDINGS):
        yield "table", path
    elif lower.endswith(archive.ENDINGS):
        yield "archive", path
    elif lower.endswith(".txt"):
        yield from _of_list(path)
    else:
        yield "file", path


def _of_list(path: str) -> Iterator[tuple[_Kind, str]]:
    """Yield the lines of a text file; paths are relative to it, lines that start with # are remarks."""
    try:
        with open_regular(path) as file:
            lines = [line.strip() for line in file.read(_LARGEST_LIST + 1).decode().split("\n")]
            if file.tell() > _LARGEST_LIST:
                raise SourceError(
                    f"{path} has more than the {_LARGEST_LIST:,} bytes of a list of paths and URLs: cut it"
                )
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is no text file of paths and URLs: {error}") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise SourceError(f"{path} is empty; expected a path or a URL on each line")
    for line in lines:
        if is_url(line):
            yield "url", line
        else:
            yield from _of_path(os.path.join(os.path.dirname(path), line))
