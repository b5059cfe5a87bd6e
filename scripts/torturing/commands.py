"""The commands that are tortured, the stores that they work on, and what each must make of its store.

`prepare` makes pictures and templates, the stores that are copied for each step. What a command must lead to is learned
from one undisturbed run of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from embedstore.testing import NomicServer
from torturing.forks import Ended, Forks, forking
from torturing.look import QUERIES
from torturing.work import Work, fresh

WORKERS, BATCH = 2, 4
IN_FLIGHT = WORKERS * BATCH
"""Pictures that may be under way when an add dies, and so be paid for again."""
DIM = 16
Words = Callable[[Path, Path], list[str]]
"""Makes the words of a command from where the store lies and where the data."""


@dataclass(frozen=True)
class Command:
    """A command: the template of its store (none: it makes the store) and its words, given the store and the data.

    `whole`: it changes the rows in one step, so that a store is as before or as after. `reads`: it changes nothing;
    `answers`: so that what it prints is always the same.
    """

    name: str
    template: str | None
    words: Words
    whole: bool = True
    reads: bool = False
    answers: bool = False
    weight: int = 1


def _add(*folders: str) -> Words:
    def words(store: Path, data: Path) -> list[str]:
        options = ["--model", "nomic", "--label-from-folder", "--workers", str(WORKERS), "--batch-size", str(BATCH)]
        return ["add", str(store), *(str(data / folder) for folder in folders), *options, "-q"]

    return words


def _vectors(file: str, *options: str) -> Words:
    return lambda store, data: ["add", str(store), str(data / file), "--embedding-column", "vector", "-q", *options]


def _on_store(name: str, *options: str) -> Words:
    return lambda store, data: [name, str(store), *(option.format(data=data, store=store) for option in options)]


COMMANDS = (
    Command("first add", None, _add("a", "b"), whole=False, weight=4),
    Command("add", "photos", _add("a", "b", "c", "d"), whole=False, weight=6),
    Command("first vectors", None, _vectors("new.parquet", "--space", "torture"), whole=False, weight=2),
    Command("vectors", "vectors", _vectors("new.parquet"), weight=4),
    Command("remove", "photos", _on_store("remove", "--where", "label = 'cat'"), weight=3),
    Command("compact", "vectors", _on_store("compact"), weight=3),
    Command("compact photos", "photos", _on_store("compact"), weight=2),
    Command("vacuum", "photos", _on_store("vacuum", "--keep-hours", "0"), weight=3),
    Command("index", "vectors", _on_store("index"), weight=2),
    Command("queries", "photos", _on_store("queries", "{data}/queries.txt")),
    Command("calibrate", "photos", _on_store("calibrate", QUERIES[1], "--label", "label=cat", "--name", "new")),
    Command("sweep", "photos", _on_store("sweep", QUERIES[0], "--label", "label=cat"), reads=True, answers=True),
    Command("search", "photos", _on_store("search", QUERIES[0], "--json"), reads=True, answers=True, weight=2),
    Command("classify", "photos", _on_store("classify", "--classifier", "red", "--json"), reads=True, answers=True),
    Command("count", "photos", _on_store("count", QUERIES[1], "--threshold", "0.0"), reads=True, answers=True),
    Command("evaluate", "photos", _on_store("evaluate", "red", "--label", "label=cat"), reads=True),
    Command("export", "photos", _on_store("export", "--json"), reads=True, answers=True),
    Command("export to a file", "photos", _on_store("export", "-o", "{store}.parquet", "--embeddings"), reads=True),
    Command("verify", "photos", _on_store("verify", "--deep"), reads=True, answers=True),
    Command("versions", "photos", _on_store("versions"), reads=True),
    Command("info", "photos", _on_store("info"), reads=True),
)


TEMPLATES: Mapping[str, Sequence[Words]] = {
    "photos": (
        *(_add(folder) for folder in ("a/cat", "a/dog", "b")),
        _on_store("queries", "{data}/asked.txt"),
        _on_store("calibrate", QUERIES[0], "--label", "label=cat", "--name", "red"),
        _on_store("index"),
        _on_store("remove", "--where", "ends_with(uri, 'b/dog/00.png')"),
    ),
    "vectors": (
        _vectors("part0.parquet", "--space", "torture"),
        *(_vectors(f"part{part}.parquet") for part in range(1, 5)),
    ),
}
"""How the stores are made that steps copy."""
_making = threading.Lock()


@dataclass
class Bench:
    """Everything for torturing commands: the process that forks, the stand-in, data, templates and what is right."""

    work: Work
    forks: Forks
    server: NomicServer
    commands: tuple[Command, ...]
    before: dict[str | None, dict[str, Any]] = field(default_factory=dict)
    after: dict[str, dict[str, Any]] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """How long a command takes undisturbed."""
    calls: dict[str, dict[str, int]] = field(default_factory=dict)
    """How many system calls that can be made to fail a command makes on its store, by kind."""
    paid_at_start: int = 0
    counts: bool = False

    @property
    def store(self) -> Path:
        """Where the store of a step lies."""
        return self.work.folder / "s.store"

    @property
    def data(self) -> Path:
        """Where the pictures and tables lie."""
        return self.work.folder.parent / "data"

    def template(self, name: str | None) -> Path | None:
        """Return the store that a step copies."""
        return None if name is None else self.data / f"{name}.template"

    def start(self, command: Command) -> Path:
        """Return the store that a command is to work on; the first time, learn what it leads to undisturbed."""
        if command.name not in self.after:
            _run_undisturbed(self, command)
        self.paid_at_start = self.paid()
        # Each step is another user's: in five minutes here are more requests than one may send, and waiting is no hang.
        for times in (self.work.folder / "home" / "state").glob("nomic-requests-*.json"):
            times.unlink()
        return fresh(self.store, self.template(command.template))

    def words(self, command: Command, store: Path) -> list[str]:
        """Return the words of a command for a store."""
        return command.words(store, self.data)

    def look(self, store: Path) -> dict[str, Any]:
        """Return what a store answers, asked in a process of its own."""
        ended = self.forks.call("torturing.look:look", str(store))
        return looked(ended)

    def paid(self) -> int:
        """Return how many pictures the stand-in has embedded, also those whose answers nobody got."""
        counts = self.server.counts
        return counts.images.total() + counts.spoilt.total()


def looked(ended: Ended) -> dict[str, Any]:
    """Return what `look` returned, or how it failed."""
    if ended.hung:
        return {"hang": True}
    if ended.value is None:
        return {"crash": f"exit {ended.exit}: {ended.said}"}
    return dict(ended.value)


@contextmanager
def prepare(work: Work, commands: tuple[Command, ...] = COMMANDS, preload: Path | None = None) -> Iterator[Bench]:
    """Make everything for torturing these commands; `preload` is a library for all that is run."""
    with NomicServer(latency=0.01) as server:
        environment = server.environment(work.folder / "home")
        if preload is not None:
            environment["LD_PRELOAD"] = str(preload)
        with forking(work.folder / "jobs", environment) as forks:
            bench = Bench(work, forks, server, commands, counts=preload is not None)
            with _making:  # the kinds that need them share data and templates
                if not bench.data.exists():
                    write_data(bench.data)
                    _make_templates(bench)
            bench.before = {name: bench.look(folder) for name in TEMPLATES if (folder := bench.template(name))}
            bench.before[None] = {"none": True}
            yield bench


def write_data(data: Path) -> Path:
    """Write folders of tiny pictures, a table of vectors, and a list of queries."""
    for number, folder in enumerate("abcd"):
        for each in range(16):
            # One in eight is a copy of the one before it, one in eight of one in the folder before.
            seed = number * 100 + each - (each % 8 == 7) - 100 * (each % 8 == 3 and number > 0)
            pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            file = data / folder / ("cat" if each % 2 else "dog") / f"{each:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    for part in range(5):
        pq.write_table(vectors(range(part * 30, part * 30 + 30), 0), data / f"part{part}.parquet")
    pq.write_table(vectors(range(120, 200), 1), data / "new.parquet")
    (data / "queries.txt").write_text("\n".join(f"thing {number}" for number in range(12)))
    (data / "asked.txt").write_text("\n".join(QUERIES))
    return data


def vectors(numbers: range, edition: int, dim: int = DIM) -> pa.Table:
    """Return rows of these numbers with their vectors, other ones in each edition."""
    made = [np.random.default_rng([number, edition]).standard_normal(dim).astype(np.float32) for number in numbers]
    return pa.table(
        {
            "id": [f"row-{number}" for number in numbers],
            "uri": [f"x://{number}" for number in numbers],
            "number": [number * 7 for number in numbers],
            "name": [None if number % 5 == 0 else f"name {number % 3}" for number in numbers],
            "vector": pa.array([list(vector / np.linalg.norm(vector)) for vector in made], pa.list_(pa.float32())),
        }
    )


def _make_templates(bench: Bench) -> None:
    for name, steps in TEMPLATES.items():
        store = bench.template(name)
        assert store is not None
        for words in steps:
            _require_done(bench.forks.run(words(store, bench.data)), words(store, bench.data))


def _run_undisturbed(bench: Bench, command: Command) -> None:
    """Learn what a command must lead to."""
    store = fresh(bench.store, bench.template(command.template))
    started = time.monotonic()
    fault = {"n": 0, "folder": str(store)} if bench.counts else None
    ended = bench.forks.run(bench.words(command, store), fault=fault)
    bench.calls[command.name] = ended.value or {}
    bench.seconds[command.name] = time.monotonic() - started
    _require_done(ended, bench.words(command, store))
    bench.printed[command.name] = ended.printed
    bench.after[command.name] = seen = bench.look(store)
    if seen.get("problems") != [] or any(isinstance(answer, str) for answer in seen["answers"].values()):
        raise RuntimeError(f"{command.name} leaves a store that is not sound: {seen}")


def _require_done(ended: Ended, words: list[str]) -> None:
    if ended.exit or ended.hung:
        raise RuntimeError(f"embedstore {' '.join(words)} failed undisturbed: {ended.said}")
