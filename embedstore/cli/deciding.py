"""Commands that decide: sweep, calibrate, evaluate, classifiers, review, plot, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embedstore.cli.options import example, store_argument, threshold_type
from embedstore.cli.output import Output, rows_output, value_output

if TYPE_CHECKING:
    import pyarrow as pa

    from embedstore.classifier import Classifier
    from embedstore.store import EmbedStore

F = TypeVar("F", bound=Callable[..., Any])

_KINDS = ("pr", "roc", "threshold", "histogram", "boundary")
_LABEL_HELP = (
    "Which rows are positive: COLUMN=VALUE, or a CSV, JSON lines or Parquet file with a column id (or uri, path, "
    "file_name) and a column label of yes and no; FILE:COLUMN=VALUE for others."
)


def _label_option(required: bool) -> Callable[[F], F]:
    return click.option("--label", "labels", metavar="LABELS", required=required, help=_LABEL_HELP)


def _prompt_options(function: F) -> F:
    for option in (
        click.option(
            "--against", multiple=True, metavar="TEXT", help="Score: the query's minus the best of these."
        ),
        click.option(
            "--also", multiple=True, metavar="TEXT", help="Further prompts, averaged with the query."
        ),
        click.option(
            "--template",
            multiple=True,
            metavar="TEXT",
            help='Prompt such as "a photo of a {}"; several are averaged.',
        ),
    ):
        function = option(function)
    return function


def _words(values: dict[str, Any]) -> dict[str, Any]:
    """Take the prompt options out of a command's values."""
    template, against = values.pop("template"), values.pop("against")
    words: dict[str, Any] = {"template": list(template)} if template else {}
    return {**words, "opposing": list(against)} if against else words


@click.command(
    epilog=example('embedstore sweep photos.store "bird" --label category=bird --thresholds 0.3,0.4,0.5')
)
@store_argument
@click.argument("text", metavar="TEXT")
@_label_option(required=False)
@_prompt_options
@click.option("--thresholds", metavar="A,B,C", help="These thresholds.  [default: spread over the top half]")
@click.option(
    "-n", type=click.IntRange(min=2), default=20, show_default=True, help="How many, when not given."
)
@rows_output
def sweep(
    store: Path, text: str, labels: str | None, thresholds: str | None, n: int, output: Output, **values: Any
) -> None:
    """Print what each threshold gives: matches and, with labels, precision, recall and F1."""
    import pyarrow as pa

    from embedstore.store import EmbedStore

    also = values.pop("also")
    chosen = (
        None if thresholds is None else [threshold_type.convert(t, None, None) for t in thresholds.split(",")]
    )
    swept = EmbedStore.open(store).sweep([text, *also], labels, **_words(values))
    output.table(pa.Table.from_pylist(swept.table(chosen, n)), _sweep_lines)
    if swept.curve is not None:
        output.say(
            f"average precision {swept.curve.average_precision:.4f}, ROC AUC {swept.curve.roc_auc:.4f}"
        )


@click.command(
    epilog=example(
        'embedstore calibrate photos.store "bird" --label category=bird --name bird',
        'embedstore calibrate photos.store "bird" --label category=bird --objective recall --min-precision 0.9',
    )
)
@store_argument
@click.argument("text", metavar="TEXT")
@_label_option(required=True)
@_prompt_options
@click.option("--name", metavar="NAME", help="Of the classifier.  [default: the query]")
@click.option(
    "--objective",
    default="f1",
    show_default=True,
    metavar="WHAT",
    help="f1, f0.5, f2, balanced_accuracy, mcc, cost, precision or recall.",
)
@click.option("--cost-fp", type=float, help="With --objective cost: what a false positive costs.")
@click.option("--cost-fn", type=float, help="With --objective cost: what a false negative costs.")
@click.option("--min-precision", type=click.FloatRange(0, 1), help="Only thresholds that reach this.")
@click.option("--min-recall", type=click.FloatRange(0, 1), help="Only thresholds that reach this.")
@click.option(
    "--max-matches", type=click.IntRange(min=0), help="Only thresholds with at most so many matches."
)
@click.option(
    "--guarantee/--no-guarantee",
    default=True,
    show_default=True,
    help="Whether a minimum must hold on further rows too, with the probability --confidence.",
)
@click.option(
    "--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True
)
@click.option(
    "--validation", type=click.Choice(["kfold", "split", "none"]), default="kfold", show_default=True
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--no-save", is_flag=True, help="Print the figures, keep nothing.")
@value_output
def calibrate(store: Path, text: str, labels: str, no_save: bool, output: Output, **values: Any) -> None:
    """Choose the threshold of a query by labels, measure it on held-out rows, and save the classifier."""
    from embedstore.store import EmbedStore

    also, words = values.pop("also"), _words(values)
    cost = {"fp": values.pop("cost_fp"), "fn": values.pop("cost_fn")}
    options = {**values, **words, "cost": {k: v for k, v in cost.items() if v is not None} or None}
    opened = EmbedStore.open(store)
    made = opened.calibrate([text, *also], labels, **options)
    if not no_save:
        opened.save_classifier(made)
    output.value(made.to_dict(), "\n".join(_classifier_lines(made)))
    if not no_save:
        output.say(f"saved; use it with: embedstore classify {store} --classifier {made.name!r}")


@click.command(
    epilog=example("embedstore evaluate other.store bird --from photos.store --label category=bird")
)
@store_argument
@click.argument("name", metavar="NAME")
@_label_option(required=True)
@click.option(
    "--from",
    "origin",
    type=click.Path(path_type=Path),
    metavar="STORE",
    help="The store that keeps the classifier.",
)
@value_output
def evaluate(store: Path, name: str, labels: str, origin: Path | None, output: Output) -> None:
    """Measure a saved classifier on labelled rows, of its own or of another store."""
    from embedstore.store import EmbedStore

    opened = EmbedStore.open(store)
    measured = opened.evaluate(find_classifier(opened, name, origin), labels)
    lines = [f"{label}: {figures}" for label, figures in measured.metrics.items()]
    lines += [str(shift) for shift in measured.shift.values() if shift is not None]
    value: dict[str, Any] = {
        "classifier": measured.classifier,
        "n": measured.n,
        "metrics": {label: figures.to_dict() for label, figures in measured.metrics.items()},
    }
    if measured.confusion is not None:
        value["confusion"] = {"names": measured.confusion.names, "counts": measured.confusion.counts.tolist()}
        lines.append(f"accuracy {measured.confusion.accuracy:.4f}, decided {measured.confusion.coverage:.1%}")
    output.value(value, "\n".join(lines))


@click.command(
    epilog=example("embedstore classifiers photos.store", "embedstore classifiers photos.store bird")
)
@store_argument
@click.argument("name", required=False, metavar="[NAME]")
@value_output
def classifiers(store: Path, name: str | None, output: Output) -> None:
    """Print the classifiers that a store keeps, or all of one."""
    from embedstore.store import EmbedStore

    opened = EmbedStore.open(store)
    found = [opened.classifier(one) for one in ([name] if name else opened.classifiers())]
    lines = [line for one in found for line in _classifier_lines(one)]
    output.value(
        {"classifiers": [one.to_dict() for one in found]},
        "\n".join(lines) or "none yet: see `embedstore calibrate`",
    )


@click.command(epilog=example("embedstore review photos.store bird -o review.csv --sheet review.png"))
@store_argument
@click.argument("name", metavar="NAME")
@_label_option(required=False)
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
    from embedstore import reviewing
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
@_label_option(required=True)
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
    from embedstore import deciding, plots, reviewing
    from embedstore.curves import precision_recall
    from embedstore.labelling import labels_for
    from embedstore.store import EmbedStore

    opened = EmbedStore.open(store)
    kept = opened.classifier(name)
    if kind == "boundary":
        reviewing.around(opened, kept, labels).save_sheet(file)
    else:
        labelled = labels_for(opened.rows, labels)
        scores = deciding.apply(opened, kept)[0][0][labelled.positions]
        curve = precision_recall(scores, labelled.values)
        curves: dict[str, Any] = {
            "pr": plots.PrecisionRecallDisplay,
            "roc": plots.RocDisplay,
            "threshold": plots.ThresholdDisplay,
        }
        if kind in curves:
            curves[kind].from_curve(curve, kept.threshold, name=name).save(file)
        else:
            plots.ScoreHistogramDisplay.from_scores(scores, labelled.values, kept.threshold, name=name).save(file)
    click.echo(f"drawn in {file}", err=True)


@click.command(epilog=example("embedstore report photos.store bird --label category=bird -o bird.html"))
@store_argument
@click.argument("name", metavar="NAME")
@_label_option(required=True)
@click.option("-o", "file", type=click.Path(path_type=Path), required=True, help="The HTML file to write.")
def report(store: Path, name: str, labels: str, file: Path) -> None:
    """Write one HTML page on a saved classifier: figures, curves, the boundary and the mistakes."""
    from embedstore.report import write_report
    from embedstore.store import EmbedStore

    opened = EmbedStore.open(store)
    write_report(opened, opened.classifier(name), labels, file)
    click.echo(f"written to {file}", err=True)


def find_classifier(store: EmbedStore, name: str, origin: Path | None = None) -> Classifier:
    """Return a classifier by name, of this store or of another, or from a JSON file."""
    from embedstore.classifier import Classifier
    from embedstore.store import EmbedStore

    if name.endswith(".json"):
        return Classifier.load(name)
    return (store if origin is None else EmbedStore.open(origin)).classifier(name)


def _joined(*tables: pa.Table) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables)


def _sweep_lines(rows: pa.Table) -> Iterator[str]:
    measured = "f1" in rows.column_names
    yield "threshold  matches  percentile" + ("  precision  recall      F1" if measured else "")
    for row in rows.to_pylist():
        line = f"{row['threshold']:>9.4f}  {row['matches']:>7,}  {row['percentile']:>10.2f}"
        yield line + (
            f"  {row['precision']:>9.4f}  {row['recall']:>6.4f}  {row['f1']:.4f}" if measured else ""
        )


def _classifier_lines(classifier: Classifier) -> Iterator[str]:
    yield f"{classifier.name}: {classifier.n:,} labelled rows, {classifier.n_pos:,} positive"
    for target in classifier.targets:
        yield f"  {target.label}: {', '.join(target.queries)}"
        shown = {"threshold": target.threshold, **target.metrics}
        for name in ("threshold", "precision", "recall", "f1"):
            if name in shown:
                low, high = target.intervals.get(name, (float("nan"), float("nan")))
                spread = f"  [{low:.4f}, {high:.4f}]" if name in target.intervals else ""
                yield f"    {name:<10}{shown[name]:.4f}{spread}"
    yield f"  chosen for {classifier.objective} with {classifier.constraints}, measured {classifier.validation}"
    if any(target.intervals for target in classifier.targets):
        yield f"  [ ]: another sample as large lies there with {classifier.confidence:.0%} probability"
    yield from (f"  warning: {text}" for text in classifier.warnings)


COMMANDS = (sweep, calibrate, evaluate, classifiers, review, plot, report)
