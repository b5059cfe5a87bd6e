"""Disks that fail, fill up, or may not be written to, and too few open files, under every command.

A command under a fault ends with status 0 and has done its work, or with status 1, one line of error and no traceback;
nothing is lost, and without the fault it goes on. Faults come from `failing_calls`; where there is no compiler, from
strace. Full and read-only disks are real ones where they may be mounted.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from torturing import failing_calls
from torturing.commands import Bench, Command, prepare
from torturing.figures import Figures
from torturing.forks import Ended
from torturing.judge import judge
from torturing.work import LONGEST, Work, can_mount, fresh, mounted, short

Fault = Callable[[Figures, int, random.Random, Bench, Command], None]


def run(work: Work) -> Figures:
    """Let commands fail until the time is up."""
    figures = Figures("faults")
    library = failing_calls.library(work.folder)
    kinds: list[Fault] = [_failing_call] * 10 if library else [_by_strace] * 3
    kinds.append(_few_files)
    if can_mount(work.folder):
        kinds += [_full_disk, _full_disk, _read_only_disk]
    else:
        figures.notes.append("no full disks: mounting takes root")
    with prepare(work, preload=library) as bench:
        weights = [command.weight for command in bench.commands]
        for step, dice in work.steps():
            dice.choice(kinds)(figures, step, dice, bench, dice.choices(bench.commands, weights)[0])
    return figures


def _failing_call(figures: Figures, step: int, dice: random.Random, bench: Bench, command: Command) -> None:
    """Let the n-th call of a kind fail, once or from then on."""
    store = bench.start(command)
    made = {call: number for call, number in bench.calls[command.name].items() if number}
    call = dice.choice(sorted(made))
    error, number, forever = dice.choice(failing_calls.CALLS[call]), dice.randint(1, made[call]), dice.random() < 0.4
    fault = {"call": call, "error": error, "n": number, "forever": forever, "folder": str(store)}
    ended = bench.forks.run(bench.words(command, store), fault=fault)
    how = f"{call} {number} of {made[call]} {'and all later ones' if forever else 'alone'} failing with {error}"
    _judge(figures, step, bench, command, store, ended, how, call)


def _few_files(figures: Figures, step: int, dice: random.Random, bench: Bench, command: Command) -> None:
    """Run with few open files allowed."""
    store, number = bench.start(command), dice.randint(6, 40)
    ended = bench.forks.run(bench.words(command, store), files=number)
    _judge(figures, step, bench, command, store, ended, f"with {number} open files allowed", "few files")


def _full_disk(figures: Figures, step: int, dice: random.Random, bench: Bench, command: Command) -> None:
    """Run on a disk with little room, and go on with more."""
    disk, template = bench.work.folder / "disk", bench.template(command.template)
    bench.start(command)
    used = sum(-(-file.stat().st_size // 4096) + 1 for file in template.rglob("*")) * 4 if template else 0
    room = dice.choice([dice.randint(0, 64), dice.randint(0, 1024), dice.randint(0, 12_000)])
    with mounted(disk, "-t", "tmpfs", "-o", f"size={used + room + 4}k", "tmpfs"):
        store = disk / "s.store"
        if template:
            shutil.copytree(template, store)
        ended = bench.forks.run(bench.words(command, store))
        subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
        _judge(figures, step, bench, command, store, ended, f"with {room} kB left on the disk", "full disk")


def _read_only_disk(figures: Figures, step: int, dice: random.Random, bench: Bench, command: Command) -> None:
    """Run on a disk that cannot be written to."""
    disk, template = bench.work.folder / "disk", bench.template(command.template)
    bench.start(command)
    with mounted(disk, "-t", "tmpfs", "-o", "size=256m", "tmpfs"):
        store = disk / "s.store"
        if template:
            shutil.copytree(template, store)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        ended = bench.forks.run(bench.words(command, store))
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        _judge(figures, step, bench, command, store, ended, "on a read-only disk", "read-only disk")


def _by_strace(figures: Figures, step: int, dice: random.Random, bench: Bench, command: Command) -> None:
    """Let a call fail as `_failing_call` does, without a compiler: slower, and only calls that are rare elsewhere."""
    call, error = dice.choice([("fsync", "EIO"), ("rename", "ENOSPC"), ("unlink", "EACCES"), ("ftruncate", "EIO")])
    number, store = dice.randint(1, 8), bench.start(command)
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:error={error}:when={number}"]
    words += [sys.executable, "-m", "embedstore", *bench.words(command, store)]
    environment = bench.server.environment(bench.work.folder / "home")
    try:
        done = subprocess.run(
            words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=6 * LONGEST
        )
        ended = Ended(done.returncode, False, 0, done.stderr, done.stdout, None)
    except subprocess.TimeoutExpired:
        ended = Ended(-9, True, 0, "", "", None)
    _judge(figures, step, bench, command, store, ended, f"{call} {number} failing with {error}", call)


def _judge(
    figures: Figures, step: int, bench: Bench, command: Command, store: Path, ended: Ended, how: str, sort: str
) -> None:
    """Write down how a command ended, and what it left."""
    figures.tried += 1
    figures.details[sort] += 1
    figures.saw_memory(ended.peak, step, command.name)
    where = f"{command.name}, {how}"
    if ended.hung:
        figures.add("hangs", step, where)
    elif ended.crashed or ended.exit not in (0, 1):
        figures.add("other", step, f"{where}: exit {ended.exit}: {short(ended.said)}")
    elif ended.exit == 1 and "error: " not in ended.said and command.name != "verify":
        figures.add("other", step, f"{where}: exit 1 without an error: {short(ended.said)}")
    elif ended.exit == 0 and command.answers and ended.printed != bench.printed[command.name]:
        figures.add("wrong", step, f"{where}: it prints something else: {short(ended.printed)}")
    kept = {"in_flight": 0} if sort == "full disk" else {}  # a run holds room for what is under way
    judge(figures, step, bench, command, store, acknowledged=ended.exit == 0, how=how, **kept)
    fresh(store, None)
