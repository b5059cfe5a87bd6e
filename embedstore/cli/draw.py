"""Commands that show a saved classifier to people: a plot, a page.

plot, report. Drawn by `deciding.plots`, `deciding.review` and `page.report`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli.options import Location, command, open_store
from embedstore.cli.output import Output, file_option, force_option, quiet_output
from embedstore.cli.scored import find_classifier, labels_or_own, scored, scored_options
from embedstore.result_files import CURVES, PAGES, SHEETS, written_for_people
from embedstore.wording import quoted

if TYPE_CHECKING:
    from embedstore.deciding.plots import Display
    from embedstore.deciding.review import ScoredRows


@command("embedstore plot photos.store bird --label category=bird --kind pr -o bird.png")
@scored_options(labels_required=True)
@click.option(
    "--kind",
    type=click.Choice(["pr", "roc", "threshold", "histogram", "boundary"]),
    default="pr",
    show_default=True,
    is_eager=True,
)
@file_option(
    "-o",
    "drawing",
    endings=lambda ctx: SHEETS if ctx.params.get("kind") == "boundary" else CURVES,
    required=True,
    help="PNG, SVG or PDF; a boundary: PNG or JPEG.",
)
@force_option
@quiet_output
def plot(kind: str, drawing: Path, output: Output, **named: Any) -> None:
    """Draw a curve of a saved classifier over labelled rows, or the pictures around its threshold."""
    rows = scored(**named, labels_required=True)
    with written_for_people(drawing, output.force):
        if kind == "boundary":
            rows.around().save_sheet(drawing)
        else:
            _display(rows, kind).save(drawing)
    output.say(f"drawn in {quoted(str(drawing))}")


def _display(rows: ScoredRows, kind: str) -> Display:
    """Return a plot of scored rows, to be drawn."""
    from embedstore.deciding import plots
    from embedstore.measures.curves import precision_recall

    scores, truth = rows.scores[rows.labelled.positions], rows.labelled.values
    kinds: dict[str, Any] = {
        "pr": plots.PrecisionRecallDisplay,
        "roc": plots.RocDisplay,
        "threshold": plots.ThresholdDisplay,
        "histogram": plots.ScoreHistogramDisplay,
    }
    chosen = kinds[kind]
    words = {"name": f"{rows.name}: {chosen.title}", "notes": rows.notes}
    if kind == "histogram":
        display: Display = chosen.from_scores(scores, truth, rows.threshold, **words)
    else:
        measured = rows.labelled.to_measure()
        curve = precision_recall(rows.scores[measured.positions], measured.values, measured.weights)
        display = chosen.from_curve(curve, rows.threshold, **words)
    return display


@command("embedstore report photos.store bird --label category=bird -o bird.html")
@scored_options(labels_required=True)
@file_option("-o", "page", endings=PAGES, required=True, help="The HTML file to write.")
@click.option(
    "--thumbnails",
    type=click.IntRange(0),
    default=200,
    show_default=True,
    metavar="N",
    help="How many rows of each class have a picture beside the slider: 160 pixels, some 5 kB each.",
)
@force_option
@quiet_output
def report(
    store: Location,
    name: str,
    labels: Any,
    origin: Location | None,
    page: Path,
    thumbnails: int,
    output: Output,
    **chosen: str | None,
) -> None:
    """Write one HTML page on a saved classifier: the slider, figures, the boundary and the mistakes, class by class.

    It opens offline in any browser, and can be read without JavaScript.
    """
    from embedstore.page.report import write_report

    opened = open_store(store)
    classifier = find_classifier(opened, name, origin)
    given = labels_or_own(opened, classifier, labels, chosen["label"])
    with written_for_people(page, output.force):
        write_report(opened.reader, classifier, given, page, chosen["where"], chosen["label"], thumbnails)
    output.say(f"written to {quoted(str(page))}")


COMMANDS = (plot, report)
