"""Commands for who labels: which pictures to look at next, and what people said of them.

review. The picks are made by `deciding.review`; what is measured by labels is left to `decide`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from embedstore.cli.options import Count, command
from embedstore.cli.output import Output, file_option, force_option, quiet_output, sheet_option
from embedstore.cli.scored import scored, scored_options
from embedstore.result_files import REVIEWS, written_for_people
from embedstore.wording import counted, quoted


@command("embedstore review photos.store bird -o review.csv --sheet review.png")
@scored_options(labels_required=False)
@click.option("--near", type=Count(min=0), default=20, show_default=True, help="How many near the threshold.")
@click.option("--spread", type=Count(min=0), default=20, show_default=True, help="How many over all scores.")
@click.option("--mistakes", is_flag=True, help="Instead: the false positives and negatives among --label.")
@click.option("--seed", type=Count(min=0), default=0, show_default=True, help="Which rows are drawn.")
@file_option(
    "-o", "chosen", endings=REVIEWS, default=Path("review.csv"), show_default=True, help="The CSV file to write."
)
@sheet_option
@force_option
@quiet_output
def review(near: int, spread: int, mistakes: bool, seed: int, chosen: Path, output: Output, **named: Any) -> None:
    """Pick the pictures to label next, or the mistakes; fill in the CSV's label column and give it to --label.

    Labels that are in the CSV already are kept.
    """
    if mistakes and named["labels"] is None:
        raise click.UsageError("--mistakes needs --label")
    rows = scored(**named)
    picked = rows.all_mistakes() if mistakes else rows.to_label(near, spread, seed)
    kept = picked.save_csv(chosen, output.force)
    also = f"; {counted(kept, 'label')} in it {'was' if kept == 1 else 'were'} kept" if kept else ""
    output.say(f"{counted(len(picked), 'picture')} in {quoted(str(chosen))}{also}")
    if output.sheet is not None:
        with written_for_people(output.sheet, output.force):
            picked.save_sheet(output.sheet)
        output.say(f"drawn in {quoted(str(output.sheet))}")


COMMANDS = (review,)
