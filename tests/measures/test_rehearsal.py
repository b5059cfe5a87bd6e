"""Tried labelling against a plain loop, and against what happens when so many rows are labelled indeed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import UnreachableError
from embedstore.measures.choice import Constraints, Objective, choose_threshold
from embedstore.measures.curves import precision_recall
from embedstore.measures.logistic import MatchCurves
from embedstore.measures.rehearsal import Store, rehearse

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from measuring import plans

NOTHING = (np.empty(0), np.empty(0, np.bool_))
PRECISION = Objective("recall"), Constraints(min_precision=0.8)
RECALL = Objective("precision"), Constraints(min_recall=0.8)


def world(n=3_000, slope=3.0, worlds=120, intercept=-2.0):
    """Scores, and one curve as often as there are worlds: nothing is left open."""
    scores = np.random.default_rng(1).standard_normal(n)
    return scores, MatchCurves(np.full(worlds, intercept), np.full(worlds, slope), np.zeros(worlds), 0.0, 1.0)


def tried(scores, curves, asked, seen=NOTHING, most=1_000, chance=0.8, seed=0):
    store = Store(scores, np.arange(len(scores)), *seen)
    return rehearse(store, curves, *asked, chance, most, np.random.default_rng(seed))


@pytest.mark.parametrize("wishes", [{"min_precision": 0.8}, {"min_recall": 0.8}])
def test_a_chance_is_how_often_a_plain_loop_certifies(wishes):
    """Rows drawn and labelled one try after another, and `choose_threshold` asked: as often, within sampling error."""
    scores, curves = world()
    found = tried(scores, curves, PRECISION if "min_precision" in wishes else RECALL)
    objective = "recall" if "min_precision" in wishes else "precision"
    rng = np.random.default_rng(9)
    for size, chance in list(zip(found.sizes.tolist(), found.chances.tolist(), strict=True))[1:]:
        certified = 0
        for _ in range(120):
            rows = rng.permutation(len(scores))[:size]
            labels = rng.random(size) < 1 / (1 + np.exp(2.0 - 3.0 * scores[rows]))
            try:
                choose_threshold(precision_recall(scores[rows], labels), objective, **wishes)
            except UnreachableError:
                continue
            certified += 1
        assert certified / 120 == pytest.approx(chance, abs=4 * np.sqrt(0.5 / 120) / 2 + 0.02)


@pytest.mark.parametrize("asked", [PRECISION, RECALL])
def test_the_plan_is_the_first_number_that_has_the_chance(asked):
    """All before it have less, it and the next have it; more labels are asked for a greater chance."""
    scores, curves = world()
    found = tried(scores, curves, asked)
    place = found.sizes.tolist().index(found.needed)
    assert (found.chances[:place] < 0.8).all()
    assert (found.chances[place : place + 2] >= 0.8).all()
    assert found.sizes[0] == 0
    assert (np.diff(found.sizes) > 0).all()
    assert tried(scores, curves, asked, chance=0.95).needed > found.needed
    again = tried(scores, curves, asked)
    assert again.needed == found.needed
    assert (again.chances == found.chances).all()


def test_what_scores_do_not_allow_is_not_planned():
    """Scores that mean nothing: no label is tried, and the best precision is the share of matches."""
    scores, curves = world(slope=0.0)
    found = tried(scores, curves, PRECISION)
    assert (found.needed, found.possible, found.kept, found.near) == (None, 0.0, None, None)
    assert found.best_precision == pytest.approx(1 / (1 + np.exp(2.0)))
    assert found.sizes.tolist() == [0]


def test_the_best_precision_is_that_of_the_highest_scores():
    """Of the cuts with enough matches for a certificate, the best mean chance; with a recall, of those that keep it."""
    scores, curves = world()
    chance = np.sort(1 / (1 + np.exp(2.0 - 3.0 * scores)))[::-1]
    precision = chance.cumsum() / np.arange(1, len(chance) + 1)
    recall = chance.cumsum() / chance.sum()
    found = tried(scores, curves, PRECISION, most=10)
    assert found.fewest == 14  # .8 ** 14 < .05 < .8 ** 13
    assert found.best_precision == pytest.approx(precision[found.fewest - 1 :].max(), abs=0.002)
    both = tried(scores, curves, (Objective("f1"), Constraints(min_precision=0.5, min_recall=0.9)), most=10)
    assert both.best_precision == pytest.approx(precision[recall >= 0.9].max(), abs=0.01)


def test_labels_that_certify_already_ask_for_no_more():
    """1,000 known labels that keep the limit: nothing more is needed, in every world."""
    scores, curves = world()
    rng = np.random.default_rng(4)
    seen = scores[:1_000], rng.random(1_000) < curves.chance(scores[:1_000], 0)
    assert precision_recall(*seen).n_pos > 100
    found = tried(scores, curves, PRECISION, seen)
    assert (found.needed, found.sizes.tolist(), found.chances.tolist()) == (0, [0], [1.0])
    assert found.kept is not None


def test_the_guarantee_costs_recall_and_near_labels_certify_less():
    """With it fewer rows match, more of them rightly; half of the labels near the threshold make it less likely."""
    scores, curves = world()
    found = tried(scores, curves, PRECISION)
    assert found.kept is not None
    assert found.bare is not None
    assert found.kept.threshold > found.bare.threshold
    assert found.kept.precision > 0.8
    assert found.kept.recall < found.bare.recall
    assert found.kept.matches < found.bare.matches
    assert found.near is not None
    assert found.near < 0.8
    above = (scores > found.kept.threshold).mean()
    assert found.deciding == pytest.approx(found.needed * above, rel=0.15)


def test_no_more_than_there_are_rows_is_tried():
    """Of a store of 40 rows, 40 labels are the most, and fewer where somebody says so."""
    scores, curves = world(40)
    assert tried(scores, curves, RECALL, chance=0.99).sizes.max() <= 40
    assert tried(scores, curves, RECALL, chance=0.99, most=20).sizes.max() <= 20
    empty = Store(scores, np.empty(0, np.int64), scores, scores > 1)
    done = []
    found = rehearse(empty, curves, *RECALL, 0.8, 100, np.random.default_rng(0), done.append)
    assert found.sizes.tolist() == [0]
    assert done[-1] == 1.0


def test_plans_keep_their_promise():
    """After as many labels as were planned, the limit is certified in 80 % of runs, or more."""
    found = list(plans.cells(draws=60, seed=2))
    assert len(found) == len(plans.PLANS)
    assert [cell for cell in found if not cell.holds] == []
    assert all(cell.draws >= 4 for cell in found)
