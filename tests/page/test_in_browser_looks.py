"""What the page looks like to eyes, screen readers and fingers: light, dark, on a phone and on a wide screen."""

from __future__ import annotations

import re
from typing import Any

import pytest
from browser import Watch, asked, audited, measured_by, opened, set_threshold, tile, tiles, until, value, watched
from in_browser import Served
from playwright.sync_api import Browser, Page, expect

pytest_plugins = ["browser_fixtures"]

PHONE: dict[str, Any] = {
    "viewport": {"width": 375, "height": 812},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
LIGHTS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": PHONE,
    "phone, dark": {**PHONE, "color_scheme": "dark"},
    "wide": {"viewport": {"width": 2560, "height": 1440}},
}


def nothing_open(page: Page) -> None:
    """The page as it is after a query."""


def help_open(page: Page) -> None:
    """The list of keys."""
    page.get_by_test_id("help").click()


def details_open(page: Page) -> None:
    """All that is known of one picture."""
    tile(page).click()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("details")).to_be_visible()


def commands_open(page: Page) -> None:
    """The lines that do the same."""
    page.get_by_test_id("show-commands").click()
    expect(page.get_by_test_id("commands")).to_be_visible()


def two_panels(page: Page) -> None:
    """Two queries, and every table behind a chart."""
    page.get_by_test_id("compare").click()
    page.get_by_test_id("query-input").nth(1).fill("fish")
    page.get_by_test_id("ask").nth(1).click()
    expect(tile(page, panel=1)).to_be_visible()
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")


@pytest.mark.parametrize("light", ["light", "dark", "phone"])
def test_axe_finds_nothing_serious(read_only: Served, chromium: Browser, light: str) -> None:
    """No serious or critical finding of axe-core: names, roles, contrast; in every light, with dialogs open."""
    with watched(chromium, **LIGHTS[light]) as (page, _):
        opened(page, read_only)
        measured_by(page)
        for state in (nothing_open, help_open, details_open, commands_open, two_panels):
            state(page)
            assert audited(page) == [], state.__doc__
            page.keyboard.press("Escape")
            expect(page.locator("dialog[open]")).to_have_count(0)


def luminance(page: Page, selector: str, name: str) -> float:
    """Return how light a colour of an element is, from 0 to 1."""
    colour = page.locator(selector).first.evaluate("(element, name) => getComputedStyle(element)[name]", name)
    red, green, blue = (float(part) for part in re.findall(r"[\d.]+", colour)[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def test_dark_is_dark_and_light_is_light(read_only: Served, chromium: Browser) -> None:
    """The page follows what the person's system asks for, also when that changes while it is open."""
    with watched(chromium, color_scheme="dark") as (page, _):
        opened(page, read_only)
        assert luminance(page, ".embedstore", "backgroundColor") < 0.2
        assert luminance(page, ".embedstore", "color") > 0.6
        page.emulate_media(color_scheme="light")
        assert luminance(page, ".embedstore", "backgroundColor") > 0.8
        assert luminance(page, ".embedstore", "color") < 0.4


@pytest.mark.parametrize("light", ["light", "dark", "phone"])
def test_the_page_of_the_calls_is_read_to_its_end(read_only: Served, chromium: Browser, light: str) -> None:
    """/api has its ground under all of its text, nothing beside the window, and nothing that axe finds serious."""
    with watched(chromium, **LIGHTS[light]) as (page, _):
        page.goto(f"{read_only.origin}/api")
        heights = "() => ['.es-api', ':root'].map((one) => document.querySelector(one)).map((one) => one.offsetHeight)"
        ground, whole = page.evaluate(heights)
        assert ground == whole > 5_000
        assert page.locator(".es-api").evaluate("(one) => one.scrollHeight <= one.clientHeight")
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        assert audited(page) == []


@pytest.mark.parametrize("width", [375, 768, 1024, 1440, 2560])
def test_nothing_is_cut_off(read_only: Served, chromium: Browser, width: int) -> None:
    """From 375 to 2560 pixels: nothing scrolls sideways, and every control lies within the window's width."""
    with watched(chromium, viewport={"width": width, "height": 900}) as (page, _):
        opened(page, read_only)
        measured_by(page)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        outside = page.evaluate("""() => [...document.querySelectorAll("button, input, select, textarea, summary, svg")]
            .filter((one) => one.checkVisibility({visibilityProperty: true}) && !one.closest("[data-testid=tile]"))
            .map((one) => [one.dataset.testid ?? one.outerHTML.slice(0, 80), one.getBoundingClientRect()])
            .filter(([, box]) => box.width > 1 && (box.left < -1 || box.right > innerWidth + 1))
            .map(([name]) => name)""")
        assert outside == []
        assert len(tiles(page)) >= 3


def test_a_phone_does_the_whole_work(served: Served, chromium: Browser) -> None:
    """With fingers, at 375 pixels: ask, move the threshold, label, undo, and read the figures."""
    with watched(chromium, **PHONE) as (page, _):
        opened(page, served, None)
        page.get_by_test_id("query-input").fill("bird")
        page.get_by_test_id("ask").tap()
        expect(tile(page)).to_be_visible()
        measured_by(page)
        set_threshold(page, 0.45)
        expected = served.store.count("bird", 0.45)
        expect(page.get_by_test_id("matches-count")).to_have_attribute("data-value", str(expected))
        slider = page.get_by_test_id("threshold-range")
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        assert box is not None
        page.touchscreen.tap(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
        until(lambda: value(page.get_by_test_id("matches-count")) < expected, "fewer matches")
        tile(page).tap()
        page.get_by_test_id("label-yes").first.tap()
        until(lambda: served.store.labels("bird").answers.tolist() == ["yes"], "the label in the store")
        page.get_by_test_id("undo").first.tap()
        until(lambda: "yes" not in served.store.labels("bird").answers.tolist(), "no label in the store")


def test_who_wants_less_motion_gets_none(read_only: Served, chromium: Browser) -> None:
    """With reduced motion no element has a transition or an animation that lasts, and nothing scrolls smoothly."""
    with watched(chromium, reduced_motion="reduce") as (page, _):
        opened(page, read_only)
        moving = page.evaluate("""() => [...document.querySelectorAll(".embedstore *")].filter((one) => {
            const style = getComputedStyle(one);
            const lasts = (times) => times.split(",").some((time) => parseFloat(time) > 0.01);
            return lasts(style.transitionDuration) || lasts(style.animationDuration)
                || style.scrollBehavior === "smooth";
        }).map((one) => one.outerHTML.slice(0, 100))""")
        assert moving == []


def test_every_chart_has_a_table(read_only: Served, page: Page) -> None:
    """What the histogram and the curve show stands in tables too, with the library's numbers."""
    opened(page, read_only)
    measured_by(page)
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tables = page.locator(".embedstore details table")
    until(lambda: tables.count() >= 2, "two tables")
    cells = [tables.nth(number).locator("tbody tr").all_inner_texts() for number in range(tables.count())]
    assert all(len(rows) > 5 for rows in cells)
    curve = read_only.store.sweep("bird", "category=bird").curve
    assert curve is not None
    figures = [re.findall(r"-?\d+\.\d{4}", row) for rows in cells for row in rows]
    compared = 0
    for threshold, *others in figures:
        measured = curve.at(float(threshold))
        if len(others) >= 3:
            near = [f"{getattr(measured, name):.4f}" for name in ("precision", "recall", "f1")]
            compared += others[:3] == near
    assert compared > 5


def test_the_focus_is_seen_and_comes_back(read_only: Served, page: Page) -> None:
    """Whoever goes by Tab sees where they are; a dialog takes the focus and gives it back to who opened it."""
    opened(page, read_only)
    asked(page, "fish")
    seen = set()
    page.get_by_test_id("query-input").focus()
    for _ in range(25):
        page.keyboard.press("Tab")
        style = page.evaluate("""() => {
            const [one, style] = [document.activeElement, getComputedStyle(document.activeElement)];
            return [one.dataset.testid ?? one.tagName, style.outlineStyle, style.outlineWidth, style.boxShadow];
        }""")
        seen.add(style[0])
        assert (style[1] != "none" and style[2] != "0px") or style[3] != "none", style
    assert len(seen) > 8
    page.get_by_test_id("help").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("document.querySelector('dialog[open], [role=dialog]').contains(document.activeElement)")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("help")).to_be_focused()


def test_numbers_are_spoken(read_only: Served, window: tuple[Page, Watch]) -> None:
    """The slider says its score in words, and a live region tells how many match."""
    page, _ = window
    opened(page, read_only)
    set_threshold(page, 0.45)
    slider = page.get_by_test_id("threshold-range")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("0.45"))
    count = read_only.store.count("bird", 0.45)
    until(lambda: any(str(count) in text for text in page.locator("[aria-live=polite]").all_inner_texts()), "the count")
