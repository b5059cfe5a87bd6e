"""What is typed on the page is read by terms.js as `Query.parse` reads it: one grammar, written in two languages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import script_page
from playwright.sync_api import Browser, Page

from embedstore.errors import QueryError
from embedstore.searching.queries import Query

pytest_plugins = ["browser_fixtures"]

TYPED = (
    "dog",
    "dog + grass - 2:snow",
    "2:golden retriever + a black-and-white cat - fruit",
    "dog  +\u00a0cat",
    "dog -cat",
    "C++",
    "- snow",
    "+ 2:dog",
    "- - dog",
    "+",
    "dog +",
    "dog + - cat",
    "16:9",
    "16:9 + dog",
    "1:16:9 + dog",
    ".5:dog + 1.:cat + 0.25:horse",
    "1e3:dog + -2:cat",
    "2: + dog",
    '"T-shirt - red"',
    '"T-shirt - red" + blue',
    '2:"T-shirt - red" - blue',
    'a "quoted" word',
    '5" pipe',
    '5" pipe - 6" hose',
    '""',
    '"" + dog',
)


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Iterator[Page]:
    """A blank page that holds the functions of terms.js as `window.terms`."""
    with script_page(chromium, "terms") as blank:
        yield blank


def by_the_page(page: Page, typed: str) -> list[list[Any]] | None:
    """Weights and texts as the page reads them; None where it refuses."""
    return page.evaluate(  # type: ignore[no-any-return]
        """(typed) => {
            try { return terms.parseTerms(typed).map(({weight, text}) => [weight, text]); } catch { return null; }
        }""",
        typed,
    )


def by_the_library(typed: str) -> list[list[Any]] | None:
    """Weights and texts as the library reads them; None where it refuses."""
    try:
        query = Query.parse(typed)
    except QueryError:
        return None
    if query.kind == "text":
        return [[1.0, query.value]]
    return [[weight, term.value] for weight, term in query.value]


@pytest.mark.parametrize("typed", TYPED)
def test_terms_are_read_as_the_library_reads_them(page: Page, typed: str) -> None:
    """Signs, weights, quotes, and what is refused."""
    assert by_the_page(page, typed) == by_the_library(typed)


@pytest.mark.parametrize("typed", [typed for typed in TYPED if by_the_library(typed) is not None])
def test_terms_that_are_spelt_are_read_as_the_same(page: Page, typed: str) -> None:
    """The field shows what was asked, and asking what it shows asks the same again."""
    again = page.evaluate("(typed) => terms.spellTerms(terms.parseTerms(typed))", typed)
    assert by_the_page(page, again) == by_the_library(again) == by_the_library(typed)
