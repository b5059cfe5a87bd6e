"""The rows of one version of a store, and the answers over them.

Turns queries into scores of all rows, or the nearest rows, as `Matches`. A `Reader` never changes, so threads that
share one never see the rows of one version and the scores of another: to move on, `Reader.at` makes the next one.
Where a query's vector comes from is left to `query_vectors`, the look at the vectors to `scan` and `shortlist`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore import vectors
from embedstore.errors import InputError, QueryError, spelt
from embedstore.measures.curves import above, as_threshold, floor
from embedstore.searching import scan, shortlist
from embedstore.searching.index import APPROXIMATE, EXACT, IndexFiles
from embedstore.searching.matches import Matches
from embedstore.searching.queries import Concept, Query, at_a_glance, listed, opposed
from embedstore.searching.query_vectors import QueryVectors
from embedstore.searching.scan import FROM_QUERIES, PartialScan
from embedstore.searching.shortlist import Shortlist
from embedstore.space import Space
from embedstore.storage.ledger import Ledger
from embedstore.storage.rows import Rows
from embedstore.storage.table import Snapshot
from embedstore.vectors import ArrayCache, Mask, Positions, Vectors

SCORES_BYTES = 64 * 2**20
"""How much memory the kept scores may take: 16 queries over a million rows, half of that when counted often."""

Scores = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reader:
    """One version of a store, to be asked; index files are used when that is faster, with the same answers."""

    rows: Rows
    space: Space
    store_id: str
    queries: QueryVectors
    index_files: IndexFiles
    executor: scan.Executor
    _kept: ArrayCache[Scores] = field(default_factory=lambda: ArrayCache(SCORES_BYTES), init=False, repr=False)
    _counted: set[int] = field(default_factory=set, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def version(self) -> int:
        """The version that is read."""
        return self.rows.snapshot.version

    @property
    def ledger(self) -> Ledger:
        """The ledger of the store, which holds what is no row: queries asked before, labels that people gave."""
        return self.queries.cache.ledger

    def at(self, snapshot: Snapshot) -> Reader:
        """Return the reader of another version, with the same queries, index files and executor."""
        return dataclasses.replace(self, rows=Rows(snapshot))

    def mask(self, where: Any) -> Mask | None:
        """Return which rows `where` keeps, bool of shape (n_rows,), or None for all."""
        return self.rows.mask(where)

    def query_vectors(self, queries: Sequence[Any]) -> Vectors:
        """Return the unit vectors of queries, float32 of shape (n_queries, dim)."""
        return self.queries.vectors([Query.of(query) for query in listed(queries)], self.rows)

    def concept_vectors(self, concepts: Sequence[Concept]) -> list[tuple[Vectors, Vectors]]:
        """Return for each concept its vector, shape (dim,), and those of its opponents; texts are embedded together."""
        queries = [query for concept in concepts for query in concept.all_queries]
        self.queries.warn_of_unknown(queries)
        found = self.query_vectors(queries)
        start, joined = 0, []
        for concept in concepts:
            part = found[start : start + len(concept.all_queries)]
            joined.append(concept.join(part))
            start += len(part)
        return joined

    def scores(self, queries: Any, where: Any = None) -> Vectors:
        """Score every row against every query; see `EmbedStore.scores`."""
        asked = [Query.of(query) for query in listed(queries)]
        self.queries.warn_of_unknown(asked)
        found = self._scores(self.query_vectors(asked))
        mask = self.mask(where)
        return found if mask is None else found[:, mask]

    def concept_scores(self, concept: Concept) -> Scores:
        """Return the score of each row for a concept, float32 of shape (n_rows,)."""
        return self._opposed(*self.concept_vectors([concept])[0])

    def search_many(
        self,
        queries: Sequence[Any],
        k: int = 10,
        threshold: float | None = None,
        where: Any = None,
        *,
        approximate: bool = False,
        **words: Any,
    ) -> list[Matches]:
        """Return the nearest rows to each of several queries; see `EmbedStore.search`."""
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise InputError(f"{spelt('k', '-n')} is how many rows to return, at least 1; found {k!r}")
        limit = None if threshold is None else as_threshold(threshold)
        concepts = [Concept.of(query, **words) for query in queries]
        asked = self.concept_vectors(concepts) if concepts else []
        mask = self.mask(where)
        plain = [number for number, (_, opponents) in enumerate(asked) if not len(opponents)]
        if approximate and len(plain) < len(asked):
            left = spelt("approximate or opposing", "--approximate or --against")
            raise QueryError(f"an approximate index knows of no opponents; leave {left} out")
        nearest = {}
        if plain:
            found = self.nearest(np.stack([asked[n][0] for n in plain]), int(k), mask, approximate)
            nearest = dict(zip(plain, zip(found.positions, found.scores, strict=True), strict=True))
        answers = []
        for number, concept in enumerate(concepts):
            if number not in nearest:
                found = _nearest_of(self._opposed(*asked[number]), int(k), mask)
                nearest[number] = found.positions[0], found.scores[0]
            positions, scores = nearest[number]
            kept = slice(None) if limit is None else above(scores, limit)
            answers.append(Matches(self.rows, positions[kept], scores[kept], concept.label, limit)[: int(k)])
        return answers

    def classify(self, query: Any, threshold: float, where: Any = None, **words: Any) -> Matches:
        """Return every row that exceeds a threshold, nearest first; see `EmbedStore.classify`."""
        concept = Concept.of(query, **words)
        return self.matching(*self.concept_vectors([concept])[0], threshold, concept.label, where)

    def matching(self, vector: Vectors, opponents: Vectors, threshold: float, label: str, where: Any = None) -> Matches:
        """Return every row whose score for a vector, less that of the best opponent, is larger than `threshold`.

        Of rows that another executor scores elsewhere only those come here.
        """
        if self._is_near(vector, opponents):
            return self.exceeding(self._opposed(vector, opponents), threshold, label, where)
        limit, queries, mask = as_threshold(threshold), _stacked(vector, opponents), self.mask(where)
        found = scan.exceeding(self.rows.snapshot.parts, queries, limit, mask, self.executor)
        return Matches(self.rows, *found, label, limit)

    def exceeding(self, scores: Scores, threshold: float, label: str, where: Any = None) -> Matches:
        """Return every row whose score in `scores`, of shape (n_rows,), is larger than `threshold`."""
        limit = as_threshold(threshold)
        matching, mask = above(scores, limit), self.mask(where)
        positions = np.flatnonzero(matching if mask is None else matching & mask)
        return Matches(self.rows, positions, scores[positions], label, limit)

    def count(self, query: Any, threshold: float, where: Any = None, **words: Any) -> int:
        """Return how many rows have a score larger than `threshold`, compared exactly."""
        limit = as_threshold(threshold)
        asked = None if where is not None or words else at_a_glance(query)
        ascending = None if asked is None else self._kept.get(asked)
        if ascending is not None:
            return _exceeding(ascending, limit)
        mask = self.mask(where)
        vector, opponents = self.concept_vectors([Concept.of(query, **words)])[0]
        if mask is None and not len(opponents) and self._is_near(vector, opponents):
            return self._count(vector, limit, asked or ("vector", vector.tobytes()))
        if not self._is_near(vector, opponents):
            return scan.count(self.rows.snapshot.parts, _stacked(vector, opponents), limit, mask, self.executor)
        matching = above(self._opposed(vector, opponents), limit)
        return int(np.count_nonzero(matching if mask is None else matching & mask))

    def counts(
        self, vector: Vectors, opponents: Vectors, thresholds: NDArray[np.float64], where: Any = None
    ) -> NDArray[np.int64]:
        """Return how many rows exceed each threshold; no score is kept, and none comes here from elsewhere."""
        parts, queries = self.rows.snapshot.parts, _stacked(vector, opponents)
        return scan.counts(parts, queries, thresholds, self.mask(where), self.executor)

    def scores_at(self, vector: Vectors, opponents: Vectors, positions: Positions) -> Scores:
        """Return the scores of the rows at ascending positions, float32 of shape (n,); of no other one comes here."""
        mask = np.zeros(len(self.rows), np.bool_)
        mask[positions] = True
        return scan.picked_scores(self.rows.snapshot.parts, _stacked(vector, opponents), mask, self.executor)

    def nearest(self, queries: Vectors, k: int, mask: Mask | None = None, approximate: bool = False) -> PartialScan:
        """Return the nearest `k` rows to each vector, with all ties of the last place, in no order.

        From kept scores, else by the indexes, else by a scan: the bits are the same. With `approximate` rows may be
        missing, as many as the index's recall says; InputError where there is no index of such a kind.
        """
        if approximate:
            return self._candidates(queries, k, mask)
        if len(queries) == 1:
            kept = self._kept.get(queries.tobytes())
            if kept is not None:
                return _nearest_of(kept, k, mask)
        parts = self.rows.snapshot.parts
        if len(queries) < FROM_QUERIES and k <= shortlist.WIDEST // 4 and self._indexes_pay():
            proven = []
            for query in queries[:, np.newaxis]:
                if (partial := self._proven(query, k, mask)) is None:
                    break
                proven.append(partial)
            if len(proven) == len(queries):
                return _side_by_side(k, proven)
        return scan.nearest(parts, queries, k, mask, self.executor)

    def recall(self, kind: str) -> dict[str, float]:
        """Measure the share of the true nearest rows that an approximate index finds; see `shortlist.recall`."""
        executor = self._local_executor()
        indexes = self.index_files.get_all(self.rows.snapshot.parts, kind, executor)
        return shortlist.recall(self.rows, indexes, executor)

    def _indexes_pay(self) -> bool:
        """Tell whether exact indexes are there that it pays to open."""
        # What FAISS has mapped cannot travel to the processes of another executor.
        return self.executor.local and self.index_files.pays(self.rows.snapshot.parts, EXACT)

    def _proven(self, query: Vectors, k: int, mask: Mask | None) -> PartialScan | None:
        """Return the nearest rows to a query, shape (1, dim), by the first kind of index that proves them; or None."""
        parts = self.rows.snapshot.parts
        for kind in EXACT:
            indexes = self.index_files.get_all(parts, kind, self.executor)
            if indexes and (found := Shortlist(parts, indexes, mask, self.executor).nearest(query, k)) is not None:
                return found
        return None

    def _candidates(self, queries: Vectors, k: int, mask: Mask | None) -> PartialScan:
        """Answer from an index that may miss rows."""
        parts, executor = self.rows.snapshot.parts, self._local_executor()
        found = (self.index_files.get_all(parts, kind, executor) for kind in APPROXIMATE)
        indexes = next((some for some in found if some), None)
        if indexes is None:
            how = spelt("`store.index('ivf')`", "`embedstore index STORE --kind ivf`")
            raise InputError(f"there is no approximate index; {how} makes one")
        by_index = Shortlist(parts, indexes, mask, executor)
        return _side_by_side(k, [by_index.candidates(query, k) for query in queries[:, np.newaxis]])

    def _is_near(self, vector: Vectors, opponents: Vectors) -> bool:
        """Tell whether the scores of all rows are here, or are made here."""
        return self.executor.local or all(
            self._kept.get(line.tobytes()) is not None for line in _stacked(vector, opponents)
        )

    def _local_executor(self) -> scan.Executor:
        return self.executor if self.executor.local else scan.Threads()

    def _scores(self, queries: Vectors) -> Vectors:
        """Return the scores of all rows, read-only float32 of shape (n_queries, n_rows)."""
        if len(queries) == 1:
            return self._line(queries[0])[np.newaxis]
        if len(queries) * len(self.rows) * 4 > self._kept.limit:
            return self._scan(queries)
        lines = [self._kept.get(query.tobytes()) for query in queries]
        missing = [number for number, line in enumerate(lines) if line is None]
        if missing:
            for number, found in zip(missing, self._scan(queries[missing]), strict=True):
                # A copy: a line that leaves must not be held by its neighbours.
                lines[number] = self._kept.put(queries[number].tobytes(), found.copy())
        stacked = np.stack([line for line in lines if line is not None]) if lines else self._scan(queries)
        stacked.flags.writeable = False
        return stacked

    def _line(self, vector: Vectors) -> Scores:
        """Return one query's scores of all rows; they are kept."""
        key = vector.tobytes()
        kept = self._kept.get(key)
        return self._kept.put(key, self._scan(vector[np.newaxis])[0]) if kept is None else kept

    def _scan(self, queries: Vectors) -> Vectors:
        found = scan.all_scores(self.rows.snapshot.parts, queries, self.executor)
        found.flags.writeable = False
        return found

    def _opposed(self, vector: Vectors, opponents: Vectors) -> Scores:
        own = self._line(vector)
        return opposed(own, self._scores(opponents)) if len(opponents) else own

    def _count(self, vector: Vectors, threshold: float, key: Hashable) -> int:
        """Count by a binary search, from the second time on that `key` is counted; the first reads its scores."""
        ascending = self._kept.get(key)
        if ascending is None:
            scores = self._line(vector)
            if hash(key) not in self._counted:
                self._counted.add(hash(key))
                return int(np.count_nonzero(above(scores, threshold)))
            ascending = self._kept.put(key, np.sort(scores))
        return _exceeding(ascending, threshold)


def _stacked(vector: Vectors, opponents: Vectors) -> Vectors:
    """Return a vector and its opponents, shape (1 + n_opponents, dim)."""
    return np.concatenate([vector[np.newaxis], opponents]) if len(opponents) else vector[np.newaxis]


def _exceeding(ascending: Scores, threshold: float) -> int:
    """Return how many of the scores are larger than the threshold."""
    return len(ascending) - int(ascending.searchsorted(floor(threshold, ascending.dtype), side="right"))


def _side_by_side(k: int, found: list[PartialScan]) -> PartialScan:
    """Return the answers to single queries as one."""
    return PartialScan(
        k,
        [positions for partial in found for positions in partial.positions],
        [scores for partial in found for scores in partial.scores],
    )


def _nearest_of(line: Scores, k: int, mask: Mask | None) -> PartialScan:
    """Return the nearest `k` rows, with ties, by scores that are known."""
    kept = None if mask is None else np.flatnonzero(mask)
    within = line if kept is None else line[kept]
    best = vectors.top_k(within, k)
    positions = best if kept is None else kept[best]
    return PartialScan(k, [positions.astype(np.int64)], [within[best]])
