"""One process: import a peer, open its files, answer one query, print what that took.

    python scripts/bench_start.py PEER FOLDER QUERIES.npy NUMBER [uris] [all]

Prints a line of JSON: seconds from the first line of this file, and resident private memory. The answer is scores and
places; with `uris` the nearest rows' uris are read too, where the peer is a store of records. With `all` it goes on to
ask every other question too, and the memory is the largest on the way. The time of the whole process is the caller's to
measure; `bench_peers.py` does.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import contextlib  # noqa: E402  (the clock starts before the imports)
import json  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from peers import PEERS, Peer  # noqa: E402


def private_megabytes() -> float:
    """Return the private memory of this process; pages of mapped files are not its own."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


class Peak(threading.Thread):
    """Looks at the private memory a hundred times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.megabytes = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        """Look until told to stop."""
        while not self.done.wait(0.01):
            self.megabytes = max(self.megabytes, private_megabytes())


def ask_all(peer: Peer, queries: np.ndarray) -> float:
    """Ask every question a few times; return the largest private memory."""
    peak = Peak()
    peak.start()
    peer.warm(queries[:8])
    peer.top_of_many(queries[:20], 20)
    for number in range(3):
        for ask in (
            lambda n=number: peer.filtered(queries[n], 20),
            lambda n=number: peer.above(queries[n], 0.1),
            lambda n=number: peer.sweep(queries[n], np.linspace(0, 0.2, 100)),
        ):
            with contextlib.suppress(NotImplementedError):
                ask()
    peak.done.set()
    peak.join()
    return peak.megabytes


def main() -> None:
    """Ask one question, or all."""
    name, folder, queries, number = sys.argv[1:5]
    peer = next(peer for peer in PEERS if peer.name == name)(Path(folder))
    query = np.load(queries, mmap_mode="r")[int(number)].copy()
    peer.open()
    ask = peer.top if "uris" in sys.argv[5:] else peer.nearest
    ask(query, 20)
    seconds = time.perf_counter() - STARTED
    memory = private_megabytes()
    if "all" in sys.argv[5:]:
        memory = ask_all(peer, np.load(queries))
    print(json.dumps({"seconds": seconds, "megabytes": memory}))


main()
