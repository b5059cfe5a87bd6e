"""Commands that show what a query's scores can decide, and keep nothing: sweep, rank.

Thresholds, labels and queries are parsed here; the figures are those of `deciding`.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli import completion
from embedstore.cli.options import (
    Count,
    Location,
    command,
    concept_of,
    executor_options,
    number,
    open_store,
    query_options,
    store_argument,
    where_option,
)
from embedstore.cli.output import Column, Output, columns, figures_output
from embedstore.cli.scored import label_option, labels_wanted

if TYPE_CHECKING:
    from embedstore.deciding.counted_sweep import Swept

_MOST_THRESHOLDS = 100_000
_SWEPT = (
    Column("threshold", ".4f", "threshold"),
    Column("matches", ",", "matches"),
    Column("percentile", ".2f", "percentile"),
)
_MEASURED = (Column("precision", ".4f", "precision"), Column("recall", ".4f", "recall"), Column("f1", ".4f", "F1"))
_RANKED = (
    Column("average_precision", ".4f", "average precision"),
    Column("interval", "", "[ ]"),
    Column("roc_auc", ".4f", "ROC AUC"),
    Column("best_f1", ".4f", "best F1"),
    Column("query", "", "query"),
    Column("mark"),
)


@command(
    'embedstore sweep photos.store "bird" --label category=bird',
    'embedstore sweep photos.store "bird" --label category=bird --thresholds 0.3:0.6:0.05',
)
@store_argument
@query_options
@label_option(own=False)
@where_option
@click.option(
    "--thresholds",
    metavar="A,B,C",
    help="Count at these alone, and keep no scores; START:STOP:STEP stands for many.  [default: where the choice is]",
)
@click.option("-n", type=Count(min=2), default=20, show_default=True, help="About how many, where none are named.")
@click.option(
    "--noise/--no-noise",
    default=None,
    help="Also say what queries that mean nothing score.  [default: without labels, where that costs no request]",
)
@executor_options
@figures_output
def sweep(
    store: Location,
    labels: Any,
    where: str | None,
    thresholds: str | None,
    n: int,
    noise: bool | None,
    executor: str | None,
    output: Output,
    **query: Any,
) -> None:
    """Print what each threshold gives: matches and, with labels, precision, recall and F1.

    A QUERY is the same as in `search`.
    """
    chosen = None if thresholds is None else [one for part in thresholds.split(",") for one in _threshold_range(part)]
    concept = concept_of(query)
    opened = open_store(store, executor=executor)
    if not noise and (chosen is not None or (labels is not None and not opened.reader.executor.local)):
        counts = opened.sweep(concept, labels, thresholds=n if chosen is None else chosen, where=where)
        _print_swept(counts, counts.table(chosen), output)
        output.say(counts.about)
        return
    swept = opened.sweep(concept, labels, where=where, noise=noise)
    _print_swept(swept, swept.table(chosen, n), output)
    if swept.curve is None:
        output.say(f"without labels: {swept.suggestion}")
    elif swept.floor is not None:
        output.say(f"queries that mean nothing exceed {swept.floor:.4f} on at most 1% of the images")


def _print_swept(swept: Swept, rows: list[dict[str, float]], output: Output) -> None:
    """Print what thresholds give, and what is best where there are labels."""
    marked = [{**row, "mark": f"<- {mark}" if (mark := swept.mark(row["threshold"])) else ""} for row in rows]
    shown = _SWEPT if swept.curve is None else _SWEPT + _MEASURED
    output.table(rows, columns(marked, (*shown, Column("mark"))))
    if swept.curve is not None and swept.best is not None:
        precision, area = swept.curve.average_precision, swept.curve.roc_auc
        best = f"best F1 {swept.best.f1:.4f} at score > {swept.best.threshold:.4f}"
        also = "all labels are of one class" if math.isnan(area) else f"ROC AUC {area:.4f}"
        output.say(f"{best}; average precision {precision:.4f}, {also}")


@command('embedstore rank photos.store bird "a bird in flight" penguin --label category=bird')
@store_argument
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...", shell_complete=completion.query)
@label_option(own=True)
@where_option
@figures_output
def rank(store: Location, texts: tuple[str, ...], labels: Any, where: str | None, output: Output) -> None:
    """Rank queries by how well they sort labelled images, and say which of them cannot be told from the best.

    In brackets: where the average precision over all images like the labelled ones lies, with 95% probability, of a
    query that was named beforehand. The best of many owes to luck too: what it has without is said below.
    """
    from embedstore.deciding.thresholds import rank as rank_queries

    with labels_wanted():
        ranked = rank_queries(open_store(store).reader, texts, labels, where=where)
    shown = [
        {
            **row,
            "interval": f"[{row['low']:.4f}, {row['high']:.4f}]",
            "mark": "not distinguishable from the best" if place and row["as_good"] else "",
        }
        for place, row in enumerate(ranked)
    ]
    output.table(ranked, columns(shown, _RANKED))
    best = ranked[0]
    if len(ranked) == 1:
        return
    if best["corrected"] is None:
        output.say("too few different positives to say what the best owes to luck; label more")
    else:
        output.say(
            f"{best['query']!r} without the luck of being the best of those tried: average precision "
            f"{best['corrected']:.4f}"
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
