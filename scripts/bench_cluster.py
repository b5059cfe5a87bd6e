"""What a Ray cluster costs: the same questions by threads of this process and by the workers of one node, by turns.

    scripts/in_venv python scripts/bench_cluster.py [--rows 1000000] [--dim 768] [--rounds 15] [--folder /dev/shm]

A store of random unit vectors is made in `--folder` and deleted afterwards; a node is started on this machine with a
worker for each core, whose start is not counted. Each round asks every question of both, with a query that none has
been asked before, so no score is kept. Printed: the least and the median of each, and their ratio; `--json FILE` writes
them. `ratio` is to the median, `least` to the least: on a machine with other work the latter tells more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.searching.queries import Query
from embedstore.settings import cores
from embedstore.storage import parts
from embedstore.storage.folder import own_columns
from embedstore.store import EmbedStore

THRESHOLDS = np.linspace(-1, 1, 201)

Ask = Callable[[EmbedStore, Any, Path], Any]
QUESTIONS: dict[str, Ask] = {
    "search, top 20": lambda store, query, _: store.search(query, k=20).score,
    "count": lambda store, query, _: store.count(query, 0.1),
    "classify, matches": lambda store, query, _: store.classify(query, 0.084).score,
    "classify, a folder": lambda store, query, to: store.write_matches(to, query, 0.084).matches,
    "sweep, counted": lambda store, query, _: store.sweep(query, thresholds=THRESHOLDS).columns()["matches"],
    "sweep, counted, 2% labelled": lambda store, query, _: store.sweep(
        query, "kind=yes", thresholds=THRESHOLDS
    ).columns()["f1"],
    "sweep, every score": lambda store, query, _: store.sweep(query, noise=False).scores,
}
"""About 1% of random vectors of 768 components score more than 0.084."""


def make(path: Path, rows: int, dim: int) -> None:
    """Write a store of random unit vectors, a part at a time; it is laid out as `add` lays it out."""
    columns, random = own_columns().append(pa.field("kind", pa.string())), np.random.default_rng(0)
    images = EmbedStore.create(path, space="random", dim=dim).folder.images

    def group(first: int, number: int) -> tuple[pa.Table, np.ndarray]:
        vectors = random.standard_normal((number, dim), np.float32)
        vectors /= np.sqrt(np.vecdot(vectors, vectors))[:, np.newaxis]
        known = random.random(number) < 0.02
        yes = vectors[:, 0] > 0.05
        labels = [
            ("yes" if is_yes else "no") if is_known else None for is_known, is_yes in zip(known, yes, strict=True)
        ]
        cells = {
            "id": [f"{row:032x}" for row in range(first, first + number)],
            "uri": [f"/photos/2024/{row // 1000:04}/IMG_{row:07}.jpg" for row in range(first, first + number)],
            "kind": labels,
        }
        return pa.table({name: cells.get(name, [None] * number) for name in columns.names}, schema=columns), vectors

    made = []
    for start in range(0, rows, parts.ROWS_PER_PART):
        end = min(start + parts.ROWS_PER_PART, rows)
        pieces = range(start, end, parts.ROWS_PER_GROUP)
        made.append(images.new_part((group(at, min(parts.ROWS_PER_GROUP, end - at)) for at in pieces), columns))
    images.commit(made, base=images.snapshot(), operation="bench", new_fields=[columns.field("kind")])


def same(left: Any, right: Any) -> bool:
    """Tell whether two answers are equal."""
    return bool(np.array_equal(np.asarray(left), np.asarray(right)))


def measure(stores: dict[str, EmbedStore], rounds: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Ask every question of each store in each round; the first round is not counted."""
    taken: dict[str, dict[str, list[float]]] = {what: {name: [] for name in stores} for what in QUESTIONS}
    for number in range(rounds + 1):
        for place, (what, ask) in enumerate(QUESTIONS.items()):
            vector = np.random.default_rng([number, place]).standard_normal(stores["threads"].space.dim)
            names = list(stores) if number % 2 else list(reversed(stores))
            answers = []
            for name in names:
                started = time.perf_counter()
                answers.append(ask(stores[name], Query.vector(vector), folder / f"matches-{name}"))
                if number:
                    taken[what][name].append(time.perf_counter() - started)
            assert same(*answers), what
    return taken


def main() -> None:
    """Make the store, start the node, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-cluster-", dir=chosen.folder))
    try:
        make(folder / "s.store", chosen.rows, chosen.dim)
        stores = {
            "threads": EmbedStore.open(folder / "s.store"),
            "ray": EmbedStore.open(folder / "s.store", executor="ray"),
        }
        taken = measure(stores, chosen.rounds, folder)
    finally:
        shutil.rmtree(folder)
    print(f"{chosen.rows:,} rows of {chosen.dim}, {chosen.rounds} rounds, load {os.getloadavg()[0]:.1f}, milliseconds")
    print(f"{'':30}{'threads':>16}{'ray':>16}{'ratio':>8}{'least':>8}")
    figures = {}
    for what, times in taken.items():
        middle = {name: 1e3 * statistics.median(found) for name, found in times.items()}
        least = {name: 1e3 * min(found) for name, found in times.items()}
        ratios = middle["ray"] / middle["threads"], least["ray"] / least["threads"]
        cells = [f"{least[name]:7.1f} {middle[name]:7.1f} " for name in ("threads", "ray")]
        print(f"{what:30}{''.join(cells)}{ratios[0]:8.2f}{ratios[1]:8.2f}")
        figures[what] = {"median": middle, "least": least, "ratio": ratios[0], "ratio_of_least": ratios[1]}
    if chosen.json is not None:
        told = {"rows": chosen.rows, "dim": chosen.dim, "cores": cores(), "figures": figures}
        chosen.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
