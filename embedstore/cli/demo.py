"""The command `demo`: the main job on real photographs, with the bundled model, from nothing to a measured decision.

It prints each step as the command that a person would type. The figures are those of `measures`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from embedstore.cli.options import PATH, command
from embedstore.cli.output import draw

if TYPE_CHECKING:
    from embedstore.store import EmbedStore

_WHERE_PHOTOS_ARE = (
    "the sample photographs are not part of the installed package. Clone the repository and run `embedstore demo` "
    "there, or name a folder of your own: `embedstore add my.store FOLDER --model objects`"
)


@command("embedstore demo --query 'musical instrument'")
@click.option("--query", default="bird", show_default=True, help="What to look for.")
@click.option("--store", type=PATH, default=Path("demo.store"), show_default=True)
@click.option("--photos", type=PATH, help="Folder of photographs.  [default: data/photos]")
def demo(query: str, store: Path, photos: Path | None) -> None:
    """Make a store of sample photographs, search it, decide with a threshold, and measure the decision."""
    from embedstore.measures.choice import choose_threshold
    from embedstore.measures.curves import precision_recall

    folder = photos or Path(__file__).resolve().parents[2] / "data" / "photos"
    if photos is not None and not folder.is_dir():
        raise click.UsageError(f"{photos} is no folder of photographs")
    if not folder.is_dir():
        raise click.ClickException(_WHERE_PHOTOS_ARE)
    opened = _store(store, folder)

    source = min(str(folder), os.path.relpath(folder), key=len)
    _step(f"embedstore add {quote(str(store))} {quote(source)} --model objects")
    click.echo(opened.add(folder))

    _step(f'embedstore search {store} "{query}" -n 5')
    for match in opened.search(query, k=5):
        click.echo(f"{match['score']:.4f}  {match.get('category') or '':<12}  {Path(match['uri']).name}")

    known = opened.to_table(["category"]).column("category").to_pylist() if "category" in opened.columns else []
    labels = [category == query for category in known]
    if not any(labels):
        click.echo(f"\nno photograph is labelled {query!r}, so there is nothing to measure")
        return
    scores = opened.scores(query)[0]
    curve = precision_recall(scores, labels)
    _step("thresholds: the vectors are here, so each further one is free")
    best = choose_threshold(curve).threshold
    for threshold in sorted({0.2, 0.3, 0.4, 0.5, best}):
        measured = curve.at(threshold)
        mark = "  <- best F1" if threshold == best else ""
        click.echo(
            f"score > {threshold:.4f}   precision {measured.precision:.3f}   recall {measured.recall:.3f}   "
            f"F1 {measured.f1:.3f}{mark}"
        )
    click.echo(f"average precision {curve.average_precision:.3f}")

    _step(f'embedstore classify {store} "{query}" --threshold {best:.4f}')
    matches = opened.classify(query, best)
    sheet = Path(f"demo-{query.replace(' ', '-')}.png")
    right = [category == query for category in matches.table.column("category").to_pylist()]
    draw(matches.table, sheet, f"{query}: score > {best:.4f}", "category", right)
    click.echo(f"{len(matches)} matches; look at them: {sheet}")
    click.echo(
        "\nNext, with a model that understands scenes as well as things:\n"
        "  embedstore models pull nomic-local        (once, 1 GB; then no network)\n"
        '  embedstore add my.store ~/photos --model nomic-local && embedstore search my.store "a dog in the snow"'
    )


def _store(path: Path, photos: Path) -> EmbedStore:
    """Make the store anew; UsageError where there is one with anything but the photographs in it."""
    from embedstore.store import EmbedStore

    if (path / "store.json").exists():
        there = EmbedStore.open(path)
        uris = there.to_table(["uri"]).column("uri").to_pylist()
        others = [uri for uri in uris if not Path(uri).is_relative_to(photos.absolute())]
        if others or there.info()["waiting_in_ledger"]:
            raise click.UsageError(
                f"{path} is a store of other pictures, which is left as it is; name another by --store"
            )
        shutil.rmtree(path)
    return EmbedStore.create(path, model="objects")


def _step(command: str) -> None:
    click.secho(f"\n$ {command}", bold=True)


COMMANDS = (demo,)
