"""Commands that decide: from thresholds and their figures to saved classifiers, and what shows them to people.

sweep, rank, calibrate, calibrate-classes, evaluate, classifiers; review, plot, report. Each parses labels and a query
and hands them to the module of `deciding` whose business it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embedstore.cli.options import PATH, command, concept_of, number, open_store, prompt_options, store_argument
from embedstore.cli.output import Column, Output, columns, rows_output, sheet_option, value_output

if TYPE_CHECKING:
    from embedstore.deciding.classifier import Classifier
    from embedstore.store import EmbedStore

F = TypeVar("F", bound=Callable[..., Any])

_LABEL_HELP = (
    "Which rows are positive: COLUMN=VALUE, or a CSV, JSON lines or Parquet file with a column id (or uri, path, "
    "file_name) and a column label of yes and no; FILE:COLUMN=VALUE for others."
)
_SWEPT = (
    Column("threshold", ".4f", "threshold"),
    Column("matches", ",", "matches"),
    Column("percentile", ".2f", "percentile"),
)
_MEASURED = (Column("precision", ".4f", "precision"), Column("recall", ".4f", "recall"), Column("f1", ".4f", "F1"))
_RANKED = (
    Column("average_precision", ".4f", "average precision"),
    Column("roc_auc", ".4f", "ROC AUC"),
    Column("best_f1", ".4f", "best F1"),
    Column("query", "", "query"),
)


def _label_option(required: bool) -> Callable[[F], F]:
    """Add ``--label``, which says which rows are positive."""
    return click.option("--label", "labels", metavar="LABELS", required=required, help=_LABEL_HELP)


@command('embedstore sweep photos.store "bird" --label category=bird --thresholds 0.3,0.4,0.5')
@store_argument
@click.argument("text", metavar="TEXT")
@_label_option(required=False)
@prompt_options
@click.option("--thresholds", metavar="A,B,C", help="These thresholds.  [default: spread over the top half]")
@click.option("-n", type=click.IntRange(min=2), default=20, show_default=True, help="How many, when not given.")
@click.option("--noise", is_flag=True, help="Also say what queries that mean nothing score.")
@rows_output
def sweep(
    store: Path, labels: str | None, thresholds: str | None, n: int, noise: bool, output: Output, **query: Any
) -> None:
    """Print what each threshold gives: matches and, with labels, precision, recall and F1."""
    chosen = None if thresholds is None else [number(one) for one in thresholds.split(",")]
    text = query["text"]
    concept = concept_of(query)
    opened = open_store(store)
    swept = opened.sweep(concept, labels)
    rows = swept.table(chosen, n)
    output.table(rows, columns(rows, _SWEPT if swept.curve is None else _SWEPT + _MEASURED))
    if swept.curve is not None:
        precision, area = swept.curve.average_precision, swept.curve.roc_auc
        output.say(f"average precision {precision:.4f}, ROC AUC {area:.4f}")
    elif (gap := swept.distribution.gap()) is not None:
        output.say(
            f"without labels: the widest gap for its rank is at score > {gap.threshold:.4f}, {gap.matches} matches, "
            f"{gap.prominence:.1f} times the mean" + ("" if gap.prominence >= 8 else " (no more than chance)")
        )
    if noise:
        from embedstore.deciding.thresholds import noise_floor

        floor = noise_floor(opened.reader, text)
        output.say(f"queries that mean nothing exceed {floor:.4f} on at most 1 % of the images")


@command('embedstore rank photos.store bird "a bird in flight" penguin --label category=bird')
@store_argument
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@_label_option(required=True)
@rows_output
def rank(store: Path, texts: tuple[str, ...], labels: str, output: Output) -> None:
    """Rank queries by how well they sort labelled images."""
    from embedstore.deciding.thresholds import rank as rank_queries

    ranked = rank_queries(open_store(store).reader, texts, labels)
    output.table(ranked, columns(ranked, _RANKED))


@command(
    'embedstore calibrate photos.store "bird" --label category=bird --name bird',
    'embedstore calibrate photos.store "bird" --label category=bird --objective recall --min-precision 0.8',
)
@store_argument
@click.argument("text", metavar="TEXT")
@_label_option(required=True)
@prompt_options
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
@click.option("--max-matches", type=click.IntRange(min=0), help="Only thresholds with at most so many matches.")
@click.option(
    "--guarantee/--no-guarantee",
    default=True,
    show_default=True,
    help="Whether a minimum must hold on further rows too, with the probability --confidence.",
)
@click.option(
    "--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True
)
@click.option("--validation", type=click.Choice(["kfold", "split", "none"]), default="kfold", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--no-save", is_flag=True, help="Print the figures, keep nothing.")
@value_output
def calibrate(
    store: Path,
    labels: str,
    cost_fp: float | None,
    cost_fn: float | None,
    no_save: bool,
    output: Output,
    **options: Any,
) -> None:
    """Choose the threshold of a query by labels, measure it on held-out rows, and save the classifier."""
    concept = concept_of(options)
    cost = {name: value for name, value in (("fp", cost_fp), ("fn", cost_fn)) if value is not None}
    opened = open_store(store)
    classifier = opened.calibrate(concept, labels, cost=cost or None, **options)
    _print_calibrated(opened, classifier, not no_save, output)


@command(
    "embedstore calibrate-classes photos.store --column category --class bird --class 'vehicle=a car' --name kinds"
)
@store_argument
@click.option("--column", required=True, metavar="NAME", help="The column that holds each image's class.")
@click.option(
    "--class",
    "classes",
    multiple=True,
    required=True,
    metavar="VALUE[=TEXT]",
    help="A value of the column, and what to look for where that is another text; once for each class.",
)
@click.option("--name", required=True, metavar="NAME", help="Of the classifier.")
@click.option(
    "--mode",
    type=click.Choice(["argmax", "multi-label"]),
    default="argmax",
    show_default=True,
    help="One class for each image, or none; or any number.",
)
@click.option("--objective", default="f1", show_default=True, metavar="WHAT", help="As in `calibrate`.")
@value_output
def calibrate_classes(
    store: Path, column: str, classes: tuple[str, ...], name: str, mode: Any, objective: str, output: Output
) -> None:
    """Choose a query's threshold for each of several classes, and save them as one classifier."""
    from embedstore.deciding import thresholds

    opened = open_store(store)
    pairs = (word.partition("=") for word in classes)
    queries = {value.strip(): (text or value).strip() for value, _, text in pairs}
    classifier = thresholds.calibrate_classes(opened.reader, queries, column, name=name, mode=mode, objective=objective)
    _print_calibrated(opened, classifier, True, output)


@command("embedstore evaluate other.store bird --from photos.store --label category=bird")
@store_argument
@click.argument("name", metavar="NAME")
@_label_option(required=True)
@click.option("--from", "origin", type=PATH, metavar="STORE", help="The store that keeps the classifier.")
@value_output
def evaluate(store: Path, name: str, labels: str, origin: Path | None, output: Output) -> None:
    """Measure a saved classifier on labelled rows, of its own or of another store."""
    opened = open_store(store)
    evaluation = opened.evaluate(find_classifier(opened, name, origin), labels)
    output.value(evaluation.to_dict(), str(evaluation))


@command("embedstore classifiers photos.store", "embedstore classifiers photos.store bird")
@store_argument
@click.argument("name", required=False, metavar="[NAME]")
@value_output
def classifiers(store: Path, name: str | None, output: Output) -> None:
    """Print the classifiers that a store keeps, or all of one."""
    opened = open_store(store)
    kept = [opened.classifier(one) for one in ([name] if name else opened.classifiers())]
    lines = [line for one in kept for line in _classifier_lines(one)]
    output.value(
        {"classifiers": [one.to_dict() for one in kept]},
        "\n".join(lines) or f"none yet; `embedstore calibrate {store} TEXT --label LABELS` makes one",
    )


@command("embedstore review photos.store bird -o review.csv --sheet review.png")
@store_argument
@click.argument("name", metavar="NAME")
@_label_option(required=False)
@click.option("--near", type=click.IntRange(min=0), default=20, show_default=True, help="How many near the threshold.")
@click.option("--spread", type=click.IntRange(min=0), default=20, show_default=True, help="How many over all scores.")
@click.option("--mistakes", is_flag=True, help="Instead: the false positives and negatives among --label.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("-o", "file", type=PATH, default=Path("review.csv"), show_default=True)
@sheet_option
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
    if mistakes and labels is None:
        raise click.UsageError("--mistakes needs --label")
    from embedstore.deciding.review import Review, ScoredRows

    opened = open_store(store)
    rows = ScoredRows.of(opened.reader, opened.classifier(name), labels)
    if mistakes:
        import pyarrow as pa

        both = pa.concat_tables([wrong.table for wrong in rows.mistakes()])
        picked = Review(both, f"{name}: mistakes")
    else:
        picked = rows.to_label(near, spread, seed)
    picked.save_csv(file)
    click.echo(f"{len(picked)} pictures in {file}", err=True)
    if sheet is not None:
        picked.save_sheet(sheet)
        click.echo(f"drawn in {sheet}", err=True)


@command("embedstore plot photos.store bird --label category=bird --kind pr -o bird.png")
@store_argument
@click.argument("name", metavar="NAME")
@_label_option(required=True)
@click.option(
    "--kind", type=click.Choice(["pr", "roc", "threshold", "histogram", "boundary"]), default="pr", show_default=True
)
@click.option("-o", "file", type=PATH, required=True, help="PNG, SVG or PDF; a boundary: PNG.")
def plot(store: Path, name: str, labels: str, kind: str, file: Path) -> None:
    """Draw a curve of a saved classifier over labelled rows, or the pictures around its threshold."""
    from embedstore.deciding import plots
    from embedstore.deciding.review import ScoredRows
    from embedstore.measures.curves import precision_recall

    opened = open_store(store)
    rows = ScoredRows.of(opened.reader, opened.classifier(name), labels)
    scores, truth = rows.scores[rows.labelled.positions], rows.labelled.values
    if kind == "boundary":
        rows.around().save_sheet(file)
    elif kind == "histogram":
        plots.ScoreHistogramDisplay.from_scores(scores, truth, rows.threshold, name=name).save(file)
    else:
        kinds: dict[str, Any] = {
            "pr": plots.PrecisionRecallDisplay,
            "roc": plots.RocDisplay,
            "threshold": plots.ThresholdDisplay,
        }
        kinds[kind].from_curve(precision_recall(scores, truth), rows.threshold, name=name).save(file)
    click.echo(f"drawn in {file}", err=True)


@command("embedstore report photos.store bird --label category=bird -o bird.html")
@store_argument
@click.argument("name", metavar="NAME")
@_label_option(required=True)
@click.option("-o", "file", type=PATH, required=True, help="The HTML file to write.")
def report(store: Path, name: str, labels: str, file: Path) -> None:
    """Write one HTML page on a saved classifier: figures, curves, the boundary and the mistakes."""
    from embedstore.deciding.report import write_report

    opened = open_store(store)
    write_report(opened.reader, opened.classifier(name), labels, file)
    click.echo(f"written to {file}", err=True)


def find_classifier(store: EmbedStore, name: str, origin: Path | None = None) -> Classifier:
    """Return a classifier by name, of this store or of another, or from a JSON file."""
    from embedstore.deciding.classifier import Classifier

    if name.endswith(".json"):
        return Classifier.load(name)
    return (store if origin is None else open_store(origin)).classifier(name)


def _print_calibrated(store: EmbedStore, classifier: Classifier, save: bool, output: Output) -> None:
    """Print a new classifier's figures; keep it first, where that is wanted, and say how it is used."""
    if save:
        store.save_classifier(classifier)
    output.value(classifier.to_dict(), "\n".join(_classifier_lines(classifier)))
    if save:
        output.say(
            f"saved; use it with: embedstore classify {quote(str(store.path))} --classifier {quote(classifier.name)}"
        )


def _classifier_lines(classifier: Classifier) -> Iterator[str]:
    """Yield what there is to say of a classifier: its figures with their intervals, and how they came about."""
    from embedstore.measures.calibration import figure_lines, what_intervals_say

    yield f"{classifier.name}: {classifier.n:,} labelled rows, {classifier.n_pos:,} positive"
    for target in classifier.targets:
        yield f"  {target.label}: {', '.join(target.queries)}"
        yield from (f"    {line}" for line in figure_lines(target.figures, target.intervals))
    yield f"  chosen for {classifier.objective} with {classifier.constraints}, measured {classifier.validation}"
    if any(target.intervals for target in classifier.targets):
        yield f"  {what_intervals_say(classifier.confidence)}"
    yield from (f"  warning: {text}" for text in classifier.warnings)


COMMANDS = (sweep, rank, calibrate, calibrate_classes, evaluate, classifiers, review, plot, report)
