"""Measure the store beside its peers, on the same rows, in one run.

    python scripts/bench_peers.py --n 100000 --output bench/

Peers that are not installed are skipped, and named. Every work is repeated in rounds, each round asking each peer
once, so that a busy moment of the machine meets all of them; medians with the span of the middle half are printed,
and ratios within this run. The limit is the time in which all threads together read the vectors' bytes from memory,
measured in the same rounds. Writes `peers-N.md`, `peers-N.json` and, where matplotlib is installed, `peers-N.png`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from peers import DIM, PEERS, Peer, Rows

K = 20
QUERIES = 240
LIMIT = "memory limit"
Times = dict[str, dict[str, list[float]]]

WORKS = {
    "start": "new process to first top-20",
    "start_uris": "new process to first top-20 with uris",
    "top": "warm top-20",
    "rows": "warm top-20 with uris",
    "many": "100 queries, top-20",
    "above1": "all rows over t, 1 %",
    "above30": "all rows over t, 30 %",
    "filtered": "top-20 of the 10 % that a filter keeps",
    "sweep": "1,000 thresholds of a new query",
    "further": "a further threshold of a scored query",
}


def machine() -> dict[str, Any]:
    """Return what the figures depend on: the processor, the memory, versions, and what else was running."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = ("numpy", "pyarrow", "faiss-cpu", "usearch", "numkong", "deltalake", "duckdb")
    versions = {name: metadata.version(name) for name in names if _distribution(name)}
    return {
        "processor": next((line.split(":")[1].strip() for line in cpu.splitlines() if "model name" in line), ""),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "versions": versions,
        "load": os.getloadavg()[0],
        "date": str(date.today()),
    }


def _distribution(name: str) -> bool:
    """Tell whether a package is installed."""
    return any(metadata.distributions(name=name))


def make_rows(folder: Path, n: int) -> Rows:
    """Write `n` unit vectors with some structure: a common direction, clusters, noise."""
    random = np.random.default_rng(7)
    middle = _unit(random.standard_normal((1, DIM), dtype=np.float32))
    centres = random.standard_normal((200, DIM), dtype=np.float32)
    npy = folder / "rows.npy"
    vectors = np.lib.format.open_memmap(npy, "w+", np.float32, (n, DIM))
    for start in range(0, n, 20_000):
        block = vectors[start : start + 20_000]
        noise = random.standard_normal(block.shape, dtype=np.float32)
        block[:] = _unit(noise + 0.7 * centres[random.integers(0, 200, len(block))] + 20 * middle)
    vectors.flush()
    noise = random.standard_normal((QUERIES, DIM), dtype=np.float32)
    np.save(folder / "queries.npy", _unit(noise + 3 * middle + 0.3 * centres[random.integers(0, 200, QUERIES)]))
    digits = random.bytes(16 * n).hex(), random.bytes(32 * n).hex()
    return Rows(
        npy,
        [digits[0][32 * i : 32 * i + 32] for i in range(n)],
        [f"photos/{i:09d}.jpg" for i in range(n)],
        [digits[1][64 * i : 64 * i + 64] for i in range(n)],
        random.integers(0, 10, n),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Limit:
    """Reads the bytes of mapped float32 vectors with all threads, and does next to nothing with them."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        size = 2**21
        words = (block.view(np.ndarray).reshape(-1).view(np.int64) for block in blocks)
        self._pieces = [block[n : n + size] for block in words for n in range(0, len(block), size)]
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def read(self) -> None:
        """Read everything once."""
        list(self._pool.map(np.max, self._pieces))


def installed(chosen: str | None, n: int) -> tuple[list[type[Peer]], list[str]]:
    """Return the peers to measure, and a word on each that is left out."""
    wanted = [name.strip() for name in chosen.split(",")] if chosen else None
    peers, skipped = [], []
    for peer in PEERS:
        missing = [module for module in peer.needs if importlib.util.find_spec(module) is None]
        if wanted is not None and peer.name not in wanted:
            continue
        if missing:
            skipped.append(f"{peer.name}: {missing[0]} is not installed")
        elif n > peer.largest and wanted is None:
            skipped.append(f"{peer.name}: measured up to {peer.largest:,} rows; name it with --peers to have it anyway")
        else:
            peers.append(peer)
    return peers, skipped


def ingest(peers: list[type[Peer]], work: Path, rows: Rows) -> dict[str, dict[str, float]]:
    """Let each peer make its files; return rows a second and bytes a row."""
    found = {}
    for kind in peers:
        folder = folder_of(kind, work)
        folder.mkdir()
        started = time.perf_counter()
        kind(folder).ingest(rows)
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        found[kind.name] = {"rows_per_second": len(rows.ids) / seconds, "bytes_per_row": size / len(rows.ids)}
        print(f"{kind.name:22} {found[kind.name]['rows_per_second']:10,.0f} rows/s  {size / len(rows.ids):8,.1f} B/row")
    return found


def share_rows(work: Path) -> None:
    """Let NumPy's file be the one that the limit is measured on: a million rows should fit in memory a few times."""
    twin = work / "numpy" / "rows.npy"
    if twin.exists():
        (work / "rows.npy").unlink()
        (work / "rows.npy").hardlink_to(twin)


def folder_of(kind: type[Peer], work: Path) -> Path:
    """Return where a peer's files are."""
    return work / kind.name


def start(kind: type[Peer], work: Path, number: int, *more: str) -> dict[str, Any]:
    """Ask one question in a new process, or more."""
    command = [sys.executable, str(Path(__file__).with_name("bench_start.py")), kind.name]
    command += [str(folder_of(kind, work)), str(work / "queries.npy"), str(number), *more]
    started = time.perf_counter()
    # Packages are installed with their bytecode; without it this project alone would be compiled each time.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    answer["process"] = time.perf_counter() - started
    return answer


def forget(folder: Path) -> None:
    """Ask the kernel to drop a folder's files from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(
    peers: list[type[Peer]], work: Path, rows: Rows, rounds: int, cold: bool = True
) -> tuple[Times, dict[str, Any]]:
    """Measure every work in rounds; `cold`: also the first question with nothing in the page cache."""
    times: Times = {work_name: {} for work_name in WORKS}
    other: dict[str, Any] = {"cold start": {}, "peak MB": {}, "recall": {}}
    queries = np.load(work / "queries.npy")
    limit = Limit([np.load(rows.npy, mmap_mode="r")])
    for kind in peers if cold else ():
        forget(folder_of(kind, work))
        other["cold start"][kind.name] = start(kind, work, 0)["process"]
    for number in range(rounds):
        for kind in peers:
            times["start"].setdefault(kind.name, []).append(start(kind, work, number)["process"])
            if kind.has_records:
                uris = start(kind, work, number, "uris")["process"]
                times["start_uris"].setdefault(kind.name, []).append(uris)
    for kind in peers:
        other["peak MB"][kind.name] = start(kind, work, 0, "all")["megabytes"]
    opened = [kind(folder_of(kind, work)) for kind in peers]
    for peer in opened:
        peer.open()
        peer.warm(queries[200:208])
        _try(peer.filtered, queries[200], K)
    thresholds = Thresholds(rows.npy, queries)
    truth = {number: thresholds.nearest(number) for number in range(rounds)}
    for peer in opened:
        found = [len(np.intersect1d(peer.top(queries[n], K), truth[n])) for n in truth]
        other["recall"][peer.name] = sum(found) / (K * len(found))
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}")
        _round(times, opened, limit, queries, thresholds, number)
    return times, other


class Thresholds:
    """Scores of chosen queries in float64, for true answers and for thresholds that keep a share of the rows."""

    def __init__(self, npy: Path, queries: np.ndarray) -> None:
        self._rows = np.load(npy, mmap_mode="r").view(np.ndarray)
        self._queries = queries
        self._scores: dict[int, np.ndarray] = {}

    def scores(self, number: int) -> np.ndarray:
        """Return the scores of a query."""
        if number not in self._scores:
            self._scores = {number: np.vecdot(self._rows, self._queries[number])}
        return self._scores[number]

    def nearest(self, number: int) -> np.ndarray:
        """Return the numbers of the nearest rows."""
        scores = self.scores(number)
        return np.lexsort((np.arange(len(scores)), -scores))[:K]

    def keeping(self, number: int, share: float) -> float:
        """Return a threshold that this share of the rows exceeds."""
        return float(np.quantile(self.scores(number), 1 - share))


def _round(
    times: Times, opened: list[Peer], limit: Limit, queries: np.ndarray, thresholds: Thresholds, number: int
) -> None:
    """Ask each peer once for each work; each asks for another query, as scores may be kept."""
    one, thirty, swept = 100 + number, 130 + number, 160 + number
    over = {query: thresholds.keeping(query, share) for query, share in ((one, 0.01), (thirty, 0.3))}
    many = np.quantile(thresholds.scores(swept), np.linspace(0.5, 0.999, 1000))
    works: dict[str, Callable[[Peer], Any]] = {
        "top": lambda peer: peer.nearest(queries[number], K),
        "rows": lambda peer: peer.top(queries[20 + number], K),
        "many": lambda peer: peer.top_of_many(queries[:100], K),
        "above1": lambda peer: peer.above(queries[one], over[one]),
        "above30": lambda peer: peer.above(queries[thirty], over[thirty]),
        "filtered": lambda peer: peer.filtered(queries[200 + number], K),
        "sweep": lambda peer: peer.sweep(queries[swept], many),
    }
    for name, ask in works.items():
        times[name].setdefault(LIMIT, []).append(_seconds(limit.read))
        for peer in opened:
            if name == "many" and number > 2:  # enough of the slow ones
                continue
            seconds = _seconds(lambda peer=peer, ask=ask: _try(ask, peer))
            if seconds > 0:
                times[name].setdefault(peer.name, []).append(seconds)
    rows = np.load(opened[0].folder.parent / "rows.npy", mmap_mode="r").view(np.ndarray)
    times["above1"].setdefault("one gemv", []).append(_seconds(lambda: rows @ queries[number]))
    for peer in opened:
        if hasattr(peer, "store"):
            times["further"].setdefault(peer.name, []).append(_further(peer.store, queries[swept], many))


def _further(store: Any, query: np.ndarray, thresholds: np.ndarray) -> float:
    """Return the seconds of one more count of a query that was counted before."""
    store.count(query, 0.1)
    started = time.perf_counter()
    for threshold in thresholds.tolist():
        store.count(query, threshold)
    return (time.perf_counter() - started) / len(thresholds)


def _try(ask: Callable[..., Any], *arguments: Any) -> Any:
    """Ask; a peer without such a question answers with nothing."""
    try:
        return ask(*arguments)
    except NotImplementedError:
        return NotImplemented


def _seconds(ask: Callable[[], Any]) -> float:
    """Return how long a question takes; minus one where it cannot be asked."""
    time.sleep(0.02)  # BLAS threads go on spinning for a while after a product
    started = time.perf_counter()
    answer = ask()
    return -1.0 if answer is NotImplemented else time.perf_counter() - started


def report(n: int, skipped: list[str], made: dict[str, Any], times: Times, other: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    exact = [peer.name for peer in PEERS if peer.exact and not peer.name.startswith("embedstore")]
    lines = [
        f"# {n:,} rows of {DIM} components",
        "",
        f"{date.today()}, {platform.machine()}, {len(os.sched_getaffinity(0))} cores. Medians, with the span of the "
        "middle half in brackets; `x` is the ratio to the best exact peer, `lim` that to the time in which all cores "
        "read the vectors from memory.",
        "",
        "| | rows/s in | bytes/row | " + " | ".join(WORKS.values()) + " | cold start | peak private MB | recall@20 |",
        "|---" * (len(WORKS) + 6) + "|",
    ]
    for name in [LIMIT, "one gemv", *made]:
        cells = [_cell(times[work], name, exact) for work in WORKS]
        if name in made:
            before = [f"{made[name]['rows_per_second']:,.0f}", f"{made[name]['bytes_per_row']:,.0f}"]
            after = [
                f"{other['cold start'][name]:.2f} s" if name in other["cold start"] else "",
                f"{other['peak MB'][name]:.0f}",
                f"{other['recall'][name]:.3f}",
            ]
        else:
            before, after = ["", ""], ["", "", ""]
        lines.append(f"| {name} | " + " | ".join(before + cells + after) + " |")
    return "\n".join([*lines, "", *(f"Left out: {word}." for word in skipped), ""])


def _cell(times: dict[str, list[float]], name: str, exact: list[str]) -> str:
    """Return a median with its spread and ratios."""
    if not times.get(name):
        return ""
    low, middle, high = np.quantile(times[name], [0.25, 0.5, 0.75])
    text = f"{_time(middle)} [{_time(low)}-{_time(high)}]"
    best = min((float(np.median(times[other])) for other in exact if times.get(other)), default=None)
    if best is not None and name not in (LIMIT, "one gemv"):
        text += f" {middle / best:.2f}x"
    if times.get(LIMIT) and name != LIMIT:
        text += f" {middle / float(np.median(times[LIMIT])):.2f} lim"
    return text


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def plot(n: int, times: Times, file: Path) -> None:
    """Draw the medians, one panel for each work."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    works = [work for work in WORKS if work != "further" and times[work]]
    figure, axes = pyplot.subplots(2, 6, figsize=(28, 8), layout="constrained")
    for axis, work in zip(axes.flat, works, strict=False):
        names = list(times[work])[::-1]
        values = [float(np.median(times[work][name])) * 1e3 for name in names]
        colours = ["#d62728" if name.startswith("embedstore") else "#7f7f7f" for name in names]
        axis.barh(names, values, color=colours)
        axis.set(title=WORKS[work], xscale="log", xlabel="ms, log scale")
    for axis in list(axes.flat)[len(works) :]:
        axis.set_axis_off()
    figure.suptitle(f"{n:,} rows of {DIM} components")
    figure.savefig(file, dpi=100)


def main() -> None:
    """Make the rows, the stores, the measurements and the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="number of rows")
    parser.add_argument("--peers", help="names, with commas; all that are installed by default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("bench"))
    parser.add_argument("--work", type=Path, help="folder for the files; a temporary one by default")
    chosen = parser.parse_args()
    peers, skipped = installed(chosen.peers, chosen.n)
    print("\n".join(skipped))
    work = Path(tempfile.mkdtemp(dir=chosen.work))
    try:
        rows = make_rows(work, chosen.n)
        made = ingest(peers, work, rows)
        share_rows(work)
        times, other = measure(peers, work, rows, chosen.rounds)
    finally:
        shutil.rmtree(work)
    chosen.output.mkdir(parents=True, exist_ok=True)
    raw = {"n": chosen.n, "made": made, "times": times, "other": other}
    (chosen.output / f"peers-{chosen.n}.json").write_text(json.dumps(raw, indent=1))
    text = report(chosen.n, skipped, made, times, other)
    (chosen.output / f"peers-{chosen.n}.md").write_text(text)
    if importlib.util.find_spec("matplotlib"):
        plot(chosen.n, times, chosen.output / f"peers-{chosen.n}.png")
    print(text)


if __name__ == "__main__":
    main()
