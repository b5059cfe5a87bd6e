"""Rounds of labelling: what is picked, and that weights and random part say of the whole store what is true of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.deciding.rounds import GIVEN, NEAR, NO, OPEN, RANDOM, UNSURE, YES, History, Label, pick, random_order
from embedstore.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from measuring import reviews

SCORES = np.random.default_rng(0).normal(0.06, 0.01, 500).astype(np.float32)
IDS = np.array([f"row {number}" for number in range(500)], dtype=object)


def test_a_round_takes_the_nearest_and_the_first_of_a_random_order() -> None:
    """By sorting: the nearest rows are sure, the others are the first in the order, each with k of the rest."""
    order = random_order("bird", 1, IDS)
    positions, picked, probability = pick(SCORES, 0.065, order, 15, 10)
    near = np.argsort(np.abs(SCORES.astype(np.float64) - 0.065), kind="stable")[:15]
    rest = np.setdiff1d(np.arange(500), near)
    assert set(positions[picked == NEAR]) == set(near)
    assert set(positions[picked == RANDOM]) == set(rest[np.argsort(order[rest])[:10]])
    assert (probability[picked == NEAR] == 1).all()
    assert (probability[picked == RANDOM] == 10 / 485).all()
    assert (np.diff(SCORES[positions]) <= 0).all()


def test_labelled_rows_are_left_out_and_picks_repeat_themselves() -> None:
    """The same rows whenever the same is asked; others for another concept or round; none that is labelled."""
    labelled = np.arange(500) % 2 == 0
    first = pick(SCORES, 0.065, random_order("bird", 1, IDS), 5, 10, labelled)[0]
    assert not labelled[first].any()
    assert first.tolist() == pick(SCORES, 0.065, random_order("bird", 1, IDS), 5, 10, labelled)[0].tolist()
    for concept, round_ in (("cat", 1), ("bird", 2)):
        other = pick(SCORES, 0.065, random_order(concept, round_, IDS), 5, 10, labelled)[0]
        assert set(first) != set(other)


def test_few_rows_are_all_taken() -> None:
    """With fewer rows than asked for each comes once, surely; with none left, none; negative numbers are refused."""
    positions, picked, probability = pick([0.1, 0.2, 0.3], 0.2, [2, 0, 1], 2, 20)
    assert sorted(positions.tolist()) == [0, 1, 2]
    assert sorted(picked) == [NEAR, NEAR, RANDOM]
    assert (probability == 1).all()
    assert len(pick([0.1, 0.2], 0.2, [0, 1], 2, 2, [True, True])[0]) == 0
    assert len(pick(SCORES, 0.06, np.arange(500), 0, 0)[0]) == 0
    with pytest.raises(InputError, match="cannot be negative"):
        pick(SCORES, 0.06, np.arange(500), -1)


def test_a_round_of_all_rows_that_there_are_counts() -> None:
    """Where the near rows are all rows nothing is left to chance: each stands for itself, and figures are counts."""
    positions, picked, probability = pick(SCORES[:6], 0.06, random_order("bird", 1, IDS[:6]), 20, 20)
    assert len(positions) == 6
    assert picked.tolist() == [RANDOM] * 6
    rows = zip(positions.tolist(), picked.tolist(), probability.tolist(), strict=True)
    lines = [Label(IDS[row], YES if row % 2 else NO, how, share, 1, "", "2026-01-01") for row, how, share in rows]
    weighed = History("bird", tuple(lines)).weighed()
    assert weighed.doubts == ()
    assert weighed.weights.tolist() == [1.0] * 6
    assert weighed.random.all()


def test_a_random_order_is_uniform_and_rounds_are_independent() -> None:
    """Over 4,000 concepts every row comes into the first tenth in 10 %, and both rounds' orders in 1 %."""
    ids = IDS[:40]
    first, both = np.zeros(40), np.zeros(40)
    for number in range(4_000):
        places = [np.argsort(np.argsort(random_order(f"c{number}", round_, ids))) < 4 for round_ in (1, 2)]
        first += places[0]
        both += places[0] & places[1]
    assert np.abs(first / 4_000 - 0.1).max() < 4 * np.sqrt(0.09 / 4_000)
    assert np.abs(both / 4_000 - 0.01).max() < 4.5 * np.sqrt(0.0099 / 4_000)


def play(
    concept: str,
    scores: np.ndarray,
    truth: np.ndarray,
    rounds: int,
    threshold: Callable[[np.ndarray, np.ndarray], float],
    n_near: int = 10,
    n_random: int = 10,
) -> History:
    """Label so many rounds as a person would; the threshold of each depends on the labels of those before."""
    history, ids = History(concept, ()), IDS[: len(scores)]
    known = np.zeros(len(scores), np.bool_)
    for number in range(1, rounds + 1):
        order = random_order(concept, number, ids)
        chosen = threshold(scores[known], truth[known])
        positions, picked, probability = pick(scores, chosen, order, n_near, n_random, known)
        lines = [
            Label(ids[row], YES if truth[row] else NO, how, share, number, "", f"2026-01-0{number}")
            for row, how, share in zip(positions.tolist(), picked, probability.tolist(), strict=True)
        ]
        history = History(concept, history.lines + tuple(lines))
        known[positions] = True
    return history


def best_of_f1(scores: np.ndarray, truth: np.ndarray) -> float:
    """The threshold of the best F1 on what is labelled: as dependent on the labels as can be."""
    if not truth.any():
        return 0.6
    cuts = np.sort(scores)
    f1 = [2 * truth[scores >= cut].sum() / ((scores >= cut).sum() + truth.sum()) for cut in cuts]
    return float(cuts[int(np.argmax(f1))])


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_weighted_totals_are_unbiased_also_when_near_rows_depend_on_labels(rounds: int) -> None:
    """Over 1,200 runs the weighted number of rows, of positives and of matches is that of the store, within chance;
    that of the labels as they are is far from it."""
    rng = np.random.default_rng(7)
    truth = rng.random(150) < 0.2
    scores = rng.normal(0.5 + 0.2 * truth, 0.1)
    seen, plain = [], []
    for number in range(1_200):
        history = play(f"concept {number}", scores, truth, rounds, best_of_f1)
        weighed = history.weighed()
        rows = np.array([int(row.split()[1]) for row in history.rows])
        weights = weighed.weights
        hits = truth[rows] & (scores[rows] > 0.62)
        seen.append([weights.sum(), weights[truth[rows]].sum(), weights[hits].sum()])
        plain.append([truth[rows].sum(), hits.sum()])
    means, errors = np.mean(seen, axis=0), np.std(seen, axis=0) / np.sqrt(len(seen))
    assert np.ptp(np.array(seen)[:, 0]) < 1e-6  # the rows of the store are counted without error
    assert means[0] == pytest.approx(150)
    assert abs(means[1] - truth.sum()) < 3.5 * errors[1]
    assert abs(means[2] - (truth & (scores > 0.62)).sum()) < 3.5 * errors[2]
    found, recall = np.sum(plain, axis=0), (truth & (scores > 0.62)).sum() / truth.sum()
    assert abs(found[1] / found[0] - recall) > 0.05


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_random_part_is_a_simple_random_sample(rounds: int) -> None:
    """Over 2,500 runs every row, near the threshold or far, is in it equally often; near rows are among it."""
    rng = np.random.default_rng(8)
    truth = rng.random(60) < 0.3
    scores = rng.normal(0.5 + 0.2 * truth, 0.1)
    counts, sizes, near = np.zeros(60), 0, 0
    for number in range(2_500):
        history = play(f"concept {number}", scores, truth, rounds, best_of_f1, 8, 8)
        weighed = history.weighed()
        rows = np.array([int(row.split()[1]) for row in history.rows])
        counts[rows[weighed.random]] += 1
        sizes += weighed.random.sum()
        near += (history.picked[weighed.random] == NEAR).sum()
    share = sizes / 2_500 / 60
    assert near > 0
    assert share > rounds * 8 / 60
    assert np.abs(counts / 2_500 - share).max() < 4.5 * np.sqrt(share * (1 - share) / 2_500)


def test_a_history_shows_itself_by_its_counts() -> None:
    """At a prompt of Python there are counts and not one line for each label; the last answer of a row counts."""
    lines = [Label("a", NO, NEAR, 1.0, 1), Label("b", UNSURE, RANDOM, 0.1, 1), Label("a", YES), Label("c")]
    assert repr(History("bird", tuple(lines))) == (
        "labels of 'bird': 3 rows, 1 yes, 0 no, 1 that cannot be told, 1 open; picked: 1 given, 1 near, 1 random"
    )
    assert repr(History("bird", ())).endswith("0 rows, 0 yes, 0 no, 0 that cannot be told, 0 open; picked: none")


def test_weights_follow_the_formula() -> None:
    """Written out for two rounds of different size, with rows that were given before, between and after."""
    lines = [Label("a", YES, at="2026-01-01")]
    lines += [Label(f"n{i}", YES, NEAR, 1.0, 1, "", "2026-01-02") for i in range(2)]
    lines += [Label(f"r{i}", NO, RANDOM, 3 / 30, 1, "", "2026-01-02") for i in range(3)]
    lines += [Label("b", NO, at="2026-01-03")]
    lines += [Label("m0", NO, NEAR, 1.0, 2, "", "2026-01-04")]
    lines += [Label("s0", NO, RANDOM, 1 / 25, 2, "", "2026-01-04")]
    lines += [Label("z", NO, at="2026-01-05")]
    history = History("bird", tuple(lines))
    weights = dict(zip(history.rows, history.weighed().weights.tolist(), strict=True))
    one, two = Fraction(3, 4), Fraction(1, 4)
    assert weights.pop("z") != weights.get("z")
    expected = {"a": one + two, "b": two, "m0": two, "s0": two * 25}
    expected |= {f"n{i}": one + two for i in range(2)} | {f"r{i}": one * 10 + two for i in range(3)}
    assert weights == pytest.approx({name: float(value) for name, value in expected.items()})


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12), st.integers(0, 3)), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_weights_are_the_sums_over_rounds_that_are_written_out_here(sizes: list[tuple[int, int, int]]) -> None:
    """For any rounds of near and random rows, with given rows between them, by loops over the definition."""
    rng = np.random.default_rng(len(sizes))
    scores, known, lines = rng.normal(size=90), set(), []
    for number, (n_near, n_random, n_given) in enumerate(sizes, 1):
        for row in rng.choice(90, n_given, replace=False).tolist():
            lines.append(Label(f"row {row}", YES, GIVEN, at=f"{2 * number}"))
            known.add(row)
        done = np.isin(np.arange(90), list(known))
        rows, picked, chance = pick(scores, rng.normal(), random_order("c", number, IDS[:90]), n_near, n_random, done)
        for row, how, share in zip(rows.tolist(), picked, chance.tolist(), strict=True):
            lines.append(Label(f"row {row}", NO, how, share, number, "", f"{2 * number + 1}"))
            known.add(row)
    history = History("c", tuple(lines))
    numbers = range(1, len(sizes) + 1)
    drawn = [sum(line.round == number and line.picked == RANDOM for line in lines) for number in numbers]
    expected = {}
    for row in history.rows:
        own = [line for line in lines if line.row == row]
        weight = 0.0
        for number in numbers:
            if not drawn[number - 1]:
                continue
            share = drawn[number - 1] / sum(drawn)
            mine = [line for line in own if line.round == number]
            before = [line for line in own if line.at < f"{2 * number + 1}"]
            weight += share / mine[0].probability if mine else share if before else 0
        expected[row] = weight or np.nan
    found = dict(zip(history.rows, history.weighed().weights.tolist(), strict=True))
    assert found == pytest.approx(expected, nan_ok=True)
    assert np.nansum(list(found.values())) == pytest.approx(90 if sum(drawn) else 0)


def test_a_round_counts_when_it_is_answered_whole() -> None:
    """An open row holds its round up, and those after it; an answer frees it, also that it cannot be judged."""
    first = tuple(Label(f"r{i}", NO, RANDOM, 0.1, 1, "", "2026-01-01") for i in range(4))
    held = History("bird", (*first, Label("r4", OPEN, RANDOM, 0.1, 1, "", "2026-01-01")))
    weighed = held.weighed()
    assert np.isnan(weighed.weights).all()
    assert not weighed.random.any()
    assert "round 1 does not count yet: 1 row has no answer" in weighed.doubts[0]
    later = History("bird", (*held.lines, Label("s", NO, RANDOM, 0.1, 2, "", "2026-01-02")))
    assert np.isnan(later.weighed().weights).all()
    for answer in (YES, UNSURE):
        whole = History("bird", (*held.lines, Label("r4", answer, RANDOM, 0.1, 1, "", "2026-01-01")))
        assert whole.weighed().weights.tolist() == pytest.approx([10] * 5)
        assert whole.weighed().doubts == ()


def test_rounds_of_another_population_do_not_count() -> None:
    """Those of a store that has grown since, of another condition, and those without random rows."""

    def round_of(number: int, share: float, where: str = "", how: str = RANDOM) -> tuple[Label, ...]:
        return tuple(Label(f"{number} {i}", NO, how, share, number, where, f"2026-01-0{number}") for i in range(4))

    grown = History("bird", round_of(1, 0.1) + round_of(2, 0.05)).weighed()
    assert grown.weights.tolist() == pytest.approx([1] * 4 + [20] * 4)
    assert grown.doubts == ("round 1 counts no more: it was picked of 40 rows, the last of 84",)
    some = History("bird", round_of(1, 0.1, "width > 3"))
    assert np.isnan(some.weighed().weights).all()
    assert some.weighed("width > 3").weights.tolist() == pytest.approx([10] * 4)
    assert np.isnan(History("bird", round_of(1, 1.0, "", NEAR)).weighed().weights).all()


def test_answers_and_picks_of_a_row() -> None:
    """The last answer counts, also over a blank; a row stays what its round made of it; contradictions are counted."""
    lines = (
        Label("a", YES, RANDOM, 0.5, 1, "", "1"),
        Label("b", OPEN, NEAR, 1.0, 1, "", "1"),
        Label("c", YES, GIVEN, at="2"),
        Label("a", NO, GIVEN, at="3"),
        Label("c", OPEN, GIVEN, at="4"),
    )
    history = History("bird", lines)
    assert history.answers.tolist() == [NO, OPEN, YES]
    assert history.picked.tolist() == [RANDOM, NEAR, GIVEN]
    assert (history.contradictions, history.last_round) == (1, 1)


def test_what_is_said_of_reviewed_labels_is_so() -> None:
    """Simulated with known truth: guarantees of reviewed labels hold, figures have no bias, and 40 labels reach 80."""
    cells = {(cell.what, cell.where.split(", ")[0]): cell for cell in reviews.cells(40, 3)}
    assert [cell.where for cell in cells.values() if not cell.holds] == []
    assert cells["reviewed, recall >= 0.8, each row alike", "60+60"].seen > 0.2
    assert cells["reviewed, recall >= 0.8", "60+60 twice"].seen <= 0.05
    assert "40 chosen" in cells["reviewed, recall >= 0.8", "60+60 twice"].where
    assert cells["reviewed, bias of F1, each row alike", "60+60"].seen < -0.1
    assert abs(cells["reviewed, bias of F1", "60+60"].seen) < 0.05
