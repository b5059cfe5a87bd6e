"""What `embedstore.embedders.protocol.Embedder` promises, as one test class that every embedder's tests inherit.

    class TestMine(EmbedderContract):
        @pytest.fixture
        def embedder(self): return Mine(...)

A subclass may also set `texts`, or `tolerance` where a service does not repeat its bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from embedstore.embedders import Embedder
from embedstore.space import Space


def drawn_pictures(count: int = 17) -> list[Image.Image]:
    """Return RGB pictures that all differ, some flat, some long, some tiny or large, the same on every call."""
    random = np.random.default_rng(20)
    shapes = [(224, 224), (60, 500), (500, 60), (1, 1), (7, 3), (900, 1200)]
    pictures = []
    for number in range(count):
        height, width = shapes[number % len(shapes)]
        coarse = random.integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
        pictures.append(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return pictures


class EmbedderContract:
    """The promises. `embedder` is the fixture that a subclass gives."""

    texts: Sequence[str] = ("dog", "a photo of a cat", "musical instrument", "bird")
    tolerance: float = 0.0

    @pytest.fixture
    def embedder(self) -> Embedder:
        raise NotImplementedError("a subclass gives the embedder")

    @pytest.fixture
    def prepared(self, embedder: Embedder) -> list[object]:
        return [embedder.prepare(picture) for picture in drawn_pictures()]

    @pytest.fixture
    def vectors(self, embedder: Embedder, prepared: list[object]) -> NDArray[np.float32]:
        return embedder.embed_prepared(prepared)

    def assert_same(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        """Compare bit for bit, or within `tolerance` where the embedder cannot repeat its bits."""
        np.testing.assert_allclose(found, expected, rtol=0, atol=self.tolerance)

    def test_it_is_an_embedder_and_says_how_to_use_it(self, embedder: Embedder) -> None:
        """It has the members of the protocol, and a normalised space, a batch size and workers that make sense."""
        assert isinstance(embedder, Embedder)
        assert isinstance(embedder.space, Space)
        assert embedder.space.normalised
        assert embedder.batch_size >= 1
        assert embedder.workers >= 1

    def test_pictures_become_unit_vectors_of_the_space(
        self, embedder: Embedder, prepared: list[object], vectors: NDArray[np.float32]
    ) -> None:
        """Pictures of any shape become float32 vectors of the space's dimension, finite and of length one."""
        assert vectors.shape == (len(prepared), embedder.space.dim)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)

    def test_texts_become_unit_vectors_of_the_same_space(self, embedder: Embedder) -> None:
        """Texts become float32 vectors of the same dimension, finite and of length one."""
        vectors = embedder.embed_texts(self.texts)
        assert vectors.shape == (len(self.texts), embedder.space.dim)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)

    def test_no_pictures_and_no_texts_give_empty_arrays(self, embedder: Embedder) -> None:
        """An empty list becomes an array of shape (0, dim)."""
        for vectors in (embedder.embed_prepared([]), embedder.embed_texts([])):
            assert vectors.shape == (0, embedder.space.dim)
            assert vectors.dtype == np.float32

    @pytest.mark.parametrize("size", [1, 3, 16])
    def test_a_vector_does_not_depend_on_its_batch(
        self, embedder: Embedder, prepared: list[object], vectors: NDArray[np.float32], size: int
    ) -> None:
        """Batches of any size give the vectors, in the order given, that one batch of all gives."""
        batches = [prepared[start : start + size] for start in range(0, len(prepared), size)]
        self.assert_same(np.concatenate([embedder.embed_prepared(batch) for batch in batches]), vectors)

    def test_order_is_kept(self, embedder: Embedder, prepared: list[object], vectors: NDArray[np.float32]) -> None:
        """Reversed pictures and texts give reversed vectors."""
        self.assert_same(embedder.embed_prepared(prepared[::-1]), vectors[::-1])
        forward, backward = embedder.embed_texts(self.texts), embedder.embed_texts(self.texts[::-1])
        self.assert_same(backward, forward[::-1])

    def test_different_inputs_have_different_vectors(self, embedder: Embedder, vectors: NDArray[np.float32]) -> None:
        """No two of the pictures, and no two of the texts, share a vector."""
        assert len(np.unique(vectors, axis=0)) == len(vectors)
        assert len(np.unique(embedder.embed_texts(self.texts), axis=0)) == len(self.texts)

    def test_a_text_does_not_depend_on_its_neighbours(self, embedder: Embedder) -> None:
        """Texts embedded one by one are those embedded together."""
        alone = np.concatenate([embedder.embed_texts([text]) for text in self.texts])
        self.assert_same(alone, embedder.embed_texts(self.texts))

    def test_preparing_does_not_change_the_picture(self, embedder: Embedder) -> None:
        """The picture given to `prepare` keeps its pixels."""
        picture = drawn_pictures(1)[0]
        before = picture.tobytes()
        embedder.prepare(picture)
        assert picture.tobytes() == before

    def test_threads_may_call_at_once(
        self, embedder: Embedder, prepared: list[object], vectors: NDArray[np.float32]
    ) -> None:
        """Calls from several threads at the same time give what one thread gets."""
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(embedder.embed_prepared, [prepared] * 4):
                self.assert_same(found, vectors)
            for found in pool.map(embedder.embed_texts, [self.texts] * 4):
                self.assert_same(found, embedder.embed_texts(self.texts))
