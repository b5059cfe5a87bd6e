"""What every test of the page in a browser needs: a window that is watched, and the moves of a person before it.

Whatever a test does, it fails when a request leaves this machine, when the page throws, logs an error or breaks its
own content policy. `browser_fixtures` has the fixtures.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, Response, expect

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from in_browser import CHROMIUM, Served, find_chromium

import embedstore

AXE = Path(__file__).with_name("axe.min.js")
NEEDED = bool(os.environ.get("EMBEDSTORE_NEEDS_BROWSER") or os.environ.get("CI"))
PATIENCE = 20_000
"""Milliseconds that a condition is waited for: it says when something is broken, not how long anything takes."""

_HERE = ("127.0.0.1", "localhost", "::1")
_NOTE_VIOLATIONS = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) =>
        window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""

expect.set_options(timeout=PATIENCE)


def chromium_path(needed: bool = NEEDED) -> str:
    """Return where Chromium is; without one the test fails where a browser is `needed`, and is skipped elsewhere."""
    found = find_chromium()
    if found is None:
        said = f"no browser: none of {', '.join(CHROMIUM)} is on the PATH; `apt-get install chromium`, for example"
        if needed:
            pytest.fail(said)
        pytest.skip(said)
    return found


@contextmanager
def script_page(chromium: Browser, name: str) -> Iterator[Page]:
    """Open a blank page that holds what ``static/NAME.js``, a script without imports, exports as `window.NAME`."""
    script = Path(embedstore.__file__).parent / "page" / "static" / f"{name}.js"
    blank = chromium.new_page()
    blank.evaluate(
        """async ([name, text]) => {
            const address = URL.createObjectURL(new Blob([text], {type: "text/javascript"}));
            window[name] = await import(address);
        }""",
        [name, script.read_text(encoding="utf-8")],
    )
    yield blank
    blank.close()


def audited(page: Page) -> list[str]:
    """Return what axe-core calls serious or critical, a line for each place."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    findings = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [
        f"{one['impact']} {one['id']}: {node['html'][:120]} {json.dumps(node.get('failureSummary'))[:300]}"
        for one in findings
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@dataclass
class Watch:
    """What a page asked for, and what went wrong in it."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    refused: list[tuple[str, int]] = field(default_factory=list)
    """Paths of answers with a status of 400 or more, with the status."""
    may_refuse: set[str] = field(default_factory=set)
    """Calls that a test means to fail, by their names: ``{"score"}``."""

    def note(self, response: Response) -> None:
        """Keep what the server refused."""
        if response.status >= 400:
            self.refused.append((urlsplit(response.url).path, response.status))

    def away(self) -> list[str]:
        """Return the requests that were meant for another machine."""
        split = [(url, urlsplit(url)) for url in self.requests]
        return [
            url for url, parts in split if parts.scheme not in ("blob", "data", "file") and parts.hostname not in _HERE
        ]

    def check(self) -> None:
        """Fail unless all was well."""
        assert self.away() == []
        unexpected = [(path, status) for path, status in self.refused if path.split("/")[-1] not in self.may_refuse]
        assert unexpected == []
        assert all(status < 500 for _, status in self.refused), self.refused
        # Chromium logs each refused answer as well; those were judged above.
        assert [error for error in self.errors if "server responded with a status of 4" not in error] == []


@contextmanager
def watched(browser: Browser, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """Open a window of its own, and watch it; `options` are those of a browser context (`viewport`, `color_scheme`)."""
    options.setdefault("viewport", {"width": 1440, "height": 900})
    context = browser.new_context(accept_downloads=True, **options)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(_NOTE_VIOLATIONS)
    watch = Watch()
    context.on("request", lambda request: watch.requests.append(request.url))
    context.on("response", watch.note)
    context.on("weberror", lambda error: watch.errors.append(str(error.error)))
    context.on(
        "console", lambda message: watch.errors.append(message.text) if message.type in ("error", "assert") else None
    )
    page = context.new_page()
    page.on("websocket", lambda socket: watch.requests.append(socket.url.replace("ws", "http", 1)))
    try:
        yield page, watch
        watch.errors += [f"content policy: {broken}" for broken in page.evaluate("window.violations ?? []")]
        watch.check()
    finally:
        context.close()


def opened(page: Page, running: Served, query: str | None = "bird") -> Page:
    """Show the page of a server, and ask it a query."""
    page.goto(running.address)
    expect(page.get_by_test_id("query-input")).to_be_visible()
    if query is not None:
        asked(page, query)
    return page


def asked(page: Page, query: str) -> None:
    """Type a query, ask it, and wait for its answer."""
    page.get_by_test_id("query-input").fill(query)
    with page.expect_response(lambda response: response.url.endswith("/api/v1/score")):
        page.get_by_test_id("ask").click()
    expect(tile(page)).to_be_visible()


def tiles(page: Page) -> list[tuple[int, float]]:
    """Return row and score of each tile of the first grid, in the order of their places; they stand side by side."""
    found = (
        page.get_by_test_id("grid")
        .first.get_by_test_id("tile")
        .evaluate_all(
            """tiles => tiles.filter((tile) => tile.checkVisibility()).map(({dataset}) => dataset)
            .map(({place, row, score}) => [Number(place), Number(row), Number(score)])"""
        )
    )
    found.sort()
    assert [place for place, _, _ in found] == list(range(found[0][0], found[0][0] + len(found))) if found else True
    return [(int(row), float(score)) for _, row, score in found]


def tile(page: Page, place: int = 0, panel: int = 0) -> Locator:
    """Return the tile at a place of the order, 0 for the best score."""
    return page.get_by_test_id("grid").nth(panel).locator(f"[data-testid=tile][data-place='{place}']")


def value(place: Locator) -> float:
    """Return the unrounded number of a figure."""
    text = place.get_attribute("data-value", timeout=PATIENCE)
    assert text is not None, f"no data-value: {place}"
    return float(text)


def until(condition: Callable[[], bool], said: str) -> None:
    """Wait for something that no locator shows, such as a file or what another process reads."""
    end = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {said}"
        time.sleep(0.05)


def measured_by(page: Page, value: str = "bird", column: str = "category") -> None:
    """Take a column's value for the truth, and wait for the figures."""
    page.get_by_test_id("truth").first.select_option(column)
    page.get_by_test_id("truth-value").first.fill(value)
    page.get_by_test_id("truth-value").first.press("Enter")
    expect(page.get_by_test_id("precision").first).to_have_attribute("data-value", re.compile(r"\d"))


def set_threshold(page: Page, threshold: float) -> None:
    """Type a threshold."""
    box = page.get_by_test_id("threshold-number")
    box.fill(repr(threshold))
    box.press("Enter")


def data_transfer(page: Page, picture: Path) -> Any:
    """Return what a browser hands over when a file is dropped or pasted."""
    return page.evaluate_handle(
        """([name, type, text]) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type}));
            return transfer;
        }""",
        [picture.name, "image/jpeg", base64.b64encode(picture.read_bytes()).decode()],
    )
