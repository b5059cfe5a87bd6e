"""Markup of strangers in ids, uris, columns, concepts, classifiers and queries is shown as text, wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import asked, expect, measured_by, opened, tile, watched
from conftest import PHOTOS
from in_browser import serving
from playwright.sync_api import Browser, Page

from embedstore.page.report import write_report
from embedstore.store import EmbedStore

pytest_plugins = ["browser_fixtures"]

EVIL = "\"'><img src=x class=evil onerror=window.owned=1><script>window.owned=1</script></script><!--<script>"
LINK = "javascript:window.owned=1"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> EmbedStore:
    """A store whose every text is markup."""
    folder = tmp_path_factory.mktemp("hostile") / EVIL.replace("/", "-")
    folder.mkdir()
    files = sorted(PHOTOS.rglob("*.jpg"))[:24]
    made = EmbedStore.create(folder / "a<b>&.store", model="objects")
    made.add(
        [
            {"image": file, "id": f"{EVIL}{number}", "kind": EVIL if number % 2 else "other", EVIL: LINK}
            for number, file in enumerate(files)
        ]
    )
    return made


def require_untouched(page: Page) -> None:
    """Nothing of it has become an element, or has run."""
    assert page.evaluate("window.owned") is None
    assert page.locator(".evil, a[href^=javascript]").count() == 0


def test_the_page_shows_markup_as_text(hostile: EmbedStore, chromium: Browser, tmp_path: Path) -> None:
    """In queries, conditions and their errors, details, truth, figures, saved classifiers and the lines to copy."""
    with serving(hostile.path, tmp_path / "serve.log") as running, watched(chromium) as (page, watch):
        watch.may_refuse = {"score", "save"}
        opened(page, running, EVIL)
        tile(page).click()
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("details")).to_contain_text(EVIL)
        expect(page.get_by_test_id("details")).to_contain_text(LINK)
        page.get_by_test_id("details-close").click()
        measured_by(page, EVIL, "kind")
        page.get_by_test_id("calibrate").click()
        expect(page.get_by_test_id("calibrated")).to_be_visible()
        page.get_by_test_id("show-commands").click()
        expect(page.get_by_test_id("commands")).to_contain_text("onerror")
        page.get_by_test_id("save-name").fill(EVIL)
        with page.expect_response(lambda response: response.url.endswith("/api/v1/save")):
            page.get_by_test_id("save").click()
        page.get_by_test_id("label-yes").click()
        page.get_by_test_id("where-input").fill(EVIL)
        page.get_by_test_id("where-input").press("Enter")
        expect(page.get_by_test_id("where-error")).to_contain_text("img")
        require_untouched(page)
        page.get_by_test_id("where-input").fill("")
        page.reload()
        asked(page, EVIL)
        require_untouched(page)


def test_the_report_shows_markup_as_text(hostile: EmbedStore, chromium: Browser, tmp_path: Path) -> None:
    """Its data ends no script early, and its own policy lets nothing else run."""
    made = hostile.calibrate("bird", f"kind={EVIL}", name="bird", label=EVIL, resamples=0)
    file = write_report(hostile.reader, made, f"kind={EVIL}", tmp_path / "report.html")
    with watched(chromium) as (page, _):
        page.goto(file.as_uri())
        tile(page).click()
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("details")).to_contain_text(EVIL)
        require_untouched(page)
        assert page.locator("script").count() == 2
