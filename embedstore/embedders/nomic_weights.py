"""Where the weights of the two Nomic v1.5 models lie on this machine, and the one way they get there.

Turns a cache folder into the folders that fastembed loads from. The layout is that of the Hugging Face hub,
and fastembed's, so weights that either has fetched are found. Looking never touches the network; only `pull`
does. Loading and running the models is left to `nomic_local`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedstore.errors import ServiceError
from embedstore.offline import apply_switches, require_network

# Read when they are there; fastembed works without them.
_OPTIONAL = ("config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class Tower:
    """One of the two models: its repository on the hub and the files that must be there."""

    repo: str
    settings: tuple[str, ...]

    def files(self, quantised: bool) -> tuple[str, ...]:
        """Return the paths inside the repository that loading needs, the ONNX file first."""
        graph = "onnx/model_quantized.onnx" if quantised else "onnx/model.onnx"
        return (graph, *self.settings)

    def fastembed_name(self, quantised: bool) -> str:
        """Return the name under which fastembed lists this model."""
        return self.repo + "-Q" if quantised else self.repo


VISION = Tower("nomic-ai/nomic-embed-vision-v1.5", ("preprocessor_config.json",))
TEXT = Tower("nomic-ai/nomic-embed-text-v1.5", ("tokenizer.json", "tokenizer_config.json"))
TOWERS = (VISION, TEXT)


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Return the folder of the weights: `cache_dir`, else ``FASTEMBED_CACHE_PATH``, else in the user's cache.

    fastembed's own default is the temporary directory, which a reboot may empty: a gigabyte deserves better.
    """
    import platformdirs  # only needed once a local model is asked for

    named = cache_dir or os.environ.get("FASTEMBED_CACHE_PATH")
    return (
        Path(named)
        if named
        else Path(platformdirs.user_cache_dir("embedstore", appauthor=False)) / "fastembed"
    )


def find(tower: Tower, quantised: bool = False, cache_dir: str | Path | None = None) -> Path | None:
    """Return the folder of a tower's files, or None when one of them is not on this machine."""
    apply_switches()
    from huggingface_hub import try_to_load_from_cache  # a sixth of a second, so not at start

    folder = None
    for name in tower.files(quantised):
        found = try_to_load_from_cache(tower.repo, name, cache_dir=cache_folder(cache_dir))
        if not isinstance(found, str):
            return None
        folder = folder or Path(found).parents[name.count("/")]
    return folder


def missing(quantised: bool = False, cache_dir: str | Path | None = None) -> list[str]:
    """Return the repositories of which a file is not on this machine; empty when both models are here."""
    return [tower.repo for tower in TOWERS if find(tower, quantised, cache_dir) is None]


def size_on_disk(quantised: bool = False, cache_dir: str | Path | None = None) -> int | None:
    """Return the bytes that both models take, or None when they are not both here."""
    total = 0
    for tower in TOWERS:
        folder = find(tower, quantised, cache_dir)
        if folder is None:
            return None
        total += sum((folder / name).stat().st_size for name in tower.files(quantised))
    return total


def pull(quantised: bool = False, cache_dir: str | Path | None = None, progress: bool = True) -> Path:
    """Download what is missing of both models from the Hugging Face hub; files already here are kept.

    Parameters
    ----------
    quantised : bool
        Fetch the int8 weights (about 0.24 GB) instead of the float32 ones (about 0.92 GB).
    cache_dir : path, optional
        See `cache_folder`.
    progress : bool
        Show the hub's progress bars on standard error.

    Returns
    -------
    Path
        The cache folder.

    Raises
    ------
    OfflineError
        The network is switched off. Weights that are all here need no network.
    ServiceError
        The hub did not answer, or did not deliver every file.
    """
    target = cache_folder(cache_dir)
    wanted = [tower for tower in TOWERS if find(tower, quantised, target) is None]
    if not wanted:
        return target
    require_network("`embedstore models pull`, to download " + " and ".join(tower.repo for tower in wanted))
    for tower in wanted:
        _download(tower, quantised, target, progress)
    return target


def _download(tower: Tower, quantised: bool, target: Path, progress: bool) -> None:
    """Fetch one tower and see that it is complete."""
    from huggingface_hub import snapshot_download

    advice = f"nothing is lost: what has arrived is kept in {target}; run the command again"
    try:
        with _bars(progress):
            snapshot_download(
                tower.repo, cache_dir=target, allow_patterns=[*tower.files(quantised), *_OPTIONAL]
            )
    except Exception as error:  # the hub's client lets through the errors of its HTTP library, which vary
        reason = " ".join(str(error).split())
        raise ServiceError(f"{tower.repo} could not be downloaded: {reason}; {advice}") from error
    if find(tower, quantised, target) is None:
        # The hub's client is content with an older, partial copy when it cannot reach the hub.
        wanted = ", ".join(tower.files(quantised))
        raise ServiceError(
            f"{tower.repo} is not complete: it needs {wanted}, and the hub has not delivered or not answered; "
            f"{advice}"
        )


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Switch the hub's progress bars off for a while, unless they are to be shown."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
