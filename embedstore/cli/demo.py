"""The command `demo`: the main job on real photographs, with the bundled model, from nothing to a measured decision.

It prints each step as the command that a person would type. The figures are those of `measures`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli.options import PATH, command
from embedstore.cli.output import Column, Output, columns, draw, force_option, quiet_output
from embedstore.errors import StoreExistsError
from embedstore.result_files import SHEETS, to_write, written_for_people
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.store import EmbedStore

_WHERE_PHOTOS_ARE = (
    "the sample photographs are not part of the installed package. Clone the repository and run `embedstore demo` "
    "there, or name a folder of your own: `embedstore add my.store FOLDER --model objects`"
)
_NEXT = """
Next, with a model that understands scenes as well as things:
  embedstore models pull nomic-local        (once, 1 GB; then no network)
  embedstore add my.store ~/photos --model nomic-local && embedstore search my.store "a dog in the snow\""""
_LOOK = """
Now drag the threshold yourself, and see what matches and how well it does:
  embedstore serve {store} --open"""


@command("embedstore demo --query 'musical instrument'")
@click.option("--query", default="bird", show_default=True, help="What to look for.")
@click.option("--store", type=PATH, default=Path("demo.store"), show_default=True)
@click.option("--photos", type=PATH, help="Folder of photographs.  [default: data/photos]")
@force_option
@quiet_output
def demo(query: str, store: Path, photos: Path | None, output: Output) -> None:
    """Make a store of sample photographs, search it, decide with a threshold, and measure the decision."""
    folder = photos or Path(__file__).resolve().parents[2] / "data" / "photos"
    if photos is not None and not folder.is_dir():
        raise click.UsageError(f"{photos} is no folder of photographs")
    if not folder.is_dir():
        raise click.ClickException(_WHERE_PHOTOS_ARE)
    words = re.sub(r"[^\w.-]+", "-", query)
    sheet = to_write(f"demo-{words}.png", SHEETS)
    opened = _demo_store(store, folder)
    source = min(str(folder), os.path.relpath(folder), key=len)
    _step(output, f"embedstore add {quote(str(store))} {quote(source)} --model objects")
    output.show(str(opened.add(folder, progress=False if output.quiet else None)))

    _step(output, f'embedstore search {quote(str(store))} "{query}" -n 5')
    nearest = opened.search(query, k=5)
    shown = [Column("score", ".4f"), *([Column("category")] if "category" in opened.columns else ())]
    for line in columns(nearest.table, [*shown, Column("uri", os.path.basename)]):
        output.show(line)

    known = opened.to_table(["category"]).column("category").to_pylist() if "category" in opened.columns else []
    labels = [category == query for category in known]
    if not any(labels):
        output.show(f"\nno photograph is labelled {query!r}, so there is nothing to measure")
        output.show(_LOOK.format(store=quote(str(store))))
        return
    best = _measured(output, opened.scores(query)[0], labels)

    _step(output, f'embedstore classify {quote(str(store))} "{query}" --threshold {best:.4f}')
    matches = opened.classify(query, best)
    right = [category == query for category in matches.table.column("category").to_pylist()]
    with written_for_people(sheet, output.force):
        draw(matches.table, sheet, f"{query}: score > {best:.4f}", "category", right)
    output.show(f"{counted(len(matches), 'match', 'matches')}; look at them: {sheet}")
    output.show(_NEXT)
    output.show(_LOOK.format(store=quote(str(store))))


def _demo_store(store: Path, folder: Path) -> EmbedStore:
    """Make the store, or open that of an earlier demo; a store of other pictures stays as it is: StoreExistsError."""
    from embedstore.embedders.registry import space_of
    from embedstore.storage.folder import StoreFolder
    from embedstore.store import EmbedStore

    if not StoreFolder.is_at(store):
        return EmbedStore.create(store, model="objects")
    opened = EmbedStore.open(store)
    below = os.path.join(os.path.abspath(folder), "")
    uris = opened.to_table(["uri"]).column("uri").to_pylist()
    if opened.space != space_of("objects") or not all(uri.startswith(below) for uri in uris):
        raise StoreExistsError(f"{store} is a store of other pictures; name another path with --store")
    return opened


def _measured(output: Output, scores: Any, labels: Sequence[bool]) -> float:
    """Print what some thresholds give; return the one with the best F1."""
    from embedstore.measures.choice import choose_threshold
    from embedstore.measures.curves import precision_recall

    curve = precision_recall(scores, labels)
    _step(output, "thresholds: the vectors are here, so each further one is free")
    best = choose_threshold(curve).threshold
    for threshold in sorted({0.2, 0.3, 0.4, 0.5, best}):
        measured = curve.at(threshold)
        mark = "  <- best F1" if threshold == best else ""
        output.show(
            f"score > {threshold:.4f}   precision {measured.precision:.3f}   recall {measured.recall:.3f}   "
            f"F1 {measured.f1:.3f}{mark}"
        )
    output.show(f"average precision {curve.average_precision:.3f}")
    return best


def _step(output: Output, command: str) -> None:
    output.show(click.style(f"\n$ {command}", bold=True))


COMMANDS = (demo,)
