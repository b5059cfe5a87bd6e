"""The `nomic-local` embedders: pictures and texts to vectors with both Nomic Embed v1.5 models, on this machine.

`Weights` says where the models' files lie, and is the one way they get there: only its `pull` touches the network.
fastembed runs the ONNX graphs and does what it does right: scaling and CLS token for pictures, tokens and mean pool
for texts. Added here is what it leaves out: the squash to 224 x 224 ahead of the model, so that it overlaps with the
model's work, the query prefix, the layer norm and the unit length. Decoding is left to `images`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.embedders.protocol import Lazy, State, require_rgb, require_texts
from embedstore.errors import EmbedderError, ModelNotFoundError, ServiceError
from embedstore.settings import apply_switches, require_network
from embedstore.space import Space
from embedstore.vectors import Vectors, as_vectors, normalise

if TYPE_CHECKING:
    from PIL import Image

DIM = 768
EDGE = 224
# Mean and standard deviation of each channel, red first: those of CLIP, as in the repository's settings.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
QUERY_PREFIX = "search_query: "
_OPTIONAL = ("config.json", "special_tokens_map.json")
"""Files that are read where they are; fastembed works without them."""


@dataclass(frozen=True)
class Tower:
    """One of the two models: its repository on the hub and the files that must be there."""

    repo: str
    settings: tuple[str, ...]

    def files(self, quantised: bool) -> tuple[str, ...]:
        """Return the paths inside the repository that loading needs, the ONNX file first."""
        graph = "onnx/model_quantized.onnx" if quantised else "onnx/model.onnx"
        return (graph, *self.settings)


VISION = Tower("nomic-ai/nomic-embed-vision-v1.5", ("preprocessor_config.json",))
TEXT = Tower("nomic-ai/nomic-embed-text-v1.5", ("tokenizer.json", "tokenizer_config.json"))
TOWERS = (VISION, TEXT)


class NomicLocalEmbedder:
    """Nomic Embed Vision and Text v1.5, float32, run on this machine; keeps the `Embedder` protocol.

    Making one only looks whether the weights are in `cache_dir` (see `Weights`) and raises ModelNotFoundError, which
    names the command that fetches them, where they are not; each model is loaded at its first use. Threads may share
    one. `threads` are those of one model, by default one for each core; `providers` are execution providers of
    onnxruntime in order of preference, by default CUDA when the installed onnxruntime has it, else the CPU.
    """

    summary = "the same two models on this machine, float32"
    needs = "`embedstore models pull nomic-local`, one download of 0.92 GB"
    space = Space("nomic-embed-v1.5", "fastembed", "float32", preprocessing="squash224-1", dim=DIM)
    quantised = False
    batch_size = 16
    workers = 1  # one call keeps all cores busy

    def __init__(
        self, cache_dir: str | Path | None = None, threads: int | None = None, providers: Sequence[Any] | None = None
    ) -> None:
        self._weights = Weights(self.quantised, cache_dir)
        self._threads, self._providers = threads, providers
        self._models = {tower: Lazy(functools.partial(self._load, tower)) for tower in TOWERS}
        self._weights.require()

    @classmethod
    def state(cls) -> State:
        """Ready when the files of both models are in the cache."""
        weights = Weights(cls.quantised)
        size = weights.size()
        return State(ready=False) if size is None else State(True, size, weights.cache)

    @classmethod
    def pull(cls, progress: bool = True) -> Path:
        """Fetch the weights; see `Weights.pull`."""
        return Weights(cls.quantised).pull(progress)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Squash an RGB picture to uint8 of shape (224, 224, 3), bicubic, as the model's settings say: the aspect goes.

        Scaling to the model's range is left to `embed_prepared`: bytes are a quarter of the memory. ImageError if the
        picture is not RGB.
        """
        require_rgb(image)
        from PIL import Image as pil  # Pillow is loaded by the time there is a picture

        return np.asarray(image.resize((EDGE, EDGE), pil.Resampling.BICUBIC))

    def embed_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> Vectors:
        """Embed prepared pictures, in order: the CLS token of the vision model at unit length, with no layer norm.

        Raises EmbedderError where the model cannot be loaded or fails, VectorError where it gave NaN or infinity.
        """
        if not len(prepared):
            return np.empty((0, DIM), dtype=np.float32)
        from PIL import Image as pil  # fastembed takes pictures, not arrays

        pictures = [pil.fromarray(pixels) for pixels in prepared]
        rows = self._run(VISION, pictures, self._pictures_at_once())
        return normalise(as_vectors(rows, DIM, "vectors of pictures"), "vectors of pictures")

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, in order, as queries: prefix ``search_query: ``, mean pool, layer norm, unit length.

        A text beyond the model's limit, 8,192 tokens or about 6,000 English words, is cut there. Raises as
        `embed_prepared`, and QueryError for what is no list of texts.
        """
        require_texts(texts)
        if not len(texts):
            return np.empty((0, DIM), dtype=np.float32)
        prefixed = [QUERY_PREFIX + text for text in texts]
        # One at a time: without padding a text's vector does not depend on the others, and the attention of
        # several long texts is never in memory at once.
        rows = layer_norm(self._run(TEXT, prefixed, at_once=1).astype(np.float64))
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return normalise(as_vectors(rows, DIM, "vectors of texts"), "vectors of texts")

    def _pictures_at_once(self) -> int:
        """Return how many pictures the vision model is given at once: one on the CPU, a batch elsewhere.

        On the CPU a batch is no faster, and alone a picture has the same vector to the bit whatever its
        neighbours. The int8 graph scales its activations by the whole batch, so there neighbours would move
        the vector by more than rounding.
        """
        session = self._models[VISION].value.model.model
        on_cpu = session.get_providers()[0] == "CPUExecutionProvider"
        return 1 if on_cpu or self.quantised else self.batch_size

    def _run(self, tower: Tower, inputs: Sequence[Any], at_once: int) -> NDArray[np.float32]:
        """Run a tower and return fastembed's rows as they are."""
        model = self._models[tower].value
        try:
            return np.stack(list(model.embed(inputs, batch_size=at_once)))
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise EmbedderError(f"{tower.repo} failed on {len(inputs)} inputs: {error}") from error

    def _load(self, tower: Tower) -> Any:
        """Load fastembed's model of a tower from its folder, with no look at the network."""
        folder = self._weights.require([tower])[0]
        from fastembed import ImageEmbedding, TextEmbedding  # brings onnxruntime

        make: Callable[..., Any] = ImageEmbedding if tower is VISION else TextEmbedding
        try:
            model = make(
                tower.repo + ("-Q" if self.quantised else ""),  # fastembed's name of it
                threads=self._threads,
                providers=self._providers,
                specific_model_path=str(folder),
                cache_dir=str(self._weights.cache),
                local_files_only=True,
            )
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise EmbedderError(
                f"{tower.repo} cannot be loaded from {folder}: {error}. If a file is damaged, delete that "
                f"folder and run `{self._weights.pull_command}`"
            ) from error
        if tower is VISION:
            _require_scaling(model.model.processor, folder)
        return model


class QuantisedNomicLocalEmbedder(NomicLocalEmbedder):
    """The same with int8 weights: a quarter of the size, and a space of its own."""

    summary = "the same two models on this machine, int8: smaller, less exact"
    needs = "`embedstore models pull nomic-local-q`, one download of 0.24 GB"
    space = Space("nomic-embed-v1.5", "fastembed", "int8", preprocessing="squash224-1", dim=DIM)
    quantised = True


class Weights:
    """The files of both models in the cache of the Hugging Face hub, so that fastembed's downloads are found too.

    `quantised` means the int8 weights. `cache`, where the hub's client keeps its repositories, is `cache_dir`, else
    ``FASTEMBED_CACHE_PATH``, else in the user's cache: fastembed's own default is the temporary directory, which a
    reboot may empty, and a gigabyte deserves better.
    """

    def __init__(self, quantised: bool = False, cache_dir: str | Path | None = None) -> None:
        import platformdirs  # only needed once a local model is asked for

        self.quantised = quantised
        named = cache_dir or os.environ.get("FASTEMBED_CACHE_PATH")
        users = platformdirs.user_cache_path("embedstore", appauthor=False) / "fastembed"
        self.cache = Path(named) if named else users
        self.pull_command = f"embedstore models pull {'nomic-local-q' if quantised else 'nomic-local'}"

    def find(self, tower: Tower) -> Path | None:
        """Return the folder of a tower's files, or None when one of them is not on this machine."""
        apply_switches()
        from huggingface_hub import try_to_load_from_cache  # a sixth of a second, so not at start

        folder = None
        for name in tower.files(self.quantised):
            file = try_to_load_from_cache(tower.repo, name, cache_dir=self.cache)
            if not isinstance(file, str):
                return None
            folder = folder or Path(file).parents[name.count("/")]
        return folder

    def missing(self) -> list[str]:
        """Return the repositories of which a file is not on this machine; empty when both models are here."""
        return [tower.repo for tower in TOWERS if self.find(tower) is None]

    def require(self, towers: Sequence[Tower] = TOWERS) -> list[Path]:
        """Return the towers' folders; ModelNotFoundError, which says how to get the weights, if one is not here."""
        folders = [folder for tower in towers if (folder := self.find(tower))]
        if len(folders) < len(towers):
            raise ModelNotFoundError(
                f"the weights of {' and '.join(self.missing())} are not in {self.cache}. Run `{self.pull_command}` "
                f"once (a download of about {'0.24' if self.quantised else '0.92'} GB), "
                "or point FASTEMBED_CACHE_PATH at a folder that has them"
            )
        return folders

    def size(self) -> int | None:
        """Return the bytes that both models take, or None when they are not both here."""
        if self.missing():
            return None
        pairs = zip(self.require(), TOWERS, strict=True)
        return sum((folder / name).stat().st_size for folder, tower in pairs for name in tower.files(self.quantised))

    def pull(self, progress: bool = True) -> Path:
        """Download what is missing of both models, files already here are kept; return the cache folder.

        The hub's bars show on standard error, unless `progress` is off. Raises OfflineError where the network is
        switched off and something is missing, ServiceError where the hub does not answer or deliver every file.
        """
        missing = self.missing()
        if missing:
            require_network(f"`{self.pull_command}`, to download {' and '.join(missing)},")
        for tower in TOWERS:
            if tower.repo in missing:
                self._download(tower, progress)
        return self.cache

    def _download(self, tower: Tower, progress: bool) -> None:
        """Fetch one tower and see that it is complete."""
        from huggingface_hub import snapshot_download

        files = tower.files(self.quantised)
        advice = f"nothing is lost: what has arrived is kept in {self.cache}; run the command again"
        try:
            with _bars(progress):
                snapshot_download(tower.repo, cache_dir=self.cache, allow_patterns=[*files, *_OPTIONAL])
        except Exception as error:  # the hub's client lets through the errors of its HTTP library, which vary
            reason = " ".join(str(error).split())
            raise ServiceError(f"{tower.repo} could not be downloaded: {reason}; {advice}") from error
        if self.find(tower) is None:
            # The hub's client is content with an older, partial copy when it cannot reach the hub.
            raise ServiceError(
                f"{tower.repo} is not complete: it needs {', '.join(files)}, and the hub has not delivered or not "
                f"answered; {advice}"
            )


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Switch the hub's progress bars off for a while, unless they are to be shown."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def layer_norm(rows: NDArray[np.float64], eps: float = 1e-5) -> NDArray[np.float64]:
    """Return rows with mean 0 and variance 1 over the last axis, without learned scale or shift.

    Nomic's text vectors may be compared with its picture vectors only after this step: the vision model was
    trained against text vectors that had it (https://arxiv.org/abs/2406.18587).
    """
    centred = rows - rows.mean(axis=-1, keepdims=True)
    scaled: NDArray[np.float64] = centred / np.sqrt(rows.var(axis=-1, keepdims=True) + eps)
    return scaled


def _require_scaling(processor: Any, folder: Path) -> None:
    """Raise EmbedderError unless the settings beside the weights mean ``squash224-1``, as the space says."""
    from PIL import Image as pil

    pixels = (np.arange(EDGE * EDGE * 3) % 256).astype(np.uint8).reshape(EDGE, EDGE, 3)
    expected = ((pixels / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    scaled = np.asarray(processor([pil.fromarray(pixels)])[0])
    if scaled.shape != expected.shape or not np.allclose(scaled, expected, rtol=0, atol=1e-5):
        raise EmbedderError(
            f"preprocessor_config.json in {folder} scales pictures otherwise than this version of embedstore "
            f"knows ({NomicLocalEmbedder.space.preprocessing}: {EDGE} x {EDGE}, mean {MEAN}, std {STD}): the vectors "
            "would not compare with stored ones. Fetch Nomic's own repository, or use a newer embedstore"
        )
