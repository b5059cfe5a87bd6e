"""A classifier's decisions on rows, and how right they are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedstore.deciding import evaluation, thresholds
from embedstore.errors import ClassifierError
from embedstore.store import EmbedStore


def test_evaluation_on_another_store_says_how_the_scores_differ(photo_store: EmbedStore, store: EmbedStore) -> None:
    """Measured on labels it has not seen, with the shift of the score distribution."""
    classifier = photo_store.calibrate("bird", "category=bird", name="bird")
    there = evaluation.evaluate(store.reader, classifier, "label=cat")
    scores = store.scores("bird")[0].astype(np.float64)
    labels = np.array(store.to_table(["label"]).column("label").to_pylist()) == "cat"
    predicted = scores > classifier.threshold
    figures = there.metrics["bird"]
    assert (figures.tp, figures.fp) == ((predicted & labels).sum(), (predicted & ~labels).sum())
    shift = there.shift["bird"]
    assert shift is not None
    assert shift.n_here == 12
    here = photo_store.evaluate(classifier, "category=bird").shift["bird"]
    assert here is not None
    assert not here.differs


def test_many_classes_decide_for_one_or_abstain(photo_store: EmbedStore) -> None:
    """One query and threshold for each class; the confusion counts add up to the labelled rows."""
    queries = {"bird": "bird", "flower": "flower", "vehicle": ["car", "truck", "airplane"]}
    classifier = thresholds.calibrate_classes(photo_store.reader, queries, "category", name="kinds")
    assert classifier.labels == ("bird", "flower", "vehicle")
    report = photo_store.evaluate(classifier, "category")
    assert report.confusion is not None
    assert report.confusion.n == report.n == len(photo_store)
    scores, matched = evaluation.apply(photo_store.reader, classifier)
    assert scores.shape == matched.shape == (3, len(photo_store))
    assert matched.sum(axis=0).max() == 1
    with pytest.raises(ClassifierError, match="has 3 classes"):
        photo_store.classify(classifier)


def test_an_evaluation_says_who_abstained(photo_store: EmbedStore) -> None:
    """As JSON and as text every labelled row is counted: as decided for a class, or as one for which nothing was."""
    queries = {"bird": "bird", "flower": "flower"}
    classifier = thresholds.calibrate_classes(photo_store.reader, queries, "category", name="kinds")
    report = photo_store.evaluate(classifier, "category")
    assert report.confusion is not None
    fields = json.loads(json.dumps(report.to_dict()))
    assert (fields["classifier"], fields["n"]) == ("kinds", len(photo_store))
    assert fields["metrics"]["bird"] == report.metrics["bird"].to_dict()
    counts = fields["confusion"]
    assert counts["names"] == list(report.confusion.names)
    assert sum(counts["abstained"]) > 0
    assert sum(map(sum, counts["counts"])) + sum(counts["abstained"]) == len(photo_store)
    assert f"decided {report.confusion.coverage:.1%}" in str(report)
    assert f"bird: {report.metrics['bird']}" in str(report)
    one = photo_store.evaluate(photo_store.calibrate("bird", "category=bird", resamples=0), "category=bird")
    assert "confusion" not in one.to_dict()
    assert "distributed as on the" in str(one)
