"""Options that several commands share, the values of theirs that are no plain words, and the store that they name.

Each option, or group of options, is declared once here; a command puts it on as a decorator. The words of a query
become one `Concept`, in the same way for every command that asks or decides. The options that say in what form results
come are `output`'s.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from embedstore.searching.queries import Concept
    from embedstore.store import EmbedStore

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


def command(*examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function, named after it; its docstring and the examples are the help."""
    return click.command(epilog=example(*examples))


def example(*lines: str) -> str:
    """Return the end of a command's help: something to paste."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def options(*decorators: Callable[[Any], Any]) -> Callable[[F], F]:
    """Join options, and groups of them, into one decorator; the help lists them in this order."""

    def add(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return add


def number(text: str) -> float:
    """Read an option's value as a number that is not NaN, or end with a usage error."""
    with contextlib.suppress(ValueError):
        if not math.isnan(value := float(text)):
            return value
    raise click.BadParameter(f"{text!r} is no number; a threshold is a score such as 0.0564")


def _use_api_key(ctx: click.Context, param: click.Parameter, file: Any) -> None:
    """Read the key and let it stand where the environment's would, for this command."""
    if file is None:
        return
    from embedstore.settings import API_KEY, Key

    before = os.environ.get(API_KEY)
    os.environ[API_KEY] = Key(file.read(), f"--api-key-file {file.name}").reveal()

    def restore() -> None:
        os.environ.pop(API_KEY, None)
        if before is not None:
            os.environ[API_KEY] = before

    ctx.call_on_close(restore)


store_argument = click.argument("store", type=PATH, metavar="STORE")
where_option = click.option(
    "--where", metavar="EXPR", help="Only rows that this keeps, such as: \"label = 'cat' and width > 300\"."
)
version_option = click.option("--at", "version", type=int, metavar="VERSION", help="Read an older version.")
api_key_option = click.option(
    "--api-key-file",
    type=click.File("r"),
    callback=_use_api_key,
    expose_value=False,
    metavar="FILE",
    help="Read Nomic's API key from FILE, or from stdin with `-` (else NOMIC_API_KEY, else ~/.nomic/credentials). "
    "There is no flag for the key itself: every user of the machine could read it in the list of processes.",
)
prompt_options = options(
    click.option(
        "--template", multiple=True, metavar="TEXT", help='Prompt such as "a photo of a {}"; several are averaged.'
    ),
    click.option("--also", multiple=True, metavar="TEXT", help="Further prompts, averaged with the query."),
    click.option("--against", multiple=True, metavar="TEXT", help="Score: the query's minus the best of these."),
)
"""What a query is combined with; see `concept_of`."""
query_options = options(
    click.argument("text", required=False, metavar="[TEXT]"),
    click.option("--image", type=PATH, metavar="FILE", help="Ask with a picture."),
    click.option("--id", "identity", metavar="ID", help="Ask with a record of the store."),
    prompt_options,
)
"""A query: a text, a picture or a record, and its prompts; see `concept_of`."""
model_options = options(
    click.option(
        "--model",
        metavar="NAME",
        help="Embedder of a new store: nomic, nomic-local or objects (else EMBEDSTORE_MODEL, else what is ready).",
    ),
    click.option("--space", metavar="NAME", help="For vectors of your own: a name for what made them."),
    click.option(
        "--dim", type=int, help="With --space: the number of components of a vector.  [default: that of the vectors]"
    ),
)
"""Which embedder a store that is to be made has."""
source_options = options(
    click.option("--label-from-folder", is_flag=True, help="Keep the name of a file's folder as its label."),
    click.option("--image-column", metavar="NAME", help="For data sets: which column holds the pictures."),
    click.option("--split", metavar="NAME", help="For data sets, and folders with folders train and test: which."),
)
"""How a source is read."""


def concept_of(words: dict[str, Any]) -> Concept:
    """Take the values of `query_options`, or of a text and `prompt_options`, out of `words`; return them as one query.

    A command that takes other options too finds those left in `words`. UsageError where it is no query, or several.
    """
    text, image, identity = (words.pop(name, None) for name in ("text", "image", "identity"))
    template, also, against = (list(words.pop(name)) for name in ("template", "also", "against"))
    if (text, image, identity).count(None) != 2:
        raise click.UsageError("ask with one of: a text, --image FILE, --id ID")
    from embedstore.searching.queries import Concept, Query

    if text is not None:
        query = Query.text(text)
    elif image is not None:
        query = Query.image(image)
    else:
        query = Query.id(str(identity))
    return Concept.of([query, *also], template=template or None, opposing=against)


def open_store(path: Path, version: int | None = None) -> EmbedStore:
    """Open a store, or an older version of it."""
    from embedstore.store import EmbedStore

    return EmbedStore.open(path, version)
