"""data/speed.json -> the tables of README that hold its figures, each between two markers.

What is measured is left to `bench_all`, what follows from it for more rows to `estimate_scale`. A test compares README
with what this gives.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README, SPEED = ROOT / "README.md", ROOT / "data" / "speed.json"
WORKS = {
    "start": "new process to first top-20",
    "start_uris": "the same, uris read",
    "top": "top-20",
    "rows": "top-20, uris read",
    "many": "100 queries, top-20",
    "above1": "all rows above a threshold, 1%",
    "above30": "all rows above a threshold, 30%",
    "further": "one more threshold of that query",
    "filtered": "top-20 of a tenth, by a condition",
}
_BUSY = "**The machine had much other work: only figures that are far apart say something.**"
NAMES = {"embedstore + index": "with `embedstore index`", "numpy": "NumPy, .npy"}


def markers(name: str) -> tuple[str, str]:
    """Return what stands before and after a table."""
    return f"<!-- {name}: written by scripts/bench_all.py -->", f"<!-- end of {name} -->"


def between(text: str, name: str) -> str:
    """Return what stands between the markers of a table."""
    first, last = markers(name)
    return text.split(first)[1].split(last)[0].strip()


def replaced(text: str, name: str, table: str) -> str:
    """Return the text with another table between the markers."""
    first, last = map(re.escape, markers(name))
    found, count = re.subn(f"({first}).*?({last})", lambda match: f"{match[1]}\n{table}\n{match[2]}", text, flags=re.S)
    if count != 1:
        raise ValueError(f"the markers of {name!r} stand {count} times in the text; expected once")
    return found


def speed_tables(told: dict[str, Any]) -> str:
    """Return the paragraph on the run, and a table for each number of rows."""
    return "\n\n".join([_run(told), *(_table(int(n), found) for n, found in told["sizes"].items())])


def _run(told: dict[str, Any]) -> str:
    machine = told["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    memory = machine["memory_bytes"] / 2**30
    busy = machine["load"] > machine["cores"] / 2
    return "\n".join(
        [
            f"One run of `scripts/bench_all.py` on {machine['date']}: {machine['cores']} cores, {machine['processor']}",
            f"({machine['architecture']}), {memory:.0f} GiB, load {machine['load']:.1f} before it; {told['dim']} "
            "components, vectors in the page cache;",
            f"Python {machine['python']}, {versions}.",
            "Medians of rounds in which the peers take turns. In brackets: times the quickest other exact peer's. "
            "Peers marked ~ are not exact: recall@20." + busy * f" {_BUSY}",
        ]
    )


def _table(n: int, found: dict[str, Any]) -> str:
    peers = found["peers"]
    lines = [
        f"| {n:,} rows | " + " | ".join(_heading(name, peer) for name, peer in peers.items()) + " |",
        "|---" * (len(peers) + 1) + "|",
        "| bytes a row | " + " | ".join(f"{peer['bytes_per_row']:,.0f}" for peer in peers.values()) + " |",
        "| rows a second in | " + " | ".join(f"{peer['rows_per_second']:,.0f}" for peer in peers.values()) + " |",
    ]
    for work, words in WORKS.items():
        lines.append(f"| {words} | " + " | ".join(_cell(peer, name, work) for name, peer in peers.items()) + " |")
    memory = " | ".join(f"{peer['private_bytes'] / 1e6:,.0f} MB" for peer in peers.values())
    limit = shown(found["limit_seconds"])
    left = "".join(f" Left out: {word}." for word in found["left_out"])
    return "\n".join([*lines, f"| largest private memory | {memory} |"]) + (
        f"\n\nTo read these vectors from memory once took all cores {limit}.{left}"
    )


def _heading(name: str, peer: dict[str, Any]) -> str:
    words = NAMES.get(name, name)
    return words if peer["exact"] else f"{words} ~{peer['recall']:.3f}"


def _cell(peer: dict[str, Any], name: str, work: str) -> str:
    if work not in peer["seconds"]:
        return ""
    text = shown(peer["seconds"][work][1])
    ratio = peer["ratios"].get(work)
    return f"{text} ({ratio['ratio']:.2f})" if ratio and name.startswith("embedstore") else text


def shown(seconds: float) -> str:
    """Return a time in a unit that suits it."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
