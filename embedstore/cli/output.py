"""How results are printed: lines in columns for people; JSON, CSV and the like, unrounded, for programs; sheets.

`Output` turns rows (an Arrow table, or dictionaries) or one value into what a command's options ask for. A new format
is an option of `rows_output` and a branch of `Output.table`, or an ending and a branch of `write`. Which rows there
are, and which columns people see of them, is left to the commands. Whoever reads may stop reading: what is printed
after that is dropped, and the command goes on.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import click

from embedstore.cli.options import PATH, options
from embedstore.errors import InputError, PathError
from embedstore.result_files import (
    DELIMITERS,
    ROWS,
    SHEETS,
    as_json,
    column_names,
    plain_rows,
    to_write,
    write_lines,
    write_rows,
    written_for_people,
)
from embedstore.wording import counted, quoted

if TYPE_CHECKING:
    import pyarrow as pa

    from embedstore.storage.rows import Rows

    Table: TypeAlias = pa.Table | list[dict[str, Any]]

F = TypeVar("F", bound=Callable[..., Any])

MOST_DRAWN = 400
"""Most pictures on one sheet: 50 lines of eight are 23 million points already."""

_OPENING_SECONDS = 2


@dataclass(frozen=True)
class Output:
    """Where rows go, and in what form: the values of `rows_output` or `value_output`, and of `sheet_option`."""

    form: str | None = None
    file: Path | None = None
    null: bool = False
    quiet: bool = False
    sheet: Path | None = None
    look: bool = False
    pictures: Path | None = None
    force: bool = False

    @property
    def on_terminal(self) -> bool:
        """Whether a person reads the lines in a terminal: they go to no file, pipe or program."""
        return self.form is None and self.file is None and sys.stdout.isatty()

    def table(self, rows: Table, lines: Iterable[str]) -> None:
        """Print rows, or write them to the file that ``-o`` names; `lines` is what people see of them."""
        if self.file is not None:
            with written_for_people(self.file, self.force):
                write_rows(rows, self.file)
            self.say(f"{counted(len(rows), 'row')} written to {quoted(str(self.file))}")
            return
        with printing():
            if self.form == "json":
                click.echo(as_json(list(plain_rows(rows)), indent=1))
            elif self.form == "nl":
                for row in plain_rows(rows):
                    click.echo(as_json(row))
            elif self.form in DELIMITERS:
                write_lines(rows, sys.stdout, DELIMITERS[self.form])
            elif self.form == "paths":
                self._paths(rows)
            elif not self.quiet:
                for line in lines:
                    click.echo(line)

    def _paths(self, rows: Table) -> None:
        """Print where the pictures are: as they are for programs, quoted as ``ls`` does for who reads a terminal."""
        if "uri" not in column_names(rows):
            raise click.UsageError("these rows have no column 'uri', so there are no paths to print")
        on_terminal, broken = sys.stdout.isatty(), 0
        for row in plain_rows(rows if isinstance(rows, list) else rows.select(["uri"])):
            uri = row["uri"]
            broken += "\n" in uri
            # click would leave out what looks like a colour.
            sys.stdout.write(f"{uri}\0" if self.null else f"{quoted(uri) if on_terminal else uri}\n")
        if broken and not self.null and not on_terminal:
            self.say(f"{counted(broken, 'path holds', 'paths hold')} a line break: with -0 each ends in a NUL instead")

    def value(self, value: dict[str, Any], people: str) -> None:
        """Print one result: its fields for programs, its text for people."""
        if self.form is not None:
            with printing():
                click.echo(as_json(value, indent=1 if self.form == "json" else None))
        else:
            self.show(people)

    def show(self, text: str) -> None:
        """Print a text for people."""
        if not self.quiet:
            with printing():
                click.echo(text)

    def say(self, text: str) -> None:
        """Tell a person something that is no result, on stderr."""
        if not self.quiet:
            tell(text)

    def copy(self, rows: pa.Table) -> None:
        """Copy the pictures of rows where a folder was named for them, and say how many."""
        if self.pictures is None:
            return
        from embedstore.sources.copies import copy_pictures

        copies = copy_pictures(rows.column("uri").to_pylist(), self.pictures)
        missing = copies.count(None)
        rest = f"; {missing:,} not to be had: gone, or never on this machine" if missing else ""
        self.say(f"{counted(len(copies) - missing, 'picture')} copied to {quoted(str(self.pictures))}{rest}")

    def draw(self, rows: pa.Table, title: str, notes: Sequence[str], store: Rows) -> None:
        """Draw rows of a store with the first of their columns `notes`, if a sheet was asked for; say what is on it."""
        if self.sheet is None:
            return
        if not len(rows):
            self.say("nothing matches, so there is nothing to draw")
            return
        with written_for_people(self.sheet, self.force):
            draw(rows, self.sheet, title, next(iter(notes), None), store=store)
        part = f"the first {MOST_DRAWN} of {len(rows):,} pictures " if len(rows) > MOST_DRAWN else ""
        self.say(f"{part}drawn in {quoted(str(self.sheet))}")
        if self.look and (why := _not_opened(self.sheet)):
            tell(f"no viewer has opened it ({why}); the file stays: {quoted(str(self.sheet))}")


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Print on stdout; where nobody reads on (``| head``), go on without: that is no error."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        drop(sys.stdout)


def tell(text: str) -> None:
    """Print a line on stderr, where somebody still reads that."""
    try:
        click.echo(text, err=True)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        drop(sys.stderr)


def drop(stream: Any) -> None:
    """Let a stream lead nowhere: what it holds back would be tried, and would fail, again when the process ends."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


_FORMS = {"json": "--json", "nl": "--nl", "csv": "--csv", "tsv": "--tsv", "paths": "-f"}


def _gives_output(function: F) -> F:
    """Hand the values of the options below to a command as one `Output`, named ``output``."""

    @functools.wraps(function)
    def with_output(**values: Any) -> Any:
        flags = [form for form in _FORMS if values.pop(f"as_{form}", False)]
        fields = ("file", "null", "quiet", "sheet", "look", "pictures", "force")
        chosen = {name: values.pop(name) for name in fields if name in values}
        said = [*(_FORMS[form] for form in flags), *(["-o"] if chosen.get("file") and flags else [])]
        if len(said) > 1:
            raise click.UsageError(f"{' and '.join(said)} are two forms of the same rows; choose one")
        if chosen.get("null") and "paths" not in flags:
            raise click.UsageError("-0 ends the paths of -f; add -f, or leave -0 out")
        if chosen.get("look") and chosen["sheet"] is None:
            # It outlasts this process, as its viewer does.
            chosen["sheet"] = Path(tempfile.gettempdir(), f"embedstore-{uuid.uuid4().hex}.png")
        if chosen.get("quiet"):
            _silence_waits()
        return function(output=Output(next(iter(flags), None), **chosen), **values)

    return with_output  # type: ignore[return-value]


def _silence_waits() -> None:
    """Let nothing be said of waits, until the command ends."""
    import logging

    from embedstore.embedders.waits import LOGGER

    log = logging.getLogger(LOGGER)
    log.disabled = True
    click.get_current_context().call_on_close(lambda: setattr(log, "disabled", False))


def file_option(
    *names: str, endings: Sequence[str] | Callable[[click.Context], Sequence[str]], **attributes: Any
) -> Callable[[F], F]:
    """Declare an option that names a file to write, which is looked at before any work: see `result_files.to_write`.

    A name with another ending is wrong usage. `endings` may depend on options that are eager.
    """

    def check(ctx: click.Context, param: click.Parameter, file: Path | None) -> Path | None:
        try:
            return None if file is None else to_write(file, endings(ctx) if callable(endings) else endings)
        except PathError:
            raise
        except InputError as error:
            raise click.BadParameter(str(error)) from None

    return click.option(*names, type=PATH, callback=check, **{"metavar": "FILE", **attributes})


def _form(form: str, text: str) -> Callable[[F], F]:
    return click.option(*_FORMS[form].split(), f"as_{form}", is_flag=True, help=text)


force_option = click.option(
    "--force", is_flag=True, help="Replace a file that embedstore did not write, or that was changed since."
)
"""The option of a command that writes a file under a name that a person gives."""
quiet_output = options(
    click.option("-q", "--quiet", is_flag=True, help="Print nothing that was not asked for."), _gives_output
)
"""The option of a command that only tells a person something; it gets an `Output` as ``output``."""
_printed = options(
    _form("json", "Print a JSON list."),
    _form("nl", "Print one JSON object a line."),
    _form("csv", "Print CSV."),
    _form("tsv", "Print TSV."),
    file_option("-o", "--output-file", "file", endings=ROWS, help=f"Write to a file by its ending: {' '.join(ROWS)}."),
    force_option,
)
figures_output = options(_printed, quiet_output)
"""The options of a command that prints rows that are no pictures; it gets an `Output` as ``output``."""
rows_output = options(
    _printed,
    click.option("-f", "--paths", "as_paths", is_flag=True, help="Print only where the pictures are."),
    click.option("-0", "null", is_flag=True, help="With -f: end each path with a NUL instead of a newline."),
    quiet_output,
)
"""The options of a command that prints rows of pictures; it gets an `Output` as ``output``."""
value_output = options(
    _form("json", "Print JSON."),
    _form("nl", "Print one line of JSON."),
    quiet_output,
)
"""The options of a command that prints one result; it gets an `Output` as ``output``."""
sheet_option = file_option("--sheet", endings=SHEETS, help="Draw the pictures into this PNG or JPEG.")


open_option = click.option(
    "--open", "look", is_flag=True, help="Draw the pictures into --sheet, or a temporary PNG, and open that."
)


pictures_option = click.option(
    "--pictures", type=PATH, metavar="FOLDER", help="Copy the pictures themselves into FOLDER; nothing is overwritten."
)

look_options = options(sheet_option, open_option, pictures_option)
"""The options of a command whose answer is pictures, to be looked at or taken."""


def _not_opened(file: Path) -> str:
    """Open a file with the desktop's viewer; return why that failed, nothing where it did not."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no desktop here"
    status: list[int] = []
    # Some openers end when the viewer is closed: what fails does so at once.
    opening = threading.Thread(target=lambda: status.append(click.launch(str(file), wait=True)), daemon=True)
    opening.start()
    opening.join(_OPENING_SECONDS)
    return f"the desktop's opener ended with status {status[0]}" if any(status) else ""


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

    Numbers stand to the right, everything else to the left. Each row is one line: what would break it is quoted.
    """
    values = rows if isinstance(rows, list) else rows.select([column.field for column in shown]).to_pylist()
    aligned = []
    for column in shown:
        fields = [row[column.field] for row in values]
        cells = [quoted(column.cell(value)) for value in fields]
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

    `store` may keep small copies of pictures that no file holds. `marks` puts a check mark (True) or a cross on each.
    The first `MOST_DRAWN` rows are drawn.
    """
    from embedstore.deciding.review import draw_sheet

    rows = rows.slice(0, MOST_DRAWN)
    notes = [None] * len(rows) if note is None else rows.column(note).to_pylist()
    draw_sheet(rows, file, title, notes, marks and marks[: len(rows)], store)
