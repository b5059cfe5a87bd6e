"""The commands that decide: what they print is what the library says, and files come out whole."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from PIL import Image
from scored_stores import QUERY, scored_store

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
    assert "measured by 5-fold cross-validation, 10 times" in shown
    assert "[ ]: 95% confidence: the figures of this threshold over all such rows; the best threshold" in shown
    low, high = kept.target.prediction_intervals["recall"]
    assert re.search(rf"on another sample as large, 95%: precision .*, recall {low:.4f} to {high:.4f}, F1 ", shown)
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


def test_one_of_several_classes_is_shown(calibrated: EmbedStore, tmp_path: Path) -> None:
    """review, plot and report take --class; without it a report goes class by class, the others name them."""
    words = ("--column", "category", "--class", "bird", "--class", "flower", "--name", "kinds")
    assert run("calibrate-classes", calibrated.path, *words).exit_code == 0
    asked = (calibrated.path, "kinds", "--label", "category")
    file = tmp_path / "review.csv"
    assert run("review", *asked, "--class", "flower", "--mistakes", "-o", file).exit_code == 0
    assert {row["predicted"] for row in csv.DictReader(file.open())} <= {"flower", "not flower"}
    assert run("plot", *asked, "--class", "bird", "-o", tmp_path / "a.png").exit_code == 0
    assert "at a time, choose from bird, flower" in run("plot", *asked, "-o", tmp_path / "b.png").stderr
    assert run("report", *asked, "-o", tmp_path / "a.html").exit_code == 0
    page = (tmp_path / "a.html").read_text()
    assert [page.count(f"{head}</h2>") for head in ("<h2>kinds (bird)", "<h2>kinds (flower)")] == [1, 1]
    assert "<h1>kinds</h1>" in page


def test_rank_orders_queries_by_average_precision(photo_store: EmbedStore) -> None:
    """The figures are scikit-learn's, the best first."""
    from sklearn.metrics import average_precision_score

    labels = np.array(photo_store.to_table(["category"]).column("category").to_pylist()) == "bird"
    result = run("rank", photo_store.path, "flower", "bird", "--label", "category=bird", "--json")
    rows = json.loads(result.stdout)
    assert [row["query"] for row in rows] == ["bird", "flower"]
    expected = average_precision_score(labels, photo_store.scores("bird")[0])
    assert rows[0]["average_precision"] == pytest.approx(expected, abs=1e-12)
    shown = run("rank", photo_store.path, "bird", "birds", "flower", "--label", "category=bird")
    head, best, other, last = shown.stdout.splitlines()
    assert head.split() == ["average", "precision", "[", "]", "ROC", "AUC", "best", "F1", "query"]
    assert "not distinguishable" not in best + last
    assert other.endswith("not distinguishable from the best")
    assert "'bird' without the luck of being the best of those tried: average precision 0." in shown.stderr


def test_labels_of_one_class_have_no_roc_auc(photo_store: EmbedStore, tmp_path: Path) -> None:
    """What cannot be told is null in JSON and a sentence on the screen, not a NaN that nothing else reads."""
    ids = photo_store.to_table(["id"]).column("id").to_pylist()[:4]
    file = tmp_path / "all.csv"
    file.write_text("id,label\n" + "".join(f"{row},yes\n" for row in ids), encoding="utf-8")
    ranked = run("rank", photo_store.path, "bird", "flower", "--label", file, "--json")
    assert "NaN" not in ranked.stdout
    assert [row["roc_auc"] for row in json.loads(ranked.stdout)] == [None, None]
    swept = run("sweep", photo_store.path, "bird", "--label", file)
    assert swept.stderr.rstrip().endswith("average precision 1.0000, all labels are of one class")


def test_without_labels_sweep_suggests(photo_store: EmbedStore) -> None:
    """The noise floor and the gap are said on stderr; of what is not there, that nothing stands out."""
    result = run("sweep", photo_store.path, "bird", "--noise")
    swept = photo_store.sweep("bird", noise=True)
    above = swept.distribution.matches(swept.floor)
    assert f"{above} of 242 images score above {swept.floor:.4f}, queries that mean nothing do on at most 1%" in (
        result.stderr
    )
    assert f"{swept.gap.matches} images stand out, score > {swept.gap.threshold:.4f}" in result.stderr
    absent = run("sweep", photo_store.path, "giraffe")
    assert "nothing here stands out: 0 of 242 images score above" in absent.stderr
    assert "<- a gap" not in absent.stdout
    without = run("sweep", photo_store.path, "giraffe", "--no-noise")
    assert "nothing here stands out: no gap near the top is wider than chance makes one" in without.stderr


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
    words = ("review", calibrated.path, "bird", "-o", file, "--sheet", sheet, "--near", 30, "--random", 30)
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


def fill(file: Path, answers: list[str]) -> dict[str, str]:
    """Write answers into the first rows of a review, as a person does, and return them by id."""
    rows = list(csv.DictReader(file.open()))
    for row, answer in zip(rows, answers, strict=False):
        row["label"] = answer
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return {row["id"]: row["label"] for row in rows if row["label"]}


def test_a_second_review_keeps_the_labels(calibrated: EmbedStore, tmp_path: Path) -> None:
    """Run again on the same file, also for other rows: labels stay, and their round; only --force drops them."""
    file = tmp_path / "review.csv"
    words = ("review", calibrated.path, "bird", "-o", file, "--near", 5, "--random", 5)
    assert run(*words).exit_code == 0
    given = fill(file, ["yes", "no", "", "yes"])
    for more in ((), ("--near", 8), ("--mistakes", "--label", "category=bird")):
        result = run(*words, *more)
        assert "3 labels in it were kept" in result.stderr
        assert {row["id"]: row["label"] for row in csv.DictReader(file.open()) if row["label"]} == given
    assert run("calibrate", calibrated.path, "bird", "--label", file, "--no-save").exit_code == 0
    assert "kept" not in run(*words, "--force").stderr
    assert not any(row["label"] for row in csv.DictReader(file.open()))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("report", "STORE", "bird", "--label", "category=bird", "-o"), "a.html"),
        (("plot", "STORE", "bird", "--label", "category=bird", "-o"), "a.png"),
        (("review", "STORE", "bird", "-o"), "a.csv"),
        (("review", "STORE", "bird", "-o", "other.csv", "--near", 1, "--random", 1, "--sheet"), "a.jpg"),
        (("search", "STORE", "bird", "-o"), "a.csv"),
        (("search", "STORE", "bird", "-n", 1, "--sheet"), "a.png"),
        (("sweep", "STORE", "bird", "-o"), "a.json"),
    ],
)
def test_a_file_of_somebody_else_is_not_overwritten(
    calibrated: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], name: str
) -> None:
    """Not one that was there before, nor one of ours that was edited; our own is replaced, and any with --force."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    command = [calibrated.path if word == "STORE" else word for word in words] + [file]
    file.write_text("mine")
    refused = run(*command)
    assert (refused.exit_code, file.read_text()) == (1, "mine")
    assert f"{name} is there already" in refused.stderr
    assert run(*command, "--force").exit_code == 0
    assert run(*command).exit_code == 0
    file.write_bytes(file.read_bytes()[:20] + b"an edit")
    assert run(*command).exit_code == 1


def test_a_useless_classifier_is_said_to_be_one(calibrated: EmbedStore) -> None:
    """The doubts stand in what is printed and in the file; a good query has none; the wrong way round is told."""
    store = calibrated.path
    nonsense = run("calibrate", store, "zebra quux", "--label", "category=flower", "--name", "zebra")
    assert "warning: no better than at random" in nonsense.stdout
    assert "ROC AUC 0." in nonsense.stdout
    assert "warning: no better than matching every row: F1 " in nonsense.stdout
    assert any("no better than matching" in text for text in calibrated.classifier("zebra").warnings)
    assert not any("no better" in text for text in calibrated.classifier("bird").warnings)
    rows = calibrated.to_table(["id", "category"]).to_pylist()
    file = store.parent / "turned.csv"
    file.write_text("id,kind\n" + "".join(f"{row['id']},{'a' if row['category'] == 'bird' else 'b'}\n" for row in rows))
    turned = run("calibrate", store, "bird", "--label", f"{file}:kind=b", "--no-save").stdout
    assert "warning: worse than at random: ROC AUC 0.0" in turned
    assert "ask for 'b', which the positive rows are called, or for 'a photo' against 'bird'" in turned


def test_a_sweep_holds_and_marks_the_best(photo_store: EmbedStore) -> None:
    """With labels the best F1 is a row and marked; without, a gap that stands out and the noise are."""
    swept = photo_store.sweep("bird", "category=bird")
    for n in (2, 5, 20):
        lines = run("sweep", photo_store.path, "bird", "--label", "category=bird", "-n", n).stdout.splitlines()
        (best,) = [line for line in lines if line.endswith("<- best F1")]
        assert best.split()[5] == f"{swept.curve.f1.max():.4f}"
    result = run("sweep", photo_store.path, "bird")
    assert result.stdout.count("<- ") == 2
    assert "<- a gap" in result.stdout
    assert "<- floor of the noise" in result.stdout
    assert "<-" not in run("sweep", photo_store.path, "bird", "--thresholds", "0.1").stdout


def test_ranges_of_thresholds(photo_store: EmbedStore) -> None:
    """START:STOP:STEP are decimal numbers, the last one included, among others."""
    rows = json.loads(run("sweep", photo_store.path, "bird", "--thresholds", "0.1:0.9:0.1,0.95", "--json").stdout)
    assert [row["threshold"] for row in rows] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    for wrong in ("0.1:0.2", "0.2:0.1:0.1", "0:1:0", "0:1:-0.1", "0:inf:1", "0:1:1e-9"):
        result = run("sweep", photo_store.path, "bird", f"--thresholds={wrong}")
        assert result.exit_code == 2
        assert "START:STOP:STEP" in result.stderr


def test_truth_and_prediction_stand_under_heads(calibrated: EmbedStore, tmp_path: Path) -> None:
    """In the review, in what several classes predict, and in an evaluation."""
    file = tmp_path / "mistakes.csv"
    assert run("review", calibrated.path, "bird", "--mistakes", "--label", "category=bird", "-o", file).exit_code == 0
    rows = list(csv.DictReader(file.open()))
    assert {(row["predicted"], row["truth"], row["label"]) for row in rows} == {
        ("bird", "not bird", ""),
        ("not bird", "bird", ""),
    }
    words = ("--column", "category", "--class", "bird", "--class", "flower", "--name", "kinds")
    assert run("calibrate-classes", calibrated.path, *words).exit_code == 0
    lines = run("classify", calibrated.path, "--classifier", "kinds").stdout.splitlines()
    assert lines[0].split() == ["score", "predicted", "probability", "uri"]
    assert float(lines[1].split()[2]) == pytest.approx(1, abs=0.05)
    sure = run("calibrate-classes", calibrated.path, *words, "--abstain-below", "0.9")
    assert "which class: accuracy 0." in sure.stdout
    assert "measured by 5-fold cross-validation" in sure.stdout
    assert "truth, predicted:  bird  flower  none" in sure.stdout
    fewer = run("classify", calibrated.path, "--classifier", "kinds").stdout.splitlines()
    assert 20 < len(fewer) < len(lines)
    assert min(float(line.split()[2]) for line in fewer[1:]) >= 0.9
    shown = run("evaluate", calibrated.path, "kinds", "--label", "category").stdout
    assert "class   threshold  precision" in shown
    assert "truth, predicted:  bird  flower  none" in shown


def test_chosen_here_and_measured_there(calibrated: EmbedStore) -> None:
    """One line each, and the evaluation says that the rows were held out."""
    store = calibrated.path
    words = ("--label", "category=bird", "--where")
    assert run("calibrate", store, "bird", "--name", "half", *words, "id < '8'").exit_code == 0
    there = run("evaluate", store, "half", *words, "id >= '8'").stdout
    assert "held out: the threshold was chosen where id < '8'" in there.splitlines()[0]
    assert "; not held out" in run("evaluate", store, "half", *words, "id < '8'").stdout.splitlines()[0]
    swept = json.loads(run("sweep", store, "bird", *words, "id >= '8'", "--thresholds", "-1", "--json").stdout)
    assert swept[0]["matches"] == calibrated.mask("id >= '8'").sum()


def test_a_classifier_of_another_store_is_looked_up_there(calibrated: EmbedStore, store: EmbedStore) -> None:
    """classify, plot, report and review take --from, as evaluate does; a shift of the scores is told."""
    words = (store.path, "bird", "--from", calibrated.path)
    folder = store.path.parent
    result = run("classify", store.path, "--classifier", "bird", "--from", calibrated.path)
    assert "warning: bird: The scores differ from those of the 242 rows" in result.stderr
    assert f"what to do then: embedstore carry {calibrated.path} bird --to {store.path}" in result.stderr
    assert "differ" not in run("classify", calibrated.path, "--classifier", "bird").stderr
    assert run("review", *words, "-o", folder / "review.csv").exit_code == 0
    for command, name in (("plot", "a.png"), ("report", "a.html")):
        assert run(command, *words, "--label", "label=cat", "-o", folder / name).exit_code == 0
    page = (folder / "a.html").read_text()
    assert "held out: the threshold was chosen on another store" in page
    assert '<meta name="viewport"' in page


def test_any_f_beta_is_an_objective(calibrated: EmbedStore) -> None:
    """It is in the help, and its value is printed with its interval."""
    assert "f3" in run("calibrate", "--help").stdout
    words = ("calibrate", calibrated.path, "bird", "--label", "category=bird", "--objective", "f3")
    shown = run(*words, "--name", "f3").stdout
    kept = calibrated.classifier("f3").target
    assert f"F3        {kept.metrics['f3']:.4f}  [{kept.intervals['f3'][0]:.4f}, " in shown
    counts = {name: kept.metrics[name] for name in ("tp", "fp", "fn")}
    expected = 10 * counts["tp"] / (10 * counts["tp"] + 9 * counts["fn"] + counts["fp"])
    assert kept.metrics["f3"] == pytest.approx(expected, abs=1e-12)


def test_a_label_that_is_neither_yes_nor_no_is_named(calibrated: EmbedStore, tmp_path: Path) -> None:
    """With its value and its line."""
    ids = calibrated.to_table(["id"]).column("id").to_pylist()
    file = tmp_path / "labels.csv"
    file.write_text(f"id,label\n{ids[0]},yes\n{ids[1]},\n{ids[2]},maybe\n")
    result = run("calibrate", calibrated.path, "bird", "--label", file)
    assert result.exit_code == 1
    assert "labels.csv, line 4: label is 'maybe'; expected yes or no" in result.stderr


@pytest.mark.parametrize("kind", ["pr", "roc", "threshold", "histogram", "boundary"])
def test_every_plot_is_drawn(calibrated: EmbedStore, tmp_path: Path, kind: str) -> None:
    """A PNG that is a picture, of a size to look at."""
    file = tmp_path / f"{kind}.png"
    assert run("plot", calibrated.path, "bird", "--label", "category=bird", "--kind", kind, "-o", file).exit_code == 0
    with Image.open(file) as image:
        assert min(image.size) > 400


def test_the_report_stands_alone(calibrated: EmbedStore, tmp_path: Path) -> None:
    """One file with the figures, what draws the curves and the pictures in it; nothing is loaded from elsewhere."""
    file = tmp_path / "bird.html"
    assert run("report", calibrated.path, "bird", "--label", "category=bird", "-o", file).exit_code == 0
    page = file.read_text()
    kept = calibrated.classifier("bird")
    assert f"{kept.targets[0].metrics['f1']:.4f}" in page
    assert "$report_host.start($view.default);" in page
    assert page.count("data:image/jpeg;base64,") >= 32
    assert re.search("(src|href)=.?http", page) is None
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
        (("review", "STORE", "bird", "--mistakes"), 1, "keeps no classifier 'bird'"),
        (("calibrate", "STORE", "bird"), 2, "Missing option '--label': the store has no labels of 'bird'"),
        (("rank", "STORE", "bird"), 2, "Missing option '--label': the store has no labels of 'bird'"),
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


def test_a_classifier_is_carried_to_another_store(tmp_path: Path) -> None:
    """Saved there with the threshold that fits, or a list to label is written; what it says to do next works."""
    home = scored_store(tmp_path / "home.store", seed=1)
    home.save_classifier(home.calibrate(QUERY, "kind=yes", name="it", label="it", resamples=0))
    more = scored_store(tmp_path / "more.store", seed=3, prevalence=0.3)
    words = ("carry", home.path, "it", "--to")
    looked = run(*words, more.path, "--no-save", "--json")
    assert more.classifiers() == []
    threshold = json.loads(looked.stdout)["thresholds"]["it"]
    result = run(*words, more.path)
    assert result.exit_code == 0
    assert "it: The scores differ from those of the 2,000 rows" in result.stdout
    assert "saved there with the new threshold; use it with: embedstore classify" in result.stderr
    assert more.classifier("it").threshold == threshold
    assert run(*words, more.path).exit_code == 0
    assert "warning" not in run("classify", more.path, "--classifier", "it").stderr
    same = scored_store(tmp_path / "same.store", seed=2)
    assert "saved there as it is" in run(*words, same.path).stderr
    moved = scored_store(tmp_path / "moved.store", seed=4, moved=0.5)
    file = tmp_path / "label these.csv"
    listed = run(*words, moved.path, "-o", file)
    assert listed.exit_code == 0
    assert (
        f"40 pictures in {file}: fill in its column label with yes, no or ?, then: embedstore calibrate"
        in listed.stderr
    )
    assert len(list(csv.DictReader(file.open()))) == 40
    assert moved.classifiers() == []


def test_what_a_store_knows_better_is_not_replaced(tmp_path: Path) -> None:
    """A classifier of the same name that was calibrated there stays, unless --force; one's own store is no other."""
    home, other = (scored_store(tmp_path / f"{seed}.store", seed) for seed in (1, 2))
    for store in (home, other):
        store.save_classifier(store.calibrate(QUERY, "kind=yes", name="it", label="it", resamples=0))
    words = ("carry", home.path, "it", "--to")
    refused = run(*words, other.path)
    assert refused.exit_code == 1
    assert "keeps a classifier 'it' that was calibrated there" in refused.stderr
    assert run(*words, other.path, "--no-save").exit_code == 0
    assert other.classifier("it").store_id == other.id
    assert run(*words, other.path, "--force").exit_code == 0
    assert other.classifier("it").store_id == home.id
    itself = run(*words, home.path)
    assert itself.exit_code == 2
    assert "is the store that keeps it; name another with --to" in itself.stderr
