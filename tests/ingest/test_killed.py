"""`kill -9` at random moments of `add`: nothing is lost, nothing doubled, and little is paid for twice.

``EMBEDSTORE_KILLS=30 pytest tests/test_killed.py -s`` kills more often than the everyday run, and prints a table.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from launcher import Launcher
from PIL import Image

from embedstore import images
from embedstore.embedders.nomic_api import NomicAPIEmbedder
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

KILLS = int(os.environ.get("EMBEDSTORE_KILLS", "6"))
WORKERS, BATCH, PICTURES = 4, 4, 48

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="killing many processes quickly takes fork")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NomicServer]:
    with NomicServer(latency=0.02) as server:
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def launcher(server: NomicServer) -> Iterator[Launcher]:
    started = Launcher({})
    yield started
    started.close()


def more_pictures(folder: Path, number: int) -> None:
    """Put further pictures into the folder, of which a quarter are copies."""
    for each in range(PICTURES):
        seed = number * 10_000 + each - each % 4 // 3
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        file = folder / f"{number:03}" / f"{each:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)


def paid(server: NomicServer) -> int:
    """Pictures that the server has computed, delivered or not."""
    counts = server.counts
    return counts.images.total() + counts.spoilt.total()


def _moment(server: NomicServer, dice: random.Random, usual: float) -> Callable[[], None]:
    """Draw a moment: anywhere in the whole run, or in the part after the first request has come."""
    requests, seconds, anywhere = server.requests, dice.uniform(0, usual), dice.random() < 0.5

    def wait() -> None:
        deadline = time.monotonic() + 5
        while not anywhere and server.requests == requests and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(seconds if anywhere else seconds / 2)

    return wait


def say(line: str) -> None:
    """Show a line with ``pytest -s``."""
    sys.stdout.write(line + "\n")


def test_killed_at_random_moments(server: NomicServer, launcher: Launcher, tmp_path: Path) -> None:
    """Each round adds pictures, kills the add at a random moment and runs it again: in the end the store is to the
    bit what one undisturbed add makes, and a kill costs at most workers x batch pictures twice."""
    dice = random.Random(2024)
    folder, path = tmp_path / "p", tmp_path / "s.store"
    words = ["add", str(path), str(folder), "--model", "nomic"]
    words += ["--workers", str(WORKERS), "--batch-size", str(BATCH), "--quiet"]
    usual = 0.0
    for number in range(2):  # the first one also makes the store
        more_pictures(folder, number)
        started = time.monotonic()
        assert launcher.run(words) == 0
        usual = time.monotonic() - started
    killed, repeats = 0, []
    for number in range(2, KILLS + 2):
        more_pictures(folder, number)
        distinct = PICTURES * 3 // 4
        before = paid(server)
        status = launcher.run(words, _moment(server, dice, usual))
        killed += status == signal.SIGKILL
        at_kill = paid(server) - before
        assert launcher.run(words) == 0
        repeats.append(paid(server) - before - distinct)
        say(f"round {number:3}: status {status}, {at_kill:3} paid at the kill, {repeats[-1]:3} paid twice")
        assert 0 <= repeats[-1] <= WORKERS * BATCH
    say(f"{killed} of {KILLS} killed in the work; an add takes {usual:.2f} s")
    say(f"paid twice: {sum(repeats)} of {paid(server)} pictures, at most {max(repeats)} a kill")
    assert killed >= KILLS // 2
    assert EmbedStore.open(path).info()["waiting_in_ledger"] == 0

    disturbed = EmbedStore.open(path)
    whole = EmbedStore.create(tmp_path / "whole.store", model="nomic")
    whole.add(folder)
    columns = ["id", "uri", "content_hash", "width", "height"]
    tables = [each.to_table(columns).sort_by("id") for each in (disturbed, whole)]
    assert tables[0].equals(tables[1])
    assert len(disturbed) == PICTURES * (KILLS + 2)
    ids = tables[0].column("id").to_pylist()
    assert np.array_equal(disturbed.vectors(ids), whole.vectors(ids))
    assert disturbed.verify(deep=True).ok
    prepare = NomicAPIEmbedder().prepare
    uris = tables[0].column("uri").to_pylist()
    expected = [server.image_vector(prepare(images.read(Path(uri)).image)) for uri in uris]
    np.testing.assert_allclose(disturbed.vectors(ids), expected, atol=1e-7)


def test_interrupted_by_ctrl_c(server: NomicServer, launcher: Launcher, tmp_path: Path) -> None:
    """Ctrl-C in the middle of an add: requests under way are waited for and stored, and nothing is paid for twice."""
    folder, path = tmp_path / "p", tmp_path / "s.store"
    words = ["add", str(path), str(folder), "--model", "nomic"]
    words += ["--workers", str(WORKERS), "--batch-size", str(BATCH), "--quiet"]
    dice = random.Random(5)
    stopped = 0
    for number in range(5):
        more_pictures(folder, number)
        status = launcher.run(words, _moment(server, dice, 0.15), by=signal.SIGINT)
        stopped += os.waitstatus_to_exitcode(status) == 130
        assert paid(server) == sum(server.counts.images.values())
        if (path / "store.json").exists():
            opened = EmbedStore.open(path)
            rows = opened.to_table(["content_hash"]).column("content_hash").to_pylist()
            assert len(set(rows) | opened.folder.ledger.paid_hashes()) == paid(server)
    assert stopped >= 2
    assert launcher.run(words) == 0
    assert len(EmbedStore.open(path)) == 5 * PICTURES
    assert set(server.counts.images.values()) == {1}
