"""`scripts/torture --minutes M --seed S`: tortures stores for so long and prints what came of it.

Exit status 1 when anything was lost, silently wrong, hung or otherwise not as it must be.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torturing.figures import Figures, grouped, remarks, table
from torturing.work import Work

LANES = (
    {"kills": 0.42, "flips": 0.28, "races": 0.30},
    {"faults": 0.45, "cuts": 0.20, "inputs": 0.27, "disk": 0.08},
)
"""Two lanes run side by side; each shares its time out like this."""
KINDS = tuple(kind for lane in LANES for kind in lane)


def main(words: Sequence[str] | None = None) -> int:
    """Run what the words ask for, print the figures, and return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, about  [1]")
    parser.add_argument("--seed", type=int, default=0, help="what the dice are thrown from  [0]")
    parser.add_argument("--only", choices=KINDS, action="append", help="only this kind; may be repeated")
    parser.add_argument("--step", type=int, help="with --only: only this step, as a finding names it")
    parser.add_argument("--keep", action="store_true", help="leave the stores where they are")
    options = parser.parse_args(words)
    if options.step is not None and len(options.only or ()) != 1:
        parser.error("--step is a step of one kind: name it with --only")
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    started = time.monotonic()
    lanes = [{kind: share for kind, share in lane.items() if kind in (options.only or KINDS)} for lane in LANES]
    try:
        with ThreadPoolExecutor(len(lanes)) as threads:
            jobs = [
                threads.submit(_run_lane, lane, folder, options.minutes * 60, options.seed, options.step)
                for lane in lanes
            ]
            done = [figures for job in jobs for figures in job.result()]
    finally:
        if options.keep:
            print(f"left in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    findings = [finding for figures in done for finding in figures.findings]
    print(f"seed {options.seed}, {time.monotonic() - started:,.0f} s\n\n{table(done)}\n\n{remarks(done)}")
    print(*grouped(findings), sep="\n")
    if findings:
        print(f"{len(findings):,} findings; again: scripts/torture --seed {options.seed} --only KIND --step NUMBER")
    return 1 if findings else 0


def _run_lane(lane: dict[str, float], folder: Path, seconds: float, seed: int, step: int | None) -> list[Figures]:
    """Run kinds one after the other, each for its share."""
    done = []
    for kind, share in lane.items():
        own = folder / kind
        own.mkdir()
        work = Work(kind, own, seed, seconds * share / sum(lane.values()), only=step)
        work.say(f"{work.seconds:.0f} s")
        done.append(importlib.import_module(f"torturing.{kind}").run(work))
    return done


if __name__ == "__main__":
    sys.exit(main())
