"""Which embedder is meant: by name, by the environment, by what is ready here, or by the space of a store.

Turns a name or a space into an `Embedder`. A table names for each what makes it, as ``module:class``, which is imported
when it is used and not before: names are known without loading anything, spaces without loading a model. Installed
packages add embedders under the entry point group `GROUP`. Making vectors is left to the module of each.

What is named takes options and makes an `Embedder`. Its attribute ``space`` says where the vectors lie before there is
one; ``summary`` (what it is) and ``needs`` (what must be there before it runs), each a line, are for lists. Where there
is more to know of this machine ``state()`` returns a `protocol.State`; where there are weights to fetch
``pull(progress)`` does so and returns their folder.
"""

from __future__ import annotations

import inspect
import logging
import os
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.embedders.protocol import Embedder, State
from embedstore.errors import ModelNotFoundError, did_you_mean, option, spelt
from embedstore.settings import MODEL, find_key
from embedstore.space import Space

_log = logging.getLogger("embedstore")

MODELS = {
    "nomic": "embedstore.embedders.nomic_api:NomicAPIEmbedder",
    "nomic-local": "embedstore.embedders.nomic_local:NomicLocalEmbedder",
    "nomic-local-fp16": "embedstore.embedders.nomic_local:HalfNomicLocalEmbedder",
    "nomic-local-q": "embedstore.embedders.nomic_local:QuantisedNomicLocalEmbedder",
    "clip": "embedstore.embedders.clip_models:ClipEmbedder",
    "jina-clip": "embedstore.embedders.clip_models:JinaClipEmbedder",
    "jina-clip-fp16": "embedstore.embedders.clip_models:HalfJinaClipEmbedder",
    "jina-clip-q": "embedstore.embedders.clip_models:QuantisedJinaClipEmbedder",
    "siglip2": "embedstore.embedders.clip_models:Siglip2Embedder",
    "siglip2-fp16": "embedstore.embedders.clip_models:HalfSiglip2Embedder",
    "siglip2-q": "embedstore.embedders.clip_models:QuantisedSiglip2Embedder",
    "objects": "embedstore.embedders.objects:ObjectsEmbedder",
}
"""The embedders of this package by name; no plug-in takes one of these names."""

FOR_QUERIES = {"nomic-atlas": "embedstore.embedders.nomic_atlas:NomicAtlasEmbedder"}
"""Embedders of texts for stores whose pictures a service has embedded by itself: found by the space, not listed."""

GROUP = "embedstore.embedders"  # entry point group of embedders that other packages bring


@dataclass(frozen=True)
class ModelInfo:
    """What is known of an embedder on this machine.

    `name` is what ``--model`` takes; `model`, `backend`, `precision` and `dim` are those of its space. It is `ready`
    when what it `needs` is there, weights or a key, and `cached` when its weights are on this machine; where they are
    not, `size_bytes` and `path` are None. `revisions` are the commits whose files are used, by repository.
    """

    name: str
    summary: str
    model: str
    backend: str
    precision: str
    dim: int
    needs: str
    ready: bool
    cached: bool
    size_bytes: int | None
    path: str | None
    revisions: dict[str, str]


def make_embedder(name: str | None = None, **options: Any) -> Embedder:
    """Return an embedder by name: one of `MODELS`, or a plug-in's.

    Without a name ``EMBEDSTORE_MODEL`` decides, and without that `default_model`, for which a ``key`` among the
    options counts as one that is configured. The options are passed to the embedder's constructor.

    Raises ModelNotFoundError where there is no such model, its weights are not here, or none was named and none is
    ready; CredentialsError where the model is a service, and there is no key.
    """
    chosen = name or os.environ.get(MODEL) or ("nomic" if options.get("key") else default_model())
    embedder: Embedder = _maker(chosen)(**options)
    return embedder


def default_model() -> str:
    """Return the model to use when none is named: `nomic` with a key, else `nomic-local` with its weights.

    `objects` is never chosen silently: it names things, and is no Nomic model. Raises ModelNotFoundError, which names
    the three ways forward, where there is neither; CredentialsError where a key is there and cannot be used.
    """
    if find_key() is not None:
        return "nomic"
    if _state("nomic-local").ready:
        return "nomic-local"
    raise ModelNotFoundError(
        "no model was named and none is ready. There are three ways forward: "
        "(1) get a key at https://atlas.nomic.ai and set NOMIC_API_KEY, to embed through Nomic's service; "
        "(2) run `embedstore models pull nomic-local` once, to run the same models on this machine; "
        f"(3) pass {option('model', 'objects')} (or set {MODEL}=objects), to use the small model inside embedstore"
    )


def space_of(name: str) -> Space:
    """Return the space of a model's vectors, without loading weights; ModelNotFoundError if there is no such model."""
    space: Space = _maker(name).space
    return space


def name_for_space(space: Space) -> str:
    """Return the name of the model whose vectors lie in `space`; ModelNotFoundError says what it takes if none do."""
    spaces: dict[str, Space] = {}
    for name in (*_names(), *FOR_QUERIES):
        spaces[name] = own = space_of(name)
        if space.takes(own):
            return name
    if space.backend == "given":
        raise ModelNotFoundError(
            f"the vectors of this store were made elsewhere and are known as {space.model!r}, {space.dim}-d: "
            "no embedder here makes such vectors. "
            + spelt(
                "To search by text or picture pass `embedder=`, an object of the Embedder protocol around the model "
                "they came from; by vector or by id needs none, and `add` takes vectors with embedding_column='NAME'",
                "Search by --id, and add vectors with --embedding-column NAME, which need none; "
                "Python also takes an embedder of your own, for texts",
            )
        )
    known = "; ".join(f"{name}: {own}" for name, own in spaces.items())
    raise ModelNotFoundError(
        f"no embedder of this version makes vectors of the space {space}. It has {known}. Use the version that made "
        + spelt(
            "the store, or pass `embedder=`; searching by vector or by id needs no model",
            "the store; searching by --id needs no model",
        )
    )


def name_of(embedder: Embedder) -> str | None:
    """Return the name by which such an embedder is made; None where it is of a kind of the user's own."""
    return next((name for name in _names() if _maker(name) is type(embedder)), None)


def takes(name: str, option: str) -> bool:
    """Tell whether a model of this package is made with such an option."""
    return name in MODELS and option in inspect.signature(_maker(name)).parameters


def embedder_for_space(space: Space, *, other_backend: bool = False, **options: Any) -> Embedder:
    """Return the embedder whose vectors can be compared with those of a store; options and errors as `make_embedder`.

    With `other_backend`, where the store's own embedder is not ready here, it is another backend of the same model
    that is: its vectors are near those of the store's own, not equal.
    """
    name = name_for_space(space)
    if other_backend and not _state(name).ready:
        others = (other for other in _names() if space.same_model(space_of(other)))
        name = next((other for other in others if _state(other).ready), name)
    return make_embedder(name, **options)


def is_remote(name: str) -> bool:
    """Tell whether a model is behind a service: made with a budget, timeouts and retries, see `remote`."""
    from embedstore.embedders.remote import RemoteEmbedder  # late: it brings file locks

    maker = _maker(name)
    return isinstance(maker, type) and issubclass(maker, RemoteEmbedder)


def unknown_texts(space: Space, texts: Sequence[str]) -> list[str]:
    """Return those texts of which the model of a space knows no word; none where it does not say.

    Only a model of this package that has the name of its space is asked: that loads nothing else.
    """
    ask = getattr(_maker(space.model), "unknown", None) if space.model in MODELS else None
    return ask(texts) if ask is not None else []


def list_models() -> list[ModelInfo]:
    """Return what is known of every embedder, from a look at this machine only."""
    return [_info(name) for name in _names()]


def pull(name: str, progress: bool = True) -> Path | None:
    """Fetch the weights of a model, those here are kept; return their folder, None if there are none to fetch.

    Raises ModelNotFoundError for no such model, OfflineError, and ServiceError where the hub did not deliver.
    """
    fetch = getattr(_maker(name), "pull", None)
    return fetch(progress) if fetch is not None else None


def _names() -> Iterator[str]:
    """Yield the names of all embedders: this package's own, and then those of installed packages that load."""
    yield from MODELS
    for name in _plug_ins():
        if name not in MODELS:
            try:
                _maker(name)
            except ModelNotFoundError as error:
                _log.warning("%s", error)
            else:
                yield name


def _plug_ins() -> dict[str, str]:
    """Return what makes the embedders of installed packages, by name."""
    from importlib.metadata import entry_points  # only for what is not this package's own

    return {point.name: point.value for point in entry_points(group=GROUP)}


def _maker(name: str) -> Any:
    """Import what makes an embedder; see the top of this module for what it offers."""
    if name in MODELS or name in FOR_QUERIES:
        return pkgutil.resolve_name((MODELS | FOR_QUERIES)[name])
    place = _plug_ins().get(name)
    if place is None:
        names = list(_names())
        guess = did_you_mean(name, names)
        raise ModelNotFoundError(f"there is no model {name!r}; there are {', '.join(names)}.{guess}")
    try:
        return pkgutil.resolve_name(place)
    except Exception as error:  # whatever another package's code may raise
        raise ModelNotFoundError(
            f"the model {name!r} is {place} of an installed package, which does not load "
            f"({type(error).__name__}: {error}); mend that package or remove it"
        ) from error


def _state(name: str) -> State:
    """Look at this machine; an embedder that does not say is always ready."""
    look = getattr(_maker(name), "state", None)
    return look() if look is not None else State(ready=True)


def _info(name: str) -> ModelInfo:
    maker, space, state = _maker(name), space_of(name), _state(name)
    return ModelInfo(
        name=name,
        summary=getattr(maker, "summary", ""),
        model=space.model,
        backend=space.backend,
        precision=space.precision,
        dim=space.dim,
        needs=getattr(maker, "needs", "nothing"),
        ready=state.ready,
        cached=state.folder is not None,
        size_bytes=state.size_bytes,
        path=str(state.folder) if state.folder is not None else None,
        revisions=dict(state.revisions or {}),
    )
