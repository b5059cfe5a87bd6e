"""`embedstore models`, `queries` and `compare-backends`; one backend's queries on another backend's store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import save_picture
from tiny_models import write_tiny_models

from embedstore import backends, images
from embedstore.cli import main
from embedstore.embedders.nomic_api import NomicAPIEmbedder
from embedstore.embedders.nomic_local import NomicLocalEmbedder
from embedstore.errors import InputError, SpaceMismatchError
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer


def run(*words: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=stdin, catch_exceptions=False)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with small graphs of the interface of Nomic's models."""
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path / "weights"))
    return write_tiny_models(tmp_path / "weights")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NomicServer]:
    with NomicServer() as server:
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        yield server


# --- models ---------------------------------------------------------------------------------------------------


def test_models_lists_what_is_here(weights: Path) -> None:
    """The list names every model with its backend, and the bytes of weights that are on this machine."""
    listed = {row["name"]: row for row in json.loads(run("models", "--json").stdout)["models"]}
    assert set(listed) == {"nomic", "nomic-local", "nomic-local-q", "objects"}
    local = listed["nomic-local"]
    on_disk = sum(
        file.stat().st_size for file in weights.rglob("*") if file.name != "config.json" and file.is_file()
    )
    refs = sum(file.stat().st_size for file in weights.rglob("refs/main"))
    assert (local["ready"], local["backend"], local["size_bytes"]) == (True, "fastembed", on_disk - refs)
    assert not listed["nomic"]["ready"]
    text = run("models").stdout
    assert "nomic needs a key" in text
    assert "nomic-local needs" not in text


def test_pull_keeps_what_is_here_and_says_where(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulling weights that are here needs no network; what is not here is refused offline; an unknown name helps."""
    for name in ("EMBEDSTORE_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    here = run("models", "pull", "nomic-local")
    assert here.exit_code == 0
    assert f"in {weights}" in here.stdout
    assert "nothing to download" in run("models", "pull", "objects").stdout
    missing = run("models", "pull", "nomic-local-q")
    assert missing.exit_code == 1
    assert "needs the network" in missing.stderr
    unknown = run("models", "pull", "nomic-locale")
    assert unknown.exit_code == 1
    assert "Did you mean 'nomic-local'" in unknown.stderr


# --- queries --------------------------------------------------------------------------------------------------


def test_a_file_of_queries_is_one_request_for_ten(server: NomicServer, tmp_path: Path) -> None:
    """25 lines under a template are three requests; again they are none, and searching for them needs no service."""
    path = tmp_path / "s.store"
    folder = save_picture(tmp_path / "p" / "one.png", 1).parent
    assert run("add", path, folder, "--model", "nomic").exit_code == 0
    before = server.requests
    (tmp_path / "words.txt").write_text("\n".join(f"thing {number}" for number in range(25)) + "\n\n  \n")
    words = ("queries", path, tmp_path / "words.txt", "--template", "a photo of a {}", "--json")
    assert json.loads(run(*words).stdout) == {"queries": 25, "embedded": 25, "cached_queries": 25}
    assert (server.requests - before, server.texts) == (3, 25)
    assert set(server.counts.texts) == {f"a photo of a thing {number}" for number in range(25)}
    assert json.loads(run(*words).stdout) == {"queries": 25, "embedded": 0, "cached_queries": 25}
    assert server.requests - before == 3
    server.__exit__(None, None, None)
    assert run("search", path, "a photo of a thing 7").exit_code == 0


def test_queries_come_from_stdin_and_with_several_templates(store: EmbedStore) -> None:
    """Each line is embedded under each template, and equal sentences once; an empty file is wrong usage."""
    words = ("queries", store.path, "-", "--template", "a {}", "--template", "a photo of a {}", "--json")
    done = json.loads(run(*words, stdin="dog\ncat\ndog\n").stdout)
    assert (done["queries"], done["embedded"]) == (4, 4)
    assert run("queries", store.path, "-", stdin="\n\n").exit_code == 2
    bad = run("queries", store.path, "-", "--template", "no slot", stdin="dog")
    assert bad.exit_code == 1
    assert "exactly once" in bad.stderr


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


# --- two backends of one model --------------------------------------------------------------------------------


def api_store(path: Path, pictures: Path) -> EmbedStore:
    made = EmbedStore.create(path, model="nomic")
    made.add(pictures)
    return made


def test_the_comparison_is_the_plain_formula(
    server: NomicServer, weights: Path, tmp_path: Path, pictures: Path
) -> None:
    """Gaps, shifts, thresholds and flips are those that float64 and the definition give, picture by picture."""
    made = api_store(tmp_path / "s.store", pictures)
    second = NomicLocalEmbedder()
    sent = server.images
    queries = ["a red car", "a white ball"]
    found = backends.of_store(made, second, sample=10, queries=queries)
    assert server.images == sent
    assert found.gaps.shape == (10,)
    api = NomicAPIEmbedder()
    chosen = sorted(np.random.default_rng(0).permutation(12)[:10])
    uris = [made.to_table(["uri"]).column("uri")[int(place)].as_py() for place in chosen]
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
    for scores, limit in zip(
        (found.first_scores, found.second_scores, found.mixed_scores), limits.T, strict=True
    ):
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


def test_compare_backends_on_the_command_line(
    server: NomicServer, weights: Path, tmp_path: Path, pictures: Path
) -> None:
    """For a store the other backend is found by itself; for a folder both embed; the text names both spaces."""
    made = api_store(tmp_path / "s.store", pictures)
    about = json.loads(run("compare-backends", made.path, "--sample", 8, "--json").stdout)
    assert (about["pictures"], about["first"]["backend"], about["second"]["backend"]) == (
        8,
        "nomic-api",
        "fastembed",
    )
    assert 0 < about["cosine_gap"]["p50"] <= about["cosine_gap"]["p100"] < 2
    sent = server.images
    text = run("compare-backends", pictures, "--sample", 12, "--query", "a red ball").stdout
    assert server.images == sent + 12
    assert "nomic-api" in text
    assert "fastembed" in text
    assert "12 pictures, 1 queries" in text
    assert "top" in text


def test_what_cannot_be_compared_is_refused(store: EmbedStore, weights: Path, tmp_path: Path) -> None:
    """Two models are no two backends; a store whose pictures are gone says so."""
    with pytest.raises(SpaceMismatchError):
        backends.of_store(store, NomicLocalEmbedder())
    gone = EmbedStore.create(tmp_path / "g.store", embedder=NomicLocalEmbedder())
    gone.add([np.full((9, 9, 3), value, np.uint8) for value in (1, 2, 3)])
    with pytest.raises(InputError, match="0 of 3 pictures can be read"):
        backends.of_store(gone, NomicLocalEmbedder())
    assert run("compare-backends", store.path).exit_code == 2


def test_another_backend_asks_only_where_that_is_allowed(
    server: NomicServer, weights: Path, tmp_path: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A store of the service, opened with the local model, is refused; when allowed, the query's vector is the local
    model's, kept under its own name, and a query that the service had made stays the service's."""
    made = api_store(tmp_path / "s.store", pictures)
    kept = made.query_vectors(["asked before"])
    local = NomicLocalEmbedder()
    with pytest.raises(SpaceMismatchError, match=r"differ in backend.*--allow-mixed-backend"):
        EmbedStore.open(made.path, embedder=local)
    mixed = EmbedStore.open(made.path, embedder=local, allow_mixed_backend=True)
    np.testing.assert_allclose(
        mixed.query_vectors(["a red car"]), local.embed_texts(["a red car"]), atol=1e-6
    )
    assert "decisions near a threshold" in caplog.text
    assert np.array_equal(mixed.query_vectors(["asked before"]), kept)
    sent = server.texts
    own = EmbedStore.open(made.path)
    np.testing.assert_allclose(
        own.query_vectors(["a red car"])[0], server.text_vector("a red car"), atol=1e-6
    )
    assert server.texts == sent + 1
    again = EmbedStore.open(made.path, embedder=local, allow_mixed_backend=True)
    assert np.array_equal(again.query_vectors(["a red car"]), own.query_vectors(["a red car"]))
    save_picture(pictures / "new.png", 77)
    with pytest.raises(SpaceMismatchError):
        mixed.add(pictures)
    other = EmbedStore.create(tmp_path / "o.store", model="objects")
    with pytest.raises(SpaceMismatchError, match="mean nothing"):
        EmbedStore.open(other.path, embedder=local, allow_mixed_backend=True)


def test_without_a_key_the_command_line_asks_the_local_model(
    server: NomicServer, weights: Path, tmp_path: Path, pictures: Path
) -> None:
    """With --allow-mixed-backend a store of the service is searched without a key, and a warning says so."""
    made = api_store(tmp_path / "s.store", pictures)
    (tmp_path / "home" / ".nomic" / "credentials").unlink()
    words = [sys.executable, "-m", "embedstore"]
    search = ["search", str(made.path), "a red car", "-n", "1"]
    refused = subprocess.run([*words, *search], capture_output=True, text=True, env=dict(os.environ))
    assert refused.returncode == 1
    assert "no Nomic API key" in refused.stderr
    allowed = subprocess.run(
        [*words, "--allow-mixed-backend", *search], capture_output=True, text=True, env=dict(os.environ)
    )
    assert allowed.returncode == 0, allowed.stderr
    assert "queries are embedded by nomic-embed-v1.5 (fastembed" in allowed.stderr
