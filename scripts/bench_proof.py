"""Hold the int8 index against the scan: the same bits for every query, and what an answer costs.

    python scripts/bench_proof.py --rows 1000000 --kinds spread --queries 1000
    python scripts/bench_proof.py --rows 100000

For each kind of rows a store is made, and indexed. Queries near a row, like a text (far from all rows, towards their
middle) and in any direction are answered by the index alone and by the scan; every difference is counted, so are the
queries that the index leaves to others because too many rows come close. Then top-20 is timed in rounds: the index,
FAISS fp16 over the same rows, and the limit, in which all cores read the vectors from memory once.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from bench_peers import Limit

from embedstore import EmbedStore
from embedstore.searching import scan
from embedstore.searching.index import PATIENCE
from embedstore.searching.shortlist import Shortlist
from embedstore.vectors import normalise

DIM, K = 768, 20
BLOCK = 20_000
KINDS = ("spread", "clustered", "duplicated", "constant")


def blocks(kind: str, n: int) -> Iterator[np.ndarray]:
    """Yield `n` unit vectors: with some structure, in tight clusters, each a thousand times there, or all equal."""
    random = np.random.default_rng(7)
    middle, centres = random.standard_normal((1, DIM)), random.standard_normal((1000, DIM))
    for start in range(0, n, BLOCK):
        count = min(BLOCK, n - start)
        noise = random.standard_normal((count, DIM))
        chosen = random.integers(0, len(centres), count)
        yield normalise(
            {
                "spread": noise + 0.7 * centres[chosen % 200] + 0.7 * middle,
                "clustered": 0.02 * noise + centres[chosen],
                "duplicated": centres[chosen] + middle,
                "constant": np.repeat(middle, count, axis=0),
            }[kind].astype(np.float32)
        )


def made(folder: Path, kind: str, n: int) -> tuple[EmbedStore, Path]:
    """Make a store of such rows, indexed, and a .npy file of the same."""
    npy = folder / "rows.npy"
    rows = np.lib.format.open_memmap(npy, "w+", np.float32, (n, DIM))
    done = 0
    for block in blocks(kind, n):
        rows[done : done + len(block)] = block
        done += len(block)
    rows.flush()
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), DIM)
    store = EmbedStore.create(folder / "rows.store", space="bench", dim=DIM)
    store.add(
        pa.table({"id": [f"{row:08}" for row in range(n)], "vector": lists}), embedding_column="vector", progress=False
    )
    report = store.index("int8")
    print(f"{kind}: {n:,} rows, index of {report.bytes / n:,.1f} bytes a row, made in {report.seconds:.0f} s")
    return store, npy


def asked(rows: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Return queries of three kinds, `count` in all."""
    random = np.random.default_rng(11)
    each = -(-count // 3)
    near = rows[random.integers(0, len(rows), each)]
    noise = random.standard_normal((3, each, DIM)) / np.sqrt(DIM)
    middle = rows[:: max(1, len(rows) // 10_000)].mean(axis=0)
    return {
        "near a row": normalise((near + 0.2 * noise[0]).astype(np.float32)),
        "like a text": normalise((0.1 * middle + 0.05 * near + 0.3 * noise[1]).astype(np.float32)),
        "any direction": normalise(noise[2].astype(np.float32)),
    }


def compare(store: EmbedStore, queries: dict[str, np.ndarray]) -> None:
    """Print for each kind of query how many answers of the index are those of the scan to the bit."""
    parts, executor = store.snapshot.parts, scan.Threads()
    indexes = store.reader.index_files.get_all(parts, "int8", executor)
    shortlist = Shortlist(parts, indexes, None, executor)
    for kind, many in queries.items():
        same = other = left = 0
        for start in range(0, len(many), 50):
            some = many[start : start + 50]
            exact = scan.nearest(parts, some, K, None, executor)
            for number, query in enumerate(some[:, np.newaxis]):
                found = shortlist.nearest(query, K)
                if found is None:
                    left += 1
                elif in_order(found, 0) == in_order(exact, number):
                    same += 1
                else:
                    other += 1
        print(f"    {kind:14} {same} of {len(many)} to the bit, {other} differ, {left} left to the scan", flush=True)


def in_order(found: scan.PartialScan, number: int) -> tuple[bytes, bytes]:
    """Return positions and scores of one answer, ascending by position."""
    order = np.argsort(found.positions[number])
    return found.positions[number][order].tobytes(), found.scores[number][order].tobytes()


def race(store: EmbedStore, npy: Path, queries: np.ndarray) -> None:
    """Print the times of a top-20 and of the limit, each asked in turn."""
    import faiss

    rows = np.load(npy, mmap_mode="r").view(np.ndarray)
    half = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for start in range(0, len(rows), BLOCK):
        half.add(np.ascontiguousarray(rows[start : start + BLOCK]))
    cores = faiss.omp_get_max_threads()
    for number in range(2 + PATIENCE // rows.nbytes):  # until the index is used
        store.search(queries[number % len(queries)] + 1e-3 * number, K)
    limit = Limit(npy)

    def by_faiss(query: np.ndarray) -> Any:
        faiss.omp_set_num_threads(cores)  # the index sets one for each of its threads
        return half.search(query[np.newaxis], K)

    racers: dict[str, Callable[[np.ndarray], Any]] = {
        "memory limit": lambda query: limit.read(),
        "int8, proven": lambda query: store.search(query, K).score,
        "FAISS fp16": by_faiss,
    }
    times: dict[str, list[float]] = {name: [] for name in racers}
    for query in queries:
        for name, racer in racers.items():
            time.sleep(0.02)
            started = time.perf_counter()
            racer(query)
            times[name].append(time.perf_counter() - started)
    for name, found in times.items():
        least, middle = min(found), float(np.median(found))
        share = [least / min(times["memory limit"]), middle / float(np.median(times["memory limit"]))]
        print(
            f"    {name:14} least {least * 1e3:.1f} ms ({share[0]:.2f} of the limit), "
            f"median {middle * 1e3:.1f} ms ({share[1]:.2f})"
        )


def main() -> None:
    """Make the rows, the stores and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300, help="of three kinds, in all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of rows, with commas")
    parser.add_argument("--work", type=Path, help="folder for the files; a temporary one by default")
    chosen = parser.parse_args()
    for kind in chosen.kinds.split(","):
        folder = Path(tempfile.mkdtemp(dir=chosen.work))
        try:
            store, npy = made(folder, kind, chosen.rows)
            queries = asked(np.load(npy, mmap_mode="r").view(np.ndarray), chosen.queries)
            compare(store, queries)
            race(
                store,
                npy,
                np.random.default_rng(3).permutation(np.concatenate(list(queries.values())))[: chosen.rounds],
            )
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
