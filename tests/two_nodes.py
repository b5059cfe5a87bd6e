"""Two Ray nodes in processes of their own, and a store of many parts: fixtures for the tests in `cluster/`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ray_nodes import Nodes

    from embedstore.store import EmbedStore


@pytest.fixture(scope="session")
def started_nodes() -> Iterator[Nodes]:
    """Start the nodes once, for all modules."""
    if importlib.util.find_spec("ray") is None and os.environ.get("EMBEDSTORE_NEEDS_RAY") != "1":
        pytest.skip('Ray is not installed: pip install "embedstore[ray]"')
    from ray_nodes import Nodes

    with Nodes() as running:
        yield running


@pytest.fixture(scope="module")
def nodes(started_nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Connect this process to the nodes, until the module's tests have run."""
    from embedstore.cluster import ray_executor

    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("elsewhere"))  # Ray lets workers import from the driver's folder
        patched.setenv("RAY_AUTH_MODE", "token")
        patched.setenv("RAY_AUTH_TOKEN", started_nodes.token)
        # So that this small store makes many bundles.
        patched.setattr(ray_executor, "LEAST_BYTES", 1)
        import ray

        try:
            ray_executor.RayExecutor(started_nodes.address)
            yield started_nodes
        finally:
            ray.shutdown()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a store of 210 parts is, which tests only read."""
    from many_parts import made

    return made(tmp_path_factory.mktemp("shared") / "s.store").path


@pytest.fixture
def here(path: Path) -> EmbedStore:
    """The store, read by this process."""
    from embedstore.store import EmbedStore

    return EmbedStore.open(path)


@pytest.fixture
def there(path: Path, nodes: Nodes) -> EmbedStore:
    """The store, read by the nodes."""
    from embedstore.store import EmbedStore

    return EmbedStore.open(path, executor=f"ray:{nodes.address}")
