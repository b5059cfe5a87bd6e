"""A store and a query -> every threshold at once: matches, percentile and, with labels, precision, recall and F1.

The rows are scored once; the numbers are made by `curves` and `distribution`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.deciding.concepts import Concept
from embedstore.deciding.labelling import Labelled, labels_for
from embedstore.errors import QueryError
from embedstore.measures.curves import Curve, precision_recall
from embedstore.measures.distribution import ScoreDistribution
from embedstore.measures.prompts import opposed, rank_prompts
from embedstore.measures.thresholds import as_thresholds
from embedstore.store import EmbedStore

NONSENSE = ("flurble", "qwxz", "the of and", "zzz", "lorem ipsum dolor", "blorptastic", "a b c", "vnrk")
"""Texts that mean nothing: what they score is the noise that a real match must exceed."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """Every threshold of one query.

    Attributes
    ----------
    query : str
        In words.
    distribution : ScoreDistribution
        Of all rows: matches and percentile at any threshold, histogram, gap.
    curve : Curve or None
        Of the labelled rows: precision, recall and F1 at every distinct score; None without labels.
    labelled : Labelled or None
    scores : ndarray of shape (n_rows,), float32
        In the order of the store's rows.
    """

    query: str
    distribution: ScoreDistribution
    curve: Curve | None
    labelled: Labelled | None
    scores: NDArray[np.float32]

    def columns(self, thresholds: ArrayLike | None = None, n: int = 20) -> dict[str, NDArray[Any]]:
        """Return what each threshold gives, as arrays of shape (n_thresholds,).

        Parameters
        ----------
        thresholds : array-like, optional
            Default: `n` that part the rows evenly between the top half's quantiles.
        n : int

        Returns
        -------
        dict of str to ndarray
            ``threshold``, ``matches``, ``percentile``; with labels also ``precision``, ``recall``, ``f1``, ``tp``,
            ``fp``, ``fn``, ``tn``.
        """
        chosen = self._spread(n) if thresholds is None else np.atleast_1d(as_thresholds(thresholds))
        found: dict[str, NDArray[Any]] = {
            "threshold": chosen,
            "matches": self.distribution.matches(chosen),
            "percentile": self.distribution.percentile(chosen),
        }
        if self.curve is not None:
            measured = self.curve.at(chosen)
            for name in ("precision", "recall", "f1", "tp", "fp", "fn", "tn"):
                found[name] = getattr(measured, name)
        return found

    def table(self, thresholds: ArrayLike | None = None, n: int = 20) -> list[dict[str, float]]:
        """Return `columns` as a dictionary for each threshold, of plain numbers."""
        found = self.columns(thresholds, n)
        rows = zip(*(column.tolist() for column in found.values()), strict=True)
        return [dict(zip(found, row, strict=True)) for row in rows]

    def _spread(self, n: int) -> NDArray[np.float64]:
        shares = 1 - np.geomspace(0.5, 1 / max(len(self.distribution), 2), n)
        return np.unique(self.distribution.quantile(shares))


def concept_scores(store: EmbedStore, concept: Concept) -> NDArray[np.float32]:
    """Return the score of each row for a concept, float32 of shape (n_rows,)."""
    vector, opponents = concept.join(store.query_vectors(concept.all_queries))
    own = store.scores([vector])[0]
    return opposed(own, store.scores(list(opponents))) if len(opponents) else own


def sweep(store: EmbedStore, query: Any, labels: Any = None, **words: Any) -> Sweep:
    """Score every row for a query, once: every threshold can be asked of the result.

    Parameters
    ----------
    store : EmbedStore
    query : query, list of queries, or Concept
    labels : optional
        See `labelling.labels_for`.
    **words
        `template`, `weights`, `opposing`: see `Concept.of`.
    """
    concept = Concept.of(query, **words)
    found = concept_scores(store, concept)
    labelled = None if labels is None else labels_for(store.rows, labels)
    curve = None if labelled is None else precision_recall(found[labelled.positions], labelled.values)
    return Sweep(concept.label, ScoreDistribution.of(found), curve, labelled, found)


def rank(store: EmbedStore, queries: Sequence[Any], labels: Any, **words: Any) -> list[dict[str, Any]]:
    """Rank queries by how well they sort labelled rows.

    Parameters
    ----------
    store : EmbedStore
    queries : sequence of query, list of queries, or Concept
    labels
        See `labelling.labels_for`.
    **words
        `template`, `opposing`: see `Concept.of`.

    Returns
    -------
    list of dict
        ``query``, ``average_precision``, ``roc_auc``, ``best_f1``; best average precision first.
    """
    concepts = [Concept.of(query, **words) for query in queries]
    if not concepts:
        raise QueryError("give at least one query to rank")
    labelled = labels_for(store.rows, labels)
    lines = np.stack([concept_scores(store, concept)[labelled.positions] for concept in concepts])
    ranked = rank_prompts(lines, labelled.values, [concept.label for concept in concepts])
    return [{name: value for name, value in row.items() if name != "position"} for row in ranked]


def noise_floor(store: EmbedStore, query: Any, share: float = 0.01) -> float:
    """Return the threshold that nonsense queries exceed on at most `share` of the rows each."""
    found = store.scores([query])[0]
    return ScoreDistribution.of(found).noise_floor(store.scores(list(NONSENSE)), share).threshold
