"""A picture tower and a text tower on this machine, run by fastembed: the base of all local models but `objects`.

fastembed runs the ONNX graphs and does what it does right: scaling of pixels, tokens, the choice of a graph's output.
Done here is what it does inside the model's time or leaves out: the resizing of pictures, ahead of the model, so that
it overlaps with the model's work; the query prefix; unit length. Which model it is, a subclass says in its attributes;
where the files lie is left to `weights`, decoding to `images`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from embedstore.embedders.protocol import Lazy, State, require_rgb, require_texts
from embedstore.embedders.weights import Tower, Weights
from embedstore.errors import EmbedderError
from embedstore.space import Space
from embedstore.vectors import Vectors, as_vectors, normalise

if TYPE_CHECKING:
    from PIL import Image

EDGE = 224
# Mean and standard deviation of each channel, red first, of CLIP.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class LocalTowers:
    """Embeds on this machine; keeps the `Embedder` protocol.

    Making one only looks whether the weights are in `cache_dir` (see `Weights`) and raises ModelNotFoundError, which
    names the command that fetches them, where they are not; each tower is loaded at its first use. Threads may share
    one. `threads` are those of one tower, by default one for each core; `providers` are execution providers of
    onnxruntime in order of preference, by default CUDA when the installed onnxruntime has it, else the CPU.
    """

    space: ClassVar[Space]
    pictures: ClassVar[Tower]
    texts: ClassVar[Tower]
    pull_name: ClassVar[str]
    gigabytes: ClassVar[float]
    mean: ClassVar[tuple[float, ...]] = CLIP_MEAN
    std: ClassVar[tuple[float, ...]] = CLIP_STD
    prefix: ClassVar[str] = ""
    """Stands before each text that is asked."""
    shapes_as_settings: ClassVar[bool] = True
    """Whether the settings beside the weights must resize pictures as `shaped` does."""
    batch_size = 16
    workers = 1  # one call keeps all cores busy

    def __init__(
        self, cache_dir: str | Path | None = None, threads: int | None = None, providers: Sequence[Any] | None = None
    ) -> None:
        self._weights = self.weights(cache_dir)
        self._threads, self._providers = threads, providers
        self._models = {tower: Lazy(functools.partial(self._load, tower)) for tower in (self.pictures, self.texts)}
        self._weights.require()

    @classmethod
    def weights(cls, cache_dir: str | Path | None = None) -> Weights:
        """Return where the files of both towers are."""
        return Weights((cls.pictures, cls.texts), cls.pull_name, cls.gigabytes, cache_dir)

    @classmethod
    def state(cls) -> State:
        """Ready when the files of both towers are in the cache."""
        weights = cls.weights()
        size = weights.size()
        return State(ready=False) if size is None else State(True, size, weights.cache, weights.revisions())

    @classmethod
    def pull(cls, progress: bool = True) -> Path:
        """Fetch the weights; see `Weights.pull`."""
        return cls.weights().pull(progress)

    @staticmethod
    def shaped(image: Image.Image) -> Image.Image:
        """Return an RGB picture of 224 x 224 points, as the model takes it."""
        raise NotImplementedError

    def finished_texts(self, rows: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return the rows of the text tower as they are before unit length."""
        return rows

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize an RGB picture to uint8 of shape (224, 224, 3), see `shaped`.

        Scaling to the model's range is left to `embed_prepared`: bytes are a quarter of the memory. ImageError if the
        picture is not RGB.
        """
        require_rgb(image)
        return np.asarray(self.shaped(image))

    def embed_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> Vectors:
        """Embed prepared pictures, in order, at unit length.

        Raises EmbedderError where the model cannot be loaded or fails, VectorError where it gave NaN or infinity.
        """
        if not len(prepared):
            return np.empty((0, self.space.dim), dtype=np.float32)
        from PIL import Image as pil  # fastembed takes pictures, not arrays

        pictures = [pil.fromarray(pixels) for pixels in prepared]
        rows = self._run(self.pictures, pictures, self._pictures_at_once())
        return normalise(as_vectors(rows, self.space.dim, "vectors of pictures"), "vectors of pictures")

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, in order, as queries, at unit length; a text beyond the model's limit of tokens is cut there.

        Raises as `embed_prepared`, and QueryError for what is no list of texts.
        """
        require_texts(texts)
        if not len(texts):
            return np.empty((0, self.space.dim), dtype=np.float32)
        prefixed = [self.prefix + text for text in texts]
        # One at a time: without padding a text's vector does not depend on the others, and the attention of
        # several long texts is never in memory at once.
        rows = self.finished_texts(self._run(self.texts, prefixed, at_once=1)).astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return normalise(as_vectors(rows, self.space.dim, "vectors of texts"), "vectors of texts")

    def _pictures_at_once(self) -> int:
        """Return how many pictures the tower is given at once: one on the CPU, a batch elsewhere.

        On the CPU a batch is no faster, and alone a picture has the same vector to the bit whatever its
        neighbours. An int8 graph scales its activations by the whole batch, so there neighbours would move
        the vector by more than rounding.
        """
        on_cpu = self._models[self.pictures].value.model.get_providers()[0] == "CPUExecutionProvider"
        return 1 if on_cpu or self.space.precision == "int8" else self.batch_size

    def _run(self, tower: Tower, inputs: Sequence[Any], at_once: int) -> NDArray[np.float32]:
        """Run a tower and return fastembed's rows as they are."""
        model = self._models[tower].value
        try:
            return np.stack(list(model.embed(inputs, batch_size=at_once)))
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise EmbedderError(f"{tower.repo} failed on {len(inputs)} inputs: {error}") from error

    def _load(self, tower: Tower) -> Any:
        """Load fastembed's model of a tower from its folder, with no look at the network."""
        folder = self._weights.require_sound(tower)
        make = _fastembed_class(tower, of_pictures=tower is self.pictures)
        try:
            model = make(
                tower.name,
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
        if tower is self.pictures:
            self._require_preprocessing(model.processor, folder)
        return model

    def _require_preprocessing(self, processor: Any, folder: Path) -> None:
        """Raise EmbedderError unless the settings beside the weights mean what the space says of preprocessing."""
        from PIL import Image as pil

        pixels = (np.arange(EDGE * EDGE * 3) % 256).astype(np.uint8).reshape(EDGE, EDGE, 3)
        expected = ((pixels / 255 - np.array(self.mean)) / np.array(self.std)).transpose(2, 0, 1)
        scaled = np.asarray(processor([pil.fromarray(pixels)])[0])
        same = scaled.shape == expected.shape and np.allclose(scaled, expected, rtol=0, atol=1e-5)
        if same and self.shapes_as_settings:
            # One with half a point of rounding where a middle is cut out, and one that is enlarged.
            for size in ((EDGE + 3, EDGE), (97, 61)):
                odd = pil.fromarray(pixels).resize(size)
                theirs, ours = (np.asarray(processor([image])[0]) for image in (odd, self.shaped(odd)))
                same = same and theirs.shape == ours.shape and np.allclose(theirs, ours, rtol=0, atol=1e-5)
        if not same:
            raise EmbedderError(
                f"preprocessor_config.json in {folder} prepares pictures otherwise than this version of embedstore "
                f"knows ({self.space.preprocessing}: {EDGE} x {EDGE}, mean {self.mean}, std {self.std}): the vectors "
                f"would not compare with stored ones. Fetch {self.pictures.repo} itself, or use a newer embedstore"
            )


def _fastembed_class(tower: Tower, *, of_pictures: bool) -> Callable[..., Any]:
    """Return fastembed's class for a model, with the tower's graph in the place of its own."""
    from fastembed import ImageEmbedding, TextEmbedding  # brings onnxruntime

    for made in (ImageEmbedding if of_pictures else TextEmbedding).EMBEDDINGS_REGISTRY:
        for description in made._list_supported_models():
            if description.model.lower() == tower.name.lower():
                chosen = dataclasses.replace(description, model_file=tower.graph)
                return _with_graph(made, chosen)
    raise EmbedderError(f"this version of fastembed does not run {tower.name}; pip install 'fastembed>=0.9.1'")


def _with_graph(made: Any, description: Any) -> Callable[..., Any]:
    """Return a subclass of one of fastembed's that knows one model."""
    ours = {
        "_list_supported_models": classmethod(lambda cls: [description]),
        "_preprocess_onnx_input": _as_the_graph_takes,
    }
    return type(made.__name__, (made,), ours)


def _as_the_graph_takes(model: Any, onnx_input: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Return the input in half precision where a graph wants that; fastembed makes single."""
    types = {node.name: node.type for node in model.model.get_inputs()}
    return {
        name: value.astype(np.float16) if types.get(name) == "tensor(float16)" else value
        for name, value in onnx_input.items()
    }
