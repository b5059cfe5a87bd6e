"""Commands that look after a store: info, verify, repair, remove, compact, versions, vacuum.

Each calls the method of `EmbedStore`, or the function of `embedstore`, of its name and prints what that returns.
"""

from __future__ import annotations

from pathlib import Path

import click

from embedstore.cli.options import command, open_store, store_argument, version_option, where_option
from embedstore.cli.output import Column, Output, columns, rows_output, value_output

_VERSION = (Column("version"), Column("timestamp", "%Y-%m-%d %H:%M:%S"), Column("operation"))


@command("embedstore info photos.store")
@store_argument
@version_option
@value_output
def info(store: Path, version: int | None, output: Output) -> None:
    """Print what there is to know of a store."""
    opened = open_store(store, version)
    about = opened.info()
    lines = [
        f"{about['images']:,} images in {about['parts']} parts, {about['bytes'] / 1e6:,.1f} MB"
        + (f" ({about['bytes_per_image']:,.0f} bytes an image)" if about["bytes_per_image"] else ""),
        f"space     {opened.space}",
        f"columns   {', '.join(about['columns'])}",
        f"version   {about['version']}, store made {about['created_at']}",
        f"queries   {about['cached_queries']} kept",
    ]
    if about["foreign_parts"]:
        lines.append(f"{about['foreign_parts']} parts in a foreign layout: `embedstore compact` makes them faster")
    if about["waiting_in_ledger"]:
        lines.append(
            f"{about['waiting_in_ledger']:,} images wait in the ledger; the next `embedstore add` takes them in"
        )
    output.value(about, "\n".join(lines))


@command("embedstore verify photos.store --deep")
@store_argument
@click.option("--deep", is_flag=True, help="Read every byte again, of the store and of the pictures.")
@value_output
@click.pass_context
def verify(ctx: click.Context, store: Path, deep: bool, output: Output) -> None:
    """Check a store against itself; exit status 1 when something is damaged."""
    from embedstore import upkeep

    report = upkeep.verify(store, deep)
    output.value(report.to_dict(), str(report))
    if not report.ok:
        ctx.exit(1)


@command("embedstore repair photos.store --dry-run")
@store_argument
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before doing it.")
@value_output
def repair(store: Path, dry_run: bool, yes: bool, output: Output) -> None:
    """Mend a damaged store: make again what the rest of it tells, and name what is lost.

    Says what it will do, and asks, before it does anything. What is damaged is set aside, never deleted.
    """
    from embedstore import upkeep

    report = upkeep.repair(store, dry_run=True)
    if report.steps and not dry_run:
        if not yes:
            click.echo(str(report), err=True)
            click.confirm("Go on?", abort=True, err=True)
        report = upkeep.repair(store)
    output.value(report.to_dict(), str(report))


@command("embedstore remove photos.store --where \"label = 'blurred'\"")
@store_argument
@click.argument("ids", nargs=-1, metavar="[ID...]")
@where_option
@click.option("--missing", is_flag=True, help="Those whose file is not there any more.")
@value_output
def remove(store: Path, ids: tuple[str, ...], where: str | None, missing: bool, output: Output) -> None:
    """Remove records by id or by a condition; older versions keep them until `vacuum`."""
    if [bool(ids), bool(where), missing].count(True) != 1:
        raise click.UsageError("say which records to remove: ids, or --where EXPR, or --missing")
    opened = open_store(store)
    ids = tuple(opened.missing()) if missing else ids
    number = 0 if missing and not ids else opened.remove(list(ids)) if ids else opened.remove(where=where)
    output.value({"removed": number, "images": len(opened)}, f"{number:,} removed, {len(opened):,} left")


@command("embedstore compact photos.store")
@store_argument
@value_output
def compact(store: Path, output: Output) -> None:
    """Merge small parts, and lay out anew what another program has written."""
    number = open_store(store).compact()
    output.value({"parts": number}, f"{number} parts")


@command("embedstore versions photos.store")
@store_argument
@rows_output
def versions(store: Path, output: Output) -> None:
    """Print the versions of a store, newest first."""
    rows = open_store(store).versions()
    output.table(rows, columns(rows, _VERSION))


@command("embedstore vacuum photos.store --keep-hours 24 --dry-run")
@store_argument
@click.option(
    "--keep-hours", type=click.IntRange(min=0), default=168, show_default=True, help="Keep versions younger than this."
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted.")
@value_output
def vacuum(store: Path, keep_hours: int, dry_run: bool, output: Output) -> None:
    """Delete files that only old versions need."""
    names = open_store(store).vacuum(keep_hours, dry_run=dry_run)
    what = "would be deleted" if dry_run else "deleted"
    output.value({"files": names, "dry_run": dry_run}, f"{len(names)} files {what}")


COMMANDS = (info, verify, repair, remove, compact, versions, vacuum)
