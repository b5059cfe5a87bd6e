"""Several adds at once, and a disk that fills up meanwhile: each picture is paid for once, whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedstore import images
from embedstore.embedders.nomic_api import NomicAPIEmbedder
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NomicServer]:
    with NomicServer(latency=0.05) as server:
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        yield server


def tiny_pictures(folder: Path, number: int) -> Path:
    """A folder of so many different pictures of 8 x 8 pixels."""
    folder.mkdir()
    for each in range(number):
        pixels = np.random.default_rng(each).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{each:03}.png")
    return folder


def start(store: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start `embedstore add` in a process of its own."""
    words = [sys.executable, "-m", "embedstore", "add", str(store), str(folder), "--batch-size", "8", *options]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def require_right(store: EmbedStore, server: NomicServer, number: int) -> None:
    """One row for each picture, with its own vector, and each paid for once."""
    assert len(store) == number
    table = store.to_table(["id", "uri"])
    prepare = NomicAPIEmbedder().prepare
    uris = table.column("uri").to_pylist()
    expected = [server.image_vector(prepare(images.read(Path(uri)).image)) for uri in uris]
    np.testing.assert_allclose(store.vectors(table.column("id").to_pylist()), expected, atol=1e-7)
    assert store.verify(deep=True).ok


@pytest.mark.parametrize("first", [True, False])
def test_two_adds_of_the_same_pictures_pay_once(server: NomicServer, tmp_path: Path, first: bool) -> None:
    """Two adds of the same 300 pictures at once, also into no store yet: 300 are paid for, and both end well."""
    folder, path = tiny_pictures(tmp_path / "p", 300), tmp_path / "s.store"
    if not first:
        EmbedStore.create(path, model="nomic")
    both = [start(path, folder, "--workers", "2", "--model", "nomic") for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert (server.images, set(server.counts.images.values())) == (300, {1})
    require_right(EmbedStore.open(path), server, 300)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="killing is not to be had on this system")
def test_claims_of_a_killed_add_are_taken_over(server: NomicServer, tmp_path: Path) -> None:
    """One of two adds is killed while it pays: the other one waits no longer than that, and does the rest."""
    folder, path = tiny_pictures(tmp_path / "p", 120), tmp_path / "s.store"
    EmbedStore.create(path, model="nomic")
    first = start(path, folder, "--workers", "2")
    until = time.monotonic() + 30
    while server.images < 16 and time.monotonic() < until:
        time.sleep(0.005)
    second = start(path, folder, "--workers", "2")
    while server.images < 48 and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert second.wait(60) == 0
    assert 120 <= server.images <= 120 + 2 * 8
    require_right(EmbedStore.open(path), server, 120)


def test_what_another_process_embeds_is_waited_for_and_said(server: NomicServer, tmp_path: Path) -> None:
    """An add whose pictures are all claimed by a living run says so on one line, and takes the vectors that come."""
    folder, path = tiny_pictures(tmp_path / "p", 8), tmp_path / "s.store"
    store = EmbedStore.create(path, model="nomic")
    hashes = [images.content_hash(file) for file in sorted(folder.iterdir())]
    with store.folder.running.begun() as run:
        assert len(store.folder.ledger.claim(run, hashes, store.folder.running.is_alive)) == 8
        waiting = start(path, folder)
        time.sleep(3)
        assert waiting.poll() is None
        assert server.images == 0
        store.folder.ledger.release(run)
    _, said = waiting.communicate(timeout=30)
    assert said.count("8 pictures are being embedded by another process: waiting") == 1
    require_right(EmbedStore.open(path), server, 8)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_costs_nothing(server: NomicServer, small_disk: Path, tmp_path: Path) -> None:
    """The disk is filled to the last byte while requests are under way: the add ends with an error, their answers are
    kept all the same, and once there is room the same command goes on without paying for a picture twice."""
    folder, path = tiny_pictures(tmp_path / "p", 120), small_disk / "s.store"
    EmbedStore.create(path, model="nomic")
    adding = start(path, folder, "--workers", "4")
    until = time.monotonic() + 30
    while server.images < 24 and time.monotonic() < until:
        time.sleep(0.005)
    with (small_disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        # No more than was free: what the add lets go when it meets the full disk is its own.
        for _ in range(shutil.disk_usage(small_disk).free // 4096):
            filler.write(bytes(4096))
    _, said = adding.communicate(timeout=60)
    assert adding.returncode == 1
    assert "error: " in said
    assert "the disk is full; free some space" in said
    assert "Traceback" not in said
    paid = server.images
    assert 24 <= paid < 120
    store = EmbedStore.open(path)
    assert len(store) + sum(store.folder.ledger.waiting().values()) == paid
    (small_disk / "filler").unlink()
    assert start(path, folder).wait(60) == 0
    assert (server.images, set(server.counts.images.values())) == (120, {1})
    require_right(EmbedStore.open(path), server, 120)
