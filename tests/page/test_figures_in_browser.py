"""The page says what its figures rest on: how many labels, who chose the threshold, which range is of what."""

from __future__ import annotations

import re

from browser import opened, set_threshold, until, value
from in_browser import Served
from playwright.sync_api import Page, expect

from embedstore.deciding import label_log
from embedstore.deciding.rounds import History
from embedstore.page.session import Session

pytest_plugins = ["browser_fixtures"]


def begun(served: Served, near: int, random: int, threshold: float = 0.45) -> tuple[Session, int, list[int]]:
    """Score and begin a round in the store that is served; the rows are open."""
    session = Session(served.store)
    number = session.answer("score", {"query": {"terms": [{"text": "bird"}]}})[0]["scored"]
    told, _ = session.answer("next", {"scored": number, "threshold": threshold, "near": near, "random": random})
    return session, number, [one["row"] for one in told["rows"]]


def test_it_is_said_which_labels_count_and_who_chose_the_threshold(served: Served, page: Page) -> None:
    session, number, rows = begun(served, 10, 20)
    kinds = served.store.to_table(["category"]).column("category").to_pylist()
    browsed = [row for row in range(len(kinds)) if row not in rows][:5]
    for row in [*rows, *browsed]:
        answer = "yes" if kinds[row] == "bird" else "no"
        session.answer("label", {"scored": number, "row": row, "answer": answer})
    opened(page, served)
    notes, source = page.locator(".es-notes"), page.locator(".es-source")
    yes = sum(kinds[row] == "bird" for row in rows)
    expect(source).to_contain_text(f"{yes} of 30 say yes. 5 more labels cannot count")
    expect(page.locator(".es-curve .es-aside")).to_contain_text(
        re.compile(rf"on\s+30 labelled pictures, {yes} of them")
    )
    page.get_by_test_id("best-f1").click()
    expect(notes).to_contain_text("the best F1 by these same labels is here")
    expect(notes).to_contain_text("at a threshold that these labels did not choose")
    set_threshold(page, 0.2)
    expect(notes).to_contain_text("at a threshold that these labels did not choose")
    expect(notes).not_to_contain_text("flatter")
    page.get_by_test_id("calibrate").click()
    expect(page.get_by_test_id("calibrated")).to_be_visible()
    expect(notes).to_contain_text("the labels have chosen this threshold, so that its figures here flatter")
    page.get_by_test_id("next").click()
    expect(notes).to_contain_text("round 2 does not count yet: 20 rows have no answer")
    expect(source).to_contain_text(f"{yes} of 30 say yes")


def test_a_figure_outside_of_its_range_says_why(served: Served, page: Page) -> None:
    """Those near the threshold that chance alone would not have drawn are all wrong, the others all right."""
    session, number, _ = begun(served, 100, 60, 0.25)
    reader, lines = served.store.reader, served.store.labels("bird").lines
    label_log.add(reader, History("bird", tuple(line._replace(answer="yes", content_hash="") for line in lines)))
    history = served.store.labels("bird")
    drawn = dict(zip(history.rows, history.weighed().random.tolist(), strict=True))
    wrong = tuple(line._replace(answer="no", content_hash="") for line in lines if not drawn[line.row])
    label_log.add(reader, History("bird", wrong))
    opened(page, served)
    set_threshold(page, 0.25)
    told = session.answer("interval", {"scored": number, "threshold": 0.25})[0]["intervals"]["precision"]
    until(lambda: page.get_by_test_id("precision").get_attribute("data-value") not in (None, ""), "it is measured")
    assert value(page.get_by_test_id("precision")) < told[0]
    expect(page.locator(".es-notes")).to_contain_text(
        re.compile("Precision.*outside of the range, which rests on the random")
    )
    shown = page.get_by_test_id("precision-interval")
    expect(shown).to_contain_text(" to ")
    low, high = map(float, shown.inner_text().split(" to "))
    assert told[0] - 0.01 < low <= told[0] <= told[1] <= high < told[1] + 0.01
