"""A classifier's decisions on rows, and how right they are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from embedstore.deciding import evaluation, thresholds
from embedstore.errors import ClassifierError, LabelError
from embedstore.page.report import write_report
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


def test_counts_of_weighted_labels_are_called_estimates(photo_store: EmbedStore, tmp_path: Path) -> None:
    """The table, and that of a report, has "about 13" for a count that weights have made 13.1; no decimals of it."""
    classifier = photo_store.calibrate("bird", "category=bird", name="bird")
    rows = photo_store.to_table(["id", "category"]).slice(0, 120).to_pylist()
    lines = [f"{row['id']},{row['category'] == 'bird'},random,0.3,1\n".lower() for row in rows]
    file = tmp_path / "labels.csv"
    file.write_text("".join(["id,label,picked,probability,round\n", *lines]))
    found = photo_store.evaluate(classifier, str(file))
    figures = found.metrics["bird"]
    assert isinstance(figures.tp, float)
    assert f"about {figures.tp:.0f}  about {figures.fp:.0f}" in str(found)
    assert f"{figures.tp:.4f}" not in str(found)
    page = write_report(photo_store.reader, classifier, str(file), tmp_path / "bird.html").read_text(encoding="utf-8")
    assert f"<td>about {figures.tp:.0f}</td><td>about {figures.fp:.0f}</td>" in page


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


def test_none_is_an_answer(photo_store: EmbedStore) -> None:
    """A row of no class that the classifier knows is right when nothing is predicted for it."""
    queries = {"bird": "bird", "flower": "flower"}
    classifier = thresholds.calibrate_classes(photo_store.reader, queries, "category", name="kinds", resamples=0)
    counted = photo_store.evaluate(classifier, "category").confusion
    assert counted is not None
    truth = photo_store.to_table(["category"]).column("category").to_pylist()
    predicted = classifier.predict(photo_store)
    right = [guess == (name if name in queries else None) for name, guess in zip(truth, predicted, strict=True)]
    assert counted.accuracy == sum(right) / len(right) > 0.9
    assert counted.table().sum() == len(truth)
    assert (
        counted.table()[2, 2]
        == counted.rightly_undecided
        == sum(name not in queries and guess is None for name, guess in zip(truth, predicted, strict=True))
    )
    assert "truth, predicted:  bird  flower  none" in str(counted)


@pytest.mark.parametrize(
    ("labels", "where", "says"),
    [
        ("category=bird", "id < '8'", "not held out: the threshold was chosen on these rows"),
        ("category=bird", "id >= '8'", "held out: the threshold was chosen where id < '8'"),
        (
            "category=bird",
            None,
            "not held out: the threshold was chosen on {shared} of these 242 rows (category=bird where",
        ),
        ("category=flower", "id < '8'", "not held out: the threshold was chosen on these rows"),
    ],
)
def test_an_evaluation_says_whether_its_rows_were_held_out(
    photo_store: EmbedStore, labels: str, where: str | None, says: str
) -> None:
    """By the pictures: the label and the words of the condition may be others."""
    where_was = "id < '8'"
    classifier = photo_store.calibrate("bird", "category=bird", where=where_was, resamples=0)
    report = photo_store.evaluate(classifier, labels, where)
    says = says.format(shared=photo_store.mask(where_was).sum())  # ids are made of the pictures' paths
    assert says in report.held_out
    assert says in str(report).splitlines()[0]
    assert report.n == (len(photo_store) if where is None else photo_store.mask(where).sum())


def test_a_condition_keeps_labels_and_scores(photo_store: EmbedStore) -> None:
    """Figures of sweep, calibration and evaluation are those of the rows that it keeps, whatever form it has."""
    keep = photo_store.mask("id < '8'")
    assert 20 < keep.sum() < len(photo_store) - 20
    scores = photo_store.scores("bird")[0].astype(np.float64)
    labels = np.array(photo_store.to_table(["category"]).column("category").to_pylist()) == "bird"
    for where in ("id < '8'", keep):
        swept = photo_store.sweep("bird", "category=bird", where=where)
        (row,) = swept.table([0.4])
        assert row["matches"] == (scores[keep] > 0.4).sum()
        assert (row["tp"], row["fn"]) == ((scores > 0.4)[keep & labels].sum(), (scores <= 0.4)[keep & labels].sum())
        classifier = photo_store.calibrate("bird", "category=bird", where=where, resamples=0)
        assert (classifier.n, classifier.n_pos) == (keep.sum(), (keep & labels).sum())
        report = photo_store.evaluate(classifier, "category=bird", ~keep)
        assert report.metrics["bird"].tp == (scores > classifier.threshold)[labels & ~keep].sum()
    with pytest.raises(LabelError, match="none of the 242 labelled rows is kept"):
        photo_store.calibrate("bird", "category=bird", where="id < ''")


def test_an_evaluation_knows_copies_of_pictures_elsewhere(photo_store: EmbedStore, tmp_path: Path) -> None:
    """In another store the pictures of the calibration are counted by content; other pictures are held out."""
    classifier = photo_store.calibrate("bird", "category=bird", where="id < '8'", resamples=0)
    uris = photo_store.to_table(["uri"]).column(0).to_pylist()
    other = EmbedStore.create(tmp_path / "o.store", model="objects")
    other.add([{"image": uri, "kind": str(place % 2)} for place, uri in enumerate(uris[:30])])
    keep = photo_store.mask("id < '8'")[:30]
    report = other.evaluate(classifier, "kind=1")
    assert 0 < keep.sum() < 30
    assert report.held_out.startswith(f"not held out: the threshold was chosen on {keep.sum()} of these 30 rows")
    whole = dataclasses.replace(classifier, chosen_on=None)
    assert other.evaluate(whole, "kind=1").held_out == "whether the rows were held out is not known"


def test_columns_say_what_was_decided(photo_store: EmbedStore) -> None:
    """Scores, matches, the class decided for and the probability of the likeliest, in the rows' order."""
    classifier = thresholds.calibrate_classes(
        photo_store.reader, {"bird": "bird", "flower": "flower"}, "category", name="kinds", resamples=0
    )
    table = evaluation.with_columns(photo_store.reader, classifier)
    scores, matched = evaluation.apply(photo_store.reader, classifier)
    probabilities = classifier.probabilities(scores)
    assert table.column("kinds_predicted").to_pylist() == classifier.predict(photo_store)
    assert table.column("kinds_probability").to_pylist() == probabilities.max(axis=0).astype(np.float32).tolist()
    assert table.column("kinds_flower_match").to_pylist() == matched[1].tolist()
    found = evaluation.predict(photo_store.reader, classifier)
    assert found.column_names == ["id", "predicted", "score", "probability", "uri"]
    ids = table.column("id").to_pylist()
    places = [ids.index(one) for one in found.column("id").to_pylist()]
    falling = found.column("probability").to_numpy()
    assert (np.diff(falling) <= 0).all()
    assert falling.tolist() == probabilities.max(axis=0).astype(np.float32)[places].tolist()
    assert len(places) == matched.sum()


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
    decided = str(report).split("decided for one class, or none:\n")[1].splitlines()
    assert decided[1].split()[:2] == ["bird", f"{report.confusion.by_class['bird'].precision:.4f}"]
    heads, bird = [line.split() for line in str(report).splitlines()[1:3]]
    assert heads == ["class", "threshold", "precision", "recall", "F1", "tp", "fp", "fn", "tn"]
    assert bird[:3] == ["bird", f"{classifier.targets[0].threshold:.4f}", f"{report.metrics['bird'].precision:.4f}"]
    one = photo_store.evaluate(photo_store.calibrate("bird", "category=bird", resamples=0), "category=bird")
    assert "confusion" not in one.to_dict()
    assert "distributed as on the" in str(one)
