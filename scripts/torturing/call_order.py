"""The order of durability, by the system calls that a command makes: `strace` writes them down, `broken` reads them.

A part is synced before the commit that names it; a commit, its folder and the table's folder are synced before the
command ends, and before `vacuum` deletes a part; what is renamed into its place is synced before, its folder after.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torturing.commands import Bench, Command
from torturing.figures import Figures

WATCHED = ("vacuum", "vectors", "calibrate")
_CALLS = "openat,link,linkat,rename,renameat,renameat2,unlink,unlinkat,fsync,fdatasync"
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(.*)$")
_PATHS = re.compile(r'"([^"]*)"|\d+<([^>]*)>')
_PART = re.compile(r"/images/[^/]+\.parquet$")
_COMMIT = re.compile(r"/_delta_log/\d{20}\.json$")
_REPLACED = re.compile(r"/(store|classifiers/[^/]+)\.json$")


def check(figures: Figures, bench: Bench, commands: Mapping[str, Command], names: Sequence[str] = WATCHED) -> None:
    """Run some commands under strace and write down what they do in a wrong order."""
    for name in names:
        store = bench.start(commands[name])
        trace = bench.work.folder / "trace"
        words = ["strace", "-f", "-y", "-qq", "-s", "4096", "-o", str(trace), "-e", f"trace={_CALLS}"]
        words += [sys.executable, "-m", "embedstore", *bench.words(commands[name], store)]
        environment = {**os.environ, **bench.server.environment(bench.work.folder / "home")}
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        figures.details["orders of calls"] += 1
        if done.returncode:
            figures.add("other", f"order of {name}", f"it fails under strace: {done.stderr}")
        for what in broken(calls(trace.read_text(errors="replace")), str(store)):
            figures.add("lost", f"order of {name}", what)
        shutil.rmtree(store)


def calls(trace: str) -> Iterator[tuple[str, list[str], bool]]:
    """Yield the calls of a trace that succeeded: name, paths, whether a file was made; in the order of their ends."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        pid, name, rest = match.groups()
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest
            continue
        if " resumed>" in rest:
            rest = begun.pop(pid, "") + rest
        if re.search(r"= -1 E\w+", rest) is None:
            paths = [quoted or descriptor for quoted, descriptor in _PATHS.findall(rest.rpartition(" = ")[0])]
            yield name, [path for path in paths if path.startswith("/")], "O_CREAT" in rest


def broken(found: Iterator[tuple[str, list[str], bool]], store: str) -> Iterator[str]:
    """Yield what breaks the order of durability in a store."""
    unsynced: set[str] = set()  # files with content, and folders with names, that are not on the disk for certain
    synced: set[str] = set()
    images, log = f"{store}/images", f"{store}/images/_delta_log"
    for name, paths, makes in found:
        paths = [path for path in paths if path.startswith(store)]
        if not paths:
            continue
        last = paths[-1]
        if name in ("fsync", "fdatasync"):
            unsynced.discard(last)
            synced.add(last)
        elif name == "openat" and makes:
            unsynced |= {last} if _PART.search(last) or _REPLACED.search(last) else set()
            unsynced |= {images} if _PART.search(last) else set()
        elif name.startswith(("link", "rename")):
            if _COMMIT.search(last) and str(Path(last).parent) == log:
                yield from (f"{part} is committed before it is synced" for part in unsynced if _PART.search(part))
                # A second name of a file that is synced needs no more than its folder.
                unsynced |= {log} if paths[0] in synced else {last, log}
            elif _REPLACED.search(last):
                unsynced |= {str(Path(last).parent)}
        elif name.startswith("unlink") and _PART.search(last):
            for what in sorted(unsynced):
                yield f"{last} is deleted before {what} is synced"
            unsynced.clear()
    yield from (f"the command ends before {what} is synced" for what in sorted(unsynced))
