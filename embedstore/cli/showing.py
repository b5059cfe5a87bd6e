"""Commands that show a saved classifier to people: review, plot, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli.deciding import label_option
from embedstore.cli.options import example, store_argument

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS = ("pr", "roc", "threshold", "histogram", "boundary")


@click.command(epilog=example("embedstore review photos.store bird -o review.csv --sheet review.png"))
@store_argument
@click.argument("name", metavar="NAME")
@label_option(required=False)
@click.option(
    "--near", type=click.IntRange(min=0), default=20, show_default=True, help="How many near the threshold."
)
@click.option(
    "--spread", type=click.IntRange(min=0), default=20, show_default=True, help="How many over all scores."
)
@click.option("--mistakes", is_flag=True, help="Instead: the false positives and negatives among --label.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("-o", "file", type=click.Path(path_type=Path), default=Path("review.csv"), show_default=True)
@click.option("--sheet", type=click.Path(path_type=Path), help="Draw the pictures into this PNG or JPEG.")
def review(
    store: Path,
    name: str,
    labels: str | None,
    near: int,
    spread: int,
    mistakes: bool,
    seed: int,
    file: Path,
    sheet: Path | None,
) -> None:
    """Pick the pictures to label next, or the mistakes; fill in the CSV's label column and give it to --label."""
    from embedstore.deciding import reviewing
    from embedstore.store import EmbedStore

    opened = EmbedStore.open(store)
    kept = opened.classifier(name)
    if mistakes:
        if labels is None:
            raise click.UsageError("--mistakes needs --label")
        wrong, missed = reviewing.mistakes(opened, kept, labels)
        picked = reviewing.Review(_joined(wrong.table, missed.table), f"{name}: mistakes", kept.threshold)
    else:
        picked = reviewing.review(opened, kept, labels, n_near=near, n_stratified=spread, seed=seed)
    picked.save_csv(file)
    click.echo(f"{len(picked)} pictures in {file}", err=True)
    if sheet is not None:
        picked.save_sheet(sheet)
        click.echo(f"drawn in {sheet}", err=True)


@click.command(
    epilog=example("embedstore plot photos.store bird --label category=bird --kind pr -o bird.png")
)
@store_argument
@click.argument("name", metavar="NAME")
@label_option(required=True)
@click.option(
    "--kind",
    type=click.Choice(["pr", "roc", "threshold", "histogram", "boundary"]),
    default="pr",
    show_default=True,
)
@click.option(
    "-o", "file", type=click.Path(path_type=Path), required=True, help="PNG, SVG or PDF; a boundary: PNG."
)
def plot(store: Path, name: str, labels: str, kind: str, file: Path) -> None:
    """Draw a curve of a saved classifier over labelled rows, or the pictures around its threshold."""
    from embedstore.deciding import decide, plots, reviewing
    from embedstore.deciding.labelling import labels_for
    from embedstore.measures.curves import precision_recall
    from embedstore.store import EmbedStore

    opened = EmbedStore.open(store)
    kept = opened.classifier(name)
    if kind == "boundary":
        reviewing.around(opened, kept, labels).save_sheet(file)
    else:
        labelled = labels_for(opened.rows, labels)
        scores = decide.apply(opened, kept)[0][0][labelled.positions]
        curve = precision_recall(scores, labelled.values)
        curves: dict[str, Any] = {
            "pr": plots.PrecisionRecallDisplay,
            "roc": plots.RocDisplay,
            "threshold": plots.ThresholdDisplay,
        }
        if kind in curves:
            curves[kind].from_curve(curve, kept.threshold, name=name).save(file)
        else:
            plots.ScoreHistogramDisplay.from_scores(scores, labelled.values, kept.threshold, name=name).save(
                file
            )
    click.echo(f"drawn in {file}", err=True)


@click.command(epilog=example("embedstore report photos.store bird --label category=bird -o bird.html"))
@store_argument
@click.argument("name", metavar="NAME")
@label_option(required=True)
@click.option("-o", "file", type=click.Path(path_type=Path), required=True, help="The HTML file to write.")
def report(store: Path, name: str, labels: str, file: Path) -> None:
    """Write one HTML page on a saved classifier: figures, curves, the boundary and the mistakes."""
    from embedstore.deciding.report import write_report
    from embedstore.store import EmbedStore

    opened = EmbedStore.open(store)
    write_report(opened, opened.classifier(name), labels, file)
    click.echo(f"written to {file}", err=True)


def _joined(*tables: pa.Table) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables)


COMMANDS = (review, plot, report)
