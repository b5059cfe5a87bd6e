"""Commands about models: models (list, pull), queries (embed a file of them), compare-backends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli.options import api_key_option, example, store_argument
from embedstore.cli.output import Output, value_output

if TYPE_CHECKING:
    from embedstore.embedders.registry import ModelInfo


@click.group(
    invoke_without_command=True, epilog=example("embedstore models", "embedstore models pull nomic-local")
)
@value_output
@click.pass_context
def models(ctx: click.Context, output: Output) -> None:
    """List the models: what runs them, what is on this machine, and what each needs."""
    if ctx.invoked_subcommand is not None:
        return
    from embedstore.embedders.registry import list_models

    found = list_models()
    lines = [f"{'model':<14}{'ready':<7}{'on disk':>9}  {'backend':<13}{'precision':<11}what it is"]
    lines += [
        f"{info.name:<14}{'yes' if info.ready else 'no':<7}{_size(info):>9}  {info.backend:<13}"
        f"{info.precision:<11}{info.summary}"
        for info in found
    ]
    lines += [f"{info.name} needs {info.needs}" for info in found if not info.ready]
    output.value({"models": [vars(info) for info in found]}, "\n".join(lines))


def _size(info: ModelInfo) -> str:
    return "-" if info.size_bytes is None else f"{info.size_bytes / 1e6:,.0f} MB"


@models.command(epilog=example("embedstore models pull nomic-local"))
@click.argument("name")
@value_output
def pull(name: str, output: Output) -> None:
    """Download a model's weights, once; what is here already is kept."""
    from embedstore.embedders import registry

    folder = registry.pull(name, progress=not output.quiet)
    info = next(info for info in registry.list_models() if info.name == name)
    where = f"{name} is ready: {_size(info)} in {folder}"
    output.value(vars(info), where if folder is not None else f"{name} has nothing to download")


@click.command(epilog=example('embedstore queries photos.store words.txt --template "a photo of a {}"'))
@store_argument
@click.argument("words", metavar="FILE", type=click.File("r", encoding="utf-8"))
@click.option("--template", multiple=True, metavar="TEXT", help="Put each line where {} is; may be repeated.")
@api_key_option
@value_output
def queries(store: Path, words: Any, template: tuple[str, ...], output: Output) -> None:
    """Embed a FILE of queries, one a line, and keep their vectors: searching for them needs no model then.

    With the model nomic ten of them are one request. Lines that are empty are passed over, those that were embedded
    before cost nothing. `-` reads stdin.
    """
    from embedstore.embedders.templates import apply_template
    from embedstore.store import EmbedStore

    lines = [text for line in words if (text := line.strip())]
    if not lines:
        raise click.UsageError(f"{words.name} holds no query; expected one on each line")
    texts = [apply_template(each, line) for line in lines for each in template or (None,)]
    opened = EmbedStore.open(store)
    before = opened.info()["cached_queries"]
    opened.query_vectors(texts)
    kept = opened.info()["cached_queries"]
    distinct = len(set(texts))
    value = {"queries": distinct, "embedded": kept - before, "cached_queries": kept}
    output.value(
        value, f"{distinct:,} queries: {kept - before:,} embedded, {distinct - kept + before:,} kept already"
    )


@click.command(
    name="compare-backends",
    epilog=example(
        "embedstore compare-backends photos.store --sample 200",
        "embedstore compare-backends ~/photos --first nomic --second nomic-local --query 'a dog'",
    ),
)
@click.argument("place", metavar="STORE|FOLDER", type=click.Path(exists=True, path_type=Path))
@click.option("--first", metavar="MODEL", help="For a folder: one backend.  [default: nomic]")
@click.option(
    "--second", metavar="MODEL", help="The other backend.  [default: the other one of the same model]"
)
@click.option(
    "--sample", type=click.IntRange(min=2), default=200, show_default=True, help="Pictures to embed."
)
@click.option(
    "--query", multiple=True, metavar="TEXT", help="Measure scores with this query; may be repeated."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which pictures are drawn.")
@api_key_option
@value_output
def compare_backends(
    place: Path,
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
    from embedstore import backends
    from embedstore.embedders import registry
    from embedstore.store import EmbedStore

    asked = query or backends.QUERIES
    if (place / "store.json").exists():
        if first is not None:
            raise click.UsageError("a store's first backend is its own; --first is for folders")
        store = EmbedStore.open(place)
        other = second or _other_than(registry.name_for_space(store.space))
        comparison = backends.of_store(store, registry.make_embedder(other), sample, asked, seed)
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
        info
        for info in registry.list_models()
        if info.name != name and registry.space_of(info.name).same_model(space)
    ]
    if not others:
        raise click.UsageError(f"{name} has one backend only")
    return next((info.name for info in others if info.ready), others[0].name)


COMMANDS = (models, queries, compare_backends)
