"""`nomic-local`: pictures and texts to vectors with both Nomic Embed v1.5 models, on this machine.

fastembed runs the ONNX graphs and does what it does right: scaling and CLS token for pictures, tokens and
mean pool for texts. Added here is what it leaves out: the squash to 224 x 224 ahead of the model, so that it
overlaps with the model's work, the query prefix, the layer norm and the unit length. Where the weights lie is
left to `nomic_weights`; nothing here downloads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.embedders import nomic_weights
from embedstore.embedders.nomic_weights import TEXT, VISION, Tower
from embedstore.embedders.protocol import require_rgb
from embedstore.errors import EmbedderError, ModelNotFoundError, QueryError
from embedstore.space import Space
from embedstore.vectors import as_vectors, normalise

if TYPE_CHECKING:
    from PIL import Image

DIM = 768
EDGE = 224
# Mean and standard deviation of each channel, red first: those of CLIP, as in the repository's settings.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
QUERY_PREFIX = "search_query: "

SPACE = Space("nomic-embed-v1.5", "fastembed", "float32", preprocessing="squash224-1", dim=DIM)
SPACE_QUANTISED = Space("nomic-embed-v1.5", "fastembed", "int8", preprocessing="squash224-1", dim=DIM)


class NomicLocalEmbedder:
    """Nomic Embed Vision and Text v1.5, run on this machine.

    Making one only looks whether the weights are here; each model is loaded at its first use. Threads may
    share one.

    Parameters
    ----------
    quantised : bool
        Use the int8 weights: a quarter of the size, a space of its own.
    cache_dir : path, optional
        Folder of the weights; by default ``FASTEMBED_CACHE_PATH``, else a folder in the user's cache.
    threads : int, optional
        Threads for one model; by default one for each core.
    providers : sequence of str, optional
        Execution providers of onnxruntime in order of preference, such as ``["CUDAExecutionProvider"]``. By
        default CUDA when the installed onnxruntime has it, else the CPU.

    Raises
    ------
    ModelNotFoundError
        The weights are not on this machine; the message names the command that fetches them.

    Examples
    --------
    >>> embedder = NomicLocalEmbedder()  # doctest: +SKIP
    >>> embedder.embed_texts(["a tiny white ball"]).shape  # doctest: +SKIP
    (1, 768)
    """

    batch_size = 16
    workers = 1  # one call keeps all cores busy

    def __init__(
        self,
        quantised: bool = False,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[Any] | None = None,
    ) -> None:
        self.space = SPACE_QUANTISED if quantised else SPACE
        self.quantised = quantised
        self._cache_dir = cache_dir
        self._threads = threads
        self._providers = list(providers) if providers is not None else None
        self._loaded: dict[Tower, Any] = {}
        self._loading = threading.Lock()
        _require_weights(quantised, cache_dir)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Squash an RGB picture to 224 x 224, bicubic, as the model's settings say; the aspect is lost.

        Returns
        -------
        ndarray of shape (224, 224, 3), uint8
            Scaling to the model's range is left to `embed_prepared`: bytes are a quarter of the memory.

        Raises
        ------
        ImageError
            Not an RGB picture.
        """
        require_rgb(image)
        from PIL import Image as pil  # Pillow is loaded by the time there is a picture

        return np.asarray(image.resize((EDGE, EDGE), pil.Resampling.BICUBIC))

    def embed_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed prepared pictures: the CLS token of the vision model at unit length, with no layer norm.

        Returns
        -------
        ndarray of shape (n, 768), float32
            Unit vectors, in the order given.

        Raises
        ------
        EmbedderError
            The vision model cannot be loaded, or fails.
        VectorError
            The model gave NaN or infinity.
        """
        if not len(prepared):
            return np.empty((0, DIM), dtype=np.float32)
        from PIL import Image as pil  # fastembed takes pictures, not arrays

        pictures = [pil.fromarray(pixels) for pixels in prepared]
        rows = self._run(VISION, pictures, self._pictures_at_once())
        return normalise(as_vectors(rows, DIM, "vectors of pictures"), "vectors of pictures")

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as queries for pictures: prefix ``search_query: ``, mean pool, layer norm, unit length.

        A text beyond the model's limit, 8,192 tokens or about 6,000 English words, is cut there.

        Returns
        -------
        ndarray of shape (n, 768), float32
            Unit vectors, in the order given.

        Raises
        ------
        QueryError
            One text where a list of them is expected.
        EmbedderError
            The text model cannot be loaded, or fails.
        VectorError
            The model gave NaN or infinity.
        """
        if isinstance(texts, str):
            raise QueryError(f"expected a list of texts, found the one text {texts[:40]!r}; pass [text]")
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
        session = self._model(VISION).model.model
        on_cpu = session.get_providers()[0] == "CPUExecutionProvider"
        return 1 if on_cpu or self.quantised else self.batch_size

    def _run(self, tower: Tower, inputs: Sequence[Any], at_once: int) -> NDArray[np.float32]:
        """Run a tower and return fastembed's rows as they are."""
        model = self._model(tower)
        try:
            return np.stack(list(model.embed(inputs, batch_size=at_once)))
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise EmbedderError(f"{tower.repo} failed on {len(inputs)} inputs: {error}") from error

    def _model(self, tower: Tower) -> Any:
        """Return fastembed's model of a tower, loaded at the first call."""
        with self._loading:
            if tower not in self._loaded:
                self._loaded[tower] = self._load(tower)
            return self._loaded[tower]

    def _load(self, tower: Tower) -> Any:
        """Load a tower from its folder, with no look at the network."""
        folder = nomic_weights.find(tower, self.quantised, self._cache_dir)
        if folder is None:
            raise _weights_missing(self.quantised, self._cache_dir, [tower.repo])
        from fastembed import ImageEmbedding, TextEmbedding  # brings onnxruntime

        make: Callable[..., Any] = ImageEmbedding if tower is VISION else TextEmbedding
        try:
            model = make(
                tower.fastembed_name(self.quantised),
                threads=self._threads,
                providers=self._providers,
                specific_model_path=str(folder),
                cache_dir=str(nomic_weights.cache_folder(self._cache_dir)),
                local_files_only=True,
            )
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise EmbedderError(
                f"{tower.repo} cannot be loaded from {folder}: {error}. If a file is damaged, delete that "
                f"folder and run `{_pull_command(self.quantised)}`"
            ) from error
        if tower is VISION:
            _require_scaling(model.model.processor, folder)
        return model


def layer_norm(rows: NDArray[np.float64], eps: float = 1e-5) -> NDArray[np.float64]:
    """Return rows with mean 0 and variance 1 over the last axis, without learned scale or shift.

    Nomic's text vectors may be compared with its picture vectors only after this step: the vision model was
    trained against text vectors that had it (https://arxiv.org/abs/2406.18587).
    """
    centred = rows - rows.mean(axis=-1, keepdims=True)
    scaled: NDArray[np.float64] = centred / np.sqrt(rows.var(axis=-1, keepdims=True) + eps)
    return scaled


def _require_weights(quantised: bool, cache_dir: str | Path | None) -> None:
    """Raise ModelNotFoundError unless both models are on this machine."""
    absent = nomic_weights.missing(quantised, cache_dir)
    if absent:
        raise _weights_missing(quantised, cache_dir, absent)


def _weights_missing(quantised: bool, cache_dir: str | Path | None, absent: list[str]) -> ModelNotFoundError:
    """Return the error that says which weights are not here, and how to get them."""
    return ModelNotFoundError(
        f"the weights of {' and '.join(absent)} are not in {nomic_weights.cache_folder(cache_dir)}. "
        f"Run `{_pull_command(quantised)}` once (a download of about {'0.24' if quantised else '0.92'} GB), "
        "or point FASTEMBED_CACHE_PATH at a folder that has them"
    )


def _pull_command(quantised: bool) -> str:
    """Return the command line that fetches the weights."""
    return f"embedstore models pull nomic-local{'-q' if quantised else ''}"


def _require_scaling(processor: Any, folder: Path) -> None:
    """Raise EmbedderError unless the settings beside the weights mean ``squash224-1``, as the space says."""
    from PIL import Image as pil

    pixels = (np.arange(EDGE * EDGE * 3) % 256).astype(np.uint8).reshape(EDGE, EDGE, 3)
    expected = ((pixels / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    found = np.asarray(processor([pil.fromarray(pixels)])[0])
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=1e-5):
        raise EmbedderError(
            f"preprocessor_config.json in {folder} scales pictures otherwise than this version of embedstore "
            f"knows ({SPACE.preprocessing}: {EDGE} x {EDGE}, mean {MEAN}, std {STD}): the vectors would not "
            "compare with stored ones. Fetch Nomic's own repository, or use a newer embedstore"
        )
