"""What may be asked: a `Query`, and a `Concept` made of several, with templates, weights and opponents.

Turns what a caller would naturally pass into queries to embed, and their vectors into one vector and its opponents.
Making the vectors is left to `query_vectors`, the scores of rows to `reader`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError, QueryError
from embedstore.vectors import Vectors, as_vectors, normalise
from embedstore.wording import counted

SLOT = "{}"
"""Where the text goes in a template."""


@dataclass(frozen=True, eq=False)
class Query:
    """What is asked of a store; made by `Query.of` from what a caller would naturally pass.

    Attributes
    ----------
    kind : {"text", "image", "id", "vector"}
    value : str, bytes, PIL.Image.Image or ndarray
    label : str
        The query in words, for people.
    """

    kind: Literal["text", "image", "id", "vector"]
    value: Any
    label: str

    @classmethod
    def text(cls, text: str) -> Query:
        """Ask for pictures that a text describes; QueryError for an empty one."""
        if not text.strip():
            raise QueryError("the query is empty; give some words, such as 'a tiny white ball'")
        return cls("text", text.strip(), text.strip())

    @classmethod
    def image(cls, source: Any) -> Query:
        """Ask for pictures like this one: a path, bytes, a PIL image or an array of pixels.

        Raises
        ------
        QueryError
            The path cannot be read.
        ImageError
            Of no such type.
        """
        from embedstore.images import as_source, file_content  # late: a query in words needs no Pillow

        picture = as_source(source)
        if not isinstance(picture, Path):
            return cls("image", picture, "a picture")
        try:
            return cls("image", file_content(picture), str(picture))
        except OSError as error:
            raise QueryError(f"the picture {str(picture)!r} cannot be read: {error.strerror}") from error

    @classmethod
    def id(cls, identity: str) -> Query:
        """Ask for pictures like a record of the store, by its id."""
        return cls("id", identity, f"id {identity}")

    @classmethod
    def vector(cls, values: Any) -> Query:
        """Ask with a vector of the store's space; it is scaled to unit length."""
        return cls("vector", values, "a vector")

    @classmethod
    def of(cls, query: Any) -> Query:
        """Read a query: text (any ``str``), path, PIL image, bytes of a picture, 1-d vector, or a `Query`.

        Raises
        ------
        QueryError
            None of these.
        """
        if isinstance(query, Query):
            return query
        if isinstance(query, str):
            return cls.text(query)
        if isinstance(query, np.ndarray):
            return cls.vector(query) if query.ndim == 1 else cls.image(query)
        from embedstore.images import is_image  # late: a query in words needs no Pillow

        if isinstance(query, os.PathLike) or is_image(query):
            return cls.image(query)
        if isinstance(query, Sequence) and all(isinstance(x, int | float) for x in query):
            return cls.vector(query)
        raise QueryError(
            f"cannot search for a {type(query).__name__}; give a text, a path or picture, a vector, or Query.id(...)"
        )


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
            raise QueryError(
                f"{counted(len(given), 'weight')} for {counted(len(asked), 'query', 'queries')}; give one for each"
            )
        label = " + ".join(one.label for one in asked)
        if against:
            label += " against " + ", ".join(one.label for one in against)
        if template is None and not given and not against:
            return cls(tuple(asked), label=label)
        templates = [template] if isinstance(template, str) else list(template or ())
        filled = [_filled(one, templates) for one in asked]
        return cls(
            tuple(one for part in filled for one in part),
            tuple(weight / len(part) for weight, part in zip(given, filled, strict=False) for _ in part),
            tuple(one for other in against for one in _filled(other, templates)),
            " | ".join(templates) or None,
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
    if isinstance(queries, list | tuple) and not (queries and all(isinstance(x, int | float) for x in queries)):
        return list(queries)
    return [queries]


def _filled(query: Query, templates: Sequence[str]) -> list[Query]:
    if query.kind != "text" or not templates:
        return [query]
    return [Query.text(text) for text in fill(templates, query.value)]


def _words(query: Query) -> str:
    return str(query.value) if query.kind == "text" else query.label


def combine(vectors: ArrayLike, weights: ArrayLike | None = None) -> Vectors:
    """Return the direction of a weighted sum of `vectors`, each scaled to unit length first: float32 of shape (dim,).

    A negative weight pushes away; without weights all count the same, which is a prompt ensemble. Raises QueryError for
    another number of weights than of vectors, weights that are not finite, and vectors that cancel out.
    """
    rows = normalise(as_vectors(vectors, what="query vectors"), what="query vectors")
    factors = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    if factors.shape != (len(rows),) or not np.isfinite(factors).all():
        raise QueryError(f"expected one finite weight for each of {len(rows)} vectors, found {weights!r}")
    total = factors @ rows.astype(np.float64)
    length = float(np.linalg.norm(total))
    if length <= 1e-6 * np.abs(factors).sum():
        raise QueryError("the weighted vectors cancel out, which leaves no direction; change the weights")
    return (total / length).astype(np.float32)


def fill(templates: str | Sequence[str], text: str) -> list[str]:
    """Return `text` set into each template at its one ``{}``; any other character stands for itself, braces too.

    Raises QueryError for a template that does not hold ``{}`` exactly once.
    """
    listed = [templates] if isinstance(templates, str) else list(templates)
    for template in listed:
        if (found := template.count(SLOT)) != 1:
            raise QueryError(
                f"a prompt template holds {SLOT} exactly once, where the text goes, as in 'a photo of a {{}}'; "
                f"found {found} in {template!r}"
            )
    return [template.replace(SLOT, text) for template in listed]


def opposed(positive: ArrayLike, negatives: ArrayLike) -> NDArray[np.float32]:
    """Return the score of a query minus that of its best opponent, row by row: float32 of shape (n_rows,).

    `negatives` have the shape (n_negatives, n_rows), or (n_rows,) for one. A result larger than 0 beats all opponents;
    the natural threshold is 0.
    """
    ours = np.asarray(positive, dtype=np.float32)
    theirs = np.atleast_2d(np.asarray(negatives, dtype=np.float32))
    if ours.ndim != 1 or theirs.ndim != 2 or theirs.shape[1:] != ours.shape or len(theirs) == 0:
        raise InputError(
            f"expected negatives of shape (n_negatives, {len(ours) if ours.ndim else 1}), found {theirs.shape}"
        )
    best: NDArray[np.float32] = theirs.max(axis=0)
    return ours - best
