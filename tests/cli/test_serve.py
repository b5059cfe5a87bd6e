"""`embedstore serve` as a process of its own: it says where, answers, and ends by Ctrl-C."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from embedstore.cli import main
from embedstore.store import EmbedStore


@contextmanager
def serving(store: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command, and end it; give the process and the address that its last line names."""
    command = [sys.executable, "-m", "embedstore", "serve", str(store), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith("http://"), process.communicate()
        yield process, line
    finally:
        process.kill()
        process.communicate()


def ask(url: str, call: str = "info") -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    connection.request("POST", f"/api/v1/{call}", b"{}", {"Authorization": f"Bearer {parts.fragment}"})
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.skipif(os.name == "nt", reason="a process gets no Ctrl-C of its own there")
def test_it_says_where_answers_and_ends_by_ctrl_c(photo_store: EmbedStore) -> None:
    """With status 0 and a line, also while somebody is connected."""
    with serving(photo_store.path) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        status, body = ask(url)
        assert (status, json.loads(body)["n_rows"]) == (200, len(photo_store))
        parts = urlsplit(url)
        held = socket.create_connection((str(parts.hostname), int(parts.port or 0)), 30)
        held.sendall(b"GET / HT")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert out == ""
        assert err.strip().splitlines() == ["stopped"]
        assert parts.fragment not in err
        held.close()


def test_another_host_is_said_loudly(photo_store: EmbedStore) -> None:
    """On stderr, before anybody can come."""
    with serving(photo_store.path, "--host", "0.0.0.0") as (process, url):
        assert url.startswith("http://127.0.0.1:")
        assert ask(url)[0] == 200
        process.terminate()
        _, err = process.communicate(timeout=60)
        assert "warning: 0.0.0.0 can be reached from other machines" in err


def test_a_version_can_be_served(photo_store: EmbedStore) -> None:
    """To be read."""
    with serving(photo_store.path, "--at", str(photo_store.version)) as (_, url):
        assert json.loads(ask(url)[1])["capabilities"]["refresh"] is False


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["nowhere.store"], 1, "nowhere.store"),
        (["{store}", "--port", "65536"], 2, "65536"),
        (["{store}", "--port", "x"], 2, "x"),
        (["{store}", "--host", "192.0.2.1"], 1, "--host"),
        ([], 2, "STORE"),
    ],
)
def test_what_cannot_be_served(photo_store: EmbedStore, words: list[str], status: int, said: str) -> None:
    """Is one line."""
    result = CliRunner().invoke(main, ["serve", *(word.format(store=photo_store.path) for word in words)])
    assert result.exit_code == status
    assert said in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "code", ["import embedstore", "from embedstore.cli import main; main(['--help'], standalone_mode=False)"]
)
def test_a_web_server_is_imported_by_serve_alone(code: str) -> None:
    """Neither the library nor the help of the command line needs one."""
    ask_ = (
        f"{code}\nimport sys; print([name for name in ('starlette', 'uvicorn', 'h11', 'anyio') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", ask_], capture_output=True, text=True, check=True)
    assert found.stdout.strip().splitlines()[-1] == "[]"
