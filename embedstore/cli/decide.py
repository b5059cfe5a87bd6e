"""Commands that decide: from labels to saved classifiers, and what is known of those.

calibrate, calibrate-classes, evaluate, carry, classifiers; and, from `sweep`, the two that come before. Each parses
labels and a query and hands them to the module of `deciding` whose business it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli import completion
from embedstore.cli.options import (
    STORE,
    Count,
    Location,
    Number,
    command,
    concept_of,
    executor_options,
    open_store,
    query_options,
    store_argument,
    where_option,
)
from embedstore.cli.output import Output, file_option, force_option, value_output
from embedstore.cli.scored import (
    find_classifier,
    from_option,
    label_option,
    labels_or_own,
    labels_wanted,
    require_not_its_own,
)
from embedstore.cli.sweep import rank, sweep
from embedstore.result_files import REVIEWS
from embedstore.wording import counted, quoted

if TYPE_CHECKING:
    from embedstore.deciding.classifier import Classifier
    from embedstore.store import EmbedStore


@command(
    'embedstore calibrate photos.store "bird" --label category=bird --name bird',
    'embedstore calibrate photos.store "bird" --label category=bird --objective recall --min-precision 0.8',
    """embedstore calibrate photos.store "bird" --label category=bird --where "split = 'train'\"""",
)
@store_argument
@query_options
@label_option(own=True)
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
@executor_options
@value_output
def calibrate(
    store: Location,
    labels: Any,
    cost_fp: float | None,
    cost_fn: float | None,
    no_save: bool,
    executor: str | None,
    output: Output,
    **options: Any,
) -> None:
    """Choose the threshold of a query by labels, measure it on held-out rows, and save the classifier.

    A QUERY is the same as in `search`.
    """
    concept = concept_of(options)
    cost = {name: value for name, value in (("fp", cost_fp), ("fn", cost_fn)) if value is not None}
    opened = open_store(store, executor=executor)
    with labels_wanted():
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
@click.option(
    "--abstain-below",
    type=Number(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="With --mode argmax: a class that is less probable is not decided for; nor is one where none is likelier.",
)
@value_output
def calibrate_classes(
    store: Location,
    column: str,
    classes: tuple[str, ...],
    where: str | None,
    name: str,
    mode: Any,
    objective: str,
    abstain_below: float,
    output: Output,
) -> None:
    """Choose what decides between several classes, and each one's own threshold; save them as one classifier.

    With --mode argmax an image is of the likeliest class by the scores of all queries, or of none.
    """
    from embedstore.deciding import thresholds

    opened = open_store(store)
    pairs = (word.partition("=") for word in classes)
    queries = {value.strip(): (text or value).strip() for value, _, text in pairs}
    classifier = thresholds.calibrate_classes(
        opened.reader,
        queries,
        column,
        name=name,
        mode=mode,
        where=where,
        objective=objective,
        abstain_below=abstain_below,
    )
    _print_calibrated(opened, classifier, True, output)


@command(
    "embedstore evaluate other.store bird --from photos.store --label category=bird",
    """embedstore evaluate photos.store bird --label category=bird --where "split = 'test'\"""",
)
@store_argument
@click.argument("name", metavar="NAME", shell_complete=completion.classifiers)
@label_option(own=True)
@where_option
@from_option
@value_output
def evaluate(
    store: Location, name: str, labels: Any, where: str | None, origin: Location | None, output: Output
) -> None:
    """Measure a saved classifier on labelled rows, of its own or of another store."""
    opened = open_store(store)
    classifier = find_classifier(opened, name, origin)
    evaluation = opened.evaluate(classifier, labels_or_own(opened, classifier, labels), where)
    output.value(evaluation.to_dict(), str(evaluation))


@command(
    "embedstore carry photos.store bird --to other.store",
    "embedstore carry photos.store bird --to other.store --only-prevalence",
)
@store_argument
@click.argument("name", metavar="NAME", shell_complete=completion.classifiers)
@click.option(
    "--to",
    "other",
    type=STORE,
    required=True,
    metavar="STORE",
    shell_complete=completion.stores,
    help="The store whose pictures it is to decide on.",
)
@where_option
@click.option("--class", "label", metavar="CLASS", help="Of several classes: this one.")
@click.option(
    "--only-prevalence",
    is_flag=True,
    help="Where scores alone cannot tell: take it that only the share of positives changed, not how they score.",
)
@click.option("--no-save", is_flag=True, help="Print what was found, write nothing.")
@file_option(
    "-o",
    "chosen",
    endings=REVIEWS,
    default=Path("review.csv"),
    show_default=True,
    help="The CSV file for the pictures to label, where some must be.",
)
@force_option
@value_output
def carry(
    store: Location,
    name: str,
    other: Location,
    where: str | None,
    label: str | None,
    only_prevalence: bool,
    no_save: bool,
    chosen: Path,
    output: Output,
) -> None:
    """Say whether a classifier fits another store, and make it fit, or list what to label there.

    Where the scores there are like those of its calibration, it is saved there as it is. Where only more or fewer
    pictures match, its threshold is chosen anew, without labels. Where the scores themselves differ, or nothing can
    tell, the pictures to label are written to a CSV.
    """
    from embedstore.deciding.carrying import carry as carry_over

    classifier, opened = find_classifier(open_store(store), name), open_store(other)
    if label is not None:
        classifier = classifier.of_class(label)
    if _is_at(opened, store):
        raise click.UsageError(f"{other} is the store that keeps it; name another with --to")
    saves = not no_save
    if saves and not output.force:
        require_not_its_own(opened, classifier)
    over = None if output.force or no_save else chosen
    carried = carry_over(opened.reader, classifier, where=where, only_prevalence=only_prevalence, over=over)
    output.value(carried.to_dict(), str(carried))
    there = quote(str(other))
    if carried.classifier is not None:
        as_it_is = "with the new threshold" if carried.moved else "as it is"
        if saves:
            opened.save_classifier(carried.classifier)
            used = f"embedstore classify {there} --classifier {quote(classifier.name)}"
            output.say(f"saved there {as_it_is}; use it with: {used}")
    elif carried.review is None:
        output.say(f"carry one class at a time, with --class: {', '.join(carried.advice)}")
    elif saves:
        carried.review.save_csv(chosen, output.force)
        text = " ".join(map(quote, classifier.target.queries)) if len(classifier.target.queries) == 1 else "QUERY"
        again = f"embedstore calibrate {there} {text} --label {quote(str(chosen))} --name {quote(classifier.name)}"
        output.say(
            f"{counted(len(carried.review), 'picture')} in {quoted(str(chosen))}: fill in its column label with yes, "
            f"no or ?, then: {again}"
        )


@command("embedstore classifiers photos.store", "embedstore classifiers photos.store bird")
@store_argument
@click.argument("name", required=False, metavar="[NAME]", shell_complete=completion.classifiers)
@value_output
def classifiers(store: Location, name: str | None, output: Output) -> None:
    """Print the classifiers that a store keeps, or all of one."""
    opened = open_store(store)
    kept = [opened.classifier(one) for one in ([name] if name else opened.classifiers())]
    lines = [line for one in kept for line in _classifier_lines(one)]
    output.value(
        {"classifiers": [one.to_dict() for one in kept]},
        "\n".join(lines) or f"none yet; `embedstore calibrate {store} TEXT --label LABELS` makes one",
    )


def _is_at(opened: EmbedStore, place: Location) -> bool:
    """Tell whether an open store is the one at a place."""
    if isinstance(place, str):
        return opened.location == place.rstrip("/")
    return opened.folder.remote is None and opened.path.resolve() == place.resolve()


def _print_calibrated(store: EmbedStore, classifier: Classifier, save: bool, output: Output) -> None:
    """Print a new classifier's figures; keep it first, where that is wanted, and say how it is used."""
    if save:
        store.save_classifier(classifier)
    output.value(classifier.to_dict(), "\n".join(_classifier_lines(classifier)))
    if save:
        output.say(
            f"saved; use it with: embedstore classify {quote(store.location)} --classifier {quote(classifier.name)}"
        )


def _classifier_lines(classifier: Classifier) -> Iterator[str]:
    """Yield what there is to say of a classifier: its figures with their intervals, and how they came about."""
    from embedstore.measures.calibration import figure_lines, what_intervals_say

    yield f"{classifier.name}: {counted(classifier.n, 'labelled row')}, {classifier.n_pos:,} positive"
    for target in classifier.targets:
        yield f"  {target.label}: {', '.join(target.queries)}"
        yield from (f"    {line}" for line in figure_lines(target.figures, target.intervals))
    yield f"  chosen for {classifier.objective} with {classifier.constraints}, measured {classifier.validation}"
    if classifier.competition is not None:
        from embedstore.measures.competition import words_of

        yield f"  {words_of(classifier.competition)}"
        if (counts := classifier.competition.confusion) is not None:
            yield from (f"    {line}" for line in [*counts.lines(), *str(counts).splitlines()[:-1]])
    if classifier.where:
        yield f"  on {classifier.labelled}"
    if any(target.intervals for target in classifier.targets):
        others = classifier.target.prediction_intervals if classifier.mode == "single" else {}
        yield from (f"  {line}" for line in what_intervals_say(classifier.confidence, others))
    yield from (f"  warning: {text}" for text in classifier.warnings)


COMMANDS = (sweep, rank, calibrate, calibrate_classes, evaluate, carry, classifiers)
