"""Which classifier, rows and labels a command is about: the options, and what they open.

Shared by the commands that apply, measure or show a saved classifier; what is done with it is left to them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embedstore.cli import completion
from embedstore.cli.options import STORE, Location, open_store, options, store_argument, where_option
from embedstore.cli.output import Output
from embedstore.errors import NoLabelsError

if TYPE_CHECKING:
    from embedstore.deciding.classifier import Classifier
    from embedstore.deciding.review import ScoredRows
    from embedstore.store import EmbedStore

F = TypeVar("F", bound=Callable[..., Any])

_LABEL_HELP = (
    "Which rows are positive: COLUMN=VALUE, a condition as in --where, or a CSV, JSON lines or Parquet file with a "
    "column id (or uri, path, file_name) and a column label of yes and no; FILE:COLUMN=VALUE for others. Given "
    "several times, they add up."
)
_OWN_HELP = "  [default: what the store keeps of the class, see `labels`]"

from_option = click.option(
    "--from",
    "origin",
    type=STORE,
    metavar="STORE",
    shell_complete=completion.stores,
    help="Another store, which keeps the classifier.",
)


def label_option(own: bool) -> Callable[[F], F]:
    """Add ``--label``, which says which rows are positive; the store's own labels stand in where `own` says so."""
    return click.option(
        "--label",
        "labels",
        metavar="LABELS",
        multiple=True,
        callback=lambda ctx, param, values: (values[0] if len(values) == 1 else list(values)) or None,
        shell_complete=completion.labels,
        help=_LABEL_HELP + (_OWN_HELP if own else ""),
    )


@contextlib.contextmanager
def labels_wanted() -> Iterator[None]:
    """Make wrong usage of it where no labels are given, and the store has none of its own."""
    try:
        yield
    except NoLabelsError as error:
        raise click.UsageError(f"Missing option '--label': {error}") from None


def scored_options(labels_required: bool) -> Callable[[F], F]:
    """Add what names the rows that a classifier scores, and their labels: the words of `scored`."""
    return options(
        store_argument,
        click.argument("name", metavar="NAME", shell_complete=completion.classifiers),
        label_option(labels_required),
        where_option,
        from_option,
        click.option("--class", "label", metavar="CLASS", help="Of several classes: this one."),
    )


def scored(
    store: Location,
    name: str,
    labels: Any,
    where: str | None,
    origin: Location | None,
    label: str | None,
    labels_required: bool,
    threshold: float | None = None,
) -> ScoredRows:
    """Score the rows of a store by a classifier; where labels are required, the store's own can stand in.

    With a threshold that takes the place of its own, a name that no classifier has is a query.
    """
    from embedstore.deciding.review import ScoredRows
    from embedstore.deciding.thresholds import uncalibrated

    opened = open_store(store)
    if threshold is None or origin is not None or name in opened.classifiers() or name.endswith(".json"):
        classifier = find_classifier(opened, name, origin)
    else:
        classifier = uncalibrated(opened.reader, name, threshold)
    if labels_required:
        labels = labels_or_own(opened, classifier, labels, label)
    rows = ScoredRows.of(opened.reader, classifier, labels, where, label)
    return rows if threshold is None else dataclasses.replace(rows, threshold=threshold)


def labels_or_own(store: EmbedStore, classifier: Classifier, labels: Any, label: str | None = None) -> Any:
    """Return what ``--label`` names, else what the store keeps of a classifier's class, which is said."""
    from embedstore.deciding.label_log import own_or

    if label is None and len(classifier.labels) > 1:
        if labels is None:
            raise click.UsageError("Missing option '--label': name the column that holds each image's class")
        return labels
    with labels_wanted():
        return own_or(store.reader, labels, label or classifier.labels[0])


def warn_of_shift(
    store: EmbedStore, classifier: Classifier, where: str | None, output: Output, origin: Location | None = None
) -> None:
    """Say where the scores of another store than a classifier's own differ from those of its calibration."""
    if classifier.store_id == store.id:
        return
    from embedstore.deciding.evaluation import advices

    differ = False
    for label, advice in advices(store.reader, classifier, where).items():
        if advice.shift.differs:
            output.say(f"warning: {label}: {advice}")
            differ = True
    if differ and origin is not None:
        home, name, there = (quote(str(word)) for word in (origin, classifier.name, store.location))
        output.say(f"what to do then: embedstore carry {home} {name} --to {there}")


def require_not_its_own(store: EmbedStore, classifier: Classifier) -> None:
    """Refuse with ClassifierError where a store keeps another classifier of that name, which its own labels chose."""
    from embedstore.errors import ClassifierError

    if classifier.name not in store.classifiers():
        return
    kept = store.classifier(classifier.name)
    if kept.store_id == store.id and kept.to_dict() != classifier.to_dict():
        raise ClassifierError(
            f"{store.location} keeps a classifier {classifier.name!r} that was calibrated there, which knows more of "
            "it; --no-save only says what would be done, --force replaces it"
        )


def find_classifier(store: EmbedStore, name: str, origin: Location | None = None) -> Classifier:
    """Return a classifier by name, of this store or of another, or from a JSON file."""
    from embedstore.deciding.classifier import Classifier

    if name.endswith(".json"):
        return Classifier.load(name)
    return (store if origin is None else open_store(origin)).classifier(name)
