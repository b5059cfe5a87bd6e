"""Commands that fill a store: add, models (list, pull), queries, compare-backends.

`add` decides whether a store is opened or made, and with which embedder; the plan, the budget and the second try are
`ingest`'s. A dataset of Atlas, and what goes by way of Atlas, comes in by `share`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli import completion
from embedstore.cli.options import (
    PATH,
    STORE,
    Count,
    Location,
    Number,
    Place,
    TextFile,
    api_key_option,
    command,
    example,
    ingest_executor_options,
    model_options,
    open_store,
    require_store_first,
    source_options,
    store_argument,
)
from embedstore.cli.output import Column, Output, columns, value_output
from embedstore.cli.refusals import BUDGET_SPENT
from embedstore.cli.share import add_by_atlas, add_from_atlas
from embedstore.errors import EmbedStoreError, StoreExistsError
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.embedders.protocol import Embedder
    from embedstore.store import EmbedStore


@command(
    "embedstore add photos.store ~/photos --model objects --label-from-folder",
    "embedstore add nomic.store ~/photos --model nomic --dry-run",
    "embedstore add photos.store ~/photos --retry-failed photos.store/failures.csv",
    "embedstore add clip.store vectors.parquet --embedding-column vector --space my-clip",
    "embedstore add copy.store atlas://my-org/photos",
    "embedstore add bulk.store ~/photos --via-atlas photos",
)
@store_argument
@click.argument("source", nargs=-1, metavar="SOURCE...", shell_complete=completion.files_here)
@model_options
@source_options
@click.option("--embedding-column", metavar="NAME", help="The source holds vectors: store them, embed nothing.")
@click.option("--normalise", is_flag=True, help="With --embedding-column: scale vectors to unit length.")
@click.option(
    "--reuse",
    multiple=True,
    type=STORE,
    envvar="EMBEDSTORE_REUSE",
    metavar="STORE",
    help="Copy vectors of known pictures from this store; may be repeated (also: EMBEDSTORE_REUSE).",
)
@click.option(
    "--retry-failed",
    type=PATH,
    metavar="FILE",
    help="Take only what FILE lists, the failures.csv of an earlier add; without SOURCE the files themselves.",
)
@click.option("--prune", is_flag=True, help="Remove the rows of files that are gone from the folders of SOURCE.")
@click.option(
    "--no-thumbnails", is_flag=True, help="Keep no small copies of pictures that no file here holds, such as of URLs."
)
@click.option("-0", "nul", is_flag=True, help="With SOURCE `-`: the paths end in NULs, as of `find -print0`.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing; needs no key.")
@click.option("--workers", type=Count(1, 256), help="Batches under way at once.")
@click.option("--batch-size", type=Count(min=1), help="Pictures in one batch, which is one request.")
@click.option(
    "--max-requests",
    type=Count(min=1),
    metavar="N",
    help="With a model behind a service: send at most N requests, then stop with status 3; run again to go on.",
)
@click.option(
    "--timeout",
    type=Number(min=0, min_open=True),
    metavar="SECONDS",
    help="With a model behind a service: give a request up after so long, its batch after failing for twice as long, "
    "and wait no longer for a pause that the service asks for. With Atlas: longest time for one step.",
)
@click.option(
    "--via-atlas",
    metavar="[ORG/]NAME",
    help="Upload the pictures to this dataset of Atlas, which embeds them in bulk; no embedding request is sent.",
)
@ingest_executor_options
@click.option("--map", is_flag=True, help="With Atlas: keep the map's x, y, topics and duplicates as columns map_...")
@api_key_option
@value_output
def add(
    store: Location,
    source: tuple[str, ...],
    model: str | None,
    space: str | None,
    dim: int | None,
    retry_failed: Path | None,
    no_thumbnails: bool,
    nul: bool,
    dry_run: bool,
    max_requests: int | None,
    timeout: float | None,
    via_atlas: str | None,
    executor: str | None,
    map: bool,
    output: Output,
    **options: Any,
) -> None:
    """Embed what is new in a SOURCE and store it; the STORE is made when it is not there.

    A source is a folder, a glob, a picture, a Parquet or Arrow file, an archive, a list of URLs, or the name of a
    data set on the Hugging Face hub; `-` reads paths and URLs from stdin, one a line
    (`find photos -newer last | embedstore add photos.store -`). From a dataset of Atlas (atlas://ORG/NAME) vectors and
    metadata come down, and nothing is embedded. Pictures that are in the store already cost nothing, also when they
    were moved or renamed.

    When it ends early, by a failure, a kill or --max-requests, run it again: it goes on from there. Exit status 1 when
    every picture failed, 3 when --max-requests ended it.
    """
    if retry_failed is None:
        require_store_first(store, source, model)
    if not source and retry_failed is None:
        raise click.UsageError(
            f"say what to add: `embedstore add {store} SOURCE`, or with --retry-failed FILE what failed before"
        )
    from_atlas = any(name.startswith("atlas://") for name in source)
    if executor is not None and (from_atlas or via_atlas or dry_run or options["embedding_column"] is not None):
        raise click.UsageError(
            "--executor ray reads and embeds pictures; leave it out with --dry-run, --embedding-column and Atlas"
        )
    if from_atlas:
        add_from_atlas(store, source, model, space, dry_run, output, map=map, timeout=timeout)
        return
    if via_atlas is not None:
        others = {"model": model, "space": space, "retry_failed": retry_failed, "max_requests": max_requests}
        add_by_atlas(store, source, via_atlas, dry_run, timeout, output, map=map, **others, **options)
        return
    if map:
        raise click.UsageError("--map is for what comes from Atlas: atlas://ORG/NAME, or --via-atlas ORG/NAME")
    from embedstore.ingest.reports import read_failures

    options["progress"] = False if output.quiet else None
    options["only"] = None if retry_failed is None else read_failures(retry_failed)
    options["thumbnails"] = not no_thumbnails
    sources: Any = list(source) if len(source) > 1 else next(iter(source), None)
    if "-" in source:
        if len(source) > 1 or retry_failed is not None:
            raise click.UsageError("`-` stands alone: name on stdin whatever is to be added")
        sources = _paths_of_stdin(nul)
        if options["embedding_column"] is None:  # one that has gone by now is a failure, and stops no other
            sources, options["only"] = None, sources
    elif nul:
        raise click.UsageError("-0 tells how paths on stdin end; name the SOURCE `-` to read them")
    embedder = _embedder(store, model, max_requests, timeout)
    if dry_run:
        del options["thumbnails"]
        for name in ("embedding_column", "normalise", "workers", "prune"):
            if options.pop(name):
                raise click.UsageError(
                    f"--dry-run plans the embedding of pictures; leave --{name.replace('_', '-')} out"
                )
    elif options["embedding_column"] is not None and not _is_store(store):
        if space is None and model is None:
            raise click.UsageError("say whose vectors these are: --space NAME for your own, --model NAME for a model's")
        if space is not None:
            dim = _dimension(sources, options["embedding_column"], dim)
    with _store_to_fill(store, model, space, dim, embedder, dry_run, executor) as opened:
        done = opened.plan_add(sources, **options) if dry_run else opened.add(sources, **options)
    output.value(done.to_dict(), str(done))
    if getattr(done, "stopped", None):
        click.get_current_context().exit(BUDGET_SPENT)
    if not dry_run and done.all_failed:
        click.get_current_context().exit(1)


def _paths_of_stdin(nul: bool) -> list[str]:
    """Return what stdin names, one a line, or each before a NUL; names that are no UTF-8 as the system has them."""
    with click.open_file("-", "rb") as stdin:
        data: bytes = stdin.read()
    names = data.split(b"\0") if nul else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    named = [os.fsdecode(name) for name in names if name]
    if not named:
        raise click.UsageError("stdin names no file; expected a path or a URL on each line")
    return named


def _embedder(store: Location, model: str | None, max_requests: int | None, timeout: float | None) -> Embedder | None:
    """Make the embedder where it takes options; None leaves it to the store."""
    if max_requests is None and timeout is None:
        return None
    from embedstore.embedders import registry

    own = registry.name_for_space(open_store(store).space) if _is_store(store) else None
    name = own or model or registry.default_model()
    if not registry.is_remote(name):
        raise click.UsageError(
            f"--max-requests and --timeout are for models behind a service, such as nomic; this store's is {name}"
        )
    if timeout is None:
        return registry.make_embedder(name, max_requests=max_requests)
    from embedstore.embedders.remote import Retries
    from embedstore.embedders.transport import Timeouts

    timeouts = Timeouts(min(10.0, timeout), min(60.0, timeout), timeout)
    retries = Retries(patience=2 * timeout, longest_pause=timeout)
    return registry.make_embedder(name, max_requests=max_requests, timeouts=timeouts, retries=retries)


@contextlib.contextmanager
def _store_to_fill(
    path: Location,
    model: str | None,
    space: str | None,
    dim: int | None,
    embedder: Embedder | None,
    dry_run: bool,
    executor: str | None,
) -> Iterator[EmbedStore]:
    """Open the store, whose model must be `model`; or make it, for the time of a plan only where that is all.

    A store that was made here and got nothing before an error goes again, so that a retry may choose another model.
    """
    from embedstore.embedders.registry import space_of
    from embedstore.store import EmbedStore

    if dry_run and not _is_store(path):
        planned = space_of(model) if model is not None and space is None else space
        with tempfile.TemporaryDirectory() as folder:
            yield EmbedStore.create(Path(folder) / "plan.store", space=planned, dim=dim, embedder=embedder)
        return
    options: dict[str, Any] = {"space": space, "dim": dim, "embedder": embedder, "executor": executor}
    made = None if _is_store(path) else _made(path, model, **options)
    if made is None:
        opened = EmbedStore.open(path, embedder=embedder, executor=executor)
        if model is not None:
            opened.space.require(space_of(model), f"--model {model}")
        yield opened
        return
    try:
        yield made
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(EmbedStoreError, OSError):  # the first error is the one to tell
            made.folder.discard_if_unused()
        raise


def _made(path: Location, model: str | None, **options: Any) -> EmbedStore | None:
    """Make a store; None where another process was quicker."""
    from embedstore.store import EmbedStore

    try:
        return EmbedStore.create(path, model, **options)
    except StoreExistsError:
        if not _is_store(path):
            raise
        return None


def _dimension(sources: Any, column: str, dim: int | None) -> int:
    """Return the number of components of the first vector; VectorError where that is not `dim`."""
    from embedstore.errors import VectorError
    from embedstore.sources import vector_batches

    width = int(next(vector_batches(sources, column, rows=1)).vectors.shape[1])
    if dim not in (None, width):
        raise VectorError(f"--dim {dim} does not fit: the vectors in {column!r} have {width} components")
    return width


def _is_store(path: Location) -> bool:
    from embedstore.storage.folder import StoreFolder

    return StoreFolder.is_at(path)


_WIDTH = 80


@click.group(invoke_without_command=True, epilog=example("embedstore models", "embedstore models pull nomic-local"))
@value_output
@click.pass_context
def models(ctx: click.Context, output: Output) -> None:
    """List the models: what runs them, what is on this machine, and what each needs."""
    if ctx.invoked_subcommand is not None:
        return
    from embedstore.embedders.registry import list_models

    shown = (
        Column("name", head="model"),
        Column("ready", lambda ready: "yes" if ready else "no", "ready"),
        Column("size_bytes", _megabytes, "on disk"),
        Column("summary", head="what it is"),
    )
    rows = [vars(info) for info in list_models()]
    output.value({"models": rows}, "\n".join([*_wrapped(list(columns(rows, shown))), *_needs(rows)]))


def _wrapped(lines: list[str]) -> Iterator[str]:
    """Yield the lines of a table, the text of its last column within the width of a terminal."""
    indent = " " * lines[0].index("what it is")
    for line in lines:
        yield from textwrap.wrap(line, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _needs(rows: list[dict[str, Any]]) -> list[str]:
    """Say what each model needs that is not ready; weights of one command in a line together."""
    pulled = {row["name"]: row["needs"] for row in rows if not row["ready"] and "models pull" in row["needs"]}
    lines = [f"{row['name']} needs {row['needs']}" for row in rows if not row["ready"] and row["name"] not in pulled]
    if pulled:
        sizes = ", ".join(f"{name} {needs.split(' of ')[-1]}" for name, needs in pulled.items())
        lines.append(f"weights to download, once each, as by `embedstore models pull nomic-local`: {sizes}")
    fold = functools.partial(textwrap.wrap, width=_WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return [folded for line in lines for folded in fold(line)]


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:,.0f} MB"


@models.command(epilog=example("embedstore models pull nomic-local"))
@click.argument("name")
@value_output
def pull(name: str, output: Output) -> None:
    """Download a model's weights, once; what is here already is kept.

    NAME is one of `embedstore models`, which says how much there is to download.
    """
    from embedstore.embedders import registry

    folder = registry.pull(name, progress=not output.quiet)
    info = next(info for info in registry.list_models() if info.name == name)
    where = f"{name} is ready: {_megabytes(info.size_bytes)} in {folder}"
    output.value(vars(info), where if folder is not None else f"{name} has nothing to download")


@command('embedstore queries photos.store words.txt --template "a photo of a {}"')
@store_argument
@click.argument("words", metavar="FILE", type=TextFile("r", encoding="utf-8"))
@click.option("--template", multiple=True, metavar="TEXT", help="Put each line where {} is; may be repeated.")
@api_key_option
@value_output
def queries(store: Location, words: Any, template: tuple[str, ...], output: Output) -> None:
    """Embed a FILE of queries, one a line, and keep their vectors: searching for them needs no model then.

    With the model nomic ten of them are one request. Lines that are empty are passed over, those that were embedded
    before cost nothing. `-` reads stdin.
    """
    from embedstore.searching.queries import fill

    lines = [text for line in words if (text := line.strip())]
    if not lines:
        raise click.UsageError(f"{words.name} holds no query; expected one on each line")
    texts = [text for line in lines for text in (fill(template, line) if template else [line])]
    opened = open_store(store)
    before = opened.info()["cached_queries"]
    opened.query_vectors(texts)
    kept = opened.info()["cached_queries"]
    distinct = len(set(texts))
    value = {"queries": distinct, "embedded": kept - before, "cached_queries": kept}
    asked = counted(distinct, "query", "queries")
    output.value(value, f"{asked}: {kept - before:,} embedded, {distinct - kept + before:,} kept already")


@command(
    "embedstore compare-backends photos.store --sample 200",
    "embedstore compare-backends ~/photos --first nomic --second nomic-local --query 'a dog'",
)
@click.argument("place", metavar="STORE|FOLDER", type=Place(exists=True, path_type=Path))
@click.option("--first", metavar="MODEL", help="For a folder: one backend.  [default: nomic]")
@click.option("--second", metavar="MODEL", help="The other backend.  [default: the other one of the same model]")
@click.option("--sample", type=Count(min=2), default=200, show_default=True, help="Pictures to embed.")
@click.option("--query", multiple=True, metavar="TEXT", help="Measure scores with this query; may be repeated.")
@click.option("--seed", type=Count(min=0), default=0, show_default=True, help="Which pictures are drawn.")
@api_key_option
@value_output
def compare_backends(
    place: Location,
    first: str | None,
    second: str | None,
    sample: int,
    query: tuple[str, ...],
    seed: int,
    output: Output,
) -> None:
    """Embed a sample of pictures with two backends of one model; print how far vectors and thresholds move.

    The vectors of a store's own backend are read, not made again.
    """
    from embedstore.deciding import backends
    from embedstore.embedders import registry

    asked = query or backends.QUERIES
    if _is_store(place):
        if first is not None:
            raise click.UsageError("a store's first backend is its own; --first is for folders")
        store = open_store(place)
        other = second or _other_than(registry.name_for_space(store.space))
        comparison = backends.of_rows(store.reader, registry.make_embedder(other), sample, asked, seed)
    else:
        one = first or "nomic"
        makers = [registry.make_embedder(name) for name in (one, second or _other_than(one))]
        comparison = backends.of_source(place, makers[0], makers[1], sample, asked, seed)
    output.value(comparison.to_dict(), str(comparison))


def _other_than(name: str) -> str:
    """Return another backend of the same model, one that is ready if there is one."""
    from embedstore.embedders import registry

    space = registry.space_of(name)
    others = [
        info for info in registry.list_models() if info.name != name and registry.space_of(info.name).same_model(space)
    ]
    if not others:
        raise click.UsageError(f"{name} has one backend only; nomic and nomic-local are two of one model")
    return next((info.name for info in others if info.ready), others[0].name)


COMMANDS = (add, models, queries, compare_backends)
