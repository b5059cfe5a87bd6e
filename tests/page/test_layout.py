"""Where tiles lie, and how a stretch that is too tall for a browser is scrolled: layout.js, run in a browser."""

from collections.abc import Iterator
from typing import Any

import pytest
from browser import script_page
from playwright.sync_api import Browser, Page

pytest_plugins = ["browser_fixtures"]

SHAPES = [
    (0, 242, 32, 5),
    (0, 242, 0, 5),
    (0, 242, 242, 5),
    (40, 90, 61, 4),
    (40, 90, 10, 7),
    (0, 1, 1, 3),
    (0, 9, 4, 1),
]


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Iterator[Page]:
    """A blank page that holds the classes of layout.js as `window.layout`."""
    with script_page(chromium, "layout") as blank:
        yield blank


def in_browser(page: Page, body: str, *given: Any) -> Any:
    """Run the body of a function with `layout` and `given`."""
    return page.evaluate(f"(given) => {{ const {{Layout, Scroll}} = window.layout; {body} }}", list(given))


@pytest.mark.parametrize(("first", "end", "cut", "columns"), SHAPES)
def test_every_place_has_a_spot_and_no_row_has_both_sides(
    page: Page, first: int, end: int, cut: int, columns: int
) -> None:
    """Matches lie above the line and the others below it; no two places share a spot; a stretch finds what is in it."""
    found = in_browser(
        page,
        """const [first, end, cut, columns] = given;
        const layout = new Layout({first, end, cut, columns, rowHeight: 100, lineHeight: 30});
        const spots = [];
        for (let place = first; place < end; place += 1) {
            const {row, column} = layout.at(place);
            spots.push([place, layout.top(row), column, ...layout.between(layout.top(row) + 1, layout.top(row) + 99)]);
        }
        return {spots, line: layout.lineTop, height: layout.height, all: layout.between(0, layout.height)};""",
        first,
        end,
        cut,
        columns,
    )
    spots = found["spots"]
    assert len({(top, column) for _, top, column, _, _ in spots}) == end - first
    assert all(0 <= column < columns for _, _, column, _, _ in spots)
    for place, top, _, start, stop in spots:
        assert (top + 100 <= found["line"]) if place < cut else (top >= found["line"] + 30)
        assert start <= place < stop <= start + columns
        assert stop <= cut or start >= cut or not first <= cut <= end
    assert found["all"] == [first, end]
    assert found["height"] == max(max(top for _, top, *_ in spots) + 100, found["line"] + 30)


@pytest.mark.parametrize(("first", "end", "cut", "columns"), SHAPES)
def test_a_step_stays_within_and_comes_back(page: Page, first: int, end: int, cut: int, columns: int) -> None:
    """Down and up lead one row on, never out of what is shown; from a full row to a full row and back is no move."""
    steps = in_browser(
        page,
        """const [first, end, cut, columns] = given;
        const layout = new Layout({first, end, cut, columns, rowHeight: 100, lineHeight: 30});
        const steps = [];
        for (let place = first; place < end; place += 1) {
            const down = layout.step(place, "down");
            steps.push([place, down, layout.step(down, "up"), layout.at(place), layout.at(down)]);
        }
        return steps;""",
        first,
        end,
        cut,
        columns,
    )
    for place, down, back, before, after in steps:
        assert first <= down < end
        assert after["row"] - before["row"] == (0 if down == place else 1)
        if down != place and after["column"] == before["column"]:
            assert back == place


def test_a_tall_stretch_scrolls_by_pixels_and_in_proportion(page: Page) -> None:
    """33 million pixels in 8 million: a wheel's step is its pixels, a drag is a share, both ends are met."""
    found = in_browser(
        page,
        """const scroll = new Scroll(8e6);
        scroll.resize(33e6, 800);
        const seen = {start: scroll.position};
        const top = scroll.goTo(12345678);
        seen.gone = scroll.position;
        scroll.follow(top + 100);
        seen.wheel = scroll.position;
        scroll.follow((8e6 - 800) / 2);
        seen.half = scroll.position;
        scroll.follow(8e6 - 800);
        seen.end = scroll.position;
        scroll.follow(0);
        seen.back = scroll.position;
        seen.inside = scroll.goTo(33e6) <= 8e6 - 800;
        return seen;""",
    )
    assert found["start"] == 0
    assert found["gone"] == 12345678
    assert found["wheel"] == 12345778
    assert found["half"] == pytest.approx((33e6 - 800) / 2)
    assert found["end"] == 33e6 - 800
    assert found["back"] == 0
    assert found["inside"]
