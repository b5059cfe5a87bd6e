"""`clip`, `jina-clip` and `siglip2` against their definitions, and against fastembed used alone, on small graphs.

The reference is written out here with NumPy, onnxruntime, tokenizers and Pillow, and shares nothing with the
modules under test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from embedder_contract import EmbedderContract
from numpy.typing import NDArray
from PIL import Image
from tiny_clips import DIMS, GRAPHS, REPOSITORIES, SETTINGS, TOKENS, write_tiny_clip
from tiny_models import snapshot_folder
from tokenizers import Tokenizer

from embedstore.embedders import registry
from embedstore.errors import EmbedderError, ModelNotFoundError

NAMES = ("clip", "jina-clip", "siglip2")
TEXTS = ["a tiny white ball", "cat", "", "The photo of the DOG, red!", "bird " * 90, "a tiny white ball"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for name in NAMES:
        write_tiny_clip(folder, name)
    return folder


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(name: str, cache: Path, **options: Any) -> Any:
    return registry.make_embedder(name, cache_dir=cache, **options)


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Noise over a slope: every point differs, and left is not right."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 160, width)[np.newaxis, :, np.newaxis]
    return Image.fromarray((rng.integers(0, 96, (height, width, 3)) + slope).astype(np.uint8))


PICTURES = [picture(0, 180, 301), picture(1, 224, 224), picture(2, 640, 97), picture(3, 1, 1), picture(4, 227, 224)]


def unit(rows: NDArray[Any]) -> NDArray[Any]:
    return rows / np.linalg.norm(rows.astype(np.float64), axis=-1, keepdims=True)


def pixels(name: str, image: Image.Image) -> NDArray[np.float32]:
    """What the picture tower is fed: as transformers' CLIP processor, torchvision's crop, a bilinear squash."""
    if name == "siglip2":
        array = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR), np.float32) / 255
        return ((array - 0.5) / 0.5).transpose(2, 0, 1)
    short = min(image.size)
    width, height = (224 if edge == short else int(224 * edge / short) for edge in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    if name == "clip":
        left, top = (width - 224) // 2, (height - 224) // 2
    else:
        left, top = round((width - 224) / 2), round((height - 224) / 2)
    array = np.asarray(small, np.float32)[top : top + 224, left : left + 224] / 255
    mean, std = (np.array(SETTINGS["clip"][key], np.float32) for key in ("image_mean", "image_std"))
    return ((array - mean) / std).transpose(2, 0, 1)


def run(cache: Path, name: str, tower: int, feeds: dict[str, Any], suffix: str = "") -> NDArray[Any]:
    path = snapshot_folder(cache, REPOSITORIES[name][tower]) / f"{GRAPHS[name][tower]}{suffix}.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["pooler_output" if name == "siglip2" else "embeds"], feeds)[0]


def reference_pictures(cache: Path, name: str, images: Sequence[Image.Image]) -> NDArray[Any]:
    return unit(np.concatenate([run(cache, name, 0, {"pixel_values": pixels(name, one)[None]}) for one in images]))


def reference_texts(cache: Path, name: str, texts: Sequence[str]) -> NDArray[Any]:
    """No prefix; cut at the model's limit; for siglip2 always padded to it, which decides what is pooled."""
    tokenizer = Tokenizer.from_file(str(snapshot_folder(cache, REPOSITORIES[name][1]) / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS[name])
    tokenizer.no_padding()
    rows = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        feeds = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        if name == "siglip2":
            feeds = {"input_ids": ids + [0] * (TOKENS[name] - len(ids))}
        rows.append(run(cache, name, 1, {key: np.array([value], np.int64) for key, value in feeds.items()}))
    return unit(np.concatenate(rows))


def embed(embedder: Any, images: Sequence[Image.Image]) -> NDArray[np.float32]:
    return embedder.embed_prepared([embedder.prepare(image) for image in images])


class TestContract(EmbedderContract):
    """What every embedder keeps, for each of the three."""

    @pytest.fixture
    def embedder(self, name: str, cache: Path) -> Any:
        return make(name, cache)


def test_pictures_equal_the_reference(name: str, cache: Path) -> None:
    """A picture's vector is the tower's pooled output of the picture, shaped as the model's makers do, at length 1."""
    vectors = embed(make(name, cache), PICTURES)
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(PICTURES), DIMS[name]))
    np.testing.assert_allclose(vectors, reference_pictures(cache, name, PICTURES), rtol=0, atol=1e-6)


def test_texts_equal_the_reference(name: str, cache: Path) -> None:
    """A text's vector is the tower's pooled output of its tokens, with no prefix, at length 1."""
    vectors = make(name, cache).embed_texts(TEXTS)
    np.testing.assert_allclose(vectors, reference_texts(cache, name, TEXTS), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("tower", ["pictures", "texts"])
def test_it_agrees_with_fastembed_alone(name: str, cache: Path, tower: str, tmp_path: Path) -> None:
    """fastembed's own embedding of files and texts, one at a time and brought to length 1, is the same."""
    from fastembed import ImageEmbedding, TextEmbedding

    embedder = make(name, cache)
    if tower == "texts":
        folder = snapshot_folder(cache, REPOSITORIES[name][1])
        theirs = TextEmbedding(embedder.texts.name, specific_model_path=str(folder), local_files_only=True)
        expected = unit(np.stack(list(theirs.embed(TEXTS, batch_size=1))))
        np.testing.assert_allclose(embedder.embed_texts(TEXTS), expected, rtol=0, atol=1e-6)
        return
    files = [tmp_path / f"{number}.png" for number in range(len(PICTURES))]
    for image, file in zip(PICTURES, files, strict=True):
        image.save(file)
    folder = snapshot_folder(cache, REPOSITORIES[name][0])
    own = ImageEmbedding(embedder.pictures.name, specific_model_path=str(folder), local_files_only=True)
    expected = unit(np.stack(list(own.embed(files, batch_size=1))))
    np.testing.assert_allclose(embed(embedder, PICTURES), expected, rtol=0, atol=1e-6)


def test_the_reference_sees_every_step(cache: Path) -> None:
    """The graphs tell a missing padding, another output, crop or cut from the real thing, so the tests can fail."""
    ids = np.array([[2, 60, 61, 3]], np.int64)
    bare = run(cache, "siglip2", 1, {"input_ids": ids})
    padded = run(cache, "siglip2", 1, {"input_ids": np.pad(ids, ((0, 0), (0, 60)))})
    assert np.abs(unit(bare) - unit(padded)).max() > 1e-3
    wide, odd = PICTURES[2], PICTURES[4]
    assert np.abs(pixels("clip", wide) - pixels("siglip2", wide)).max() > 0.1
    assert np.abs(pixels("clip", odd) - pixels("jina-clip", odd)).max() > 0.1, "rounding down, and to even"
    long = "dog " * 200
    assert (reference_texts(cache, "clip", [long]) != reference_texts(cache, "jina-clip", [long])[:, :512]).any()


def test_a_long_strip_takes_no_endless_memory(cache: Path) -> None:
    """Of a picture of 4 x 60,000 points only the middle is enlarged, and it has a vector."""
    embedder = make("clip", cache)
    prepared = embedder.prepare(picture(5, 60_000, 4))
    assert prepared.shape == (224, 224, 3)
    assert embedder.embed_prepared([prepared]).shape == (1, 512)


@pytest.mark.parametrize(("suffix", "kind"), [("_fp16", "jina-clip-fp16"), ("_fp16", "siglip2-fp16")])
@pytest.mark.parametrize("half", [True, False])
def test_half_precision_is_a_space_of_its_own(cache: Path, tmp_path: Path, suffix: str, kind: str, half: bool) -> None:
    """The half-precision files are used, whether they take half or single precision; their space says so."""
    name = kind.removesuffix("-fp16")
    write_tiny_clip(tmp_path, name, suffix, half=half)
    embedder = make(kind, tmp_path)
    assert (embedder.space.precision, embedder.space.model) == ("fp16", registry.space_of(name).model)
    vectors = embed(embedder, PICTURES)
    np.testing.assert_allclose(vectors, reference_pictures(cache, name, PICTURES), rtol=0, atol=3e-3 if half else 1e-6)
    if half:
        assert (vectors != reference_pictures(cache, name, PICTURES).astype(np.float32)).any()
    np.testing.assert_allclose(embedder.embed_texts(TEXTS), reference_texts(cache, name, TEXTS), rtol=0, atol=3e-3)


@pytest.mark.parametrize("kind", ["jina-clip-q", "siglip2-q"])
def test_quantised_files_are_a_space_of_their_own(cache: Path, tmp_path: Path, kind: str) -> None:
    """The files named `quantized` are used, and a store of float32 takes none of their vectors."""
    name = kind.removesuffix("-q")
    write_tiny_clip(tmp_path, name, "_quantized", seed=7)
    embedder = make(kind, tmp_path)
    assert embedder.space.precision == "int8"
    assert not registry.space_of(name).takes(embedder.space)
    assert np.abs(embed(embedder, PICTURES) - reference_pictures(cache, name, PICTURES)).max() > 1e-2


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("clip", {"size": {"height": 224, "width": 224}}),
        ("clip", {"image_mean": [0.5, 0.5, 0.5]}),
        ("jina-clip", {"resize_mode": "longest"}),
        ("jina-clip", {"interpolation": "nearest"}),
        ("siglip2", {"resample": 3}),
        ("siglip2", {"do_normalize": False}),
    ],
)
def test_other_settings_are_refused(cache: Path, tmp_path: Path, kind: str, change: dict[str, Any]) -> None:
    """Weights whose settings resize or scale pictures otherwise: the space would promise what is not so."""
    shutil.copytree(cache, tmp_path / "cache")
    path = snapshot_folder(tmp_path / "cache", REPOSITORIES[kind][0]) / "preprocessor_config.json"
    path.write_text(json.dumps({**SETTINGS[kind], **change}))
    with pytest.raises(EmbedderError, match=registry.space_of(kind).preprocessing):
        embed(make(kind, tmp_path / "cache"), PICTURES[:1])


def test_missing_weights_name_the_way_to_get_them(name: str, tmp_path: Path) -> None:
    """Without weights the error names the repositories, once each, and the command."""
    with pytest.raises(ModelNotFoundError) as caught:
        make(name, tmp_path)
    for repo in REPOSITORIES[name]:
        assert str(caught.value).count(repo) == 1
    assert f"`embedstore models pull {name}`" in str(caught.value)


def test_a_store_is_made_and_searched(cache: Path, tmp_path: Path, pictures: Path, name: str) -> None:
    """From the command line, with nothing but the weights."""

    def command(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "embedstore", *map(str, words)],
            env={**os.environ, "FASTEMBED_CACHE_PATH": str(cache), "EMBEDSTORE_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    added = command("add", tmp_path / "s.store", pictures, "--model", name)
    assert added.returncode == 0, added.stderr
    found = command("search", tmp_path / "s.store", "a red dog", "-n", 3)
    assert (found.returncode, len(found.stdout.splitlines())) == (0, 3), found.stderr
