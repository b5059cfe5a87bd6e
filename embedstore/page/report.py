"""A classifier and labels -> one HTML page that stands alone: the module with its slider, and the same in words.

The page holds the joined module, what `embedded` works out for it, and the same findings as plain HTML: figures,
thresholds, the pictures around the threshold and the mistakes, which are there without JavaScript too.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.evaluation import evaluate, wishes_of
from embedstore.deciding.labels import Labelled
from embedstore.deciding.review import Review, ScoredRows
from embedstore.deciding.thresholds import Sweep
from embedstore.errors import InputError
from embedstore.files import naming
from embedstore.measures.calibration import figure_rows
from embedstore.measures.curves import Curve, precision_recall
from embedstore.measures.distribution import ScoreDistribution
from embedstore.measures.rates import figures_in_words, name_in_words
from embedstore.page import embedded
from embedstore.page.joining import file_text, module_text, style_text
from embedstore.page.scored_query import ScoredQuery, rows_in_order
from embedstore.result_files import PAGES, to_write
from embedstore.searching.reader import Reader
from embedstore.wording import counted

HOST = "report_host.js"
STYLE = "report.css"
_MOST_SHOWN = 32
"""Pictures in each part of the page that is there without JavaScript."""
_STEPS = 6
"""Thresholds on each side of the chosen one, in the table."""


def write_report(
    reader: Reader,
    classifier: Classifier,
    labels: Any,
    path: str | os.PathLike[str],
    where: Any = None,
    label: str | None = None,
    thumbnails: int = 200,
) -> Path:
    """Write the report of a classifier into an HTML file, and return the file.

    It opens in any browser, offline: the threshold can be moved, and pictures, counts and figures follow. It holds the
    scores of all rows up to 1,000,000 (of more every second, or third, and so on, which it says), the labels, and the
    pictures and metadata of some rows: those around the threshold, the worst mistakes, and a spread of all. Of the
    others it shows the score alone. The same findings stand below as plain HTML, for readers without JavaScript.

    Parameters
    ----------
    reader : Reader
    classifier : Classifier
    labels
        As in `labels.labels_for`; with several classes the column of class names, for a report class by class, or for
        that of `label` alone.
    path : path
        Ends in .html or .htm.
    where : str, Expression or mask, optional
        Only rows that it keeps are measured and shown.
    label : str, optional
        One of several classes.
    thumbnails : int
        How many rows of each class have a picture in the module, at most; of 160 pixels, some 5 kB each.

    Raises
    ------
    InputError, PathError
        As `result_files.to_write`: the name has another ending, or its folder is not there; `thumbnails` is negative.
    LabelError
        No labels, or none of which it is known how they were picked.
    ClassifierError
        There is no such class.
    """
    file = to_write(path, PAGES)
    if isinstance(thumbnails, bool) or not isinstance(thumbnails, int) or thumbnails < 0:
        raise InputError(f"thumbnails is how many rows of each class have one, at least 0; found {thumbnails!r}")
    several = label is None and len(classifier.targets) > 1
    names = classifier.labels if several else (label,)
    classes = [_Class.of(ScoredRows.of(reader, classifier, labels, where, name)) for name in names]
    shown = _Pictures(reader, [review for one in classes for review in one.reviews])
    if several:
        head = [
            f"<h1>{escape(classifier.name)}</h1>",
            _scrolled("the evaluation", f"<pre>{escape(str(evaluate(reader, classifier, labels, where)))}</pre>"),
        ]
        parts = [
            line for one in classes for line in [f"<h2>{escape(one.rows.name)}</h2>", *one.head(), *one.body(3, shown)]
        ]
    else:
        head = [f"<h1>{escape(classes[0].rows.name)}</h1>", *classes[0].head()]
        parts = classes[0].body(2, shown)
    told = [(one.query(several or label is not None), one.rests, one.curve) for one in classes]
    data = embedded.data_of(classifier, told, shown.rows, thumbnails)
    with naming(file):
        file.write_text(_page(f"embedstore: {classifier.name}", head, parts, data), encoding="utf-8", newline="\n")
    return file


@dataclass(frozen=True, eq=False)
class _Class:
    """One class, and what is found out about it."""

    rows: ScoredRows
    rests: Labelled
    """The labels that the curve rests on."""
    curve: Curve
    around: Review
    wrong: Review
    missed: Review

    @classmethod
    def of(cls, rows: ScoredRows) -> _Class:
        rests = rows.labelled.to_measure()
        curve = precision_recall(rows.scores[rests.positions], rests.values, rests.weights)
        return cls(rows, rests, curve, rows.around(_MOST_SHOWN), *rows.mistakes(_MOST_SHOWN))

    def query(self, several: bool) -> ScoredQuery:
        """Return the rows in order, as the module asks for them."""
        classifier = self.rows.classifier
        shown = {"classifier": classifier.name, "class": classifier.target.label if several else None}
        return ScoredQuery(classifier, self.rows, rows_in_order(self.rows), shown)

    @property
    def reviews(self) -> tuple[Review, ...]:
        """What the page shows pictures of."""
        return self.around, self.wrong, self.missed

    def head(self) -> list[str]:
        """Return what is said first: what it looks for, where the rows are from, what to beware of."""
        classifier = self.rows.classifier
        return [
            f"<p class=note>{escape(_summary(classifier, self.rows.reader))}</p>",
            *(f"<p class=note>{escape(text)}</p>" for text in self.rows.notes),
            *(f"<p class=warning>{escape(text)}</p>" for text in classifier.warnings),
        ]

    def body(self, level: int, shown: _Pictures) -> list[str]:
        """Return the figures, the thresholds and the pictures, under headings of a level."""
        rows, classifier, threshold = self.rows, self.rows.classifier, self.rows.threshold
        scores = rows.scores if rows.kept is None else rows.scores[rows.kept]
        swept = Sweep(classifier.name, ScoreDistribution.of(scores), self.curve, rows.labelled, rows.scores)
        advice = classifier.target.advice(scores, wishes_of(classifier))
        parts = [
            (
                f"Figures of the calibration, measured {classifier.validation or 'by nobody'}",
                _figures(classifier),
            ),
            (
                f"On {counted(len(self.rests), 'labelled row')} ({self.rests.described})",
                (f"<p class=note>{escape(advice.findings)}</p>" if advice is not None else "")
                + _thresholds(swept, self.curve, threshold),
            ),
            ("Around the threshold", shown.of(self.around)),
            (counted(len(self.wrong) + self.wrong.left_out, "false positive"), shown.of(self.wrong)),
            (counted(len(self.missed) + self.missed.left_out, "false negative"), shown.of(self.missed)),
        ]
        return [f"<section class=part><h{level}>{escape(title)}</h{level}>{html}</section>" for title, html in parts]


@dataclass(eq=False)
class _Pictures:
    """The small pictures of rows that the page shows, read once."""

    reader: Reader
    reviews: Sequence[Review]
    rows: dict[int, None] = field(default_factory=dict)
    """Of which the page shows a picture, where there is one."""

    def __post_init__(self) -> None:
        ids = [one for review in self.reviews for one in review.table.column("id").to_pylist()]
        places = self.reader.rows.lookup("id").first_of_each(ids).tolist()
        self._row = dict(zip(ids, places, strict=True))
        self.rows = dict.fromkeys(places)
        uris = dict.fromkeys(one for review in self.reviews for one in review.table.column("uri").to_pylist())
        self._small = {
            uri: embedded.as_base64(data) for uri, data in embedded.small_pictures(self.reader, uris).items()
        }

    def of(self, review: Review) -> str:
        """Return the pictures of a review with what is known of each, a rule where the threshold lies."""
        cells = []
        for number, (row, right) in enumerate(zip(review.table.to_pylist(), review.right, strict=True)):
            if number in review.rules and number > 0:
                cells.append(f"<li class=rule>{escape(review.rules[number])}</li>")
            cells.append(self._cell(row, right))
        said = f"<p class=note>and {review.left_out:,} more</p>" if review.left_out else ""
        return (f"<ul class=pictures>{''.join(cells)}</ul>" if cells else "<p class=note>none</p>") + said

    def _cell(self, row: dict[str, Any], right: bool | None) -> str:
        verdict = {True: ("right", "\N{CHECK MARK} "), False: ("wrong", "\N{BALLOT X} "), None: ("", "")}[right]
        truth = "" if row["truth"] is None else f"; truth: {row['truth']}"
        data = self._small.get(row["uri"])
        picture = "<div class=missing>no picture</div>"
        if data is not None:
            picture = f'<img alt="" data-picture={self._row[row["id"]]} src="data:image/jpeg;base64,{data}">'
        caption = f"{verdict[1]}{row['score']:.4f} predicted: {row['predicted']}{truth}"
        words = f"<figcaption>{escape(caption)}</figcaption>"
        return f'<li class="{verdict[0]}"><figure title="{escape(row["uri"])}">{picture}{words}</figure></li>'


def _page(title: str, head: Sequence[str], parts: Sequence[str], data: dict[str, Any]) -> str:
    """Return the whole page; its policy lets nothing run but its own script, and nothing be fetched."""
    style, script = style_text() + file_text(STYLE), "\n" + module_text(HOST)
    for ending, text in (("</script", script), ("<script", script), ("</style", style)):
        if ending in text.lower():
            raise InputError(f"the page's own files hold {ending!r}, which would end them within a report")
    policy = (
        f"default-src 'none'; script-src {_hash_of(script)}; style-src {_hash_of(style)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    content = "\n".join(["<main>", "<header>", *head, "</header>", _PANEL, *parts, "</main>"])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f'<body class="report">\n{content}\n'
        f'<script type="application/json" id="report-data">{embedded.as_json(data)}</script>\n'
        f'<script type="module">{script}</script>\n</body>\n</html>\n'
    )


_PANEL = """<section id="report-panel" aria-label="Move the threshold">
<p id="report-class" hidden><label>Class <select data-testid="report-class"></select></label></p>
<div id="report-view"><p class="note">Where JavaScript runs, the threshold can be moved here.</p></div>
</section>"""


def _hash_of(text: str) -> str:
    """Return a text's hash as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


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
    return _table(
        "figures",
        ("figure", "value", f"{sure} confidence: over all such rows", f"{sure}: another sample as large"),
        rows,
    )


def _ends(interval: tuple[float, float] | None) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""


def _thresholds(sweep: Sweep, curve: Curve, chosen: float) -> str:
    """Return a table of the chosen threshold and others on both sides of it, the nearer the denser."""
    cuts = {*around(curve.cut(chosen), len(curve.scores)), curve.best_cut} - {curve.cut(chosen)}
    thresholds = sorted({*curve.thresholds[sorted(cuts)].tolist(), chosen})
    columns = ("threshold", "matches", "precision", "recall", "f1", "tp", "fp", "fn")
    rows = [
        [*figures_in_words({name: row[name] for name in columns}), mark]
        for row in sweep.table(thresholds)
        for mark in [
            ", ".join(filter(None, ["chosen" if row["threshold"] == chosen else "", sweep.mark(row["threshold"])]))
        ]
    ]
    return _table("thresholds", (*map(name_in_words, columns), "note"), rows, thresholds.index(chosen))


def around(cut: int, last: int, steps: int = _STEPS) -> set[int]:
    """Return cuts on both sides of one, of those from 0 to `last`: at distances that grow by the same factor."""
    found = set()
    for side, room in ((-1, cut), (1, last - 1 - cut)):
        if room > 0:
            found |= {cut + side * int(far) for far in np.unique(np.geomspace(1, room, steps).round())}
    return found


def _table(name: str, head: Sequence[str], rows: Iterable[Sequence[str]], chosen: int | None = None) -> str:
    cells = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    lines = "".join(
        f"<tr{' class=chosen' if number == chosen else ''}>{''.join(f'<td>{escape(v)}</td>' for v in row)}</tr>"
        for number, row in enumerate(rows)
    )
    return _scrolled(name, f"<table class={name}><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>")


def _scrolled(name: str, html: str) -> str:
    """Let what is too wide for the page be scrolled within it, by the keyboard too."""
    return f'<div class=scrolled tabindex=0 role=region aria-label="{escape(name)}">{html}</div>'
