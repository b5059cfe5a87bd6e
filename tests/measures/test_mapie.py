"""A guaranteed precision against MAPIE, which controls the same risk with the same confidence over a grid."""

from __future__ import annotations

import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController

from embedstore.errors import UnreachableError
from embedstore.measures.calibration import calibrate_scores
from embedstore.measures.curves import metrics_at
from embedstore.measures.guarantees import chance_of


def draw(seed, n=1000):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.4
    return 1 / (1 + np.exp(-rng.normal(np.where(labels, 2.0, -1.0), 1.0))), labels


def controlled(scores, labels, **options):
    """Let MAPIE find the thresholds, on a grid, at which precision is at least 0.9 with a confidence of 95 %."""
    controller = BinaryClassificationController(
        predict_function=lambda rows: np.stack([1 - rows[:, 0], rows[:, 0]], axis=1),
        risk="precision",
        target_level=0.9,
        confidence_level=0.95,
        list_predict_params=np.linspace(0.05, 0.99, 48),
        **options,
    )
    return controller.calibrate(scores[:, np.newaxis], labels.astype(int))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(5))
def test_each_test_of_a_threshold_agrees_with_mapie(seed):
    """On the same counts ours is the exact binomial test, MAPIE's a bound of it: never smaller, near each other."""
    scores, labels = draw(seed)
    mapie = controlled(scores, labels)
    at = metrics_at(scores, labels, np.nextafter(np.linspace(0.05, 0.99, 48), 0))  # MAPIE matches at score >= threshold
    ours, theirs = chance_of(at.tp, at.tp + at.fp, 0.9), np.asarray(mapie.p_values).ravel()
    assert (ours <= theirs + 1e-12).all()
    told = (theirs < 0.5) & (ours > 1e-12)
    assert (theirs[told] <= 20 * ours[told] + 0.05).all()
    assert (ours < 0.05).sum() >= (theirs < 0.05).sum() > 0


@pytest.mark.filterwarnings("ignore")
def test_the_guarantee_is_at_least_as_tight_as_mapies():
    """Over 40 draws the guaranteed threshold finds no fewer positives than MAPIE's, and is refused no more often."""
    recalls = {"ours": [], "mapie": []}
    for seed in range(40):
        scores, labels = draw(seed)
        best = controlled(scores, labels).best_predict_param
        recalls["mapie"].append(0.0 if best is None else (scores[labels] >= best).mean())
        try:
            found = calibrate_scores(
                scores, labels, objective="recall", min_precision=0.9, resamples=0, validation="none"
            )
            recalls["ours"].append(found.metrics.recall)
        except UnreachableError:
            recalls["ours"].append(0.0)
    assert np.mean(recalls["ours"]) >= np.mean(recalls["mapie"])
    assert recalls["ours"].count(0.0) <= recalls["mapie"].count(0.0)
    assert np.mean(recalls["mapie"]) > 0.3
