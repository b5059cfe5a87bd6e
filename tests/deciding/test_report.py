"""The report of a classifier: one page, from one reading of rows and labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedstore.deciding import report, review, thresholds
from embedstore.deciding.classifier import Classifier
from embedstore.errors import ClassifierError, InputError, PathError
from embedstore.store import EmbedStore


def test_a_report_reads_rows_and_labels_once(
    photo_store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures, boundary and mistakes come from one scoring of the rows and one reading of the labels."""
    classifier = photo_store.calibrate("bird", "category=bird", name="bird")
    calls = []
    for home, name in ((Classifier, "scores_in"), (review, "labels_for")):
        function = getattr(home, name)

        def counted(*words: object, name: str = name, function: object = function) -> object:
            calls.append(name)
            return function(*words)

        monkeypatch.setattr(home, name, counted)
    file = report.write_report(photo_store.reader, classifier, "category=bird", tmp_path / "bird.html")
    assert sorted(calls) == ["labels_for", "scores_in"]
    page = file.read_text(encoding="utf-8")
    target = classifier.target
    low, high = target.intervals["f1"]
    assert f"<td>f1</td><td>{target.metrics['f1']:.4f}</td><td>{low:.4f} to {high:.4f}</td>" in page
    wrong, missed = review.ScoredRows.of(photo_store.reader, classifier, "category=bird").mistakes()
    assert f"<h2>{len(wrong)} false positives</h2>" in page
    assert len(missed) == 1
    assert "<h2>1 false negative</h2>" in page


def test_files_are_looked_at_before_any_work(photo_store: EmbedStore, tmp_path: Path) -> None:
    """Report, CSV and sheet refuse other endings and missing folders with the words of the command line."""
    classifier = photo_store.calibrate("bird", "category=bird", resamples=0)
    picked = review.ScoredRows.of(photo_store.reader, classifier).to_label(2, 2)
    for save, right, others in (
        (lambda file: report.write_report(photo_store.reader, classifier, "no labels", file), ".html", ".htm"),
        (picked.save_csv, ".csv", ""),
        (picked.save_sheet, ".png", ".jpg .jpeg"),
    ):
        known = f"one of {right} {others}" if others else right
        with pytest.raises(InputError, match=f"'x.gif' should end in {known}$"):
            save(tmp_path / "x.gif")
        with pytest.raises(PathError, match="no is not there; make it first, or choose another path"):
            save(tmp_path / "no" / f"x{right}")
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_of_one_class(photo_store: EmbedStore, tmp_path: Path) -> None:
    """A classifier of several classes is refused, and nothing is written."""
    queries = {"bird": "bird", "flower": "flower"}
    kinds = thresholds.calibrate_classes(photo_store.reader, queries, "category", name="kinds", resamples=0)
    with pytest.raises(ClassifierError, match="has 2 classes"):
        report.write_report(photo_store.reader, kinds, "category=bird", tmp_path / "kinds.html")
    assert not (tmp_path / "kinds.html").exists()
