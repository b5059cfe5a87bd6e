"""The name of a file that a person wants written -> whether it may be: its ending, its folder, and what lies there now.

A result (a table, a sheet, a page) replaces what embedstore itself has written, and nothing else. Rows are written
here, in the format that the ending names; how anything else is written is left to whoever writes it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from embedstore import cells
from embedstore.errors import InputError, NotOursError, PathError, spelt
from embedstore.files import kind_of, naming, replace
from embedstore.settings import state_dir

if TYPE_CHECKING:
    import pyarrow as pa

    Table: TypeAlias = pa.Table | pa.RecordBatchReader | list[dict[str, Any]]

SHEETS = (".png", ".jpg", ".jpeg")
CURVES = (".png", ".svg", ".pdf")
PAGES = (".html", ".htm")
REVIEWS = (".csv",)
ROWS = (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".arrow")
"""Endings of the files that are written under a name that a person gives: what `to_write` is asked with."""
DELIMITERS = {"csv": ",", "tsv": "\t"}
_AT_ONCE = 10_000


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


def write_rows(rows: Table, file: Path) -> None:
    """Write rows to a file in the format that its ending names, one of `ROWS`."""
    with naming(file):
        form = file.suffix.lower().removeprefix(".")
        if form in ("parquet", "arrow"):
            _write_arrow(rows, file, form)
            return
        with file.open("w", newline="", encoding="utf-8") as stream:
            if form in DELIMITERS:
                write_lines(rows, stream, DELIMITERS[form])
            elif form == "jsonl":
                stream.writelines(f"{as_json(row)}\n" for row in plain_rows(rows))
            else:
                stream.write(json.dumps(list(plain_rows(rows)), indent=1, default=_text) + "\n")


def write_lines(rows: Table, stream: Any, delimiter: str) -> None:
    """Write rows to a stream of text as CSV, a line with the names of the columns first."""
    stream.write(cells.line(column_names(rows), delimiter))
    for row in plain_rows(rows):
        values = (_text(value) if isinstance(value, date) else value for value in row.values())
        stream.write(cells.line(values, delimiter))


def plain_rows(rows: Table) -> Iterator[dict[str, Any]]:
    """Yield rows as dictionaries; float32 values keep the shortest digits that read back as the same float32."""
    if isinstance(rows, list):
        yield from rows
        return
    import numpy as np

    short = [field.name for field in rows.schema if str(field.type) == "float"]
    for table in _tables(rows):
        for start in range(0, len(table), _AT_ONCE):
            for row in to_dicts(table.slice(start, _AT_ONCE)):
                for name in short:
                    if row[name] is not None:
                        row[name] = float(str(np.float32(row[name])))
                yield row


def to_dicts(rows: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as dictionaries, as Arrow's `to_pylist` does, which would import pandas for a time in UTC."""
    columns = [_values(column) for column in rows.columns]
    return [dict(zip(rows.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    if str(column.type) != "timestamp[us, tz=UTC]":
        return list(column.to_pylist())
    start = datetime(1970, 1, 1, tzinfo=UTC)
    counts = column.cast("int64").to_pylist()
    return [None if count is None else start + timedelta(microseconds=count) for count in counts]


def _tables(rows: pa.Table | pa.RecordBatchReader) -> Iterator[Any]:
    """Yield what holds rows: a table as a whole, a stream batch by batch."""
    return iter([rows] if hasattr(rows, "num_rows") else rows)


def column_names(rows: Table) -> list[str]:
    """Return the names of the columns."""
    return list(rows[0] if rows else ()) if isinstance(rows, list) else list(rows.schema.names)


def as_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON, times as ISO 8601."""
    return json.dumps(value, indent=indent, default=_text, ensure_ascii=False)


def _write_arrow(rows: Table, file: Path, form: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows) if isinstance(rows, list) else rows
    kind = pq.ParquetWriter if form == "parquet" else pa.ipc.new_file
    with kind(file, table.schema) as writer:
        for some in _tables(table):
            writer.write(some)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)
