"""Parquet, Arrow, JSON lines and CSV files, and tables in memory -> a stream of pyarrow tables.

Knows files and formats, nothing of pictures or vectors; those are found in the tables by `columns`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from embedstore.errors import SourceError

ENDINGS = (".parquet", ".pq", ".arrow", ".feather", ".jsonl", ".ndjson", ".csv", ".tsv")


@dataclass(frozen=True)
class Tabular:
    """A table that is read piece by piece.

    Attributes
    ----------
    name : str
        For people: the path, or what it is.
    schema : pyarrow.Schema
    rows : int or None
        Number of rows, where that is cheap to know.
    stream : callable
        ``stream(n, columns)`` yields tables of at most about `n` rows with these columns, from the start each
        time.
    folder : str or None
        Where relative paths in the table start from.
    stable_rows : bool
        Whether row 7 is the same row tomorrow: true for a file, false for what somebody shuffled in memory.
    """

    name: str
    schema: pa.Schema
    rows: int | None
    stream: Callable[[int, list[str] | None], Iterator[pa.Table]]
    folder: str | None = None
    stable_rows: bool = True


def open_table_file(path: str) -> Tabular:
    """Open a table file by its ending.

    Raises
    ------
    SourceError
        The file is not what its ending says.
    """
    path = os.path.abspath(path)
    ending = os.path.splitext(path)[1].lower()
    try:
        if ending in (".parquet", ".pq"):
            return _parquet(path)
        table = _read_arrow(path) if ending in (".arrow", ".feather") else _read_text(path, ending)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(f"{path} cannot be read as {ending[1:]}: {error}") from error
    return of_table(table, path, folder=os.path.dirname(path), stable_rows=True)


def read_small(path: str) -> pa.Table:
    """Read a whole table file, such as the metadata of a folder.

    Raises
    ------
    SourceError
        The file is not what its ending says.
    """
    tabular = open_table_file(path)
    pieces = list(tabular.stream(1_000_000, None))
    return pa.concat_tables(pieces) if pieces else tabular.schema.empty_table()


def of_table(table: pa.Table, name: str, *, folder: str | None = None, stable_rows: bool = False) -> Tabular:
    """Wrap a table that is in memory, or mapped."""

    def stream(rows: int, columns: list[str] | None) -> Iterator[pa.Table]:
        chosen = table if columns is None else table.select(columns)
        for start in range(0, table.num_rows, rows):
            yield chosen.slice(start, rows)

    return Tabular(name, table.schema, table.num_rows, stream, folder, stable_rows)


def is_arrow_like(source: Any) -> bool:
    """Return whether this is a table in memory: pyarrow, pandas, Polars, DuckDB and others speak this protocol."""
    return hasattr(source, "__arrow_c_stream__")


def of_arrow_like(source: Any) -> Tabular:
    """Wrap anything that can be streamed as Arrow."""
    table = source if isinstance(source, pa.Table) else pa.RecordBatchReader.from_stream(source).read_all()
    return of_table(table, f"a table of {table.num_rows:,} rows in memory")


def _parquet(path: str) -> Tabular:
    """Open a Parquet file; only its footer is read now."""
    import pyarrow.parquet as pq  # late: folders of pictures do not need it

    file = pq.ParquetFile(path)
    schema, rows = file.schema_arrow, file.metadata.num_rows
    file.close()

    def stream(size: int, columns: list[str] | None) -> Iterator[pa.Table]:
        with pq.ParquetFile(path, memory_map=True) as opened:
            for batch in opened.iter_batches(size, columns=columns):
                yield pa.Table.from_batches([batch])

    return Tabular(path, schema, rows, stream, os.path.dirname(path))


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
    return pcsv.read_csv(path, parse_options=layout, convert_options=types)
