"""A query over one version of a store, scored once and put in order: what the other calls of a page are about.

Here is decided where the slider stands at first. What is kept is bounded, the queries asked longest ago go first.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.deciding import label_log
from embedstore.deciding.classifier import Classifier
from embedstore.deciding.labels import NO_LABELS, Labelled, condition_text, labels_for, labels_of_column
from embedstore.deciding.review import ScoredRows
from embedstore.deciding.rounds import History
from embedstore.deciding.thresholds import MOST_OF_NAME, uncalibrated
from embedstore.errors import EmbedStoreError, InputError, LabelError
from embedstore.measures.curves import Curve, midway, precision_recall
from embedstore.measures.distribution import ScoreDistribution
from embedstore.page.asked import Truth
from embedstore.searching.matches import in_order
from embedstore.searching.queries import Concept, Query
from embedstore.searching.reader import Reader
from embedstore.wording import counted

MOST_QUERIES = 16
MOST_BYTES = 64 << 20
"""So many scored queries are kept, and so much memory: eight bytes a row and query."""
_SHOWN_FIRST, _SHARE_SHOWN_FIRST = 100, 20


class ScoredGone(EmbedStoreError, LookupError):
    """A scored query is not kept any more; it is to be scored again."""


@dataclass(frozen=True, eq=False)
class ScoredQuery:
    """A query, its scores and the order of its rows."""

    asked: Concept | Classifier
    """What was asked, as the library takes a query: a classifier has one class."""
    found: ScoredRows
    """The reader, the class that is looked for, and the scores of all rows."""
    order: NDArray[np.uint32]
    """The rows that the condition keeps, highest score first, equal ones by id."""
    shown: Any
    """The query as it was asked, JSON."""

    @classmethod
    def of(cls, reader: Reader, asked: Concept | Classifier, where: str, shown: Any = None) -> ScoredQuery:
        """Score the rows of a reader that a condition keeps; FilterError where it is none."""
        condition = where.strip() or None
        kept = reader.mask(condition)
        if isinstance(asked, Classifier):
            found = ScoredRows.of(reader, asked, None, condition)
        else:
            classifier = uncalibrated(reader, asked, 0.0)
            reader.queries.warn_of_unknown(asked.all_queries)
            scores = reader.concept_scores(asked)
            found = ScoredRows(reader, classifier, 0.0, scores, NO_LABELS, kept, condition_text(condition))
        return cls(asked, found, rows_in_order(found), shown)

    @property
    def reader(self) -> Reader:
        """The rows, of one version."""
        return self.found.reader

    @property
    def where(self) -> str | None:
        """The condition, None for none."""
        return self.found.where or None

    @property
    def label(self) -> str:
        """What was asked, in words."""
        return self.found.name if isinstance(self.asked, Classifier) else self.asked.label

    @property
    def concept(self) -> str:
        """Under which name the store keeps labels of what was asked for."""
        return self.found.classifier.target.label

    @property
    def descending(self) -> NDArray[np.float32]:
        """The scores, highest first, shape (n,)."""
        return self.found.scores[self.order]

    @property
    def nbytes(self) -> int:
        """How much memory this takes."""
        return self.order.nbytes + self.found.scores.nbytes

    @cached_property
    def as_concept(self) -> Concept:
        """What was asked, as a concept: that of a classifier has its vectors."""
        if isinstance(self.asked, Concept):
            return self.asked
        target = self.asked.target
        against = [Query("vector", row, name) for row, name in zip(target.opponents, target.opposing, strict=False)]
        against += [Query("vector", row, "an opponent") for row in target.opponents[len(against) :]]
        query = Query("vector", target.vector, " + ".join(target.queries) or target.label)
        return Concept.of(query, opposing=against)

    @property
    def doubts(self) -> list[str]:
        """Why the scores may mean little, or labels be those of another query."""
        if isinstance(self.asked, Classifier):
            return []
        from embedstore.embedders.registry import unknown_texts  # late: a vector or an id needs none

        texts = [text for one in self.asked.all_queries for text in one.texts]
        model = self.reader.space.model
        unknown = unknown_texts(self.reader.space, texts) if texts else []
        said = [f"no known word in {text!r}: the model {model!r} has only pieces of such words" for text in unknown]
        if len(self.label) > MOST_OF_NAME:
            said.append(f"labels are kept under the name {self.concept!r}, which another query that begins so shares")
        return said

    def row(self, number: int) -> int:
        """Return a row's number if there is one such; InputError where there is none."""
        if not 0 <= number < len(self.reader):
            raise InputError(f"there is no row {number:,}: this version has {len(self.reader):,}, counted from 0")
        return number

    def history(self) -> History:
        """Return what the store knows of the labels of the concept, of the pictures that this version has."""
        return label_log.history(self.reader.ledger, self.concept, self.reader.rows)

    def labels(self, truth: Truth | None) -> Labelled:
        """Return the labels of rows that the condition keeps; LabelError where there are none."""
        rows = self.reader.rows
        found = labels_for(rows, self.history()) if truth is None else labels_of_column(rows, truth.column, truth.value)
        return found.within(rows, self.where)

    def for_library(self, truth: Truth | None) -> Any:
        """Return labels as the library takes them; None where nothing is labelled."""
        if truth is not None:
            return labels_of_column(self.reader.rows, truth.column, truth.value)
        history = self.history()
        return history if history.lines else None

    def measured(self, labelled: Labelled) -> tuple[Curve, Labelled]:
        """Return precision and recall at every threshold, and the labels that they rest on; LabelError for none."""
        rests = labelled.to_measure()
        return precision_recall(self.found.scores[rests.positions], rests.values, rests.weights), rests

    def start(self, descending: NDArray[np.float32]) -> tuple[float, str]:
        """Say where to look first, and why there, by what is quick to make of the `descending` scores."""
        if isinstance(self.asked, Classifier):
            return self.asked.threshold, f"that of the classifier {self.asked.name!r}"
        if not len(self.order):
            return 0.0, "no row is scored"
        with contextlib.suppress(LabelError):
            curve, rests = self.measured(self.labels(None))
            if curve.n_pos and curve.n_neg:
                return curve.at_cut(curve.best_cut).threshold, f"the best F1 on {len(rests):,} labelled rows"
        ascending = descending[::-1]
        gap = ScoreDistribution(ascending).gap()
        if gap is not None:
            return gap.threshold, f"below {counted(gap.matches, 'image')} there is a gap that stands out"
        cut = len(ascending) - min(_SHOWN_FIRST, max(1, len(ascending) // _SHARE_SHOWN_FIRST))
        upper = ascending[cut]
        higher = int(np.searchsorted(ascending, upper, side="left"))
        near = ascending[max(higher - 1, 0) : higher + 1]
        limit = midway(near, 1 if higher else 0)
        above = counted(len(ascending) - higher, "image scores", "images score")
        return limit, f"{above} higher; nothing is labelled yet"


def rows_in_order(found: ScoredRows) -> NDArray[np.uint32]:
    """Return the rows that are shown at all, highest score first, equal ones by id."""
    places = None if found.kept is None else np.flatnonzero(found.kept)
    scores = found.scores if places is None else found.scores[places]

    def ids(some: NDArray[np.intp]) -> Any:
        return found.reader.rows.take(some if places is None else places[some], ["id"]).column("id")

    order = in_order(scores, ids)
    rows = (order if places is None else places[order]).astype(np.uint32)
    rows.flags.writeable = False
    return rows


class KeptQueries:
    """Scored queries by number. Threads may share one."""

    def __init__(self, most: int = MOST_QUERIES, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[int, ScoredQuery] = OrderedDict()
        self._lock = threading.Lock()
        self._last = 0

    def keep(self, query: ScoredQuery) -> int:
        """Keep a scored query, and return its number."""
        with self._lock:
            self._last += 1
            self._kept[self._last] = query
            while len(self._kept) > 1 and (
                len(self._kept) > self._most or sum(one.nbytes for one in self._kept.values()) > self._most_bytes
            ):
                self._kept.popitem(last=False)
            return self._last

    def get(self, number: int) -> ScoredQuery:
        """Return a scored query, which then is the one used last; `ScoredGone` where it is kept no more."""
        with self._lock:
            found = self._kept.get(number)
            if found is None:
                raise ScoredGone(f"the scored query {number} is not kept any more; score it again")
            self._kept.move_to_end(number)
            return found
