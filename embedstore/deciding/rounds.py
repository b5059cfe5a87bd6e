"""Rounds of labelling -> which rows to label next, and for how many rows of the store each labelled one stands.

A round takes the rows nearest to a threshold, with certainty, and random others, each with the same probability. From
these probabilities follow weights by which totals over the store are estimated without bias, though the near rows of
a round depend on what the rounds before have found. Files and the store's log of labels are `labels`' and `label_log`'s
business.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError
from embedstore.measures.samples import as_labels, as_scores
from embedstore.vectors import Positions
from embedstore.wording import counted

GIVEN, NEAR, RANDOM, SEARCH = "given", "near", "random", "search"
PICKED = (GIVEN, NEAR, RANDOM, SEARCH)
"""How a row may have been picked; the probability of having been picked is known of those of a round alone."""
YES, NO, UNSURE, OPEN = "yes", "no", "?", ""
"""Answers: `UNSURE` where a person looked and cannot tell, `OPEN` where nobody has answered yet."""

SAME_SIZE = 0.02
"""Rounds of populations that differ by more than this share are not of the same store."""


class Label(NamedTuple):
    """What is known of a row's label from one place: a line of a file, or an event of the store's log."""

    row: str
    """The id."""
    answer: str = OPEN
    picked: str = GIVEN
    probability: float | None = None
    """Of being picked in its round, given all that was known before; None where it is of no round."""
    round: int = 0
    """From 1 on; 0 for none."""
    where: str = ""
    """The condition of the rows that the round was picked of; empty for all of them."""
    at: str = ""
    """When the row was picked; of rows of no round, when the label came. ISO 8601, UTC."""
    content_hash: str = ""
    """Of the picture that was looked at, where that is known."""

    @property
    def sheet(self) -> tuple[int, str, str]:
        """What the rows that were picked together have in common."""
        return self.round, self.at, self.where


def random_order(concept: str, round_: int, ids: Iterable[str]) -> NDArray[np.uint64]:
    """Return a number for each row that orders the rows of a store at random, the same whenever it is asked for.

    Permanent random numbers: the order depends on the ids, the concept and the number of the round alone, not on scores
    or labels, and that of a round is independent of those before it.
    """
    start = f"{concept}\0{round_}\0"
    keys = ((start + identity).encode("utf-8", "surrogatepass") for identity in ids)
    return np.fromiter((xxhash.xxh3_64_intdigest(key) for key in keys), dtype=np.uint64)


def pick(
    scores: ArrayLike,
    threshold: float,
    order: ArrayLike,
    n_near: int = 20,
    n_random: int = 20,
    labelled: ArrayLike | None = None,
) -> tuple[Positions, NDArray[Any], NDArray[np.float64]]:
    """Return positions, highest score first, of rows to label, with how each is picked and with which probability.

    Parameters
    ----------
    scores : array-like of shape (n,)
    threshold : float
    order : array-like of shape (n,)
        A random order of the rows, such as `random_order`: the smallest are taken first.
    n_near : int
        So many rows nearest to the threshold (of equally near ones the earlier) are picked ``"near"``, with probability
        1: their labels move the threshold. Where these are all that there are, they are ``"random"`` ones, all of them.
    n_random : int
        So many of the others are picked at ``"random"``, by the order: with these, precision and recall can be told.
        Each has the probability ``n_random / n_others``.
    labelled : array-like of shape (n,), bool, optional
        Rows that are left out.

    Raises
    ------
    InputError
        A number of rows is negative, or the scores are not some finite numbers.
    """
    values = as_scores(scores).astype(np.float64)
    if n_near < 0 or n_random < 0:
        raise InputError(f"numbers of rows cannot be negative, found {n_near} and {n_random}")
    done = np.zeros(len(values), dtype=np.bool_) if labelled is None else as_labels(labelled, len(values))
    open_rows = np.flatnonzero(~done)
    by_distance = open_rows[np.argsort(np.abs(values[open_rows] - threshold), kind="stable")]
    near, others = by_distance[:n_near], np.sort(by_distance[n_near:])
    drawn = others[np.argsort(np.asarray(order)[others], kind="stable")[:n_random]]
    positions = np.concatenate([near, drawn])
    share = len(drawn) / len(others) if len(others) else 1.0
    first = NEAR if len(others) else RANDOM  # who takes all rows that there are needs no chance to tell of the others
    picked = np.array([first] * len(near) + [RANDOM] * len(drawn), dtype=object)
    probability = np.concatenate([np.ones(len(near)), np.full(len(drawn), share)])
    sorted_ = np.lexsort((positions, -values[positions]))
    return positions[sorted_].astype(np.int64), picked[sorted_], probability[sorted_]


@dataclass(frozen=True)
class History:
    """All that is known of the labels of one concept, in the order in which it came."""

    concept: str
    lines: tuple[Label, ...]

    def __repr__(self) -> str:
        said, ways = Counter(self.answers.tolist()), Counter(self.picked.tolist())
        answers = f"{said[YES]:,} yes, {said[NO]:,} no, {said[UNSURE]:,} that cannot be told, {said[OPEN]:,} open"
        picked = ", ".join(f"{number:,} {way}" for way, number in sorted(ways.items()))
        return f"labels of {self.concept!r}: {counted(len(self.rows), 'row')}, {answers}; picked: {picked or 'none'}"

    @cached_property
    def rows(self) -> dict[str, int]:
        """The ids, each once, with their places in the arrays below."""
        return {row: place for place, row in enumerate(dict.fromkeys(line.row for line in self.lines))}

    @cached_property
    def answers(self) -> NDArray[Any]:
        """The last answer that is known of each row, shape (n_rows,), object; `OPEN` where there is none."""
        found: NDArray[Any] = np.full(len(self.rows), OPEN, dtype=object)
        for line in self.lines:
            if line.answer != OPEN:
                found[self.rows[line.row]] = line.answer
        return found

    @cached_property
    def picked(self) -> NDArray[Any]:
        """How each row was picked, shape (n_rows,), object: in its first round, where it is of any."""
        found: NDArray[Any] = np.full(len(self.rows), None, dtype=object)
        for line in reversed(self.lines):
            place = self.rows[line.row]
            if line.round or found[place] is None:
                found[place] = line.picked
        return found

    @property
    def contradictions(self) -> int:
        """How many rows were answered yes at one time and no at another; the last answer counts."""
        said: dict[str, set[str]] = {}
        for line in self.lines:
            said.setdefault(line.row, set()).add(line.answer)
        return sum({YES, NO} <= answers for answers in said.values())

    @property
    def last_round(self) -> int:
        """The number of the last round; 0 where there was none."""
        return max((line.round for line in self.lines), default=0)

    def joined(self, other: History) -> History:
        """Return what is known from here and then from there."""
        return History(self.concept or other.concept, self.lines + other.lines)

    def among(self, ids: Iterable[str]) -> History:
        """Return what is known of some rows."""
        kept = set(ids)
        return History(self.concept, tuple(line for line in self.lines if line.row in kept))

    def weighed(self, where: str = "", inside: NDArray[np.bool_] | None = None) -> Weighed:
        """Say for how many rows each labelled row stands: see `Weighed.of`."""
        return Weighed.of(self, where, inside)


@dataclass(frozen=True, eq=False)
class Weighed:
    """For how many rows of the store each row of a history stands, and which rows alone are a simple random sample.

    Every round by itself gives an estimate of any total over the store: what was known before it counts 1, its near
    rows count 1, its random rows 1 / probability; given the past its expectation is the total. The mean of these
    estimates, by the number of random rows of each round, is an estimate without bias again. So the weight of a row is
    ``sum(c[s] / probability for s in picked_by) + sum(c[s] for s in known_to)``, with c[s] the share of round s in all
    random rows (the active testing estimators of Kossen et al. 2021 and Farquhar et al. 2021 are of this form; for one
    round it is that of Horvitz and Thompson 1952).

    A round counts when every row of it is answered, and every row that was known before it. Rounds of a store that has
    grown or shrunk by more than 2 % since do not count, nor do those of another condition: c is 0.
    """

    weights: NDArray[np.float64]
    """Shape (n_rows,); NaN where nothing is known of how the row was picked."""
    random: NDArray[np.bool_]
    """Shape (n_rows,): which rows alone are a simple random sample of the store (up to rows that cannot be judged)."""
    doubts: tuple[str, ...] = ()
    """Why rounds do not count, in words."""
    population: float | None = None
    """Of how many rows the rounds that count were picked: the last of them, which all are like; None for no round."""
    where: str = ""
    """The condition of these rows."""

    @classmethod
    def of(cls, history: History, where: str = "", inside: NDArray[np.bool_] | None = None) -> Weighed:
        """Weigh the rows of a history for the rows that `where` keeps: `inside`, shape (n_rows,), None for all."""
        sheets = _sheets_of(history, inside)
        for sheet in sheets:
            if sheet.where and inside is not None:
                sheet.known[~inside] = False  # they were none of the rows that it was picked of
        counting, doubts = _counting(sheets, where)
        weights, random = np.zeros(len(history.rows)), np.zeros(len(history.rows), np.bool_)
        drawn = sum(sheet.n_random for sheet in counting)
        ids = np.array(list(history.rows), dtype=object)
        for sheet in counting:
            share = sheet.n_random / drawn
            weights[sheet.own] += share / sheet.probability[sheet.own]
            weights[sheet.known] += share
            random |= sheet.passed(history.concept, ids, ~random)
        weights[weights == 0] = np.nan
        if not counting:
            return cls(weights, random, tuple(doubts))
        return cls(weights, random, tuple(doubts), counting[-1].population, counting[-1].where)


@dataclass(frozen=True, eq=False)
class _Sheet:
    """Rows that were picked together; all arrays of shape (n_rows,)."""

    round: int
    at: str
    where: str
    own: NDArray[np.bool_]
    drawn: NDArray[np.bool_]
    """Which of its own rows are random ones."""
    probability: NDArray[np.float64]
    known: NDArray[np.bool_]
    """Which rows were labelled, or asked for, before it was picked."""
    unanswered: int

    @property
    def n_random(self) -> int:
        """How many rows were drawn; where all were taken, those are sure."""
        chance = self.drawn & (self.probability < 1)
        return int(chance.sum() or self.drawn.sum())

    @property
    def population(self) -> float:
        """How many rows there were."""
        return float(self.known.sum() + (1 / self.probability[self.own]).sum())

    def passed(self, concept: str, ids: NDArray[Any], left: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of the rows that are left are not behind the last random one in the random order."""
        if not self.at:  # a list from elsewhere: in which order it was drawn is not known
            return self.drawn & left
        rows = np.flatnonzero((self.own | self.known) & left)
        order = random_order(concept, self.round, ids[rows])
        last = order[self.drawn[rows]].max(initial=0)
        found = np.zeros(len(ids), np.bool_)
        found[rows[order <= last]] = True
        return found


def _sheets_of(history: History, inside: NDArray[np.bool_] | None) -> list[_Sheet]:
    """Return the rows that were picked together, by round and time; who is not inside need not be answered."""
    lines, size = history.lines, len(history.rows)
    places = np.array([history.rows[line.row] for line in lines], dtype=np.int64)
    rounds = np.array([line.round for line in lines], dtype=np.int64)
    times = np.array([line.at for line in lines], dtype=str)
    drawn = np.array([line.picked == RANDOM for line in lines], dtype=np.bool_)
    chances = np.array([np.nan if line.probability is None else line.probability for line in lines])
    names = sorted({line.sheet for line in lines if line.round})
    numbers = {name: number for number, name in enumerate(names)}
    sheet_of = np.array([numbers.get(line.sheet, -1) if line.round else -1 for line in lines], dtype=np.int64)
    is_open = history.answers == OPEN if inside is None else inside & (history.answers == OPEN)
    found = []
    for number, (round_, at, where) in enumerate(names):
        here = sheet_of == number
        own, random, known = (np.zeros(size, np.bool_) for _ in range(3))
        probability = np.full(size, np.nan)
        own[places[here]], random[places[here]], probability[places[here]] = True, drawn[here], chances[here]
        known[places[np.where(rounds > 0, rounds < round_, (times != "") & (times < at))]] = True
        known &= ~own
        unanswered = int(is_open[own | known].sum())
        found.append(_Sheet(round_, at, where, own, random, probability, known, unanswered))
    return found


def _counting(sheets: Sequence[_Sheet], where: str) -> tuple[list[_Sheet], list[str]]:
    """Return the sheets whose estimates are of the rows that `where` keeps, and why others are not."""
    doubts, whole = [], []
    for sheet in sheets:
        name = f"round {sheet.round}"
        if sheet.unanswered:
            rows = counted(sheet.unanswered, "row has", "rows have")
            doubts.append(f"{name} does not count yet: {rows} no answer (yes, no, or ? where it cannot be told)")
        elif not sheet.n_random:
            doubts.append(f"{name} does not count: none of its rows is random")
        elif not np.isfinite(sheet.probability[sheet.own]).all():
            doubts.append(f"{name} does not count: with which probability its rows were picked is not known")
        elif sheet.where not in ("", where):
            doubts.append(f"{name} does not count: its rows are of those where {sheet.where}")
        else:
            whole.append(sheet)
    if not whole:
        return [], doubts
    last = whole[-1]
    same = [sheet for sheet in whole if sheet.where == last.where]
    same = [each for each in same if math.isclose(each.population, last.population, rel_tol=SAME_SIZE)]
    others = (sheet for sheet in whole if sheet not in same)
    doubts += [
        f"round {each.round} counts no more: it was picked of {each.population:,.0f} rows, the last of "
        f"{last.population:,.0f}"
        for each in others
    ]
    return same, doubts
