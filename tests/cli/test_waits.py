"""What a person sees while a command waits for a service: the reason and the seconds, and an end in time."""

from __future__ import annotations

import itertools
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import run, run_process
from conftest import save_picture

from embedstore.settings import state_dir
from embedstore.store import EmbedStore
from embedstore.testing import Fault, NomicServer

PAUSE = r"Nomic's service answered 429: \{\"detail\": \"Rate limit exceeded\"\}; it asks to wait"


@pytest.fixture
def paused(api_store: EmbedStore, server: NomicServer) -> EmbedStore:
    """A store whose service has asked an earlier command for a pause of five minutes."""
    assert run("search", api_store.path, "a red car").exit_code == 0
    server.faults.script([Fault("429", retry_after=300)])
    refused = run("search", api_store.path, "a blue car")
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1].startswith("error: Nomic's service answered 429: ")
    assert "was given up after 1 request and 0 s, as it asks to wait 300 s" in refused.stderr
    return api_store


def test_a_stored_pause_is_said_at_once(paused: EmbedStore, server: NomicServer) -> None:
    """A search with a new text ends with the reason, the seconds left and the moment to come back; nothing is sent."""
    sent, started = server.requests, time.monotonic()
    result = run("search", paused.path, "a green car")
    assert result.exit_code == 1
    assert re.fullmatch(
        rf"error: {PAUSE}: (300|29\d) s are left, and no more than 60 s are waited here, so nothing was sent; "
        r"run the same again at \d\d:\d\d:\d\d\. What was asked before is answered now\n",
        result.stderr,
    )
    assert server.requests == sent
    assert time.monotonic() - started < 8


def test_what_was_asked_before_is_answered_in_a_pause(paused: EmbedStore, server: NomicServer) -> None:
    """From the ledger, with no request and no wait."""
    sent = server.requests
    result = run("search", paused.path, "a red car", "-n", 1)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1
    assert server.requests == sent


def test_an_add_keeps_to_its_timeout_in_a_pause(paused: EmbedStore, pictures: Path, server: NomicServer) -> None:
    """--timeout bounds the pause too; what is in the store already needs no service."""
    started = time.monotonic()
    assert run("add", paused.path, pictures, "--timeout", 2).exit_code == 0
    save_picture(pictures / "newer.png", 77)
    result = run("add", paused.path, pictures, "--timeout", 2)
    assert result.exit_code == 1
    assert re.search(rf"error: {PAUSE}: (300|29\d) s are left, and no more than 2 s", result.stderr)
    assert time.monotonic() - started < 10


def test_a_pause_is_waited_for_with_a_line(api_store: EmbedStore, server: NomicServer, tmp_path: Path) -> None:
    """A wait is a line with reason and seconds on stderr, and none with -q; the answer comes all the same."""
    words = ("search", api_store.path, "-n", 1)
    server.faults.script([Fault("429", retry_after=2.2)])
    result = run(*words, "a new text")
    assert result.exit_code == 0
    done = run_process(*words, "a newer text")
    assert done.returncode == 0
    lines = ["again in 2.2 s", "Rate limit exceeded"]
    server.faults.script([Fault("429", retry_after=2.2)])
    done = run_process(*words, "another text")
    assert all(line in done.stderr for line in lines)
    assert len(done.stderr.splitlines()) == 2, "the wait, and how many images"
    server.faults.script([Fault("429", retry_after=2.2)])
    done = run_process(*words, "yet another text", "-q")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pause_of_another_process_is_said(api_store: EmbedStore, server: NomicServer) -> None:
    """Who comes while another waits hears why."""
    from embedstore.embedders.rate_limit import shared_limiter

    shared_limiter(server.url).block(12.0, "Nomic's service answered 503; it asks to wait")
    assert list(state_dir().glob("*.json"))
    done = run_process("search", api_store.path, "something", "-n", 1)
    assert done.returncode == 0
    assert re.search(r"^waiting \d+ s: Nomic's service answered 503; it asks to wait$", done.stderr, re.M)


def test_a_dead_service_is_said_soon_and_first(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: the first word is why, three lines at most follow, and it ends within seconds."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    started = time.monotonic()
    done = run_process("add", tmp_path / "n.store", pictures, "--model", "nomic", ATLAS_API_PATH=address,
                       NOMIC_API_KEY="nk-x")  # fmt: skip
    assert time.monotonic() - started < 25
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert all("the connection failed (Connection refused)" in line for line in lines)
    assert lines[-1].startswith(f"error: {address.removeprefix('http://')}: the connection failed")
    assert 3 <= len(lines) <= 5


def test_a_key_beside_an_enterprise_login(server: NomicServer, tmp_path: Path, pictures: Path) -> None:
    """Refused with both named and nothing sent; --domain says whose it is, and the address may be given whole."""
    environment = server.environment(tmp_path / "e", domain="acme.example")
    address = environment.pop("ATLAS_API_PATH")
    environment |= {"NOMIC_API_KEY": server.key, "EMBEDSTORE_OFFLINE": "1", "ATLAS_API_PATH": ""}
    words = ("add", tmp_path / "e.store", pictures, "--model", "nomic")
    refused = run_process(*words, **environment)
    assert refused.returncode == 1
    for name in ("api-atlas.nomic.ai", "api.acme.example", "--domain acme.example", "ATLAS_API_PATH"):
        assert name in refused.stderr
    switched_off = run_process(*words, "--domain", "acme.example", **environment)
    assert "needs the network, which is switched off" in switched_off.stderr, "it is known where it goes"
    done = run_process(*words, **environment | {"ATLAS_API_PATH": address})
    assert done.returncode == 0, done.stderr
    assert server.images == 12


# --- two processes, one key -----------------------------------------------------------------------------------


class Watched:
    """A command in a process of its own, and the moments of its lines on stderr."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "embedstore", *map(str, words)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line))

    def wait(self, seconds: float) -> int:
        status = self.process.wait(seconds)
        self._reader.join()
        return status


def test_two_processes_keep_one_limit_and_are_never_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two adds with one key under a limit of 24 requests in 12 s: the service, which counts itself, refuses none; each
    goes on all the time, and says every few seconds why it is slow. Requests may be half a second on their way."""
    with NomicServer(rate_limit=(24, 11.5)) as server:
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("EMBEDSTORE_RATE_LIMIT", "24/12")
        started = time.monotonic()
        for number in range(60):
            save_picture(tmp_path / "ab"[number % 2] / f"{number}.png", number)
        options = ("--model", "nomic", "--batch-size", 1, "--workers", 2)
        both = [Watched("add", tmp_path / f"{name}.store", tmp_path / name, *options) for name in "ab"]
        assert [each.wait(120) for each in both] == [0, 0]
        seconds = time.monotonic() - started
        assert 429 not in server.counts.statuses
        assert server.requests == 60
        assert seconds > 12, "the limit did hold them back"
        for each in both:
            moments = [moment for moment, line in each.lines if line.startswith("waiting ")]
            assert len(moments) >= 2
            assert max(after - before for before, after in itertools.pairwise(moments)) < 10
            waits: list[Any] = [line for _, line in each.lines if line.startswith("waiting ")]
            assert all("Nomic's service takes 24 requests in 12 s, all processes" in line for line in waits)
