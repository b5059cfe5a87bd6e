"""A query and the labels so far -> how many more it takes to certify a limit of precision or recall, and what it costs.

What labels leave open is told by `measures.logistic`, labelling is tried by `measures.rehearsal`. Picking the rows is
left to `review`, certifying to `thresholds.calibrate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.cells import aligned
from embedstore.deciding.census import asked, concept_name, is_random, taken_for_random
from embedstore.deciding.label_log import own_or
from embedstore.deciding.labels import NO_LABELS, Labelled, labels_for
from embedstore.deciding.same_pictures import copies
from embedstore.errors import InputError, LabelError, NoLabelsError, option
from embedstore.measures.choice import Wishes
from embedstore.measures.logistic import PREVALENCES, SLOPE, match_curves
from embedstore.measures.rehearsal import Outcome, Rehearsal, Store, rehearse
from embedstore.searching.reader import Reader
from embedstore.wording import counted

FEW_LABELS = 20
_SHOWN = 8
_START = 100
"""Random labels to begin with, where those that there are leave open whether the limit can be kept at all."""


@dataclass(frozen=True, eq=False)
class LabelPlan:
    """How many more labels are expected to certify what is asked."""

    query: str
    limits: str
    """What is to be certified, in words."""
    min_precision: float | None
    min_recall: float | None
    chance: float
    """How likely that is to be."""
    random: int | None
    """So many more random labels have that chance; 0 where those that there are do; None where none of the numbers
    tried has."""
    near: int
    """So many labels nearest to the threshold are worth asking for: none, as only random ones certify."""
    most: int
    """No more were tried."""
    rehearsal: Rehearsal
    """The chance of each number of labels that was tried, and what thresholds are expected to be worth."""
    threshold: float
    """Where matches may be told from others meanwhile: the threshold that is expected to be certified, else the score
    that one row of twenty exceeds."""
    n_rows: int
    n_labelled: int
    n_pos: int
    n_random: int
    """How many of the labels are a random sample."""
    n_open: int
    """How many rows have no label."""
    notes: tuple[str, ...]
    """What the plan rests on."""

    @property
    def advice(self) -> int | None:
        """How many random labels to ask for next: those of the plan, or some to plan by; None where none would help."""
        if self.random is not None:
            return self.random
        return None if self._is_out_of_reach else min(_START, self.most) or None

    @property
    def _is_out_of_reach(self) -> bool:
        return self.rehearsal.possible < 1 - self.chance and self.n_labelled >= FEW_LABELS

    def table(self) -> list[dict[str, float]]:
        """Return the numbers of labels that were tried, ascending, as dictionaries of ``random`` and ``chance``."""
        pairs = zip(self.rehearsal.sizes.tolist(), self.rehearsal.chances.tolist(), strict=True)
        return [{"random": size, "chance": chance} for size, chance in pairs]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        tried = self.rehearsal
        return {
            "query": self.query,
            "limits": self.limits,
            "min_precision": self.min_precision,
            "min_recall": self.min_recall,
            "chance": self.chance,
            "random": self.random,
            "near": self.near,
            "most": self.most,
            "threshold": self.threshold,
            "table": self.table(),
            "possible": tried.possible,
            "best_precision": tried.best_precision,
            "deciding": tried.deciding,
            "chance_half_near": tried.near,
            "guaranteed": None if tried.kept is None else vars(tried.kept),
            "not_guaranteed": None if tried.bare is None else vars(tried.bare),
            "n_rows": self.n_rows,
            "n_labelled": self.n_labelled,
            "n_pos": self.n_pos,
            "n_random": self.n_random,
            "n_open": self.n_open,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [f"{self.query}: {self.limits}", f"  {self._answer()}"]
        if self.random:
            lines.append(f"  {self._which()}")
        lines += [f"    {line}" for line in self._shown()]
        lines += [f"  {line}" for line in self._costs()]
        lines.append(f"  by {counted(self.n_labelled, 'label')} so far, {self.n_pos:,} yes; {self.n_random:,} random")
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.notes)])

    def _answer(self) -> str:
        tried = self.rehearsal
        kept = " with that recall" if self.min_recall is not None else ""
        best = f"the best precision expected{kept} is {tried.best_precision:.4f}"
        if tried.fewest > 1:
            matches = counted(tried.fewest, "match", "matches")
            best += f" (of thresholds with {matches} or more, which is what it takes to show it)"
        if self.random == 0:
            return "certified by the labels that there are"
        if self.random is not None:
            return f"{self.random:,} more random labels have a chance of {self.chance:.0%} to certify it"
        if self._is_out_of_reach:
            return f"cannot be reached, as far as {self.n_labelled:,} labels tell: {best}"
        if tried.possible < self.chance:
            return f"cannot be told yet: {tried.possible:.0%} of what the labels leave open allow it; {best}"
        if self.n_open == 0:
            return f"the labels that there are do not certify it, and no image is left to label; {best}"
        many = (
            f"{self.most:,} more random labels" if self.most < self.n_open else f"labels on all {self.n_open:,} others"
        )
        return f"even {many} have a chance of {tried.chances[-1]:.0%} only; {best}"

    def _shown(self) -> list[str]:
        """Return some lines of the table, that of the plan among them."""
        rows = [row for row in self.table() if row["chance"] >= 0.005]
        if len(rows) < 2:
            return []
        places = {int(place) for place in np.linspace(0, len(rows) - 1, _SHOWN)}
        places |= {place for place, row in enumerate(rows) if row["random"] == self.random}
        shown = [rows[place] for place in sorted(places)]
        cells = [[f"{row['random']:,}", f"{row['chance']:.0%}"] for row in shown]
        lines = aligned([["random labels", "chance"], *cells])
        marks = ["", *("  <-" if row["random"] == self.random else "" for row in shown)]
        return [line + mark for line, mark in zip(lines, marks, strict=True)]

    def _which(self) -> str:
        tried = self.rehearsal
        parts = []
        if tried.kept is not None and tried.deciding >= 1:
            parts.append(f"about {tried.deciding:,.0f} of them will lie above score {tried.kept.threshold:.4f}")
        if tried.near is not None:
            parts.append(f"with half of them nearest to the threshold instead the chance is {tried.near:.0%}")
        return "; ".join(parts)

    def _costs(self) -> Iterator[str]:
        """Say what is lost by keeping the limit with confidence."""
        kept, bare = self.rehearsal.kept, self.rehearsal.bare
        if kept is None or bare is None:
            return
        yield "the guarantee is expected to cost, over the whole store:"
        head = ["", "matches", "precision", "recall"]
        rows = [[name, *_words(outcome)] for name, outcome in (("guaranteed", kept), ("on the labels only", bare))]
        yield from (f"  {line}" for line in aligned([head, *rows]))


def _words(outcome: Outcome) -> list[str]:
    return [f"{outcome.matches:,.0f}", f"{outcome.precision:.4f}", f"{outcome.recall:.4f}"]


def plan_labels(
    reader: Reader,
    query: Any,
    labels: Any = None,
    *,
    min_precision: float | None = None,
    min_recall: float | None = None,
    confidence: float = 0.95,
    chance: float = 0.8,
    most: int = 5000,
    where: Any = None,
    worlds: int = 200,
    seed: int = 0,
    progress: bool | None = False,
    **words: Any,
) -> LabelPlan:
    """Say how many more labels are expected to certify a precision or a recall, and what the guarantee costs.

    Labelling is tried in simulated worlds: P(match | score) is drawn from what all labels leave open, by logistic
    regression with a bend and a stated prior (`logistic.match_curves`), rows are drawn at random from those without a
    label and labelled by it, and `choice` is asked whether some threshold keeps the limits, as `calibrate` will be.

    Parameters
    ----------
    reader : Reader
    query : query, list of queries, Concept or Classifier
        As in `census.estimate`.
    labels : optional
        All that `labels.labels_for` reads: the curve is fitted on all of them; those that are a random sample are kept
        for the certificate too. By default what the store keeps of the query's or the class's name; where that is
        nothing, the plan rests on the prior alone.
    min_precision, min_recall : float, optional
        In (0, 1); one of them, or both, which then hold together.
    confidence : float
        In (0, 1), of the guarantee.
    chance : float
        In (0, 1): how likely the certificate is to be after the number of labels that is given.
    most : int
        More labels are not tried.
    where : str, Expression or mask, optional
        Only rows that this keeps.
    worlds : int
        How many are tried; a chance of 80 % is known to 6 points with 200 of them.
    seed : int
        Equal seeds give equal plans.
    progress : bool, optional
        Show it on stderr; None where that is a terminal.
    **words
        `template`, `weights`, `opposing`: see `Concept.of`.

    Raises
    ------
    InputError
        No limit is given, or a number means nothing.
    LabelError
        The labels do not fit.
    """
    if min_precision is None and min_recall is None:
        raise InputError(f"say what is to be certified: {option('min_precision', 0.9)} or {option('min_recall', 0.9)}")
    if not 0 < chance < 1:
        raise InputError(f"chance must lie between 0 and 1, found {chance!r}")
    if most < 1 or worlds < 1:
        raise InputError(f"the most labels and the worlds must be at least 1, found {most!r} and {worlds!r}")
    objective = "f1" if None not in (min_precision, min_recall) else "recall" if min_recall is None else "precision"
    wished = Wishes(objective, min_precision=min_precision, min_recall=min_recall, confidence=confidence)
    limits = wished.limits
    name, scores, _ = asked(reader, query, words)
    labelled = _labelled(reader, labels, concept_name(query, name), where)
    kept = reader.mask(where)
    rows = np.arange(len(scores)) if kept is None else np.flatnonzero(kept)
    open_rows = np.setdiff1d(rows, labelled.positions)
    if not len(rows):
        raise LabelError("there is no row to label; add images first, or loosen the condition")
    random = is_random(labelled)
    drawn = np.flatnonzero(random)
    once = drawn[np.unique(copies(reader, labelled.positions[drawn]), return_index=True)[1]]
    exact = scores.astype(np.float64)
    seen, truth = exact[labelled.positions], labelled.values.astype(np.bool_)
    rng = np.random.default_rng(seed)
    curves = match_curves(exact[rows], seen, truth, worlds, rng)
    with _bar(progress) as done:
        places = np.searchsorted(rows, open_rows)
        tried = rehearse(
            Store(exact[rows], places, seen[once], truth[once]),
            curves,
            wished.goal,
            limits,
            chance,
            most,
            rng,
            done,
        )
    return LabelPlan(
        name,
        str(limits),
        min_precision,
        min_recall,
        chance,
        tried.needed,
        0,
        min(most, len(open_rows)),
        tried,
        float(np.quantile(exact[rows], 0.95)) if tried.kept is None else tried.kept.threshold,
        len(rows),
        len(labelled),
        int(truth.sum()),
        int(random.sum()),
        len(open_rows),
        tuple(_notes(labelled, len(rows))),
    )


def _labelled(reader: Reader, labels: Any, concept: str, where: Any) -> Labelled:
    """Read labels, or those that the store keeps of a concept, or none."""
    try:
        found = own_or(reader, labels, concept)
    except NoLabelsError:
        return NO_LABELS
    return labels_for(reader.rows, found).within(reader.rows, where)


def _notes(labelled: Labelled, n_rows: int) -> list[str]:
    """Return what a plan rests on that the labels do not tell."""
    notes = [*labelled.doubts, *(taken_for_random(labelled, n_rows) if len(labelled) else [])]
    if len(labelled) < FEW_LABELS:
        low, high = PREVALENCES
        notes.append(
            f"{counted(len(labelled), 'label tells', 'labels tell')} little: the plan rests on a guess (a share of "
            f"{low:.2%} to {high:.0%} is positive; log-odds rise by {SLOPE[0]:g} +- {SLOPE[1]:g} for a standard "
            f"deviation of the scores, more or less so at the top); label {_START} random rows and plan again"
        )
    return notes


@contextmanager
def _bar(progress: bool | None) -> Iterator[Callable[[float], object]]:
    """Show on stderr which share of the work is done, once it takes longer than a second."""
    from tqdm import tqdm

    disable = None if progress is None else not progress  # None: off when stderr is no terminal
    with tqdm(total=100, desc="trying labels", unit=" %", disable=disable, leave=False, delay=1) as shown:
        yield lambda share: shown.update(int(100 * share) - shown.n)
