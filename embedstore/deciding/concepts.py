"""What a class looks for, in the words that a person gives: prompts, templates, weights, opponents.

Turns them into the queries to embed, and the queries' vectors into one vector and its opponents. How these score
rows is `targets`' business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.errors import QueryError
from embedstore.measures.prompts import combine, fill
from embedstore.searching.queries import Query
from embedstore.vectors import Vectors


@dataclass(frozen=True, eq=False)
class Concept:
    """What a class looks for; made by `Concept.of`.

    Attributes
    ----------
    queries : tuple of Query
        Their mean, by `weights`, is what is searched with.
    weights : tuple of float
        One for each query; empty when all count the same. Negative ones push away.
    opposing : tuple of Query
        The best of their scores is taken off each row's score.
    template : str or None
        The templates that the texts were set into, for people.
    label : str
        The concept in words.
    """

    queries: tuple[Query, ...]
    weights: tuple[float, ...] = ()
    opposing: tuple[Query, ...] = ()
    template: str | None = None
    label: str = ""

    @classmethod
    def of(
        cls,
        query: Any,
        *,
        template: str | Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        opposing: Any = (),
    ) -> Concept:
        """Read a concept.

        Parameters
        ----------
        query : query, list of queries, or Concept
            Several are averaged, as a prompt ensemble.
        template : str or list of str, optional
            Prompts such as ``"a photo of a {}"``; every text is set into every one.
        weights : sequence of float, optional
            One for each query.
        opposing : query or list of queries
            What it must not be: the score is that of `query` minus the best of these. They are set into the
            templates too.

        Raises
        ------
        QueryError
            No query, or another number of weights.
        """
        if isinstance(query, Concept):
            return query
        asked = [Query.of(one) for one in _listed(query)]
        against = [Query.of(one) for one in _listed(opposing)]
        if not asked:
            raise QueryError("give at least one query to look for, such as 'dog'")
        given = [] if weights is None else list(weights)
        if given and len(given) != len(asked):
            raise QueryError(f"{len(given)} weights for {len(asked)} queries; give one for each")
        label = " + ".join(one.label for one in asked)
        if against:
            label += " against " + ", ".join(one.label for one in against)
        if template is None:
            return cls(tuple(asked), tuple(given), tuple(against), None, label)
        filled = [[*_filled(one, template)] for one in asked]
        spread = (
            [weight / len(part) for weight, part in zip(given, filled, strict=True) for _ in part]
            if given
            else []
        )
        return cls(
            tuple(one for part in filled for one in part),
            tuple(spread),
            tuple(one for other in against for one in _filled(other, template)),
            template if isinstance(template, str) else " | ".join(template),
            label,
        )

    @property
    def all_queries(self) -> list[Query]:
        """Every query that needs a vector."""
        return [*self.queries, *self.opposing]

    @property
    def words(self) -> dict[str, Any]:
        """The words that a saved class keeps for people."""
        return {
            "queries": tuple(_words(one) for one in self.queries),
            "weights": self.weights,
            "template": self.template,
            "opposing": tuple(_words(one) for one in self.opposing),
        }

    def join(self, found: Vectors) -> tuple[Vectors, Vectors]:
        """Turn the vectors of `all_queries` into the concept's vector, shape (dim,), and its opponents'."""
        own, opponents = found[: len(self.queries)], found[len(self.queries) :]
        # One plain query stays as it is, to the bit, so that its scores are those of a search.
        vector = own[0] if len(own) == 1 and not self.weights else combine(own, self.weights or None)
        return np.asarray(vector, dtype=np.float32), opponents


def _listed(queries: Any) -> list[Any]:
    if isinstance(queries, list | tuple) and not (
        queries and all(isinstance(x, int | float) for x in queries)
    ):
        return list(queries)
    return [queries]


def _filled(query: Query, template: str | Sequence[str]) -> list[Query]:
    if query.kind != "text":
        return [query]
    return [Query.text(text) for text in fill(template, query.value)]


def _words(query: Query) -> str:
    return str(query.value) if query.kind == "text" else query.label
