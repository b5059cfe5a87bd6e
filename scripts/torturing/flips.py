"""Bits flipped, tails cut and stretches zeroed in every kind of file of a store.

After each, `verify --deep` names the file, or every answer is the truth; and whatever rewrites rows refuses to copy
what is damaged.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from torturing.commands import vectors
from torturing.figures import Figures
from torturing.forks import forking
from torturing.look import answers, asking, rows, verified
from torturing.stepping import Steps, run_steps
from torturing.work import Work, fresh, short

KINDS: dict[str, Callable[[str], bool]] = {
    "part": lambda name: name.startswith("images/part-"),
    "commit": lambda name: name.startswith("images/_delta_log/") and name.endswith(".json"),
    "checkpoint": lambda name: name.endswith(".checkpoint.parquet"),
    "last checkpoint": lambda name: name.endswith("_last_checkpoint"),
    "layout note": lambda name: name == "index/images.json",
    "index": lambda name: name.startswith("index/part-") and name.endswith(".faiss"),
    "index note": lambda name: name.startswith("index/part-") and name.endswith(".json"),
    "classifier": lambda name: name.startswith("classifiers/"),
    "ledger": lambda name: name == "ledger.sqlite",
    "store.json": lambda name: name == "store.json",
}
"""Every kind of file, by its place in the store."""


def run(work: Work) -> Figures:
    """Flip bits until the time is up."""
    figures = Figures("flips")
    with forking(work.folder / "jobs", {"EMBEDSTORE_OFFLINE": "1", "HOME": str(work.folder)}) as forks:
        template = work.folder / "template"
        made = forks.call("torturing.flips:make_template", str(template), seconds=120)
        if made.exit:
            raise RuntimeError(f"the store cannot be made: {made.said}")
        run_steps(work, figures, forks, "torturing.flips:flip", str(template), until=work.started + work.seconds)
    return figures


def make_template(path: str) -> None:
    """Make a small store that has every kind of file, with rows that wait in the ledger."""
    from deltalake import DeltaTable

    from embedstore.searching.queries import Query
    from embedstore.store import EmbedStore

    store = EmbedStore.create(path, space="torture", dim=16)
    for number in range(3):
        store.add(vectors(range(number * 50, number * 50 + 50), 0), embedding_column="vector")
    store.remove(where="number % 11 = 3")
    store.compact()
    store.add(vectors(range(300, 340), 0), embedding_column="vector")
    DeltaTable(str(store.folder.images.path)).create_checkpoint()
    for number in range(2):
        store.add(vectors(range(400 + number * 30, 430 + number * 30), 0), embedding_column="vector")
    even = [row["number"] % 2 == 0 for row in store.to_table(["number"]).to_pylist()]
    store.save_classifier(store.calibrate(Query.vector(_asked(7)), np.array(even), name="even"))
    store.index()
    store.index("ivf")
    ledger = store.folder.ledger
    ledger.keep_queries(store.space.key, "text", _TEXTS, np.stack([_asked(seed) for seed in range(len(_TEXTS))]))
    ledger.confirm("org/data", "ids", "row-1 row-2")
    for number in range(3):
        waiting = vectors(range(600 + number * 8, 608 + number * 8), 0)
        own = {
            "content_hash": [f"{value:064x}" for value in waiting.column("number").to_pylist()],
            "added_at": pa.nulls(len(waiting), pa.timestamp("us", tz="UTC")),
        }
        for name, values in own.items():
            waiting = waiting.append_column(name, pa.array(values))
        ledger.pay("0" * 32, waiting.rename_columns({"vector": "embedding"}))


_TEXTS = [f"asked {number}" for number in range(6)]


def _asked(seed: int) -> Any:
    vector = np.random.default_rng(seed).standard_normal(16).astype(np.float32)
    return vector / np.linalg.norm(vector)


def flip(about: dict[str, Any], template: str) -> None:
    """Damage a copy of the template in each step, and see what becomes of its answers."""
    from embedstore.searching import index

    index.PATIENCE = 0  # a store this small would never use its index files
    store = Path(template).with_name("s.store")
    sound = {str(file.relative_to(template)): file.read_bytes() for file in Path(template).rglob("*") if file.is_file()}
    fresh(store, Path(template))
    opened, seen = verified(str(store))
    truth = _answers(opened)
    if seen["problems"] or any(isinstance(answer, str) for answer in truth.values()):
        raise RuntimeError(f"the store is not sound before anything was damaged: {seen}, {truth}")
    steps = Steps(about)
    for step, dice in steps:
        kind = list(KINDS)[step % len(KINDS)]
        names = sorted(name for name in sound if KINDS[kind](name))
        name = dice.choice(names)
        content, how = damaged(sound[name], dice)
        _write(store / name, content)
        found = [] if content == sound[name] else _judge(store, name, truth, dice)
        steps.done(1, kind, *((sort, f"{how} of {name}: {what}") for sort, what in found))
        _restore(store, sound)


def damaged(content: bytes, dice: random.Random) -> tuple[bytes, str]:
    """Return damaged bytes, and what was done to them."""
    place, throw = dice.randrange(len(content)), dice.random()
    if throw < 0.75:
        bit = dice.randrange(8)
        return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :], f"bit {bit} of byte {place}"
    if throw < 0.85:
        return content[:place], f"all from byte {place} cut off"
    size = dice.choice([16, 512, 4096])
    start = place // size * size
    if throw < 0.95:
        zeros = bytes(len(content[start : start + size]))
        return content[:start] + zeros + content[start + size :], f"{size} bytes zeroed from {start}"
    other = dice.randrange(len(content)) // size * size
    first, second = sorted((start, other))
    parts = (content[:first], content[first : first + size], content[first + size : second])
    if first == second:
        return b"", "all"
    swapped = parts[0] + content[second : second + size] + parts[2] + parts[1] + content[second + size :]
    return swapped, f"{size} bytes at {first} and {second} swapped"


def _judge(store: Path, name: str, truth: dict[str, Any], dice: random.Random) -> list[tuple[str, str]]:
    """Return what is wrong with how a store bears a damaged file."""
    opened, seen = verified(str(store))
    if "crash" in seen:
        return [("other", f"verify ends in a traceback: {short(seen['crash'])}")]
    said = [seen["error"]] if "error" in seen else seen.get("problems", ["there is no store"])
    found = []
    if said and not any(_names(problem, name) for problem in said):
        found.append(("other", f"verify does not name the file: {short(said)}"))
    if opened is not None and (not said or dice.random() < 0.1):
        found += _compare(_answers(opened), truth, sound=not said)
    if (name.startswith("images/part") and dice.random() < 0.5) or dice.random() < 0.05:
        found += _launder(store, truth)
    return found


def _compare(answers: dict[str, Any], truth: dict[str, Any], sound: bool) -> list[tuple[str, str]]:
    """Return what is wrong with answers: tracebacks; and where verify calls the store sound, any that is not true."""
    said = "sound to verify" if sound else "named by verify"
    crashed = {what: answer for what, answer in answers.items() if str(answer).startswith("crash: ")}
    others = [what for what, answer in answers.items() if answer != truth[what] and not _is_error(answer)]
    found = [("other", f"{said}, but asking for {what} ends in {short(answer)}") for what, answer in crashed.items()]
    if sound and (wrong := [what for what in others if what not in crashed]):
        first = _first_difference(answers[wrong[0]], truth[wrong[0]])
        found.append(("wrong", f"{said}, but other {', '.join(wrong)}: {first}"))
    return found[:1]


def _is_error(answer: Any) -> bool:
    return isinstance(answer, str) and answer.startswith("error: ")


def _names(problem: str, name: str) -> bool:
    """Tell whether a problem names a file, or for a file that describes another one, that."""
    return Path(name).name in problem or (name.startswith("index/") and Path(name).name.split(".")[0] in problem)


def _launder(store: Path, truth: dict[str, Any]) -> list[tuple[str, str]]:
    """Let a rewrite copy rows: it must refuse what is damaged, so that all rows stay the truth."""
    from embedstore.store import EmbedStore

    copy = fresh(store.with_name("laundry.store"), store)
    fate = asking(lambda: EmbedStore.open(copy).compact())
    if isinstance(fate, str):
        return [("other", f"compact ends in {short(fate)}")] if fate.startswith("crash: ") else []
    washed = asking(lambda: rows(EmbedStore.open(copy)))
    sound = asking(lambda: EmbedStore.open(copy).verify(deep=True).ok)
    if washed != truth["rows"] and sound is True:
        return [("wrong", f"compact has copied damage: {_first_difference(washed, truth['rows'])}")]
    return []


def _answers(store: Any) -> dict[str, Any]:
    """Return all answers of an open store, those that only this one can give included."""
    from embedstore.store import EmbedStore

    older = asking(lambda: EmbedStore.open(store.path, version=3))
    return answers(store, _TEXTS) | {
        "approximate": asking(lambda: [store.search(_asked(seed), k=4, approximate=True).id for seed in range(2)]),
        "confirmations": asking(lambda: store.folder.ledger.confirmations("org/data", "ids")),
        "versions": asking(lambda: [[str(value) for value in entry.values()] for entry in store.versions()]),
        "older rows": older if isinstance(older, str) else asking(lambda: rows(older)),
        "condition": asking(lambda: store.to_table(["id"], where="name = 'name 1' and number > 100").num_rows),
    }


def _first_difference(answer: Any, truth: Any) -> str:
    if isinstance(answer, dict) and isinstance(truth, dict):
        gone, more = sorted(set(truth) - set(answer)), sorted(set(answer) - set(truth))
        others = [key for key in answer if key in truth and answer[key] != truth[key]]
        return f"{len(gone)} gone {gone[:1]}, {len(more)} more {more[:1]}, {len(others)} others {others[:1]}"
    return f"{short(answer, 120)} for {short(truth, 120)}"


def _write(file: Path, content: bytes) -> None:
    """Put content in a file's place; who has mapped the old one keeps it."""
    file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _restore(store: Path, sound: dict[str, bytes]) -> None:
    """Make the store what it was."""
    there = {str(Path(folder, name).relative_to(store)) for folder, _, names in os.walk(store) for name in names}
    for name in there - set(sound):
        (store / name).unlink()
    for name, content in sound.items():
        file = store / name
        if name not in there or file.stat().st_size != len(content) or file.read_bytes() != content:
            _write(file, content)
    shutil.rmtree(store / ".running", ignore_errors=True)
