"""What many tests need: small pictures, and a store of them made with the bundled model."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from s3_server import S3Server
from tiny_models import write_tiny_models

from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

if TYPE_CHECKING:
    from ray_nodes import Nodes

# How long an example takes says more of the machine than of the code.
settings.register_profile("embedstore", deadline=None)
settings.load_profile("embedstore")

# A shell that runs the tests in the background has Ctrl-C ignored, also by whatever they start; some tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
pytest_plugins = ["many_parts"]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is made for many tests does not reach the vectors of the person who runs them either."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("EMBEDSTORE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new path for each test; `mktemp` looks through all folders of the earlier thousands for the next number."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, homes: Iterator[Path]) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith(("EMBEDSTORE_", "AWS_")) and name != "EMBEDSTORE_OFFLINE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("NOMIC_API_KEY", "NOMIC_DOMAIN", "ATLAS_API_PATH"):
        monkeypatch.delenv(name, raising=False)
    home = next(homes)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("EMBEDSTORE_STATE_DIR", str(home / "state"))
    monkeypatch.setenv("EMBEDSTORE_CACHE_DIR", str(home / "cache"))


def save_picture(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    """Write a picture of smooth colour blobs that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 12 pictures in two class folders."""
    folder = tmp_path / "pictures"
    for number in range(12):
        save_picture(folder / ("cat" if number % 3 == 0 else "dog") / f"{number:02}.png", number)
    return folder


@pytest.fixture
def store(tmp_path: Path, pictures: Path) -> EmbedStore:
    """A store of `pictures`, with their folders as labels."""
    made = EmbedStore.create(tmp_path / "s.store", model="objects")
    made.add(pictures, label_from_folder=True)
    return made


@pytest.fixture(scope="session")
def photo_store(tmp_path_factory: pytest.TempPathFactory) -> EmbedStore:
    """A store of the sample photographs; tests only read it."""
    made = EmbedStore.create(tmp_path_factory.mktemp("photos") / "photos.store", model="objects")
    made.add(PHOTOS)
    return made


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NomicServer]:
    """A stand-in of Nomic's service that this process, and those it starts, are led to."""
    with NomicServer() as running:
        for name, value in running.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with small graphs of the interface of Nomic's models."""
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path / "weights"))
    return write_tiny_models(tmp_path / "weights")


@pytest.fixture
def api_store(server: NomicServer, tmp_path: Path, pictures: Path) -> EmbedStore:
    """A store of `pictures`, embedded by the stand-in."""
    made = EmbedStore.create(tmp_path / "s.store", model="nomic")
    made.add(pictures)
    return made


_cluster = contextlib.ExitStack()


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two Ray nodes in processes of their own, which this process is connected to; once, as their start takes long."""
    from ray_nodes import Nodes

    from embedstore.cluster import ray_executor

    with _cluster:
        patched = _cluster.enter_context(pytest.MonkeyPatch.context())
        running = _cluster.enter_context(Nodes())
        patched.setenv("RAY_AUTH_MODE", "token")
        patched.setenv("RAY_AUTH_TOKEN", running.token)
        import ray

        _cluster.callback(ray.shutdown)
        with pytest.MonkeyPatch.context() as elsewhere:
            # Ray lets workers import from the driver's folder.
            elsewhere.chdir(tmp_path_factory.mktemp("elsewhere"))
            ray_executor.RayExecutor(running.address)
        yield running


def on_cluster(item: pytest.Item | None) -> bool:
    return item is not None and "nodes" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests on a cluster be first: of several processes the first gets them all, and starts the only one."""
    items.sort(key=lambda item: not on_cluster(item))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the cluster with the last test that needs it: idle, its many processes take time from the other tests."""
    if on_cluster(item) and not on_cluster(nextitem):
        _cluster.close()


@pytest.fixture(scope="session")
def s3_service() -> Iterator[S3Server]:
    """An S3 service on this machine, for all tests of a process."""
    with S3Server() as running:
        yield running


@pytest.fixture
def s3(s3_service: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The S3 service, to which this process, and those it starts, are led; `s3.bucket()` makes a bucket."""
    for name, value in s3_service.environment().items():
        monkeypatch.setenv(name, value)
    s3_service.reset()
    yield s3_service
    s3_service.reset()
