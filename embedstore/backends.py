"""One model, two backends: how far apart their vectors lie, and what that does to scores and thresholds.

Takes vectors of the same pictures and texts from both, returns a `Comparison` that prints. Where pictures come from
and which embedders are meant is left to the callers (`of_store`, `of_source`, the command line).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore import images
from embedstore.embedders import checked
from embedstore.embedders.protocol import Embedder
from embedstore.errors import ImageError, InputError
from embedstore.sources import open_source
from embedstore.sources.places import pictures_at
from embedstore.space import Space
from embedstore.store import EmbedStore
from embedstore.vectors import Vectors

QUERIES = (
    "a photo of a person",
    "a photo of an animal",
    "a photo of food",
    "a photo of a building",
    "a vehicle",
)
"""What is asked when the caller names no queries."""

SHARES = (0.01, 0.05, 0.1, 0.25)
"""Shares of the pictures for which thresholds are compared."""

_PERCENTILES = (50, 95, 99, 100)
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two backends on the same pictures and queries.

    Attributes
    ----------
    first, second : Space
    queries : list of str
    gaps : ndarray of shape (n,), float64
        ``1 - cosine`` of the two vectors of each picture; 0 when they are equal.
    first_scores, second_scores : ndarray of shape (n_queries, n), float64
        Each backend's query vectors with its own pictures' vectors.
    mixed_scores : ndarray of shape (n_queries, n), float64
        Query vectors of the second with pictures' vectors of the first: what ``--allow-mixed-backend`` gives.
    """

    first: Space
    second: Space
    queries: list[str]
    gaps: Floats
    first_scores: Floats
    second_scores: Floats
    mixed_scores: Floats

    def thresholds(self, share: float) -> Floats:
        """Return the thresholds above which `share` of the pictures lie, shape (n_queries, 3): first, second, mixed.

        Midway between the neighbouring scores, as calibration places them.
        """
        count = self.gaps.size
        matches = min(max(1, round(share * count)), count - 1)
        found = []
        for scores in (self.first_scores, self.second_scores, self.mixed_scores):
            ordered = -np.sort(-scores, axis=1)
            found.append((ordered[:, matches - 1] + ordered[:, matches]) / 2)
        return np.stack(found, axis=1)

    def flips(self, share: float) -> tuple[Floats, Floats]:
        """Return the shares of pictures that decide otherwise under the first's threshold, by query: second, mixed."""
        limit = self.thresholds(share)[:, :1]
        own = self.first_scores > limit
        other, mixed = self.second_scores > limit, self.mixed_scores > limit
        return (own != other).mean(axis=1), (own != mixed).mean(axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        shifts = {
            "second": self.second_scores - self.first_scores,
            "mixed": self.mixed_scores - self.first_scores,
        }
        return {
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "pictures": int(self.gaps.size),
            "queries": self.queries,
            "cosine_gap": {"mean": float(self.gaps.mean())}
            | {f"p{p}": float(np.percentile(self.gaps, p)) for p in _PERCENTILES},
            "score_shift": {
                name: {"mean": float(shift.mean()), "largest": float(np.abs(shift).max())}
                for name, shift in shifts.items()
            },
            "thresholds": [self._at(share) for share in SHARES if self.gaps.size * share >= 1],
        }

    def _at(self, share: float) -> dict[str, Any]:
        limits = self.thresholds(share)
        other, mixed = self.flips(share)
        return {
            "share": share,
            "shift_second": float(np.abs(limits[:, 1] - limits[:, 0]).max()),
            "shift_mixed": float(np.abs(limits[:, 2] - limits[:, 0]).max()),
            "flips_second": float(other.mean()),
            "flips_mixed": float(mixed.mean()),
        }

    def __str__(self) -> str:
        about = self.to_dict()
        gap, shift = about["cosine_gap"], about["score_shift"]
        lines = [
            f"first   {self.first}",
            f"second  {self.second}",
            f"{self.gaps.size:,} pictures, {len(self.queries)} queries",
            "",
            "1 - cosine of a picture's two vectors:  "
            + "  ".join([f"mean {gap['mean']:.2e}", *(f"p{p} {gap[f'p{p}']:.2e}" for p in _PERCENTILES)]),
            f"scores, all of the second backend:      shift {shift['second']['mean']:+.5f} on average, at most "
            f"{shift['second']['largest']:.5f}",
            f"scores, only the query of the second:   shift {shift['mixed']['mean']:+.5f} on average, at most "
            f"{shift['mixed']['largest']:.5f}",
        ]
        if about["thresholds"]:
            lines += ["", "threshold for   shifts by at most         decides otherwise unless moved"]
            lines.append("                second      mixed         second      mixed")
        for row in about["thresholds"]:
            lines.append(
                f"top {row['share']:>5.0%}       {row['shift_second']:.5f}     {row['shift_mixed']:.5f}       "
                f"{row['flips_second']:>6.2%}      {row['flips_mixed']:>6.2%}"
            )
        return "\n".join(lines)


def of_store(
    store: EmbedStore, second: Embedder, sample: int = 200, queries: Sequence[str] = QUERIES, seed: int = 0
) -> Comparison:
    """Compare a store's own vectors with another backend's, on a sample of its pictures.

    The store's pictures are not embedded again; its query vectors come from its cache where they can.

    Raises
    ------
    SpaceMismatchError
        The second embedder is of another model.
    InputError
        Fewer than two of the store's pictures can be read where they were.
    """
    _require_same_model(store.space, second.space)
    rows = store.to_table(["id", "uri", "content_hash"]).to_pylist()
    chosen = [rows[place] for place in _sample(len(rows), sample, seed)]
    pictures = pictures_at(row["uri"] for row in chosen)
    prepared, ids = [], []
    for row in chosen:
        try:
            picture = images.read(pictures[row["uri"]])
        except (KeyError, ImageError, OSError):
            continue  # not there any more: the sample is what can be read, and its size is printed
        if picture.content_hash == row["content_hash"]:
            prepared.append(second.prepare(picture.image))
            ids.append(row["id"])
    if len(ids) < 2:
        raise InputError(
            f"{len(ids)} of {len(chosen)} pictures can be read where they were; name a folder instead"
        )
    return _compared(
        store.space,
        store.vectors(ids),
        store.query_vectors(list(queries)),
        second,
        _embedded(second, prepared),
        queries,
    )


def of_source(
    source: Any,
    first: Embedder,
    second: Embedder,
    sample: int = 200,
    queries: Sequence[str] = QUERIES,
    seed: int = 0,
) -> Comparison:
    """Compare two backends on a sample of a source's pictures, each embedded by both.

    Raises
    ------
    SpaceMismatchError
        They are of two models.
    InputError
        The source has fewer than two pictures that can be read.
    """
    _require_same_model(first.space, second.space)
    records = list(open_source(source))
    pictures = []
    for place in _sample(len(records), sample, seed):
        try:
            pictures.append(images.read(records[place].load()).image)
        except (ImageError, OSError):
            continue  # as in `of_store`
    if len(pictures) < 2:
        raise InputError(f"{len(pictures)} of {len(records)} pictures can be read; a comparison needs two")
    one, two = (_embedded(each, [each.prepare(picture) for picture in pictures]) for each in (first, second))
    return _compared(first.space, one, checked.texts(first, list(queries)), second, two, queries)


def _compared(
    first: Space, one: Vectors, one_texts: Vectors, second: Embedder, two: Vectors, queries: Sequence[str]
) -> Comparison:
    a, b = one.astype(np.float64), two.astype(np.float64)
    p, q = one_texts.astype(np.float64), checked.texts(second, list(queries)).astype(np.float64)
    gaps = np.square(a - b).sum(axis=1) / 2  # equals 1 - a.b for unit vectors, without its cancellation
    return Comparison(first, second.space, list(queries), gaps, p @ a.T, q @ b.T, q @ a.T)


def _embedded(embedder: Embedder, prepared: Sequence[Any]) -> Vectors:
    size = embedder.batch_size
    starts = range(0, len(prepared), size)
    return np.concatenate([checked.pictures(embedder, prepared[start : start + size]) for start in starts])


def _sample(total: int, size: int, seed: int) -> list[int]:
    """Draw positions without replacement, ascending."""
    drawn = np.random.default_rng(seed).permutation(total)[:size]
    return sorted(int(place) for place in drawn)


def _require_same_model(first: Space, second: Space) -> None:
    if not first.same_model(second):
        first.require(second, "the second backend")
