"""Commands for who labels: which pictures to look at next, and what people said of them.

review, labels. The picks are made by `deciding.review`, the log of labels is `deciding.label_log`; what is measured by
labels is left to `decide`.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli import completion
from embedstore.cli.options import Count, Location, command, number, open_store, store_argument
from embedstore.cli.output import (
    Column,
    Output,
    columns,
    figures_output,
    file_option,
    force_option,
    quiet_output,
    sheet_option,
)
from embedstore.cli.scored import scored, scored_options
from embedstore.result_files import REVIEWS, write_rows, written_for_people
from embedstore.wording import counted, quoted

if TYPE_CHECKING:
    from embedstore.deciding.label_log import Batch
    from embedstore.store import EmbedStore

_EXPORTS = (".csv", ".parquet")
_COUNTED = (
    Column("concept", "", "concept"),
    Column("round", ",", "round"),
    Column("picked", "", "picked"),
    Column("yes", ",", "yes"),
    Column("no", ",", "no"),
    Column("cannot_tell", ",", "cannot tell"),
    Column("open", ",", "open"),
)


@command(
    "embedstore review photos.store bird -o review.csv --sheet review.png",
    "embedstore review photos.store penguin --threshold 0.45",
)
@scored_options(labels_required=False)
@click.option("--near", type=Count(min=0), default=20, show_default=True, help="How many near the threshold.")
@click.option(
    "--random", "n_random", type=Count(min=0), default=20, show_default=True, help="How many of the others, at random."
)
@click.option(
    "--threshold",
    type=number,
    metavar="NUMBER",
    help="Near this score, such as one that `sweep` shows; then NAME may be a query that no classifier has yet.",
)
@click.option("--mistakes", is_flag=True, help="Instead: the false positives and negatives among the labels.")
@file_option(
    "-o", "chosen", endings=REVIEWS, default=Path("review.csv"), show_default=True, help="The CSV file to write."
)
@sheet_option
@force_option
@quiet_output
def review(
    near: int, n_random: int, threshold: float | None, mistakes: bool, chosen: Path, output: Output, **named: Any
) -> None:
    """Pick the pictures to label next, or the mistakes; fill in the CSV's label column and import it by `labels`.

    The label is yes, no, or ? where it cannot be told. Rows near the threshold move it, random ones tell how good it
    is: answer all of a sheet. Rows that have a label, in the store, in --label or in the CSV already, are not picked
    again; labels that are in the CSV are kept.
    """
    rows = scored(**named, labels_required=mistakes, threshold=threshold)
    picked = rows.all_mistakes() if mistakes else rows.to_label(near, n_random, None if output.force else chosen)
    kept = picked.save_csv(chosen, output.force)
    also = f"; {counted(kept, 'label')} in it {'was' if kept == 1 else 'were'} kept" if kept else ""
    output.say(f"{counted(len(picked), 'picture')} in {quoted(str(chosen))}{also}")
    if output.sheet is not None:
        with written_for_people(output.sheet, output.force):
            picked.save_sheet(output.sheet)
        output.say(f"drawn in {quoted(str(output.sheet))}")
    if len(picked):
        words = f"embedstore labels {quote(str(named['store']))} --import {quote(str(chosen))}"
        output.say(f"fill in its column label with yes, no or ?, then: {words}")


@command(
    "embedstore labels photos.store",
    "embedstore labels photos.store --import review.csv",
    "embedstore labels photos.store bird --export bird-labels.csv",
)
@store_argument
@click.argument("concept", required=False, metavar="[CONCEPT]", shell_complete=completion.concepts)
@click.option(
    "--import",
    "source",
    metavar="LABELS",
    shell_complete=completion.labels,
    help="Add labels: the CSV of a review, or all that --label of other commands takes.",
)
@click.option(
    "--picked",
    type=click.Choice(["given", "search", "random"]),
    help="With --import: how the rows were picked, where LABELS does not say.  [default: given]",
)
@file_option("--export", "target", endings=_EXPORTS, help=f"Write all labels to a file: {' '.join(_EXPORTS)}.")
@click.option("--undo", is_flag=True, help="Take back what came last; again for what came before that.")
@figures_output
def labels(
    store: Location,
    concept: str | None,
    source: str | None,
    picked: str | None,
    target: Path | None,
    undo: bool,
    output: Output,
) -> None:
    """Print how many labels the store keeps of each concept; add some, take some back, write them to a file.

    Labels stay in the store, by concept, with how each row was picked: `calibrate`, `evaluate` and others use them
    where no --label is given. A concept has the name of a classifier's class.
    """
    if sum((source is not None, target is not None, undo)) > 1:
        raise click.UsageError("--import, --export and --undo are three different things; choose one")
    if picked is not None and source is None:
        raise click.UsageError("--picked needs --import")
    opened = open_store(store)
    if source is not None:
        _say_added(opened.add_labels(source, concept, picked=picked), output, store)
    elif undo:
        _say_undone(opened.undo_labels(concept), output)
    elif target is not None:
        _export(opened, concept, target, output)
    else:
        _list(opened, concept, output)


def _list(store: EmbedStore, concept: str | None, output: Output) -> None:
    """Print the counts, and what there is to say of them."""
    from embedstore.deciding import label_log

    every = label_log.histories(store.reader.ledger, concept)
    found = label_log.histories(store.reader.ledger, concept, store.rows)
    rows = label_log.counts(found, store.rows).to_pylist()
    if not rows:
        words = quote(store.location)
        output.say(f"no labels yet; `embedstore review {words} NAME` picks pictures, --import takes labels in")
    output.table(rows, columns(rows, _COUNTED))
    for history, whole in zip(found, every, strict=True):
        if changed := len(whole.rows) - len(history.rows):
            others = counted(
                changed,
                "row has another picture than when it was labelled",
                "rows have other pictures than when they were labelled",
            )
            output.say(f"{history.concept}: {others}, and no label any more")
        for doubt in label_log.doubts(history, store.rows):
            output.say(f"{history.concept}: {doubt}")
        if history.contradictions:
            both = counted(history.contradictions, "row was", "rows were")
            output.say(f"{history.concept}: {both} answered yes at one time and no at another; the last answer counts")


def _say_added(batches: list[Batch], output: Output, store: Location) -> None:
    """Say what an import has brought."""
    for batch in batches:
        known = "" if batch.answered or batch.open else "; the store knew all of it"
        open_ = f"; {counted(batch.open, 'row has', 'rows have')} no answer yet" if batch.open else ""
        output.say(f"{batch.concept}: {counted(batch.answered, 'new label')}{open_}{known}")
    if any(batch.answered or batch.open for batch in batches):
        output.say(f"undo it with: embedstore labels {quote(str(store))} --undo")


def _say_undone(batch: Batch | None, output: Output) -> None:
    """Say what was taken back."""
    if batch is None:
        output.say("no labels are left to take back")
    else:
        output.say(f"{batch.concept}: {counted(batch.answered, 'label')} taken back")


def _export(store: EmbedStore, concept: str | None, target: Path, output: Output) -> None:
    """Write all that is known of labels to a file."""
    from embedstore.deciding import label_log
    from embedstore.deciding.label_lines import table_of

    table = table_of(label_log.histories(store.reader.ledger, concept))
    with written_for_people(target, output.force):
        write_rows(table, target)
    output.say(f"{counted(len(table), 'line')} written to {quoted(str(target))}")


COMMANDS = (review, labels)
