"""Every promise in the README and in SECURITY.md names a test, and the tests that are named exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "## Promises", ".github/SECURITY.md": "## Promises"}
_NAMED = re.compile(r"`(?:tests/)?([\w/]+\.py)::(\w+)`")


def promises(page: str) -> list[list[str]]:
    """Return the cells of the rows of a page's tables of promises, without their heads."""
    text = (ROOT / page).read_text(encoding="utf-8")
    section = text.split(PAGES[page] + "\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [row for row in rows if row[1] != "test" and set(row[1]) - set("-: ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_promise_names_a_test_that_exists(page: str) -> None:
    """Each row has a promise and at least one test, which is a function of that file."""
    rows = promises(page)
    assert len(rows) > 5
    for promise, tests in rows:
        named = _NAMED.findall(tests)
        assert promise
        assert named, f"{page}: no test for {promise!r}"
        for file, function in named:
            source = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert re.search(rf"^ *def {function}\(", source, re.MULTILINE), f"{page}: {file} has no {function}"
