"""Commands that make, fill and look after a store: add, info, verify, remove, compact, versions, vacuum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli.options import (
    example,
    model_options,
    source_options,
    store_argument,
    version_option,
    where_option,
)
from embedstore.cli.output import Output, rows_output, value_output
from embedstore.cli.syncing import add_from_atlas

if TYPE_CHECKING:
    import pyarrow as pa

    from embedstore.store import EmbedStore


@click.command(
    epilog=example(
        "embedstore add photos.store ~/photos --model objects --label-from-folder",
        "embedstore add clip.store vectors.parquet --embedding-column vector --space my-clip --dim 512",
        "embedstore add copy.store atlas://my-org/photos",
    )
)
@store_argument
@click.argument("source", nargs=-1, required=True, metavar="SOURCE...")
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
@click.option("--workers", type=click.IntRange(min=1), help="Batches under way at once.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Pictures in one batch.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@value_output
def add(
    store: Path,
    source: tuple[str, ...],
    model: str | None,
    space: str | None,
    dim: int | None,
    label_from_folder: bool,
    image_column: str | None,
    split: str | None,
    embedding_column: str | None,
    normalise: bool,
    reuse: tuple[Path, ...],
    workers: int | None,
    batch_size: int | None,
    dry_run: bool,
    output: Output,
) -> None:
    """Embed what is new in a SOURCE and store it; the STORE is made when it is not there.

    A source is a folder, a glob, a picture, a Parquet or Arrow file, an archive, a list of URLs, or the name of a
    data set on the Hugging Face hub. From a dataset of Atlas (atlas://ORG/NAME) vectors and metadata come down, and
    nothing is embedded. Pictures that are in the store already cost nothing, also when they were moved
    or renamed.
    """
    sources: Any = list(source) if len(source) > 1 else source[0]
    if any(name.startswith("atlas://") for name in source):
        add_from_atlas(store, source, model, space, dry_run, output)
        return
    reading: dict[str, Any] = {
        "label_from_folder": label_from_folder,
        "image_column": image_column,
        "split": split,
        "progress": False if output.quiet else None,
    }
    if dry_run:
        with _store_for_plan(store, model, space, dim) as opened:
            plan = opened.plan_add(sources, reuse=reuse, batch_size=batch_size, **reading)
        output.value(plan.to_dict(), str(plan))
        return
    opened, is_new = _open_or_create(store, model, space, dim)
    try:
        report = opened.add(
            sources,
            embedding_column=embedding_column,
            normalise=normalise,
            reuse=reuse,
            workers=workers,
            batch_size=batch_size,
            **reading,
        )
    except Exception:
        opened.refresh()
        if is_new and not len(opened):
            _take_back(store)
        raise
    output.value(report.to_dict(), str(report))


def _open_or_create(
    path: Path, model: str | None, space: str | None, dim: int | None
) -> tuple[EmbedStore, bool]:
    from embedstore.embedders.registry import make_embedder
    from embedstore.store import EmbedStore

    if not (path / "store.json").exists():
        return EmbedStore.create(path, model, space=space, dim=dim), True
    opened = EmbedStore.open(path)
    if model is not None:
        opened.space.require(make_embedder(model).space, f"--model {model}")
    return opened, False


def _store_for_plan(path: Path, model: str | None, space: str | None, dim: int | None) -> Any:
    """Open the store, or make one for the time of the plan where there is none yet."""
    import contextlib
    import tempfile

    @contextlib.contextmanager
    def opened() -> Any:
        if (path / "store.json").exists():
            yield _open_or_create(path, model, space, dim)[0]
            return
        with tempfile.TemporaryDirectory() as folder:
            yield _open_or_create(Path(folder) / "plan.store", model, space, dim)[0]

    return opened()


def _take_back(path: Path) -> None:
    """Remove a store that was made for this command and got nothing, so that a retry may choose another model."""
    import shutil

    if not any((path / "journal").glob("*.journal")):
        shutil.rmtree(path)


@click.command(epilog=example("embedstore info photos.store"))
@store_argument
@version_option
@value_output
def info(store: Path, version: int | None, output: Output) -> None:
    """Print what there is to know of a store."""
    from embedstore.store import EmbedStore

    about = EmbedStore.open(store, version).info()
    lines = [
        f"{about['images']:,} images in {about['parts']} parts, {about['bytes'] / 1e6:,.1f} MB"
        + (f" ({about['bytes_per_image']:,.0f} bytes an image)" if about["bytes_per_image"] else ""),
        f"space     {EmbedStore.open(store).space}",
        f"columns   {', '.join(about['columns'])}",
        f"version   {about['version']}, store made {about['created_at']}",
        f"queries   {about['cached_queries']} kept",
    ]
    if about["foreign_parts"]:
        lines.append(
            f"{about['foreign_parts']} parts in a foreign layout: `embedstore compact` makes them faster"
        )
    if about["waiting_in_journal"]:
        lines.append(
            f"{about['waiting_in_journal']:,} images in the journal; the next `embedstore add` takes them in"
        )
    output.value(about, "\n".join(lines))


@click.command(epilog=example("embedstore verify photos.store --deep"))
@store_argument
@click.option("--deep", is_flag=True, help="Read every byte again, of the store and of the pictures.")
@value_output
@click.pass_context
def verify(ctx: click.Context, store: Path, deep: bool, output: Output) -> None:
    """Check a store against itself; exit status 1 when something is damaged."""
    from embedstore.store import EmbedStore

    report = EmbedStore.open(store).verify(deep)
    output.value(report.to_dict(), str(report))
    if not report.ok:
        ctx.exit(1)


@click.command(epilog=example("embedstore remove photos.store --where \"label == 'blurred'\""))
@store_argument
@click.argument("ids", nargs=-1, metavar="[ID...]")
@where_option
@value_output
def remove(store: Path, ids: tuple[str, ...], where: str | None, output: Output) -> None:
    """Remove records by id or by a filter; older versions keep them until `vacuum`."""
    if bool(ids) == bool(where):
        raise click.UsageError("say which records to remove: ids, or --where EXPR")
    from embedstore.store import EmbedStore

    opened = EmbedStore.open(store)
    number = opened.remove(list(ids)) if ids else opened.remove(where=where)
    output.value({"removed": number, "images": len(opened)}, f"{number:,} removed, {len(opened):,} left")


@click.command(epilog=example("embedstore compact photos.store"))
@store_argument
@value_output
def compact(store: Path, output: Output) -> None:
    """Merge small parts, and lay out anew what another program has written."""
    from embedstore.store import EmbedStore

    number = EmbedStore.open(store).compact()
    output.value({"parts": number}, f"{number} parts")


@click.command(epilog=example("embedstore versions photos.store"))
@store_argument
@rows_output
def versions(store: Path, output: Output) -> None:
    """Print the versions of a store, newest first."""
    import pyarrow as pa

    from embedstore.store import EmbedStore

    rows = pa.Table.from_pylist(EmbedStore.open(store).versions())
    output.table(rows, _version_lines)


def _version_lines(rows: pa.Table) -> Iterator[str]:
    for row in rows.to_pylist():
        yield f"{row['version']:>6}  {row['timestamp']:%Y-%m-%d %H:%M:%S}  {row['operation']}"


@click.command(epilog=example("embedstore vacuum photos.store --keep-hours 24 --dry-run"))
@store_argument
@click.option(
    "--keep-hours",
    type=click.IntRange(min=0),
    default=168,
    show_default=True,
    help="Keep versions younger than this.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted.")
@value_output
def vacuum(store: Path, keep_hours: int, dry_run: bool, output: Output) -> None:
    """Delete files that only old versions need."""
    from embedstore.store import EmbedStore

    names = EmbedStore.open(store).vacuum(keep_hours, dry_run=dry_run)
    what = "would be deleted" if dry_run else "deleted"
    output.value({"files": names, "dry_run": dry_run}, f"{len(names)} files {what}")


COMMANDS = (add, info, verify, remove, compact, versions, vacuum)
