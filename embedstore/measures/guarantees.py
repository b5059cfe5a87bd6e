"""Counts on labelled rows -> statements about rows not seen yet: exact binomial bounds and tests.

All functions take counts, not scores. Rows are taken as drawn independently from the same source as the later ones;
copies of one picture are not independent and must be counted once by the caller, which `calibration` does.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.measures.rates import Counts, Floats

Mask = NDArray[np.bool_]


def lower_bound(hits: ArrayLike, trials: ArrayLike, confidence: float) -> Floats:
    """Return the one-sided lower confidence bound of a share: `hits` out of `trials`.

    The exact bound of Clopper and Pearson (1934), a quantile of the beta distribution; 0 without hits.
    """
    from scipy.special import betaincinv  # scipy costs a fifth of a second to import

    hit, trial = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    bound: Floats = betaincinv(np.maximum(hit, 1), np.maximum(trial - hit, 0) + 1, 1 - confidence)
    return np.where(hit > 0, bound, 0.0)


def chance_of(hits: ArrayLike, trials: ArrayLike, share: float) -> Floats:
    """Return the chance of at least `hits` in `trials` when the true share is `share`: the binomial tail."""
    from scipy.special import betainc  # as above

    hit, trial = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    tail: Floats = betainc(np.maximum(hit, 1), np.maximum(trial - hit, 0) + 1, share)
    return np.where(hit > 0, tail, 1.0)


def precision_holds(tp: Counts, matches: Counts, share: float, confidence: float) -> Mask:
    """Say at which cuts of a curve, whose `matches` descend to 0, precision is at least `share` on further rows too.

    With probability at least `confidence` over the draw of the rows, precision is at least `share` at *all* the cuts
    that are true. So any of them may be chosen for whatever reason. Counts are whole numbers, of rows not weighted.

    Sequential testing with several starts, as in Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test" (2021):
    cuts are tested from stricter to looser by the exact binomial test of "precision < share", beginning at each start
    with its share of the error, and going on until a test fails. What a run has of the error when it comes to the next
    start it takes along: the fallback procedure of Wiens (2003), which keeps the error of all tests together. The
    starts are numbers of matches, k, 2k, 4k, ... that depend on the number of rows only, and share the error equally.
    k is the fewest matches with which a test can pass at all. The runs take precision to fall as the threshold falls.
    """
    starts, error = _starts(int(matches[0]), share, confidence)
    holds = np.zeros(len(tp), dtype=np.bool_)
    chance = chance_of(tp, matches, share)
    # Stricter cuts have larger positions, so a run goes from its first position downwards to where the next begins.
    firsts = [int(np.searchsorted(-matches, -start, side="right")) - 1 for start in starts]
    kept = 0.0
    for first, following in pairwise([*firsts, -1]):
        level = kept + error
        failures = np.flatnonzero(chance[following + 1 : first + 1] > level)
        end = following + 1 + (int(failures[-1]) + 1 if len(failures) else 0)
        holds[end : first + 1] = True
        kept = 0.0 if len(failures) else level
    return holds


def precision_floor(tp: Counts, matches: Counts, confidence: float) -> float:
    """Return about the highest precision that `precision_holds` could certify at one of the cuts."""
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        reached = bool(precision_holds(tp, matches, middle, confidence).any())
        low, high = (middle, high) if reached else (low, middle)
    return low


def fewest_matches(share: float, confidence: float) -> int:
    """Return how many matches without one error it takes for one test to show a precision of `share`."""
    return max(1, math.ceil(math.log(1 - confidence) / math.log(share) - 1e-9))


def needed_matches(n: int, share: float, confidence: float) -> int:
    """Return with how many matches `precision_holds` starts on `n` rows, where none of them may be wrong."""
    error = _starts(n, share, confidence)[1]
    return fewest_matches(share, 1 - error)


def recall_holds(tp: Counts, share: float, confidence: float) -> Mask:
    """Say at which cuts recall is at least `share` on further rows too, with probability `confidence`.

    Recall falls with each step to a stricter threshold and depends on the positives alone, so the strictest
    cut that passes the exact binomial test is a distribution-free tolerance limit (Wilks 1941).
    """
    return chance_of(tp, np.full(len(tp), tp[0]), share) <= 1 - confidence


def _starts(n: int, share: float, confidence: float) -> tuple[list[int], float]:
    """Return the numbers of matches at which runs start, and the error that each run may spend."""
    runs = 1
    while True:
        error = (1 - confidence) / runs
        first = fewest_matches(share, 1 - error)
        starts = [first << doubling for doubling in range(64) if first << doubling <= n]
        if len(starts) <= runs:
            return starts, error
        runs = len(starts)
