"""How results are printed: a table for people, or JSON, CSV and the like, unrounded, for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    import pyarrow as pa

F = TypeVar("F", bound=Callable[..., Any])

_FORMATS = ("json", "nl", "csv", "tsv", "paths")
_SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".arrow")


@dataclass(frozen=True)
class Output:
    """Where rows go, and in what form."""

    form: str | None
    file: Path | None
    null: bool
    quiet: bool

    def table(self, rows: pa.Table, people: Callable[[pa.Table], Iterable[str]]) -> None:
        """Print rows, or write them to the file that ``-o`` names."""
        if self.file is not None:
            write(rows, self.file)
            self.say(f"{rows.num_rows:,} rows written to {self.file}")
        elif self.form == "json":
            click.echo(json.dumps(plain(rows), indent=1, default=_text, ensure_ascii=False))
        elif self.form == "nl":
            for row in plain(rows):
                click.echo(json.dumps(row, default=_text, ensure_ascii=False))
        elif self.form in ("csv", "tsv"):
            _delimited(rows, sys.stdout, "," if self.form == "csv" else "\t")
        elif self.form == "paths":
            for uri in rows.column("uri").to_pylist():
                click.echo(uri, nl=not self.null)
                if self.null:
                    click.echo("\0", nl=False)
        elif not self.quiet:
            for line in people(rows):
                click.echo(line)

    def value(self, value: dict[str, Any], people: str) -> None:
        """Print one result: its fields for programs, its text for people."""
        if self.form == "json":
            click.echo(json.dumps(value, indent=1, default=_text, ensure_ascii=False))
        elif self.form == "nl":
            click.echo(json.dumps(value, default=_text, ensure_ascii=False))
        elif not self.quiet:
            click.echo(people)

    def say(self, text: str) -> None:
        """Tell a person something that is no result, on stderr."""
        if not self.quiet:
            click.echo(text, err=True)


def rows_output(function: F) -> F:
    """Add the options of a command that prints rows; it gets an `Output` as ``output``."""
    return _with_output(
        function,
        click.option("-q", "--quiet", is_flag=True, help="Print nothing that was not asked for."),
        click.option(
            "-0", "null", is_flag=True, help="With -f: end each path with a NUL instead of a newline."
        ),
        click.option("-f", "--paths", "form", flag_value="paths", help="Print only where the pictures are."),
        click.option(
            "-o",
            "--output-file",
            "file",
            type=click.Path(path_type=Path),
            callback=_known_suffix,
            metavar="FILE",
            help=f"Write to a file by its ending: {' '.join(_SUFFIXES)}.",
        ),
        click.option("--tsv", "form", flag_value="tsv", help="Print TSV."),
        click.option("--csv", "form", flag_value="csv", help="Print CSV."),
        click.option("--nl", "form", flag_value="nl", help="Print one JSON object a line."),
        click.option("--json", "form", flag_value="json", help="Print a JSON list."),
    )


def value_output(function: F) -> F:
    """Add the options of a command that prints one result; it gets an `Output` as ``output``."""
    return _with_output(
        function,
        click.option("-q", "--quiet", is_flag=True, help="Print nothing."),
        click.option("--nl", "form", flag_value="nl", help="Print one line of JSON."),
        click.option("--json", "form", flag_value="json", help="Print JSON."),
    )


def _with_output(function: F, *options: Callable[[Any], Any]) -> F:
    import functools

    @functools.wraps(function)
    def with_output(**values: Any) -> Any:
        parts = {name: values.pop(name, None) for name in ("form", "file", "null", "quiet")}
        output = Output(parts["form"], parts["file"], bool(parts["null"]), bool(parts["quiet"]))
        return function(output=output, **values)

    wrapped: Any = with_output
    for option in options:
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def _known_suffix(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in _SUFFIXES:
        raise click.BadParameter(f"{value.name!r} should end in one of {' '.join(_SUFFIXES)}")
    return value


def write(rows: pa.Table, file: Path) -> None:
    """Write rows to a file in the format that its ending names."""
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(rows, file)
    elif suffix == ".arrow":
        import pyarrow as pa

        with pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows)
    elif suffix in (".csv", ".tsv"):
        with file.open("w", newline="", encoding="utf-8") as stream:
            _delimited(rows, stream, "," if suffix == ".csv" else "\t")
    else:
        values = plain(rows)
        lines = (json.dumps(row, default=_text, ensure_ascii=False) for row in values)
        text = "\n".join(lines) if suffix == ".jsonl" else json.dumps(values, indent=1, default=_text)
        file.write_text(text + "\n", encoding="utf-8")


def plain(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows as dictionaries; float32 values keep the shortest digits that read back as the same float32."""
    import numpy as np

    values: list[dict[str, Any]] = rows.to_pylist()
    short = [field.name for field in rows.schema if str(field.type) == "float"]
    for row in values:
        for name in short:
            if row[name] is not None:
                row[name] = float(str(np.float32(row[name])))
    return values


def _delimited(rows: pa.Table, stream: Any, delimiter: str) -> None:
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow(rows.schema.names)
    for row in plain(rows):
        writer.writerow([_text(value) if isinstance(value, date) else value for value in row.values()])


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime | date) else str(value)
