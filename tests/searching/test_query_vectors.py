"""Vectors of queries: kept once asked, by several processes too, each under the backend that made it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import save_picture

from embedstore.deciding.thresholds import noise_floor
from embedstore.embedders.nomic_local import NomicLocalEmbedder
from embedstore.errors import ImageError, QueryError, SpaceMismatchError, VectorError
from embedstore.searching.queries import Query
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
    with pytest.raises(SpaceMismatchError, match=r"differ in backend.*allow_mixed_backend=True"):
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


def test_the_rows_of_a_matrix_are_vectors(photo_store: EmbedStore) -> None:
    """`scores` has a line for each row, `search_many` an answer, `search` averages them, as lists of vectors do."""
    given = photo_store.query_vectors(["bird", "violin", "flower"]) * 3
    rows = np.array(photo_store.to_table(["embedding"]).column("embedding").to_pylist(), np.float32)
    unit = given / np.linalg.norm(given.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(photo_store.scores(given), unit @ rows.T, atol=1e-6)
    assert np.array_equal(photo_store.query_vectors(given), photo_store.query_vectors(list(given)))
    many = photo_store.search_many(given, k=4)
    assert [matches.id for matches in many] == [photo_store.search(row, k=4).id for row in given]
    assert photo_store.search(given, k=4).id == photo_store.search(list(given), k=4).id


def test_an_array_of_two_axes_is_never_taken_for_a_picture(api_store: EmbedStore, server: NomicServer) -> None:
    """Rows of another length, and an array among other queries, are errors, and nothing is sent."""
    sent = server.requests
    grey = np.zeros((30, 40), np.uint8)
    for ask in (api_store.scores, api_store.search, api_store.query_vectors, lambda array: api_store.count(array, 0)):
        with pytest.raises(VectorError, match=r"expected shape \(768,\), .*found \(40,\); .*Query.image"):
            ask(grey)
    with pytest.raises(QueryError, match=r"vectors or a grey picture; say Query.image"):
        api_store.search([grey, "dog"])
    with pytest.raises(VectorError, match=r"found \(2, 768\)"):
        api_store.search(Query.vector(np.ones((2, 768))))
    assert server.requests == sent
    assert api_store.scores(Query.image(grey)).shape == (1, len(api_store))


def test_a_file_that_is_no_picture_is_named(photo_store: EmbedStore, tmp_path: Path) -> None:
    """The error says which of the queries it was."""
    (tmp_path / "notes.txt").write_text("a dog")
    with pytest.raises(ImageError, match=r"notes.txt: found 5 bytes"):
        photo_store.search(str(tmp_path / "notes.txt"))


def test_a_text_without_a_known_word_is_named_once(store: EmbedStore, caplog: pytest.LogCaptureFixture) -> None:
    """Also when its vector was kept; a known word among others and the nonsense of `noise_floor` are silent."""
    for text in ("a bird", "dachshund giraffe mountain", "wombats", "quux zebra"):
        store.search(text)
    noise_floor(store.reader, "a bird")
    assert not caplog.messages
    store.search("a photo of a quux zebrax")
    assert "no known word in 'a photo of a quux zebrax'" in caplog.text
    caplog.clear()
    store.count("a photo of a quux zebrax", 0.3)
    assert not caplog.messages
    again = EmbedStore.open(store.path)
    again.search(Query.parse("bird - quuxy + zebrax"))
    assert "no known word in 'quuxy' and 1 more texts" in caplog.text
