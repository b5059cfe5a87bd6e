"""Commands that keep a store and a service in step: sync atlas; and the `add` of a dataset of Atlas.

What is to be sent or taken, and whether it has arrived, is the business of the package `atlas`.
"""

from __future__ import annotations

import json
from typing import Any

import click

from embedstore.cli import completion
from embedstore.cli.options import Location, Number, api_key_option, example, open_store, store_argument, where_option
from embedstore.cli.output import Output, value_output


@click.group()
def sync() -> None:
    """Bring a store's rows to a service, and make sure that they are there."""


def _topic_model(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Read the name of a column, or options as JSON."""
    if value is None:
        return False
    if not value.lstrip().startswith("{"):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no JSON ({error})") from None


@sync.command(
    epilog=example(
        "embedstore sync atlas photos.store photos --dry-run",
        "embedstore sync atlas photos.store my-org/photos --index --description 'Birds, by the sea'",
        "embedstore sync atlas photos.store photos --replace --index",
    )
)
@store_argument
@click.argument("dataset", metavar="[ORG/]NAME")
@click.option("--dry-run", is_flag=True, help="Say what is there, missing and different; send nothing.")
@click.option("--images", is_flag=True, help="Send the pictures, for Atlas to embed; not the vectors.")
@where_option
@click.option(
    "--classifier",
    metavar="NAME",
    shell_complete=completion.classifiers,
    help="Add a saved classifier's scores and matches as columns.",
)
@click.option(
    "--create/--no-create",
    default=None,
    help="Make the dataset if it is not there.  [default: make it, unless its name is nearly that of a known one]",
)
@click.option("--public", is_flag=True, help="A dataset that is made is for everybody to see. Default: private.")
@click.option("--description", metavar="TEXT", help="Describe a dataset that is made, for people.")
@click.option("--index", is_flag=True, help="Then make a map, wait for it and print its link.")
@click.option(
    "--topic-model",
    metavar="COLUMN|JSON",
    callback=_topic_model,
    help="With --index: find topics, named by a COLUMN of texts; or Atlas's options as JSON.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Delete rows that differ there, and send them anew; with new columns the whole dataset.",
)
@click.option("--recheck", is_flag=True, help="Ask Atlas for every id, also of a very large store.")
@click.option(
    "--timeout",
    type=Number(min=0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time for one step: a look-up, a shard, the wait for a lock or a map.",
)
@api_key_option
@value_output
def atlas(store: Location, dataset: str, dry_run: bool, output: Output, **options: Any) -> None:
    """Send what a dataset of Nomic's Atlas lacks, and see it there.

    NAME alone is a dataset of the key's own organisation. It is made, private, when it is not there. Only rows that
    Atlas does not have are sent; each counts as sent when Atlas shows it. A sync that was cut short goes on where it
    was, and waits for a map that it has ordered. Rows that differ, and rows that Atlas has and the store has not, are
    listed.
    """
    from embedstore.atlas import apply_sync, plan_sync

    plan = plan_sync(open_store(store), dataset, progress=output.say, **options)
    if dry_run:
        output.value(plan.to_dict(), str(plan))
        return
    report = apply_sync(plan, progress=output.say)
    output.value(report.to_dict(), str(report))


def add_by_atlas(
    store: Location,
    sources: tuple[str, ...],
    dataset: str,
    dry_run: bool,
    timeout: float | None,
    output: Output,
    **given: Any,
) -> None:
    """Let Atlas embed pictures; the work of ``embedstore add STORE SOURCE --via-atlas ORG/NAME``."""
    options = {name: given.pop(name) for name in ("label_from_folder", "image_column", "split", "map")}
    others = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if dry_run or others:
        named = ", ".join(["--dry-run"] * dry_run + others)
        raise click.UsageError(f"--via-atlas takes no {named}")
    from embedstore.atlas import add_via_atlas

    if timeout is not None:
        options["timeout"] = timeout
    source: Any = list(sources) if len(sources) > 1 else sources[0]
    report = add_via_atlas(store, source, dataset, progress=output.say, **options)
    output.value(report.to_dict(), str(report))
    if report.found.all_failed:
        click.get_current_context().exit(1)


def add_from_atlas(
    store: Location,
    sources: tuple[str, ...],
    model: str | None,
    space: str | None,
    dry_run: bool,
    output: Output,
    *,
    map: bool,
    timeout: float | None,
) -> None:
    """Take a dataset of Atlas into a store; the work of ``embedstore add STORE atlas://ORG/NAME``."""
    if len(sources) > 1 or dry_run:
        raise click.UsageError("a dataset of Atlas is added by itself, and has no --dry-run")
    from embedstore.atlas import pull
    from embedstore.embedders.registry import space_of

    made_by: Any = space_of(model) if model is not None else space
    report = pull(store, sources[0], space=made_by, map=map, timeout=timeout or 600.0, progress=output.say)
    output.value(report.to_dict(), str(report))


COMMANDS = (sync,)
