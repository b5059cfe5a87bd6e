"""Adders, searchers, a compacter and a vacuumer on one store at once: each answer is that of one committed version.

Rows come in batches whose ids and vectors follow from their numbers, so that a searcher can tell by brute force what
the rows of its version give. Every process writes down what it did and when; at the end it is checked that each reader
saw whole batches only, all that were committed before it opened, none that came later, and that nothing is lost.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from torturing.commands import DIM, vectors
from torturing.figures import Figures
from torturing.forks import Ended, forking
from torturing.look import brute_force
from torturing.work import LONGEST, Work, short

ADDERS, SEARCHERS = 4, 4
BATCHES = 30
"""Batches that one adder keeps; it removes the oldest one then."""
_SEARCHES = 25
"""Searches of one reader before it moves on to the newest version."""


def run(work: Work) -> Figures:
    """Let them race until the time is up."""
    figures = Figures("races")
    store = work.folder / "s.store"
    with forking(work.folder / "jobs", {"EMBEDSTORE_OFFLINE": "1", "HOME": str(work.folder)}) as forks:
        made = forks.call("torturing.races:make", str(store))
        if made.exit:
            raise RuntimeError(f"the store cannot be made: {made.said}")
        until = max(work.started + work.seconds * 0.9, time.monotonic() + 3)
        names = [
            *(f"adder {number}" for number in range(ADDERS)),
            *(f"searcher {number}" for number in range(SEARCHERS)),
            *("compacter 0", "vacuumer 0"),
        ]
        jobs = []
        for name in names:
            journal = work.folder / f"{name}.jsonl"
            jobs.append(
                (name, journal, forks.begin("torturing.races:race", name, str(store), str(journal), work.seed, until))
            )
        for name, journal, job in jobs:
            _gather(figures, name, journal, job.wait(6 * LONGEST, beats=journal))
        _check(figures, [entry for name in names for entry in _entries(work.folder / f"{name}.jsonl")])
        seen = forks.call("torturing.look:look", str(store), seconds=6 * LONGEST)
        if not seen.value or seen.value.get("problems") != []:
            figures.add("other", "the end", f"the store is not sound: {short(seen.value or seen.said)}")
        else:
            _check_end(figures, seen.value["answers"]["rows"], _final(work.folder, names))
    return figures


def make(path: str) -> None:
    """Make the store."""
    from embedstore.store import EmbedStore

    EmbedStore.create(path, space="races", dim=DIM)


def batch_numbers(adder: int, batch: int) -> range:
    """Return the numbers of the rows of a batch: 3 to 12 of them."""
    first = (adder * 100_000 + batch) * 16
    return range(first, first + 3 + batch % 10)


def batch_of(identity: str) -> int:
    """Return which batch a row is of."""
    return int(identity.removeprefix("row-")) // 16


def race(name: str, path: str, journal: str, seed: int, until: float) -> None:
    """Do what a process of this name does until a moment, and write it down."""
    kind, number = name.split()
    dice = random.Random(f"{seed} {name}")
    with open(journal, "a", buffering=1) as file:
        steps = {"adder": _add, "searcher": _search, "compacter": _compact, "vacuumer": _vacuum}[kind](
            path, int(number), dice
        )
        started = 0.0
        while started < until:
            started = time.monotonic()
            entry = next(steps)
            entry |= {"who": name, "from": started, "to": time.monotonic()}
            file.write(json.dumps(entry) + "\n")


def _add(path: str, number: int, dice: random.Random) -> Iterator[dict[str, Any]]:
    """Add a batch, or remove the oldest one when there are many."""
    from embedstore.errors import EmbedStoreError
    from embedstore.store import EmbedStore

    store, kept, batch = EmbedStore.open(path), list[int](), 0
    while True:
        try:
            if len(kept) >= BATCHES:
                oldest = kept.pop(0)
                store.remove([f"row-{row}" for row in batch_numbers(number, oldest)])
                yield {"removed": batch_numbers(number, oldest)[0] // 16, "operations": 1}
            else:
                batch += 1
                store.add(vectors(batch_numbers(number, batch), 0), embedding_column="vector", progress=False)
                kept.append(batch)
                yield {"added": batch_numbers(number, batch)[0] // 16, "operations": 1}
        except EmbedStoreError as error:
            yield {"failed": str(error), "operations": 1}


def _search(path: str, number: int, dice: random.Random) -> Iterator[dict[str, Any]]:
    """Open the newest version, search it some times, and compare with brute force."""
    from embedstore.errors import EmbedStoreError
    from embedstore.store import EmbedStore

    store = EmbedStore.open(path)
    known: dict[str, Any] = {}
    while True:
        started, done, wrong = time.monotonic(), 0, list[str]()
        # So that others get on, and that compacter and vacuumer get between a reader's searches.
        pauses = {dice.randrange(_SEARCHES): dice.choice([0.02, 0.1, 0.6]) for _ in range(2)}
        try:
            if dice.random() < 0.1:
                store = EmbedStore.open(path)
            else:
                store.refresh()
            reader, opened = store.reader, time.monotonic()
            ids = sorted(reader.rows.metadata(["id"]).column(0).to_pylist())
            matrix = _true_vectors(ids, known)
            for place in range(_SEARCHES):
                if place in pauses:
                    time.sleep(pauses[place])
                wrong += _one_search(reader, ids, matrix, dice)
                done += 1
        except EmbedStoreError as error:
            # What a reader whose files are gone is told to do; any other error is none that may come.
            what = "retried" if "refresh" in str(error) else "failed"
            yield {what: str(error), "operations": done}
            continue
        batches = sorted({batch_of(name) for name in ids})
        whole = sum(len(range(*_bounds(batch))) for batch in batches) == len(ids)
        yield {
            **{"operations": done, "version": reader.version, "batches": batches, "whole": whole, "wrong": wrong},
            **{"began": started, "opened": opened},
        }


def _bounds(batch: int) -> tuple[int, int]:
    numbers = batch_numbers(batch // 100_000, batch % 100_000)
    return numbers[0], numbers[-1] + 1


def _true_vectors(ids: list[str], known: dict[str, Any]) -> Any:
    """Return the vectors that rows of these ids must have."""
    missing = [int(name.removeprefix("row-")) for name in ids if name not in known]
    for row in missing:
        table = vectors(range(row, row + 1), 0)
        known[f"row-{row}"] = np.array(table.column("vector")[0].as_py(), np.float32)
    return np.stack([known[name] for name in ids]) if ids else np.empty((0, DIM), np.float32)


def _one_search(reader: Any, ids: list[str], matrix: Any, dice: random.Random) -> list[str]:
    """Ask once, in one of several ways; return what is not as brute force says."""
    query = np.random.default_rng(dice.randrange(2**32)).standard_normal(DIM).astype(np.float32)
    own = reader.query_vectors([query])[0]
    scores = np.vecdot(matrix, own)
    above = scores.astype(np.float64) > 0.3  # as numbers: the float32 next to 0.3 is larger than 0.3
    way = dice.choice(["search", "search", "search", "count", "classify"])
    if way == "search":
        matches = reader.search_many([query], 5)[0]
        found: Any = list(zip(matches.id, [float(score) for score in matches.score], strict=True))
        true: Any = brute_force(ids, matrix, own, 5)
    elif way == "count":
        found, true = reader.count(query, 0.3), int(above.sum())
    else:
        found = sorted(reader.classify(query, 0.3).id)
        true = sorted(name for name, matches in zip(ids, above, strict=True) if matches)
    if found == true:
        return []
    if way == "classify":
        found, true = sorted(set(found) - set(true)), sorted(set(true) - set(found))
    return [f"{way} of version {reader.version}: {short(found)} for {short(true)}"]


def _compact(path: str, number: int, dice: random.Random) -> Iterator[dict[str, Any]]:
    """Compact, and pause."""
    yield from _look_after(path, dice, "compact")


def _vacuum(path: str, number: int, dice: random.Random) -> Iterator[dict[str, Any]]:
    """Delete what only old versions need, and pause."""
    yield from _look_after(path, dice, "vacuum")


def _look_after(path: str, dice: random.Random, what: str) -> Iterator[dict[str, Any]]:
    from embedstore.errors import EmbedStoreError
    from embedstore.store import EmbedStore

    while True:
        time.sleep(dice.uniform(0.05, 0.5))
        try:
            store = EmbedStore.open(path)
            store.compact() if what == "compact" else store.vacuum(0)
            yield {"operations": 1}
        except EmbedStoreError as error:
            yield {"retried" if "refresh" in str(error) else "failed": str(error), "operations": 1}


def _entries(journal: Path) -> list[dict[str, Any]]:
    """Return what a process has written down; a last line that was cut short is none."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _gather(figures: Figures, name: str, journal: Path, ended: Ended) -> None:
    """Count what a process did, and what went wrong with it."""
    kind = name.split()[0]
    figures.saw_memory(ended.peak, name, kind)
    if ended.hung:
        figures.add("hangs", name, "no operation ended for a minute")
    elif ended.exit:
        figures.add("other", name, f"it died: exit {ended.exit}: {short(ended.said)}")
    for entry in _entries(journal):
        figures.tried += entry["operations"]
        figures.details[f"by {kind}s"] += entry["operations"]
        figures.details["retries"] += "retried" in entry
        if "failed" in entry:
            figures.add("other", name, short(entry["failed"]))
        for wrong in entry.get("wrong", ()):
            figures.add("wrong", name, wrong)
        if entry["to"] - entry["from"] > 6 * LONGEST:
            figures.add("hangs", name, f"one step took {entry['to'] - entry['from']:.0f} s")


def _check(figures: Figures, entries: list[dict[str, Any]]) -> None:
    """Compare what each reader saw with what was committed before it opened, and after."""
    added = {entry["added"]: (entry["from"], entry["to"]) for entry in entries if "added" in entry}
    removed = {entry["removed"]: (entry["from"], entry["to"]) for entry in entries if "removed" in entry}
    versions: dict[int, list[int]] = {}
    for entry in entries:
        if "batches" not in entry:
            continue
        seen, who = set(entry["batches"]), entry["who"]
        if not entry["whole"]:
            figures.add("wrong", who, f"version {entry['version']} holds a part of a batch")
        if versions.setdefault(entry["version"], entry["batches"]) != entry["batches"]:
            figures.add("wrong", who, f"version {entry['version']} is not the same to all")
        for batch, (_, to) in added.items():
            gone = batch in removed and removed[batch][0] < entry["opened"]
            if to < entry["began"] and not gone and batch not in seen:
                figures.add("lost", who, f"batch {batch} was added, and version {entry['version']} is without it")
        for batch, (_, to) in removed.items():
            if to < entry["began"] and batch in seen:
                figures.add("wrong", who, f"batch {batch} was removed, and version {entry['version']} holds it")
        early = [batch for batch in seen if batch in added and added[batch][0] > entry["opened"]]
        if early:
            figures.add("wrong", who, f"batch {early[0]} was seen before it was added")
    figures.details["versions seen"] += len(versions)


def _final(folder: Path, names: list[str]) -> dict[int, bool]:
    """Return which batches must be in the store at the end; those of an operation that failed are left out."""
    entries = [entry for name in names for entry in _entries(folder / f"{name}.jsonl")]
    state = {entry["added"]: True for entry in entries if "added" in entry}
    return state | {entry["removed"]: False for entry in entries if "removed" in entry}


def _check_end(figures: Figures, rows: dict[str, str], batches: dict[int, bool]) -> None:
    """Compare the rows in the end with the batches that must be there."""
    for batch, there in batches.items():
        names = [f"row-{row}" for row in range(*_bounds(batch))]
        present = sum(name in rows for name in names)
        if present != (len(names) if there else 0):
            figures.add("lost" if there else "wrong", "the end", f"{present} of {len(names)} rows of batch {batch}")
