"""Queries and arguments of strangers: read when they are well formed, else told what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.errors import InputError, QueryError
from embedstore.page.asked import MOST_TERMS, Arguments, Saved, Truth, query_of, truth_of
from embedstore.searching.queries import Concept, Query

VECTOR = np.array([1.0, 0.0], np.float32)


def read(asked: Any) -> Concept:
    found = query_of(asked, {"f" * 64: VECTOR}.get)
    assert isinstance(found, Concept)
    return found


def test_one_text_is_that_text() -> None:
    """With whatever positive weight: one direction by itself has no length."""
    for term in ({"text": " dog "}, {"text": "dog", "weight": 1}, {"text": "dog", "weight": 3}):
        [query] = read({"terms": [term]}).queries
        assert (query.kind, query.value, query.label) == ("text", "dog", "dog")


@pytest.mark.parametrize("words", ["2:golden retriever + cat - 0.5:fruit", "- fruit", "dog + cat", "dog - 3:cat"])
def test_a_mix_is_labelled_as_the_command_line_does(words: str) -> None:
    """The same parts, weights and label as `Query.parse` reads."""
    there = Query.parse(words)
    terms = [{"text": query.value, "weight": weight} for weight, query in there.value]
    [query] = read({"terms": terms}).queries
    assert query.kind == "mix"
    assert query.label == there.label
    assert [(weight, one.value) for weight, one in query.value] == [(weight, one.value) for weight, one in there.value]


def test_pictures_ids_opponents_and_templates() -> None:
    """All that a query may have."""
    concept = read(
        {
            "terms": [{"text": "dog"}, {"picture": "f" * 64, "weight": 0.5}, {"id": "a#1", "weight": -1}],
            "against": ["cat"],
            "template": "a photo of a {}",
        }
    )
    [mix] = concept.queries
    assert [one.kind for _, one in mix.value] == ["text", "vector", "id"]
    assert mix.value[0][1].value == "a photo of a dog"
    assert [one.value for one in concept.opposing] == ["a photo of a cat"]


def test_a_name_of_a_file_is_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In terms and among opponents."""
    (tmp_path / "dog.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    concept = read({"terms": [{"text": "./dog.jpg"}], "against": ["dog.jpg"]})
    assert [one.kind for one in concept.all_queries] == ["text", "text"]


def test_classifiers_by_name() -> None:
    """With or without a class."""
    assert query_of({"classifier": "b"}, {}.get) == Saved("b")
    assert query_of({"classifier": "b", "class": "x"}, {}.get) == Saved("b", "x")


@pytest.mark.parametrize(
    "asked",
    [
        None,
        "dog",
        [],
        {},
        {"terms": []},
        {"terms": "dog"},
        {"terms": [{"text": "a"}] * (MOST_TERMS + 1)},
        {"terms": ["dog"]},
        {"terms": [{}]},
        {"terms": [{"text": "a", "id": "b"}]},
        {"terms": [{"text": "a", "wait": 1}]},
        {"terms": [{"text": ""}]},
        {"terms": [{"text": 5}]},
        {"terms": [{"path": "/etc/passwd"}]},
        {"terms": [{"image": "/etc/passwd"}]},
        {"terms": [{"picture": "../../etc/passwd"}]},
        *(
            {"terms": [{"text": "a", "weight": weight}]}
            for weight in (0, "1", True, float("nan"), float("inf"), 10**400, [])
        ),
        {"terms": [{"text": "a"}], "against": "cat"},
        {"terms": [{"text": "a"}], "against": [5]},
        {"terms": [{"text": "a"}], "against": [""]},
        {"terms": [{"text": "a"}], "template": "no slot"},
        {"terms": [{"text": "a"}], "template": ["{}"]},
        {"terms": [{"text": "a"}], "other": 1},
        {"classifier": 5},
        {"classifier": "a", "class": 5},
        {"classifier": "a", "terms": []},
    ],
)
def test_what_is_no_query(asked: Any) -> None:
    """Is a QueryError, which says something."""
    with pytest.raises(QueryError, match=r"\w{3}"):
        query_of(asked, {}.get)


def test_which_labels_are_the_truth() -> None:
    """The store's own, or a column; a number is its text."""
    assert truth_of(None) is None
    assert truth_of({"column": "c", "value": "v"}) == Truth("c", "v")
    assert truth_of({"column": "c", "value": 5}) == Truth("c", "5")
    for labels in ("c=v", {"column": "c"}, {"column": "c", "value": None}, {"column": "c", "value": "v", "x": 1}, []):
        with pytest.raises(InputError, match="labels must be null"):
            truth_of(labels)


def test_arguments_say_what_was_expected() -> None:
    """And by which call."""
    args = Arguments("call", {"t": 5, "n": "x", "w": -1, "f": 1, "o": "z", "l": [1, -1]}, "tnwfol")
    for read_it, expected in (
        (lambda: args.text("t"), "call: t must be a text, found 5"),
        (lambda: args.number("n"), "call: n must be a number, found 'x'"),
        (lambda: args.whole("w"), "call: w must be a whole number from 0"),
        (lambda: args.flag("f", True), "call: f must be true or false, found 1"),
        (lambda: args.one_of("o", ("a", "b")), "call: o must be a or b, found 'z'"),
        (lambda: args.wholes("l", 3), "call: l must be a list of at most 3 whole numbers"),
        (lambda: args.text("missing"), "call needs the argument 'missing'"),
    ):
        with pytest.raises(InputError, match=expected):
            read_it()
    assert Arguments("call", {"t": None}, "t").text("t", "usual") == "usual"
    with pytest.raises(InputError, match="Did you mean 'threshold'"):
        Arguments("call", {"treshold": 1}, ["threshold"])


@pytest.mark.parametrize("given", [{"name": "\ud800"}, {"name": [{"a": "x\udc00"}]}])
def test_half_a_character_is_refused(given: Any) -> None:
    """JSON may hold one, and nothing that writes text takes it."""
    with pytest.raises(InputError, match=r"half a character"):
        Arguments("save", given, ("name",))
    assert Arguments("save", {"name": "\U0001f426"}, ("name",)).text("name")
