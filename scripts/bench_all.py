"""Everything that README says of one machine's speed, in one run: data/speed.json, and from it README's tables.

    python scripts/bench_all.py                       # a million rows, then 100,000; 10 minutes on 2 quiet cores
    python scripts/bench_all.py --tables              # README's tables again, from the data/speed.json that is there

Works and rounds are those of `bench_peers`. For a million rows 15 GB of files should fit in the page cache. What the
tables look like is left to `readme_tables` and `estimate_scale`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_peers
import numpy as np
from bench_peers import LIMIT, WORKS, Times
from estimate_scale import scale_table
from peers import PEERS
from readme_tables import README, SPEED, replaced, speed_tables

SPARE = 10
"""Where memory holds the vectors fewer times than this, peers that load them are left out, or others would be read from
the disk."""
OF_RECORDS = ("rows", "start_uris")
"""Works that only a store of records can do."""
PEERS_HERE = (
    "embedstore,embedstore + index,numpy,FAISS flat,FAISS Panorama,FAISS fp16,FAISS int8,usearch f16,numkong int8"
)


def figures(times: Times, made: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return what a run comes to: for each peer and work the quartiles, and the ratio to the best exact peer."""
    exact = {peer.name for peer in PEERS if peer.exact}
    rivals = [name for name in made if name in exact and not name.startswith("embedstore")]
    records = {peer.name for peer in PEERS if peer.has_records}
    quartiles = {
        work: {
            name: np.quantile(found, [0.25, 0.5, 0.75]).tolist()
            for name, found in times[work].items()
            if name in records or work not in OF_RECORDS
        }
        for work in WORKS
    }
    peers = {}
    for name, about in made.items():
        peers[name] = {
            **about,
            "exact": name in exact,
            "recall": other["recall"][name],
            "private_bytes": other["peak MB"][name] * 2**20,
            "seconds": {work: found[name] for work, found in quartiles.items() if name in found},
            "ratios": ratios(name, quartiles, rivals),
        }
    limit = float(np.median([seconds for found in times.values() for seconds in found.get(LIMIT, [])]))
    return {"limit_seconds": limit, "peers": peers}


def ratios(name: str, quartiles: dict[str, dict[str, list[float]]], rivals: list[str]) -> dict[str, Any]:
    """Return for each work how many times the median of the quickest other exact peer one takes, and whose that is."""
    found = {}
    for work, by_name in quartiles.items():
        others = {other: by_name[other][1] for other in rivals if other in by_name and other != name}
        if name in by_name and others:
            best = min(others, key=lambda other: others[other])
            found[work] = {"to": best, "ratio": by_name[name][1] / others[best]}
    return found


def run(n: int, rounds: int, chosen: str, folder: Path | None) -> dict[str, Any]:
    """Make the rows and the peers' files, and measure them."""
    peers, skipped = bench_peers.installed(chosen, n)
    short = bench_peers.machine()["memory_bytes"] < SPARE * n * bench_peers.DIM * 4
    skipped += [
        f"{peer.name}: it loads what others map, and memory is short" for peer in peers if not peer.mapped and short
    ]
    peers = [peer for peer in peers if peer.mapped or not short]
    print("\n".join(skipped))
    work = Path(tempfile.mkdtemp(dir=folder))
    started = time.perf_counter()
    try:
        rows = bench_peers.make_rows(work, n)
        made = bench_peers.ingest(peers, work, rows)
        bench_peers.share_rows(work)
        times, other = bench_peers.measure(peers, work, rows, rounds, cold=False)
    finally:
        shutil.rmtree(work)
    seconds = time.perf_counter() - started
    return {**figures(times, made, other), "rounds": rounds, "run_seconds": seconds, "left_out": skipped}


def write_tables() -> None:
    """Put into README what follows from data/speed.json."""
    told = json.loads(SPEED.read_text())
    text = replaced(README.read_text(), "speed", speed_tables(told))
    README.write_text(replaced(text, "scale", scale_table(told)))


def main() -> None:
    """Measure, or only write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000000,100000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=PEERS_HERE)
    parser.add_argument("--work", type=Path, help="folder for the files; a temporary one by default")
    parser.add_argument("--output", type=Path, help=f"instead of {SPEED.name}; README is left as it is")
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    if not chosen.tables:
        told = {"machine": bench_peers.machine(), "dim": bench_peers.DIM, "sizes": {}}
        for n in map(int, chosen.sizes.split(",")):
            told["sizes"][str(n)] = run(n, chosen.rounds, chosen.peers, chosen.work)
        (chosen.output or SPEED).write_text(json.dumps(told, indent=1) + "\n")
    if not chosen.output:
        write_tables()


if __name__ == "__main__":
    main()
