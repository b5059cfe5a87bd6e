"""The two calls of Nomic's client that the cookbook makes, `text` and `image`, with nothing paid for twice.

``from embedstore import embed`` in place of ``from nomic import embed`` is all that a script has to change. Vectors
come from the user's (`user_vectors`), and what is not there from the embedder; the dictionaries are the client's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from embedstore.embedders.registry import space_of
from embedstore.errors import InputError
from embedstore.ingest.cached_embedder import CachedEmbedder, without_store
from embedstore.settings import MODEL

TEXT_MODEL, IMAGE_MODEL = "nomic-embed-text-v1.5", "nomic-embed-vision-v1.5"
_SPACE_MODEL = "nomic-embed-v1.5"


def text(texts: Sequence[str], *, model: str = TEXT_MODEL, task_type: str = "search_document") -> dict[str, Any]:
    """Return the vectors of queries, as `nomic.embed.text` does.

    Parameters
    ----------
    texts : list of str
    model : str
        The one that there is, ``"nomic-embed-text-v1.5"``.
    task_type : str
        ``"search_query"`` only, which has to be said: the client's default, kept here, is for documents.

    Returns
    -------
    dict
        ``embeddings``, a list of 768 floats for each text, of unit length, and ``model``. ``usage`` is empty: what was
        paid for before is not counted again. Runs with ``EMBEDSTORE_MODEL``, where that is one of Nomic's, else
        through Nomic's service.

    Raises
    ------
    InputError
        Another model or task, or one text in place of a list.
    EmbedderError
        The embedder failed.
    """
    if task_type != "search_query":
        raise InputError(
            f"task_type is {task_type!r}; texts are embedded as queries here: pass task_type='search_query', as on "
            "the cookbook's page, or use nomic.embed.text for others"
        )
    if isinstance(texts, str):
        raise InputError(f"texts must be a list of texts, found the text {texts!r}: pass [{texts!r}]")
    return _answer(_embedder(model, TEXT_MODEL).texts(list(texts)), model)


def image(images: Sequence[Any], model: str = IMAGE_MODEL) -> dict[str, Any]:
    """Return the vectors of pictures, as `nomic.embed.image` does.

    Parameters
    ----------
    images : list
        Paths, URLs, Pillow images, bytes, or whatever else `ImageClassifierFromTextQuery` takes for a picture. URLs are
        downloaded by this machine; the client has the service do that.
    model : str
        The one that there is, ``"nomic-embed-vision-v1.5"``.

    Returns
    -------
    dict
        As `text` does.

    Raises
    ------
    InputError
        Another model, or one path in place of a list.
    ImageError
        Pictures cannot be read; the message names them.
    EmbedderError
        The embedder failed.
    """
    if isinstance(images, str | os.PathLike):
        raise InputError(f"images must be a list of pictures, found the path {images!r}: pass [{str(images)!r}]")
    return _answer(_embedder(model, IMAGE_MODEL).pictures(images), model)


def _answer(vectors: Any, model: str) -> dict[str, Any]:
    return {"embeddings": vectors.tolist(), "usage": {}, "model": model}


def _embedder(asked: str, known: str) -> CachedEmbedder:
    """Return what embeds each thing once; refuses a model that there is not, and one in place of Nomic's."""
    if asked != known:
        raise InputError(f"model is {asked!r}; the one that there is here is {known!r}, as on the cookbook's page")
    name = os.environ.get(MODEL) or "nomic"
    space = space_of(name)
    if space.model != _SPACE_MODEL:
        raise InputError(
            f"{MODEL} is {name!r}, whose vectors are not those of {known!r}: set it to nomic or nomic-local, or use "
            "ImageClassifierFromTextQuery, which takes any model"
        )
    return without_store(name)
