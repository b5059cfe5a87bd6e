"""The commands that decide: what they print is what the library says, and files come out whole."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from PIL import Image

from embedstore.deciding import evaluation
from embedstore.store import EmbedStore


@pytest.fixture
def calibrated(photo_store: EmbedStore, tmp_path: Path) -> EmbedStore:
    """A copy of the photo store that keeps the classifier 'bird'."""
    path = shutil.copytree(photo_store.path, tmp_path / "p.store")
    assert run("calibrate", path, "bird", "--label", "category=bird", "--name", "bird").exit_code == 0
    return EmbedStore.open(path)


def test_sweep_prints_the_curves_figures(photo_store: EmbedStore) -> None:
    """Unrounded as JSON, a readable table otherwise, and fewer columns without labels."""
    ask = ("sweep", photo_store.path, "bird", "--label", "category=bird", "--thresholds", "0.3,0.45")
    rows = json.loads(run(*ask, "--json").stdout)
    assert rows == photo_store.sweep("bird", "category=bird").table([0.3, 0.45])
    result = run(*ask)
    assert "threshold  matches  percentile  precision" in result.stdout
    assert "average precision 0.98" in result.stderr
    assert "precision" not in run("sweep", photo_store.path, "bird", "-n", 5).stdout


def test_calibrate_saves_what_classify_applies(calibrated: EmbedStore) -> None:
    """The printed threshold is the saved one; a JSON file works as well as a name."""
    kept = calibrated.classifier("bird")
    shown = run("classifiers", calibrated.path).stdout
    assert f"threshold {kept.threshold:.4f}" in shown
    assert "measured by 5-fold cross-validation" in shown
    expected = calibrated.classify(kept).uri
    assert run("classify", calibrated.path, "--classifier", "bird", "-f").stdout.splitlines() == expected
    file = calibrated.path / "classifiers" / "bird.json"
    assert run("classify", calibrated.path, "--classifier", file, "-f").stdout.splitlines() == expected
    stricter = run("classify", calibrated.path, "--classifier", "bird", "--threshold", 0.8, "-f").stdout.splitlines()
    assert stricter == expected[: len(stricter)]
    assert 0 < len(stricter) < len(expected)
    assert json.loads(run("classifiers", calibrated.path, "bird", "--json").stdout)["classifiers"][0]["name"] == "bird"


def test_prompts_options_reach_the_score(photo_store: EmbedStore) -> None:
    """--template, --also and --against make the concept that the library makes."""
    words = (
        "--template",
        "{}",
        "--template",
        "a {}",
        "--also",
        "penguin",
        "--against",
        "flower",
        "--thresholds",
        "0.1",
    )
    rows = json.loads(run("sweep", photo_store.path, "bird", *words, "--thresholds", "0.1", "--json").stdout)
    swept = photo_store.sweep(["bird", "penguin"], template=["{}", "a {}"], opposing=["flower"])
    assert rows == swept.table([0.1])


def test_several_classes_make_one_classifier(calibrated: EmbedStore) -> None:
    """Each image gets at most one class, the one that the library predicts; evaluate counts them."""
    words = ("--column", "category", "--class", "bird", "--class", "vehicle=a car", "--name", "kinds")
    assert run("calibrate-classes", calibrated.path, *words).exit_code == 0
    rows = json.loads(run("classify", calibrated.path, "--classifier", "kinds", "--json").stdout)
    expected = evaluation.predict(calibrated.reader, calibrated.classifier("kinds"))
    assert [(row["id"], row["predicted"]) for row in rows] == list(
        zip(expected.column("id").to_pylist(), expected.column("predicted").to_pylist(), strict=True)
    )
    assert len({row["id"] for row in rows}) == len(rows) > 30
    sheet = calibrated.path.parent / "kinds.png"
    assert run("classify", calibrated.path, "--classifier", "kinds", "--sheet", sheet, "-q").stdout == ""
    with Image.open(sheet) as image:
        assert image.width > 1600
    result = json.loads(run("evaluate", calibrated.path, "kinds", "--label", "category", "--json").stdout)
    decided, abstained = sum(map(sum, result["confusion"]["counts"])), sum(result["confusion"]["abstained"])
    assert (decided, decided + abstained, result["n"]) == (len(rows), len(calibrated), len(calibrated))


def test_rank_orders_queries_by_average_precision(photo_store: EmbedStore) -> None:
    """The figures are scikit-learn's, the best first."""
    from sklearn.metrics import average_precision_score

    labels = np.array(photo_store.to_table(["category"]).column("category").to_pylist()) == "bird"
    result = run("rank", photo_store.path, "flower", "bird", "--label", "category=bird", "--json")
    rows = json.loads(result.stdout)
    assert [row["query"] for row in rows] == ["bird", "flower"]
    expected = average_precision_score(labels, photo_store.scores("bird")[0])
    assert rows[0]["average_precision"] == pytest.approx(expected, abs=1e-12)


def test_without_labels_sweep_suggests(photo_store: EmbedStore) -> None:
    """The gap and the noise floor are said on stderr."""
    result = run("sweep", photo_store.path, "bird", "--noise")
    assert "the widest gap for its rank is at score >" in result.stderr
    assert "queries that mean nothing exceed" in result.stderr


def test_evaluate_measures_on_another_store(calibrated: EmbedStore, store: EmbedStore) -> None:
    """The counts are those of the rows above the threshold, and the shift is told."""
    result = run("evaluate", store.path, "bird", "--from", calibrated.path, "--label", "label=cat", "--json")
    figures = json.loads(result.stdout)["metrics"]["bird"]
    scores = store.scores("bird")[0].astype(np.float64)
    assert figures["tp"] + figures["fp"] == (scores > calibrated.classifier("bird").threshold).sum()
    assert "12 rows" in run("evaluate", store.path, "bird", "--from", calibrated.path, "--label", "label=cat").stdout


def test_a_review_goes_out_and_comes_back_as_labels(calibrated: EmbedStore, tmp_path: Path) -> None:
    """What a person writes into the CSV calibrates again; rows with labels are not asked for twice."""
    file, sheet = tmp_path / "review.csv", tmp_path / "review.png"
    words = ("review", calibrated.path, "bird", "-o", file, "--sheet", sheet, "--near", 30, "--spread", 30)
    assert run(*words).exit_code == 0
    rows = list(csv.DictReader(file.open()))
    assert len(rows) == 60
    with Image.open(sheet) as image:
        assert image.width > 1000
    for row in rows:
        row["label"] = "yes" if "/bird/" in row["uri"] else "no"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert run("calibrate", calibrated.path, "bird", "--label", file, "--name", "again").exit_code == 0
    again = calibrated.classifier("again")
    assert again.n == 60
    assert again.n_pos == sum(row["label"] == "yes" for row in rows)
    second = tmp_path / "second.csv"
    assert run("review", calibrated.path, "again", "--label", file, "-o", second).exit_code == 0
    assert not {row["id"] for row in rows} & {row["id"] for row in csv.DictReader(second.open())}


def test_mistakes_are_the_false_positives_and_negatives(calibrated: EmbedStore, tmp_path: Path) -> None:
    """Every wrong row, and no other."""
    file = tmp_path / "mistakes.csv"
    words = ("review", calibrated.path, "bird", "--mistakes", "--label", "category=bird", "-o", file)
    assert run(*words).exit_code == 0
    threshold = calibrated.classifier("bird").threshold
    labels = np.array(calibrated.to_table(["category"]).column("category").to_pylist()) == "bird"
    wrong = (calibrated.scores("bird")[0].astype(np.float64) > threshold) != labels
    ids = np.array(calibrated.to_table(["id"]).column("id").to_pylist())
    assert {row["id"] for row in csv.DictReader(file.open())} == set(ids[wrong])


@pytest.mark.parametrize("kind", ["pr", "roc", "threshold", "histogram", "boundary"])
def test_every_plot_is_drawn(calibrated: EmbedStore, tmp_path: Path, kind: str) -> None:
    """A PNG that is a picture, of a size to look at."""
    file = tmp_path / f"{kind}.png"
    assert run("plot", calibrated.path, "bird", "--label", "category=bird", "--kind", kind, "-o", file).exit_code == 0
    with Image.open(file) as image:
        assert min(image.size) > 400


def test_the_report_stands_alone(calibrated: EmbedStore, tmp_path: Path) -> None:
    """One file with the figures, four curves and the pictures in it; nothing is loaded from elsewhere."""
    file = tmp_path / "bird.html"
    assert run("report", calibrated.path, "bird", "--label", "category=bird", "-o", file).exit_code == 0
    page = file.read_text()
    kept = calibrated.classifier("bird")
    assert f"{kept.targets[0].metrics['f1']:.4f}" in page
    assert page.count("<svg") == 4
    assert page.count("data:image/jpeg;base64,") >= 32
    assert "src='http" not in page
    assert "false positives</h2>" in page


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("classify", "STORE"), 2, "ask with one of"),
        (("classify", "STORE", "bird"), 2, "decide by --threshold or by --classifier"),
        (("classify", "STORE", "bird", "--classifier", "bird"), 2, "a classifier has its own query"),
        (("classify", "STORE", "--classifier", "none"), 1, "keeps no classifier 'none'; it keeps none yet"),
        (("calibrate", "STORE", "bird", "--label", "kind=bird"), 1, "neither a file nor a column"),
        (("calibrate", "STORE", "bird", "--label", "category=bird", "--objective", "f3.x"), 1, "f3.x"),
        (
            ("calibrate", "STORE", "bird", "--label", "category=bird", "--min-precision", "2"),
            2,
            "is not in the range",
        ),
        (
            ("calibrate", "STORE", "bird", "--label", "category=bird", "--min-precision", "0.99"),
            1,
            "no threshold keeps",
        ),
        (("review", "STORE", "bird"), 1, "keeps no classifier 'bird'"),
        (("sweep", "STORE", "bird", "--thresholds", "a,b"), 2, "'a' is no number"),
        (("sweep", "STORE", "bird", "--template", "{} or {}"), 1, "exactly once"),
        (("calibrate", "STORE", "bird", "--label", "category=bird", "--template", "a"), 1, "exactly once"),
        (("review", "STORE", "bird", "--mistakes"), 2, "--mistakes needs --label"),
        (("review", "STORE", "bird", "--sheet", "x.svg"), 2, "should end in one of"),
    ],
)
def test_a_wrong_decision_is_refused_in_one_line(
    photo_store: EmbedStore, words: tuple[str, ...], status: int, says: str
) -> None:
    """1 for an error, 2 for wrong usage, and nothing on stdout."""
    result = run(*(photo_store.path if word == "STORE" else word for word in words))
    assert result.exit_code == status
    assert says in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ("review", "STORE", "bird", "-o", "r.csv", "--sheet", "r.png"),
        ("plot", "STORE", "bird", "--label", "category=bird", "-o", "p.svg"),
        ("report", "STORE", "bird", "--label", "category=bird", "-o", "r.html"),
        ("models",),
        ("versions", "STORE"),
        ("count", "STORE", "bird", "--threshold", "0.4"),
    ],
)
def test_quiet_is_quiet(
    calibrated: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """With -q not a word, and the files are written all the same."""
    monkeypatch.chdir(tmp_path)
    result = run(*(calibrated.path if word == "STORE" else word for word in words), "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    written = {word for word in words if word.startswith(("r.", "p."))}
    assert {path.name for path in tmp_path.iterdir()} == {"p.store", *written}
