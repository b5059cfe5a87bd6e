"""Starts `embedstore` commands, in processes that can be killed within milliseconds: see `forked_add`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


class Launcher:
    """Starts `embedstore` commands that can be killed, one after the other, with variables of the environment."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "forked_add.py")],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *words: object) -> int:
        """Start a command, and return the number of its process."""
        assert self._process.stdout is not None
        self._say(json.dumps([str(word) for word in words]))
        return int(self._process.stdout.readline())

    def end(self) -> int:
        """Wait for the end of what was started last, and return its wait status."""
        assert self._process.stdout is not None
        self._say("")
        return int(self._process.stdout.readline())

    def run(
        self, words: list[str], moment: Callable[[], None] | None = None, by: signal.Signals = signal.SIGKILL
    ) -> int:
        """Run a command; send it a signal when `moment` returns, if it has not ended; return its wait status."""
        pid = self.start(*words)
        if moment is not None:
            moment()
            os.kill(pid, by)
        return self.end()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
