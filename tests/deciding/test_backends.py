"""Two backends of one model compared: the figures are those of the definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import run

from embedstore import images
from embedstore.deciding import backends
from embedstore.embedders.nomic_api import NomicAPIEmbedder
from embedstore.embedders.nomic_local import NomicLocalEmbedder
from embedstore.errors import InputError, SpaceMismatchError
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer


def test_the_comparison_is_the_plain_formula(server: NomicServer, api_store: EmbedStore, weights: Path) -> None:
    """Gaps, shifts, thresholds and flips are those that float64 and the definition give, picture by picture."""
    second = NomicLocalEmbedder()
    sent = server.images
    queries = ["a red car", "a white ball"]
    found = backends.of_rows(api_store.reader, second, sample=10, queries=queries)
    assert server.images == sent
    assert found.gaps.shape == (10,)
    api = NomicAPIEmbedder()
    chosen = sorted(np.random.default_rng(0).permutation(12)[:10])
    uris = [api_store.to_table(["uri"]).column("uri")[int(place)].as_py() for place in chosen]
    decoded = [images.read(Path(uri)).image for uri in uris]
    a = np.array([server.image_vector(api.prepare(image)) for image in decoded], np.float64)
    b = second.embed_prepared([second.prepare(image) for image in decoded]).astype(np.float64)
    p = np.array([server.text_vector(query) for query in queries], np.float64)
    q = second.embed_texts(queries).astype(np.float64)
    np.testing.assert_allclose(found.gaps, 1 - (a * b).sum(axis=1), atol=1e-6)
    np.testing.assert_allclose(found.first_scores, p @ a.T, atol=1e-6)
    np.testing.assert_allclose(found.second_scores, q @ b.T, atol=1e-6)
    np.testing.assert_allclose(found.mixed_scores, q @ a.T, atol=1e-6)
    limits = found.thresholds(0.3)
    for scores, limit in zip((found.first_scores, found.second_scores, found.mixed_scores), limits.T, strict=True):
        assert [(row > edge).sum() for row, edge in zip(scores, limit, strict=True)] == [3, 3]
    other, mixed = found.flips(0.3)
    for number in range(2):
        own = found.first_scores[number] > limits[number, 0]
        assert other[number] == np.mean(own != (found.second_scores[number] > limits[number, 0]))
        assert mixed[number] == np.mean(own != (found.mixed_scores[number] > limits[number, 0]))


def test_a_backend_compared_with_itself_has_no_gap(weights: Path, pictures: Path) -> None:
    """Two embedders of the same weights: no gap, no shift, no flip."""
    found = backends.of_source(str(pictures), NomicLocalEmbedder(), NomicLocalEmbedder(), sample=6)
    assert found.gaps.max() < 1e-12
    assert np.array_equal(found.first_scores, found.mixed_scores)
    assert found.flips(0.25)[0].max() == 0


def test_what_cannot_be_compared_is_refused(store: EmbedStore, weights: Path, tmp_path: Path) -> None:
    """Two models are no two backends; a store whose pictures are gone says so."""
    with pytest.raises(SpaceMismatchError):
        backends.of_rows(store.reader, NomicLocalEmbedder())
    gone = EmbedStore.create(tmp_path / "g.store", embedder=NomicLocalEmbedder())
    gone.add([np.full((9, 9, 3), value, np.uint8) for value in (1, 2, 3)])
    with pytest.raises(InputError, match="0 of 3 pictures can be read"):
        backends.of_rows(gone.reader, NomicLocalEmbedder())
    assert run("compare-backends", store.path).exit_code == 2
