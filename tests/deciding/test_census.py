"""How many rows are positive: against the whole truth, against scikit-learn, and in words."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from embedstore.deciding.labels import labels_for
from embedstore.deciding.review import ScoredRows
from embedstore.errors import InputError, LabelError, NoLabelsError
from embedstore.measures.watched import Strata, count_interval, rate_intervals
from embedstore.store import EmbedStore


def truth(store: EmbedStore) -> np.ndarray:
    return np.array(store.to_table(["category"]).column("category").to_pylist()) == "bird"


def some(store: EmbedStore, n: int, seed: int = 1) -> tuple[np.ndarray, dict[str, bool]]:
    """Positions of `n` random rows, and their labels by id; the same pictures in every store of them."""
    by_uri = np.argsort(store.to_table(["uri"]).column("uri").to_numpy())
    rows = by_uri[np.random.default_rng(seed).permutation(len(store))[:n]]
    ids, right = store.to_table(["id"]).column("id").to_pylist(), truth(store)
    return rows, {ids[row]: bool(right[row]) for row in rows.tolist()}


def test_all_labels_leave_nothing_open(photo_store: EmbedStore) -> None:
    """Where every row is labelled the figures are scikit-learn's, the intervals have no width, and no note is made."""
    classifier = photo_store.calibrate("bird", "category=bird")
    found = photo_store.estimate(classifier, "category=bird")
    right, predicted = truth(photo_store), photo_store.scores("bird")[0] > classifier.threshold
    assert (found.positives, found.interval) == (right.sum(), (right.sum(), right.sum()))
    assert found.matches == predicted.sum()
    for name, value in (
        ("precision", sk.precision_score(right, predicted)),
        ("recall", sk.recall_score(right, predicted)),
        ("f1", sk.f1_score(right, predicted)),
    ):
        assert found.figures[name] == pytest.approx(value)
        assert found.intervals[name] == pytest.approx((value, value))
    assert found.notes == ()
    assert "all of them are labelled: these are counts" in str(found)


def test_few_labels_give_an_interval_that_holds_the_truth(photo_store: EmbedStore) -> None:
    """Counts on both sides of the threshold become those of `watched`; figures weigh each side by its rows."""
    rows, labels = some(photo_store, 100)
    right, predicted = truth(photo_store), photo_store.scores("bird")[0] > 0.4
    found = photo_store.estimate("bird", labels, threshold=0.4)
    hits, matched = right[rows], predicted[rows]
    counts = Strata(
        *(int(each.sum()) for each in (hits & matched, ~hits & matched, hits & ~matched, ~hits & ~matched)),
        matches=int(predicted.sum()),
        others=int((~predicted).sum()),
    )
    assert found.intervals == rate_intervals(counts, 0.95)
    assert found.interval == tuple(int(end) for end in count_interval(hits.sum(), 100, len(right), 0.95))
    assert found.interval[0] <= right.sum() <= found.interval[1]
    assert found.positives == pytest.approx(hits.mean() * len(right))
    weights = np.where(matched, predicted.sum() / matched.sum(), (~predicted).sum() / (~matched).sum())
    assert found.figures["f1"] == pytest.approx(sk.f1_score(hits, matched, sample_weight=weights))
    assert found.figures["recall"] == pytest.approx(sk.recall_score(hits, matched, sample_weight=weights))
    for name, (low, high) in found.intervals.items():
        assert low <= found.figures[name] <= high
        narrower = found.narrower["intervals"][name]
        assert narrower[1] - narrower[0] < high - low
    assert found.narrower["n_random"] == 200
    assert "taken for a random sample" in found.notes[0]


def test_without_a_threshold_only_the_count_is_told(photo_store: EmbedStore) -> None:
    """A query alone has no precision; the count and its interval do not depend on a threshold."""
    _, labels = some(photo_store, 60)
    plain, cut = photo_store.estimate("bird", labels), photo_store.estimate("bird", labels, threshold=0.3)
    assert (plain.threshold, plain.matches, plain.figures, plain.intervals) == (None, None, {}, {})
    assert (plain.positives, plain.interval) == (cut.positives, cut.interval)
    assert "about" in str(plain)
    assert "precision" not in str(plain)


def test_a_threshold_that_these_labels_chose_is_said(photo_store: EmbedStore) -> None:
    """It flatters, and a note says so; not for a threshold of one's own, nor where other rows chose it."""
    _, labels = some(photo_store, 60)
    chosen = photo_store.calibrate("bird", "category=bird")
    assert "flatter" in photo_store.estimate(chosen, labels).notes[1]
    assert len(photo_store.estimate(chosen, labels, threshold=0.4).notes) == 1
    elsewhere = photo_store.calibrate("bird", "category=bird", where="content_hash < '8'")
    assert len(photo_store.estimate(elsewhere, labels, where="content_hash >= '8'").notes) == 1


def test_a_condition_keeps_rows_and_labels(photo_store: EmbedStore) -> None:
    """The figures are of the rows that it keeps: all labelled, they are counts of those."""
    found = photo_store.estimate("bird", "category=bird", threshold=0.4, where="content_hash < '8'")
    kept = photo_store.mask("content_hash < '8'")
    assert kept is not None
    assert found.n_rows == kept.sum()
    assert found.positives == (truth(photo_store) & kept).sum()
    assert found.matches == ((photo_store.scores("bird")[0] > 0.4) & kept).sum()


def test_only_random_labels_count(photo_store: EmbedStore, tmp_path: Path) -> None:
    """Of a review's rows, kept by the store, the random part alone is counted; where none is, that is an error."""
    shutil.copytree(photo_store.path, tmp_path / "photos.store")
    store = EmbedStore.open(tmp_path / "photos.store")
    classifier = store.calibrate("bird", "category=bird", name="bird")
    with pytest.raises(NoLabelsError, match="has no labels of 'bird'"):
        store.estimate(classifier)
    ids, right = store.to_table(["id"]).column("id").to_pylist(), truth(store)
    yes = {ids[row] for row in np.flatnonzero(right).tolist()}
    for n_near, n_random in ((15, 0), (15, 40)):
        ScoredRows.of(store.reader, classifier).to_label(n_near, n_random).save_csv(tmp_path / "r.csv", force=True)
        with (tmp_path / "r.csv").open(newline="") as file:
            rows = [{**row, "label": "yes" if row["id"] in yes else "no"} for row in csv.DictReader(file)]
        with (tmp_path / "r.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        store.add_labels(tmp_path / "r.csv")
        if not n_random:
            with pytest.raises(LabelError, match="none of 15 labels is of a random sample"):
                store.estimate(classifier)
    found = store.estimate(classifier, threshold=0.4)
    labelled = labels_for(store.rows, store.labels("bird"))
    assert labelled.random is not None
    assert 40 <= labelled.random.sum() < len(labelled) == 70
    rows = labelled.positions[labelled.random]
    assert (found.n_labelled, found.n_random, found.n_pos) == (70, len(rows), right[rows].sum())
    assert found.interval == tuple(int(end) for end in count_interval(found.n_pos, len(rows), len(right), 0.95))
    assert found.notes == ("round 1 does not count: none of its rows is random",)
    assert str(store.estimate("bird", threshold=0.4)) == str(found)


def test_one_side_without_labels_is_not_made_up(photo_store: EmbedStore) -> None:
    """Where no label lies above the threshold, precision, recall and F1 are unknown, and printed so."""
    scores = photo_store.scores("bird")[0]
    ids = photo_store.to_table(["id"]).column("id").to_pylist()
    labels = {ids[row]: False for row in np.argsort(scores)[:20].tolist()}
    found = photo_store.estimate("bird", labels, threshold=0.4)
    assert found.figures == {}
    assert found.intervals["precision"] == (0.0, 1.0)
    assert "precision ?" in str(found)


def test_it_is_plain_json(photo_store: EmbedStore) -> None:
    """`to_dict` holds what the attributes say."""
    found = photo_store.estimate("bird", some(photo_store, 60)[1], threshold=0.4)
    read = json.loads(json.dumps(found.to_dict()))
    assert read["interval"] == list(found.interval)
    assert read["figures"] == dict(found.figures)
    assert read["narrower"]["intervals"]["f1"] == list(found.narrower["intervals"]["f1"])


def test_what_means_nothing_is_refused(photo_store: EmbedStore) -> None:
    """A threshold that is no number, a confidence of 1, labels of no row."""
    with pytest.raises(InputError, match="NaN"):
        photo_store.estimate("bird", "category=bird", threshold=float("nan"))
    with pytest.raises(InputError, match="confidence must lie between"):
        photo_store.estimate("bird", "category=bird", confidence=1.0)
    with pytest.raises(LabelError):
        photo_store.estimate("bird", {"nobody": True})
