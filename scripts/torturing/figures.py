"""What a kind of torture has tried and found, and the table of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Sort = Literal["lost", "wrong", "hangs", "other"]
MEMORY_BOUND = 1.5e9
"""Bytes that a process may take at most, whatever it is fed with."""


@dataclass
class Figures:
    """What one kind of torture did.

    `lost`: paid or acknowledged rows that are gone; `wrong`: answers that are not the truth while `verify --deep` calls
    the store sound; `hangs`: over 10 s; `other`: tracebacks, stores that cannot be used any more, damage not named.
    """

    kind: str
    tried: int = 0
    found: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    details: Counter[str] = field(default_factory=Counter)
    """How many of what were tried."""
    peak: int = 0
    """Bytes that the largest process took."""
    notes: list[str] = field(default_factory=list)

    def add(self, sort: Sort, step: int | str, what: str) -> None:
        """Write down that something is not as it must be."""
        self.found[sort] += 1
        self.findings.append(f"{self.kind} {step} ({sort}): {what}")

    def saw_memory(self, peak: int, step: int | str, what: str) -> None:
        """Take the peak memory of a process down; more than the bound is a finding."""
        self.peak = max(self.peak, peak)
        if peak > MEMORY_BOUND:
            self.add("other", step, f"{what} took {peak / 1e9:.2f} GB, more than {MEMORY_BOUND / 1e9:g} GB")


def table(all_figures: Sequence[Figures]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| kind | tried | lost | silently wrong | hangs | other |", "|---|---:|---:|---:|---:|---:|"]
    for each in all_figures:
        counts = " | ".join(f"{each.found[sort]:,}" for sort in ("lost", "wrong", "hangs", "other"))
        lines.append(f"| {each.kind} | {each.tried:,} | {counts} |")
    return "\n".join(lines)


def remarks(all_figures: Sequence[Figures]) -> str:
    """Return what stands below the table: what was tried of each kind, and the largest process."""
    lines = []
    for each in all_figures:
        tried = ", ".join(f"{number:,} {name}" for name, number in sorted(each.details.items()))
        lines.append(f"{each.kind}: {'; '.join(filter(None, [tried, *each.notes]))}")
    peak = max((each.peak for each in all_figures), default=0)
    lines.append(f"largest process: {peak / 1e9:.2f} GB, bound {MEMORY_BOUND / 1e9:g} GB")
    return "\n".join(lines)


def grouped(findings: Sequence[str]) -> Iterator[str]:
    """Yield the first of all findings that are alike but for numbers and names, and how many more there are."""
    groups: dict[str, list[str]] = {}
    for finding in findings:
        groups.setdefault(re.sub(r"\S*\d\S*|'[^']*'", "", finding)[:160], []).append(finding)
    for first, *others in groups.values():
        yield f"FOUND {first}" + (f" (and {len(others):,} like it)" if others else "")
