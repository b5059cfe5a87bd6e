"""Commands that decide: sweep, rank, calibrate, calibrate-classes, evaluate, classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embedstore.cli.options import example, store_argument, threshold_type
from embedstore.cli.output import Output, rows_output, value_output

if TYPE_CHECKING:
    import pyarrow as pa

    from embedstore.measures.classifier import Classifier
    from embedstore.store import EmbedStore

F = TypeVar("F", bound=Callable[..., Any])

_LABEL_HELP = (
    "Which rows are positive: COLUMN=VALUE, or a CSV, JSON lines or Parquet file with a column id (or uri, path, "
    "file_name) and a column label of yes and no; FILE:COLUMN=VALUE for others."
)


def label_option(required: bool) -> Callable[[F], F]:
    """Add ``--label``, which says which rows are positive."""
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
@label_option(required=False)
@_prompt_options
@click.option("--thresholds", metavar="A,B,C", help="These thresholds.  [default: spread over the top half]")
@click.option(
    "-n", type=click.IntRange(min=2), default=20, show_default=True, help="How many, when not given."
)
@click.option("--noise", is_flag=True, help="Also say what queries that mean nothing score.")
@rows_output
def sweep(
    store: Path,
    text: str,
    labels: str | None,
    thresholds: str | None,
    n: int,
    noise: bool,
    output: Output,
    **values: Any,
) -> None:
    """Print what each threshold gives: matches and, with labels, precision, recall and F1."""
    import pyarrow as pa

    from embedstore.deciding.sweeping import noise_floor
    from embedstore.store import EmbedStore

    also = values.pop("also")
    listed = [] if thresholds is None else thresholds.split(",")
    chosen = [threshold_type.convert(one, None, None) for one in listed] or None
    opened = EmbedStore.open(store)
    swept = opened.sweep([text, *also], labels, **_words(values))
    output.table(pa.Table.from_pylist(swept.table(chosen, n)), _sweep_lines)
    if swept.curve is not None:
        precision, area = swept.curve.average_precision, swept.curve.roc_auc
        output.say(f"average precision {precision:.4f}, ROC AUC {area:.4f}")
    elif (gap := swept.distribution.gap()) is not None:
        output.say(
            f"without labels: the widest gap for its rank is at score > {gap.threshold:.4f}, {gap.matches} matches, "
            f"{gap.prominence:.1f} times the mean" + ("" if gap.prominence >= 8 else " (no more than chance)")
        )
    if noise:
        floor = noise_floor(opened, text)
        output.say(f"queries that mean nothing exceed {floor:.4f} on at most 1 % of the images")


@click.command(
    epilog=example('embedstore rank photos.store bird "a bird in flight" penguin --label category=bird')
)
@store_argument
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@label_option(required=True)
@rows_output
def rank(store: Path, texts: tuple[str, ...], labels: str, output: Output) -> None:
    """Rank queries by how well they sort labelled images."""
    import pyarrow as pa

    from embedstore.deciding.sweeping import rank as rank_queries
    from embedstore.store import EmbedStore

    ranked = rank_queries(EmbedStore.open(store), texts, labels)
    output.table(pa.Table.from_pylist(ranked), _rank_lines)


@click.command(
    epilog=example(
        'embedstore calibrate photos.store "bird" --label category=bird --name bird',
        'embedstore calibrate photos.store "bird" --label category=bird --objective recall --min-precision 0.9',
    )
)
@store_argument
@click.argument("text", metavar="TEXT")
@label_option(required=True)
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
    epilog=example(
        "embedstore calibrate-classes photos.store --column category --class bird --class 'vehicle=a car' --name kinds"
    )
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
    from embedstore.deciding import decide
    from embedstore.store import EmbedStore

    opened = EmbedStore.open(store)
    pairs = (word.partition("=") for word in classes)
    queries = {value.strip(): (text or value).strip() for value, _, text in pairs}
    made = decide.calibrate_classes(opened, queries, column, name=name, mode=mode, objective=objective)
    opened.save_classifier(made)
    output.value(made.to_dict(), "\n".join(_classifier_lines(made)))
    output.say(f"saved; use it with: embedstore classify {store} --classifier {made.name!r}")


@click.command(
    epilog=example("embedstore evaluate other.store bird --from photos.store --label category=bird")
)
@store_argument
@click.argument("name", metavar="NAME")
@label_option(required=True)
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


def find_classifier(store: EmbedStore, name: str, origin: Path | None = None) -> Classifier:
    """Return a classifier by name, of this store or of another, or from a JSON file."""
    from embedstore.measures.classifier import Classifier
    from embedstore.store import EmbedStore

    if name.endswith(".json"):
        return Classifier.load(name)
    return (store if origin is None else EmbedStore.open(origin)).classifier(name)


def _sweep_lines(rows: pa.Table) -> Iterator[str]:
    measured = "f1" in rows.column_names
    yield "threshold  matches  percentile" + ("  precision  recall      F1" if measured else "")
    for row in rows.to_pylist():
        line = f"{row['threshold']:>9.4f}  {row['matches']:>7,}  {row['percentile']:>10.2f}"
        yield line + (
            f"  {row['precision']:>9.4f}  {row['recall']:>6.4f}  {row['f1']:.4f}" if measured else ""
        )


def _rank_lines(rows: pa.Table) -> Iterator[str]:
    yield "average precision  ROC AUC  best F1  query"
    for row in rows.to_pylist():
        yield f"{row['average_precision']:>17.4f}  {row['roc_auc']:>7.4f}  {row['best_f1']:>7.4f}  {row['query']}"


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


COMMANDS = (sweep, rank, calibrate, calibrate_classes, evaluate, classifiers)
