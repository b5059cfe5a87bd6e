"""How results are printed: lines in columns for people; JSON, CSV and the like, unrounded, for programs; sheets.

`Output` turns rows (an Arrow table, or dictionaries) or one value into what a command's options ask for. A new format
is an option of `rows_output` and a branch of `Output.table`, or an ending and a branch of `write`. Which rows there
are, and which columns people see of them, is left to the commands.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import click

from embedstore import cells
from embedstore.cli.options import PATH, options
from embedstore.files import naming

if TYPE_CHECKING:
    import pyarrow as pa

    from embedstore.storage.rows import Rows

    Table: TypeAlias = pa.Table | list[dict[str, Any]]

F = TypeVar("F", bound=Callable[..., Any])

MOST_DRAWN = 400
"""Most pictures on one sheet: 50 lines of eight are 23 million points already."""

_ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".arrow")
_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class Output:
    """Where rows go, and in what form: the values of `rows_output` or `value_output`, and of `sheet_option`."""

    form: str | None = None
    file: Path | None = None
    null: bool = False
    quiet: bool = False
    sheet: Path | None = None

    @property
    def on_terminal(self) -> bool:
        """Whether a person reads the lines in a terminal: they go to no file, pipe or program."""
        return self.form is None and self.file is None and sys.stdout.isatty()

    def table(self, rows: Table, lines: Iterable[str]) -> None:
        """Print rows, or write them to the file that ``-o`` names; `lines` is what people see of them."""
        if self.file is not None:
            write(rows, self.file)
            self.say(f"{len(rows):,} rows written to {self.file}")
        elif self.form == "json":
            click.echo(_json(plain(rows), indent=1))
        elif self.form == "nl":
            for row in plain(rows):
                click.echo(_json(row))
        elif self.form in _DELIMITERS:
            _delimited(rows, sys.stdout, _DELIMITERS[self.form])
        elif self.form == "paths":
            if "uri" not in _names(rows):
                raise click.UsageError("these rows have no column 'uri', so there are no paths to print")
            for row in plain(rows if isinstance(rows, list) else rows.select(["uri"])):
                click.echo(f"{row['uri']}\0" if self.null else row["uri"], nl=not self.null)
        elif not self.quiet:
            for line in lines:
                click.echo(line)

    def value(self, value: dict[str, Any], people: str) -> None:
        """Print one result: its fields for programs, its text for people."""
        if self.form is not None:
            click.echo(_json(value, indent=1 if self.form == "json" else None))
        elif not self.quiet:
            click.echo(people)

    def say(self, text: str) -> None:
        """Tell a person something that is no result, on stderr."""
        if not self.quiet:
            click.echo(text, err=True)

    def draw(self, rows: pa.Table, title: str, notes: Sequence[str], store: Rows) -> None:
        """Draw rows of a store with the first of their columns `notes`, if a sheet was asked for; say what is on it."""
        if self.sheet is None:
            return
        if not len(rows):
            self.say("nothing matches, so there is nothing to draw")
            return
        draw(rows, self.sheet, title, next(iter(notes), None), store=store)
        part = f"the first {MOST_DRAWN} of {len(rows):,} pictures " if len(rows) > MOST_DRAWN else ""
        self.say(f"{part}drawn in {self.sheet}")


def _gives_output(function: F) -> F:
    """Hand the values of the options below to a command as one `Output`, named ``output``."""

    @functools.wraps(function)
    def with_output(**values: Any) -> Any:
        chosen = {name: values.pop(name) for name in ("form", "file", "null", "quiet", "sheet") if name in values}
        return function(output=Output(**chosen), **values)

    return with_output  # type: ignore[return-value]


def _ending_in(*endings: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """Return a callback that refuses a file whose name has another ending."""

    def check(ctx: click.Context, param: click.Parameter, file: Path | None) -> Path | None:
        if file is not None and file.suffix.lower() not in endings:
            raise click.BadParameter(f"{file.name!r} should end in one of {' '.join(endings)}")
        return file

    return check


rows_output = options(
    click.option("--json", "form", flag_value="json", help="Print a JSON list."),
    click.option("--nl", "form", flag_value="nl", help="Print one JSON object a line."),
    click.option("--csv", "form", flag_value="csv", help="Print CSV."),
    click.option("--tsv", "form", flag_value="tsv", help="Print TSV."),
    click.option(
        "-o",
        "--output-file",
        "file",
        type=PATH,
        callback=_ending_in(*_ENDINGS),
        metavar="FILE",
        help=f"Write to a file by its ending: {' '.join(_ENDINGS)}.",
    ),
    click.option("-f", "--paths", "form", flag_value="paths", help="Print only where the pictures are."),
    click.option("-0", "null", is_flag=True, help="With -f: end each path with a NUL instead of a newline."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing that was not asked for."),
    _gives_output,
)
"""The options of a command that prints rows; it gets an `Output` as ``output``."""
value_output = options(
    click.option("--json", "form", flag_value="json", help="Print JSON."),
    click.option("--nl", "form", flag_value="nl", help="Print one line of JSON."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing."),
    _gives_output,
)
"""The options of a command that prints one result; it gets an `Output` as ``output``."""
sheet_option = click.option(
    "--sheet",
    type=PATH,
    callback=_ending_in(".png", ".jpg", ".jpeg"),
    metavar="FILE",
    help="Draw the pictures into this PNG or JPEG.",
)


class Column(NamedTuple):
    """A column for people: a field of the rows, how its values are written, and what stands above it."""

    field: str
    form: str | Callable[[Any], str] = ""
    head: str = ""

    def cell(self, value: Any) -> str:
        """Return one value as text; a missing one is empty, unless `form` is a function."""
        if callable(self.form):
            return self.form(value)
        return "" if value is None else format(value, self.form)


def columns(rows: Table, shown: Sequence[Column]) -> Iterator[str]:
    """Yield a line for each row, each column as wide as its widest cell, under a head where there is one.

    Numbers stand to the right, everything else to the left.
    """
    values = rows if isinstance(rows, list) else rows.select([column.field for column in shown]).to_pylist()
    aligned = []
    for column in shown:
        fields = [row[column.field] for row in values]
        cells = [column.cell(value) for value in fields]
        if any(other.head for other in shown):
            cells.insert(0, column.head)
        width = max(map(len, cells), default=0)
        numbers = any(isinstance(value, int | float) and not isinstance(value, bool) for value in fields)
        aligned.append([cell.rjust(width) if numbers else cell.ljust(width) for cell in cells])
    for line in zip(*aligned, strict=True):
        yield "  ".join(line).rstrip()


def draw(
    rows: pa.Table,
    file: Path,
    title: str,
    note: str | None = None,
    marks: Sequence[bool] | None = None,
    store: Rows | None = None,
) -> None:
    """Draw the pictures of rows on a sheet, with their scores and what stands in the column `note`.

    `store` may keep small copies of pictures that no file holds. `marks` puts a green (True) or red line under each.
    The first `MOST_DRAWN` rows are drawn.
    """
    from embedstore.deciding.review import draw_sheet

    rows = rows.slice(0, MOST_DRAWN)
    notes = [None] * len(rows) if note is None else rows.column(note).to_pylist()
    draw_sheet(rows, file, title, notes, marks and marks[: len(rows)], store)


def write(rows: Table, file: Path) -> None:
    """Write rows to a file in the format that its ending names."""
    with naming(file):
        _write(rows, file)


def _write(rows: Table, file: Path) -> None:
    form = file.suffix.lower().removeprefix(".")
    if form in ("parquet", "arrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(rows) if isinstance(rows, list) else rows
        if form == "parquet":
            pq.write_table(table, file)
            return
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    elif form in _DELIMITERS:
        with file.open("w", newline="", encoding="utf-8") as stream:
            _delimited(rows, stream, _DELIMITERS[form])
    elif form == "jsonl":
        file.write_text("\n".join(map(_json, plain(rows))) + "\n", encoding="utf-8")
    else:
        file.write_text(json.dumps(plain(rows), indent=1, default=_text) + "\n", encoding="utf-8")


def plain(rows: Table) -> list[dict[str, Any]]:
    """Return rows as dictionaries; float32 values keep the shortest digits that read back as the same float32."""
    if isinstance(rows, list):
        return rows
    import numpy as np

    values: list[dict[str, Any]] = rows.to_pylist()
    short = [field.name for field in rows.schema if str(field.type) == "float"]
    for row in values:
        for name in short:
            if row[name] is not None:
                row[name] = float(str(np.float32(row[name])))
    return values


def _names(rows: Table) -> list[str]:
    """Return the names of the columns."""
    return list(rows[0] if rows else ()) if isinstance(rows, list) else list(rows.schema.names)


def _delimited(rows: Table, stream: Any, delimiter: str) -> None:
    stream.write(cells.line(_names(rows), delimiter))
    for row in plain(rows):
        values = (_text(value) if isinstance(value, date) else value for value in row.values())
        stream.write(cells.line(values, delimiter))


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, default=_text, ensure_ascii=False)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)
