"""Scores here that differ from a calibration's -> why: another prevalence, other scores, or cannot tell; what then.

Where only the prevalence changed (label shift: positives and negatives each score as they did) it can be estimated
without labels, and the threshold chosen anew. Where the scores themselves moved that does harm, and only labels help.
Each explanation is put to the same test. Whether anything differs at all is said by `shift`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from embedstore.errors import UnreachableError
from embedstore.measures.chance import Interval
from embedstore.measures.choice import Constraints, Objective, choose
from embedstore.measures.curves import Curve
from embedstore.measures.distribution import ScoreDistribution
from embedstore.measures.rates import Floats
from embedstore.measures.score_summary import ScoreSummary
from embedstore.measures.shift import (
    ERROR,
    OF_SHARE,
    SAME_SHAPE,
    Shift,
    critical_distance,
    distance,
    percent,
    same_share_p,
    shift_of,
)

Verdict = Literal["none", "prevalence", "scores", "unclear"]
TO_LABEL = 40
"""So many rows are asked to be labelled, half of them near the threshold."""
_BINS = 512
_MOVES = np.linspace(-1, 0.5, 31)
_SPREADS = np.geomspace(0.6, 1.7, 21)
_NEWTON_STEPS = 50


@dataclass(frozen=True)
class Advice:
    """What a shift means for a threshold, and what to do."""

    shift: Shift
    verdict: Verdict
    """``"none"``: nothing differs. ``"prevalence"``: another prevalence explains the scores, and scores that moved do
    not. ``"scores"``: no prevalence explains them. ``"unclear"``: scores alone cannot tell."""
    prevalence_there: float | None = None
    prevalence: float | None = None
    """Estimated share of positives here, if they and the negatives score as there; None where it cannot be."""
    interval: Interval | None = None
    """Where it lies with probability 95 %, by the bootstrap."""
    threshold: float | None = None
    """The best for that prevalence; None where there is none."""
    expected: Mapping[str, float] = field(default_factory=dict)
    """Precision, recall and F1 to be expected at it, if only the prevalence changed."""
    expected_unchanged: Mapping[str, float] = field(default_factory=dict)
    """The same at the threshold of the calibration."""
    instead: tuple[str, ...] = ()
    """What else explains the scores, in words."""
    to_label: int = 0
    """How many rows to label: 0 where that is not needed."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "verdict": self.verdict,
            "shift": self.shift.to_dict(),
            "prevalence_there": self.prevalence_there,
            "prevalence": self.prevalence,
            "prevalence_interval": None if self.interval is None else list(self.interval),
            "threshold": self.threshold,
            "expected": dict(self.expected),
            "expected_unchanged": dict(self.expected_unchanged),
            "instead": list(self.instead),
            "to_label": self.to_label,
        }

    @property
    def findings(self) -> str:
        """Whether the scores differ, and what may explain it."""
        said = [str(self.shift)]
        if self.verdict == "scores":
            said.append("No prevalence explains it: the scores themselves are others here, and tell no threshold.")
        elif self.verdict != "none" and self.prevalence is None:
            said.append("Scores alone cannot tell why: too little is known of those of the calibration.")
        elif self.verdict == "unclear":
            others = " or ".join(self.instead)
            said.append(f"Either {self._number} ({self._fit}), or {others}: scores alone cannot tell which.")
        elif self.verdict == "prevalence":
            said.append(f"It seems that {self._number}; scores that moved would not explain it. So {self._fit}.")
        return " ".join(said)

    def __str__(self) -> str:
        """Say also what to do."""
        label = f" Label {self.to_label} of these rows and calibrate again." if self.to_label else ""
        return self.findings + label

    @property
    def _number(self) -> str:
        """Say how many positives there seem to be."""
        here, there = float(self.prevalence or 0), float(self.prevalence_there or 0)
        ends = f" ({percent(self.interval[0])} to {percent(self.interval[1])})" if self.interval else ""
        side = "fewer" if here < there else "more"
        return f"{side} of these rows are positive, {percent(here)}{ends} and not {percent(there)}"

    @property
    def _fit(self) -> str:
        """Say which threshold fits that number."""
        if self.threshold is None:
            return "no threshold is expected to keep what was asked of it"
        return (
            f"score > {self.threshold:.4f} fits, F1 {self.expected['f1']:.2f} is expected at it and "
            f"{self.expected_unchanged['f1']:.2f} at the old one"
        )


def advise(
    scores: ArrayLike,
    there: ScoreSummary,
    threshold: float,
    goal: Objective | None = None,
    limits: Constraints | None = None,
    *,
    error: float = ERROR,
    resamples: int = 200,
    seed: int = 0,
) -> Advice:
    """Say whether scores here differ from those of a calibration, why, and which threshold fits.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Of all rows here, without labels.
    there : ScoreSummary
        Of the labelled rows that `threshold` was chosen on.
    threshold : float
    goal, limits : optional
        What a threshold is chosen for; by default F1. Limits are kept as far as can be expected; without labels nothing
        is guaranteed. The most matches are of as many rows as there were there.
    error : float
        Chance of telling a shift where there is none.
    resamples, seed : int
        Bootstrap resamples for the interval of the prevalence, of rows there and here.

    Returns
    -------
    Advice

    Notes
    -----
    With P(positive | score) there, a logistic function of the score (bias-reduced, Firth 1993), the likelihood of the
    scores here has one maximum over the prevalence: where the EM of Saerens, Latinne and Decaestecker (2002) ends. The
    scores there, reweighted to it, explain those here unless their distance (5 %) or their matched share (3.5 %) is
    beyond chance. So do, tried in the same way, positives that score lower or higher, all scores moved, and all scores
    spread. A prevalence is advised only where it explains the scores and nothing else does: that *fewer* are there can
    hardly be told from positives that score lower, unless thousands are labelled. A match at `threshold` is a score
    larger than it.
    """
    shift = shift_of(scores, there, threshold, error)
    if not shift.differs:
        return Advice(shift, "none")
    odds = _LogOdds.fit(there.knots, *_as_counts(there)) if there.labelled and min(there.sizes[1:]) >= 2 else None
    if odds is None or not odds.slope > 0:
        return Advice(shift, "unclear", to_label=TO_LABEL)
    here = ScoreDistribution.of(scores)
    ordered = here.scores.astype(np.float64)
    values, counts = _binned(ordered)
    prevalence = float(_most_likely(odds.ratio(values), counts))
    seen, reweighted = _Seen(ordered, threshold), there.at_prevalence(prevalence, threshold)
    if not seen.explained_by(reweighted.knots, reweighted.mass, reweighted.size):
        return Advice(shift, "scores", there.prevalence, to_label=TO_LABEL)
    instead = seen.moves_of(there)
    kept = limits or Constraints(confidence=None)
    if kept.max_matches is not None:
        kept = dataclasses.replace(kept, max_matches=max(1, round(kept.max_matches * len(here) / there.n)))
    best, figures, unchanged = _rechosen(here, odds, prevalence, threshold, goal or Objective(), kept)
    return Advice(
        shift,
        "unclear" if instead else "prevalence",
        there.prevalence,
        prevalence,
        _interval(there, values, counts, resamples, seed),
        best,
        figures,
        unchanged,
        instead,
        TO_LABEL if instead or best is None else 0,
    )


@dataclass(frozen=True, eq=False)
class _LogOdds:
    """The logarithm of how much more often positives have a score than negatives: `start` + `slope` * score.

    Both may be arrays, of many fits at once.
    """

    start: Floats
    slope: Floats

    @classmethod
    def fit(cls, knots: Floats, positive: Floats, negative: Floats) -> _LogOdds:
        """Fit by logistic regression, with the penalty of Firth (1993), which is finite where scores separate classes.

        `positive` and `negative`, shape (..., k), are numbers of rows at each knot.
        """
        middle, scale = float(knots.mean()), float(knots.std()) or 1.0
        x = np.stack([np.ones(len(knots)), (knots - middle) / scale])
        rows = positive + negative
        prior = np.log(positive.sum(axis=-1) / negative.sum(axis=-1))
        beta = np.stack([prior, np.zeros_like(prior)], axis=-1)
        for _ in range(_NEWTON_STEPS):
            chance = 1 / (1 + np.exp(-np.clip(beta @ x, -500, 500)))
            spread = rows * chance * (1 - chance)
            inverse = np.linalg.pinv(np.einsum("...k,ik,jk->...ij", spread, x, x))
            leverage = spread * np.einsum("ik,...ij,jk->...k", x, inverse, x)
            score = np.einsum("...k,ik->...i", positive - rows * chance + leverage * (0.5 - chance), x)
            step = np.einsum("...ij,...j->...i", inverse, score)
            step *= np.minimum(1, 2 / np.maximum(np.abs(step).max(axis=-1, keepdims=True), 1e-300))
            beta = beta + step
            if np.abs(step).max() < 1e-9:
                break
        slope = beta[..., 1] / scale
        return cls(beta[..., 0] - slope * middle - prior, slope)

    def ratio(self, scores: Floats) -> Floats:
        """Return how many times as often positives have each score as negatives, shape (..., n)."""
        logs = self.start[..., np.newaxis] + self.slope[..., np.newaxis] * scores
        odds: Floats = np.exp(np.clip(logs, -300, 300))
        return odds


def _as_counts(there: ScoreSummary) -> tuple[Floats, Floats]:
    """Return the positives and the negatives at each knot, as many as they are worth."""
    _, n_pos, n_neg = there.sizes
    return n_pos * there.positive / there.positive.sum(), n_neg * there.negative / there.negative.sum()


def _binned(ordered: Floats) -> tuple[Floats, Floats]:
    """Return ascending scores as at most 512 values and how many rows each stands for."""
    if len(ordered) <= _BINS:
        return ordered, np.ones(len(ordered))
    counts, edges = np.histogram(ordered, _BINS)
    return (edges[:-1] + edges[1:]) / 2, counts.astype(np.float64)


def _most_likely(ratio: Floats, counts: Floats) -> Floats:
    """Return the prevalence in [0, 1] of the largest likelihood, shape (...), by bisection of its derivative.

    ``prod(1 - p + p * ratio) ** counts`` is log-concave in p.
    """
    low, high = np.zeros(ratio.shape[:-1]), np.ones(ratio.shape[:-1])
    for _ in range(50):
        middle = (low + high) / 2
        rising = (counts * (ratio - 1) / (1 + middle[..., np.newaxis] * (ratio - 1))).sum(axis=-1) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return (low + high) / 2


def _interval(there: ScoreSummary, values: Floats, counts: Floats, resamples: int, seed: int) -> Interval | None:
    """Return the percentiles of the prevalence over resamples of the rows there and here."""
    if not resamples:
        return None
    rng = np.random.default_rng(seed)
    positive, negative = (
        rng.multinomial(round(rows.sum()), rows / rows.sum(), resamples).astype(np.float64)
        for rows in _as_counts(there)
    )
    drawn = rng.multinomial(round(counts.sum()), counts / counts.sum(), resamples).astype(np.float64)
    found = _most_likely(_LogOdds.fit(there.knots, positive, negative).ratio(values), drawn)
    low, high = np.quantile(found, [0.025, 0.975]).tolist()
    return low, high


@dataclass(frozen=True, eq=False)
class _Seen:
    """The scores here, to which explanations are put: both tests of `shift`, at 5 % and 3.5 %."""

    ordered: Floats
    threshold: float

    def explained_by(self, knots: Floats, mass: Floats, size: float) -> bool:
        """Say whether shape and matched share differ from `mass` at `knots`, of `size` rows, by no more than chance."""
        order = np.argsort(knots, kind="stable")
        critical = max(SAME_SHAPE, critical_distance(len(self.ordered), size, ERROR))
        if distance(self.ordered, knots[order], mass[order]) > critical:
            return False
        n, rows = len(self.ordered), max(1, round(size))
        matches = n - int(np.searchsorted(self.ordered, self.threshold, side="right"))
        expected = round(float(mass[knots > self.threshold].sum()) * rows)
        return same_share_p(expected, rows, matches, n) >= OF_SHARE * ERROR

    def moves_of(self, there: ScoreSummary) -> tuple[str, ...]:
        """Return, in words, which moves of the scores there explain those here, at the prevalence there."""
        knots, mass, middle = there.knots, there.mass, there.quantile(0.5)
        n_pos, n_neg = there.positive.sum(), there.negative.sum()
        apart = float(knots @ there.positive / n_pos - knots @ there.negative / n_neg)
        both = np.concatenate([there.positive, there.negative]) / (n_pos + n_neg)
        steps, spreads, labelled = apart * _MOVES, _SPREADS, there.at_prevalence(there.prevalence, 0.0).size
        tried = (
            (
                "the positives score",
                ("lower", "higher"),
                steps,
                [(np.append(knots + by, knots), both, labelled) for by in steps],
            ),
            ("all rows score", ("lower", "higher"), steps, [(knots + by, mass, there.size) for by in steps]),
            (
                "the scores lie",
                ("closer together", "farther apart"),
                spreads - 1,
                [(middle + by * (knots - middle), mass, there.size) for by in spreads],
            ),
        )
        words = []
        for what, (down, up), sizes, moved in tried:
            fitting = [by for by, scores in zip(sizes, moved, strict=True) if self.explained_by(*scores)]
            words += [f"{what} {down if np.mean(fitting) < 0 else up} here"] if fitting else []
        return tuple(words)


def _rechosen(
    here: ScoreDistribution,
    odds: _LogOdds,
    prevalence: float,
    threshold: float,
    goal: Objective,
    limits: Constraints,
) -> tuple[float | None, dict[str, float], dict[str, float]]:
    """Return the best threshold by the expected counts of the rows here, its figures, and those of the old one."""
    distinct, counts = np.unique(here.scores, return_counts=True)
    odds_here = prevalence * odds.ratio(distinct.astype(np.float64))
    chance = odds_here / (odds_here + 1 - prevalence)
    tp, fp = (np.append(np.cumsum((counts * share)[::-1])[::-1], 0.0) for share in (chance, 1 - chance))
    curve: Any = Curve(distinct, tp, fp, float(tp[0]), float(fp[0]))

    def figures(cut: int) -> dict[str, float]:
        return {name: float(getattr(curve, name)[cut]) for name in ("precision", "recall", "f1")}

    unchanged = figures(curve.cut(threshold))
    try:
        best = choose(curve, goal, limits).threshold
    except UnreachableError:
        return None, {}, unchanged
    return best, figures(curve.cut(best)), unchanged
