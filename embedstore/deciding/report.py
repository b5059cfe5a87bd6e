"""A classifier and labels -> one HTML page that stands alone: figures, curves, the boundary, the mistakes."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from embedstore.deciding.labelling import labels_for
from embedstore.deciding.plots import (
    Display,
    PrecisionRecallDisplay,
    RocDisplay,
    ScoreHistogramDisplay,
    ThresholdDisplay,
)
from embedstore.deciding.reviewing import Review, around, mistakes
from embedstore.deciding.sweeping import Sweep
from embedstore.errors import ClassifierError, ImageError
from embedstore.measures.classifier import Classifier
from embedstore.measures.curves import precision_recall
from embedstore.measures.distribution import ScoreDistribution
from embedstore.store import EmbedStore

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2.5rem auto; padding: 0 1.5rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p.note { color: #666 } .warning { background: #fff4e0; border-left: 3px solid #d9722b; padding: .4rem .8rem }
table { border-collapse: collapse } td, th { padding: .25rem .9rem .25rem 0; text-align: right }
th { font-weight: 600; color: #555; border-bottom: 1px solid #ddd } td:first-child, th:first-child { text-align: left }
tr.chosen { background: #eef4fb }
.plots { margin-top: 1.2rem; display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
.plots svg { width: 100%; height: auto } .pictures { display: flex; flex-wrap: wrap; gap: .7rem }
figure { margin: 0; width: 112px; font-size: .8rem } figure img, figure i { width: 112px; height: 112px }
figure img { object-fit: contain; background: #f6f6f6 } figure i { display: block; background: #ddd }
figure.yes img { border-bottom: 3px solid #3f8f5f } figure.no img { border-bottom: 3px solid #c33 }
"""
_MOST_MISTAKES = 32


def write_report(
    store: EmbedStore, classifier: Classifier, labels: Any, path: str | os.PathLike[str]
) -> Path:
    """Write the report of a classifier of one class.

    Parameters
    ----------
    store : EmbedStore
    classifier : Classifier
    labels
        See `labelling.labels_for`.
    path : path
        An ``.html`` file; pictures and curves are inside it.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    if len(classifier.targets) > 1:
        raise ClassifierError(f"{classifier.name!r} has several classes; write a report for each class alone")
    from embedstore.deciding import decide

    labelled = labels_for(store.rows, labels)
    scores = decide.apply(store, classifier)[0][0]
    curve = precision_recall(scores[labelled.positions], labelled.values)
    threshold = classifier.threshold
    displays: list[Display] = [
        PrecisionRecallDisplay.from_curve(curve, threshold),
        RocDisplay.from_curve(curve, threshold),
        ThresholdDisplay.from_curve(curve, threshold),
        ScoreHistogramDisplay.from_scores(scores[labelled.positions], labelled.values, threshold),
    ]
    wrong, missed = mistakes(store, classifier, labels)
    evaluation = decide.evaluate(store, classifier, labels)
    shift = next(iter(evaluation.shift.values()))
    parts = [
        f"<h1>{html.escape(classifier.name)}</h1>",
        f"<p class=note>{html.escape(_summary(classifier, store))}</p>",
        *(f"<p class=warning>{html.escape(text)}</p>" for text in classifier.warnings),
        "<h2>Held-out figures of the calibration</h2>",
        _figures(classifier),
        f"<h2>On {len(labelled):,} labelled rows ({html.escape(labelled.source)})</h2>",
        f"<p class=note>{html.escape(str(shift))}</p>" if shift is not None else "",
        _thresholds(Sweep(classifier.name, ScoreDistribution.of(scores), curve, labelled, scores), threshold),
        f"<div class=plots>{''.join(_svg(display) for display in displays)}</div>",
        "<h2>Around the threshold</h2>",
        _pictures(around(store, classifier, labels, 32)),
        f"<h2>{len(wrong)} false positives</h2>",
        _pictures(wrong),
        f"<h2>{len(missed)} false negatives</h2>",
        _pictures(missed),
    ]
    title = html.escape(f"embedstore: {classifier.name}")
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    file = Path(path)
    file.write_text(page + "\n".join(parts) + "</html>\n", encoding="utf-8")
    return file


def _summary(classifier: Classifier, store: EmbedStore) -> str:
    target = classifier.targets[0]
    asked = ", ".join(target.queries)
    against = f" against {', '.join(target.opposing)}" if target.opposing else ""
    return (
        f"Looks for {asked}{against}. A match is score > {classifier.threshold:.4f}, chosen for {classifier.objective} "
        f"with {classifier.constraints}, measured {classifier.validation}. {len(store):,} images in {store.space}."
    )


def _figures(classifier: Classifier) -> str:
    target = classifier.targets[0]
    shown = {"threshold": classifier.threshold, **target.metrics}
    rows = []
    for name in ("threshold", "precision", "recall", "f1"):
        if name in shown:
            low, high = target.intervals.get(name, (None, None))
            spread = f"{low:.4f} to {high:.4f}" if low is not None and high is not None else ""
            rows.append((name, f"{shown[name]:.4f}", spread))
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
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = "".join(
        f"<tr{' class=chosen' if number == chosen else ''}>{''.join(f'<td>{html.escape(v)}</td>' for v in row)}</tr>"
        for number, row in enumerate(rows)
    )
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _svg(display: Display) -> str:
    buffer = io.StringIO()
    display.plot().figure_.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _pictures(review: Review) -> str:
    from embedstore.images import thumbnail
    from embedstore.sources import pictures_at

    rows = review.table.slice(0, _MOST_MISTAKES).to_pylist()
    pictures = pictures_at(row["uri"] for row in rows)
    cells = []
    for row in rows:
        try:
            data = base64.b64encode(thumbnail(pictures[row["uri"]], 160)).decode()
            picture = f"<img src='data:image/jpeg;base64,{data}' alt=''>"
        except (KeyError, ImageError, OSError):
            picture = "<i></i>"
        mark = {True: "yes", False: "no", None: ""}[row["label"]]
        title = html.escape(str(row["uri"]), quote=True)
        cells.append(f"<figure class='{mark}' title='{title}'>{picture}{row['score']:.4f}</figure>")
    more = len(review) - len(rows)
    return f"<div class=pictures>{''.join(cells)}</div>" + (
        f"<p class=note>and {more:,} more</p>" if more > 0 else ""
    )
