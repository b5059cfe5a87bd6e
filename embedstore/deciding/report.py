"""A classifier and labels -> one HTML page that stands alone: figures, curves, the boundary, the mistakes, by class.

Plain functions make the HTML. The numbers come from `thresholds`, the curves from `plots`, the pictures from `review`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.evaluation import evaluate, wishes_of
from embedstore.deciding.plots import (
    Display,
    PrecisionRecallDisplay,
    RocDisplay,
    ScoreHistogramDisplay,
    ThresholdDisplay,
)
from embedstore.deciding.review import Review, ScoredRows
from embedstore.deciding.thresholds import Sweep
from embedstore.files import naming
from embedstore.measures.calibration import figure_rows
from embedstore.measures.curves import precision_recall
from embedstore.measures.distribution import ScoreDistribution
from embedstore.measures.rates import figures_in_words, name_in_words
from embedstore.result_files import PAGES, to_write
from embedstore.searching.reader import Reader
from embedstore.wording import counted

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2.5rem auto; padding: 0 1.5rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p.note { color: #666 } .warning { background: #fff4e0; border-left: 3px solid #d9722b; padding: .4rem .8rem }
table { border-collapse: collapse } td, th { padding: .25rem .9rem .25rem 0; text-align: right }
th { font-weight: 600; color: #555; border-bottom: 1px solid #ddd } td:first-child, th:first-child { text-align: left }
tr.chosen { background: #eef4fb }
.plots { margin-top: 1.2rem; display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
.plots svg { width: 100%; height: auto } .pictures { display: flex; flex-wrap: wrap; gap: .7rem }
figure { font-size: .8rem } figure img { background: #f6f6f6 }
.right img { border-bottom: 4px solid #0072b2 } .wrong img { border-bottom: 4px solid #d55e00 }
.pictures > div { width: 112px; overflow-wrap: anywhere } .pictures > .rule { width: 100%; border-top: 2px solid #222 }
table, pre { display: block; overflow-x: auto }
@media (max-width: 700px) { .plots { grid-template-columns: 1fr } }
"""
_MOST_MISTAKES = 32


def write_report(
    reader: Reader,
    classifier: Classifier,
    labels: Any,
    path: str | os.PathLike[str],
    where: Any = None,
    label: str | None = None,
) -> Path:
    """Write the report of a classifier into an HTML file, and return the file.

    Only rows that `where` keeps are measured and shown. Labels are as in `labels.labels_for`; with several classes the
    column of class names, for a report class by class, or for that of `label` alone. Raises MissingDependencyError
    where matplotlib is not installed, and as `result_files.to_write` where the name does not end in .html or its folder
    is not there.
    """
    file = to_write(path, PAGES)
    if label is None and len(classifier.targets) > 1:
        parts = [
            f"<h1>{escape(classifier.name)}</h1>",
            f"<pre>{escape(str(evaluate(reader, classifier, labels, where)))}</pre>",
        ]
        for one in classifier.labels:
            parts += _parts(ScoredRows.of(reader, classifier, labels, where, one))
    else:
        parts = _parts(ScoredRows.of(reader, classifier, labels, where, label))
    title = escape(f"embedstore: {classifier.name}")
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE}</style>"
    )
    with naming(file):
        file.write_text(page + "\n".join(parts) + "</html>\n", encoding="utf-8")
    return file


def _parts(rows: ScoredRows) -> list[str]:
    """Return the parts of the page, in order."""
    classifier, labelled, threshold = rows.classifier, rows.labelled, rows.threshold
    scores = rows.scores[labelled.positions]
    shown = rows.scores if rows.kept is None else rows.scores[rows.kept]
    measured = labelled.to_measure()
    curve = precision_recall(rows.scores[measured.positions], measured.values, measured.weights)
    swept = Sweep(classifier.name, ScoreDistribution.of(shown), curve, labelled, rows.scores)
    displays: list[Display] = [
        PrecisionRecallDisplay.from_curve(curve, threshold),
        RocDisplay.from_curve(curve, threshold),
        ThresholdDisplay.from_curve(curve, threshold),
        ScoreHistogramDisplay.from_scores(scores, labelled.values, threshold),
    ]
    wrong, missed = rows.mistakes()
    advice = classifier.target.advice(shown, wishes_of(classifier))
    return [
        f"<h1>{escape(rows.name)}</h1>",
        f"<p class=note>{escape(_summary(classifier, rows.reader))}</p>",
        *(f"<p class=note>{escape(text)}</p>" for text in rows.notes),
        *(f"<p class=warning>{escape(text)}</p>" for text in classifier.warnings),
        f"<h2>Figures of the calibration, measured {escape(classifier.validation or 'by nobody')}</h2>",
        _figures(classifier),
        f"<h2>On {counted(len(measured), 'labelled row')} ({escape(measured.described)})</h2>",
        f"<p class=note>{escape(advice.findings)}</p>" if advice is not None else "",
        _thresholds(swept, threshold),
        f"<div class=plots>{''.join(display.svg() for display in displays)}</div>",
        "<h2>Around the threshold</h2>",
        _pictures(rows.around()),
        f"<h2>{counted(len(wrong), 'false positive')}</h2>",
        _pictures(wrong),
        f"<h2>{counted(len(missed), 'false negative')}</h2>",
        _pictures(missed),
    ]


def _summary(classifier: Classifier, reader: Reader) -> str:
    target = classifier.target
    asked = ", ".join(target.queries)
    against = f" against {', '.join(target.opposing)}" if target.opposing else ""
    measured = f", chosen for {classifier.objective} with {classifier.constraints}, measured {classifier.validation}"
    by = f" on {classifier.labelled}" if classifier.labelled else ""
    return (
        f"Looks for {asked}{against} in {reader.space}. A match is score > {classifier.threshold:.4f}"
        f"{measured if classifier.objective else ''}{by}; made {classifier.created_at[:10]}."
    )


def _figures(classifier: Classifier) -> str:
    target = classifier.target
    rows = [
        (name_in_words(name), f"{value:.4f}", _ends(interval), _ends(target.prediction_intervals.get(name)))
        for name, value, interval in figure_rows(target.figures, target.intervals)
    ]
    sure = f"{classifier.confidence:.0%}"
    return _table(("", "value", f"{sure} confidence: over all such rows", f"{sure}: another sample as large"), rows)


def _ends(interval: tuple[float, float] | None) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""


def _thresholds(sweep: Sweep, chosen: float) -> str:
    distinct = sorted({row["threshold"] for row in sweep.table(n=11)} | {chosen})
    columns = ("threshold", "matches", "precision", "recall", "f1", "tp", "fp", "fn")
    rows = [
        [*figures_in_words({name: row[name] for name in columns}), mark]
        for row in sweep.table(distinct)
        for mark in [
            ", ".join(filter(None, ["chosen" if row["threshold"] == chosen else "", sweep.mark(row["threshold"])]))
        ]
    ]
    return _table((*map(name_in_words, columns), ""), rows, distinct.index(chosen))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], chosen: int | None = None) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(
        f"<tr{' class=chosen' if number == chosen else ''}>{''.join(f'<td>{escape(v)}</td>' for v in row)}</tr>"
        for number, row in enumerate(rows)
    )
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _pictures(review: Review) -> str:
    from embedstore.images import figure
    from embedstore.sources import pictures_at

    rows = review.table.slice(0, _MOST_MISTAKES).to_pylist()
    kept = None if review.rows is None else review.rows.thumbnails_at
    pictures = pictures_at((row["uri"] for row in rows), kept)
    cells = []
    for number, (row, right) in enumerate(zip(rows, review.right, strict=False)):
        if number in review.rules and number > 0:
            cells.append(f"<div class=rule>{escape(review.rules[number])}</div>")
        verdict = {True: ("right", "\N{CHECK MARK} "), False: ("wrong", "\N{BALLOT X} "), None: ("", "")}[right]
        truth = "" if row["truth"] is None else f"; truth: {row['truth']}"
        caption = f"{verdict[1]}{row['score']:.4f} predicted: {row['predicted']}{truth}"
        cells.append(f"<div class='{verdict[0]}'>{figure(pictures.get(row['uri']), row['uri'], caption, 112)}</div>")
    more = len(review) - len(rows)
    return f"<div class=pictures>{''.join(cells)}</div>" + (f"<p class=note>and {more:,} more</p>" if more > 0 else "")
