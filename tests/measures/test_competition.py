"""Several classes decided between by probability, against scikit-learn and against cosines alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from embedstore.errors import InputError, LabelError
from embedstore.measures.competition import Competition, compete, swallowing
from embedstore.measures.rates import ClassCounts

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from measuring.classes import decided

CLASSES = ("ant", "bee", "cow")


def drawn(n: int, seed: int, others: bool = True) -> tuple[np.ndarray, list[str]]:
    """Scores of three queries with offsets and scales of their own, and the true classes."""
    rng = np.random.default_rng(seed)
    names = [*CLASSES, "dew"] if others else [*CLASSES]
    truth = rng.integers(len(names), size=n)
    z = rng.normal(size=(n, 3)) + 2 * (truth[:, np.newaxis] == np.arange(3))
    scores = np.array([0.2, 0.25, 0.22]) + np.array([0.01, 0.02, 0.015]) * z
    return scores.T.astype(np.float32), [names[place] for place in truth]


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_probabilities_equal_scikit_learn(others: bool, weighted: bool) -> None:
    """A softmax of plain coefficients gives what scikit-learn's pipeline of scaler and regression predicts."""
    scores, names = drawn(300, 1, others)
    weight = np.random.default_rng(2).exponential(7, 300) if weighted else None
    made = compete(scores, names, CLASSES, sample_weight=weight)
    scaled = StandardScaler().fit(scores.T.astype(np.float64))
    oracle = LogisticRegression(max_iter=1000).fit(
        scaled.transform(scores.T), names, sample_weight=None if weight is None else weight / weight.mean()
    )
    further = drawn(200, 3, others)[0]
    expected = oracle.predict_proba(scaled.transform(further.T))
    found = made.probabilities(further)
    assert found == pytest.approx(expected[:, :3].T, abs=2e-4)  # both stop iterating a little before the optimum
    assert made.knows_none == others
    decided = [CLASSES[place] if place >= 0 else "dew" for place in made.decide(further).tolist()]
    clear = np.sort(expected, axis=1)[:, -1] - np.sort(expected, axis=1)[:, -2] > 1e-3
    assert (np.array(decided) == oracle.predict(scaled.transform(further.T)))[clear].all()


def test_two_classes_are_one_logistic_curve() -> None:
    """Where there are two classes and nothing else, the probabilities are those of the binary regression."""
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(2, 200)).astype(np.float32)
    names = np.where(scores[0] - scores[1] + rng.normal(size=200) > 0, "yes", "no").tolist()
    made = compete(scores, names, ["yes", "no"])
    scaled = StandardScaler().fit_transform(scores.T.astype(np.float64))
    expected = LogisticRegression().fit(scaled, names).predict_proba(scaled)
    assert made.probabilities(scores) == pytest.approx(expected[:, ::-1].T, abs=2e-4)


def test_the_bits_of_a_row_depend_on_its_scores_alone() -> None:
    """One row, a slice and all rows at once give equal bits; and so does what comes back from JSON."""
    scores, names = drawn(500, 7)
    made = compete(scores, names, CLASSES, abstain_below=0.4)
    whole = made.probabilities(scores)
    assert all((made.probabilities(scores[:, [row]])[:, 0] == whole[:, row]).all() for row in range(500))
    again = Competition.from_dict(json.loads(json.dumps(made.to_dict())), CLASSES)
    assert (again.probabilities(scores) == whole).all()
    assert again.to_dict() == made.to_dict()
    assert made.probabilities(scores[:, :0]).shape == (3, 0)


def test_too_little_probability_abstains() -> None:
    """Below the bound nothing is decided for; with a bound of 0 only where none is the likeliest."""
    scores, names = drawn(400, 9)
    free, bound = (compete(scores, names, CLASSES, abstain_below=least) for least in (0.0, 0.7))
    outcomes = np.vstack([free.probabilities(scores), 1 - free.probabilities(scores).sum(axis=0)])
    likeliest = outcomes.argmax(axis=0)
    assert (free.decide(scores) == np.where(likeliest == 3, -1, likeliest)).all()
    sure = (likeliest < 3) & (outcomes.max(axis=0) >= 0.7)
    assert (bound.decide(scores) == np.where(sure, likeliest, -1)).all()
    assert 0 < sure.sum() < (free.decide(scores) >= 0).sum()
    assert bound.confusion.coverage < free.confusion.coverage


def test_the_figures_are_of_pictures_that_the_fit_has_not_seen() -> None:
    """Where scores mean nothing the figures are chance, also with copies of each picture; told apart, these flatter."""
    grouped, apart, flat = [], [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        truth = np.repeat(rng.permutation(np.arange(15) % 3), 8)  # eight copies each of 15 pictures
        scores = np.repeat(rng.normal(size=(3, 15)), 8, axis=1).astype(np.float32)
        names = [CLASSES[place] for place in truth]
        made = compete(scores, names, CLASSES, np.repeat(np.arange(15), 8), seed=seed)
        grouped.append(made.confusion.accuracy)
        apart.append(compete(scores, names, CLASSES, seed=seed).confusion.accuracy)
        flat.append((made.decide(scores) == truth).mean())
        assert made.validation == "by 5-fold cross-validation"
        assert made.confusion.n == 120
    assert np.mean(grouped) < 0.40
    assert min(np.mean(apart), np.mean(flat)) > 0.5


def test_the_measured_accuracy_is_that_on_further_rows() -> None:
    """Over 40 samples of 120 rows the mean of what is reported is within .02 of the mean on 5,000 further rows."""
    further, truth = drawn(5000, 99)
    told, true = [], []
    for seed in range(40):
        made = compete(*drawn(120, seed), CLASSES)
        told.append(made.confusion.accuracy)
        decided = [CLASSES[place] if place >= 0 else "dew" for place in made.decide(further).tolist()]
        true.append(np.mean(np.array(decided) == np.array(truth)))
    assert np.mean(told) == pytest.approx(np.mean(true), abs=0.02)


def test_rows_of_unknown_picking_are_fitted_and_not_counted() -> None:
    """NaN weights leave the figures to the other rows; when all are NaN there are no figures, and that is said."""
    scores, names = drawn(200, 13)
    weight = np.where(np.arange(200) < 150, 3.0, np.nan)
    made = compete(scores, names, CLASSES, sample_weight=weight)
    assert made.confusion.n == pytest.approx(450)
    plain = compete(scores, names, CLASSES)
    assert made.probabilities(scores) == pytest.approx(plain.probabilities(scores), abs=1e-3)


def test_a_scarce_class_is_dealt_out_and_one_picture_of_each_is_said() -> None:
    """A class of one picture is wrong where it is held out; without two pictures of any class the figures flatter."""
    scores, names = drawn(100, 17, others=False)
    names = ["bee" if name == "cow" else name for name in names]
    names[0] = "cow"
    made = compete(scores, names, CLASSES)
    assert made.confusion.by_class["cow"].tp == 0
    assert made.confusion.n == 100
    few = compete(scores[:, :3], list(CLASSES), CLASSES)
    assert "flatters" in few.validation
    assert any("label more pictures of each" in doubt for doubt in few.doubts)


def test_a_class_that_swallows_the_others_is_named() -> None:
    """More than nine in ten rows matched, less than three in four of them rightly: a sentence with name and shares."""
    assert swallowing("dog", ClassCounts(20, 75, 0, 5)) == (
        "dog matches nearly everything: 95.0% of the labelled rows, 21.1% of them rightly; ask a better query for it"
    )
    assert swallowing("dog", ClassCounts(20, 65, 0, 15)) is None
    assert swallowing("dog", ClassCounts(90, 5, 0, 5)) is None
    assert swallowing("dog", ClassCounts(0, 0, 0, 0)) is None


def test_what_does_not_fit_is_explained() -> None:
    """A class without rows, rows of one class only, wrong shapes and a bound that is no probability."""
    scores, names = drawn(50, 19)
    for match, call in {
        "no labelled row is of the class 'elk'": lambda: compete(scores, names, ("ant", "bee", "elk")),
        r"expected scores of shape \(3, 50\)": lambda: compete(scores[:2], names, CLASSES),
        "all labelled rows are of the class 'ant'": lambda: compete(scores[:1], ["ant"] * 50, ["ant"]),
        "groups: expected one value": lambda: compete(scores, names, CLASSES, [1, 2]),
        "abstain_below must be": lambda: compete(scores, names, CLASSES, abstain_below=1.0),
        "folds must be at least 2": lambda: compete(scores, names, CLASSES, folds=1),
        "expected scores of shape": lambda: compete(scores, names, CLASSES).decide(scores[:2]),
    }.items():
        with pytest.raises((InputError, LabelError), match=match):
            call()


def test_five_overlapping_classes_are_right_in_four_of_five() -> None:
    """Where the highest cosine is right in .72 and the margin over thresholds in .53, probability is in .80."""
    found = [decided(500, np.random.default_rng(seed)) for seed in range(8)]
    seen = {name: np.mean([one[name] for one in found]) for name in found[0]}
    assert seen["cosine"] == pytest.approx(0.72, abs=0.015)
    assert seen["margin"] < 0.6
    assert seen["probability"] >= 0.80
    assert abs(seen["off"]) < 0.02
