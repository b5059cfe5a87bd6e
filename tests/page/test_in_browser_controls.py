"""Every control of the page changes something, and none is left out: a slider that nothing reads is found here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from browser import Served, asked, measured_by, opened, set_threshold, until, watched
from conftest import PHOTOS
from playwright.sync_api import Browser, ElementHandle, Page, expect

pytest_plugins = ["browser_fixtures"]

CONTROLS = "button, input, select, textarea, summary"
NAMES = """controls => controls.map((one) => !one.checkVisibility() ? "" :
    one.dataset.testid ?? one.ariaLabel ?? one.textContent.trim().replace(/\\s+/g, " "))"""
"""What a person or a test would call each control; nothing for what is not in sight."""
USABLE = f"controls => ({NAMES})(controls).map((name, at) => controls[at].disabled ? '' : name)"
BY_NAME = f"""name => {{
    const controls = [...document.querySelectorAll("{CONTROLS}")];
    return controls[({USABLE})(controls).indexOf(name)] ?? null;
}}"""
"""The first control of a name that can be used; only this one becomes a handle, not each of hundreds."""

ALL_BUT = """
    async (control) => {
        const mine = (one) => control && (control === one || control.contains(one));
        const seen = [];
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const one = walker.currentNode;
            if (mine(one)) continue;
            if (one.nodeType === Node.TEXT_NODE) {
                if (one.parentElement.checkVisibility()) seen.push(one.data);
                continue;
            }
            const box = one.matches(".es-tile") ? one.getBoundingClientRect() : {};
            seen.push([JSON.stringify(one.dataset), one.value, one.checked, one.disabled, one.open, one.scrollTop,
                one.getAttribute("d"), one.getAttribute("aria-pressed"), one.checkVisibility(), box.width, box.top]);
        }
        const copied = await navigator.clipboard.readText().catch(() => "");
        return JSON.stringify([seen, copied, document.activeElement?.dataset?.testid]);
    }
"""
"""All that can be seen of the page but the control itself, and what was copied out of it."""

Act = Callable[[Page, ElementHandle], None]
Step = Callable[[Page], None]


def click(page: Page, control: ElementHandle) -> None:
    """Press a button."""
    control.click()


def write(text: str) -> Act:
    """Type something, and leave with Enter."""

    def act(page: Page, control: ElementHandle) -> None:
        control.fill(text)
        control.press("Enter")

    return act


def choose(value: str) -> Act:
    """Choose from a list."""
    return lambda page, control: control.select_option(value) and None


def key(name: str) -> Act:
    """Press a key in a control."""
    return lambda page, control: control.press(name)


def pick(page: Page, control: ElementHandle) -> None:
    """Choose a file."""
    control.set_input_files(PHOTOS / "bird" / "cuckoo.jpg")


def calibrate_anew(page: Page, control: ElementHandle) -> None:
    """Turn a wish of the calibration, and calibrate."""
    control.click()
    page.get_by_test_id("calibrate").click()


@dataclass(frozen=True)
class Try:
    """A control, by the name that `NAMES` gives it (a pattern), and how it is used."""

    name: str
    act: Act = click
    before: Step | None = None


def many(*names: str) -> tuple[Try, ...]:
    """Buttons that are clicked, one after the other."""
    return tuple(Try(name) for name in names)


def threshold(value: float) -> Step:
    """Have the threshold somewhere first."""
    return lambda page: set_threshold(page, value)


def fill(name: str, text: str) -> Step:
    """Have something in a field first."""
    return lambda page: page.get_by_test_id(name).fill(text)


def press(name: str) -> Step:
    """Have a button pressed first."""
    return lambda page: page.get_by_test_id(name).first.click()


def ask(query: str) -> Step:
    """Have something asked first."""
    return lambda page: asked(page, query)


def choose_tile(page: Page) -> None:
    """Have a picture chosen."""
    page.get_by_test_id("tile").first.click()


def open_details(page: Page) -> None:
    """Have the details of a picture open, read from the server."""
    page.get_by_test_id("tile").first.click()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("more-like")).to_be_visible()


def leave_the_round(page: Page) -> None:
    """Have a picture chosen that is not of the round."""
    until(lambda: page.get_by_test_id("round").count() == 1, "a round")
    page.keyboard.press("Escape")


def filter_all_away(page: Page) -> None:
    """Have a condition that keeps nothing."""
    page.get_by_test_id("where-input").fill("width < 0")
    page.get_by_test_id("where-input").press("Enter")


def zoomed(page: Page) -> None:
    """Have a part of the scores on the axis."""
    page.get_by_test_id("zoom-top").click()


def label_something(page: Page) -> None:
    """Have a label given."""
    page.get_by_test_id("tile").first.click()
    page.get_by_test_id("label-yes").click()
    expect(page.get_by_test_id("labels-count")).to_have_attribute("data-yes", "1")


def measure(page: Page) -> None:
    """Have figures."""
    measured_by(page)


def calibrated(page: Page) -> None:
    """Have a classifier calibrated, and the threshold elsewhere."""
    with page.expect_response("**/api/v1/calibrate"):
        page.get_by_test_id("calibrate").click()
    expect(page.get_by_test_id("calibrated")).to_contain_text("in use")
    set_threshold(page, 0.3)


def saved(page: Page) -> None:
    """Have a name that is taken, and be told so."""
    page.get_by_test_id("save-name").fill("birds")
    page.get_by_test_id("save").click()
    expect(page.get_by_test_id("replace")).to_be_visible()


def with_a_limit(page: Page) -> None:
    """Have a limit that can be guaranteed, and the calibration of it."""
    page.get_by_test_id("min-recall").fill("0.8")
    page.get_by_test_id("calibrate").click()
    expect(page.get_by_test_id("calibrated")).to_be_visible()


SUMMARIES = "Scores as a table", "Precision and recall as a table"
GROUPS: dict[str, tuple[Step | None, Sequence[Try]]] = {
    "ask": (
        None,
        (
            Try("example"),
            Try("query-input", write("fish")),
            Try("ask", click, fill("query-input", "flower")),
            Try("Must not be, and the template"),
            Try("template", write("a picture of a {}")),
            Try("against-input", write("insect")),
            Try("Remove against *"),
            Try("Add", click, fill("against-input", "insect")),
            Try("Weight of *", write("2"), ask("2:bird - 0.5:fish")),
            Try("Less like *", click, ask("bird - fish")),
            Try("More like *: turn the sign"),
            Try("Remove *"),
            Try("picture-input", pick),
            Try("* column*, in SQL"),
            Try("where-input", write("width > 100"), ask("bird")),
            Try("where-clear"),
            Try("where-apply", click, fill("where-input", "category = 'bird'")),
            Try("Take the filter away", click, filter_all_away),
        ),
    ),
    "label": (
        ask("bird"),
        (
            Try("to-boundary"),
            Try("tile-size", key("ArrowRight")),
            Try("place *", click),
            Try("label-yes", click, choose_tile),
            Try("label-no", click, choose_tile),
            Try("label-unsure", click, choose_tile),
            Try("undo"),
            Try("Dismiss"),
            Try("next"),
            Try("Back to the round", click, leave_the_round),
            Try("leave-round"),
            Try("concept-item", click, press("refresh")),
            Try("Yes", click, open_details),
            Try("No", click, open_details),
            Try("Cannot tell", click, open_details),
            Try("less-like", click, open_details),
            Try("more-like", click, open_details),
            Try("details-close"),
        ),
    ),
    "threshold": (
        ask("bird"),
        (
            Try("threshold-range", key("ArrowLeft")),
            Try("threshold-number", write("0.4")),
            *many("step-down", "step-up", "reset"),
            Try("use-suggestion", click, threshold(0.1)),
            *many("zoom-top", "zoom-whole", "log-counts", "band-around"),
            Try("band-zoom"),
            Try("band-clear"),
            Try("Show all pictures again", click, press("band-around")),
            Try("Next to label"),
            Try("best-f1", click, measure),
            Try("cost-fp", write("3")),
            Try("cost-fn", write("40")),
            Try("best-cost"),
            *many(*SUMMARIES),
            Try("*[0-9].[0-9][0-9][0-9][0-9][0-9][0-9]", click, threshold(0.9)),
        ),
    ),
    "keep": (
        ask("bird"),
        (
            Try("truth", choose("category")),
            Try("truth-value", write("bird")),
            Try("objective", choose("cost")),
            Try("min-precision", write("0.7")),
            Try("min-recall", write("1.5")),
            Try("guarantee", calibrate_anew, with_a_limit),
            Try("calibrate", click, fill("min-precision", "")),
            Try("use-calibrated", click, calibrated),
            Try("save-name", write("birds")),
            Try("replace", click, saved),
            Try("save", click, fill("save-name", "others")),
            Try("show-commands"),
            *many("copy-python", "copy-shell", "export-csv", "export-jsonl", "export-parquet"),
            Try("classifier-item", click, ask("fish")),
            Try("Leave the classifier"),
        ),
    ),
    "window": (
        ask("bird"),
        (
            Try("help"),
            Try("help-close"),
            Try("compare"),
            Try("compare-close"),
            Try("refresh", click),
        ),
    ),
    "narrow": (ask("bird"), (Try("bar-range", key("ArrowRight")), Try("bar-figures"))),
}
"""What is tried together, in this order, on one page; each group begins with a step."""
KNOWN = [one.name for _, tries in GROUPS.values() for one in tries]


def known(name: str) -> bool:
    """Whether a control is in one of the lists; the empty places of the strip at the ends of the order are none."""
    return name == "no picture" or any(fnmatchcase(name, pattern) for pattern in KNOWN)


@pytest.mark.parametrize("group", GROUPS)
def test_every_control_changes_something(served: Served, chromium: Browser, group: str) -> None:
    """Each control is used and something else on the page is another; one that is in no list here fails the test."""
    start, tries = GROUPS[group]
    size = {"width": 390, "height": 844} if group == "narrow" else {"width": 1440, "height": 1000}
    with watched(chromium, viewport=size, permissions=["clipboard-read", "clipboard-write"]) as (page, _):
        opened(page, served, None)
        if start is not None:
            start(page)
        for one in tries:
            page.wait_for_load_state("networkidle")
            expect(page.locator(".es-busy")).to_have_count(0)
            if one.before is not None:
                one.before(page)
            unknown = [name for name in names(page) if not known(name)]
            assert unknown == [], f"in no list: {unknown}"
            if one.name == "refresh":
                served.store.remove(where="category = 'tool'")
            use(page, one)


def names(page: Page) -> list[str]:
    """The names of all controls in sight, in the order of the page."""
    found: list[str] = page.locator(CONTROLS).evaluate_all(NAMES)
    return [name for name in found if name]


def use(page: Page, one: Try) -> None:
    """Use a control once it is there to be used, and wait until something else has changed."""

    found: list[ElementHandle] = []

    def there() -> bool:
        named = page.locator(CONTROLS).evaluate_all(USABLE)
        name = next((name for name in named if name and fnmatchcase(name, one.name)), None)
        control = None if name is None else page.evaluate_handle(BY_NAME, name).as_element()
        found.extend([control] if control else [])
        return bool(found)

    until(there, f"a control {one.name} that can be used")
    [control] = found
    before: Any = page.evaluate(ALL_BUT, control)
    one.act(page, control)
    until(lambda: page.evaluate(ALL_BUT, control) != before, f"a change by {one.name}")


def test_the_missing_browser_is_a_failure_where_one_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the gate nothing is skipped for want of Chromium; elsewhere the reason says what to install."""
    from browser import chromium_path

    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("chromium") is None
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        chromium_path(needed=True)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        chromium_path(needed=False)
