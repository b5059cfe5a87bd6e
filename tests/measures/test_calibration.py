"""Calibration: held-out figures, intervals that cover what they promise, warnings."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedstore.errors import InputError, LabelError, UnreachableError
from embedstore.measures.calibration import calibrate_scores
from embedstore.measures.choice import choose_threshold
from embedstore.measures.curves import precision_recall
from embedstore.measures.samples import as_sample, holdouts


def draw(seed, n, distance=2.2, positives=0.5):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < positives
    return rng.normal(0.05 + 0.01 * distance * labels, 0.01).astype(np.float32), labels


@pytest.mark.parametrize("repeats", [1, 3])
def test_kfold_figures_are_pooled_from_thresholds_of_the_other_folds(repeats):
    """The counts are the mean, over the partitions, of those of a plain loop; the threshold is that of all rows."""
    scores, labels = draw(2, 157)
    result = calibrate_scores(scores, labels, folds=4, repeats=repeats, seed=7, resamples=0)
    rng, counts = np.random.default_rng(7), []
    for _ in range(repeats):
        parts, _ = holdouts(as_sample(scores, labels, None), "kfold", 4, 0.5, rng)
        predicted = np.zeros(157, dtype=bool)
        for held in parts:
            chosen = choose_threshold(precision_recall(scores[~held], labels[~held]))
            predicted[held] = scores[held].astype(np.float64) > chosen.threshold
        pairs = ((predicted, labels), (predicted, ~labels), (~predicted, labels), (~predicted, ~labels))
        counts.append([(guess & truth).sum() for guess, truth in pairs])
    metrics = result.metrics
    assert [metrics.tp, metrics.fp, metrics.fn, metrics.tn] == pytest.approx(np.mean(counts, axis=0), abs=1e-9)
    assert result.threshold == choose_threshold(precision_recall(scores, labels)).threshold
    assert result.intervals == {}
    assert isinstance(metrics.tp, int) == (repeats == 1)


def test_split_chooses_on_one_half_and_measures_on_the_other():
    """With a split the threshold comes from one part and the figures from the other."""
    scores, labels = draw(3, 300)
    result = calibrate_scores(scores, labels, validation="split", test_fraction=0.5, seed=5, resamples=0)
    (held,), _ = holdouts(as_sample(scores, labels, None), "split", 5, 0.5, np.random.default_rng(5))
    chosen = choose_threshold(precision_recall(scores[~held], labels[~held]))
    assert result.threshold == chosen.threshold
    assert result.metrics == precision_recall(scores[held], labels[held]).at(chosen.threshold)
    assert result.metrics.tp + result.metrics.fn + result.metrics.fp + result.metrics.tn == 150


def test_held_out_figures_do_not_flatter():
    """On noise, the figures on the rows chosen on beat the truth clearly; the held-out ones do not."""
    flattering, honest = [], []
    for seed in range(60):
        scores, labels = draw(seed, 60, distance=0.0)
        options = {"objective": "mcc", "resamples": 0, "seed": seed}
        flattering.append(calibrate_scores(scores, labels, validation="none", **options).metrics.mcc)
        honest.append(calibrate_scores(scores, labels, **options).metrics.mcc)
    assert np.mean(flattering) > 0.15
    assert abs(np.mean(honest)) < 0.08


@pytest.mark.parametrize("validation", ["kfold", "split"])
@pytest.mark.parametrize("copies", [1, 2])
def test_intervals_cover_another_half(validation, copies):
    """In 100 draws the 95 % prediction intervals hold the figures of another sample in 86 and more; F1 is not vague.

    A rate of 95 % gives fewer than 88 with a probability below 1 in 400. Copies of each row do not narrow them.
    """
    covered = {"precision": 0, "recall": 0, "f1": 0}
    widths = []
    for seed in range(100):
        scores, labels = draw(seed, 300)
        mine, other = slice(0, 150), slice(150, 300)
        rows = [np.repeat(column, copies) for column in (scores[mine], labels[mine], np.arange(150))]
        result = calibrate_scores(*rows, validation=validation, resamples=300, seed=seed)
        figures = precision_recall(scores[other], labels[other]).at(result.threshold)
        for name in covered:
            low, high = result.prediction_intervals[name]
            covered[name] += low <= getattr(figures, name) <= high
        widths.append(result.prediction_intervals["f1"][1] - result.prediction_intervals["f1"][0])
    assert min(covered.values()) >= 86, covered
    assert np.mean(widths) < 0.3


def test_copies_do_not_narrow_the_intervals():
    """With four copies of each picture the intervals are as wide as without, not half as wide."""
    scores, labels = draw(12, 300)
    widths = []
    for copies in (1, 4):
        rows = [np.repeat(column, copies) for column in (scores, labels, np.arange(300))]
        intervals = calibrate_scores(*rows, resamples=4000).intervals
        widths.append([high - low for low, high in intervals.values()])
    np.testing.assert_allclose(widths[1], widths[0], rtol=0.12)


def test_seed_decides_everything():
    """Equal seeds give equal calibrations, another seed other intervals."""
    scores, labels = draw(5, 100)
    once, again = (calibrate_scores(scores, labels, seed=3, resamples=200) for _ in range(2))
    assert (once.intervals, once.metrics) == (again.intervals, again.metrics)
    assert calibrate_scores(scores, labels, seed=4, resamples=200).intervals != once.intervals


def test_guarantee_counts_copies_once():
    """Copies of one picture are no evidence: a guarantee that 30 pictures cannot give, 30 x 10 copies cannot."""
    scores = np.repeat(np.arange(60, dtype=np.float32), 10)
    labels = scores >= 30
    assert calibrate_scores(scores, labels, min_precision=0.95, resamples=0).threshold
    with pytest.raises(UnreachableError, match="30 positives"):
        calibrate_scores(scores, labels, groups=scores, min_precision=0.95, resamples=0)


def test_guaranteed_constraint_reports_held_out_figures():
    """A guaranteed precision is kept by the pooled held-out figures, and the threshold has no interval."""
    scores, labels = draw(8, 3000)
    result = calibrate_scores(scores, labels, objective="recall", min_precision=0.9)
    assert result.metrics.precision >= 0.9
    assert set(result.intervals) == {"precision", "recall", "f1"}
    assert result.intervals["precision"][0] > 0.85
    plain = calibrate_scores(scores, labels, objective="recall", min_precision=0.9, guarantee=False)
    assert plain.threshold < result.threshold
    assert "threshold" in plain.intervals


def test_folds_that_cannot_keep_the_constraint_are_said():
    """Where the folds have too few rows for the guarantee that all rows give, a warning says so."""
    scores = np.arange(160, dtype=np.float32)
    labels = scores >= 80  # 72 matches are needed; there are 80 positives, and 64 when a fold is held out
    result = calibrate_scores(scores, labels, min_precision=0.95, resamples=100)
    assert any("flatter" in text for text in result.warnings)


def test_doubts_are_said():
    """Few positives, wide intervals, one score only and validation that was not possible each give a warning."""
    scores, labels = draw(9, 60, positives=0.1)
    few = calibrate_scores(scores, labels)
    assert any("different positives" in text for text in few.warnings)
    assert any("interval of F1 is wide" in text for text in few.warnings)
    constant = calibrate_scores(np.full(80, 0.05, dtype=np.float32), np.arange(80) % 2 == 0)
    assert any("all scores are equal" in text for text in constant.warnings)
    lonely = calibrate_scores([0.1, 0.2, 0.3], [False, False, True])
    assert any("too few rows of one class" in text for text in lonely.warnings)
    every = calibrate_scores([0.1, 0.2, 0.3], [True, True, True])
    assert any("no row is labelled negative" in text for text in every.warnings)
    assert any("they flatter" in text for text in calibrate_scores(scores, labels, validation="none").warnings)
    clear = calibrate_scores(*draw(9, 3000, distance=5))
    assert clear.warnings == () or all("reach the same" in text for text in clear.warnings)


def test_report_names_the_figures():
    """Printing a calibration gives threshold, precision, recall and F1 with intervals, and how they were measured."""
    text = str(calibrate_scores(*draw(1, 200)))
    for part in ("threshold 0.0", "precision 0.", "recall    0.", "f1        0.", "5-fold", "200 rows"):
        assert part in text


def test_calibration_is_plain_json():
    """`to_dict` gives the threshold, the held-out figures and the intervals as JSON values."""
    result = calibrate_scores(*draw(1, 200), min_precision=0.5)
    fields = json.loads(json.dumps(result.to_dict()))
    assert fields["threshold"] == result.threshold
    assert (fields["f1"], fields["tp"]) == (result.metrics.f1, result.metrics.tp)
    assert fields["intervals"]["f1"] == list(result.intervals["f1"])
    assert fields["constraints"] == "precision >= 0.5 (confidence 0.95)"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"labels": [False] * 4}, LabelError, "none of the 4 labels is positive"),
        ({"groups": ["a"]}, InputError, "one value for each of 4 rows"),
        ({"validation": "magic"}, InputError, "validation must be one of"),
        ({"folds": 1}, InputError, "at least 2"),
        ({"validation": "split", "test_fraction": 1}, InputError, "between 0 and 1"),
        ({"confidence": 95}, InputError, "between 0 and 1"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, error, says):
    """Arguments out of range raise an error that says what was expected."""
    given = {"scores": [0.1, 0.2, 0.3, 0.4], "labels": [False, True, False, True], **arguments}
    with pytest.raises(error, match=says):
        calibrate_scores(**given)
