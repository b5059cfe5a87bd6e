"""Commands that look after a store: info, verify, remove, compact, versions, vacuum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedstore.cli.options import (
    example,
    store_argument,
    version_option,
    where_option,
)
from embedstore.cli.output import Output, rows_output, value_output

if TYPE_CHECKING:
    import pyarrow as pa


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


COMMANDS = (info, verify, remove, compact, versions, vacuum)
