"""How true is what is said of decisions? Each statement, tried in worlds of known truth: a table.

    python scripts/measure_decisions.py [--draws 500] [--seed 3] [--only NAME ...]

Exit status 1 where a statement does not hold.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault("OMP_NUM_THREADS", "1")

import measuring
from measuring.cell import Cell

KINDS = sorted(info.name for info in pkgutil.iter_modules(measuring.__path__) if info.name not in ("cell", "worlds"))


def measured(kind: str, draws: int, seed: int) -> tuple[list[Cell], float]:
    """Return the cells of one kind, and the seconds that they took."""
    start = time.perf_counter()
    return list(importlib.import_module(f"measuring.{kind}").cells(draws, seed)), time.perf_counter() - start


def main() -> None:
    """Measure all kinds side by side and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=KINDS)
    asked = parser.parse_args()
    failed = 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        waiting = {kind: pool.submit(measured, kind, asked.draws, asked.seed) for kind in asked.only}
        for kind, result in waiting.items():
            found, seconds = result.result()
            print(f"\n{kind} ({seconds:.0f} s)")
            for cell in found:
                mark = "" if cell.holds else "   <- NOT SO"
                print(f"  {cell.what:<52} {cell.where:<48} {cell.seen:8.4f}  {cell.wanted}  ({cell.draws}){mark}")
            failed += sum(not cell.holds for cell in found)
            sys.stdout.flush()
    print(f"\n{failed} of the statements do not hold" if failed else "\nevery statement holds")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
