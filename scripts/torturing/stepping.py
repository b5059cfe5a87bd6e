"""Many quick steps in one process that may hang or die: the step at which it did is known, and the next one goes on.

`run_steps` starts a function in a fork, over and over; the function takes its steps from `Steps` and
reports each.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torturing.figures import Figures
from torturing.forks import Forks
from torturing.work import LONGEST, STOPPING, Work


class Steps:
    """The steps of one process; made from what `run_steps` passes on."""

    def __init__(self, about: dict[str, Any]) -> None:
        self._about = about
        self._report = open(about["journal"], "a", buffering=1)  # noqa: SIM115  (until the process ends)

    def __iter__(self) -> Iterator[tuple[int, random.Random]]:
        work = Work(self._about["kind"], Path(), self._about["seed"], 0.0)
        step, last = self._about["first"], self._about["last"]
        while True:
            self._say(begun=step)
            yield step, work.dice(step)
            step += 1
            if (last is not None and step >= last) or time.monotonic() >= self._about["until"]:
                return

    def done(self, tried: int, what: str, *found: tuple[str, str]) -> None:
        """Report a step: how many were tried of what, and each finding with its sort."""
        self._say(tried=tried, what=what, found=found)

    def _say(self, **fields: Any) -> None:
        self._report.write(json.dumps(fields) + "\n")


def run_steps(
    work: Work, figures: Figures, forks: Forks, function: str, *arguments: Any, until: float, longest: float = LONGEST
) -> None:
    """Let ``function(about, *arguments)`` take steps until a moment, and gather what it reports."""
    first = work.only or 0
    last = work.most if work.only is None else work.only + 1
    while first == (work.only or 0) or (first != last and time.monotonic() < until and not STOPPING.is_set()):
        journal = work.folder / "steps.jsonl"
        journal.unlink(missing_ok=True)
        about = {
            **{"kind": work.kind, "seed": work.seed, "first": first, "last": last},
            **{"until": until, "journal": str(journal)},
        }
        ended = forks.begin(function, about, *arguments).wait(longest, beats=journal)
        first = _gather(figures, journal, first) + 1
        figures.saw_memory(ended.peak, f"to {first - 1}", function)
        if ended.hung:
            figures.add("hangs", first - 1, f"no end after {longest:g} s")
        elif ended.exit:
            figures.add("other", first - 1, f"the process died: exit {ended.exit}: {ended.said[-500:]}")


def _gather(figures: Figures, journal: Path, step: int) -> int:
    """Add what a process has reported, and return the last step that it began."""
    for line in journal.read_text().splitlines() if journal.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            break  # cut short by a kill
        if "begun" in entry:
            step = entry["begun"]
            continue
        figures.tried += entry["tried"]
        figures.details[entry["what"]] += entry["tried"]
        for sort, what in entry["found"]:
            figures.add(sort, step, what)
    return step
