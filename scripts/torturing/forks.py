"""Commands and functions in processes of their own that start within milliseconds, fail on order, and can be killed.

`Forks` starts a process that imports everything once (`serve`) and forks for each job. A job has a time limit, tells
its wait status and its peak of memory, and may run under injected faults, see `failing_calls`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torturing import failing_calls
from torturing.work import LONGEST, STOPPING

SCRIPTS = Path(__file__).parents[1]


@dataclass
class Ended:
    """How a job ended: `exit` is negative for a signal.

    `value` is what a function returned, or how many calls that could fail a command under a fault made.
    """

    exit: int
    hung: bool
    peak: int
    said: str
    printed: str
    value: Any

    @property
    def crashed(self) -> bool:
        """Whether it ended otherwise than a command should: by a traceback, a panic or a signal not from here."""
        # What the log's library says by itself when it may open no file is followed by our line.
        excused = "Too many open files" in self.said
        panic = "panicked at" in self.said and not (excused and self.exit == 1)
        return self.exit < 0 or "Traceback (most recent" in self.said or panic


class Job:
    """A process that was forked."""

    def __init__(self, forks: Forks, pid: int, files: Path) -> None:
        self.pid, self._forks, self._files = pid, forks, files

    def kill(self, by: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; the process id is nobody else's until `wait`."""
        os.kill(self.pid, by)

    def wait(self, seconds: float = LONGEST, beats: Path | None = None) -> Ended:
        """Wait for the end, which comes by force after so long; or when the file `beats` has not grown for so long."""
        hung, ended = threading.Event(), threading.Event()

        def watch() -> None:
            last, size = time.monotonic(), -1
            while not ended.wait(0.2 if beats else seconds):
                now = beats.stat().st_size if beats and beats.exists() else 0
                if beats and now != size and not STOPPING.is_set():
                    last, size = time.monotonic(), now
                elif not beats or STOPPING.is_set() or time.monotonic() - last > seconds:
                    hung.set()
                    with contextlib.suppress(ProcessLookupError):
                        self.kill()
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        status, peak = self._forks._ask({"wait": self.pid})
        ended.set()
        watcher.join()
        said, printed, value = (self._taken(end) for end in (".err", ".out", ".json"))
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, hung.is_set(), peak * 1024, said, printed, json.loads(value) if value else None)

    def _taken(self, ending: str) -> str:
        """Return what the job has written, if it came to that, and delete the file."""
        file = self._files.with_suffix(ending)
        text = file.read_text(errors="replace") if file.exists() else ""
        file.unlink(missing_ok=True)
        return text


class Forks:
    """The process that forks; jobs are started from one thread."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._count = folder, 0
        path = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "torturing.forks"],
            env={**os.environ, **environment, "PYTHONPATH": path, "EMBEDSTORE_PROGRESS": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(self, words: Sequence[str], **options: Any) -> Job:
        """Start an `embedstore` command; options as of `call`."""
        return self._start({"words": list(words), **options})

    def run(self, words: Sequence[str], **options: Any) -> Ended:
        """Run an `embedstore` command to its end."""
        return self.start(words, **options).wait()

    def begin(self, function: str, *arguments: Any, **options: Any) -> Job:
        """Start a function, named as ``package.module:name``, with arguments that JSON knows.

        `fault` orders a failing system call, see `failing_calls`; `files` and `memory` limit the number of open files
        and the bytes of address space.
        """
        return self._start({"call": function, "arguments": arguments, **options})

    def call(self, function: str, *arguments: Any, seconds: float = LONGEST, **options: Any) -> Ended:
        """Run a function to its end; see `begin`."""
        return self.begin(function, *arguments, **options).wait(seconds)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _start(self, job: dict[str, Any]) -> Job:
        self._count += 1
        files = self._folder / f"{self._count}.job"
        pid = self._ask({**job, "out": str(files)})
        return Job(self, pid, files)

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


_IMPORTED = (
    *("deltalake", "deltalake.transaction", "deltalake.schema", "duckdb", "faiss", "filelock", "matplotlib.pyplot"),
    *("nomic.embed", "PIL.Image", "pyarrow.compute", "pyarrow.csv", "pyarrow.dataset", "pyarrow.json"),
    *("pyarrow.parquet", "requests", "tqdm", "sqlite3", "torturing.look", "embedstore.store"),
    *("embedstore.cli", "embedstore.embedders.nomic_api", "embedstore.embedders.registry", "embedstore.ingest.adding"),
    *("embedstore.deciding.evaluation", "embedstore.deciding.thresholds", "embedstore.storage.verify"),
    *("embedstore.storage.where", "embedstore.searching.shortlist"),
)


@contextlib.contextmanager
def forking(folder: Path, environment: Mapping[str, str]) -> Iterator[Forks]:
    """Have `Forks` for the time of the context."""
    forks = Forks(folder, environment)
    try:
        yield forks
    finally:
        forks.close()


def serve() -> None:
    """Fork for each line of stdin; answer with a process id, or with a wait status and the kilobytes it took."""
    import_everything()
    gc.freeze()  # forks share what is not looked at
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status, usage = os.wait4(request["wait"], 0)
            answer: Any = [status, usage.ru_maxrss]
        else:
            answer = os.fork()
            if answer == 0:
                _become(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def import_everything() -> None:
    """Import what commands import, so that forks need not; no library may have started a thread by then."""
    for name in _IMPORTED:
        importlib.import_module(name)
    importlib.import_module("PIL.Image").init()


def _become(job: dict[str, Any]) -> None:
    """Be the forked process: run the job and leave without looking back."""
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, it would be ignored
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for number, end in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(job["out"].removesuffix(".job") + end, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        limits = ((resource.RLIMIT_NOFILE, "files"), (resource.RLIMIT_AS, "memory"))
        if "call" in job:
            module, name = job["call"].split(":")
            function = getattr(importlib.import_module(module), name)
        if job.get("fault"):
            failing_calls.arm(job["fault"])
        for limit, name in limits:
            if job.get(name):
                resource.setrlimit(limit, (job[name], resource.getrlimit(limit)[1]))
        code = _value(function(*job["arguments"]), job["out"]) if "call" in job else _command(job["words"])
        sys.stdout.flush()
        if job.get("fault") and "words" in job:
            _value(failing_calls.seen(), job["out"])
    except BaseException:  # noqa: BLE001  (a fork must not come back into the loop)
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)


def _value(value: Any, out: str) -> int:
    """Write down what a function returned."""
    Path(out.removesuffix(".job") + ".json").write_text(json.dumps(value))
    return 0


def _command(words: Sequence[str]) -> int:
    from embedstore.cli import main

    try:
        main(list(words))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    serve()
