"""The embedders `clip`, `jina-clip` and `siglip2`: further models with a picture and a text tower that fastembed runs.

None of them has a prefix for queries; of each the tower's pooled output is taken, at unit length. They differ in how
pictures are resized and in the files. Everything else is `local_towers`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedstore.embedders.local_towers import EDGE, LocalTowers
from embedstore.embedders.weights import Tower
from embedstore.space import Space

if TYPE_CHECKING:
    from PIL import Image

_PICTURES, _TEXTS = ("preprocessor_config.json",), ("tokenizer.json", "tokenizer_config.json")
_LONGEST = 16
"""Times the short edge that a long one has at most; what lies beyond never reaches the middle that is cut out."""


class ClipEmbedder(LocalTowers):
    """CLIP ViT-B/32 of OpenAI, 512 components, texts of up to 77 tokens.

    fastembed hands out its text vectors without unit length, which is added here.
    """

    summary = "CLIP ViT-B/32 of OpenAI here, float32"
    needs = "`embedstore models pull clip`, one download of 0.61 GB"
    space = Space("clip-vit-b-32", "fastembed", "float32", preprocessing="crop224-1", dim=512)
    pictures = Tower(
        *("Qdrant/clip-ViT-B-32-vision", "Qdrant/clip-ViT-B-32-vision", "model.onnx", _PICTURES),
        "e0c24ed0fa57fa3e4f97f30de74c51d944036ace",
    )
    texts = Tower(
        *("Qdrant/clip-ViT-B-32-text", "Qdrant/clip-ViT-B-32-text", "model.onnx", _TEXTS),
        "48ca1db27cb4063eb311ec2aa7f087a808112876",
    )
    pull_name, gigabytes = "clip", 0.61

    @staticmethod
    def shaped(image: Image.Image) -> Image.Image:
        """Bring the short edge to 224, bicubic, and cut the middle out, rounded down, as transformers does."""
        small = _short_edge(image)
        left, top = (small.width - EDGE) // 2, (small.height - EDGE) // 2
        return small.crop((left, top, left + EDGE, top + EDGE))


def _jina(suffix: str) -> tuple[Tower, Tower]:
    """Return both towers of Jina CLIP, with the ONNX files of this suffix."""
    name, revision = "jinaai/jina-clip-v1", "ceb3e44ca4d6eceaa4f3fb58b1c1a5748b3f29b6"
    return (
        Tower(name, name, f"onnx/vision_model{suffix}.onnx", _PICTURES, revision),
        Tower(name, name, f"onnx/text_model{suffix}.onnx", _TEXTS, revision),
    )


class JinaClipEmbedder(LocalTowers):
    """Jina CLIP v1, 768 components, texts of up to 8,192 tokens."""

    summary = "Jina CLIP v1 here, float32"
    needs = "`embedstore models pull jina-clip`, one download of 0.89 GB"
    space = Space("jina-clip-v1", "fastembed", "float32", preprocessing="crop224-even-1", dim=768)
    pictures, texts = _jina("")
    pull_name, gigabytes = "jina-clip", 0.89

    @staticmethod
    def shaped(image: Image.Image) -> Image.Image:
        """Bring the short edge to 224, bicubic, and cut the middle out, rounded to even, as torchvision does."""
        small = _short_edge(image)
        left, top = round((small.width - EDGE) / 2), round((small.height - EDGE) / 2)
        return small.crop((left, top, left + EDGE, top + EDGE))


class HalfJinaClipEmbedder(JinaClipEmbedder):
    """The same in half precision, and a space of its own."""

    summary = "the same, float16"
    needs = "`embedstore models pull jina-clip-fp16`, one download of 0.45 GB"
    space = Space("jina-clip-v1", "fastembed", "fp16", preprocessing="crop224-even-1", dim=768)
    pictures, texts = _jina("_fp16")
    pull_name, gigabytes = "jina-clip-fp16", 0.45


class QuantisedJinaClipEmbedder(JinaClipEmbedder):
    """The same with int8 weights, and a space of its own."""

    summary = "the same, int8: less exact"
    needs = "`embedstore models pull jina-clip-q`, one download of 0.23 GB"
    space = Space("jina-clip-v1", "fastembed", "int8", preprocessing="crop224-even-1", dim=768)
    pictures, texts = _jina("_quantized")
    pull_name, gigabytes = "jina-clip-q", 0.23


def _siglip2(suffix: str) -> tuple[Tower, Tower]:
    """Return both towers of SigLIP 2, with the ONNX files of this suffix."""
    name, repo = "google/siglip2-base-patch16-224", "onnx-community/siglip2-base-patch16-224-ONNX"
    revision = "ba1f3b0843f24bc5417d38e19c37b287d719b2f4"
    return (
        Tower(name, repo, f"onnx/vision_model{suffix}.onnx", _PICTURES, revision),
        Tower(name, repo, f"onnx/text_model{suffix}.onnx", _TEXTS, revision),
    )


class Siglip2Embedder(LocalTowers):
    """SigLIP 2 base of Google, 768 components, texts of many languages and of up to 64 tokens."""

    summary = "SigLIP 2 base of Google here, float32"
    needs = "`embedstore models pull siglip2`, one download of 1.5 GB"
    space = Space("siglip2-base-patch16-224", "fastembed", "float32", preprocessing="squash224-bilinear-1", dim=768)
    pictures, texts = _siglip2("")
    pull_name, gigabytes = "siglip2", 1.5
    mean = std = (0.5, 0.5, 0.5)

    @staticmethod
    def shaped(image: Image.Image) -> Image.Image:
        """Squash a picture, bilinear: the aspect goes."""
        from PIL import Image as pil  # Pillow is loaded by the time there is a picture

        return image.resize((EDGE, EDGE), pil.Resampling.BILINEAR)


class HalfSiglip2Embedder(Siglip2Embedder):
    """The same in half precision, and a space of its own."""

    summary = "the same, float16"
    needs = "`embedstore models pull siglip2-fp16`, one download of 0.75 GB"
    space = Space("siglip2-base-patch16-224", "fastembed", "fp16", preprocessing="squash224-bilinear-1", dim=768)
    pictures, texts = _siglip2("_fp16")
    pull_name, gigabytes = "siglip2-fp16", 0.75


class QuantisedSiglip2Embedder(Siglip2Embedder):
    """The same with int8 weights, and a space of its own."""

    summary = "the same, int8: less exact"
    needs = "`embedstore models pull siglip2-q`, one download of 0.38 GB"
    space = Space("siglip2-base-patch16-224", "fastembed", "int8", preprocessing="squash224-bilinear-1", dim=768)
    pictures, texts = _siglip2("_quantized")
    pull_name, gigabytes = "siglip2-q", 0.38


def _short_edge(image: Image.Image) -> Image.Image:
    """Return a picture whose short edge is 224, bicubic, its aspect kept; of a long strip only the middle."""
    from PIL import Image as pil  # Pillow is loaded by the time there is a picture

    short = min(image.size)
    if max(image.size) > _LONGEST * short:
        width, height = (min(edge, _LONGEST * short) for edge in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    long = int(EDGE * max(image.size) / short)
    size = (EDGE, long) if image.width <= image.height else (long, EDGE)
    return image.resize(size, pil.Resampling.BICUBIC)
