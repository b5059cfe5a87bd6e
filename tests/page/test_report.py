"""The report of a classifier: one file, from one reading of rows and labels, in which the slider moves the figures."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from browser import audited, set_threshold, value, watched
from conftest import save_picture
from playwright.sync_api import Browser, Page, expect
from scored_stores import QUERY, scored_store

from embedstore import images
from embedstore.deciding import review, thresholds
from embedstore.deciding.classifier import Classifier
from embedstore.errors import ClassifierError, InputError, PathError
from embedstore.measures.curves import precision_recall
from embedstore.page import embedded, report
from embedstore.page.scored_query import ScoredQuery, rows_in_order
from embedstore.store import EmbedStore
from embedstore.wording import counted

pytest_plugins = ["browser_fixtures"]


def data_in(page: str) -> Any:
    """Return what a report holds for the module."""
    found = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def array_in(told: dict[str, str]) -> Any:
    """Return an array that a report holds."""
    kinds = {"Float32Array": "<f4", "Float64Array": "<f8", "Uint32Array": "<u4", "Uint8Array": "u1"}
    return np.frombuffer(base64.b64decode(told["base64"]), kinds[told["type"]])


@pytest.fixture
def bird(photo_store: EmbedStore) -> Classifier:
    """A classifier that is right for most of the sample photographs."""
    return photo_store.calibrate("bird", "category=bird", name="bird", resamples=0)


def test_a_report_reads_rows_and_labels_once(
    photo_store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures, boundary and mistakes come from one scoring of the rows and one reading of the labels."""
    classifier = photo_store.calibrate("bird", "category=bird", name="bird")
    calls = []
    for home, name in ((Classifier, "scores_in"), (review, "labels_for")):
        function = getattr(home, name)

        def noted(*words: object, name: str = name, function: object = function) -> object:
            calls.append(name)
            return function(*words)

        monkeypatch.setattr(home, name, noted)
    file = report.write_report(photo_store.reader, classifier, "category=bird", tmp_path / "bird.html")
    assert sorted(calls) == ["labels_for", "scores_in"]
    page = file.read_text(encoding="utf-8")
    target = classifier.target
    low, high = target.intervals["f1"]
    least, most = target.prediction_intervals["f1"]
    ends = f"<td>{low:.4f} to {high:.4f}</td><td>{least:.4f} to {most:.4f}</td>"
    assert f"<td>F1</td><td>{target.metrics['f1']:.4f}</td>{ends}" in page
    head = "<th scope=col>95% confidence: over all such rows</th><th scope=col>95%: another sample as large</th>"
    assert head in page
    wrong, missed = review.ScoredRows.of(photo_store.reader, classifier, "category=bird").mistakes()
    assert f"<h2>{counted(len(wrong), 'false positive')}</h2>" in page
    assert len(missed) == 1
    assert "<h2>1 false negative</h2>" in page


def test_files_are_looked_at_before_any_work(photo_store: EmbedStore, tmp_path: Path) -> None:
    """Report, CSV and sheet refuse other endings and missing folders with the words of the command line."""
    classifier = photo_store.calibrate("bird", "category=bird", resamples=0)
    picked = review.ScoredRows.of(photo_store.reader, classifier).to_label(2, 2)
    for save, right, others in (
        (lambda file: report.write_report(photo_store.reader, classifier, "no labels", file), ".html", ".htm"),
        (picked.save_csv, ".csv", ""),
        (picked.save_sheet, ".png", ".jpg .jpeg"),
    ):
        known = f"one of {right} {others}" if others else right
        with pytest.raises(InputError, match=f"'x.gif' should end in {known}$"):
            save(tmp_path / "x.gif")
        with pytest.raises(PathError, match="no is not there; make it first, or choose another path"):
            save(tmp_path / "no" / f"x{right}")
    with pytest.raises(InputError, match="thumbnails is how many rows of each class have one, at least 0; found -1"):
        report.write_report(photo_store.reader, classifier, "category=bird", tmp_path / "x.html", thumbnails=-1)
    assert list(tmp_path.iterdir()) == []


def test_a_report_goes_class_by_class(photo_store: EmbedStore, tmp_path: Path) -> None:
    """Several classes: their evaluation, then the report of each; or that of the one that is named."""
    queries = {"bird": "bird", "flower": "flower"}
    kinds = thresholds.calibrate_classes(photo_store.reader, queries, "category", name="kinds", resamples=0)
    page = report.write_report(photo_store.reader, kinds, "category", tmp_path / "kinds.html").read_text()
    assert re.search("<h1>kinds</h1>\n<div [^>]*><pre>", page)
    assert "truth, predicted:  bird  flower  none" in page
    for label in queries:
        alone = review.ScoredRows.of(photo_store.reader, kinds, "category", label=label)
        assert f"<h2>kinds ({label})</h2>" in page
        wrong, missed = alone.mistakes()
        assert page.count(f"<h3>{counted(len(wrong), 'false positive')}</h3>") >= 1
        assert page.count(f"<h3>{counted(len(missed), 'false negative')}</h3>") >= 1
    told = data_in(page)
    assert [panel["label"] for panel in told["panels"]] == list(queries)
    assert [panel["query"] for panel in told["panels"]] == [{"classifier": "kinds", "class": one} for one in queries]
    for panel, target in zip(told["panels"], kinds.targets, strict=True):
        assert panel["threshold"] == target.threshold
    one = report.write_report(photo_store.reader, kinds, "category=bird", tmp_path / "a.html", label="bird").read_text()
    assert len(data_in(one)["panels"]) == 1
    assert "<h1>kinds (bird)</h1>" in one
    with pytest.raises(ClassifierError, match="no class 'fish'; choose from bird, flower"):
        report.write_report(photo_store.reader, kinds, "category", tmp_path / "kinds.html", label="fish")


def test_a_report_holds_the_librarys_numbers(photo_store: EmbedStore, bird: Classifier, tmp_path: Path) -> None:
    """Scores in order, rows, counts at every cut and labels are those of the library, to the bit."""
    told = data_in(report.write_report(photo_store.reader, bird, "category=bird", tmp_path / "b.html").read_text())
    (panel,) = told["panels"]
    rows = review.ScoredRows.of(photo_store.reader, bird, "category=bird")
    scores, order = map(array_in, panel["score"]["arrays"])
    assert scores.tolist() == np.sort(rows.scores)[::-1].tolist()
    assert rows.scores[order].tolist() == scores.tolist()
    assert sorted(order.tolist()) == list(range(len(photo_store)))
    curve = precision_recall(rows.scores[rows.labelled.positions], rows.labelled.values)
    for array, mine in zip(panel["measure"]["arrays"], (curve.scores, curve.tp, curve.fp), strict=True):
        assert array_in(array).tolist() == mine.tolist()
    labelled, answers, picked = map(array_in, panel["labels"]["arrays"])
    assert labelled.tolist() == rows.labelled.positions.tolist()
    assert answers.tolist() == rows.labelled.values.astype(int).tolist()
    assert set(picked.tolist()) == {0}
    assert panel["labels"]["result"]["yes"] == int(rows.labelled.values.sum())


def test_pictures_are_bounded(photo_store: EmbedStore, bird: Classifier, tmp_path: Path) -> None:
    """Both sides of the threshold, the worst mistakes and a spread of all have one, at most as many as are wished."""
    rows = review.ScoredRows.of(photo_store.reader, bird, "category=bird")
    query = ScoredQuery(bird, rows, rows_in_order(rows), None)
    for most in (200, 60, 40):
        chosen = embedded.chosen_rows(query, most).tolist()
        assert len(set(chosen)) == len(chosen) == min(most, len(photo_store))
        sides = [rows.scores[row] > bird.threshold for row in chosen[: most * 2 // 5]]
        assert 0 < sum(sides) < len(sides)
        for some in rows.mistakes():
            ids = photo_store.reader.rows.take(np.array(chosen), ["id"]).column("id").to_pylist()
            assert set(some.table.column("id").to_pylist()[: most // 5]) <= set(ids)
    assert query.order[0] in embedded.chosen_rows(query, 60)
    page = report.write_report(photo_store.reader, bird, "category=bird", tmp_path / "a.html", thumbnails=0).read_text()
    told = data_in(page)
    assert told["pictures"] == {}
    shown = {int(row) for row in re.findall(r"data-picture=(\d+)", page)}
    assert set(map(int, told["rows"])) == shown
    assert max(len(text) for text in re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)) < 20_000


def test_a_file_that_was_never_embedded_is_in_no_report(store: EmbedStore, pictures: Path, tmp_path: Path) -> None:
    """A report is passed on: what has taken a picture's place since stays out of it."""
    classifier = store.calibrate("dog", "label=dog", name="dog", resamples=0)
    uris = store.to_table(["uri"]).column("uri").to_pylist()
    before = report.write_report(store.reader, classifier, "label=dog", tmp_path / "before.html").read_text("utf-8")
    assert len(data_in(before)["pictures"]) + before.count("data-picture=") >= len(uris)
    save_picture(Path(uris[5]), 99)
    secret = embedded.as_base64(images.thumbnail(Path(uris[5]), embedded.SIDE, quality=embedded.QUALITY))
    page = report.write_report(store.reader, classifier, "label=dog", tmp_path / "after.html").read_text("utf-8")
    assert secret not in page
    assert "5" not in data_in(page)["pictures"]
    assert "data-picture=5 " not in page
    save_picture(Path(uris[5]), 5)  # as it was: seeds are the pictures' numbers
    again = report.write_report(store.reader, classifier, "label=dog", tmp_path / "again.html").read_text("utf-8")
    assert data_in(again)["pictures"].keys() == data_in(before)["pictures"].keys()


def test_of_very_many_rows_every_second_is_told(
    photo_store: EmbedStore, bird: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page says so, and the table counts them all."""
    monkeypatch.setattr(embedded, "MOST_ROWS", len(photo_store) // 2)
    page = report.write_report(photo_store.reader, bird, "category=bird", tmp_path / "b.html").read_text()
    (panel,) = data_in(page)["panels"]
    scores, _ = map(array_in, panel["score"]["arrays"])
    everyone = np.sort(photo_store.scores("bird")[0])[::-1]
    assert len(scores) == panel["score"]["result"]["n"] <= len(photo_store) // 2
    assert scores.tolist() == everyone[:: len(everyone) // len(scores)].tolist()
    (doubt,) = panel["score"]["result"]["doubts"]
    assert doubt.startswith(f"of {len(photo_store):,} rows one in ")
    assert f"<td>{int((everyone > bird.threshold).sum())}</td>" in page


def test_the_table_has_both_sides_of_the_chosen_threshold(
    photo_store: EmbedStore, bird: Classifier, tmp_path: Path
) -> None:
    """Some thresholds below the chosen one, some above, ascending, with the library's figures."""
    page = report.write_report(photo_store.reader, bird, "category=bird", tmp_path / "b.html").read_text()
    section = page[page.index('aria-label="thresholds"') :]
    lines = re.findall(r"<tr( class=chosen)?><td>([^<]*)</td><td>([^<]*)</td>", section[: section.index("</table>")])
    chosen = [number for number, line in enumerate(lines) if line[0]]
    assert len(chosen) == 1
    assert min(chosen[0], len(lines) - 1 - chosen[0]) >= 4
    shown = [float(line[1]) for line in lines]
    assert shown == sorted(shown)
    assert shown[chosen[0]] == pytest.approx(bird.threshold, abs=5e-5)
    assert int(lines[chosen[0]][2]) == photo_store.reader.count("bird", bird.threshold)


@pytest.mark.parametrize(("cut", "last"), [(0, 10), (10, 10), (5, 10), (1, 2), (0, 1), (400, 1000)])
def test_cuts_around_one(cut: int, last: int) -> None:
    """They lie within what there is, on both sides where there are two, the next ones among them."""
    found = report.around(cut, last)
    assert found <= set(range(last + 1)) - {cut}
    assert (cut == 0) or cut - 1 in found
    assert (cut >= last - 1) or cut + 1 in found
    assert len(found) <= 12


def test_texts_of_others_end_no_script(tmp_path: Path) -> None:
    """Values, names and queries of users stay text, in the data and in the page."""
    evil = "</script><script>alert(1)</script><!--\u2028<img src=x onerror=alert(2)>'\"&"
    store = scored_store(tmp_path / "s.store", 3, n=60, prevalence=0.4)
    values = store.to_table(["id", "kind"]).to_pylist()
    wicked = EmbedStore.create(tmp_path / "t.store", space="mine", dim=2)
    vectors = store.vectors([row["id"] for row in values])
    table = {
        "id": [f"{row['id']}{evil}" for row in values],
        "kind": [evil if row["kind"] == "yes" else "no" for row in values],
        "vector": pa.array(list(vectors), pa.list_(pa.float32())),
    }
    wicked.add(pa.table(table), embedding_column="vector")
    labels = dict(zip(table["id"], [row["kind"] == "yes" for row in values], strict=True))
    made = wicked.calibrate(QUERY, labels, name="plain", resamples=0)
    page = report.write_report(wicked.reader, made, labels, tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
    assert "\u2028" not in page[page.index("report-data") :]
    assert next(iter(data_in(page)["rows"].values()))["id"].endswith(evil)


def test_the_policy_lets_only_its_own_script_run(photo_store: EmbedStore, bird: Classifier, tmp_path: Path) -> None:
    """The hashes are those of the script and the style; nothing may be fetched."""
    page = report.write_report(photo_store.reader, bird, "category=bird", tmp_path / "b.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1]
    assert "connect-src" not in policy[1]
    for pattern, kind in (
        (r'<script type="module">(.*?)</script>', "script-src"),
        (r"<style>(.*?)</style>", "style-src"),
    ):
        (content,) = re.findall(pattern, page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy[1]


@pytest.fixture(scope="module")
def written(photo_store: EmbedStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Classifier]:
    """A report, and the classifier that it is about."""
    classifier = photo_store.calibrate("bird", "category=bird", name="bird", resamples=0)
    file = tmp_path_factory.mktemp("report") / "bird.html"
    return report.write_report(photo_store.reader, classifier, "category=bird", file), classifier


@contextmanager
def shown(browser: Browser, file: Path, **options: Any) -> Iterator[Page]:
    """Open a report without any server; it fails when anything but the file itself, and what it holds, is asked for."""
    with watched(browser, **options) as (page, watch):
        page.goto(file.as_uri())
        yield page
        assert [url for url in watch.requests if not url.startswith(("data:", "blob:"))] == [file.as_uri()]


def test_the_slider_moves_the_figures(
    photo_store: EmbedStore, written: tuple[Path, Classifier], chromium: Browser
) -> None:
    """Counts and figures are the library's at 20 thresholds; nothing is fetched, nothing goes wrong."""
    file, classifier = written
    rows = review.ScoredRows.of(photo_store.reader, classifier, "category=bird")
    curve = precision_recall(rows.scores[rows.labelled.positions], rows.labelled.values)
    with shown(chromium, file) as page:
        place = page.get_by_test_id
        expect(place("threshold-number")).to_have_attribute("data-value", repr(classifier.threshold))
        for threshold in [classifier.threshold, *np.linspace(-0.05, 0.9, 20).tolist()]:
            set_threshold(page, threshold)
            matches = int((rows.scores.astype(np.float64) > threshold).sum())
            expect(place("matches-count")).to_have_attribute("data-value", str(matches))
            at = curve.at(threshold)
            for name in ("precision", "recall", "f1"):
                assert value(place(name)) == pytest.approx(getattr(at, name), abs=1e-12)


def test_rows_and_pictures_are_shown(written: tuple[Path, Classifier], chromium: Browser) -> None:
    """The grid shows pictures from the page itself, and no control of what a report cannot do."""
    with shown(chromium, written[0]) as page:
        expect(page.get_by_test_id("tile").first).to_be_visible()
        page.wait_for_function("document.querySelector('[data-testid=tile] img')?.naturalWidth > 0")
        for chart in ("histogram", "curve"):
            expect(page.get_by_test_id(chart).first).to_be_visible()
        for absent in ("query-input", "label-yes", "calibrate", "save", "export-csv", "refresh", "classifier-item"):
            expect(page.get_by_test_id(absent).filter(visible=True)).to_have_count(0)
        page.get_by_test_id("tile").first.click()
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("details-picture")).to_be_visible()
        expect(page.get_by_test_id("details")).to_contain_text("category")
        expect(page.get_by_test_id("more-like")).to_have_count(0)


def test_of_other_rows_the_score_is_shown_alone(
    photo_store: EmbedStore, bird: Classifier, tmp_path: Path, chromium: Browser
) -> None:
    """Where a report has neither picture nor metadata of a row, it says so in words."""
    file = report.write_report(photo_store.reader, bird, "category=bird", tmp_path / "b.html", thumbnails=0)
    with shown(chromium, file) as page:
        first = page.get_by_test_id("tile").first
        expect(first).to_contain_text("not in this report, which has pictures of some rows only")
        best = float(photo_store.scores("bird")[0].max())
        expect(first).to_contain_text(f"{best:.4f}")
        first.click()
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("details")).to_contain_text("what else is known of this row is not in this report")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_a_report_fits_its_window(written: tuple[Path, Classifier], chromium: Browser, width: int, scheme: str) -> None:
    """Nothing is cut on a phone: the page never scrolls sideways, wide tables do within themselves."""
    with shown(chromium, written[0], viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        expect(page.get_by_test_id("precision")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert audited(page) == []
        for table in page.locator(".scrolled").all():
            wide, inside = table.evaluate("element => [element.scrollWidth, element.clientWidth]")
            assert wide <= inside or table.evaluate("element => getComputedStyle(element).overflowX") == "auto"


def test_a_report_is_read_without_javascript(
    photo_store: EmbedStore, written: tuple[Path, Classifier], chromium: Browser
) -> None:
    """Title, summary, figures, thresholds and the mistakes with their pictures are plain HTML."""
    file, classifier = written
    with shown(chromium, file, java_script_enabled=False) as page:
        text = page.inner_text("body")
        assert "Looks for bird" in text
        assert f"{classifier.target.metrics['f1']:.4f}" in text
        assert "Around the threshold" in text
        assert "false negative" in text
        assert page.locator("ul.pictures img").count() >= 33


def test_classes_are_chosen(photo_store: EmbedStore, tmp_path: Path, chromium: Browser) -> None:
    """A select shows the module of another class."""
    kinds = thresholds.calibrate_classes(
        photo_store.reader, {"bird": "bird", "flower": "flower"}, "category", name="kinds", resamples=0
    )
    file = report.write_report(photo_store.reader, kinds, "category", tmp_path / "kinds.html")
    with shown(chromium, file) as page:
        for label in ("flower", "bird"):
            page.get_by_test_id("report-class").select_option(label)
            target = kinds.targets[kinds.labels.index(label)]
            expect(page.get_by_test_id("threshold-number")).to_have_attribute("data-value", repr(target.threshold))
        assert page.locator(".embedstore").count() == 1
