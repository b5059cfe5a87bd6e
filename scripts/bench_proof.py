"""Hold the int8 index against the scan: the same bits for every query, and what an answer costs.

    python scripts/bench_proof.py --output bench/proof.json              # a million rows of each kind, 10 minutes
    python scripts/bench_proof.py --rows 100000

For each kind of rows a store is made, and indexed. Queries near a row, like a text (far from all rows, towards their
middle) and in any direction are answered by the index alone and by the scan; every difference is counted, so are the
queries that the index leaves to others because too many rows come close. Then top-20 is timed in rounds: the index,
FAISS fp16 over the same rows, and the limit, in which all cores read the vectors from memory once. Where all rows are
equal every answer is the whole store, so that few queries are asked. Ends with status 1 where a bit differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from bench_peers import Limit, machine

from embedstore import EmbedStore
from embedstore.searching import scan
from embedstore.searching.index import PATIENCE
from embedstore.searching.shortlist import Shortlist
from embedstore.vectors import normalise

DIM, K = 768, 20
BLOCK = 20_000
KINDS = ("spread", "clustered", "duplicated", "constant")
SHARES = {"spread": 1.0, "clustered": 0.3, "duplicated": 0.3, "constant": 0.03}
"""Of the number of queries that is asked for: an answer of duplicated or constant rows holds all that tie."""
TOGETHER = {"spread": 50, "clustered": 50, "duplicated": 50, "constant": 3}
"""Queries that are scanned at once."""
HEAD = "| rows | queries | asked | to the bit | differ | left to the scan |"
TIMES = "| rows | bytes a row | int8, proven | FAISS fp16 | the limit | int8 in limits | int8 / fp16 |"


def blocks(kind: str, n: int) -> Iterator[np.ndarray]:
    """Yield `n` unit vectors: with some structure, in tight clusters, each a thousandth of the rows, or all equal."""
    random = np.random.default_rng(7)
    middle, centres = (random.standard_normal((count, DIM), dtype=np.float32) for count in (1, 1000))
    for start in range(0, n, BLOCK):
        count = min(BLOCK, n - start)
        chosen = random.integers(0, len(centres), count)
        if kind == "constant":
            rows = np.repeat(middle, count, axis=0)
        elif kind == "duplicated":
            rows = centres[chosen] + middle
        else:
            noise = random.standard_normal((count, DIM), dtype=np.float32)
            rows = 0.02 * noise + centres[chosen]
            if kind == "spread":
                rows = noise + 0.7 * centres[chosen % 200] + 0.7 * middle
        yield normalise(rows.astype(np.float32))


def made(folder: Path, kind: str, n: int) -> tuple[EmbedStore, dict[str, float]]:
    """Make a store of such rows, indexed, and say what that took."""
    npy = folder / "rows.npy"
    rows = np.lib.format.open_memmap(npy, "w+", np.float32, (n, DIM))
    done = 0
    for block in blocks(kind, n):
        rows[done : done + len(block)] = block
        done += len(block)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), DIM)
    store = EmbedStore.create(folder / "rows.store", space="bench", dim=DIM)
    table = pa.table({"id": [f"{row:08}" for row in range(n)], "vector": lists})
    store.add(table, embedding_column="vector", progress=False)
    del table, lists, rows
    npy.unlink()  # the store's own parts are read from now on
    report = store.index("int8")
    return store, {"bytes_per_row": report.bytes / n, "seconds_to_index": report.seconds}


def asked(store: EmbedStore, count: int) -> dict[str, np.ndarray]:
    """Return queries of three kinds, `count` in all."""
    random = np.random.default_rng(11)
    each = -(-count // 3)
    near = store.rows.vectors(random.integers(0, len(store), each))
    noise = random.standard_normal((3, each, DIM)) / np.sqrt(DIM)
    middle = store.rows.vectors(np.arange(0, len(store), max(1, len(store) // 10_000))).mean(axis=0)
    return {
        "near a row": normalise((near + 0.2 * noise[0]).astype(np.float32)),
        "like a text": normalise((0.1 * middle + 0.05 * near + 0.3 * noise[1]).astype(np.float32)),
        "any direction": normalise(noise[2].astype(np.float32)),
    }


def compare(store: EmbedStore, queries: dict[str, np.ndarray], together: int) -> dict[str, dict[str, int]]:
    """Return for each kind of query how many answers of the index are those of the scan to the bit."""
    parts, executor = store.snapshot.parts, scan.Threads()
    indexes = store.reader.index_files.get_all(parts, "int8", executor)
    shortlist, found = Shortlist(parts, indexes, None, executor), {}
    for kind, many in queries.items():
        counted = {"asked": len(many), "same": 0, "differ": 0, "left": 0}
        for start in range(0, len(many), together):
            some = many[start : start + together]
            exact = scan.nearest(parts, some, K, None, executor)
            for number, query in enumerate(some[:, np.newaxis]):
                answer = shortlist.nearest(query, K)
                if answer is None:
                    counted["left"] += 1
                else:
                    counted["same" if in_order(answer, 0) == in_order(exact, number) else "differ"] += 1
        found[kind] = counted
    return found


def in_order(found: scan.PartialScan, number: int) -> tuple[bytes, bytes]:
    """Return positions and scores of one answer, ascending by position."""
    order = np.argsort(found.positions[number])
    return found.positions[number][order].tobytes(), found.scores[number][order].tobytes()


def race(store: EmbedStore, queries: np.ndarray) -> dict[str, list[float]]:
    """Return the seconds of a top-20 and of the limit, each asked in turn."""
    import faiss

    groups = [group for part in store.snapshot.parts for group in part.groups()]
    half = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for group in groups:
        half.add(np.ascontiguousarray(group))
    cores = len(os.sched_getaffinity(0))
    for number in range(2 + PATIENCE // (len(store) * DIM * 4)):  # until the index is used
        store.search(queries[number % len(queries)] + 1e-3 * number, K)
    limit = Limit(groups)

    def by_faiss(query: np.ndarray) -> Any:
        faiss.omp_set_num_threads(cores)  # the index sets one for each of its threads
        return half.search(query[np.newaxis], K)

    racers: dict[str, Callable[[np.ndarray], Any]] = {
        "limit": lambda query: limit.read(),
        "int8": lambda query: store.search(query, K).score,
        "fp16": by_faiss,
    }
    times: dict[str, list[float]] = {name: [] for name in racers}
    for query in queries:
        for name, racer in racers.items():
            time.sleep(0.02)
            started = time.perf_counter()
            racer(query)
            times[name].append(time.perf_counter() - started)
    return times


def measured(kind: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Make rows of one kind; return what was found of them."""
    folder = Path(tempfile.mkdtemp(dir=chosen.work))
    started = time.perf_counter()
    try:
        store, about = made(folder, kind, chosen.rows)
        queries = asked(store, max(3, round(chosen.queries * SHARES[kind])))
        compared = compare(store, queries, TOGETHER[kind])
        mixed = np.random.default_rng(3).permutation(np.concatenate(list(queries.values())))
        times = race(store, np.stack(list(itertools.islice(itertools.cycle(mixed), chosen.rounds))))
    finally:
        shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # the mapped parts are in it
    return {**about, "compared": compared, "times": times, "seconds": time.perf_counter() - started, "peak_bytes": peak}


def lines(kind: str, found: dict[str, Any]) -> tuple[list[str], str]:
    """Return the lines of the two tables that one kind of rows has."""
    middle = {name: float(np.median(times)) * 1e3 for name, times in found["times"].items()}
    compared = [
        f"| {kind} | {name} | {one['asked']} | {one['same']} | {one['differ']} | {one['left']} |"
        for name, one in found["compared"].items()
    ]
    shown = " | ".join(f"{middle[name]:.1f} ms" for name in ("int8", "fp16", "limit"))
    ratios = f"{middle['int8'] / middle['limit']:.2f} | {middle['int8'] / middle['fp16']:.2f}"
    return compared, f"| {kind} | {found['bytes_per_row']:,.0f} | {shown} | {ratios} |"


def main() -> None:
    """Make the rows, the stores and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000, help="of three kinds, in all; fewer where rows are equal")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of rows, with commas")
    parser.add_argument("--work", type=Path, help="folder for the files, 7 GB; a temporary one by default")
    parser.add_argument("--output", type=Path, help="a JSON file")
    chosen = parser.parse_args()
    results = {}
    for kind in chosen.kinds.split(","):
        results[kind] = measured(kind, chosen)
        print(f"{kind}: {results[kind]['seconds']:.0f} s", *lines(kind, results[kind])[0], sep="\n", flush=True)
        if chosen.output:
            chosen.output.parent.mkdir(parents=True, exist_ok=True)
            about = {"machine": machine(), "rows": chosen.rows, "k": K, "kinds": results}
            chosen.output.write_text(json.dumps(about, indent=1) + "\n")
    told = [lines(kind, found) for kind, found in results.items()]
    print(f"\n{HEAD}\n{'|---' * 6}|", *(line for compared, _ in told for line in compared), sep="\n")
    print(f"\n{TIMES}\n{'|---' * 7}|", *(line for _, line in told), sep="\n")
    sys.exit(any(one["differ"] for found in results.values() for one in found["compared"].values()))


if __name__ == "__main__":
    main()
