"""The command that fills a store: add, with its plan, its budget and its second try."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli.options import api_key_option, example, model_options, source_options, store_argument
from embedstore.cli.output import Output, value_output
from embedstore.cli.syncing import add_from_atlas

if TYPE_CHECKING:
    from embedstore.embedders.protocol import Embedder
    from embedstore.store import EmbedStore


@click.command(
    epilog=example(
        "embedstore add photos.store ~/photos --model objects --label-from-folder",
        "embedstore add photos.store ~/photos --model nomic --dry-run",
        "embedstore add photos.store ~/photos --retry-failed photos.store/failures.csv",
        "embedstore add clip.store vectors.parquet --embedding-column vector --space my-clip --dim 512",
        "embedstore add copy.store atlas://my-org/photos",
    )
)
@store_argument
@click.argument("source", nargs=-1, metavar="SOURCE...")
@model_options
@source_options
@click.option(
    "--embedding-column", metavar="NAME", help="The source holds vectors: store them, embed nothing."
)
@click.option("--normalise", is_flag=True, help="With --embedding-column: scale vectors to unit length.")
@click.option(
    "--reuse",
    multiple=True,
    type=click.Path(path_type=Path),
    envvar="EMBEDSTORE_REUSE",
    metavar="STORE",
    help="Copy vectors of known pictures from this store; may be repeated (also: EMBEDSTORE_REUSE).",
)
@click.option(
    "--retry-failed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take only what FILE lists, the failures.csv of an earlier add; without SOURCE the files themselves.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing; needs no key.")
@click.option("--workers", type=click.IntRange(1, 256), help="Batches under way at once.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Pictures in one batch, which is one request.")
@click.option(
    "--max-requests",
    type=click.IntRange(min=1),
    metavar="N",
    help="With the model nomic: send at most N requests, then stop; run again to go on.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="With the model nomic: give a request up after so long, and its batch after failing for twice as long.",
)
@api_key_option
@value_output
def add(
    store: Path,
    source: tuple[str, ...],
    model: str | None,
    space: str | None,
    dim: int | None,
    retry_failed: Path | None,
    dry_run: bool,
    max_requests: int | None,
    timeout: float | None,
    output: Output,
    **options: Any,
) -> None:
    """Embed what is new in a SOURCE and store it; the STORE is made when it is not there.

    A source is a folder, a glob, a picture, a Parquet or Arrow file, an archive, a list of URLs, or the name of a
    data set on the Hugging Face hub. From a dataset of Atlas (atlas://ORG/NAME) vectors and metadata come down, and
    nothing is embedded. Pictures that are in the store already cost nothing, also when they were moved
    or renamed.

    When it ends early, by a failure, a kill or --max-requests, run it again: it goes on from there.
    """
    if not source and retry_failed is None:
        raise click.UsageError("say what to add: a SOURCE, or --retry-failed FILE")
    if any(name.startswith("atlas://") for name in source):
        add_from_atlas(store, source, model, space, dry_run, output)
        return
    from embedstore.ingest.reports import read_failures

    options["progress"] = False if output.quiet else None
    options["only"] = None if retry_failed is None else read_failures(retry_failed)
    sources = list(source) if len(source) > 1 else next(iter(source), None)
    embedder = _embedder(store, model, max_requests, timeout)
    if dry_run:
        _plan(store, sources, (model, space, dim, embedder), options, output)
        return
    opened, is_new = _open_or_create(store, model, space, dim, embedder)
    try:
        report = opened.add(sources, **options)
    except Exception:
        opened.refresh()
        if is_new and not len(opened):
            _take_back(store)
        raise
    output.value(report.to_dict(), str(report))


def _embedder(
    store: Path, model: str | None, max_requests: int | None, timeout: float | None
) -> Embedder | None:
    """Make the embedder where it takes options; None leaves it to the store."""
    if max_requests is None and timeout is None:
        return None
    from embedstore.embedders import registry
    from embedstore.store import EmbedStore

    if (store / "store.json").exists():
        name = registry.name_for_space(EmbedStore.open(store).space)
    else:
        name = model or registry.default_model()
    if name != "nomic":
        raise click.UsageError(
            f"--max-requests and --timeout are for the model nomic; this store's is {name}"
        )
    options: dict[str, Any] = {"max_requests": max_requests}
    if timeout is not None:
        from embedstore.embedders.nomic_api import Retries
        from embedstore.embedders.nomic_transport import Timeouts

        options["timeouts"] = Timeouts(min(10.0, timeout), min(60.0, timeout), timeout)
        options["retries"] = Retries(patience=2 * timeout)
    return registry.make_embedder(name, **options)


def _plan(store: Path, sources: Any, how: tuple[Any, ...], options: dict[str, Any], output: Output) -> None:
    """Print what would be done."""
    for name in ("embedding_column", "normalise", "workers"):
        if options.pop(name):
            raise click.UsageError(
                f"--dry-run plans the embedding of pictures; leave --{name.replace('_', '-')} out"
            )
    with _store_for_plan(store, *how) as opened:
        plan = opened.plan_add(sources, **options)
    output.value(plan.to_dict(), str(plan))


def _open_or_create(
    path: Path, model: str | None, space: str | None, dim: int | None, embedder: Embedder | None
) -> tuple[EmbedStore, bool]:
    from embedstore.embedders.registry import space_of
    from embedstore.store import EmbedStore

    if not (path / "store.json").exists():
        return EmbedStore.create(path, model, space=space, dim=dim, embedder=embedder), True
    opened = EmbedStore.open(path, embedder=embedder)
    if model is not None:
        opened.space.require(space_of(model), f"--model {model}")
    return opened, False


@contextlib.contextmanager
def _store_for_plan(
    path: Path, model: str | None, space: str | None, dim: int | None, embedder: Embedder | None
) -> Iterator[EmbedStore]:
    """Open the store, or make one for the time of the plan where there is none yet."""
    if (path / "store.json").exists():
        yield _open_or_create(path, model, space, dim, embedder)[0]
        return
    from embedstore.embedders.registry import space_of
    from embedstore.store import EmbedStore

    planned = space_of(model) if model is not None and space is None else None
    with tempfile.TemporaryDirectory() as folder:
        if planned is not None:
            yield EmbedStore.create(Path(folder) / "plan.store", space=planned)
        else:
            yield _open_or_create(Path(folder) / "plan.store", model, space, dim, embedder)[0]


def _take_back(path: Path) -> None:
    """Remove a store that was made for this command and got nothing, so that a retry may choose another model."""
    import shutil

    if not any((path / "journal").glob("*.journal")):
        shutil.rmtree(path)


COMMANDS = (add,)
