"""Saved classifiers: the same decisions to the bit, anywhere, and clear words for files that are none."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from html_pages import NASTY, Seen

from embedstore.deciding.classifier import Classifier, check, check_name
from embedstore.deciding.target import Target
from embedstore.errors import ClassifierError
from embedstore.measures.calibration import calibrate_scores
from embedstore.space import Space
from embedstore.store import EmbedStore
from embedstore.vectors import normalise, scores

GOLDEN = Path(__file__).parents[1] / "golden" / "classifier-v1.json"
GOLDEN_2 = GOLDEN.with_name("classifier-v2.json")


SPACE = Space.given("test-space", 16)


def unit(seed, n, dim=16):
    return normalise(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))


def calibrated(opponents=None):
    rows, query = unit(0, 300), unit(1, 1)
    found = scores(query, rows)[0]
    labels = found + np.random.default_rng(2).normal(0, 0.2, 300) > 0.2
    result = calibrate_scores(found, labels, resamples=50)
    words = {"queries": ("a dog",), "template": "a photo of {}", "opposing": ("cat",)}
    asked = Target("dog", 0.0, query, () if opponents is None else opponents, **words)
    others = result.prediction_intervals
    target = asked.measured(found, labels, result.figures, result.intervals, prediction_intervals=others)
    classifier = Classifier.of("dogs", SPACE, [(target, result)], store_id="store-1", store_version=7)
    return classifier, rows, result


def two_classes(mode):
    vectors = unit(3, 2)
    targets = tuple(
        Target(label, threshold, vector)
        for label, threshold, vector in zip(("cat", "dog"), (0.1, 0.3), vectors, strict=True)
    )
    return Classifier("pets", SPACE, targets, mode)


def test_saved_classifier_matches_to_the_bit_in_a_new_process(tmp_path):
    """A new process that loads the file, and no model, gives the same scores and matches to the bit."""
    classifier, rows, _ = calibrated(unit(5, 2))
    found = classifier.score_rows(rows)
    file = classifier.save(tmp_path)
    np.save(tmp_path / "rows.npy", rows)
    program = """
import hashlib, sys
import numpy as np
from embedstore.deciding.classifier import Classifier
classifier = Classifier.load(sys.argv[1])
found = classifier.score_rows(np.load(sys.argv[2]))
heavy = {"onnxruntime", "fastembed", "nomic", "requests", "sklearn", "torch"} & set(sys.modules)
print(hashlib.sha256(found.tobytes() + classifier.match(found).tobytes()).hexdigest(), sorted(heavy))
"""
    command = [sys.executable, "-c", program, str(file), str(tmp_path / "rows.npy")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = hashlib.sha256(found.tobytes() + classifier.match(found).tobytes()).hexdigest()
    assert printed.split(maxsplit=1) == [expected, "[]\n"]
    assert classifier.match(found).any()


def test_save_and_load_keep_everything(tmp_path):
    """What is loaded has the same JSON as what was saved; the file is named after the classifier; nothing is left."""
    classifier, _, result = calibrated()
    file = classifier.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dogs.json"]
    loaded = Classifier.load(file)
    assert loaded.to_dict() == classifier.to_dict()
    assert loaded.threshold == result.threshold
    assert loaded.targets[0].metrics["f1"] == result.metrics.f1
    assert loaded.targets[0].intervals == result.intervals
    assert loaded.targets[0].prediction_intervals == result.prediction_intervals
    assert set(result.prediction_intervals) == {"precision", "recall", "f1"}
    assert (loaded.store_id, loaded.store_version, loaded.n) == ("store-1", 7, 300)
    assert "dog: score > " in str(loaded)
    classifier.save(file)
    assert Classifier.load(file).to_dict() == classifier.to_dict()


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    """When the disk fails in the middle of saving, the old file is whole and no part is left."""
    classifier, _, _ = calibrated()
    file = classifier.save(tmp_path)
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        two_classes("argmax").save(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["dogs.json"]


def test_file_of_format_version_1_is_read():
    """The golden file of format version 1 loads, decides as it did, and is written again with the same content."""
    classifier = Classifier.load(GOLDEN)
    assert classifier.to_dict() == json.loads(GOLDEN.read_text(encoding="utf-8")) | {"format_version": 2}
    assert classifier.labels == ("cat", "dog")
    assert classifier.mode == "argmax"
    assert classifier.targets[0].vector.tolist() == [0.6000000238418579, 0.800000011920929, 0.0]
    rows = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]]
    assert classifier.predict(classifier.score_rows(rows)) == ["cat", "cat", "dog", "cat"]
    assert classifier.targets[1].threshold == 0.1


def test_file_of_format_version_2_is_read():
    """The golden file of format version 2 loads, decides by its coefficients, and is written again to the letter."""
    classifier = Classifier.load(GOLDEN_2)
    fields = json.loads(GOLDEN_2.read_text(encoding="utf-8"))
    assert fields.pop("checksum")
    assert classifier.to_dict() == fields
    rows = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]]
    found = classifier.score_rows(rows)
    logits = np.array(fields["competition"]["weights"]) @ found + np.array(fields["competition"]["bias"])[:, np.newaxis]
    expected = np.exp(logits) / np.exp(logits).sum(axis=0)
    assert classifier.probabilities(found) == pytest.approx(expected[:2], abs=1e-12)
    assert classifier.predict(found) == [None, "cat", "dog", "cat"]
    assert "which class: accuracy 0.9000, decided 70.0% of 20 rows, measured by 5-fold" in str(classifier)
    assert classifier.chosen_on.shared(["one", "two", "three"]) == (2, True)


def test_a_flipped_bit_of_a_saved_file_is_noticed_or_changes_nothing(tmp_path):
    """Every bit: the file is refused by name, by `load` and by `check`, or says what it said."""
    classifier = two_classes("argmax")
    file = classifier.save(tmp_path)
    assert check(tmp_path) == []
    sound = file.read_bytes()
    harmless = 0
    for bit in range(8 * len(sound)):
        content = bytearray(sound)
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        if problems := check(tmp_path):
            assert "pets.json" in problems[0]
            with pytest.raises(ClassifierError):
                Classifier.load(file)
        else:
            assert Classifier.load(file).to_dict() == classifier.to_dict()
            harmless += 1
    assert harmless < 8 * len("checksum") + 8  # the name of that field, and the E of a number


def test_an_edit_is_accepted_without_the_checksum(tmp_path):
    """A new threshold is refused with the way to accept it: the line of the checksum is deleted, and it counts."""
    file = two_classes("argmax").save(tmp_path)
    edited = file.read_text(encoding="utf-8").replace('"threshold": 0.3,', '"threshold": 0.4,')
    file.write_text(edited, encoding="utf-8")
    with pytest.raises(
        ClassifierError, match=r'pets\.json: .*damaged, or was edited.*delete the line of the "checksum"'
    ):
        Classifier.load(file)
    assert len(check(tmp_path)) == 1
    kept = [line for line in edited.splitlines() if '"checksum"' not in line]
    file.write_text("\n".join(kept), encoding="utf-8")
    assert Classifier.load(file).targets[1].threshold == 0.4
    assert check(tmp_path) == []


def test_other_spacing_and_order_are_no_edit(tmp_path):
    """A file that another program has written again with the same content is as good."""
    file = two_classes("argmax").save(tmp_path)
    fields = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(dict(sorted(fields.items())), indent=None, ensure_ascii=True), encoding="utf-8")
    assert Classifier.load(file).to_dict() == two_classes("argmax").to_dict() | {"created_at": fields["created_at"]}


def test_unknown_fields_are_ignored(tmp_path):
    """Fields of a later version, at the top and in a class, do not hinder reading."""
    fields = json.loads(GOLDEN.read_text(encoding="utf-8"))
    fields["colour"] = fields["targets"][0]["colour"] = fields["space"]["colour"] = "red"
    file = tmp_path / "later.json"
    file.write_text(json.dumps(fields), encoding="utf-8")
    assert Classifier.load(file).to_dict() == Classifier.load(GOLDEN).to_dict()


def drop(*path):
    def change(fields):
        for key in path[:-1]:
            fields = fields[key]
        del fields[path[-1]]

    return change


def put(value, *path):
    def change(fields):
        for key in path[:-1]:
            fields = fields[key]
        fields[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put(3, "format_version"), "format version 3.*newer embedstore"),
        (put({}, "competition"), "lacks the field 'weights'"),
        (
            put(
                {"weights": [[1, 2]], "bias": [0], "abstain_below": 0, "confusion": None, "validation": ""},
                "competition",
            ),
            "weights of shape",
        ),
        (put({"n": 1, "pictures": "AAAA"}, "chosen_on"), "cannot be read"),
        (put("one", "format_version"), "format version 'one'"),
        (put("something", "format"), "this is no classifier"),
        (drop("objective"), "lacks the field 'objective'"),
        (drop("targets", 0, "vector"), "lacks the field 'vector'"),
        (drop("space", "dim"), "needs the fields"),
        (put("not base64!", "targets", 0, "vector"), "not base64"),
        (put("AAAA", "targets", 0, "vector"), "3 bytes, 12 are expected"),
        (put("high", "targets", 0, "threshold"), "cannot be read"),
        (put(7, "targets", 0, "intervals"), "cannot be read"),
        (put([], "targets"), "0 classes"),
        (put("guess", "mode"), "mode must be one of"),
        (put("a/b", "name"), "cannot name a classifier"),
    ],
)
def test_damaged_files_are_explained(tmp_path, change, says):
    """A file of a newer format, or with a field missing or wrong, raises an error that names file and field."""
    fields = json.loads(GOLDEN.read_text(encoding="utf-8"))
    change(fields)
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(ClassifierError, match=f"broken.json: .*{says}"):
        Classifier.load(file)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 100_000, "not JSON"),
        (b"", "not JSON"),
        (b"{half", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[1]", "no classifier"),
    ],
)
def test_files_that_are_no_classifier_are_explained(tmp_path, content, says):
    """A file that is not JSON, or JSON of something else, raises an error that says so."""
    file = tmp_path / "odd.json"
    file.write_bytes(content)
    with pytest.raises(ClassifierError, match=says):
        Classifier.load(file)


def test_missing_file_is_explained(tmp_path):
    """No such file, or a folder in its place, raises ClassifierError."""
    with pytest.raises(ClassifierError, match="there is no classifier at"):
        Classifier.load(tmp_path / "none.json")
    with pytest.raises(ClassifierError, match="cannot be read"):
        Classifier.load(tmp_path)


def test_another_space_is_refused():
    """Rows of another space are refused by name, rows of another dimension too."""
    classifier, _, _ = calibrated()
    classifier.require_space(SPACE)
    with pytest.raises(ClassifierError, match=r"the classifier 'dogs' is in the space test-space.*other"):
        classifier.require_space(Space.given("other", 16))
    with pytest.raises(ValueError, match="shape"):
        classifier.score_rows(unit(0, 3, dim=8))


def test_opponents_are_subtracted():
    """With opposing queries the score is that of the query minus the best of theirs."""
    opponents = unit(5, 2)
    classifier, rows, _ = calibrated(opponents)
    found = scores(classifier.vectors, rows)
    expected = found[0] - np.maximum(found[1], found[2])
    assert (classifier.scores(found)[0] == expected).all()
    assert (classifier.match(expected) == (expected.astype(np.float64) > classifier.threshold)).all()
    with pytest.raises(ClassifierError, match="needs the scores of its 3 vectors"):
        classifier.scores(found[:2])


def test_many_classes_decide_by_margin_or_each_for_itself():
    """Argmax takes the class that exceeds its threshold by most and abstains below all; multi-label takes each."""
    found = np.array([[0.5, 0.2, 0.09, 0.05], [0.6, 0.45, 0.2, 0.3]], dtype=np.float32)
    argmax = two_classes("argmax")
    assert argmax.predict(found) == ["cat", "dog", None, "dog"]  # 0.3 in float32 exceeds 0.3
    assert argmax.match(found).tolist() == [[True, False, False, False], [False, True, False, True]]
    several = two_classes("multi-label")
    assert several.match(found).tolist() == [[True, True, False, False], [True, True, False, True]]
    with pytest.raises(ClassifierError, match="several labels"):
        several.predict(found)
    with pytest.raises(ClassifierError, match="one threshold for each"):
        assert several.threshold
    with pytest.raises(ClassifierError, match="scores of 2 classes"):
        several.match(found[0])


def test_classes_must_fit():
    """Two classes in mode single, two of one label, and a threshold that is not finite are refused."""
    cat, dog = two_classes("argmax").targets
    with pytest.raises(ClassifierError, match="2 classes do not make"):
        Classifier("pets", SPACE, (cat, dog))
    with pytest.raises(ClassifierError, match="a label of its own"):
        Classifier("pets", SPACE, (cat, cat), "argmax")
    with pytest.raises(ClassifierError, match="must be finite"):
        Target("cat", float("nan"), cat.vector)
    with pytest.raises(ClassifierError, match="16 numbers, its space 8"):
        Classifier("pets", Space.given("small", 8), (cat,))


@pytest.mark.parametrize("name", ["dogs", "tiny white ball", "Größe-2.1", "a", "x" * 100])
def test_good_names(name):
    """Letters, digits, points, dashes and inner spaces make a name."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        ".hidden",
        "a.",
        "a ",
        " a",
        "nul",
        "COM1.x",
        "a\n",
        "x" * 101,
        None,
        "a:b",
    ],
)
def test_bad_names(name):
    """What is no file name somewhere, or leads out of the folder, is refused."""
    with pytest.raises(ClassifierError, match="cannot name a classifier"):
        check_name(name)


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


def test_a_classifier_shows_itself():
    """In a line, as a frame with a row for each class, and in a notebook, where words are only words."""
    classifier, _, result = calibrated()
    assert repr(classifier).startswith(f"Classifier('dogs', score > {classifier.threshold:.4f}, precision ")
    assert repr(two_classes("argmax")) == "Classifier('pets', argmax of 2 classes (cat, dog), test-space)"
    frame = classifier.to_pandas()
    assert frame["label"].tolist() == ["dog"]
    assert frame["f1"].iloc[0] == result.metrics.f1
    assert tuple(frame.loc[0, ["recall_low", "recall_high"]]) == result.intervals["recall"]
    assert two_classes("argmax").to_pandas()["threshold"].tolist() == [0.1, 0.3]
    assert two_classes("argmax").to_pandas()["f1"].isna().all()
    nasty = dataclasses.replace(
        classifier, targets=(dataclasses.replace(classifier.target, label=NASTY, queries=(NASTY,)),), warnings=(NASTY,)
    )
    seen = Seen(nasty._repr_html_())
    assert seen.open == []
    assert "script" not in seen.tags
    assert seen.text.count(NASTY) == 3
    assert f"{result.metrics.f1:.4f} [" in seen.text
