"""The page's own numbers, computed by cut.js in a browser, are the library's at any threshold, ties and weights too."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browser import script_page
from playwright.sync_api import Browser, Page

from embedstore.measures.choice import choose_threshold
from embedstore.measures.curves import Curve, precision_recall
from embedstore.measures.distribution import ScoreDistribution

pytest_plugins = ["browser_fixtures"]

RATES = ("precision", "recall", "f1", "tp", "fp", "fn", "tn")
CURVE = """(given) => ({scores: Float64Array.from(given.scores), tp: Float64Array.from(given.tp),
                        fp: Float64Array.from(given.fp), nPos: given.nPos, nNeg: given.nNeg})"""


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Iterator[Page]:
    """A blank page that holds the functions of cut.js as `window.cut`."""
    with script_page(chromium, "cut") as blank:
        yield blank


def in_browser(page: Page, body: str, **given: Any) -> Any:
    """Run the body of a function of `cut` and of what is given (arrays as lists) in the page."""
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in given.items()}
    names = ", ".join(plain)
    return page.evaluate(f"({{{names}}}) => {{ const cut = window.cut; {body} }}", plain)


def sent(curve: Curve) -> dict[str, Any]:
    """Return a curve as the page holds it."""
    arrays = {name: getattr(curve, name).astype(np.float64).tolist() for name in ("scores", "tp", "fp")}
    return {**arrays, "nPos": float(curve.n_pos), "nNeg": float(curve.n_neg)}


def drawn(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Scores, labels and weights of one kind of trouble."""
    random = np.random.default_rng(11)
    scores = random.normal(0.05, 0.01, 700).astype(np.float32)
    labels = random.random(700) < 1 / (1 + np.exp(-(scores - 0.06) / 0.003))
    weights = None
    if kind == "ties":
        scores = np.round(scores, 3)
    elif kind == "adjacent":
        steps = random.integers(0, 40, 700)
        scores = (np.float32(0.05).view(np.int32) + steps).astype(np.int32).view(np.float32)
    elif kind == "yes only":
        labels[:] = True
    elif kind == "no only":
        labels[:] = False
    elif kind == "weights":
        weights = random.choice([0.0, 1.0, 3.7, 41.3], 700)
    elif kind == "one score":
        scores[:] = np.float32(0.07)
    elif kind == "around zero":
        scores -= np.float32(0.05)
        scores[:30] = 0.0
    elif kind == "float64":
        scores = scores.astype(np.float64) + random.random(700) * 1e-12
    elif kind == "few":
        scores, labels = scores[:9], labels[:9]
    return scores, labels, weights


KINDS = ("plain", "ties", "adjacent", "yes only", "no only", "weights", "one score", "around zero", "float64", "few")


def probes(scores: np.ndarray) -> list[float]:
    """Thresholds that hit scores exactly, lie between, beside them in float64, and beyond both ends."""
    distinct = np.unique(scores).astype(np.float64)
    some = distinct[np.linspace(0, len(distinct) - 1, 12).astype(int)]
    between = (distinct[:-1] + distinct[1:])[:: max(1, len(distinct) // 12)] / 2
    beside = np.concatenate([np.nextafter(some[:6], -np.inf), np.nextafter(some[:6], np.inf)])
    ends = [-1.0, 0.0, 1.0, float(distinct[0]) - 1e-9, float(distinct[-1]) + 1e-9]
    return [*some.tolist(), *between.tolist(), *beside.tolist(), *ends]


@pytest.mark.parametrize("kind", KINDS)
def test_matches_and_percentile_are_the_librarys_at_every_threshold(page: Page, kind: str) -> None:
    scores, _, _ = drawn(kind)
    array = "Float64Array" if scores.dtype == np.float64 else "Float32Array"
    thresholds = probes(scores)
    found = in_browser(
        page,
        f"const all = {array}.from(scores);"
        "return thresholds.map((at) => [cut.matchesAt(all, at), cut.percentileAt(all, at)]);",
        scores=-np.sort(-scores),
        thresholds=thresholds,
    )
    library = ScoreDistribution.of(scores)
    assert len(thresholds) >= 20 or kind in ("one score", "few")
    assert [pair[0] for pair in found] == [library.matches(at) for at in thresholds]
    assert [pair[1] for pair in found] == [library.percentile(at) for at in thresholds]


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_the_librarys_to_the_last_bit(page: Page, kind: str) -> None:
    scores, labels, weights = drawn(kind)
    curve = precision_recall(scores, labels, weights)
    thresholds = probes(scores)
    found = in_browser(
        page,
        f"const curve = ({CURVE})(given);"
        "return thresholds.map((at) => [cut.cutOf(curve, at), cut.ratesAt(curve, at)]);",
        given=sent(curve),
        thresholds=thresholds,
    )
    for at, (cut, rates) in zip(thresholds, found, strict=True):
        metrics = curve.at(at)
        assert cut == curve.cut(at)
        assert rates == {name: getattr(metrics, name) for name in RATES}


@pytest.mark.parametrize("kind", KINDS)
def test_the_threshold_of_every_cut_is_the_librarys(page: Page, kind: str) -> None:
    scores, labels, weights = drawn(kind)
    curve = precision_recall(scores, labels, weights)
    found = in_browser(
        page,
        f"const curve = ({CURVE})(given);"
        "return Array.from({length: curve.tp.length}, (_, place) => cut.thresholdOf(curve.scores, place));",
        given=sent(curve),
    )
    assert found == curve.thresholds.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_f1_and_the_lowest_cost_are_those_that_the_library_chooses(page: Page, kind: str) -> None:
    scores, labels, weights = drawn(kind)
    curve = precision_recall(scores, labels, weights)
    costs = [(1, 1), (1, 5), (7, 1), (0.3, 0.1), (1, 0), (0, 1), (2.5, 1000)]
    found = in_browser(
        page,
        f"const curve = ({CURVE})(given);"
        "return [cut.bestF1(curve), ...costs.map(([fp, fn]) => cut.bestCost(curve, fp, fn))];",
        given=sent(curve),
        costs=costs,
    )
    best = curve.at_cut(curve.best_cut)
    assert found[0]["threshold"] == best.threshold
    assert found[0]["f1"] == best.f1
    for (fp, fn), mine in zip(costs, found[1:], strict=True):
        choice = choose_threshold(curve, "cost", cost={"fp": fp, "fn": fn})
        assert mine["threshold"] == choice.threshold
        assert mine["cost"] == pytest.approx(choice.value * curve.n)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tables_thresholds_are_those_that_the_library_tells(page: Page, kind: str) -> None:
    scores, labels, weights = drawn(kind)
    curve = precision_recall(scores, labels, weights)
    body = f"const curve = ({CURVE})(given); return Array.from(cut.telling(curve, n));"
    for n in (5, 20):
        assert in_browser(page, body, given=sent(curve), n=n) == curve.telling(n).tolist()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "float64"])
def test_steps_to_the_neighbour_pass_every_distinct_score_once(page: Page, kind: str) -> None:
    scores, _, _ = drawn(kind)
    distinct = np.unique(scores)
    found = in_browser(
        page,
        """const all = Float32Array.from(scores);
           const up = [-1], down = [1];
           for (let at = cut.neighbour(all, -1, 1); at !== up.at(-1); at = cut.neighbour(all, at, 1)) up.push(at);
           for (let at = cut.neighbour(all, 1, -1); at !== down.at(-1); at = cut.neighbour(all, at, -1)) down.push(at);
           return [up.slice(1), down.slice(1)];""",
        scores=-np.sort(-scores),
    )
    cuts = precision_recall(distinct, distinct > 0).thresholds.tolist()
    assert found == [cuts[1:], cuts[-2::-1]]


def test_a_spelt_threshold_matches_the_same_rows_when_typed_again(page: Page) -> None:
    for kind in ("plain", "ties", "adjacent"):
        scores, labels, _ = drawn(kind)
        thresholds = precision_recall(scores, labels).thresholds
        found = in_browser(
            page,
            "const all = Float32Array.from(scores); return thresholds.map((at) => cut.spelt(all, at));",
            scores=-np.sort(-scores),
            thresholds=thresholds,
        )
        library = ScoreDistribution.of(scores)
        assert [library.matches(float(text)) for text in found] == library.matches(thresholds).tolist()
        assert all(len(text.partition(".")[2]) >= 4 for text in found)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "float64"])
@pytest.mark.parametrize("most", [4, 7, 64, 512])
def test_bins_hold_every_score_once_and_are_as_wide_as_each_other(page: Page, kind: str, most: int) -> None:
    scores, _, _ = drawn(kind)
    found = in_browser(
        page,
        """const {edges, counts, largest} = cut.histogram(Float32Array.from(scores), most);
           return [Array.from(edges), Array.from(counts), largest];""",
        scores=-np.sort(-scores),
        most=most,
    )
    edges, counts = np.array(found[0]), np.array(found[1])
    assert 1 <= len(counts) <= most
    assert len(edges) == len(counts) + 1
    np.testing.assert_allclose(np.diff(edges), edges[1] - edges[0], rtol=1e-6)
    library = ScoreDistribution.of(scores)
    matches = library.matches(edges)
    assert counts.tolist() == (matches[:-1] - matches[1:]).tolist()
    assert counts.max() == found[2]
    assert counts.sum() == len(scores)


def test_a_thinned_curve_keeps_its_ends_its_best_and_its_shape(page: Page) -> None:
    random = np.random.default_rng(5)
    scores = random.normal(0.05, 0.01, 60_000).astype(np.float32)
    labels = random.random(60_000) < 1 / (1 + np.exp(-(scores - 0.07) / 0.004))
    curve = precision_recall(scores, labels)
    body = f"const curve = ({CURVE})(given); return Array.from(cut.thinned(curve, 1000, low, high));"
    kept = np.array(in_browser(page, body, given=sent(curve), low=-1.0, high=1.0))
    assert len(kept) <= 1000
    assert (np.diff(kept) > 0).all()
    assert kept[0] == 0
    assert kept[-1] == len(curve.tp) - 1
    assert curve.best_cut in kept
    # At every threshold the drawn figure is within the width of a few strips of the true one.
    standing = kept[np.searchsorted(kept, np.arange(len(curve.tp)), side="right") - 1]
    told = curve.matches[:-1] > 100  # the last hundred matches make precision jump
    for name in ("precision", "recall", "f1"):
        rate = getattr(curve, name)
        assert np.abs(rate - rate[standing])[:-1][told].max() < 0.03
    part = np.array(in_browser(page, body, given=sent(curve), low=0.06, high=0.08))
    assert len(part) <= 1000
    assert (part[0], part[-1]) == (curve.cut(0.06), curve.cut(0.08))


def test_a_short_curve_is_drawn_whole(page: Page) -> None:
    scores, labels, _ = drawn("few")
    curve = precision_recall(scores, labels)
    body = f"const curve = ({CURVE})(given); return Array.from(cut.thinned(curve, 1000));"
    assert in_browser(page, body, given=sent(curve)) == list(range(len(curve.tp)))
