"""Options that several commands share, the values of theirs that are no plain words, and the store that they name.

Each option, or group of options, is declared once here; a command puts it on as a decorator. The words of a query
become one `Concept`, in the same way for every command that asks or decides. The options that say in what form results
come are `output`'s.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embedstore.cli import completion
from embedstore.files import open_regular

if TYPE_CHECKING:
    from embedstore.searching.queries import Concept
    from embedstore.store import EmbedStore

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
Location = Path | str
"""Where a store is: its path, or the URL of a place in a bucket, of which no path may be made."""


class Count(click.IntRange):
    """A whole number within bounds, N in the help."""

    name = "n"


class Number(click.FloatRange):
    """A number within bounds, NUMBER in the help."""

    name = "number"


class Place(click.Path):
    """A store, or something else with a path, as a `Location`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Let a URL be; make a path of what is none."""
        from embedstore.storage.bucket import is_url

        return value if isinstance(value, str) and is_url(value) else super().convert(value, param, ctx)


STORE = Place(path_type=Path)
MOST_FROM_STDIN = 100 << 20
_STREAM = re.compile(r"-|/dev/stdin|(/dev|/proc/self)/fd/\d+")
"""What a person means to be read as it comes: stdin, and what a shell makes of ``<(...)``."""


class TextFile(click.File):
    """A text file to read: a regular one, as any other could be waited for without end; or one of the streams."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Open the file; wrong usage where that cannot be done."""
        if not isinstance(value, str) or _STREAM.fullmatch(value):
            return super().convert(value, param, ctx)
        try:
            open_regular(value).close()
        except OSError as error:
            self.fail(f"{value!r}: {error.strerror}", param, ctx)
        return super().convert(value, param, ctx)


def command(*examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function, named after it; its docstring and the examples are the help.

    What few stores need is told last.
    """

    def make(function: Callable[..., Any]) -> click.Command:
        made = click.command(epilog=example(*examples))(function)
        made.params.sort(key=lambda param: param.name in _OF_BUCKETS)
        return made

    return make


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

    _set(ctx, API_KEY, Key(file.read(), f"--api-key-file {file.name}").reveal())


def _use_domain(ctx: click.Context, param: click.Parameter, domain: str | None) -> None:
    """Let a domain stand where the environment's would, for this command."""
    if domain is not None:
        from embedstore.settings import DOMAIN

        _set(ctx, DOMAIN, domain)


def _use_cache_dir(ctx: click.Context, param: click.Parameter, folder: str | None) -> None:
    """Let a folder stand where the environment's would, for this command."""
    if folder is not None:
        from embedstore.settings import CACHE_DIR

        _set(ctx, CACHE_DIR, folder)


def _use_cache_size(ctx: click.Context, param: click.Parameter, size: str | None) -> None:
    """Let a number of bytes stand where the environment's would, for this command."""
    if size is None:
        return
    from embedstore.errors import InputError
    from embedstore.settings import CACHE_SIZE, bytes_of

    try:
        bytes_of(size)
    except InputError as error:
        raise click.BadParameter(str(error)) from error
    _set(ctx, CACHE_SIZE, size)


def _set(ctx: click.Context, variable: str, value: str) -> None:
    """Set a variable of the environment until the command has ended."""
    before = os.environ.get(variable)
    os.environ[variable] = value

    def restore() -> None:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before

    ctx.call_on_close(restore)


_OF_BUCKETS = ("cache_dir", "cache_size")
cache_options = options(
    click.option(
        "--cache-dir",
        shell_complete=completion.files_here,
        callback=_use_cache_dir,
        expose_value=False,
        metavar="FOLDER",
        help="For a store at s3://...: where its cache is (also: EMBEDSTORE_CACHE_DIR).",
    ),
    click.option(
        "--cache-size",
        callback=_use_cache_size,
        expose_value=False,
        metavar="SIZE",
        help="For a store at s3://...: how large its cache may grow (also: EMBEDSTORE_CACHE_SIZE).  "
        "[default: 50GB, or half of what is free]",
    ),
)
"""What a store in a bucket keeps on this machine."""
store_argument = options(
    click.argument("store", type=STORE, metavar="STORE", shell_complete=completion.stores), cache_options
)
where_option = click.option(
    "--where",
    metavar="EXPR",
    shell_complete=completion.columns,
    help="Only rows that this keeps, such as: \"label = 'cat' and width > 300\".",
)


def _executor_named(ctx: click.Context, param: click.Parameter, name: str) -> str | None:
    """Return the name of an executor as `EmbedStore.open` takes it, with the address where one is given."""
    address = ctx.meta.get(_ADDRESS)
    if name == "threads":
        if address is not None:
            raise click.UsageError("--address names a Ray cluster; give --executor ray with it")
        return None
    return name if address is None else f"{name}:{address}"


def _note_address(ctx: click.Context, param: click.Parameter, address: str | None) -> None:
    if address is not None:
        ctx.meta[_ADDRESS] = address


_ADDRESS = "embedstore.address"


def _executor_options(what: str) -> Callable[[F], F]:
    return options(
        click.option(
            "--executor",
            type=click.Choice(["threads", "ray"]),
            default="threads",
            show_default=True,
            callback=_executor_named,
            help=what,
        ),
        click.option(
            "--address",
            metavar="HOST:PORT",
            callback=_note_address,
            expose_value=False,
            is_eager=True,
            help="With --executor ray: the head of the cluster, or auto for the one that this machine has joined.  "
            "[default: RAY_ADDRESS, else one is started here]",
        ),
    )


executor_options = _executor_options(
    "Who reads the vectors, with the same answers: threads of this process, or the workers of a Ray cluster, whose "
    "nodes must all see the store at the same path."
)
"""Where vectors are read; one value, `executor`, as `EmbedStore.open` takes it."""
ingest_executor_options = _executor_options(
    "Who reads and embeds the pictures, with the same rows: threads of this process, or the workers of a Ray cluster, "
    "whose nodes must all see the pictures at the same path."
)
"""Where pictures are read and embedded; as `executor_options`."""
version_option = click.option("--at", "version", type=Count(min=0), metavar="VERSION", help="Read an older version.")
api_key_option = options(
    click.option(
        "--api-key-file",
        type=TextFile("r"),
        callback=_use_api_key,
        expose_value=False,
        metavar="FILE",
        help="Read Nomic's API key from FILE, or from stdin with `-` (else NOMIC_API_KEY, else ~/.nomic/credentials). "
        "There is no flag for the key itself: every user of the machine could read it in the list of processes.",
    ),
    click.option(
        "--domain",
        callback=_use_domain,
        expose_value=False,
        metavar="DOMAIN",
        help="Whose Atlas the key is for, as in `nomic login --domain` (also: NOMIC_DOMAIN): your organisation's, or "
        "atlas.nomic.ai. ATLAS_API_PATH names the service's whole address instead.",
    ),
)
prompt_options = options(
    click.option(
        "--template", multiple=True, metavar="TEXT", help='Prompt such as "a photo of a {}"; several are averaged.'
    ),
    click.option("--also", multiple=True, metavar="QUERY", help="Further queries, averaged with the first."),
    click.option("--against", multiple=True, metavar="QUERY", help="Score: the query's minus the best of these."),
)
"""What a query is combined with; see `concept_of`."""
query_options = options(
    click.argument("query", nargs=-1, metavar="[QUERY...]", shell_complete=completion.query),
    click.option("--text", metavar="TEXT", help="Ask with these words, also where they name a file."),
    click.option("--image", type=PATH, metavar="FILE", help="Ask with a picture; `-` reads it from stdin."),
    click.option("--id", "identity", metavar="ID", help="Ask with a record of the store."),
    prompt_options,
)
"""A query: words, a picture, a mix of them or a record, and its prompts; see `concept_of`."""
model_options = options(
    click.option(
        "--model",
        metavar="NAME",
        help="Embedder of a new store, one of `embedstore models` (else EMBEDSTORE_MODEL, else what is ready).",
    ),
    click.option("--space", metavar="NAME", help="For vectors of your own: a name for what made them."),
    click.option(
        "--dim",
        type=Count(min=1),
        help="With --space: the number of components of a vector.  [default: that of the vectors]",
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
    """Take the values of `query_options` out of `words`; return them as one query.

    A command that takes other options too finds those left in `words`. UsageError where it is no query, or several.
    """
    query, text, image, identity = (words.pop(name) for name in ("query", "text", "image", "identity"))
    template, also, against = (list(words.pop(name)) for name in ("template", "also", "against"))
    if (query or None, text, image, identity).count(None) != 3:
        raise click.UsageError("ask with one of: a query, --text TEXT, --image FILE, --id ID")
    from embedstore.searching.queries import Concept, Query

    if query:
        asked = Query.parse(query)
    elif text is not None:
        asked = Query.text(text)
    elif image is not None:
        asked = Query.image(_standard_input() if str(image) == "-" else image)
    else:
        asked = Query.id(str(identity))
    return Concept.of([asked, *also], template=template or None, opposing=against)


def _standard_input() -> bytes:
    """Read a picture from stdin."""
    content = sys.stdin.buffer.read(MOST_FROM_STDIN + 1)
    if not content:
        raise click.UsageError("there is no picture on stdin, which `--image -` reads; pipe one in, or name its file")
    if len(content) > MOST_FROM_STDIN:
        raise click.UsageError(f"stdin holds more than {MOST_FROM_STDIN:,} bytes; name the picture's file")
    return content


def require_store_first(store: Location, sources: Sequence[str], model: str | None) -> None:
    """Refuse pictures in the place of the store, or a store in theirs, by a UsageError that says the way on."""
    from embedstore.storage.folder import StoreFolder

    stores = [name for name in sources if StoreFolder.is_at(name)]
    if isinstance(store, str) or not store.exists() or StoreFolder.is_at(store):
        if stores:
            raise click.UsageError(
                f"{stores[0]} is a store, and pictures are expected: name where they are, and let --reuse {stores[0]} "
                "take the vectors of those that it knows"
            )
        return
    stores += [name for name in sources if name.endswith(".store")]
    name = stores[0] if stores else f"{store.absolute().name}.store"
    if stores or not sources:
        swapped = f"embedstore add {quote(name)} {quote(str(store))}{f' --model {model}' if model else ''}"
        raise click.UsageError(f"{store} is no store. The store comes first, then what is added: `{swapped}`")


def open_store(path: Location, version: int | None = None, executor: str | None = None) -> EmbedStore:
    """Open a store, or an older version of it."""
    from embedstore.store import EmbedStore

    return EmbedStore.open(path, version, executor)
