"""The power goes: at a random moment of a command, or some seconds after it has ended well.

The store lies on an ext4 of its own, in an image file. While the command is stopped the image is copied, unsynced: the
copy holds what the disk would hold. It is mounted, which replays ext4's journal, and judged: what was acknowledged is
there, what was paid for is there or was under way, and the command goes on. Where nothing may be mounted, the order of
system calls is looked at instead, see `call_order`.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from torturing import call_order
from torturing.commands import Bench, Command, prepare
from torturing.figures import Figures
from torturing.judge import judge
from torturing.work import Work, can_mount, mounted

SCENES: tuple[tuple[str, ...], ...] = (
    ("first add",),
    ("add",),
    ("add",),
    ("first vectors",),
    ("vectors",),
    ("remove",),
    ("compact",),
    ("vacuum",),
    ("calibrate",),
    ("compact photos", "vacuum"),
)
"""Commands that are run one after the other before the power goes in the last of them, or after it."""
IMAGE_BYTES = 96 * 2**20


def run(work: Work) -> Figures:
    """Cut the power until the time is up."""
    figures = Figures("cuts")
    with prepare(work) as bench:
        by_name = {command.name: command for command in bench.commands}
        if shutil.which("strace"):
            call_order.check(figures, bench, by_name, call_order.WATCHED[: 3 if work.seconds > 60 else 1])
        if not (can_mount(work.folder) and shutil.which("mkfs.ext4")):
            figures.notes.append("no power cuts: they take root and mkfs.ext4; the order of system calls was checked")
            return figures
        for step, dice in work.steps():
            scene = [by_name[name] for name in SCENES[step % len(SCENES)]]
            _cut(figures, step, dice, bench, scene)
    return figures


def _cut(figures: Figures, step: int, dice: random.Random, bench: Bench, scene: Sequence[Command]) -> None:
    """Run commands on an ext4 and look at what is left when the power goes at some moments."""
    command, first = scene[-1], scene[0]
    bench.start(command)
    image, copy = bench.work.folder / "disk.img", bench.work.folder / "cut.img"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    # Names go to the disk each second, data only when they must: the widest gap between the two.
    with mounted(bench.work.folder / "disk", "-o", "loop,commit=1", str(image)) as disk:
        store, template = disk / "s.store", bench.template(first.template)
        if template is not None:
            shutil.copytree(template, store)
        subprocess.run(["sync", "-f", str(disk)], check=True)
        for before in scene[:-1]:
            bench.forks.run(bench.words(before, store))
        job = bench.forks.start(bench.words(command, store))
        if dice.random() < 0.5:
            moment = dice.uniform(0, bench.seconds[command.name])
            time.sleep(moment)
            job.kill(signal.SIGSTOP)
            acknowledged, how = False, f"cut after {moment * 1000:.0f} ms"
        else:
            moment = dice.choice([0.0, dice.uniform(0, 2.5)])
            acknowledged, how = job.wait().exit == 0, f"cut {moment:.1f} s after it had ended"
            time.sleep(moment)
        _copy(image, copy)
        if not acknowledged:
            job.kill()
            job.wait()
    figures.tried += 1
    figures.details[" and ".join(each.name for each in scene)] += 1
    with mounted(bench.work.folder / "after", "-o", "loop", str(copy)) as disk:
        judge(figures, step, bench, command, disk / "s.store", acknowledged=acknowledged, how=how)


def _copy(image: Path, copy: Path) -> None:
    """Copy an image while nothing is written to it."""
    while True:
        subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)
        if subprocess.run(["cmp", "-s", str(image), str(copy)]).returncode == 0:
            return
