"""What a page asks, JSON of a stranger -> arguments of the right types, a query, and which labels are the truth.

A text is words here and never the path of a file: nothing that is asked opens one. What is done with it is left to
`session`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedstore.errors import InputError, QueryError, did_you_mean
from embedstore.searching.queries import Concept, Query
from embedstore.vectors import Vectors

MOST_TERMS = 64
"""A query is made of at most so many texts and pictures, and so many that it must not be."""
_NEEDED: Any = object()
_MOST = 2**31
_KINDS = ("text", "picture", "id")
_EXAMPLE = '{"terms": [{"text": "dog", "weight": 1}], "against": [], "template": null}'


class Arguments:
    """The arguments of one call, each read by what it must be; InputError says what was found and what is expected.

    Parameters
    ----------
    call : str
        The name of the call, for messages.
    given : object
        Should be a mapping.
    known : collection of str
        The names of all its arguments.
    """

    def __init__(self, call: str, given: Any, known: Collection[str]) -> None:
        if not isinstance(given, Mapping):
            raise InputError(f"{call}: expected an object of arguments, found {_shown(given)}")
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise InputError(f"{call} has no argument {unknown!r}; {takes}.{did_you_mean(str(unknown), known)}")
        if not _are_texts(given):
            raise InputError(f"{call}: a text holds half a character (a lone surrogate); expected whole ones")
        self._call, self._given = call, given

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value as it is; null counts as not given."""
        value = self._given.get(name)
        return default if value is None else value

    def text(self, name: str, default: str = _NEEDED) -> str:
        """Return a text."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self._refusal(name, "a text", value)
        return value

    def number(self, name: str, default: float | None = _NEEDED) -> float | None:
        """Return a finite number."""
        value = self._value(name, default)
        if value is None:
            return None
        if not is_number(value):
            raise self._refusal(name, "a number", value)
        return float(value)

    def threshold(self, name: str = "threshold") -> float:
        """Return a number that must be given."""
        value = self.number(name)
        assert value is not None
        return value

    def whole(self, name: str, default: int = _NEEDED, least: int = 0, most: int = _MOST) -> int:
        """Return a whole number within bounds."""
        value = self._value(name, default)
        if type(value) is not int or not least <= value <= most:
            raise self._refusal(name, f"a whole number from {least:,} to {most:,}", value)
        return value

    def wholes(self, name: str, most: int) -> list[int]:
        """Return a list of at most `most` whole numbers, none negative."""
        value = self._value(name, _NEEDED)
        fits = isinstance(value, list | tuple) and len(value) <= most
        if not fits or not all(type(one) is int and 0 <= one <= _MOST for one in value):
            raise self._refusal(name, f"a list of at most {most} whole numbers", value)
        return [int(one) for one in value]

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self._refusal(name, "true or false", value)
        return value

    def one_of(self, name: str, among: Sequence[str], default: str = _NEEDED) -> str:
        """Return one of some texts."""
        value = self._value(name, default)
        if not isinstance(value, str) or value not in among:
            raise self._refusal(name, " or ".join(among), value)
        return value

    def _value(self, name: str, default: Any) -> Any:
        value = self.get(name, default)
        if value is _NEEDED:
            raise InputError(f"{self._call} needs the argument {name!r}")
        return value

    def _refusal(self, name: str, expected: str, found: Any) -> InputError:
        return InputError(f"{self._call}: {name} must be {expected}, found {_shown(found)}")


@dataclass(frozen=True)
class Saved:
    """A classifier that the store keeps, by name, and which of its classes is meant; None where it has one."""

    name: str
    label: str | None = None


@dataclass(frozen=True)
class Truth:
    """A column of the store and the value that counts as yes: labels to measure by."""

    column: str
    value: str


def query_of(asked: Any, vector_of: Callable[[str], Vectors | None]) -> Concept | Saved:
    """Read a query.

    Parameters
    ----------
    asked : object
        ``{"terms": [{"text": "dog", "weight": 1}, {"picture": HASH}, {"id": ID, "weight": -0.5}], "against": ["cat"],
        "template": "a photo of a {}"}``, or ``{"classifier": NAME, "class": LABEL}``.
    vector_of : callable
        Returns the vector of a picture that was sent before, by its hash, or None.

    Raises
    ------
    QueryError
        It is no query; the message says what was expected.
    """
    if not isinstance(asked, Mapping):
        raise QueryError(f"expected a query such as {_EXAMPLE}, found {_shown(asked)}")
    if "classifier" in asked:
        return _saved(asked)
    unknown = next((name for name in asked if name not in ("terms", "against", "template")), None)
    if unknown is not None:
        raise QueryError(f"a query has no {unknown!r}; expected such as {_EXAMPLE}")
    terms, against, template = asked.get("terms"), asked.get("against") or [], asked.get("template") or None
    if not isinstance(terms, list | tuple) or not 1 <= len(terms) <= MOST_TERMS:
        raise QueryError(f"a query has from 1 to {MOST_TERMS} terms; expected such as {_EXAMPLE}")
    if not isinstance(against, list | tuple) or len(against) > MOST_TERMS or not _all_texts(against):
        raise QueryError(f"against must be a list of at most {MOST_TERMS} texts, found {_shown(against)}")
    if template is not None and not isinstance(template, str):
        raise QueryError(f"the template must be a text such as 'a photo of a {{}}', found {_shown(template)}")
    mixed = _mix([_term(term, vector_of) for term in terms])
    return Concept.of(mixed, template=template, opposing=[Query.text(text) for text in against])


def truth_of(labels: Any) -> Truth | None:
    """Read which labels are the truth: None for the store's own, else a column and a value.

    Anything else is refused with InputError: what the library would read besides may be a file's name.
    """
    if labels is None:
        return None
    if isinstance(labels, Mapping) and set(labels) == {"column", "value"}:
        column, value = labels["column"], labels["value"]
        if isinstance(column, str) and isinstance(value, str | int | float):
            return Truth(column, str(value))
    raise InputError(
        f'labels must be null, for those that the store keeps, or such as {{"column": "category", "value": "bird"}}; '
        f"found {_shown(labels)}"
    )


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number that a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _saved(asked: Mapping[str, Any]) -> Saved:
    name, label = asked["classifier"], asked.get("class")
    named = isinstance(name, str) and (label is None or isinstance(label, str))
    if not named or not set(asked) <= {"classifier", "class"}:
        raise QueryError(f'expected {{"classifier": NAME, "class": LABEL or null}}, found {_shown(asked)}')
    return Saved(name, label)


def _are_texts(value: Any) -> bool:
    """Tell whether all texts in a value can be written down: JSON may hold halves of characters."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            try:
                one.encode()
            except UnicodeEncodeError:
                return False
        elif isinstance(one, Mapping):
            todo += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            todo += one
    return True


def _all_texts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _term(term: Any, vector_of: Callable[[str], Vectors | None]) -> tuple[float, Query]:
    """Read one term as a weight and a query."""
    kinds = [kind for kind in _KINDS if isinstance(term, Mapping) and kind in term]
    if len(kinds) != 1 or set(term) - {kinds[0], "weight"} or not isinstance(term[kinds[0]], str):
        raise QueryError(
            f"a term is a text, a picture that was sent before or an id, with a weight, such as "
            f'{{"text": "dog", "weight": 1}}; found {_shown(term)}'
        )
    kind, value, weight = kinds[0], term[kinds[0]], term.get("weight", 1)
    if not is_number(weight) or not weight:
        raise QueryError(f"the weight of a term is a number other than 0, found {_shown(weight)}")
    if kind == "text":
        return float(weight), Query.text(value)
    if kind == "id":
        return float(weight), Query.id(value)
    vector = vector_of(value)
    if vector is None:
        raise QueryError(f"the picture {_shown(value)} is not known here any more; send it again")
    return float(weight), Query("vector", vector, f"picture {value[:8]}")


def _mix(terms: Sequence[tuple[float, Query]]) -> Query:
    """Join terms, with a label as `Query.parse` writes it; one by itself that is wished for stays as it is."""
    if len(terms) == 1 and terms[0][0] > 0:
        return terms[0][1]
    label = ""
    for weight, query in terms:
        sign = "-" if weight < 0 else "+"
        joint = f" {sign} " if label else "- " if sign == "-" else ""
        label += joint + ("" if abs(weight) == 1 else f"{abs(weight):g}:") + query.label
    return Query("mix", tuple(terms), label)


def _shown(value: Any) -> str:
    """Return a value as it is named in a message, not endless."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
