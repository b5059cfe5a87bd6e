"""Parquet, Arrow, JSON lines and CSV files, and tables in memory -> records, one for each row with a picture.

A file becomes a `Tabular`, a stream of pyarrow tables; a `TableSource` finds the column of pictures, which are taken
as they are stored, undecoded, so that they are hashed as files are. The columns beside it are metadata, see
`metadata_columns`. Hugging Face writes the features of a data set (`Image`, `ClassLabel`) as JSON into the schema's
metadata; they are read from there, so that no data set library is needed. Columns of vectors are left to
`vector_batches`, data sets to `hub`, pictures that are Python objects to `python_objects`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pyarrow as pa

from embedstore import cells
from embedstore.errors import ImageError, SourceError, option
from embedstore.files import open_regular
from embedstore.images import PictureSource, content_hash, file_content, turns
from embedstore.sources.metadata_columns import (
    features_of,
    is_binary,
    is_text,
    kept_columns,
    kept_names,
    vector_columns,
)
from embedstore.sources.record import Passing, Record, Source, named_in_memory, own_ids
from embedstore.sources.web import download, is_url, without_password
from embedstore.wording import counted

ENDINGS = (".parquet", ".pq", ".arrow", ".feather", ".jsonl", ".ndjson", ".csv", ".tsv")

_Load: TypeAlias = tuple[Callable[[], PictureSource] | None, str | None, int | None]
"""How to get at a picture, None where there is none; the path or URL where it lies outside the table, else its size."""

_UNREADABLE = "unreadable"
_ROWS = 64  # pictures of a piece are in memory together
_BUFFER = 1 << 20
_LONGEST_TEXT = 250_000
_LARGEST_TEXT_FILE = 256 << 20
_LIKELY_NAMES = ("image", "img", "picture", "photo", "file_name", "image_path", "path", "image_url", "url")


class TableSource(Source):
    """The rows of a table.

    Keys are ``file:<path>#<row>`` for files. Rows of a table in memory have no place of their own that lasts, so they
    are named as `named_in_memory` says; a column ``id`` of a table that has `own_ids` is what they are called.

    `image_column` names the column of pictures where it cannot be found by its type. A `split` becomes metadata of each
    row; a column of that name in the table is preferred. Raises SourceError where no column holds pictures, or the ids
    are none.
    """

    def __init__(self, tabular: Tabular, image_column: str | None = None, split: str | None = None) -> None:
        self._tabular = tabular
        self._extra = {} if split is None else {"split": split}
        self._column = _image_column(tabular.schema, image_column)
        kept, left_out = tabular.kept(without=self._column)
        text = f"{'rows' if tabular.rows is None else counted(tabular.rows, 'row')} of {tabular.name}"
        text += f": pictures in {self._column!r}"
        text += f", metadata {', '.join(kept)}" if kept else ""
        text += f"; left out: {', '.join(f'{name} ({why})' for name, why in left_out.items())}" if left_out else ""
        self._at_once = tabular.at_once([self._column, *kept], _ROWS) if tabular.at_once is not None else _ROWS
        super().__init__(text, tabular.rows)
        self.left_out = left_out
        self._ids: list[str] | None = None
        if tabular.own_ids and "id" in kept:
            self._ids = own_ids(tabular.values("id"), tabular.name)

    def __iter__(self) -> Iterator[Record]:
        first, seen = 0, Counter[str]()
        for column, scalars in self._tabular.pieces(self._at_once, self._column, self.left_out):
            metadata = scalars.to_pylist()
            for offset, (load, place, size) in enumerate(self._loads(column.combine_chunks())):
                row = first + offset
                values = self._extra | (metadata[offset] if metadata else {})
                own = None if self._ids is None else self._ids[row]
                if own is not None:
                    del values["id"]
                why = "has no picture" if load is None else _too_long(values)
                if load is None or why:
                    self._fail(f"{self._tabular.name}#{row}", f"row {row} {why}")
                    continue
                key, uri = self._names(row, load, seen, own)
                if place is not None:
                    seen[place] += 1
                    uri = place if seen[place] == 1 else uri
                if size is None or self._tabular.row is None:
                    yield Record(key, uri, load, values, id=own)
                    continue
                at_hand = Passing(load, functools.partial(self._again, row))
                yield Record(key, uri, at_hand, values, size)
                at_hand.gone()
            first += len(column)

    def _again(self, row: int) -> PictureSource:
        """Load a row whose piece has gone by."""
        assert self._tabular.row is not None
        load, _, _ = next(iter(self._loads(self._tabular.row(row, self._column))))
        if load is None:
            raise ImageError("the table was changed while it was read; try again")
        return load()

    def _names(
        self, row: int, load: Callable[[], PictureSource], seen: Counter[str], own: str | None
    ) -> tuple[str, str]:
        """Return the key of a row, and a uri that no other row has."""
        if self._tabular.stable_rows:
            place = f"{self._tabular.name}#{row}"
            return (place if "://" in place else f"file:{place}"), place
        digest = _UNREADABLE
        if own is None:
            with contextlib.suppress(OSError, ImageError):  # reported when it is loaded again for embedding
                digest = content_hash(load())
        return named_in_memory("table:", digest, row, seen, own)

    def _loads(self, column: pa.Array) -> Iterator[_Load]:
        """Yield for each row how to get at its picture."""
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        paths: list[str | None] = [None] * len(column)
        if _is_picture_struct(column.type):
            fields = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
            column, paths = fields["bytes"], fields["path"].to_pylist()
        elif is_text(column.type):
            column, paths = pa.nulls(len(column)), column.to_pylist()
        elif not is_binary(column.type):
            yield from [(functools.partial(_refuse, self._column, column.type), None, None)] * len(column)
            return
        for value, path in zip(column, paths, strict=True):
            if value.is_valid:
                size = value.as_buffer().size
                yield functools.partial(_cell, value, size), None, size
            else:
                yield (*self._elsewhere(path), None)

    def _elsewhere(self, path: str | None) -> tuple[Callable[[], PictureSource] | None, str | None]:
        """Return how to get at the file or URL that a text in the table means."""
        if not path:
            return None, None
        if is_url(path):
            return functools.partial(download, path), without_password(path)
        place = os.path.normpath(os.path.join(self._tabular.folder or os.getcwd(), path))
        if self._tabular.downloads is not None and not _lies_below(place, self._tabular.downloads):
            return functools.partial(_refuse_local, path), None
        return functools.partial(file_content, place), place


@dataclass(frozen=True)
class Tabular:
    """A table that is read piece by piece; `name` is for people: the path, or what it is.

    The number of rows is None where it is not cheap to know. ``stream(n, columns)`` yields tables of at most about `n`
    rows with these columns, or all, from the start each time. Relative paths in the table start from `folder`. With
    `stable_rows` row 7 is the same row tomorrow: true for a file, false for what somebody shuffled in memory. A table
    that was downloaded may name files in the folders of `downloads` only. Where pieces are unpacked one after the
    other, ``at_once(columns, most)`` says how many rows fit into memory, ``row(n, column)`` unpacks one again, and
    ``crowded()`` names columns of which a row may hold too much, with the reason. With `own_ids` a column ``id`` is
    what the user calls the rows: true for a table that somebody made in memory.
    """

    name: str
    schema: pa.Schema
    rows: int | None
    stream: Callable[[int, list[str] | None], Iterator[pa.Table]]
    folder: str | None = None
    stable_rows: bool = True
    downloads: Sequence[str] | None = None
    at_once: Callable[[list[str], int], int] | None = None
    row: Callable[[int, str], pa.Array] | None = None
    own_ids: bool = False
    crowded: Callable[[], Mapping[str, str]] = dict

    def pieces(self, n: int, column: str, left_out: dict[str, str]) -> Iterator[tuple[pa.ChunkedArray, pa.Table]]:
        """Yield a column and the metadata beside it, see `kept_columns`, for at most about `n` rows at a time.

        Columns that turn out to be no metadata go into `left_out`, with the reason.
        """
        features = features_of(self.schema)
        kept, unkept = self.kept(without=column)
        left_out.update(unkept)
        is_first = True
        with _reading(f"{self.name} cannot be read to its end"):
            for piece in self.stream(n, [column, *kept]):
                piece.validate(full=True)  # readers believe lengths, offsets and encodings as they find them
                if is_first:
                    vectors = vector_columns(piece.select(kept))
                    left_out.update(dict.fromkeys(vectors, "vectors"))
                    kept, is_first = [name for name in kept if name not in vectors], False
                yield piece[column], kept_columns(piece, kept, features, left_out)

    def kept(self, without: str) -> tuple[list[str], dict[str, str]]:
        """Return the names of the columns that are metadata, and of those left out, with the reason."""
        names, left_out = kept_names(self.schema, without)
        nested = {name for name in names if self.schema.field(name).type.num_fields}
        crowded = {name: why for name, why in self.crowded().items() if name in nested} if nested else {}
        return [name for name in names if name not in crowded], left_out | crowded

    def values(self, column: str) -> list[Any]:
        """Return a column whole."""
        return [value for piece in self.stream(1_000_000, [column]) for value in piece[column].to_pylist()]

    def table(self) -> pa.Table:
        """Return all of it, where that is known to be small."""
        pieces = list(self.stream(1_000_000, None))
        return pa.concat_tables(pieces) if pieces else self.schema.empty_table()


def open_table_file(path: str) -> Tabular:
    """Open a table file by its ending; raises SourceError where the file is not what its ending says."""
    path = os.path.abspath(path)
    ending = os.path.splitext(path)[1].lower()
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    if ending in (".jsonl", ".ndjson", ".csv", ".tsv") and size > _LARGEST_TEXT_FILE:
        raise SourceError(
            f"{path} has {size:,} bytes; of texts, which are parsed whole, {_LARGEST_TEXT_FILE:,} are the most: "
            "cut it, or save the table as Parquet"
        )
    with _reading(f"{path} cannot be read as {ending[1:]}"):
        if ending in (".parquet", ".pq"):
            tabular = _parquet(path)
        else:
            table = _read_arrow(path) if ending in (".arrow", ".feather") else _read_text(path, ending)
            tabular = _of_table(table, path, folder=os.path.dirname(path), stable_rows=True)
        for field in tabular.schema:  # a name that is no UTF-8 is found here
            _ = field.name, [inner.name for inner in field.type] if pa.types.is_struct(field.type) else []
    return tabular


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn what Arrow makes of damaged bytes into a SourceError; errors of the disk stay what they are."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SourceError(f"{what}: {' '.join(str(error).split())}") from error


def read_small(path: str) -> pa.Table:
    """Read a whole table file, such as the metadata of a folder; raises what `open_table_file` raises."""
    return open_table_file(path).table()


def is_arrow_like(source: Any) -> bool:
    """Return whether this is a table in memory: pyarrow, pandas, Polars, DuckDB and others speak this protocol."""
    return hasattr(source, "__arrow_c_stream__")


def of_arrow_like(source: Any) -> Tabular:
    """Wrap anything that can be streamed as Arrow; SourceError where a column of it cannot."""
    try:
        table = source if isinstance(source, pa.Table) else pa.RecordBatchReader.from_stream(source).read_all()
    except (pa.ArrowException, TypeError) as error:
        raise SourceError(
            f"this {type(source).__name__} cannot be read as a table: {' '.join(str(error).split())}; leave that "
            "column out, or give its values one type"
        ) from error
    tabular = _of_table(table, f"a table of {table.num_rows:,} rows in memory", folder=None, stable_rows=False)
    return replace(tabular, own_ids=True)


def _of_table(table: pa.Table, name: str, *, folder: str | None, stable_rows: bool) -> Tabular:
    """Wrap a table that is in memory, or mapped."""

    def stream(rows: int, columns: list[str] | None) -> Iterator[pa.Table]:
        chosen = table if columns is None else table.select(columns)
        for start in range(0, table.num_rows, rows):
            yield chosen.slice(start, rows)

    return Tabular(name, table.schema, table.num_rows, stream, folder, stable_rows)


def _parquet(path: str) -> Tabular:
    """Open a Parquet file; only its footer is read now."""
    import pyarrow.parquet as pq  # late: folders of pictures do not need it

    from embedstore.sources.parquet_pages import crowded, rows_at_once

    with pq.ParquetFile(path) as file:
        schema, metadata = file.schema_arrow, file.metadata

    def batches(size: int, columns: list[str] | None, **options: Any) -> Iterator[pa.RecordBatch]:
        # A mapped file is faster; but what was looked at of it counts as memory of this process.
        how = {"memory_map": True} if size > _ROWS else {"buffer_size": _BUFFER}
        with pq.ParquetFile(path, **how) as opened:
            yield from opened.iter_batches(size, columns=columns, **options)

    def stream(size: int, columns: list[str] | None) -> Iterator[pa.Table]:
        yield from (pa.Table.from_batches([batch]) for batch in batches(size, columns))

    def row(number: int, column: str) -> pa.Array:
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if number < rows:
                found = itertools.islice(batches(1, [column], row_groups=[group]), number, None)
                return next(found).column(column)
            number -= rows
        raise ImageError("the table was changed while it was read; try again")

    at_once = functools.partial(rows_at_once, path)
    unkept, folder = functools.partial(crowded, path), os.path.dirname(path)
    return Tabular(path, schema, metadata.num_rows, stream, folder, at_once=at_once, row=row, crowded=unkept)


def _read_arrow(path: str) -> pa.Table:
    """Map an Arrow file, in the file format or in the stream format that Hugging Face caches use."""
    mapped = pa.memory_map(path)
    try:
        return pa.ipc.open_file(mapped).read_all()
    except pa.ArrowInvalid:
        mapped.seek(0)
        return pa.ipc.open_stream(mapped).read_all()


def _read_text(path: str, ending: str) -> pa.Table:
    """Parse JSON lines or CSV; types are inferred from all values of a column."""
    if ending in (".jsonl", ".ndjson"):
        import pyarrow.json as pj  # late: rarely needed

        return pj.read_json(path)
    import pyarrow.csv as pcsv  # late: rarely needed

    # Line breaks inside quotes are what captions have; a file name of digits only is still a name.
    layout = pcsv.ParseOptions(delimiter="\t" if ending == ".tsv" else ",", newlines_in_values=True)
    types = pcsv.ConvertOptions(column_types={"file_name": pa.string()})
    return _unmarked(pcsv.read_csv(path, parse_options=layout, convert_options=types))


def _unmarked(table: pa.Table) -> pa.Table:
    """Return a table that was CSV with the texts that its cells mean, see `cells`."""
    import pyarrow.compute as pc  # late: rarely needed

    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            texts = pc.replace_substring_regex(table.column(number), pattern=cells.MARKED, replacement=r"\1")
            table = table.set_column(number, field.name, texts)
    return table.rename_columns([cells.read(name) for name in table.column_names])


def _image_column(schema: pa.Schema, wanted: str | None) -> str:
    """Return the column that holds the pictures.

    In this order: the column asked for; one that Hugging Face calls an `Image`; a struct of bytes and path; the only
    binary column, or the one with a likely name; a text column with a likely name, which then holds paths or URLs.
    """
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if wanted is not None:
        if wanted not in schema.names:
            raise SourceError(f"there is no column {wanted!r} for the pictures; found {columns}")
        return wanted
    features = features_of(schema)
    hub_images = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    structs = [field.name for field in schema if _is_picture_struct(field.type)]
    binary = [field.name for field in schema if is_binary(field.type)]
    text = [name for name in _LIKELY_NAMES if name in schema.names and is_text(schema.field(name).type)]
    for candidates in (hub_images, structs, binary, text[:1]):
        likely = [name for name in _LIKELY_NAMES if name in candidates]
        if len(candidates) == 1 or len(likely) == 1:
            return likely[0] if likely else candidates[0]
        if candidates:
            raise SourceError(
                f"several columns may hold the pictures: {', '.join(candidates)}; "
                f"say which with {option('image_column', candidates[0])}"
            )
    raise SourceError(
        f"no column holds pictures (bytes, or a struct of bytes and path); found {columns}. "
        f"Name one with {option('image_column', 'NAME')}, or give {option('embedding_column', 'NAME')} "
        "if the table holds vectors"
    )


def _is_picture_struct(kind: pa.DataType) -> bool:
    """Return whether this is a struct of bytes and path, the way that Hugging Face stores pictures."""
    return pa.types.is_struct(kind) and {field.name for field in kind} >= {"bytes", "path"}


def _lies_below(place: str, folders: Sequence[str]) -> bool:
    """Return whether a path leads into one of the folders, links followed."""
    real = os.path.realpath(place)
    return any(real.startswith(os.path.join(os.path.realpath(folder), "")) for folder in folders)


def _cell(value: pa.Scalar, size: int) -> bytes:
    """Copy a cell out of its table, once there is room for it."""
    turns.hold_file(size)
    data: bytes = value.as_py()
    return data


def _too_long(values: Mapping[str, Any]) -> str | None:
    """Say which value is no metadata any more, if one is."""
    long = [name for name, value in values.items() if isinstance(value, str) and len(value) > _LONGEST_TEXT]
    return f"has more than {_LONGEST_TEXT:,} characters in {long[0]!r}: leave that column out" if long else None


def _refuse_local(path: str) -> bytes:
    """Refuse a file that a table from elsewhere names."""
    raise ImageError(
        f"the table was downloaded and names the file {path!r} of this machine, which is not opened for it; "
        "save the table here first if you trust it"
    )


def _refuse(column: str, kind: pa.DataType) -> bytes:
    """Say that a column was named for pictures that cannot hold any."""
    raise ImageError(f"column {column!r} is of type {kind}; expected bytes, a struct of bytes and path, or paths")
