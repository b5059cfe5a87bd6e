"""The text query as a scikit-learn estimator: the cookbook's use, scikit-learn's own checks, its tools."""

from __future__ import annotations

import csv
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import PHOTOS, save_picture
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from sklearn.model_selection import (
    GridSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedstore import ImageClassifierFromTextQuery
from embedstore.deciding.classifier import Classifier
from embedstore.embedders.objects import ObjectsEmbedder
from embedstore.errors import (
    ImageError,
    InputError,
    LabelError,
    QueryError,
    RejectedImagesError,
    ServiceError,
    SpaceMismatchError,
    StoreNotFoundError,
    VectorError,
)
from embedstore.ingest.cached_embedder import MEMORY
from embedstore.measures.calibration import calibrate_scores
from embedstore.store import EmbedStore

with (PHOTOS / "metadata.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))
FILES = [PHOTOS / row["file_name"] for row in ROWS]
BIRD = np.array([row["category"] == "bird" for row in ROWS])


@pytest.fixture(autouse=True)
def _fresh_memory(request: pytest.FixtureRequest) -> None:
    """Counts of embedded pictures start from nothing, except where photographs are shared by many tests."""
    if "counting" in request.fixturenames:
        MEMORY.clear()


class Counting(ObjectsEmbedder):
    """The bundled model, with a count of what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = 0
        self.texts = 0
        self.calls: list[int] = []
        self.refused: set[bytes] = set()
        self.fails_after = 10**9
        self.lock = threading.Lock()

    def embed_prepared(self, prepared: Sequence[Any]) -> Any:
        with self.lock:
            self.calls.append(len(prepared))
            if self.pictures >= self.fails_after:
                raise ServiceError("the service is down")
            if any(item.tobytes() in self.refused for item in prepared):
                raise RejectedImagesError("refused")
            self.pictures += len(prepared)
        return super().embed_prepared(prepared)

    def embed_texts(self, texts: Sequence[str]) -> Any:
        self.texts += len(texts)
        return super().embed_texts(texts)


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture(scope="module")
def vectors() -> Any:
    """The vectors of the photographs, embedded once for all tests."""
    return bird().embed(FILES)


def bird(**options: Any) -> ImageClassifierFromTextQuery:
    return ImageClassifierFromTextQuery(**{"text_query": "bird", "model": "objects"} | options)


def plain_scores(text: str, vectors: Any) -> Any:
    """The formula: the cosine of the text's vector with each row."""
    return np.vecdot(vectors, ObjectsEmbedder().embed_texts([text])[0])


# --- scikit-learn's own checks -------------------------------------------------------------------------------------


class OfAnyWidth(ImageClassifierFromTextQuery):
    """The checks send tables of 1 to 40 columns, which are no vectors of any model: zeros are put behind them.

    And a one, as rows of zeros, which have no direction, are refused. All else is the real class and model.
    """

    def _of_space(self, table: Any) -> Any:
        wide = np.zeros((len(table), self._once.space.dim), np.float32)
        wide[:, : table.shape[1]] = table
        wide[:, -1] = 1
        return wide


LIST = "predict returns a list, as on the cookbook's page, and the check asks for an attribute of arrays"
EXPECTED = {
    "check_classifiers_train": f"{LIST}; and the boundary lies at threshold_, not at 0 as the check has it: scores are "
    "cosines, so that thresholds are those of a store",
    "check_supervised_y_2d": LIST,
    "check_classifiers_classes": "it asks for a direction that is learnt from the data; the text gives it here",
}


def expected_failures(estimator: Any) -> dict[str, str]:
    return EXPECTED


@parametrize_with_checks([OfAnyWidth("bird", model="objects")], expected_failed_checks=expected_failures)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    """It keeps scikit-learn's contract, but for what `EXPECTED` gives a reason for."""
    check(estimator)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_exception_is_needed(name: str) -> None:
    """No check is excused that would pass."""
    import sklearn.utils.estimator_checks as checks

    with pytest.raises((AssertionError, AttributeError)):
        getattr(checks, name)("OfAnyWidth", OfAnyWidth("bird", model="objects"))


# --- the cookbook's use --------------------------------------------------------------------------------------------


def test_predicts_without_fit_when_a_threshold_is_given(vectors: Any) -> None:
    """With a threshold, predict is `score > threshold` for each picture, as a list of Python bools."""
    expected = [float(score) > 0.25 for score in plain_scores("bird", vectors)]
    pictures = [Image.open(file) for file in FILES[:40]]
    found = ImageClassifierFromTextQuery("bird", 0.25, model="objects").predict(pictures)
    assert found == expected[:40]
    assert type(found) is list
    assert {type(one) for one in found} == {bool}
    assert 0 < sum(found) < 40


def test_one_picture_gives_a_list_of_one() -> None:
    """A picture given bare gives a list of one, in each of its forms."""
    owl = PHOTOS / "bird" / "owl.jpg"
    data = owl.read_bytes()
    with Image.open(owl) as opened:
        image = opened.convert("RGB")
    forms: list[Any] = [
        owl,
        str(owl),
        data,
        bytearray(data),
        image,
        np.asarray(image),
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(owl)},
    ]
    for form in forms:
        assert bird(threshold=0.25).predict(form) == [True]
    grey = np.asarray(image.convert("L"))
    assert len(bird(threshold=0.25).predict(grey)) == 1


def test_a_match_is_strictly_above_the_threshold(vectors: Any) -> None:
    """A score equal to the threshold does not match."""
    score = plain_scores("bird", vectors)[:1]
    assert bird(threshold=float(score[0])).predict(vectors[:1]) == [False]
    below = float(np.nextafter(score[0], np.float32(-1)))
    assert bird(threshold=below).predict(vectors[:1]) == [True]


def test_sequences_of_pictures_in_any_container_agree(vectors: Any) -> None:
    """Lists, tuples, arrays of objects, pandas and Arrow columns and data set columns give the same scores."""
    import datasets
    import pyarrow as pa

    paths = [str(file) for file in FILES[:6]]
    files = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image(decode=False))
    forms: list[Any] = [
        paths,
        tuple(paths),
        np.array(paths),
        np.array(FILES[:6], dtype=object),
        pd.Series(paths, index=range(10, 16)),
        pa.array(paths),
        files["image"],
        iter(paths),
        vectors[:6],
        vectors[:6].tolist(),
        list(vectors[:6]),
        pd.DataFrame(vectors[:6]),
        3 * vectors[:6],
    ]
    for form in forms:
        np.testing.assert_allclose(bird().scores(form), plain_scores("bird", vectors[:6]), atol=1e-6)


def test_a_batch_of_pixels_is_a_list_of_pictures() -> None:
    """An array of shape (n, height, width, 3) is n pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(bird().scores(pixels), bird().scores(list(pixels)))


def test_no_pictures_give_an_empty_list() -> None:
    """An empty list of pictures gives an empty list of decisions."""
    assert bird(threshold=0.1).predict([]) == []


# --- each picture once ---------------------------------------------------------------------------------------------


def test_no_picture_is_embedded_twice(counting: Counting, pictures: Path) -> None:
    """Copies, other thresholds, clones, other queries and other forms of the same bytes cost nothing more."""
    files = sorted(pictures.rglob("*.png"))
    copies = [*files, files[0].read_bytes(), *files]
    first = ImageClassifierFromTextQuery("dog", 0.1, model=counting)
    assert len(first.predict(copies)) == 25
    assert counting.pictures == 12
    clone(first).set_params(threshold=0.2, text_query="cat").predict(files[::-1])
    ImageClassifierFromTextQuery("trumpet", model=counting).scores([file.read_bytes() for file in files])
    assert counting.pictures == 12
    assert counting.texts == 3


def test_pictures_go_to_the_model_in_full_batches(counting: Counting, pictures: Path) -> None:
    """New pictures are sent in batches of the embedder's size, and come back in the order given."""
    counting.batch_size = 5
    files = sorted(pictures.rglob("*.png"))
    found = ImageClassifierFromTextQuery("dog", model=counting).embed(files)
    assert sorted(counting.calls) == [2, 5, 5]
    alone = [ObjectsEmbedder().embed_prepared([counting.prepare(Image.open(file))])[0] for file in files]
    np.testing.assert_allclose(found, alone, atol=1e-6)


def test_what_the_store_holds_is_not_embedded(counting: Counting, store: EmbedStore, pictures: Path) -> None:
    """Pictures of the store are known by content or by id; others are kept in its cache, and add no row."""
    rows, version = len(store), store.version
    opened = EmbedStore.open(store.path, embedder=counting)
    classifier = ImageClassifierFromTextQuery("dog", 0.1, store=opened)
    ids = opened.to_table(["id"]).column("id")
    by_id = classifier.decision_function(ids)
    np.testing.assert_array_equal(by_id, opened.scores("dog")[0])
    by_path = classifier.decision_function(opened.to_table(["uri"]).column("uri"))
    np.testing.assert_array_equal(by_path, by_id)
    assert counting.pictures == 0
    extra = save_picture(pictures.parent / "extra.png", 99)
    classifier.predict([extra, *sorted(pictures.rglob("*.png"))])
    assert counting.pictures == 1
    MEMORY.clear()
    again = EmbedStore.open(store.path, embedder=counting)
    ImageClassifierFromTextQuery("dog", 0.1, store=again).predict([extra])
    assert (counting.pictures, counting.texts) == (1, 1)
    assert (len(again), again.version) == (rows, version)


def test_a_known_picture_and_query_need_no_model(store: EmbedStore, pictures: Path) -> None:
    """In a new process without the model, known pictures and a known query are decided."""
    files = [str(file) for file in sorted(pictures.rglob("*.png"))]
    expected = ImageClassifierFromTextQuery("dog", 0.1, store=store.path).predict(files)
    code = (
        "import sys; from embedstore import ImageClassifierFromTextQuery as C\n"
        "from embedstore.embedders import registry; registry.MODELS['objects'] = None\n"
        "print(C('dog', 0.1, store=sys.argv[1]).predict(sys.argv[2:]), 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.path), *files], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{expected} False"


def test_a_refused_picture_is_named_and_the_others_are_kept(counting: Counting, pictures: Path) -> None:
    """When the service refuses a picture the error names it, and nothing that was embedded is lost."""
    files = sorted(pictures.rglob("*.png"))
    counting.refused = {counting.prepare(Image.open(files[3])).tobytes()}
    classifier = ImageClassifierFromTextQuery("dog", 0.1, model=counting)
    with pytest.raises(ImageError, match=r"1 of 12 images .* image 3 \('.*png'\): refused"):
        classifier.predict(files)
    assert counting.pictures == 11
    classifier.predict([file for file in files if file != files[3]])
    assert counting.pictures == 11


def test_what_was_embedded_before_a_failure_is_kept(counting: Counting, pictures: Path) -> None:
    """When the service fails half way, the next call goes on from there."""
    counting.batch_size, counting.workers, counting.fails_after = 4, 1, 8
    files = sorted(pictures.rglob("*.png"))
    classifier = ImageClassifierFromTextQuery("dog", 0.1, model=counting)
    with pytest.raises(ServiceError):
        classifier.predict(files)
    counting.fails_after = 10**9
    classifier.predict(files)
    assert counting.pictures == 12


# --- fit -----------------------------------------------------------------------------------------------------------


def test_fit_chooses_the_threshold_of_the_best_f1(vectors: Any) -> None:
    """The chosen threshold reaches the best F1 of all thresholds, counted by scikit-learn."""
    fitted = bird().fit(vectors, BIRD)
    scores = plain_scores("bird", vectors)
    best = max(f1_score(BIRD, scores > threshold) for threshold in np.unique(scores))
    assert f1_score(BIRD, fitted.predict(vectors)) == best
    assert fitted.predict(vectors) == (scores > fitted.threshold_).tolist()
    assert fitted.calibration_.threshold == fitted.threshold_
    assert fitted.calibration_.validation == "by 5-fold cross-validation, 10 times"
    assert fitted.curve_.average_precision == pytest.approx(average_precision_score(BIRD, scores), abs=1e-12)
    assert fitted.n_features_in_ == 256
    assert fitted.classes_.tolist() == [False, True]
    assert fitted.score(vectors, BIRD) == np.mean((scores > fitted.threshold_) == BIRD)


def test_fit_keeps_to_a_constraint(vectors: Any) -> None:
    """The wishes go to the calibration: the same threshold comes from the scores by hand."""
    wishes = {"objective": "recall", "min_precision": 0.7, "confidence": 0.9}
    fitted = bird(**wishes).fit(vectors, BIRD)
    by_hand = calibrate_scores(plain_scores("bird", vectors), BIRD, resamples=0, **wishes)
    assert fitted.threshold_ == by_hand.threshold


def test_fit_with_a_threshold_only_measures(vectors: Any) -> None:
    """A given threshold stays; the curve tells what it is worth."""
    fitted = bird(threshold=0.25).fit(vectors, BIRD)
    assert fitted.threshold_ == 0.25
    assert fitted.curve_.at(0.25).f1 == f1_score(BIRD, fitted.predict(vectors))
    with pytest.raises(AttributeError, match="without a given threshold"):
        _ = fitted.calibration_


def test_fit_on_pictures_is_fit_on_their_vectors(vectors: Any) -> None:
    """Pictures and their vectors give the same threshold; only vectors have features."""
    on_pictures = bird().fit(FILES, BIRD)
    assert on_pictures.threshold_ == bird().fit(vectors, BIRD).threshold_
    assert not hasattr(on_pictures, "n_features_in_")


def test_labels_may_be_any_two_values(vectors: Any) -> None:
    """Numbers and texts are labels too: predict returns them, and the larger is that of a match."""
    truth = bird().fit(vectors, BIRD).predict(vectors)
    for low, high in [(0, 1), (-1, 1), ("a thing", "bird")]:
        fitted = bird().fit(vectors, np.where(BIRD, high, low))
        assert fitted.predict(vectors) == [high if one else low for one in truth]


def test_templates_and_opponents_make_the_query(vectors: Any) -> None:
    """A template is filled; several are averaged; opponents are subtracted."""
    model = ObjectsEmbedder()
    found = bird(template=["a {} in a tree", "a {} at sea"]).scores(vectors)
    mean = model.embed_texts(["a bird in a tree", "a bird at sea"]).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(found, vectors @ (mean / np.linalg.norm(mean)), atol=1e-6)
    against = bird(opposing=["fish", "tool"]).scores(vectors)
    worst = np.maximum(plain_scores("fish", vectors), plain_scores("tool", vectors))
    np.testing.assert_allclose(against, plain_scores("bird", vectors) - worst, atol=1e-6)


def test_it_travels_by_pickle_and_clone(store: EmbedStore, vectors: Any) -> None:
    """A pickled copy decides alike and names its store by path; a clone shares the store and is not fitted."""
    fitted = ImageClassifierFromTextQuery("bird", store=store).fit(vectors, BIRD)
    copied = pickle.loads(pickle.dumps(fitted))
    assert copied.predict(vectors) == fitted.predict(vectors)
    assert copied.store == str(store.path)
    cloned = clone(fitted)
    assert cloned.store is store
    assert cloned.get_params() == fitted.get_params()
    assert not hasattr(cloned, "threshold_")


# --- saved classifiers ---------------------------------------------------------------------------------------------


def test_a_fitted_one_becomes_a_saved_classifier(vectors: Any, tmp_path: Path) -> None:
    """The saved classifier has the same matches, the honest figures, and needs no model."""
    fitted = bird(template="a photo of a {}").fit(vectors, BIRD)
    made = fitted.to_classifier("birds", label="bird")
    loaded = Classifier.load(made.save(tmp_path))
    assert loaded.match(loaded.score_rows(vectors))[0].tolist() == fitted.predict(vectors)
    assert loaded.threshold == fitted.threshold_
    assert loaded.targets[0].metrics["f1"] == fitted.calibration_.metrics.f1
    assert loaded.targets[0].queries == ("a photo of a bird",)
    assert (loaded.n, loaded.n_pos) == (len(BIRD), BIRD.sum())


def test_a_given_threshold_becomes_a_saved_classifier(vectors: Any) -> None:
    """Without labels nothing is claimed; after fit the figures at the threshold are."""
    made = bird(threshold=0.25).to_classifier("birds")
    assert made.match(made.score_rows(vectors))[0].tolist() == bird(threshold=0.25).predict(vectors)
    assert made.targets[0].metrics == {}
    measured = bird(threshold=0.25).fit(vectors, BIRD).to_classifier("birds")
    predicted = bird(threshold=0.25).predict(vectors)
    assert measured.targets[0].metrics["f1"] == f1_score(BIRD, predicted)
    assert measured.targets[0].matched_share == np.mean(predicted)
    assert "not chosen on" in measured.validation


# --- scikit-learn's tools ------------------------------------------------------------------------------------------


def test_works_with_precision_recall_curve_and_display() -> None:
    """The display draws exactly scikit-learn's curve of the scores, from the estimator and from predictions."""
    import matplotlib as mpl
    from sklearn.metrics import PrecisionRecallDisplay

    mpl.use("Agg")
    fitted = bird().fit(FILES, BIRD)
    scores = fitted.decision_function(FILES)
    precision, recall, thresholds = precision_recall_curve(BIRD, scores)
    ours = fitted.curve_.precision_recall_curve()
    for mine, theirs in zip(ours, (precision, recall, thresholds), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for display in (
        PrecisionRecallDisplay.from_estimator(fitted, FILES, BIRD),
        PrecisionRecallDisplay.from_estimator(bird(threshold=0.2), FILES, BIRD.astype(int)),
        PrecisionRecallDisplay.from_predictions(BIRD, scores),
    ):
        np.testing.assert_array_equal(display.precision, precision)
        np.testing.assert_array_equal(display.recall, recall)


def test_works_with_tuned_threshold(vectors: Any) -> None:
    """Its best threshold is in the unit of ours and about as good."""
    tuned = TunedThresholdClassifierCV(bird(), scoring="f1", cv=3, random_state=0).fit(FILES, BIRD)
    by_hand = plain_scores("bird", vectors) >= tuned.best_threshold_
    np.testing.assert_array_equal(np.asarray(tuned.predict(FILES), bool), by_hand)
    assert f1_score(BIRD, by_hand) > 0.9


def test_works_with_cross_validation(vectors: Any) -> None:
    """Each fold's F1 is that of the threshold chosen on the others, on pictures and on vectors."""
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(4)
    found = cross_val_score(bird(), FILES, BIRD, scoring="f1", cv=folds)
    expected = []
    for train, test in folds.split(vectors, BIRD):
        threshold = bird().fit(vectors[train], BIRD[train]).threshold_
        expected.append(f1_score(BIRD[test], plain_scores("bird", vectors[test]) > threshold))
    assert found.tolist() == expected
    np.testing.assert_array_equal(cross_val_score(bird(), vectors, BIRD, scoring="f1", cv=folds), found)
    ranked = cross_val_score(bird(), vectors, BIRD, scoring="average_precision", cv=folds)
    assert ranked.min() > 0.9
    decided = cross_val_predict(bird(), FILES, BIRD, cv=folds)
    assert f1_score(BIRD, decided) > 0.85


def test_grid_search_finds_the_better_query(counting: Counting) -> None:
    """A search over texts and templates embeds each picture once, and finds the text that fits the labels."""
    some = np.r_[np.flatnonzero(BIRD)[:12], np.flatnonzero(~BIRD)[:28]]
    files = [FILES[number] for number in some]
    grid = {"text_query": ["telescope", "bird"], "template": [None, "a photo of a {}"]}
    searched = GridSearchCV(bird(model=counting), grid, scoring="f1", cv=3).fit(files, BIRD[some])
    assert searched.best_params_["text_query"] == "bird"
    assert len(searched.predict(files)) == 40
    assert counting.pictures == 40


def test_grid_search_in_other_processes(vectors: Any, store: EmbedStore) -> None:
    """It can be sent to worker processes, store and all, and comes back with the same figures."""
    grid = {"text_query": ["fish", "bird"]}
    alone = GridSearchCV(bird(store=store), grid, scoring="f1", cv=3).fit(vectors, BIRD)
    many = GridSearchCV(bird(store=store), grid, scoring="f1", cv=3, n_jobs=2).fit(vectors, BIRD)
    for key in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(many.cv_results_[key], alone.cv_results_[key])


def test_works_in_a_pipeline(vectors: Any) -> None:
    """It may end a pipeline, behind a step that makes paths, with and without fit."""
    to_paths = FunctionTransformer(lambda names: [PHOTOS / name for name in names])
    names = [row["file_name"] for row in ROWS]
    pipeline = Pipeline([("paths", to_paths), ("bird", bird())]).fit(names, BIRD)
    assert pipeline.predict(names) == bird().fit(vectors, BIRD).predict(vectors)
    ready = Pipeline([("paths", to_paths), ("bird", bird(threshold=0.25))])
    assert ready.predict(names[:5]) == bird(threshold=0.25).predict(FILES[:5])


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_without_threshold_and_fit_it_says_what_to_do() -> None:
    """predict and decision_function need a threshold or fit; scores need neither."""
    for method in ("predict", "decision_function"):
        with pytest.raises(NotFittedError, match=r"call fit\(images, labels\)"):
            getattr(bird(), method)(FILES[:1])
    with pytest.raises(NotFittedError):
        bird().to_classifier("birds")
    assert bird().scores(FILES[:1]).shape == (1,)
    assert not hasattr(bird(), "classes_")


@pytest.mark.parametrize("text", ["", "  ", [], 7, Path("owl.jpg")])
def test_a_query_that_is_none_is_refused(text: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty text, no text and things that are no text are a QueryError, before any picture is read."""
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / "owl.png", 1).rename(tmp_path / "owl.jpg")
    with pytest.raises(QueryError):
        bird(text_query=text, threshold=0.1).predict([tmp_path / "absent.jpg"])


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["bird", "cat", "dog"], "Only binary classification"),
        ([True, True, True], "one class only"),
        ([0.5, 0.1, 0.2], "Unknown label type"),
        ([1.0, float("nan"), 0.0], "NaN"),
        (["bird", "dog", "dog"], r"pass labels == 'bird'"),
        ([True, False], "2 labels for 3 pictures"),
        (None, "y is None"),
        ([[1, 0], [0, 1], [1, 1]], "y should be a 1d array"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, reason: str, vectors: Any) -> None:
    """Labels of other than two classes, missing ones and those that name the wrong class are a LabelError."""
    with pytest.raises(LabelError, match=reason):
        bird().fit(vectors[:3], labels)


def test_bad_pictures_are_named(tmp_path: Path) -> None:
    """Each of the pictures that cannot be read is named by position and path, and what is wrong with it."""
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(FILES[0].read_bytes()[:900])
    absent = tmp_path / "absent.jpg"
    with pytest.raises(ImageError) as caught:
        bird(threshold=0.1).predict([FILES[0], absent, FILES[1], None])
    assert f"image 1 ({str(absent)!r}): No such file" in str(caught.value)
    assert "image 3 (NoneType)" in str(caught.value)
    with pytest.raises(ImageError) as caught:
        bird(threshold=0.1).predict([FILES[0], text, cut])
    assert "2 of 3 images" in str(caught.value)
    assert f"image 1 ({str(text)!r}): found 10 bytes" in str(caught.value)
    assert f"image 2 ({str(cut)!r}): the picture is cut short" in str(caught.value)
    with pytest.raises(ImageError, match="found int"):
        bird(threshold=0.1).predict(7)


def test_vectors_that_do_not_fit_are_refused(vectors: Any) -> None:
    """Vectors of another width, of length zero or with NaN are a VectorError that says so."""
    with pytest.raises(VectorError, match=r"X has 3 features, but .* is expecting 256"):
        bird(threshold=0.1).predict(np.ones((2, 3)))
    with pytest.raises(VectorError, match="row 1 has length zero"):
        bird(threshold=0.1).predict(np.vstack([vectors[:1], np.zeros((1, 256))]))
    with pytest.raises(VectorError, match="NaN"):
        bird(threshold=0.1).predict(np.full((1, 256), np.nan))
    with pytest.raises(VectorError, match="Expected 2D array"):
        bird(threshold=0.1).predict(vectors[0])


@pytest.mark.parametrize("threshold", [float("nan"), "high"])
def test_a_threshold_that_is_no_number_is_refused(threshold: Any, vectors: Any) -> None:
    """A threshold of NaN or of letters is an InputError."""
    with pytest.raises(InputError, match="must be a number"):
        bird(threshold=threshold).predict(vectors)


def test_a_data_set_is_asked_for_its_column() -> None:
    """A whole data set is refused with the name of a column to pass."""
    import datasets

    with pytest.raises(ImageError, match=r"X\['image'\]"):
        bird(threshold=0.1).predict(datasets.Dataset.from_dict({"image": ["a.jpg"]}))


def test_stores_that_do_not_fit_are_refused(tmp_path: Path, vectors: Any) -> None:
    """A store that is not there, or of another space than the model, is an error of its own."""
    with pytest.raises(StoreNotFoundError):
        bird(threshold=0.1, store=tmp_path / "none.store").predict(vectors)
    other = EmbedStore.create(tmp_path / "clip.store", space="clip", dim=256)
    with pytest.raises(SpaceMismatchError, match="the model given"):
        bird(threshold=0.1, store=other).predict(vectors)


def test_importing_embedstore_does_not_import_scikit_learn() -> None:
    """The class is loaded when it is first asked for, and not before."""
    code = (
        "import sys, embedstore; assert 'sklearn' not in sys.modules;"
        "embedstore.ImageClassifierFromTextQuery; assert 'sklearn' in sys.modules;"
        "assert 'onnxruntime' not in sys.modules and 'nomic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
