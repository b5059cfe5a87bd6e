"""A decision at the page -> the lines of Python and of a shell that do the same.

Only what a person would type; what a page alone knows (a picture that was sent, labels that are in the store) is named
in a remark.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from embedstore.deciding.classifier import Classifier
from embedstore.page.asked import Truth
from embedstore.page.scored_query import ScoredQuery


def written(
    store: str,
    query: ScoredQuery,
    threshold: float,
    truth: Truth | None,
    wishes: Mapping[str, Any],
    name: str,
) -> dict[str, str]:
    """Return the lines, ``python`` and ``shell``.

    Parameters
    ----------
    store : str
    query : ScoredQuery
    threshold : float
    truth : Truth or None
        The labels that a threshold is chosen by, None for the store's own.
    wishes : mapping
        What a calibration is asked for.
    name : str
        Of the classifier; empty for that of the concept.
    """
    name = name or query.concept
    if isinstance(query.asked, Classifier):
        return _of_saved(store, query, threshold)
    python, shell = _Python(query.shown, query.label), _Shell(query.shown)
    labels = None if truth is None else f"{truth.column}={truth.value}"
    options = {key: value for key, value in wishes.items() if key not in ("name", "label")}
    lines = [
        "import embedstore",
        "from embedstore import Query",
        "",
        f"store = embedstore.EmbedStore.open({str(store)!r})",
        f"query = {python.query}",
        f"matches = store.classify(query, {threshold!r}{_python_where(query)}{python.words})",
        "",
        "# the threshold that labels choose, measured and kept",
        f"classifier = store.calibrate(query, {_python_labels(query, labels)}{_python_where(query)}{python.words}, "
        f"name={name!r}, label={query.concept!r}{_python_options(options)})",
        "store.save_classifier(classifier)",
    ]
    place, where = quote(str(store)), _shell_where(query)
    shells = [
        f"embedstore classify {place}{shell.options} --threshold {threshold!r}{where}{shell.words}",
        "# the threshold that labels choose, measured and kept",
        f"embedstore calibrate {place}{shell.options}{'' if labels is None else f' --label {quote(labels)}'}{where} "
        f"--name {quote(name)}{_shell_options(options)}{shell.words}",
    ]
    own = [f"the labels of {query.concept!r} that the store keeps choose the threshold"] if labels is None else []
    remarks = [f"# {text}" for text in (*shell.remarks, *own)]
    lines[:0] = [f"# {text}" for text in (*python.remarks, *own)]
    return {"python": "\n".join(lines) + "\n", "shell": "\n".join([*remarks, *shells]) + "\n"}


class _Python:
    """A query in Python."""

    def __init__(self, shown: Mapping[str, Any], label: str) -> None:
        terms = shown["terms"]
        parts = [self._one(term) for term in terms]
        weights = [term.get("weight", 1) for term in terms]
        self.remarks = [_picture(term) for term in terms if "picture" in term]
        if len(terms) == 1 and weights[0] > 0:
            self.query = parts[0]
        else:
            pairs = ", ".join(f"({float(weight)!r}, {part})" for weight, part in zip(weights, parts, strict=True))
            self.query = f"Query('mix', ({pairs},), {label!r})"
        self.words = ""
        if shown.get("template"):
            self.words += f", template={shown['template']!r}"
        if shown.get("against"):
            self.words += f", opposing=[{', '.join(f'Query.text({text!r})' for text in shown['against'])}]"

    def _one(self, term: Mapping[str, Any]) -> str:
        if "text" in term:
            return f"Query.text({term['text']!r})"
        if "id" in term:
            return f"Query.id({term['id']!r})"
        return "Query.image('PICTURE')"


class _Shell:
    """A query as arguments of a command."""

    def __init__(self, shown: Mapping[str, Any]) -> None:
        terms = shown["terms"]
        self.remarks: list[str] = []
        options = [f"--against {quote(text)}" for text in shown.get("against") or ()]
        if shown.get("template"):
            options.append(f"--template {quote(shown['template'])}")
        if len(terms) == 1 and terms[0].get("weight", 1) > 0:
            options.append(self._alone(terms[0]))
            self.words = ""
        else:
            self.words = " -- " + " ".join(self._mixed(terms))
        self.options = " ".join(["", *options])

    def _alone(self, term: Mapping[str, Any]) -> str:
        if "text" in term:
            return f"--text {quote(term['text'])}"
        if "id" in term:
            return f"--id {quote(term['id'])}"
        self.remarks.append(_picture(term))
        return "--image PICTURE"

    def _mixed(self, terms: Sequence[Mapping[str, Any]]) -> list[str]:
        words: list[str] = []
        for term in terms:
            weight = float(term.get("weight", 1))
            if words or weight < 0:
                words.append("-" if weight < 0 else "+")
            if "id" in term:
                self.remarks.append(f"a mix takes no ids on the command line: {term['id']!r} works in Python alone")
            if "picture" in term:
                self.remarks.append(_picture(term))
            text = term.get("text") or term.get("id") or "./PICTURE"
            words.append(quote(text if abs(weight) == 1 else f"{abs(weight):g}:{text}"))
        return words


def quote(text: str) -> str:
    """Return a text as one word of a shell; signs that a terminal obeys when the line is pasted are spelt out."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_spelt, text)) + "'"


def _spelt(sign: str) -> str:
    if sign in "\\'":
        return f"\\{sign}"
    return sign if sign.isprintable() else "".join(f"\\x{byte:02x}" for byte in sign.encode())


def _picture(term: Mapping[str, Any]) -> str:
    return f"PICTURE is the file of the picture {term['picture'][:8]}"


def _of_saved(store: str, query: ScoredQuery, threshold: float) -> dict[str, str]:
    """Return the lines for a classifier that the store keeps."""
    name, label = query.shown["classifier"], query.shown.get("class")
    of_class = f".of_class({label!r})" if label else ""
    python = [
        "import embedstore",
        "",
        f"store = embedstore.EmbedStore.open({str(store)!r})",
        f"classifier = store.classifier({name!r}){of_class}",
        f"matches = store.classify(classifier, {threshold!r}{_python_where(query)})",
    ]
    remark = "# of one class of several, at a threshold of one's own: see the lines of Python\n" if label else ""
    own = "" if threshold == query.found.threshold else f" --threshold {threshold!r}"
    shell = f"{remark}embedstore classify {quote(str(store))} --classifier {quote(name)}{own}{_shell_where(query)}\n"
    return {"python": "\n".join(python) + "\n", "shell": shell}


def _python_labels(query: ScoredQuery, labels: str | None) -> str:
    return f"store.labels({query.concept!r})" if labels is None else repr(labels)


def _python_where(query: ScoredQuery) -> str:
    return f", where={query.where!r}" if query.where else ""


def _shell_where(query: ScoredQuery) -> str:
    return f" --where {quote(query.where)}" if query.where else ""


def _python_options(options: Mapping[str, Any]) -> str:
    usual = (("objective", "f1"), ("guarantee", True))
    left = {key: value for key, value in options.items() if (key, value) not in usual}
    return "".join(f", {key}={value!r}" for key, value in left.items())


def _shell_options(options: Mapping[str, Any]) -> str:
    found = ""
    for key, value in options.items():
        if key == "cost":
            found += f" --cost-fp {value['fp']:g} --cost-fn {value['fn']:g}"
        elif key == "guarantee":
            found += "" if value else " --no-guarantee"
        elif (key, value) != ("objective", "f1"):
            found += f" --{key.replace('_', '-')} {quote(str(value))}"
    return found
