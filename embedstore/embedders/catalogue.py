"""The table of embedders: what there is, what each needs, and how it is made.

Turns a name into an entry whose functions import the embedder's module when they are called, and not before.
Choosing among the entries is left to `registry`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.embedders.protocol import Embedder
from embedstore.errors import CredentialsError
from embedstore.space import Space


@dataclass(frozen=True)
class Model:
    """One embedder of the table; the functions import its module when they are called, and not before.

    Attributes
    ----------
    summary : str
        What it is, in a line.
    needs : str
        What must be there before it runs.
    space : callable
        Returns the space of its vectors.
    make : callable
        Returns the embedder; takes the options of its constructor.
    state : callable
        Returns (ready, size in bytes or None, path or None) of its weights, from a look at this machine only.
    pull : callable or None
        Fetches the weights, where there are any to fetch; takes whether to show progress.
    """

    summary: str
    needs: str
    space: Callable[[], Space]
    make: Callable[..., Embedder]
    state: Callable[[], tuple[bool, int | None, Path | None]]
    pull: Callable[[bool], Path] | None = None


def _nomic_space() -> Space:
    from embedstore.embedders.nomic_api import SPACE  # only when asked for, as all below

    return SPACE


def _make_nomic(**options: Any) -> Embedder:
    from embedstore.embedders.nomic_api import NomicAPIEmbedder

    return NomicAPIEmbedder(**options)


def _nomic_state() -> tuple[bool, int | None, Path | None]:
    """Ready when there is a key that can be used; it has no weights on this machine."""
    from embedstore.credentials import find_key

    try:
        ready = find_key() is not None
    except CredentialsError:  # a list of models says "not ready"; whoever uses the model is told why
        ready = False
    return ready, None, None


def _local_space(quantised: bool) -> Space:
    from embedstore.embedders.nomic_local import SPACE, SPACE_QUANTISED

    return SPACE_QUANTISED if quantised else SPACE


def _make_local(quantised: bool, **options: Any) -> Embedder:
    from embedstore.embedders.nomic_local import NomicLocalEmbedder

    return NomicLocalEmbedder(quantised=quantised, **options)


def _local_state(quantised: bool) -> tuple[bool, int | None, Path | None]:
    """Ready when the files of both models are in the cache."""
    from embedstore.embedders import nomic_weights

    size = nomic_weights.size_on_disk(quantised)
    return size is not None, size, nomic_weights.cache_folder() if size is not None else None


def _pull_local(quantised: bool, progress: bool) -> Path:
    from embedstore.embedders import nomic_weights

    return nomic_weights.pull(quantised, progress=progress)


def _objects_space() -> Space:
    from embedstore.embedders.objects import ObjectsEmbedder

    return ObjectsEmbedder.space


def _make_objects(**options: Any) -> Embedder:
    from embedstore.embedders.objects import ObjectsEmbedder

    return ObjectsEmbedder(**options)


def _objects_state() -> tuple[bool, int | None, Path | None]:
    """Ready always: its files are part of the package."""
    folder = Path(__file__).parent / "objects_model"
    return True, sum(file.stat().st_size for file in folder.iterdir() if file.is_file()), folder


MODELS: dict[str, Model] = {
    "nomic": Model(
        summary="Nomic Embed Vision and Text v1.5 through Nomic's service",
        needs="a key from https://atlas.nomic.ai: NOMIC_API_KEY, or `nomic login`",
        space=_nomic_space,
        make=_make_nomic,
        state=_nomic_state,
    ),
    "nomic-local": Model(
        summary="the same two models on this machine, float32",
        needs="`embedstore models pull nomic-local`, one download of 0.92 GB",
        space=lambda: _local_space(False),
        make=lambda **options: _make_local(False, **options),
        state=lambda: _local_state(False),
        pull=lambda progress: _pull_local(False, progress),
    ),
    "nomic-local-q": Model(
        summary="the same two models on this machine, int8: smaller, less exact",
        needs="`embedstore models pull nomic-local-q`, one download of 0.24 GB",
        space=lambda: _local_space(True),
        make=lambda **options: _make_local(True, **options),
        state=lambda: _local_state(True),
        pull=lambda progress: _pull_local(True, progress),
    ),
    "objects": Model(
        summary="names things (the 1,000 classes of ImageNet); bundled, no Nomic model",
        needs="nothing",
        space=_objects_space,
        make=_make_objects,
        state=_objects_state,
    ),
}
