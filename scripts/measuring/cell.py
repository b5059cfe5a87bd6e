"""One line of the table: a statement, where it was tried, how often it was true, and what was promised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cell:
    """What was seen of one statement in one world."""

    what: str
    where: str
    seen: float
    wanted: str
    holds: bool
    draws: int


def at_most(what: str, where: str, wrong: int, draws: int, share: float) -> Cell:
    """Return the cell of something that may go wrong in at most `share` of the draws.

    It holds unless so many would be wrong with a probability below 1 % if the share were true.
    """
    from scipy.stats import binom

    return Cell(what, where, wrong / draws, f"<= {share:.1%}", wrong <= int(binom.ppf(0.99, draws, share)), draws)


def at_least(what: str, where: str, right: int, draws: int, share: float) -> Cell:
    """Return the cell of something that must be so in at least `share` of the draws, chance allowed for as above."""
    from scipy.stats import binom

    return Cell(what, where, right / draws, f">= {share:.1%}", right >= int(binom.ppf(0.01, draws, share)), draws)


def covers(what: str, where: str, inside: int, draws: int, low: float = 0.93, high: float = 0.97) -> Cell:
    """Return the cell of an interval of 95 %: inside 93 to 97 %, or more often, which is said."""
    from scipy.stats import binom

    holds = inside >= int(binom.ppf(0.01, draws, low))
    over = " (over)" if inside > int(binom.ppf(0.99, draws, high)) else ""
    return Cell(what, where, inside / draws, f"{low:.0%} to {high:.0%}{over}", holds, draws)


def is_above(what: str, where: str, values: np.ndarray, least: float) -> Cell:
    """Return the cell of a mean that must reach a value, less two of its standard errors."""
    error = float(np.std(values) / np.sqrt(len(values)))
    mean = float(np.mean(values))
    return Cell(what, where, mean, f">= {least:g}", mean + 2 * error >= least, len(values))
