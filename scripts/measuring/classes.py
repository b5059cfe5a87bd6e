"""Several classes, queries and copies: which class is decided for, which query is best, what counts as evidence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from embedstore.deciding.same_pictures import linked
from embedstore.errors import UnreachableError
from embedstore.measures.calibration import calibrate_scores
from embedstore.measures.competition import compete
from embedstore.measures.ranking import rank_scores
from embedstore.vectors import normalise
from measuring.cell import Cell, at_least, at_most, is_above

_OFFSETS = np.array([0.215, 0.222, 0.218, 0.2455, 0.220])
_SCALES = np.array([0.016, 0.020, 0.018, 0.012, 0.022])
_RISES = np.array([2.75, 2.75, 2.57, 0.55, 2.75])
"""How much higher its own class scores, in the scale of each query: the fourth has a weak prompt, and a high offset."""
_NEXT = 0.35
"""A query's score also rises by this share for the class before it."""
NAMES = tuple("abcde")


def five_classes(n: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores, shape (5, n), of five overlapping classes that share half of their noise, and the true classes."""
    truth = rng.integers(5, size=n)
    rises = (np.eye(5) + _NEXT * np.roll(np.eye(5), 1, axis=1)) * _RISES
    z = rng.normal(size=(n, 5)) + rng.normal(size=(n, 1)) + rises[truth]
    return (_OFFSETS + _SCALES * z).T.astype(np.float32), truth


def decided(n: int, rng: np.random.Generator) -> dict[str, float]:
    """Return how right each way to decide is on 5,000 further rows, and what the measured accuracy is off by."""
    (scores, truth), (further, there) = five_classes(n, rng), five_classes(5000, rng)
    made = compete(scores, [NAMES[place] for place in truth], NAMES)
    thresholds = [
        calibrate_scores(line, truth == place, resamples=0, validation="none").threshold
        for place, line in enumerate(scores)
    ]
    margins = further - np.array(thresholds)[:, np.newaxis]
    right = float((made.decide(further) == there).mean())
    counts = made.confusion
    assert counts is not None
    return {
        "cosine": float((further.argmax(axis=0) == there).mean()),
        "margin": float(((margins.argmax(axis=0) == there) & (margins.max(axis=0) > 0)).mean()),
        "probability": right,
        "off": counts.accuracy - right,
    }


def average_precision(separation: float, prevalence: float) -> float:
    """Return that of normal scores over all rows that there could be."""
    grid = np.linspace(-8, 12, 4001)
    hits, false = prevalence * ndtr(separation - grid), (1 - prevalence) * ndtr(-grid)
    density = np.exp(-((grid - separation) ** 2) / 2) / np.sqrt(2 * np.pi)
    return float(np.trapezoid(hits / (hits + false) * density, grid))


def ranked(n: int, separations: NDArray[np.float64], prevalence: float, rng: np.random.Generator) -> dict[str, float]:
    """Return how far the best query's figures are off, the share of intervals that hold, and what was told apart."""
    truth = rng.random(n) < prevalence
    while truth.sum() < 4:
        truth = rng.random(n) < prevalence
    noise = np.sqrt(0.5) * (rng.normal(size=n) + rng.normal(size=(len(separations), n)))
    scores = (noise + separations[:, np.newaxis] * truth).astype(np.float32)
    made = rank_scores(scores, truth)
    known = {separation: average_precision(separation, prevalence) for separation in set(separations.tolist())}
    true = np.array([known[separation] for separation in separations.tolist()])
    corrected = made.corrected
    assert corrected is not None
    return {
        "raw": float(made.average_precision[made.best] - true[made.best]),
        "corrected": corrected - float(true[made.best]),
        "inside": float(
            np.mean([low <= value <= high for (low, high), value in zip(made.intervals, true, strict=True)])
        ),
        "apart": float((~made.as_good & (true == true.max())).any()),
    }


def copied(
    pictures: int, rng: np.random.Generator, dim: int = 64
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    """Return scores, truth and unit vectors of rows: one picture in four is there eight times, each saved anew."""
    query = np.eye(dim)[0]
    truth = rng.random(pictures) < 0.3
    rest = rng.normal(size=(pictures, dim)) * (query == 0)
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    cosines = np.clip(0.2 + 0.05 * (rng.normal(size=pictures) + 2.5 * truth), -0.9, 0.9)
    vectors = cosines[:, np.newaxis] * query + np.sqrt(1 - cosines**2)[:, np.newaxis] * rest
    times = np.where(rng.random(pictures) < 0.25, 8, 1)
    rows = np.repeat(np.arange(pictures), times)
    noise = rng.normal(size=(len(rows), dim)) * (0.1 / np.sqrt(dim)) * (times[rows] > 1)[:, np.newaxis]
    found = normalise((vectors[rows] + noise).astype(np.float32))
    return found[:, 0].copy(), truth[rows], found


def broken(rng: np.random.Generator, by_cosine: bool, pictures: int = 300, promised: float = 0.8) -> bool | None:
    """Say whether the precision on further pictures is below what such labels guaranteed; None if they could not."""
    scores, truth, vectors = copied(pictures, rng)
    groups = linked(vectors) if by_cosine else None
    wishes = {"objective": "recall", "min_precision": promised, "resamples": 0, "validation": "none"}
    try:
        threshold = calibrate_scores(scores, truth, groups, **wishes).threshold
    except UnreachableError:
        return None
    z = (threshold - 0.2) / 0.05
    hits, false = 0.3 * ndtr(2.5 - z), 0.7 * ndtr(-z)
    return bool(hits / (hits + false) < promised)


def cells(draws: int, seed: int) -> Iterator[Cell]:
    """Yield cells of the decision between classes, of the ranking of queries, and of guarantees with copies."""
    rng = np.random.default_rng([seed, 1])
    few = max(10, draws // 5)
    found = [decided(500, rng) for _ in range(few)]
    seen = {name: np.array([one[name] for one in found]) for name in found[0]}
    where = "5 overlapping classes, 500 labels"
    told = f"{where}; cosine {seen['cosine'].mean():.3f}, margin {seen['margin'].mean():.3f}"
    yield is_above("right by probability", told, seen["probability"], 0.80)
    yield _near_zero("measured accuracy less true", where, seen["off"], 0.01)
    for name, rises in {"20 equal queries": np.ones(20), "20 useless queries": np.zeros(20)}.items():
        made = [ranked(150, rises, 0.1, rng) for _ in range(few)]
        raw = np.mean([one["raw"] for one in made])
        world = f"{name}, 150 labels, 10% positive"
        yield _near_zero(
            "best AP less true", f"{world}; was {raw:+.3f}", np.array([o["corrected"] for o in made]), 0.02
        )
        inside = np.array([one["inside"] for one in made])
        yield is_above("interval of average precision", world, inside, 0.93)
        yield at_most("as good ones told apart", world, int(sum(o["apart"] for o in made)), few, 0.05)
    for by_cosine in (False, True):
        found_out = [broken(np.random.default_rng([seed, 2, draw]), by_cosine) for draw in range(draws)]
        wrong, chosen = sum(map(bool, found_out)), draws - found_out.count(None)
        labels = f"300 pictures, one in four 8 times, {chosen} chosen"
        if by_cosine:
            yield at_most("precision >= 0.8, copies by cosine", labels, wrong, draws, 0.05)
        else:
            yield at_least("precision >= 0.8 is broken with copies apart", labels, wrong, draws, 0.05)


def _near_zero(what: str, where: str, values: NDArray[np.float64], most: float) -> Cell:
    """Return the cell of a bias that must be small, two of its standard errors allowed for."""
    mean, error = float(values.mean()), float(values.std() / np.sqrt(len(values)))
    return Cell(what, where, mean, f"within {most:g}", abs(mean) - 2 * error <= most, len(values))
