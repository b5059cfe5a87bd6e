"""A classifier and labels -> one HTML page that stands alone: figures, curves, the boundary, the mistakes.

Plain functions make the HTML. The numbers come from `thresholds`, the curves from `plots`, the pictures from `review`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.plots import (
    Display,
    PrecisionRecallDisplay,
    RocDisplay,
    ScoreHistogramDisplay,
    ThresholdDisplay,
)
from embedstore.deciding.review import YES_NO, Review, ScoredRows
from embedstore.deciding.thresholds import Sweep
from embedstore.files import naming
from embedstore.measures.calibration import figure_rows
from embedstore.measures.curves import precision_recall
from embedstore.measures.distribution import ScoreDistribution
from embedstore.searching.reader import Reader

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
.yes img { border-bottom: 3px solid #3f8f5f } .no img { border-bottom: 3px solid #c33 }
"""
_MOST_MISTAKES = 32


def write_report(reader: Reader, classifier: Classifier, labels: Any, path: str | os.PathLike[str]) -> Path:
    """Write the report of a classifier of one class into an HTML file, and return the file; labels as in `labels_for`.

    Raises ClassifierError where there are several classes, MissingDependencyError where matplotlib is not installed.
    """
    rows = ScoredRows.of(reader, classifier, labels)
    labelled, threshold = rows.labelled, rows.threshold
    scores = rows.scores[labelled.positions]
    curve = precision_recall(scores, labelled.values)
    swept = Sweep(rows.name, ScoreDistribution.of(rows.scores), curve, labelled, rows.scores)
    displays: list[Display] = [
        PrecisionRecallDisplay.from_curve(curve, threshold),
        RocDisplay.from_curve(curve, threshold),
        ThresholdDisplay.from_curve(curve, threshold),
        ScoreHistogramDisplay.from_scores(scores, labelled.values, threshold),
    ]
    wrong, missed = rows.mistakes()
    shift = classifier.target.shift(rows.scores)
    parts = [
        f"<h1>{escape(classifier.name)}</h1>",
        f"<p class=note>{escape(_summary(classifier, reader))}</p>",
        *(f"<p class=warning>{escape(text)}</p>" for text in classifier.warnings),
        "<h2>Held-out figures of the calibration</h2>",
        _figures(classifier),
        f"<h2>On {len(labelled):,} labelled rows ({escape(labelled.source)})</h2>",
        f"<p class=note>{escape(str(shift))}</p>" if shift is not None else "",
        _thresholds(swept, threshold),
        f"<div class=plots>{''.join(_svg(display) for display in displays)}</div>",
        "<h2>Around the threshold</h2>",
        _pictures(rows.around()),
        f"<h2>{len(wrong)} false positives</h2>",
        _pictures(wrong),
        f"<h2>{len(missed)} false negatives</h2>",
        _pictures(missed),
    ]
    title = escape(f"embedstore: {classifier.name}")
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    file = Path(path)
    with naming(file):
        file.write_text(page + "\n".join(parts) + "</html>\n", encoding="utf-8")
    return file


def _summary(classifier: Classifier, reader: Reader) -> str:
    target = classifier.target
    asked = ", ".join(target.queries)
    against = f" against {', '.join(target.opposing)}" if target.opposing else ""
    return (
        f"Looks for {asked}{against}. A match is score > {classifier.threshold:.4f}, chosen for {classifier.objective} "
        f"with {classifier.constraints}, measured {classifier.validation}. {len(reader):,} images in {reader.space}."
    )


def _figures(classifier: Classifier) -> str:
    target = classifier.target
    rows = [
        (name, f"{value:.4f}", f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "")
        for name, value, interval in figure_rows(target.figures, target.intervals)
    ]
    return _table(("", "value", f"interval of {classifier.confidence:.0%}"), rows)


def _thresholds(sweep: Sweep, chosen: float) -> str:
    distinct = sorted({row["threshold"] for row in sweep.table(n=11)} | {chosen})
    columns = ("threshold", "matches", "precision", "recall", "f1", "tp", "fp", "fn")
    rows = [
        [f"{row[name]:.4f}" if isinstance(row[name], float) else f"{row[name]:,}" for name in columns]
        for row in sweep.table(distinct)
    ]
    return _table(columns, rows, distinct.index(chosen))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], chosen: int | None = None) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(
        f"<tr{' class=chosen' if number == chosen else ''}>{''.join(f'<td>{escape(v)}</td>' for v in row)}</tr>"
        for number, row in enumerate(rows)
    )
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _svg(display: Display) -> str:
    buffer = io.StringIO()
    display.plot().figure_.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _pictures(review: Review) -> str:
    from embedstore.images import figure
    from embedstore.sources import pictures_at

    rows = review.table.slice(0, _MOST_MISTAKES).to_pylist()
    kept = None if review.rows is None else review.rows.thumbnails_at
    pictures = pictures_at((row["uri"] for row in rows), kept)
    cells = []
    for row in rows:
        picture = figure(pictures.get(row["uri"]), row["uri"], f"{row['score']:.4f}", 112)
        cells.append(f"<div class='{YES_NO[row['label']]}'>{picture}</div>")
    more = len(review) - len(rows)
    return f"<div class=pictures>{''.join(cells)}</div>" + (f"<p class=note>and {more:,} more</p>" if more > 0 else "")
