"""Options that several commands share, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class ThresholdType(click.ParamType[float]):
    """A number that is not NaN."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number, or end with a usage error."""
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if number != number:
            self.fail(f"{value!r} is no number; a threshold is a score such as 0.0564", param, ctx)
        return number


store_argument = click.argument("store", type=click.Path(path_type=Path), metavar="STORE")
threshold_type = ThresholdType()
where_option = click.option(
    "--where", metavar="EXPR", help="Only rows that this keeps, such as: \"label == 'cat' and width > 300\"."
)
version_option = click.option("--at", "version", type=int, metavar="VERSION", help="Read an older version.")


def model_options(function: F) -> F:
    """Add the options that choose an embedder for a store that is to be made."""
    for option in (
        click.option("--dim", type=int, help="With --space: the number of components of a vector."),
        click.option("--space", metavar="NAME", help="For vectors of your own: a name for what made them."),
        click.option(
            "--model",
            metavar="NAME",
            help="Embedder of a new store: nomic, nomic-local or objects (else EMBEDSTORE_MODEL, else what is ready).",
        ),
    ):
        function = option(function)
    return function


def source_options(function: F) -> F:
    """Add the options that say how a source is read."""
    for option in (
        click.option("--split", metavar="NAME", help="For data sets: which split."),
        click.option(
            "--image-column", metavar="NAME", help="For data sets: which column holds the pictures."
        ),
        click.option(
            "--label-from-folder", is_flag=True, help="Keep the name of a file's folder as its label."
        ),
    ):
        function = option(function)
    return function


def _use_api_key(ctx: click.Context, param: click.Parameter, file: Any) -> None:
    """Read the key and let it stand where the environment's would, for this command."""
    if file is None:
        return
    import os

    from embedstore.credentials import VARIABLE, Key

    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = Key(file.read(), f"--api-key-file {file.name}").reveal()

    def restore() -> None:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before

    ctx.call_on_close(restore)


api_key_option = click.option(
    "--api-key-file",
    type=click.File("r"),
    callback=_use_api_key,
    expose_value=False,
    metavar="FILE",
    help="Read Nomic's API key from FILE, or from stdin with `-` (else NOMIC_API_KEY, else ~/.nomic/credentials). "
    "There is no flag for the key itself: every user of the machine could read it in the list of processes.",
)


def example(*lines: str) -> str:
    """Return the end of a command's help: something to paste."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
