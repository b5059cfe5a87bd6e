"""Anything that holds pictures -> a `Source` of records; anything that holds vectors -> `vector_batches`.

Here is decided what kind of thing was given; one module for each kind does the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from embedstore.errors import SourceError, SourceNotFoundError
from embedstore.sources import archive, hub, memory, tabular
from embedstore.sources.archive import ArchiveSource
from embedstore.sources.folder import FileSource
from embedstore.sources.given import VectorBatch, vector_batches
from embedstore.sources.memory import MemorySource
from embedstore.sources.paths import expand
from embedstore.sources.places import pictures_at
from embedstore.sources.record import Chain, Failure, Record, Source
from embedstore.sources.table import TableSource
from embedstore.sources.web import UrlSource, is_url

__all__ = ["Failure", "Record", "Source", "VectorBatch", "open_source", "pictures_at", "vector_batches"]

_WHAT_IS_READ = (
    "a folder, a glob, picture files, tables (.parquet .arrow .jsonl .csv), archives (.tar .zip), a .txt list, URLs, "
    "hf://org/name, a data set, a DataFrame, Pillow images, arrays, bytes, or a list of these"
)


def open_source(
    source: Any,
    *,
    label_from_folder: bool = False,
    embedding_column: str | None = None,
    image_column: str | None = None,
    split: str | None = None,
) -> Source:
    """Find out what kind of source this is, and list it.

    Parameters
    ----------
    source : str, path, object or list
        * a folder (recursive), a glob, a picture file; ``metadata.csv|jsonl|parquet`` beside the files is
          read;
        * a ``.parquet``, ``.arrow``, ``.jsonl`` or ``.csv`` file with a column of pictures, paths or URLs, or
          a folder written by ``Dataset.save_to_disk``;
        * a ``.tar``, ``.tar.gz`` or ``.zip``; a ``.txt`` file of paths and URLs, one a line; an http(s) URL;
        * ``hf://org/name``, ``hf://org/name:split``, or ``org/name`` where no such path is here: loaded from
          the hub;
        * a `datasets.Dataset` or `DatasetDict`, a pyarrow Table, a DataFrame;
        * Pillow images, arrays, bytes of a file; or a list of any of these. Things of a list come grouped:
          files first, then tables and archives, URLs, pictures in memory, each in their order.
    label_from_folder : bool
        Add a column ``label``: the name of the folder that a file lies in.
    embedding_column : str, optional
        Refused here, with the way forward: a table of vectors is read by `vector_batches`.
    image_column : str, optional
        The column of a table that holds the pictures, where it cannot be found by its type.
    split : str, optional
        Take only this split of a data set.

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
    if embedding_column is not None:
        raise SourceError(
            f"column {embedding_column!r} holds vectors, not pictures: read it with vector_batches(source, column)"
        )
    gathered = _Gathered()
    gathered.take(source)
    return gathered.sources(label_from_folder, image_column, split)


class _Gathered:
    """What was given, sorted by kind."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.tables: list[str] = []
        self.archives: list[str] = []
        self.saved: list[str] = []
        self.names: list[str] = []
        self.objects: list[Any] = []
        self.urls: list[str] = []
        self.pictures: list[Any] = []

    def take(self, source: Any) -> None:
        """Sort one thing in, or each thing of a list."""
        if isinstance(source, (str, os.PathLike)):
            self._take_text(os.fspath(source))
        elif memory.is_picture(source):
            self.pictures.append(source)
        elif isinstance(source, np.ndarray):
            self.pictures.extend(source)
        elif hub.is_dataset(source) or tabular.is_arrow_like(source):
            self.objects.append(source)
        elif isinstance(source, Iterable) and not isinstance(source, Mapping):
            for item in source:
                self.take(item)
        else:
            raise SourceError(f"expected {_WHAT_IS_READ}; found an object of type {type(source).__name__}")

    def _take_text(self, text: Any) -> None:
        """Sort a path, a URL or a name in."""
        if not isinstance(text, str) or not text:
            raise SourceError(f"expected {_WHAT_IS_READ}; found {text!r}")
        if is_url(text):
            self.urls.append(text)
        elif text.startswith(hub.PREFIX):
            self.names.append(text)
        else:
            try:
                paths = expand(text)
            except SourceNotFoundError:
                if not hub.looks_like_name(text):
                    raise
                self.names.append(text)
                return
            for path in paths:
                self._take_path(path)

    def _take_path(self, path: str) -> None:
        """Sort in a path that exists."""
        lower = path.lower()
        if os.path.isdir(path):
            (self.saved if hub.is_saved(path) else self.files).append(path)
        elif lower.endswith(tabular.ENDINGS):
            self.tables.append(path)
        elif lower.endswith(archive.ENDINGS):
            self.archives.append(path)
        elif lower.endswith(".txt"):
            self._take_list(path)
        else:
            self.files.append(path)

    def _take_list(self, path: str) -> None:
        """Sort in the lines of a text file; paths are relative to it, lines that start with # are remarks."""
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.strip() for line in file]
        except UnicodeDecodeError as error:
            raise SourceError(f"{path} is no text file of paths and URLs: {error}") from error
        lines = [line for line in lines if line and not line.startswith("#")]
        if not lines:
            raise SourceError(f"{path} is empty; expected a path or a URL on each line")
        for line in lines:
            if is_url(line):
                self.urls.append(line)
            else:
                self._take_path(os.path.join(os.path.dirname(path), line))

    def sources(self, label_from_folder: bool, image_column: str | None, split: str | None) -> Source:
        """Open what was gathered."""
        if split is not None and not (self.saved or self.names or self.objects):
            raise SourceError(f"only data sets have splits, so there is no split {split!r} in this source")
        parts: list[Source] = []
        if self.files:
            parts.append(FileSource(self.files, label_from_folder=label_from_folder))
        tables = map(tabular.open_table_file, self.tables)
        parts += (TableSource(table, image_column=image_column) for table in tables)
        parts += (ArchiveSource(path, label_from_folder=label_from_folder) for path in self.archives)
        parts += (hub.from_disk(path, image_column=image_column, split=split) for path in self.saved)
        parts += (hub.from_name(name, image_column=image_column, split=split) for name in self.names)
        parts += (_of_object(thing, image_column, split) for thing in self.objects)
        if self.urls:
            parts.append(UrlSource(self.urls))
        if self.pictures:
            parts.append(MemorySource(self.pictures))
        if not parts:
            raise SourceError(f"the list is empty; expected {_WHAT_IS_READ}")
        return parts[0] if len(parts) == 1 else Chain(parts)


def _of_object(thing: Any, image_column: str | None, split: str | None) -> Source:
    """Open a data set or a table in memory."""
    if hub.is_dataset(thing):
        return hub.from_object(thing, image_column=image_column, split=split)
    return TableSource(tabular.of_arrow_like(thing), image_column=image_column)
