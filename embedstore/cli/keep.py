"""Commands that look after a store: info, verify, repair, remove, restore, compact, versions, vacuum.

Each calls the method of `EmbedStore`, or the function of `embedstore`, of its name and prints what that returns.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

import click

from embedstore.cli.options import Count, Location, command, open_store, store_argument, version_option, where_option
from embedstore.cli.output import Column, Output, columns, figures_output, tell, value_output
from embedstore.wording import counted

_VERSION = (
    Column("version", head="version"),
    Column("timestamp", "%Y-%m-%d %H:%M:%S", "made"),
    Column("operation", head="by"),
)
_RECORD = (Column("id"), Column("uri"))
_LISTED = 20
"""So many records that would be removed are shown to people."""


@command("embedstore info photos.store")
@store_argument
@version_option
@value_output
def info(store: Location, version: int | None, output: Output) -> None:
    """Print what there is to know of a store."""
    opened = open_store(store, version)
    about = opened.info()
    lines = [
        f"{counted(about['images'], 'image')} in {counted(about['parts'], 'part')}, {about['bytes'] / 1e6:,.1f} MB"
        + (f" ({about['bytes_per_image']:,.0f} bytes an image)" if about["bytes_per_image"] else ""),
        f"space     {opened.space}",
        f"columns   {', '.join(about['columns'])}",
        f"version   {about['version']}, store made {about['created_at']}",
        f"queries   {about['cached_queries']} kept",
    ]
    named = shlex.quote(str(store))
    if about["foreign_parts"]:
        parts = counted(about["foreign_parts"], "part")
        lines.append(f"{parts} in a foreign layout: `embedstore compact {named}` makes searching faster")
    if about["waiting_in_ledger"]:
        images = counted(about["waiting_in_ledger"], "image waits", "images wait")
        lines.append(f"{images} in the ledger; the next `embedstore add {named} SOURCE` takes them in")
    if (held := about["vacuum"]) and held["files"]:
        from embedstore.storage.older_versions import VacuumReport

        lines.append(
            f"older     {held['bytes'] / 1e6:,.1f} MB that only older versions need: `embedstore vacuum "
            f"{named} --keep-hours 0` deletes them; {VacuumReport(images=held['images']).cost}"
        )
    if here := about["on_this_machine"]:
        lines += [
            f"home      {here['home']}: what this machine has paid for, claimed, asked and labelled",
            f"cache     {here['cache']}: {here['cached_bytes'] / 1e6:,.1f} of at most "
            f"{here['cache_bytes'] / 1e6:,.1f} MB of parts",
        ]
    output.value(about, "\n".join(lines))


@command("embedstore verify photos.store --deep")
@store_argument
@click.option("--deep", is_flag=True, help="Read every byte again, of the store and of the pictures.")
@value_output
@click.pass_context
def verify(ctx: click.Context, store: Location, deep: bool, output: Output) -> None:
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
def repair(store: Location, dry_run: bool, yes: bool, output: Output) -> None:
    """Mend a damaged store: make again what the rest of it tells, and name what is lost.

    Says what it will do, and asks, before it does anything. What is damaged is set aside, never deleted.
    """
    from embedstore import upkeep

    report = upkeep.repair(store, dry_run=True)
    if report.steps and not dry_run:
        if not yes:
            tell(str(report))
            click.confirm("Go on?", abort=True, err=True)
        report = upkeep.repair(store)
    output.value(report.to_dict(), str(report))


@command(
    "embedstore remove photos.store --where \"label = 'blurred'\" --dry-run",
    "embedstore remove photos.store - < ids.txt",
)
@store_argument
@click.argument("ids", nargs=-1, metavar="[ID...]")
@where_option
@click.option("--missing", is_flag=True, help="Those whose file is not there any more.")
@click.option("--dry-run", is_flag=True, help="Say how many and which would be removed.")
@value_output
def remove(
    store: Location, ids: tuple[str, ...], where: str | None, missing: bool, dry_run: bool, output: Output
) -> None:
    """Remove records by id or by a condition; older versions keep them until `vacuum`.

    `-` in place of ids reads them from stdin, one on a line. `restore` brings records back, and an `add` of the same
    pictures embeds nothing.
    """
    if [bool(ids), bool(where), missing].count(True) != 1:
        raise click.UsageError("say which records to remove: ids, --where EXPR or --missing; `-` reads ids from stdin")
    opened = open_store(store)
    named = opened.missing() if missing else _with_stdin(ids) if ids else None
    before, version = len(opened), opened.version
    number = 0 if missing and not named else opened.remove(named, where=where, dry_run=dry_run)
    left = before - number if dry_run else len(opened)
    told: dict[str, Any] = {"removed": number, "images": left}
    if dry_run:
        if named is None:
            rows = opened.to_table(["id", "uri"], where)
        else:
            rows = opened.rows.take(opened.rows.positions(list(dict.fromkeys(named))), ["id", "uri"])
        lines = [f"{number:,} would be removed, {left:,} left", *columns(rows.slice(0, _LISTED), _RECORD)]
        if number > _LISTED:
            lines.append(f"and {number - _LISTED:,} more (--json has all)")
        output.value({**told, "dry_run": True, "records": rows.to_pylist()}, "\n".join(lines))
        return
    undo = f"; `embedstore restore {shlex.quote(str(store))} {version}` brings them back" if number else ""
    output.value(told, f"{number:,} removed, {left:,} left{undo}")


def _with_stdin(ids: Sequence[str]) -> list[str]:
    """Return ids, with the lines of stdin in place of ``-``."""
    found: list[str] = []
    for one in ids:
        lines = (line.rstrip("\r\n") for line in sys.stdin) if one == "-" else [one]
        found.extend(line for line in lines if line)
    return found


@command("embedstore restore photos.store 3")
@store_argument
@click.argument("version", type=Count(min=0), metavar="VERSION")
@value_output
def restore(store: Location, version: int, output: Output) -> None:
    """Give a store the rows of an older version again; no version is lost.

    `embedstore versions` lists them, and `embedstore info STORE --at VERSION` tells what one holds. Nothing is embedded
    again.
    """
    opened = open_store(store)
    before = opened.version
    images, made = len(opened), opened.restore(version)
    text = f"version {made} has the rows of version {version}: {len(opened):,} images, where there were {images:,}"
    if made == before:
        text = f"nothing to do: version {made}, the newest, has the rows of version {version}"
    output.value({"restored": version, "version": made, "images": len(opened)}, text)


@command("embedstore compact photos.store")
@store_argument
@value_output
def compact(store: Location, output: Output) -> None:
    """Merge small parts, and lay out anew what another program has written."""
    number = open_store(store).compact()
    output.value({"parts": number}, counted(number, "part"))


@command("embedstore versions photos.store")
@store_argument
@figures_output
def versions(store: Location, output: Output) -> None:
    """Print the versions of a store, newest first."""
    rows = open_store(store).versions()
    output.table(rows, columns(rows, _VERSION))


@command("embedstore vacuum photos.store --keep-hours 24 --dry-run")
@store_argument
@click.option(
    "--keep-hours", type=Count(min=0), default=168, show_default=True, help="Keep versions younger than this."
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and what that would cost.")
@value_output
def vacuum(store: Location, keep_hours: int, dry_run: bool, output: Output) -> None:
    """Delete files that only old versions need.

    These versions can no longer be read or restored. A picture that only they hold is embedded, and paid for, again
    when it is added again: --dry-run says how many there are.
    """
    report = open_store(store).vacuum(keep_hours, dry_run=dry_run)
    output.value(report.to_dict(), str(report))


COMMANDS = (info, verify, repair, remove, restore, compact, versions, vacuum)
