"""The `nomic-local` embedders: pictures and texts to vectors with both Nomic Embed v1.5 models, on this machine.

Added to what `local_towers` does: pictures are squashed to 224 x 224, texts get the query prefix, the mean pool that
fastembed makes of a text's tokens is followed by a layer norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedstore.embedders.local_towers import EDGE, LocalTowers
from embedstore.embedders.weights import Tower
from embedstore.space import Space

if TYPE_CHECKING:
    from PIL import Image

DIM = 768
_VISION, _TEXT = "nomic-ai/nomic-embed-vision-v1.5", "nomic-ai/nomic-embed-text-v1.5"


def _towers(graph: str) -> tuple[Tower, Tower]:
    """Return both towers, with the ONNX files of this name."""
    pictures = ("preprocessor_config.json",)
    texts = ("tokenizer.json", "tokenizer_config.json")
    return (
        Tower(_VISION, _VISION, f"onnx/{graph}.onnx", pictures, "e3a725bce72db07ca4adb1d83da08903f3ee02f8"),
        Tower(_TEXT, _TEXT, f"onnx/{graph}.onnx", texts, "e9b6763023c676ca8431644204f50c2b100d9aab"),
    )


class NomicLocalEmbedder(LocalTowers):
    """Nomic Embed Vision and Text v1.5, float32: CLS token of the vision model, layer-normed mean of the text model.

    A text beyond 8,192 tokens, about 6,000 English words, is cut there.
    """

    summary = "the same two models on this machine, float32"
    needs = "`embedstore models pull nomic-local`, one download of 0.92 GB"
    space = Space("nomic-embed-v1.5", "fastembed", "float32", preprocessing="squash224-1", dim=DIM)
    pictures, texts = _towers("model")
    pull_name, gigabytes = "nomic-local", 0.92
    prefix = "search_query: "
    shapes_as_settings = False  # an older snapshot crops; the squash is ours

    @staticmethod
    def shaped(image: Image.Image) -> Image.Image:
        """Squash a picture, bicubic, as the model's settings say: the aspect goes."""
        from PIL import Image as pil  # Pillow is loaded by the time there is a picture

        return image.resize((EDGE, EDGE), pil.Resampling.BICUBIC)

    def finished_texts(self, rows: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return the rows after the layer norm."""
        return layer_norm(rows.astype(np.float64))


class QuantisedNomicLocalEmbedder(NomicLocalEmbedder):
    """The same with int8 weights: a quarter of the size, and a space of its own."""

    summary = "the same two models here, int8: less exact"
    needs = "`embedstore models pull nomic-local-q`, one download of 0.24 GB"
    space = Space("nomic-embed-v1.5", "fastembed", "int8", preprocessing="squash224-1", dim=DIM)
    pictures, texts = _towers("model_quantized")
    pull_name, gigabytes = "nomic-local-q", 0.24


class HalfNomicLocalEmbedder(NomicLocalEmbedder):
    """The same with weights in half precision: half the size, and a space of its own."""

    summary = "the same two models here, float16"
    needs = "`embedstore models pull nomic-local-fp16`, one download of 0.46 GB"
    space = Space("nomic-embed-v1.5", "fastembed", "fp16", preprocessing="squash224-1", dim=DIM)
    pictures, texts = _towers("model_fp16")
    pull_name, gigabytes = "nomic-local-fp16", 0.46


def layer_norm(rows: NDArray[np.float64], eps: float = 1e-5) -> NDArray[np.float64]:
    """Return rows with mean 0 and variance 1 over the last axis, without learned scale or shift.

    Nomic's text vectors may be compared with its picture vectors only after this step: the vision model was
    trained against text vectors that had it (https://arxiv.org/abs/2406.18587).
    """
    centred = rows - rows.mean(axis=-1, keepdims=True)
    scaled: NDArray[np.float64] = centred / np.sqrt(rows.var(axis=-1, keepdims=True) + eps)
    return scaled
