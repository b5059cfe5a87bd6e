"""One process: import a peer, open its files, answer one query, print what that took.

    python scripts/bench_start.py PEER FOLDER QUERIES.npy NUMBER

Prints a line of JSON: seconds from the first line of this file, resident private memory, and the answer. The time of
the whole process is the caller's to measure; `bench_peers.py` does.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import json  # noqa: E402  (the clock starts before the imports)
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from peers import PEERS  # noqa: E402


def private_megabytes() -> float:
    """Return the private memory of this process; pages of mapped files are not its own."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Ask one question."""
    name, folder, queries, number = sys.argv[1:]
    peer = next(peer for peer in PEERS if peer.name == name)(Path(folder))
    query = np.load(queries, mmap_mode="r")[int(number)].copy()
    peer.open()
    found = peer.top(query, 20)
    seconds = time.perf_counter() - STARTED
    memory = private_megabytes()
    print(json.dumps({"seconds": seconds, "megabytes": memory, "rows": [int(row) for row in found]}))


main()
