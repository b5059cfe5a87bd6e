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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.target import Target
from embedstore.deciding.two_classes import platt_sigmoid, two_classes
from embedstore.embedders.protocol import Embedder
from embedstore.embedders.registry import space_of
from embedstore.errors import LabelError, QueryError, VectorError
from embedstore.ingest.cached_embedder import CachedEmbedder, without_store
from embedstore.ingest.sequences import Given, pictures_or_table
from embedstore.ingest.user_vectors import Claims, UserVectors
from embedstore.measures.calibration import Calibration, calibrate_scores
from embedstore.measures.choice import Wishes
from embedstore.measures.curves import above, as_threshold, precision_recall
from embedstore.measures.samples import as_weights
from embedstore.searching.queries import Concept
from embedstore.storage.bucket import is_url
from embedstore.storage.folder import StoreFolder
from embedstore.store import EmbedStore
from embedstore.vectors import Vectors, normalise, scores
from embedstore.wording import counted

_BOOLS = np.array([False, True])
_WISHES = tuple(field.name for field in dataclasses.fields(Wishes))


def _offers_probability(classifier: ImageClassifierFromTextQuery) -> bool:
    """Let `predict_proba` be there; the error says what to do where it is not."""
    if not classifier.probability:
        raise AttributeError("predict_proba is there with probability=True, and needs a fit")
    return True


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
        that no process embeds it again. Where none is named, vectors are kept for the user, see
        `ingest.user_vectors.UserVectors`. None: they are forgotten when the process ends.
    template : str or list of str, optional
        Prompts such as ``"a photo of a {}"``; several are averaged.
    opposing : str or list of str
        What it must not be: the score is that of the query minus the best of these.
    objective, beta, cost, min_precision, min_recall, max_matches, guarantee, confidence
        What `fit` chooses the threshold for; see `choice.Wishes`.
    probability : bool
        Offer `predict_proba`. Not by default: scikit-learn's tools that move a threshold prefer a probability where
        there is one, and its one half is not the threshold that was chosen.
    progress : bool, optional
        Show a bar on stderr while pictures are embedded; by default when that is a terminal.

    Attributes
    ----------
    threshold_ : float
        The threshold in use, after `fit`; `threshold` is the one given.
    text_emb : ndarray of shape (1, dim)
        The vector of the query, as on the cookbook's page.
    classes_ : ndarray of shape (2,)
        The two labels; the second is that of a match.
    curve_ : Curve
        Exact precision, recall and F1 of the pictures of `fit` at every threshold, by their weights.
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

    **What comes back** from `predict` is of the kind that went in: for a list of pictures, or one picture, a list, as
    on the cookbook's page; for an array, a pandas or an Arrow column, and for vectors, an array. scikit-learn's
    metrics, scorers and searches take both.

    **Scores and decisions.** `scores` are cosines and mean the same as those of a store; a match is
    ``scores(X) > threshold``, strictly. `decision_function` is ``scores(X) - threshold``, whose boundary is 0, as
    everywhere in scikit-learn. Thresholds of scikit-learn's `precision_recall_curve`, `roc_curve` and
    `TunedThresholdClassifierCV` match at ``>=``. To match the same pictures here take the next number below, as in
    ``threshold=float(np.nextafter(t, np.float32(-np.inf)))`` for a `t` among ``scores(X)``; `curve_.thresholds` are
    for ``>`` already.

    Examples
    --------
    >>> from PIL import Image
    >>> grey = Image.new("RGB", (64, 64), "grey")
    >>> ImageClassifierFromTextQuery("dog", 0.9, model="objects").predict(grey)
    [False]
    """

    # The page's name for the pictures is no metadata that could be routed.
    __metadata_request__predict = {"image": UNUSED}  # noqa: RUF012  (scikit-learn reads it from the class)

    def __init__(
        self,
        text_query: str | Sequence[str],
        threshold: float | None = None,
        *,
        model: str | Embedder | None = None,
        store: EmbedStore | str | os.PathLike[str] | type[UserVectors] | None = UserVectors,
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
        probability: bool = False,
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
        self.probability = probability
        self.progress = progress

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ImageClassifierFromTextQuery:
        """Choose the threshold by labelled pictures; with a `threshold` given, only measure it.

        Parameters
        ----------
        X : pictures or vectors
        y : array-like of shape (n,)
            Two different labels, see the notes of the class.
        sample_weight : array-like of shape (n,), optional
            How much each picture counts: a weight of 2 is that of two such pictures, one of 0 that of none. Where they
            differ the pictures are no simple random sample, and nothing can be guaranteed.

        Raises
        ------
        LabelError
            Labels that are not of two classes, or that fit the pictures not at all; a guarantee is asked for and
            weights differ.
        InputError
            Weights that are no numbers of at least 0, one for each picture.
        ImageError, QueryError, UnreachableError
        """
        given = None if self.threshold is None else as_threshold(self.threshold)
        if y is None:
            raise LabelError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        asked = self.text_query if isinstance(self.text_query, str) else " ".join(self.text_query)
        classes, truth = two_classes(y, asked)
        concept, target = self._query(given or 0.0)
        rows = self._rows(pictures_or_table(X), reset=True)
        if len(rows) != len(truth):
            raise LabelError(
                f"{counted(len(truth), 'label')} for {counted(len(rows), 'picture')}; give exactly one for each"
            )
        found = target.score(scores(target.vectors, rows))
        weights = None if sample_weight is None else as_weights(sample_weight, len(rows))
        if weights is not None:
            counting = weights != 0
            rows, found, truth, weights = rows[counting], found[counting], truth[counting], weights[counting]
            if truth.all() or not truth.any():
                only = classes[int(truth[0])]
                raise LabelError(f"all labels of a weight above 0 are {only}: labels of one class choose no threshold")
        self._concept, self._target, self._space = concept, target, self._once.space
        self._sample = (found, truth, _copies(rows), weights)
        self._wishes = {name: getattr(self, name) for name in _WISHES}
        self._classes = classes
        self.curve_ = precision_recall(found, truth, weights)
        self.threshold_ = self._calibrate(validation="none", resamples=0).threshold if given is None else given
        self._calibrated = given is None
        self._sigmoid = platt_sigmoid(found, truth, weights) if self.probability else None
        return self

    def predict(self, X: Any = None, *, image: Any = None) -> list[Any] | NDArray[Any]:
        """Decide on pictures; `image` is what the cookbook's page calls them.

        Returns
        -------
        list of bool, or ndarray of shape (n,)
            One for each picture, also for a single one: ``scores(X) > threshold_``, compared exactly. After a `fit` on
            other labels than true and false, of these labels. An array for an array, else a list: see the class.

        Raises
        ------
        NotFittedError
            No threshold was given and none chosen.
        ImageError
            Pictures cannot be read; the message names them.
        """
        if (X is None) == (image is None):
            raise TypeError("predict takes pictures, once: predict(images), or predict(image=images) as on the page")
        threshold = self._threshold_in_use()
        given = pictures_or_table(image if X is None else X)
        labels = self.classes_[above(self._scored(given), threshold).astype(np.intp)]
        return labels if given.is_array else list(labels.tolist())

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return by how much pictures exceed the threshold: ``scores(X) - threshold_``.

        Returns
        -------
        ndarray of shape (n,), float64
            Above 0 for exactly the pictures that match: the difference of two numbers of float64 is 0 only where they
            are equal.

        Raises
        ------
        NotFittedError
            As `predict`; `scores` needs no threshold.
        """
        threshold = self._threshold_in_use()
        return self.scores(X).astype(np.float64) - threshold

    def scores(self, X: Any) -> NDArray[np.float32]:
        """Return the scores of pictures: cosines, from which nothing is subtracted; before `fit` too.

        Returns
        -------
        ndarray of shape (n,), float32
            In [-1, 1] (with opponents in [-2, 2]); larger is nearer.
        """
        return self._scored(pictures_or_table(X))

    @available_if(_offers_probability)  # type: ignore[untyped-decorator]  # as above
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities of no match and of a match, by Platt's sigmoid of the score.

        The sigmoid is fitted by scikit-learn to the labelled scores of `fit`; it is only as good as these are
        typical of the pictures asked about. Where the probability passes one half need not be the threshold, which is
        chosen for the `objective`.

        Returns
        -------
        ndarray of shape (n, 2), float64
            The columns are those of `classes_`.

        Raises
        ------
        NotFittedError
            Nothing was fitted: a given threshold says nothing of probabilities.
        """
        if not self._fitted or self._sigmoid is None:
            raise NotFittedError(
                f"this {type(self).__name__} has seen no labels with probability=True: probabilities come from "
                "fit(images, labels), and a given threshold says nothing of them"
            )
        found: NDArray[np.float64] = self._sigmoid.predict_proba(self.scores(X)[:, np.newaxis])
        return found

    def embed(self, X: Any) -> Vectors:
        """Return the vectors of pictures, to be passed for them ever after: float32 of shape (n, dim)."""
        return self._rows(pictures_or_table(X), reset=False)

    @property
    def text_emb(self) -> Vectors:
        """The unit vector of the query, float32 of shape (1, dim); of several texts that of their mean."""
        target = self._target if self._fitted else self._query(0.0)[1]
        return target.vector[np.newaxis].copy()

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
        found, truth, _, _ = self._sample
        asked = dataclasses.replace(self._target, label=label or name, **self._concept.words)
        if self._calibrated:
            calibration = self.calibration_
            figures, others = calibration.figures, calibration.prediction_intervals
            measured = asked.measured(found, truth, figures, calibration.intervals, prediction_intervals=others)
            return Classifier.of(name, self._space, [(measured, calibration)])
        measured = asked.measured(found, truth, self.curve_.at(threshold).to_dict())
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
            state["store"] = state["store"].location
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
        found, truth, copies, weights = self._sample
        alike = weights is None or bool((weights == weights[0]).all())
        told = {} if weights is None else {"sample_weight": weights, "random": np.full(len(weights), alike)}
        return calibrate_scores(found, truth, copies, **told, **self._wishes, **how)

    def _query(self, threshold: float) -> tuple[Concept, Target]:
        """Embed the query and its opponents."""
        concept = Concept.of(self.text_query, template=self.template, opposing=self.opposing)
        other = next((query.kind for query in concept.all_queries if query.kind != "text"), None)
        if other is not None:
            raise QueryError(f"text_query and opposing are texts, found {other}; a store searches by all kinds")
        vectors = self._once.texts([query.value for query in concept.all_queries])
        return concept, Target(concept.label, threshold, *concept.join(vectors))

    def _scored(self, given: Given) -> NDArray[np.float32]:
        """Return the scores of pictures or vectors."""
        target = self._target if self._fitted else self._query(0.0)[1]
        return target.score(scores(target.vectors, self._rows(given, reset=False)))

    def _rows(self, given: Given, *, reset: bool) -> Vectors:
        """Return the unit vectors of pictures, or of vectors."""
        if not given.is_table:
            if reset:  # what an earlier fit on vectors has left
                self.__dict__.pop("n_features_in_", None)
                self.__dict__.pop("feature_names_in_", None)
            return self._once.pictures(given.content)
        try:
            table = validate_data(self, given.content, reset=reset, dtype=np.float32, order="C")
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
        model = self.model
        if self.store is None or self.store is UserVectors:
            return without_store(model, keep=self.store is not None, progress=self.progress)
        opened = _open_store(self.store)
        space = opened.space if model is None else space_of(model) if isinstance(model, str) else model.space
        opened.space.require(space, "the model given")
        own = None if model is None or isinstance(model, str) else model
        reader, folder = opened.reader, opened.folder
        claims = Claims(folder.ledger, folder.running, space)
        return CachedEmbedder(
            space, lambda: own or opened.embedder, reader.rows, reader.queries.cache, claims, self.progress
        )


def _copies(rows: Vectors) -> NDArray[np.int64]:
    """Number the rows so that equal vectors, which copies of a picture have, get equal numbers."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows], dtype=np.int64)


def _open_store(store: Any) -> EmbedStore:
    """Return a store as it is now; a path is opened once in a process."""
    if isinstance(store, EmbedStore):
        return store
    path = os.fspath(store) if is_url(store) else str(Path(store).absolute())
    opened = _opened(path, StoreFolder.open(path).id)
    opened.refresh()
    return opened


@functools.lru_cache(maxsize=8)
def _opened(path: str, store_id: str) -> EmbedStore:
    """Open a store; one that was made anew at the same path has another id."""
    return EmbedStore.open(path)
