"""One module, three hosts: the page, a notebook and a report do the same and show the library's numbers."""

from __future__ import annotations

import base64
import queue
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import opened, set_threshold, tile, tiles, until, value, watched
from in_browser import serving
from playwright.sync_api import Browser, Page, expect

import embedstore
from embedstore.page.joining import module_text
from embedstore.store import EmbedStore

pytest_plugins = ["browser_fixtures"]

LABELS = "category=bird"
NOTEBOOK = """
    async ([module, style, start]) => {
        const sheet = document.createElement("style");
        sheet.textContent = style;
        document.head.append(sheet);
        const heard = [];
        const bytes = (buffer) => new Uint8Array(buffer.buffer ?? buffer, buffer.byteOffset ?? 0, buffer.byteLength);
        const model = {
            get: (name) => (name === "start" ? start : undefined),
            on: (event, listener) => event === "msg:custom" && heard.push(listener),
            off: () => {},
            send: (content, _, buffers = []) =>
                toKernel(content, buffers.map((one) => btoa(String.fromCharCode(...bytes(one))))),
        };
        const hear = async () => {
            for (const [content, buffers] of await fromKernel()) {
                const views = buffers.map((one) =>
                    new DataView(Uint8Array.from(atob(one), (letter) => letter.charCodeAt(0)).buffer));
                for (const listener of heard) listener(content, views);
            }
            setTimeout(hear, 10);
        };
        void hear();
        const {default: widget} = await import(URL.createObjectURL(new Blob([module], {type: "text/javascript"})));
        const element = document.createElement("div");
        document.body.append(element);
        await widget.initialize?.({model});
        await widget.render({model, el: element});
    }
"""
"""What a notebook's page does with a widget: it imports the module, and carries messages to the kernel and back."""

Host = Callable[[Browser, EmbedStore, Path], Any]


@contextmanager
def page_host(browser: Browser, store: EmbedStore, folder: Path) -> Iterator[tuple[Page, str]]:
    """The page that `embedstore serve` serves, and the module that it runs."""
    with serving(store.path, folder / "serve.log") as running, watched(browser) as (page, _):
        with page.expect_response("**/static/view.js") as module:
            opened(page, running)
        choose_bird(page)
        yield page, module.value.text()


@contextmanager
def notebook_host(browser: Browser, store: EmbedStore, folder: Path) -> Iterator[tuple[Page, str]]:
    """The widget of `embedstore.view`, its kernel being this process."""
    widget = embedstore.view(store, "bird", labels=LABELS)
    answers: queue.SimpleQueue[tuple[Any, list[str]]] = queue.SimpleQueue()
    widget.send = lambda content, buffers=None: answers.put((content, [as_text(one) for one in buffers or []]))

    def heard() -> list[tuple[Any, list[str]]]:
        return [answers.get() for _ in range(answers.qsize())]

    def told(content: Any, buffers: list[str]) -> None:
        widget._handle_custom_msg(content, [memoryview(base64.b64decode(one)) for one in buffers])

    with watched(browser) as (page, _):
        page.expose_function("toKernel", told)
        page.expose_function("fromKernel", heard)
        page.goto("about:blank")
        page.evaluate(NOTEBOOK, [widget._esm, widget._css, widget.start])
        yield page, widget._esm
    widget.close()


def as_text(buffer: Any) -> str:
    """Bytes on their way into a browser."""
    return base64.b64encode(buffer).decode()


@contextmanager
def report_host(browser: Browser, store: EmbedStore, folder: Path) -> Iterator[tuple[Page, str]]:
    """The file that `embedstore report` writes, opened without any server, and what it holds."""
    classifier = store.calibrate("bird", LABELS, name="bird", resamples=0)
    from embedstore.page.report import write_report

    file = write_report(store.reader, classifier, LABELS, folder / "bird.html")
    with watched(browser) as (page, _):
        page.goto(file.as_uri())
        yield page, file.read_text(encoding="utf-8")


def choose_bird(page: Page) -> None:
    """Measure by the column, as the other two hosts were told to begin with."""
    from browser import measured_by

    measured_by(page)


@pytest.mark.parametrize("host", [page_host, notebook_host, report_host])
def test_one_module_runs_in_three_hosts(host: Host, chromium: Browser, photo_store: EmbedStore, tmp_path: Path) -> None:
    """In each the slider, a number and "best F1" move the same threshold, and every figure is the library's."""
    shutil.copytree(photo_store.path, tmp_path / "photos.store")
    store = EmbedStore.open(tmp_path / "photos.store")
    swept = store.sweep("bird", LABELS)
    curve = swept.curve
    assert curve is not None
    with host(chromium, store, tmp_path) as (page, module):
        assert module_text() in module
        expect(tile(page)).to_be_visible()
        expect(page.get_by_test_id("histogram").first).to_be_visible()
        expect(page.get_by_test_id("curve").first).to_be_visible()
        picture = tile(page).locator("img")
        until(lambda: bool(picture.evaluate("one => one.complete && one.naturalWidth > 50")), "the first picture")
        shown = tiles(page)
        best = sorted(store.scores("bird")[0].tolist(), reverse=True)
        assert [score for _, score in shown] == pytest.approx(best[: len(shown)], abs=5e-7)
        for threshold in (0.3, 0.45, 0.6):
            set_threshold(page, threshold)
            compare(page, threshold, swept)
        page.get_by_test_id("best-f1").click()
        compare(page, curve.at_cut(curve.best_cut).threshold, swept)
        slider = page.get_by_test_id("threshold-range")
        slider.focus()
        before = value(page.get_by_test_id("threshold-number"))
        slider.press("ArrowRight")
        until(lambda: value(page.get_by_test_id("threshold-number")) > before, "a higher threshold")
        compare(page, value(page.get_by_test_id("threshold-number")), swept)


def compare(page: Page, threshold: float, swept: Any) -> None:
    """Wait for a threshold, and hold the figures against the library's."""
    expect(page.get_by_test_id("threshold-number")).to_have_attribute("data-value", repr(threshold))
    measured = swept.curve.at(threshold)
    expect(page.get_by_test_id("matches-count")).to_have_attribute(
        "data-value", str(swept.distribution.matches(threshold))
    )
    for name in ("precision", "recall", "f1"):
        assert value(page.get_by_test_id(name)) == pytest.approx(getattr(measured, name), abs=1e-12), name


def test_labels_that_a_notebook_gives_are_the_stores(
    chromium: Browser, photo_store: EmbedStore, tmp_path: Path
) -> None:
    """A key pressed in a notebook's panel is a label in the store, which the next cell reads."""
    shutil.copytree(photo_store.path, tmp_path / "photos.store")
    store = EmbedStore.open(tmp_path / "photos.store")
    with notebook_host(chromium, store, tmp_path) as (page, _):
        tile(page).click()
        page.keyboard.press("y")
        until(lambda: store.labels("bird").answers.tolist() == ["yes"], "the label in the store")


def test_a_report_does_only_what_it_can(chromium: Browser, photo_store: EmbedStore, tmp_path: Path) -> None:
    """No server: what would need one is not shown, and on a phone nothing is cut off."""
    shutil.copytree(photo_store.path, tmp_path / "photos.store")
    store = EmbedStore.open(tmp_path / "photos.store")
    with report_host(chromium, store, tmp_path) as (page, _):
        for name in ("query-input", "label-yes", "next", "calibrate", "save"):
            expect(page.get_by_test_id(name)).to_have_count(0)
        page.set_viewport_size({"width": 375, "height": 812})
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 375
