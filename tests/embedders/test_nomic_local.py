"""`nomic-local` against its definition: fastembed, onnxruntime and tokenizers run in earnest, on small graphs.

The reference is written out here with NumPy, onnxruntime, tokenizers and Pillow, and shares nothing with the
module under test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from embedder_contract import EmbedderContract
from hub import Hub
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tiny_models import MAX_TOKENS, PREPROCESSOR, TEXT_REPO, VISION_REPO, snapshot_folder, write_tiny_models
from tokenizers import Tokenizer

from embedstore.embedders.nomic_local import (
    HalfNomicLocalEmbedder,
    NomicLocalEmbedder,
    QuantisedNomicLocalEmbedder,
    layer_norm,
)
from embedstore.errors import EmbedderError, ImageError, ModelNotFoundError, OfflineError, QueryError
from embedstore.space import Space

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
TEXTS = ["a tiny white ball", "cat", "", "The photo of the DOG, red!", "bird " * 40, "a tiny white ball"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_models(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def quantised_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_models(tmp_path_factory.mktemp("weights-q"), quantised=True)


@pytest.fixture(scope="module")
def embedder(cache: Path) -> NomicLocalEmbedder:
    return NomicLocalEmbedder(cache_dir=cache)


def picture(seed: int, width: int = 180, height: int = 301) -> Image.Image:
    """Noise over a slope: every pixel differs, and left is not right."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 160, width)[np.newaxis, :, np.newaxis]
    return Image.fromarray((rng.integers(0, 96, (height, width, 3)) + slope).astype(np.uint8))


PICTURES = [picture(0), picture(1, 224, 224), picture(2, 640, 97), picture(3, 1, 1), picture(4, 33, 800)]


def reference_pixels(image: Image.Image) -> NDArray[np.float32]:
    squashed = image.resize((224, 224), Image.Resampling.BICUBIC)
    return ((np.asarray(squashed, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)


def unit(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def reference_pictures(
    pixels: Sequence[NDArray[np.float32]], cache: Path, graph: str = "model"
) -> NDArray[np.floating]:
    path = snapshot_folder(cache, VISION_REPO) / f"onnx/{graph}.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    hidden = [session.run(["last_hidden_state"], {"pixel_values": one[np.newaxis]})[0] for one in pixels]
    return unit(np.concatenate(hidden)[:, 0])


def reference_texts(texts: Sequence[str], cache: Path) -> NDArray[np.floating]:
    folder = snapshot_folder(cache, TEXT_REPO)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_id=0)
    encoded = tokenizer.encode_batch(["search_query: " + text for text in texts])
    ids = np.array([one.ids for one in encoded], np.int64)
    mask = np.array([one.attention_mask for one in encoded], np.int64)
    session = onnxruntime.InferenceSession(folder / "onnx/model.onnx", providers=["CPUExecutionProvider"])
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    hidden = session.run(["last_hidden_state"], feeds)[0].astype(np.float64)
    rows = (hidden * mask[..., np.newaxis]).sum(1) / mask.sum(1, keepdims=True)
    rows = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-5)
    return unit(rows)


def embed(embedder: NomicLocalEmbedder, images: Sequence[Image.Image]) -> NDArray[np.float32]:
    return embedder.embed_prepared([embedder.prepare(image) for image in images])


class TestContract(EmbedderContract):
    """Float32 weights; every vector is the same to the bit whatever its neighbours."""

    @pytest.fixture
    def embedder(self, cache: Path) -> NomicLocalEmbedder:
        return NomicLocalEmbedder(cache_dir=cache)


class TestContractQuantised(EmbedderContract):
    """Int8 weights, whose graph scales its activations by all that it is given at once."""

    @pytest.fixture
    def embedder(self, quantised_cache: Path) -> NomicLocalEmbedder:
        return QuantisedNomicLocalEmbedder(cache_dir=quantised_cache)


def test_the_space_is_that_of_the_weights(embedder: NomicLocalEmbedder, quantised_cache: Path) -> None:
    """Float32 and int8 weights are two spaces."""
    assert embedder.space == Space("nomic-embed-v1.5", "fastembed", "float32", "squash224-1", 768)
    quantised = QuantisedNomicLocalEmbedder(cache_dir=quantised_cache)
    assert quantised.space == Space("nomic-embed-v1.5", "fastembed", "int8", "squash224-1", 768)


def test_pictures_equal_the_reference(embedder: NomicLocalEmbedder, cache: Path) -> None:
    """A picture's vector is the CLS token of the squashed picture at unit length, with no layer norm."""
    vectors = embed(embedder, PICTURES)
    expected = reference_pictures([reference_pixels(image) for image in PICTURES], cache)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)
    assert np.abs(layer_norm(expected) / np.sqrt(768) - vectors).max() > 1e-2, "the check could not see a layer norm"


def test_texts_equal_the_reference(embedder: NomicLocalEmbedder, cache: Path) -> None:
    """A text's vector is prefix, mean over the tokens that are not padding, layer norm, unit length."""
    vectors = embedder.embed_texts(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, reference_texts(TEXTS, cache), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)


def test_the_text_reference_sees_every_step(cache: Path) -> None:
    """The graphs tell a missing prefix, layer norm or mask from the real thing, so the tests above can fail."""
    folder = snapshot_folder(cache, TEXT_REPO)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(folder / "onnx/model.onnx", providers=["CPUExecutionProvider"])

    def pooled(text: str, padding: int = 0, *, kind: int = 0, masked: bool = True) -> NDArray[np.float64]:
        ids = np.array([tokenizer.encode(text).ids + [0] * padding], np.int64)
        mask = np.ones_like(ids)
        if padding and masked:
            mask[:, -padding:] = 0
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.full_like(ids, kind)}
        hidden = session.run(None, feeds)[0].astype(np.float64)
        return (hidden * mask[..., np.newaxis]).sum(1)[0] / mask.sum()

    def differ(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
        return bool(np.abs(unit(one) - unit(other)).max() > 1e-3)

    right = pooled("search_query: red cat")
    assert not differ(right, pooled("search_query: red cat", padding=5))
    assert differ(right, pooled("search_query: red cat", padding=5, masked=False))
    assert differ(right, pooled("search_query: red cat", kind=1))
    assert differ(right, pooled("search_query: cat red"))
    assert differ(right, pooled("red cat"))
    assert differ(right, layer_norm(right))


def test_pixels_equal_those_of_the_clip_processor(embedder: NomicLocalEmbedder, cache: Path) -> None:
    """What the vision model is fed equals what transformers' CLIP processor makes with the repository's settings."""
    transformers = pytest.importorskip("transformers", reason="the processor to compare with is in transformers")
    path = snapshot_folder(cache, VISION_REPO) / "preprocessor_config.json"
    options = json.loads(path.read_text())
    del options["image_processor_type"]
    processor = transformers.CLIPImageProcessorPil(**options)
    theirs = [np.asarray(processor(image, return_tensors="np")["pixel_values"])[0] for image in PICTURES]

    embed(embedder, PICTURES[:1])  # loads the model, and with it fastembed's own processor
    processed = embedder._models[NomicLocalEmbedder.pictures].value.processor
    for image, expected in zip(PICTURES, theirs, strict=True):
        ours = processed([Image.fromarray(embedder.prepare(image))])[0]
        np.testing.assert_array_equal(ours, expected)
        np.testing.assert_allclose(reference_pixels(image), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(embed(embedder, PICTURES), reference_pictures(theirs, cache), rtol=0, atol=1e-6)


def test_quantised_weights_are_those_of_the_quantised_file(quantised_cache: Path, cache: Path) -> None:
    """`quantised` runs the int8 graph, whose vectors are near those of the float32 graph and not equal."""
    quantised = QuantisedNomicLocalEmbedder(cache_dir=quantised_cache)
    pixels = [reference_pixels(image) for image in PICTURES]
    vectors = embed(quantised, PICTURES)
    exact = reference_pictures(pixels, cache)
    np.testing.assert_allclose(
        vectors, reference_pictures(pixels, quantised_cache, "model_quantized"), rtol=0, atol=1e-6
    )
    assert (vectors != exact.astype(np.float32)).any()
    assert np.einsum("ij,ij->i", vectors, exact).min() > 0.99


def test_half_precision_files_are_a_space_of_their_own(tmp_path: Path, cache: Path) -> None:
    """The files in half precision are used: near the float32 ones, not equal, and no store takes both."""
    half = HalfNomicLocalEmbedder(cache_dir=write_tiny_models(tmp_path, half=True))
    assert half.space == Space("nomic-embed-v1.5", "fastembed", "fp16", "squash224-1", 768)
    pixels = [reference_pixels(image) for image in PICTURES]
    vectors = embed(half, PICTURES)
    np.testing.assert_allclose(vectors, reference_pictures(pixels, tmp_path, "model_fp16"), rtol=0, atol=1e-6)
    exact = reference_pictures(pixels, cache)
    assert (vectors != exact.astype(np.float32)).any()
    assert np.einsum("ij,ij->i", vectors, exact).min() > 0.999


def test_what_is_no_input_is_refused(embedder: NomicLocalEmbedder) -> None:
    """A picture that is not RGB, and one text in place of a list, are errors that say what was expected."""
    with pytest.raises(ImageError, match="RGB picture, found mode L"):
        embedder.prepare(Image.new("L", (10, 10)))
    with pytest.raises(QueryError, match="list of texts"):
        embedder.embed_texts("a tiny white ball")


def test_prepared_pictures_are_small(embedder: NomicLocalEmbedder) -> None:
    """A prepared picture is 224 x 224 x 3 bytes, whatever the picture was."""
    for image in PICTURES:
        prepared = embedder.prepare(image)
        assert (prepared.shape, prepared.dtype) == ((224, 224, 3), np.uint8)


def test_a_text_of_5000_words(embedder: NomicLocalEmbedder, cache: Path) -> None:
    """A text of 5,000 words is embedded whole; what lies beyond the model's 8,192 tokens changes nothing."""
    words = ["dog", "red", "cat", "ball", "tiny"] * 1000
    long = " ".join(words)
    np.testing.assert_allclose(embedder.embed_texts([long]), reference_texts([long], cache), rtol=0, atol=1e-6)
    assert (embedder.embed_texts([long]) != embedder.embed_texts([long + " bird"])).any()
    too_long = long + " " + " ".join(["white"] * 4000)
    np.testing.assert_array_equal(embedder.embed_texts([too_long]), embedder.embed_texts([too_long + " bird" * 10]))


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_any_text_has_a_unit_vector_equal_to_the_reference(
    texts: list[str], embedder: NomicLocalEmbedder, cache: Path
) -> None:
    """Any unicode text gives the reference's vector."""
    np.testing.assert_allclose(embedder.embed_texts(texts), reference_texts(texts, cache), rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_layer_norm(seed: int, scale: float, shift: float) -> None:
    """Layer norm has mean 0, and the variance v / (v + eps) of rows with variance v."""
    rows = np.random.default_rng(seed).normal(shift, scale, (3, 768))
    normed = layer_norm(rows)
    np.testing.assert_allclose(normed.mean(1), 0, atol=1e-9)
    variance = rows.var(1)
    np.testing.assert_allclose(normed.var(1), variance / (variance + 1e-5), rtol=1e-6)


def test_threads_share_one(cache: Path) -> None:
    """Several threads that use a fresh embedder at once get the vectors that one would."""
    fresh = NomicLocalEmbedder(cache_dir=cache)
    found: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def work(number: int) -> None:
        found[number] = embed(fresh, PICTURES), fresh.embed_texts(TEXTS)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for pictures, texts in found.values():
        np.testing.assert_array_equal(pictures, found[0][0])
        np.testing.assert_array_equal(texts, found[0][1])


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        (NomicLocalEmbedder, "models pull nomic-local`"),
        (QuantisedNomicLocalEmbedder, "models pull nomic-local-q`"),
    ],
)
def test_missing_weights_name_the_way_to_get_them(tmp_path: Path, kind: type[NomicLocalEmbedder], command: str) -> None:
    """Without weights the error names both repositories, the folder looked in, and the command."""
    with pytest.raises(ModelNotFoundError) as caught:
        kind(cache_dir=tmp_path)
    for part in (command, VISION_REPO, TEXT_REPO, str(tmp_path)):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "onnx/model.onnx"])
def test_half_the_weights_are_missing_weights(cache: Path, tmp_path: Path, name: str) -> None:
    """One file short, the error names the repository that is not complete and not the other."""
    shutil.copytree(cache, tmp_path / "cache")
    (snapshot_folder(tmp_path / "cache", TEXT_REPO) / name).unlink()
    with pytest.raises(ModelNotFoundError) as caught:
        NomicLocalEmbedder(cache_dir=tmp_path / "cache")
    assert TEXT_REPO in str(caught.value)
    assert VISION_REPO not in str(caught.value)


def test_a_damaged_file_is_said_to_be_damaged(cache: Path, tmp_path: Path) -> None:
    """A graph cut short is an error that names the folder and what to do."""
    shutil.copytree(cache, tmp_path / "cache")
    graph = snapshot_folder(tmp_path / "cache", VISION_REPO) / "onnx/model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    broken = NomicLocalEmbedder(cache_dir=tmp_path / "cache")
    with pytest.raises(EmbedderError, match="delete that folder and run `embedstore models pull") as caught:
        embed(broken, PICTURES[:1])
    assert str(graph.parents[1]) in str(caught.value)
    assert broken.embed_texts(["cat"]).shape == (1, 768), "the other model is not concerned"


@pytest.mark.parametrize(
    "change",
    [
        {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        {"do_normalize": False},
        {"rescale_factor": 1.0},
        {"crop_size": {"height": 192, "width": 192}},
    ],
)
def test_other_settings_are_refused(cache: Path, tmp_path: Path, change: dict[str, object]) -> None:
    """Weights whose settings scale pictures otherwise are refused: the space would promise what is not so."""
    shutil.copytree(cache, tmp_path / "cache")
    path = snapshot_folder(tmp_path / "cache", VISION_REPO) / "preprocessor_config.json"
    path.write_text(json.dumps({**PREPROCESSOR, **change}))
    with pytest.raises(EmbedderError, match="squash224-1"):
        embed(NomicLocalEmbedder(cache_dir=tmp_path / "cache"), PICTURES[:1])


def test_an_older_snapshot_without_squash_gives_the_same_vectors(
    embedder: NomicLocalEmbedder, cache: Path, tmp_path: Path
) -> None:
    """The squash is ours, so the repository's older setting (shortest edge and crop) changes no vector."""
    shutil.copytree(cache, tmp_path / "cache")
    path = snapshot_folder(tmp_path / "cache", VISION_REPO) / "preprocessor_config.json"
    path.write_text(json.dumps({**PREPROCESSOR, "size": {"shortest_edge": 224}}))
    older = NomicLocalEmbedder(cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(embed(older, PICTURES), embed(embedder, PICTURES))


def test_an_execution_provider_is_passed_on(cache: Path) -> None:
    """`providers` reaches onnxruntime: one that is there is used, one that is not is named in the error."""
    there = NomicLocalEmbedder(cache_dir=cache, providers=["CPUExecutionProvider"], threads=1)
    assert embed(there, PICTURES[:1]).shape == (1, 768)
    absent = NomicLocalEmbedder(cache_dir=cache, providers=["NoSuchExecutionProvider"])
    with pytest.raises(EmbedderError, match="NoSuchExecutionProvider"):
        embed(absent, PICTURES[:1])


def test_the_cache_folder(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is the one given, else that of FASTEMBED_CACHE_PATH, else one in the user's cache."""
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(cache))
    assert NomicLocalEmbedder.weights().cache == cache
    assert NomicLocalEmbedder.weights(tmp_path).cache == tmp_path
    assert NomicLocalEmbedder.weights().missing() == []
    assert NomicLocalEmbedder.weights(tmp_path).missing() == [VISION_REPO, TEXT_REPO]
    assert NomicLocalEmbedder().embed_texts(["cat"]).shape == (1, 768)
    monkeypatch.delenv("FASTEMBED_CACHE_PATH")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert "embedstore" in NomicLocalEmbedder.weights().cache.parts


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network switched off; the switches of other libraries that follow from it are undone after the test."""
    for name in ("EMBEDSTORE_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")


def test_offline_nothing_is_pulled(tmp_path: Path, offline: None) -> None:
    """With the network switched off a pull is an error that names what wanted it."""
    with pytest.raises(OfflineError) as caught:
        NomicLocalEmbedder.weights(tmp_path).pull()
    assert VISION_REPO in str(caught.value)
    assert "embedstore models pull" in str(caught.value)


def test_offline_what_is_here_needs_no_pull(cache: Path, offline: None) -> None:
    """Weights that are all here are used, and pulled to no effect, with the network switched off."""
    assert NomicLocalEmbedder.weights(cache).pull() == cache
    assert NomicLocalEmbedder(cache_dir=cache).embed_texts(["cat"]).shape == (1, 768)


PULL = """
import sys
from embedstore.embedders import weights
from embedstore.embedders.nomic_local import NomicLocalEmbedder
weights.KNOWN.clear()  # of the real files
folder = NomicLocalEmbedder.weights(sys.argv[1]).pull(progress=False)
print(NomicLocalEmbedder(cache_dir=folder).embed_texts(["cat"]).shape)
"""


def pull_in_a_process(folder: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Pull into `folder` in a process of its own: the hub's client reads its address once, when imported."""
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and "OFFLINE" not in key}
    return subprocess.run(
        [sys.executable, "-c", PULL, str(folder)],
        env={**kept, "HF_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_pull_fetches_both_models_once(cache: Path, tmp_path: Path) -> None:
    """A pull fetches the files of both models and no others; a second one asks the hub for nothing."""
    repositories = {repo: tmp_path / "hub" / repo for repo in (VISION_REPO, TEXT_REPO)}
    for repo, folder in repositories.items():
        shutil.copytree(snapshot_folder(cache, repo), folder)
        (folder / "onnx" / "model_fp16.onnx").write_bytes(b"not asked for")
    with Hub(repositories) as hub:
        first = pull_in_a_process(tmp_path / "cache", hub.url)
        assert first.returncode == 0, first.stderr
        assert first.stdout.strip() == "(1, 768)"
        assert not first.stderr.strip()
        fetched = {path for method, path in hub.requests if method == "GET" and "/resolve/" in path}
        assert {path.rsplit("/", 1)[1] for path in fetched} == {
            *("model.onnx", "config.json", "preprocessor_config.json"),
            *("tokenizer.json", "tokenizer_config.json"),
        }
        asked = len(hub.requests)
        second = pull_in_a_process(tmp_path / "cache", hub.url)
        assert second.stdout == first.stdout
        assert len(hub.requests) == asked
    expected = sum(
        (repositories[tower.repo] / name).stat().st_size
        for tower in (NomicLocalEmbedder.pictures, NomicLocalEmbedder.texts)
        for name in tower.files
    )
    assert NomicLocalEmbedder.weights(tmp_path / "cache").size() == expected


def test_a_pull_that_fails_says_so(cache: Path, tmp_path: Path) -> None:
    """A hub that lacks a file or does not answer is an error that names the repository, with nothing lost."""
    repositories = {repo: tmp_path / "hub" / repo for repo in (VISION_REPO, TEXT_REPO)}
    for repo, folder in repositories.items():
        shutil.copytree(snapshot_folder(cache, repo), folder)
    (repositories[TEXT_REPO] / "tokenizer.json").unlink()
    with Hub(repositories) as hub:
        short = pull_in_a_process(tmp_path / "cache", hub.url)
    assert "ServiceError" in short.stderr
    assert "tokenizer.json" in short.stderr
    assert NomicLocalEmbedder.weights(tmp_path / "cache").missing() == [TEXT_REPO], "the other model was kept"
    for folder, repo in ((tmp_path / "cache", TEXT_REPO), (tmp_path / "fresh", VISION_REPO)):
        silent = pull_in_a_process(folder, hub.url)
        assert "ServiceError" in silent.stderr
        assert repo in silent.stderr.splitlines()[-1]
