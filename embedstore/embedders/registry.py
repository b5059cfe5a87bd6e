"""Which embedder is meant: by name, by the environment, by what is ready here, or by the space of a store.

Turns a name or a space into an `Embedder`. Names and spaces are known without loading a model. What there is
to choose from is left to `catalogue`, making vectors to the module of each embedder.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.embedders.catalogue import MODELS, Model
from embedstore.embedders.protocol import Embedder
from embedstore.errors import ModelNotFoundError
from embedstore.space import Space

SWITCH = "EMBEDSTORE_MODEL"
"""Environment variable: the model to use when none is named."""


@dataclass(frozen=True)
class ModelInfo:
    """What is known of an embedder on this machine.

    Attributes
    ----------
    name : str
        What ``--model`` takes.
    summary, model, backend, precision, dim
        What it is; the latter four are those of its space.
    needs : str
        What must be there before it runs.
    ready : bool
        Whether that is there: the weights, or a key.
    cached : bool
        Whether the weights are on this machine.
    size_bytes : int or None
        Their size on disk; None when they are not here.
    path : str or None
        Where they are; None when they are not here.
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


def make_embedder(name: str | None = None, **options: Any) -> Embedder:
    """Return an embedder by name.

    Parameters
    ----------
    name : str, optional
        One of `MODELS`. Without it ``EMBEDSTORE_MODEL`` decides, and without that `default_model`.
    **options
        Passed to the embedder's constructor. A ``key`` given here counts as one that is configured.

    Raises
    ------
    ModelNotFoundError
        There is no such model, its weights are not here, or none was named and none is ready.
    CredentialsError
        The model is a service, and there is no key.

    Examples
    --------
    >>> make_embedder("objects").space.model  # doctest: +SKIP
    'objects'
    """
    chosen = name or os.environ.get(SWITCH) or ("nomic" if options.get("key") else default_model())
    return _model(chosen).make(**options)


def default_model() -> str:
    """Return the model to use when none is named: `nomic` with a key, else `nomic-local` with its weights.

    `objects` is never chosen silently: it names things, and is no Nomic model.

    Raises
    ------
    ModelNotFoundError
        Neither; the message names the three ways forward.
    CredentialsError
        A key is there and cannot be used, which is not passed over in silence.
    """
    from embedstore.credentials import find_key  # a model that is named needs no such look

    if find_key() is not None:
        return "nomic"
    if MODELS["nomic-local"].state()[0]:
        return "nomic-local"
    raise ModelNotFoundError(
        "no model was named and none is ready. There are three ways forward: "
        "(1) get a key at https://atlas.nomic.ai and set NOMIC_API_KEY, to embed through Nomic's service; "
        "(2) run `embedstore models pull nomic-local` once, to run the same models on this machine; "
        f"(3) pass `--model objects` (or set {SWITCH}=objects), to use the small model inside embedstore"
    )


def space_of(name: str) -> Space:
    """Return the space of a model's vectors; loads no weights.

    Raises
    ------
    ModelNotFoundError
        There is no such model.
    """
    return _model(name).space()


def name_for_space(space: Space) -> str:
    """Return the name of the model whose vectors lie in `space`.

    Raises
    ------
    ModelNotFoundError
        None does; the message says what would be needed.
    """
    for name, model in MODELS.items():
        if space in (model.space(), model.space().rounded()):
            return name
    if space.backend == "given":
        raise ModelNotFoundError(
            f"the vectors of this store were made elsewhere and are known as {space.model!r}, {space.dim}-d: "
            "no embedder here makes such vectors. To search by text or picture pass `embedder=`, an object "
            "of the Embedder protocol around the model they came from; by vector or by id needs none"
        )
    known = "; ".join(f"{name}: {model.space()}" for name, model in MODELS.items())
    raise ModelNotFoundError(
        f"no embedder of this version makes vectors of the space {space}. It has {known}. Use the version of "
        "embedstore that made the store, or pass `embedder=`; searching by vector or by id needs no model"
    )


def embedder_for_space(space: Space, *, other_backend: bool = False, **options: Any) -> Embedder:
    """Return the embedder whose vectors can be compared with those of a store.

    Parameters
    ----------
    space : Space
    other_backend : bool
        Where the store's own embedder is not ready here, take another backend of the same model that is. Its
        vectors are near those of the store's own, not equal.
    **options
        Passed to the embedder's constructor.

    Raises
    ------
    ModelNotFoundError
        No embedder has this space, or its weights are not here.
    CredentialsError
        The model is a service, and there is no key.
    """
    name = name_for_space(space)
    if other_backend and not MODELS[name].state()[0]:
        others = (other for other in MODELS if space.same_model(MODELS[other].space()))
        name = next((other for other in others if MODELS[other].state()[0]), name)
    return make_embedder(name, **options)


def list_models() -> list[ModelInfo]:
    """Return what is known of every embedder, from a look at this machine only."""
    return [_info(name, model) for name, model in MODELS.items()]


def pull(name: str, progress: bool = True) -> Path | None:
    """Fetch the weights of a model; those already here are kept.

    Returns
    -------
    Path or None
        The folder that holds them; None for a model that has none to fetch.

    Raises
    ------
    ModelNotFoundError
        There is no such model.
    OfflineError
        The network is switched off.
    ServiceError
        The hub did not deliver.
    """
    fetch = _model(name).pull
    return fetch(progress) if fetch else None


def _model(name: str) -> Model:
    """Look a name up in the table."""
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name.lower(), MODELS, n=1, cutoff=0.5)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise ModelNotFoundError(f"there is no model {name!r}; there are {', '.join(MODELS)}.{guess}")


def _info(name: str, model: Model) -> ModelInfo:
    """Bring together what the table says and what this machine has."""
    space = model.space()
    ready, size, path = model.state()
    return ModelInfo(
        name=name,
        summary=model.summary,
        model=space.model,
        backend=space.backend,
        precision=space.precision,
        dim=space.dim,
        needs=model.needs,
        ready=ready,
        cached=path is not None,
        size_bytes=size,
        path=str(path) if path is not None else None,
    )
