"""A store at s3://, read by two Ray nodes: the answers of this process, and keys that stay where they are."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray_nodes import Nodes
from s3_server import KEY, SECRET, S3Server

from embedstore.errors import BucketError
from embedstore.store import EmbedStore

if importlib.util.find_spec("ray") is None and os.environ.get("EMBEDSTORE_NEEDS_RAY") != "1":
    pytest.skip('Ray is not installed: pip install "embedstore[ray]"', allow_module_level=True)


def test_nodes_read_what_lies_here_and_get_no_key(
    nodes: Nodes, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have none in their environment: cached parts are read, others are an error that names what to set there."""
    for name in ("DATA", "CACHE"):
        monkeypatch.setenv(f"EMBEDSTORE_{name}_DIR", str(tmp_path / name))
    url = f"{s3.bucket()}/cats.store"
    store = EmbedStore.create(url, space="mine", dim=8)
    rng = np.random.default_rng(5)
    for number in range(3):
        vectors = rng.standard_normal((40, 8), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ids = [f"{number}-{row}" for row in range(40)]
        pq.write_table(pa.table({"id": ids, "v": vectors.tolist()}), tmp_path / f"{number}.parquet")
        store.add(tmp_path / f"{number}.parquet", embedding_column="v", progress=False)
    query = vectors[0]
    there = EmbedStore.open(url, executor="ray")
    here, found = store.classify(query, 0.2), there.classify(query, 0.2)
    assert (list(found.id), np.asarray(found.score).tobytes()) == (list(here.id), np.asarray(here.score).tobytes())
    for part in there.folder.images.path.glob("*.parquet"):
        part.unlink()
    with pytest.raises(BucketError, match="set AWS_ACCESS_KEY_ID"):
        EmbedStore.open(url, executor="ray").classify(query, 0.2)
    for secret in (KEY, SECRET):
        assert subprocess.run(["grep", "-rqaF", secret, nodes._folder], check=False).returncode == 1
    shutil.rmtree(tmp_path / "CACHE")
    assert list(EmbedStore.open(url).classify(query, 0.2).id) == list(here.id)
