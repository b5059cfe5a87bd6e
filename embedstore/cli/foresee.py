"""Commands that look ahead: how many rows there are by what few labels say, and how many labels a limit takes.

estimate, plan-labels. What is printed is made by `deciding.census` and `deciding.label_plan`.
"""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli.options import (
    Count,
    Location,
    Number,
    command,
    concept_of,
    number,
    open_store,
    query_options,
    store_argument,
    where_option,
)
from embedstore.cli.output import Output, value_output
from embedstore.cli.scored import label_option, labels_wanted

if TYPE_CHECKING:
    from embedstore.store import EmbedStore

_BESIDE = ("text", "image", "identity", "template", "also", "against")
"""What makes a query of a name that a classifier has too."""
_confidence_option = click.option(
    "--confidence",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of the intervals, or of the guarantee.",
)


@command(
    "embedstore estimate photos.store bird --label category=bird",
    "embedstore estimate photos.store bird --label category=bird --threshold 0.5 --where \"split = 'train'\"",
)
@store_argument
@query_options
@label_option(own=True)
@click.option("--threshold", type=number, help="A match is a score larger than this.  [default: the classifier's]")
@where_option
@_confidence_option
@value_output
def estimate(
    store: Location,
    labels: Any,
    threshold: float | None,
    where: str | None,
    confidence: float,
    output: Output,
    **query: Any,
) -> None:
    """Say by random labels how many images are positive, and what a threshold is worth on all images.

    A QUERY is the same as in `search`, or the name of a classifier that the store keeps. The intervals hold however
    often you label some more and look again.
    """
    opened = open_store(store)
    asked = _asked(opened, query)
    with labels_wanted():
        found = opened.estimate(asked, labels, threshold=threshold, where=where, confidence=confidence)
    output.value(found.to_dict(), str(found))


@command(
    "embedstore plan-labels photos.store bird --min-precision 0.8 --label category=bird",
    "embedstore plan-labels photos.store bird --min-recall 0.9 --most 1000",
)
@store_argument
@query_options
@label_option(own=True)
@click.option("--min-precision", type=Number(0, 1), help="What is to be certified: a precision of at least this.")
@click.option("--min-recall", type=Number(0, 1), help="What is to be certified: a recall of at least this.")
@_confidence_option
@click.option(
    "--chance",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.8,
    show_default=True,
    help="How likely it is to be certified with the number of labels that is printed.",
)
@click.option("--most", type=Count(min=1), default=5000, show_default=True, help="Try no more labels than this.")
@where_option
@click.option("--seed", type=Count(min=0), default=0, show_default=True, help="How rows and labels are drawn.")
@value_output
def plan_labels(store: Location, labels: Any, output: Output, **options: Any) -> None:
    """Say how many more labels are expected to certify a precision or a recall, and what the guarantee costs.

    A QUERY is the same as in `search`, or the name of a classifier that the store keeps. Labelling is tried in
    simulated worlds that agree with the labels that there are; nothing is written.
    """
    opened = open_store(store)
    words, where = _plain(options), options["where"]
    plan = opened.plan_labels(_asked(opened, options), labels, progress=None, **options)
    output.value(plan.to_dict(), str(plan))
    if not plan.advice or words is None:
        return
    place, name, near, more = quote(str(store)), quote(words), plan.near, plan.advice
    if words in opened.classifiers():
        following = f"next: embedstore review {place} {name} --near {near} --random {more}"
    else:
        line = f"{plan.threshold:.4f}"
        following = f"next: embedstore review {place} {name} --threshold {line} --near {near} --random {more}"
    given = [labels] if isinstance(labels, str) else labels or []
    output.say(
        following + "".join(f" --label {quote(one)}" for one in given) + (f" --where {quote(where)}" if where else "")
    )


def _plain(words: dict[str, Any]) -> str | None:
    """Return a query of one text, or a classifier's name, that nothing stands beside; None for any other query."""
    alone = len(words["query"]) == 1 and not any(words[name] for name in _BESIDE)
    return words["query"][0] if alone else None


def _asked(store: EmbedStore, words: dict[str, Any]) -> Any:
    """Take the values of `query_options` out of `words`; return the classifier that they name, or else the query."""
    name = _plain(words)
    if name is None or name not in store.classifiers():
        return concept_of(words)
    for option in ("query", *_BESIDE):
        del words[option]
    return store.classifier(name)


COMMANDS = (estimate, plan_labels)
