"""A text query as a scikit-learn classifier of pictures: the cookbook's class, each picture embedded once.

Turns pictures into scores and decisions, and labels into a threshold. Vectors come from `cached_embedder`, the choice
of a threshold from `calibration`, what a query means from `queries`; a decision that is to be kept becomes a
`classifier.Classifier`.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, column_or_1d, validate_data

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.target import Target
from embedstore.embedders.protocol import Embedder
from embedstore.embedders.registry import make_embedder, space_of
from embedstore.errors import ImageError, LabelError, QueryError, VectorError
from embedstore.images import is_image
from embedstore.ingest.cached_embedder import CachedEmbedder
from embedstore.measures.calibration import Calibration, calibrate_scores
from embedstore.measures.choice import Wishes
from embedstore.measures.curves import above, as_threshold, precision_recall
from embedstore.searching.queries import Concept
from embedstore.storage.folder import StoreFolder
from embedstore.store import EmbedStore
from embedstore.vectors import Vectors, normalise, scores
from embedstore.wording import counted

_BOOLS = np.array([False, True])
_LOADED: dict[str, Embedder] = {}
_WISHES = tuple(field.name for field in dataclasses.fields(Wishes))


class ImageClassifierFromTextQuery(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Decides whether pictures show what a text says: a match is a score above a threshold.

    With a threshold it needs no `fit`. Without, `fit` chooses one by labelled pictures.

    Parameters
    ----------
    text_query : str or list of str
        What is looked for; several texts are averaged.
    threshold : float, optional
        A picture matches at ``score > threshold``, strictly. None: `fit` chooses it.
    model : str or Embedder, optional
        Name of an embedder, or one of your own making. By default the store's; without a store
        ``EMBEDSTORE_MODEL``, else what `embedders.registry.default_model` says.
    store : EmbedStore or path, optional
        Pictures that it holds are not embedded, and what is embedded for this classifier is kept in its cache, so
        that no process embeds it again. Without a store, vectors are remembered for the life of the process.
    template : str or list of str, optional
        Prompts such as ``"a photo of a {}"``; several are averaged.
    opposing : str or list of str
        What it must not be: the score is that of the query minus the best of these.
    objective, beta, cost, min_precision, min_recall, max_matches, guarantee, confidence
        What `fit` chooses the threshold for; see `choice.Wishes`.
    progress : bool, optional
        Show a bar on stderr while pictures are embedded; by default when that is a terminal.

    Attributes
    ----------
    threshold_ : float
        The threshold in use, after `fit`.
    classes_ : ndarray of shape (2,)
        The two labels; the second is that of a match.
    curve_ : Curve
        Exact precision, recall and F1 of the pictures of `fit` at every threshold.
    n_features_in_ : int
        Number of components, after `fit` on ready vectors.

    Notes
    -----
    **Pictures**, wherever an argument is called `X`: a sequence (or 1-d array) of paths, bytes, Pillow images, arrays
    of pixels, dictionaries with ``bytes`` or ``path``, or ids of records of the store; or one of these. A file
    and its decoded pixels have different hashes, so they count as two pictures. A numeric table of shape
    (n, dim), NumPy or pandas, is taken for ready vectors, such as `embed` or a store returns; they are scaled to unit
    length. (A 2-d array of uint8 is one grey picture.) For a grid search, embed once outside and pass vectors: then
    nothing is read or hashed again for each fold.

    **Labels** are true and false, or any two values of which the *larger* is that of a match, which is scikit-learn's
    own convention.

    `predict` returns a list, not an array, as on the cookbook's page; scikit-learn's metrics, scorers and
    searches take it.

    Examples
    --------
    >>> from PIL import Image
    >>> grey = Image.new("RGB", (64, 64), "grey")
    >>> ImageClassifierFromTextQuery("dog", 0.9, model="objects").predict(grey)
    [False]
    """

    def __init__(
        self,
        text_query: str | Sequence[str],
        threshold: float | None = None,
        *,
        model: str | Embedder | None = None,
        store: EmbedStore | str | os.PathLike[str] | None = None,
        template: str | Sequence[str] | None = None,
        opposing: str | Sequence[str] = (),
        objective: str = "f1",
        beta: float | None = None,
        cost: Mapping[str, float] | None = None,
        min_precision: float | None = None,
        min_recall: float | None = None,
        max_matches: int | None = None,
        guarantee: bool = True,
        confidence: float = 0.95,
        progress: bool | None = None,
    ) -> None:
        self.text_query = text_query
        self.threshold = threshold
        self.model = model
        self.store = store
        self.template = template
        self.opposing = opposing
        self.objective = objective
        self.beta = beta
        self.cost = cost
        self.min_precision = min_precision
        self.min_recall = min_recall
        self.max_matches = max_matches
        self.guarantee = guarantee
        self.confidence = confidence
        self.progress = progress

    def fit(self, X: Any, y: Any) -> ImageClassifierFromTextQuery:
        """Choose the threshold by labelled pictures; with a `threshold` given, only measure it.

        Parameters
        ----------
        X : pictures or vectors
        y : array-like of shape (n,)
            Two different labels, see the notes of the class.

        Raises
        ------
        LabelError
            Labels that are not of two classes, or that fit the pictures not at all.
        ImageError, QueryError, UnreachableError
        """
        given = None if self.threshold is None else as_threshold(self.threshold)
        if y is None:
            raise LabelError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        asked = self.text_query if isinstance(self.text_query, str) else " ".join(self.text_query)
        classes, truth = two_classes(y, asked)
        concept, target = self._query(given or 0.0)
        rows = self._rows(X, reset=True)
        if len(rows) != len(truth):
            raise LabelError(
                f"{counted(len(truth), 'label')} for {counted(len(rows), 'picture')}; give exactly one for each"
            )
        found = target.score(scores(target.vectors, rows))
        self._concept, self._target, self._space = concept, target, self._once.space
        self._sample = (found, truth, _copies(rows))
        self._wishes = {name: getattr(self, name) for name in _WISHES}
        self._classes = classes
        self.curve_ = precision_recall(found, truth)
        self.threshold_ = self._calibrate(validation="none", resamples=0).threshold if given is None else given
        self._calibrated = given is None
        return self

    def predict(self, X: Any) -> list[Any]:
        """Decide on pictures.

        Returns
        -------
        list of bool
            One for each picture, also for a single one: ``decision_function(X) > threshold_``, compared exactly.
            After a `fit` on other labels than true and false, of these labels.

        Raises
        ------
        NotFittedError
            No threshold was given and none chosen.
        ImageError
            Pictures cannot be read; the message names them.
        """
        threshold = self._threshold_in_use()
        matched = above(self.scores(X), threshold)
        return list(self.classes_[matched.astype(np.intp)].tolist())

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Return the scores of pictures: cosines, from which nothing is subtracted.

        The boundary is therefore not 0 but the threshold: ``predict`` is ``decision_function(X) > threshold_``. So the
        thresholds of `precision_recall_curve`, of `TunedThresholdClassifierCV` and of a store are all the same thing.

        Returns
        -------
        ndarray of shape (n,), float32
            In [-1, 1] (with opponents in [-2, 2]); larger is nearer.

        Raises
        ------
        NotFittedError
            As `predict`; `scores` needs no threshold.
        """
        self._threshold_in_use()
        return self.scores(X)

    def scores(self, X: Any) -> NDArray[np.float32]:
        """Return the same as `decision_function`, before `fit` and without a threshold too."""
        target = self._target if self._fitted else self._query(0.0)[1]
        return target.score(scores(target.vectors, self._rows(X, reset=False)))

    def embed(self, X: Any) -> Vectors:
        """Return the vectors of pictures, to be passed for them ever after: float32 of shape (n, dim)."""
        return self._rows(X, reset=False)

    @property
    def classes_(self) -> NDArray[Any]:
        """The two labels, that of a match last; false and true where a threshold was given and nothing fitted."""
        if not self.__sklearn_is_fitted__():
            raise AttributeError("classes_ is known after fit, or when a threshold is given")
        return self._classes if self._fitted else _BOOLS

    @property
    def calibration_(self) -> Calibration:
        """The threshold with honest figures, cross-validated and with intervals; made when first asked for."""
        if not self._fitted or not self._calibrated:
            raise AttributeError("there is a calibration after fit without a given threshold")
        return self._calibrate()

    def to_classifier(self, name: str, label: str | None = None) -> Classifier:
        """Return a classifier that can be saved, and applied without model or network.

        Its `name` is also that of its file; the `label` of its class is the name by default. NotFittedError as
        `predict`.
        """
        threshold = self._threshold_in_use()
        if not self._fitted:
            concept, target = self._query(threshold)
            asked = dataclasses.replace(target, label=label or name, **concept.words)
            return Classifier(name, self._once.space, (asked,))
        found, truth, _ = self._sample
        asked = dataclasses.replace(self._target, label=label or name, **self._concept.words)
        if self._calibrated:
            calibration = self.calibration_
            intervals = calibration.intervals, calibration.prediction_intervals
            measured = asked.measured(found, calibration.figures, *intervals)
            return Classifier.of(name, self._space, [(measured, calibration)])
        measured = asked.measured(found, self.curve_.at(threshold).to_dict())
        how = f"on {counted(len(found), 'labelled picture')}, which a given threshold was not chosen on"
        n_pos = int(truth.sum())
        return Classifier(name, self._space, (measured,), validation=how, n=len(found), n_pos=n_pos)

    @property
    def _fitted(self) -> bool:
        return hasattr(self, "threshold_")

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted or self.threshold is not None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.poor_score = True  # the direction comes from the text, not from the data
        return tags

    def __sklearn_clone__(self) -> ImageClassifierFromTextQuery:
        """Share the store and the embedder: they are resources, which a deep copy would load once more."""
        bare = copy.copy(self)
        bare.store = bare.model = None
        made: ImageClassifierFromTextQuery = super(ImageClassifierFromTextQuery, bare).__sklearn_clone__()
        made.store, made.model = self.store, self.model
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Name the store by its path: maps of files do not travel to another process."""
        state: dict[str, Any] = dict(super().__getstate__())
        if isinstance(state["store"], EmbedStore):
            state["store"] = str(state["store"].path)
        return state

    def _threshold_in_use(self) -> float:
        if self._fitted:
            return float(self.threshold_)
        if self.threshold is None:
            raise NotFittedError(
                f"this {type(self).__name__} has no threshold yet: call fit(images, labels) to choose one, "
                "or give one, as in ImageClassifierFromTextQuery('dog', 0.0564). scores(images) needs none"
            )
        return as_threshold(self.threshold)

    def _calibrate(self, **how: Any) -> Calibration:
        found, truth, copies = self._sample
        return calibrate_scores(found, truth, copies, **self._wishes, **how)

    def _query(self, threshold: float) -> tuple[Concept, Target]:
        """Embed the query and its opponents."""
        concept = Concept.of(self.text_query, template=self.template, opposing=self.opposing)
        other = next((query.kind for query in concept.all_queries if query.kind != "text"), None)
        if other is not None:
            raise QueryError(f"text_query and opposing are texts, found {other}; a store searches by all kinds")
        vectors = self._once.texts([query.value for query in concept.all_queries])
        return concept, Target(concept.label, threshold, *concept.join(vectors))

    def _rows(self, X: Any, *, reset: bool) -> Vectors:
        """Return the unit vectors of pictures, or of vectors."""
        items = pictures_or_table(X)
        if isinstance(items, list):
            if reset:  # what an earlier fit on vectors has left
                self.__dict__.pop("n_features_in_", None)
                self.__dict__.pop("feature_names_in_", None)
            return self._once.pictures(items)
        try:
            table = validate_data(self, items, reset=reset, dtype=np.float32, order="C")
        except ValueError as error:
            raise VectorError(str(error)) from error
        return normalise(self._of_space(table), "X")

    def _of_space(self, table: Vectors) -> Vectors:
        """Refuse vectors that cannot be of the query's space."""
        space = self._once.space
        if table.shape[1] != space.dim:
            raise VectorError(
                f"X has {table.shape[1]} features, but {type(self).__name__} is expecting {space.dim} features as "
                f"input: vectors of the space {space}. For pictures pass a list of them"
            )
        return table

    @property
    def _once(self) -> CachedEmbedder:
        """What embeds each picture once, by the model, the store or both as they are now; without a model the store's.

        SpaceMismatchError where the model makes other vectors than the store holds.
        """
        opened, model = _open_store(self.store), self.model
        if opened is None:
            embedder = _shared_embedder(model) if model is None or isinstance(model, str) else model
            return CachedEmbedder(embedder.space, lambda: embedder, progress=self.progress)
        space = opened.space if model is None else space_of(model) if isinstance(model, str) else model.space
        opened.space.require(space, "the model given")
        own = None if model is None or isinstance(model, str) else model
        reader = opened.reader
        return CachedEmbedder(space, lambda: own or opened.embedder, reader.rows, reader.queries.cache, self.progress)


def _copies(rows: Vectors) -> NDArray[np.int64]:
    """Number the rows so that equal vectors, which copies of a picture have, get equal numbers."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows], dtype=np.int64)


def pictures_or_table(X: Any) -> Any:
    """Return a list with one item for each picture, or else what is meant to be a table of numbers, unchecked.

    Takes one picture in any form, several in a sequence or a 1-d array, or rows of numbers; ImageError for others.
    """
    if isinstance(X, np.ndarray) and X.ndim == 2:
        return [X] if X.dtype == np.uint8 else X  # a grey picture; other numbers are a table of vectors
    if isinstance(X, str | os.PathLike) or type(X) is dict or is_image(X):
        return [X]
    if hasattr(X, "column_names") and hasattr(X, "features"):
        raise ImageError(f"this is a data set; pass one of its columns, such as X[{X.column_names[0]!r}]")
    if hasattr(X, "to_pylist"):
        return X.to_pylist()
    if not hasattr(X, "shape") and hasattr(X, "__array__"):
        X = np.asarray(X)
    shape = getattr(X, "shape", None)
    if shape is not None:
        numbers = len(shape) == 1 and getattr(X.dtype, "kind", "O") in "biufc"
        return X if numbers or len(shape) in (0, 2) else list(X)
    try:
        items = list(X)
    except TypeError as error:
        raise ImageError(
            f"expected a picture, a list of pictures or an array of vectors, found {type(X).__name__}"
        ) from error
    return np.asarray(items) if items and all(_is_number_or_row(item) for item in items) else items


def two_classes(y: Any, asked: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return two classes, ascending, and which labels are of the larger, that of a match: bool of shape (n,).

    LabelError for more classes or fewer, missing labels, or texts of which the one that the query `asked` for names
    comes first.
    """
    try:
        values = column_or_1d(y, warn=True)
        assert_all_finite(values, input_name="y")
        check_classification_targets(values)
        kind = type_of_target(values, input_name="y", raise_unknown=True)
    except ValueError as error:
        raise LabelError(str(error)) from error
    classes, position = np.unique(values, return_inverse=True)
    if kind != "binary":
        raise LabelError(
            f"Only binary classification is supported. The type of the target is {kind}. "
            "Compare with the class that is looked for, as in labels == 'dog'"
        )
    if len(classes) < 2:
        raise LabelError(f"all labels are {classes.tolist()}: labels of one class only choose no threshold")
    low, high = (re.search(rf"\b{re.escape(str(name))}\b", asked, re.IGNORECASE) for name in classes)
    if low and not high and classes.dtype.kind in "OUS":
        raise LabelError(
            f"the query is {asked!r}, and of the labels {classes.tolist()} the last one would be that of a "
            f"match, as everywhere in scikit-learn; pass labels == {classes.tolist()[0]!r}"
        )
    return classes, position.astype(np.bool_)


def _is_number_or_row(item: Any) -> bool:
    """Tell whether an item of a list is a row of numbers, or one number."""
    if isinstance(item, np.ndarray | np.generic):
        return item.ndim < 2 and item.dtype.kind in "biufc"
    if isinstance(item, list | tuple):
        return all(isinstance(x, int | float) for x in item)
    return isinstance(item, int | float | complex)


def _open_store(store: EmbedStore | str | os.PathLike[str] | None) -> EmbedStore | None:
    """Return a store as it is now; a path is opened once in a process."""
    if store is None or isinstance(store, EmbedStore):
        return store
    path = Path(store).absolute()
    opened = _opened(path, StoreFolder.open(path).id)
    opened.refresh()
    return opened


@functools.lru_cache(maxsize=8)
def _opened(path: Path, store_id: str) -> EmbedStore:
    """Open a store; one that was made anew at the same path has another id."""
    return EmbedStore.open(path)


def _shared_embedder(name: str | None) -> Embedder:
    """Return an embedder; one that runs here is kept for the process, as its weights take long to load."""
    made = make_embedder(name)
    return made if made.space.backend == "nomic-api" else _LOADED.setdefault(made.space.key, made)
