"""Commands that decide: from thresholds and their figures to saved classifiers.

sweep, rank, calibrate, calibrate-classes, evaluate, classifiers. Each parses labels and a query and hands them to the
module of `deciding` whose business it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli import completion
from embedstore.cli.options import (
    Count,
    Number,
    command,
    concept_of,
    number,
    open_store,
    query_options,
    store_argument,
    where_option,
)
from embedstore.cli.output import Column, Output, columns, figures_output, value_output
from embedstore.cli.scored import find_classifier, from_option, label_option
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.deciding.classifier import Classifier
    from embedstore.store import EmbedStore

_MOST_THRESHOLDS = 100_000
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


@command(
    'embedstore sweep photos.store "bird" --label category=bird',
    'embedstore sweep photos.store "bird" --label category=bird --thresholds 0.3:0.6:0.05',
)
@store_argument
@query_options
@label_option(required=False)
@where_option
@click.option(
    "--thresholds",
    metavar="A,B,C",
    help="These thresholds; START:STOP:STEP stands for many.  [default: where the choice is]",
)
@click.option("-n", type=Count(min=2), default=20, show_default=True, help="About how many, when not given.")
@click.option(
    "--noise/--no-noise",
    default=None,
    help="Also say what queries that mean nothing score.  [default: without labels, where that costs no request]",
)
@figures_output
def sweep(
    store: Path,
    labels: str | None,
    where: str | None,
    thresholds: str | None,
    n: int,
    noise: bool | None,
    output: Output,
    **query: Any,
) -> None:
    """Print what each threshold gives: matches and, with labels, precision, recall and F1.

    A QUERY is the same as in `search`.
    """
    chosen = None if thresholds is None else [one for part in thresholds.split(",") for one in _threshold_range(part)]
    concept = concept_of(query)
    opened = open_store(store)
    swept = opened.sweep(concept, labels, where=where, noise=noise)
    rows = swept.table(chosen, n)
    marked = [{**row, "mark": f"<- {mark}" if (mark := swept.mark(row["threshold"])) else ""} for row in rows]
    shown = _SWEPT if swept.curve is None else _SWEPT + _MEASURED
    output.table(rows, columns(marked, (*shown, Column("mark"))))
    if swept.curve is not None and swept.best is not None:
        precision, area = swept.curve.average_precision, swept.curve.roc_auc
        best = f"best F1 {swept.best.f1:.4f} at score > {swept.best.threshold:.4f}"
        output.say(f"{best}; average precision {precision:.4f}, ROC AUC {area:.4f}")
    elif (gap := swept.distribution.gap()) is not None:
        output.say(
            f"without labels: the widest gap for its rank is at score > {gap.threshold:.4f}, "
            f"{counted(gap.matches, 'match', 'matches')}, "
            f"{gap.prominence:.1f} times the mean" + ("" if gap.prominence >= 8 else " (no more than chance)")
        )
    if swept.floor is not None:
        output.say(f"queries that mean nothing exceed {swept.floor:.4f} on at most 1 % of the images")


@command('embedstore rank photos.store bird "a bird in flight" penguin --label category=bird')
@store_argument
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...", shell_complete=completion.query)
@label_option(required=True)
@where_option
@figures_output
def rank(store: Path, texts: tuple[str, ...], labels: str, where: str | None, output: Output) -> None:
    """Rank queries by how well they sort labelled images."""
    from embedstore.deciding.thresholds import rank as rank_queries

    ranked = rank_queries(open_store(store).reader, texts, labels, where=where)
    output.table(ranked, columns(ranked, _RANKED))


@command(
    'embedstore calibrate photos.store "bird" --label category=bird --name bird',
    'embedstore calibrate photos.store "bird" --label category=bird --objective recall --min-precision 0.8',
    """embedstore calibrate photos.store "bird" --label category=bird --where "split = 'train'\"""",
)
@store_argument
@query_options
@label_option(required=True)
@where_option
@click.option("--name", metavar="NAME", help="Of the classifier.  [default: the query]")
@click.option(
    "--objective",
    default="f1",
    show_default=True,
    metavar="WHAT",
    help="f1 or any F-beta, such as f0.5, f2, f3 (recall counts 3 times as much as precision); balanced_accuracy, mcc, "
    "cost, precision or recall.",
)
@click.option("--cost-fp", type=Number(min=0), help="With --objective cost: what a false positive costs.")
@click.option("--cost-fn", type=Number(min=0), help="With --objective cost: what a false negative costs.")
@click.option("--min-precision", type=Number(0, 1), help="Only thresholds that reach this.")
@click.option("--min-recall", type=Number(0, 1), help="Only thresholds that reach this.")
@click.option("--max-matches", type=Count(min=0), help="Only thresholds with at most so many matches.")
@click.option(
    "--guarantee/--no-guarantee",
    default=True,
    show_default=True,
    help="Whether a minimum must hold on further rows too, with the probability --confidence.",
)
@click.option(
    "--confidence",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of the intervals, and of a guarantee.",
)
@click.option(
    "--validation",
    type=click.Choice(["kfold", "split", "none"]),
    default="kfold",
    show_default=True,
    help="On which rows the figures are measured: on held-out folds, on a held-out half, or on all.",
)
@click.option("--seed", type=Count(min=0), default=0, show_default=True, help="How rows are drawn for that.")
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
    """Choose the threshold of a query by labels, measure it on held-out rows, and save the classifier.

    A QUERY is the same as in `search`.
    """
    concept = concept_of(options)
    cost = {name: value for name, value in (("fp", cost_fp), ("fn", cost_fn)) if value is not None}
    opened = open_store(store)
    classifier = opened.calibrate(concept, labels, cost=cost or None, **options)
    _print_calibrated(opened, classifier, not no_save, output)


@command(
    "embedstore calibrate-classes photos.store --column category --class bird --class 'vehicle=a car' --name kinds"
)
@store_argument
@click.option(
    "--column",
    required=True,
    metavar="NAME",
    shell_complete=completion.columns,
    help="The column that holds each image's class.",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    required=True,
    metavar="VALUE[=TEXT]",
    help="A value of the column, and what to look for where that is another text; once for each class.",
)
@where_option
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
    store: Path,
    column: str,
    classes: tuple[str, ...],
    where: str | None,
    name: str,
    mode: Any,
    objective: str,
    output: Output,
) -> None:
    """Choose a query's threshold for each of several classes, and save them as one classifier."""
    from embedstore.deciding import thresholds

    opened = open_store(store)
    pairs = (word.partition("=") for word in classes)
    queries = {value.strip(): (text or value).strip() for value, _, text in pairs}
    classifier = thresholds.calibrate_classes(
        opened.reader, queries, column, name=name, mode=mode, where=where, objective=objective
    )
    _print_calibrated(opened, classifier, True, output)


@command(
    "embedstore evaluate other.store bird --from photos.store --label category=bird",
    """embedstore evaluate photos.store bird --label category=bird --where "split = 'test'\"""",
)
@store_argument
@click.argument("name", metavar="NAME", shell_complete=completion.classifiers)
@label_option(required=True)
@where_option
@from_option
@value_output
def evaluate(store: Path, name: str, labels: str, where: str | None, origin: Path | None, output: Output) -> None:
    """Measure a saved classifier on labelled rows, of its own or of another store."""
    opened = open_store(store)
    evaluation = opened.evaluate(find_classifier(opened, name, origin), labels, where)
    output.value(evaluation.to_dict(), str(evaluation))


@command("embedstore classifiers photos.store", "embedstore classifiers photos.store bird")
@store_argument
@click.argument("name", required=False, metavar="[NAME]", shell_complete=completion.classifiers)
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


def _threshold_range(text: str) -> list[float]:
    """Read a threshold, or many as START:STOP:STEP, the last one included."""
    ends = [number(part.strip()) for part in text.split(":")]
    if len(ends) == 1:
        return ends
    if len(ends) == 3 and all(map(math.isfinite, ends)):
        start, stop, step = (Decimal(str(end)) for end in ends)
        if step > 0 and 0 <= (stop - start) / step < _MOST_THRESHOLDS:
            return [float(start + place * step) for place in range(int((stop - start) / step) + 1)]
    raise click.BadParameter(
        f"{text!r} is no range of thresholds; write START:STOP:STEP, such as 0.1:0.9:0.01, of at most "
        f"{_MOST_THRESHOLDS:,}"
    )


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

    yield f"{classifier.name}: {counted(classifier.n, 'labelled row')}, {classifier.n_pos:,} positive"
    for target in classifier.targets:
        yield f"  {target.label}: {', '.join(target.queries)}"
        yield from (f"    {line}" for line in figure_lines(target.figures, target.intervals))
    yield f"  chosen for {classifier.objective} with {classifier.constraints}, measured {classifier.validation}"
    if classifier.where:
        yield f"  on {classifier.labelled}"
    if any(target.intervals for target in classifier.targets):
        others = classifier.target.prediction_intervals if classifier.mode == "single" else {}
        yield from (f"  {line}" for line in what_intervals_say(classifier.confidence, others))
    yield from (f"  warning: {text}" for text in classifier.warnings)


COMMANDS = (sweep, rank, calibrate, calibrate_classes, evaluate, classifiers)
