"""From a query to a measured, saved classifier, on real photographs with the bundled model."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from embedstore.deciding import decide, sweeping
from embedstore.deciding.concepts import Concept
from embedstore.deciding.labelling import labels_for
from embedstore.errors import ClassifierError, InputError, LabelError, QueryError, UnreachableError
from embedstore.measures.classifier import Classifier
from embedstore.measures.prompts import combine
from embedstore.searching.queries import Query
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
        assert row["precision"] == pytest.approx(
            sk.precision_score(labels, predicted, zero_division=0), abs=1e-12
        )
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
    stricter = decide.matches(photo_store, again, threshold=0.8)
    assert set(stricter.id) < set(found.id)


def test_a_new_process_decides_the_same_without_model_or_network(store: EmbedStore) -> None:
    """The saved classifier gives the same ids and score bits where no model can be loaded and no socket opened."""
    store.save_classifier(store.calibrate("cat", "label=cat", name="cat", resamples=0, validation="none"))
    expected = store.classify(store.classifier("cat"))
    code = (
        "import sys, json, socket\n"
        "socket.socket.connect = None\n"
        "sys.modules['onnxruntime'] = None\n"
        "from embedstore import EmbedStore\n"
        f"store = EmbedStore.open({str(store.path)!r})\n"
        "found = store.classify(store.classifier('cat'))\n"
        "print(json.dumps([found.id, [score.hex() for score in found.score.tolist()]]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [expected.id, [score.hex() for score in expected.score.tolist()]]


def test_a_classifier_predicts_stores_and_pictures(photo_store: EmbedStore) -> None:
    """`predict` gives a label or None for each row, and the same for the pictures themselves."""
    classifier = photo_store.calibrate("bird", "category=bird", name="bird", resamples=0)
    rows = photo_store.to_table().to_pylist()
    predicted = classifier.predict(photo_store)
    above = photo_store.scores("bird")[0].astype(np.float64) > classifier.threshold
    assert predicted == ["bird" if match else None for match in above]
    paths = [Path(row["uri"]) for row in rows[:12]]
    assert classifier.predict(paths) == predicted[:12]
    assert classifier.predict(paths[0]) == predicted[:1]
    assert classifier.predict(photo_store.scores("bird")) == predicted


def test_evaluation_on_another_store_says_how_the_scores_differ(
    photo_store: EmbedStore, store: EmbedStore
) -> None:
    """Measured on labels it has not seen, with the shift of the score distribution."""
    classifier = photo_store.calibrate("bird", "category=bird", name="bird")
    there = decide.evaluate(store, classifier, "label=cat")
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
    classifier = decide.calibrate_classes(photo_store, queries, "category", name="kinds")
    assert classifier.labels == ("bird", "flower", "vehicle")
    report = photo_store.evaluate(classifier, "category")
    assert report.confusion is not None
    assert report.confusion.n == report.n == len(photo_store)
    scores, matched = decide.apply(photo_store, classifier)
    assert scores.shape == matched.shape == (3, len(photo_store))
    assert matched.sum(axis=0).max() == 1
    with pytest.raises(ClassifierError, match="has 3 classes"):
        photo_store.classify(classifier)


def test_prompts_are_combined_as_they_say(photo_store: EmbedStore) -> None:
    """Ensembles are means, weights weigh, opponents are taken off, each against NumPy."""
    vectors = photo_store.query_vectors(["bird", "a drawing of a bird", "plant"])
    rows = np.array(photo_store.to_table(["embedding"]).column("embedding").to_pylist(), np.float32)
    cases = [
        (Concept.of("bird", template=["{}", "a drawing of a {}"]), np.vecdot(rows, combine(vectors[:2]))),
        (
            Concept.of(["bird", "plant"], weights=[1, -0.5]),
            np.vecdot(rows, combine(vectors[[0, 2]], [1, -0.5])),
        ),
        (Concept.of("bird", opposing="plant"), np.vecdot(rows, vectors[0]) - np.vecdot(rows, vectors[2])),
        (Concept.of("bird"), np.vecdot(rows, vectors[0])),
    ]
    for concept, expected in cases:
        assert np.array_equal(sweeping.concept_scores(photo_store, concept), expected), concept.label
    mixed = Concept.of([Query.text("bird"), vectors[2]], weights=[2, 1])
    assert mixed.words["weights"] == (2, 1)


def test_labels_come_in_every_form(store: EmbedStore, tmp_path: Path) -> None:
    """A column, a file by id or path, a mapping and an array name the same rows."""
    rows = store.to_table().to_pylist()
    expected = [row["label"] == "cat" for row in rows]
    forms: list[object] = [
        "label=cat",
        {row["id"]: row["label"] == "cat" for row in rows},
        expected,
        np.array(expected),
    ]
    for key, head in (("id", "id"), ("uri", "path")):
        file = tmp_path / f"{key}.csv"
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows(
                [
                    [head, "label", "kind"],
                    *([r[key], "yes" if r["label"] == "cat" else "no", r["label"]] for r in reversed(rows)),
                ]
            )
        forms += [str(file), file, f"{file}:kind=cat"]
    for form in forms:
        found = labels_for(store.rows, form)
        assert found.positions.tolist() == list(range(12))
        assert found.values.tolist() == expected
    partial = [None, *expected[1:]]
    assert labels_for(store.rows, partial).positions.tolist() == list(range(1, 12))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("label=bird", "no row has label=bird; the values are cat, dog"),
        ("colour=red", "neither a file nor a column"),
        ("label", "expected true and false"),
        ([True], "1 labels for 12 rows"),
        ({"nobody": True}, "not in the store; the first is 'nobody'"),
        ("missing.csv", "missing.csv"),
        ([None] * 12, "no row has a label"),
    ],
)
def test_labels_that_do_not_fit_are_refused(store: EmbedStore, labels: object, says: str) -> None:
    """Each says what was found and what was expected."""
    with pytest.raises(LabelError, match=says):
        store.calibrate("cat", labels)


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
    with pytest.raises(QueryError, match="2 weights for 1 queries"):
        photo_store.calibrate("bird", "category=bird", weights=[1, 2])
    other = EmbedStore.create(tmp_path / "o.store", space="own", dim=3)
    with pytest.raises(ClassifierError, match="own"):
        other.classify(photo_store.calibrate("bird", "category=bird", resamples=0))


def test_nonsense_scores_less_than_birds(photo_store: EmbedStore) -> None:
    """The noise floor lies under the threshold that labels choose."""
    floor = sweeping.noise_floor(photo_store, "bird", share=0.05)
    assert 0 < floor < 1
