"""Time, dice and folders for one kind of torture."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LONGEST = 10.0
"""Seconds that one operation may take; more is a hang."""
STOPPING = threading.Event()
"""Set when all kinds are to end soon: at Ctrl-C, or when one of them has failed."""


@dataclass
class Work:
    """What a kind may use: a folder of its own, so many seconds, and dice that fall alike for the same seed and step.

    `only` runs a single step; `most` ends after so many.
    """

    kind: str
    folder: Path
    seed: int
    seconds: float
    only: int | None = None
    most: int | None = None
    started: float = field(default_factory=time.monotonic)

    def steps(self, within: float = 1.0) -> Iterator[tuple[int, random.Random]]:
        """Yield steps with their dice until this share of the time since the start is used up, at least one."""
        until, step, said = self.started + self.seconds * within, self.only or 0, time.monotonic()
        while True:
            yield step, self.dice(step)
            step += 1
            now = time.monotonic()
            if STOPPING.is_set() or self.only is not None or now >= until or step == self.most:
                return
            if now - said > 30:
                self.say(f"step {step}")
                said = now

    def dice(self, step: int | str) -> random.Random:
        """Return the dice of a step."""
        return random.Random(f"{self.seed} {self.kind} {step}")

    def say(self, line: str) -> None:
        """Tell the progress."""
        print(f"[{self.kind}] {line}", file=sys.stderr, flush=True)


def fresh(folder: Path, template: Path | None) -> Path:
    """Put a copy of a template in the place of a folder; nothing where there is no template."""
    shutil.rmtree(folder, ignore_errors=True)
    if template is not None:
        shutil.copytree(template, folder)
    return folder


@contextlib.contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Path]:
    """Mount something at a folder for the time of the context; OSError where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *words, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"mount {' '.join(words)}: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount(folder: Path) -> bool:
    """Tell whether file systems may be mounted here."""
    try:
        with mounted(folder / "try", "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
            return True
    except OSError:
        return False


def short(value: object, length: int = 300) -> str:
    """Return something in one line that is not too long; of a traceback the place and the error."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if "Traceback (most recent" in text:
        lines = text[text.rindex("Traceback (most recent") :].splitlines()
        place = [line for line in lines if line.startswith("  File") and "torturing" not in line][-1:]
        text = " ".join([*place, *(line for line in lines[1:] if line[:1] not in (" ", ""))])
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length // 2]} ... {text[-length // 2 :]}"
