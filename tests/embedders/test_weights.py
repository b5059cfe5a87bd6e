"""Weights: the commit that is asked for, the checksums that are compared, and what becomes of a file that differs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub import COMMIT, Hub
from tiny_clips import SIGLIP2, write_tiny_clip
from tiny_models import snapshot_folder

from embedstore.embedders import registry, weights
from embedstore.embedders.clip_models import ClipEmbedder, Siglip2Embedder
from embedstore.errors import EmbedderError, ServiceError

PULL = """
import sys
from embedstore.embedders import weights
from embedstore.embedders.clip_models import Siglip2Embedder
known = dict(weights.KNOWN)
weights.KNOWN.clear()  # of the real files
weights.KNOWN.update({key: sys.argv[2] for key in known if sys.argv[2:] and key[1] == "tokenizer.json"})
Siglip2Embedder.weights(sys.argv[1]).pull(progress=False)
print(Siglip2Embedder(cache_dir=sys.argv[1]).embed_texts(["cat"]).shape)
"""


def pull(folder: Path, endpoint: str, *known: str) -> subprocess.CompletedProcess[str]:
    """Pull into `folder` in a process of its own: the hub's client reads its address once, when imported."""
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and "OFFLINE" not in key}
    return subprocess.run(
        [sys.executable, "-c", PULL, str(folder), *known],
        env={**kept, "HF_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The files of SigLIP 2's repository, small."""
    write_tiny_clip(tmp_path / "made", "siglip2")
    shutil.copytree(snapshot_folder(tmp_path / "made", SIGLIP2), tmp_path / "hub")
    return tmp_path / "hub"


def record(cache: Path) -> Path:
    [path] = cache.rglob("embedstore-*.json")
    return path


def test_a_pull_asks_for_one_commit_and_writes_checksums_down(repository: Path, tmp_path: Path) -> None:
    """The commit is the pinned one, not the newest; each file that is used is written down with its checksums."""
    with Hub({SIGLIP2: repository}) as hub:
        done = pull(tmp_path / "cache", hub.url)
        assert done.stdout.strip() == "(1, 768)", done.stderr
        asked = {path for _, path in hub.requests if "/revision/" in path or "/resolve/" in path}
    assert asked
    assert all(Siglip2Embedder.pictures.revision in path or COMMIT in path for path in asked)
    assert not any("/main" in path for path in asked)
    noted = json.loads(record(tmp_path / "cache").read_text())
    assert (noted["repo"], noted["revision"]) == (SIGLIP2, COMMIT)
    files = {*Siglip2Embedder.pictures.files, *Siglip2Embedder.texts.files}
    assert noted["files"].keys() == files
    for name in files:
        content = (repository / name).read_bytes()
        assert noted["files"][name]["sha256"] == hashlib.sha256(content).hexdigest()
        assert noted["files"][name]["size"] == len(content)
    assert Siglip2Embedder.weights(tmp_path / "cache").revisions() == {SIGLIP2: COMMIT}


def test_a_file_that_is_not_what_is_known_is_refused(repository: Path, tmp_path: Path) -> None:
    """A tokenizer with another SHA-256 than this version knows, at the pinned commit, is an error that has both."""
    with Hub({SIGLIP2: repository}) as hub:
        # The stand-in's commit has another name than the pinned one: what is fetched counts as the newest then.
        assert pull(tmp_path / "free", hub.url, "0" * 64).returncode == 0
    pinned = tmp_path / "pinned" / ("models--" + SIGLIP2.replace("/", "--")) / "snapshots"
    shutil.copytree(repository, pinned / Siglip2Embedder.texts.revision)
    with pytest.raises(ServiceError, match=r"SHA-256 [0-9a-f]{64}, and [0-9a-f]{64} was expected"):
        Siglip2Embedder.weights(tmp_path / "pinned").pull()
    assert not list((tmp_path / "pinned").rglob("embedstore-*.json"))


def test_a_file_that_is_not_what_the_hub_says_is_refused(repository: Path, tmp_path: Path) -> None:
    """The hub's client keeps a large file under its SHA-256: one whose bytes are others is refused at the pull."""
    cache = tmp_path / "cache"
    folder = snapshot_folder(cache, SIGLIP2)
    shutil.copytree(repository, folder, dirs_exist_ok=True)
    graph = folder / "onnx" / "vision_model.onnx"
    blob = folder.parents[1] / "blobs" / hashlib.sha256(b"another file").hexdigest()
    blob.parent.mkdir()
    graph.rename(blob)
    graph.symlink_to(blob)
    with pytest.raises(ServiceError, match=r"onnx/vision_model\.onnx of .* has the SHA-256"):
        Siglip2Embedder.weights(cache).pull()


def test_what_changed_since_the_pull_is_refused_at_the_load(repository: Path, tmp_path: Path) -> None:
    """A graph that is replaced by another sound one, and one with a flipped bit: neither is used."""
    cache = tmp_path / "cache"
    shutil.copytree(repository, snapshot_folder(cache, SIGLIP2), dirs_exist_ok=True)
    graph = snapshot_folder(cache, SIGLIP2) / "onnx" / "text_model.onnx"
    Siglip2Embedder.weights(cache).pull()
    assert Siglip2Embedder(cache).embed_texts(["cat"]).shape == (1, 768)
    before = graph.read_bytes()
    write_tiny_clip(tmp_path / "other", "siglip2", seed=9)
    other = (snapshot_folder(tmp_path / "other", SIGLIP2) / "onnx" / "text_model.onnx").read_bytes()
    flipped = bytearray(before)
    flipped[len(before) // 2] ^= 1
    for content in (other, bytes(flipped)):
        graph.write_bytes(content)
        with pytest.raises(EmbedderError, match=r"onnx/text_model\.onnx of .* is not the file that was fetched.*pull"):
            Siglip2Embedder(cache).embed_texts(["cat"])
    graph.write_bytes(before)
    assert Siglip2Embedder(cache).embed_texts(["cat"]).shape == (1, 768)


def test_weights_that_others_fetched_are_used_and_noted_at_the_pull(
    repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """fastembed's own download works without a pull; a pull then writes its checksums down with no network. A record
    that cannot be read is said."""
    cache = tmp_path / "cache"
    shutil.copytree(repository, snapshot_folder(cache, SIGLIP2), dirs_exist_ok=True)
    assert Siglip2Embedder(cache).embed_texts(["cat"]).shape == (1, 768)
    assert not list(cache.rglob("embedstore-*.json"))
    Siglip2Embedder.weights(cache).pull()
    record(cache).write_text("{")
    with caplog.at_level(logging.WARNING):
        assert Siglip2Embedder(cache).embed_texts(["cat"]).shape == (1, 768)
    assert "cannot be read" in caplog.text


def test_the_pinned_commit_comes_before_the_newest(repository: Path, tmp_path: Path) -> None:
    """Where both are here."""
    cache = tmp_path / "cache"
    newest = snapshot_folder(cache, SIGLIP2)
    shutil.copytree(repository, newest, dirs_exist_ok=True)
    found = Siglip2Embedder.weights(cache)
    assert found.find(Siglip2Embedder.texts) == newest
    pinned = newest.parent / Siglip2Embedder.texts.revision
    shutil.copytree(repository, pinned)
    assert found.find(Siglip2Embedder.texts) == pinned


def test_every_local_model_is_pinned() -> None:
    """To a commit, 40 hex digits; and what is known of files is a SHA-256 of one that some model uses."""
    used = set()
    for name in registry.MODELS:
        maker = registry._maker(name)
        for tower in (getattr(maker, "pictures", None), getattr(maker, "texts", None)):
            if tower is not None:
                assert len(tower.revision) == 40
                assert set(tower.revision) <= set("0123456789abcdef")
                used |= {(tower.repo, file) for file in tower.files}
    assert weights.KNOWN.keys() <= used
    assert all(len(checksum) == 64 for checksum in weights.KNOWN.values())
    assert (ClipEmbedder.texts.repo, "model.onnx") in weights.KNOWN
