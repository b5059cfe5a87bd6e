"""What somebody stumbles over who opens the page for the first time: dead ends, jumps, advice for another place."""

from __future__ import annotations

import re

from browser import Watch, asked, measured_by, opened, set_threshold, until, value
from in_browser import Served
from playwright.sync_api import Page, expect

pytest_plugins = ["browser_fixtures"]

SELECTED = "[data-testid=tile][aria-selected=true]"


def test_nothing_below_the_figures_jumps_while_the_threshold_moves(read_only: Served, page: Page) -> None:
    """The words on intervals keep their place while there is none, so that the histogram stays under the pointer."""
    opened(page, read_only)
    measured_by(page)
    expect(page.get_by_test_id("precision-interval")).not_to_be_empty()
    expect(page.get_by_test_id("suggestion")).to_be_visible()
    moved = page.evaluate(
        """async () => {
            const find = (name) => document.querySelector(`[data-testid=${name}]`);
            const before = find("histogram").getBoundingClientRect().y;
            find("threshold-range").value = find("threshold-range").valueAsNumber - 0.001;
            find("threshold-range").dispatchEvent(new Event("input", {bubbles: true}));
            await new Promise(requestAnimationFrame);
            const after = find("histogram").getBoundingClientRect().y;
            return {interval: find("precision-interval").textContent, by: after - before};
        }"""
    )
    assert moved == {"interval": "", "by": 0}


def test_the_end_of_a_round_takes_no_further_answer(served: Served, page: Page) -> None:
    """One key too many turns no answer; what to do next is said, and a key does it."""
    opened(page, served)
    page.keyboard.press("y")
    expect(page.get_by_test_id("status")).to_contain_text("choose a picture to label")
    page.keyboard.press("m")
    until(lambda: len(served.store.labels("bird").rows) == 20, "a round of twenty in the store")
    expect(page.locator(SELECTED)).to_be_visible()
    box, grid = page.locator(SELECTED).bounding_box(), page.get_by_test_id("grid").bounding_box()
    assert box is not None
    assert grid is not None
    assert box["y"] >= grid["y"]
    assert box["y"] + box["height"] <= grid["y"] + grid["height"]
    for count in range(20):
        page.keyboard.press("n")
        expect(page.get_by_test_id("labels-count")).to_have_attribute("data-no", str(count + 1))
        if count == 2:
            expect(page.locator(".es-figures .es-reason")).to_contain_text("17 pictures have none yet")
    expect(page.locator(SELECTED)).to_have_count(0)
    expect(page.get_by_test_id("status")).to_contain_text("every picture of this round has its label")
    page.keyboard.press("y")
    expect(page.get_by_test_id("status")).to_contain_text("choose a picture to label")
    until(lambda: served.store.labels("bird").answers.tolist() == ["no"] * 20, "twenty answers, none of them yes")
    page.keyboard.press("m")
    until(lambda: len(served.store.labels("bird").rows) == 40, "a second round")


def test_advice_on_the_page_is_for_the_page(served: Served, window: tuple[Page, Watch]) -> None:
    """No option and no command of the command line is named where a person presses buttons."""
    page, watch = window
    watch.may_refuse |= {"calibrate", "labels"}
    opened(page, served)
    expect(page.locator(".es-figures .es-reason")).to_contain_text("label some pictures")
    page.get_by_test_id("truth").select_option("category")
    field = page.get_by_test_id("truth-value")
    field.fill("nothing such")
    field.press("Enter")
    expect(page.get_by_test_id("status")).to_contain_text("no row has category=nothing such")
    measured_by(page)
    expect(page.get_by_test_id("status")).not_to_contain_text("no row has")
    page.get_by_test_id("calibrate").click()
    expect(page.get_by_test_id("calibrated")).to_be_visible()
    page.get_by_test_id("min-precision").fill("1")
    page.get_by_test_id("calibrate").click()
    expect(page.get_by_test_id("status")).to_contain_text("take back that limits hold on further pictures")
    expect(page.get_by_test_id("calibrated")).to_have_count(0)
    assert not re.search(r"`embedstore|--[a-z]", page.locator("body").inner_text())


def test_a_suggestion_in_use_is_no_button(read_only: Served, page: Page) -> None:
    opened(page, read_only)
    expect(page.get_by_test_id("suggestion")).to_be_visible()
    set_threshold(page, 0.1)
    page.get_by_test_id("use-suggestion").click()
    expect(page.get_by_test_id("use-suggestion")).to_have_count(0)
    expect(page.get_by_test_id("suggestion")).to_contain_text("In use")


def test_a_saved_classifier_says_what_it_looks_for(served: Served, page: Page) -> None:
    """And that saving it again as it stands loses no figure."""
    classifier = served.store.calibrate("bird", "category=bird", name="mine")
    served.store.save_classifier(classifier)
    opened(page, served, None)
    page.get_by_test_id("classifier-item").click()
    said = page.get_by_test_id("about-classifier")
    expect(said).to_contain_text("Looks for bird")
    expect(said).to_contain_text(f"precision {classifier.target.figures['precision']:.4f}")
    expect(page.locator(".es-what")).to_contain_text("as it is")
    threshold = value(page.get_by_test_id("threshold-number"))
    set_threshold(page, threshold - 0.01)
    expect(page.locator(".es-what")).to_contain_text("calibrate to have figures")


def test_a_figure_outside_of_its_interval_is_explained(served: Served, page: Page) -> None:
    """Labels near the threshold count in the figure, and not in the interval."""
    table = served.store.to_table(["id"])
    ids = table.column("id").to_pylist()
    lines = ["id,label,picked,probability,round"]
    lines += [
        f"{one},{'no' if at % 2 else 'yes'},{'near' if at % 2 else 'random'},{1 if at % 2 else 0.5},1"
        for at, one in enumerate(ids)
    ]
    file = served.path.parent / "labels.csv"
    file.write_text("\n".join(lines) + "\n")
    served.store.add_labels(file, "bird")
    opened(page, served, None)
    asked(page, "bird")
    set_threshold(page, -1.0)
    expect(page.get_by_test_id("outside")).to_contain_text("Precision")
    expect(page.get_by_test_id("outside")).to_contain_text("rests on the random labels alone")


def test_on_a_phone_a_button_leads_below_the_pictures_and_back(read_only: Served, page: Page) -> None:
    """The grid fills the window and scrolls by itself, so nobody would find the figures below it."""
    page.set_viewport_size({"width": 375, "height": 812})
    opened(page, read_only)
    expect(page.get_by_test_id("threshold-number")).not_to_be_in_viewport()
    page.get_by_test_id("bar-figures").click()
    expect(page.get_by_test_id("threshold-number")).to_be_in_viewport()
    expect(page.get_by_test_id("bar-figures")).to_have_text("Pictures")
    page.get_by_test_id("bar-figures").click()
    expect(page.get_by_test_id("strip")).to_be_in_viewport()
    expect(page.get_by_test_id("bar-figures")).to_have_text("Figures")
