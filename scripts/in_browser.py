"""A store that `embedstore serve` serves in a process of its own, and Chromium before it: for tests and measures."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, sync_playwright

from embedstore.page.app import unpacked
from embedstore.store import EmbedStore

CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
_ADDRESS = re.compile(r"http://\S+#\S+")


def find_chromium() -> str | None:
    """Return where Chromium is, or None where there is none on the PATH."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextmanager
def chromium(path: str, *words: str) -> Iterator[Browser]:
    """Open Chromium without a screen; it looks up no name but 127.0.0.1, so that whatever asks for another fails."""
    closed = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        launch = playwright.chromium.launch
        browser = launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", closed, *words])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Served:
    """`embedstore serve`, running in a process of its own."""

    path: Path
    """The store's folder."""
    address: str
    """As it was printed, with the token in the fragment."""
    log: Path
    process: int

    @property
    def store(self) -> EmbedStore:
        """The store, opened anew: with all that the server has written."""
        return EmbedStore.open(self.path)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def token(self) -> str:
        """What a caller of the API has to know."""
        return urlsplit(self.address).fragment.removeprefix("token=")

    def call(self, name: str, **args: Any) -> dict[str, Any]:
        """Ask the API; return the JSON of the answer, without the buffers that may follow it."""
        request = urllib.request.Request(
            f"{self.origin}/api/v1/{name}",
            json.dumps(args).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
            has_buffers = answer.headers.get_content_type() == "application/octet-stream"
        found: dict[str, Any] = unpacked(body)[0] if has_buffers else json.loads(body)
        return found


@contextmanager
def serving(path: Path, log: Path, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """Serve a store until the block ends; then the server is stopped with Ctrl-C, and must not have stumbled."""
    command = [sys.executable, "-u", "-m", "embedstore", "serve", str(path), "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield Served(path, _address(process, log), log, process.pid)
        process.send_signal(signal.SIGINT)
        ended = process.wait(30)
        said = log.read_text(errors="replace")
        if ended not in (0, 130) or "Traceback" in said:
            raise AssertionError(f"the server ended with status {ended}: {said}")
    finally:
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the server has said where it is."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if found := _ADDRESS.search(log.read_text(errors="replace")):
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"the server named no address: {log.read_text(errors='replace')}")
