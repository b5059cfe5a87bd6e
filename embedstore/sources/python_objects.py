"""Pictures that Python objects hold, with what is known of each: lists of records, data frames of Pillow images.

A record is a dictionary such as ``{"image": picture, "id": "cat-7", "label": "cat"}``, where the picture is a path, a
URL, bytes, a Pillow image or an array. Data frames whose pictures Arrow can hold are left to `table_files`, lists of
bare pictures to `record.MemorySource`.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from embedstore.errors import ImageError, SourceError
from embedstore.images import PictureSource, as_source, content_hash, file_content, is_image
from embedstore.sources.metadata_columns import kept_names, plain_value, scalars_of
from embedstore.sources.record import Record, Source, named_in_memory, own_ids, printable
from embedstore.sources.table_files import of_arrow_like
from embedstore.sources.web import download, is_url, without_password

IMAGE, ID = "image", "id"
"""The keys of a record that are no metadata."""


class ObjectSource(Source):
    """Pictures, each with what is known of it; all named by the rows that they stand in.

    Those that are paths or URLs are the files there; of the others `scheme` begins the uris, see `named_in_memory`.
    """

    def __init__(
        self,
        pictures: Sequence[Any],
        metadata: Sequence[Mapping[str, Any]],
        ids: Sequence[str | None],
        what: str,
        scheme: str,
    ) -> None:
        super().__init__(what, len(pictures))
        self._pictures, self._metadata, self._ids = pictures, metadata, ids
        self._scheme = scheme

    def __iter__(self) -> Iterator[Record]:
        seen, places = Counter[str](), Counter[str]()
        for row, (picture, values) in enumerate(zip(self._pictures, self._metadata, strict=True)):
            own = self._ids[row]
            name = f"{self._scheme} row {row}" if own is None else f"{self._scheme}{printable(own)}#{row}"
            try:
                place, load = _opened(picture)
                if place is None or places[place]:
                    digest = content_hash(load()) if own is None else ""
                    key, uri = named_in_memory(self._scheme, digest, row, seen, own)
                else:
                    key, uri = (f"url:{place}" if is_url(place) else f"file:{place}"), place
                    place.encode()
            except UnicodeEncodeError:
                self._fail(str(place), "the name is not valid UTF-8, so it cannot be stored: rename it")
            except (ImageError, OSError) as error:
                self._fail(name, str(error))
            else:
                if place is not None:
                    places[place] += 1
                yield Record(key, uri, load, self._plain(values), id=own)

    def _plain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is known of a picture as values that can be metadata."""
        kept = {}
        for name, value in values.items():
            if is_image(value) and not isinstance(value, np.ndarray):
                self.left_out[name] = "pictures" if isinstance(value, Image.Image) else "bytes"
                continue
            try:
                kept[name] = plain_value(value)
            except ValueError as error:
                self.left_out[name] = str(error)
        return kept


def of_records(records: Sequence[Mapping[Any, Any]], image_key: str | None) -> Source:
    """Return the pictures of a list of records; SourceError where one has no picture, or the ids are none."""
    image_key = IMAGE if image_key is None else image_key
    what = f"{len(records):,} records in memory"
    for row, record in enumerate(records):
        if image_key not in record:
            found = ", ".join(map(repr, record)) or "no key"
            raise SourceError(
                f"{what}: a record is a dictionary with the key {image_key!r} (a path, a URL, bytes, a Pillow image or "
                f"an array), and 'id' and metadata if you like; row {row} has {found}"
            )
    given = [(row, record[ID]) for row, record in enumerate(records) if record.get(ID) is not None]
    own = dict(zip([row for row, _ in given], own_ids([value for _, value in given], what), strict=True))
    ids = [own.get(row) for row in range(len(records))]
    metadata = [
        {str(name): value for name, value in record.items() if name not in (image_key, ID)} for record in records
    ]
    return ObjectSource([record[image_key] for record in records], metadata, ids, what, "memory:")


def of_frame(frame: Any, image_column: str | None) -> Source | None:
    """Return the pictures of a data frame that has columns of Pillow images or arrays; None for any other table.

    Raises SourceError where it cannot be told which column it is, or the other columns are no table.
    """
    columns = _object_columns(frame)
    if not columns:
        return None
    name = image_column if image_column is not None else _the_one(columns)
    if name not in columns:
        return None
    others = _without(frame, columns)
    count = len(columns[name])
    what = f"{count:,} rows of a table in memory: pictures in {name!r}"
    table, left_out = pa.table({}), dict[str, str]()
    if len(others.columns):
        whole = of_arrow_like(others)
        table, left_out = scalars_of(whole.table()), kept_names(whole.schema)[1]
    ids: Sequence[str | None] = [None] * count
    if ID in table.column_names:
        ids = own_ids(table.column(ID).to_pylist(), f"a table of {count:,} rows in memory")
        table = table.drop_columns([ID])
    metadata = table.to_pylist() if table.num_columns else [{}] * count
    source = ObjectSource(columns[name], metadata, ids, what, "table:")
    source.left_out.update({other: "pictures" for other in columns if other != name} | left_out)
    return source


def _object_columns(frame: Any) -> dict[str, list[Any]]:
    """Return the columns of a data frame, of pandas or Polars, whose first value is a Pillow image or an array."""
    if isinstance(frame, pa.Table) or not hasattr(frame, "columns") or not hasattr(frame, "drop"):
        return {}
    found = {}
    for name in frame.columns:
        if isinstance(name, str) and str(getattr(frame[name], "dtype", "")).lower() == "object":
            values = list(frame[name])
            first = next((value for value in values if not _is_missing(value)), None)
            if isinstance(first, Image.Image) or (isinstance(first, np.ndarray) and is_image(first)):
                found[name] = values
    return found


def _the_one(columns: Mapping[str, Any]) -> str:
    if len(columns) > 1 and IMAGE not in columns:
        raise SourceError(f"several columns may hold the pictures: {', '.join(columns)}; say which with image_column")
    return IMAGE if IMAGE in columns else next(iter(columns))


def _without(frame: Any, names: Sequence[str] | Mapping[str, Any]) -> Any:
    """Return a data frame without some columns, the way that its library spells it."""
    return frame.drop(columns=list(names)) if hasattr(frame, "iloc") else frame.drop(list(names))


def _opened(picture: Any) -> tuple[str | None, Callable[[], PictureSource]]:
    """Return the path or URL that a picture lies at, None for one in memory, and how to load it."""
    if _is_missing(picture):
        raise ImageError("there is no picture")
    if isinstance(picture, str | os.PathLike):
        text = os.fspath(picture)
        if not isinstance(text, str):
            text = os.fsdecode(text)
        if is_url(text):
            return without_password(text), functools.partial(download, text)
        place = os.path.abspath(os.path.expanduser(text))
        return place, functools.partial(file_content, place)
    return None, functools.partial(as_source, picture)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
