"""The page as a person uses it: a real server, a real browser, and the library to say what is right."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from browser import (
    Watch,
    asked,
    data_transfer,
    measured_by,
    opened,
    set_threshold,
    tile,
    tiles,
    until,
    value,
)
from conftest import PHOTOS
from in_browser import Served
from playwright.sync_api import Page, expect

from embedstore.searching.queries import Query
from embedstore.store import EmbedStore

pytest_plugins = ["browser_fixtures"]

FIGURES = ("precision", "recall", "f1")
CUCKOO = PHOTOS / "bird" / "cuckoo.jpg"


def best_rows(store: EmbedStore, query: object) -> tuple[list[int], list[float]]:
    """The row numbers in the order of the library, and their scores."""
    scores = store.scores(query)[0]
    ids = np.array(store.to_table(["id"]).column("id").to_pylist())
    order = np.lexsort((ids, -scores))
    return order.tolist(), scores[order].tolist()


def test_a_query_shows_the_best_pictures_in_the_librarys_order(read_only: Served, page: Page) -> None:
    """Words are asked, and asked anew; every tile has its row, its score and a picture that could be decoded."""
    opened(page, read_only)
    for query in ("bird", "violin"):
        asked(page, query)
        rows, scores = best_rows(read_only.store, query)
        expect(tile(page)).to_have_attribute("data-row", str(rows[0]))
        seen = tiles(page)
        assert len(seen) > 10
        assert [row for row, _ in seen] == rows[: len(seen)]
        assert [score for _, score in seen] == pytest.approx(scores[: len(seen)], abs=5e-7)
    picture = tile(page).locator("img")
    until(lambda: bool(picture.evaluate("image => image.complete && image.naturalWidth > 100")), "a picture")
    shown = tile(page).inner_text()
    assert re.search(rf"{scores[0]:.4f}", shown), shown


def test_every_number_is_the_librarys_at_twenty_thresholds(read_only: Served, page: Page) -> None:
    """Whether the slider is dragged, the line on the curve, or a number typed: matches, percentile, P, R and F1."""
    opened(page, read_only)
    measured_by(page)
    swept = read_only.store.sweep("bird", "category=bird")
    assert swept.curve is not None
    seen: list[float] = []

    def compare() -> None:
        threshold = value(page.get_by_test_id("threshold-number"))
        measured = swept.curve.at(threshold)
        expect(page.get_by_test_id("matches-count")).to_have_attribute(
            "data-value", str(swept.distribution.matches(threshold))
        )
        assert value(page.get_by_test_id("percentile")) == pytest.approx(
            swept.distribution.percentile(threshold), abs=1e-9
        )
        for name in FIGURES:
            assert value(page.get_by_test_id(name)) == pytest.approx(getattr(measured, name), abs=1e-12), name
            assert page.get_by_test_id(name).inner_text().find(f"{getattr(measured, name):.4f}") >= 0
        seen.append(threshold)

    slider = page.get_by_test_id("threshold-range")
    slider.scroll_into_view_if_needed()
    for place in np.linspace(0.1, 0.9, 8):
        drag_to(page, slider.bounding_box(), place, bool(not seen))
        page.evaluate("() => new Promise(requestAnimationFrame)")
        compare()
    page.mouse.up()
    point = page.get_by_test_id("curve-point")
    point.scroll_into_view_if_needed()
    start, chart = point.bounding_box(), page.get_by_test_id("curve").bounding_box()
    assert start is not None
    assert chart is not None
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    for place in (0.3, 0.45, 0.6, 0.75):
        page.mouse.move(chart["x"] + chart["width"] * place, chart["y"] + chart["height"] / 2, steps=3)
        page.evaluate("() => new Promise(requestAnimationFrame)")
        compare()
    page.mouse.up()
    for threshold in (*swept.curve.scores[[3, 40, -20, -2]].tolist(), 0.4468, swept.best.threshold, 0.9, -0.2):
        set_threshold(page, threshold)
        expect(page.get_by_test_id("threshold-number")).to_have_attribute("data-value", repr(threshold))
        compare()
    assert len(seen) == 20
    assert len(set(seen)) == 20


def drag_to(page: Page, box: dict[str, float] | None, place: float, press: bool) -> None:
    """Move the mouse along a slider, with its button held down from the first time on."""
    assert box is not None
    if press:
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * place, box["y"] + box["height"] / 2, steps=4)


def test_best_reset_cost_and_neighbours(read_only: Served, page: Page) -> None:
    """A click or a key away: the best F1, the lowest cost, the start, the neighbouring score; as in the library."""
    store = read_only.store
    opened(page, read_only)
    start = value(page.get_by_test_id("threshold-number"))
    measured_by(page)
    curve = store.sweep("bird", "category=bird").curve
    assert curve is not None
    number = page.get_by_test_id("threshold-number")
    page.get_by_test_id("best-f1").click()
    expect(number).to_have_attribute("data-value", repr(curve.at_cut(curve.best_cut).threshold))
    page.get_by_test_id("cost-fp").fill("1")
    page.get_by_test_id("cost-fn").fill("20")
    page.get_by_test_id("best-cost").click()
    until(lambda: value(number) != curve.at_cut(curve.best_cut).threshold, "another threshold for another cost")
    costs = curve.fp + 20 * curve.fn
    assert curve.fp[curve.cut(value(number))] + 20 * curve.fn[curve.cut(value(number))] == costs.min()
    page.get_by_test_id("reset").click()
    expect(number).to_have_attribute("data-value", repr(start))
    matches = int(value(page.get_by_test_id("matches-count")))
    page.get_by_test_id("grid").click(position={"x": 3, "y": 3})
    page.keyboard.press("]")
    expect(page.get_by_test_id("matches-count")).to_have_attribute("data-value", str(matches - 1))
    page.keyboard.press("[")
    page.keyboard.press("[")
    expect(page.get_by_test_id("matches-count")).to_have_attribute("data-value", str(matches + 1))


def test_ten_labels_by_keyboard_are_the_stores(served: Served, page: Page) -> None:
    """y, n and ? label the picture that is chosen and go on to the next; u takes the last one back."""
    opened(page, served)
    tile(page).click()
    rows, _ = best_rows(served.store, "bird")
    ids = served.store.to_table(["id"]).column("id").to_pylist()
    keys = "yynyn?yyny"
    for number, key in enumerate(keys):
        page.keyboard.press(key)
        expect(page.locator(f"[data-testid=tile][data-row='{rows[number]}']")).to_have_attribute(
            "data-answer", {"y": "yes", "n": "no", "?": "?"}[key]
        )
    said = {"y": "yes", "n": "no", "?": "?"}
    expected = {ids[row]: said[key] for row, key in zip(rows, keys, strict=False)}

    def kept() -> dict[str, str]:
        history = served.store.labels("bird")
        return dict(zip(history.rows, history.answers.tolist(), strict=True))

    until(lambda: kept() == expected, "ten labels in the store")
    assert set(served.store.labels("bird").picked.tolist()) == {"search"}
    expect(page.get_by_test_id("labels-count")).to_contain_text("6")
    page.keyboard.press("u")
    expected.popitem()
    until(lambda: {row: answer for row, answer in kept().items() if answer} == expected, "nine labels in the store")
    page.get_by_test_id("undo").click()
    expected.popitem()
    until(lambda: {row: answer for row, answer in kept().items() if answer} == expected, "eight labels in the store")
    listed = subprocess.run(
        [sys.executable, "-m", "embedstore", "labels", str(served.path), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "bird" in listed.stdout


def test_next_to_label_begins_a_round_with_known_picks(served: Served, page: Page) -> None:
    """The planner's rows come up one by one; their labels keep near or random, and figures are weighted by that."""
    opened(page, served)
    set_threshold(page, 0.45)
    page.get_by_test_id("next").click()
    until(lambda: len(served.store.labels("bird").rows) == 20, "a round of twenty in the store")
    history = served.store.labels("bird")
    assert sorted(history.picked.tolist()) == ["near"] * 10 + ["random"] * 10
    truth = dict(zip(*(served.store.to_table(["id", "category"]).column(i).to_pylist() for i in (0, 1)), strict=True))
    ids = served.store.to_table(["id"]).column("id").to_pylist()
    for count in range(1, 21):
        row = int(selected(page))
        page.keyboard.press("y" if truth[ids[row]] == "bird" else "n")
        until(lambda row=row, count=count: count == 20 or selected(page) != row, "the next picture of the round")
    until(lambda: "" not in served.store.labels("bird").answers.tolist(), "every row of the round answered")
    history = served.store.labels("bird")
    answers = dict(zip(history.rows, history.answers.tolist(), strict=True))
    assert answers == {row: "yes" if truth[row] == "bird" else "no" for row in answers}
    expect(page.get_by_test_id("precision")).to_have_attribute("data-value", re.compile(r"^[\d.]+$"))
    threshold = value(page.get_by_test_id("threshold-number"))
    curve = served.store.sweep("bird", served.store.labels("bird")).curve
    assert curve is not None
    assert value(page.get_by_test_id("recall")) == pytest.approx(curve.at(threshold).recall, abs=1e-12)


def selected(page: Page) -> int:
    """The row that labels go to."""
    return int(page.locator("[data-testid=tile][aria-selected=true]").get_attribute("data-row") or -1)


def test_without_labels_nothing_is_measured_and_that_is_said(read_only: Served, page: Page) -> None:
    """No truth, no figures: never a number that looks like one."""
    opened(page, read_only)
    for name in FIGURES:
        expect(page.get_by_test_id(name)).to_contain_text("not measured")
    expect(page.get_by_test_id("matches-count")).to_have_attribute("data-value", re.compile(r"^\d+$"))


def test_a_classifier_is_calibrated_saved_and_there_after_a_reload(served: Served, page: Page) -> None:
    """The figures are the library's; the saved file decides on the command line as it does in the page."""
    opened(page, served)
    measured_by(page)
    page.get_by_test_id("calibrate").click()
    expect(page.get_by_test_id("calibrated")).to_be_visible()
    expected = served.store.calibrate("bird", "category=bird")
    threshold = value(page.get_by_test_id("threshold-number"))
    assert threshold == expected.target.threshold
    assert f"{expected.target.metrics['f1']:.4f}" in page.get_by_test_id("calibrated").inner_text()
    page.get_by_test_id("save-name").fill("birds")
    page.get_by_test_id("save").click()
    expect(page.get_by_test_id("classifier-item")).to_contain_text("birds")
    matches = int(value(page.get_by_test_id("matches-count")))
    page.reload()
    expect(page.get_by_test_id("classifier-item")).to_contain_text("birds")
    page.get_by_test_id("classifier-item").get_by_role("button").or_(
        page.get_by_test_id("classifier-item")
    ).first.click()
    expect(page.get_by_test_id("matches-count")).to_have_attribute("data-value", str(matches))
    expect(page.get_by_test_id("threshold-number")).to_have_attribute("data-value", repr(threshold))
    store = served.store
    assert store.classifiers() == ["birds"]
    assert len(store.classify(store.classifier("birds"))) == matches
    saved = store.classifier("birds").target
    assert saved.metrics == expected.target.metrics
    assert saved.intervals == expected.target.intervals


def test_the_objective_and_the_constraints_are_the_librarys(served: Served, window: tuple[Page, Watch]) -> None:
    """A floor for recall moves the threshold as `calibrate` does; one that nothing can guarantee is an error."""
    page, watch = window
    opened(page, served)
    measured_by(page)
    page.get_by_test_id("objective").select_option("precision")
    page.get_by_test_id("min-recall").fill("0.8")
    page.get_by_test_id("calibrate").click()
    expect(page.get_by_test_id("calibrated")).to_be_visible()
    expected = served.store.calibrate("bird", "category=bird", objective="precision", min_recall=0.8)
    expect(page.get_by_test_id("threshold-number")).to_have_attribute("data-value", repr(expected.target.threshold))
    watch.may_refuse = {"calibrate"}
    page.get_by_test_id("min-recall").fill("")
    page.get_by_test_id("objective").select_option("recall")
    page.get_by_test_id("min-precision").fill("0.95")
    page.get_by_test_id("calibrate").click()
    expect(page.get_by_text("no threshold keeps precision >= 0.95").first).to_be_visible()


def in_csv(content: bytes) -> list[str]:
    """The ids of an export."""
    return [line["id"] for line in csv.DictReader(io.StringIO(content.decode()))]


def in_lines(content: bytes) -> list[str]:
    """The ids of an export."""
    return [json.loads(line)["id"] for line in content.decode().splitlines()]


def in_parquet(content: bytes) -> list[str]:
    """The ids of an export."""
    return pq.read_table(io.BytesIO(content)).column("id").to_pylist()  # type: ignore[no-any-return]


def test_matches_are_exported(read_only: Served, page: Page) -> None:
    """Three formats, each with exactly the rows that the library finds above the threshold, in its order."""
    opened(page, read_only)
    set_threshold(page, 0.45)
    expected = read_only.store.classify("bird", 0.45).id
    read: dict[str, Callable[[bytes], list[str]]] = {"csv": in_csv, "jsonl": in_lines, "parquet": in_parquet}
    for name, ids in read.items():
        with page.expect_download() as download:
            page.get_by_test_id(f"export-{name}").click()
        assert download.value.suggested_filename.endswith(f".{name}")
        assert ids(Path(download.value.path()).read_bytes()) == expected


@pytest.mark.parametrize("way", ["input", "drop", "paste"])
def test_a_picture_is_a_query(read_only: Served, page: Page, way: str) -> None:
    """Picked, dropped or pasted: the picture is asked by its pixels, and finds itself first."""
    opened(page, read_only, None)
    if way == "input":
        page.get_by_test_id("picture-input").set_input_files(CUCKOO)
    elif way == "drop":
        page.get_by_test_id("drop").dispatch_event("drop", {"dataTransfer": data_transfer(page, CUCKOO)})
    else:
        page.evaluate(
            """(transfer) => document.activeElement.dispatchEvent(
                new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true}))""",
            data_transfer(page, CUCKOO),
        )
    rows, scores = best_rows(read_only.store, Query.image(CUCKOO))
    expect(tile(page)).to_have_attribute("data-row", str(rows[0]))
    assert [score for _, score in tiles(page)[:5]] == pytest.approx(scores[:5], abs=5e-7)


def test_text_is_never_a_path(read_only: Served, page: Page) -> None:
    """A path that is typed is words: no file is opened for it."""
    opened(page, read_only, None)
    page.get_by_test_id("query-input").fill(str(CUCKOO))
    page.get_by_test_id("ask").click()
    expect(tile(page)).to_be_visible()
    rows, _ = best_rows(read_only.store, Query.text(str(CUCKOO)))
    assert [row for row, _ in tiles(page)[:5]] == rows[:5]


def test_a_condition_filters_and_its_error_is_under_the_field(read_only: Served, window: tuple[Page, Watch]) -> None:
    """SQL as in the library; a wrong condition changes nothing but says what is wrong, where it was typed."""
    page, watch = window
    opened(page, read_only)
    field = page.get_by_test_id("where-input")
    field.fill("category in ('fish', 'flower')")
    field.press("Enter")
    kinds = read_only.store.to_table(["category"]).column("category").to_pylist()
    expected = [row for row in best_rows(read_only.store, "bird")[0] if kinds[row] in ("fish", "flower")]
    expect(tile(page)).to_have_attribute("data-row", str(expected[0]))
    shown = tiles(page)
    assert [row for row, _ in shown] == expected[: len(shown)]
    watch.may_refuse = {"score"}
    field.fill("categry = 'fish'")
    field.press("Enter")
    error = page.get_by_test_id("where-error")
    expect(error).to_contain_text("categry")
    below, above = error.bounding_box(), field.bounding_box()
    assert below is not None
    assert above is not None
    assert 0 <= below["y"] - above["y"] < 120
    assert tiles(page) == shown
    field.fill("")
    field.press("Enter")
    expect(error).to_be_hidden()
    expect(tile(page)).to_have_attribute("data-row", str(best_rows(read_only.store, "bird")[0][0]))


def test_a_band_of_scores_is_looked_at_alone(read_only: Served, page: Page) -> None:
    """Brushed on the histogram: the grid has the rows of the band and no other, until it is cleared."""
    opened(page, read_only)
    before = tiles(page)
    box = page.get_by_test_id("histogram").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=5)
    page.mouse.up()
    expect(page.get_by_test_id("band-clear")).to_be_visible()
    until(lambda: bool(tiles(page)) and tiles(page)[0] != before[0], "other rows in the grid")
    shown = [score for _, score in tiles(page)]
    scores = read_only.store.scores("bird")[0]
    inside = np.sort(scores[(scores >= min(shown)) & (scores <= max(shown))])[::-1]
    assert shown == pytest.approx(inside.tolist(), abs=5e-7)
    page.get_by_test_id("band-clear").click()
    until(lambda: tiles(page)[:5] == before[:5], "all rows again")


def test_the_cut_is_seen_and_followed(read_only: Served, page: Page) -> None:
    """A line between the last match and the first row that is none; "to the boundary" brings it into sight."""
    opened(page, read_only)
    set_threshold(page, 0.02)
    page.get_by_test_id("to-boundary").click()
    expect(page.get_by_test_id("cut-line").first).to_be_in_viewport()
    scores = [score for _, score in tiles(page)]
    assert max(scores) > 0.02 >= min(scores)
    set_threshold(page, 0.45)
    page.locator("body").click(position={"x": 2, "y": 2})
    page.keyboard.press("b")
    expect(page.get_by_test_id("cut-line").first).to_be_in_viewport()
    strip = [float(text) for text in page.get_by_test_id("strip").locator("button:enabled").all_inner_texts()]
    near = np.sort(read_only.store.scores("bird")[0])[::-1]
    matches = int((near > 0.45).sum())
    assert strip == pytest.approx(near[matches - 8 : matches + 8].tolist(), abs=5e-5)


def test_two_queries_side_by_side(read_only: Served, page: Page) -> None:
    """A second panel has a query, a threshold and figures of its own."""
    opened(page, read_only)
    page.get_by_test_id("compare").click()
    expect(page.get_by_test_id("query-input")).to_have_count(2)
    page.get_by_test_id("query-input").nth(1).fill("fish")
    page.get_by_test_id("ask").nth(1).click()
    expect(tile(page, panel=1)).to_have_attribute("data-row", str(best_rows(read_only.store, "fish")[0][0]))
    first = page.get_by_test_id("matches-count").first.get_attribute("data-value")
    box = page.get_by_test_id("threshold-number").nth(1)
    box.fill("0.01")
    box.press("Enter")
    expected = read_only.store.count("fish", 0.01)
    expect(page.get_by_test_id("matches-count").nth(1)).to_have_attribute("data-value", str(expected))
    expect(page.get_by_test_id("matches-count").first).to_have_attribute("data-value", str(first))


def test_keys_are_letters_while_somebody_types(served: Served, page: Page) -> None:
    """y, n, u, v, b and h typed into a field are text; with Ctrl they are the browser's; nothing is labelled."""
    opened(page, served)
    tile(page).click()
    for name in ("query-input", "where-input", "save-name"):
        field = page.get_by_test_id(name)
        field.fill("")
        field.press_sequentially("ynu?vbh[]")
        expect(field).to_have_value("ynu?vbh[]")
        expect(field).to_be_focused()
    tile(page).click()
    page.keyboard.press("Control+y")
    page.keyboard.press("Alt+n")
    page.get_by_test_id("help").click()
    page.keyboard.press("y")
    page.keyboard.press("Escape")
    assert page.locator("[data-testid=tile][data-answer=yes], [data-testid=tile][data-answer=no]").count() == 0
    assert served.call("info")["concepts"] == []


def test_arrows_details_and_the_slider_by_keyboard(read_only: Served, page: Page) -> None:
    """No mouse: arrows choose, Enter shows all that is known of a row, Escape leaves, v goes to the slider."""
    opened(page, read_only)
    tile(page).click()
    rows, scores = best_rows(read_only.store, "bird")
    page.keyboard.press("ArrowRight")
    until(lambda: selected(page) == rows[1], "the second picture")
    page.keyboard.press("ArrowDown")
    until(lambda: selected(page) not in rows[:2], "a picture of the second line")
    page.keyboard.press("ArrowUp")
    until(lambda: selected(page) == rows[1], "the second picture again")
    page.keyboard.press("Enter")
    details = page.get_by_test_id("details")
    expect(details).to_be_visible()
    expect(details).to_contain_text(f"{scores[1]:.4f}")
    row = {
        name: read_only.store.to_table([name]).column(name)[rows[1]].as_py() for name in ("id", "uri", "description")
    }
    for text in row.values():
        expect(details).to_contain_text(str(text)[:40])
    page.keyboard.press("Escape")
    expect(details).to_be_hidden()
    page.keyboard.press("v")
    expect(page.get_by_test_id("threshold-range")).to_be_focused()
    before = value(page.get_by_test_id("threshold-number"))
    page.keyboard.press("ArrowRight")
    until(lambda: value(page.get_by_test_id("threshold-number")) > before, "a higher threshold")


def test_the_lines_that_do_the_same_do_the_same(served: Served, page: Page) -> None:
    """The lines of Python and of a shell run as they stand, and find as many matches as the page shows."""
    opened(page, served)
    measured_by(page)
    set_threshold(page, 0.45)
    page.get_by_test_id("save-name").fill("from lines")
    page.get_by_test_id("show-commands").click()
    shown = page.get_by_test_id("commands").locator("pre")
    expect(shown).to_have_count(2)
    python, shell = shown.all()
    expect(python).to_contain_text("0.45")
    expect(python).to_contain_text("from lines")
    lines = python.inner_text() + "\nprint(len(matches))"
    ran = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(served.store.count("bird", 0.45))]
    assert served.store.classifiers() == ["from lines"]
    command = next(line for line in shell.inner_text().splitlines() if line.startswith("embedstore classify"))
    words = [sys.executable, "-m", *shlex.split(command), "--json"]
    listed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    assert len(json.loads(listed.stdout)) == served.store.count("bird", 0.45)


def test_a_picture_that_is_gone_shows_as_missing(tmp_path: Path, pictures: Path, page: Page) -> None:
    """Its tile stays where it was and says so; the others have their pictures."""
    from in_browser import serving

    store = EmbedStore.create(tmp_path / "s.store", model="objects")
    store.add(pictures, label_from_folder=True)
    (pictures / "cat" / "03.png").unlink()
    uris = store.to_table(["uri"]).column("uri").to_pylist()
    gone = next(row for row, uri in enumerate(uris) if uri.endswith("03.png"))
    with serving(store.path, tmp_path / "serve.log") as running:
        opened(page, running, "cat")
        expect(page.locator(f"[data-testid=tile][data-row='{gone}']")).to_contain_text("missing")
        here = page.locator(f"[data-testid=tile]:not([data-row='{gone}']) img").first
        until(lambda: bool(here.evaluate("image => image.complete && image.naturalWidth > 0")), "the other pictures")


def test_a_query_that_the_server_has_let_go_is_scored_again(served: Served, page: Page) -> None:
    """Many other queries later the page still labels the row that was meant."""
    opened(page, served)
    for number in range(20):
        served.call("score", query={"terms": [{"text": f"thing {number}", "weight": 1}]}, where="")
    tile(page).click()
    page.keyboard.press("y")
    until(lambda: served.store.labels("bird").answers.tolist() == ["yes"], "the label in the store")
    rows, _ = best_rows(served.store, "bird")
    assert list(served.store.labels("bird").rows) == [served.store.to_table(["id"]).column("id")[rows[0]].as_py()]


def test_nothing_leaves_this_machine(served: Served, window: tuple[Page, Watch]) -> None:
    """Every request of a whole session goes to the server's own port, and its token is in no address."""
    page, watch = window
    opened(page, served)
    measured_by(page)
    tile(page).click()
    page.keyboard.press("y")
    page.get_by_test_id("calibrate").click()
    expect(page.get_by_test_id("calibrated")).to_be_visible()
    assert len(watch.requests) > 20
    addressed = [url for url in watch.requests if not url.startswith("blob:")]
    assert {url.split("/")[2] for url in addressed} == {served.origin.split("/")[2]}
    assert all(served.token not in url.split("#")[0] for url in addressed)
