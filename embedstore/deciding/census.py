"""A few random labels -> how many rows of the store are positive, and what a threshold is worth on all of them.

Only labels that are a random sample count, see `labels.Labelled`; the intervals are those of `measures.watched`, which
hold however often one looks. How many labels a limit takes is `label_plan`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.label_log import own_or
from embedstore.deciding.labels import Labelled, labels_for
from embedstore.errors import LabelError, spelt
from embedstore.measures.chance import Interval
from embedstore.measures.curves import above, as_threshold
from embedstore.measures.rates import Metrics
from embedstore.measures.watched import Strata, count_interval, rate_intervals
from embedstore.searching.queries import Concept
from embedstore.searching.reader import Reader
from embedstore.wording import counted

_MORE = 2
"""How many times the labels are, for which it is said how narrow the intervals would be."""


@dataclass(frozen=True)
class Estimate:
    """How many rows are positive, and the figures of a threshold on all rows, labelled or not."""

    query: str
    threshold: float | None
    n_rows: int
    """Rows of the store, those that the condition keeps."""
    n_random: int
    """Labels of a random sample, on which all figures rest."""
    n_pos: int
    """How many of these are yes."""
    n_labelled: int
    """All labels, the others included."""
    positives: float
    """How many of the rows are positive: the share among the random labels times the rows."""
    interval: tuple[int, int]
    """Of `positives`."""
    matches: int | None
    """Rows above the threshold; counted, not estimated. None without a threshold, as all that follows is empty then."""
    figures: Mapping[str, float]
    """``precision``, ``recall`` and ``f1`` of the threshold on all rows; those alone that the labels tell."""
    intervals: Mapping[str, Interval]
    confidence: float
    """Each interval holds the truth after every label at once with this probability."""
    narrower: Mapping[str, Any]
    """What twice as many random labels of the same shares would give: ``n_random``, ``interval``, ``intervals``."""
    notes: tuple[str, ...]
    """Why the figures may be wrong."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "query": self.query,
            "threshold": self.threshold,
            "n_rows": self.n_rows,
            "n_random": self.n_random,
            "n_pos": self.n_pos,
            "n_labelled": self.n_labelled,
            "positives": self.positives,
            "interval": list(self.interval),
            "matches": self.matches,
            "figures": dict(self.figures),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "confidence": self.confidence,
            "narrower": {
                **self.narrower,
                "interval": list(self.narrower["interval"]),
                "intervals": {name: list(pair) for name, pair in self.narrower["intervals"].items()},
            },
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        low, high = self.interval
        about = "about " if low < high else ""
        lines = [
            f"{self.query}: {about}{self.positives:,.0f} of {counted(self.n_rows, 'image')} are positive  "
            f"[{low:,}, {high:,}]"
        ]
        if self.threshold is not None:
            matches = counted(self.matches or 0, "image matches", "images match")
            lines.append(f"  at score > {self.threshold:.4f} {matches}")
            for name, pair in self.intervals.items():
                value = f"{self.figures[name]:.4f}" if name in self.figures else "?     "
                lines.append(f"    {name.replace('f1', 'F1'):<10}{value}  [{pair[0]:.4f}, {pair[1]:.4f}]")
        if self.n_random == self.n_rows:
            lines.append("  all of them are labelled: these are counts")
        else:
            labels = counted(self.n_random, "random label")
            lines.append(f"  by {labels}, {self.n_pos:,} yes")
            lines.append(f"  [ ]: the truth lies there with {self.confidence:.0%} confidence, however often you look")
            lines.append(f"  {self._narrower()}")
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.notes)])

    def _narrower(self) -> str:
        """Say what more labels would bring."""
        low, high = self.narrower["interval"]
        text = f"with {self.narrower['n_random']:,} random labels of such shares: [{low:,}, {high:,}]"
        pairs = self.narrower["intervals"].items()
        return text + "".join(f", {name.replace('f1', 'F1')} [{pair[0]:.2f}, {pair[1]:.2f}]" for name, pair in pairs)


def estimate(
    reader: Reader,
    query: Any,
    labels: Any = None,
    *,
    threshold: float | None = None,
    where: Any = None,
    confidence: float = 0.95,
    **words: Any,
) -> Estimate:
    """Estimate from random labels how many rows are positive, and how good a threshold is on all rows.

    Parameters
    ----------
    reader : Reader
    query : query, list of queries, Concept or Classifier
        All that `Concept.of` reads; or a classifier of one class, which brings its threshold.
    labels : optional
        All that `labels.labels_for` reads; by default what the store keeps of the query's or the class's name. Of
        labels that tell how they were picked only the random ones count; others are taken for a random sample of the
        rows, and a note says so.
    threshold : float, optional
        A match is a score larger than this.
    where : str, Expression or mask, optional
        Only rows that this keeps, labelled or not.
    confidence : float
        In (0, 1).
    **words
        `template`, `weights`, `opposing`: see `Concept.of`.

    Returns
    -------
    Estimate
        The number of positives has a beta-mixture confidence sequence for draws without replacement, precision that of
        the rows above the threshold, recall and F1 that of both sides together: see `watched`. They hold for a
        threshold that these labels did not choose.

    Raises
    ------
    LabelError
        The labels do not fit, or none of them is random.
    NoLabelsError
        None are given, and the store has none of its own.
    """
    name, scores, own = asked(reader, query, words)
    limit = own if threshold is None else as_threshold(threshold)
    labelled = labels_for(reader.rows, own_or(reader, labels, concept_name(query, name))).within(reader.rows, where)
    random = is_random(labelled)
    if not random.any():
        review = "`embedstore review STORE NAME --near 0 --random 100` picks one"
        raise LabelError(
            f"{labelled.source}: none of {counted(len(labelled), 'label')} is of a random sample, so nothing can be "
            f"said of the rows that are not labelled; {spelt(review, review, '“Next to label” draws some')}"
            + "".join(f"; {doubt}" for doubt in labelled.doubts)
        )
    kept = reader.mask(where)
    rows = np.ones(len(scores), np.bool_) if kept is None else kept
    n_rows, truth = int(rows.sum()), labelled.values[random].astype(np.bool_)
    n_random, n_pos = len(truth), int(truth.sum())
    strata = None if limit is None else _strata(scores, rows, limit, labelled.positions[random], truth)
    more = min(_MORE * n_random, n_rows)
    return Estimate(
        name,
        limit,
        n_rows,
        n_random,
        n_pos,
        len(labelled),
        n_rows * n_pos / n_random,
        _count(n_pos, n_random, n_rows, confidence),
        None if strata is None else strata.matches,
        {} if strata is None else _figures(strata),
        {} if strata is None else rate_intervals(strata, confidence),
        confidence,
        {
            "n_random": more,
            "interval": _count(round(n_pos * more / n_random), more, n_rows, confidence),
            "intervals": {} if strata is None else rate_intervals(_grown(strata, more / n_random), confidence),
        },
        tuple(_notes(reader, query, labelled, n_rows, limit is not None and threshold is None)),
    )


def asked(reader: Reader, query: Any, words: dict[str, Any]) -> tuple[str, NDArray[np.float32], float | None]:
    """Return what a query or a classifier of one class is called, the score of each row, and its threshold if any."""
    if isinstance(query, Classifier):
        return query.name, query.scores_in(reader)[0], query.threshold
    concept = Concept.of(query, **words)
    return concept.label, reader.concept_scores(concept), None


def concept_name(query: Any, name: str) -> str:
    """Return under which name the store keeps labels of what is asked for."""
    return query.target.label if isinstance(query, Classifier) else name


def is_random(labelled: Labelled) -> NDArray[np.bool_]:
    """Return which labels are, alone, a simple random sample: all where nothing tells how they were picked."""
    return np.ones(len(labelled), np.bool_) if labelled.random is None else labelled.random


def taken_for_random(labelled: Labelled, n_rows: int) -> list[str]:
    """Return a sentence where nothing tells how some rows of a store were picked, so that they pass for random ones."""
    if labelled.random is not None or len(labelled) == n_rows:
        return []
    return [
        f"nothing tells how the {len(labelled):,} labelled rows ({labelled.source}) were picked; they are taken for a "
        "random sample of the store"
    ]


def _strata(
    scores: NDArray[np.float32],
    rows: NDArray[np.bool_],
    limit: float,
    sample: NDArray[np.int64],
    truth: NDArray[np.bool_],
) -> Strata:
    """Count labels and rows on both sides of a threshold."""
    matched = above(scores, limit)
    hit, matches = matched[sample], int((matched & rows).sum())
    tp, fp, fn, tn = (int(each.sum()) for each in (hit & truth, hit & ~truth, ~hit & truth, ~hit & ~truth))
    return Strata(tp, fp, fn, tn, matches, int(rows.sum()) - matches)


def _figures(strata: Strata) -> dict[str, float]:
    """Return the rates over all rows: each side of the threshold counts by its rows, so far as labels tell of it."""
    seen_above, seen_below = strata.tp + strata.fp, strata.fn + strata.tn
    if (strata.matches and not seen_above) or (strata.others and not seen_below):
        known = strata.matches and seen_above
        return {"precision": strata.tp / seen_above} if known else {}
    tp = strata.matches * strata.tp / max(seen_above, 1)
    fn = strata.others * strata.fn / max(seen_below, 1)
    rates = Metrics(0.0, tp, strata.matches - tp, fn, strata.others - fn)
    return {name: float(getattr(rates, name)) for name in ("precision", "recall", "f1")}


def _count(hits: int, trials: int, rows: int, confidence: float) -> tuple[int, int]:
    low, high = count_interval(hits, trials, rows, confidence)
    return int(low), int(high)


def _grown(strata: Strata, times: float) -> Strata:
    """Return more labels of the same shares, on each side at most as many as there are rows."""
    tp, fp = _more(strata.tp, strata.fp, strata.matches, times)
    fn, tn = _more(strata.fn, strata.tn, strata.others, times)
    return strata._replace(tp=tp, fp=fp, fn=fn, tn=tn)


def _more(hits: int, misses: int, rows: int, times: float) -> tuple[int, int]:
    trials = min(round((hits + misses) * times), rows)
    more = round(trials * hits / max(hits + misses, 1))
    return more, trials - more


def _notes(reader: Reader, query: Any, labelled: Labelled, n_rows: int, own_threshold: bool) -> list[str]:
    """Return why the figures may be wrong: labels that are no random sample, or that chose the threshold."""
    notes = [*labelled.doubts, *taken_for_random(labelled, n_rows)]
    if (
        own_threshold
        and len(labelled) < n_rows
        and not (held := query.held_out(reader, labelled)).startswith("held out")
    ):
        unless = "" if query.n else "if somebody set it where these labels look best, "
        notes.append(f"{held}; {unless}precision, recall and F1 flatter then, and so do their intervals")
    return notes
