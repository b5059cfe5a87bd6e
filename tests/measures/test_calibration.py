"""Calibration: held-out figures, intervals that cover what they promise, warnings."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedstore.errors import InputError, LabelError, UnreachableError
from embedstore.measures.calibration import calibrate_scores
from embedstore.measures.choice import choose_threshold
from embedstore.measures.curves import precision_recall
from embedstore.measures.fitted import Population
from embedstore.measures.guarantees import recall_holds
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
    for part in ("threshold 0.0", "precision 0.", "recall    0.", "F1        0.", "5-fold", "200 rows"):
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


def review(seed, n=4000, each=60, near=0.07):
    """Return scores and truth of a store, rows near a threshold and random others, their weights, which are random."""
    scores, truth = draw(seed, n, positives=0.1)
    rng = np.random.default_rng(seed)
    nearest = np.argsort(np.abs(scores - near), kind="stable")[:each]
    others = rng.permutation(np.setdiff1d(np.arange(n), nearest))[:each]
    weights = np.repeat([1.0, (n - each) / each], each)
    return scores, truth, np.concatenate([nearest, others]), weights, np.repeat([False, True], each)


def test_weighted_figures_are_those_of_horvitz_and_thompson():
    """Each fold is decided by a threshold chosen on the expected curve of the others; counts are sums of weights."""
    scores, truth, rows, weights, random = review(1)
    mine, labels = scores[rows], truth[rows]
    options = {"sample_weight": weights, "random": random, "population": scores}
    result = calibrate_scores(mine, labels, **options, folds=4, repeats=2, seed=3, resamples=0)
    everyone, sample = Population.of(scores), as_sample(mine, labels, None, weights, random)
    chosen = everyone.expected_curve(sample)
    assert result.threshold == chosen.thresholds[chosen.best_cut]
    rng, counts = np.random.default_rng(3), []
    for _ in range(2):
        predicted = np.zeros(len(rows), dtype=bool)
        for held in holdouts(sample, "kfold", 4, 0.5, rng)[0]:
            curve = everyone.expected_curve(sample[~held])
            predicted[held] = mine[held].astype(np.float64) > curve.thresholds[curve.best_cut]
        pairs = ((predicted, labels), (predicted, ~labels), (~predicted, labels), (~predicted, ~labels))
        counts.append([weights[guess & side].sum() for guess, side in pairs])
    metrics = result.metrics
    assert [metrics.tp, metrics.fp, metrics.fn, metrics.tn] == pytest.approx(np.mean(counts, axis=0))
    assert metrics.tp + metrics.fp + metrics.fn + metrics.tn == pytest.approx(4000)
    assert result.validation == "by 4-fold cross-validation, 2 times, weighted by how the rows were picked"


def test_weights_take_the_bias_of_a_review_away():
    """Over 40 stores F1 by weights is right to 0.03 on average, and that of the picked rows as they are is far off."""
    errors, plain = [], []
    for seed in range(40):
        scores, truth, rows, weights, random = review(seed, each=200, near=0.08)
        options = {"sample_weight": weights, "random": random, "population": scores}
        result = calibrate_scores(scores[rows], truth[rows], **options, repeats=1, resamples=0, seed=seed)
        actual = precision_recall(scores, truth).at(result.threshold).f1
        errors.append(result.metrics.f1 - actual)
        plain.append(precision_recall(scores[rows], truth[rows]).at(result.threshold).f1 - actual)
    assert abs(np.mean(errors)) < 0.03 < abs(np.mean(plain)) / 2


def test_rows_of_unknown_picking_choose_and_do_not_measure():
    """They move the threshold, are left out of the figures, and where there are no others there are no figures."""
    scores, truth, rows, weights, random = review(2)
    unknown = np.where(random, weights, np.nan)
    options = {"random": random, "population": scores, "resamples": 0}
    result = calibrate_scores(scores[rows], truth[rows], sample_weight=unknown, validation="none", **options)
    both = Population.of(scores).expected_curve(as_sample(scores[rows], truth[rows], None))
    assert result.threshold == both.thresholds[both.best_cut]
    kept = rows[random]
    alone = precision_recall(scores[kept], truth[kept], weights[random]).at(result.threshold)
    assert result.metrics.to_dict() == pytest.approx(alone.to_dict())
    assert "of 60 that is not known, and they are left out" in result.validation
    lost = calibrate_scores(scores[rows], truth[rows], sample_weight=np.full(120, np.nan), population=scores)
    assert (lost.metrics, lost.intervals, lost.figures) == (None, {}, {"threshold": both.thresholds[both.best_cut]})
    assert any("no figures" in text for text in lost.warnings)
    same, halves, unknown = np.tile([0.2, 0.3], 30), np.repeat([0, 1], 30), np.full(60, np.nan)
    nothing = calibrate_scores(same, halves, sample_weight=unknown, population=same)
    assert nothing.ordering.doubt
    assert not any("at random" in text for text in nothing.warnings)
    with pytest.raises(LabelError, match=r"no positive row has a weight above zero.*population"):
        calibrate_scores(same, halves, sample_weight=unknown)
    unknown[30] = 1.0
    for validation in ("kfold", "split"):  # without that row nothing could be chosen, so it cannot be held out
        one = calibrate_scores(same, halves, sample_weight=unknown, validation=validation)
        assert one.validation.startswith("on the rows that it was chosen on (there are too few rows of one class")
    told = {"sample_weight": unknown, "population": same, "validation": "split"}
    halved = [calibrate_scores(same, halves, seed=seed, **told).validation for seed in range(8)]
    assert {how.startswith("on the rows that it was chosen on") for how in halved} == {
        True,
        False,
    }
    json.dumps(lost.to_dict(), allow_nan=False)


def test_a_guarantee_of_reviewed_labels_rests_on_the_random_rows():
    """The threshold keeps what the random rows alone certify; with none of them it is refused."""
    scores, truth, rows, weights, random = review(3, each=400)
    options = {"sample_weight": weights, "population": scores, "objective": "precision", "min_recall": 0.6}
    result = calibrate_scores(scores[rows], truth[rows], random=random, resamples=0, **options)
    kept = rows[random]
    alone = precision_recall(scores[kept], truth[kept])
    certified = recall_holds(alone.tp, 0.6, 0.95)
    assert certified[alone.cut(result.threshold)]
    assert not certified.all()
    assert "the guarantee rests on the 400 rows drawn at random alone" in result.validation
    with pytest.raises(LabelError, match="none of the 800 labelled rows was"):
        calibrate_scores(scores[rows], truth[rows], random=np.zeros(800, dtype=bool), **options)


@pytest.mark.parametrize("seed", range(12))
def test_the_sentence_on_the_measurement_is_true(seed):
    """Figures that are in-sample are said to be, folds that could not be decided are counted, the counts sum to n."""
    rng = np.random.default_rng(seed)
    scores, labels = draw(seed, int(rng.integers(60, 240)), distance=3.0, positives=0.45)
    try:
        result = calibrate_scores(scores, labels, objective="recall", min_precision=0.9, repeats=3, resamples=0, seed=9)
    except UnreachableError:
        return
    rng, counts, done, tried = np.random.default_rng(9), np.zeros(4), 0, 0
    for _ in range(3):
        for held in holdouts(as_sample(scores, labels, None), "kfold", 5, 0.5, rng)[0]:
            tried += 1
            try:
                curve = precision_recall(scores[~held], labels[~held])
                chosen = choose_threshold(curve, "recall", min_precision=0.9).threshold
            except UnreachableError:
                continue
            done += 1
            guess = scores[held].astype(np.float64) > chosen
            counts += np.bincount(2 * ~guess + ~labels[held], minlength=4)
    metrics = result.metrics
    if not done:
        assert result.validation.startswith("on the rows that it was chosen on (without any of the parts")
        assert metrics == precision_recall(scores, labels).at(result.threshold)
        return
    ending = f", in {done} of {tried} folds" if done < tried else ""
    assert result.validation == "by 5-fold cross-validation, 3 times" + ending
    scaled = counts * len(labels) / counts.sum()
    assert [metrics.tp, metrics.fp, metrics.fn, metrics.tn] == pytest.approx(scaled)
    assert any(f"in {tried - done} of {tried} folds" in text for text in result.warnings) == (done < tried)


def test_repeats_steady_the_figures():
    """Over 12 seeds F1 of one partition scatters more than twice as far as that of ten."""
    scores, labels = draw(0, 60, distance=2.0, positives=0.2)
    spread = {}
    for repeats in (1, 10):
        found = [calibrate_scores(scores, labels, repeats=repeats, seed=seed, resamples=0) for seed in range(12)]
        spread[repeats] = np.std([one.metrics.f1 for one in found])
    assert 2 * spread[10] < spread[1]


def test_a_number_of_matches_is_scaled_to_the_part():
    """At most 40 of 200 rows are at most 20 where the threshold is chosen on half of them."""
    scores, labels = draw(6, 200)
    result = calibrate_scores(scores, labels, max_matches=40, objective="recall", validation="split", resamples=0)
    (held,), _ = holdouts(as_sample(scores, labels, None), "split", 5, 0.5, np.random.default_rng(0))
    assert (scores[~held] > result.threshold).sum() <= 20
    assert str(result.choice.constraints) == "at most 40 matches"


def test_a_number_of_matches_is_scaled_where_weights_are_unknown():
    """Rows of unknown weight count nowhere: what they are given is as if they were not there."""
    scores, labels = draw(9, 200)
    weights = np.where(np.arange(200) % 3 == 0, np.nan, np.arange(200) % 5 + 1.0)
    known = np.isfinite(weights)
    wishes = {"max_matches": 100, "objective": "recall", "validation": "split", "resamples": 0}
    result = calibrate_scores(scores, labels, sample_weight=weights, **wishes)
    (held,), _ = holdouts(as_sample(scores, labels, None, weights), "split", 5, 0.5, np.random.default_rng(0))
    chosen = known & ~held
    most = round(100 * weights[chosen].sum() / weights[known].sum())
    matched = chosen & (scores > result.threshold)
    assert weights[matched].sum() <= most
    below = scores[chosen & ~matched].max()
    assert weights[chosen & (scores >= below)].sum() > most


def test_from_too_few_positives_nothing_is_told():
    """From two positives every interval holds all there can be, and the threshold has none."""
    scores = np.linspace(0, 0.1, 50).astype(np.float32)
    result = calibrate_scores(scores, np.arange(50) >= 48, objective="mcc")
    assert result.intervals == result.prediction_intervals
    assert result.intervals == {**dict.fromkeys(("precision", "recall", "f1"), (0.0, 1.0)), "mcc": (-1.0, 1.0)}


def test_labels_that_are_no_random_sample_are_warned_of():
    """With the scores of the store at hand it is said that labels were picked by score."""
    scores, truth, rows, _, random = review(5)
    near, kept = rows[~random], rows[random]
    picked = calibrate_scores(scores[near], truth[near], population=scores, resamples=0)
    fair = calibrate_scores(scores[kept], truth[kept], population=scores, resamples=0)
    assert any("no random sample" in text for text in picked.warnings)
    assert not any("no random sample" in text for text in fair.warnings)
