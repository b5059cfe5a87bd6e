"""Whether a store is as it may be after a command that was disturbed; and whether the command goes on from there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torturing.commands import IN_FLIGHT, Bench, Command
from torturing.figures import Figures, Sort
from torturing.work import short

Findings = Iterator[tuple[Sort, str]]


def judge(
    figures: Figures,
    step: int,
    bench: Bench,
    command: Command,
    store: Path,
    *,
    acknowledged: bool,
    how: str,
    in_flight: int = IN_FLIGHT,
) -> None:
    """Write down what is wrong with a store after a command, then run the command again, and judge once more.

    `acknowledged`: the command has ended well, so that its store must be as it would be undisturbed; `how` tells what
    was done to it; so many pictures may have been `in_flight`, paid for and lost.
    """
    before, after = bench.before[command.template], bench.after[command.name]
    seen = bench.look(store)
    if acknowledged and _rows(before) != _rows(after) and _is_one_of(seen, before):
        found: list[tuple[Sort, str]] = [("lost", "it has ended well, and the store is as before")]
    else:
        found = list(differences(seen, after if acknowledged else before, after))
    if not acknowledged and not found and command.whole and not _is_one_of(seen, before, after):
        found.append(("wrong", "the store is neither as before nor as after"))
    time.sleep(0.03)  # until answers that nobody waits for are counted
    unkept = bench.paid() - bench.paid_at_start - len(_pictures(seen) - _pictures(before))
    if unkept > in_flight:
        found.append(("lost", f"{unkept} pictures were paid for and are not kept, {in_flight} may have been under way"))
    if not command.reads:
        found += _again(bench, command, store, seen, acknowledged)
    for sort, what in found:
        figures.add(sort, step, f"{command.name}, {how}: {what}")


def _again(bench: Bench, command: Command, store: Path, seen: dict[str, Any], acknowledged: bool) -> Findings:
    """Run a command again on what it has left, without a disturbance, and judge what it makes of it."""
    after = bench.after[command.name]
    paid = bench.paid()
    ended = bench.forks.run(bench.words(command, store))
    again = bench.paid() - paid
    if ended.hung:
        yield "hangs", "running it again hangs"
    elif ended.exit or ended.crashed:
        yield "other", f"running it again fails with exit {ended.exit}: {short(ended.said)}"
    else:
        for sort, what in differences(bench.look(store), after, after):
            yield sort, f"after running it again: {what}"
        missing = len(_pictures(after) - _pictures(seen)) if command.name.endswith("add") else 0
        if again > missing:
            yield "lost", f"running it again paid for {again} pictures, {missing} were missing"
        if acknowledged and missing:
            yield "lost", f"{missing} pictures of an add that ended well are not there"


def differences(seen: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> Findings:
    """Yield what a store answers that it may answer neither before nor after a command."""
    if "hang" in seen:
        yield "hangs", "verify hangs"
    elif "crash" in seen:
        yield "other", f"opening or verifying ends in {short(seen['crash'])}"
    elif "error" in seen:
        yield "lost", f"the store cannot be opened: {short(seen['error'])}"
    elif "none" in seen:
        if "none" not in before:
            yield "lost", "there is no store"
    else:
        if seen["problems"]:
            yield "other", f"verify: {short(seen['problems'])}"
        yield from _of_answers(seen["answers"], before.get("answers", _NOTHING), after["answers"])


_NOTHING: dict[str, Any] = {
    "rows": {},
    "twice": [],
    "paid": [],
    "searches": [],
    "classifiers": {},
    "queries": [],
    "pictures": [],
}


def _of_answers(seen: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> Findings:
    for name, answer in seen.items():
        if isinstance(answer, str):
            yield ("wrong" if answer.startswith("differs") else "other"), f"{name}: {short(answer)}"
            return
    if seen["twice"]:
        yield "wrong", f"more than once: {short(seen['twice'])}"
    for what in ("rows", "classifiers"):
        for key in sorted({*seen[what], *before[what], *after[what]}):
            value, allowed = seen[what].get(key), (before[what].get(key), after[what].get(key))
            if value not in allowed:
                yield ("lost" if value is None else "wrong"), f"{what}: {key} is {'gone' if value is None else 'wrong'}"
                return
    if before["queries"] and seen["queries"] != before["queries"]:
        yield "wrong", "vectors of queries that were asked before are others"
    doubled = [name for name, count in Counter(seen["paid"]).items() if count > 1]
    if doubled:
        yield "wrong", f"in the ledger more than once: {short(doubled)}"


def _is_one_of(seen: dict[str, Any], *states: dict[str, Any]) -> bool:
    """Tell whether a store has exactly the rows of one of these states."""
    return any(_rows(seen) == _rows(state) for state in states)


def _rows(seen: dict[str, Any]) -> Any:
    return seen["answers"]["rows"] if "answers" in seen else {}


def _pictures(seen: dict[str, Any]) -> set[str]:
    """Return the pictures that need not be paid for: in rows, and in the ledger."""
    if "answers" not in seen:
        return set()
    return {*seen["answers"]["pictures"], *(text.split()[0] for text in seen["answers"]["paid"])}
