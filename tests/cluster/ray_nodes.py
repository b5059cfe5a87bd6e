"""Nodes of a Ray cluster on this machine, each with processes of its own, on loopback; all end with the context."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_MARK = "EMBEDSTORE_TEST_CLUSTER"
_HEALTH = {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "500"}
"""So that a node that was killed is missed within seconds; one that is only slow has ten, as by default."""


class Nodes:
    """A head, and other nodes that join it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="es-ray-"))  # short: the paths of sockets have a limit
        self._mark = secrets.token_hex(8)
        self.token = secrets.token_hex(32)
        self._started: list[subprocess.Popen[bytes]] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"

    def __enter__(self) -> Nodes:
        try:
            self.start("--head", f"--port={self.address.partition(':')[2]}", f"--temp-dir={self._folder / 'head'}")
            self.start(f"--address={self.address}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for node in reversed(self._started):
            node.terminate()
        for node in self._started:
            try:
                node.wait(15)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        for process in self.processes():
            _kill(process)
        wait_for(lambda: not self.processes(), "the cluster's processes to end")
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a node with one worker; it runs in a folder of its own, so imports nothing from this one."""
        home = Path(tempfile.mkdtemp(dir=self._folder))
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--block", "--num-cpus=1"]
        command += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--disable-usage-stats"]
        command += [f"--plasma-directory={self._folder}"]
        settings = {_MARK: self._mark, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "HOME": str(home)}
        settings |= _HEALTH
        command += ["--include-dashboard=false"] if "--head" in words else []
        for _ in range(3):
            with (home / "said").open("wb") as output:
                node = subprocess.Popen(
                    command,
                    env={**os.environ, **settings, **environment},
                    cwd=home,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            self._started.append(node)

            def said() -> str:
                return (home / "said").read_text(errors="replace")

            def runs(node: subprocess.Popen[bytes] = node) -> bool:
                return "--block" in said() or node.poll() is not None

            wait_for(runs, f"a node to start: ray start {words[0]}")
            if node.poll() is None:
                return node
            self._started.remove(node)
            assert "timed out during startup" in said(), said()  # Ray waits 30 s, which a busy machine may take
        raise AssertionError(said())

    def lose_within_a_bundle(self, node: subprocess.Popen[bytes], mark: str) -> bool:
        """Do `lose` if a worker of the node is within a bundle; it is halted first, to be sure that it is."""
        of_node = marked(mark)
        # To find them takes longer than a short bundle, so these are looked at again and again.
        if not any(_halted_within_a_bundle(process) for _ in range(500) for process in of_node):
            return False
        self.lose(node, mark)
        return True

    def stop(self, node: subprocess.Popen[bytes]) -> None:
        """End one node and its workers."""
        node.terminate()
        node.wait(30)
        self._started.remove(node)

    def processes(self) -> list[int]:
        """Return the ids of all processes that this cluster has started, and those that they have."""
        return marked(f"{_MARK}={self._mark}")

    def kill_a_busy_worker(self, title: str = "ray::scan_bundle") -> bool:
        """SIGKILL a worker that is within a bundle, if one is found; it is halted first, to be sure that it is."""
        for process in self.processes():
            if _title(process).startswith(title):
                os.kill(process, signal.SIGSTOP)
                if _title(process).startswith(title):
                    _kill(process)
                    return True
                os.kill(process, signal.SIGCONT)
        return False

    def lose(self, node: subprocess.Popen[bytes], mark: str) -> None:
        """SIGKILL one node with its workers: all that was started with this NAME=VALUE in its environment."""
        while processes := marked(mark):
            for process in processes:
                _kill(process)
        node.wait(30)
        self._started.remove(node)

    def holds(self, word: bytes) -> list[str]:
        """Return where a word stands: in a file that the cluster has written, or how a process was started."""
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        files += [Path(f"/proc/{process}/{name}") for process in self.processes() for name in ("environ", "cmdline")]
        found = []
        for path in files:
            try:
                if word in path.read_bytes():
                    found.append(str(path))
            except OSError:
                continue  # it has ended
        return found


def marked(word: str) -> list[int]:
    """Return the ids of the processes that have NAME=VALUE in the environment that they were started with."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)


def _title(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended by itself


def _halted_within_a_bundle(process: int) -> bool:
    """Halt a process if it is a worker within a bundle; tell whether it is."""
    if not _title(process).startswith("ray::scan_bundle"):
        return False
    os.kill(process, signal.SIGSTOP)
    if _title(process).startswith("ray::scan_bundle"):
        return True
    os.kill(process, signal.SIGCONT)
    return False
