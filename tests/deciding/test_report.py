"""The report of a classifier: one page, from one reading of rows and labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedstore.deciding import report, review, thresholds
from embedstore.deciding.classifier import Classifier
from embedstore.errors import ClassifierError, InputError, PathError
from embedstore.store import EmbedStore
from embedstore.wording import counted


def test_a_report_reads_rows_and_labels_once(
    photo_store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures, boundary and mistakes come from one scoring of the rows and one reading of the labels."""
    classifier = photo_store.calibrate("bird", "category=bird", name="bird")
    calls = []
    for home, name in ((Classifier, "scores_in"), (review, "labels_for")):
        function = getattr(home, name)

        def noted(*words: object, name: str = name, function: object = function) -> object:
            calls.append(name)
            return function(*words)

        monkeypatch.setattr(home, name, noted)
    file = report.write_report(photo_store.reader, classifier, "category=bird", tmp_path / "bird.html")
    assert sorted(calls) == ["labels_for", "scores_in"]
    page = file.read_text(encoding="utf-8")
    target = classifier.target
    low, high = target.intervals["f1"]
    least, most = target.prediction_intervals["f1"]
    ends = f"<td>{low:.4f} to {high:.4f}</td><td>{least:.4f} to {most:.4f}</td>"
    assert f"<td>F1</td><td>{target.metrics['f1']:.4f}</td>{ends}" in page
    assert "<th>95% confidence: over all such rows</th><th>95%: another sample as large</th>" in page
    wrong, missed = review.ScoredRows.of(photo_store.reader, classifier, "category=bird").mistakes()
    assert f"<h2>{counted(len(wrong), 'false positive')}</h2>" in page
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


def test_a_report_goes_class_by_class(photo_store: EmbedStore, tmp_path: Path) -> None:
    """Several classes: their evaluation, then the report of each; or that of the one that is named."""
    queries = {"bird": "bird", "flower": "flower"}
    kinds = thresholds.calibrate_classes(photo_store.reader, queries, "category", name="kinds", resamples=0)
    page = report.write_report(photo_store.reader, kinds, "category", tmp_path / "kinds.html").read_text()
    assert "<h1>kinds</h1><pre>" in page.replace("\n", "")
    assert "truth, predicted:  bird  flower  none" in page
    for label in queries:
        alone = review.ScoredRows.of(photo_store.reader, kinds, "category", label=label)
        assert f"<h1>kinds ({label})</h1>" in page
        wrong, missed = alone.mistakes()
        assert page.count(f"<h2>{counted(len(wrong), 'false positive')}</h2>") >= 1
        assert page.count(f"<h2>{counted(len(missed), 'false negative')}</h2>") >= 1
    assert page.count("<svg") == 8
    one = report.write_report(photo_store.reader, kinds, "category=bird", tmp_path / "a.html", label="bird").read_text()
    assert one.count("<svg") == 4
    with pytest.raises(ClassifierError, match="no class 'fish'; choose from bird, flower"):
        report.write_report(photo_store.reader, kinds, "category", tmp_path / "kinds.html", label="fish")
