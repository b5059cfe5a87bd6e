"""What may be asked: a `Query`, and a `Concept` made of several, with templates, weights and opponents.

Turns what a caller would naturally pass into queries to embed, and their vectors into one vector and its opponents.
Here is decided whether a text is words, the path of a picture, or a mix of both. Making the vectors is left to
`query_vectors`, the scores of rows to `reader`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError, QueryError, spelt
from embedstore.files import holder_of
from embedstore.vectors import Vectors, as_vectors, normalise
from embedstore.wording import counted

_log = logging.getLogger("embedstore")

SLOT = "{}"
"""Where the text goes in a template."""
_SIGNS = {"+": 1.0, "-": -1.0}
_WORD = re.compile(r'(?:"[^"]*"|\S)+')
_WEIGHTED = re.compile(r"(\d+\.?\d*|\.\d+):(.+)", re.DOTALL)


def _forced() -> str:
    return f"{spelt('Query.text', '--text')} takes it for words"


@dataclass(frozen=True, eq=False)
class Query:
    """What is asked of a store; made by `Query.of` from what a caller would naturally pass.

    Attributes
    ----------
    kind : {"text", "image", "id", "vector", "mix"}
    value : str, bytes, PIL.Image.Image, ndarray, or for a mix a tuple of (weight, Query)
    label : str
        The query in words, for people.
    """

    kind: Literal["text", "image", "id", "vector", "mix"]
    value: Any
    label: str

    @classmethod
    def text(cls, text: str) -> Query:
        """Ask for pictures that a text describes; QueryError for an empty one.

        It opens no file whatever the text says, as is right for texts of strangers.
        """
        if not text.strip():
            raise QueryError("the query is empty; give some words, such as 'a tiny white ball'")
        return cls("text", text.strip(), text.strip())

    @classmethod
    def image(cls, source: Any) -> Query:
        """Ask for pictures like this one: a path, bytes, a PIL image or an array of pixels.

        A path may lead into a table or an archive, as the uris of a store do: ``photos.parquet#12``.

        Raises
        ------
        QueryError
            The path cannot be read, or leads to no picture.
        ImageError
            Of no such type.
        """
        from embedstore.images import as_source, file_content  # late: a query in words needs no Pillow

        picture = as_source(source)
        if not isinstance(picture, Path):
            return cls("image", picture, "a picture")
        if not picture.exists() and holder_of(uri := os.path.abspath(picture)) is not None:
            from embedstore.sources import pictures_at  # late: most queries lie in no table

            found = pictures_at([uri])
            if uri not in found:
                raise QueryError(f"there is no picture {str(picture)!r}; {holder_of(uri)} does not hold it")
            return cls("image", found[uri], str(picture))
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
    def parse(cls, words: str | Sequence[str]) -> Query:
        """Read a mix: queries with ``+`` or ``-`` between them, such as ``2:golden retriever + ./pool.jpg - fruit``.

        Only a ``+`` or ``-`` that is a word of its own is a sign: "black-and-white" and "C++" stay whole, and so does
        "T-shirt - red" as one word of a sequence, or in double quotes in a text. What stands between signs is one
        query, read as `of` reads a text: words, or the path of a picture. A number and a colon before it are its
        weight, where there is a sign at all: "16:9" alone is a text.

        The vector of a mix is ``s / |s|``, ``s = sum(w_i * u_i)``: ``u_i`` is the unit vector of a query, ``w_i`` its
        weight, 1 unless given, and negative after a ``-``; see `combine`. Its scores are cosines like all others.
        (rclip, whose signs these are, ranks by ``s`` itself: the same order.)

        Parameters
        ----------
        words : str or sequence of str
            One text, or words as a shell hands them over.

        Returns
        -------
        Query
            Of the kind ``"mix"``; without a sign, what `of` makes of the text.

        Raises
        ------
        QueryError
            Nothing stands after a sign, or a picture stands among words with no sign between.

        Examples
        --------
        >>> Query.parse("2:golden retriever + a black-and-white cat - fruit").texts
        ['golden retriever', 'a black-and-white cat', 'fruit']
        """
        if isinstance(words, str):
            words = [word.replace('"', "") if word.count('"') > 1 else word for word in _WORD.findall(words)]
        elif len(words) == 1 and re.search(r"\s[+-]\s", words[0]):
            _log.warning("%r is one text; + and - mix queries where they stand outside of quotes", words[0])
        terms = _terms(words)
        if len(terms) == 1 and not terms[0][0]:
            return cls.of(terms[0][1])
        parts, label = [], ""
        for sign, text in terms:
            weight, query = _weighted(text)
            parts.append((_SIGNS.get(sign, 1.0) * weight, query))
            joint = f" {sign} " if label else "- " if sign == "-" else ""
            label += joint + (f"{weight:g}:" if weight != 1 else "") + query.label
        return cls("mix", tuple(parts), label)

    @classmethod
    def of(cls, query: Any) -> Query:
        """Read a query: text, path, PIL image, bytes of a picture, 1-d vector, or a `Query`.

        A ``str`` is a text, unless it is the path of a file here that has an ending or a folder in it: then pictures
        like that one are asked for, and a warning is logged that says so. `text` takes every ``str`` for words, `parse`
        reads ``+`` and ``-``.

        Raises
        ------
        QueryError
            None of these; the name of a picture that is not here; a folder; an array of two axes by itself, which
            may be vectors as well as a grey picture.
        """
        if isinstance(query, Query):
            return query
        if isinstance(query, str):
            picture = picture_named(query)
            if picture is None:
                return cls.text(query)
            asked = cls.image(picture)
            _log.warning("%r is a picture here: looking for others like it; %s", query, _forced())
            return asked
        if isinstance(query, np.ndarray) and query.ndim == 2:
            raise QueryError(
                f"an array of shape {query.shape} may be vectors or a grey picture; say Query.image(array) for the "
                "picture, and give vectors one by one"
            )
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

    @property
    def texts(self) -> list[str]:
        """The texts in it, all that a model has to embed in words."""
        if self.kind == "mix":
            return [text for _, query in self.value for text in query.texts]
        return [self.value] if self.kind == "text" else []


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
        query : query, list of queries, array of vectors of shape (n, dim), or Concept
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
        asked = [Query.of(one) for one in listed(query)]
        against = [Query.of(one) for one in listed(opposing)]
        if not asked:
            raise QueryError("give at least one query to look for, such as 'dog'")
        given = [] if weights is None else list(weights)
        if given and len(given) != len(asked):
            raise QueryError(
                f"{counted(len(given), 'weight')} for {counted(len(asked), 'query', 'queries')}; give one for each"
            )
        label = " + ".join(f"({one.label})" if one.kind == "mix" and len(asked) > 1 else one.label for one in asked)
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


def listed(queries: Any) -> list[Any]:
    """Return one query as a list, and several as one; the rows of an array of shape (n, dim) are vectors."""
    if isinstance(queries, np.ndarray) and queries.ndim == 2:
        return [Query("vector", row, f"a row of an array of shape {queries.shape}") for row in queries]
    if isinstance(queries, list | tuple) and not (queries and all(isinstance(x, int | float) for x in queries)):
        return list(queries)
    return [queries]


def at_a_glance(query: Any) -> Hashable | None:
    """Return what tells words and arrays of vectors from others of their kind, without a look at what they ask for.

    None for all else, which may be a picture, or hold one.
    """
    if isinstance(query, Query):
        if query.kind == "text":
            return "text", query.value
        return at_a_glance(query.value) if query.kind == "vector" and np.ndim(query.value) == 1 else None
    if isinstance(query, np.ndarray) and query.dtype.kind == "f":
        return query.dtype.str, query.shape, query.tobytes()
    if isinstance(query, str) and picture_named(query) is None:
        return "text", query.strip()
    return None


def picture_named(text: str) -> Path | None:
    """Return the path of the file that a text names; None where it is words.

    A path has an ending or a folder in it, and leads to a file: a word by itself is never one, whatever lies here.
    QueryError for the name of a picture that is not here, a folder's path, and an address.
    """
    text = text.strip()
    path = os.path.expanduser(text)
    ending, below = os.path.splitext(path)[1], os.sep in text or "/" in text
    if not ending and not below:
        return None
    if text.lower().startswith(("http://", "https://")):
        raise QueryError(f"{text!r} is an address, and a query fetches none; download the picture; {_forced()}")
    if os.path.isdir(path):
        if below:
            raise QueryError(f"{text!r} is a folder; ask with one picture; {_forced()}")
        return None
    if os.path.exists(path) or holder_of(path) is not None:
        return Path(path)
    if ending:
        from embedstore.images import SUFFIXES  # late: a query in words needs no Pillow

        if ending.lower() in (*SUFFIXES, ".heic", ".heif", ".avif"):
            raise QueryError(f"there is no picture {text!r}; check the path; {_forced()}")
    return None


def _terms(words: Sequence[str]) -> list[tuple[str, str]]:
    """Split words at the signs: (sign, text) for each query, with no sign before the first where none was given."""
    terms: list[tuple[str, list[str]]] = [("", [])]
    for word in words:
        if word in _SIGNS:
            terms.append((word, []))
        else:
            terms[-1][1].append(word)
    if len(terms) > 1 and not terms[0][1]:
        del terms[0]
    for sign, between in terms:
        if sign and not between:
            raise QueryError(f"nothing stands after the {sign}; a mix is such as: dog + ./pool.jpg - 2:snow")
    return [(sign, _one_query(between)) for sign, between in terms]


def _one_query(words: list[str]) -> str:
    """Join words that make one query; QueryError where one of several is a picture."""
    text = " ".join(words)
    if len(words) > 1 and not os.path.exists(os.path.expanduser(text)):
        for word in words:
            path = os.path.expanduser(word)
            if os.path.splitext(path)[1] and os.path.isfile(path):
                raise QueryError(f"the picture {word!r} stands beside other words; put a + or - between")
    return text


def _weighted(text: str) -> tuple[float, Query]:
    """Read a query of a mix, and the weight before it."""
    found = _WEIGHTED.fullmatch(text)
    if found is None or os.path.exists(text):
        return 1.0, Query.of(text)
    return float(found[1]), Query.of(found[2])


def _filled(query: Query, templates: Sequence[str]) -> list[Query]:
    """Set each text of a query into each template: a query for each."""
    if not templates or not query.texts:
        return [query]
    if query.kind == "text":
        return [Query.text(text) for text in fill(templates, query.value)]
    return [
        Query("mix", tuple((weight, _filled(one, [template])[0]) for weight, one in query.value), query.label)
        for template in templates
    ]


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
