"""`kill -9` at random moments of every command: nothing is lost, nothing doubled, and the command goes on after it."""

from __future__ import annotations

import signal
import time

from torturing.commands import prepare
from torturing.figures import Figures
from torturing.judge import judge
from torturing.work import Work


def run(work: Work) -> Figures:
    """Kill commands until the time is up."""
    figures = Figures("kills")
    with prepare(work) as bench:
        weights = [command.weight for command in bench.commands]
        for step, dice in work.steps():
            command = dice.choices(bench.commands, weights)[0]
            store = bench.start(command)
            moment = dice.uniform(0, 0.9 * bench.seconds[command.name])
            started = time.monotonic()
            job = bench.forks.start(bench.words(command, store))
            time.sleep(moment)
            job.kill()
            ended = job.wait()
            figures.saw_memory(ended.peak, step, command.name)
            killed = ended.exit == -signal.SIGKILL
            if not killed:  # it was quicker than usual
                bench.seconds[command.name] = (bench.seconds[command.name] + time.monotonic() - started) / 2
            figures.tried += killed
            figures.details[command.name] += killed
            how = f"killed after {moment * 1000:.0f} ms"
            judge(figures, step, bench, command, store, acknowledged=ended.exit == 0, how=how)
    return figures
