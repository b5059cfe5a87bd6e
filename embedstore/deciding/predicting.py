"""A classifier and whatever is to be decided on -> the scores of its classes: a store's rows, or pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.deciding.decide import apply
from embedstore.embedders.protocol import Embedder
from embedstore.embedders.registry import embedder_for_space
from embedstore.ingest.embed_once import EmbedOnce
from embedstore.measures.classifier import Classifier
from embedstore.store import EmbedStore


def class_scores(classifier: Classifier, what: Any, embedder: Embedder | None = None) -> NDArray[np.float32]:
    """Return the scores of a classifier's classes, float32 of shape (n_classes, n).

    Parameters
    ----------
    classifier : Classifier
    what : EmbedStore, picture, or sequence of pictures
        See `embed_once.EmbedOnce.pictures`. A store needs no model.
    embedder : Embedder, optional
        For pictures; by default the one that the classifier's space names. Each picture is embedded once in a
        process.

    Raises
    ------
    ClassifierError
        The store's space is another.
    ModelNotFoundError
        The embedder cannot be made here.
    """
    if isinstance(what, EmbedStore):
        return apply(what, classifier)[0]
    items = list(what) if isinstance(what, list | tuple) else [what]
    once = EmbedOnce(classifier.space, lambda: embedder or embedder_for_space(classifier.space))
    return classifier.score_rows(once.pictures(items))
