"""From a query to a measured, saved classifier, on real photographs with the bundled model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from html_pages import Seen
from sklearn import metrics as sk

from embedstore.deciding import evaluation, thresholds
from embedstore.deciding.classifier import Classifier
from embedstore.errors import ClassifierError, InputError, LabelError, QueryError, UnreachableError
from embedstore.measures.competition import compete
from embedstore.store import EmbedStore


def truth(store: EmbedStore, value: str) -> np.ndarray:
    return np.array(store.to_table(["category"]).column("category").to_pylist()) == value


def test_a_sweep_knows_every_threshold(photo_store: EmbedStore) -> None:
    """Any threshold's figures are scikit-learn's on the same scores."""
    swept = photo_store.sweep("bird", "category=bird")
    scores, labels = photo_store.scores("bird")[0], truth(photo_store, "bird")
    assert np.array_equal(swept.scores, scores)
    for row in swept.table([0.1, 0.3, 0.45, 0.9]):
        predicted = scores.astype(np.float64) > row["threshold"]
        assert row["matches"] == predicted.sum()
        assert row["precision"] == pytest.approx(sk.precision_score(labels, predicted, zero_division=0), abs=1e-12)
        assert row["recall"] == pytest.approx(sk.recall_score(labels, predicted), abs=1e-12)
        assert row["f1"] == pytest.approx(sk.f1_score(labels, predicted), abs=1e-12)
    assert 5 <= len(swept.table(n=12)) <= 12
    assert photo_store.sweep("bird").curve is None


def test_a_calibrated_classifier_is_saved_and_applied_again(photo_store: EmbedStore, tmp_path: Path) -> None:
    """Matches are those above its threshold; figures are held out; the file gives the same back."""
    classifier = photo_store.calibrate("bird", "category=bird", name="bird")
    scores = photo_store.scores("bird")[0].astype(np.float64)
    found = photo_store.classify(classifier)
    assert len(found) == (scores > classifier.threshold).sum()
    assert found.id == photo_store.classify("bird", classifier.threshold).id
    assert classifier.targets[0].metrics["f1"] > 0.85
    assert classifier.store_id == photo_store.id
    again = Classifier.load(classifier.save(tmp_path))
    assert photo_store.classify(again).table == found.table
    stricter = evaluation.matches(photo_store.reader, again, threshold=0.8)
    assert set(stricter.id) < set(found.id)


def test_impossible_wishes_are_said(photo_store: EmbedStore, tmp_path: Path) -> None:
    """A constraint that no threshold keeps, a name that is no name, a classifier that is not there."""
    with pytest.raises(UnreachableError):
        photo_store.calibrate("person", "category=person", min_precision=0.99)
    with pytest.raises(ClassifierError, match="keeps no classifier 'nobody'"):
        photo_store.classifier("nobody")
    with pytest.raises(ClassifierError, match="cannot name a classifier"):
        photo_store.classifier("../../etc")
    with pytest.raises(InputError, match="needs a threshold"):
        photo_store.classify("bird")
    with pytest.raises(QueryError, match="2 weights for 1 query"):
        photo_store.calibrate("bird", "category=bird", weights=[1, 2])
    other = EmbedStore.create(tmp_path / "o.store", space="own", dim=3)
    with pytest.raises(ClassifierError, match="own"):
        other.classify(photo_store.calibrate("bird", "category=bird", resamples=0))


def test_no_class_at_all_is_refused(photo_store: EmbedStore) -> None:
    """A classifier of no classes is an error that says what to give."""
    with pytest.raises(LabelError, match="at least one class to calibrate"):
        thresholds.calibrate_classes(photo_store.reader, {}, "category", name="none")


def test_classes_compete_by_scikit_learn_s_probabilities(photo_store: EmbedStore, tmp_path: Path) -> None:
    """Queries of a store are decided between as by `compete` on their scores; saved, loaded and applied alike."""
    queries = {"bird": "bird", "flower": "flower", "vehicle": "car"}
    made = thresholds.calibrate_classes(photo_store.reader, queries, "category", name="kinds", resamples=0)
    scores = np.stack([photo_store.scores(query)[0] for query in queries.values()])
    names = photo_store.to_table(["category"]).column("category").to_pylist()
    expected = compete(scores, names, list(queries), photo_store.to_table(["content_hash"]).column(0).to_pylist())
    assert made.competition is not None
    assert made.probabilities(scores).tolist() == expected.probabilities(scores).tolist()
    assert made.competition.to_dict() == expected.to_dict()
    assert made.competition.confusion.accuracy > 0.9
    again = Classifier.load(made.save(tmp_path))
    assert again.predict(photo_store) == made.predict(photo_store)
    assert again.of_class("bird").competition is None
    assert (
        again.of_class("bird").match(scores[:1])[0].tolist()
        == (scores[0].astype(float) > made.targets[0].threshold).tolist()
    )
    strict = thresholds.calibrate_classes(
        photo_store.reader, queries, "category", name="kinds", resamples=0, abstain_below=0.99
    )
    decided = np.array([label is not None for label in strict.predict(photo_store)])
    assert (decided == ((made.probabilities(scores).max(axis=0) >= 0.99) & (made.match(scores).any(axis=0)))).all()
    assert 0 < decided.sum() < made.match(scores).sum()


def test_classes_that_were_measured_otherwise_say_so(photo_store: EmbedStore) -> None:
    """A class of three rows has fewer folds than one of many: each is named with its own; equal ones are said once."""
    names = photo_store.to_table(["id", "category"]).to_pylist()
    some = [[row["id"] for row in names if row["category"] == kind] for kind in ("bird", "flower", "vehicle")]
    kept = "id in ({})".format(", ".join(f"'{row}'" for row in some[0][:9] + some[1][:3] + some[2][:9]))
    queries = {"bird": "bird", "flower": "flower"}
    words = {"name": "k", "resamples": 0, "mode": "multi-label"}
    made = thresholds.calibrate_classes(photo_store.reader, queries, "category", where=kept, **words)
    five, three = (f"by {folds}-fold cross-validation, 10 times" for folds in (5, 3))
    assert made.validation == f"bird: {five}; flower: {three}"
    alike = thresholds.calibrate_classes(photo_store.reader, queries, "category", **words)
    assert alike.validation == five


def test_what_classes_cannot_do_is_said(photo_store: EmbedStore) -> None:
    """Abstaining without a competition; labels of the classes alone; a class that matches nearly everything."""
    reader = photo_store.reader
    with pytest.raises(InputError, match="abstain_below is for several classes"):
        thresholds.calibrate_classes(
            reader, {"bird": "bird", "flower": "flower"}, "category", name="k", mode="multi-label", abstain_below=0.5
        )
    only = "category = 'bird' or category = 'flower'"
    queries = {"bird": "banana", "flower": "flower"}
    closed = thresholds.calibrate_classes(reader, queries, "category", name="k", where=only, resamples=0)
    assert not closed.competition.knows_none
    assert any("none of them is never an answer" in text for text in closed.warnings)
    assert None not in closed.predict(photo_store)
    both = thresholds.calibrate_classes(
        reader, queries, "category", name="k", where=only, resamples=0, mode="multi-label", objective="f3"
    )
    assert both.competition is None
    assert any(text.startswith("bird matches nearly everything: ") for text in both.warnings)
    assert any(
        text.startswith("bird matches nearly everything: ")
        for text in photo_store.evaluate(both, "category", only).warnings
    )


def test_nonsense_scores_less_than_birds(photo_store: EmbedStore) -> None:
    """The noise floor lies under the threshold that labels choose."""
    floor = thresholds.noise_floor(photo_store.reader, "bird", share=0.05)
    assert 0 < floor < 1


def test_queries_are_ranked_by_average_precision(photo_store: EmbedStore) -> None:
    """Queries come in the order of scikit-learn's average precision, each with its figures."""
    labels = truth(photo_store, "bird")
    queries = ["flower", "bird", ["bird", "flower"]]
    ranked = thresholds.rank(photo_store.reader, queries, "category=bird")
    assert [row["query"] for row in ranked] == ["bird", "bird + flower", "flower"]
    for row, query in zip(ranked, ("bird", ["bird", "flower"], "flower"), strict=True):
        scores = photo_store.sweep(query).scores
        assert row["average_precision"] == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-12)
        assert row["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
        tried = [sk.f1_score(labels, scores > value, zero_division=0) for value in scores]
        assert row["best_f1"] >= max(tried) - 1e-12
        assert row["low"] <= row["average_precision"] <= row["high"]
        assert row["behind"] == pytest.approx(ranked[0]["average_precision"] - row["average_precision"], abs=1e-12)
    assert [row["as_good"] for row in ranked][::2] == [True, False]
    assert 0.8 < ranked[0]["corrected"] < 1
    assert [row["corrected"] for row in ranked[1:]] == [None, None]
    with pytest.raises(QueryError, match="at least one query"):
        thresholds.rank(photo_store.reader, [], "category=bird")


def test_a_sweep_shows_itself(photo_store: EmbedStore) -> None:
    """As text, as a frame and in a notebook with its curve; the best F1 is that of trying every score."""
    swept = photo_store.sweep("bird <script>", "category=bird")
    labels = truth(photo_store, "bird")
    found = swept.scores > swept.scores[:, np.newaxis]
    best = (2 * (found & labels).sum(1) / (found.sum(1) + labels.sum())).max()
    text = repr(swept)
    assert text.startswith("Sweep of 'bird <script>': 242 rows with scores from ")
    assert f"{labels.sum()} of them yes" in text
    assert f"best F1 {best:.4f} at score > " in text
    head, *lines = text.splitlines()[2:]
    assert head.split() == ["threshold", "matches", "percentile", "precision", "recall", "F1"]
    assert {len(line) for line in lines} == {len(head), len(head) + len("  best F1")}
    assert [line.split()[5] for line in lines if "best F1" in line] == [f"{best:.4f}"]
    threshold = float(text.split("score > ")[1].split("\n")[0])
    frame = swept.to_pandas([threshold])
    assert frame["f1"].iloc[0] == pytest.approx(best, abs=1e-3)
    assert frame.to_dict("records") == swept.table([threshold])
    assert len(swept.to_pandas(n=5)) == len(swept.table(n=5))
    seen = Seen(swept._repr_html_())
    assert seen.open == []
    assert seen.tags.count("svg") == 1
    assert "script" not in seen.tags
    assert "Sweep of 'bird <script>'" in seen.text


def test_a_sweep_without_labels_or_matplotlib_shows_itself(
    photo_store: EmbedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without labels the scores are drawn; without matplotlib the table comes, and how to have the curve."""
    swept = photo_store.sweep("bird")
    assert "no labels\n" in repr(swept)
    assert Seen(swept._repr_html_()).tags.count("svg") == 1
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    seen = Seen(swept._repr_html_())
    assert seen.tags.count("svg") == 0
    assert seen.tags.count("table") == 1
    assert "pip install matplotlib" in seen.text
