"""A plug-in of 45 lines, built as a wheel and installed for real into a fresh environment, used by the command line.

The environment is a new one of `venv`. The plug-in is installed there by ``pip install``, with no index and no look at
the network, by the pip of the tests, as unpacking a second one would take seconds; embedstore and the libraries come
from the environment of the tests, by a ``.pth`` file: a copy of them would take a minute and a gigabyte, and prove
nothing more of the plug-in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedstore
from embedstore.testing import features
from embedstore.testing.wire import Refused, Reply, Request, Service

PROJECT = Path(__file__).parent / "project"


class TinyService(Service):
    """The plug-in's service: a vector of colour shares for each picture and text; it accepts one key."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.pictures = self.requests = 0

    def _answer(self, request: Request) -> Reply:
        if request.headers["Authorization"] != "Bearer tiny-secret":
            return Refused(401, "who are you?").reply
        items = request.json()["items"]
        self.requests += 1
        if request.path == "/v1/texts":
            return Reply({"embeddings": [self._text(text) for text in items]})
        self.pictures += len(items)
        pixels = [np.frombuffer(bytes.fromhex(item), np.uint8).reshape(8, 8, 3) for item in items]
        return Reply({"embeddings": [self._shares(picture) for picture in pixels]})

    @staticmethod
    def _shares(pixels: Any) -> list[float]:
        shares: list[float] = (features.image_vector(pixels)[:12] + pixels.mean() / 1e4 + 1e-3).tolist()
        return shares

    @staticmethod
    def _text(text: str) -> list[float]:
        vector: list[float] = (features.text_vector(text)[:12] + len(text) / 1e6 + 1e-3).tolist()
        return vector

    def _count(self, request: Request, reply: Reply) -> None: ...

    def _settle(self, reply: Reply, delivered: bool) -> None: ...


@pytest.fixture
def service() -> Iterator[TinyService]:
    with TinyService() as running:
        yield running


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that the plug-in's wheel was installed into."""
    folder = tmp_path_factory.mktemp("plug-in")
    shutil.copytree(PROJECT, folder / "project")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "-q"]
    pip_run([*build, "-w", str(folder), str(folder / "project")])
    [wheel] = folder.glob("embedstore_tiny-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "fresh")], check=True, timeout=120)
    fresh = folder / "fresh" / ("Scripts" if os.name == "nt" else "bin") / "python"
    asked = [str(fresh), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout.strip())
    shared = [str(Path(embedstore.__file__).parents[1]), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (site / "of_the_tests.pth").write_text("\n".join(shared) + "\n")
    before = command(fresh, "models")
    assert "tiny" not in before.stdout
    pip_run(
        [sys.executable, "-m", "pip", "--python", str(fresh), "install", "--no-deps", "--no-index", "-q", str(wheel)]
    )
    assert (site / "embedstore_tiny" / "__init__.py").exists()
    return fresh


def pip_run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def command(python: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run embedstore in the fresh environment, from no folder with a package in it."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(python), "-m", "embedstore", *map(str, words)],
        env={**kept, "EMBEDSTORE_OFFLINE": "1", **environment},
        cwd=python.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_plug_in_is_used_from_its_wheel(python: Path, service: TinyService, tmp_path: Path, pictures: Path) -> None:
    """`models` lists it, `add --model` embeds with it, `search` asks it: each picture and each text once."""
    here = {"TINY_URL": service.url, "TINY_KEY": "tiny-secret"}
    listed = command(python, "models", **here)
    assert "tiny              yes          -  colours, by a service of our own" in listed.stdout.splitlines()
    added = command(python, "add", tmp_path / "s.store", pictures, "--model", "tiny", "--batch-size", 5, **here)
    assert added.returncode == 0, added.stderr
    assert "12 embedded" in added.stdout
    assert (service.pictures, service.requests) == (12, 3)
    for _ in range(2):
        found = command(python, "search", tmp_path / "s.store", "a blue thing", "-n", 3, **here)
        assert found.returncode == 0, found.stderr
        assert len(found.stdout.splitlines()) == 3
    assert service.requests == 4, "the second time the text was kept"
    assert command(python, "add", tmp_path / "s.store", pictures, **here).returncode == 0
    assert service.requests == 4


def test_a_plug_in_has_retries_waits_and_a_budget(
    python: Path, service: TinyService, tmp_path: Path, pictures: Path
) -> None:
    """Those of every remote embedder: a failure is a line and is tried again, --max-requests ends with status 3, and
    the same command goes on."""
    here = {"TINY_URL": service.url, "TINY_KEY": "tiny-secret"}
    words = ("add", tmp_path / "s.store", pictures, "--model", "tiny", "--batch-size", 4, "--workers", 1)
    service.faults.script(["503", None, "duplicate-vectors"], path="/v1/")
    stopped = command(python, *words, "--max-requests", 4, **here)
    assert stopped.returncode == 3, stopped.stderr
    assert (
        'attempt 1 of 10: Tiny\'s service answered 503: {"detail": "Service unavailable"}; again in' in stopped.stderr
    )
    assert "1 of 4 vectors is that of another, different input" in stopped.stderr
    assert "8 pictures were paid for, 4 of 12 are left" in stopped.stdout
    assert "1 answer of the service was no sound vectors" in stopped.stdout
    assert command(python, *words, **here).returncode == 0
    refused = command(python, "search", tmp_path / "s.store", "x", **here | {"TINY_KEY": "other-secret"})
    assert refused.returncode == 1
    assert "error: the key from TINY_KEY was refused. Tiny's service answered 401" in refused.stderr
    assert "other-secret" not in refused.stderr
