"""Vectors of queries: kept once asked, by several processes too, each under the backend that made it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import save_picture

from embedstore.embedders.nomic_local import NomicLocalEmbedder
from embedstore.errors import SpaceMismatchError
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

PUT = "import sys; from embedstore.store import EmbedStore; EmbedStore.open(sys.argv[1]).query_vectors(sys.argv[2:])"


def test_processes_that_keep_queries_at_once_lose_none(store: EmbedStore) -> None:
    """Four processes embed nine queries each, one commit for each: all 36 are kept, through merges of small parts."""
    code = PUT.replace("query_vectors(sys.argv[2:])", "path") + (
        "\nstore = EmbedStore.open(sys.argv[1])\nfor text in sys.argv[2:]: store.query_vectors([text])"
    )
    texts = [[f"query {process} {number}" for number in range(9)] for process in range(4)]
    running = [subprocess.Popen([sys.executable, "-c", code, str(store.path), *some]) for some in texts]
    assert [process.wait(120) for process in running] == [0] * 4
    assert EmbedStore.open(store.path).info()["cached_queries"] == 36


def test_another_backend_asks_only_where_that_is_allowed(
    server: NomicServer,
    api_store: EmbedStore,
    weights: Path,
    tmp_path: Path,
    pictures: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A store of the service, opened with the local model, is refused; when allowed, the query's vector is the local
    model's, kept under its own name, and a query that the service had made stays the service's."""
    kept = api_store.query_vectors(["asked before"])
    local = NomicLocalEmbedder()
    with pytest.raises(SpaceMismatchError, match=r"differ in backend.*--allow-mixed-backend"):
        EmbedStore.open(api_store.path, embedder=local)
    mixed = EmbedStore.open(api_store.path, embedder=local, allow_mixed_backend=True)
    np.testing.assert_allclose(mixed.query_vectors(["a red car"]), local.embed_texts(["a red car"]), atol=1e-6)
    assert "decisions near a threshold" in caplog.text
    assert np.array_equal(mixed.query_vectors(["asked before"]), kept)
    sent = server.texts
    own = EmbedStore.open(api_store.path)
    np.testing.assert_allclose(own.query_vectors(["a red car"])[0], server.text_vector("a red car"), atol=1e-6)
    assert server.texts == sent + 1
    again = EmbedStore.open(api_store.path, embedder=local, allow_mixed_backend=True)
    assert np.array_equal(again.query_vectors(["a red car"]), own.query_vectors(["a red car"]))
    save_picture(pictures / "new.png", 77)
    with pytest.raises(SpaceMismatchError):
        mixed.add(pictures)
    other = EmbedStore.create(tmp_path / "o.store", model="objects")
    with pytest.raises(SpaceMismatchError, match="mean nothing"):
        EmbedStore.open(other.path, embedder=local, allow_mixed_backend=True)
