"""The right column under a hand: what is pressed, dragged and typed there moves the threshold, or says why not."""

from __future__ import annotations

import re

import pytest
from browser import asked, measured_by, opened, set_threshold, until, value
from in_browser import Served
from playwright.sync_api import Locator, Page, expect

pytest_plugins = ["browser_fixtures"]

DRAWN = (".es-bars path", ".es-lines path", ".es-ticks path")


def threshold(page: Page) -> float:
    """The threshold, unrounded."""
    return value(page.get_by_test_id("threshold-number"))


def matches(page: Page) -> int:
    """How many pictures match; the figure follows with the next frame."""
    page.evaluate("() => new Promise(requestAnimationFrame)")
    return int(value(page.get_by_test_id("matches-count")))


def middle(place: Locator) -> tuple[float, float]:
    """The middle of an element, in view, once it stands still."""
    place.scroll_into_view_if_needed()
    boxes = [place.bounding_box()]

    def is_still() -> bool:
        boxes.append(place.bounding_box())
        return boxes[-2] == boxes[-1]

    until(is_still, "the element stands still")
    box = boxes[-1]
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def dragged(page: Page, start: tuple[float, float], by: float) -> None:
    """Drag from a point to the side."""
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + by, start[1], steps=4)
    page.mouse.up()


def test_the_histograms_marker_is_dragged_and_empty_space_makes_a_band(read_only: Served, page: Page) -> None:
    opened(page, read_only)
    chart, marker = page.get_by_test_id("histogram").locator(".es-chart"), page.locator(".es-histogram .es-marker line")
    before = threshold(page)
    at = middle(marker)
    dragged(page, at, -60)
    until(lambda: threshold(page) < before, "the threshold follows the marker")
    assert middle(marker)[0] == pytest.approx(at[0] - 60, abs=2)
    assert page.get_by_test_id("band-clear").count() == 0
    moved = threshold(page)
    y = middle(chart)[1]
    dragged(page, (middle(marker)[0] + 40, y), 50)
    expect(page.get_by_test_id("band-clear")).to_be_visible()
    assert threshold(page) == moved
    page.get_by_test_id("band-clear").click()
    expect(page.get_by_test_id("band-clear")).to_have_count(0)
    page.get_by_test_id("band-around").click()
    expect(page.get_by_test_id("histogram")).to_contain_text(re.compile(r"\d+ pictures above"))
    page.get_by_test_id("band-zoom").click()
    expect(page.get_by_test_id("zoom-whole")).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_test_id("zoom-top")).to_have_attribute("aria-pressed", "false")
    page.get_by_test_id("zoom-whole").click()
    expect(page.get_by_test_id("zoom-whole")).to_have_attribute("aria-pressed", "true")
    page.mouse.click(middle(marker)[0] - 50, y)
    until(lambda: threshold(page) < moved, "a click on empty space sets the threshold")


def test_the_best_f1_is_marked_on_the_curve_and_goes_there(read_only: Served, page: Page) -> None:
    opened(page, read_only)
    measured_by(page)
    page.get_by_test_id("best-f1").click()
    best = threshold(page)
    page.get_by_test_id("reset").click()
    until(lambda: threshold(page) != best, "the threshold is reset")
    page.mouse.click(*middle(page.locator(".es-best-mark")))
    until(lambda: threshold(page) == best, "the threshold is that of the best F1")
    page.locator(".es-curve summary").click()
    page.locator(".es-curve tbody button").first.click()
    until(lambda: threshold(page) != best, "a threshold of the table is taken")


def test_a_step_moves_markers_and_draws_nothing_anew(read_only: Served, page: Page) -> None:
    opened(page, read_only)
    measured_by(page)
    expect(page.locator(DRAWN[2]).first).to_be_attached()
    before = [page.locator(path).first.get_attribute("d") for path in DRAWN]
    page.evaluate(
        """() => {
            window.drawn = [];
            const seen = new MutationObserver((records) => window.drawn.push(...records.map(String)));
            const all = {subtree: true, childList: true, attributes: true};
            for (const part of document.querySelectorAll(".es-bars, .es-lines, .es-ticks")) seen.observe(part, all);
        }"""
    )
    counts = set()
    page.get_by_test_id("threshold-range").focus()
    for key in ("ArrowRight", "ArrowUp", "PageUp", "ArrowLeft", "PageDown", "PageDown"):
        page.keyboard.press(key)
        counts.add(matches(page))
    assert len(counts) >= 4
    assert page.evaluate("window.drawn") == []
    page.get_by_test_id("log-counts").uncheck()
    until(lambda: page.locator(DRAWN[0]).first.get_attribute("d") != before[0], "linear counts look otherwise")
    page.get_by_test_id("zoom-top").click()
    until(lambda: page.locator(DRAWN[1]).first.get_attribute("d") != before[1], "the curve shows the top scores")
    expect(page.get_by_test_id("zoom-top")).to_have_attribute("aria-pressed", "true")
    page.get_by_test_id("zoom-whole").click()
    until(lambda: page.locator(DRAWN[1]).first.get_attribute("d") == before[1], "all scores are drawn again")


def test_every_arrow_key_changes_what_matches(read_only: Served, page: Page) -> None:
    opened(page, read_only)
    page.get_by_test_id("threshold-range").focus()
    counts = [matches(page)]
    for _ in range(8):
        page.keyboard.press("ArrowRight")
        counts.append(matches(page))
    assert counts == sorted(set(counts), reverse=True)
    page.keyboard.press("Shift+ArrowLeft")
    assert matches(page) == counts[-2]
    page.get_by_test_id("step-up").click()
    assert matches(page) == counts[-1]
    page.get_by_test_id("step-down").click()
    assert matches(page) == counts[-2]


def test_what_is_typed_is_taken_or_refused_in_words(read_only: Served, page: Page) -> None:
    opened(page, read_only)
    measured_by(page)
    box, said = page.get_by_test_id("threshold-number"), page.locator(".es-threshold .es-wrong")
    box.fill("0,45")
    box.press("Enter")
    until(lambda: threshold(page) == 0.45, "a comma is a point")
    for wrong in ("much", "", "NaN"):
        box.fill(wrong)
        box.press("Enter")
        expect(said).to_contain_text("is not a number; a threshold here lies between")
        expect(box).to_have_attribute("aria-invalid", "true")
        assert threshold(page) == 0.45
    set_threshold(page, 0.3)
    expect(said).to_be_empty()
    cost = page.get_by_test_id("cost-fn")
    for wrong in ("-1", ""):
        cost.fill(wrong)
        cost.blur()
        expect(said).to_contain_text("a cost must be a number, 0 or larger")
    cost.fill("20")
    cost.blur()
    expect(said).to_be_empty()


def kept(served: Served) -> float:
    """The threshold of the classifier that is saved as feathers."""
    return served.store.classifier("feathers").threshold


def test_a_taken_name_is_replaced_only_when_that_is_said(served: Served, page: Page) -> None:
    opened(page, served)
    measured_by(page)
    page.get_by_test_id("save-name").fill("feathers")
    page.get_by_test_id("save").click()
    until(lambda: "feathers" in served.store.classifiers(), "the classifier is saved")
    first = kept(served)
    page.get_by_test_id("calibrate").click()
    expect(page.get_by_test_id("calibrated")).to_be_visible()
    calibrated = float(page.get_by_test_id("calibrated").get_attribute("data-threshold") or "nan")
    assert calibrated != first
    page.get_by_test_id("save").click()
    expect(page.get_by_test_id("replace")).to_be_visible()
    assert kept(served) == first
    page.get_by_test_id("replace").click()
    until(lambda: kept(served) == calibrated, "the classifier is replaced")
    expect(page.get_by_test_id("replace")).to_have_count(0)
    page.get_by_test_id("reset").click()
    page.get_by_test_id("use-calibrated").click()
    until(lambda: threshold(page) == calibrated, "the calibrated threshold is used again")


def test_an_objective_without_its_limit_cannot_be_asked_for(read_only: Served, page: Page) -> None:
    opened(page, read_only)
    measured_by(page)
    guarantee, calibrate = page.get_by_test_id("guarantee"), page.get_by_test_id("calibrate")
    expect(guarantee).to_be_disabled()
    page.get_by_test_id("objective").select_option("recall")
    expect(calibrate).to_be_disabled()
    expect(page.locator(".es-wishes")).to_contain_text("needs a minimum of precision")
    page.get_by_test_id("min-precision").fill("1.5")
    expect(page.locator(".es-wishes")).to_contain_text("a minimum lies between 0 and 1")
    page.get_by_test_id("min-precision").fill("0.8")
    expect(calibrate).to_be_enabled()
    expect(guarantee).to_be_enabled()


def test_the_commands_guarantee_no_more_than_the_page_does(read_only: Served, page: Page) -> None:
    opened(page, read_only)
    measured_by(page)
    page.get_by_test_id("min-precision").fill("0.7")
    page.get_by_test_id("show-commands").click()
    lines = page.get_by_test_id("commands").locator("pre")
    expect(lines.first).to_contain_text("min_precision=0.7")
    expect(lines.first).not_to_contain_text("guarantee")
    page.get_by_test_id("guarantee").uncheck()
    expect(lines.first).to_contain_text("guarantee=False")
    expect(lines.last).to_contain_text("--no-guarantee")


def test_another_query_begins_anew(read_only: Served, page: Page) -> None:
    opened(page, read_only)
    measured_by(page)
    page.get_by_test_id("zoom-top").click()
    page.get_by_test_id("band-around").click()
    asked(page, "violin")
    expect(page.get_by_test_id("zoom-whole")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_test_id("band-clear")).to_have_count(0)
    expect(page.get_by_test_id("calibrated")).to_have_count(0)
