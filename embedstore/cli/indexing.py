"""The command `index`: files that make searching faster."""

from __future__ import annotations

from pathlib import Path

import click

from embedstore.cli.options import example, store_argument
from embedstore.cli.output import Output, value_output


@click.command(epilog=example("embedstore index photos.store"))
@store_argument
@click.option(
    "--kind",
    type=click.Choice(["fp16", "ivf", "rabitq"]),
    default="fp16",
    show_default=True,
    help="fp16: exact answers from half the bytes. ivf, rabitq: for stores larger than memory; rows may be missed, "
    "how many is measured and printed, and they serve only who asks for approximate answers.",
)
@value_output
def index(store: Path, kind: str, output: Output) -> None:
    """Make index files for new parts; search is then twice as fast, with the same answers."""
    from embedstore.store import EmbedStore

    report = EmbedStore.open(store).index(kind)
    output.value(report.to_dict(), str(report))


COMMANDS = (index,)
